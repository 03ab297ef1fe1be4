// SPDX-License-Identifier: MIT OR Apache-2.0
//! Static tracepoints (SDT), provider `msiroute`; docs/tracing.md is about them.
//!
//! Each is one `nop`, and a note in the library that says where it is and in which registers its arguments are. Arguments
//! that must be found out first are behind a semaphore: a word that a tracer counts up while it listens.

use std::sync::Arc;
use std::time::Instant;

use probe::{probe, probe_lazy};

use crate::cache::RouteCache;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::owner::Item;

/// What devices are told apart by, here and in a dump. It is where the allocation begins: that is in a register when a vector
/// is raised, where the device itself begins is not.
#[inline(always)]
pub(crate) fn id(device: *const Device) -> usize {
    device.addr().wrapping_sub(align_of::<Device>())
}

/// A vector is raised.
#[inline(always)]
pub(crate) fn deliver(device: &Device, index: u32) {
    probe!(msiroute, deliver, id(device), index);
}

/// A message that belongs to no vector is to be sent.
#[inline(always)]
pub(crate) fn deliver_message(cache: &RouteCache, address: u64, data: u32, requester: u32) {
    probe!(msiroute, deliver_message, std::ptr::from_ref(cache), address, data, requester);
}

/// What was raised is kept: the vector is not open.
#[inline(always)]
pub(crate) fn pend(device: &Device, index: u32) {
    probe!(msiroute, pend, id(device), index);
}

/// The relay has taken what an eventfd of the vector's counted.
#[inline(always)]
pub(crate) fn relay(device: &Device, index: u32) {
    probe!(msiroute, relay, id(device), index);
}

/// The relay has given a vector to the kernel.
#[inline(always)]
pub(crate) fn promote(item: &Item) {
    probe!(msiroute, promote, id(Arc::as_ptr(&item.owner).cast()), item.index);
}

/// And has it back, for a busier one.
#[inline(always)]
pub(crate) fn demote(item: &Item) {
    probe!(msiroute, demote, id(Arc::as_ptr(&item.owner).cast()), item.index);
}

/// An idle route makes way.
#[inline(always)]
pub(crate) fn evict(gsi: u32, message: &Message) {
    probe!(msiroute, evict, gsi, message.address, message.data);
}

/// Something failed, here; in words that do not end with a zero.
#[inline(always)]
pub(crate) fn error(errno: i32, doing: &str) {
    probe!(msiroute, error, errno, doing.as_ptr(), doing.len());
}

/// Writes a table; its size, the nanoseconds that it took, and what came of it are traced.
pub(crate) fn table_write(entries: usize, write: impl Fn() -> Result<()>) -> Result<()> {
    let mut written = None;
    // Arguments are evaluated only for somebody who listens; so the clock is read for him alone.
    probe_lazy!(
        msiroute,
        table_write,
        entries,
        nanoseconds(|| written = Some(write())),
        written.as_ref().and_then(|it| it.as_ref().err()).map_or(0, Error::errno)
    );
    written.unwrap_or_else(write)
}

fn nanoseconds(work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
