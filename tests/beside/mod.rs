// SPDX-License-Identifier: MIT OR Apache-2.0
//! The library beside the reference: every step is done to both, and then all that can be seen of them compared.
//! Who includes it has the reference as `crate::reference`.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed; not every user uses all; few vectors, short accesses"
)]

pub mod model;
pub mod step;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use msiroute::backend::Host;
use msiroute::device::{Capability, MsiForm, OnChange, Place, Raw, RawMut};
use msiroute::{Config, Delivery, Device, DeviceConfig, Error, Kind, Masking, Result, RouteCache};
use vmm_sys_util::eventfd::EventFd;

use crate::reference::{self, Changed, Function, Message, Vm, CAPABILITY};
pub use step::{Part, Program, Shape, Step};

/// Signals of the last one are silenced by its source.
pub const EVENTFDS: usize = 4;
/// Of a message to nobody: it is refused.
const NOBODY: u64 = 0xFEE0_7000;

/// What is below the library: takes its messages, and is the judge of them.
pub trait Machine {
    fn host(&self) -> Host;
    /// Panics if other messages than these have come since it was asked last.
    fn check_sent(&self, expected: Vec<Message>);
    /// How many irqfds there are, if it can tell.
    fn irqfds(&self) -> Option<usize>;
}

/// One device of the library's.
struct Subject {
    device: Arc<Device>,
    /// What the VMM was told, since it was looked at last.
    told: Arc<Mutex<Vec<Changed>>>,
    saved: Option<(Vec<u8>, Function)>,
    exported: Option<[Vec<u8>; 3]>,
}

pub struct Beside<M: Machine> {
    machine: M,
    shape: Shape,
    cache: Arc<RouteCache>,
    subjects: Vec<Subject>,
    eventfds: Vec<EventFd>,
    vm: Vm,
    /// It has a relay: then it matters that eventfds are served, not by whom.
    is_relayed: bool,
}

pub fn kind(kind: reference::Kind) -> Kind {
    match kind {
        reference::Kind::Plain => Kind::Plain,
        reference::Kind::Msix => Kind::Msix,
        reference::Kind::Msi { wide, maskable } => Kind::Msi(MsiForm { wide, maskable }),
    }
}

/// And where it is noted what the VMM was told.
pub fn new_device(cache: &Arc<RouteCache>, part: &Part) -> (Arc<Device>, Arc<Mutex<Vec<Changed>>>) {
    let told: Arc<Mutex<Vec<Changed>>> = Arc::default();
    let tell = told.clone();
    let on_change: OnChange = Box::new(move |changed| {
        let vectors = changed.vectors().map(|it| (it.start as usize, it.end as usize - 1));
        tell.lock().unwrap().push(Changed { enable: changed.enable, vectors });
    });
    let place = |place: u32| Place { bar: (place & 7) as u8, offset: place & !7 };
    let capability = Capability {
        offset: CAPABILITY as u8,
        next: reference::NEXT,
        table: place(reference::TABLE_PLACE),
        pba: place(reference::PBA_PLACE),
    };
    let config = DeviceConfig {
        data0_off: part.data0_off,
        capability: (part.kind != reference::Kind::Plain).then_some(capability),
        on_change: Some(on_change),
        ..DeviceConfig::new(kind(part.kind), part.vectors as u32)
    };
    (Device::new(cache, config).unwrap(), told)
}

fn fd(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: open as long as the EventFd.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T>, errno: i32) {
    assert_eq!(result.map_err(|e| e.errno()).unwrap_err(), errno);
}

pub fn save(device: &Device) -> Vec<u8> {
    let mut bytes = vec![0xA5; device.save_size()];
    device.save(&mut bytes).unwrap();
    bytes
}

/// Capability, table and PBA.
pub fn export(device: &Device, part: &Part) -> [Vec<u8>; 3] {
    let mut bytes = [vec![0xA5; device.capability_size()], Vec::new(), Vec::new()];
    if part.kind == reference::Kind::Msix {
        bytes[1] = vec![0xA5; part.vectors * 16];
        bytes[2] = vec![0xA5; part.vectors.div_ceil(64) * 8];
    }
    let [capability, table, pba] = &mut bytes;
    device.export(RawMut { capability, table, pba }).unwrap();
    bytes
}

/// Says where it was if the test fails here.
struct Here<'a>(usize, &'a Step);

impl Drop for Here<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {}: {:x?}", self.0, self.1);
        }
    }
}

impl<M: Machine> Beside<M> {
    pub fn new(machine: M, shape: Shape) -> Self {
        let config = Config { no_direct: shape.no_direct, ..Config::default() };
        let cache = RouteCache::new(machine.host(), &config).unwrap();
        let subject = |part| {
            let (device, told) = new_device(&cache, part);
            Subject { device, told, saved: None, exported: None }
        };
        let subjects = shape.parts.iter().map(subject).collect();
        let function = |part: &Part| Function::new(part.kind, part.vectors, part.data0_off);
        let vm = Vm::new(shape.parts.iter().map(function).collect(), EVENTFDS);
        let eventfds = (0..EVENTFDS).map(|_| EventFd::new(libc::EFD_NONBLOCK).unwrap()).collect();
        Beside { machine, shape, cache, subjects, eventfds, vm, is_relayed: false }
    }

    /// All steps; then everything is let go, and nothing may be left.
    pub fn run(machine: M, program: Program) {
        Beside::new(machine, program.shape).run_steps(&program.steps);
    }

    /// The same, with a relay that runs after every step. It does not wait for commits.
    pub fn run_relayed(machine: M, mut program: Program) {
        let mut beside = Beside::new(machine, program.shape);
        beside.is_relayed = true;
        beside.cache.relay_fd().unwrap();
        program.steps.retain(|step| !matches!(step, Step::Begin));
        beside.run_steps(&program.steps);
    }

    fn run_steps(self, steps: &[Step]) {
        let mut beside = self;
        for (at, step) in steps.iter().enumerate() {
            let _here = Here(at, step);
            beside.step(step);
        }
        while beside.vm.depth > 0 {
            beside.step(&Step::Commit);
        }
        for subject in &beside.subjects {
            subject.device.close().unwrap();
            refused(subject.device.deliver(0), libc::ENODEV);
        }
        assert_eq!(beside.machine.irqfds().unwrap_or(0), 0, "irqfds are left");
        assert_eq!(beside.cache.stats().routes_pinned, 0, "pinned routes are left");
    }

    pub fn device(&self, f: usize) -> Arc<Device> {
        self.subjects[f].device.clone()
    }

    /// Does it to both, and compares them.
    pub fn step(&mut self, step: &Step) {
        self.apply(step);
        if self.is_relayed {
            self.cache.relay_fd().unwrap();
            while self.cache.relay_run().unwrap() {}
        }
        let told = self.vm.settle();
        let mut sent = std::mem::take(&mut self.vm.sent);
        sent.sort_unstable();
        self.machine.check_sent(sent);
        for (f, told) in told.into_iter().enumerate() {
            let expected = Vec::from_iter((told != Changed::default()).then_some(told));
            let seen = std::mem::take(&mut *self.subjects[f].told.lock().unwrap());
            assert_eq!(seen, expected, "what the VMM of device {f} was told");
            self.compare(f);
        }
        let armed = self.vm.eventfds.iter().filter(|eventfd| eventfd.armed.is_some()).count();
        if !self.is_relayed {
            assert_eq!(self.machine.irqfds().unwrap_or(armed), armed, "irqfds");
        }
    }

    fn compare(&self, f: usize) {
        let (device, function) = (&self.subjects[f].device, &self.vm.functions[f]);
        let state = device.state();
        let seen = (state.enabled, state.function_masked, state.bus_master);
        let expected = (function.enabled, function.function_masked, function.bus_master);
        assert_eq!(seen, expected, "enabled, function masked, bus master of device {f}");
        for (v, vector) in function.vectors.iter().enumerate() {
            let pending = device.is_pending(v as u32).unwrap();
            assert_eq!(pending, self.vm.is_pending(f, v), "pending of {f}.{v}");
            let info = device.info(v as u32).unwrap();
            let (message, live) = (function.message(v), function.live(v));
            let fds = self.vm.eventfds_of(f, v);
            let sends = |&fd: &usize| self.vm.eventfds[fd].armed == message;
            let in_kernel = message.is_some() && !fds.is_empty() && fds.iter().all(sends);
            let unserved = self.vm.open(f, v).is_some() && !fds.is_empty() && !in_kernel;
            // One that its source keeps silent stays an irqfd while it is masked, but not if the relay serves it.
            let matters = !self.is_relayed || self.vm.open(f, v).is_some();
            let (served, in_kernel) =
                ((info.in_kernel || info.relayed) && matters, in_kernel && matters);
            let seen = (info.set, info.masked, info.live, served, info.unserved);
            let expected = (message.is_some(), vector.masked, live.is_some(), in_kernel, unserved);
            assert_eq!(seen, expected, "set, masked, live, in kernel, unserved: {f}.{v}");
            assert_eq!((info.eventfds as usize, info.errno), (fds.len(), 0), "eventfds of {f}.{v}");
            if let Some(message) = message {
                assert_eq!((info.address, info.data), message, "message of {f}.{v}");
            }
        }
        self.compare_registers(f);
    }

    /// By the guest's own accesses.
    fn compare_registers(&self, f: usize) {
        let (device, kind) = (&self.subjects[f].device, self.vm.functions[f].kind);
        if kind != reference::Kind::Plain {
            let expected = self.vm.capability(f);
            let mut seen = vec![0xA5; expected.len()];
            assert!(device.config_read(CAPABILITY as u32, &mut seen).unwrap());
            assert_eq!(seen, expected, "capability of device {f}");
        }
        if kind == reference::Kind::Msix {
            let read = |len: usize, bytes: &mut [u8], read: &dyn Fn(u64, &mut [u8])| {
                (0..).step_by(len).zip(bytes.chunks_mut(len)).for_each(|(at, out)| read(at, out));
            };
            let table = self.vm.functions[f].table();
            let mut seen = vec![0xA5; table.len()];
            read(8, &mut seen, &|at, out| device.table_read(at, out).unwrap());
            assert_eq!(seen, table, "table of device {f}");
            let pba = self.vm.pba(f);
            let mut seen = vec![0xA5; pba.len()];
            read(4, &mut seen, &|at, out| device.pba_read(at, out).unwrap());
            assert_eq!(seen, pba, "PBA of device {f}");
        }
    }

    fn apply(&mut self, step: &Step) {
        let is_msix = |f: usize| self.shape.parts[f].kind == reference::Kind::Msix;
        let is_msi = |f: usize| matches!(self.shape.parts[f].kind, reference::Kind::Msi { .. });
        let exists = |f: usize, v: usize| v < self.shape.parts[f].vectors;
        let device = |f: usize| self.subjects[f].device.clone();
        match *step {
            Step::TableWrite { f, offset, ref data } if is_msix(f) => {
                self.vm.table_write(f, offset, data);
                device(f).table_write(offset, data).unwrap();
            }
            Step::TableRead { f, offset, len } if is_msix(f) => {
                let mut out = vec![0xA5; len];
                device(f).table_read(offset, &mut out).unwrap();
                assert_eq!(
                    out,
                    reference::function::read(&self.vm.functions[f].table(), offset, len)
                );
            }
            Step::PbaRead { f, offset, len } if is_msix(f) => {
                let mut out = vec![0xA5; len];
                device(f).pba_read(offset, &mut out).unwrap();
                assert_eq!(out, reference::function::read(&self.vm.pba(f), offset, len));
            }
            Step::PbaWrite { f } if is_msix(f) => device(f).pba_write().unwrap(),
            Step::TableWrite { f, offset, ref data } => {
                refused(device(f).table_write(offset, data), libc::EINVAL);
            }
            Step::TableRead { f, offset, len } | Step::PbaRead { f, offset, len } => {
                let mut out = vec![0xA5; len];
                refused(device(f).table_read(offset, &mut out), libc::EINVAL);
                refused(device(f).pba_read(offset, &mut out), libc::EINVAL);
                assert_eq!(out, vec![0xFF; len]);
            }
            Step::PbaWrite { f } => refused(device(f).pba_write(), libc::EINVAL),
            Step::ConfigWrite { f, offset, ref data } => {
                let is_ours = self.overlap(f, offset, data.len()).next().is_some();
                self.vm.config_write(f, offset as usize, data);
                assert_eq!(device(f).config_write(offset, data).unwrap(), is_ours);
            }
            Step::ConfigRead { f, offset, len } => {
                let capability = self.vm.capability(f);
                let mut expected = vec![0xA5; len];
                let is_ours = self.overlap(f, offset, len).next().is_some();
                for at in self.overlap(f, offset, len) {
                    expected[at - offset as usize] = capability[at - CAPABILITY];
                }
                let mut out = vec![0xA5; len];
                assert_eq!(device(f).config_read(offset, &mut out).unwrap(), is_ours);
                assert_eq!(out, expected);
            }
            Step::Set { f, v, message: (address, data) } => {
                let set = device(f).set(v as u32, address, data);
                let is_off = self.shape.parts[f].data0_off && data == 0;
                let is_message = address >> 20 == 0xFEE || is_off;
                if is_msi(f) || !exists(f, v) || !is_message {
                    return refused(set, libc::EINVAL);
                }
                set.unwrap();
                self.vm.set(f, v, (address, data));
            }
            Step::Clear { f, v } if is_msi(f) => refused(device(f).clear(v as u32), libc::EINVAL),
            Step::SetMasked { f, v, .. }
            | Step::Clear { f, v }
            | Step::Deliver { f, v }
            | Step::ClearPending { f, v }
            | Step::Unbind { f, v, .. }
            | Step::UnbindAll { f, v }
            | Step::Bind { f, v, .. }
                if !exists(f, v) =>
            {
                let (device, v) = (device(f), v as u32);
                refused(device.mask(v).and(device.unmask(v)), libc::EINVAL);
                refused(device.clear(v), libc::EINVAL);
                refused(device.deliver(v), libc::EINVAL);
                refused(device.clear_pending(v), libc::EINVAL);
                refused(device.is_pending(v), libc::EINVAL);
                refused(device.unbind_eventfd(v, None), libc::EINVAL);
                refused(
                    device.bind_eventfd(v, fd(&self.eventfds[0]), Masking::Unbind),
                    libc::EINVAL,
                );
            }
            Step::Clear { f, v } => {
                self.vm.set(f, v, (0, 0));
                device(f).clear(v as u32).unwrap();
            }
            Step::SetMasked { f, v, masked } => {
                self.vm.set_masked(f, v, masked);
                match masked {
                    true => device(f).mask(v as u32).unwrap(),
                    false => device(f).unmask(v as u32).unwrap(),
                }
            }
            Step::Deliver { f, v } => {
                let expected = match self.vm.deliver(f, v) {
                    reference::Delivery::Sent((NOBODY, _)) => Delivery::Refused,
                    reference::Delivery::Sent(_) => Delivery::Sent,
                    reference::Delivery::Pending => Delivery::Pending,
                    reference::Delivery::Disabled => Delivery::Disabled,
                };
                assert_eq!(device(f).deliver(v as u32).unwrap(), expected);
            }
            Step::ClearPending { f, v } => {
                let was = self.vm.clear_pending(f, v);
                assert_eq!(device(f).clear_pending(v as u32).unwrap(), was);
            }
            Step::Bind { f, v, eventfd } => {
                let bound = self.bind(f, v, eventfd);
                if self.vm.eventfds[eventfd].owner.is_some() {
                    return refused(bound, libc::EBUSY);
                }
                bound.unwrap();
                let at_source = eventfd == EVENTFDS - 1;
                self.vm.eventfds[eventfd].at_source = at_source;
                self.vm.eventfds[eventfd].owner = Some((f, v));
            }
            Step::Unbind { f, v, eventfd } => {
                let number = self.eventfds[eventfd].as_raw_fd();
                let unbound = device(f).unbind_eventfd(v as u32, Some(number));
                if self.vm.eventfds[eventfd].owner != Some((f, v)) {
                    return refused(unbound, libc::ENOENT);
                }
                unbound.unwrap();
                self.vm.unbind(eventfd);
            }
            Step::UnbindAll { f, v } => {
                let unbound = device(f).unbind_eventfd(v as u32, None);
                let fds = self.vm.eventfds_of(f, v);
                if fds.is_empty() {
                    return refused(unbound, libc::ENOENT);
                }
                unbound.unwrap();
                fds.into_iter().for_each(|fd| self.vm.unbind(fd));
            }
            Step::Signal { eventfd, times } => {
                if !self.vm.holds_back(eventfd) {
                    self.vm.signal(eventfd);
                    self.eventfds[eventfd].write(times).unwrap();
                }
            }
            Step::SetControl { f, enabled, function_masked } => {
                let set = device(f).set_control(enabled, function_masked);
                if !is_msix(f) && (!is_msi(f) || function_masked) {
                    return refused(set, libc::EINVAL);
                }
                set.unwrap();
                self.vm.set_control(f, enabled, function_masked);
            }
            Step::BusMaster { f, on } => {
                self.vm.functions[f].bus_master = on;
                device(f).set_bus_master(on).unwrap();
            }
            Step::Reset { f } => {
                self.vm.reset(f);
                device(f).reset().unwrap();
            }
            Step::Save { f } => {
                self.subjects[f].saved = Some((save(&device(f)), self.vm.save(f)));
            }
            Step::Load { f } => {
                if let Some((bytes, saved)) = &self.subjects[f].saved {
                    self.vm.load(f, saved);
                    device(f).load(bytes).unwrap();
                }
            }
            Step::LoadBad { f, at, value } => {
                let mut bytes = save(&device(f));
                bytes.push(value);
                bytes.truncate(if at < bytes.len() - 1 { at } else { bytes.len() });
                refused(device(f).load(&bytes), libc::EINVAL);
            }
            Step::Export { f } => {
                let exported = export(&device(f), &self.shape.parts[f]);
                if is_msix(f) {
                    let expected =
                        [self.vm.capability(f), self.vm.functions[f].table(), self.vm.pba(f)];
                    assert_eq!(exported, expected);
                } else {
                    assert_eq!(exported[0], self.vm.capability(f));
                }
                self.subjects[f].exported = Some(exported);
            }
            Step::Import { f, which, flip } => self.import(f, which, flip),
            Step::Migrate => self.migrate(),
            Step::Pause => {
                self.vm.pauses += 1;
                self.cache.pause().unwrap();
            }
            Step::Resume => {
                let resumed = self.cache.resume();
                if self.vm.pauses == 0 {
                    return refused(resumed, libc::EINVAL);
                }
                resumed.unwrap();
                self.vm.pauses -= 1;
            }
            Step::Begin => {
                self.vm.depth += 1;
                self.cache.begin().unwrap();
            }
            Step::Commit => {
                self.vm.depth = self.vm.depth.saturating_sub(1);
                self.cache.commit().unwrap();
            }
        }
    }

    /// The capability's bytes that an access touches, as offsets in config space.
    fn overlap(&self, f: usize, offset: u32, len: usize) -> impl Iterator<Item = usize> {
        let ours = CAPABILITY..CAPABILITY + self.vm.capability(f).len();
        (offset as usize..offset as usize + len).filter(move |at| ours.contains(at))
    }

    fn bind(&self, f: usize, v: usize, eventfd: usize) -> std::result::Result<(), Error> {
        let (device, fd) = (&self.subjects[f].device, fd(&self.eventfds[eventfd]));
        let masking = if eventfd == EVENTFDS - 1 { Masking::AtSource } else { Masking::Unbind };
        match v {
            // SAFETY: the eventfds are dropped after the devices.
            0 => unsafe { device.bind_lent_eventfd(0, fd, masking) },
            _ => device.bind_eventfd(v as u32, fd, masking),
        }
    }

    /// Those parts of what was exported that bits of `which` say, with one bit flipped; another bit: the PBA in whole
    /// bytes, not words.
    fn import(&mut self, f: usize, which: u8, flip: usize) {
        let Some(exported) = &self.subjects[f].exported else { return };
        let mut raw = exported.clone();
        for (bit, part) in raw.iter_mut().enumerate() {
            if which >> bit & 1 == 0 {
                part.clear();
            }
            if let Some(byte) = part.get_mut(flip / 8) {
                *byte ^= 1 << (flip % 8);
            }
        }
        if which & 8 != 0 {
            raw[2].truncate(self.shape.parts[f].vectors.div_ceil(8));
        }
        let [capability, table, pba] = &raw;
        let imported = self.subjects[f].device.import(Raw { capability, table, pba });
        match self.vm.import(f, capability, table, pba) {
            true => imported.unwrap(),
            false => refused(imported, libc::EINVAL),
        }
    }

    /// All devices into new ones on a new cache, as another VMM would do it.
    fn migrate(&mut self) {
        while self.vm.depth > 0 {
            self.step(&Step::Commit);
        }
        self.step(&Step::Pause);
        let saved: Vec<_> = self.subjects.iter().map(|subject| save(&subject.device)).collect();
        for subject in &mut self.subjects {
            subject.device.close().unwrap();
        }
        let config = Config { no_direct: self.shape.no_direct, paused: true, ..Config::default() };
        self.cache = RouteCache::new(self.machine.host(), &config).unwrap();
        for _ in 1..self.vm.pauses {
            self.cache.pause().unwrap();
        }
        for (f, part) in self.shape.parts.iter().enumerate() {
            let (device, told) = new_device(&self.cache, part);
            (self.subjects[f].device, self.subjects[f].told) = (device, told);
            let function = self.vm.save(f);
            self.vm.functions[f] = Function::new(part.kind, part.vectors, part.data0_off);
            self.vm.untold[f] = Changed::default();
            self.vm.load(f, &function);
            self.subjects[f].device.load(&saved[f]).unwrap();
            assert_eq!(
                save(&self.subjects[f].device),
                saved[f],
                "what was loaded is what was saved"
            );
            for eventfd in 0..EVENTFDS {
                match self.vm.eventfds[eventfd].owner {
                    Some((owner, v)) if owner == f => self.bind(f, v, eventfd).unwrap(),
                    _ => {}
                }
            }
        }
        self.step(&Step::Resume);
    }
}

impl<M: Machine> Drop for Beside<M> {
    /// A transaction is its thread's: the next test must not find it.
    fn drop(&mut self) {
        for _ in 0..self.vm.depth {
            let _ = self.cache.commit();
        }
    }
}
