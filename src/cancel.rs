// SPDX-License-Identifier: MIT OR Apache-2.0
//! Threads that are cancelled by pthread_cancel(3). One that ended in the middle of a call would leave locks held and vectors
//! closed, so no function of the library is a cancellation point: the request waits until the call has returned.
//!
//! It takes 40 ns to say so. Calls of the VMM's say it once (`capi`); delivering and a guest's accesses to registers, which are
//! cheaper than that, only around what is a cancellation point: system calls through libc, sleeps, the VMM's own functions.

use std::ffi::c_int;

extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// The same in glibc and musl.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

/// Nobody cancels the thread meanwhile.
pub(crate) fn put_off<T>(body: impl FnOnce() -> T) -> T {
    let mut before = 0;
    // SAFETY: changes the calling thread alone; `before` is ours.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    let result = body();
    // SAFETY: as above. Deferred, as it must be, a request that has come is not acted upon here.
    unsafe { pthread_setcancelstate(before, std::ptr::null_mut()) };
    result
}

/// A sleep that nobody cancels.
pub(crate) fn sleep(time: std::time::Duration) {
    put_off(|| std::thread::sleep(time));
}
