// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scenarios by number: the same for the same, to be found again.

use super::step::{words, Kind, Part, Scenario, Shape};

/// With which the kernel refuses.
const ERRNOS: [i32; 6] =
    [libc::EINVAL, libc::ENOMEM, libc::ENOSPC, libc::EBUSY, libc::EINTR, libc::EAGAIN];

/// They go round.
pub fn errno(n: u64) -> i32 {
    ERRNOS[n as usize % ERRNOS.len()]
}

pub fn part(kind: Kind, vectors: usize) -> Part {
    Part { kind, vectors }
}

/// GSIs of a device of pins: on a split irqchip below all others, on a full one, whose own are there, above.
pub fn pins(split: bool) -> Part {
    part(Kind::Pins(if split { 8 } else { 26 }), 3)
}

/// A table in which it gets close: on a full irqchip there are few entries beside its 40, on a split one few GSIs.
/// Through routes there are four more, for whoever sends.
pub fn small(split: bool, no_direct: bool) -> u32 {
    (if split { 27 } else { 41 }) + if no_direct { 4 } else { 0 }
}

pub fn scenario(seed: u64, steps: usize, tame: bool) -> Scenario {
    let mut words = words(seed);
    let bits = words.next().unwrap_or_default();
    let (split, no_direct) = (bits & 1 != 0, bits & 2 != 0);
    let third = match bits >> 2 & 3 {
        0 | 1 => pins(split),
        2 => part(Kind::Msix, 2),
        _ => part(Kind::Plain, 1),
    };
    let max_routes = match bits >> 5 & 1 {
        0 => 0,
        _ => small(split, no_direct) + (bits >> 8) as u32 % 8,
    };
    let shape = Shape {
        parts: vec![part(Kind::Plain, 3), part(Kind::Msix, 4), third],
        split,
        no_direct,
        requester: !tame && bits & 16 != 0,
        max_routes,
        many: false,
        tame,
    };
    shape.scenario(words.take(steps))
}
