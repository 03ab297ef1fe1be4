// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log callback: the engine's `log` messages, handed to C.

use std::ffi::{c_char, c_void, CString};

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;

use super::types::{MSIROUTE_LOG_ERROR, MSIROUTE_LOG_INFO};
use crate::cancel;

type Callback = unsafe extern "C" fn(opaque: *mut c_void, level: u32, message: *const c_char);

#[derive(Clone, Copy)]
struct Target {
    log: Callback,
    opaque: *mut c_void,
}

// SAFETY: `opaque` is only passed on; C says that its function may be called from any thread.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

struct Forward(RwLock<Option<Target>>);

static FORWARD: Forward = Forward(RwLock::new(None));

impl Log for Forward {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Copied out: the function runs with no lock held.
        let Some(target) = *self.0.read() else { return };
        let level = match record.level() {
            Level::Error => MSIROUTE_LOG_ERROR,
            _ => MSIROUTE_LOG_INFO,
        };
        if let Ok(text) = CString::new(record.args().to_string()) {
            // SAFETY: C promised that it can be called, from any thread, until it is replaced.
            cancel::put_off(|| unsafe { (target.log)(target.opaque, level, text.as_ptr()) });
        }
    }

    fn flush(&self) {}
}

/// Sets where messages go that no caller can be told, for the whole process; NULL: nowhere, as at the start. The
/// function may be called on any thread, possibly once more after it was replaced; it must not call the library.
/// `message` lasts for the call. [control]
///
/// \param log  gets MSIROUTE_LOG_... as `level`, and one line of text without its end.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_set_log(
    log: Option<unsafe extern "C" fn(opaque: *mut c_void, level: u32, message: *const c_char)>,
    opaque: *mut c_void,
) {
    *FORWARD.0.write() = log.map(|log| Target { log, opaque });
    // Fails from the second time on: it is installed.
    let _ = log::set_logger(&FORWARD);
    log::set_max_level(if log.is_some() { LevelFilter::Info } else { LevelFilter::Off });
}
