// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which GSIs are taken. Lowest first and so dense: the kernel's table is as long as its highest GSI.

use std::cell::Cell;

use crate::error::Result;
use crate::memory;

/// GSIs from 0 up to a limit.
#[derive(Debug)]
pub(super) struct GsiSet {
    /// A set bit is a taken GSI.
    words: Box<[u64]>,
    first: u32,
    limit: u32,
    /// From `first` on.
    free: u32,
    /// In the words before this one, all from `first` on are taken.
    from: Cell<usize>,
}

impl GsiSet {
    /// Those below `first` are never handed out.
    pub fn new(first: u32, limit: u32) -> Result<Self> {
        let words = memory::collect((0..limit.div_ceil(u64::BITS)).map(|_| 0))?;
        let free = limit.saturating_sub(first);
        let from = Cell::new((first / u64::BITS) as usize);
        Ok(GsiSet { words, first, limit, free, from })
    }

    pub fn has(&self, gsi: u32) -> bool {
        let word = self.words.get((gsi / u64::BITS) as usize);
        word.is_some_and(|word| word >> (gsi % u64::BITS) & 1 != 0)
    }

    /// How many could be taken.
    pub fn free(&self) -> u32 {
        self.free
    }

    pub fn lowest_free(&self) -> Option<u32> {
        for (at, word) in self.words.iter().enumerate().skip(self.from.get()) {
            let base = u32::try_from(at).ok()?.checked_mul(u64::BITS)?;
            // In the first word, those below `first` count as taken.
            let below = self.first.saturating_sub(base);
            let never = u64::MAX.checked_shl(below).map_or(u64::MAX, |offered| !offered);
            let taken = *word | never;
            if taken != u64::MAX {
                self.from.set(at);
                let gsi = base.checked_add(taken.trailing_ones())?;
                return (gsi < self.limit).then_some(gsi);
            }
        }
        None
    }

    /// Takes this one, even below `first`. False if it is taken or beyond the limit.
    pub fn take(&mut self, gsi: u32) -> bool {
        let (bit, limit) = (1 << (gsi % u64::BITS), self.limit);
        match self.words.get_mut((gsi / u64::BITS) as usize) {
            Some(word) if *word & bit == 0 && gsi < limit => {
                *word |= bit;
                self.free = self.free.saturating_sub(u32::from(gsi >= self.first));
                true
            }
            _ => false,
        }
    }

    pub fn give_back(&mut self, gsi: u32) {
        let at = (gsi / u64::BITS) as usize;
        if let Some(word) = self.words.get_mut(at) {
            let bit = 1 << (gsi % u64::BITS);
            let was_taken = *word & bit != 0 && gsi >= self.first;
            self.free = self.free.saturating_add(u32::from(was_taken));
            *word &= !bit;
            if was_taken {
                self.from.set(self.from.get().min(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl GsiSet {
        fn take_lowest(&mut self) -> Option<u32> {
            self.lowest_free().inspect(|&gsi| assert!(self.take(gsi)))
        }
    }

    #[test]
    fn lowest_first_and_again() {
        let mut set = GsiSet::new(24, 200).unwrap();
        assert_eq!((set.take_lowest(), set.take_lowest()), (Some(24), Some(25)));
        set.give_back(24);
        assert_eq!((set.take_lowest(), set.take_lowest()), (Some(24), Some(26)));
        let rest: Vec<u32> = std::iter::from_fn(|| set.take_lowest()).collect();
        assert_eq!(rest, (27..200).collect::<Vec<u32>>());
        assert_eq!(set.free(), 0);
        set.give_back(130);
        set.give_back(130);
        assert_eq!(set.free(), 1);
        assert_eq!((set.take_lowest(), set.take_lowest()), (Some(130), None));
    }

    #[test]
    fn a_taken_one_is_not_handed_out() {
        let mut set = GsiSet::new(64, 70).unwrap();
        assert!(set.take(65) && !set.take(65) && set.take(3) && !set.take(70));
        let rest: Vec<u32> = std::iter::from_fn(|| set.take_lowest()).collect();
        assert_eq!(rest, [64, 66, 67, 68, 69]);
    }
}
