// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process's slots, and each thread's way to its own.
//!
//! A thread claims a slot at its first section and gives it back when it ends. `threads_model.rs` is the
//! same for the model checker.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::slot::Slot;
use super::{barrier, own_word};

/// More threads than this that have delivered and still live, and the rest are counted.
pub(super) const SLOTS: usize = 1024;

static ALL: [Slot; SLOTS] = [const { Slot::new() }; SLOTS];

/// No slot at or above this has ever been claimed. Raised before a claimed slot is first used, so a
/// writer past its heavy barrier sees either the mark or a reader that sees the writer's change.
static CLAIMED_MARK: AtomicUsize = AtomicUsize::new(0);

#[derive(Clone, Copy)]
enum Own {
    NotYet,
    Slot(&'static Slot),
    /// None was left, or the thread is ending.
    None,
}

struct Thread {
    own: Cell<Own>,
    /// Counted sections that are open.
    counted: Cell<u32>,
}

thread_local! {
    // No destructor, so that looking at it costs no "is it still alive" check.
    static THREAD: Thread = const {
        Thread {
            own: Cell::new(Own::NotYet),
            counted: Cell::new(0),
        }
    };
    static GIVE_BACK: GiveBack = const { GiveBack };
}

/// Its destructor returns the thread's slot.
struct GiveBack;

impl Drop for GiveBack {
    fn drop(&mut self) {
        own_word::set(0);
        THREAD.with(|thread| {
            if let Own::Slot(slot) = thread.own.replace(Own::None) {
                // If the thread was cancelled inside a section, where it must not be.
                slot.leave();
                slot.release();
            }
        });
    }
}

/// The thread's slot, for a section under the asymmetric barriers, if it has one and they are. Its address is in the
/// thread's own word.
#[inline(always)]
pub(super) fn fast_slot() -> Option<&'static Slot> {
    let address = own_word::get();
    // SAFETY: 0, or what `claim` stored: one of `ALL`.
    unsafe { std::ptr::with_exposed_provenance::<Slot>(address).as_ref() }
}

/// The thread's slot, claimed now if it has none yet.
pub(super) fn own_slot() -> Option<&'static Slot> {
    match THREAD.with(|thread| thread.own.get()) {
        Own::Slot(slot) => Some(slot),
        Own::NotYet => claim(),
        Own::None => None,
    }
}

#[cold]
fn claim() -> Option<&'static Slot> {
    // Made first: in a thread that is already ending there is nobody left to give a slot back.
    let can_give_back = GIVE_BACK.try_with(|_| ()).is_ok();
    let claimed = ALL.iter().enumerate().find(|(_, slot)| can_give_back && slot.claim());
    THREAD.with(|thread| {
        let Some((index, slot)) = claimed else {
            thread.own.set(Own::None);
            return None;
        };
        CLAIMED_MARK.fetch_max(index + 1, Ordering::SeqCst);
        thread.own.set(Own::Slot(slot));
        if barrier::are_asymmetric() {
            own_word::set(std::ptr::from_ref(slot).expose_provenance());
        }
        Some(slot)
    })
}

/// Keeps account of this thread's counted sections: one more, or one fewer.
pub(super) fn count_section(opened: bool) {
    THREAD.with(|thread| {
        let open = thread.counted.get();
        thread.counted.set(if opened { open.saturating_add(1) } else { open.saturating_sub(1) });
    });
}

/// Whether this thread has a section open.
pub(super) fn has_section() -> bool {
    THREAD.with(|thread| {
        let in_slot = matches!(thread.own.get(), Own::Slot(slot) if !slot.is_free());
        in_slot || thread.counted.get() > 0
    })
}

/// Every slot that other threads may be using.
pub(super) fn others() -> impl Iterator<Item = &'static Slot> {
    let own = THREAD.with(|thread| thread.own.get());
    let is_own = move |slot: &Slot| matches!(own, Own::Slot(own) if std::ptr::eq(own, slot));
    let claimed = CLAIMED_MARK.load(Ordering::SeqCst);
    ALL.iter().take(claimed).filter(move |slot| !is_own(slot))
}
