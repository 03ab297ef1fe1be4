// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers that tell how a cache fares.

/// Counters are since the cache was made; the others are of the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Writes of the kernel's table (`KVM_SET_GSI_ROUTING`) that succeeded.
    pub table_writes: u64,
    /// Writes that the kernel refused.
    pub table_write_errors: u64,
    /// Routes of the library's in the table now, idle ones included, the VMM's own not.
    pub routes: u64,
    /// Of these, the ones that irqfds use.
    pub routes_pinned: u64,
    /// Idle routes that made way for others.
    pub evictions: u64,
    /// `KVM_IRQFD` calls that bound an eventfd.
    pub irqfd_binds: u64,
    /// `KVM_IRQFD` calls that unbound one.
    pub irqfd_unbinds: u64,
    /// Vectors that the relay serves now.
    pub relayed_vectors: u64,
    /// Messages that it has sent.
    pub relayed_messages: u64,
    /// Vectors that it has given to the kernel.
    pub promotions: u64,
    /// Vectors that it has taken back, for busier ones.
    pub demotions: u64,
    /// Vectors now that should be served and have an eventfd that nobody serves.
    pub unserved_vectors: u64,
}
