// SPDX-License-Identifier: MIT OR Apache-2.0
//! The relay at work: one batch of events, then promotions that are due.
//!
//! Promotions are rate-limited by what they cost, so that no guest can make the host write tables all day. When routes run out,
//! vectors that wait for one make others be *sampled*: taken from the kernel for a moment, route kept. One that is signalled goes
//! back at once, without a table write, and is left alone for longer and longer; one that is not gives its route up.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::set::Events;
use super::{Candidate, Relay, RelayState};
use crate::arm;
use crate::cache::{first_error, refuse_reentry, RouteCache};
use crate::error::{Error, Result};
use crate::hash::HashSet;
use crate::owner::{Item, Sample, ServedBy, Verdict};
use crate::trace;

/// A batch of promotions takes at most this part of the time.
const PROMOTIONS_ONE_IN: u32 = 10;
/// And they are no closer together than this.
const BETWEEN_BATCHES: Duration = Duration::from_millis(5);
/// Samples take at most this part of the time.
const SAMPLES_ONE_IN: u32 = 4;
/// Sampled at once.
const SAMPLES: usize = 64;
/// How long a sample lasts.
const SAMPLE: Duration = Duration::from_millis(20);

/// What the thread that promotes has on its desk.
#[derive(Default)]
pub(super) struct Desk {
    /// There was no route for these.
    waiting: Vec<Candidate>,
    /// In the kernel, the one to be sampled next first.
    pub(super) promoted: VecDeque<Candidate>,
    /// When it is so long, those that are gone are taken out.
    prune_at: usize,
    /// Sampled, with the end of the sample.
    sampled: VecDeque<(Instant, Candidate)>,
    /// Routes that were given up for those that wait.
    room: usize,
    /// The table's chances when there was no room last.
    chances: u64,
    next_batch: Option<Instant>,
    next_samples: Option<Instant>,
}

fn item((owner, index): &Candidate) -> Option<Item> {
    Some(Item { owner: owner.upgrade()?, index: *index })
}

fn candidate(item: &Item) -> Candidate {
    (Arc::downgrade(&item.owner), item.index)
}

impl RouteCache {
    /// Turns the relay on, if it is not, and gives the descriptor to wait for (`POLLIN`) before [`RouteCache::relay_run`]. It stays
    /// the cache's. Vectors that were unserved till now are the relay's at once.
    ///
    /// Errors: `EMFILE`, `ENOMEM`, `ENOSPC` (the system's limit on epoll watches): the relay is not on then.
    pub fn relay_fd(self: &Arc<Self>) -> Result<RawFd> {
        refuse_reentry()?;
        let relay = self.get_or_make_relay()?;
        let _switch = relay.switch.lock();
        if !relay.on.swap(true, Ordering::SeqCst) {
            relay.stopping.store(false, Ordering::SeqCst);
            relay.set.calm();
            let started = first_error(self.members().iter().map(|member| member.start_relaying()));
            if let Err(e) = started {
                let _ = self.stop_relay(relay);
                return Err(e);
            }
        }
        Ok(relay.set.fd())
    }

    /// Serves what is signalled now; waits for nothing. Whether more may be ready.
    ///
    /// Errors: `EINVAL` if the relay is not on.
    pub fn relay_run(&self) -> Result<bool> {
        refuse_reentry()?;
        self.inside_relay(|relay| self.run_batch(relay, 0))
    }

    /// Serves until [`RouteCache::relay_stop`].
    ///
    /// Errors: `EINVAL` if the relay is not on.
    pub fn relay_loop(&self) -> Result<()> {
        refuse_reentry()?;
        self.inside_relay(|relay| {
            while !relay.stopping.load(Ordering::SeqCst) {
                self.run_batch(relay, -1)?;
            }
            Ok(())
        })
    }

    /// Turns it off: threads inside it leave, then the vectors it served are given to the kernel, with one write of the table.
    ///
    /// Errors: `EINVAL` if it is not on; `ENOSPC` if there are not routes enough, or what the kernel says (it is off all the same,
    /// and those vectors are unserved).
    pub fn relay_stop(self: &Arc<Self>) -> Result<()> {
        refuse_reentry()?;
        let relay = self.relay().ok_or_else(is_off)?;
        let _switch = relay.switch.lock();
        match relay.is_on() {
            true => self.stop_relay(relay),
            false => Err(is_off()),
        }
    }

    fn stop_relay(self: &Arc<Self>, relay: &Relay) -> Result<()> {
        self.end_relay();
        relay.on.store(false, Ordering::SeqCst);
        // Nobody waits any more, and a loop that polls the descriptor is to sleep.
        relay.set.calm();
        *relay.desk.lock() = Desk::default();
        relay.candidates.lock().clear();
        self.with_one_write(|| {
            first_error(self.members().iter().map(|member| member.stop_relaying()))
        })
    }

    /// Makes threads leave the relay, and waits until they have.
    pub(crate) fn end_relay(&self) {
        let Some(relay) = self.relay() else { return };
        relay.stopping.store(true, Ordering::SeqCst);
        relay.set.wake();
        let mut runners = relay.runners.lock();
        while *runners > 0 {
            relay.left.wait(&mut runners);
        }
    }

    /// For people; `None` if it was never on.
    pub(crate) fn relay_state(&self) -> Option<RelayState> {
        let relay = self.relay()?;
        let (on, threads) = (relay.is_on(), *relay.runners.lock());
        let candidates = relay.candidates.lock().len();
        let desk = relay.desk.lock();
        let (waiting, promoted) = (desk.waiting.len(), desk.promoted.len());
        Some(RelayState { on, threads, candidates, waiting, promoted, sampled: desk.sampled.len() })
    }

    fn inside_relay<T>(&self, work: impl FnOnce(&Relay) -> Result<T>) -> Result<T> {
        let relay = self.relay().ok_or_else(is_off)?;
        // Before the look at `stopping`: who stops it looks at the number after having set that, under the same lock.
        count(relay, |runners| runners.saturating_add(1));
        let result = match relay.stopping.load(Ordering::SeqCst) || !relay.is_on() {
            true => Err(is_off()),
            false => work(relay),
        };
        count(relay, |runners| runners.saturating_sub(1));
        relay.left.notify_all();
        result
    }

    fn run_batch(&self, relay: &Relay, timeout_ms: i32) -> Result<bool> {
        let mut events = Events::default();
        relay.set.wait(timeout_ms, &mut events)?;
        for item in events.targets.iter().filter_map(item) {
            item.owner.signalled(item.index);
        }
        // Somebody else may be at it.
        if let Some(mut desk) = relay.desk.try_lock() {
            self.work_off(relay, &mut desk);
        }
        Ok(events.is_full)
    }

    fn work_off(&self, relay: &Relay, desk: &mut Desk) {
        let now = Instant::now();
        desk.end_samples(now, relay);
        if desk.next_batch.is_none_or(|due| now >= due) && self.promote_batch(relay, desk) {
            let cost = now.elapsed();
            desk.next_batch =
                now.checked_add(cost.saturating_mul(PROMOTIONS_ONE_IN).max(BETWEEN_BATCHES));
        }
        if !desk.waiting.is_empty() && desk.next_samples.is_none_or(|due| now >= due) {
            let start = Instant::now();
            desk.begin_samples(start);
            let pause = start.elapsed().saturating_mul(SAMPLES_ONE_IN).max(SAMPLE);
            desk.next_samples = start.checked_add(pause);
        }
    }

    /// Gives to the kernel what is to be, with one write of the table. False if there was nothing.
    fn promote_batch(&self, relay: &Relay, desk: &mut Desk) -> bool {
        let mut batch = std::mem::take(&mut *relay.candidates.lock());
        let chances = self.routes.chances();
        if desk.waiting.is_empty() {
            desk.room = 0;
        } else if desk.room > 0 || desk.chances != chances {
            // New ones wait too, and the busiest of all come first.
            desk.waiting.append(&mut batch);
            batch = desk.take_hottest(desk.room.max(SAMPLES));
            desk.room = 0;
        } else {
            desk.waiting.append(&mut batch);
        }
        let items: Vec<Item> = batch.iter().filter_map(item).collect();
        if items.is_empty() {
            return false;
        }
        // What could not be promoted says so itself.
        let _ = arm::flush(self, &items);
        for item in &items {
            match item.owner.served_by(item.index) {
                ServedBy::Kernel { is_listed } => {
                    relay.promotions.fetch_add(1, Ordering::Relaxed);
                    trace::promote(item);
                    if !is_listed {
                        desk.promoted.push_back(candidate(item));
                    }
                }
                ServedBy::Relay => desk.waiting.push(candidate(item)),
                ServedBy::Nobody => {}
            }
            // What it had counted.
            let _ = item.owner.hand_over(item.index);
        }
        desk.prune();
        desk.chances = self.routes.chances();
        true
    }
}

/// Threads inside the relay.
fn count(relay: &Relay, change: impl FnOnce(u32) -> u32) {
    let mut runners = relay.runners.lock();
    *runners = change(*runners);
}

impl Desk {
    fn take_hottest(&mut self, n: usize) -> Vec<Candidate> {
        let waiting = std::mem::take(&mut self.waiting);
        let heat = |candidate: Candidate| {
            let item = item(&candidate)?;
            Some((item.owner.heat(item.index), candidate))
        };
        let mut by_heat: Vec<(u32, Candidate)> = waiting.into_iter().filter_map(heat).collect();
        by_heat.sort_unstable_by_key(|(heat, _)| std::cmp::Reverse(*heat));
        let rest = by_heat.split_off(n.min(by_heat.len()));
        self.waiting = rest.into_iter().map(|(_, candidate)| candidate).collect();
        by_heat.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// Vectors that are the kernel's no more are found when they are to be sampled; if nobody waits for a route, here.
    fn prune(&mut self) {
        const FEW: usize = 1024;
        if self.promoted.len() < self.prune_at.max(FEW) {
            return;
        }
        let mut seen = HashSet::default();
        self.promoted.retain(|(owner, index)| {
            owner.strong_count() > 0 && seen.insert((owner.as_ptr().cast::<()>().addr(), *index))
        });
        self.prune_at = self.promoted.len().saturating_mul(2);
    }

    fn begin_samples(&mut self, now: Instant) {
        let mut wanted = SAMPLES.min(self.waiting.len());
        for _ in 0..self.promoted.len() {
            if wanted == 0 {
                break;
            }
            let Some(next) = self.promoted.pop_front() else { break };
            let Some(item) = item(&next) else { continue };
            match item.owner.sample(item.index) {
                Sample::Begun => {
                    self.sampled.push_back((now.checked_add(SAMPLE).unwrap_or(now), next));
                    wanted = wanted.saturating_sub(1);
                }
                Sample::NotNow => self.promoted.push_back(next),
                Sample::Gone => {}
            }
        }
    }

    fn end_samples(&mut self, now: Instant, relay: &Relay) {
        while self.sampled.front().is_some_and(|(end, _)| now >= *end) {
            let Some((_, sampled)) = self.sampled.pop_front() else { return };
            let Some(item) = item(&sampled) else { continue };
            match item.owner.judge(item.index) {
                Verdict::Busy => self.promoted.push_back(sampled),
                Verdict::Idle => {
                    relay.demotions.fetch_add(1, Ordering::Relaxed);
                    trace::demote(&item);
                    self.room = self.room.saturating_add(1);
                }
                Verdict::Gone => {}
            }
        }
    }
}

fn is_off() -> Error {
    Error::invalid("the relay is not on: msi_route_cache_relay_fd turns it on")
}
