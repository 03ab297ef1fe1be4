// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSI (PCI 3.0, 6.8.1): all of it is in the capability. One message serves up to 32 vectors, which
//! differ in the low bits of its data.

use super::{Capability, Image, Written};
use crate::error::Result;
use crate::message::GuestMessage;

/// The longest form: 64-bit address, mask and pending registers.
pub(crate) const LONGEST: usize = 24;
/// Most vectors a function may have.
pub(crate) const MAX_VECTORS: u32 = 32;

const CAPABILITY_ID: u8 = 0x05;
const MESSAGE_CONTROL: usize = 2;
const ADDRESS: usize = 4;
const ENABLE: u16 = 1 << 0;
/// Multiple Message Capable: the logarithm of how many vectors the function has.
const CAPABLE_SHIFT: u16 = 1;
/// Multiple Message Enable: of how many the guest lets it use.
const ENABLE_SHIFT: u16 = 4;
const LOG_MASK: u16 = 7;
const WIDE: u16 = 1 << 7;
const MASKABLE: u16 = 1 << 8;
/// The address's low bits are zero, and read-only.
const ADDRESS_BITS: u32 = !3;

/// The forms of the capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiForm {
    /// A 64-bit address.
    pub wide: bool,
    /// Mask and pending registers.
    pub maskable: bool,
}

impl MsiForm {
    fn data(self) -> usize {
        if self.wide {
            12
        } else {
            8
        }
    }

    fn mask(self) -> usize {
        self.data() + 4
    }

    /// Of the capability, in bytes.
    pub(crate) fn size(self) -> usize {
        match self.maskable {
            true => self.mask() + 8,
            false => self.data() + 2,
        }
    }
}

/// The registers but for the enable bit, which is the function's, and the mask bits, the vectors'.
pub(crate) struct Msi {
    pub form: MsiForm,
    vectors: u32,
    /// How many vectors the guest lets the function use; the logarithm.
    enabled_log: u16,
    registers: GuestMessage,
    in_force: GuestMessage,
    written: Written,
    /// The high half of the address is part of a destination.
    pub high_counts: bool,
}

/// What a guest can write but the message: the bits that are kept elsewhere.
#[derive(Clone, Copy)]
pub(crate) struct MsiBits {
    pub enabled: bool,
    /// One bit a vector.
    pub masked: u32,
    /// One bit a vector; the guest only reads it.
    pub pending: u32,
}

/// What a saved capability holds beside those bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MsiState {
    pub enabled_log: u8,
    pub registers: GuestMessage,
    pub in_force: GuestMessage,
    pub written: Written,
}

impl Msi {
    /// `vectors` is a power of two up to [`MAX_VECTORS`].
    pub fn new(form: MsiForm, vectors: u32) -> Self {
        Msi {
            form,
            vectors,
            enabled_log: 0,
            registers: GuestMessage::default(),
            in_force: GuestMessage::default(),
            written: Written::NONE,
            high_counts: false,
        }
    }

    fn capable_log(&self) -> u16 {
        u16::try_from(self.vectors.trailing_zeros()).unwrap_or(0) & LOG_MASK
    }

    /// One bit for each vector there is.
    fn all(&self) -> u32 {
        first_bits(self.vectors.clamp(1, MAX_VECTORS))
    }

    /// How many vectors the guest lets the function use: 1 to [`MAX_VECTORS`].
    fn used(&self) -> u32 {
        1 << self.enabled_log.min(self.capable_log())
    }

    /// The message of a vector that the guest lets the function use: its index stands in the data's low bits.
    pub fn message(&self, index: u32) -> Option<GuestMessage> {
        let used = self.used();
        let GuestMessage { address, data } = self.in_force;
        (index < used).then_some(GuestMessage { address, data: (data & !(used - 1)) | index })
    }

    /// The data of the first vector as the guest wrote it.
    pub fn base_data(&self) -> u32 {
        self.in_force.data
    }

    /// The message in the registers comes into force.
    fn settle(&mut self) {
        self.in_force = self.registers;
        self.written = Written::NONE;
    }

    pub fn reset(&mut self) {
        *self = Msi::new(self.form, self.vectors);
    }

    pub fn state(&self) -> MsiState {
        MsiState {
            enabled_log: u8::try_from(self.enabled_log).unwrap_or(0),
            registers: self.registers,
            in_force: self.in_force,
            written: self.written,
        }
    }

    /// Whether it is a state that the registers can have.
    pub fn can_have(&self, state: &MsiState) -> bool {
        let message_fits = |message: &GuestMessage| {
            let wide = message.address >> 32 == 0 || self.form.wide;
            wide && message.address & 3 == 0 && message.data >> 16 == 0
        };
        u16::from(state.enabled_log) <= self.capable_log()
            && message_fits(&state.registers)
            && message_fits(&state.in_force)
    }

    pub fn set_state(&mut self, state: &MsiState) {
        self.enabled_log = state.enabled_log.into();
        (self.registers, self.in_force) = (state.registers, state.in_force);
        self.written = state.written;
    }

    pub fn image(&self, place: &Capability, bits: MsiBits) -> Image<LONGEST> {
        let mut image = Image::new();
        let form = self.form;
        let mut control = self.capable_log() << CAPABLE_SHIFT | self.enabled_log << ENABLE_SHIFT;
        control |= if bits.enabled { ENABLE } else { 0 };
        control |= if form.wide { WIDE } else { 0 };
        control |= if form.maskable { MASKABLE } else { 0 };
        image.put(0, &[CAPABILITY_ID, place.next], &[0, 0]);
        image.put_u16(MESSAGE_CONTROL, control, ENABLE | LOG_MASK << ENABLE_SHIFT);
        let GuestMessage { address, data } = self.registers;
        #[expect(clippy::cast_possible_truncation, reason = "the halves are what is meant")]
        let (low, high, data) = (address as u32, (address >> 32) as u32, data as u16);
        image.put_u32(ADDRESS, low, ADDRESS_BITS);
        if form.wide {
            image.put_u32(ADDRESS + 4, high, u32::MAX);
        }
        image.put_u16(form.data(), data, u16::MAX);
        if form.maskable {
            image.put_u32(form.mask(), bits.masked & self.all(), self.all());
            image.put_u32(form.mask() + 4, bits.pending & self.all(), 0);
        }
        image
    }

    /// A write of `data` from byte `at` of the capability on: the other bits as they are then.
    pub fn write(&mut self, place: &Capability, bits: MsiBits, at: usize, data: &[u8]) -> MsiBits {
        let mut image = self.image(place, bits);
        image.write(at, data);
        let (form, data_at) = (self.form, self.form.data());
        let address_end = if form.wide { ADDRESS + 8 } else { ADDRESS + 4 };
        for at in at..at.saturating_add(data.len()).min(LONGEST) {
            let (in_address, in_data) = (at.checked_sub(ADDRESS), at.checked_sub(data_at));
            match (in_address, in_data) {
                (Some(byte), _) if at < address_end => self.written.add(byte),
                (_, Some(byte)) if byte < 2 => self.written.add(byte.saturating_add(8)),
                _ => {}
            }
        }
        self.take(&image, bits)
    }

    /// Registers as they were saved somewhere, applied at once.
    ///
    /// Errors: `EINVAL` if they are of another capability.
    pub fn import(&mut self, place: &Capability, bits: MsiBits, bytes: &[u8]) -> Result<MsiBits> {
        let mut image = self.image(place, bits);
        image.check_same_capability(bytes)?;
        if self.form.maskable {
            image.put_u32(self.form.mask() + 4, 0, self.all());
        }
        image.write(0, bytes);
        let after = self.take(&image, bits);
        self.settle();
        let pending = if self.form.maskable { image.u32_at(self.form.mask() + 4) } else { 0 };
        Ok(MsiBits { pending, ..after })
    }

    fn take(&mut self, image: &Image<LONGEST>, before: MsiBits) -> MsiBits {
        let could_send = self.live(before);
        let form = self.form;
        let high = if form.wide { image.u32_at(ADDRESS + 4) } else { 0 };
        let control = image.u16_at(MESSAGE_CONTROL);
        let after = MsiBits {
            enabled: control & ENABLE != 0,
            masked: if form.maskable { image.u32_at(form.mask()) } else { before.masked },
            ..before
        };
        self.registers = GuestMessage {
            address: u64::from(high) << 32 | u64::from(image.u32_at(ADDRESS)),
            data: image.u16_at(form.data()).into(),
        };
        self.enabled_log = (control >> ENABLE_SHIFT & LOG_MASK).min(self.capable_log());
        self.settle_if_due(could_send, self.live(after));
        after
    }

    /// The bits are changed elsewhere.
    pub fn follow(&mut self, before: MsiBits, after: MsiBits) -> MsiBits {
        self.settle_if_due(self.live(before), self.live(after));
        after
    }

    /// The vectors that the guest lets send, a bit each.
    fn live(&self, bits: MsiBits) -> u32 {
        let used = first_bits(self.used());
        if bits.enabled {
            used & !bits.masked
        } else {
            0
        }
    }

    /// What stands in the registers comes into force when no vector goes on sending what did, or when it is whole.
    fn settle_if_due(&mut self, live_before: u32, live_after: u32) {
        let with_high = self.form.wide && self.high_counts;
        if live_before & live_after == 0 || self.written.is_whole(true, with_high) {
            self.settle();
        }
    }
}

fn first_bits(n: u32) -> u32 {
    u32::MAX.checked_shr(u32::BITS.saturating_sub(n)).unwrap_or(0)
}
