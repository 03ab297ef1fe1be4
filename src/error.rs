// SPDX-License-Identifier: MIT OR Apache-2.0
//! What went wrong: an errno for the program, words for the person.

use std::borrow::Cow;
use std::fmt;

use crate::trace;

/// An errno and what was being done when it came. One word long, for it travels along the fast path.
#[derive(Clone, Debug)]
pub struct Error(Box<Failure>);

#[derive(Clone, Debug)]
struct Failure {
    errno: i32,
    doing: Cow<'static, str>,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// `errno` is positive, as in `<errno.h>`.
    #[cold]
    pub fn new(errno: i32, doing: impl Into<Cow<'static, str>>) -> Self {
        let doing = doing.into();
        trace::error(errno, &doing);
        Error(Box::new(Failure { errno, doing }))
    }

    /// The calling thread's `errno`, set by the system call that just failed.
    pub(crate) fn last_os(doing: &'static str) -> Self {
        Error::new(vmm_sys_util::errno::Error::last().errno(), doing)
    }

    /// Positive, as in `<errno.h>`.
    pub fn errno(&self) -> i32 {
        self.0.errno
    }

    pub(crate) fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Error::new(libc::EINVAL, what)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = std::io::Error::from_raw_os_error(self.0.errno);
        write!(f, "{}: {errno}", self.0.doing)
    }
}

impl std::error::Error for Error {}
