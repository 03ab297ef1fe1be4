// SPDX-License-Identifier: MIT OR Apache-2.0
//! Two barriers that make an order together.
//!
//! Their promise: if one thread does *store A, [`light`], load B* and another does *store B,
//! [`heavy`], load A*, at least one of the loads sees the other thread's store. Two sequentially
//! consistent fences promise that too, but the one on the fast path costs as much as the atomic
//! instruction it is. `membarrier(2)` moves all of the price to the heavy side: the kernel interrupts
//! every running thread of the process and makes it pass a full barrier, wherever it is; so the
//! light side need only keep the compiler from reordering.
//!
//! Which pair is in force is decided once, by the first cache of the process ([`choose`]): it cannot
//! change under readers that have already passed a barrier that is too light for the other side.
//! `barrier_model.rs` is the same for the model checker.

use std::sync::atomic::{compiler_fence, fence, AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use crate::error::{Error, Result};

/// How the barriers are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Barriers {
    /// A compiler fence against `membarrier(2)`.
    Asymmetric,
    /// Two fences.
    Fences,
}

static CHOSEN: OnceCell<Barriers> = OnceCell::new();

/// The same as `CHOSEN` in one plain load. False until chosen: that is the heavier light barrier.
static ASYMMETRIC: AtomicBool = AtomicBool::new(false);

/// Decides how barriers are made in this process, if it is not decided yet. `fences` asks for
/// fences, `EBUSY` if it is too late for that; a process that may not use `membarrier(2)` gets fences
/// anyway.
pub(crate) fn choose(fences: bool) -> Result<()> {
    let chosen = CHOSEN.get_or_init(|| {
        if !fences && membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) {
            ASYMMETRIC.store(true, Ordering::SeqCst);
            Barriers::Asymmetric
        } else {
            Barriers::Fences
        }
    });
    if fences && *chosen != Barriers::Fences {
        let what = "fences must be asked for at the first cache of the process";
        return Err(Error::new(libc::EBUSY, what));
    }
    Ok(())
}

/// Whether the light barrier is a compiler fence. Does not change once the first cache is made.
pub(super) fn are_asymmetric() -> bool {
    ASYMMETRIC.load(Ordering::Relaxed)
}

/// The reader's barrier, between announcing itself and loading what it will act on.
pub(super) fn light() {
    if are_asymmetric() {
        light_asymmetric();
    } else {
        fence(Ordering::SeqCst);
    }
}

/// [`light`] where [`are_asymmetric`].
#[inline(always)]
pub(super) fn light_asymmetric() {
    compiler_fence(Ordering::SeqCst);
}

/// The writer's barrier, between changing the state and looking for readers.
pub(crate) fn heavy() {
    // Also what counted readers pair with.
    fence(Ordering::SeqCst);
    if are_asymmetric() && !membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED) {
        refused();
    }
}

/// Linux 4.14: `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and its registration.
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier touches no memory of the caller's; an unknown command is refused.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Registered, used, and now refused: a seccomp filter came in between. Readers cannot be made to
/// use fences any more; but a processor drains its stores in far less than a scheduler tick.
#[cold]
fn refused() {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        log::error!(
            "membarrier(2) is refused after it was allowed: each change of a vector now takes \
             10 ms. Allow it in the seccomp filter, or ask for fences at the first cache."
        );
    }
    crate::cancel::sleep(std::time::Duration::from_millis(10));
}
