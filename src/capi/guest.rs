// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_device_*`: the guest's accesses, forwarded. All of them also say -EINVAL for a bad handle, or a NULL buffer of some
//! length, -ENODEV for a closed device, -ESHUTDOWN after the cache is gone.

use std::ffi::{c_int, c_void};

use super::{access, access_value, arg, bytes, bytes_mut, msi_device};
use crate::error::Result;

/// A guest's read of the MSI-X table, of any offset and length: all ones where PCI defines nothing (it defines aligned
/// accesses of 4 and 8 bytes). [control]
///
/// \param offset  from the table's start, in bytes.
/// \param data    filled, little-endian as in a KVM MMIO exit; with ones after an error, too.
/// \param len     in bytes.
/// \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_device_table_read(
    dev: *mut msi_device,
    offset: u64,
    data: *mut c_void,
    len: usize,
) -> c_int {
    // SAFETY: C's to give. Before anything can be refused.
    let data = unsafe { ones_mut(data, len) };
    // SAFETY: C's handle.
    access(|| unsafe { arg(dev) }?.device.table_read(offset, data?))
}

/// A guest's write to the MSI-X table, of any offset and length: ignored where PCI defines nothing. A message that a
/// guest changes while its vector may send counts when address and data have both been written (with
/// MSIROUTE_X2APIC_IDS the address's high half too): never a part of each. One that is no interrupt message stands in
/// the table, and the vector keeps what is raised. Makes no system call while the vector is masked. [control]
///
/// \param offset  from the table's start, in bytes.
/// \param data    little-endian as in a KVM MMIO exit.
/// \param len     in bytes.
/// \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if the vector cannot be
///         served (what was written stands, its eventfds' events are counted, and it is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_device_table_write(
    dev: *mut msi_device,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    access(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        handle.device.table_write(offset, unsafe { bytes(data, len) }?)
    })
}

/// A guest's read of the MSI-X pending bit array: one bit a vector, in 64-bit words; else as msi_device_table_read(). Makes
/// system calls for vectors alone that have an eventfd and are masked. [control]
///
/// \param offset  from the array's start, in bytes.
/// \param data    filled, as by msi_device_table_read().
/// \param len     in bytes.
/// \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_device_pba_read(
    dev: *mut msi_device,
    offset: u64,
    data: *mut c_void,
    len: usize,
) -> c_int {
    // SAFETY: C's to give. Before anything can be refused.
    let data = unsafe { ones_mut(data, len) };
    // SAFETY: C's handle.
    access(|| unsafe { arg(dev) }?.device.pba_read(offset, data?))
}

/// A guest's write to the MSI-X pending bit array, which changes nothing: it is read-only. [control]
///
/// \param offset  from the array's start, in bytes.
/// \param data    not looked at.
/// \param len     in bytes.
/// \return 0; -EINVAL (not MSIROUTE_KIND_MSIX); -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_device_pba_write(
    dev: *mut msi_device,
    offset: u64,
    data: *const c_void,
    len: usize,
) -> c_int {
    access(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        unsafe { bytes(data, len) }?;
        // It is read-only everywhere.
        let _ = offset;
        handle.device.pba_write()
    })
}

/// A guest's read of config space: fills in the bytes that lie in the capability and leaves the others alone. Read with
/// cap_offset and msi_device_capability_size() it gives the whole capability. [control]
///
/// \param offset  from the start of config space, in bytes.
/// \param data    filled where the capability lies, little-endian.
/// \param len     in bytes.
/// \return 1 if some bytes lay in the capability, else 0; -EINVAL; -ENODEV; -ESHUTDOWN.
#[no_mangle]
pub unsafe extern "C" fn msi_device_config_read(
    dev: *mut msi_device,
    offset: u32,
    data: *mut c_void,
    len: usize,
) -> c_int {
    access_value(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        Ok(handle.device.config_read(offset, unsafe { bytes_mut(data, len) }?)?.into())
    })
}

/// A guest's write to config space: takes the bytes that lie in the capability, in any width, and of them what is writable.
/// However many vectors it opens, the kernel's table is written at most once. [control]
///
/// \param offset  from the start of config space, in bytes.
/// \param data    little-endian.
/// \param len     in bytes.
/// \return 1 if some bytes lay in the capability, else 0; -EINVAL; -ENODEV; -ESHUTDOWN; -ENOSPC or what the kernel says if
///         vectors cannot be served (what was written stands, and it is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_device_config_write(
    dev: *mut msi_device,
    offset: u32,
    data: *const c_void,
    len: usize,
) -> c_int {
    access_value(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(dev) }?;
        // SAFETY: C's to give.
        Ok(handle.device.config_write(offset, unsafe { bytes(data, len) }?)?.into())
    })
}

/// The length of the MSI or MSI-X capability. [fast]
///
/// \return the length in bytes; 0 where there is none, and for a bad handle.
#[no_mangle]
pub unsafe extern "C" fn msi_device_capability_size(dev: *const msi_device) -> usize {
    // SAFETY: C's handle.
    super::size(|| Ok(unsafe { arg(dev) }?.device.capability_size()))
}

/// Bytes of C's, all ones.
///
/// # Safety
///
/// As [`bytes_mut`].
unsafe fn ones_mut<'a>(data: *mut c_void, len: usize) -> Result<&'a mut [u8]> {
    // SAFETY: as promised to us.
    let data = unsafe { bytes_mut(data, len) }?;
    data.fill(0xFF);
    Ok(data)
}
