// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structs and constants of the header.

use std::ffi::{c_char, c_int, c_void};

use kvm_bindings::kvm_irq_routing_entry;

use super::Sized32;

/// No requester: who sends a message does not matter.
pub const MSIROUTE_NO_REQUESTER: u32 = u32::MAX;
/// No GSI, in msi_vector_info.
pub const MSIROUTE_ANY_GSI: u32 = u32::MAX;

/// Do without KVM_SIGNAL_MSI even if there is one: messages go through routes (old hosts, tests).
pub const MSIROUTE_CACHE_NO_DIRECT: u32 = 1 << 0;
/// The embedded model of KVM's routing in place of a VM, for tests and machines without /dev/kvm. It has one thread, the
/// kernel's part in irqfds. What reaches the guest is handed to `signal` of `ops`; the other functions must be NULL.
pub const MSIROUTE_CACHE_MODEL: u32 = 1 << 1;
/// Never use membarrier(2), for a seccomp filter that refuses it: deliveries then cost a memory fence more. Process-wide:
/// at its first cache, -EBUSY later.
pub const MSIROUTE_CACHE_FENCES: u32 = 1 << 2;

/// How messages leave, for a VMM whose interrupt controller or system calls are its own. NULL: "has none".
///
/// Called from any thread until msi_route_cache_free has returned. A negative errno is an error. `signal` and `raise_gsi`
/// run inside msi_deliver, with no lock of the library held: they may call msi_deliver (a message that needs a route must have
/// it already, else -EDEADLK), they must not wait for a thread that masks, and control functions say -EDEADLK to them, as they do to the others, which run with locks held.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msi_route_cache_ops {
    /// sizeof of this struct.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Injects a message (KVM_SIGNAL_MSI). Above 0: accepted; 0: not accepted.
    pub signal: Option<
        unsafe extern "C" fn(opaque: *mut c_void, requester: u32, address: u64, data: u32) -> c_int,
    >,
    /// Replaces the whole table (KVM_SET_GSI_ROUTING), fixed routes included.
    pub set_routes: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            entries: *const kvm_irq_routing_entry,
            n: usize,
        ) -> c_int,
    >,
    /// From now on a signal of the eventfd raises the GSI (KVM_IRQFD).
    pub bind_irqfd: Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, gsi: u32) -> c_int>,
    /// From now on the eventfd counts.
    pub unbind_irqfd:
        Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, gsi: u32) -> c_int>,
    /// Injects what a GSI is routed to (KVM_IRQ_LINE_STATUS), where there is no `signal`. Above 0: accepted; 0: not.
    pub raise_gsi: Option<unsafe extern "C" fn(opaque: *mut c_void, gsi: u32) -> c_int>,
}

/// What a cache is made of.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msi_route_cache_config {
    /// sizeof of this struct.
    pub size: u32,
    /// MSIROUTE_CACHE_...
    pub flags: u32,
    /// KVM's VM; duplicated. -1 with `ops` or the model.
    pub vm_fd: i32,
    /// /dev/kvm, used during the call alone; -1: it is opened for the call.
    pub kvm_fd: i32,
    /// The lowest GSI that the library may take; 0: 24, above an IOAPIC's pins.
    pub first_gsi: u32,
    /// Entries in the kernel's table, and one above the highest GSI. 0: what the kernel says; 4096 with `ops`.
    pub max_routes: u32,
    /// The table is copied. NULL: KVM itself.
    pub ops: *const msi_route_cache_ops,
    /// For `ops`; valid until msi_route_cache_free() has returned.
    pub opaque: *mut c_void,
}

/// The host takes whole messages, and the cache uses that.
pub const MSIROUTE_HAS_DIRECT: u32 = 1 << 0;
/// Eventfds can be bound.
pub const MSIROUTE_HAS_IRQFD: u32 = 1 << 1;
/// Irqfds of level-triggered pins are there.
pub const MSIROUTE_HAS_RESAMPLE: u32 = 1 << 2;
/// The host wants to know who sends a message (ITS device ID).
pub const MSIROUTE_HAS_REQUESTER: u32 = 1 << 3;

/// KVM_X2APIC_API_USE_32BIT_IDS is on: bits 63:40 of an address are destination bits 31:8.
pub const MSIROUTE_X2APIC_IDS: u32 = 1 << 0;
/// The guest was offered KVM_FEATURE_MSI_EXT_DEST_ID: address bits 11:5 are destination bits 14:8. Needs
/// MSIROUTE_X2APIC_IDS.
pub const MSIROUTE_EXT_DEST_ID: u32 = 1 << 1;

/// Numbers that tell how a cache fares. Counters run from its making.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msi_route_cache_stats {
    /// sizeof of this struct.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Writes of the kernel's table that succeeded.
    pub table_writes: u64,
    /// Writes that the kernel refused.
    pub table_write_errors: u64,
    /// Routes of the library's that are in the table now, idle ones included, the VMM's own not.
    pub routes: u64,
    /// Of these, the ones in use by irqfds.
    pub routes_pinned: u64,
    /// Idle routes that made way for others.
    pub evictions: u64,
    /// KVM_IRQFD calls that bound an eventfd.
    pub irqfd_binds: u64,
    /// KVM_IRQFD calls that unbound one.
    pub irqfd_unbinds: u64,
    /// Vectors now that should be served and have an eventfd that nobody serves.
    pub unserved_vectors: u64,
}

/// Something failed that no caller can be told.
pub const MSIROUTE_LOG_ERROR: u32 = 1;
/// Worth knowing.
pub const MSIROUTE_LOG_INFO: u32 = 2;

/// The VMM keeps the registers: always enabled; vectors start unmasked, without a message.
pub const MSIROUTE_KIND_PLAIN: u32 = 0;
/// An MSI-X capability: starts disabled, vectors masked, without a message.
pub const MSIROUTE_KIND_MSIX: u32 = 1;

/// What a device is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msi_device_config {
    /// sizeof of this struct.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// MSIROUTE_KIND_...
    pub kind: u32,
    /// 1 to 2048.
    pub vectors: u32,
    /// Bus/device/function or ITS device ID, or MSIROUTE_NO_REQUESTER.
    pub requester: u32,
    /// 0.
    pub pad: u32,
    /// For logs; copied. May be NULL.
    pub name: *const c_char,
}

/// Message Control's enable bit; always set on MSIROUTE_KIND_PLAIN.
pub const MSIROUTE_ENABLED: u32 = 1 << 0;
/// Message Control's function mask.
pub const MSIROUTE_FUNCTION_MASKED: u32 = 1 << 1;
/// The function may master the bus.
pub const MSIROUTE_BUS_MASTER: u32 = 1 << 2;

/// The eventfd must be served by the kernel (posted interrupts); without a relay every one is.
pub const MSIROUTE_EVENTFD_KERNEL_ONLY: u32 = 1 << 0;
/// Not duplicated: it must stay open, and be this file, until it is unbound.
pub const MSIROUTE_EVENTFD_BORROWED: u32 = 1 << 1;

/// It has a message.
pub const MSIROUTE_VECTOR_SET: u32 = 1 << 0;
/// Its own mask bit.
pub const MSIROUTE_VECTOR_MASKED: u32 = 1 << 1;
/// The guest wants it: set, enabled, unmasked both ways.
pub const MSIROUTE_VECTOR_LIVE: u32 = 1 << 2;
/// It has eventfds, and every one is an irqfd now.
pub const MSIROUTE_VECTOR_IN_KERNEL: u32 = 1 << 3;
/// It should send, and has an eventfd that nobody serves: events are counted, and serving is tried again.
pub const MSIROUTE_VECTOR_UNSERVED: u32 = 1 << 4;

/// What is true of a vector now.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msi_vector_info {
    /// sizeof of this struct.
    pub size: u32,
    /// MSIROUTE_VECTOR_...
    pub flags: u32,
    /// The message, as it was set.
    pub address: u64,
    /// The message, as it was set.
    pub data: u32,
    /// How many eventfds it has.
    pub eventfds: u32,
    /// Where its route is now, for dumps; MSIROUTE_ANY_GSI: it has none.
    pub gsi: u32,
    /// Why an eventfd could not be bound or unbound, a negative errno; 0: it could.
    pub error: i32,
}

// SAFETY: integers, pointers, and functions that may be NULL; no padding.
unsafe impl Sized32 for msi_route_cache_ops {}
// SAFETY: as above.
unsafe impl Sized32 for msi_route_cache_config {}
// SAFETY: as above.
unsafe impl Sized32 for msi_route_cache_stats {}
// SAFETY: as above.
unsafe impl Sized32 for msi_device_config {}
// SAFETY: as above.
unsafe impl Sized32 for msi_vector_info {}

/// The guest's interrupt controller took it; that the interrupt was already requested counts as taken.
pub const MSIROUTE_SENT: c_int = 0;
/// The vector could not send (masked, bus master off, no message, or being changed at this moment): kept, and sent once when
/// it can; another thread may just have done that.
pub const MSIROUTE_PENDING: c_int = 1;
/// The message's destination does not exist or is switched off: it is gone, as on hardware.
pub const MSIROUTE_REFUSED: c_int = 2;
/// The capability is disabled: nothing was sent or kept; raise INTx if there is one.
pub const MSIROUTE_DISABLED: c_int = 3;
