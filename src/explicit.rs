// SPDX-License-Identifier: MIT OR Apache-2.0
//! Explicit routes: for a VMM that numbers GSIs itself (QEMU's virqs), and for entries that are no messages.
//!
//! A GSI's entries are staged until a commit, or until an irqfd needs them; from then on they are always in the
//! kernel's table, for the kernel itself may read them there (a split IOAPIC's pins), and the VMM raise them past
//! us. What stops interrupts, unbinding and removing, is not staged: irqfds are gone when the call returns.
//!
//! An eventfd is an irqfd exactly while its GSI has a live entry. Of a GSI without one (its message is all zero, or
//! none) it counts: a bound one would lose its events.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use kvm_bindings::{kvm_irq_routing_entry, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI};
use parking_lot::{Mutex, MutexGuard};

use crate::arm;
use crate::cache::{first_error, refuse_reentry, Member, RouteCache};
use crate::dump::{Described, ExplicitState};
use crate::error::{Error, Result};
use crate::irqfd::{self, Irqfd};
use crate::memory::list_of;
use crate::owner::{Finish, Item, Owner, Stage, Staged};
use crate::routes::{are_same, is_same, Change, Explicit};
use crate::transaction::{self, arm_or_take_back};

/// A VM's explicit routes.
pub struct ExplicitRoutes {
    cache: Arc<RouteCache>,
    me: Weak<ExplicitRoutes>,
    /// Keeps those apart that add routes: the table's lock is taken under it, and `state`.
    adding: Mutex<()>,
    /// As a device's `control`: irqfds are bound and unbound under it. The table's lock is not taken under it: that may wait
    /// for a write, and who waits for `state` meanwhile could not share the next one.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    gsis: BTreeMap<u32, Gsi>,
    /// Staged outside of any transaction.
    staged: BTreeSet<u32>,
    /// Of the last change that the table was asked for.
    version: u64,
    paused: bool,
    gone: bool,
}

impl State {
    fn gsi(&mut self, gsi: u32) -> &mut Gsi {
        self.gsis.entry(gsi).or_insert_with(|| Gsi {
            asked: Explicit { version: self.version, ..Explicit::default() },
            answered: self.version,
            ..Gsi::default()
        })
    }
}

#[derive(Default)]
struct Gsi {
    /// Taken by a route of the VMM's; else it only has irqfds, on the kernel's own pin or a fixed route.
    owned: bool,
    /// The VMM let it go; it is free when its entries have left the table.
    removed: bool,
    entries: Vec<kvm_irq_routing_entry>,
    /// Only irqfds use it: without one it need not be in the table.
    irqfds_alone: bool,
    irqfds: Vec<Irqfd>,
    /// What the table was last asked for, and the latest of its answers.
    asked: Explicit,
    answered: u64,
    /// As it was when the last commit ended, if it was changed since.
    before: Option<Before>,
    /// That was outside of a transaction.
    is_staged: bool,
    /// As it was, staged so, before a transaction changed it again.
    before_begin: Option<Before>,
    /// That transaction failed: what is staged again when the table is as before.
    staged_again: Option<Before>,
}

struct Before {
    owned: bool,
    entries: Vec<kvm_irq_routing_entry>,
    irqfds_alone: bool,
    /// By number.
    irqfds: Vec<RawFd>,
}

/// Not a message, so not to be sent: address 0 would reach APIC 0.
fn is_live(entry: &kvm_irq_routing_entry) -> bool {
    if entry.type_ != KVM_IRQ_ROUTING_MSI {
        return true;
    }
    // SAFETY: the entry's type says that `msi` is the member in use.
    let msi = unsafe { entry.u.msi };
    match cfg!(any(target_arch = "x86_64", target_arch = "x86")) {
        true => msi.address_lo >> 20 == 0xFEE,
        false => (msi.address_lo, msi.address_hi, msi.data) != (0, 0, 0),
    }
}

impl Gsi {
    /// What is to be in the table.
    fn wanted(&self) -> Vec<kvm_irq_routing_entry> {
        if self.irqfds_alone && self.irqfds.is_empty() {
            return Vec::new();
        }
        self.entries.iter().filter(|entry| is_live(entry)).copied().collect()
    }

    /// What the kernel's table has; `None` while a change is under way, or when one was refused.
    fn in_force(&self) -> Option<&[kvm_irq_routing_entry]> {
        (self.answered == self.asked.version).then_some(&self.asked.entries)
    }

    fn is_as_wanted(&self) -> bool {
        !self.owned || self.in_force().is_some_and(|now| are_same(now, &self.wanted()))
    }

    fn is_gone(&self) -> bool {
        self.in_force().is_some_and(<[_]>::is_empty)
    }

    /// The change that gives it these entries: a new one, unless the last is that.
    fn ask(&mut self, entries: Vec<kvm_irq_routing_entry>, version: &mut u64) -> Explicit {
        if !are_same(&self.asked.entries, &entries) {
            *version = version.saturating_add(1);
            let may_come_back = |before: &Option<Before>| {
                let live =
                    before.iter().flat_map(|before| &before.entries).filter(|it| is_live(it));
                live.count()
            };
            // What is removed stays so.
            let room = match self.removed {
                true => 0,
                false => may_come_back(&self.before).max(may_come_back(&self.before_begin)),
            };
            self.asked = Explicit { version: *version, entries, room };
        }
        self.asked.clone()
    }

    /// One entry more, if it may have several. False if it has this one.
    fn add(
        &mut self,
        entry: kvm_irq_routing_entry,
        irqfds_alone: bool,
        in_transaction: bool,
    ) -> Result<bool> {
        let is_pin = |entry: &kvm_irq_routing_entry| entry.type_ == KVM_IRQ_ROUTING_IRQCHIP;
        if self.removed {
            self.remember(in_transaction);
            self.removed = false;
            self.entries.clear();
        } else if self.entries.iter().any(|other| is_same(other, &entry)) {
            return Ok(false);
        } else if is_pin(&entry) && self.entries.iter().all(is_pin) {
            self.remember(in_transaction);
        } else {
            return Err(Error::new(libc::EBUSY, "the GSI has a route already"));
        }
        self.entries.push(entry);
        self.irqfds_alone = irqfds_alone;
        Ok(true)
    }

    fn remember(&mut self, in_transaction: bool) {
        let now = || Before {
            owned: self.owned && !self.removed,
            entries: self.entries.clone(),
            irqfds_alone: self.irqfds_alone,
            irqfds: self.irqfds.iter().map(|irqfd| irqfd.number).collect(),
        };
        if self.before.is_none() {
            self.before = Some(now());
        } else if in_transaction && self.is_staged && self.before_begin.is_none() {
            self.before_begin = Some(now());
        }
    }

    /// Those meant are gone, but for what the kernel refuses to let go.
    fn drop_irqfds(&mut self, cache: &RouteCache, is_meant: impl Fn(&Irqfd) -> bool) -> Result<()> {
        let meant = self.irqfds.iter_mut().filter(|irqfd| is_meant(irqfd));
        let result = first_error(meant.map(|irqfd| irqfd.unbind(cache)));
        self.irqfds.retain(|irqfd| {
            let stays = !is_meant(irqfd) || irqfd.bound.is_some();
            if !stays {
                irqfd.release(cache);
            }
            stays
        });
        result
    }
}

impl ExplicitRoutes {
    /// The VM's; one a cache.
    ///
    /// Errors: `ENOMEM`.
    pub fn new(cache: &Arc<RouteCache>) -> Result<Arc<Self>> {
        let routes = Arc::new_cyclic(|me| ExplicitRoutes {
            cache: cache.clone(),
            me: me.clone(),
            adding: Mutex::default(),
            state: Mutex::default(),
        });
        cache.join(std::ptr::from_ref(&*routes).addr(), routes.clone())?;
        Ok(routes)
    }

    /// Adds an entry, on this GSI or the lowest that is free; `irqfds_alone`: only irqfds use it. Several IRQCHIP entries may be
    /// on a GSI; one that is there already is nothing. (The entry's own `gsi` is not looked at.) Its GSI.
    ///
    /// Errors: `EINVAL` (beyond the table), `EBUSY` (the GSI is in use), `ENOSPC`, `ENOTSUP`, `ESHUTDOWN`.
    pub fn add(
        &self,
        entry: kvm_irq_routing_entry,
        wanted: Option<u32>,
        irqfds_alone: bool,
    ) -> Result<u32> {
        if !self.cache.features().routes {
            return Err(Error::new(libc::ENOTSUP, "there is no table of routes"));
        }
        let in_transaction = transaction::is_open(&self.cache);
        let _adding = self.adding.lock();
        if let Some(gsi) = wanted {
            let entry = kvm_irq_routing_entry { gsi, ..entry };
            let mut state = self.lock()?;
            if let Some(here) = state.gsis.get_mut(&gsi).filter(|here| here.owned) {
                if here.add(entry, irqfds_alone, in_transaction)? {
                    self.note(state, gsi);
                }
                return Ok(gsi);
            }
            drop(state);
            if self.cache.routes.fixed_has(self.cache.backend(), &entry) {
                return Ok(gsi);
            }
        }
        let gsi = self.take_gsi(wanted)?;
        let mut state = self.lock()?;
        let here = state.gsi(gsi);
        here.remember(in_transaction);
        (here.owned, here.removed, here.irqfds_alone) = (true, false, irqfds_alone);
        here.entries = vec![kvm_irq_routing_entry { gsi, ..entry }];
        self.note(state, gsi);
        Ok(gsi)
    }

    /// A GSI that is nobody's.
    fn take_gsi(&self, wanted: Option<u32>) -> Result<u32> {
        let some_staged = !self.lock()?.staged.is_empty();
        let take = || self.cache.routes.take_gsi(self.cache.backend(), wanted);
        match take() {
            Err(e) if e.errno() == libc::ENOSPC && some_staged => {
                // GSIs that were removed, and that no commit has freed yet.
                self.commit_staged()?;
                take()
            }
            taken => taken,
        }
    }

    /// Gives a GSI another entry, in place of all it has; its irqfds stay.
    ///
    /// Errors: `ENOENT` (it has no route of the VMM's), `ESHUTDOWN`.
    pub fn update(&self, gsi: u32, entry: kvm_irq_routing_entry) -> Result<()> {
        let in_transaction = transaction::is_open(&self.cache);
        let mut state = self.lock()?;
        let here = owned(&mut state, gsi)?;
        let entry = kvm_irq_routing_entry { gsi, ..entry };
        if let [only] = here.entries.as_slice() {
            if is_same(only, &entry) {
                return Ok(());
            }
        }
        here.remember(in_transaction);
        here.entries = vec![entry];
        self.note(state, gsi);
        Ok(())
    }

    /// Lets a GSI go; its irqfds are unbound and let go when this returns.
    ///
    /// Errors: `ENOENT`, `ESHUTDOWN`; what the kernel says to an unbind (it stays then).
    pub fn remove(&self, gsi: u32) -> Result<()> {
        let in_transaction = transaction::is_open(&self.cache);
        let mut state = self.lock()?;
        let here = owned(&mut state, gsi)?;
        here.drop_irqfds(&self.cache, |_| true)?;
        here.remember(in_transaction);
        here.entries.clear();
        here.removed = true;
        self.note(state, gsi);
        Ok(())
    }

    /// From now on a signal of the eventfd raises the GSI, whoever's its route is; with `resample`, level-triggered.
    ///
    /// Errors: `EBADF`; `EINVAL` (no eventfd, a semaphore, a GSI beyond the table); `EBUSY`; `EMFILE`; `ENOTSUP`;
    /// outside a transaction what the kernel says to the route and to the irqfd. It is not bound then.
    pub fn bind(
        &self,
        gsi: u32,
        fd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
    ) -> Result<()> {
        let features = self.cache.features();
        if !features.irqfd || (resample.is_some() && !features.resample) {
            return Err(Error::new(libc::ENOTSUP, "there are no such irqfds"));
        }
        if gsi >= features.max_routes {
            return Err(Error::invalid("the GSI is beyond the kernel's table"));
        }
        let in_transaction = transaction::is_open(&self.cache);
        let mut state = self.lock()?;
        if state.gsis.get(&gsi).is_some_and(|here| here.removed) {
            return Err(Error::new(libc::ENOENT, "the GSI was let go"));
        }
        let irqfd = Irqfd::take(&self.cache, fd, resample, false)?;
        let here = state.gsi(gsi);
        let was_staged = here.before.is_some();
        here.remember(in_transaction);
        here.irqfds.push(irqfd);
        drop(state);
        let item = self.item(gsi);
        if transaction::defer(&self.cache, &item) {
            return Ok(());
        }
        let armed = arm::arm(&self.cache, &item);
        let mut state = self.lock()?;
        if armed.is_ok() {
            // Unless another thread has changed it since: that waits for its commit.
            if state.gsis.get(&gsi).is_none_or(Gsi::is_as_wanted) {
                state.staged.remove(&gsi);
            }
            drop(state);
            self.keep(gsi);
        } else if let Some(here) = state.gsis.get_mut(&gsi) {
            here.drop_irqfds(&self.cache, |irqfd| irqfd.number == fd.as_raw_fd())?;
            if !was_staged && !here.is_staged {
                here.before = None;
            }
            self.forget_if_unused(&mut state, gsi);
        }
        armed
    }

    /// Lets an eventfd go, by the number it was bound with. No interrupt comes by it once this returns.
    ///
    /// Errors: `ENOENT`, `ESHUTDOWN`; what the kernel says (it is still bound then).
    pub fn unbind(&self, gsi: u32, number: RawFd) -> Result<()> {
        let mut state = self.lock()?;
        let here = state.gsis.get_mut(&gsi);
        let here = here.filter(|here| here.irqfds.iter().any(|irqfd| irqfd.number == number));
        let here =
            here.ok_or_else(|| Error::new(libc::ENOENT, "the eventfd is not bound to it"))?;
        let result = here.drop_irqfds(&self.cache, |irqfd| irqfd.number == number);
        self.forget_if_unused(&mut state, gsi);
        result
    }

    /// Makes live what was staged outside of transactions; all of it, or none.
    ///
    /// Errors: what the kernel says to a route or an irqfd.
    pub fn commit_staged(&self) -> Result<()> {
        refuse_reentry()?;
        let staged = std::mem::take(&mut self.state.lock().staged);
        let items: Vec<Item> = staged.into_iter().flat_map(|gsi| self.item(gsi)).collect();
        if items.is_empty() {
            return Ok(());
        }
        arm_or_take_back(&self.cache, &items)
    }

    // ---- inside --------------------------------------------------------------------------------

    fn lock(&self) -> Result<MutexGuard<'_, State>> {
        refuse_reentry()?;
        let state = self.state.lock();
        if state.gone {
            return Err(Error::new(libc::ESHUTDOWN, "the route cache is gone"));
        }
        Ok(state)
    }

    /// For [`transaction`] and [`arm`], which want many.
    fn item(&self, gsi: u32) -> Vec<Item> {
        let me = self.me.upgrade();
        me.into_iter().map(|owner| Item { owner, index: gsi }).collect()
    }

    /// A GSI was changed: this thread's commit makes it live, or the next one that is none of a transaction's.
    fn note(&self, mut state: MutexGuard<'_, State>, gsi: u32) {
        if transaction::defer(&self.cache, &self.item(gsi)) {
            return;
        }
        self.stage_outside(&mut state, gsi);
    }

    fn stage_outside(&self, state: &mut State, gsi: u32) {
        let Some(here) = state.gsis.get_mut(&gsi) else { return };
        here.is_staged = true;
        state.staged.insert(gsi);
    }

    /// A commit has ended: room that was kept is free, and so is a GSI that was removed and is not in the table any more.
    fn settle(&self, mut state: MutexGuard<'_, State>, gsi: u32) {
        let Some(here) = state.gsis.get_mut(&gsi).filter(|here| here.before.is_none()) else {
            return;
        };
        let is_free = here.removed && here.is_gone();
        if is_free {
            (here.owned, here.removed) = (false, false);
        }
        let kept_room = std::mem::take(&mut here.asked.room) > here.asked.entries.len();
        self.forget_if_unused(&mut state, gsi);
        drop(state);
        if kept_room {
            self.cache.routes.release_room(gsi);
        }
        if is_free {
            self.cache.routes.give_gsi_back(gsi);
        }
    }

    fn forget_if_unused(&self, state: &mut State, gsi: u32) {
        if state.gsis.get(&gsi).is_some_and(|here| !here.owned && here.irqfds.is_empty()) {
            state.gsis.remove(&gsi);
        }
    }

    /// Where a change is staged, the irqfds from before it.
    fn bind_on_what_is_in_force(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.paused || state.gone {
            return Ok(());
        }
        let mut result = Ok(());
        for (&gsi, here) in &mut state.gsis {
            let Some(before) = &here.before else { continue };
            // (A change under way binds them itself.)
            if here.owned && here.in_force().is_none_or(<[_]>::is_empty) {
                continue;
            }
            let were_bound =
                |irqfd: &&mut Irqfd| irqfd.bound.is_none() && before.irqfds.contains(&irqfd.number);
            let bound = here.irqfds.iter_mut().filter(were_bound);
            result = result.and(first_error(bound.map(|irqfd| irqfd.bind(&self.cache, gsi))));
        }
        result
    }

    /// Those that no commit is still to make live.
    fn committed(&self) -> Vec<Item> {
        let state = self.state.lock();
        let settled = state.gsis.iter().filter(|(_, here)| here.before.is_none());
        let gsis: Vec<u32> = settled.map(|(&gsi, _)| gsi).collect();
        drop(state);
        gsis.into_iter().flat_map(|gsi| self.item(gsi)).collect()
    }
}

fn owned(state: &mut State, gsi: u32) -> Result<&mut Gsi> {
    let here = state.gsis.get_mut(&gsi).filter(|here| here.owned && !here.removed);
    here.ok_or_else(|| Error::new(libc::ENOENT, "the GSI has no route of the VMM's"))
}

impl Owner for ExplicitRoutes {
    fn stage(&self, gsi: u32) -> Stage {
        let mut state = self.state.lock();
        let State { gsis, version, paused, gone, .. } = &mut *state;
        let Some(here) = gsis.get_mut(&gsi).filter(|_| !*gone) else {
            return Stage::Done(Ok(()));
        };
        let wanted = here.wanted();
        if here.owned && !here.in_force().is_some_and(|now| are_same(now, &wanted)) {
            if here.removed {
                if let Err(e) = here.drop_irqfds(&self.cache, |_| true) {
                    return Stage::Done(Err(e));
                }
            } else if wanted.is_empty() {
                let unbound = here.irqfds.iter_mut().map(|irqfd| irqfd.unbind(&self.cache));
                if let Err(e) = first_error(unbound) {
                    return Stage::Done(Err(e));
                }
            }
            let change = Change::Explicit(gsi, here.ask(wanted, version));
            return Stage::Change(Staged { generation: 0, change, from: None });
        }
        if *paused || (here.owned && wanted.is_empty()) {
            return Stage::Done(Ok(()));
        }
        // What an eventfd has counted, the kernel takes when it is bound: the route is there.
        let unbound = here.irqfds.iter_mut().filter(|irqfd| irqfd.bound.is_none());
        Stage::Done(first_error(unbound.map(|irqfd| irqfd.bind(&self.cache, gsi))))
    }

    fn finish(&self, gsi: u32, staged: &Staged, route: Result<u32>) -> Finish {
        if let Err(e) = route {
            return Finish::Done(Err(Error::new(e.errno(), format!("route of GSI {gsi}"))));
        }
        if let (Change::Explicit(_, asked), Some(here)) =
            (&staged.change, self.state.lock().gsis.get_mut(&gsi))
        {
            here.answered = here.answered.max(asked.version);
        }
        Finish::Again
    }

    fn comes_last(&self, gsi: u32) -> bool {
        self.state.lock().gsis.get(&gsi).is_some_and(|here| !here.owned)
    }

    fn hand_over(&self, _gsi: u32) -> Result<()> {
        Ok(())
    }

    fn keep(&self, gsi: u32) {
        let mut state = self.state.lock();
        let Some(here) = state.gsis.get_mut(&gsi) else { return };
        if here.staged_again.is_none() && !here.is_as_wanted() {
            // Another thread has changed it since it was armed: that waits for its commit, and if that fails, this is before it.
            let bound = here.irqfds.iter().filter(|irqfd| irqfd.bound.is_some());
            let bound = bound.map(|irqfd| irqfd.number).collect();
            let now = here.in_force().map(<[_]>::to_vec);
            if let (Some(before), Some(now)) = (&mut here.before, now) {
                (before.owned, before.entries, before.irqfds) = (true, now, bound);
            }
            return;
        }
        (here.before, here.before_begin, here.is_staged) = (None, None, false);
        let Some(staged) = here.staged_again.take() else {
            return self.settle(state, gsi);
        };
        here.remember(false);
        here.removed = !staged.owned;
        (here.entries, here.irqfds_alone) = (staged.entries, staged.irqfds_alone);
        self.stage_outside(&mut state, gsi);
    }

    fn leave_to_others(&self, gsi: u32) {
        self.stage_outside(&mut self.state.lock(), gsi);
    }

    fn take_back(&self, gsi: u32) -> bool {
        let mut state = self.state.lock();
        let Some(here) = state.gsis.get_mut(&gsi) else { return false };
        let Some(committed) = here.before.take() else { return false };
        let staged = here.before_begin.take();
        let irqfds = &staged.as_ref().unwrap_or(&committed).irqfds;
        let is_new = |irqfd: &Irqfd| !irqfds.contains(&irqfd.number);
        if let Err(e) = here.drop_irqfds(&self.cache, is_new) {
            log::error!("GSI {gsi}: {e}");
        }
        // What was removed stays so.
        here.staged_again = staged.filter(|_| !here.removed);
        here.removed = here.removed || (here.owned && !committed.owned);
        here.irqfds_alone = committed.irqfds_alone;
        here.entries = if here.removed { Vec::new() } else { committed.entries };
        true
    }
}

impl Member for ExplicitRoutes {
    /// The VMM translates them.
    fn sends_late(&self) -> bool {
        false
    }

    fn shut_down(&self) {
        let mut state = self.state.lock();
        state.gone = true;
        for (gsi, here) in &mut state.gsis {
            if let Err(e) = here.drop_irqfds(&self.cache, |_| true) {
                log::error!("GSI {gsi}: {e}");
            }
        }
    }

    /// The entries are the VMM's, in the kernel's form.
    fn readdress(&self) -> Result<()> {
        Ok(())
    }

    /// Nor is it the library's to translate them.
    fn invalidate(&self, _requester: u32, _tags: &RangeInclusive<u64>) {}

    fn translate(&self) -> Result<()> {
        Ok(())
    }

    fn start_relaying(&self) -> Result<()> {
        Ok(())
    }

    fn stop_relaying(&self) -> Result<()> {
        Ok(())
    }

    fn relayed(&self) -> u64 {
        0
    }

    fn pause(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.paused = true;
        let irqfds = state.gsis.values_mut().flat_map(|here| &mut here.irqfds);
        // Others may have an errno of a bind that was refused.
        let bound = irqfds.filter(|irqfd| irqfd.bound.is_some());
        irqfd::unbind_all(&self.cache, &mut bound.collect::<Vec<_>>())
    }

    fn unpause(&self) {
        self.state.lock().paused = false;
    }

    fn serve(&self) -> Result<()> {
        self.bind_on_what_is_in_force()?;
        let items = self.committed();
        if transaction::defer(&self.cache, &items) {
            return Ok(());
        }
        arm::arm(&self.cache, &items)
    }

    fn wait_until_told(&self) {}

    fn tell_untold(&self) {}

    fn retry(&self) -> Result<()> {
        let items = self.committed();
        let flushed = arm::flush(&self.cache, &items);
        items.iter().for_each(|item| self.settle(self.state.lock(), item.index));
        flushed
    }

    fn describe(&self) -> Result<Described<'_>> {
        let state = self.state.lock();
        let mut gsis = list_of(state.gsis.len())?;
        gsis.extend(state.gsis.iter().map(|(&gsi, here)| ExplicitState {
            gsi,
            staged: here.before.is_some(),
            eventfds: here.irqfds.len(),
            bound: here.irqfds.iter().filter(|irqfd| irqfd.bound.is_some()).count(),
        }));
        Ok(Described::Explicit(gsis))
    }

    fn unserved(&self) -> u64 {
        let state = self.state.lock();
        let is_unserved = |here: &&Gsi| {
            let is_live = !here.owned || !here.wanted().is_empty();
            let waits = here.irqfds.iter().any(|irqfd| irqfd.bound.is_none());
            here.before.is_none() && is_live && waits
        };
        match state.paused {
            true => 0,
            false => state.gsis.values().filter(is_unserved).count() as u64,
        }
    }
}

impl Drop for ExplicitRoutes {
    fn drop(&mut self) {
        self.shut_down();
        self.cache.leave(std::ptr::from_ref(self).addr());
    }
}
