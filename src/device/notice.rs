// SPDX-License-Identifier: MIT OR Apache-2.0
//! Telling the VMM what changed: once a control call, after the change is live, with no lock held.

use std::cell::RefCell;

use parking_lot::RwLock;

use super::Device;
use crate::cancel;
use crate::changed::Changed;
use crate::transaction;

/// A function of the VMM's. It may call anything of the library's.
pub type OnChange = Box<dyn Fn(&Changed) + Send + Sync>;

pub(super) struct Listener {
    on_change: OnChange,
    /// Read while the VMM is being told; written, and `true` from then on, by who wants it to be told no more. Nothing
    /// but the VMM's function runs under it.
    silenced: RwLock<bool>,
}

thread_local! {
    /// The devices whose VMM this thread is telling something, by address.
    static TELLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// `None` in a thread that is ending: it knows no more whom it is telling.
fn with_telling<T>(f: impl FnOnce(&mut Vec<usize>) -> T) -> Option<T> {
    TELLING.try_with(|telling| Some(f(&mut *telling.try_borrow_mut().ok()?))).ok().flatten()
}

impl Listener {
    pub fn new(on_change: OnChange) -> Self {
        Listener { on_change, silenced: RwLock::new(false) }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Whether this thread is inside the function.
    fn is_being_told(&self) -> bool {
        with_telling(|telling| telling.contains(&self.address())).unwrap_or(false)
    }

    /// False, and nothing was told, if `not_now` says so; it is asked where pausing waits for it.
    fn tell(&self, changed: &Changed, not_now: impl FnOnce() -> bool) -> bool {
        // Recursive: the function may make changes that are told inside it.
        let silenced = self.silenced.read_recursive();
        if *silenced {
            return true;
        }
        if not_now() {
            return false;
        }
        let told = with_telling(|telling| telling.push(self.address()));
        cancel::put_off(|| (self.on_change)(changed));
        if told.is_some() {
            with_telling(Vec::pop);
        }
        true
    }

    /// Waits until no thread is inside the function, and silences it. False, and nothing is done, if this thread is
    /// inside it.
    fn silence(&self) -> bool {
        if self.is_being_told() {
            return false;
        }
        *self.silenced.write() = true;
        true
    }
}

impl Device {
    /// Tells the VMM: now, or with the commit if this thread is in a transaction, or when the cache is resumed.
    pub(super) fn tell(&self, changed: Changed) {
        if self.listener.is_none() || changed.is_nothing() {
            return;
        }
        let me = self.me.upgrade();
        if !me.is_some_and(|device| transaction::defer_telling(&self.cache, device, changed)) {
            self.tell_unless_paused(changed);
        }
    }

    pub(super) fn tell_unless_paused(&self, changed: Changed) {
        let Some(listener) = &self.listener else { return };
        if !listener.tell(&changed, || self.is_paused()) {
            self.control().untold.add(changed);
            // Resumed meanwhile: whoever takes it tells it.
            if !self.is_paused() {
                self.tell_untold();
            }
        }
    }

    /// What could not be told while the cache was paused.
    pub(super) fn tell_untold(&self) {
        let untold = std::mem::take(&mut self.control().untold);
        self.tell(untold);
    }

    /// Waits until the VMM's function does not run; not from inside such a function, of whatever device: two of them
    /// could wait for each other.
    pub(super) fn wait_until_told(&self) {
        let is_inside = with_telling(|telling| !telling.is_empty()).unwrap_or(false);
        if let Some(listener) = self.listener.as_ref().filter(|_| !is_inside) {
            drop(listener.silenced.write());
        }
    }

    /// After this returns the VMM's function is not running, and is not called again. False, and nothing is done, if this
    /// thread is inside it.
    pub fn silence(&self) -> bool {
        self.listener.as_ref().is_none_or(Listener::silence)
    }
}
