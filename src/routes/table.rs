// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's table as the library believes it to be, and as it is about to make it.
//!
//! Changes are staged here, in an order that can be taken back; [`Table::entries`] is then what is
//! written, and [`Table::believe`] or [`Table::take_back`] what is made of the kernel's answer.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use kvm_bindings::{
    kvm_irq_routing_entry, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID,
};

use super::gsi::GsiSet;
use super::sizing::Uses;
use crate::error::{Error, Result};
use crate::hash::HashMap;
use crate::memory::{self, list_of};
use crate::message::{Message, NO_REQUESTER};

/// A route of the library's own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub message: Message,
    /// Irqfds' vectors and changes under way; 0 is idle: kept for whoever wants the message next.
    pub pins: u32,
    /// The kernel has it.
    pub live: bool,
    /// Somebody is about to send through it for the first time.
    pub awaited: bool,
    /// How often it was used until the finder's count was `counted`.
    uses: Uses,
    counted: u32,
    /// The tick of when it was made, or last pinned or unpinned.
    touched: u32,
    /// A pin's: it stays on its GSI and is nobody else's, so it is not found by its message.
    pub is_pin: bool,
}

#[derive(Debug)]
pub(super) struct Table {
    fixed: Vec<kvm_irq_routing_entry>,
    /// Under GSIs that the VMM numbers itself. One stays, empty, when its entries are gone: late changes are told by its version.
    explicit: BTreeMap<u32, Explicit>,
    /// Entries that they have or keep room for.
    explicit_size: usize,
    /// By GSI.
    routes: Vec<Option<Route>>,
    by_message: HashMap<Message, u32>,
    gsis: GsiSet,
    /// GSIs that pins and explicit routes own, in the table or not.
    owned: GsiSet,
    count: usize,
    idle: usize,
    limit: usize,
    /// Moves on with whatever is done to a route.
    tick: u32,
    /// What each staged change replaced, oldest first.
    staged: Vec<(u32, Before)>,
}

/// For a dump.
pub(crate) struct TableState {
    pub routes: Vec<RouteState>,
    /// The VMM's own entries, under fixed and explicit GSIs.
    pub fixed: Vec<kvm_irq_routing_entry>,
    pub explicit: Vec<kvm_irq_routing_entry>,
    /// It has been written.
    pub is_written: bool,
}

pub(crate) struct RouteState {
    pub gsi: u32,
    pub message: Message,
    pub pins: u32,
    pub live: bool,
    pub is_pin: bool,
}

/// What a staged change replaced.
#[derive(Debug)]
enum Before {
    Route(Option<Route>),
    Explicit(Explicit),
}

/// What the VMM wants of a GSI.
#[derive(Clone, Debug, Default)]
pub(crate) struct Explicit {
    /// The later the change, the higher.
    pub version: u64,
    pub entries: Vec<kvm_irq_routing_entry>,
    /// So many entries have room, even if there are fewer: if the commit fails, the old ones come back.
    pub room: usize,
}

impl Explicit {
    fn size(&self) -> usize {
        self.entries.len().max(self.room)
    }
}

impl Table {
    pub fn new(first_gsi: u32, limit: u32) -> Result<Self> {
        Ok(Table {
            fixed: Vec::new(),
            explicit: BTreeMap::new(),
            explicit_size: 0,
            routes: Vec::new(),
            by_message: HashMap::default(),
            gsis: GsiSet::new(first_gsi, limit)?,
            owned: GsiSet::new(0, limit)?,
            count: 0,
            idle: 0,
            limit: limit as usize,
            tick: 0,
            staged: Vec::new(),
        })
    }

    /// Entries in the table, of whatever kind, and room that is kept.
    pub fn entry_count(&self) -> usize {
        self.fixed.len().saturating_add(self.explicit_size).saturating_add(self.count)
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn fixed_count(&self) -> usize {
        self.fixed.len()
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn idle(&self) -> usize {
        self.idle
    }

    /// Room for routes that nobody has pinned: what is free and what is idle.
    pub fn unpinned_room(&self) -> usize {
        let entries = self.limit.saturating_sub(self.entry_count());
        entries.min(self.gsis.free() as usize).saturating_add(self.idle)
    }

    pub fn find(&self, message: &Message) -> Option<u32> {
        self.by_message.get(message).copied()
    }

    pub fn get(&self, gsi: u32) -> Option<&Route> {
        self.routes.get(gsi as usize)?.as_ref()
    }

    pub fn is_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    // ---- pins: not part of what the kernel sees ------------------------------------------------

    pub fn pin(&mut self, gsi: u32) {
        if let Some(Some(route)) = self.routes.get_mut(gsi as usize) {
            lower(&mut self.idle, usize::from(route.pins == 0));
            route.pins = route.pins.saturating_add(1);
            self.tick = self.tick.wrapping_add(1);
            route.touched = self.tick;
        }
    }

    pub fn unpin(&mut self, gsi: u32) {
        if let Some(Some(route)) = self.routes.get_mut(gsi as usize) {
            debug_assert!(route.pins > 0, "GSI {gsi} is not pinned");
            raise(&mut self.idle, usize::from(route.pins == 1));
            route.pins = route.pins.saturating_sub(1);
            self.tick = self.tick.wrapping_add(1);
            route.touched = self.tick;
        }
    }

    // ---- staging -------------------------------------------------------------------------------

    /// Memory for one more.
    pub fn want_memory(&mut self) -> Result<()> {
        let next = self.gsis.lowest_free().map_or(0, |gsi| gsi as usize + 1);
        let more = next.saturating_sub(self.routes.len());
        memory::want(|| self.routes.try_reserve(more))?;
        memory::want(|| self.by_message.try_reserve(1))?;
        memory::want(|| self.staged.try_reserve(2))
    }

    /// A new route on a free GSI, idle; `None` if neither a GSI nor an entry is free.
    pub fn add(&mut self, message: Message) -> Option<u32> {
        if self.entry_count() >= self.limit {
            return None;
        }
        let gsi = self.gsis.lowest_free()?;
        self.tick = self.tick.wrapping_add(1);
        self.stage(gsi, Some(Route { touched: self.tick, ..Route::new(message) }));
        Some(gsi)
    }

    /// Another message on the same GSI: the irqfds on it stay bound.
    pub fn replace(&mut self, gsi: u32, message: Message) {
        if let Some(route) = self.get(gsi).copied() {
            self.stage(gsi, Some(Route { message, live: false, ..route }));
        }
    }

    pub fn remove(&mut self, gsi: u32) {
        self.stage(gsi, None);
    }

    /// A pin's route; it is in use for good. False if there is no entry free.
    pub fn put_pin(&mut self, gsi: u32, message: Message) -> bool {
        if self.get(gsi).is_none() && self.entry_count() >= self.limit {
            return false;
        }
        self.stage(gsi, Some(Route { pins: 1, is_pin: true, ..Route::new(message) }));
        true
    }

    /// Up to so many idle routes that can be spared: those least frequently used and, of these, those longest untouched.
    /// `counts`: see [`Route::used`], by GSI.
    pub fn victims(&self, n: usize, counts: impl Fn(u32) -> u32) -> Vec<u32> {
        let worth = |(gsi, route): (u32, &Option<Route>)| {
            // One that is staged but not live is what this very change is about.
            let route = route.as_ref().filter(|route| route.pins == 0 && route.live)?;
            let count = counts(gsi);
            let age = self.tick.wrapping_sub(route.touched);
            let is_awaited = route.awaited && count == route.counted;
            Some((is_awaited, route.used(count).all(), Reverse(age), gsi))
        };
        let mut routes: Vec<_> = (0..).zip(&self.routes).filter_map(worth).collect();
        // Those awaited only if there are no others, and one at a time.
        let n = n.min(routes.iter().filter(|(is_awaited, ..)| !is_awaited).count()).max(1);
        if n < routes.len() {
            routes.select_nth_unstable(n);
            routes.truncate(n);
        }
        routes.into_iter().map(|(.., gsi)| gsi).collect()
    }

    pub fn idle_messages(&self) -> impl Iterator<Item = Message> + '_ {
        let idle = |route: &&Route| route.pins == 0 && route.live;
        self.routes.iter().flatten().filter(idle).map(|route| route.message)
    }

    /// How often each idle route was used; `counts` as above.
    pub fn count_uses(&mut self, counts: impl Fn(u32) -> u32) -> Vec<&mut Uses> {
        let idle = (0..).zip(&mut self.routes).filter_map(|(gsi, route)| {
            let route = route.as_mut().filter(|route| route.pins == 0)?;
            let count = counts(gsi);
            (route.uses, route.counted) = (route.used(count), count);
            // Who has not sent by now is not waited for any longer.
            route.awaited = false;
            Some(&mut route.uses)
        });
        idle.collect()
    }

    /// The route was used so often before, and goes on from this count of the finder's.
    pub fn count_from(&mut self, gsi: u32, uses: Uses, count: u32) {
        if let Some(Some(route)) = self.routes.get_mut(gsi as usize) {
            (route.uses, route.counted) = (uses, count);
        }
    }

    /// Somebody is about to send through it, and should have the time to.
    pub fn await_use(&mut self, gsi: u32) {
        if let Some(Some(route)) = self.routes.get_mut(gsi as usize) {
            route.awaited = true;
        }
    }

    /// Entries that are no idle routes.
    pub fn others(&self) -> usize {
        self.entry_count().saturating_sub(self.idle)
    }

    fn stage(&mut self, gsi: u32, route: Option<Route>) {
        let before = self.put(gsi, route);
        self.staged.push((gsi, Before::Route(before)));
    }

    /// Keeps all that hangs on a route in step with it.
    fn put(&mut self, gsi: u32, route: Option<Route>) -> Option<Route> {
        let at = gsi as usize;
        if at >= self.routes.len() {
            self.routes.resize(at.saturating_add(1), None);
        }
        let before = std::mem::replace(self.routes.get_mut(at)?, route);
        if let Some(before) = before {
            if !before.is_pin {
                self.by_message.remove(&before.message);
                self.gsis.give_back(gsi);
            }
            lower(&mut self.count, 1);
            lower(&mut self.idle, usize::from(before.pins == 0));
        }
        if let Some(route) = route {
            if !route.is_pin {
                self.by_message.insert(route.message, gsi);
                self.gsis.take(gsi);
            }
            raise(&mut self.count, 1);
            raise(&mut self.idle, usize::from(route.pins == 0));
        }
        while let Some(None) = self.routes.last() {
            self.routes.pop();
        }
        before
    }

    pub fn describe(&self, is_written: bool) -> Result<TableState> {
        let mut routes = list_of(self.count)?;
        let mut fixed = list_of(self.fixed.len())?;
        let mut explicit = list_of(self.explicit_size)?;
        let state = |(gsi, route): (u32, &Option<Route>)| {
            let Route { message, pins, live, is_pin, .. } = (*route)?;
            Some(RouteState { gsi, message, pins, live, is_pin })
        };
        routes.extend((0..).zip(&self.routes).filter_map(state));
        fixed.extend_from_slice(&self.fixed);
        explicit.extend(self.explicit.values().flat_map(|explicit| &explicit.entries));
        Ok(TableState { routes, fixed, explicit, is_written })
    }

    // ---- the kernel's answer -------------------------------------------------------------------

    /// The whole table as staged, in the kernel's form.
    pub fn entries(&self) -> Result<Vec<kvm_irq_routing_entry>> {
        let mut entries = list_of(self.entry_count())?;
        entries.extend_from_slice(&self.fixed);
        entries.extend(self.explicit.values().flat_map(|explicit| &explicit.entries));
        for (gsi, route) in (0u32..).zip(&self.routes) {
            entries.extend(route.as_ref().map(|route| msi_entry(gsi, &route.message)));
        }
        Ok(entries)
    }

    /// It was written. The GSIs that changed.
    pub fn believe(&mut self) -> Vec<u32> {
        let changed: Vec<u32> = self.staged.drain(..).map(|(gsi, _)| gsi).collect();
        for &gsi in &changed {
            if let Some(Some(route)) = self.routes.get_mut(gsi as usize) {
                route.live = true;
            }
        }
        changed
    }

    /// It was refused: all staged changes are undone, latest first. The GSIs that are as before again.
    pub fn take_back(&mut self) -> Vec<u32> {
        let mut changed = Vec::with_capacity(self.staged.len());
        while let Some((gsi, before)) = self.staged.pop() {
            match before {
                Before::Route(route) => _ = self.put(gsi, route),
                Before::Explicit(explicit) => self.put_explicit(gsi, explicit),
            }
            changed.push(gsi);
        }
        changed
    }

    // ---- GSIs that the VMM numbers itself ------------------------------------------------------

    /// Takes a GSI out of those that are free: this one, or the lowest.
    pub fn take_gsi(&mut self, wanted: Option<u32>) -> Result<u32> {
        let Some(gsi) = wanted else {
            let lowest = self.gsis.lowest_free();
            let gsi = lowest.ok_or_else(no_gsi)?;
            self.gsis.take(gsi);
            self.owned.take(gsi);
            return Ok(gsi);
        };
        if gsi as usize >= self.limit {
            return Err(beyond());
        }
        if !self.gsis.take(gsi) {
            let what = "the GSI is in use: a fixed route's (the kernel's own pins are, until \
                        msi_route_cache_set_fixed), a vector's, or a pin's";
            return Err(Error::new(libc::EBUSY, what));
        }
        self.owned.take(gsi);
        Ok(gsi)
    }

    /// Its route is gone.
    pub fn give_gsi_back(&mut self, gsi: u32) {
        self.owned.give_back(gsi);
        self.gsis.give_back(gsi);
    }

    pub fn is_out_of_gsis(&self) -> bool {
        self.gsis.free() == 0
    }

    pub fn explicit(&self, gsi: u32) -> &[kvm_irq_routing_entry] {
        self.explicit.get(&gsi).map_or(&[], |explicit| &explicit.entries)
    }

    /// Whether the VMM's fixed entries, or the kernel's defaults, say this.
    pub fn fixed_has(&self, entry: &kvm_irq_routing_entry) -> bool {
        self.fixed.iter().any(|fixed| is_same(fixed, entry))
    }

    /// Other entries for a GSI; none take it out of the table. A change that a later one has overtaken is nothing. False if
    /// there is no room.
    pub fn stage_explicit(&mut self, gsi: u32, mut wanted: Explicit) -> bool {
        let now = self.explicit.get(&gsi).cloned().unwrap_or_default();
        if wanted.version <= now.version {
            return true;
        }
        // Room that it does not have it cannot keep.
        wanted.room = wanted.room.min(now.size());
        if are_same(&now.entries, &wanted.entries) {
            self.put_explicit(gsi, wanted);
            return true;
        }
        let others = self.entry_count().saturating_sub(now.size());
        if others.saturating_add(wanted.size()) > self.limit {
            return false;
        }
        self.put_explicit(gsi, wanted);
        self.staged.push((gsi, Before::Explicit(now)));
        true
    }

    /// The commit has ended: what has no entry needs no room.
    pub fn release_room(&mut self, gsi: u32) {
        if let Some(mut explicit) = self.explicit.get(&gsi).cloned() {
            explicit.room = 0;
            self.put_explicit(gsi, explicit);
        }
    }

    fn put_explicit(&mut self, gsi: u32, explicit: Explicit) {
        raise(&mut self.explicit_size, explicit.size());
        let before = self.explicit.insert(gsi, explicit).unwrap_or_default();
        lower(&mut self.explicit_size, before.size());
    }

    // ---- pins ----------------------------------------------------------------------------------

    /// Takes these GSIs for pins; all or none.
    pub fn own_pins(&mut self, gsis: Range<u32>) -> Result<()> {
        if gsis.end as usize > self.limit {
            return Err(beyond());
        }
        for gsi in gsis.clone() {
            if let Err(e) = self.take_gsi(Some(gsi)) {
                (gsis.start..gsi).for_each(|gsi| self.give_gsi_back(gsi));
                return Err(e);
            }
        }
        Ok(())
    }

    // ---- the VMM's own entries -----------------------------------------------------------------

    /// Whether these are the entries there are.
    pub fn has_fixed(&self, entries: &[kvm_irq_routing_entry]) -> bool {
        are_same(&self.fixed, entries)
    }

    /// Replaces the VMM's own entries; the old ones come back. Idle routes make way by being removed
    /// (staged); a pinned one does not.
    pub fn set_fixed(
        &mut self,
        fixed: Vec<kvm_irq_routing_entry>,
    ) -> Result<Vec<kvm_irq_routing_entry>> {
        for entry in &fixed {
            if entry.gsi as usize >= self.limit {
                return Err(Error::invalid("a fixed route's GSI is beyond the kernel's table"));
            }
            if self.owned.has(entry.gsi) {
                let what = "a fixed route's GSI is a pin's, or an explicit route's";
                return Err(Error::new(libc::EBUSY, what));
            }
            match self.get(entry.gsi) {
                Some(route) if route.pins > 0 => {
                    let what = "a fixed route's GSI is in use: set first_gsi above the VMM's own";
                    return Err(Error::new(libc::EBUSY, what));
                }
                Some(_) => self.remove(entry.gsi),
                None => {}
            }
        }
        let others = self.entry_count().saturating_sub(self.fixed.len());
        if others.saturating_add(fixed.len()) > self.limit {
            return Err(Error::new(libc::ENOSPC, "more fixed routes than the table has room for"));
        }
        Ok(self.exchange_fixed(fixed))
    }

    /// Without a look at the routes: for putting back what was there.
    pub fn exchange_fixed(
        &mut self,
        fixed: Vec<kvm_irq_routing_entry>,
    ) -> Vec<kvm_irq_routing_entry> {
        let before = std::mem::replace(&mut self.fixed, fixed);
        before.iter().for_each(|entry| self.gsis.give_back(entry.gsi));
        for entry in &self.fixed {
            // Several entries may share a GSI: the first takes it.
            self.gsis.take(entry.gsi);
        }
        before
    }
}

impl Route {
    /// Idle, and not in the kernel's table yet.
    fn new(message: Message) -> Self {
        let uses = Uses::default();
        let (awaited, live, is_pin) = (false, false, false);
        Route { message, pins: 0, live, awaited, uses, counted: 0, touched: 0, is_pin }
    }

    /// How often it was used, `count` being the finder's count by now.
    pub fn used(&self, count: u32) -> Uses {
        self.uses.and(count.wrapping_sub(self.counted))
    }
}

/// A count that the table keeps goes up.
fn raise(count: &mut usize, by: usize) {
    *count = count.saturating_add(by);
}

/// It goes down; a program that lost count would not be stopped for it, but a test is.
fn lower(count: &mut usize, by: usize) {
    debug_assert!(*count >= by, "what is not there is taken away");
    *count = count.saturating_sub(by);
}

fn msi_entry(gsi: u32, message: &Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi.address_lo = message.address_lo();
    entry.u.msi.address_hi = message.address_hi();
    entry.u.msi.data = message.data;
    if message.requester != NO_REQUESTER {
        entry.flags = KVM_MSI_VALID_DEVID;
        entry.u.msi.__bindgen_anon_1.devid = message.requester;
    }
    entry
}

fn beyond() -> Error {
    Error::invalid("the GSI is beyond the kernel's table")
}

fn no_gsi() -> Error {
    Error::new(libc::ENOSPC, "no GSI is free")
}

/// Whether two entries say the same.
pub(crate) fn is_same(a: &kvm_irq_routing_entry, b: &kvm_irq_routing_entry) -> bool {
    let head = |entry: &kvm_irq_routing_entry| (entry.gsi, entry.type_, entry.flags);
    head(a) == head(b) && target(a) == target(b)
}

pub(crate) fn are_same(a: &[kvm_irq_routing_entry], b: &[kvm_irq_routing_entry]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b))
}

/// Where an entry leads: as many words as its kind has, the others zero.
fn target(entry: &kvm_irq_routing_entry) -> [u32; 8] {
    // SAFETY: the union's largest member, which covers all of it; whoever made the entry wrote all of it.
    let words = unsafe { entry.u.pad };
    let [first, second, third, fourth, ..] = words;
    match entry.type_ {
        KVM_IRQ_ROUTING_IRQCHIP => [first, second, 0, 0, 0, 0, 0, 0],
        KVM_IRQ_ROUTING_MSI => {
            let devid = if entry.flags & KVM_MSI_VALID_DEVID != 0 { fourth } else { 0 };
            [first, second, third, devid, 0, 0, 0, 0]
        }
        _ => words,
    }
}
