// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be told of an eventfd, and taken from it, whoever else holds it.
//!
//! Its flags are its owner's: it may be a blocking one, and nothing here changes or waits on it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::cancel;
use crate::error::{Error, Result};

/// Checks that `fd` is an eventfd, and that each signal of it stands for one interrupt. Its identity, the
/// same for all descriptors of the eventfd in all processes; `None` where the kernel does not tell (no /proc).
///
/// Errors: `EBADF` if it is closed; `EMFILE` if there is no descriptor left to look with; `EINVAL` if it is something else, or a semaphore (of which
/// KVM takes one count at a time, and only when it is signalled again). Where there is no /proc this
/// cannot be seen, and KVM's own check at the first use is all there is.
pub(crate) fn inspect(fd: BorrowedFd<'_>) -> Result<Option<u64>> {
    // SAFETY: asks about a number; an unused one is refused.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) } < 0 {
        return Err(Error::last_os("looking at the eventfd"));
    }
    let path = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
    let mut text = String::new();
    // Bounded, so that it asks for the file's size by no system call.
    let read = File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text));
    match read {
        Ok(_) => {}
        // No /proc, or not for us.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(e) => {
            let errno = e.raw_os_error().unwrap_or(libc::EIO);
            return Err(Error::new(errno, "looking at the eventfd in /proc"));
        }
    };
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    if field("eventfd-count").is_none() {
        return Err(Error::invalid("the descriptor is not an eventfd"));
    }
    if field("eventfd-semaphore").is_some_and(|value| value != "0") {
        return Err(Error::invalid("the eventfd is a semaphore (EFD_SEMAPHORE)"));
    }
    Ok(field("eventfd-id").and_then(|id| id.parse().ok()))
}

/// Takes what is counted; 0 if nothing is. Never waits.
pub(crate) fn take_count(fd: BorrowedFd<'_>) -> u64 {
    let mut count = 0u64;
    let mut buffer = libc::iovec { iov_base: (&raw mut count).cast(), iov_len: size_of::<u64>() };
    // SAFETY: one buffer of eight bytes, ours, alive across the call.
    let read = cancel::put_off(|| unsafe {
        libc::preadv2(fd.as_raw_fd(), &raw mut buffer, 1, -1, libc::RWF_NOWAIT)
    });
    if read == 8 {
        return count;
    }
    // Linux before 5.7 has no RWF_NOWAIT for eventfds. Between the look and the read another reader of a
    // blocking eventfd could come first; its owner would have two readers then, which loses events anyway.
    let errno = std::io::Error::last_os_error().raw_os_error();
    if errno == Some(libc::EOPNOTSUPP) && has_count(fd) {
        // SAFETY: eight bytes, ours.
        let read = cancel::put_off(|| unsafe {
            libc::read(fd.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>())
        });
        if read == 8 {
            return count;
        }
    }
    0
}

/// Counts again what [`take_count`] took.
pub(crate) fn put_back(fd: BorrowedFd<'_>, count: u64) {
    if count == 0 {
        return;
    }
    // SAFETY: eight bytes, ours. It cannot wait: the counter held as much a moment ago, and its owner would
    // have to signal 2^63 times to fill it since.
    let written = cancel::put_off(|| unsafe {
        libc::write(fd.as_raw_fd(), (&raw const count).cast(), size_of::<u64>())
    });
    if written != 8 {
        log::error!("an eventfd's count of {count} is lost: it cannot be written to");
    }
}

/// Whether something is counted; takes nothing.
pub(crate) fn has_count(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, ours; a timeout of 0 does not wait.
    let ready = cancel::put_off(|| unsafe { libc::poll(&raw mut poll, 1, 0) });
    ready > 0 && poll.revents & libc::POLLIN != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use vmm_sys_util::eventfd::EventFd;

    fn eventfd(flags: i32) -> EventFd {
        EventFd::new(flags).unwrap()
    }

    fn fd(eventfd: &EventFd) -> BorrowedFd<'_> {
        // SAFETY: open while the EventFd lives.
        unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
    }

    #[test]
    fn a_blocking_eventfd_is_read_without_waiting() {
        let eventfd = eventfd(0);
        assert_eq!(take_count(fd(&eventfd)), 0);
        eventfd.write(3).unwrap();
        assert!(has_count(fd(&eventfd)));
        assert_eq!(take_count(fd(&eventfd)), 3);
        assert!(!has_count(fd(&eventfd)));
    }

    #[test]
    fn only_plain_eventfds_pass() {
        let plain = eventfd(0);
        let copy = plain.try_clone().unwrap();
        assert_eq!(inspect(fd(&plain)).unwrap(), inspect(fd(&copy)).unwrap());
        let other = eventfd(0);
        assert_ne!(inspect(fd(&plain)).unwrap(), inspect(fd(&other)).unwrap());
        let refused = |fd| inspect(fd).unwrap_err().errno();
        let semaphore = eventfd(libc::EFD_SEMAPHORE);
        assert_eq!(refused(fd(&semaphore)), libc::EINVAL);
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(refused(file.as_fd()), libc::EINVAL);
    }
}
