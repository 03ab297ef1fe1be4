// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a VMM is told of a change.

use std::ops::Range;

/// What a control call changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// The capability was enabled or disabled.
    pub enable: bool,
    /// Vectors became live, or are so no more, or have another message and are live.
    vectors: Option<(u32, u32)>,
}

impl Changed {
    pub(crate) fn enable(enable: bool) -> Self {
        Changed { enable, vectors: None }
    }

    /// The first to the last vector that changed; of those between, some may be as before.
    pub fn vectors(&self) -> Option<Range<u32>> {
        self.vectors.map(|(first, last)| first..last.saturating_add(1))
    }

    pub(crate) fn add_vector(&mut self, index: u32) {
        self.add(Changed { enable: false, vectors: Some((index, index)) });
    }

    pub(crate) fn add(&mut self, other: Changed) {
        self.enable |= other.enable;
        self.vectors = match (self.vectors, other.vectors) {
            (Some((first, last)), Some((from, to))) => Some((first.min(from), last.max(to))),
            (one, other) => one.or(other),
        };
    }

    pub(crate) fn is_nothing(&self) -> bool {
        *self == Changed::default()
    }
}
