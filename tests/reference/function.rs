// SPDX-License-Identifier: MIT OR Apache-2.0
//! A function's registers: PCI 3.0, 6.8.1 (MSI) and 6.8.2 (MSI-X).
//!
//! Which message is in force: what stands in the registers; but while a vector goes on sending the old one, that, until
//! address and data both have been written.

/// Address and data.
pub type Message = (u64, u32);

/// Where the capability lies in config space, and the next one.
pub const CAPABILITY: usize = 0x60;
pub const NEXT: u8 = 0xA0;
/// Table and PBA: offset and BAR in one, as the capability says it.
pub const TABLE_PLACE: u32 = 0x1002;
pub const PBA_PLACE: u32 = 0x0803;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Msix,
    Msi { wide: bool, maskable: bool },
}

#[derive(Clone, Debug, Default)]
pub struct Vector {
    pub masked: bool,
    pub pending: bool,
}

/// A message's registers: of MSI-X one set a vector, of MSI one for all.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    address: [u8; 8],
    data: [u8; 4],
    /// MSI-X's vector control; the mask bit is the vector's.
    control: u32,
    in_force: Message,
    /// Since it came into force: bytes of the address's low half, and of the data.
    address_written: [bool; 4],
    data_written: [bool; 4],
}

impl Entry {
    pub fn set(&mut self, (address, data): Message) {
        (self.address, self.data) = (address.to_le_bytes(), data.to_le_bytes());
        (self.address_written, self.data_written) = ([true; 4], [true; 4]);
    }
}

#[derive(Clone, Debug)]
pub struct Function {
    pub kind: Kind,
    pub enabled: bool,
    pub function_masked: bool,
    pub bus_master: bool,
    pub vectors: Vec<Vector>,
    pub entries: Vec<Entry>,
    /// A message whose data is 0 is none.
    pub data0_off: bool,
    /// Of MSI: 2^mme messages are enabled.
    pub mme: u8,
}

impl Function {
    pub fn new(kind: Kind, vectors: usize, data0_off: bool) -> Self {
        let entries = if let Kind::Msi { .. } = kind { 1 } else { vectors };
        Function {
            kind,
            enabled: kind == Kind::Plain,
            function_masked: false,
            bus_master: true,
            vectors: vec![Vector { masked: kind == Kind::Msix, pending: false }; vectors],
            entries: vec![Entry::default(); entries],
            data0_off,
            mme: 0,
        }
    }

    pub fn is_msi(&self) -> bool {
        matches!(self.kind, Kind::Msi { .. })
    }

    fn mmc(&self) -> u8 {
        self.vectors.len().trailing_zeros() as u8
    }

    /// The message of a vector, if it has one: outside of 0xFEExxxxx there is none.
    pub fn message(&self, v: usize) -> Option<Message> {
        let (address, base) = self.entries[if self.is_msi() { 0 } else { v }].in_force;
        // The low bits of MSI's data say which vector it is.
        let (number, v) = (1 << self.mme, v as u32);
        let data = if self.is_msi() { base & !(number - 1) | v } else { base };
        let is_off = self.data0_off && (base == 0 || data == 0);
        let has = (!self.is_msi() || v < number) && address >> 20 == 0xFEE && !is_off;
        has.then_some((address, data))
    }

    /// The guest lets the vector send, whatever its message.
    fn may_send(&self, v: usize) -> bool {
        let allowed = self.enabled && !self.function_masked && !self.vectors[v].masked;
        allowed && (!self.is_msi() || v < 1 << self.mme)
    }

    pub fn live(&self, v: usize) -> Option<Message> {
        self.message(v).filter(|_| self.may_send(v))
    }

    /// A change of registers, at once; then the messages come into force that do.
    pub fn edit(&mut self, change: impl FnOnce(&mut Self)) {
        let all = 0..self.vectors.len();
        let before: Vec<bool> = all.clone().map(|v| self.may_send(v)).collect();
        change(self);
        let goes_on: Vec<bool> = all.clone().map(|v| before[v] && self.may_send(v)).collect();
        for e in 0..self.entries.len() {
            let its = if self.is_msi() { all.clone() } else { e..e + 1 };
            let entry = &mut self.entries[e];
            let data_bytes = if its.len() > 1 || self.kind != Kind::Msix { 2 } else { 4 };
            let data_written = &entry.data_written[..data_bytes];
            let is_whole = entry.address_written.iter().chain(data_written).all(|&it| it);
            if is_whole || !its.into_iter().any(|v| goes_on[v]) {
                let address = u64::from_le_bytes(entry.address);
                entry.in_force = (address, u32::from_le_bytes(entry.data));
                (entry.address_written, entry.data_written) = ([false; 4], [false; 4]);
            }
        }
    }

    // ---- MSI-X's table -------------------------------------------------------------------------

    pub fn table(&self) -> Vec<u8> {
        let entry = |(entry, vector): (&Entry, &Vector)| {
            let control = entry.control & !1 | u32::from(vector.masked);
            [&entry.address[..], &entry.data[..], &control.to_le_bytes()[..]].concat()
        };
        self.entries.iter().zip(&self.vectors).flat_map(entry).collect()
    }

    /// A write of whole, aligned dwords.
    pub fn write_table(&mut self, offset: usize, bytes: &[u8]) {
        for (at, dword) in (offset..).step_by(4).zip(bytes.chunks_exact(4)) {
            let (v, dword): (_, [u8; 4]) = (at / 16, dword.try_into().unwrap_or_default());
            let entry = &mut self.entries[v];
            match at % 16 {
                0 => {
                    (entry.address[..4].copy_from_slice(&dword), entry.address_written = [true; 4])
                        .1
                }
                4 => entry.address[4..].copy_from_slice(&dword),
                8 => (entry.data, entry.data_written) = (dword, [true; 4]),
                _ => {
                    entry.control = u32::from_le_bytes(dword);
                    self.vectors[v].masked = entry.control & 1 != 0;
                }
            }
        }
    }

    // ---- the capability ------------------------------------------------------------------------

    pub fn data_at(&self) -> usize {
        8 + if let Kind::Msi { wide: true, .. } = self.kind { 4 } else { 0 }
    }

    /// Its bytes; a plain function has none. `pending`: a bit a vector.
    pub fn capability(&self, pending: u32) -> Vec<u8> {
        match self.kind {
            Kind::Plain => Vec::new(),
            Kind::Msix => {
                let [low, high] = (self.vectors.len() as u16 - 1).to_le_bytes();
                let high = high | u8::from(self.enabled) << 7 | u8::from(self.function_masked) << 6;
                let places = [TABLE_PLACE.to_le_bytes(), PBA_PLACE.to_le_bytes()].concat();
                [&[0x11, NEXT, low, high], &places[..]].concat()
            }
            Kind::Msi { wide, maskable } => {
                let control = self.mme << 4 | self.mmc() << 1;
                let control = control | u8::from(wide) << 7 | u8::from(self.enabled);
                let mut bytes = vec![0x05, NEXT, control, u8::from(maskable)];
                bytes.extend(&self.entries[0].address[..if wide { 8 } else { 4 }]);
                bytes.extend(&self.entries[0].data[..2]);
                if maskable {
                    let masked = (0..).zip(&self.vectors);
                    let masked: u32 = masked.map(|(v, it)| u32::from(it.masked) << v).sum();
                    bytes.extend([0, 0]);
                    bytes.extend([masked.to_le_bytes(), pending.to_le_bytes()].concat());
                }
                bytes
            }
        }
    }

    /// A write of one of its bytes; those not named here are read-only.
    pub fn write_capability(&mut self, at: usize, byte: u8) {
        let (data, mask, mmc) = (self.data_at(), self.data_at() + 4, self.mmc());
        let entry = &mut self.entries[0];
        match self.kind {
            Kind::Msix if at == 3 => {
                (self.enabled, self.function_masked) = (byte & 0x80 != 0, byte & 0x40 != 0);
            }
            Kind::Msi { wide, maskable } => match at {
                2 => (self.enabled, self.mme) = (byte & 1 != 0, (byte >> 4 & 7).min(mmc)),
                4 => (entry.address[0], entry.address_written[0]) = (byte & !3, true),
                5..8 => (entry.address[at - 4], entry.address_written[at - 4]) = (byte, true),
                8..12 if wide => entry.address[at - 4] = byte,
                _ if at / 2 == data / 2 => {
                    (entry.data[at - data], entry.data_written[at - data]) = (byte, true);
                }
                _ if maskable && (mask..mask + 4).contains(&at) => {
                    let its = self.vectors.iter_mut().skip((at - mask) * 8).take(8);
                    its.enumerate().for_each(|(bit, it)| it.masked = byte >> bit & 1 != 0);
                }
                _ => {}
            },
            _ => {}
        }
    }

    /// These bits of its number and of Message Control say what capability it is.
    pub fn is_same_capability(&self, bytes: &[u8]) -> bool {
        let writable = if self.is_msi() { [0, 0, 0x71, 0] } else { [0, 0, 0, 0xC0] };
        let own = self.capability(0);
        [0, 2, 3].iter().all(|&at: &usize| (own[at] ^ bytes[at]) & !writable[at] == 0)
    }
}

/// An access to table or PBA that PCI defines: 4 or 8 bytes, aligned, inside.
pub fn is_defined(offset: u64, len: usize, size: usize) -> bool {
    let (len, size) = (len as u64, size as u64);
    (len == 4 || len == 8) && offset % len == 0 && offset < size && offset + len <= size
}

/// All ones where PCI defines nothing.
pub fn read(bytes: &[u8], offset: u64, len: usize) -> Vec<u8> {
    match is_defined(offset, len, bytes.len()) {
        true => bytes[offset as usize..][..len].to_vec(),
        false => vec![0xFF; len],
    }
}
