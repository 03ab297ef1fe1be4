// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device's state as bytes. The format is stable, little-endian, and described in `docs/snapshot.md`.
//!
//! Values and bytes only; that a state fits a device is the device's to say.

use crate::error::{Error, Result};
use crate::message::GuestMessage;
use crate::registers::msi::MsiState;
use crate::registers::Written;

const MAGIC: [u8; 4] = *b"MSIR";
const VERSION: u16 = 1;

const HEADER_SIZE: usize = 16;
const MSI_SIZE: usize = 32;
const VECTOR_SIZE: usize = 16;
const ENTRY_SIZE: usize = 16;

/// Header flags.
const ENABLED: u32 = 1 << 0;
const FUNCTION_MASKED: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
/// Vector flags.
const SET: u32 = 1 << 0;
const MASKED: u32 = 1 << 1;
const PENDING: u32 = 1 << 2;
const WRITTEN_SHIFT: u32 = 3;

/// What kind of registers, as the format numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Msix,
    Msi { wide: bool, maskable: bool },
    Pins,
}

impl Form {
    fn number(self) -> u16 {
        match self {
            Form::Plain => 0,
            Form::Msix => 1,
            Form::Msi { wide, maskable } => 2 | u16::from(wide) << 8 | u16::from(maskable) << 9,
            Form::Pins => 3,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceState {
    pub enabled: bool,
    pub function_masked: bool,
    pub bus_master: bool,
    /// MSI alone has it.
    pub msi: MsiState,
    pub vectors: Vec<VectorState>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct VectorState {
    /// The message in force.
    pub message: Option<GuestMessage>,
    pub masked: bool,
    pub pending: bool,
    /// MSI-X alone has it.
    pub entry: EntryState,
}

/// A table entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryState {
    pub message: GuestMessage,
    /// Vector control; its mask bit is the vector's.
    pub control: u32,
    pub written: Written,
}

/// How long the bytes of such a device are.
pub(crate) fn size(form: Form, vectors: usize) -> usize {
    let (head, each) = match form {
        Form::Plain | Form::Pins => (HEADER_SIZE, VECTOR_SIZE),
        Form::Msix => (HEADER_SIZE, VECTOR_SIZE + ENTRY_SIZE),
        Form::Msi { .. } => (HEADER_SIZE + MSI_SIZE, VECTOR_SIZE),
    };
    vectors.saturating_mul(each).saturating_add(head)
}

fn flag(on: bool, bit: u32) -> u32 {
    if on {
        bit
    } else {
        0
    }
}

// ---- to bytes ----------------------------------------------------------------------------------

/// Writes from the front of a buffer; what there is no room for is left out.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some((here, rest)) = std::mem::take(&mut self.0).split_at_mut_checked(bytes.len()) {
            here.copy_from_slice(bytes);
            self.0 = rest;
        }
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    fn message(&mut self, message: GuestMessage) {
        self.put(&message.address.to_le_bytes());
        self.u32(message.data);
    }
}

/// Errors: `EINVAL` if `out` is not as long as [`size`] says.
pub(crate) fn to_bytes(state: &DeviceState, form: Form, out: &mut [u8]) -> Result<()> {
    if out.len() != size(form, state.vectors.len()) {
        return Err(Error::invalid("the buffer is not as long as the device's state"));
    }
    let mut to = Writer(out);
    to.put(&MAGIC);
    to.u16(VERSION);
    to.u16(form.number());
    to.u32(u32::try_from(state.vectors.len()).unwrap_or(u32::MAX));
    to.u32(
        flag(state.enabled, ENABLED)
            | flag(state.function_masked, FUNCTION_MASKED)
            | flag(state.bus_master, BUS_MASTER),
    );
    if let Form::Msi { .. } = form {
        to.message(state.msi.registers);
        to.message(state.msi.in_force);
        to.u16(state.msi.enabled_log.into());
        to.u16(state.msi.written.to_bits());
        to.u32(0);
    }
    for vector in &state.vectors {
        to.message(vector.message.unwrap_or_default());
        let written = u32::from(vector.entry.written.to_bits()) << WRITTEN_SHIFT;
        to.u32(
            flag(vector.message.is_some(), SET)
                | flag(vector.masked, MASKED)
                | flag(vector.pending, PENDING)
                | written,
        );
        if form == Form::Msix {
            to.message(vector.entry.message);
            to.u32(vector.entry.control);
        }
    }
    Ok(())
}

// ---- from bytes --------------------------------------------------------------------------------

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(|| bad("it is cut off"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    fn message(&mut self) -> Result<GuestMessage> {
        let address = u64::from_le_bytes(self.take()?);
        Ok(GuestMessage { address, data: self.u32()? })
    }

    fn flags(&mut self, known: u32) -> Result<u32> {
        let flags = self.u32()?;
        if flags & !known != 0 {
            return Err(bad("unknown flags are set"));
        }
        Ok(flags)
    }
}

fn bad(what: &str) -> Error {
    Error::invalid(format!("not a saved state of this device: {what}"))
}

fn written(bits: u32) -> Result<Written> {
    let written = u16::try_from(bits).ok().and_then(Written::from_bits);
    written.ok_or_else(|| bad("unknown flags are set"))
}

fn vector_from_bytes(form: Form, from: &mut Reader<'_>) -> Result<VectorState> {
    let is_msix = form == Form::Msix;
    let message = from.message()?;
    let its_written = if is_msix { u32::from(Written::ALL.to_bits()) << WRITTEN_SHIFT } else { 0 };
    let its_set = if matches!(form, Form::Msi { .. }) { 0 } else { SET };
    let flags = from.flags(its_set | MASKED | PENDING | its_written)?;
    let (is_set, masked) = (flags & SET != 0, flags & MASKED != 0);
    if !is_set && message != GuestMessage::default() {
        return Err(bad("a vector without a message has one"));
    }
    let mut entry =
        EntryState { written: written(flags >> WRITTEN_SHIFT)?, ..EntryState::default() };
    if is_msix {
        (entry.message, entry.control) = (from.message()?, from.u32()?);
        if (entry.control & 1 != 0) != masked {
            return Err(bad("a vector is masked and is not"));
        }
    }
    Ok(VectorState {
        message: is_set.then_some(message),
        masked,
        pending: flags & PENDING != 0,
        entry,
    })
}

/// Errors: `EINVAL` if it is no state of such a device; `ENOTSUP` for a version that is not known here.
pub(crate) fn from_bytes(form: Form, vectors: usize, bytes: &[u8]) -> Result<DeviceState> {
    let mut from = Reader(bytes);
    if from.take()? != MAGIC {
        return Err(bad("it begins with something else"));
    }
    if from.u16()? != VERSION {
        return Err(Error::new(libc::ENOTSUP, "a saved state of another version"));
    }
    if from.u16()? != form.number() {
        return Err(bad("it has other registers"));
    }
    if from.u32()? as usize != vectors {
        return Err(bad("it has more vectors, or fewer"));
    }
    if bytes.len() != size(form, vectors) {
        return Err(bad("it is too long, or cut off"));
    }
    let function_mask = if form == Form::Msix { FUNCTION_MASKED } else { 0 };
    let flags = from.flags(ENABLED | function_mask | BUS_MASTER)?;
    if matches!(form, Form::Plain | Form::Pins) && flags & ENABLED == 0 {
        return Err(bad("a device that is always enabled is not"));
    }
    let mut msi = MsiState::default();
    if let Form::Msi { .. } = form {
        msi.registers = from.message()?;
        msi.in_force = from.message()?;
        let enabled_log = u8::try_from(from.u16()?);
        msi.enabled_log = enabled_log.map_err(|_| bad("it has more messages than MSI can"))?;
        msi.written = written(from.u16()?.into())?;
        from.flags(0)?;
    }
    let mut states = Vec::with_capacity(vectors);
    for _ in 0..vectors {
        states.push(vector_from_bytes(form, &mut from)?);
    }
    Ok(DeviceState {
        enabled: flags & ENABLED != 0,
        function_masked: flags & FUNCTION_MASKED != 0,
        bus_master: flags & BUS_MASTER != 0,
        msi,
        vectors: states,
    })
}
