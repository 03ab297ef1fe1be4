// SPDX-License-Identifier: MIT OR Apache-2.0
//! Translations and invalidations that overtake each other: what an invalidation made invalid is not sent once that has
//! returned, and what it left is in force.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Host;
use msiroute::message::{GuestMessage, Message, NO_REQUESTER};
use msiroute::remap::Translation;
use msiroute::{Config, Delivery, Device, DeviceConfig, Kind, Masking, RouteCache};
use vmm_sys_util::eventfd::EventFd;

const APIC: u64 = 0xFEE0_0000;
/// Remappable format; the handle is in bits 19:5.
fn handle(n: u64) -> u64 {
    APIC | n << 5 | 1 << 4
}

fn cache(guest: impl Fn(&Message) -> i32 + Send + Sync + 'static) -> Arc<RouteCache> {
    let model = Model::with_thread(Irqchip::Full, Model::x86_features(), Box::new(guest)).unwrap();
    RouteCache::new(Host::Other(Box::new(model)), &Config::default()).unwrap()
}

fn fd(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: open while the EventFd lives.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

fn to(data: u32, tag: u64) -> Translation {
    Translation { message: Some(GuestMessage { address: APIC, data }), tag }
}

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
        let sent = Arc::new(Mutex::new(Vec::new()));
        let guest = {
            let sent = sent.clone();
            move |message: &Message| {
                sent.lock().unwrap().push(message.data);
                1
            }
        };
        let cache = cache(guest);
        let device = Device::new(&cache, DeviceConfig::new(Kind::Plain, 2)).unwrap();
        device.mask(1).unwrap();
        device.set(1, handle(1), 0).unwrap();
        let entry = Arc::new(AtomicU32::new(0x30));
        let holds_next = Arc::new(AtomicBool::new(false));
        let (is_inside, inside) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let function = {
            let (entry, holds_next, released) =
                (entry.clone(), holds_next.clone(), Mutex::new(released));
            move |_: u32, _: GuestMessage| {
                let data = entry.load(SeqCst);
                if holds_next.swap(false, SeqCst) {
                    is_inside.send(()).unwrap();
                    released.lock().unwrap().recv().unwrap();
                }
                to(data, 1)
            }
        };
        cache.set_remap(Some(Box::new(function))).unwrap();
        holds_next.store(true, SeqCst);
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| call(&device, &cache));
            inside.recv().unwrap();
            entry.store(0x31, SeqCst);
            cache.invalidate(NO_REQUESTER, 1..=1).unwrap();
            let before = sent.lock().unwrap().len();
            for index in 0..2 {
                let _ = device.deliver(index).unwrap();
            }
            release.send(()).unwrap();
            assert!(caller.join().unwrap());
            for index in 0..2 {
                let _ = device.deliver(index).unwrap();
            }
            let sent = sent.lock().unwrap();
            assert!(sent.len() > before, "{name}: nothing was sent");
            assert!(sent[before..].iter().all(|&data| data == 0x31), "{name}: {sent:#x?}");
        });
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
    let cache = cache(guest);
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
    let eventfds: Vec<EventFd> =
        (0..VECTORS).map(|_| EventFd::new(libc::EFD_NONBLOCK).unwrap()).collect();
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
        let changers = [0u32, 1].map(|thread| {
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    invalidate((round + thread) % VECTORS, round % 5 == 0);
                }
            })
        });
        let (device, over, cache, eventfds) = (&device, &over, &cache, &eventfds);
        let masker = scope.spawn(move || {
            let mut round = 0;
            while !over.load(SeqCst) {
                let index = round % VECTORS;
                device.mask(index).unwrap();
                if round % 3 == 0 {
                    device.clear(index).unwrap();
                    device.set(index, handle(index.into()), 0).unwrap();
                }
                device.unmask(index).unwrap();
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
