// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every interleaving of the lock's protocol, with the light barrier as a fence.

use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;

use super::{wait_for, Readers};

struct Shared {
    readers: Readers,
    open: AtomicBool,
    acted: AtomicU32,
}

/// `rounds` sections in one thread against one writer: after the wait, nobody acts.
fn explore(enter: fn(&Readers) -> super::Section<'_>, rounds: usize) {
    loom::model(move || {
        let shared = Arc::new(Shared {
            readers: Readers::new(),
            open: AtomicBool::new(true),
            acted: AtomicU32::new(0),
        });
        let reader = thread::spawn({
            let shared = shared.clone();
            move || {
                for _ in 0..rounds {
                    let section = enter(&shared.readers);
                    if shared.open.load(Ordering::Acquire) {
                        shared.acted.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(section);
                }
            }
        });
        shared.open.store(false, Ordering::SeqCst);
        wait_for(&shared.readers);
        let acted = shared.acted.load(Ordering::Relaxed);
        thread::yield_now();
        assert_eq!(shared.acted.load(Ordering::Relaxed), acted);
        reader.join().unwrap();
        assert_eq!(shared.acted.load(Ordering::Relaxed), acted);
    });
}

#[test]
fn sections_in_a_slot() {
    explore(Readers::enter, 2);
}

#[test]
fn counted_sections() {
    explore(Readers::enter_counted, 2);
}
