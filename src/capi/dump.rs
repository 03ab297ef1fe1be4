// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_route_cache_dump`.

use std::ffi::{c_char, c_int, c_void};

use super::{arg, control, msi_route_cache};
use crate::error::{Error, Result};

/// Tells all that there is to tell of a cache, its devices and its routes, as JSON in UTF-8: docs/dump.schema.json says what
/// is in it. For people and their tools; may be called at any time. Two dumps' counters and times give rates.
///
/// Waits for each device's lock, one at a time, and holds it as long as copying the state of its vectors takes (one poll(2) for
/// each eventfd that the kernel does not serve); for the table's and the relay's likewise. So each device is as it was at one
/// moment, but not all of them at the same. [control]
///
/// \param write   called with the next piece, 1 to 4096 bytes, not zero-terminated; on this thread, with no lock held: it may
///                call the library. A negative errno ends the dump.
/// \param opaque  for `write`.
/// \return 0; -EINVAL; -ENOMEM (`write` was not called); what `write` returned.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_dump(
    cache: *const msi_route_cache,
    write: Option<
        unsafe extern "C" fn(opaque: *mut c_void, text: *const c_char, len: usize) -> c_int,
    >,
    opaque: *mut c_void,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(cache) }?;
        let write = write.ok_or_else(|| Error::invalid("there is no function to write with"))?;
        handle.cache.dump(&mut |piece| {
            // SAFETY: C says that it can be called so, and it does not keep what it is given.
            written(unsafe { write(opaque, piece.as_ptr().cast(), piece.len()) })
        })
    })
}

fn written(result: c_int) -> Result<()> {
    match result.checked_neg() {
        Some(errno @ 1..) => Err(Error::new(errno, "the function that the dump is written with")),
        _ => Ok(()),
    }
}
