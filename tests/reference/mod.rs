// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference: what PCI says of MSI-X and MSI (`function`), and this library of eventfds, pauses and transactions
//! (here). Slow and plain, to be checked by eye; it shares nothing with the library.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::precedence,
    reason = "a test that cannot go on has failed; few vectors, small tables"
)]

pub mod function;

pub use function::{Function, Kind, Message, CAPABILITY, NEXT, PBA_PLACE, TABLE_PLACE};

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    Sent(Message),
    Pending,
    Disabled,
}

/// What the VMM is told: the enable bit changed; live vectors did, the first and the last of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub enable: bool,
    pub vectors: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Eventfd {
    /// Function and vector.
    pub owner: Option<(usize, usize)>,
    counted: bool,
    /// The kernel reads it, and sends this.
    pub armed: Option<Message>,
    /// Left armed where only the guest's masks are in the way: its source is silent then.
    pub at_source: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Vm {
    pub functions: Vec<Function>,
    /// Of each function.
    pub untold: Vec<Changed>,
    pub eventfds: Vec<Eventfd>,
    /// Begun and not committed.
    pub depth: u32,
    pub pauses: u32,
    /// In this step.
    pub sent: Vec<Message>,
}

impl Vm {
    pub fn new(functions: Vec<Function>, eventfds: usize) -> Self {
        Vm {
            untold: vec![Changed::default(); functions.len()],
            functions,
            eventfds: vec![Eventfd::default(); eventfds],
            ..Vm::default()
        }
    }

    pub fn open(&self, f: usize, v: usize) -> Option<Message> {
        let function = &self.functions[f];
        function.live(v).filter(|_| function.bus_master && self.pauses == 0)
    }

    pub fn eventfds_of(&self, f: usize, v: usize) -> Vec<usize> {
        (0..self.eventfds.len()).filter(|&fd| self.eventfds[fd].owner == Some((f, v))).collect()
    }

    pub fn is_pending(&self, f: usize, v: usize) -> bool {
        let counts = |&fd: &usize| self.eventfds[fd].armed.is_none() && self.eventfds[fd].counted;
        self.functions[f].vectors[v].pending || self.eventfds_of(f, v).iter().any(counts)
    }

    fn drain(&mut self, f: usize, v: usize) {
        self.functions[f].vectors[v].pending = false;
        for fd in self.eventfds_of(f, v) {
            self.eventfds[fd].counted = false;
        }
    }

    /// What follows from a step: eventfds of open vectors are armed, of others not, and what is pending is sent; in a
    /// transaction vectors with eventfds wait for its commit. What is told then, of each function.
    pub fn settle(&mut self) -> Vec<Changed> {
        for f in 0..self.functions.len() {
            (0..self.functions[f].vectors.len()).for_each(|v| self.settle_vector(f, v));
        }
        if self.depth > 0 || self.pauses > 0 {
            return vec![Changed::default(); self.functions.len()];
        }
        self.untold.iter_mut().map(std::mem::take).collect()
    }

    fn settle_vector(&mut self, f: usize, v: usize) {
        let (function, fds) = (&self.functions[f], self.eventfds_of(f, v));
        let Some(message) = self.open(f, v) else {
            let only_masked = function.enabled && function.bus_master && self.pauses == 0;
            let may_stay = only_masked && function.message(v).is_some();
            for fd in fds {
                let eventfd = &mut self.eventfds[fd];
                eventfd.armed = eventfd.armed.filter(|_| may_stay && eventfd.at_source);
            }
            return;
        };
        if self.depth > 0 && !fds.is_empty() {
            return;
        }
        if self.is_pending(f, v) {
            self.sent.push(message);
            self.drain(f, v);
        }
        fds.into_iter().for_each(|fd| self.eventfds[fd].armed = Some(message));
    }

    /// Notes what `change` changes of what the VMM is told.
    fn change(&mut self, f: usize, change: impl FnOnce(&mut Function)) {
        let (function, untold) = (&mut self.functions[f], &mut self.untold[f]);
        let live = |it: &Function| (0..it.vectors.len()).map(|v| it.live(v)).collect::<Vec<_>>();
        let (enabled, before) = (function.enabled, live(function));
        change(function);
        let after = live(function);
        untold.enable |= enabled != function.enabled;
        for v in (0..before.len()).filter(|&v| before[v] != after[v]) {
            let (first, last) = untold.vectors.unwrap_or((v, v));
            untold.vectors = Some((first.min(v), last.max(v)));
        }
    }

    // ---- the guest -----------------------------------------------------------------------------

    pub fn table_write(&mut self, f: usize, offset: u64, data: &[u8]) {
        if function::is_defined(offset, data.len(), self.functions[f].entries.len() * 16) {
            self.change(f, |it| it.edit(|it| it.write_table(offset as usize, data)));
        }
    }

    pub fn pba(&self, f: usize) -> Vec<u8> {
        let vectors = self.functions[f].vectors.len();
        let mut bytes = vec![0; vectors.div_ceil(64) * 8];
        (0..vectors).for_each(|v| bytes[v / 8] |= u8::from(self.is_pending(f, v)) << (v % 8));
        bytes
    }

    pub fn capability(&self, f: usize) -> Vec<u8> {
        let pending = self.pba(f)[..4].try_into().unwrap_or_default();
        self.functions[f].capability(u32::from_le_bytes(pending))
    }

    pub fn config_write(&mut self, f: usize, offset: usize, data: &[u8]) {
        let bytes = (offset..).zip(data).filter(|(at, _)| *at >= CAPABILITY);
        self.change(f, |it| {
            it.edit(|it| bytes.for_each(|(at, &byte)| it.write_capability(at - CAPABILITY, byte)));
        });
    }

    // ---- the VMM -------------------------------------------------------------------------------

    pub fn deliver(&mut self, f: usize, v: usize) -> Delivery {
        if !self.functions[f].enabled {
            return Delivery::Disabled;
        }
        let open = self.open(f, v);
        self.functions[f].vectors[v].pending = open.is_none();
        self.sent.extend(open);
        open.map_or(Delivery::Pending, Delivery::Sent)
    }

    pub fn signal(&mut self, fd: usize) {
        match self.eventfds[fd].armed {
            Some(message) => self.sent.push(message),
            None => self.eventfds[fd].counted = true,
        }
    }

    /// The source of an armed eventfd keeps silent: its vector is masked.
    pub fn holds_back(&self, fd: usize) -> bool {
        let Eventfd { owner, armed, .. } = self.eventfds[fd];
        armed.is_some() && owner.is_some_and(|(f, v)| self.open(f, v).is_none())
    }

    pub fn unbind(&mut self, fd: usize) {
        (self.eventfds[fd].owner, self.eventfds[fd].armed) = (None, None);
    }

    /// Of plain functions and MSI-X; (0, 0) is none.
    pub fn set(&mut self, f: usize, v: usize, message: Message) {
        self.change(f, |it| it.edit(|it| it.entries[v].set(message)));
    }

    pub fn set_masked(&mut self, f: usize, v: usize, masked: bool) {
        self.change(f, |it| it.edit(|it| it.vectors[v].masked = masked));
    }

    pub fn set_control(&mut self, f: usize, enabled: bool, function_masked: bool) {
        self.change(f, |it| {
            it.edit(|it| (it.enabled, it.function_masked) = (enabled, function_masked));
        });
    }

    /// Whether it was pending.
    pub fn clear_pending(&mut self, f: usize, v: usize) -> bool {
        let was = self.is_pending(f, v);
        self.drain(f, v);
        was
    }

    pub fn reset(&mut self, f: usize) {
        (0..self.functions[f].vectors.len()).for_each(|v| self.drain(f, v));
        self.change(f, |it| {
            let new = Function::new(it.kind, it.vectors.len(), it.data0_off);
            *it = Function { bus_master: it.bus_master, ..new };
        });
    }

    /// What eventfds have counted is saved as pending, and stays counted.
    pub fn save(&self, f: usize) -> Function {
        let mut saved = self.functions[f].clone();
        (0..saved.vectors.len()).for_each(|v| saved.vectors[v].pending = self.is_pending(f, v));
        saved
    }

    pub fn load(&mut self, f: usize, saved: &Function) {
        self.change(f, |it| *it = saved.clone());
    }

    /// Registers, all at once and in force at once; empty ones are left out. False, and nothing is changed, if they are
    /// another function's.
    pub fn import(&mut self, f: usize, capability: &[u8], table: &[u8], pba: &[u8]) -> bool {
        let function = &self.functions[f];
        let n = function.vectors.len();
        // Of MSI they are in the capability.
        let pending = match function.kind {
            Kind::Msi { maskable: true, .. } => {
                capability.get(function.data_at() + 8..).unwrap_or_default()
            }
            _ => pba,
        };
        let bit = |bytes: &[u8], v: usize| bytes[v / 8] >> (v % 8) & 1 != 0;
        if !capability.is_empty() && !function.is_same_capability(capability)
            || (n..pba.len() * 8).any(|v| bit(pba, v))
        {
            return false;
        }
        self.change(f, |it| {
            it.edit(|it| {
                (0..).zip(capability).for_each(|(at, &byte)| it.write_capability(at, byte));
                it.write_table(0, table);
            });
            if !pending.is_empty() {
                (0..n).for_each(|v| it.vectors[v].pending = bit(pending, v));
            }
        });
        true
    }
}
