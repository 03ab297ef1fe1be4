// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every event arrives once: what was counted or pending and is not any more has been sent, with its vector's message.
//! Several that are pending together are one, in PCI's terms; while the kernel refuses calls they may be several.

use std::os::fd::AsRawFd;

use super::machine::Machine;
use super::reference::{Bit, Owner};
use super::step::EVENTFDS;
use super::tap::{Message64, Target};
use super::Rig;

/// Something is counted.
fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, ours; a timeout of 0 does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

impl<M: Machine> Rig<M> {
    pub(super) fn account(&mut self) {
        let seen = self.look();
        let mut gone: Vec<usize> = Vec::new();
        for e in 0..EVENTFDS {
            // While the kernel reads it, its count says nothing.
            let is_bound = seen.irqfds.contains_key(&e);
            let counts = !is_bound && is_readable(self.eventfds[e].as_raw_fd());
            let did = std::mem::replace(&mut self.vm.eventfds[e].counted, counts);
            assert!(did || !counts, "eventfd {e} has counted what nobody signalled");
            if did && !counts {
                gone.push(e);
            }
        }
        for &e in &gone {
            let owner = self.vm.eventfds[e].owner;
            // Within one call it may have been bound to what was then taken back.
            let undone = self.undone.get(&e).cloned().unwrap_or_default();
            let now = match owner {
                Owner::Vector(..) => continue,
                Owner::Gsi(gsi) => seen.table.get(&gsi).cloned().unwrap_or_default(),
                _ => Vec::new(),
            };
            match (undone.as_slice(), now.as_slice()) {
                ([], []) => panic!("what eventfd {e} of {owner:?} has counted is gone"),
                ([], one) | (one, []) => self.expect_targets(one),
                (one, other) if one == other => self.expect_targets(one),
                (one, other) => {
                    let messages = [one, other].concat().into_iter().filter_map(message_of);
                    self.expected.maybe.extend(messages);
                }
            }
        }
        for (f, v) in self.vm.vectors() {
            let n = gone.iter().filter(|&&e| self.vm.eventfds[e].owner == Owner::Vector(f, v));
            self.account_vector(f, v, n.count());
        }
    }

    /// `n` of its eventfds counted before and do not any more.
    fn account_vector(&mut self, f: usize, v: usize, n: usize) {
        if self.vm.functions[f].closed {
            return;
        }
        let is_pending = self.devices[f].is_pending(v as u32).unwrap();
        let eventfds = self.vm.eventfds_of(Owner::Vector(f, v));
        let counts = eventfds.iter().any(|&e| self.vm.eventfds[e].counted);
        let (open, was) = (self.vm.open(f, v), self.vm.functions[f].vectors[v].bit);
        let is_staged = self.vm.functions[f].vectors[v].staged;
        let sources = n + usize::from(was == Bit::Yes);
        assert!(is_pending || !counts, "pending of {f}.{v}");
        // Explicit routes may leave nothing to send by.
        let has_way = !self.shape.no_direct || self.ground.room > 0;
        let bit = match (is_pending, counts) {
            (false, _) => Bit::No,
            (true, false) => Bit::Yes,
            (true, true) if n == 0 && (was == Bit::No || open.is_none()) => was,
            (true, true) if self.vm.trouble || is_staged || !has_way => Bit::Maybe,
            // It is sent, though its eventfds cannot be served.
            (true, true) => Bit::No,
        };
        self.vm.functions[f].vectors[v].bit = bit;
        if bit == Bit::Yes && was != Bit::Yes {
            assert!(n > 0 || was == Bit::Maybe, "{f}.{v} is pending and nobody raised it");
        }
        if !self.vm.trouble && self.vm.depth == 0 {
            assert!(open.is_none() || bit == Bit::No || !has_way, "{f}.{v} is open and pending");
        }
        let sure = match (was, bit) {
            (_, Bit::No) => usize::from(sources > 0),
            _ => 0,
        };
        let at_most = match (was, bit) {
            (Bit::Yes, Bit::Yes) if n == 0 => 0,
            (Bit::Maybe, _) => n + 1,
            _ if self.vm.trouble => sources,
            (_, Bit::No) => sure,
            _ => sources,
        };
        let before = self.open_before.get(&(f, v)).copied();
        match open.or(before) {
            Some(message) if before.is_some_and(|before| before != message) => {
                self.expected.maybe.extend(std::iter::repeat_n(message, at_most));
                self.expected.maybe.extend(before.iter().cycle().take(at_most));
            }
            Some(message) => {
                self.expected.sure.extend(std::iter::repeat_n(message, sure));
                let maybe = at_most.saturating_sub(sure);
                self.expected.maybe.extend(std::iter::repeat_n(message, maybe));
            }
            None => assert_eq!(sure, 0, "what {f}.{v} had pending is lost: it is closed"),
        }
    }
}

fn message_of(target: Target) -> Option<Message64> {
    match target {
        Target::Msi(message) => Some(message),
        _ => None,
    }
}
