// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping, stopped between two steps: in the vIOMMU's function, before a write of the table, before a message.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod viommu;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};
use std::time::{Duration, Instant};

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Features;
use msiroute::message::NO_REQUESTER;
use msiroute::remap::Translation;
use msiroute::{Device, Masking, RouteCache};
use parking_lot::ReentrantMutex;
use viommu::{bind, handle, to, wait_until, Gate, Machine, APIC};
use vmm_sys_util::eventfd::EventFd;

/// How long what does not wait may take to be found out.
const LONG_ENOUGH: Duration = Duration::from_millis(20);
/// How long what does not end may take to be found out.
const FOR_EVER: Duration = Duration::from_secs(10);

/// Two devices with an eventfd each, and entries of their own that have tag 1. An invalidation asks about the first, and
/// is held there if `asked` is shut; the second's entry has changed.
struct Invalidated {
    machine: Machine,
    _first: Arc<Device>,
    second: Arc<Device>,
    /// The second's.
    eventfd: EventFd,
    entry: Box<dyn Fn(u32) + Sync>,
    asked: Arc<Gate>,
}

impl Invalidated {
    const OLD: u32 = 0x30;
    const NEW: u32 = 0x31;
    const NEWER: u32 = 0x33;
    /// Of requester 2.
    const OTHER: u32 = 0x32;

    fn new() -> Self {
        let machine = Machine::of_x86();
        let devices = [0, 1].map(|requester| machine.device_of(requester));
        let entries = Arc::new([Self::OLD, Self::OLD, Self::OTHER].map(AtomicU32::new));
        let order = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(Gate::default());
        machine.remap({
            let (entries, order, asked) = (entries.clone(), order.clone(), asked.clone());
            move |requester| {
                let index = usize::try_from(requester).unwrap();
                order.lock().unwrap().push(index);
                asked.pass();
                to(entries[index].load(SeqCst), 1)
            }
        });
        let eventfds = devices.each_ref().map(|device| {
            device.set(0, handle(1), 0).unwrap();
            bind(device, 0, Masking::Unbind)
        });
        order.lock().unwrap().clear();
        machine.cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
        let second = order.lock().unwrap()[1];
        let entry = Box::new(move |data| entries[second].store(data, SeqCst));
        entry(Self::NEW);
        let [device, other] = [second, 1 - second].map(|index| devices[index].clone());
        let eventfd = eventfds[second].try_clone().unwrap();
        Invalidated { machine, _first: other, second: device, eventfd, entry, asked }
    }

    fn invalidate(&self) {
        self.machine.cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
    }

    /// What a signal of the second's eventfd sends.
    fn signalled(&self) -> Vec<u32> {
        self.eventfd.write(1).unwrap();
        self.machine.sent()
    }
}

/// The second is answered by another thread, which is writing the table.
#[test]
fn an_invalidation_waits_for_the_table_of_who_was_faster() {
    type Call = fn(&Invalidated);
    let calls: [(&str, Call); 2] =
        [("unmask", |it| it.second.unmask(0).unwrap()), ("invalidate", Invalidated::invalidate)];
    for (name, call) in calls {
        let it = Invalidated::new();
        it.asked.shut();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                it.invalidate();
                is_done.store(true, SeqCst);
            });
            it.asked.wait();
            it.machine.doors.table.shut();
            scope.spawn(|| call(&it));
            it.machine.doors.table.wait();
            it.asked.open();
            std::thread::sleep(LONG_ENOUGH);
            let was_done = is_done.load(SeqCst);
            let sent = it.signalled();
            it.machine.doors.table.open();
            assert!(!was_done, "{name}: the invalidation had returned, and {sent:#x?} was sent");
        });
        assert_eq!(it.signalled(), [Invalidated::NEW], "{name}");
    }
}

/// The second is answered by another thread, which tells the kernel at its commit.
#[test]
fn an_invalidation_does_not_wait_for_a_commit() {
    let it = Invalidated::new();
    it.asked.shut();
    std::thread::scope(|scope| {
        let invalidation = scope.spawn(|| it.invalidate());
        it.asked.wait();
        it.machine.cache.begin().unwrap();
        // The same message.
        it.second.set(0, handle(1), 0).unwrap();
        it.asked.open();
        invalidation.join().unwrap();
        let sent = it.signalled();
        it.machine.cache.commit().unwrap();
        assert_eq!(sent, [Invalidated::NEW]);
    });
    assert_eq!(it.signalled(), [Invalidated::NEW]);
}

/// One invalidation writes the table, the next waits to do so: for a route of its own, for the first has taken the eventfd's.
/// Meanwhile another thread exchanges the message once more, and tells the kernel at its commit.
#[test]
fn an_invalidation_sees_to_what_is_exchanged_under_its_write() {
    let it = Invalidated::new();
    it.machine.doors.table.shut();
    std::thread::scope(|scope| {
        scope.spawn(|| it.invalidate());
        it.machine.doors.table.wait();
        (it.entry)(Invalidated::NEWER);
        let invalidation = scope.spawn(|| it.invalidate());
        std::thread::sleep(LONG_ENOUGH);
        it.machine.cache.begin().unwrap();
        it.second.set_requester(2).unwrap();
        it.machine.doors.table.open();
        invalidation.join().unwrap();
        let sent = it.signalled();
        it.machine.cache.commit().unwrap();
        assert_eq!(sent, [Invalidated::OTHER]);
    });
    assert_eq!(it.signalled(), [Invalidated::OTHER]);
}

/// It is past the look whether there is a vIOMMU, and not sent yet.
#[test]
fn a_message_that_a_first_function_overtakes_is_translated() {
    let features = Features { routes: false, gsi_direct: true, ..Model::x86_features() };
    let machine = Machine::new(Irqchip::Full, features);
    machine.doors.gsi_of.shut();
    std::thread::scope(|scope| {
        let cache = &machine.cache;
        let sender = scope.spawn(|| cache.deliver_untranslated(handle(1), 0x30, NO_REQUESTER));
        machine.doors.gsi_of.wait();
        machine.remap(|_| Translation { message: None, tag: 1 });
        machine.doors.gsi_of.open();
        assert_eq!(sender.join().unwrap().unwrap(), None, "it is blocked");
    });
    assert_eq!(machine.sent(), []);
}

#[test]
fn a_first_function_waits_for_a_message_that_is_sent_past_it() {
    let machine = Machine::of_x86();
    let is_done = AtomicBool::new(false);
    machine.doors.signal.shut();
    std::thread::scope(|scope| {
        let cache = &machine.cache;
        scope.spawn(|| cache.deliver_untranslated(APIC, 0x30, NO_REQUESTER).unwrap());
        machine.doors.signal.wait();
        scope.spawn(|| {
            machine.remap(|_| to(0x31, 1));
            is_done.store(true, SeqCst);
        });
        std::thread::sleep(LONG_ENOUGH);
        let was_done = is_done.load(SeqCst);
        machine.doors.signal.open();
        assert!(!was_done, "the vIOMMU was there, and an untranslated message was sent");
    });
}

/// While one runs others begin, again and again.
#[test]
fn a_new_function_waits_for_calls_of_the_old_that_have_begun_and_not_for_others() {
    let machine = Machine::of_x86();
    let deliver = || {
        machine.cache.deliver_untranslated(handle(1), 0, NO_REQUESTER).unwrap();
        machine.sent().contains(&0x31)
    };
    let asked = Arc::new(Gate::default());
    machine.remap({
        let asked = asked.clone();
        move |_| {
            asked.pass();
            to(0x30, 1)
        }
    });
    asked.shut();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(deliver);
        asked.wait();
        scope.spawn(|| {
            machine.remap(|_| to(0x31, 1));
            is_done.store(true, SeqCst);
        });
        let deadline = Instant::now() + FOR_EVER;
        let mut is_new = false;
        while !is_new && Instant::now() < deadline {
            is_new = deliver();
        }
        std::thread::sleep(LONG_ENOUGH);
        let was_done = is_done.load(SeqCst);
        asked.open();
        assert!(is_new, "the old function was called all the time");
        assert!(!was_done, "the old function ran when there was a new one");
    });
}

/// A thread holds the VMM's recursive lock around a change, and the function takes it. Another's call of the function waits for
/// that lock, pausing for that call, and the change for the end of pausing.
#[test]
fn a_lock_that_is_held_around_a_change_may_be_taken_in_the_function() {
    type Call = Box<dyn FnOnce(&Arc<RouteCache>) + Send>;
    const OTHER: u32 = 1;
    let machine = Machine::of_x86();
    let device = machine.device(2);
    let [lock, other_lock] = {
        let lock = Arc::new(ReentrantMutex::new(()));
        [lock.clone(), lock]
    };
    let asked = Arc::new(Gate::default());
    let is_other_inside = Arc::new(AtomicBool::new(false));
    machine.remap({
        let (asked, is_other_inside) = (asked.clone(), is_other_inside.clone());
        move |requester| {
            is_other_inside.fetch_or(requester == OTHER, SeqCst);
            let _locked = lock.lock();
            if requester != OTHER {
                asked.pass();
            }
            to(0x30, 1)
        }
    });
    device.set_bus_master(false).unwrap();
    (0..2).for_each(|index| device.set(index, handle(1), 0).unwrap());
    asked.shut();
    let (done, all_done) = mpsc::channel();
    let spawn = |call: Call| {
        let (cache, done) = (machine.cache.clone(), done.clone());
        std::thread::spawn(move || {
            call(&cache);
            let _ = done.send(());
        })
    };
    spawn(Box::new(move |_| {
        let _locked = other_lock.lock();
        device.set_bus_master(true).unwrap();
    }));
    asked.wait();
    spawn(Box::new(|cache| {
        // Refused if it comes to be sent after the pause.
        let _ = cache.deliver_untranslated(handle(1), 0, OTHER);
    }));
    wait_until(|| is_other_inside.load(SeqCst));
    spawn(Box::new(|cache| cache.pause().unwrap()));
    let is_paused = || machine.cache.deliver_message(APIC, 0x40, NO_REQUESTER).is_err();
    wait_until(is_paused);
    asked.open();
    // Who waits for each other is not joined.
    for _ in 0..3 {
        assert!(all_done.recv_timeout(FOR_EVER).is_ok(), "threads wait for each other");
    }
}
