// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arming: giving open vectors' eventfds to the kernel, many at the price of one table write.
//!
//! Three steps, and no device's lock is held across the second:
//!
//! 1. *Stage*: look at each vector and say which route it wants. A route that is to change is taken
//!    out of the vector's hands: the change owns the pin.
//! 2. *Apply*: all changes of the table in one write.
//! 3. *Finish*: look at each vector again. If it still wants that message, the route is its own and its
//!    eventfds are bound; if the guest has changed it meanwhile, the pin is given up, and whoever made
//!    the change sees to the vector.
//!
//! Inside a transaction of the thread, vectors are only noted; its last commit does the three steps.

use std::cell::RefCell;
use std::sync::Arc;

use super::eventfds::PinnedRoute;
use super::{Changed, Device};
use crate::cache::{first_error, refuse_reentry, RouteCache};
use crate::error::{Error, Result};
use crate::routes::Change;

/// A vector to be armed.
#[derive(Clone)]
pub(super) struct Item {
    pub device: Arc<Device>,
    pub index: u32,
}

/// A vector between the first step and the third.
struct Staged {
    item: Item,
    generation: u32,
    change: Change,
    /// The pin that the change owns.
    from: Option<PinnedRoute>,
}

enum Stage {
    /// There is nothing to be done in the table.
    Done(Result<()>),
    Change(Staged),
}

/// If this thread is in a transaction, its commit will arm these.
pub(super) fn defer(cache: &Arc<RouteCache>, items: &[Item]) -> bool {
    with_open(|open| match open.iter_mut().find(|open| Arc::ptr_eq(&open.cache, cache)) {
        Some(transaction) => {
            transaction.items.extend_from_slice(items);
            true
        }
        None => false,
    })
    .unwrap_or(false)
}

/// If this thread is in a transaction, its commit will tell this.
pub(super) fn defer_telling(device: &Arc<Device>, changed: Changed) -> bool {
    with_open(|open| match open.iter_mut().find(|open| Arc::ptr_eq(&open.cache, &device.cache)) {
        Some(transaction) => {
            match transaction.untold.iter_mut().find(|(other, _)| Arc::ptr_eq(other, device)) {
                Some((_, untold)) => untold.add(changed),
                None => transaction.untold.push((device.clone(), changed)),
            }
            true
        }
        None => false,
    })
    .unwrap_or(false)
}

/// The three steps; then others that could not be served before, if this change may have helped them.
pub(super) fn arm(cache: &RouteCache, items: &[Item]) -> Result<()> {
    let (some_wait, occasions) = (cache.some_unserved(), cache.occasions());
    let chances = cache.routes.chances();
    let result = flush(cache, items);
    let may_help = some_wait && cache.routes.chances() != chances;
    // An occasion that passed before the failure was noted has not seen it.
    let missed_one = result.is_err() && cache.occasions() != occasions;
    if may_help || missed_one {
        cache.retry_unserved_quietly();
    }
    result
}

/// The three steps. What the eventfds had counted before they were bound is pending then: hand it over.
pub(super) fn flush(cache: &RouteCache, items: &[Item]) -> Result<()> {
    let mut result = Ok(());
    let mut round: Vec<Item> = Vec::new();
    let mut todo = items;
    // A second round for pins, to see that the table has what the guest wants by now; as a rule it has.
    while !todo.is_empty() {
        let mut staged = Vec::new();
        for item in todo {
            match stage(item) {
                Stage::Done(done) => result = result.and(done),
                Stage::Change(change) => staged.push(change),
            }
        }
        let changes: Vec<Change> = staged.iter().map(|staged| staged.change).collect();
        let mut again = Vec::new();
        if !changes.is_empty() {
            let routes = cache.routes.apply(cache.backend(), changes);
            for (staged, route) in staged.iter().zip(routes) {
                match (staged.change, route) {
                    (Change::Own(..), Ok(_)) => again.push(staged.item.clone()),
                    (_, route) => result = result.and(finish(staged, route)),
                }
            }
        }
        round = again;
        todo = &round;
    }
    drop(round);
    if result.is_err() {
        cache.note_unserved();
    }
    result
}

fn stage(item: &Item) -> Stage {
    let device = &item.device;
    let mut control = device.control.lock();
    let Ok((vector, vector_control)) = device.both(&mut control, item.index) else {
        return Stage::Done(Ok(()));
    };
    let generation = vector_control.generation;
    let Some(eventfds) = &mut vector_control.eventfds else {
        return Stage::Done(Ok(()));
    };
    let open_message = vector.message().filter(|_| vector.is_open(&device.gate));
    let staged =
        |change| Stage::Change(Staged { item: item.clone(), generation, change, from: None });
    if let Some(gsi) = eventfds.pin {
        let routes = &device.cache.routes;
        // What it carries is asked of the table: changes of it may have overtaken each other.
        let (now, wanted) = (routes.pin_message(gsi), vector.message());
        if now != wanted.map(|message| routes.key(&message)) {
            if wanted.is_none() && eventfds.is_bound_to(gsi) {
                let what = "a pin's eventfd cannot be unbound, so its route stays";
                return Stage::Done(Err(Error::new(libc::EBUSY, what)));
            }
            return staged(Change::Own(gsi, wanted));
        }
        eventfds.refusal = 0;
        eventfds.route = wanted.map(|message| PinnedRoute { gsi, message });
    }
    let Some(message) = open_message else {
        return Stage::Done(Ok(()));
    };
    if eventfds.route.is_some_and(|route| route.message == message) {
        let (counted, result) = eventfds.bind(&device.cache);
        if counted {
            vector.set_pending();
        }
        return Stage::Done(result);
    }
    if eventfds.len() == 0 {
        return Stage::Done(Ok(()));
    }
    let from = eventfds.route.take();
    let change = match from {
        Some(route) => Change::Retarget(route.gsi, message),
        None => Change::Pin(message),
    };
    Stage::Change(Staged { item: item.clone(), generation, change, from })
}

fn finish(staged: &Staged, route: Result<u32>) -> Result<()> {
    let Staged { item: Item { device, index }, generation, change, from } = staged;
    let cache = &device.cache;
    let mut control = device.control.lock();
    let Ok((vector, vector_control)) = device.both(&mut control, *index) else {
        return Ok(());
    };
    let is_pin = matches!(change, Change::Own(..));
    let is_wanted =
        vector_control.generation == *generation && (is_pin || vector.is_open(&device.gate));
    let Some(eventfds) = &mut vector_control.eventfds else {
        // All eventfds are gone: nothing stands on these routes. (In place, it is one.)
        let gsi = route.ok();
        let from = from.map(|from| from.gsi).filter(|&from| Some(from) != gsi);
        gsi.into_iter().chain(from).for_each(|gsi| cache.routes.unpin(gsi));
        return Ok(());
    };
    let gsi = match route {
        Ok(gsi) => gsi,
        Err(refusal) => {
            // Unless somebody else has served the vector meanwhile, no old message is left live: the
            // eventfds count.
            let is_served = eventfds.all_send(vector.message());
            let unbound = if is_served { Ok(()) } else { eventfds.unbind(cache) };
            if let Some(from) = from {
                eventfds.give_up(cache, *from);
            }
            if is_wanted && !is_served {
                eventfds.refusal = refusal.errno();
                return Err(refusal);
            }
            return unbound;
        }
    };
    let (Change::Pin(message) | Change::Retarget(_, message)) = *change else {
        return Ok(());
    };
    let pin = PinnedRoute { gsi, message };
    let mut result = Ok(());
    if is_wanted {
        let other = eventfds.route.replace(pin);
        let (counted, bound) = eventfds.bind(cache);
        if counted {
            vector.set_pending();
        }
        result = bound;
        if let Some(other) = other {
            // Somebody else was faster.
            eventfds.give_up(cache, other);
        }
    } else {
        eventfds.give_up(cache, pin);
    }
    if let Some(from) = from.filter(|from| from.gsi != gsi) {
        eventfds.give_up(cache, from);
    }
    result
}

// ---- transactions ------------------------------------------------------------------------------

/// A thread's changes to one cache, until its last commit.
struct Transaction {
    cache: Arc<RouteCache>,
    depth: u32,
    items: Vec<Item>,
    /// What the VMMs of these devices will be told.
    untold: Vec<(Arc<Device>, Changed)>,
}

thread_local! {
    /// Few: one for each VM that this thread is changing right now.
    static OPEN: RefCell<Vec<Transaction>> = const { RefCell::new(Vec::new()) };
}

/// `None` in a thread that is ending: it has no transactions any more.
fn with_open<T>(f: impl FnOnce(&mut Vec<Transaction>) -> T) -> Option<T> {
    OPEN.try_with(|open| f(&mut open.borrow_mut())).ok()
}

impl Drop for Transaction {
    /// The thread ended before its commit. What it noted is not lost: it is tried at the next occasion.
    fn drop(&mut self) {
        if !self.items.is_empty() || !self.untold.is_empty() {
            log::error!(
                "a thread ended inside a transaction; its changes wait for another's commit"
            );
            self.cache.note_unserved();
        }
    }
}

impl RouteCache {
    /// From now on this thread's changes are staged, until the matching [`RouteCache::commit`]. Nests.
    /// Masking, and what else stops interrupts, is never staged.
    ///
    /// Errors: `EINVAL` in a thread that is ending.
    pub fn begin(self: &Arc<Self>) -> Result<()> {
        let begun =
            with_open(|open| match open.iter_mut().find(|open| Arc::ptr_eq(&open.cache, self)) {
                Some(transaction) => transaction.depth += 1,
                None => {
                    open.push(Transaction {
                        cache: self.clone(),
                        depth: 1,
                        items: Vec::new(),
                        untold: Vec::new(),
                    });
                }
            });
        begun.ok_or_else(|| Error::invalid("a transaction begins in a thread that is ending"))
    }

    /// Makes the staged changes live: one write of the table, then all irqfds; then tells what changed, once a
    /// device. Then tries again to serve vectors, of all threads, that could not be served; without a begin that is all it does.
    ///
    /// Errors: the first one met, of this thread's changes, or without a begin of any. What the guest
    /// wrote stands all the same, and the vectors that could not be served (see [`Device::info`]) are
    /// tried again later.
    pub fn commit(self: &Arc<Self>) -> Result<()> {
        refuse_reentry()?;
        let ended = with_open(|open| {
            let at = open.iter().position(|open| Arc::ptr_eq(&open.cache, self))?;
            let transaction = open.get_mut(at)?;
            transaction.depth -= 1;
            Some((transaction.depth == 0).then(|| {
                let mut ended = open.swap_remove(at);
                (std::mem::take(&mut ended.items), std::mem::take(&mut ended.untold))
            }))
        });
        match ended.flatten() {
            // There was none.
            None => self.retry_unserved(),
            // An inner commit.
            Some(None) => Ok(()),
            Some(Some((mut items, untold))) => {
                let key = |item: &Item| (Arc::as_ptr(&item.device).addr(), item.index);
                items.sort_unstable_by_key(key);
                items.dedup_by_key(|item| key(item));
                let armed = arm(self, &items);
                let hand_over = |item: &Item| item.device.hand_over(item.index);
                let result = armed.and(first_error(items.iter().map(hand_over)));
                untold.iter().for_each(|(device, changed)| device.tell_now(*changed));
                result
            }
        }
    }
}
