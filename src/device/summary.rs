// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is true of a device's vectors together. It is found out once after each change, so that who asks all devices of a VM
//! (statistics, the vIOMMU) does not look at every vector again.

use std::ops::{Range, RangeInclusive};

use parking_lot::MutexGuard;

use super::{Control, Device, VectorControl};
use crate::remap::NO_TAG;
use crate::vector::Vector;

#[derive(Clone, Debug)]
pub(super) struct Summary {
    pub unserved: u64,
    pub relayed: u64,
    /// From the first to the last vector whose irqfd is not on a route of the vector's message.
    pub late: Option<Range<u32>>,
    /// Some translation is.
    pub outdated: bool,
    /// Some message without a tag is blocked.
    blocked_untagged: bool,
    /// From the lowest to the highest in use.
    tags: Option<RangeInclusive<u64>>,
}

impl Summary {
    /// An invalidation of these tags may concern some vector.
    pub fn concerns(&self, tags: &RangeInclusive<u64>) -> bool {
        let overlap =
            |own: &RangeInclusive<u64>| own.start() <= tags.end() && tags.start() <= own.end();
        self.outdated
            || self.blocked_untagged
            || tags.contains(&NO_TAG)
            || self.tags.as_ref().is_some_and(overlap)
    }
}

impl Device {
    /// To change something, or to look at single vectors.
    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        let mut control = self.control.lock();
        control.summary = None;
        control
    }

    pub(super) fn with_summary<T>(&self, f: impl FnOnce(&Summary) -> T) -> T {
        f(self.summarize(&mut self.control.lock()))
    }

    /// All that it looks at is changed under the lock, or (the relay, the vIOMMU) each device takes its lock afterwards.
    pub(super) fn summarize<'a>(&self, control: &'a mut Control) -> &'a Summary {
        let summary = control.summary.take();
        let summary = summary.unwrap_or_else(|| Box::new(self.summary_of(control)));
        control.summary.insert(summary)
    }

    fn summary_of(&self, control: &Control) -> Summary {
        let vectors = || self.vectors.iter().zip(&control.vectors);
        let count = |is_meant: &dyn Fn(&Vector, &VectorControl) -> bool| {
            vectors().filter(|(vector, control)| is_meant(vector, control)).count() as u64
        };
        let (unserved, relayed) = (
            count(&|vector, control| self.is_unserved(vector, control)),
            count(&|vector, control| self.is_in_relay(vector, control)),
        );
        let mut summary = Summary {
            unserved,
            relayed,
            late: None,
            outdated: false,
            blocked_untagged: false,
            tags: None,
        };
        if !self.is_remapped() {
            return summary;
        }
        let translations = control.translations.as_deref().unwrap_or_default();
        for ((vector, _), translation) in vectors().zip(translations) {
            summary.outdated |= translation.is_outdated();
            let tag = translation.tag();
            summary.blocked_untagged |= tag == NO_TAG && vector.is_blocked();
            if tag != NO_TAG {
                let tags = summary.tags.take().unwrap_or(tag..=tag);
                summary.tags = Some(tag.min(*tags.start())..=tag.max(*tags.end()));
            }
        }
        let is_late = |(vector, control): (&Vector, &VectorControl)| {
            control.eventfds.as_deref().is_some_and(|it| {
                let message = vector.message();
                it.is_wrong_pin(message) || (it.any_bound() && !it.all_send(message))
            })
        };
        let mut late = (0..).zip(vectors()).filter(|(_, it)| is_late(*it)).map(|(index, _)| index);
        if let Some(first) = late.next() {
            summary.late = Some(first..late.last().unwrap_or(first).saturating_add(1));
        }
        summary
    }
}
