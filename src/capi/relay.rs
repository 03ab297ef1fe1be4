// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_route_cache_relay_*`.

use std::ffi::c_int;

use super::{arg, control, control_value, creating_value, msi_route_cache};

/// Turns the relay on, if it is not: eventfds of open vectors are then served from user space, by whoever runs it,
/// until those that are busy and calm have been given to the kernel. Setting and unmasking write no table any more, and
/// eventfds may outnumber routes. (Vectors with a MSIROUTE_EVENTFD_KERNEL_ONLY eventfd, pins and explicit routes are as
/// without it.) Vectors that were unserved are its at once. The library makes no thread: run it in the VMM's main loop,
/// by msi_route_cache_relay_run() whenever this descriptor is readable, or lend it threads,
/// msi_route_cache_relay_loop(). [control]
///
/// \return the descriptor, to be polled for POLLIN (it stays the library's, the same until msi_route_cache_free()); -EINVAL;
///         -EMFILE; -ENOMEM; -ENOSPC (more eventfds than fs.epoll.max_user_watches allows). After an error it is off.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_relay_fd(cache: *mut msi_route_cache) -> c_int {
    // SAFETY: C's handle.
    creating_value(|| unsafe { arg(cache) }?.cache.relay_fd())
}

/// Serves what is signalled now, in one bounded batch, and promotes what is due; waits for no event. Any thread; several
/// may. [control]
///
/// \return 1 if more may be ready, else 0; -EINVAL (also if the relay is off).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_relay_run(cache: *mut msi_route_cache) -> c_int {
    // SAFETY: C's handle.
    control_value(|| Ok(c_int::from(unsafe { arg(cache) }?.cache.relay_run()?)))
}

/// Serves until msi_route_cache_relay_stop() or msi_route_cache_free(). Any thread; its name, signals, priority and seccomp
/// filter are the VMM's. [control]
///
/// \return 0; -EINVAL (also if the relay is off).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_relay_loop(cache: *mut msi_route_cache) -> c_int {
    control(|| {
        // Of its own: the handle may be freed meanwhile, which ends the loop.
        // SAFETY: C's handle.
        let cache = unsafe { arg(cache) }?.cache.clone();
        cache.relay_loop()
    })
}

/// Turns the relay off: ends run and loop, on whatever thread, and then gives what it served to the kernel, with one
/// write of the table. Not from inside a callback. [control]
///
/// \return 0; -EINVAL (also if it is off); -ENOSPC (not routes enough: the vectors left over are UNSERVED now,
///         their events counted); what the kernel says. After an error it is off all the same.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_relay_stop(cache: *mut msi_route_cache) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(cache) }?.cache.relay_stop())
}
