// SPDX-License-Identifier: MIT OR Apache-2.0
//! MSI-X (PCI 3.0, 6.8.2): table, pending bit array, capability.

use super::{copy, is_defined, Capability, Image, Written};
use crate::error::Result;
use crate::memory;
use crate::message::GuestMessage;

/// Of the capability, in bytes.
pub(crate) const CAPABILITY_SIZE: usize = 12;
/// Of a table entry, in bytes: address low and high, data, vector control.
pub(crate) const ENTRY_SIZE: usize = 16;
/// Vector control's mask bit; the others are reserved, and read back as written.
const MASKED: u32 = 1 << 0;

const CAPABILITY_ID: u8 = 0x11;
const MESSAGE_CONTROL: usize = 2;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// A table entry but for its mask bit, which is the vector's.
#[derive(Clone, Copy, Default)]
struct Entry {
    /// Address low and high, data, vector control.
    words: [u32; 4],
    written: Written,
}

// What an MSI-X vector costs beside the vector itself.
const _: () = assert!(size_of::<Entry>() <= 20);

pub(crate) struct Table(Box<[Entry]>);

/// What a guest wrote.
pub(crate) struct TableWrite {
    pub index: u32,
    /// Vector control was written: the mask bit.
    pub masked: Option<bool>,
}

impl Table {
    pub fn new(vectors: u32) -> Result<Self> {
        memory::collect((0..vectors).map(|_| Entry::default())).map(Table)
    }

    fn size(&self) -> usize {
        self.0.len().saturating_mul(ENTRY_SIZE)
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        self.0.get(index as usize)
    }

    fn entry_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.0.get_mut(index as usize)
    }

    /// What stands in the entry.
    pub fn message(&self, index: u32) -> GuestMessage {
        let [low, high, data, _] = self.entry(index).map_or([0; 4], |entry| entry.words);
        GuestMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }

    /// A whole message at once.
    pub fn set_message(&mut self, index: u32, message: GuestMessage) {
        if let Some(entry) = self.entry_mut(index) {
            let [low, high, data, _] = &mut entry.words;
            #[expect(clippy::cast_possible_truncation, reason = "the low half is what is meant")]
            {
                *low = message.address as u32;
            }
            (*high, *data) = ((message.address >> 32) as u32, message.data);
        }
        self.settle(index);
    }

    /// All of the message was written since it last came into force; `with_high`: the address's high half counts.
    pub fn is_whole(&self, index: u32, with_high: bool) -> bool {
        self.written(index).is_whole(false, with_high)
    }

    /// The message has come into force.
    pub fn settle(&mut self, index: u32) {
        self.set_written(index, Written::NONE);
    }

    pub fn written(&self, index: u32) -> Written {
        self.entry(index).map_or(Written::NONE, |entry| entry.written)
    }

    pub fn set_written(&mut self, index: u32, written: Written) {
        if let Some(entry) = self.entry_mut(index) {
            entry.written = written;
        }
    }

    /// Vector control as the guest reads it.
    pub fn control(&self, index: u32, masked: bool) -> u32 {
        let [.., control] = self.entry(index).map_or([0; 4], |entry| entry.words);
        (control & !MASKED) | u32::from(masked)
    }

    /// Whether this masks the vector.
    pub fn set_control(&mut self, index: u32, value: u32) -> bool {
        if let Some(Entry { words: [.., control], .. }) = self.entry_mut(index) {
            *control = value;
        }
        value & MASKED != 0
    }

    /// A whole entry, as another has saved it. Whether it masks the vector.
    pub fn import(&mut self, index: u32, bytes: &[u8]) -> bool {
        let Some(entry) = self.entry_mut(index) else { return true };
        for (word, bytes) in entry.words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = bytes.try_into().map_or(0, u32::from_le_bytes);
        }
        entry.written = Written::ALL;
        let [.., control] = entry.words;
        control & MASKED != 0
    }

    /// All of the function's registers as after a reset.
    pub fn reset(&mut self) {
        self.0.fill(Entry::default());
    }

    /// All ones where PCI defines nothing.
    pub fn read(&self, offset: u64, out: &mut [u8], is_masked: impl Fn(u32) -> bool) {
        out.fill(0xFF);
        if !is_defined(offset, out.len(), self.size()) {
            return;
        }
        let Some((index, field)) = place(offset) else { return };
        copy(self.entry_bytes(index, is_masked(index)).get(field..), out);
    }

    pub fn entry_bytes(&self, index: u32, masked: bool) -> [u8; ENTRY_SIZE] {
        let mut bytes = [0; ENTRY_SIZE];
        let [low, high, data, _] = self.entry(index).map_or([0; 4], |entry| entry.words);
        let words = [low, high, data, self.control(index, masked)];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// `None`, and nothing is written, where PCI defines nothing.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<TableWrite> {
        if !is_defined(offset, data.len(), self.size()) {
            return None;
        }
        let (index, field) = place(offset)?;
        let entry = self.entry_mut(index)?;
        let mut masked = None;
        for (at, bytes) in (field / 4..).zip(data.chunks_exact(4)) {
            let word = u32::from_le_bytes(bytes.try_into().ok()?);
            *entry.words.get_mut(at)? = word;
            match at {
                0..3 => (at * 4..at * 4 + 4).for_each(|byte| entry.written.add(byte)),
                _ => masked = Some(word & MASKED != 0),
            }
        }
        Some(TableWrite { index, masked })
    }
}

/// Which entry, and where in it.
fn place(offset: u64) -> Option<(u32, usize)> {
    let entry = ENTRY_SIZE as u64;
    Some((u32::try_from(offset / entry).ok()?, usize::try_from(offset % entry).ok()?))
}

/// Of the pending bit array, in bytes: whole 64-bit words.
pub(crate) fn pba_size(vectors: u32) -> usize {
    vectors.div_ceil(64) as usize * 8
}

/// Which vectors' pending bits an access reads: `None`, and it reads all ones, where PCI defines nothing.
pub(crate) fn pba_read(vectors: u32, offset: u64, len: usize) -> Option<std::ops::Range<u32>> {
    if !is_defined(offset, len, pba_size(vectors)) {
        return None;
    }
    let first = u32::try_from(offset).ok()?.checked_mul(8)?;
    let end = u32::try_from(len).ok()?.checked_mul(8)?.checked_add(first)?;
    Some(first.min(vectors)..end.min(vectors))
}

/// The capability, as bytes.
pub(crate) fn capability(
    place: &Capability,
    vectors: u32,
    enabled: bool,
    function_masked: bool,
) -> Image<CAPABILITY_SIZE> {
    let mut image = Image::new();
    let mut control = u16::try_from(vectors.saturating_sub(1)).unwrap_or(u16::MAX) & 0x7FF;
    control |= if enabled { ENABLE } else { 0 };
    control |= if function_masked { FUNCTION_MASK } else { 0 };
    image.put(0, &[CAPABILITY_ID, place.next], &[0, 0]);
    image.put_u16(MESSAGE_CONTROL, control, ENABLE | FUNCTION_MASK);
    image.put_u32(4, place.table.offset | u32::from(place.table.bar), 0);
    image.put_u32(8, place.pba.offset | u32::from(place.pba.bar), 0);
    image
}

/// Enabled, and function masked.
pub(crate) fn control_of(image: &Image<CAPABILITY_SIZE>) -> (bool, bool) {
    let control = image.u16_at(MESSAGE_CONTROL);
    (control & ENABLE != 0, control & FUNCTION_MASK != 0)
}
