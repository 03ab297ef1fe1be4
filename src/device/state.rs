// SPDX-License-Identifier: MIT OR Apache-2.0
//! Save and load, in the format of `snapshot`; import and export, as the guest's raw registers.

use parking_lot::MutexGuard;

use super::change::{GateChange, Pending};
use super::guest::{self, LONGEST_CAPABILITY};
use super::{closed, one, Capability, Control, Device, Kind, MsiForm};
use crate::error::{Error, Result};
use crate::registers::msi::MsiState;
use crate::registers::{copy, msix, Registers};
use crate::snapshot::{self, DeviceState, EntryState, Form, VectorState};

/// A device's registers as they stand, for [`Device::export`]: those that are not wanted are empty.
pub struct RawMut<'a> {
    /// The capability.
    pub capability: &'a mut [u8],
    /// The MSI-X table.
    pub table: &'a mut [u8],
    /// The MSI-X pending bit array, in whole bytes or whole 64-bit words.
    pub pba: &'a mut [u8],
}

/// The same, for [`Device::import`].
#[derive(Clone, Copy, Default)]
pub struct Raw<'a> {
    /// The capability.
    pub capability: &'a [u8],
    /// The MSI-X table.
    pub table: &'a [u8],
    /// The MSI-X pending bit array.
    pub pba: &'a [u8],
}

impl Device {
    /// How many bytes [`Device::save`] writes; the same for every device of this kind and as many vectors.
    pub fn save_size(&self) -> usize {
        snapshot::size(self.form(), self.vectors.len())
    }

    /// The device's state, in the format of `docs/snapshot.md`. What eventfds have counted is saved as pending, and
    /// stays counted. Of a cache that is not paused it is the state of a moment.
    ///
    /// Errors: `EINVAL` if `out` is not [`Device::save_size`] long; `ENODEV`, `ESHUTDOWN`.
    pub fn save(&self, out: &mut [u8]) -> Result<()> {
        let control = self.lock()?;
        snapshot::to_bytes(&self.read_state(&control), self.form(), out)
    }

    /// Makes the device what was saved. Eventfds stay bound, and what they have counted stays counted.
    ///
    /// Errors: `EINVAL`, `ENOTSUP` if it is no state of such a device (nothing is changed); `ENODEV`, `ESHUTDOWN`; what
    /// serving the vectors says (what was saved stands, and serving is tried again).
    pub fn load(&self, bytes: &[u8]) -> Result<()> {
        let state = snapshot::from_bytes(self.form(), self.vectors.len(), bytes)?;
        let control = self.lock()?;
        if let Registers::Msi(msi) = &control.registers {
            if !msi.can_have(&state.msi) {
                return Err(Error::invalid("not a saved state of this device: no such message"));
            }
        }
        self.write_state(control, &state)
    }

    /// The guest's registers, as it would read them.
    ///
    /// Errors: `EINVAL` if a buffer has another length than the registers; `ENODEV`, `ESHUTDOWN`.
    pub fn export(&self, out: RawMut<'_>) -> Result<()> {
        let control = self.lock()?;
        self.check_lengths(out.capability.len(), out.table.len(), out.pba.len())?;
        let mut bytes = [0; LONGEST_CAPABILITY];
        if !out.capability.is_empty() {
            self.capability_bytes(&control, &mut bytes);
        }
        copy(Some(&bytes), out.capability);
        if let Registers::Msix(table) = &control.registers {
            for (index, entry) in (0..).zip(out.table.chunks_exact_mut(msix::ENTRY_SIZE)) {
                copy(Some(&table.entry_bytes(index, self.is_masked(index))), entry);
            }
            for (first, word) in (0..).step_by(64).zip(out.pba.chunks_mut(8)) {
                let end = u32::saturating_add(first, 64).min(self.all().end);
                copy(Some(&self.pending(&control, first..end).to_le_bytes()), word);
            }
        }
        Ok(())
    }

    /// Registers as another has saved them, applied at once; what is left out stays.
    ///
    /// Errors: `EINVAL` if they have another length, are of another capability, or set pending bits of vectors that do not
    /// exist (nothing is changed); `ENODEV`, `ESHUTDOWN`; what serving the vectors says.
    pub fn import(&self, raw: Raw<'_>) -> Result<()> {
        let mut control = self.lock()?;
        self.check_lengths(raw.capability.len(), raw.table.len(), raw.pba.len())?;
        let place = self.capability.unwrap_or_default();
        match &mut control.registers {
            Registers::Msix(_) => self.import_msix(control, &place, raw),
            Registers::Msi(msi) if !raw.capability.is_empty() => {
                let after = msi.import(&place, self.msi_bits(), raw.capability)?;
                let maskable = msi.form.maskable;
                self.follow_msi(control, after, |index| match maskable {
                    true => Pending::Becomes(after.pending.wrapping_shr(index) & 1 != 0),
                    false => Pending::Stays,
                })
            }
            _ => Ok(()),
        }
    }

    fn import_msix(
        &self,
        control: MutexGuard<'_, Control>,
        place: &Capability,
        raw: Raw<'_>,
    ) -> Result<()> {
        let mut image = self.msix_image(place);
        if !raw.capability.is_empty() {
            image.check_same_capability(raw.capability)?;
            image.write(0, raw.capability);
        }
        let (enabled, function_masked) = msix::control_of(&image);
        let is_pending = |index: u32| {
            let byte = raw.pba.get(index as usize / 8);
            byte.is_some_and(|byte| byte >> (index % 8) & 1 != 0)
        };
        let mut beyond = self.all().end..u32::try_from(raw.pba.len() * 8).unwrap_or(u32::MAX);
        if beyond.any(is_pending) {
            return Err(Error::invalid("a vector that does not exist is pending"));
        }
        let gate = guest::function_gate(enabled, function_masked);
        self.change(control, gate, self.all(), |index, registers, wanted| {
            let Registers::Msix(table) = registers else { return };
            let entry = index as usize * msix::ENTRY_SIZE;
            if let Some(bytes) = raw.table.get(entry..entry + msix::ENTRY_SIZE) {
                wanted.masked = table.import(index, bytes);
            }
            guest::settle_entry(table, index, wanted, self.high_counts());
            if !raw.pba.is_empty() {
                wanted.pending = Pending::Becomes(is_pending(index));
            }
        })
    }

    // ---- inside --------------------------------------------------------------------------------

    fn form(&self) -> Form {
        match self.kind {
            Kind::Plain => Form::Plain,
            Kind::Msix => Form::Msix,
            Kind::Msi(MsiForm { wide, maskable }) => Form::Msi { wide, maskable },
            Kind::Pins { .. } => Form::Pins,
        }
    }

    fn read_state(&self, control: &Control) -> DeviceState {
        let function = self.state();
        let state = |(index, vector_control): (u32, &super::VectorControl)| {
            let entry = match &control.registers {
                Registers::Msix(table) => EntryState {
                    message: table.message(index),
                    control: table.control(index, self.is_masked(index)),
                    written: table.written(index),
                },
                _ => EntryState::default(),
            };
            // Those of MSI follow from its registers.
            let is_msi = matches!(control.registers, Registers::Msi(_));
            VectorState {
                message: vector_control.message().filter(|_| !is_msi),
                masked: self.is_masked(index),
                pending: self.pending(control, one(index)) != 0,
                entry,
            }
        };
        DeviceState {
            enabled: function.enabled,
            function_masked: function.function_masked,
            bus_master: function.bus_master,
            msi: match &control.registers {
                Registers::Msi(msi) => msi.state(),
                _ => MsiState::default(),
            },
            vectors: (0..).zip(control.vectors.iter()).map(state).collect(),
        }
    }

    fn write_state(&self, mut control: MutexGuard<'_, Control>, state: &DeviceState) -> Result<()> {
        if let Registers::Msi(msi) = &mut control.registers {
            msi.set_state(&state.msi);
        }
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let on = bit(!state.enabled, closed::DISABLED)
            | bit(state.function_masked, closed::FUNCTION_MASKED)
            | bit(!state.bus_master, closed::NOT_BUS_MASTER);
        let gate = GateChange::to(closed::BY_GUEST | closed::NOT_BUS_MASTER, on);
        self.change(control, gate, self.all(), |index, registers, wanted| {
            let Some(vector) = state.vectors.get(index as usize) else { return };
            wanted.message = vector.message;
            match registers {
                Registers::Msix(table) => {
                    table.set_message(index, vector.entry.message);
                    table.set_control(index, vector.entry.control);
                    table.set_written(index, vector.entry.written);
                }
                Registers::Msi(msi) => wanted.message = self.msi_message(msi, index),
                Registers::None => {}
            }
            wanted.masked = vector.masked;
            wanted.pending = Pending::Becomes(vector.pending);
        })
    }

    fn check_lengths(&self, capability: usize, table: usize, pba: usize) -> Result<()> {
        let vectors = if self.kind == Kind::Msix { self.all().end } else { 0 };
        let is_or = |len: usize, sizes: &[usize]| len == 0 || sizes.contains(&len);
        let bytes = vectors.div_ceil(8) as usize;
        if is_or(capability, &[self.capability_size()])
            && is_or(table, &[vectors as usize * msix::ENTRY_SIZE])
            && is_or(pba, &[bytes, msix::pba_size(vectors)])
        {
            return Ok(());
        }
        Err(Error::invalid("a buffer has another length than the device's registers"))
    }
}
