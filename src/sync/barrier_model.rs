// SPDX-License-Identifier: MIT OR Apache-2.0
//! `barrier.rs` for the model checker, which knows neither compiler fences nor `membarrier(2)`: both
//! barriers are fences. It checks the protocol; stress tests on real threads check the asymmetry.

use loom::sync::atomic::{fence, Ordering};

use crate::error::Result;

pub(crate) fn choose(_fences: bool) -> Result<()> {
    Ok(())
}

pub(super) fn light() {
    fence(Ordering::SeqCst);
}

pub(super) fn light_asymmetric() {
    fence(Ordering::SeqCst);
}

pub(crate) fn heavy() {
    fence(Ordering::SeqCst);
}
