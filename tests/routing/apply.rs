// SPDX-License-Identifier: MIT OR Apache-2.0
//! A step on devices and their eventfds, done to the library and to the reference.

use std::os::fd::AsRawFd;

use msiroute::message::Addressing;
use msiroute::{Delivery, Masking, Result};

use super::machine::Machine;
use super::reference::{Bit, Function, Owner};
use super::step::{GuestMessage, Kind, Step};
use super::tap::{entry, table_of, Target};
use super::{fd, new_device, refused, Rig};
use msiroute::backend::Backend;

impl<M: Machine> Rig<M> {
    /// What a call came to. It may fail for want of room, where there is little, for `wanted` routes; or because the
    /// kernel has refused something in it.
    pub(super) fn is_ok<T: std::fmt::Debug>(
        &self,
        result: &Result<T>,
        fired: u64,
        wanted: usize,
    ) -> bool {
        let Err(e) = result else { return true };
        let room = self.ground_before.room.min(self.ground(&self.look()).room);
        let is_tight = room < self.vm.reserve + wanted;
        let is_planned = self.tap.fired() > fired;
        // A pin keeps its route while its eventfd cannot be unbound.
        let is_stuck = e.errno() == libc::EBUSY && !self.tap.stuck().is_empty();
        let is_expected = is_planned || is_stuck || e.errno() == libc::ENOSPC && is_tight;
        assert!(is_expected, "{result:?}, with room for {room}");
        false
    }

    /// A call that changes one vector, or all of a device; what it says of serving them is held against it.
    fn control(&mut self, f: usize, v: Option<usize>, call: impl FnOnce(&Self) -> Result<()>) {
        let n = self.vm.functions[f].vectors.len();
        let range = v.map_or(0..n, |v| v..v + 1);
        for v in range.clone() {
            self.vm.touch_one(f, v);
        }
        let fired = self.tap.fired();
        let result = call(self);
        if self.is_ok(&result, fired, range.len()) {
            self.claimed.extend(range.map(|v| (f, v)));
        }
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match *step {
            Step::Set { f, .. }
            | Step::Clear { f, .. }
            | Step::SetMasked { f, .. }
            | Step::Program { f, .. }
            | Step::Control { f, .. }
            | Step::BusMaster { f, .. }
            | Step::Requester { f, .. }
            | Step::Reset { f }
            | Step::Deliver { f, .. }
            | Step::ClearPending { f, .. }
            | Step::Bind { f, .. }
            | Step::Unbind { f, .. }
                if self.vm.functions[f].closed =>
            {
                refused(self.devices[f].mask(0), libc::ENODEV);
                refused(self.devices[f].deliver(0), libc::ENODEV);
                refused(self.devices[f].reset(), libc::ENODEV);
            }
            Step::Set { f, v, message } => self.set(f, v, message),
            Step::Clear { f, v } => {
                self.vm.functions[f].vectors[v].message = None;
                self.control(f, Some(v), |it| it.devices[f].clear(v as u32));
            }
            Step::SetMasked { f, v, masked } => {
                self.vm.functions[f].vectors[v].masked = masked;
                self.control(f, Some(v), |it| match masked {
                    true => it.devices[f].mask(v as u32),
                    false => it.devices[f].unmask(v as u32),
                });
            }
            Step::Program { f, v, message, masked } => self.program(f, v, message, masked),
            Step::Control { f, enabled, function_masked } => {
                if self.vm.functions[f].kind != Kind::Msix {
                    return refused(self.devices[f].set_control(enabled, false), libc::EINVAL);
                }
                let function = &mut self.vm.functions[f];
                (function.enabled, function.function_masked) = (enabled, function_masked);
                self.control(f, None, |it| it.devices[f].set_control(enabled, function_masked));
            }
            Step::BusMaster { f, on } => {
                self.vm.functions[f].bus_master = on;
                self.control(f, None, |it| it.devices[f].set_bus_master(on));
            }
            Step::Requester { f, requester } => {
                self.vm.functions[f].requester = requester;
                self.control(f, None, |it| it.devices[f].set_requester(requester));
            }
            Step::Reset { f } => self.reset(f),
            Step::Close { f } => self.close(f),
            Step::Open { f } => self.open(f),
            Step::Deliver { f, v } => self.deliver(f, v),
            Step::ClearPending { f, v } => {
                let was = self.devices[f].clear_pending(v as u32).unwrap();
                let counted = self.discard(f, v);
                let bit = std::mem::replace(&mut self.vm.functions[f].vectors[v].bit, Bit::No);
                assert!(bit == Bit::Maybe || was == (bit == Bit::Yes || counted));
            }
            Step::Signal { e, times } => {
                match self.before.irqfds.get(&e).and_then(|gsi| self.before.table.get(gsi)) {
                    Some(targets) => self.expect_targets(&targets.clone()),
                    None => self.vm.eventfds[e].counted = true,
                }
                self.eventfds[e].write(times).unwrap();
            }
            Step::Bind { f, v, e } => self.bind(f, v, e),
            Step::Unbind { f, v, e } => self.unbind(f, v, e),
            Step::Message { message, requester } => self.deliver_message(message, requester),
            Step::Fixed { which } => self.set_fixed(which),
            Step::Addressing { x2apic_ids, ext_dest_id } => {
                self.set_addressing(x2apic_ids, ext_dest_id);
            }
            Step::Pause => {
                self.vm.pauses += 1;
                let functions = 0..self.devices.len();
                let pins = functions.filter(|&f| !self.vm.functions[f].pins().is_empty());
                pins.collect::<Vec<_>>().into_iter().for_each(|f| self.vm.touch(f));
                let fired = self.tap.fired();
                // A pin that has no room says so in whatever changes it.
                self.is_ok(&self.cache.pause(), fired, self.vm.pins().count());
            }
            Step::Resume => self.resume(),
            Step::Add { target, gsi, alone } => self.add(target, gsi, alone),
            Step::Update { gsi, target } => self.update(gsi, target),
            Step::Remove { gsi } => self.remove(gsi),
            Step::BindGsi { gsi, e } => self.bind_gsi(gsi, e),
            Step::UnbindGsi { gsi, e } => self.unbind_gsi(gsi, e),
            Step::Begin => self.begin(),
            Step::Commit => self.commit(),
            Step::Plan(plan) => self.tap.plan(plan),
        }
    }

    pub(super) fn expect_targets(&mut self, targets: &[Target]) {
        if let [Target::Msi(message)] = targets {
            self.expected.sure.push(*message);
        }
    }

    fn set(&mut self, f: usize, v: usize, message: GuestMessage) {
        if self.vm.encode(message, 0).is_none() {
            let (address, data) = message;
            return refused(self.devices[f].set(v as u32, address, data), libc::EINVAL);
        }
        self.vm.functions[f].vectors[v].message = Some(message);
        self.control(f, Some(v), |it| it.devices[f].set(v as u32, message.0, message.1));
    }

    fn program(&mut self, f: usize, v: usize, (address, data): GuestMessage, masked: bool) {
        let at = v as u64 * 16;
        let control = u32::from(masked);
        let second = u64::from(control) << 32 | u64::from(data);
        if self.vm.functions[f].kind != Kind::Msix {
            return refused(self.devices[f].table_write(at, &[0; 4]), libc::EINVAL);
        }
        let vector = &mut self.vm.functions[f].vectors[v];
        (vector.message, vector.masked) = (Some((address, data)), masked);
        self.control(f, Some(v), |it| {
            let write = |at, bytes: &[u8]| it.devices[f].table_write(at, bytes);
            let mask = write(at + 12, &1u32.to_le_bytes());
            let first = write(at, &address.to_le_bytes());
            mask.and(first).and(write(at + 8, &second.to_le_bytes()))
        });
    }

    fn reset(&mut self, f: usize) {
        for v in 0..self.vm.functions[f].vectors.len() {
            self.discard(f, v);
            let is_msix = self.vm.functions[f].kind == Kind::Msix;
            let vector = &mut self.vm.functions[f].vectors[v];
            (vector.message, vector.masked, vector.bit) = (None, is_msix, Bit::No);
        }
        let function = &mut self.vm.functions[f];
        (function.enabled, function.function_masked) = (function.kind != Kind::Msix, false);
        self.control(f, None, |it| it.devices[f].reset());
    }

    /// Its eventfds' counts are thrown away. Whether there were any.
    fn discard(&mut self, f: usize, v: usize) -> bool {
        let mut any = false;
        for e in self.vm.eventfds_of(Owner::Vector(f, v)) {
            any |= std::mem::take(&mut self.vm.eventfds[e].counted);
        }
        any
    }

    fn close(&mut self, f: usize) {
        let was_closed = std::mem::replace(&mut self.vm.functions[f].closed, true);
        let fired = self.tap.fired();
        let closed = self.devices[f].close();
        let is_ok = self.is_ok(&closed, fired, 0);
        assert!(is_ok || !was_closed, "again is nothing");
        let seen = self.look();
        for v in 0..self.vm.functions[f].vectors.len() {
            for e in self.vm.eventfds_of(Owner::Vector(f, v)) {
                self.vm.eventfds[e].owner = match seen.irqfds.get(&e) {
                    None => Owner::Nobody,
                    Some(&gsi) => {
                        assert!(!is_ok, "eventfd {e} is bound after close");
                        self.vm.dead.insert(gsi);
                        Owner::Lost
                    }
                };
            }
        }
        if !is_ok {
            // Those that are still in the table stay taken.
            let pins = self.vm.functions[f].pins();
            self.vm.dead.extend(pins.filter(|gsi| seen.table.contains_key(gsi)));
        }
    }

    fn open(&mut self, f: usize) {
        if !self.vm.functions[f].closed {
            return;
        }
        let part = self.shape.parts[f];
        let function = Function::new(part);
        let owned = self.vm.owned();
        let is_taken = |gsi: u32| owned.contains(&gsi) || self.before.table.contains_key(&gsi);
        let device = new_device(&self.cache, &part);
        if function.pins().any(is_taken) {
            return refused(device, libc::EBUSY);
        }
        self.devices[f] = device.unwrap();
        self.vm.functions[f] = function;
    }

    fn deliver(&mut self, f: usize, v: usize) {
        let fired = self.tap.fired();
        let delivered = self.devices[f].deliver(v as u32);
        let function = &mut self.vm.functions[f];
        if !function.enabled {
            return assert_eq!(delivered.unwrap(), Delivery::Disabled);
        }
        let Some(message) = self.vm.open(f, v) else {
            assert_eq!(delivered.unwrap(), Delivery::Pending);
            self.vm.functions[f].vectors[v].bit = Bit::Yes;
            return;
        };
        if self.is_ok(&delivered, fired, usize::from(self.shape.no_direct)) {
            let is_taken = self.machine.takes(message.0);
            let expected = if is_taken { Delivery::Sent } else { Delivery::Refused };
            assert_eq!(delivered.unwrap(), expected);
            self.expected.sure.push(message);
            self.vm.functions[f].vectors[v].bit = Bit::No;
        }
    }

    fn deliver_message(&mut self, message: GuestMessage, requester: u32) {
        let fired = self.tap.fired();
        let delivered = self.cache.deliver_message(message.0, message.1, requester);
        let Some(message) = self.vm.encode(message, requester) else {
            return refused(delivered, libc::EINVAL);
        };
        if self.vm.pauses > 0 {
            return refused(delivered, libc::EAGAIN);
        }
        if self.is_ok(&delivered, fired, usize::from(self.shape.no_direct)) {
            self.expected.sure.push(message);
        }
    }

    fn bind(&mut self, f: usize, v: usize, e: usize) {
        if self.vm.eventfds[e].owner != Owner::Nobody {
            let again =
                self.devices[f].bind_eventfd(v as u32, fd(&self.eventfds[e]), Masking::Unbind);
            return refused(again, libc::EBUSY);
        }
        self.vm.touch_one(f, v);
        let fired = self.tap.fired();
        let fd = fd(&self.eventfds[e]);
        let bound = match v {
            // SAFETY: the eventfds are dropped after the devices.
            0 => unsafe { self.devices[f].bind_lent_eventfd(0, fd, Masking::Unbind) },
            _ => self.devices[f].bind_eventfd(v as u32, fd, Masking::Unbind),
        };
        if self.is_ok(&bound, fired, 1) {
            self.vm.eventfds[e].owner = Owner::Vector(f, v);
        } else if self.look().irqfds.contains_key(&e) {
            // The kernel would not let it go again.
            self.vm.eventfds[e].owner = Owner::Vector(f, v);
        }
    }

    fn unbind(&mut self, f: usize, v: usize, e: usize) {
        let fired = self.tap.fired();
        let number = self.eventfds[e].as_raw_fd();
        let unbound = self.devices[f].unbind_eventfd(v as u32, Some(number));
        if self.vm.eventfds[e].owner != Owner::Vector(f, v) {
            return refused(unbound, libc::ENOENT);
        }
        if self.is_ok(&unbound, fired, 0) {
            self.vm.eventfds[e].owner = Owner::Nobody;
        }
    }

    fn set_addressing(&mut self, x2apic_ids: bool, ext_dest_id: bool) {
        let messages = |it: &Self| {
            let open = it.vm.vectors().into_iter().filter(|&(f, _)| !it.vm.functions[f].closed);
            open.map(|(f, v)| it.vm.message(f, v)).collect::<Vec<_>>()
        };
        let before = messages(self);
        let is_same = (x2apic_ids, ext_dest_id) == (self.vm.x2apic_ids, self.vm.ext_dest_id);
        (self.vm.x2apic_ids, self.vm.ext_dest_id) = (x2apic_ids, ext_dest_id);
        let is_lost =
            std::iter::zip(&before, &messages(self)).any(|it| matches!(it, (Some(_), None)));
        if !is_same {
            (0..self.devices.len()).for_each(|f| self.vm.touch(f));
        }
        let fired = self.tap.fired();
        let set = self.cache.set_addressing(Addressing { x2apic_ids, ext_dest_id });
        if is_lost && set.as_ref().is_err_and(|e| e.errno() == libc::EINVAL) {
            return;
        }
        assert!(!is_lost || set.is_err(), "what was a message is none");
        if self.is_ok(&set, fired, before.len()) && !is_same {
            self.claimed.extend(self.vm.vectors());
        }
    }

    fn resume(&mut self) {
        let fired = self.tap.fired();
        let resumed = self.cache.resume();
        if self.vm.pauses == 0 {
            return refused(resumed, libc::EINVAL);
        }
        self.vm.pauses -= 1;
        if self.vm.pauses == 0 {
            self.vm.resumed = self.vm.depth > 0;
            (0..self.devices.len()).for_each(|f| self.vm.touch(f));
        }
        let n = self.vm.vectors().len() + self.vm.gsis.len();
        if self.is_ok(&resumed, fired, n) {
            self.claimed.extend(self.vm.vectors());
        }
    }

    fn set_fixed(&mut self, which: usize) {
        let list = self.fixed_list(which);
        let entries = list.iter().map(|&(gsi, target)| entry(gsi, target)).collect();
        let fired = self.tap.fired();
        let set = self.cache.set_fixed(entries);
        // In the order in which they are looked at.
        let pinned = &self.ground_before.of_vectors - &self.ground_before.idle;
        let mut owned = self.vm.owned();
        owned.retain(|&gsi| !self.vm.is_fixed(gsi));
        for (gsi, _) in &list {
            if *gsi >= self.vm.limit {
                return refused(set, libc::EINVAL);
            }
            if owned.contains(gsi) || pinned.contains(gsi) {
                return refused(set, libc::EBUSY);
            }
        }
        let n = self.before.table.values().map(Vec::len).sum::<usize>();
        let others = n.saturating_sub(self.vm.fixed.len() + self.ground_before.idle.len());
        if others + list.len() > self.vm.limit as usize {
            return refused(set, libc::ENOSPC);
        }
        if self.is_ok(&set, fired, 0) {
            self.vm.fixed = list;
        }
    }

    /// GSIs 4 and 5 are in all of them: irqfds may stand on these.
    fn fixed_list(&self, which: usize) -> Vec<(u32, Target)> {
        let one = |gsi: u32| match self.shape.split {
            true => (gsi, Target::Msi((0xFEE0_0000, 0x20 + gsi, u32::MAX))),
            false => (gsi, Target::Pin { chip: 2, pin: gsi % 24 }),
        };
        let more: Vec<u32> = match which {
            1 => (6..10).collect(),
            2 => vec![26, 27],
            3 => vec![30],
            4 => vec![5000],
            // All that the kernel begins with, and one more.
            6 if !self.shape.split => {
                let defaults = table_of(&self.tap.default_routes()).into_iter();
                let all = defaults.flat_map(|(gsi, it)| it.into_iter().map(move |it| (gsi, it)));
                return all.chain([one(30)]).collect();
            }
            5 => (6..24).chain([0, 1, 2, 3]).collect(),
            _ => Vec::new(),
        };
        [4, 5].into_iter().chain(more).map(one).collect()
    }
}
