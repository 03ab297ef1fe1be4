// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping: what becomes of a message is the VMM's vIOMMU's to say.
//!
//! A guest changes that in its own tables, and tells the vIOMMU by an invalidation. So a translation is asked for
//! without a lock, and used only if nothing has invalidated it meanwhile: for vectors see `device::remapping`, for
//! messages without one [`Remap::generation`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::inside_host;
use crate::message::GuestMessage;

/// "No tag": an invalidation of all alone concerns the translation.
pub const NO_TAG: u64 = u64::MAX;

/// What the vIOMMU says to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// What it becomes; `None`: it is blocked.
    pub message: Option<GuestMessage>,
    /// Of the entry that says so, or [`NO_TAG`]; invalidations name it. A blocked message without a tag is tried again
    /// at every one.
    pub tag: u64,
}

/// The vIOMMU's function: requester and message in. It may deliver, but change nothing.
pub type Translate = Box<dyn Fn(u32, GuestMessage) -> Translation + Send + Sync>;

/// A stretch of time. Who runs the function holds the epoch in which it began, so that one can wait for all calls of an
/// epoch while new ones begin in the next.
struct Epoch {
    translate: Arc<Option<Translate>>,
}

/// A cache's remapping.
pub(crate) struct Remap {
    /// Nothing is called, or waited for, under the lock.
    now: Mutex<Arc<Epoch>>,
    /// There has been a function. Never cleared.
    is_used: AtomicBool,
    /// There is one.
    is_on: AtomicBool,
    generation: AtomicU64,
}

impl Remap {
    pub fn new() -> Self {
        Remap {
            now: Mutex::new(Arc::new(Epoch { translate: Arc::new(None) })),
            is_used: AtomicBool::new(false),
            is_on: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::SeqCst)
    }

    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::SeqCst)
    }

    /// When this returns the old function does not run, and is not called any more.
    pub fn set(&self, translate: Option<Translate>) {
        if translate.is_some() {
            self.is_used.store(true, Ordering::SeqCst);
        }
        self.is_on.store(translate.is_some(), Ordering::SeqCst);
        let next = Arc::new(Epoch { translate: Arc::new(translate) });
        let last = std::mem::replace(&mut *self.now.lock(), next);
        // In earlier epochs too.
        let function = last.translate.clone();
        drop(last);
        wait_until_unshared(function);
    }

    /// Waits until no call of the function that has begun by now runs.
    pub fn wait(&self) {
        let mut now = self.now.lock();
        let next = Arc::new(Epoch { translate: now.translate.clone() });
        let last = std::mem::replace(&mut *now, next);
        drop(now);
        wait_until_unshared(last);
    }

    /// Asks the vIOMMU; without one a message stays what it is. `None`, and it was not asked, if `not_now` says so; it is
    /// asked where pausing waits for it.
    pub fn translate(
        &self,
        requester: u32,
        message: GuestMessage,
        not_now: impl FnOnce() -> bool,
    ) -> Option<Translation> {
        let epoch = self.now.lock().clone();
        if not_now() {
            return None;
        }
        Some(match &*epoch.translate {
            Some(translate) => inside_host(|| translate(requester, message)),
            None => Translation { message: Some(message), tag: NO_TAG },
        })
    }

    /// Moves on with every invalidation, before anything else is done about it. SeqCst: who reads the same number before a
    /// translation and, in a section, after it, has a translation that the invalidation waits for.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    pub fn invalidate(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

/// Waits until nobody else has it; nobody can get at it any more.
fn wait_until_unshared<T>(mut it: Arc<T>) {
    while Arc::get_mut(&mut it).is_none() {
        crate::cancel::sleep(Duration::from_micros(50));
    }
}
