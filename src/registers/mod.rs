// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the guest sees: the registers of MSI-X and MSI as bytes, and what a write to them means.
//!
//! - [`msix`]: the table, the PBA, and the capability (PCI 3.0, 6.8.2).
//! - [`msi`]: the capability, which is all there is (PCI 3.0, 6.8.1).
//! - This file: what both share.
//!
//! Plain data, without vectors or locks: `device` keeps it under its control lock, asks it what a
//! message is, and sees to what follows. Mask and enable bits are not kept here but where deliveries
//! read them, in the vectors and the function's gate; they are handed in, and come back changed.
//!
//! # Which message is in force
//!
//! A message takes a guest several writes. While it may not be sent (the capability is disabled, or the
//! vector masked one way or the other) what stands in the registers is the message. A guest that
//! changes a message that may be sent gets, as PCI has it, an undefined result; here it is the old
//! message until address *and* data have been written (with 32-bit APIC IDs also the address's high half), and then the
//! new one: never a part of each.

use crate::error::{Error, Result};

pub(crate) mod msi;
pub(crate) mod msix;

/// The registers of a device.
pub(crate) enum Registers {
    /// The VMM keeps them, or there are none.
    None,
    Msix(msix::Table),
    Msi(msi::Msi),
}

/// Where a capability lies in config space, and what its read-only fields say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capability {
    /// Of its first byte in config space.
    pub offset: u8,
    /// The next capability's offset, or 0.
    pub next: u8,
    /// MSI-X: where the table is, and the pending bit array.
    pub table: Place,
    /// As `table`.
    pub pba: Place,
}

impl Capability {
    /// Errors: `EINVAL` if a capability of `size` bytes cannot lie there.
    pub(crate) fn check(&self, size: usize) -> Result<()> {
        let is_pointer = |offset: u8| offset >= HEADER_SIZE && offset % 4 == 0;
        if !is_pointer(self.offset) || usize::from(self.offset) + size > CONFIG_SIZE {
            return Err(Error::invalid("a capability lies at 0x40 to 0xff, at a multiple of 4"));
        }
        if self.next != 0 && !is_pointer(self.next) {
            return Err(Error::invalid("the next capability is none, or lies at a multiple of 4"));
        }
        Ok(())
    }

    /// Errors: `EINVAL` if MSI-X of that many vectors cannot look so.
    pub(crate) fn check_msix(&self, vectors: u32) -> Result<()> {
        self.check(msix::CAPABILITY_SIZE)?;
        let sizes = [vectors as usize * msix::ENTRY_SIZE, msix::pba_size(vectors)];
        let [table, pba] = [self.table, self.pba];
        if [table, pba].iter().any(|place| place.bar > LAST_BAR || place.offset % 8 != 0) {
            return Err(Error::invalid(
                "MSI-X table and PBA lie in BARs 0 to 5, at a multiple of 8",
            ));
        }
        let ends = |place: Place, size: usize| u64::from(place.offset) + size as u64;
        let [table_end, pba_end] = [ends(table, sizes[0]), ends(pba, sizes[1])];
        if table.bar == pba.bar
            && u64::from(table.offset) < pba_end
            && u64::from(pba.offset) < table_end
        {
            return Err(Error::invalid("MSI-X table and PBA lie one over the other"));
        }
        Ok(())
    }
}

/// Of config space, the header that capabilities lie behind, and all that has room for them.
const HEADER_SIZE: u8 = 0x40;
const CONFIG_SIZE: usize = 0x100;
const LAST_BAR: u8 = 5;

/// A place in a device's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the base address register: 0 to 5.
    pub bar: u8,
    /// In bytes from its start; a multiple of 8.
    pub offset: u32,
}

/// Which bytes of a message were written since it last came into force: a bit each, of the address in bits 7:0, of the
/// data in bits 11:8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written(u16);

impl Written {
    pub const NONE: Written = Written(0);
    pub const ALL: Written = Written(0xFFF);
    const LOW: u16 = 0x00F;
    const HIGH: u16 = 0x0F0;
    const DATA: u16 = 0xF00;
    const DATA_16: u16 = 0x300;

    pub fn add(&mut self, byte: usize) {
        if byte < 12 {
            self.0 |= 1 << byte;
        }
    }

    /// All of it was: of the data 16 bits or 32, and of the address the high half too where that is part of a destination.
    pub fn is_whole(self, data_16: bool, with_high: bool) -> bool {
        let data = if data_16 { Self::DATA_16 } else { Self::DATA };
        let all = Self::LOW | data | if with_high { Self::HIGH } else { 0 };
        self.0 & all == all
    }

    pub fn to_bits(self) -> u16 {
        self.0
    }

    pub fn from_bits(bits: u16) -> Option<Self> {
        (bits <= Self::ALL.0).then_some(Written(bits))
    }
}

/// Whether an access to a table or PBA is one that PCI defines (6.8.2): aligned, of 4 or 8 bytes.
fn is_defined(offset: u64, len: usize, size: usize) -> bool {
    let (len, size) = (len as u64, size as u64);
    matches!(len, 4 | 8) && offset % len == 0 && offset < size && len <= size - offset
}

/// A capability as bytes: what is there, and which bits of it a guest can change.
pub(crate) struct Image<const N: usize> {
    pub bytes: [u8; N],
    pub writable: [u8; N],
}

impl<const N: usize> Image<N> {
    pub fn new() -> Self {
        Image { bytes: [0; N], writable: [0; N] }
    }

    pub fn put(&mut self, at: usize, value: &[u8], writable: &[u8]) {
        let places = self.bytes.iter_mut().zip(self.writable.iter_mut()).skip(at);
        for ((byte, mask), (value, bits)) in places.zip(value.iter().zip(writable)) {
            (*byte, *mask) = (*value, *bits);
        }
    }

    pub fn put_u16(&mut self, at: usize, value: u16, writable: u16) {
        self.put(at, &value.to_le_bytes(), &writable.to_le_bytes());
    }

    pub fn put_u32(&mut self, at: usize, value: u32, writable: u32) {
        self.put(at, &value.to_le_bytes(), &writable.to_le_bytes());
    }

    /// A write of `data` from byte `at` on; what is read-only stays.
    pub fn write(&mut self, at: usize, data: &[u8]) {
        let places = self.bytes.iter_mut().zip(&self.writable).skip(at);
        for ((byte, mask), new) in places.zip(data) {
            *byte = (*byte & !mask) | (new & mask);
        }
    }

    /// Errors: `EINVAL` if `bytes` are of another kind of capability, or its fixed fields say something else. Where its
    /// neighbours lie is not compared.
    pub fn check_same_capability(&self, bytes: &[u8]) -> Result<()> {
        let is_same = |at: usize| {
            let byte = |bytes: &[u8]| bytes.get(at).copied().unwrap_or(0);
            let fixed = !byte(&self.writable);
            byte(&self.bytes) & fixed == byte(bytes) & fixed
        };
        // Its number, and message control.
        if [0, 2, 3].into_iter().all(is_same) {
            return Ok(());
        }
        Err(Error::invalid("the registers are of another capability"))
    }

    pub fn u16_at(&self, at: usize) -> u16 {
        let mut value = [0; 2];
        copy(self.bytes.get(at..), &mut value);
        u16::from_le_bytes(value)
    }

    pub fn u32_at(&self, at: usize) -> u32 {
        let mut value = [0; 4];
        copy(self.bytes.get(at..), &mut value);
        u32::from_le_bytes(value)
    }
}

/// As many bytes as both have.
pub(crate) fn copy(from: Option<&[u8]>, to: &mut [u8]) {
    for (to, from) in to.iter_mut().zip(from.unwrap_or_default()) {
        *to = *from;
    }
}
