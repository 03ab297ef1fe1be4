// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_device_*`.

use std::ffi::{c_int, c_void, CStr};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::types::*;
use super::{
    arg, check_flags, control, creating, fail, msi_device, msi_route_cache, put, read_struct,
};
use crate::device::{Capability, Changed, MsiForm, OnChange, Place};
use crate::error::{Error, Result};
use crate::{Device, DeviceConfig, Kind};

/// Makes a device. [control]
///
/// \param config  its size is set (MSIROUTE_DEVICE_CONFIG_INIT); read during the call.
/// \param dev     receives the handle, NULL on failure; ends with msi_device_free().
/// \return 0; -ENOMEM; -EINVAL (bad config: no such kind or number of vectors, a capability that cannot lie there); -E2BIG; -EBUSY
///         (MSIROUTE_KIND_PINS: a GSI is the VMM's own or another's, or first_gsi is not above it); -ENOTSUP
///         (MSIROUTE_KIND_PINS: there is no table).
#[no_mangle]
pub unsafe extern "C" fn msi_device_new(
    cache: *mut msi_route_cache,
    config: *const msi_device_config,
    dev: *mut *mut msi_device,
) -> c_int {
    creating(|| {
        // SAFETY: C's to give.
        unsafe { put(dev, std::ptr::null_mut()) }?;
        // SAFETY: C's handle.
        let cache = &unsafe { arg(cache) }?.cache;
        // SAFETY: C's to give.
        let config = unsafe { read_struct(config) }?;
        // First the place, for the device tells its VMM by this handle.
        let place = Box::<msi_device>::new_uninit();
        let handle = Box::into_raw(place);
        // SAFETY: C says what the config says.
        let device = unsafe { device_config(&config, handle.cast()) }
            .and_then(|config| Device::new(cache, config));
        // SAFETY: from `into_raw`, and nobody has it yet.
        let mut place = unsafe { Box::from_raw(handle) };
        place.write(msi_device { device: device?, owners: AtomicUsize::new(1) });
        // SAFETY: C's to give.
        unsafe { put(dev, Box::into_raw(place).cast()) }
    })
}

/// # Safety
///
/// `name` is a string or NULL; `changed` can be called with `opaque` and `handle` until the device is silenced.
unsafe fn device_config(
    config: &msi_device_config,
    handle: *mut msi_device,
) -> Result<DeviceConfig> {
    let msi_forms = MSIROUTE_DEVICE_MSI_64 | MSIROUTE_DEVICE_MSI_MASK;
    let is_on = |flag: u32| config.flags & flag != 0;
    let (kind, its_flags) = match config.kind {
        MSIROUTE_KIND_PLAIN => (Kind::Plain, 0),
        MSIROUTE_KIND_MSIX => (Kind::Msix, 0),
        MSIROUTE_KIND_MSI => {
            let wide = is_on(MSIROUTE_DEVICE_MSI_64);
            (Kind::Msi(MsiForm { wide, maskable: is_on(MSIROUTE_DEVICE_MSI_MASK) }), msi_forms)
        }
        MSIROUTE_KIND_PINS => (Kind::Pins { first: config.first_pin }, 0),
        _ => return Err(Error::invalid("unknown kind of device")),
    };
    check_flags(config.flags, its_flags | MSIROUTE_DEVICE_DATA0_OFF | MSIROUTE_DEVICE_NO_REMAP)?;
    if config.first_pin != 0 && config.kind != MSIROUTE_KIND_PINS {
        return Err(Error::invalid("first_pin is for pins"));
    }
    let name = match config.name.is_null() {
        true => "device".into(),
        // SAFETY: as promised to us.
        false => unsafe { CStr::from_ptr(config.name) }.to_string_lossy(),
    };
    Ok(DeviceConfig {
        requester: config.requester,
        name: name.into_owned(),
        data0_off: is_on(MSIROUTE_DEVICE_DATA0_OFF),
        remap: !is_on(MSIROUTE_DEVICE_NO_REMAP),
        capability: capability(config)?,
        on_change: config.changed.map(|changed| on_change(changed, config.opaque, handle)),
        ..DeviceConfig::new(kind, config.vectors)
    })
}

fn capability(config: &msi_device_config) -> Result<Option<Capability>> {
    let msix_alone = [config.table_bar, config.table_offset, config.pba_bar, config.pba_offset];
    if config.kind != MSIROUTE_KIND_MSIX && msix_alone != [0; 4] {
        return Err(Error::invalid("table and pending bit array are of MSI-X"));
    }
    if config.cap_offset == 0 {
        if config.cap_next != 0 || msix_alone != [0; 4] {
            return Err(Error::invalid("without cap_offset there is no capability to describe"));
        }
        return Ok(None);
    }
    let byte = |value: u32| u8::try_from(value).map_err(|_| Error::invalid("no such place"));
    Ok(Some(Capability {
        offset: byte(config.cap_offset)?,
        next: byte(config.cap_next)?,
        table: Place { bar: byte(config.table_bar)?, offset: config.table_offset },
        pba: Place { bar: byte(config.pba_bar)?, offset: config.pba_offset },
    }))
}

type ChangedFunction = unsafe extern "C" fn(*mut c_void, *mut msi_device, u32, u32, u32);

fn on_change(changed: ChangedFunction, opaque: *mut c_void, handle: *mut msi_device) -> OnChange {
    /// Only passed on; the header says that `changed` may be called with them from any thread.
    struct Target(ChangedFunction, *mut c_void, *mut msi_device);
    // SAFETY: as the type says.
    unsafe impl Send for Target {}
    // SAFETY: as the type says.
    unsafe impl Sync for Target {}
    let target = Target(changed, opaque, handle);
    Box::new(move |change: &Changed| {
        // All of it, so that its markers hold.
        let Target(changed, opaque, handle) = &target;
        let vectors = change.vectors();
        let what = if change.enable { MSIROUTE_CHANGED_ENABLE } else { 0 }
            | if vectors.is_some() { MSIROUTE_CHANGED_VECTORS } else { 0 };
        let vectors = vectors.unwrap_or_default();
        let n = vectors.end.saturating_sub(vectors.start);
        // SAFETY: as the header says, until the last reference is freed: that waits for this call, and none comes after.
        unsafe { changed(*opaque, *handle, what, vectors.start, n) };
    })
}

/// One more owner of the handle (an I/O thread, a timer): it stays valid until each has called
/// msi_device_free(). [fast]
///
/// \return `dev`; NULL for a bad handle.
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

/// Drops one owner's reference; the last one closes the device, and waits until its `changed` does not run. NULL is nothing.
/// Not from inside a callback. [control]
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
        // What it is told, it is told by this handle.
        if !handle.device.silence() {
            handle.owners.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(libc::EDEADLK, "a device is freed by its own `changed`"));
        }
        let closed = handle.device.close();
        // SAFETY: made by msi_device_new, and this was its last owner.
        drop(unsafe { Box::from_raw(dev) });
        closed
    });
}

/// Function-level reset: registers as of a new device, no messages, nothing pending. Bound eventfds stay with their
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
/// \param requester  the new one: bus/device/function, or MSIROUTE_NO_REQUESTER.
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the requester stands).
#[no_mangle]
pub unsafe extern "C" fn msi_device_set_requester(dev: *mut msi_device, requester: u32) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.set_requester(requester))
}

/// Whether the function may master the bus (Command register, bit 2); a new device may. While it may not, it sends nothing
/// and keeps everything pending. [control]
///
/// \param on  0: it may not; else it may.
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN; what serving the vectors says (the bit stands).
#[no_mangle]
pub unsafe extern "C" fn msi_device_set_bus_master(dev: *mut msi_device, on: c_int) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(dev) }?.device.set_bus_master(on != 0))
}

/// Message Control as the guest wrote it, for a VMM that keeps the register: MSIROUTE_ENABLED, and of MSI-X
/// MSIROUTE_FUNCTION_MASKED. Whatever number of vectors becomes live, the kernel's table is written at most once. [control]
///
/// \param flags  the bits that are set.
/// \return 0; -EINVAL (a bit that the device's kind does not have); -ENODEV; -ESHUTDOWN; what serving the vectors says (the
///         bits stand).
#[no_mangle]
pub unsafe extern "C" fn msi_device_set_control(dev: *mut msi_device, flags: u32) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let device = &unsafe { arg(dev) }?.device;
        check_flags(flags, MSIROUTE_ENABLED | MSIROUTE_FUNCTION_MASKED)?;
        device.set_control(flags & MSIROUTE_ENABLED != 0, flags & MSIROUTE_FUNCTION_MASKED != 0)
    })
}

/// What lets the device send: its enable bit, its function mask, whether it may master the bus. [fast]
///
/// \return MSIROUTE_ENABLED, MSIROUTE_FUNCTION_MASKED, MSIROUTE_BUS_MASTER; 0 for a bad handle.
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
