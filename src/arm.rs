// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arming: giving eventfds to the kernel, many at the price of one table write.
//!
//! Three steps, and no owner's lock is held across the second:
//!
//! 1. *Stage*: look at each item and say which route it wants. A route that is to change is taken
//!    out of the owner's hands: the change owns the pin.
//! 2. *Apply*: all changes of the table in one write.
//! 3. *Finish*: look at each item again. If it still wants that route, the route is its own and its
//!    eventfds are bound; if it was changed meanwhile, the pin is given up, and whoever made
//!    the change sees to the item.

use std::sync::Arc;

use crate::cache::RouteCache;
use crate::changed::Changed;
use crate::error::Result;
use crate::routes::{Change, PinnedRoute};

/// Whose items are armed: a device its vectors', the VMM's own GSIs.
pub(crate) trait Owner: Send + Sync {
    /// The first step.
    fn stage(&self, index: u32) -> Stage;
    /// The third, with the route that the second gave.
    fn finish(&self, index: u32, staged: &Staged, route: Result<u32>) -> Finish;
    /// Sends what is pending, if it can be sent.
    fn hand_over(&self, index: u32) -> Result<()>;
    /// Tells the VMM.
    fn tell(&self, _changed: Changed) {}
    /// The commit that this was staged for went well.
    fn keep(&self, _index: u32) {}
    /// It did not: whether the item is to be as it was before, which arming it again will make it.
    fn take_back(&self, _index: u32) -> bool {
        false
    }
}

/// What is to be armed.
#[derive(Clone)]
pub(crate) struct Item {
    pub owner: Arc<dyn Owner>,
    pub index: u32,
}

impl Item {
    /// The same for the same.
    pub fn key(&self) -> (usize, u32) {
        (Arc::as_ptr(&self.owner).cast::<()>().addr(), self.index)
    }
}

/// An item between the first step and the third.
pub(crate) struct Staged {
    /// The owner's, to see whether it changed meanwhile.
    pub generation: u32,
    pub change: Change,
    /// The pin that the change owns.
    pub from: Option<PinnedRoute>,
}

pub(crate) enum Stage {
    /// There is nothing to be done in the table.
    Done(Result<()>),
    Change(Staged),
}

pub(crate) enum Finish {
    Done(Result<()>),
    /// Look at it again: changes may have overtaken each other.
    Again,
}

/// The three steps; then others that could not be served before, if this change may have helped them.
pub(crate) fn arm(cache: &RouteCache, items: &[Item]) -> Result<()> {
    let (some_wait, occasions) = (cache.some_unserved(), cache.occasions());
    let chances = cache.routes.chances();
    let result = flush(cache, items);
    let may_help = (some_wait || result.is_err()) && cache.routes.chances() != chances;
    // An occasion that passed before the failure was noted has not seen it.
    let missed_one = result.is_err() && cache.occasions() != occasions;
    if may_help || missed_one {
        cache.retry_unserved_quietly();
    }
    result
}

/// The three steps. What the eventfds had counted before they were bound is pending then: hand it over.
pub(crate) fn flush(cache: &RouteCache, items: &[Item]) -> Result<()> {
    let mut result = Ok(());
    let mut todo = items.to_vec();
    while !todo.is_empty() {
        let mut staged = Vec::new();
        for item in todo {
            match item.owner.stage(item.index) {
                Stage::Done(done) => result = result.and(done),
                Stage::Change(change) => staged.push((item, change)),
            }
        }
        todo = Vec::new();
        if !staged.is_empty() {
            let changes = staged.iter().map(|(_, staged)| staged.change.clone()).collect();
            let routes = cache.routes.apply(cache.backend(), changes);
            for ((item, staged), route) in staged.into_iter().zip(routes) {
                match item.owner.finish(item.index, &staged, route) {
                    Finish::Done(done) => result = result.and(done),
                    Finish::Again => todo.push(item),
                }
            }
        }
    }
    if result.is_err() {
        cache.note_unserved();
    }
    result
}
