// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translations and invalidations that overtake each other: what an invalidation made invalid is not sent once that has
//! returned, and what it left is in force.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod viommu;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Host;
use msiroute::explicit::ExplicitRoutes;
use msiroute::message::{Addressing, GuestMessage, Message, NO_REQUESTER};
use msiroute::remap::Translation;
use msiroute::{Config, Delivery, Device, DeviceConfig, Kind, Masking, RouteCache};
use viommu::{bind, eventfd, fd, handle, to, Gate, Machine, APIC};
use vmm_sys_util::eventfd::EventFd;

/// While the vIOMMU's function is between its look at the table and its return, the table changes and is invalidated:
/// that answer is not used.
#[test]
fn a_translation_that_was_overtaken_is_not_used() {
    type Call = fn(&Device, &Arc<RouteCache>) -> bool;
    let calls: [(&str, Call); 3] = [
        ("set", |device, _| device.set(0, handle(2), 0).is_ok()),
        ("unmask", |device, _| device.unmask(1).is_ok()),
        ("deliver_message", |_, cache| {
            cache.deliver_untranslated(handle(1), 0, NO_REQUESTER).unwrap().is_some()
        }),
    ];
    for (name, call) in calls {
        let machine = Machine::of_x86();
        let cache = &machine.cache;
        let device = machine.device(2);
        device.mask(1).unwrap();
        device.set(1, handle(1), 0).unwrap();
        let entry = Arc::new(AtomicU32::new(0x30));
        let asked = Arc::new(Gate::default());
        machine.remap({
            let (entry, asked) = (entry.clone(), asked.clone());
            move |_| {
                let data = entry.load(SeqCst);
                asked.pass();
                to(data, 1)
            }
        });
        asked.shut();
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| call(&device, cache));
            asked.wait();
            entry.store(0x31, SeqCst);
            cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
            let _ = machine.sent();
            for index in 0..2 {
                let _ = device.deliver(index).unwrap();
            }
            asked.open();
            assert!(caller.join().unwrap());
            for index in 0..2 {
                let _ = device.deliver(index).unwrap();
            }
        });
        let sent = machine.sent();
        assert!(!sent.is_empty(), "{name}: nothing was sent");
        assert!(sent.iter().all(|&data| data == 0x31), "{name}: {sent:#x?}");
    }
}

/// Threads change entries and invalidate them, others mask, unmask and set the same vectors, others deliver and signal. What
/// is sent is never older than what the last invalidation that had returned by then left.
#[test]
fn nothing_invalid_is_sent_after_an_invalidation() {
    const VECTORS: u32 = 3;
    const ROUNDS: u32 = 400;
    /// Of one vector's entry in the vIOMMU's table: serial numbers.
    #[derive(Default)]
    struct Entry {
        now: AtomicU32,
        oldest: AtomicU32,
        sent: AtomicU64,
        writer: Mutex<()>,
    }
    let entries: Arc<[Entry]> = (0..VECTORS).map(|_| Entry::default()).collect();
    let stale = Arc::new(AtomicU32::new(0));
    let guest = {
        let (entries, stale) = (entries.clone(), stale.clone());
        move |message: &Message| {
            let entry = &entries[message.data as usize & 0xF];
            let serial = message.data >> 4;
            if serial < entry.oldest.load(SeqCst) {
                stale.fetch_add(1, SeqCst);
            }
            entry.sent.fetch_add(1, SeqCst);
            1
        }
    };
    let model = Model::with_thread(Irqchip::Full, Model::x86_features(), Box::new(guest)).unwrap();
    let cache = RouteCache::new(Host::Other(Box::new(model)), &Config::default()).unwrap();
    let device = Device::new(&cache, DeviceConfig::new(Kind::Plain, VECTORS)).unwrap();
    let function = {
        let entries = entries.clone();
        move |_: u32, message: GuestMessage| {
            let n = message.address >> 5 & 0xF;
            let serial = entries[usize::try_from(n).unwrap()].now.load(SeqCst);
            let blocked = serial % 7 == 6;
            let translation = to(serial << 4 | u32::try_from(n).unwrap(), n);
            match blocked {
                true => Translation { message: None, ..translation },
                false => translation,
            }
        }
    };
    cache.set_remap(Some(Box::new(function))).unwrap();
    let eventfds: Vec<EventFd> = (0..VECTORS).map(|_| eventfd()).collect();
    for index in 0..VECTORS {
        device.set(index, handle(index.into()), 0).unwrap();
        if index > 0 {
            let fd = fd(&eventfds[index as usize]);
            device.bind_eventfd(index, fd, Masking::Unbind).unwrap();
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let invalidate = |which: u32, all: bool| {
            let entry = &entries[which as usize];
            let writer = entry.writer.lock().unwrap();
            let serial = entry.now.fetch_add(1, SeqCst) + 1;
            drop(writer);
            let tags = if all { 0..=u64::MAX } else { which.into()..=which.into() };
            cache.invalidate(NO_REQUESTER, tags).unwrap();
            entry.oldest.fetch_max(serial, SeqCst);
        };
        let (device, over, cache, eventfds) = (&device, &over, &cache, &eventfds);
        let changers = [0u32, 1].map(|thread| {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    // Of several rounds; the others' are between them.
                    if thread == 1 && round % 4 == 0 {
                        cache.begin().unwrap();
                    }
                    invalidate((round + thread) % VECTORS, round % 5 == 0);
                    if thread == 1 && round % 4 == 3 {
                        cache.commit().unwrap();
                    }
                    if thread == 0 && round % 16 == 0 {
                        let x2apic_ids = round % 32 == 0;
                        let addressing = Addressing { x2apic_ids, ..Addressing::default() };
                        cache.set_addressing(addressing).unwrap();
                    }
                }
            })
        });
        let masker = scope.spawn(move || {
            let mut round = 0;
            while !over.load(SeqCst) {
                let index = round % VECTORS;
                if round % 2 == 0 {
                    cache.begin().unwrap();
                }
                if round % 16 < 2 {
                    device.set_requester(round).unwrap();
                }
                device.mask(index).unwrap();
                if round % 5 == 0 {
                    device.clear(index).unwrap();
                }
                // The same message, but for what was cleared.
                device.set(index, handle(index.into()), 0).unwrap();
                device.unmask(index).unwrap();
                if round % 2 == 0 {
                    cache.commit().unwrap();
                }
                round += 1;
            }
        });
        let sender = scope.spawn(move || {
            let mut round = 0;
            while !over.load(SeqCst) {
                let index = round % VECTORS;
                match index {
                    0 => _ = device.deliver(0).unwrap(),
                    index => eventfds[index as usize].write(1).unwrap(),
                }
                let message = (handle(index.into()), 0, NO_REQUESTER);
                cache.deliver_untranslated(message.0, message.1, message.2).unwrap();
                round += 1;
            }
        });
        changers.into_iter().for_each(|changer| changer.join().unwrap());
        over.store(true, SeqCst);
        masker.join().unwrap();
        sender.join().unwrap();
    });
    assert_eq!(stale.load(SeqCst), 0, "messages that had been invalidated were sent");

    // In the end each sends what its entry says, or is blocked by it.
    for index in 0..VECTORS {
        let entry = &entries[index as usize];
        let blocked = entry.now.load(SeqCst) % 7 == 6;
        let before = entry.sent.load(SeqCst);
        let delivery = device.deliver(index).unwrap();
        assert_eq!(delivery, if blocked { Delivery::Blocked } else { Delivery::Sent });
        let info = device.info(index).unwrap();
        assert_eq!((info.blocked, info.unserved), (blocked, false));
        assert_eq!(info.in_kernel, !blocked && index > 0);
        if blocked {
            entry.now.fetch_add(1, SeqCst);
            cache.invalidate(NO_REQUESTER, index.into()..=index.into()).unwrap();
        }
        assert!(entry.sent.load(SeqCst) > before);
    }
}

/// It stays an irqfd while its vector is masked, on the route of the old message.
#[test]
fn what_its_source_keeps_silent_is_not_sent_after_an_invalidation() {
    let machine = Machine::of_x86();
    let device = machine.told_device(|| {});
    let entry = Arc::new(AtomicU32::new(0x30));
    machine.remap({
        let entry = entry.clone();
        move |_| to(entry.load(SeqCst), 1)
    });
    device.set(0, handle(1), 0).unwrap();
    let eventfd = bind(&device, 0, Masking::AtSource);
    device.mask(0).unwrap();
    entry.store(0x31, SeqCst);
    machine.cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
    eventfd.write(1).unwrap();
    assert_eq!(machine.sent(), []);
    device.unmask(0).unwrap();
    assert_eq!(machine.sent(), [0x31]);
}

/// The kernel is told of the new requester's message at the commit, but for the invalidation.
#[test]
fn what_a_transaction_has_replaced_is_not_sent_after_its_invalidation() {
    let machine = Machine::of_x86();
    let device = machine.device_of(7);
    machine.remap(|requester| to(0x30 + requester, requester.into()));
    device.set(0, handle(1), 0).unwrap();
    let eventfd = bind(&device, 0, Masking::Unbind);
    machine.cache.begin().unwrap();
    device.set_requester(8).unwrap();
    machine.cache.invalidate(7, 0..=u64::MAX).unwrap();
    eventfd.write(1).unwrap();
    assert_eq!(machine.sent(), [0x38]);
    machine.cache.commit().unwrap();
    eventfd.write(1).unwrap();
    assert_eq!(machine.sent(), [0x38]);
}

/// The kernel has not been told of the new message when the vector is masked, and the eventfd stays an irqfd.
#[test]
fn what_its_source_keeps_silent_inside_a_transaction_is_not_sent_after_its_invalidation() {
    let machine = Machine::of_x86();
    let device = machine.told_device(|| {});
    machine.remap(|requester| to(0x30 + (requester & 0xF), requester.into()));
    device.set_requester(7).unwrap();
    device.set(0, handle(1), 0).unwrap();
    let eventfd = bind(&device, 0, Masking::AtSource);
    machine.cache.begin().unwrap();
    device.set_requester(8).unwrap();
    device.mask(0).unwrap();
    machine.cache.invalidate(7, 0..=u64::MAX).unwrap();
    eventfd.write(1).unwrap();
    assert_eq!(machine.sent(), []);
    machine.cache.commit().unwrap();
    device.unmask(0).unwrap();
    assert_eq!(machine.sent(), [0x38]);
}

/// By an eventfd that the VMM has bound to the pin's GSI: it is bound again when the pin's route has been written.
#[test]
fn a_pin_that_was_invalidated_while_paused_sends_what_is_new() {
    // Those that were made first are not always served first.
    for explicit_first in [true, false] {
        let machine = Machine::new(Irqchip::Split, Model::x86_features());
        let cache = &machine.cache;
        let before = explicit_first.then(|| ExplicitRoutes::new(cache).unwrap());
        let pins = Device::new(cache, DeviceConfig::new(Kind::Pins { first: 0 }, 24)).unwrap();
        let explicit = before.unwrap_or_else(|| ExplicitRoutes::new(cache).unwrap());
        let entry = Arc::new(AtomicU32::new(0x30));
        machine.remap({
            let entry = entry.clone();
            move |_| to(entry.load(SeqCst), 1)
        });
        pins.set(9, handle(1), 0).unwrap();
        let eventfd = eventfd();
        explicit.bind(9, fd(&eventfd), None).unwrap();
        cache.pause().unwrap();
        entry.store(0x31, SeqCst);
        cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
        eventfd.write(1).unwrap();
        cache.resume().unwrap();
        assert_eq!(machine.sent(), [0x31]);
    }
}

#[test]
fn a_message_that_is_not_translated_yet_is_set() {
    let machine = Machine::of_x86();
    let device = machine.device(1);
    machine.remap(|_| to(0x30, 1));
    device.mask(0).unwrap();
    device.set(0, handle(1), 0).unwrap();
    let info = device.info(0).unwrap();
    assert_eq!((info.address, info.set, info.live), (handle(1), true, false));
}

#[test]
fn what_cannot_be_sent_for_the_moment_stays_live_without_a_translation() {
    let machine = Machine::of_x86();
    let told = Arc::new(AtomicU32::new(0));
    let device = machine.told_device({
        let told = told.clone();
        move || _ = told.fetch_add(1, SeqCst)
    });
    machine.remap(|_| to(0x30, 1));
    let state = || (device.info(0).unwrap().live, told.load(SeqCst));
    device.set_bus_master(false).unwrap();
    device.set(0, handle(1), 0).unwrap();
    assert_eq!(state(), (true, 1));
    device.set_bus_master(true).unwrap();
    device.set_bus_master(false).unwrap();
    let before = state();
    assert!(before.0);
    machine.cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
    assert_eq!(state(), before);
}

#[test]
fn what_is_no_message_is_refused_when_the_viommu_has_gone() {
    let machine = Machine::of_x86();
    let device = machine.device(1);
    machine.remap(|_| to(0x30, 1));
    machine.cache.set_remap(None).unwrap();
    let refused = device.set(0, 1 << 32 | APIC, 0x30).unwrap_err();
    assert_eq!(refused.errno(), libc::EINVAL);
    assert!(!device.info(0).unwrap().blocked);
}
