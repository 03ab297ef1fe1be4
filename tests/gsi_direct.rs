// SPDX-License-Identifier: MIT OR Apache-2.0
//! An interrupt controller for which a message is a GSI, by functions of the VMM's.
#![cfg(feature = "capi")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use msiroute::backend::callbacks::{Callbacks, Functions};
use msiroute::backend::Host;
use msiroute::{Config, Device, DeviceConfig, Kind, Masking, Result, RouteCache};
use vmm_sys_util::eventfd::EventFd;

const FRAME: u64 = 0x0802_0040;
/// To which GSI the eventfd is bound.
static BOUND: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn signal(_: *mut c_void, _: u32, _: u64, _: u32) -> c_int {
    1
}

unsafe extern "C" fn bind(_: *mut c_void, _: c_int, _: c_int, gsi: u32) -> c_int {
    BOUND.store(gsi, Ordering::SeqCst);
    0
}

unsafe extern "C" fn unbind(_: *mut c_void, _: c_int, _: u32) -> c_int {
    0
}

unsafe extern "C" fn gsi_of(_: *mut c_void, address: u64, data: u32) -> c_int {
    if address == FRAME {
        c_int::try_from(data).unwrap()
    } else {
        -libc::EINVAL
    }
}

const FUNCTIONS: Functions = Functions {
    signal: Some(signal),
    set_routes: None,
    bind_irqfd: Some(bind),
    unbind_irqfd: Some(unbind),
    raise_gsi: None,
    gsi_of: Some(gsi_of),
};

fn cache_of(functions: Functions) -> Result<std::sync::Arc<RouteCache>> {
    // SAFETY: they use nothing of what they are passed.
    let callbacks = unsafe { Callbacks::new(functions, std::ptr::null_mut(), 4096) };
    RouteCache::new(Host::Other(Box::new(callbacks)), &Config::default())
}

#[test]
fn gsis_need_not_be_raised_where_messages_are_signalled() {
    let cache = cache_of(FUNCTIONS).unwrap();
    let device = Device::new(&cache, DeviceConfig::new(Kind::Plain, 1)).unwrap();
    assert_eq!(device.set(0, 0xFEE0_0000, 40).unwrap_err().errno(), libc::EINVAL);
    device.set(0, FRAME, 40).unwrap();
    let eventfd = EventFd::new(0).unwrap();
    // SAFETY: open while the EventFd lives.
    let fd = unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) };
    device.bind_eventfd(0, fd, Masking::Unbind).unwrap();
    assert!(device.info(0).unwrap().in_kernel);
    assert_eq!(BOUND.load(Ordering::SeqCst), 40);
}

#[test]
fn gsis_that_can_be_neither_raised_nor_signalled_are_refused() {
    let refused = cache_of(Functions { signal: None, ..FUNCTIONS }).unwrap_err();
    assert_eq!(refused.errno(), libc::ENOTSUP);
}
