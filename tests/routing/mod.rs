// SPDX-License-Identifier: MIT OR Apache-2.0
//! The routing table beside a reference: random scenarios of devices, eventfds, explicit routes, fixed routes and
//! transactions are done to both; then all is compared that can be seen of the table, of irqfds and of messages.
//!
//! [`step`]: scenarios; [`reference`]: what should be; [`tap`]: what the kernel was told, and faults; [`apply`]: a step
//! done to both; [`check`]: the comparison; [`account`]: every event arrives once; [`machine`]: the model below; [`on_kvm`]: a VM;
//! [`minimal`]: a failing scenario made short.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed; not every user uses all; few vectors"
)]

mod account;
mod apply;
mod check;
mod explicit;
#[cfg(target_arch = "x86_64")]
#[path = "../lapic/mod.rs"]
pub mod lapic;
pub mod machine;
pub mod minimal;
#[cfg(target_arch = "x86_64")]
pub mod on_kvm;
pub mod reference;
pub mod seeded;
pub mod step;
pub mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use msiroute::backend::Host;
use msiroute::explicit::ExplicitRoutes;
use msiroute::{Config, Device, DeviceConfig, Result, RouteCache};
use vmm_sys_util::eventfd::EventFd;

use machine::Machine;
use reference::{Owner, Vm};
use step::{Kind, Part, Scenario, Step, EVENTFDS};
use tap::{Message64, Plan, Table, Tap, Target};

/// What the kernel has been told.
#[derive(Clone)]
pub struct Seen {
    table: Arc<Table>,
    /// By eventfd, the GSI.
    irqfds: BTreeMap<usize, u32>,
}

/// Who has what of the table.
#[derive(Default)]
pub struct Ground {
    /// GSIs of routes that the library made for vectors' messages.
    of_vectors: BTreeSet<u32>,
    /// Of these, those that no irqfd stands on.
    idle: BTreeSet<u32>,
    /// For how many more routes.
    room: usize,
    lowest_free: Option<u32>,
}

/// What a step must send, and what it may send besides.
#[derive(Default)]
pub struct Expected {
    pub sure: Vec<Message64>,
    pub maybe: Vec<Message64>,
}

pub struct Rig<M: Machine> {
    machine: M,
    shape: step::Shape,
    tap: Arc<Tap>,
    // Before the cache, so that it is let go first.
    explicit: Arc<ExplicitRoutes>,
    devices: Vec<Arc<Device>>,
    cache: Arc<RouteCache>,
    eventfds: Vec<EventFd>,
    ids: Vec<u64>,
    vm: Vm,
    before: Seen,
    ground_before: Ground,
    ground: Ground,
    /// The messages that could be sent before the step, where they may still be sent in it: a call that goes from
    /// device to device may serve one that it has not come to yet.
    open_before: BTreeMap<(usize, usize), Message64>,
    expected: Expected,
    /// Vectors that the step's call says are served.
    claimed: Vec<(usize, usize)>,
    /// By eventfd: where it was to lead, of a GSI whose commit failed.
    undone: BTreeMap<usize, Vec<Target>>,
}

/// Says where it was if the test fails here.
struct Here<'a>(usize, &'a Step);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !minimal::is_quiet() {
            eprintln!("at {}: {:x?}", self.0, self.1);
        }
    }
}

fn fd(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: open as long as the EventFd.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, errno: i32) {
    assert_eq!(result.map_err(|e| e.errno()).unwrap_err(), errno);
}

fn new_device(cache: &Arc<RouteCache>, part: &Part) -> Result<Arc<Device>> {
    let kind = match part.kind {
        Kind::Plain => msiroute::Kind::Plain,
        Kind::Msix => msiroute::Kind::Msix,
        Kind::Pins(first) => msiroute::Kind::Pins { first },
    };
    Device::new(cache, DeviceConfig::new(kind, part.vectors as u32))
}

impl<M: Machine> Rig<M> {
    pub fn new(machine: M, shape: step::Shape) -> Self {
        let tap = Arc::new(Tap::new(machine.backend()));
        let config = Config {
            no_direct: shape.no_direct,
            max_routes: shape.max_routes,
            ..Config::default()
        };
        let cache = RouteCache::new(Host::Other(Box::new(tap.clone())), &config).unwrap();
        let explicit = ExplicitRoutes::new(&cache).unwrap();
        let device = |part| new_device(&cache, part).unwrap();
        let devices = shape.parts.iter().map(device).collect();
        let eventfds: Vec<EventFd> =
            (0..EVENTFDS).map(|_| EventFd::new(libc::EFD_NONBLOCK).unwrap()).collect();
        let ids = eventfds.iter().map(|it| tap::identity(it.as_raw_fd())).collect();
        let vm = Vm::new(&shape, cache.features().max_routes, &tap.table());
        let before = Seen { table: tap.table(), irqfds: BTreeMap::new() };
        Rig {
            machine,
            shape,
            tap,
            explicit,
            devices,
            cache,
            eventfds,
            ids,
            vm,
            before,
            ground_before: Ground::default(),
            ground: Ground::default(),
            open_before: BTreeMap::new(),
            expected: Expected::default(),
            claimed: Vec::new(),
            undone: BTreeMap::new(),
        }
    }

    /// All steps; then what is left is committed, and nothing may be owed; then all is let go, and nothing may be left.
    pub fn run(machine: M, scenario: &Scenario) {
        let mut rig = Rig::new(machine, scenario.shape.clone());
        rig.steps(&scenario.steps);
        rig.end();
    }

    pub fn steps(&mut self, steps: &[Step]) {
        for (at, step) in steps.iter().enumerate() {
            let _here = Here(at, step);
            self.step(step);
        }
    }

    /// Does it to both, and compares them.
    pub fn step(&mut self, step: &Step) {
        self.before = self.look();
        self.ground_before = self.ground(&self.before);
        self.expected = Expected::default();
        self.claimed.clear();
        self.undone.clear();
        self.open_before.clear();
        if let Step::Pause | Step::Addressing { .. } = step {
            let open = |(f, v)| Some(((f, v), self.vm.open(f, v)?));
            self.open_before = self.vm.vectors().into_iter().filter_map(open).collect();
        }
        let fired = self.tap.fired();
        self.apply(step);
        self.machine.settle();
        let faults = self.tap.fired() - fired;
        self.vm.trouble |= faults > 0;
        self.forget_ghosts();
        self.ground = self.ground(&self.look());
        self.account();
        let expected = std::mem::take(&mut self.expected);
        self.machine.check(expected);
        self.check();
    }

    pub fn calls(&self) -> u64 {
        self.tap.calls()
    }

    /// Its eventfds are irqfds.
    pub fn serves(&self, f: usize, v: usize) -> bool {
        self.devices[f].info(v as u32).unwrap().in_kernel
    }

    pub fn end(&mut self) {
        self.step(&Step::Plan(Plan::Nothing));
        while self.vm.depth > 0 {
            self.step(&Step::Commit);
        }
        while self.vm.pauses > 0 {
            self.step(&Step::Resume);
        }
        // What the kernel would not unbind: to be tried again is the VMM's business.
        for f in 0..self.devices.len() {
            let (on, is_closed) = (self.vm.functions[f].bus_master, self.vm.functions[f].closed);
            if !is_closed {
                self.step(&Step::BusMaster { f, on });
            }
        }
        self.step(&Step::Commit);
        // What the VMM staged and the kernel refuses is gone with that; now there is nothing in the way.
        self.step(&Step::Commit);
        assert!(!self.vm.trouble, "the commit after the last fault does not go well");
        let gsis: Vec<u32> = self.vm.gsis.keys().copied().collect();
        for gsi in gsis {
            self.step(&Step::Remove { gsi });
        }
        self.step(&Step::Commit);
        for f in 0..self.devices.len() {
            if !self.vm.functions[f].closed {
                self.step(&Step::Close { f });
            }
        }
        let bound = self.look().irqfds;
        let left = bound.keys().filter(|&&e| self.vm.eventfds[e].owner == Owner::Nobody).count();
        assert_eq!(left, 0, "irqfds are left");
        let dead = self.vm.dead.len() as u64;
        assert!(self.cache.stats().routes_pinned <= dead, "pinned routes are left");
    }

    fn look(&self) -> Seen {
        let bound = self.tap.irqfds();
        let irqfds = (0..EVENTFDS).filter_map(|e| Some((e, *bound.get(&self.ids[e])?)));
        Seen { table: self.tap.table(), irqfds: irqfds.collect() }
    }

    fn is_stuck(&self, e: usize) -> bool {
        self.tap.stuck().contains(&self.ids[e])
    }

    fn ground(&self, seen: &Seen) -> Ground {
        let owned = self.vm.owned();
        let keys = seen.table.keys().copied();
        let of_vectors: BTreeSet<u32> = keys.filter(|gsi| !owned.contains(gsi)).collect();
        let used: BTreeSet<u32> = seen.irqfds.values().copied().collect();
        let idle = &of_vectors - &used;
        let taken = &owned | &of_vectors;
        let entries: usize = seen.table.values().map(Vec::len).sum();
        let entries = (self.vm.limit as usize).saturating_sub(entries);
        let gsis = step::FIRST_GSI..self.vm.limit;
        let free = gsis.len() - taken.range(gsis.clone()).count();
        let lowest_free = gsis.into_iter().find(|gsi| !taken.contains(gsi));
        Ground { room: entries.min(free) + idle.len(), of_vectors, idle, lowest_free }
    }
}

impl<M: Machine> Drop for Rig<M> {
    /// A transaction is its thread's: the next test must not find it.
    fn drop(&mut self) {
        for _ in 0..self.vm.depth {
            let _ = self.cache.commit();
        }
    }
}

/// The message that a GSI sends, if it is one.
fn message_at(table: &Table, gsi: u32) -> Option<Message64> {
    match table.get(&gsi)?.as_slice() {
        [Target::Msi(message)] => Some(*message),
        _ => None,
    }
}
