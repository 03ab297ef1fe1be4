// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which messages keep a route, and how many, where messages are sent through routes (hosts without KVM_SIGNAL_MSI).
//!
//! A miss, a message without a route, costs a write of the whole table, which is dearer the more entries there are. If the
//! `k` most frequent messages have routes, a send costs
//!
//! ```text
//! (share of sends that miss) * (what a write of the table costs with k routes)
//! ```
//!
//! and while nothing but frequency tells what is sent next, no policy does better than this with the best `k`: all
//! messages where they fit, a dozen where there are far too many. So this is least frequently used with aging, of a size
//! that is computed. Uses are counted, of messages with a route by the finder and of those thrown out, the *ghosts*,
//! here. At every [`Sizing::look`] the best `k` is chosen and the most frequent get their routes back, with one write; in
//! between the least frequent make way.
//!
//! Messages are ranked by their uses before the last look and judged by those since: else luck would pass for
//! frequency, and a message never seen before, a miss whatever `k` is, for a hit.

use crate::hash::HashMap;
use crate::message::Message;

/// What a write costs beside its entries, in entries.
const WRITE_BASE: usize = 40;
/// What misses cost from one look to the next, in entries: some milliseconds, of which a look is a hundredth.
const EPOCH: usize = 1 << 15;
/// Sends that are remembered, about; in more, each counts less.
const HISTORY: u64 = 1 << 15;
/// Routes beside the most frequent messages', through which all others pass: a newcomer's is not the next to go.
const WINDOW: usize = 8;
/// Routes until the first look.
const FIRST: usize = 64;

/// How often a message was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    /// Before the last look; the older, the less they count.
    before: u32,
    /// Since then.
    since: u32,
}

#[derive(Debug)]
pub(super) struct Sizing {
    /// How many routes may be idle.
    target: usize,
    /// What misses have cost since the last look.
    spent: usize,
    /// Messages that have no route any more.
    ghosts: HashMap<Message, Uses>,
    max_ghosts: usize,
}

/// Messages of about the same frequency.
#[derive(Clone, Copy, Default)]
struct Class {
    messages: usize,
    sends: u64,
}

/// Four to each power of two.
const CLASSES: usize = 4 * u32::BITS as usize;

impl Uses {
    /// These, and so many sends more.
    pub fn and(self, sends: u32) -> Self {
        Uses { since: self.since.saturating_add(sends), ..self }
    }

    pub fn all(self) -> u32 {
        self.before.saturating_add(self.since)
    }

    /// What was since is past, and is halved so often. Not to 0: the message is known.
    fn grow_old(&mut self, halvings: u32) {
        let before = self.all().checked_shr(halvings).unwrap_or(0).max(1);
        *self = Uses { before, since: 0 };
    }

    /// 0: not seen before the last look.
    fn class(self) -> usize {
        let log = self.before.checked_ilog2().unwrap_or(0);
        let class = match log {
            0 | 1 => self.before,
            _ => {
                log.wrapping_sub(1).wrapping_mul(4)
                    | self.before.wrapping_shr(log.wrapping_sub(2)) & 3
            }
        };
        class as usize
    }
}

impl Sizing {
    /// For a table of so many entries.
    pub fn new(limit: usize) -> Self {
        // As many as a hash map of twice the table's size takes.
        Sizing { target: FIRST, spent: 0, ghosts: HashMap::default(), max_ghosts: limit * 7 / 4 }
    }

    pub fn target(&self) -> usize {
        self.target
    }

    /// A route was thrown out.
    pub fn evicted(&mut self, message: Message, uses: Uses) {
        self.ghosts.insert(message, uses);
    }

    /// The message gets a route. How often it was sent.
    pub fn take(&mut self, message: &Message) -> Uses {
        let uses = self.ghosts.remove(message).unwrap_or_default();
        if self.ghosts.is_empty() {
            self.ghosts.shrink_to_fit();
        }
        uses
    }

    /// A message has no route; the table has so many entries. Whether it is time to look.
    pub fn missed(&mut self, entries: usize) -> bool {
        self.spent = self.spent.saturating_add(WRITE_BASE).saturating_add(entries);
        self.spent >= EPOCH || self.is_full()
    }

    /// Chooses the target. `routes`: the idle ones' uses; `others`: entries that are no idle routes; `room` for those that
    /// are. The ghosts that are to have a route again.
    pub fn look(&mut self, mut routes: Vec<&mut Uses>, others: usize, room: usize) -> Vec<Message> {
        let full = self.is_full();
        let all = || routes.iter().map(|uses| **uses).chain(self.ghosts.values().copied());
        let ranked = all().filter(|uses| uses.before > 0).count();
        let mut size = best_size(all(), others, room.saturating_sub(WINDOW));
        self.target = size.saturating_add(WINDOW);
        if size == ranked {
            // All that are known fit, and those not known yet are let in.
            size = room;
            self.target = usize::MAX;
        }
        let sends = all().map(|uses| u64::from(uses.all())).sum::<u64>();
        let halvings = (sends / HISTORY).checked_ilog2().map_or(u32::from(full), |log| log + 1);
        let uses = routes.iter_mut().map(|uses| &mut **uses).chain(self.ghosts.values_mut());
        uses.for_each(|uses| uses.grow_old(halvings));
        self.spent = 0;
        let back = self.frequent_ghosts(&routes, size);
        if full {
            self.ghosts.retain(|_, uses| uses.before > 1);
        }
        back
    }

    /// The ghosts among the most frequent `size` of all messages.
    fn frequent_ghosts(&self, routes: &[&mut Uses], size: usize) -> Vec<Message> {
        let ghosts = self.ghosts.values().copied();
        let mut all: Vec<u32> =
            routes.iter().map(|uses| **uses).chain(ghosts).map(Uses::all).collect();
        let least = match size.checked_sub(1) {
            None => return Vec::new(),
            Some(last) if last < all.len() => *all.select_nth_unstable_by(last, |a, b| b.cmp(a)).1,
            Some(_) => 0,
        };
        let with_route = routes.iter().filter(|uses| uses.all() >= least).count();
        let frequent = self.ghosts.iter().filter(|(_, uses)| uses.all() >= least);
        frequent.take(size.saturating_sub(with_route)).map(|(message, _)| *message).collect()
    }

    fn is_full(&self) -> bool {
        self.ghosts.len() >= self.max_ghosts
    }
}

/// How many of the most frequent messages should have a route.
fn best_size(all: impl Iterator<Item = Uses>, others: usize, room: usize) -> usize {
    let mut classes = [Class::default(); CLASSES];
    let mut misses = 0;
    for uses in all {
        misses = u64::saturating_add(misses, uses.since.into());
        if let Some(class) = classes.get_mut(uses.class()) {
            class.messages = class.messages.saturating_add(1);
            class.sends = class.sends.saturating_add(uses.since.into());
        }
    }
    let cost = |misses: u64, size: usize| {
        let entries = others.saturating_add(size).saturating_add(WRITE_BASE + WINDOW);
        misses.saturating_mul(entries as u64)
    };
    let mut size = 0;
    let mut best = (cost(misses, 0), 0);
    // Inside a class, misses fall by the message and a write's cost rises: the least cost is at either end.
    for class in classes.iter().skip(1).rev().filter(|class| class.messages > 0) {
        let fit = class.messages.min(room.saturating_sub(size));
        let served = class.sends.saturating_mul(fit as u64).checked_div(class.messages as u64);
        misses = misses.saturating_sub(served.unwrap_or(0));
        size = size.saturating_add(fit);
        best = best.min((cost(misses, size), size));
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: u32) -> Message {
        Message { address: 0xFEE0_0000, data, requester: 0 }
    }

    /// So many messages, each sent so often before the last look and since.
    fn sent(messages: usize, before: u32, since: u32) -> impl Iterator<Item = Uses> {
        std::iter::repeat_n(Uses { before, since }, messages)
    }

    #[test]
    fn classes_rise_with_frequency() {
        let class = |before| Uses { before, since: 9 }.class();
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(class),
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9]
        );
        assert!((0..u32::BITS).all(|bit| class(1 << bit) >= bit as usize));
        assert!(class(u32::MAX) < CLASSES);
    }

    #[test]
    fn what_fits_has_room() {
        let all = sent(900, 10, 10).chain(sent(100, 1, 1));
        assert_eq!(best_size(all, 40, 4000), 1000);
    }

    #[test]
    fn what_does_not_fit_gets_no_more_than_pays() {
        assert_eq!(best_size(sent(20_000, 1, 1), 40, 4000), 0);
        let all = sent(20, 1_000, 1_000).chain(sent(20_000, 1, 1));
        assert_eq!(best_size(all, 40, 4000), 20);
        // If a write is dear anyway, many routes more matter little.
        assert_eq!(best_size(sent(1_100, 10, 10), 3_000, 1_000), 1_000);
    }

    #[test]
    fn what_was_frequent_and_is_no_more_gets_nothing() {
        let all = sent(500, 1_000, 0).chain(sent(5_000, 1, 1));
        assert_eq!(best_size(all, 40, 4000), 0);
    }

    #[test]
    fn luck_is_no_frequency() {
        // All equal: some were seen twice, and half of them never before.
        let all = sent(1_000, 2, 1).chain(sent(2_000, 1, 1)).chain(sent(3_000, 0, 1));
        assert_eq!(best_size(all, 40, 4000), 0);
    }

    #[test]
    fn the_most_frequent_ghosts_come_back() {
        let mut sizing = Sizing::new(4096);
        (0..10).for_each(|data| {
            sizing.evicted(message(data), Uses { before: 900, since: 100 + data })
        });
        let mut routes: Vec<Uses> = sent(2_000, 1, 0).chain(sent(4, 900, 50)).collect();
        let mut back = sizing.look(routes.iter_mut().collect(), 40, 1_000);
        back.sort_by_key(|message| message.data);
        assert!(sizing.target() < 50, "{}", sizing.target());
        assert_eq!(back, (0..10).map(message).collect::<Vec<_>>());
        assert_eq!(sizing.take(&message(9)).all(), 1_009);
        assert_eq!(sizing.take(&message(9)).all(), 0);
    }

    #[test]
    fn ghosts_are_bounded() {
        let mut sizing = Sizing::new(100);
        for data in 0..10_000 {
            sizing.evicted(message(data), Uses { before: 0, since: 1 + data % 9 });
            assert!(sizing.ghosts.len() <= 175);
            if sizing.missed(50) {
                sizing.look(Vec::new(), 40, 60);
            }
        }
    }
}
