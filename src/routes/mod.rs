// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's GSI table as a cache of routes.
//!
//! - [`gsi`]: which GSIs are free.
//! - [`table`]: the table as believed and as staged.
//! - [`line`]: changes of many threads, made with one write.
//! - [`sizing`]: which routes to keep, and how many, where messages are sent through them.
//! - [`finder`]: from a message to its GSI without a lock, where messages are sent through routes.
//! - This file: changes, made in one piece: stage, write, only then believe.
//!
//! A route is *pinned* while a vector's irqfd stands on it, and *idle* otherwise. Idle routes stay in
//! the kernel's table and are found again by message; they make way when room is needed.

mod finder;
mod gsi;
mod line;
mod sizing;
mod table;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use kvm_bindings::kvm_irq_routing_entry;

use crate::backend::{Backend, Features};
use crate::error::{Error, Result};
use crate::memory;
use crate::message::{Message, NO_REQUESTER};
use crate::sync::Mutex;
use crate::trace;
use finder::Finder;
use line::Line;
use sizing::Sizing;
use table::Table;
pub(crate) use table::{are_same, is_same, Explicit, RouteState, TableState};

/// Idle routes kept where messages do not go through routes. Each makes every write of the table
/// dearer (13 µs at 64 entries, 500 at 4096).
const MAX_IDLE: usize = 64;

/// Where messages go through routes, so many make way at once if there are enough: senders are waited for less often.
const EVICTED_TOGETHER: usize = 4;

/// Entries that are never pinned where messages go through routes: there is always one to send by.
const MIN_DYNAMIC: usize = 4;

/// What is wanted of the table. The result of each is the GSI; of the first two one that the caller has pinned.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A route for this message.
    Pin(Message),
    /// The caller's pinned route is to carry another message. In place if nobody else uses either;
    /// else the result is another GSI, and both are pinned.
    Retarget(u32, Message),
    /// A route for this message, for whoever sends through it; nobody pins it.
    Provide(Message),
    /// This GSI, which the caller owns, is to carry this message, or none.
    Own(u32, Option<Message>),
    /// This GSI, which the VMM numbers itself, is to have these entries.
    Explicit(u32, Explicit),
}

/// A route that somebody has pinned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PinnedRoute {
    pub gsi: u32,
    pub message: Message,
}

/// A VM's routes.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Held across the write of the table. Nothing is locked under it; a device's lock is never held
    /// when it is taken for a change.
    state: Mutex<State>,
    /// Changes that wait for their turn.
    line: Line<Vec<Change>, Vec<Result<u32>>>,
    /// Where messages are sent through routes.
    finder: Option<Finder>,
    requester_matters: bool,
    /// A message is a GSI: there is no table.
    gsi_direct: bool,
    writes: AtomicU64,
    write_errors: AtomicU64,
    evictions: AtomicU64,
    chances: AtomicU64,
}

#[derive(Debug)]
struct State {
    table: Table,
    /// Where messages are sent through routes.
    sizing: Option<Sizing>,
    /// Messages that get a route again with the next write, if there is room.
    back: Vec<Message>,
    /// The table has never been written: the kernel's own defaults are in force.
    untouched: bool,
    /// The VMM said what its fixed routes are.
    fixed_given: bool,
    /// The table is not the library's to write any more.
    closed: bool,
}

/// Numbers for the statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub writes: u64,
    pub write_errors: u64,
    pub evictions: u64,
    pub routes: u64,
    pub pinned: u64,
}

impl Routes {
    /// GSIs from `first_gsi`; `direct`: messages do not go through routes.
    pub fn new(first_gsi: u32, features: &Features, direct: bool) -> Result<Self> {
        let limit = features.max_routes;
        let table = Table::new(first_gsi, limit)?;
        Ok(Routes {
            state: Mutex::new(State {
                table,
                sizing: (!direct).then(|| Sizing::new(limit as usize)),
                back: Vec::new(),
                untouched: true,
                fixed_given: false,
                closed: false,
            }),
            line: Line::new(),
            finder: (!direct).then(|| Finder::new(limit)).transpose()?,
            requester_matters: features.requester,
            gsi_direct: features.gsi_direct,
            writes: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            chances: AtomicU64::new(0),
        })
    }

    /// Makes all changes with one write of the table, together with those that other threads want meanwhile; with none if the
    /// kernel has all of it already. A change for which there is no room fails alone (`ENOSPC`). A table that the kernel refuses is
    /// tried again in halves, so that only the culprit fails; what fails is as before.
    pub fn apply(&self, backend: &dyn Backend, changes: Vec<Change>) -> Vec<Result<u32>> {
        if self.gsi_direct {
            return changes.iter().map(|change| gsi_of(backend, change)).collect();
        }
        let results = self.line.bring(changes, |batches| {
            let state = &mut *self.state.lock();
            let all: Vec<Change> = batches.iter().copied().flatten().cloned().collect();
            let results = if state.closed {
                all.iter().map(|_| Err(closed())).collect()
            } else {
                state.look_for_defaults(backend);
                self.apply_together(state, backend, &all)
            };
            let mut results = results.into_iter();
            batches.iter().map(|batch| results.by_ref().take(batch.len()).collect()).collect()
        });
        results.unwrap_or_default()
    }

    fn apply_together(
        &self,
        state: &mut State,
        backend: &dyn Backend,
        changes: &[Change],
    ) -> Vec<Result<u32>> {
        // What makes room comes first, whatever the order.
        let frees = |change: &Change| match change {
            Change::Own(_, message) => message.is_none(),
            Change::Explicit(_, wanted) => wanted.entries.is_empty(),
            _ => false,
        };
        let mut staged: Vec<(usize, Result<u32>)> = Vec::with_capacity(changes.len());
        for is_first in [true, false] {
            for (at, change) in changes.iter().enumerate() {
                if frees(change) == is_first {
                    staged.push((at, self.stage(state, change)));
                }
            }
        }
        staged.sort_unstable_by_key(|(at, _)| *at);
        let mut results: Vec<Result<u32>> = staged.into_iter().map(|(_, result)| result).collect();
        let Err((refusal, taken_back)) = self.write(state, backend) else {
            return results;
        };
        let was_refused =
            |result: &Result<u32>| result.as_ref().is_ok_and(|gsi| taken_back.contains(gsi));
        let again: Vec<usize> =
            (0..changes.len()).filter(|&at| results.get(at).is_some_and(was_refused)).collect();
        let mut put = |at: usize, result| {
            if let Some(place) = results.get_mut(at) {
                *place = result;
            }
        };
        match *again {
            [only] => put(only, Err(refusal)),
            // Without any of the changes it is refused too: none of them is the culprit.
            _ if self.write_whole(state, backend).is_err() => {
                again.iter().for_each(|&at| put(at, Err(refusal.clone())));
            }
            _ => {
                let (first, second) = again.split_at(again.len() / 2);
                for half in [first, second] {
                    let part: Vec<Change> =
                        half.iter().filter_map(|&at| changes.get(at).cloned()).collect();
                    let part = self.apply_together(state, backend, &part);
                    half.iter().zip(part).for_each(|(&at, result)| put(at, result));
                }
            }
        }
        results
    }

    /// Gives a pinned route up. It stays in the kernel's table, for whoever wants its message next.
    pub fn unpin(&self, gsi: u32) {
        self.state.lock().table.unpin(gsi);
        self.chances.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes GSIs for a device's pins.
    ///
    /// Errors: `EINVAL` (beyond the table), `EBUSY` (somebody else's).
    pub fn own_pins(&self, backend: &dyn Backend, gsis: Range<u32>) -> Result<()> {
        let mut state = self.state.lock();
        state.look_for_defaults(backend);
        state.table.own_pins(gsis)
    }

    /// Takes pins out of the table and gives their GSIs back. If the kernel refuses, they stay taken.
    pub fn disown_pins(&self, backend: &dyn Backend, gsis: &[u32]) -> Result<()> {
        let changes: Vec<Change> = gsis.iter().map(|&gsi| Change::Own(gsi, None)).collect();
        let results = self.apply(backend, changes);
        let mut state = self.state.lock();
        let mut first = Ok(());
        for (&gsi, result) in gsis.iter().zip(results) {
            match result {
                Ok(_) => state.table.give_gsi_back(gsi),
                Err(e) => first = first.and(Err(e)),
            }
        }
        first
    }

    /// Takes a GSI for the VMM to number: this one, or the lowest that is free.
    ///
    /// Errors: `EINVAL` (beyond the table), `EBUSY` (somebody else's), `ENOSPC`.
    pub fn take_gsi(&self, backend: &dyn Backend, wanted: Option<u32>) -> Result<u32> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        state.look_for_defaults(backend);
        if wanted.is_none() && state.table.is_out_of_gsis() {
            // An idle route makes way, with one write.
            self.evict(&mut state, 1);
            self.write(&mut state, backend).map_err(|(refusal, _)| refusal)?;
        }
        state.table.take_gsi(wanted)
    }

    /// Gives such a GSI back; it is not in the table any more.
    pub fn give_gsi_back(&self, gsi: u32) {
        self.state.lock().table.give_gsi_back(gsi);
        self.chances.fetch_add(1, Ordering::SeqCst);
    }

    /// The room that such a GSI kept is others' now.
    pub fn release_room(&self, gsi: u32) {
        self.state.lock().table.release_room(gsi);
        self.chances.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether the VMM's fixed routes, or the kernel's own, have this entry.
    pub fn fixed_has(&self, backend: &dyn Backend, entry: &kvm_irq_routing_entry) -> bool {
        let mut state = self.state.lock();
        state.look_for_defaults(backend);
        state.table.fixed_has(entry)
    }

    /// What a pin's GSI carries now, in the kernel's table.
    pub fn pin_message(&self, gsi: u32) -> Option<Message> {
        let state = self.state.lock();
        state.table.get(gsi).filter(|route| route.live).map(|route| route.message)
    }

    /// What tells routes apart: the message as it stands in the table.
    pub fn key(&self, message: &Message) -> Message {
        let requester = if self.requester_matters { message.requester } else { NO_REQUESTER };
        Message { requester, ..*message }
    }

    /// Moves on when a pin is given up and when the table is written: what could not be had before may be
    /// had now.
    pub fn chances(&self) -> u64 {
        self.chances.load(Ordering::SeqCst)
    }

    /// When this returns the table is not being written, and never will be again.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Replaces the VMM's own entries.
    pub fn set_fixed(
        &self,
        backend: &dyn Backend,
        entries: Vec<kvm_irq_routing_entry>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        let unchanged = state.table.has_fixed(&entries);
        if unchanged && !state.untouched {
            state.fixed_given = true;
            return Ok(());
        }
        let gsis = memory::collect(entries.iter().map(|entry| entry.gsi))?;
        self.retire(&gsis);
        let more = entries.len().saturating_sub(state.table.fixed_count());
        self.make_room(&mut state, more);
        let old = match state.table.set_fixed(entries) {
            Ok(old) => old,
            Err(e) => {
                self.take_back(&mut state);
                return Err(e);
            }
        };
        match self.write_now(&mut state, backend) {
            Ok(()) => {
                state.fixed_given = true;
                Ok(())
            }
            Err(e) => {
                state.table.exchange_fixed(old);
                self.take_back(&mut state);
                Err(e)
            }
        }
    }

    /// Calls `raise` with a GSI routed to this message. Inside a section; `is_counted` says of which kind. `None` if there is none yet: leave the section
    /// and [`Routes::provide`] one. Only where messages go through routes.
    #[inline(always)]
    pub fn with_gsi<T>(
        &self,
        message: &Message,
        is_counted: bool,
        raise: impl FnOnce(u32) -> T,
    ) -> Option<T> {
        self.finder.as_ref()?.with_gsi(&self.key(message), is_counted, raise)
    }

    /// Sees to it that the message can be sent through a route. Not from inside a section.
    pub fn provide(&self, backend: &dyn Backend, message: &Message) -> Result<()> {
        self.apply(backend, vec![Change::Provide(*message)])
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        Ok(())
    }

    /// A message has no route: perhaps there should be more, or others.
    fn size_up(&self, state: &mut State) {
        let State { table, sizing: Some(sizing), .. } = state else { return };
        if !sizing.missed(table.entry_count()) {
            return;
        }
        let (others, room) = (table.others(), table.unpinned_room());
        let back = sizing.look(table.count_uses(|gsi| self.uses(gsi)), others, room);
        let target = sizing.target().min(room);
        let surplus =
            table.idle().saturating_add(back.len()).saturating_add(1).saturating_sub(target);
        state.back = back;
        if surplus > 0 {
            self.evict(state, surplus);
        }
        if surplus > target {
            // The kernel's table is as long as its highest GSI: those who stay move down.
            state.back.extend(state.table.idle_messages());
            self.evict(state, usize::MAX);
        }
    }

    pub fn counts(&self) -> Counts {
        let state = self.state.lock();
        let routes = state.table.count() as u64;
        Counts {
            writes: self.writes.load(Ordering::Relaxed),
            write_errors: self.write_errors.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
            routes,
            pinned: routes.saturating_sub(state.table.idle() as u64),
        }
    }

    /// For people.
    pub fn describe(&self) -> Result<TableState> {
        let state = self.state.lock();
        state.table.describe(!state.untouched)
    }

    // ---- staging -------------------------------------------------------------------------------

    fn stage(&self, state: &mut State, change: &Change) -> Result<u32> {
        state.table.want_memory()?;
        match *change {
            Change::Pin(message) => self.stage_pin(state, self.key(&message), 0),
            Change::Retarget(gsi, message) => {
                let message = self.key(&message);
                let table = &mut state.table;
                let only_user = table.get(gsi).is_some_and(|route| route.pins == 1);
                match table.find(&message) {
                    Some(found) if found == gsi => Ok(gsi),
                    None if only_user => {
                        self.retire(&[gsi]);
                        table.replace(gsi, message);
                        Ok(gsi)
                    }
                    // Its own is free then.
                    _ => self.stage_pin(state, message, usize::from(only_user)),
                }
            }
            Change::Provide(message) => {
                let message = self.key(&message);
                if let Some(gsi) = state.table.find(&message) {
                    // If it is only staged yet, it is published when it is written.
                    self.publish(state, &[gsi]);
                    return Ok(gsi);
                }
                self.size_up(state);
                let gsi = self.add(state, message)?;
                state.table.await_use(gsi);
                Ok(gsi)
            }
            Change::Own(gsi, message) => {
                let message = message.map(|message| self.key(&message));
                let table = &mut state.table;
                if table.get(gsi).map(|route| route.message) == message {
                    return Ok(gsi);
                }
                self.retire(&[gsi]);
                let is_new = table.get(gsi).is_none();
                if message.is_some() && is_new {
                    self.make_room(state, 1);
                }
                let table = &mut state.table;
                match message {
                    Some(message) if !table.put_pin(gsi, message) => return Err(no_room()),
                    Some(_) => {}
                    None => table.remove(gsi),
                }
                Ok(gsi)
            }
            Change::Explicit(gsi, ref wanted) => {
                let now = state.table.explicit(gsi).len();
                self.make_room(state, wanted.entries.len().saturating_sub(now));
                match state.table.stage_explicit(gsi, wanted.clone()) {
                    true => Ok(gsi),
                    false => Err(no_room()),
                }
            }
        }
    }

    fn stage_pin(&self, state: &mut State, message: Message, freed: usize) -> Result<u32> {
        let table = &state.table;
        let found = table.find(&message);
        let newly_pinned = found.and_then(|gsi| table.get(gsi)).is_none_or(|route| route.pins == 0);
        if self.finder.is_some()
            && newly_pinned
            && table.unpinned_room().saturating_add(freed) <= MIN_DYNAMIC
        {
            return Err(no_room());
        }
        let gsi = match found {
            Some(gsi) => gsi,
            None => self.add(state, message)?,
        };
        state.table.pin(gsi);
        Ok(gsi)
    }

    /// A new route: on a free GSI, or an idle route's.
    fn add(&self, state: &mut State, message: Message) -> Result<u32> {
        let uses = |gsi| self.uses(gsi);
        let together = match self.finder {
            Some(_) => (state.table.idle() / 4).clamp(1, EVICTED_TOGETHER),
            None => 1,
        };
        if let Some(surplus) = state.table.idle().checked_sub(state.idle_limit()) {
            self.evict(state, surplus.saturating_add(together));
        }
        if let Some(gsi) = state.add(message, uses) {
            return Ok(gsi);
        }
        if !self.evict(state, together) {
            return Err(no_room());
        }
        state.add(message, uses).ok_or_else(no_room)
    }

    /// Throws idle routes out, up to so many; senders are waited for once. Whether any was.
    fn evict(&self, state: &mut State, n: usize) -> bool {
        let victims = state.table.victims(n, |gsi| self.uses(gsi));
        if victims.is_empty() {
            return false;
        }
        self.retire(&victims);
        for gsi in victims {
            if let (Some(sizing), Some(route)) = (&mut state.sizing, state.table.get(gsi)) {
                sizing.evicted(route.message, route.used(self.uses(gsi)));
            }
            if let Some(route) = state.table.get(gsi) {
                trace::evict(gsi, &route.message);
            }
            state.table.remove(gsi);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// The finder's count, by which the table knows how often a route was used.
    fn uses(&self, gsi: u32) -> u32 {
        self.finder.as_ref().map_or(0, |finder| finder.uses(gsi))
    }

    /// Idle routes make way for so many entries, as far as there are any.
    fn make_room(&self, state: &mut State, entries: usize) {
        let wanted = state.table.entry_count().saturating_add(entries);
        let missing = wanted.saturating_sub(state.table.limit());
        if missing > 0 {
            self.evict(state, missing);
        }
    }

    fn retire(&self, gsis: &[u32]) {
        if let Some(finder) = &self.finder {
            finder.retire(gsis);
        }
    }

    // ---- writing -------------------------------------------------------------------------------

    /// On failure, the GSIs that are as before again.
    fn write(
        &self,
        state: &mut State,
        backend: &dyn Backend,
    ) -> std::result::Result<(), (Error, Vec<u32>)> {
        if !state.table.is_staged() {
            return Ok(());
        }
        // The write is paid for: what is idle beyond measure goes with it, and what was used much comes back.
        let too_many = state.table.idle().saturating_sub(state.idle_limit());
        if too_many > 0 {
            self.evict(state, too_many);
        }
        for message in std::mem::take(&mut state.back) {
            if state.table.idle() < state.idle_limit() && state.table.find(&message).is_none() {
                state.add(message, |gsi| self.uses(gsi));
            }
        }
        self.write_now(state, backend).map_err(|refusal| (refusal, self.take_back(state)))
    }

    fn write_now(&self, state: &mut State, backend: &dyn Backend) -> Result<()> {
        self.write_whole(state, backend)?;
        self.chances.fetch_add(1, Ordering::SeqCst);
        let changed = state.table.believe();
        self.publish(state, &changed);
        Ok(())
    }

    fn write_whole(&self, state: &mut State, backend: &dyn Backend) -> Result<()> {
        let written = state
            .table
            .entries()
            .and_then(|entries| trace::table_write(entries.len(), || backend.set_routes(&entries)));
        let counter = if written.is_ok() { &self.writes } else { &self.write_errors };
        counter.fetch_add(1, Ordering::Relaxed);
        state.untouched &= written.is_err();
        written
    }

    fn take_back(&self, state: &mut State) -> Vec<u32> {
        let changed = state.table.take_back();
        self.publish(state, &changed);
        changed
    }

    /// What these GSIs now are, for senders.
    fn publish(&self, state: &State, changed: &[u32]) {
        let Some(finder) = &self.finder else { return };
        for &gsi in changed {
            if let Some(route) = state.table.get(gsi).filter(|route| route.live) {
                finder.publish(gsi, &route.message);
            }
        }
    }
}

impl State {
    /// See [`Table::add`]. `counts`: the finder's counts, by GSI.
    fn add(&mut self, message: Message, counts: impl Fn(u32) -> u32) -> Option<u32> {
        let gsi = self.table.add(message)?;
        if let Some(sizing) = &mut self.sizing {
            self.table.count_from(gsi, sizing.take(&message), counts(gsi));
        }
        Some(gsi)
    }

    fn idle_limit(&self) -> usize {
        self.sizing.as_ref().map_or(MAX_IDLE, Sizing::target)
    }

    /// Until the table is first written, the kernel's own entries are in force, and travel along with
    /// that first write.
    fn look_for_defaults(&mut self, backend: &dyn Backend) {
        if self.untouched && !self.fixed_given {
            self.table.exchange_fixed(backend.default_routes());
        }
    }
}

fn closed() -> Error {
    Error::new(libc::ESHUTDOWN, "the route cache is gone")
}

fn no_room() -> Error {
    Error::new(libc::ENOSPC, "the kernel's table of routes is full of routes in use")
}

/// Where a message is a GSI.
fn gsi_of(backend: &dyn Backend, change: &Change) -> Result<u32> {
    match change {
        Change::Pin(message) | Change::Retarget(_, message) | Change::Provide(message) => {
            backend.gsi_of(message)
        }
        Change::Own(..) | Change::Explicit(..) => {
            Err(Error::new(libc::ENOTSUP, "there is no table of routes"))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
