// SPDX-License-Identifier: MIT OR Apache-2.0
//! A step on explicit routes, and transactions, done to the library and to the reference.

use std::os::fd::AsRawFd;

use super::machine::Machine;
use super::reference::{Gsi, Owner, Route};
use super::tap::{entry, Target};
use super::{fd, refused, Rig};

/// What an add comes to.
enum Added {
    /// It is there already.
    Nothing(u32),
    Onto(u32),
    New(u32),
    /// An idle route's GSI.
    Evicts,
    Refused(i32),
    /// A GSI that was removed, if there is one, and the commit goes well.
    Commits,
}

impl<M: Machine> Rig<M> {
    pub(super) fn add(&mut self, target: Target, wanted: Option<u32>, alone: bool) {
        if wanted.is_some_and(|gsi| self.vm.ghosts.contains_key(&gsi)) {
            return;
        }
        let expected = self.what_becomes_of(target, wanted);
        let has_bad = self.vm.gsis.keys().any(|&gsi| self.is_staged(gsi) && self.vm.is_bad(gsi));
        if let Added::Commits = expected {
            // The library does it by itself; but what then comes of it, one could not tell.
            if self.tap.has_plan() || has_bad {
                self.commit_staged();
            }
        }
        let fired = self.tap.fired();
        let added = self.explicit.add(entry(0, target), wanted, alone);
        if let Added::Commits = expected {
            self.vm.committed();
        }
        let route = Route { targets: vec![target], alone };
        match expected {
            Added::Refused(errno) => refused(added, errno),
            Added::Nothing(gsi) => assert_eq!(added.unwrap(), gsi),
            Added::Onto(gsi) => {
                assert_eq!(added.unwrap(), gsi);
                let here = self.vm.gsis.get_mut(&gsi).unwrap();
                here.remember();
                let targets = here.now.take().map_or(Vec::new(), |route| route.targets);
                here.now = Some(Route { targets: [targets, vec![target]].concat(), alone });
            }
            Added::New(gsi) => {
                assert_eq!(added.unwrap(), gsi, "the GSI");
                self.vm.gsis.insert(gsi, Gsi { now: Some(route), before: Some(None) });
            }
            Added::Evicts => {
                if self.is_ok(&added, fired, 0) {
                    let gsi = added.unwrap();
                    assert!(self.ground_before.idle.contains(&gsi), "GSI {gsi} was not idle");
                    self.vm.gsis.insert(gsi, Gsi { now: Some(route), before: Some(None) });
                }
            }
            Added::Commits => match added {
                Ok(gsi) => {
                    let is_free = !self.look().irqfds.values().any(|&it| it == gsi);
                    assert!(is_free && !self.vm.owned().contains(&gsi), "GSI {gsi} is in use");
                    self.vm.gsis.insert(gsi, Gsi { now: Some(route), before: Some(None) });
                }
                Err(e) => assert_eq!(e.errno(), libc::ENOSPC),
            },
        }
    }

    fn what_becomes_of(&self, target: Target, wanted: Option<u32>) -> Added {
        let Some(gsi) = wanted else {
            return match self.ground_before.lowest_free {
                Some(gsi) => Added::New(gsi),
                None if !self.ground_before.idle.is_empty() => Added::Evicts,
                None if self.vm.has_staged() && self.vm.depth == 0 => Added::Commits,
                None => Added::Refused(libc::ENOSPC),
            };
        };
        if self.vm.fixed.contains(&(gsi, target)) {
            return Added::Nothing(gsi);
        }
        let is_pin = |target: &Target| matches!(target, Target::Pin { .. });
        match self.vm.gsis.get(&gsi).map(|here| &here.now) {
            Some(None) => Added::Onto(gsi),
            Some(Some(route)) if route.targets.contains(&target) => Added::Nothing(gsi),
            Some(Some(route)) if is_pin(&target) && route.targets.iter().all(is_pin) => {
                Added::Onto(gsi)
            }
            Some(Some(_)) => Added::Refused(libc::EBUSY),
            None if gsi >= self.vm.limit => Added::Refused(libc::EINVAL),
            None if self.vm.owned().contains(&gsi) || self.before.table.contains_key(&gsi) => {
                Added::Refused(libc::EBUSY)
            }
            None => Added::New(gsi),
        }
    }

    pub(super) fn update(&mut self, gsi: u32, target: Target) {
        let updated = self.explicit.update(gsi, entry(0, target));
        let Some(here) = self.vm.gsis.get_mut(&gsi).filter(|here| here.now.is_some()) else {
            return refused(updated, libc::ENOENT);
        };
        updated.unwrap();
        let is_same = here.now.as_ref().is_some_and(|route| route.targets == [target]);
        if !is_same {
            here.remember();
            let alone = here.now.as_ref().is_some_and(|route| route.alone);
            here.now = Some(Route { targets: vec![target], alone });
        }
    }

    pub(super) fn remove(&mut self, gsi: u32) {
        let fired = self.tap.fired();
        let removed = self.explicit.remove(gsi);
        if self.vm.gsis.get(&gsi).is_none_or(|here| here.now.is_none()) {
            return refused(removed, libc::ENOENT);
        }
        let is_ok = self.is_ok(&removed, fired, 0);
        // Those that the kernel has let go are gone all the same.
        let seen = self.look();
        for e in self.vm.eventfds_of(Owner::Gsi(gsi)) {
            if is_ok || !seen.irqfds.contains_key(&e) {
                (self.vm.eventfds[e].owner, self.vm.eventfds[e].is_new) = (Owner::Nobody, false);
            } else {
                self.tap.is_wanted(self.ids[e]);
            }
        }
        if is_ok {
            let here = self.vm.gsis.get_mut(&gsi).unwrap();
            here.remember();
            here.now = None;
        }
    }

    pub(super) fn bind_gsi(&mut self, gsi: u32, e: usize) {
        let is_added = self.vm.gsis.get(&gsi).is_some_and(|here| here.now.is_some());
        let is_fixed = matches!(gsi, 4 | 5) && self.vm.is_fixed(gsi);
        if !is_added && !is_fixed && gsi < self.vm.limit {
            // Nobody's, or a vector's: what comes of it is not said.
            return;
        }
        let fired = self.tap.fired();
        let bound = self.explicit.bind(gsi, fd(&self.eventfds[e]), None);
        if gsi >= self.vm.limit {
            return refused(bound, libc::EINVAL);
        }
        if self.vm.eventfds[e].owner != Owner::Nobody {
            return refused(bound, libc::EBUSY);
        }
        self.vm.eventfds[e].owner = Owner::Gsi(gsi);
        if self.vm.depth > 0 {
            bound.unwrap();
            self.vm.eventfds[e].is_new = true;
            if let Some(here) = self.vm.gsis.get_mut(&gsi) {
                here.remember();
            }
            return;
        }
        let route = self.vm.gsis.get(&gsi).and_then(|here| here.now.as_ref());
        let entries = route.map_or(1, |route| route.live().len());
        if self.vm.is_bad(gsi) {
            assert!(bound.is_err(), "the kernel does not take its route");
            self.vm.eventfds[e].owner = Owner::Nobody;
        } else if self.is_ok(&bound, fired, entries) {
            if let Some(here) = self.vm.gsis.get_mut(&gsi) {
                here.before = None;
            }
        } else if !self.look().irqfds.contains_key(&e) {
            self.vm.eventfds[e].owner = Owner::Nobody;
        }
    }

    pub(super) fn unbind_gsi(&mut self, gsi: u32, e: usize) {
        let fired = self.tap.fired();
        let unbound = self.explicit.unbind(gsi, self.eventfds[e].as_raw_fd());
        if self.vm.eventfds[e].owner != Owner::Gsi(gsi) {
            return refused(unbound, libc::ENOENT);
        }
        if self.is_ok(&unbound, fired, 0) {
            (self.vm.eventfds[e].owner, self.vm.eventfds[e].is_new) = (Owner::Nobody, false);
        } else {
            // "It is still bound then."
            self.tap.is_wanted(self.ids[e]);
        }
    }

    // ---- transactions --------------------------------------------------------------------------

    /// What was staged outside is committed first: whose it would be inside is not said.
    pub(super) fn begin(&mut self) {
        if self.vm.depth == 0 {
            self.commit_staged();
        }
        self.cache.begin().unwrap();
        self.vm.depth += 1;
    }

    pub(super) fn commit(&mut self) {
        if self.vm.depth == 0 {
            let fired = self.tap.fired();
            self.commit_staged();
            let committed = self.cache.commit();
            let all = self.vm.vectors().len() + self.vm.gsis.len();
            let is_ok = self.is_ok(&committed, fired, all);
            if is_ok {
                self.claimed.extend(self.vm.vectors());
            }
            if self.tap.fired() == fired {
                (self.vm.trouble, self.vm.deep_trouble) = (false, false);
            }
            return;
        }
        let fired = self.tap.fired();
        let wanted = self.wanted();
        let committed = self.cache.commit();
        self.vm.depth -= 1;
        if self.vm.depth > 0 {
            return committed.unwrap();
        }
        let is_bad = self.vm.gsis.keys().any(|&gsi| self.is_staged(gsi) && self.vm.is_bad(gsi));
        let is_ok = match is_bad {
            true => committed.is_ok(),
            false => self.is_ok(&committed, fired, wanted),
        };
        assert!(!is_bad || !is_ok, "the kernel does not take a route of it");
        let staged = self.vm.vectors().into_iter();
        let staged: Vec<_> =
            staged.filter(|&(f, v)| self.vm.functions[f].vectors[v].staged).collect();
        for &(f, v) in &staged {
            self.vm.functions[f].vectors[v].staged = false;
        }
        self.vm.resumed = false;
        if is_ok {
            self.claimed.extend(staged);
        }
        self.explicit_committed(is_ok, fired);
    }

    /// Explicit routes that were staged outside of a transaction.
    pub(super) fn commit_staged(&mut self) {
        let fired = self.tap.fired();
        let wanted = self.wanted();
        let is_bad = self.vm.gsis.keys().any(|&gsi| self.is_staged(gsi) && self.vm.is_bad(gsi));
        let committed = self.explicit.commit_staged();
        let is_ok = match is_bad {
            true => committed.is_ok(),
            false => self.is_ok(&committed, fired, wanted),
        };
        assert!(!is_bad || !is_ok, "the kernel does not take a route of it");
        self.explicit_committed(is_ok, fired);
    }

    fn is_staged(&self, gsi: u32) -> bool {
        self.vm.gsis.get(&gsi).is_some_and(|here| here.before.is_some())
    }

    /// How many routes what is staged may want.
    fn wanted(&self) -> usize {
        let staged = self.vm.gsis.values().filter(|here| here.before.is_some());
        let live = |here: &Gsi| here.now.as_ref().map_or(0, |route| route.live().len());
        let is_staged = |&(f, v): &(usize, usize)| self.vm.functions[f].vectors[v].staged;
        let vectors = self.vm.vectors().into_iter().filter(is_staged);
        staged.map(live).sum::<usize>() + vectors.count()
    }

    /// Those of which nothing is left: their entries are out of the table, or another's are there.
    pub(super) fn forget_ghosts(&mut self) {
        let seen = self.look();
        for (gsi, targets) in self.vm.ghosts.clone() {
            let eventfds = self.vm.eventfds_of(Owner::Gsi(gsi));
            let (bound, gone): (Vec<usize>, _) =
                eventfds.into_iter().partition(|e| seen.irqfds.contains_key(e));
            gone.into_iter().for_each(|e| self.vm.eventfds[e].owner = Owner::Nobody);
            let mut others = seen.irqfds.iter().filter(|(_, &at)| at == gsi).map(|(&e, _)| e);
            let is_anothers =
                others.any(|e| matches!(self.vm.eventfds[e].owner, Owner::Vector(..)));
            let is_left = seen.table.get(&gsi) == Some(&targets) && !is_anothers;
            if bound.is_empty() && !is_left {
                self.vm.ghosts.remove(&gsi);
            }
        }
    }

    fn explicit_committed(&mut self, is_ok: bool, fired: u64) {
        if is_ok {
            return self.vm.committed();
        }
        for (&gsi, here) in self.vm.gsis.iter().filter(|(_, here)| here.before.is_some()) {
            let live = here.now.as_ref().map_or(Vec::new(), Route::live);
            for e in self.vm.eventfds_of(Owner::Gsi(gsi)) {
                self.undone.insert(e, live.clone());
            }
        }
        for gsi in [4, 5].into_iter().filter(|&gsi| self.vm.is_fixed(gsi)) {
            let targets = self.before.table.get(&gsi).cloned().unwrap_or_default();
            for e in self.vm.eventfds_of(Owner::Gsi(gsi)) {
                self.undone.insert(e, targets.clone());
            }
        }
        self.vm.deep_trouble |= self.tap.fired() > fired + 1;
        let staged = self.vm.gsis.iter().filter(|(_, here)| here.before.is_some());
        let live = |here: &Gsi| here.now.as_ref().map_or(Vec::new(), Route::live);
        let staged: Vec<(u32, Vec<Target>)> =
            staged.map(|(&gsi, here)| (gsi, live(here))).collect();
        self.vm.taken_back();
        let seen = self.look();
        if self.vm.deep_trouble {
            let gone = staged.into_iter().filter(|(gsi, _)| !self.vm.gsis.contains_key(gsi));
            let left = gone.filter(|(gsi, targets)| seen.table.get(gsi) == Some(targets));
            self.vm.ghosts.extend(left);
        }
        for e in 0..self.eventfds.len() {
            // The kernel would not let it go again.
            if self.vm.eventfds[e].owner == Owner::Nobody && seen.irqfds.contains_key(&e) {
                assert!(self.is_stuck(e), "eventfd {e} of a failed commit is bound");
                self.vm.eventfds[e].owner = Owner::Gsi(seen.irqfds[&e]);
            }
        }
    }
}
