// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_vector_*`. All of them also say -EINVAL for a bad handle or index, -ENODEV for a closed device,
//! -ESHUTDOWN after the cache is gone.

use std::ffi::c_int;

use super::cache::borrow_fd;
use super::types::*;
use super::{arg, check_flags, control, control_value, creating, msi_device, write_struct};
use crate::device::{EventfdOptions, Server};
use crate::error::Error;
use crate::Masking;

/// Gives a vector a message: the guest's address and data. Once this returns the old one is not sent any more, and no
/// mixture of the two ever is. (In a transaction, what its eventfds send changes with the commit.) In MSI-X registers
/// it is as if the guest had written both at once. [control]
///
/// \param address  the message, as the guest wrote it.
/// \param data     the same.
/// \return 0; -EINVAL (a device of MSIROUTE_KIND_MSI, or not a message: nothing is changed, so clear the vector if the
///         old message must go); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if its eventfds cannot be served
///         (the message stands, their events are counted, and it is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_vector_set(
    dev: *mut msi_device,
    index: u32,
    address: u64,
    data: u32,
) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.set(index, address, data))
}

/// Takes a vector's message away: what is raised is kept pending until it has one again. A pin leaves the kernel's
/// table (in a transaction with the commit). [control]
///
/// \return 0; -EINVAL (also of MSIROUTE_KIND_MSI); -ENODEV; -ESHUTDOWN; what the kernel says to unbinding an eventfd.
#[no_mangle]
pub unsafe extern "C" fn msi_vector_clear(dev: *mut msi_device, index: u32) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.clear(index))
}

/// Masks a vector: once this returns no message of it is sent. [control]
///
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says to unbinding an eventfd (the vector is masked, but that
///         eventfd still interrupts: mask it again).
#[no_mangle]
pub unsafe extern "C" fn msi_vector_mask(dev: *mut msi_device, index: u32) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.mask(index))
}

/// Unmasks a vector; what was raised while it was masked is sent, once. [control]
///
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if its eventfds cannot be served (it is unmasked,
///         their events are counted, and it is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_vector_unmask(dev: *mut msi_device, index: u32) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.unmask(index))
}

/// A vector's pending bit: raised, by msi_deliver() or an eventfd, and not sent yet. [control]
///
/// \return 1 or 0; -EINVAL; -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_vector_is_pending(dev: *mut msi_device, index: u32) -> c_int {
    // SAFETY: C's handle.
    control_value(|| Ok(c_int::from(unsafe { arg(dev) }?.device.is_pending(index)?)))
}

/// The cause is gone: nothing is pending any more, and what its eventfds have counted is taken out of them. [control]
///
/// \return 1 if something was pending, 0 if not; -EINVAL; -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_vector_clear_pending(dev: *mut msi_device, index: u32) -> c_int {
    control_value(|| {
        // SAFETY: C's handle.
        let device = &unsafe { arg(dev) }?.device;
        Ok(c_int::from(device.clear_pending(index)?))
    })
}

/// From now on a signal of the eventfd raises the vector; what it has counted already counts as one. A vector may have
/// any number of eventfds (queues share it), an eventfd one vector. A blocking eventfd is fine; its flags are not
/// touched. [control]
///
/// \param fd     an eventfd; duplicated, unless MSIROUTE_EVENTFD_BORROWED.
/// \param flags  MSIROUTE_EVENTFD_...
/// \return 0; -ENOMEM; -EBADF (the descriptor is closed); -EINVAL (not an eventfd, a semaphore, unknown flags, MASKED_AT_SOURCE
///         of a device without `changed`); -EBUSY (bound already, by whatever number); -ENOTSUP (no irqfds here);
///         -EMFILE; -ENODEV; -ESHUTDOWN; -ENOSPC (no route is free, outside a transaction); what the kernel says,
///         outside a transaction. On failure it is not bound.
#[no_mangle]
pub unsafe extern "C" fn msi_vector_bind_eventfd(
    dev: *mut msi_device,
    index: u32,
    fd: c_int,
    flags: u32,
) -> c_int {
    creating(|| {
        // SAFETY: C's handle.
        let device = &unsafe { arg(dev) }?.device;
        let known = MSIROUTE_EVENTFD_KERNEL_ONLY
            | MSIROUTE_EVENTFD_BORROWED
            | MSIROUTE_EVENTFD_RELAY_ONLY
            | MSIROUTE_EVENTFD_MASKED_AT_SOURCE;
        check_flags(flags, known)?;
        let fd = borrow_fd(fd, "the eventfd is not open")?;
        let masking = match flags & MSIROUTE_EVENTFD_MASKED_AT_SOURCE {
            0 => Masking::Unbind,
            _ => Masking::AtSource,
        };
        let only = MSIROUTE_EVENTFD_KERNEL_ONLY | MSIROUTE_EVENTFD_RELAY_ONLY;
        let server = match flags & only {
            0 => Server::Any,
            MSIROUTE_EVENTFD_KERNEL_ONLY => Server::Kernel,
            MSIROUTE_EVENTFD_RELAY_ONLY => Server::Relay,
            _ => return Err(Error::invalid("KERNEL_ONLY and RELAY_ONLY leave nobody")),
        };
        let options = EventfdOptions { masking, server };
        if flags & MSIROUTE_EVENTFD_BORROWED == 0 {
            return device.bind_eventfd(index, fd, options);
        }
        // SAFETY: C says by the flag that it stays open until it is unbound.
        unsafe { device.bind_lent_eventfd(index, fd, options) }
    })
}

/// Lets an eventfd go. Once this returns no message comes by it; what it counts from then on stays in it. [control]
///
/// \param fd  the number it was bound with, open or not; -1: all of the vector.
/// \return 0; -ENOENT (there is none); -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says (it is still bound).
#[no_mangle]
pub unsafe extern "C" fn msi_vector_unbind_eventfd(
    dev: *mut msi_device,
    index: u32,
    fd: c_int,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let device = &unsafe { arg(dev) }?.device;
        device.unbind_eventfd(index, (fd != -1).then_some(fd))
    })
}

/// Says what is true of a vector now. [control]
///
/// \param info  filled in; its size is set (MSIROUTE_VECTOR_INFO_INIT).
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_vector_info(
    dev: *mut msi_device,
    index: u32,
    info: *mut msi_vector_info,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let now = unsafe { arg(dev) }?.device.info(index)?;
        let bits = [
            (now.set, MSIROUTE_VECTOR_SET),
            (now.masked, MSIROUTE_VECTOR_MASKED),
            (now.live, MSIROUTE_VECTOR_LIVE),
            (now.relayed, MSIROUTE_VECTOR_RELAYED),
            (now.blocked, MSIROUTE_VECTOR_BLOCKED),
            (now.in_kernel, MSIROUTE_VECTOR_IN_KERNEL),
            (now.unserved, MSIROUTE_VECTOR_UNSERVED),
        ];
        let filled = msi_vector_info {
            size: 0,
            flags: bits.iter().filter(|(on, _)| *on).map(|(_, bit)| bit).sum(),
            address: now.address,
            data: now.data,
            eventfds: now.eventfds,
            gsi: now.gsi.unwrap_or(MSIROUTE_ANY_GSI),
            error: now.errno.saturating_neg(),
        };
        // SAFETY: C's to give.
        unsafe { write_struct(info, &filled) }
    })
}
