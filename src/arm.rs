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

use crate::cache::RouteCache;
use crate::error::Result;
use crate::owner::{Finish, Item, Stage};

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
    let comes_last = |item: &Item| item.owner.comes_last(item.index);
    let (last, first): (Vec<Item>, Vec<Item>) = items.iter().cloned().partition(comes_last);
    let result = flush_these(cache, first).and(flush_these(cache, last));
    if result.is_err() {
        cache.note_unserved();
    }
    result
}

fn flush_these(cache: &RouteCache, mut todo: Vec<Item>) -> Result<()> {
    let mut result = Ok(());
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
    result
}
