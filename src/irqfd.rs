// SPDX-License-Identifier: MIT OR Apache-2.0
//! An eventfd of the VMM's, which the kernel reads while it is an irqfd, and which counts while it is not.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;

use crate::cache::{EventfdKey, RouteCache};
use crate::cancel;
use crate::error::{Error, Result};
use crate::eventfd;
use crate::helpers;

/// Eventfds that are unbound by one thread: fewer are not worth a second.
const UNBOUND_BY_ONE: usize = 32;
/// Threads that unbind at once: their waits in the kernel overlap, and more do not make it faster.
const UNBINDERS: usize = 8;

/// Whose descriptor it is.
enum File {
    Duplicate(OwnedFd),
    /// Stays open, and this file, until it is let go: the VMM's promise.
    Borrowed(BorrowedFd<'static>),
}

pub(crate) struct Irqfd {
    file: File,
    /// Signalled by the kernel when the guest ends a level-triggered interrupt.
    resample: Option<OwnedFd>,
    /// By which the VMM knows it.
    pub number: RawFd,
    key: EventfdKey,
    /// Why it could not be bound or unbound; 0 if it could.
    pub errno: i32,
    /// The GSI that it is an irqfd of.
    pub bound: Option<u32>,
}

impl AsFd for Irqfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.file {
            File::Duplicate(fd) => fd.as_fd(),
            File::Borrowed(fd) => *fd,
        }
    }
}

impl Irqfd {
    /// Takes an eventfd in, unbound.
    ///
    /// Errors: `EBADF`, `EINVAL`, `EMFILE`; `EBUSY` if it is bound to something already.
    pub fn take(
        cache: &RouteCache,
        fd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        borrow: bool,
    ) -> Result<Self> {
        let number = fd.as_raw_fd();
        let key = match eventfd::inspect(fd)? {
            Some(identity) => EventfdKey::Identity(identity),
            None => EventfdKey::Number(number),
        };
        let file = match borrow {
            // SAFETY: promised to stay open until it is let go; whoever lets it go drops this.
            true => File::Borrowed(unsafe { BorrowedFd::borrow_raw(number) }),
            false => File::Duplicate(duplicate(fd)?),
        };
        if let Some(resample) = resample {
            eventfd::inspect(resample)?;
        }
        let resample = resample.map(duplicate).transpose()?;
        if !cache.claim_eventfd(key)? {
            return Err(Error::new(libc::EBUSY, "the eventfd is bound to a vector or GSI already"));
        }
        Ok(Irqfd { file, resample, number, key, errno: 0, bound: None })
    }

    /// Lets it go; it is not bound.
    pub fn release(&self, cache: &RouteCache) {
        cache.release_eventfd(self.key);
    }

    /// What it has counted; only while it is not bound.
    pub fn take_count(&self) -> u64 {
        eventfd::take_count(self.as_fd())
    }

    pub fn put_back(&self, count: u64) {
        eventfd::put_back(self.as_fd(), count);
    }

    pub fn has_count(&self) -> bool {
        eventfd::has_count(self.as_fd())
    }

    pub fn bind(&mut self, cache: &RouteCache, gsi: u32) -> Result<()> {
        let resample = self.resample.as_ref().map(AsFd::as_fd);
        let bind = || cache.backend().bind_irqfd(self.as_fd(), resample, gsi);
        let bound = cancel::put_off(bind);
        self.errno = bound.as_ref().map_or_else(Error::errno, |()| 0);
        if bound.is_ok() {
            self.bound = Some(gsi);
            cache.irqfd_binds.fetch_add(1, Ordering::Relaxed);
        }
        bound
    }

    pub fn unbind(&mut self, cache: &RouteCache) -> Result<()> {
        let Some(gsi) = self.bound else { return Ok(()) };
        let unbound = cancel::put_off(|| cache.backend().unbind_irqfd(self.as_fd(), gsi));
        self.errno = unbound.as_ref().map_or_else(Error::errno, |()| 0);
        if unbound.is_ok() {
            self.bound = None;
            cache.irqfd_unbinds.fetch_add(1, Ordering::Relaxed);
        }
        unbound
    }
}

/// From now on they count; at once, by helper threads, where the cache may start some. Those that the kernel refuses
/// to let go stay bound.
pub(crate) fn unbind_all(cache: &RouteCache, irqfds: &mut [&mut Irqfd]) -> Result<()> {
    let threads = if cache.may_start_helpers() { UNBINDERS } else { 1 };
    helpers::share_out(irqfds, threads, UNBOUND_BY_ONE, |irqfd| {
        // The result is in its errno.
        let _ = irqfd.unbind(cache);
    });
    let refused = irqfds.iter().map(|irqfd| irqfd.errno).find(|&errno| errno != 0);
    match refused {
        Some(errno) => Err(Error::new(errno, "unbinding an eventfd")),
        None => Ok(()),
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned()
        .map_err(|e| Error::new(e.raw_os_error().unwrap_or(libc::EMFILE), "duplicating an eventfd"))
}
