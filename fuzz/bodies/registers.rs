// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program for an MSI-X and an MSI device, beside the reference: a byte says what the devices are, and then every
//! eight bytes are a step.

use crate::beside::model::OnModel;
use crate::beside::step::words;
use crate::beside::{Beside, Part, Shape};
use crate::reference::Kind;

/// Longer programs find nothing that shorter ones do not, and take time.
const STEPS: usize = 256;

pub fn run(data: &[u8]) {
    let Some((&devices, program)) = data.split_first() else { return };
    let bit = |at: u8| devices >> at & 1 != 0;
    let msix = if bit(0) { 66 } else { 3 };
    let msi = 1 << (devices >> 1 & 7).min(5);
    let part = |kind, vectors| Part { kind, vectors, data0_off: bit(4) };
    let parts =
        vec![part(Kind::Msix, msix), part(Kind::Msi { wide: bit(5), maskable: !bit(6) }, msi)];
    let shape = Shape { parts, no_direct: bit(7), tame: false };
    Beside::run(OnModel::new(), shape.program(words(program).take(STEPS)));
}
