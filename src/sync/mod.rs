// SPDX-License-Identifier: MIT OR Apache-2.0
//! An asymmetric reader/writer lock: reading costs a few plain stores, writing a system call.
//!
//! A delivery *reads* a vector: it looks at the state, and injects the message it found there. Who
//! changes the vector must be able to say "after I return, the old state is no longer acted upon".
//! So writers wait for readers, and only for those that may still act on the old state. In use:
//!
//! ```text
//! reader                              writer (serialized by a mutex of its own)
//! let section = readers.enter();      state.fetch_or(MASKED)
//! look at the state, act on it        wait_for(&readers)    
//! drop(section)                       -- nobody acts on the old state any more
//! ```
//!
//! Readers never wait. Readers that come after the change see it and leave, so writers are not
//! starved: a writer waits for sections that were open when it looked, not for later ones.
//!
//! - [`barrier`] has the two barriers this stands on and what they promise.
//! - [`slot`] has the protocol: a thread's slot names what the thread is reading.
//! - [`threads`] has the process's slots, and each thread's way to its own.
//! - This file puts them together.
//!
//! A reader without a free slot (a section inside a section, more threads than slots, a thread that
//! is exiting) is *counted* in the [`Readers`] it reads: two atomic read-modify-writes, the same
//! promise.

#[cfg_attr(loom, path = "barrier_model.rs")]
pub(crate) mod barrier;
#[cfg_attr(loom, path = "mutex_model.rs")]
mod mutex;
#[cfg(not(loom))]
mod own_word;
mod slot;
#[cfg_attr(loom, path = "threads_model.rs")]
mod threads;

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

pub(crate) use mutex::{Condvar, Mutex};

use atomic::{fence, AtomicU32, Ordering};
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use slot::{Backoff, Slot};

/// What can be read under the lock: embedded in the object it guards. Its address is its name.
#[derive(Debug)]
pub(crate) struct Readers {
    /// Readers without a slot.
    counted: AtomicU32,
}

/// An open section: the thread acts on what it reads until this is dropped.
pub(crate) struct Section<'a> {
    slot: Option<&'static Slot>,
    readers: &'a Readers,
    /// The slot is the thread's own.
    not_send: PhantomData<*const ()>,
}

/// A section in a slot, under the asymmetric barriers.
pub(crate) struct FastSection {
    slot: &'static Slot,
    /// The slot is the thread's own.
    not_send: PhantomData<*const ()>,
}

impl Readers {
    pub fn new() -> Self {
        Readers { counted: AtomicU32::new(0) }
    }

    /// Opens a section. Whatever is loaded after this, and was changed by a writer whose
    /// [`wait_for`] has returned, is the changed value.
    pub fn enter(&self) -> Section<'_> {
        match threads::own_slot() {
            Some(slot) if slot.is_free() => {
                slot.enter(self.name());
                barrier::light();
                Section { slot: Some(slot), readers: self, not_send: PhantomData }
            }
            _ => self.enter_counted(),
        }
    }

    /// The same, if the thread has a free slot and the light barrier costs nothing.
    #[inline(always)]
    pub fn enter_fast(&self) -> Option<FastSection> {
        let slot = threads::fast_slot().filter(|slot| slot.is_free())?;
        slot.enter(self.name());
        barrier::light_asymmetric();
        Some(FastSection { slot, not_send: PhantomData })
    }

    /// Opens a section that needs no slot.
    #[cold]
    pub fn enter_counted(&self) -> Section<'_> {
        self.counted.fetch_add(1, Ordering::SeqCst);
        // Pairs with the fence in `barrier::heavy`: one of the two sees the other's store.
        fence(Ordering::SeqCst);
        threads::count_section(true);
        Section { slot: None, readers: self, not_send: PhantomData }
    }

    fn name(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether anybody is counted here. After a [`barrier::heavy`].
    pub fn any_counted(&self) -> bool {
        self.counted.load(Ordering::Acquire) != 0
    }

    /// Waits until nobody is counted here. After a [`barrier::heavy`].
    pub fn wait_counted(&self) {
        let mut backoff = Backoff::new();
        while self.any_counted() {
            backoff.wait();
        }
    }
}

impl Section<'_> {
    /// Whether this section is counted, not in a slot: who waits for slots does not see it.
    pub fn is_counted(&self) -> bool {
        self.slot.is_none()
    }
}

impl Drop for FastSection {
    #[inline(always)]
    fn drop(&mut self) {
        self.slot.leave();
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        match self.slot {
            Some(slot) => slot.leave(),
            None => {
                self.readers.counted.fetch_sub(1, Ordering::Release);
                threads::count_section(false);
            }
        }
    }
}

/// Waits until no section on `readers` is open that may have seen the state from before the call.
pub(crate) fn wait_for(readers: &Readers) {
    wait_for_slots_of(readers, readers);
    readers.wait_counted();
}

/// The half of it that later sections cannot prolong; counted ones are left to the caller. Of many readers, at
/// the price of one: `first` to `last` lie in one slice, in this order.
pub(crate) fn wait_for_slots_of(first: &Readers, last: &Readers) {
    barrier::heavy();
    wait_for_slots(first.name()..=last.name());
}

/// Waits for every open section of the process but the counted ones.
pub(crate) fn wait_for_every_slot() {
    barrier::heavy();
    wait_for_slots(1..=usize::MAX);
}

/// Whether this thread has a section open. Such a thread must not wait for readers, nor for a lock
/// under which somebody waits for readers.
pub(crate) fn in_section() -> bool {
    threads::has_section()
}

fn wait_for_slots(names: RangeInclusive<usize>) {
    // The thread's own section is not waited for: control calls from inside one are refused before they
    // get here.
    for slot in threads::others() {
        slot.wait_while_in(&names);
    }
}

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;
