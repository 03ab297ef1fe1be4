// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay: eventfds served from user space, by a thread that the VMM lends.
//!
//! - [`set`]: what it waits for.
//! - [`run`]: the wait; who is promoted into the kernel, and who makes way.
//! - This file: what devices see of it.
//!
//! With a relay an opened vector is served by it at once, without a table write; what is busy and calm is *promoted*: given to the
//! kernel, many at the price of one write. `device::relaying` has the vectors' side.

#[cfg(all(test, loom))]
mod model;
mod run;
mod set;

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Weak;

use parking_lot::{Condvar, Mutex};

use crate::error::Result;
use crate::owner::Owner;
use run::Desk;
use set::Set;
pub(crate) use set::Token;

/// An item that does not keep its device alive.
pub(crate) type Candidate = (Weak<dyn Owner>, u32);

/// For a dump: how many wait for what.
pub(crate) struct RelayState {
    pub on: bool,
    pub threads: u32,
    pub candidates: usize,
    pub waiting: usize,
    pub promoted: usize,
    pub sampled: usize,
}

/// A cache's relay, from when it is first turned on.
pub(crate) struct Relay {
    set: Set,
    /// Held while it is turned on or off; before all other locks.
    switch: Mutex<()>,
    /// Read under devices' locks; changed before each device is told.
    on: AtomicBool,
    /// Threads inside it are to leave.
    stopping: AtomicBool,
    /// How many there are.
    runners: Mutex<u32>,
    left: Condvar,
    /// Vectors that are busy and calm. A device's lock may be held when it is taken; nothing is taken under it.
    candidates: Mutex<Vec<Candidate>>,
    /// Held by the thread that promotes; it takes devices' locks and the table's.
    desk: Mutex<Desk>,
    pub messages: AtomicU64,
    pub promotions: AtomicU64,
    pub demotions: AtomicU64,
}

impl Relay {
    pub fn new() -> Result<Self> {
        Ok(Relay {
            set: Set::new()?,
            switch: Mutex::default(),
            on: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            runners: Mutex::new(0),
            left: Condvar::new(),
            candidates: Mutex::default(),
            desk: Mutex::default(),
            messages: AtomicU64::new(0),
            promotions: AtomicU64::new(0),
            demotions: AtomicU64::new(0),
        })
    }

    /// SeqCst: set before any device is told, which happens under its lock.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    /// Takes in an eventfd of this vector's; what it has counted is relayed.
    ///
    /// Errors: `ENOSPC` (the system's limit on epoll watches), `ENOMEM`.
    pub fn take_in(&self, fd: RawFd, owner: Weak<dyn Owner>, index: u32) -> Result<Token> {
        self.set.add(fd, owner, index)
    }

    /// Lets it go; before it is closed.
    pub fn let_go(&self, fd: RawFd, token: Token) {
        self.set.remove(fd, token);
    }

    /// Its vector cannot send: it is not heard until [`Relay::listen`].
    pub fn deafen(&self, fd: RawFd, token: Token) {
        self.set.deafen(fd, token);
    }

    /// It is heard again, and what it counted meanwhile.
    pub fn listen(&self, fd: RawFd, token: Token) {
        self.set.listen(fd, token);
    }

    /// The kernel serves these already.
    pub fn list(&self, promoted: Vec<Candidate>) {
        let mut desk = self.desk.lock();
        promoted.into_iter().for_each(|candidate| desk.promoted.push_back(candidate));
    }

    /// Is to be given to the kernel.
    pub fn promote(&self, candidate: Candidate) {
        self.candidates.lock().push(candidate);
    }
}
