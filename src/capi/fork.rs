// SPDX-License-Identifier: MIT OR Apache-2.0
//! A child made by fork(2) has the locks as other threads held them, and shares eventfds and the relay's epoll set with its
//! parent: what it let go would be let go there. It may only exec.

use std::sync::atomic::{AtomicBool, Ordering};

use once_cell::sync::OnceCell;

use crate::error::{Error, Result};

static IS_CHILD: AtomicBool = AtomicBool::new(false);

extern "C" fn note_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
}

/// From now on children are known. Those of vfork(2), posix_spawn(3) and `_Fork` are not: they can do no more than exec.
pub(super) fn watch() -> Result<()> {
    static WATCHED: OnceCell<()> = OnceCell::new();
    WATCHED
        .get_or_try_init(|| {
            // SAFETY: the function does nothing but store a flag.
            match unsafe { libc::pthread_atfork(None, None, Some(note_child)) } {
                0 => Ok(()),
                errno => Err(Error::new(errno, "pthread_atfork")),
            }
        })
        .copied()
}

/// KVM says the same to a process that has not made the VM.
pub(super) fn refuse_child() -> Result<()> {
    match IS_CHILD.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(Error::new(libc::EIO, "a child made by fork may not use its parent's handles")),
    }
}
