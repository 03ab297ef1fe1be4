// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be seen of devices from outside: a refused call must not have changed it.

use msiroute::capi::types::*;
use msiroute::capi::{device, msi_device, state, vector};

/// Who serves a vector may change at any call: what could not be served is tried again.
const STAYS: u32 =
    MSIROUTE_VECTOR_SET | MSIROUTE_VECTOR_MASKED | MSIROUTE_VECTOR_LIVE | MSIROUTE_VECTOR_BLOCKED;

#[derive(Debug, PartialEq)]
pub struct Seen {
    state: u32,
    saved: Option<Vec<u8>>,
    infos: Vec<Option<(u32, u64, u32, u32)>>,
}

impl Seen {
    /// And all else that is only in what is saved.
    pub fn forget_pending(&mut self) {
        self.saved = None;
    }
}

pub fn info() -> msi_vector_info {
    let size = size_of::<msi_vector_info>() as u32;
    msi_vector_info { size, flags: 0, address: 0, data: 0, eventfds: 0, gsi: 0, error: 0 }
}

/// # Safety
///
/// A live handle.
pub unsafe fn look(dev: *mut msi_device, vectors: u32) -> Seen {
    // SAFETY: as promised.
    let mut saved = vec![0xA5; unsafe { state::msi_device_save_size(dev) }];
    // SAFETY: as promised; as many bytes as it said.
    let result = unsafe { state::msi_device_save(dev, saved.as_mut_ptr().cast(), saved.len()) };
    let infos = (0..vectors).map(|index| {
        let mut info = info();
        // SAFETY: as promised; the struct says how long it is.
        let result = unsafe { vector::msi_vector_info(dev, index, &mut info) };
        (result == 0).then_some((info.flags & STAYS, info.address, info.data, info.eventfds))
    });
    let infos = infos.collect();
    // SAFETY: as promised.
    let state = unsafe { device::msi_device_state(dev) };
    Seen { state, saved: (result == 0).then_some(saved), infos }
}
