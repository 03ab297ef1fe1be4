// SPDX-License-Identifier: MIT OR Apache-2.0
//! Functions of the VMM's own, in a table: another hypervisor, an interrupt controller in user
//! space, system calls made elsewhere, a test.

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::kvm_irq_routing_entry;

use super::{inside_host, not_supported, Backend, Features, Reception};
use crate::cancel;
use crate::error::{Error, Result};
use crate::message::Message;

/// The functions; `None` is "has none". Each returns a negative errno for an error.
#[derive(Clone, Copy)]
pub struct Functions {
    /// [`Backend::signal`].
    pub signal: Option<unsafe extern "C" fn(*mut c_void, u32, u64, u32) -> c_int>,
    /// [`Backend::set_routes`].
    pub set_routes:
        Option<unsafe extern "C" fn(*mut c_void, *const kvm_irq_routing_entry, usize) -> c_int>,
    /// [`Backend::bind_irqfd`].
    pub bind_irqfd: Option<unsafe extern "C" fn(*mut c_void, c_int, c_int, u32) -> c_int>,
    /// [`Backend::unbind_irqfd`].
    pub unbind_irqfd: Option<unsafe extern "C" fn(*mut c_void, c_int, u32) -> c_int>,
    /// [`Backend::raise`].
    pub raise_gsi: Option<unsafe extern "C" fn(*mut c_void, u32) -> c_int>,
    /// [`Backend::gsi_of`].
    pub gsi_of: Option<unsafe extern "C" fn(*mut c_void, u64, u32) -> c_int>,
}

/// See the [module](self).
pub struct Callbacks {
    functions: Functions,
    opaque: *mut c_void,
    features: Features,
}

// SAFETY: `opaque` is only passed on; who made the table promised that its functions may be called
// from any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Callbacks {
    /// # Safety
    ///
    /// The functions can be called with `opaque` from any thread, until [`Backend::close`] has returned.
    pub unsafe fn new(functions: Functions, opaque: *mut c_void, max_routes: u32) -> Self {
        let routes = functions.set_routes.is_some();
        let gsi_direct = functions.gsi_of.is_some();
        let numbered = routes || gsi_direct;
        let features = Features {
            direct: functions.signal.is_some(),
            routes: routes && functions.raise_gsi.is_some(),
            raise: functions.raise_gsi.is_some(),
            irqfd: numbered && functions.bind_irqfd.is_some() && functions.unbind_irqfd.is_some(),
            gsi_direct,
            resample: numbered,
            requester: false,
            max_routes,
        };
        Callbacks { functions, opaque, features }
    }
}

fn check(result: c_int, doing: &'static str) -> Result<()> {
    reception(result, doing).map(|_| ())
}

fn reception(result: c_int, doing: &'static str) -> Result<Reception> {
    if result < 0 {
        return Err(Error::new(result.saturating_neg(), doing));
    }
    Ok(Reception::of(result))
}

impl Backend for Callbacks {
    fn features(&self) -> Features {
        self.features
    }

    fn signal(&self, message: &Message) -> Result<Reception> {
        let signal = self.functions.signal.ok_or_else(|| not_supported("signal is NULL"))?;
        // SAFETY: as promised to `new`.
        let result = cancel::put_off(|| unsafe {
            signal(self.opaque, message.requester, message.address, message.data)
        });
        reception(result, "signal")
    }

    fn raise(&self, gsi: u32) -> Result<Reception> {
        let raise = self.functions.raise_gsi.ok_or_else(|| not_supported("raise_gsi is NULL"))?;
        // SAFETY: as promised to `new`.
        reception(cancel::put_off(|| unsafe { raise(self.opaque, gsi) }), "raise_gsi")
    }

    fn gsi_of(&self, message: &Message) -> Result<u32> {
        let gsi_of = self.functions.gsi_of.ok_or_else(|| not_supported("gsi_of is NULL"))?;
        // SAFETY: as promised to `new`.
        let gsi = inside_host(|| unsafe { gsi_of(self.opaque, message.address, message.data) });
        u32::try_from(gsi).map_err(|_| Error::new(gsi.saturating_neg(), "gsi_of"))
    }

    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        let set = self.functions.set_routes.ok_or_else(|| not_supported("set_routes is NULL"))?;
        // SAFETY: as promised to `new`; the entries outlive the call.
        check(
            inside_host(|| unsafe { set(self.opaque, entries.as_ptr(), entries.len()) }),
            "set_routes",
        )
    }

    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        let bind = self.functions.bind_irqfd.ok_or_else(|| not_supported("bind_irqfd is NULL"))?;
        let resample = resample.map_or(-1, |resample| resample.as_raw_fd());
        // SAFETY: as promised to `new`.
        let bound =
            inside_host(|| unsafe { bind(self.opaque, eventfd.as_raw_fd(), resample, gsi) });
        check(bound, "bind_irqfd")
    }

    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        let unbind =
            self.functions.unbind_irqfd.ok_or_else(|| not_supported("unbind_irqfd is NULL"))?;
        // SAFETY: as promised to `new`.
        check(
            inside_host(|| unsafe { unbind(self.opaque, eventfd.as_raw_fd(), gsi) }),
            "unbind_irqfd",
        )
    }
}
