// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps of a scenario, and how eight bytes become one. A new kind of step: a variant here, a range of bytes in
//! [`Shape::step`], and what it does to both sides in `apply`.

use super::tap::{Plan, Target};
use msiroute::message::NO_REQUESTER;

/// Eventfds that there are.
pub const EVENTFDS: usize = 10;
/// The lowest GSI that the library takes by itself.
pub const FIRST_GSI: u32 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Msix,
    /// From this GSI on.
    Pins(u32),
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub kind: Kind,
    pub vectors: usize,
}

/// What a scenario runs on.
#[derive(Clone, Debug)]
pub struct Shape {
    pub parts: Vec<Part>,
    /// No IRQCHIP entries.
    pub split: bool,
    pub no_direct: bool,
    /// The requester is part of a message.
    pub requester: bool,
    /// 0: as many as there are.
    pub max_routes: u32,
    /// A hundred messages instead of a handful.
    pub many: bool,
    /// Only what a real APIC shows in its IRR.
    pub tame: bool,
}

/// What a property is tried with.
#[derive(Clone)]
pub struct Scenario {
    pub shape: Shape,
    pub steps: Vec<Step>,
}

/// A line a step.
impl std::fmt::Debug for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:?}", self.shape)?;
        self.steps.iter().enumerate().try_for_each(|(at, step)| writeln!(f, "{at}: {step:x?}"))
    }
}

/// Address and data, as a guest writes them.
pub type GuestMessage = (u64, u32);

/// One thing done. `f` is the device, `v` the vector, `e` the eventfd.
#[derive(Clone, Debug)]
pub enum Step {
    Set {
        f: usize,
        v: usize,
        message: GuestMessage,
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
    /// As a driver does it, in the table: mask, message, vector control.
    Program {
        f: usize,
        v: usize,
        message: GuestMessage,
        masked: bool,
    },
    Control {
        f: usize,
        enabled: bool,
        function_masked: bool,
    },
    BusMaster {
        f: usize,
        on: bool,
    },
    Requester {
        f: usize,
        requester: u32,
    },
    Reset {
        f: usize,
    },
    Close {
        f: usize,
    },
    /// In the place of a closed one.
    Open {
        f: usize,
    },
    Deliver {
        f: usize,
        v: usize,
    },
    ClearPending {
        f: usize,
        v: usize,
    },
    Signal {
        e: usize,
        times: u64,
    },
    Bind {
        f: usize,
        v: usize,
        e: usize,
    },
    Unbind {
        f: usize,
        v: usize,
        e: usize,
    },
    Add {
        target: Target,
        gsi: Option<u32>,
        alone: bool,
    },
    Update {
        gsi: u32,
        target: Target,
    },
    Remove {
        gsi: u32,
    },
    BindGsi {
        gsi: u32,
        e: usize,
    },
    UnbindGsi {
        gsi: u32,
        e: usize,
    },
    Message {
        message: GuestMessage,
        requester: u32,
    },
    Fixed {
        which: usize,
    },
    Addressing {
        x2apic_ids: bool,
        ext_dest_id: bool,
    },
    Pause,
    Resume,
    Begin,
    Commit,
    /// From here on the kernel refuses this.
    Plan(Plan),
}

const APIC: u64 = 0xFEE0_0000;
/// An APIC each; nobody's; no message; one only with 32-bit IDs; another one with 15-bit destinations.
const ADDRESSES: [u64; 8] = [
    APIC,
    APIC + 0x1000,
    APIC,
    APIC + 0x1000,
    APIC + 0x7000,
    0xFED0_0000,
    0x100 << 32 | APIC,
    APIC + 0x20,
];
const TAME_ADDRESSES: [u64; 8] =
    [APIC, APIC + 0x1000, APIC, APIC + 0x1000, APIC, APIC + 0x1000, APIC, 0xFED0_0000];
const DATA: [u32; 8] = [0x41, 0x62, 0x83, 0xA4, 0xC5, 0x46, 0x67, 0x88];
/// Different chips, so that they may share a GSI.
const PINS: [Target; 3] = [
    Target::Pin { chip: 0, pin: 3 },
    Target::Pin { chip: 1, pin: 3 },
    Target::Pin { chip: 2, pin: 7 },
];

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
}

/// The same words for the same seed.
pub fn words(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        // splitmix64
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    })
}

impl Shape {
    /// A step a word.
    pub fn scenario(self, words: impl IntoIterator<Item = u64>) -> Scenario {
        let steps = words.into_iter().map(|word| self.step(word)).collect();
        Scenario { shape: self, steps }
    }

    pub fn step(&self, word: u64) -> Step {
        let mut from = Bytes(word);
        let what = from.byte();
        let f = from.below(self.parts.len());
        let v = from.below(self.parts[f].vectors);
        let e = from.below(EVENTFDS);
        match what {
            0..=19 => Step::Set { f, v, message: self.message(&mut from) },
            20..=23 => Step::Clear { f, v },
            24..=37 => Step::SetMasked { f, v, masked: from.byte() & 3 == 0 },
            38..=57 => {
                let message = self.message(&mut from);
                Step::Program { f, v, message, masked: from.byte() & 3 == 0 }
            }
            58..=67 => {
                let bits = from.byte();
                Step::Control { f, enabled: bits > 0x20, function_masked: bits & 7 == 0 }
            }
            68..=70 => Step::BusMaster { f, on: from.byte() > 0x50 },
            71..=73 => Step::Requester { f, requester: from.below(3) as u32 },
            74..=75 => Step::Reset { f },
            76..=77 => Step::Close { f },
            78..=82 => Step::Open { f },
            83..=94 => Step::Deliver { f, v },
            95..=96 => Step::ClearPending { f, v },
            97..=124 => Step::Signal { e, times: 1 + from.below(3) as u64 },
            125..=154 => Step::Bind { f, v, e },
            155..=160 => Step::Unbind { f, v, e },
            161..=176 => {
                let gsi = (from.byte() & 1 != 0).then(|| gsi(&mut from));
                let target = self.target(&mut from);
                Step::Add { target, gsi, alone: from.byte() & 3 == 0 }
            }
            177..=184 => Step::Update { gsi: gsi(&mut from), target: self.target(&mut from) },
            185..=189 => Step::Remove { gsi: gsi(&mut from) },
            190..=201 => Step::BindGsi { gsi: gsi(&mut from), e },
            202..=205 => Step::UnbindGsi { gsi: gsi(&mut from), e },
            206..=213 => {
                let message = self.message(&mut from);
                Step::Message { message, requester: from.below(3) as u32 }
            }
            214..=217 => Step::Fixed { which: from.below(7) },
            218..=220 => {
                let bits = from.byte();
                Step::Addressing { x2apic_ids: bits & 3 != 0, ext_dest_id: bits & 7 > 4 }
            }
            221..=224 => Step::Pause,
            225..=231 => Step::Resume,
            232..=239 => Step::Begin,
            240..=255 => Step::Commit,
        }
    }

    fn message(&self, from: &mut Bytes) -> GuestMessage {
        let at = from.below(8);
        let address = if self.tame { TAME_ADDRESSES[at] } else { ADDRESSES[at] };
        let data = from.below(100);
        (address, if self.many { 0x30 + data as u32 } else { DATA[data % 8] })
    }

    /// One in eight is of a kind that the kernel refuses.
    fn target(&self, from: &mut Bytes) -> Target {
        match from.below(16) {
            0..=8 => {
                let (address, data) = self.message(from);
                Target::Msi((address & 0xFFFF_F000, data, NO_REQUESTER))
            }
            9 => Target::Msi((0, 0, NO_REQUESTER)),
            10..=14 => PINS[from.below(3)],
            _ => Target::Unknown,
        }
    }
}

/// Mostly where the library takes them, too; now and then a fixed one, or one that there is not.
fn gsi(from: &mut Bytes) -> u32 {
    match from.byte() {
        byte @ 0..=219 => FIRST_GSI + u32::from(byte) % 10,
        byte @ 220..=249 => 3 + u32::from(byte) % 3,
        byte => 4094 + u32::from(byte) % 4,
    }
}
