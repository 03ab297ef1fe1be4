// SPDX-License-Identifier: MIT OR Apache-2.0
//! One thread's announcement of what it is reading.
//!
//! The owner stores the name, passes the light barrier, and loads the state it will act on. A
//! writer stores the state, passes the heavy barrier, and loads the name. By the barriers' promise
//! one of them sees the other: the reader the new state, or the writer the name. In the second
//! case the writer waits until the slot has moved on. `sequence` tells it that it has, even when
//! the owner is already reading the same object again: that newer section began after the change.

use std::ops::RangeInclusive;

use super::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Apart from its neighbours: each is written by one thread all the time.
#[repr(align(64))]
pub(super) struct Slot {
    /// The object being read, 0 for none. Written by the owner alone.
    name: AtomicUsize,
    /// Sections opened so far. Written by the owner alone, before `name`.
    sequence: AtomicUsize,
    /// Belongs to a thread.
    claimed: AtomicBool,
}

impl Slot {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Slot {
            name: AtomicUsize::new(0),
            sequence: AtomicUsize::new(0),
            claimed: AtomicBool::new(false),
        }
    }

    // The model checker's atomics are not made in constants.
    #[cfg(loom)]
    pub fn new() -> Self {
        Slot {
            name: AtomicUsize::new(0),
            sequence: AtomicUsize::new(0),
            claimed: AtomicBool::new(false),
        }
    }

    #[cfg(not(loom))]
    pub fn claim(&self) -> bool {
        self.claimed.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The owner exits; its last section is over.
    #[cfg(not(loom))]
    pub fn release(&self) {
        self.claimed.store(false, Ordering::Release);
    }

    /// For the owner: no section is open.
    #[inline(always)]
    pub fn is_free(&self) -> bool {
        self.name.load(Ordering::Relaxed) == 0
    }

    #[inline(always)]
    pub fn enter(&self, name: usize) {
        let next = self.sequence.load(Ordering::Relaxed).wrapping_add(1);
        // Release, here and in `leave`: a writer that sees any of the three knows what the section before
        // did, and may reuse what it was reading; and who sees the name sees its number.
        self.sequence.store(next, Ordering::Release);
        self.name.store(name, Ordering::Release);
    }

    #[inline(always)]
    pub fn leave(&self) {
        self.name.store(0, Ordering::Release);
    }

    /// For a writer past the heavy barrier: waits until the section that is open now, if it is on one
    /// of `names`, is closed.
    pub fn wait_while_in(&self, names: &RangeInclusive<usize>) {
        let is_in = || names.contains(&self.name.load(Ordering::Acquire));
        if !is_in() {
            return;
        }
        // Read after the name: it is this section's number or a later one's, never an earlier one's.
        // If a later one's, that section is waited for; it is as short as any.
        let sequence = self.sequence.load(Ordering::Acquire);
        let mut backoff = Backoff::new();
        while is_in() && self.sequence.load(Ordering::Acquire) == sequence {
            backoff.wait();
        }
    }
}

/// Waiting for a section to close: it holds one system call of a fraction of a microsecond, unless
/// its thread lost the processor.
pub(super) struct Backoff(u32);

impl Backoff {
    pub fn new() -> Self {
        Backoff(0)
    }

    #[cfg(not(loom))]
    pub fn wait(&mut self) {
        const SPINS: u32 = 64;
        const YIELDS: u32 = 8;
        self.0 = self.0.saturating_add(1);
        if self.0 <= SPINS {
            std::hint::spin_loop();
        } else if self.0 <= SPINS + YIELDS {
            std::thread::yield_now();
        } else {
            crate::cancel::sleep(std::time::Duration::from_micros(100));
        }
    }

    #[cfg(loom)]
    pub fn wait(&mut self) {
        loom::thread::yield_now();
    }
}
