// SPDX-License-Identifier: MIT OR Apache-2.0
//! What misses cost a guest that sends at random, in entries written, beside what they must.
#![allow(clippy::unwrap_used, reason = "a test that cannot begin has failed")]

use std::os::fd::BorrowedFd;

use super::*;
use crate::backend::Reception;

/// What a write costs beside its entries, in entries.
const WRITE_BASE: u64 = 40;
const PINS: u32 = 40;

/// A backend that counts what is written.
struct Meter {
    limit: u32,
    cost: AtomicU64,
}

impl Backend for Meter {
    fn features(&self) -> Features {
        Features { routes: true, max_routes: self.limit, ..Features::default() }
    }
    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        (0..PINS).map(|pin| kvm_irq_routing_entry { gsi: pin % 24, ..Default::default() }).collect()
    }
    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        self.cost.fetch_add(WRITE_BASE + entries.len() as u64, Ordering::Relaxed);
        Ok(())
    }
    fn signal(&self, _: &Message) -> Result<Reception> {
        unreachable!()
    }
    fn raise(&self, _: u32) -> Result<Reception> {
        unreachable!()
    }
    fn bind_irqfd(&self, _: BorrowedFd<'_>, _: Option<BorrowedFd<'_>>, _: u32) -> Result<()> {
        unreachable!()
    }
    fn unbind_irqfd(&self, _: BorrowedFd<'_>, _: u32) -> Result<()> {
        unreachable!()
    }
}

fn message(data: u32) -> Message {
    Message { address: 0xFEE0_0000, data, requester: NO_REQUESTER }
}

struct Guest {
    routes: Routes,
    meter: Meter,
    random: u64,
}

impl Guest {
    fn new() -> Self {
        Guest::with_table(4096)
    }

    fn with_table(limit: u32) -> Self {
        let meter = Meter { limit, cost: AtomicU64::new(0) };
        let routes = Routes::new(24, &meter.features(), false).unwrap();
        Guest { routes, meter, random: 88_172_645_463_325_252 }
    }

    /// From 0 to 1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        f64::from(u32::try_from(self.random >> 32).unwrap()) / f64::from(u32::MAX)
    }

    fn send(&self, message: &Message) {
        while self.routes.with_gsi(message, false, |_| ()).is_none() {
            self.routes.provide(&self.meter, message).unwrap();
        }
    }

    /// Sends messages from `first` on, each as often as it weighs. What that cost, a send.
    fn run(&mut self, first: u32, weights: &[f64], sends: u32) -> f64 {
        let mut sum = 0.0;
        let sums: Vec<f64> = weights.iter().map(|weight| (sum += weight, sum).1).collect();
        let before = self.meter.cost.load(Ordering::Relaxed);
        for _ in 0..sends {
            let at = self.random() * sum;
            let rank = sums.partition_point(|&sum| sum < at).min(sums.len() - 1);
            self.send(&message(first + u32::try_from(rank).unwrap()));
        }
        (self.meter.cost.load(Ordering::Relaxed) - before) as f64 / f64::from(sends)
    }
}

fn uniform(messages: u32) -> Vec<f64> {
    vec![1.0; messages as usize]
}

fn zipf(messages: u32) -> Vec<f64> {
    (1..=messages).map(|rank| 1.0 / f64::from(rank)).collect()
}

/// What a send costs at least if each is independent of those before: routes for the most frequent messages, as many as is
/// best, and nobody can do more than know which they are. `weights` fall.
fn least_cost(weights: &[f64]) -> f64 {
    let all: f64 = weights.iter().sum();
    let mut rest = all;
    let costs = weights.iter().enumerate().map(|(before, weight)| {
        rest -= weight;
        (rest / all) * (WRITE_BASE + u64::from(PINS) + before as u64 + 1) as f64
    });
    costs.take(4000).fold(f64::INFINITY, f64::min)
}

fn assert_near_least(cost: f64, weights: &[f64]) {
    let least = least_cost(weights);
    assert!(cost <= least * 1.1, "{cost} entries a send, where {least} would do");
}

#[test]
fn what_fits_costs_nothing_once_it_is_known() {
    for weights in [uniform(50), zipf(50), uniform(200), zipf(200), uniform(1000), uniform(4000)] {
        let mut guest = Guest::new();
        guest.run(0, &weights, 60_000);
        assert_eq!(guest.run(0, &weights, 20_000), 0.0);
        assert_eq!(guest.routes.counts().routes, weights.len() as u64);
    }
}

#[test]
fn what_does_not_fit_costs_little_more_than_it_must() {
    for weights in [uniform(5_000), zipf(5_000), uniform(20_000), zipf(20_000)] {
        let mut guest = Guest::new();
        guest.run(0, &weights, 30_000);
        assert_near_least(guest.run(0, &weights, 30_000), &weights);
    }
}

#[test]
fn what_was_frequent_makes_way() {
    let mut guest = Guest::new();
    guest.run(0, &zipf(5_000), 100_000);
    guest.run(10_000, &zipf(5_000), 30_000);
    assert_near_least(guest.run(10_000, &zipf(5_000), 30_000), &zipf(5_000));
    guest.run(20_000, &uniform(200), 10_000);
    assert_eq!(guest.run(20_000, &uniform(200), 10_000), 0.0);
}

#[test]
fn a_table_that_was_full_is_small_again() {
    let mut guest = Guest::new();
    guest.run(0, &uniform(4_000), 60_000);
    assert_eq!(guest.routes.counts().routes, 4_000);
    guest.run(10_000, &zipf(5_000), 60_000);
    let state = guest.routes.state.lock();
    let highest = (0..4096).rev().find(|&gsi| state.table.get(gsi).is_some());
    assert!(highest < Some(500), "{highest:?}");
}

#[test]
fn what_comes_back_is_in_nobodys_way() {
    let mut guest = Guest::with_table(PINS + 28);
    for round in 0..1_000 {
        // Twenty that are sent often, and twenty that are wanted for a moment and throw them out.
        guest.run(0, &uniform(20), if round % 8 == 0 { 50 } else { 0 });
        let mut changes = vec![Change::Provide(message(100 + round))];
        changes.extend((0..20).map(|pin| Change::Pin(message(2_000 + round % 50 + pin))));
        let results = guest.routes.apply(&guest.meter, changes);
        let gsis: Vec<u32> = results.into_iter().collect::<Result<_>>().unwrap();
        gsis.into_iter().skip(1).for_each(|gsi| guest.routes.unpin(gsi));
    }
}

#[test]
fn the_least_frequent_and_then_the_oldest_go_first() {
    let mut table = Table::new(24, 100).unwrap();
    let gsis: Vec<u32> = (0..4).map(|data| table.add(message(data)).unwrap()).collect();
    table.believe();
    let counts = |gsi| if gsi == 24 { 5 } else { 0 };
    assert_eq!(gsis, [24, 25, 26, 27]);
    let victims = |table: &Table, n| {
        let mut victims = table.victims(n, counts);
        victims.sort_unstable();
        victims
    };
    assert_eq!(victims(&table, 2), [25, 26]);
    // One that was just touched is the last of its equals.
    table.pin(25);
    table.unpin(25);
    assert_eq!(victims(&table, 2), [26, 27]);
    // One that is awaited goes only if there is no other; one that is pinned or staged does not go.
    table.await_use(26);
    assert_eq!(victims(&table, 1), [27]);
    table.pin(27);
    table.add(message(9));
    table.await_use(25);
    assert_eq!(victims(&table, 9), [24]);
    table.pin(24);
    assert_eq!(victims(&table, 9), [26]);
}
