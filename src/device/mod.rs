// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device: the vectors of one PCI function, HPET, IOAPIC or the like.
//!
//! - [`eventfds`]: a vector's eventfds and the route they stand on.
//! - [`arm`]: giving eventfds to the kernel, many at once; transactions.
//! - This file: the device, its gate, and what can be done to a vector.
//!
//! # Locks
//!
//! One mutex a device, `control`, keeps changes of its vectors apart; irqfds are bound and unbound under
//! it. It is not held across a write of the table, nor when a message is sent, nor is another
//! device's taken under it. Under it the table's lock may be taken for a moment (to give up a pin), and the
//! cache's innermost one. Deliveries take none of them: see `vector`.

mod arm;
mod eventfds;

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::backend::{Backend, Reception};
use crate::cache::{first_error, not_a_message, refuse_in_section, Member, RouteCache, Sending};
use crate::error::{Error, Result};
use crate::sync::{self, FastSlot};
use crate::vector::{Attempt, Cause, Gate, Vector};
use arm::Item;
use eventfds::Eventfds;

/// Vectors a device may have (PCI 3.0, 6.8.2.3: the table size field has 11 bits).
pub const MAX_VECTORS: u32 = 2048;

/// What kind of registers the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None of the library's: always enabled; vectors start unmasked, without a message.
    Plain,
    /// An MSI-X capability: starts disabled, its vectors masked.
    Msix,
}

/// Why a device's vectors may not send. Bits of its gate.
mod closed {
    pub const DISABLED: u32 = 1 << 0;
    pub const FUNCTION_MASKED: u32 = 1 << 1;
    pub const NOT_BUS_MASTER: u32 = 1 << 2;
    /// The device is unplugged.
    pub const UNPLUGGED: u32 = 1 << 3;
    /// The cache is gone.
    pub const SHUT_DOWN: u32 = 1 << 4;
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The guest's interrupt controller took it.
    Sent,
    /// The vector may not send now: it is pending.
    Pending,
    /// The message's destination does not exist or is switched off: it is gone.
    Refused,
    /// The capability is disabled: nothing was sent or kept.
    Disabled,
}

/// The function's control bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Message Control's enable bit; always set for [`Kind::Plain`].
    pub enabled: bool,
    /// Message Control's function mask.
    pub function_masked: bool,
    /// The function may write to memory, and so send messages.
    pub bus_master: bool,
}

/// How an eventfd is bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventfdOptions {
    /// Use the caller's descriptor itself, not a duplicate: it must stay open until it is unbound.
    pub borrow: bool,
}

/// What is true of a vector now.
#[derive(Clone, Copy, Debug)]
pub struct VectorInfo {
    /// There is a message.
    pub set: bool,
    /// Its own mask bit.
    pub masked: bool,
    /// The guest wants it: set, enabled, unmasked both ways.
    pub live: bool,
    /// It has eventfds, and every one is an irqfd now.
    pub in_kernel: bool,
    /// It should send, and has an eventfd that nobody serves.
    pub unserved: bool,
    /// The message, as it was set.
    pub address: u64,
    /// The message, as it was set.
    pub data: u32,
    /// How many eventfds it has.
    pub eventfds: u32,
    /// Where its route is now; for people, not for programs.
    pub gsi: Option<u32>,
    /// Why an eventfd could not be bound or unbound; 0: it could.
    pub errno: i32,
}

/// See the [module](self).
// What a delivery reads comes first, in one cache line.
#[repr(C, align(64))]
pub struct Device {
    cache: Arc<RouteCache>,
    vectors: Box<[Vector]>,
    gate: Gate,
    kind: Kind,
    me: Weak<Device>,
    control: Mutex<Control>,
    name: String,
}

struct Control {
    requester: u32,
    vectors: Box<[VectorControl]>,
}

/// A vector's side that only changes look at.
#[derive(Default)]
struct VectorControl {
    /// The message as it was set.
    address: u64,
    data: u32,
    set: bool,
    /// Counts changes of the message.
    generation: u32,
    eventfds: Option<Box<Eventfds>>,
}

impl VectorControl {
    fn forget_message(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        (self.address, self.data, self.set) = (0, 0, false);
    }
}

// What a vector costs, with and without an eventfd.
const _: () = assert!(size_of::<Vector>() + size_of::<VectorControl>() <= 96);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut device = f.debug_struct("Device");
        device.field("name", &self.name).field("kind", &self.kind);
        device.field("vectors", &self.vectors.len()).finish_non_exhaustive()
    }
}

impl Device {
    /// A device with `vectors` vectors (1 to [`MAX_VECTORS`]); `requester` is its bus/device/function or
    /// ITS device ID, `name` is for people.
    pub fn new(
        cache: &Arc<RouteCache>,
        kind: Kind,
        vectors: u32,
        requester: u32,
        name: &str,
    ) -> Result<Arc<Self>> {
        if vectors == 0 || vectors > MAX_VECTORS {
            return Err(Error::invalid("a device has 1 to 2048 vectors"));
        }
        let (gate, masked) = match kind {
            Kind::Plain => (0, false),
            Kind::Msix => (closed::DISABLED, true),
        };
        let controls = (0..vectors).map(|_| VectorControl::default()).collect();
        let device = Arc::new_cyclic(|me| Device {
            cache: cache.clone(),
            me: me.clone(),
            kind,
            name: name.to_owned(),
            gate: Gate::new(gate),
            vectors: (0..vectors).map(|_| Vector::new(masked)).collect(),
            control: Mutex::new(Control { requester, vectors: controls }),
        });
        cache.join(std::ptr::from_ref(&*device).addr(), device.me.clone());
        Ok(device)
    }

    // ---- delivery ------------------------------------------------------------------------------

    /// Raises a vector. Takes no lock; makes one system call if the vector may send, none if not.
    ///
    /// Errors: `EINVAL` (no such vector), `ENODEV`, `ESHUTDOWN`; what the kernel says (nothing is sent or kept then).
    pub fn deliver(&self, index: u32) -> Result<Delivery> {
        match self.deliver_fast(sync::fast_slot(), index) {
            Some(Ok(Reception::Accepted)) => Ok(Delivery::Sent),
            Some(Ok(Reception::Refused)) => Ok(Delivery::Refused),
            Some(Err(error)) => Err(error),
            None => self.deliver_slowly(index),
        }
    }

    /// [`Device::deliver`] in the case that is nearly all there is: KVM, directly, and nothing in the way.
    /// `None`, and nothing was done, in any other. Leaves `errno` alone.
    #[inline(always)]
    pub(crate) fn deliver_fast(&self, slot: FastSlot, index: u32) -> Option<Result<Reception>> {
        let vector = self.vectors.get(index as usize)?;
        let kvm = self.cache.direct_kvm()?;
        let (_section, message) = vector.open_fast(slot, &self.gate)?;
        Some(kvm.signal(&message))
    }

    /// [`Device::deliver`] in any case.
    pub(crate) fn deliver_slowly(&self, index: u32) -> Result<Delivery> {
        let vector = self.vector(index)?;
        let sending = vector
            .open_fast(sync::fast_slot(), &self.gate)
            .map(|(_section, message)| self.cache.send(&message, false));
        match sending {
            Some(Sending::Done(Reception::Accepted)) => Ok(Delivery::Sent),
            Some(sending) => self.go_on(vector, Cause::Raised, Attempt::Sent(sending)),
            None => self.attempt_and_go_on(vector, Cause::Raised),
        }
    }

    #[cold]
    fn attempt_and_go_on(&self, vector: &Vector, cause: Cause) -> Result<Delivery> {
        let attempt = self.attempt(vector, cause);
        self.go_on(vector, cause, attempt)
    }

    fn attempt(&self, vector: &Vector, cause: Cause) -> Attempt<Sending> {
        let is_gone = |sending: &Sending| matches!(sending, Sending::Done(_));
        vector.attempt(
            &self.gate,
            cause,
            |message, is_counted| self.cache.send(message, is_counted),
            is_gone,
        )
    }

    /// From an attempt to the end.
    #[cold]
    fn go_on(
        &self,
        vector: &Vector,
        mut cause: Cause,
        mut attempt: Attempt<Sending>,
    ) -> Result<Delivery> {
        loop {
            match attempt {
                Attempt::Sent(Sending::Done(Reception::Accepted)) => return Ok(Delivery::Sent),
                Attempt::Sent(Sending::Done(Reception::Refused)) => return Ok(Delivery::Refused),
                Attempt::Sent(Sending::Failed(error)) => return Err(error),
                Attempt::Sent(Sending::NeedsRoute) => {
                    // It may be another by now: then that one needs a route.
                    if let Some(message) = vector.read_message() {
                        self.cache.provide_route(&message)?;
                    }
                }
                Attempt::Nothing => return Ok(Delivery::Pending),
                Attempt::Blocked if cause == Cause::Opened => return Ok(Delivery::Pending),
                Attempt::Blocked => {
                    let gate = self.gate.bits();
                    self.check_alive()?;
                    if gate & closed::DISABLED != 0 {
                        return Ok(Delivery::Disabled);
                    }
                    if !vector.keep(&self.gate) {
                        return Ok(Delivery::Pending);
                    }
                    // Opened meanwhile: whoever takes it, we or the opener, sends it.
                    cause = Cause::Opened;
                }
            }
            attempt = self.attempt(vector, cause);
        }
    }

    /// Sends what is pending, if the vector is open. On an error it stays pending.
    fn hand_over(&self, index: u32) -> Result<()> {
        match self.vector(index) {
            Ok(vector) if vector.is_pending() => {
                self.attempt_and_go_on(vector, Cause::Opened).map(|_| ())
            }
            _ => Ok(()),
        }
    }

    // ---- the function --------------------------------------------------------------------------

    /// The function's control bits.
    pub fn state(&self) -> State {
        let bits = self.gate.bits();
        State {
            enabled: bits & closed::DISABLED == 0,
            function_masked: bits & closed::FUNCTION_MASKED != 0,
            bus_master: bits & closed::NOT_BUS_MASTER == 0,
        }
    }

    /// Message Control's enable and function mask bits, as the guest wrote them.
    ///
    /// Errors: `EINVAL` for [`Kind::Plain`]; what serving the vectors says (the bits stand).
    pub fn set_control(&self, enabled: bool, function_masked: bool) -> Result<()> {
        if self.kind == Kind::Plain {
            return Err(Error::invalid("a plain device has no Message Control"));
        }
        let bit = |on: bool, bit: u32| if on { bit } else { 0 };
        let set = bit(!enabled, closed::DISABLED) | bit(function_masked, closed::FUNCTION_MASKED);
        self.change_gate(set, (closed::DISABLED | closed::FUNCTION_MASKED) & !set)
    }

    /// Whether the function may master the bus; if not, everything it raises is kept pending.
    pub fn set_bus_master(&self, on: bool) -> Result<()> {
        match on {
            true => self.change_gate(0, closed::NOT_BUS_MASTER),
            false => self.change_gate(closed::NOT_BUS_MASTER, 0),
        }
    }

    fn change_gate(&self, set: u32, clear: u32) -> Result<()> {
        let mut control = self.lock()?;
        let before = self.gate.change(set, clear);
        let is_open = (before & !clear) | set == 0;
        if is_open == (before == 0) {
            return Ok(());
        }
        if is_open {
            drop(control);
            return self.serve_all();
        }
        self.wait_for_deliveries();
        let result = self.disarm_all(&mut control);
        drop(control);
        self.cache.retry_unserved_quietly();
        result
    }

    /// Function-level reset (PCI 3.0, 6.8.2): disabled and masked as at the start, no messages, nothing pending.
    /// Eventfds stay with their vectors; what they have counted is thrown away. The bus-master bit is
    /// the VMM's.
    pub fn reset(&self) -> Result<()> {
        let mut control = self.lock()?;
        let masked = self.kind == Kind::Msix;
        self.gate.change(if masked { closed::DISABLED } else { 0 }, closed::FUNCTION_MASKED);
        self.vectors.iter().for_each(|vector| vector.block_unwaited(masked));
        self.wait_for_deliveries();
        let result = self.disarm_all(&mut control);
        for (vector, vector_control) in self.vectors.iter().zip(control.vectors.iter_mut()) {
            vector_control.forget_message();
            if let Some(eventfds) = &vector_control.eventfds {
                eventfds.take_counted();
            }
            if !masked {
                vector.unmask();
            }
            vector.take_pending();
        }
        drop(control);
        self.cache.retry_unserved_quietly();
        result
    }

    /// The function has another requester ID: a guest renumbered the bus.
    pub fn set_requester(&self, requester: u32) -> Result<()> {
        let mut control = self.lock()?;
        control.requester = requester;
        self.encode_all(control)
    }

    /// Unplugs the device: unbinds and lets go all eventfds; from now on every call says `ENODEV`. When it
    /// returns no message of this device's is sent any more. Again is nothing.
    ///
    /// Errors: what the kernel says to an unbind (the rest is done all the same).
    pub fn close(&self) -> Result<()> {
        self.leave(closed::UNPLUGGED)
    }

    fn leave(&self, why: u32) -> Result<()> {
        refuse_in_section()?;
        let mut control = self.control.lock();
        let before = self.gate.change(why, 0);
        if before & (closed::UNPLUGGED | closed::SHUT_DOWN) != 0 {
            return Ok(());
        }
        self.wait_for_deliveries();
        let gone = control.vectors.iter_mut().filter_map(|control| control.eventfds.take());
        let result = first_error(gone.map(|mut eventfds| {
            let result = eventfds.remove(&self.cache, None);
            if let Some(stuck) = eventfds.route.filter(|_| !eventfds.is_empty()) {
                log::error!("{}: GSI {} is given up for good", self.name, stuck.gsi);
            }
            result
        }));
        drop(control);
        if why == closed::UNPLUGGED {
            self.cache.retry_unserved_quietly();
        }
        result
    }

    // ---- a vector ------------------------------------------------------------------------------

    /// Gives a vector a message, the guest's address and data. The old one is not sent once this has
    /// returned, and no mixture of the two ever is.
    ///
    /// Errors: `EINVAL` if it is no interrupt message (nothing is changed); what serving its eventfds says (the message
    /// stands, and serving is tried again).
    pub fn set(&self, index: u32, address: u64, data: u32) -> Result<()> {
        let mut control = self.lock()?;
        let requester = control.requester;
        let (vector, vector_control) = self.both(&mut control, index)?;
        let message = self.cache.addressing().encode(address, data, requester);
        let message = message.ok_or_else(not_a_message)?;
        (vector_control.address, vector_control.data) = (address, data);
        vector_control.set = true;
        if vector.message() != Some(message) {
            vector_control.generation = vector_control.generation.wrapping_add(1);
            vector.set(&message);
        }
        drop(control);
        self.serve(index)
    }

    /// Takes a vector's message away: it holds what is raised until it has one again.
    pub fn clear(&self, index: u32) -> Result<()> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        vector_control.forget_message();
        vector.unset();
        self.disarm(vector_control).and_then(|()| self.after_disarm(control))
    }

    /// Masks a vector: no message of it is sent once this has returned.
    ///
    /// Errors: what the kernel says to unbinding an eventfd (it is masked all the same, but that
    /// eventfd still interrupts: mask again).
    pub fn mask(&self, index: u32) -> Result<()> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        vector.mask();
        self.disarm(vector_control).and_then(|()| self.after_disarm(control))
    }

    /// Unmasks a vector; what was raised while it was masked is sent once.
    ///
    /// Errors: what serving its eventfds says (it is unmasked all the same, its events are counted, and serving is tried again).
    pub fn unmask(&self, index: u32) -> Result<()> {
        let mut control = self.lock()?;
        let (vector, _) = self.both(&mut control, index)?;
        vector.unmask();
        drop(control);
        self.serve(index)
    }

    /// Whether something was raised that could not be sent yet.
    pub fn is_pending(&self, index: u32) -> Result<bool> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        let counted = || vector_control.eventfds.as_ref().is_some_and(|it| it.has_counted());
        Ok(vector.is_pending() || counted())
    }

    /// The cause is gone: nothing is pending any more, in eventfds neither. Whether something was.
    pub fn clear_pending(&self, index: u32) -> Result<bool> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        let counted = vector_control.eventfds.as_ref().is_some_and(|it| it.take_counted());
        Ok(vector.take_pending() | counted)
    }

    /// From now on a signal of the eventfd raises the vector.
    ///
    /// Errors: see [`eventfd::inspect`](crate::eventfd); `EBUSY` if it is bound to a vector already; `ENOTSUP` where there are no irqfds;
    /// outside a transaction also what serving it says (it is not bound then).
    pub fn bind_eventfd(
        &self,
        index: u32,
        fd: BorrowedFd<'_>,
        options: EventfdOptions,
    ) -> Result<()> {
        use std::os::fd::AsRawFd;
        if !self.cache.features().irqfd {
            return Err(Error::new(libc::ENOTSUP, "eventfds cannot be bound: there are no irqfds"));
        }
        let mut control = self.lock()?;
        let (_, vector_control) = self.both(&mut control, index)?;
        let eventfds = vector_control.eventfds.get_or_insert_default();
        let added = eventfds.add(&self.cache, fd, options.borrow);
        if eventfds.is_empty() {
            vector_control.eventfds = None;
        }
        added?;
        drop(control);
        self.serve(index).or_else(|refusal| self.take_back_eventfd(index, fd.as_raw_fd(), refusal))
    }

    /// After a failure: the eventfd goes again, unless it was another one that could not be bound.
    fn take_back_eventfd(&self, index: u32, number: RawFd, refusal: Error) -> Result<()> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        let is_bound = vector_control.eventfds.as_ref().and_then(|it| it.is_bound(number));
        match is_bound {
            Some(false) if vector.is_open(&self.gate) => {
                self.remove_eventfd(vector_control, Some(number))?;
                let message = vector.message();
                if let Some(others) = &mut vector_control.eventfds {
                    others.errno = if others.all_send(message) { 0 } else { others.errno };
                }
                Err(refusal)
            }
            _ => Ok(()),
        }
    }

    /// Lets an eventfd go, by the number it was bound with; `None`: all of the vector. No message comes
    /// by it any more; what it counts from now on stays in it.
    ///
    /// Errors: `ENOENT` if there is none; what the kernel says (it is still bound then).
    pub fn unbind_eventfd(&self, index: u32, number: Option<RawFd>) -> Result<()> {
        let mut control = self.lock()?;
        let (_, vector_control) = self.both(&mut control, index)?;
        let found = match (&vector_control.eventfds, number) {
            (Some(eventfds), Some(number)) => eventfds.is_bound(number).is_some(),
            (eventfds, _) => eventfds.is_some(),
        };
        if !found {
            return Err(Error::new(libc::ENOENT, "the eventfd is not bound to this vector"));
        }
        self.remove_eventfd(vector_control, number)?;
        let was_last = vector_control.eventfds.is_none();
        self.after_disarm(control)?;
        // In a transaction what is pending may have been waiting for the commit, with the eventfd. If it
        // cannot be sent it stays pending; the eventfd is gone all the same.
        if was_last && self.hand_over(index).is_err() {
            self.cache.note_unserved();
        }
        Ok(())
    }

    fn remove_eventfd(&self, control: &mut VectorControl, number: Option<RawFd>) -> Result<()> {
        let Some(eventfds) = &mut control.eventfds else {
            return Ok(());
        };
        let result = eventfds.remove(&self.cache, number);
        if eventfds.is_empty() {
            control.eventfds = None;
        }
        result
    }

    /// What is true of a vector now.
    pub fn info(&self, index: u32) -> Result<VectorInfo> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        let eventfds = vector_control.eventfds.as_deref();
        let state = self.state();
        let in_kernel = eventfds.is_some_and(|it| it.all_send(vector.message()));
        Ok(VectorInfo {
            set: vector.is_set(),
            masked: vector.is_masked(),
            live: vector.is_set() && !vector.is_masked() && state.enabled && !state.function_masked,
            in_kernel,
            unserved: eventfds.is_some() && !in_kernel && vector.is_open(&self.gate),
            address: vector_control.address,
            data: vector_control.data,
            eventfds: eventfds.map_or(0, |it| u32::try_from(it.len()).unwrap_or(u32::MAX)),
            gsi: eventfds.and_then(|it| it.route).map(|route| route.gsi),
            errno: eventfds.map_or(0, |it| it.errno),
        })
    }

    // ---- inside --------------------------------------------------------------------------------

    fn vector(&self, index: u32) -> Result<&Vector> {
        self.vectors.get(index as usize).ok_or_else(|| Error::invalid("no such vector"))
    }

    /// A vector and its control side.
    fn both<'a>(
        &'a self,
        control: &'a mut Control,
        index: u32,
    ) -> Result<(&'a Vector, &'a mut VectorControl)> {
        let vector = self.vector(index)?;
        let vector_control = control.vectors.get_mut(index as usize);
        Ok((vector, vector_control.ok_or_else(|| Error::invalid("no such vector"))?))
    }

    /// For changes: not from inside a delivery, not on a device that is gone.
    fn lock(&self) -> Result<MutexGuard<'_, Control>> {
        refuse_in_section()?;
        let control = self.control.lock();
        self.check_alive()?;
        Ok(control)
    }

    fn check_alive(&self) -> Result<()> {
        let gate = self.gate.bits();
        if gate & closed::SHUT_DOWN != 0 {
            return Err(Error::new(libc::ESHUTDOWN, "the route cache is gone"));
        }
        if gate & closed::UNPLUGGED != 0 {
            return Err(Error::new(libc::ENODEV, "the device is closed"));
        }
        Ok(())
    }

    fn wait_for_deliveries(&self) {
        if let (Some(first), Some(last)) = (self.vectors.first(), self.vectors.last()) {
            let all = self.vectors.iter().map(Vector::readers);
            sync::wait_for_all(first.readers(), last.readers(), all);
        }
    }

    /// The vector can no longer send: its eventfds count from now on.
    fn disarm(&self, control: &mut VectorControl) -> Result<()> {
        match &mut control.eventfds {
            Some(eventfds) => eventfds.unbind(&self.cache),
            None => Ok(()),
        }
    }

    fn disarm_all(&self, control: &mut Control) -> Result<()> {
        first_error(control.vectors.iter_mut().map(|control| self.disarm(control)))
    }

    /// A pin may have been given up: others may find room now.
    fn after_disarm(&self, control: MutexGuard<'_, Control>) -> Result<()> {
        drop(control);
        self.cache.retry_unserved_quietly();
        Ok(())
    }

    /// The vector may have been opened: arms its eventfds and sends what is pending.
    fn serve(&self, index: u32) -> Result<()> {
        self.serve_those(index..index + 1)
    }

    fn serve_all(&self) -> Result<()> {
        self.serve_those(0..u32::try_from(self.vectors.len()).unwrap_or(MAX_VECTORS))
    }

    fn serve_those(&self, indices: std::ops::Range<u32>) -> Result<()> {
        let items = self.items(indices.clone());
        if arm::defer(&self.cache, &items) {
            // Vectors with eventfds send what is pending at the commit, together with what those have
            // counted by then: once.
            let waits = |index: &u32| items.binary_search_by_key(index, |item| item.index).is_ok();
            let others = indices.filter(|index| !waits(index));
            return first_error(others.map(|index| self.hand_over(index)));
        }
        let armed = arm::flush(&self.cache, &items);
        armed.and(first_error(indices.map(|index| self.hand_over(index))))
    }

    /// Those that have eventfds.
    fn items(&self, indices: std::ops::Range<u32>) -> Vec<Item> {
        let Some(device) = self.me.upgrade() else {
            return Vec::new();
        };
        let control = self.control.lock();
        let has_eventfds = |index: &u32| {
            control.vectors.get(*index as usize).is_some_and(|it| it.eventfds.is_some())
        };
        let item = |index| Item { device: device.clone(), index };
        indices.filter(has_eventfds).map(item).collect()
    }

    /// Every message anew, in the form it must have now; waits once.
    fn encode_all(&self, mut control: MutexGuard<'_, Control>) -> Result<()> {
        let (addressing, requester) = (self.cache.addressing(), control.requester);
        let mut lost = Ok(());
        for (vector, vector_control) in self.vectors.iter().zip(control.vectors.iter_mut()) {
            if !vector_control.set {
                continue;
            }
            let (address, data) = (vector_control.address, vector_control.data);
            match addressing.encode(address, data, requester) {
                message if message == vector.message() => continue,
                Some(message) => _ = vector.flip(&message),
                None => {
                    // What was a message is none any more, so the vector holds what is raised.
                    vector.block_unwaited(false);
                    lost = Err(not_a_message());
                }
            }
            vector_control.generation = vector_control.generation.wrapping_add(1);
        }
        self.wait_for_deliveries();
        let vectors = self.vectors.iter().zip(control.vectors.iter_mut());
        let unset = vectors.filter(|(vector, _)| !vector.is_set());
        let disarmed = first_error(unset.map(|(_, vector_control)| self.disarm(vector_control)));
        drop(control);
        self.serve_all().and(disarmed).and(lost)
    }
}

impl Member for Device {
    fn shut_down(&self) {
        if let Err(e) = self.leave(closed::SHUT_DOWN) {
            log::error!("{}: {e}", self.name);
        }
    }

    fn readdress(&self) -> Result<()> {
        match self.lock() {
            Ok(control) => self.encode_all(control),
            Err(_) => Ok(()),
        }
    }

    fn retry(&self) -> Result<()> {
        let all = 0..u32::try_from(self.vectors.len()).unwrap_or(MAX_VECTORS);
        let armed = arm::flush(&self.cache, &self.items(all.clone()));
        let handed = first_error(all.map(|index| self.hand_over(index)));
        if handed.is_err() {
            self.cache.note_unserved();
        }
        armed.and(handed)
    }

    fn unserved(&self) -> u64 {
        let control = self.control.lock();
        let vectors = self.vectors.iter().zip(control.vectors.iter());
        let is_unserved = |(vector, control): &(&Vector, &VectorControl)| {
            let waits =
                control.eventfds.as_deref().is_some_and(|it| !it.all_send(vector.message()));
            waits && vector.is_open(&self.gate)
        };
        vectors.filter(is_unserved).count() as u64
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            log::error!("{}: {e}", self.name);
        }
        self.cache.leave(std::ptr::from_ref(self).addr());
    }
}
