// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory in amounts that a caller chooses: its lack is an error. The few small pieces of a call are in [`reserve`].

#[cfg(feature = "capi")]
pub(crate) mod reserve;

use std::collections::TryReserveError;

use crate::error::{Error, Result};

/// As many items as the iterator has.
pub(crate) fn collect<T>(items: impl ExactSizeIterator<Item = T>) -> Result<Box<[T]>> {
    let mut list = list_of(items.len())?;
    list.extend(items);
    Ok(list.into_boxed_slice())
}

/// A list with room for so many.
pub(crate) fn list_of<T>(n: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    want(|| list.try_reserve_exact(n))?;
    Ok(list)
}

/// One of many boxes.
pub(crate) fn boxed<T>(value: T) -> Result<Box<T>> {
    let one = collect(std::iter::once(value))?;
    // SAFETY: a slice of one has the layout of the one.
    Ok(unsafe { Box::from_raw(Box::into_raw(one).cast()) })
}

/// Enough for what need not be done now.
pub(crate) fn is_plenty() -> Result<()> {
    want(|| Vec::<u8>::new().try_reserve_exact(1 << 18))
}

/// What a collection's `try_reserve` says.
pub(crate) fn want(
    try_reserve: impl FnOnce() -> std::result::Result<(), TryReserveError>,
) -> Result<()> {
    #[cfg(feature = "capi")]
    let reserved = reserve::without(try_reserve);
    #[cfg(not(feature = "capi"))]
    let reserved = try_reserve();
    reserved.map_err(|_| Error::new(libc::ENOMEM, "no memory"))
}
