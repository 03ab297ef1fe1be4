// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transactions: what a thread changes is noted, and its last commit does it all at once.

use std::cell::RefCell;
use std::sync::Arc;

use crate::arm::{self, arm};
use crate::cache::{first_error, refuse_reentry, RouteCache};
use crate::changed::Changed;
use crate::error::{Error, Result};
use crate::owner::{Item, Owner};

/// If this thread is in a transaction, its commit will arm these.
pub(crate) fn defer(cache: &Arc<RouteCache>, items: &[Item]) -> bool {
    note(cache, |transaction| transaction.items.extend_from_slice(items))
}

/// Whether this thread is in a transaction.
pub(crate) fn is_open(cache: &Arc<RouteCache>) -> bool {
    note(cache, |_| ())
}

/// If this thread is in a transaction, its commit will tell this.
pub(crate) fn defer_telling(
    cache: &Arc<RouteCache>,
    owner: Arc<dyn Owner>,
    changed: Changed,
) -> bool {
    note(cache, |transaction| {
        match transaction.untold.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &owner)) {
            Some((_, untold)) => untold.add(changed),
            None => transaction.untold.push((owner, changed)),
        }
    })
}

/// Notes something in this thread's transaction; false if it is in none.
fn note(cache: &Arc<RouteCache>, f: impl FnOnce(&mut Transaction)) -> bool {
    let noted = with_open(|open| innermost(open, cache).map(f).is_some());
    noted.unwrap_or(false)
}

/// A thread's changes to one cache, until its last commit.
struct Transaction {
    cache: Arc<RouteCache>,
    depth: u32,
    items: Vec<Item>,
    /// What the VMMs of these devices will be told.
    untold: Vec<(Arc<dyn Owner>, Changed)>,
}

impl Transaction {
    fn new(cache: &Arc<RouteCache>) -> Self {
        Transaction { cache: cache.clone(), depth: 1, items: Vec::new(), untold: Vec::new() }
    }
}

fn is_ending() -> Error {
    Error::invalid("a transaction begins in a thread that is ending")
}

thread_local! {
    /// Few: one for each VM that this thread is changing right now.
    static OPEN: RefCell<Vec<Transaction>> = const { RefCell::new(Vec::new()) };
}

/// `None` in a thread that is ending: it has no transactions any more.
fn with_open<T>(f: impl FnOnce(&mut Vec<Transaction>) -> T) -> Option<T> {
    OPEN.try_with(|open| Some(f(&mut *open.try_borrow_mut().ok()?))).ok().flatten()
}

/// The thread's first use of this.
#[cfg(feature = "capi")]
pub(crate) fn prepare_thread() {
    with_open(|_| ());
}

/// This thread's transaction, of those that are open the one that began last.
fn innermost<'a>(
    open: &'a mut [Transaction],
    cache: &Arc<RouteCache>,
) -> Option<&'a mut Transaction> {
    open.iter_mut().rev().find(|open| Arc::ptr_eq(&open.cache, cache))
}

/// The cache goes, and this thread's transaction with it: it would keep the cache alive until the thread ends.
pub(crate) fn abandon(cache: &RouteCache) {
    let abandoned: Option<Vec<Transaction>> = with_open(|open| {
        let is_its = |open: &Transaction| std::ptr::eq(Arc::as_ptr(&open.cache), cache);
        let (its, others) = std::mem::take(open).into_iter().partition(is_its);
        *open = others;
        its
    });
    for mut transaction in abandoned.into_iter().flatten() {
        transaction.items.clear();
        transaction.untold.clear();
    }
}

impl Drop for Transaction {
    /// The thread ended before its commit. What it noted is not lost: it is tried at the next occasion.
    fn drop(&mut self) {
        if !self.items.is_empty() || !self.untold.is_empty() {
            log::error!(
                "a thread ended inside a transaction; its changes wait for another's commit"
            );
            self.items.iter().for_each(|item| item.owner.leave_to_others(item.index));
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
        refuse_reentry()?;
        let begun = with_open(|open| match innermost(open, self) {
            Some(transaction) => transaction.depth = transaction.depth.saturating_add(1),
            None => open.push(Transaction::new(self)),
        });
        begun.ok_or_else(is_ending)
    }

    /// Makes changes with one write of the table, and at once: a transaction that this thread is in already stands by.
    pub(crate) fn with_one_write(
        self: &Arc<Self>,
        make: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let begun = with_open(|open| open.push(Transaction::new(self)));
        let made = make();
        match begun {
            Some(()) => made.and(self.commit()),
            // The thread is ending: each was made by itself.
            None => made,
        }
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
            let transaction = innermost(open, self)?;
            transaction.depth = transaction.depth.saturating_sub(1);
            let has_ended = transaction.depth == 0;
            let ended = has_ended.then(|| {
                (std::mem::take(&mut transaction.items), std::mem::take(&mut transaction.untold))
            });
            open.retain(|open| open.depth > 0);
            Some(ended)
        });
        match ended.flatten() {
            // There was none.
            None => self.retry_unserved(),
            // An inner commit.
            Some(None) => Ok(()),
            Some(Some((mut items, untold))) => {
                items.sort_unstable_by_key(Item::key);
                items.dedup_by_key(|item| item.key());
                let result = arm_or_take_back(self, &items);
                untold.iter().for_each(|(owner, changed)| owner.tell(*changed));
                result
            }
        }
    }
}

/// If it fails, what can be as it was before is.
pub(crate) fn arm_or_take_back(cache: &RouteCache, items: &[Item]) -> Result<()> {
    let armed = arm(cache, items);
    let hand_over = |item: &Item| item.owner.hand_over(item.index);
    let armed = armed.and(first_error(items.iter().map(hand_over)));
    if armed.is_ok() {
        items.iter().for_each(|item| item.owner.keep(item.index));
        // GSIs may be free now.
        cache.retry_unserved_quietly();
        return armed;
    }
    let taken_back = |item: &&Item| item.owner.take_back(item.index);
    let taken_back: Vec<Item> = items.iter().filter(taken_back).cloned().collect();
    if let Err(e) = arm::flush(cache, &taken_back) {
        log::error!("a failed commit cannot be undone: {e}");
    }
    taken_back.iter().for_each(|item| item.owner.keep(item.index));
    cache.retry_unserved_quietly();
    armed
}
