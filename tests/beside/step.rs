// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps, and how eight bytes become one: so proptest and a fuzzer make the same programs.

use crate::reference::{Kind, Message, CAPABILITY};

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub kind: Kind,
    pub vectors: usize,
    pub data0_off: bool,
}

/// What a program runs on.
#[derive(Clone, Debug)]
pub struct Shape {
    pub parts: Vec<Part>,
    pub no_direct: bool,
    /// Only messages that a real APIC shows in its IRR.
    pub tame: bool,
}

/// What a property is tried with.
#[derive(Clone)]
pub struct Program {
    pub shape: Shape,
    pub steps: Vec<Step>,
}

/// A line a step.
impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}", self.shape)?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{at}: {step:x?}"))
    }
}

/// One thing done. `f` is the device, `v` the vector.
#[derive(Clone, Debug)]
pub enum Step {
    TableWrite {
        f: usize,
        offset: u64,
        data: Vec<u8>,
    },
    TableRead {
        f: usize,
        offset: u64,
        len: usize,
    },
    PbaRead {
        f: usize,
        offset: u64,
        len: usize,
    },
    PbaWrite {
        f: usize,
    },
    ConfigWrite {
        f: usize,
        offset: u32,
        data: Vec<u8>,
    },
    ConfigRead {
        f: usize,
        offset: u32,
        len: usize,
    },
    Deliver {
        f: usize,
        v: usize,
    },
    Signal {
        eventfd: usize,
        times: u64,
    },
    Bind {
        f: usize,
        v: usize,
        eventfd: usize,
    },
    Unbind {
        f: usize,
        v: usize,
        eventfd: usize,
    },
    UnbindAll {
        f: usize,
        v: usize,
    },
    Set {
        f: usize,
        v: usize,
        message: Message,
    },
    Clear {
        f: usize,
        v: usize,
    },
    SetMasked {
        f: usize,
        v: usize,
        masked: bool,
    },
    ClearPending {
        f: usize,
        v: usize,
    },
    SetControl {
        f: usize,
        enabled: bool,
        function_masked: bool,
    },
    BusMaster {
        f: usize,
        on: bool,
    },
    Reset {
        f: usize,
    },
    Save {
        f: usize,
    },
    /// What was saved last.
    Load {
        f: usize,
    },
    /// Too short, or too long.
    LoadBad {
        f: usize,
        at: usize,
        value: u8,
    },
    Export {
        f: usize,
    },
    /// What was exported last: the parts that bits of `which` say.
    Import {
        f: usize,
        which: u8,
        flip: usize,
    },
    /// Everything is saved, and loaded into new devices on a new cache.
    Migrate,
    Pause,
    Resume,
    Begin,
    Commit,
}

/// Few, so that vectors share routes; a destination each, so that a torn message is seen.
const LOW: [u32; 8] =
    [0xFEE0_0000, 0xFEE0_1000, 0xFEE0_0000, 0xFEE0_1000, 0xFEE0_1000, 0xFEE0_7000, 0xFED0_0000, 0];
const DATA: [u32; 8] = [0x41, 0x62, 0x83, 0xA4, 0x41, 0x62, 0xC5, 0];

/// Bytes, the lowest first.
struct Bytes(u64);

impl Bytes {
    fn byte(&mut self) -> u8 {
        let byte = self.0 as u8;
        self.0 >>= 8;
        byte
    }

    fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    fn pick<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[self.below(N)]
    }

    /// Nearly always so.
    fn mostly(&mut self, so: bool) -> bool {
        so ^ (self.byte() >= 0xD0)
    }
}

/// A fuzzer's bytes as words; what is left over is left out.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    bytes.chunks_exact(8).map(word)
}

impl Shape {
    /// A step a word.
    pub fn program(self, words: impl IntoIterator<Item = u64>) -> Program {
        let steps = words.into_iter().map(|word| self.step(word)).collect();
        Program { shape: self, steps }
    }

    pub fn step(&self, word: u64) -> Step {
        let mut from = Bytes(word);
        let what = from.byte();
        let f = from.below(self.parts.len());
        let n = self.parts[f].vectors;
        // Now and then one that there is not.
        let v = match from.byte() {
            0xFF => n,
            byte => usize::from(byte) % n,
        };
        let eventfd = from.below(super::EVENTFDS);
        match what {
            0..=71 => self.guest_write(f, v.min(n - 1), from.0),
            72..=79 => self.wild_access(f, word >> 16),
            80..=107 => Step::Deliver { f, v },
            108..=135 => Step::Signal { eventfd, times: u64::from(from.byte() % 3) + 1 },
            136..=151 => Step::Bind { f, v, eventfd },
            152..=157 => Step::Unbind { f, v, eventfd },
            158..=159 => Step::UnbindAll { f, v },
            160..=169 => Step::SetMasked { f, v, masked: from.byte() & 3 == 0 },
            170..=177 => Step::Set { f, v, message: self.message(&mut from) },
            178..=179 => Step::Clear { f, v },
            180..=185 => Step::ClearPending { f, v },
            186..=193 => {
                let function_masked = !from.mostly(true);
                Step::SetControl { f, enabled: from.mostly(true), function_masked }
            }
            194..=199 => Step::BusMaster { f, on: from.mostly(true) },
            200..=202 => Step::Reset { f },
            203..=207 => Step::Save { f },
            208..=212 => Step::Load { f },
            213 => Step::LoadBad { f, at: from.below(256), value: from.byte() },
            214..=217 => Step::Export { f },
            218..=221 => {
                let (which, flip) = (from.byte(), from.below(256));
                // Any message, then: not what every APIC shows.
                Step::Import { f, which, flip: if self.tame { usize::MAX } else { flip } }
            }
            222..=223 => Step::Migrate,
            224..=229 => Step::Pause,
            230..=239 => Step::Resume,
            240..=245 => Step::Begin,
            246..=255 => Step::Commit,
        }
    }

    fn message(&self, from: &mut Bytes) -> Message {
        let (low, high) = (from.pick(LOW), u32::from(from.byte() >= 0xE0));
        (u64::from(high) << 32 | u64::from(low), self.no_zero(from.pick(DATA)))
    }

    fn no_zero(&self, data: u32) -> u32 {
        match data {
            0 if self.tame => 0x41,
            data => data,
        }
    }

    /// As a driver does it.
    fn guest_write(&self, f: usize, v: usize, rest: u64) -> Step {
        let mut from = Bytes(rest);
        let config = |at: usize, data: &[u8]| Step::ConfigWrite {
            f,
            offset: (CAPABILITY + at) as u32,
            data: data.to_vec(),
        };
        let table = |at: usize, data: &[u8]| Step::TableWrite {
            f,
            offset: (v * 16 + at) as u64,
            data: data.to_vec(),
        };
        let (field, message, rest) = (from.below(16), from.byte(), from.byte());
        let low = LOW[usize::from(message & 7)];
        let high = u32::from(message >= 0xE0);
        let data = self.no_zero(DATA[usize::from(message >> 3 & 7)]);
        let both = (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
        let (low, high) = (low.to_le_bytes(), high.to_le_bytes());
        match self.parts[f].kind {
            Kind::Plain => Step::Set { f, v, message: (u64::from_le_bytes(both), data) },
            Kind::Msix => {
                // Reserved bits of vector control are set now and then.
                let vector_control = u32::from(rest & 3 == 0) | u32::from(rest & 0xC0) << 8;
                let control =
                    if rest < 0xE0 { 0x80 } else { 0 } | if rest & 7 == 0 { 0x40 } else { 0 };
                match field {
                    0..=2 => table(0, &low),
                    3 => table(4, &high),
                    4..=6 => table(8, &data.to_le_bytes()),
                    7 => table(0, &both),
                    8 => {
                        table(8, &(u64::from(vector_control) << 32 | u64::from(data)).to_le_bytes())
                    }
                    9..=12 => table(12, &vector_control.to_le_bytes()),
                    13 => config(0, &[0, 0, 0, control]),
                    14 => config(2, &[0xFF, control]),
                    _ => config(3, &[control]),
                }
            }
            Kind::Msi { wide, maskable } => {
                let data_at = if wide { 12 } else { 8 };
                let control = u8::from(rest < 0xE0) | (rest % 6) << 4;
                let masks = match rest % 4 {
                    0 => 0,
                    1 => u32::MAX,
                    2 => 1 << v,
                    _ => u32::from_le_bytes([rest, !rest, rest, rest >> 1]),
                };
                let [data_low, data_high, ..] = data.to_le_bytes();
                match field {
                    0..=2 => config(2, &[control, 0]),
                    3 => config(2, &[control]),
                    4..=6 => config(4, &low),
                    7 if wide => config(8, &high),
                    8 if wide => config(4, &both),
                    7..=8 => config(2, &[control, 0, low[0], low[1], low[2], low[3]]),
                    9..=11 => config(data_at, &[data_low, data_high]),
                    12 => config(data_at, &[data_low, data_high, 0xFF, 0xFF]),
                    13..=14 if maskable => config(data_at + 4, &masks.to_le_bytes()),
                    15 if maskable => config(data_at + 4 + usize::from(rest % 4), &[rest]),
                    _ => config(data_at, &[data_low]),
                }
            }
        }
    }

    /// Any offset, any length.
    fn wild_access(&self, f: usize, rest: u64) -> Step {
        let mut from = Bytes(rest);
        let (what, len) = (from.below(6), from.pick([1, 2, 4, 8, 4, 8, 3, 5, 7, 16, 24, 0]));
        let at = u64::from(from.byte()) | u64::from(from.byte() & 3) << 8;
        let size = (self.parts[f].vectors * 16) as u64;
        let near = at % (size + 32);
        let offset = if at & 0x1F == 0x1F { u64::MAX - near } else { near };
        let config = (CAPABILITY as u64 + at % 48 - 12) as u32;
        // Two bytes, again and again.
        let bytes = [from.byte(), from.byte()];
        let data: Vec<u8> = bytes.into_iter().cycle().take(len).collect();
        match what {
            0 | 1 if !self.tame => Step::ConfigWrite { f, offset: config, data },
            2 if !self.tame => Step::TableWrite { f, offset, data },
            3 => Step::PbaWrite { f },
            0 | 1 => Step::ConfigRead { f, offset: config, len },
            2 | 4 => Step::TableRead { f, offset, len },
            _ => Step::PbaRead { f, offset, len },
        }
    }
}
