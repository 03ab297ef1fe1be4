// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_device_*`.

use std::ffi::{c_int, CStr};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::types::*;
use super::{arg, check_flags, control, fail, msi_device, msi_route_cache, put, read_struct};
use crate::error::{Error, Result};
use crate::{Device, Kind};

/// Makes a device. [control]
///
/// \param dev  receives the handle, NULL on failure; ends with msi_device_free().
/// \return 0; -EINVAL (bad config: no such kind, 0 or more than 2048 vectors); -E2BIG.
#[no_mangle]
pub unsafe extern "C" fn msi_device_new(
    cache: *mut msi_route_cache,
    config: *const msi_device_config,
    dev: *mut *mut msi_device,
) -> c_int {
    control(|| {
        // SAFETY: C's to give.
        unsafe { put(dev, std::ptr::null_mut()) }?;
        // SAFETY: C's handle.
        let cache = &unsafe { arg(cache) }?.cache;
        // SAFETY: C's to give.
        let config = unsafe { read_struct(config) }?;
        check_flags(config.flags, 0)?;
        check_flags(config.pad, 0)?;
        let kind = match config.kind {
            MSIROUTE_KIND_PLAIN => Kind::Plain,
            MSIROUTE_KIND_MSIX => Kind::Msix,
            _ => return Err(Error::invalid("unknown kind of device")),
        };
        let name = match config.name.is_null() {
            true => "device".into(),
            // SAFETY: C says that it is a string.
            false => unsafe { CStr::from_ptr(config.name) }.to_string_lossy(),
        };
        let device = Device::new(cache, kind, config.vectors, config.requester, &name)?;
        let handle = Box::new(msi_device { device, owners: AtomicUsize::new(1) });
        // SAFETY: C's to give.
        unsafe { put(dev, Box::into_raw(handle)) }
    })
}

/// One more owner of the handle (an I/O thread, a timer): it stays valid until each has called msi_device_free().
///
/// \return dev; NULL for a bad handle.
#[no_mangle]
pub unsafe extern "C" fn msi_device_ref(dev: *mut msi_device) -> *mut msi_device {
    // SAFETY: C's handle.
    match unsafe { arg(dev) } {
        Ok(handle) => {
            handle.owners.fetch_add(1, Ordering::Relaxed);
            dev
        }
        Err(e) => {
            fail(&e);
            std::ptr::null_mut()
        }
    }
}

/// Unplugs the device: all its eventfds are unbound and let go, and when this returns no message of its is sent any more.
/// From now on every call on it says -ENODEV. Again is nothing. [control]
///
/// \return 0; -EINVAL; what the kernel says to an unbind (the rest is done all the same).
#[no_mangle]
pub unsafe extern "C" fn msi_device_close(dev: *mut msi_device) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.close())
}

/// Drops one owner's reference; the last one closes the device. NULL is nothing. Not from inside a callback. [control]
#[no_mangle]
pub unsafe extern "C" fn msi_device_free(dev: *mut msi_device) {
    if dev.is_null() {
        return;
    }
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // Release and Acquire: what other owners did comes before the end.
        if handle.owners.fetch_sub(1, Ordering::AcqRel) > 1 {
            return Ok(());
        }
        let closed = handle.device.close();
        // SAFETY: made by msi_device_new, and this was its last owner.
        drop(unsafe { Box::from_raw(dev) });
        closed
    });
}

/// Function-level reset: disabled and masked as a new device, no messages, nothing pending. Bound eventfds stay with their
/// vectors; what they have counted is thrown away. The bus-master bit stays: it is the VMM's to change. [control]
///
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what the kernel says to an unbind (the rest is done all the same).
#[no_mangle]
pub unsafe extern "C" fn msi_device_reset(dev: *mut msi_device) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.reset())
}

/// The function has another requester ID: a guest renumbered its bus. [control]
///
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the requester stands).
#[no_mangle]
pub unsafe extern "C" fn msi_device_set_requester(dev: *mut msi_device, requester: u32) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.set_requester(requester))
}

/// Whether the function may master the bus (Command register, bit 2); a new device may. While it may not, it sends nothing
/// and keeps everything pending. [control]
///
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the bit stands).
#[no_mangle]
pub unsafe extern "C" fn msi_device_set_bus_master(dev: *mut msi_device, on: c_int) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.set_bus_master(on != 0))
}

/// Message Control as the guest wrote it, for a VMM that keeps the register: MSIROUTE_ENABLED and MSIROUTE_FUNCTION_MASKED.
/// Whatever number of vectors becomes live, the kernel's table is written at most once. [control]
///
/// \return 0; -EINVAL (unknown flags, or MSIROUTE_KIND_PLAIN); -ENODEV; -ESHUTDOWN; what serving the vectors says (the bits stand).
#[no_mangle]
pub unsafe extern "C" fn msi_device_set_control(dev: *mut msi_device, flags: u32) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let device = &unsafe { arg(dev) }?.device;
        check_flags(flags, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED)?;
        device.set_control(flags & MSIROUTE_ENABLED != 0, flags & MSIROUTE_FUNCTION_MASKED != 0)
    })
}

/// MSIROUTE_ENABLED, MSIROUTE_FUNCTION_MASKED, MSIROUTE_BUS_MASTER; 0 for a bad handle. [fast]
#[no_mangle]
pub unsafe extern "C" fn msi_device_state(dev: *const msi_device) -> u32 {
    // SAFETY: C's handle.
    let state: Result<_> = unsafe { arg(dev) }.map(|handle| handle.device.state());
    match state {
        Ok(state) => {
            let bit = |on: bool, bit: u32| if on { bit } else { 0 };
            bit(state.enabled, MSIROUTE_ENABLED)
                | bit(state.function_masked, MSIROUTE_FUNCTION_MASKED)
                | bit(state.bus_master, MSIROUTE_BUS_MASTER)
        }
        Err(e) => {
            fail(&e);
            0
        }
    }
}
