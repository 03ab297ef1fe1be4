// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping: what becomes of a message is the VMM's vIOMMU's to say.
//!
//! A guest changes that in its own tables, and tells the vIOMMU by an invalidation. So a translation is asked for
//! without a lock, and used only if nothing has invalidated it meanwhile: for vectors see `device::remapping`, for
//! messages without one [`Remap::generation`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

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

/// A cache's remapping.
pub(crate) struct Remap {
    /// Read while the function runs; written by who wants that it does not. Nothing else is locked under it but by the
    /// function, which is the VMM's.
    translate: RwLock<Option<Translate>>,
    /// There has been a function. Never cleared.
    is_used: AtomicBool,
    generation: AtomicU64,
}

impl Remap {
    pub fn new() -> Self {
        Remap {
            translate: RwLock::new(None),
            is_used: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    pub fn is_used(&self) -> bool {
        self.is_used.load(Ordering::SeqCst)
    }

    /// When this returns the old function does not run, and is not called any more.
    pub fn set(&self, translate: Option<Translate>) {
        if translate.is_some() {
            self.is_used.store(true, Ordering::SeqCst);
        }
        *self.translate.write() = translate;
    }

    /// Waits until the function does not run.
    pub fn wait(&self) {
        drop(self.translate.write());
    }

    /// Asks the vIOMMU; without one a message stays what it is. `None`, and it was not asked, if `not_now` says so; it is
    /// asked where pausing waits for it.
    pub fn translate(
        &self,
        requester: u32,
        message: GuestMessage,
        not_now: impl FnOnce() -> bool,
    ) -> Option<Translation> {
        // Recursive: the function may deliver a message that is translated itself.
        let translate = self.translate.read_recursive();
        if not_now() {
            return None;
        }
        Some(match &*translate {
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
