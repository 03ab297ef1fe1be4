// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many routes to keep for messages that are sent through them (hosts without KVM_SIGNAL_MSI).
//!
//! A miss costs a write of the whole table, which is dearer the more entries there are: 8 µs with 64 routes, 500 with
//! 4,000. So when the messages in use all fit, the table should hold them all; when they do not, few routes are better
//! than many. What would have been can be told from two things: how often each route was used (with fewer routes, the
//! least used would have missed), and how recently a message that misses now was thrown out (with that many more
//! routes it would have been a hit). Every so many misses the sizes are compared, and the best is taken if it is
//! much better. Growing costs one write: the messages thrown out last come back together.

use std::collections::HashMap;

use crate::message::Message;

/// Misses between two looks at the size.
const EPOCH: usize = 64;
/// What a write costs beside its entries, in entries.
const WRITE_BASE: usize = 40;
/// Another size is taken if its cost is less than this part of the present one's: in percent.
const MUCH_BETTER: usize = 80;
const SMALLEST: usize = 16;
const FIRST: usize = 64;

#[derive(Debug)]
pub(super) struct Sizing {
    /// How many routes may be idle.
    target: usize,
    misses: usize,
    /// For each miss whose message was thrown out not long ago: with how many routes more it would have been a hit.
    missed_by: Vec<usize>,
    ghosts: Ghosts,
}

/// What is known when sizes are compared.
pub(super) struct Situation {
    /// Entries that stay whatever the size is.
    pub others: usize,
    /// Room for idle routes.
    pub room: usize,
    /// For each idle route, how often it was used since the last time.
    pub uses: Vec<u32>,
}

impl Sizing {
    pub fn new() -> Self {
        Sizing { target: FIRST, misses: 0, missed_by: Vec::new(), ghosts: Ghosts::default() }
    }

    pub fn target(&self) -> usize {
        self.target
    }

    /// A route was thrown out.
    pub fn evicted(&mut self, message: Message, limit: usize) {
        self.ghosts.add(message, limit);
    }

    /// A message has no route. Whether it is time to look at the size.
    pub fn missed(&mut self, message: &Message) -> bool {
        self.misses += 1;
        if let Some(younger) = self.ghosts.remove(message) {
            self.missed_by.push(younger + 1);
        }
        self.misses >= EPOCH
    }

    /// Looks at the size, and sets it. The messages that come back.
    pub fn look(&mut self, mut now: Situation) -> Vec<Message> {
        now.uses.sort_unstable_by(|a, b| b.cmp(a));
        self.missed_by.sort_unstable();
        let present = self.target.min(now.room);
        let known = present + self.ghosts.len();
        let cost = |size: usize| {
            self.misses_with(size, present, &now.uses) * (WRITE_BASE + now.others + size)
        };
        let mut best = present;
        let doubled = std::iter::successors(Some(SMALLEST), |size| Some(size * 2));
        // Some room more: not all that are in use have been seen.
        let all_known = known * 5 / 4;
        for size in doubled.take_while(|&size| size < now.room).chain([all_known.min(now.room)]) {
            if cost(size) < cost(best) {
                best = size;
            }
        }
        if cost(best) * 100 >= cost(present) * MUCH_BETTER {
            best = present;
        }
        self.target = best;
        self.misses = 0;
        self.missed_by.clear();
        self.ghosts.take_youngest(best.saturating_sub(present))
    }

    /// How many misses there would have been.
    fn misses_with(&self, size: usize, present: usize, uses: &[u32]) -> usize {
        if size >= present {
            let saved = self.missed_by.partition_point(|&by| by <= size - present);
            return self.misses - saved;
        }
        let lost: u64 = uses.iter().skip(size).map(|&uses| u64::from(uses)).sum();
        self.misses + usize::try_from(lost).unwrap_or(usize::MAX / 8192)
    }
}

/// Messages that were thrown out and did not come back, by age.
#[derive(Debug, Default)]
struct Ghosts {
    /// In which place of the order.
    places: HashMap<Message, usize>,
    /// Oldest first; those that came back left a gap.
    order: Vec<Option<Message>>,
    /// A Fenwick tree over the places that are no gaps.
    counts: Vec<usize>,
}

impl Ghosts {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn add(&mut self, message: Message, limit: usize) {
        if self.order.len() >= 2 * limit {
            self.renumber(limit);
        }
        self.remove(&message);
        let place = self.order.len();
        self.order.push(Some(message));
        self.places.insert(message, place);
        // The new place's range of the tree: its own, and what lies below it.
        let at = place + 1;
        let low = at - (at & at.wrapping_neg());
        let below = self.up_to(place).saturating_sub(self.up_to(low));
        self.counts.push(below + 1);
    }

    /// How many are younger; `None` if it is none.
    fn remove(&mut self, message: &Message) -> Option<usize> {
        let place = self.places.remove(message)?;
        let younger = self.places.len() + 1 - self.up_to(place + 1);
        if let Some(gap) = self.order.get_mut(place) {
            *gap = None;
        }
        let mut at = place + 1;
        while let Some(count) = self.counts.get_mut(at - 1) {
            *count -= 1;
            at += at & at.wrapping_neg();
        }
        Some(younger)
    }

    fn take_youngest(&mut self, n: usize) -> Vec<Message> {
        let youngest: Vec<Message> = self.order.iter().rev().flatten().take(n).copied().collect();
        youngest.iter().for_each(|message| _ = self.remove(message));
        youngest
    }

    /// How many there are in the first `places` places.
    fn up_to(&self, places: usize) -> usize {
        let (mut at, mut sum) = (places, 0);
        while at > 0 {
            sum += self.counts.get(at - 1).copied().unwrap_or(0);
            at &= at - 1;
        }
        sum
    }

    /// Closes the gaps, and forgets all but the youngest.
    fn renumber(&mut self, keep: usize) {
        let youngest: Vec<Message> =
            self.order.iter().rev().flatten().take(keep).copied().collect();
        *self = Ghosts::default();
        for message in youngest.into_iter().rev() {
            self.add(message, usize::MAX / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(data: u32) -> Message {
        Message { address: 0xFEE0_0000, data, requester: 0 }
    }

    #[test]
    fn ghosts_know_how_many_are_younger() {
        let mut ghosts = Ghosts::default();
        (0..10).for_each(|data| ghosts.add(message(data), 100));
        assert_eq!(ghosts.remove(&message(9)), Some(0));
        assert_eq!(ghosts.remove(&message(5)), Some(3));
        assert_eq!(ghosts.remove(&message(0)), Some(7));
        assert_eq!(ghosts.remove(&message(0)), None);
        ghosts.add(message(0), 100);
        assert_eq!(ghosts.remove(&message(1)), Some(7));
        assert_eq!(ghosts.take_youngest(2), [message(0), message(8)]);
        assert_eq!(ghosts.len(), 5);
    }

    #[test]
    fn ghosts_forget_the_oldest() {
        let mut ghosts = Ghosts::default();
        (0..1000).for_each(|data| ghosts.add(message(data), 10));
        assert!(ghosts.len() <= 20 && ghosts.order.len() <= 20);
        assert_eq!(ghosts.remove(&message(999)), Some(0));
        assert_eq!(ghosts.remove(&message(995)), Some(3));
        assert_eq!(ghosts.remove(&message(900)), None);
    }

    /// Sends at random through a table of the size that is said, first in, first out. The routes it ends with.
    fn simulate(messages: u32, room: usize, sends: usize) -> (usize, usize) {
        let mut sizing = Sizing::new();
        let mut table: Vec<(Message, u32)> = Vec::new();
        let (mut state, mut misses) = (88_172_645_463_325_252u64, 0);
        for send in 0..sends {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let wanted = message(u32::try_from(state >> 33).unwrap() % messages);
            if let Some((_, uses)) = table.iter_mut().find(|(message, _)| *message == wanted) {
                *uses += 1;
                continue;
            }
            misses += usize::from(send > sends / 2);
            let mut back = Vec::new();
            if sizing.missed(&wanted) {
                let uses = table.iter_mut().map(|(_, uses)| std::mem::take(uses)).collect();
                back = sizing.look(Situation { others: 24, room, uses });
            }
            table.extend(back.into_iter().filter(|it| *it != wanted).map(|it| (it, 0)));
            table.push((wanted, 0));
            while table.len() > sizing.target() {
                let (gone, _) = table.remove(0);
                sizing.evicted(gone, room);
            }
        }
        (table.len(), misses)
    }

    #[test]
    fn what_fits_is_held() {
        for messages in [50, 200, 900] {
            let (routes, misses) = simulate(messages, 1000, 20_000);
            assert_eq!((routes, misses), (messages as usize, 0));
        }
    }

    #[test]
    fn what_does_not_fit_gets_few_routes() {
        for messages in [1_300, 5_000] {
            let (routes, _) = simulate(messages, 1000, 20_000);
            assert!(routes <= 128, "{messages}: {routes}");
        }
    }
}
