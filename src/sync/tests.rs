// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lock on real threads, where the asymmetry is real too.
#![allow(clippy::unwrap_used, reason = "a test that cannot begin has failed")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{barrier, in_section, wait_for, Readers};

#[test]
fn a_section_inside_a_section_is_counted() {
    let (outer, inner) = (Readers::new(), Readers::new());
    assert!(!in_section());
    let first = outer.enter();
    let second = inner.enter();
    assert!(!first.is_counted());
    assert!(second.is_counted());
    assert!(in_section());
    drop(second);
    drop(first);
    assert!(!in_section());
}

#[test]
fn threads_give_their_slots_back() {
    let readers = Readers::new();
    for _ in 0..super::threads::SLOTS * 2 {
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(!readers.enter().is_counted()));
        });
    }
}

/// The writer flips `open` off, waits, and then owns `value` until it flips it on: a reader that
/// acted on the old state would be seen as a change of `value` while it is owned.
fn stress(enter_counted: bool) {
    barrier::choose(false).unwrap();
    let readers = Readers::new();
    let (open, stop) = (AtomicBool::new(true), AtomicBool::new(false));
    let (value, reads) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let section =
                        if enter_counted { readers.enter_counted() } else { readers.enter() };
                    if open.load(Ordering::Acquire) {
                        value.fetch_add(1, Ordering::Relaxed);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(section);
                }
            });
        }
        for round in 0..3_000 {
            open.store(false, Ordering::SeqCst);
            wait_for(&readers);
            let before = value.load(Ordering::Relaxed);
            for _ in 0..round % 50 {
                std::hint::spin_loop();
            }
            assert_eq!(value.load(Ordering::Relaxed), before, "a reader acted on the old state");
            open.store(true, Ordering::SeqCst);
            if round % 64 == 0 {
                std::thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(reads.load(Ordering::Relaxed) > 0, "no reader ever ran");
}

#[test]
fn no_reader_acts_on_the_old_state_after_the_wait() {
    stress(false);
}

#[test]
fn no_counted_reader_does_either() {
    stress(true);
}
