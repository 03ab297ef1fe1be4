// SPDX-License-Identifier: MIT OR Apache-2.0
//! After each step: what stands in the kernel's table and which irqfds there are is what the reference wants, and so is
//! what the library says of it.
//!
//! Where a vector is not served there must be a reason: no room, a transaction that is not committed, or a refusal that
//! no commit has followed yet. Wrong it must never be: no irqfd sends another message than its vector's, but in a
//! transaction the one from before, and one that the kernel would not let go.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::machine::Machine;
use super::reference::{Bit, Owner, Route};
use super::step::{EVENTFDS, FIRST_GSI};
use super::tap::Target;
use super::{message_at, Rig, Seen};

/// Idle routes that are kept where messages do not go through routes.
const MAX_IDLE: usize = 64;

impl<M: Machine> Rig<M> {
    pub(super) fn check(&mut self) {
        let seen = self.look();
        let violations = self.tap.take_violations();
        assert!(violations.is_empty(), "{violations:?}");
        self.check_table(&seen);
        self.check_explicit(&seen);
        for (f, v) in self.vm.vectors() {
            if !self.vm.functions[f].closed {
                self.check_vector(&seen, f, v);
            }
        }
        for (&e, gsi) in &seen.irqfds {
            let is_ours = self.vm.eventfds[e].owner != Owner::Nobody || self.is_stuck(e);
            assert!(is_ours, "eventfd {e} is bound to GSI {gsi} and is nobody's");
        }
        let ghosts = &self.vm.ghosts;
        assert!(self.vm.trouble || ghosts.is_empty(), "{ghosts:?} of a failed commit are left");
        self.check_stats(&seen);
    }

    fn check_table(&self, seen: &Seen) {
        let entries: usize = seen.table.values().map(Vec::len).sum();
        assert!(entries <= self.vm.limit as usize, "{entries} entries");
        let mut fixed = super::Table::new();
        for &(gsi, target) in &self.vm.fixed {
            fixed.entry(gsi).or_default().push(target);
        }
        for (gsi, targets) in &fixed {
            assert_eq!(seen.table.get(gsi), Some(targets), "fixed entries of GSI {gsi}");
        }
        for (gsi, (f, v)) in self.vm.pins() {
            let now = message_at(&seen.table, gsi);
            let is_staged = self.vm.functions[f].vectors[v].staged && self.vm.depth > 0;
            let may_differ = is_staged && now == message_at(&self.before.table, gsi);
            let wanted = self.vm.message(f, v);
            let has_room = self.ground.room > 0 || now.is_some();
            let eventfds = self.vm.eventfds_of(Owner::Vector(f, v));
            let is_stuck = wanted.is_none() && eventfds.into_iter().any(|e| self.is_stuck(e));
            let may_differ = may_differ || is_stuck;
            if now != wanted && !may_differ && !self.vm.trouble && has_room {
                panic!("pin {gsi} has {now:x?}, not {wanted:x?}");
            }
        }
        let mut messages = BTreeSet::new();
        for &gsi in &self.ground.of_vectors {
            let message = message_at(&seen.table, gsi);
            assert!((FIRST_GSI..self.vm.limit).contains(&gsi), "GSI {gsi} is not for vectors");
            assert!(message.is_some_and(|it| messages.insert(it)), "GSI {gsi}: {message:x?}");
        }
        // A route becomes idle without a write of the table; the next write takes along what is too much.
        let is_written = !Arc::ptr_eq(&self.before.table, &seen.table);
        let stay = self.before.irqfds.iter().all(|(e, gsi)| seen.irqfds.get(e) == Some(gsi));
        let more = if is_written && stay { 0 } else { EVENTFDS };
        let idle = self.ground.idle.len();
        assert!(self.shape.no_direct || idle <= MAX_IDLE + more, "{idle} idle routes");
    }

    /// What is committed is in the table, all of it, and what is not is not; but only with an irqfd need those be that
    /// irqfds alone use.
    fn check_explicit(&self, seen: &Seen) {
        for (&gsi, here) in &self.vm.gsis {
            let wanted = here.committed().map_or(Vec::new(), Route::live);
            let now = seen.table.get(&gsi).cloned().unwrap_or_default();
            let eventfds = self.vm.eventfds_of(Owner::Gsi(gsi));
            let committed = eventfds.iter().filter(|&&e| !self.vm.eventfds[e].is_new).count();
            let is_alone = here.committed().is_some_and(|route| route.alone);
            let may_be_out = is_alone && (committed == 0 || self.vm.trouble);
            // A refused irqfd leaves its GSI's route where it is.
            let is_early = self.vm.trouble && here.before.is_some();
            let is_right = now == wanted || is_early || may_be_out && now.is_empty();
            assert!(is_right || self.vm.deep_trouble, "GSI {gsi}: {now:x?}, not {wanted:x?}");
            for &e in &eventfds {
                let is_new = self.vm.eventfds[e].is_new || here.committed().is_none();
                self.check_explicit_irqfd(seen, e, gsi, &now, is_new);
            }
        }
        for gsi in [4, 5] {
            let targets = seen.table.get(&gsi).cloned().unwrap_or_default();
            for e in self.vm.eventfds_of(Owner::Gsi(gsi)) {
                self.check_explicit_irqfd(seen, e, gsi, &targets, self.vm.eventfds[e].is_new);
            }
        }
    }

    fn check_explicit_irqfd(&self, seen: &Seen, e: usize, gsi: u32, now: &[Target], is_new: bool) {
        let bound = seen.irqfds.get(&e);
        assert!(bound.is_none_or(|&at| at == gsi), "eventfd {e} of GSI {gsi} is at {bound:?}");
        let is_due = self.vm.pauses == 0 && !now.is_empty() && !is_new;
        match bound {
            Some(_) if is_due || is_new && self.vm.deep_trouble => {}
            Some(_) => assert!(self.is_stuck(e), "eventfd {e} of GSI {gsi} is bound"),
            None => {
                let may_wait = self.vm.trouble || self.vm.resumed;
                assert!(!is_due || may_wait, "eventfd {e} of GSI {gsi} is not bound");
            }
        }
    }

    fn check_vector(&self, seen: &Seen, f: usize, v: usize) {
        let info = self.devices[f].info(v as u32).unwrap();
        let function = &self.vm.functions[f];
        let (vector, message) = (&function.vectors[v], self.vm.message(f, v));
        let open = self.vm.open(f, v);
        let eventfds = self.vm.eventfds_of(Owner::Vector(f, v));
        let name = format!("vector {f}.{v}");

        let is_live =
            message.is_some() && !vector.masked && function.enabled && !function.function_masked;
        let says = (info.set, info.masked, info.live, info.eventfds as usize);
        assert_eq!(says, (message.is_some(), vector.masked, is_live, eventfds.len()), "{name}");
        let says = vector.message.map(|_| (info.address, info.data));
        assert_eq!(says, vector.message, "message of {name}");
        let counts = eventfds.iter().any(|&e| self.vm.eventfds[e].counted);
        if vector.bit != Bit::Maybe {
            let is_pending = self.devices[f].is_pending(v as u32).unwrap();
            assert_eq!(is_pending, vector.bit == Bit::Yes || counts, "pending of {name}");
        }

        let sends = |&e: &usize| {
            seen.irqfds.get(&e).is_some_and(|&gsi| message_at(&seen.table, gsi) == open)
        };
        let is_served = open.is_some() && eventfds.iter().all(sends);
        for &e in &eventfds {
            self.check_irqfd(seen, e, (f, v), sends(&e) && open.is_some());
        }
        let has_eventfds = !eventfds.is_empty();
        if open.is_some() && has_eventfds && !vector.staged {
            assert_eq!(info.in_kernel, is_served, "{name} is in the kernel");
            assert_eq!(info.unserved, !is_served, "{name} is unserved");
        }
        if is_served || !has_eventfds || open.is_none() {
            return;
        }
        let has_room = self.ground.room > self.vm.reserve;
        let may_wait = self.vm.trouble || vector.staged || !has_room;
        assert!(may_wait, "{name} is not served, with room for {}", self.ground.room);
        let is_claimed = self.claimed.contains(&(f, v)) && self.vm.depth == 0;
        assert!(!is_claimed, "{name} is not served, and the call said nothing of it");
        if !self.vm.trouble && !vector.staged {
            assert_eq!(info.errno, libc::ENOSPC, "why {name} is not served");
        }
    }

    fn check_irqfd(&self, seen: &Seen, e: usize, (f, v): (usize, usize), sends: bool) {
        let Some(&gsi) = seen.irqfds.get(&e) else { return };
        let now = message_at(&seen.table, gsi);
        let is_as_before =
            self.before.irqfds.get(&e) == Some(&gsi) && message_at(&self.before.table, gsi) == now;
        let is_staged = self.vm.functions[f].vectors[v].staged && self.vm.open(f, v).is_some();
        // A pin is one vector's alone.
        let is_own = !self.vm.functions[f].pins().is_empty() && now == self.vm.message(f, v);
        let may_differ = is_as_before && is_staged || (is_as_before || is_own) && self.is_stuck(e);
        assert!(sends || may_differ, "eventfd {e} of {f}.{v} sends {now:x?} by GSI {gsi}");
        let own = self.vm.functions[f].pins().nth(v);
        let is_right = own.map_or(self.ground.of_vectors.contains(&gsi), |own| own == gsi);
        assert!(is_right, "GSI {gsi} is not a vector's");
    }

    fn check_stats(&self, seen: &Seen) {
        let stats = self.cache.stats();
        if self.vm.trouble || !self.vm.dead.is_empty() {
            return;
        }
        let pins = self.vm.pins().filter(|(gsi, _)| seen.table.contains_key(gsi)).count();
        let of_vectors = self.ground.of_vectors.len();
        assert_eq!(stats.routes as usize, of_vectors + pins, "routes");
        let pinned = of_vectors - self.ground.idle.len() + pins;
        assert_eq!(stats.routes_pinned as usize, pinned, "pinned routes");
        assert_eq!((stats.irqfd_binds - stats.irqfd_unbinds) as usize, self.bound(), "irqfds");
    }

    fn bound(&self) -> usize {
        let seen = self.look();
        (0..EVENTFDS).filter(|e| seen.irqfds.contains_key(e)).count()
    }
}
