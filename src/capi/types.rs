// SPDX-License-Identifier: MIT OR Apache-2.0
//! Structs and constants of the header.

use std::ffi::{c_char, c_int, c_void};

use kvm_bindings::kvm_irq_routing_entry;

use super::{msi_device, Sized32};

/// No requester: who sends a message does not matter.
pub const MSIROUTE_NO_REQUESTER: u32 = u32::MAX;
/// Any GSI, for msi_route_cache_add_route(); no GSI, in msi_vector_info.
pub const MSIROUTE_ANY_GSI: u32 = u32::MAX;
/// No tag: an invalidation of all alone concerns the translation.
pub const MSIROUTE_NO_TAG: u64 = u64::MAX;

/// Do without KVM_SIGNAL_MSI even if there is one: messages go through routes (old hosts, tests).
pub const MSIROUTE_CACHE_NO_DIRECT: u32 = 1 << 0;
/// The embedded model of KVM's routing in place of a VM, for tests and machines without /dev/kvm. It has one thread, the
/// kernel's part in irqfds. What reaches the guest is handed to `signal` of `ops`; the other functions must be NULL.
pub const MSIROUTE_CACHE_MODEL: u32 = 1 << 1;
/// Never use membarrier(2), for a seccomp filter that refuses it: deliveries then cost a memory fence more. Process-wide:
/// at its first cache, -EBUSY later.
pub const MSIROUTE_CACHE_FENCES: u32 = 1 << 2;

/// Start as after msi_route_cache_pause() (an incoming migration): msi_route_cache_resume() ends it.
pub const MSIROUTE_CACHE_PAUSED: u32 = 1 << 3;
/// The library may start threads, up to seven and for some milliseconds, to unbind many eventfds at once (function
/// mask, disable, reset, unplug, pause): one after the other each takes up to 0.1 ms of waiting in the kernel. They
/// handle no signals.
pub const MSIROUTE_CACHE_HELPER_THREADS: u32 = 1 << 4;

/// How messages leave, for a VMM whose interrupt controller or system calls are its own. NULL: "has none".
///
/// Called from any thread until msi_route_cache_free() has returned. A negative errno is an error. `signal` and
/// `raise_gsi` run inside msi_deliver(), with no lock of the library held: they may call msi_deliver() (a message that
/// needs a route must have it already, else -EDEADLK), they must not wait for a thread that masks, and control
/// functions say -EDEADLK to them, as they do to the others, which run with locks held.
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
    /// From now on a signal of the eventfd raises the GSI (KVM_IRQFD). `resamplefd` is -1, or the GSI is level-triggered: it
    /// stays raised until the guest ends the interrupt, and `resamplefd` is to be signalled then.
    pub bind_irqfd: Option<
        unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, resamplefd: c_int, gsi: u32) -> c_int,
    >,
    /// From now on the eventfd counts.
    pub unbind_irqfd:
        Option<unsafe extern "C" fn(opaque: *mut c_void, fd: c_int, gsi: u32) -> c_int>,
    /// Injects what a GSI is routed to (KVM_IRQ_LINE_STATUS), where there is no `signal`. Above 0: accepted; 0: not.
    pub raise_gsi: Option<unsafe extern "C" fn(opaque: *mut c_void, gsi: u32) -> c_int>,
    /// The GSI that a message is, always the same, for an interrupt controller without a table (GICv2m); then there is no
    /// `set_routes`, and which messages are any is its to say: a negative errno is none. Called with locks held, and inside
    /// msi_deliver() where there is no `signal`.
    pub gsi_of: Option<unsafe extern "C" fn(opaque: *mut c_void, address: u64, data: u32) -> c_int>,
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

/// Only irqfds use this route: it need not be in the kernel's table while there is none.
pub const MSIROUTE_ROUTE_IRQFD_ONLY: u32 = 1 << 0;

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
    /// Vectors that the relay serves now.
    pub relayed_vectors: u64,
    /// Messages that the relay has sent.
    pub relayed_messages: u64,
    /// Vectors that the relay has given to the kernel.
    pub promotions: u64,
    /// Vectors that made way for busier ones: the relay serves them again.
    pub demotions: u64,
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

/// An MSI capability: starts disabled. Its vectors have one message, which differs in the low bits of the data.
pub const MSIROUTE_KIND_MSI: u32 = 2;
/// As MSIROUTE_KIND_PLAIN, but vector i owns the GSI first_pin + i, and is in the kernel's table while it has a
/// message: an IOAPIC in user space (split irqchip), of which the kernel reads there which pins are level-triggered, to
/// tell of their EOIs.
pub const MSIROUTE_KIND_PINS: u32 = 3;

/// The MSI capability has a 64-bit address.
pub const MSIROUTE_DEVICE_MSI_64: u32 = 1 << 0;
/// The MSI capability has mask and pending registers.
pub const MSIROUTE_DEVICE_MSI_MASK: u32 = 1 << 1;
/// A message whose data is 0 is none (device assignment's old way to switch a vector off).
pub const MSIROUTE_DEVICE_DATA0_OFF: u32 = 1 << 2;

/// Its messages do not go through the vIOMMU (see msi_route_cache_set_remap()): they are the vIOMMU's own, or what the
/// VMM has translated itself.
pub const MSIROUTE_DEVICE_NO_REMAP: u32 = 1 << 3;

/// The capability was enabled or disabled: msi_device_state() says which.
pub const MSIROUTE_CHANGED_ENABLE: u32 = 1 << 0;
/// Of vectors `first` to `first + n - 1`, some have become live or BLOCKED, or are so no more, or are live with another
/// message: msi_vector_info() says what is true now.
pub const MSIROUTE_CHANGED_VECTORS: u32 = 1 << 1;

/// What a device is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msi_device_config {
    /// sizeof of this struct.
    pub size: u32,
    /// MSIROUTE_DEVICE_...
    pub flags: u32,
    /// MSIROUTE_KIND_...
    pub kind: u32,
    /// 1 to 2048; of MSIROUTE_KIND_MSI 1, 2, 4, 8, 16 or 32.
    pub vectors: u32,
    /// Bus/device/function or ITS device ID, or MSIROUTE_NO_REQUESTER.
    pub requester: u32,
    /// MSIROUTE_KIND_PINS: the GSI of vector 0. Else 0.
    pub first_pin: u32,
    /// Where the MSI or MSI-X capability lies in config space, 0x40 to 0xff and a multiple of 4. 0: the VMM does not forward
    /// accesses to config space, and the fields up to `pba_offset` are 0 too.
    pub cap_offset: u32,
    /// The next capability, or 0.
    pub cap_next: u32,
    /// MSI-X: the base address register (0 to 5) and the offset in it (a multiple of 8) of the table.
    pub table_bar: u32,
    /// See `table_bar`.
    pub table_offset: u32,
    /// The same of the pending bit array.
    pub pba_bar: u32,
    /// See `pba_bar`.
    pub pba_offset: u32,
    /// For logs; copied. May be NULL.
    pub name: *const c_char,
    /// What a control call changed, once a call (or commit, or resume) however much it was, after the change is live:
    /// on the calling thread, with no lock of the library's held. It may call anything but msi_device_free() of this
    /// device. Calls on several threads may overtake each other, so what msi_device_state() and msi_vector_info() say
    /// is what counts, and a later change makes another call. Binding and unbinding eventfds is no change. It must not
    /// wait for a lock that is held around calls of msi_device_free() or msi_route_cache_pause(), which wait for it.
    /// May be NULL.
    pub changed: Option<
        unsafe extern "C" fn(
            opaque: *mut c_void,
            dev: *mut msi_device,
            what: u32,
            first: u32,
            n: u32,
        ),
    >,
    /// For `changed`; valid until msi_device_free() of the last reference has returned.
    pub opaque: *mut c_void,
}

/// Message Control's enable bit; always set where there is none.
pub const MSIROUTE_ENABLED: u32 = 1 << 0;
/// Message Control's function mask.
pub const MSIROUTE_FUNCTION_MASKED: u32 = 1 << 1;
/// The function may master the bus.
pub const MSIROUTE_BUS_MASTER: u32 = 1 << 2;

/// The eventfd must be served by the kernel (posted interrupts), never by the relay; without a relay every one is.
pub const MSIROUTE_EVENTFD_KERNEL_ONLY: u32 = 1 << 0;
/// Not duplicated: it must stay open, and be this file, until it is unbound.
pub const MSIROUTE_EVENTFD_BORROWED: u32 = 1 << 1;

/// The relay alone serves it, if it is on; it takes no route.
pub const MSIROUTE_EVENTFD_RELAY_ONLY: u32 = 1 << 3;

/// The VMM, told by `changed` that the vector is not live, keeps the source from signalling (vhost, VFIO): masking the
/// vector or the function does not unbind the eventfd then, which is dear. What the source holds back meanwhile is the
/// VMM's to show in the pending bit, by msi_deliver().
pub const MSIROUTE_EVENTFD_MASKED_AT_SOURCE: u32 = 1 << 2;

/// It has a message.
pub const MSIROUTE_VECTOR_SET: u32 = 1 << 0;
/// Its own mask bit.
pub const MSIROUTE_VECTOR_MASKED: u32 = 1 << 1;
/// The guest wants it: set, enabled, unmasked both ways; and the vIOMMU, if there is one, lets it.
pub const MSIROUTE_VECTOR_LIVE: u32 = 1 << 2;
/// It has eventfds, and every one is an irqfd now.
pub const MSIROUTE_VECTOR_IN_KERNEL: u32 = 1 << 3;
/// It should send, and has an eventfd that nobody serves: events are counted, and serving is tried again.
pub const MSIROUTE_VECTOR_UNSERVED: u32 = 1 << 4;
/// It has eventfds, and the relay serves them now, or some of them.
pub const MSIROUTE_VECTOR_RELAYED: u32 = 1 << 6;
/// The vIOMMU refuses its message: it holds what is raised until a later translation allows it. A vector that could not
/// send anyway (masked, disabled) is not asked about.
pub const MSIROUTE_VECTOR_BLOCKED: u32 = 1 << 5;

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
/// The vector could not send (masked, bus master off, paused, no message, or being changed at this moment): kept, and
/// sent once when it can; another thread may just have done that.
pub const MSIROUTE_PENDING: c_int = 1;
/// The message's destination does not exist or is switched off: it is gone, as on hardware.
pub const MSIROUTE_REFUSED: c_int = 2;
/// The capability is disabled: nothing was sent or kept; raise INTx if there is one.
pub const MSIROUTE_DISABLED: c_int = 3;
/// The vIOMMU refuses the message, and that alone keeps it from being sent. Of a vector it is kept, and sent once when
/// a later translation allows it. Logging the fault is the caller's.
pub const MSIROUTE_BLOCKED: c_int = 4;
