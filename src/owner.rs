// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose eventfds are given to the kernel, in the eyes of those who do that: `arm`, `transaction` and the relay.

use std::sync::Arc;

use crate::changed::Changed;
use crate::error::Result;
use crate::routes::{Change, PinnedRoute};

/// Whose items are armed: a device its vectors', the VMM's own GSIs.
pub(crate) trait Owner: Send + Sync {
    /// The first step.
    fn stage(&self, index: u32) -> Stage;
    /// The third, with the route that the second gave.
    fn finish(&self, index: u32, staged: &Staged, route: Result<u32>) -> Finish;
    /// Others' routes are written before this is staged: it binds irqfds to them.
    fn comes_last(&self, _index: u32) -> bool {
        false
    }
    /// Sends what is pending, if it can be sent.
    fn hand_over(&self, index: u32) -> Result<()>;
    /// Tells the VMM.
    fn tell(&self, _changed: Changed) {}
    /// The commit that this was staged for went well.
    fn keep(&self, _index: u32) {}
    /// It did not: whether the item is to be as it was before, which arming it again will make it.
    fn take_back(&self, _index: u32) -> bool {
        false
    }
    /// The thread that was to commit it has ended: any other's commit will do.
    fn leave_to_others(&self, _index: u32) {}

    // ---- of those that the relay may serve --------------------------------------------------------

    /// An eventfd of the item's may have counted something.
    fn signalled(&self, _index: u32) {}
    /// Where its eventfds are served after somebody tried to give them to the kernel.
    fn served_by(&self, _index: u32) -> ServedBy {
        ServedBy::Nobody
    }
    /// How many signals the relay has seen lately.
    fn heat(&self, _index: u32) -> u32 {
        0
    }
    /// Takes the item from the kernel for a while, to see whether it is signalled. Its route stays pinned.
    fn sample(&self, _index: u32) -> Sample {
        Sample::Gone
    }
    /// Ends the sample.
    fn judge(&self, _index: u32) -> Verdict {
        Verdict::Gone
    }
}

/// Who serves an item's eventfds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServedBy {
    Kernel {
        /// It has been listed for samples before, and still is.
        is_listed: bool,
    },
    Relay,
    /// It is masked, or the relay's no more.
    Nobody,
}

/// What a sample begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sample {
    Begun,
    /// It was found busy not long ago: another time.
    NotNow,
    /// The kernel does not serve it.
    Gone,
}

/// What a sample came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was signalled, and is the kernel's again.
    Busy,
    /// It was not: the relay serves it, and its route is free.
    Idle,
    /// It was changed meanwhile.
    Gone,
}

/// What is to be armed.
#[derive(Clone)]
pub(crate) struct Item {
    pub owner: Arc<dyn Owner>,
    pub index: u32,
}

impl Item {
    /// The same for the same.
    pub fn key(&self) -> (usize, u32) {
        (Arc::as_ptr(&self.owner).cast::<()>().addr(), self.index)
    }
}

/// An item between the first step and the third.
pub(crate) struct Staged {
    /// The owner's, to see whether it changed meanwhile.
    pub generation: u32,
    pub change: Change,
    /// The pin that the change owns.
    pub from: Option<PinnedRoute>,
}

pub(crate) enum Stage {
    /// There is nothing to be done in the table.
    Done(Result<()>),
    Change(Staged),
}

pub(crate) enum Finish {
    Done(Result<()>),
    /// Look at it again: changes may have overtaken each other.
    Again,
}
