// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a message to its GSI without a lock, for sending through routes (hosts without
//! KVM_SIGNAL_MSI).
//!
//! A sender looks its message up inside a section (see `sync`) and raises the GSI before it leaves it.
//! Who gives a GSI another message first marks the cell dead, then waits for the senders that may have
//! found it alive ([`Finder::retire`]), and only then has the table written: so nobody raises a GSI
//! that has become somebody else's.
//!
//! The index is a hint: a collision or an old value sends the sender to the table under its lock,
//! which knows. What decides is the cell.

use std::hash::{BuildHasher, RandomState};

use crate::error::Result;
use crate::memory;
use crate::message::Message;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::sync::{self, Readers};

/// One GSI.
#[derive(Debug)]
struct Cell {
    live: AtomicBool,
    /// How often it was sent through, about: senders at the same time may count as one.
    uses: AtomicU32,
    data: AtomicU32,
    address: AtomicU64,
    requester: AtomicU32,
    /// Sections without a slot: whoever retires the cell cannot see them otherwise.
    readers: Readers,
}

#[derive(Debug)]
pub(super) struct Finder {
    cells: Box<[Cell]>,
    /// By a hash of the message, the GSI it was last seen at.
    index: Box<[AtomicU32]>,
    /// Keyed, for the guest chooses the messages.
    keys: (u64, u64),
}

impl Finder {
    pub fn new(limit: u32) -> Result<Self> {
        let cell = |_| Cell {
            live: AtomicBool::new(false),
            uses: AtomicU32::new(0),
            data: AtomicU32::new(0),
            address: AtomicU64::new(0),
            requester: AtomicU32::new(0),
            readers: Readers::new(),
        };
        let random = RandomState::new();
        // Twice as many as routes, or more: a power of two.
        let hints = limit.checked_next_power_of_two().unwrap_or(limit).saturating_mul(2);
        let index = (0..hints).map(|_| AtomicU32::new(0));
        Ok(Finder {
            cells: memory::collect((0..limit).map(cell))?,
            index: memory::collect(index)?,
            keys: (random.hash_one(0), random.hash_one(1)),
        })
    }

    /// Calls `raise` with the message's GSI; `None` if it has none that can be found.
    #[inline(always)]
    pub fn with_gsi<T>(
        &self,
        message: &Message,
        is_counted: bool,
        raise: impl FnOnce(u32) -> T,
    ) -> Option<T> {
        let (first, second) = self.hints(message)?;
        let is_at = |gsi: u32| self.cells.get(gsi as usize).filter(|cell| cell.has(message));
        let mut gsi = first.load(Ordering::Relaxed);
        let mut cell = is_at(gsi);
        if cell.is_none() {
            gsi = second.load(Ordering::Relaxed);
            cell = is_at(gsi);
        }
        let cell = cell?;
        let counted = is_counted.then(|| cell.readers.enter_counted());
        if is_counted && !cell.has(message) {
            // Retired before we were counted.
            return None;
        }
        cell.uses.store(cell.uses.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let result = raise(gsi);
        drop(counted);
        Some(result)
    }

    // ---- under the table's lock ----------------------------------------------------------------

    /// The kernel has this route: senders may find it.
    pub fn publish(&self, gsi: u32, message: &Message) {
        let Some(cell) = self.cells.get(gsi as usize) else { return };
        let Some((first, second)) = self.hints(message) else { return };
        // A live cell has this message already: another one is written only after `retire`.
        if !cell.live.load(Ordering::Relaxed) {
            cell.address.store(message.address, Ordering::Relaxed);
            cell.data.store(message.data, Ordering::Relaxed);
            cell.requester.store(message.requester, Ordering::Relaxed);
            cell.live.store(true, Ordering::Release);
        }
        // The second place, if the first is another live route's.
        let other = first.load(Ordering::Relaxed);
        let is_taken = other != gsi
            && self.cells.get(other as usize).is_some_and(|cell| cell.live.load(Ordering::Relaxed));
        let place = if is_taken { second } else { first };
        place.store(gsi, Ordering::Relaxed);
    }

    /// After this returns nobody raises these GSIs until they are published again.
    pub fn retire(&self, gsis: &[u32]) {
        let cells = || gsis.iter().filter_map(|&gsi| self.cells.get(gsi as usize));
        if !cells().any(|cell| cell.live.load(Ordering::Relaxed)) {
            return;
        }
        cells().for_each(|cell| cell.live.store(false, Ordering::SeqCst));
        sync::wait_for_every_slot();
        cells().for_each(|cell| cell.readers.wait_counted());
    }

    /// How often it was sent through, whatever it was routed to.
    pub fn uses(&self, gsi: u32) -> u32 {
        self.cells.get(gsi as usize).map_or(0, |cell| cell.uses.load(Ordering::Relaxed))
    }

    /// The two places in the index where a message may be found.
    #[inline(always)]
    fn hints(&self, message: &Message) -> Option<(&AtomicU32, &AtomicU32)> {
        // Multiply and fold, twice: enough for hints, in 2 ns.
        let mix = |word: u64, key: u64| {
            let product = u128::from(word ^ key) * 0x9E37_79B9_7F4A_7C15;
            #[expect(clippy::cast_possible_truncation, reason = "both halves are folded")]
            let halves = ((product >> 64) as u64, product as u64);
            halves.0 ^ halves.1
        };
        let low = u64::from(message.data) << 32 | u64::from(message.requester);
        let hash = mix(mix(message.address, self.keys.0) ^ low, self.keys.1);
        #[expect(clippy::cast_possible_truncation, reason = "a hash, cut to the index's size")]
        let at = hash as usize & self.index.len().wrapping_sub(1);
        Some((self.index.get(at)?, self.index.get(at ^ 1)?))
    }
}

impl Cell {
    #[inline(always)]
    fn has(&self, message: &Message) -> bool {
        // Acquire: pairs with `publish`, which writes the message first.
        self.live.load(Ordering::Acquire)
            && self.address.load(Ordering::Relaxed) == message.address
            && self.data.load(Ordering::Relaxed) == message.data
            && self.requester.load(Ordering::Relaxed) == message.requester
    }
}
