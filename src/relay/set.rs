// SPDX-License-Identifier: MIT OR Apache-2.0
//! The eventfds that the relay waits for: one epoll set, edge-triggered.
//!
//! An eventfd stays in the set for as long as it is its vector's, whether the kernel reads it or the relay does: who does is
//! decided under the device's lock, where a signal that came for nothing costs one look. Only a vector that cannot send is taken
//! out of the wait when it is signalled ([`Set::deafen`]), so that its source cannot keep the relay busy; putting it back
//! ([`Set::listen`]) tells of what was counted meanwhile.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Weak;

use parking_lot::Mutex;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use crate::error::{Error, Result};
use crate::hash::HashMap;
use crate::owner::Owner;

/// An eventfd's place in the set. Numbers are used again, tokens are not: an event of an eventfd that has left is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token(u64);

impl Token {
    fn new(slot: usize, generation: u32) -> Self {
        Token(u64::from(generation) << 32 | slot as u64)
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    fn slot(self) -> usize {
        self.0 as u32 as usize
    }
}

/// The token of the eventfd that ends waits; no slot has so high a number.
const WAKE: u64 = u64::MAX;

/// See the [module](self).
pub(super) struct Set {
    epoll: Epoll,
    wake: EventFd,
    /// A device's lock may be held when it is taken; nothing is taken under it.
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    list: Vec<Slot>,
    free: Vec<usize>,
    /// By descriptor number, who put it into the set last. An owner may have closed a descriptor it lent, and the number may be
    /// another file's by now: only its last user takes it out again.
    by_number: HashMap<RawFd, Token>,
}

struct Slot {
    generation: u32,
    target: Option<(Weak<dyn Owner>, u32)>,
}

/// What a wait came to.
#[derive(Default)]
pub(super) struct Events {
    pub targets: Vec<(Weak<dyn Owner>, u32)>,
    /// More may be ready.
    pub is_full: bool,
}

fn failed(e: &std::io::Error, doing: &'static str) -> Error {
    Error::new(e.raw_os_error().unwrap_or(libc::EIO), doing)
}

impl Set {
    pub fn new() -> Result<Self> {
        let epoll = Epoll::new().map_err(|e| failed(&e, "epoll_create1"))?;
        let wake = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        let wake = wake.map_err(|e| failed(&e, "eventfd"))?;
        let event = EpollEvent::new(EventSet::IN, WAKE);
        epoll
            .ctl(ControlOperation::Add, wake.as_raw_fd(), event)
            .map_err(|e| failed(&e, "epoll_ctl"))?;
        Ok(Set { epoll, wake, slots: Mutex::default() })
    }

    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Takes an eventfd in; what it has counted is told.
    ///
    /// Errors: what epoll_ctl(2) says: `ENOSPC` (the system's limit on watches), `ENOMEM`.
    pub fn add(&self, fd: RawFd, target: Weak<dyn Owner>, index: u32) -> Result<Token> {
        let mut slots = self.slots.lock();
        let at = slots.free.pop().unwrap_or_else(|| {
            let at = slots.list.len();
            slots.list.push(Slot { generation: 0, target: None });
            at
        });
        let Some(slot) = slots.list.get_mut(at) else { return Err(Error::invalid("no slot")) };
        slot.target = Some((target, index));
        let token = Token::new(at, slot.generation);
        let listening = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, token.0);
        let mut added = self.epoll.ctl(ControlOperation::Add, fd, listening);
        if added.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EEXIST)) {
            // The same file under the same number, left behind by an owner who had closed it.
            added = self.epoll.ctl(ControlOperation::Modify, fd, listening);
        }
        match added {
            Ok(()) => {
                slots.by_number.insert(fd, token);
                Ok(token)
            }
            Err(e) => {
                slots.release(token);
                Err(failed(&e, "epoll_ctl: the relay cannot wait for the eventfd"))
            }
        }
    }

    /// Lets it go, before its descriptor is closed. What it counts is told no more.
    pub fn remove(&self, fd: RawFd, token: Token) {
        let mut slots = self.slots.lock();
        slots.release(token);
        if slots.by_number.get(&fd) == Some(&token) {
            slots.by_number.remove(&fd);
            // If its owner has closed it, it is gone from the set, or events of it are nobody's.
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
    }

    /// It is not waited for.
    pub fn deafen(&self, fd: RawFd, token: Token) {
        self.modify(fd, token, EventSet::empty());
    }

    /// It is again, and what it has counted is told.
    pub fn listen(&self, fd: RawFd, token: Token) {
        self.modify(fd, token, EventSet::IN | EventSet::EDGE_TRIGGERED);
    }

    fn modify(&self, fd: RawFd, token: Token, events: EventSet) {
        let slots = self.slots.lock();
        if slots.by_number.get(&fd) == Some(&token) {
            let event = EpollEvent::new(events, token.0);
            if let Err(e) = self.epoll.ctl(ControlOperation::Modify, fd, event) {
                log::error!("an eventfd that was lent is closed, and not heard any more: {e}");
            }
        }
    }

    /// Ends waits, until [`Set::calm`].
    pub fn wake(&self) {
        // It cannot be full.
        let _ = self.wake.write(1);
    }

    pub fn calm(&self) {
        let _ = self.wake.read();
    }

    /// Waits for events, for ever if `timeout_ms` is -1.
    pub fn wait(&self, timeout_ms: i32, events: &mut Events) -> Result<()> {
        const BATCH: usize = 64;
        let mut ready = [EpollEvent::default(); BATCH];
        events.targets.clear();
        let n = match self.epoll.wait(timeout_ms, &mut ready) {
            Ok(n) => n,
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => 0,
            Err(e) => return Err(failed(&e, "epoll_wait")),
        };
        events.is_full = n == BATCH;
        let slots = self.slots.lock();
        let tokens = ready.iter().take(n).map(|event| Token(event.data()));
        events.targets.extend(tokens.filter_map(|token| slots.target(token)));
        Ok(())
    }
}

impl Slots {
    fn target(&self, token: Token) -> Option<(Weak<dyn Owner>, u32)> {
        let slot = self.list.get(token.slot())?;
        let is_its = token == Token::new(token.slot(), slot.generation);
        slot.target.clone().filter(|_| is_its)
    }

    fn release(&mut self, token: Token) {
        if let Some(slot) = self.list.get_mut(token.slot()) {
            slot.target = None;
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(token.slot());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::{Finish, Stage, Staged};
    use std::sync::Arc;

    struct Nobody;
    impl Owner for Nobody {
        fn stage(&self, _index: u32) -> Stage {
            Stage::Done(Ok(()))
        }
        fn finish(&self, _index: u32, _staged: &Staged, _route: Result<u32>) -> Finish {
            Finish::Done(Ok(()))
        }
        fn hand_over(&self, _index: u32) -> Result<()> {
            Ok(())
        }
    }

    fn told(set: &Set) -> Vec<u32> {
        let mut events = Events::default();
        set.wait(0, &mut events).unwrap();
        let mut indices: Vec<u32> = events.targets.iter().map(|(_, index)| *index).collect();
        indices.sort_unstable();
        indices
    }

    #[test]
    fn an_eventfd_is_told_of_once_a_signal_and_when_it_is_put_back() {
        let target = Arc::new(Nobody);
        let weak: Weak<dyn Owner> = Arc::downgrade(&(target.clone() as Arc<dyn Owner>));
        let set = Set::new().unwrap();
        let [a, b] = [(); 2].map(|()| EventFd::new(libc::EFD_NONBLOCK).unwrap());
        a.write(1).unwrap();
        let token = set.add(a.as_raw_fd(), weak.clone(), 7).unwrap();
        let other = set.add(b.as_raw_fd(), weak.clone(), 8).unwrap();
        assert_eq!(told(&set), [7]);
        assert_eq!(told(&set), []);
        b.write(1).unwrap();
        a.write(1).unwrap();
        assert_eq!(told(&set), [7, 8]);
        set.deafen(a.as_raw_fd(), token);
        a.write(1).unwrap();
        assert_eq!(told(&set), []);
        set.listen(a.as_raw_fd(), token);
        assert_eq!(told(&set), [7]);
        set.remove(a.as_raw_fd(), token);
        a.write(1).unwrap();
        assert_eq!(told(&set), []);
        set.remove(b.as_raw_fd(), other);
    }

    #[test]
    fn an_event_of_one_that_has_left_is_nobodys() {
        let target = Arc::new(Nobody);
        let weak: Weak<dyn Owner> = Arc::downgrade(&(target.clone() as Arc<dyn Owner>));
        let set = Set::new().unwrap();
        let lent = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let elsewhere = lent.try_clone().unwrap();
        let number = lent.as_raw_fd();
        let token = set.add(number, weak.clone(), 1).unwrap();
        drop(lent);
        // Another eventfd gets the number, and a place of its own.
        let next = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        assert_eq!(next.as_raw_fd(), number);
        let next_token = set.add(number, weak.clone(), 2).unwrap();
        set.remove(number, token);
        elsewhere.write(1).unwrap();
        assert_eq!(told(&set), []);
        next.write(1).unwrap();
        assert_eq!(told(&set), [2]);
        set.remove(number, next_token);
    }
}
