// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_deliver*`: the fast path.

use std::ffi::c_int;

use super::types::*;
use super::{arg, arg_if_any, call, msi_device, msi_route_cache};
use crate::backend::kvm::Signalled;
use crate::Delivery;

/// Raises a vector. [fast]
///
/// \return MSIROUTE_SENT, MSIROUTE_PENDING, MSIROUTE_REFUSED, MSIROUTE_DISABLED or MSIROUTE_BLOCKED; -EINVAL (also if
///         the VM has no interrupt controller yet); -ENODEV; -ESHUTDOWN; -EDEADLK (from inside a callback, and the
///         message has no route yet); what the kernel says. After an error nothing was sent or kept.
#[no_mangle]
pub unsafe extern "C" fn msi_deliver(dev: *mut msi_device, index: u32) -> c_int {
    // SAFETY: C's handle.
    let handle = unsafe { arg_if_any(dev) };
    let tried = handle.and_then(|handle| handle.device.deliver_fast(index));
    if tried.is_some_and(Signalled::is_accepted) {
        return MSIROUTE_SENT;
    }
    // SAFETY: C's handle.
    unsafe { otherwise_deliver(dev, index, tried) }
}

/// All but the common case, out of its way. What was tried did not touch `errno`.
#[cold]
#[inline(never)]
unsafe fn otherwise_deliver(dev: *mut msi_device, index: u32, tried: Option<Signalled>) -> c_int {
    call(|| {
        let delivery = match tried {
            Some(signalled) => signalled.reception()?.into(),
            // SAFETY: C's handle.
            None => unsafe { arg(dev) }?.device.deliver_slowly(index)?,
        };
        Ok(number_of(delivery))
    })
}

fn number_of(delivery: Delivery) -> c_int {
    match delivery {
        Delivery::Sent => MSIROUTE_SENT,
        Delivery::Pending => MSIROUTE_PENDING,
        Delivery::Refused => MSIROUTE_REFUSED,
        Delivery::Disabled => MSIROUTE_DISABLED,
        Delivery::Blocked => MSIROUTE_BLOCKED,
    }
}

/// Sends a message that belongs to no vector. [fast], but with a vIOMMU it calls `translate`, and takes a lock for that.
///
/// \param requester           who sends it, or MSIROUTE_NO_REQUESTER.
/// \param address             as the guest wrote it, or translated: see the last.
/// \param data                the same.
/// \param already_translated  0: it is as the guest wrote it, and goes through the vIOMMU if there is one (see
///         msi_route_cache_set_remap()); 1: it does not. (The vIOMMU's own, or what it has translated.)
/// \return MSIROUTE_SENT, MSIROUTE_REFUSED or MSIROUTE_BLOCKED (the vIOMMU refuses it; it is gone); -EINVAL (not a
///         message, or the VM has no interrupt controller yet); -EAGAIN (the cache is paused: there is nowhere to keep
///         it); -EDEADLK (from inside a callback, and the message has no route yet); what the kernel says.
#[no_mangle]
pub unsafe extern "C" fn msi_deliver_message(
    cache: *mut msi_route_cache,
    requester: u32,
    address: u64,
    data: u32,
    already_translated: c_int,
) -> c_int {
    call(|| {
        // SAFETY: C's handle.
        let cache = &unsafe { arg(cache) }?.cache;
        let reception = match already_translated {
            0 => cache.deliver_untranslated(address, data, requester)?,
            _ => Some(cache.deliver_message(address, data, requester)?),
        };
        Ok(reception.map_or(MSIROUTE_BLOCKED, |it| number_of(it.into())))
    })
}
