// SPDX-License-Identifier: MIT OR Apache-2.0
//! `threads.rs` for the model checker: a slot for each of three threads, claimed when first asked for.

use loom::sync::atomic::{AtomicUsize, Ordering};
use std::cell::Cell;

use super::slot::Slot;

loom::lazy_static! {
    static ref ALL: [Slot; 3] = [Slot::new(), Slot::new(), Slot::new()];
    static ref CLAIMED: AtomicUsize = AtomicUsize::new(0);
}

loom::thread_local! {
    static OWN: Cell<Option<usize>> = Cell::new(None);
    static COUNTED: Cell<u32> = Cell::new(0);
}

pub(super) fn fast_slot() -> Option<&'static Slot> {
    None
}

pub(super) fn own_slot() -> Option<&'static Slot> {
    let index = OWN.with(|own| {
        let index = own.get().unwrap_or_else(|| CLAIMED.fetch_add(1, Ordering::SeqCst));
        own.set(Some(index));
        index
    });
    ALL.get(index)
}

pub(super) fn count_section(opened: bool) {
    COUNTED.with(|open| open.set(if opened { open.get() + 1 } else { open.get() - 1 }));
}

pub(super) fn has_section() -> bool {
    let in_slot =
        OWN.with(Cell::get).and_then(|own| ALL.get(own)).is_some_and(|slot| !slot.is_free());
    in_slot || COUNTED.with(Cell::get) > 0
}

pub(super) fn others() -> impl Iterator<Item = &'static Slot> {
    let own = OWN.with(Cell::get);
    let claimed = CLAIMED.load(Ordering::SeqCst);
    ALL.iter()
        .take(claimed)
        .enumerate()
        .filter(move |(at, _)| Some(*at) != own)
        .map(|(_, slot)| slot)
}
