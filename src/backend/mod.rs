// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where messages go: one trait, three kinds.
//!
//! | kind | what is behind it |
//! |---|---|
//! | [`kvm`] | a VM of the kernel's |
//! | [`callbacks`] | functions of the VMM's own |
//! | [`model`] | KVM's rules in memory, for tests and machines without /dev/kvm |
//!
//! A backend is told what to do and reports what came of it; it keeps no state of the library's and
//! decides nothing.

use std::cell::Cell;
use std::os::fd::BorrowedFd;

use kvm_bindings::kvm_irq_routing_entry;

use crate::cancel;
use crate::error::{Error, Result};
use crate::message::Message;

#[cfg(feature = "capi")]
pub mod callbacks;
pub mod kvm;
pub mod model;

/// What a backend can do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// [`Backend::signal`] works (KVM_CAP_SIGNAL_MSI).
    pub direct: bool,
    /// [`Backend::set_routes`] and [`Backend::raise`] work: without `direct`, messages go by routes.
    pub routes: bool,
    /// [`Backend::bind_irqfd`] works (KVM_CAP_IRQFD), on routes.
    pub irqfd: bool,
    /// [`Backend::raise`] works.
    pub raise: bool,
    /// A message is a GSI ([`Backend::gsi_of`]): there is no table then (GICv2m).
    pub gsi_direct: bool,
    /// Irqfds of level-triggered pins (KVM_CAP_IRQFD_RESAMPLE).
    pub resample: bool,
    /// The requester is part of a message (KVM_CAP_MSI_DEVID).
    pub requester: bool,
    /// Entries in the table, and one above the highest GSI (KVM_CAP_IRQ_ROUTING).
    pub max_routes: u32,
}

/// Whether the guest's interrupt controller took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It did; that the interrupt was already requested counts as taken.
    Accepted,
    /// There is no such destination, or it is switched off: the message is gone, as on hardware.
    Refused,
}

impl Reception {
    /// From what the kernel's ioctls say: above zero is accepted.
    pub(crate) fn of(count: i32) -> Self {
        if count > 0 {
            Reception::Accepted
        } else {
            Reception::Refused
        }
    }
}

/// A virtual machine's interrupt routing, as the kernel offers it.
///
/// Every method may be called from any thread. `signal` and `raise` are called with no lock of the
/// library held, the others also with the lock of the table or of a device.
pub trait Backend: Send + Sync {
    /// What works here. The same answer every time.
    fn features(&self) -> Features;

    /// The routes that are in force before the first [`Backend::set_routes`] and that it would
    /// wipe out. May change until a table has been written, for the VMM may create its interrupt
    /// controller later than the cache.
    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        Vec::new()
    }

    /// Injects a message (`KVM_SIGNAL_MSI`).
    fn signal(&self, message: &Message) -> Result<Reception>;

    /// Injects the message that `gsi` is routed to (`KVM_IRQ_LINE_STATUS`).
    fn raise(&self, gsi: u32) -> Result<Reception>;

    /// The GSI that a message is, where it is one.
    fn gsi_of(&self, _message: &Message) -> Result<u32> {
        Err(not_supported("a message is no GSI here"))
    }

    /// Replaces the whole table (`KVM_SET_GSI_ROUTING`). On failure the old one stays in force.
    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()>;

    /// From now on a signal of the eventfd raises `gsi` (`KVM_IRQFD`). With `resample` the GSI is level-triggered: it
    /// stays raised until the guest ends the interrupt, and `resample` is signalled then.
    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()>;

    /// After this returns, a signal of the eventfd stays in its counter.
    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()>;

    /// Lets go of the VM while references to the backend may still exist. Later calls fail.
    fn close(&self) {}
}

thread_local! {
    static INSIDE_HOST: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a function of the VMM's that is called with locks held, the library's or
/// the model's: most calls of the library would wait for themselves there.
pub(crate) fn is_inside_host() -> bool {
    INSIDE_HOST.with(Cell::get)
}

/// Calls such a function.
pub(crate) fn inside_host<T>(call: impl FnOnce() -> T) -> T {
    let before = INSIDE_HOST.with(|inside| inside.replace(true));
    let result = cancel::put_off(call);
    INSIDE_HOST.with(|inside| inside.set(before));
    result
}

/// Shared with somebody who looks at it: a test, at a model.
impl<B: Backend + ?Sized> Backend for std::sync::Arc<B> {
    fn features(&self) -> Features {
        (**self).features()
    }
    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        (**self).default_routes()
    }
    fn signal(&self, message: &Message) -> Result<Reception> {
        (**self).signal(message)
    }
    fn raise(&self, gsi: u32) -> Result<Reception> {
        (**self).raise(gsi)
    }
    fn gsi_of(&self, message: &Message) -> Result<u32> {
        (**self).gsi_of(message)
    }
    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        (**self).set_routes(entries)
    }
    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        (**self).bind_irqfd(eventfd, resample, gsi)
    }
    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        (**self).unbind_irqfd(eventfd, gsi)
    }
    fn close(&self) {
        (**self).close();
    }
}

/// A backend. The kernel's is called directly: a delivery is so short that a virtual call, and the
/// return through it after the system call, can be measured.
pub enum Host {
    /// A VM of the kernel's.
    Kvm(kvm::KvmBackend),
    /// Any other.
    Other(Box<dyn Backend>),
}

impl Host {
    /// [`Backend::signal`].
    #[inline(always)]
    pub(crate) fn signal(&self, message: &Message) -> Result<Reception> {
        match self {
            Host::Kvm(kvm) => kvm.signal(message),
            Host::Other(other) => other.signal(message),
        }
    }

    /// [`Backend::raise`].
    #[inline(always)]
    pub(crate) fn raise(&self, gsi: u32) -> Result<Reception> {
        match self {
            Host::Kvm(kvm) => kvm.raise(gsi),
            Host::Other(other) => other.raise(gsi),
        }
    }

    /// For everything that is not in a hurry.
    pub(crate) fn get(&self) -> &dyn Backend {
        match self {
            Host::Kvm(kvm) => kvm,
            Host::Other(other) => &**other,
        }
    }
}

impl From<kvm::KvmBackend> for Host {
    fn from(kvm: kvm::KvmBackend) -> Self {
        Host::Kvm(kvm)
    }
}

impl From<Box<dyn Backend>> for Host {
    fn from(other: Box<dyn Backend>) -> Self {
        Host::Other(other)
    }
}

/// For methods whose feature is off.
pub(crate) fn not_supported(what: &'static str) -> Error {
    Error::new(libc::ENOTSUP, what)
}
