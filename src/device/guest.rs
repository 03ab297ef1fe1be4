// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's accesses: MSI-X table and pending bit array in a device's memory, the capability in config
//! space. Any offset, any length; bytes are little-endian, as in a KVM MMIO exit. What a guest writes
//! always stands.

use std::ops::Range;

use parking_lot::MutexGuard;

use super::change::{GateChange, Pending, Wanted};
use super::{closed, one, Control, Device, Kind};
use crate::error::{Error, Result};
use crate::message::GuestMessage;
use crate::registers::msi::{Msi, MsiBits};
use crate::registers::{copy, msix, Capability, Registers};

/// What stands in an entry of the table comes into force, unless the vector goes on sending what did and the guest has
/// written half of it. After `wanted.masked` is what it will be.
pub(super) fn settle_entry(
    table: &mut msix::Table,
    index: u32,
    wanted: &mut Wanted,
    high_counts: bool,
) {
    let stays_live = wanted.was_live && wanted.allowed && !wanted.masked;
    if !stays_live || table.is_whole(index, high_counts) {
        wanted.message = Some(table.message(index));
        table.settle(index);
    }
}

impl Device {
    /// A guest's read of the MSI-X table. All ones where PCI defines nothing, and after an error.
    ///
    /// Errors: `EINVAL` (no such table), `ENODEV`, `ESHUTDOWN`.
    pub fn table_read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        out.fill(0xFF);
        let control = self.lock()?;
        match &control.registers {
            Registers::Msix(table) => {
                table.read(offset, out, |index| self.is_masked(index));
                Ok(())
            }
            _ => Err(no_table()),
        }
    }

    /// A guest's write to the MSI-X table; ignored where PCI defines nothing. Of a masked vector it makes no system
    /// call.
    ///
    /// Errors: `EINVAL` (no such table), `ENODEV`, `ESHUTDOWN`; what serving the vector says (what was written stands, its
    /// eventfds' events are counted, and serving is tried again).
    pub fn table_write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut control = self.lock()?;
        let Registers::Msix(table) = &mut control.registers else { return Err(no_table()) };
        let Some(written) = table.write(offset, data) else { return Ok(()) };
        let (index, high_counts) = (written.index, self.high_counts());
        self.change(control, GateChange::NONE, one(index), |index, registers, wanted| {
            let Registers::Msix(table) = registers else { return };
            wanted.masked = written.masked.unwrap_or(wanted.masked);
            settle_entry(table, index, wanted, high_counts);
        })
    }

    /// A guest's read of the pending bit array. Makes system calls only for vectors with an eventfd that the kernel does not
    /// read now.
    ///
    /// Errors: as [`Device::table_read`].
    pub fn pba_read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        out.fill(0xFF);
        let control = self.lock()?;
        if self.kind != Kind::Msix {
            return Err(no_table());
        }
        if let Some(vectors) = msix::pba_read(self.all().end, offset, out.len()) {
            copy(Some(&self.pending(&control, vectors).to_le_bytes()), out);
        }
        Ok(())
    }

    /// A guest's write to the pending bit array: it is read-only.
    ///
    /// Errors: as [`Device::table_read`].
    pub fn pba_write(&self) -> Result<()> {
        let _alive = self.lock()?;
        match self.kind {
            Kind::Msix => Ok(()),
            _ => Err(no_table()),
        }
    }

    /// A guest's read of config space: fills in what lies in the capability, and says whether any did.
    ///
    /// Errors: `ENODEV`, `ESHUTDOWN`.
    pub fn config_read(&self, offset: u32, out: &mut [u8]) -> Result<bool> {
        let control = self.lock()?;
        let Some((place, within)) = self.in_capability(offset, out.len()) else { return Ok(false) };
        let start = u64::from(place.offset).saturating_add(within.start as u64);
        let from = start.saturating_sub(offset.into());
        let out = out.get_mut(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
        let mut bytes = [0; LONGEST_CAPABILITY];
        let size = self.capability_bytes(&control, &mut bytes);
        copy(bytes.get(..size).and_then(|bytes| bytes.get(within)), out);
        Ok(true)
    }

    /// A guest's write to config space: takes what lies in the capability, and says whether any did.
    ///
    /// Errors: `ENODEV`, `ESHUTDOWN`; what serving vectors says (what was written stands, and serving is tried again).
    pub fn config_write(&self, offset: u32, data: &[u8]) -> Result<bool> {
        let control = self.lock()?;
        let Some((place, within)) = self.in_capability(offset, data.len()) else {
            return Ok(false);
        };
        let start = u64::from(place.offset).saturating_add(within.start as u64);
        let from = start.saturating_sub(offset.into());
        let data = data.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
        let data = data.get(..within.len()).unwrap_or_default();
        match self.kind {
            Kind::Msix => {
                let mut image = self.msix_image(&place);
                image.write(within.start, data);
                let (enabled, function_masked) = msix::control_of(&image);
                self.write_msix_control(control, enabled, function_masked)?;
            }
            Kind::Msi(_) => {
                self.write_msi(control, |msi, bits| msi.write(&place, bits, within.start, data))?
            }
            Kind::Plain | Kind::Pins { .. } => return Ok(false),
        }
        Ok(true)
    }

    /// Of the capability, in bytes; 0 if there is none.
    pub fn capability_size(&self) -> usize {
        match self.kind {
            Kind::Msix => msix::CAPABILITY_SIZE,
            Kind::Msi(form) => form.size(),
            Kind::Plain | Kind::Pins { .. } => 0,
        }
    }

    // ---- inside --------------------------------------------------------------------------------

    /// The high half of an address is part of it: of a destination on x86.
    pub(super) fn high_counts(&self) -> bool {
        self.cache.high_half_counts()
    }

    pub(super) fn is_masked(&self, index: u32) -> bool {
        self.vector(index).is_ok_and(|vector| vector.is_masked())
    }

    /// Where the capability is, and which of its bytes an access touches.
    fn in_capability(&self, offset: u32, len: usize) -> Option<(Capability, Range<usize>)> {
        let place = self.capability?;
        let (start, size) = (usize::from(place.offset), self.capability_size());
        let offset = usize::try_from(offset).ok()?;
        let first = offset.max(start);
        let end = offset.saturating_add(len).min(start + size);
        (first < end).then(|| (place, first - start..end - start))
    }

    /// The capability as it stands. How many bytes it has.
    pub(super) fn capability_bytes(
        &self,
        control: &Control,
        out: &mut [u8; LONGEST_CAPABILITY],
    ) -> usize {
        let place = self.capability.unwrap_or_default();
        match &control.registers {
            Registers::Msix(_) => copy(Some(&self.msix_image(&place).bytes), out),
            Registers::Msi(msi) => {
                #[expect(clippy::cast_possible_truncation, reason = "it has 32 vectors at most")]
                let pending = self.pending(control, self.all()) as u32;
                let bits = MsiBits { pending, ..self.msi_bits() };
                copy(Some(&msi.image(&place, bits).bytes), out);
            }
            Registers::None => {}
        }
        self.capability_size()
    }

    pub(super) fn msix_image(
        &self,
        place: &Capability,
    ) -> crate::registers::Image<{ msix::CAPABILITY_SIZE }> {
        let state = self.state();
        msix::capability(place, self.all().end, state.enabled, state.function_masked)
    }

    /// What MSI's registers show of the vectors and the function, but for what is pending.
    pub(super) fn msi_bits(&self) -> MsiBits {
        let bit = |index| 1u32.checked_shl(index).unwrap_or(0);
        let masked = self
            .all()
            .filter(|&index| self.is_masked(index))
            .fold(0, |bits, index| bits | bit(index));
        MsiBits { enabled: self.state().enabled, masked, pending: 0 }
    }

    pub(super) fn msi_message(&self, msi: &Msi, index: u32) -> Option<GuestMessage> {
        let is_off = self.data0_off && msi.base_data() == 0;
        msi.message(index).filter(|_| !is_off)
    }

    /// Message Control's bits, of MSI-X.
    pub(super) fn write_msix_control(
        &self,
        control: MutexGuard<'_, Control>,
        enabled: bool,
        function_masked: bool,
    ) -> Result<()> {
        let gate = function_gate(enabled, function_masked);
        let high_counts = self.high_counts();
        self.change(control, gate, self.all(), |index, registers, wanted| {
            if let Registers::Msix(table) = registers {
                settle_entry(table, index, wanted, high_counts);
            }
        })
    }

    /// Makes of MSI's registers what `write` does, and sees to what follows.
    pub(super) fn write_msi(
        &self,
        mut control: MutexGuard<'_, Control>,
        write: impl FnOnce(&mut Msi, MsiBits) -> MsiBits,
    ) -> Result<()> {
        let bits = self.msi_bits();
        let Registers::Msi(msi) = &mut control.registers else { return Err(no_table()) };
        msi.high_counts = self.high_counts();
        let after = write(msi, bits);
        self.follow_msi(control, after, |_| Pending::Stays)
    }

    /// MSI's registers were changed: what follows.
    pub(super) fn follow_msi(
        &self,
        control: MutexGuard<'_, Control>,
        after: MsiBits,
        pending: impl Fn(u32) -> Pending,
    ) -> Result<()> {
        let gate = function_gate(after.enabled, false);
        self.change(control, gate, self.all(), |index, registers, wanted| {
            if let Registers::Msi(msi) = registers {
                wanted.masked = after.masked.wrapping_shr(index) & 1 != 0;
                wanted.message = self.msi_message(msi, index);
                wanted.pending = pending(index);
            }
        })
    }
}

/// The gate as Message Control wants it.
pub(super) fn function_gate(enabled: bool, function_masked: bool) -> GateChange {
    let on = if enabled { 0 } else { closed::DISABLED }
        | if function_masked { closed::FUNCTION_MASKED } else { 0 };
    GateChange::to(closed::BY_GUEST, on)
}

/// Room for any capability.
pub(super) const LONGEST_CAPABILITY: usize = crate::registers::msi::LONGEST;

fn no_table() -> Error {
    Error::invalid("the device has no MSI-X registers")
}
