// SPDX-License-Identifier: MIT OR Apache-2.0
//! parking_lot's mutex and condition variable.

pub(crate) use parking_lot::{Mutex, MutexGuard};

#[derive(Debug)]
pub(crate) struct Condvar(parking_lot::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Condvar(parking_lot::Condvar::new())
    }

    /// Takes the guard and gives it back, as the model's must.
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(&mut guard);
        guard
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }
}
