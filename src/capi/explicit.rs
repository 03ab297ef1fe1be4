// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_route_cache_*`: routes by explicit GSI.

use std::ffi::c_int;

use kvm_bindings::kvm_irq_routing_entry;

use super::cache::borrow_fd;
use super::types::*;
use super::{arg, check_flags, control, creating, msi_route_cache, put};

/// Adds a route under a GSI that the VMM gets to know: for a VMM that already thinks in GSIs, and for entries that are no
/// messages (HV_SINT, Xen, pins). Staged until the commit, or until an irqfd is bound to it; then it is in the kernel's
/// table for good. Several IRQCHIP entries may be on a GSI, and an identical one again is nothing. A message that is none
/// (all zero, outside 0xFEExxxxx) keeps the GSI and is not in the table. [control]
///
/// \param entry  in the kernel's form, all of it written; its `gsi` is not looked at.
/// \param flags  MSIROUTE_ROUTE_...
/// \param gsi    the GSI, or MSIROUTE_ANY_GSI for the lowest that is free: then it receives it.
/// \return 0; -EINVAL (a GSI beyond the table, unknown flags); -EBUSY (a GSI in use; the kernel's own pins are until
///         msi_route_cache_set_fixed()); -ENOSPC (no GSI is free); -ENOMEM; -ENOTSUP (there is no table); -ESHUTDOWN; what
///         the commit says that frees removed GSIs when there are no others.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_add_route(
    cache: *mut msi_route_cache,
    entry: *const kvm_irq_routing_entry,
    flags: u32,
    gsi: *mut u32,
) -> c_int {
    creating(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(cache) }?;
        check_flags(flags, MSIROUTE_ROUTE_IRQFD_ONLY)?;
        // SAFETY: C's to give.
        let (entry, wanted) = unsafe { (*arg(entry)?, *arg(gsi)?) };
        let wanted = (wanted != MSIROUTE_ANY_GSI).then_some(wanted);
        let made = handle.explicit.add(entry, wanted, flags & MSIROUTE_ROUTE_IRQFD_ONLY != 0)?;
        // SAFETY: C's to give.
        unsafe { put(gsi, made) }
    })
}

/// Gives a GSI another entry, in place of all it had. Its irqfds stay bound, and send what it says from the commit on.
/// [control]
///
/// \param gsi    one that was added.
/// \param entry  in the kernel's form, all of it written; its `gsi` is not looked at.
/// \return 0; -ENOMEM; -ENOENT (it was not added); -EINVAL; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_update_route(
    cache: *mut msi_route_cache,
    gsi: u32,
    entry: *const kvm_irq_routing_entry,
) -> c_int {
    creating(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(cache) }?;
        // SAFETY: C's to give.
        handle.explicit.update(gsi, *unsafe { arg(entry) }?)
    })
}

/// Lets a GSI go. Its irqfds are unbound when this returns; its route leaves the kernel's table with the commit, and
/// the GSI is free then. [control]
///
/// \param gsi  one that was added.
/// \return 0; -ENOENT (it was not added); -EINVAL; -ESHUTDOWN; what the kernel says to an unbind (the GSI stays).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_remove_route(
    cache: *mut msi_route_cache,
    gsi: u32,
) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(cache) }?.explicit.remove(gsi))
}

/// From now on a signal of the eventfd raises the GSI: one that was added, a fixed route's, or the kernel's own pin.
/// Live when this returns, in a transaction with its commit. If the GSI's message is none, the eventfd counts until it
/// is one. [control]
///
/// \param gsi         which.
/// \param fd          an eventfd; duplicated.
/// \param resamplefd  duplicated; -1, or the GSI is level-triggered: it stays raised until the guest ends the
///                    interrupt, and this is signalled then.
/// \return 0; -ENOMEM; -EBADF (the descriptor is closed); -EINVAL (not an eventfd, a semaphore, a GSI beyond the table);
///         -ENOENT (a GSI that was removed, before the commit); -EBUSY (bound already); -EMFILE; -ENOTSUP (no irqfds here); -ESHUTDOWN; what the kernel says, outside a
///         transaction. On failure it is not bound.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_bind_irqfd(
    cache: *mut msi_route_cache,
    gsi: u32,
    fd: c_int,
    resamplefd: c_int,
) -> c_int {
    creating(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(cache) }?;
        let fd = borrow_fd(fd, "the eventfd is not open")?;
        let resample = match resamplefd {
            -1 => None,
            resamplefd => Some(borrow_fd(resamplefd, "resamplefd is not open")?),
        };
        handle.explicit.bind(gsi, fd, resample)
    })
}

/// Lets an eventfd go. No interrupt comes by it once this returns. [control]
///
/// \param gsi  the one it was bound to.
/// \param fd   the number it was bound with, open or not.
/// \return 0; -ENOENT (it is not bound to this GSI); -EINVAL; -ESHUTDOWN; what the kernel says (it is still bound).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_unbind_irqfd(
    cache: *mut msi_route_cache,
    gsi: u32,
    fd: c_int,
) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(cache) }?.explicit.unbind(gsi, fd))
}
