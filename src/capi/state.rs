// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_device_*`: save and load.

use std::ffi::{c_int, c_void};

use super::{arg, bytes, bytes_mut, control, msi_device};
use crate::device::{Raw, RawMut};

/// How many bytes msi_device_save() writes: the same for every device of this kind and as many vectors. [fast]
///
/// \return the length in bytes; 0 for a bad handle.
#[no_mangle]
pub unsafe extern "C" fn msi_device_save_size(dev: *const msi_device) -> usize {
    // SAFETY: C's handle.
    super::size(|| Ok(unsafe { arg(dev) }?.device.save_size()))
}

/// Saves the device: messages, masks, enable bits, bus master, and what is pending, in a format that stays
/// (docs/snapshot.md). What its eventfds have counted is saved as pending, and stays counted. Pause the cache first,
/// and stop the vCPUs: else it is the state of a moment. [control]
///
/// \param data  filled.
/// \param len   msi_device_save_size(), in bytes.
/// \return 0; -EINVAL; -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_device_save(
    dev: *mut msi_device,
    data: *mut c_void,
    len: usize,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        handle.device.save(unsafe { bytes_mut(data, len) }?)
    })
}

/// Makes the device what was saved, of a device of the same kind and as many vectors, whatever its GSIs were. Eventfds stay
/// bound, and what they have counted stays counted. The requester is not part of it. In a cache that is not paused, what is
/// pending may be sent before this returns. [control]
///
/// \param data  what msi_device_save() wrote; copied, and not trusted.
/// \param len   in bytes.
/// \return 0; -EINVAL (not a saved state of such a device: nothing is changed); -ENOTSUP (one of another version:
///         nothing is changed); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if vectors cannot be served (the
///         state stands, and it is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_device_load(
    dev: *mut msi_device,
    data: *const c_void,
    len: usize,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        handle.device.load(unsafe { bytes(data, len) }?)
    })
}

/// The registers as the guest reads them, for a VMM with a format of its own. [control]
///
/// \param cap        the capability, filled; NULL and a length of 0: left out, as of the others.
/// \param cap_len    msi_device_capability_size(), in bytes.
/// \param table      the MSI-X table, filled.
/// \param table_len  in bytes: 16 a vector.
/// \param pba        the MSI-X pending bit array, filled.
/// \param pba_len    in bytes: whole bytes, or whole 64-bit words.
/// \return 0; -EINVAL (a length that does not fit); -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_device_export(
    dev: *mut msi_device,
    cap: *mut c_void,
    cap_len: usize,
    table: *mut c_void,
    table_len: usize,
    pba: *mut c_void,
    pba_len: usize,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        let capability = unsafe { bytes_mut(cap, cap_len) }?;
        // SAFETY: C's to give.
        let table = unsafe { bytes_mut(table, table_len) }?;
        // SAFETY: C's to give.
        let pba = unsafe { bytes_mut(pba, pba_len) }?;
        handle.device.export(RawMut { capability, table, pba })
    })
}

/// Registers that were exported, or saved by another implementation, applied at once; what is left out stays. Pending bits
/// of an MSI capability come with it. [control]
///
/// \param cap        as of msi_device_export(), and so the others; not trusted.
/// \param cap_len    in bytes.
/// \param table      the MSI-X table.
/// \param table_len  in bytes.
/// \param pba        the MSI-X pending bit array.
/// \param pba_len    in bytes.
/// \return 0; -EINVAL (a length that does not fit, another capability, a vector pending that does not exist: nothing is
///         changed); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if vectors cannot be served (the registers stand).
#[no_mangle]
pub unsafe extern "C" fn msi_device_import(
    dev: *mut msi_device,
    cap: *const c_void,
    cap_len: usize,
    table: *const c_void,
    table_len: usize,
    pba: *const c_void,
    pba_len: usize,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        let capability = unsafe { bytes(cap, cap_len) }?;
        // SAFETY: C's to give.
        let table = unsafe { bytes(table, table_len) }?;
        // SAFETY: C's to give.
        let pba = unsafe { bytes(pba, pba_len) }?;
        handle.device.import(Raw { capability, table, pba })
    })
}
