// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reference: what the VMM and its guest have said, and so which messages vectors have, which are open, what stands
//! under which GSI. Which GSI a vector gets, and whether there is room for it, it does not say: that is checked in `check`
//! by rules. It shares nothing with the library.

use std::collections::{BTreeMap, BTreeSet};

use msiroute::message::NO_REQUESTER;

use super::step::{GuestMessage, Kind, Part, Shape, EVENTFDS};
use super::tap::{Message64, Table, Target};

/// Something is pending in a vector's own bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bit {
    No,
    Yes,
    /// After a failure it cannot always be told from its eventfds' counts.
    Maybe,
}

#[derive(Clone, Debug)]
pub struct Vector {
    pub message: Option<GuestMessage>,
    pub masked: bool,
    pub bit: Bit,
    /// Changed in the transaction that is open: its eventfds may be as before.
    pub staged: bool,
}

#[derive(Clone, Debug)]
pub struct Function {
    pub kind: Kind,
    pub requester: u32,
    pub enabled: bool,
    pub function_masked: bool,
    pub bus_master: bool,
    pub closed: bool,
    pub vectors: Vec<Vector>,
}

impl Function {
    pub fn new(part: Part) -> Self {
        let is_msix = part.kind == Kind::Msix;
        let vector = Vector { message: None, masked: is_msix, bit: Bit::No, staged: false };
        Function {
            kind: part.kind,
            requester: NO_REQUESTER,
            enabled: !is_msix,
            function_masked: false,
            bus_master: true,
            closed: false,
            vectors: vec![vector; part.vectors],
        }
    }

    pub fn pins(&self) -> std::ops::Range<u32> {
        match self.kind {
            Kind::Pins(first) => first..first + self.vectors.len() as u32,
            _ => 0..0,
        }
    }
}

/// What an explicit GSI has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub targets: Vec<Target>,
    pub alone: bool,
}

impl Route {
    /// Of its entries, those that are for the table: address 0 would reach APIC 0.
    pub fn live(&self) -> Vec<Target> {
        let is_live = |target: &&Target| match target {
            Target::Msi((address, ..)) => (address & 0xFFFF_FFFF) >> 20 == 0xFEE,
            _ => true,
        };
        self.targets.iter().filter(is_live).copied().collect()
    }
}

/// An explicit GSI; `now` without a route: removed, and not committed yet.
#[derive(Clone, Debug)]
pub struct Gsi {
    pub now: Option<Route>,
    /// If it was changed since the last commit.
    pub before: Option<Option<Route>>,
}

impl Gsi {
    pub fn remember(&mut self) {
        let now = &self.now;
        self.before.get_or_insert_with(|| now.clone());
    }

    /// What no commit has still to make live.
    pub fn committed(&self) -> Option<&Route> {
        self.before.as_ref().unwrap_or(&self.now).as_ref()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Nobody,
    Vector(usize, usize),
    Gsi(u32),
    /// It could not be unbound when its device was closed: it stays on its GSI for good.
    Lost,
}

#[derive(Clone, Copy, Debug)]
pub struct Eventfd {
    pub owner: Owner,
    /// Bound in the transaction that is open.
    pub is_new: bool,
    /// Signalled while the kernel did not read it.
    pub counted: bool,
}

#[derive(Clone, Debug)]
pub struct Vm {
    pub limit: u32,
    pub reserve: usize,
    pub requester_matters: bool,
    pub split: bool,
    pub x2apic_ids: bool,
    pub ext_dest_id: bool,
    pub functions: Vec<Function>,
    pub gsis: BTreeMap<u32, Gsi>,
    pub eventfds: Vec<Eventfd>,
    pub fixed: Vec<(u32, Target)>,
    /// Pins of a closed device that the kernel would not let go, and GSIs of lost eventfds.
    pub dead: BTreeSet<u32>,
    /// Of a failed commit, and the kernel would not take them back, until a commit goes well: what stands there.
    pub ghosts: BTreeMap<u32, Vec<Target>>,
    pub depth: u32,
    pub pauses: u32,
    /// Resumed in the transaction: explicit irqfds wait for the commit.
    pub resumed: bool,
    /// The kernel has refused something, and no commit has gone well since.
    pub trouble: bool,
    /// It has also refused to undo something.
    pub deep_trouble: bool,
}

impl Vm {
    pub fn new(shape: &Shape, limit: u32, defaults: &Table) -> Self {
        let fixed = defaults.iter().flat_map(|(&gsi, it)| it.iter().map(move |&it| (gsi, it)));
        Vm {
            limit,
            reserve: if shape.no_direct { 4 } else { 0 },
            requester_matters: shape.requester,
            split: shape.split,
            x2apic_ids: false,
            ext_dest_id: false,
            functions: shape.parts.iter().map(|&part| Function::new(part)).collect(),
            gsis: BTreeMap::new(),
            eventfds: vec![
                Eventfd { owner: Owner::Nobody, is_new: false, counted: false };
                EVENTFDS
            ],
            fixed: fixed.collect(),
            dead: BTreeSet::new(),
            ghosts: BTreeMap::new(),
            depth: 0,
            pauses: 0,
            resumed: false,
            trouble: false,
            deep_trouble: false,
        }
    }

    /// The guest's message in the kernel's form (Intel SDM 3A 11.11.1; KVM_FEATURE_MSI_EXT_DEST_ID).
    pub fn encode(&self, (address, data): GuestMessage, requester: u32) -> Option<Message64> {
        let (low, high) = (address & 0xFFFF_FFFF, address >> 32);
        let may_be_high = self.x2apic_ids && high & 0xFF == 0;
        if low >> 20 != 0xFEE || high != 0 && !may_be_high {
            return None;
        }
        let ext = if self.ext_dest_id && high == 0 { low >> 5 & 0x7F } else { 0 };
        let address = (address & !(ext << 5)) | ext << 40;
        Some((address, data, if self.requester_matters { requester } else { NO_REQUESTER }))
    }

    pub fn message(&self, f: usize, v: usize) -> Option<Message64> {
        let function = &self.functions[f];
        function.vectors[v].message.and_then(|message| self.encode(message, function.requester))
    }

    /// The message that may be sent now.
    pub fn open(&self, f: usize, v: usize) -> Option<Message64> {
        let function = &self.functions[f];
        let is_open = function.enabled
            && !function.function_masked
            && function.bus_master
            && !function.closed
            && !function.vectors[v].masked
            && self.pauses == 0;
        self.message(f, v).filter(|_| is_open)
    }

    pub fn eventfds_of(&self, owner: Owner) -> Vec<usize> {
        (0..EVENTFDS).filter(|&e| self.eventfds[e].owner == owner).collect()
    }

    pub fn vectors(&self) -> Vec<(usize, usize)> {
        let of = |f: usize| (0..self.functions[f].vectors.len()).map(move |v| (f, v));
        (0..self.functions.len()).flat_map(of).collect()
    }

    /// The vectors of a function were changed: in a transaction their eventfds follow at its commit.
    pub fn touch(&mut self, f: usize) {
        let depth = self.depth;
        self.functions[f].vectors.iter_mut().for_each(|vector| vector.staged |= depth > 0);
    }

    pub fn touch_one(&mut self, f: usize, v: usize) {
        self.functions[f].vectors[v].staged |= self.depth > 0;
    }

    /// Pins of devices that there are.
    pub fn pins(&self) -> impl Iterator<Item = (u32, (usize, usize))> + '_ {
        let of = |f: usize| self.functions[f].pins().zip(0..).map(move |(gsi, v)| (gsi, (f, v)));
        (0..self.functions.len()).filter(|&f| !self.functions[f].closed).flat_map(of)
    }

    pub fn is_fixed(&self, gsi: u32) -> bool {
        self.fixed.iter().any(|(fixed, _)| *fixed == gsi)
    }

    /// GSIs that are somebody's, whatever is in the table.
    pub fn owned(&self) -> BTreeSet<u32> {
        let fixed = self.fixed.iter().map(|(gsi, _)| *gsi);
        let pins = self.pins().map(|(gsi, _)| gsi);
        let explicit = self.gsis.keys().copied();
        let others = self.dead.iter().chain(self.ghosts.keys()).copied();
        fixed.chain(pins).chain(explicit).chain(others).collect()
    }

    // ---- explicit routes' commits --------------------------------------------------------------

    /// All that was staged is live.
    pub fn committed(&mut self) {
        self.gsis.values_mut().for_each(|gsi| gsi.before = None);
        self.gsis.retain(|_, gsi| gsi.now.is_some());
        self.eventfds.iter_mut().for_each(|eventfd| eventfd.is_new = false);
    }

    /// Nothing of it is; but what was removed or unbound stays so.
    pub fn taken_back(&mut self) {
        for gsi in self.gsis.values_mut() {
            match gsi.before.take() {
                Some(before) if gsi.now.is_some() => gsi.now = before,
                _ => {}
            }
        }
        self.gsis.retain(|_, gsi| gsi.now.is_some());
        for eventfd in self.eventfds.iter_mut().filter(|eventfd| eventfd.is_new) {
            (eventfd.owner, eventfd.is_new) = (Owner::Nobody, false);
        }
    }

    pub fn has_staged(&self) -> bool {
        self.gsis.values().any(|gsi| gsi.before.is_some())
    }

    /// The kernel would refuse what a GSI is to have.
    pub fn is_bad(&self, gsi: u32) -> bool {
        let Some(route) = self.gsis.get(&gsi).and_then(|gsi| gsi.now.as_ref()) else {
            return false;
        };
        let is_unused = route.alone && self.eventfds_of(Owner::Gsi(gsi)).is_empty();
        let is_bad = |target: &Target| match target {
            Target::Msi(_) => false,
            Target::Pin { .. } => self.split,
            Target::Unknown => true,
        };
        !is_unused && route.targets.iter().any(is_bad)
    }
}
