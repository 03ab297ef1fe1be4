// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C surface: checks what C hands in, calls the engine, turns results into numbers.
//!
//! `include/msiroute.h` is generated from here (`cargo run -p xtask -- header`). Nothing is decided in
//! these files; each function checks its arguments and makes one call.

#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(clippy::missing_safety_doc, reason = "what C must keep to is in the header")]

pub mod cache;
pub mod deliver;
pub mod device;
mod dump;
pub mod explicit;
mod fork;
pub mod guest;
mod layout;
pub mod log;
pub mod relay;
pub mod remap;
pub mod state;
pub mod types;
pub mod vector;

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_int, c_void, CString};
use std::sync::atomic::AtomicUsize;
use std::sync::Arc;

use crate::cancel;
use crate::error::{Error, Result};
use crate::explicit::ExplicitRoutes;
use crate::memory::reserve;
use crate::transaction;
use crate::{Device, RouteCache};

/// A VM's routes; one a VM, several in a process.
pub struct msi_route_cache {
    cache: Arc<RouteCache>,
    explicit: Arc<ExplicitRoutes>,
}

/// The vectors of one PCI function, HPET, IOAPIC or the like: 1 to 2048.
pub struct msi_device {
    device: Arc<Device>,
    /// Owners in C. The device is closed with the last, whoever else still holds it in here.
    owners: AtomicUsize,
}

// ---- results -------------------------------------------------------------------------------------

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
    /// That was the last one; there was no memory for words.
    static NO_MEMORY: Cell<bool> = const { Cell::new(false) };
}

fn last_error() -> *const c_char {
    if NO_MEMORY.get() {
        return c"no memory".as_ptr();
    }
    // A thread that is exiting has no text any more.
    let text = LAST_ERROR.try_with(|text| text.try_borrow().map(|text| text.as_ptr()));
    text.ok().and_then(|text| text.ok()).unwrap_or(c"".as_ptr())
}

/// The error in words for later, its number for now.
#[cold]
fn fail(error: &Error) -> c_int {
    keeping_errno(|| {
        let text = CString::new(error.to_string()).unwrap_or_default();
        let _ = LAST_ERROR.try_with(|last| last.try_borrow_mut().map(|mut last| *last = text));
        NO_MEMORY.set(false);
        error.errno().saturating_neg()
    })
}

/// C's `errno` is not the library's to change.
fn keeping_errno<T>(body: impl FnOnce() -> T) -> T {
    // SAFETY: the calling thread's own errno, valid while the thread lives.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let result = body();
    // SAFETY: as above.
    unsafe { *errno = before };
    result
}

/// Runs a call's body, its result in C's terms.
fn call(body: impl FnOnce() -> Result<c_int>) -> c_int {
    keeping_errno(|| body().unwrap_or_else(|error| fail(&error)))
}

/// For control functions: not from inside a callback that runs with locks held.
fn control(body: impl FnOnce() -> Result<()>) -> c_int {
    control_value(|| body().map(|()| 0))
}

/// The same, for those that have something to tell.
fn control_value(body: impl FnOnce() -> Result<c_int>) -> c_int {
    cancel::put_off(|| access_value(body))
}

/// Before a thread first uses what is tidied up when it ends, glibc allocates, and aborts if it cannot: not then if there is no memory.
fn prepare_thread() {
    thread_local!(static IS_PREPARED: Cell<bool> = const { Cell::new(false) });
    if !IS_PREPARED.get() && reserve::is_there() {
        let _ = LAST_ERROR.try_with(|_| ());
        transaction::prepare_thread();
        IS_PREPARED.set(true);
    }
}

/// A control call that makes something: -ENOMEM if there is no memory for it.
fn creating(body: impl FnOnce() -> Result<()>) -> c_int {
    creating_value(|| body().map(|()| 0))
}

/// The same, for those that have something to tell.
fn creating_value(body: impl FnOnce() -> Result<c_int>) -> c_int {
    keeping_errno(|| {
        prepare_thread();
        reserve::with_reserve(|| control_value(body)).unwrap_or_else(|| {
            NO_MEMORY.set(true);
            -libc::ENOMEM
        })
    })
}

/// For a guest's accesses: as control functions, but see [`cancel`].
fn access(body: impl FnOnce() -> Result<()>) -> c_int {
    access_value(|| body().map(|()| 0))
}

fn access_value(body: impl FnOnce() -> Result<c_int>) -> c_int {
    call(|| {
        fork::refuse_child()?;
        crate::cache::refuse_reentry()?;
        body()
    })
}

/// For those that say how long something is: 0 after an error.
fn size(body: impl FnOnce() -> Result<usize>) -> usize {
    body().unwrap_or_else(|error| {
        fail(&error);
        0
    })
}

// ---- arguments -----------------------------------------------------------------------------------

/// What C's pointer points to.
///
/// # Safety
///
/// If it is neither NULL nor misaligned it points to a `T` that nobody changes or frees during `'a`.
#[inline]
unsafe fn arg<'a, T>(pointer: *const T) -> Result<&'a T> {
    // SAFETY: as promised to us.
    let arg = unsafe { arg_if_any(pointer) };
    arg.ok_or_else(|| Error::invalid("a pointer is NULL or misaligned"))
}

/// The same without words for it.
#[inline]
unsafe fn arg_if_any<'a, T>(pointer: *const T) -> Option<&'a T> {
    if pointer.is_null() || !pointer.is_aligned() {
        return None;
    }
    // SAFETY: checked as far as it can be, promised for the rest.
    Some(unsafe { &*pointer })
}

/// Where a result goes.
///
/// # Safety
///
/// If it is neither NULL nor misaligned it can be written to.
unsafe fn put<T>(pointer: *mut T, value: T) -> Result<()> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Error::invalid("a pointer is NULL or misaligned"));
    }
    // SAFETY: checked as far as it can be, promised for the rest. What was there is not dropped: it may be anything.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Bytes that C hands in.
///
/// # Safety
///
/// If it is not NULL, `len` bytes are there, and nobody changes them during `'a`.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Result<&'a [u8]> {
    check_buffer(data, len)?;
    if len == 0 {
        return Ok(&[]);
    }
    // SAFETY: as promised to us.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) })
}

/// Bytes that C wants to have filled.
///
/// # Safety
///
/// If it is not NULL, `len` bytes can be written, and nobody else uses them during `'a`.
unsafe fn bytes_mut<'a>(data: *mut c_void, len: usize) -> Result<&'a mut [u8]> {
    check_buffer(data, len)?;
    if len == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as promised to us.
    Ok(unsafe { std::slice::from_raw_parts_mut(data.cast(), len) })
}

fn check_buffer(data: *const c_void, len: usize) -> Result<()> {
    if (data.is_null() && len > 0) || isize::try_from(len).is_err() {
        return Err(Error::invalid("a buffer is NULL, or its length is none"));
    }
    Ok(())
}

/// A struct that C and the library may know in different lengths; it begins with `uint32_t size, flags`.
///
/// # Safety
///
/// Every bit pattern is a value, all zeros among them; no padding that matters.
unsafe trait Sized32: Copy {}

/// The shortest such struct: its size and flags.
const SHORTEST: usize = 8;
/// No struct will ever be longer; a larger size is an uninitialized one.
const LONGEST: usize = 4096;

/// # Safety
///
/// If it is neither NULL nor misaligned, `pointer` points to as many bytes as its first four say.
unsafe fn size_of_struct<T>(pointer: *const T) -> Result<usize> {
    // SAFETY: a struct begins with its size.
    let size = *unsafe { arg(pointer.cast::<u32>()) }? as usize;
    if !pointer.is_aligned() || !(SHORTEST..=LONGEST).contains(&size) {
        return Err(Error::invalid("a struct is misaligned, or its size is not set"));
    }
    Ok(size)
}

/// Reads a struct by openat2's rules: a shorter one is filled up with zeros; a longer one must have
/// zeros where nothing is known.
///
/// # Safety
///
/// As [`size_of_struct`].
unsafe fn read_struct<T: Sized32>(pointer: *const T) -> Result<T> {
    // SAFETY: as promised to us.
    let size = unsafe { size_of_struct(pointer) }?;
    // SAFETY: that many bytes, as promised.
    let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), size) };
    let (known, unknown) = bytes.split_at(size.min(size_of::<T>()));
    if unknown.iter().any(|&byte| byte != 0) {
        return Err(Error::new(libc::E2BIG, "a struct says more than this version understands"));
    }
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: `known` is no longer than a T; any bytes make a T.
    unsafe {
        known.as_ptr().copy_to_nonoverlapping(value.as_mut_ptr().cast(), known.len());
        Ok(value.assume_init())
    }
}

/// Fills a struct of the caller's: as much as it has room for, and zeros beyond what is known. Its size
/// stays.
///
/// # Safety
///
/// As [`size_of_struct`], and writable.
unsafe fn write_struct<T: Sized32>(pointer: *mut T, value: &T) -> Result<()> {
    // SAFETY: as promised to us.
    let size = unsafe { size_of_struct(pointer) }?;
    let known = size.min(size_of::<T>());
    let header = size_of::<u32>();
    let (from, to) = (std::ptr::from_ref(value).cast::<u8>(), pointer.cast::<u8>());
    // SAFETY: `size` bytes are writable, of which `known` come from a T.
    unsafe {
        from.add(header).copy_to_nonoverlapping(to.add(header), known - header);
        to.add(known).write_bytes(0, size - known);
    }
    Ok(())
}

fn check_flags(flags: u32, known: u32) -> Result<()> {
    if flags & !known != 0 {
        return Err(Error::invalid("unknown flags"));
    }
    Ok(())
}
