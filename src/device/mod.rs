// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device: the vectors of one PCI function, HPET, IOAPIC or the like.
//!
//! - [`deliver`]: raising a vector.
//! - [`function`]: what concerns all vectors at once.
//! - [`eventfds`]: a vector's eventfds and the route they stand on.
//! - [`arm`]: giving eventfds to the kernel, many at once; transactions.
//! - This file: the device, and what can be done to one vector.
//!
//! # Locks
//!
//! One mutex a device, `control`, keeps changes of its vectors apart; irqfds are bound and unbound under
//! it. It is not held across a write of the table, nor when a message is sent, nor is another
//! device's taken under it. Under it the table's lock may be taken (to give up a pin: that may wait for
//! somebody else's write), and the cache's innermost one. Deliveries take none of them: see `vector`.

mod arm;
mod deliver;
mod eventfds;
mod function;

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::backend::Reception;
use crate::cache::{first_error, not_a_message, refuse_reentry, Member, RouteCache};
use crate::error::{Error, Result};
use crate::vector::{Gate, Vector};
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
    /// All messages are being encoded anew.
    pub const CHANGING: u32 = 1 << 5;
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

impl From<Reception> for Delivery {
    fn from(reception: Reception) -> Self {
        match reception {
            Reception::Accepted => Delivery::Sent,
            Reception::Refused => Delivery::Refused,
        }
    }
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
        let result = self.disarm(vector_control);
        self.after_disarm(control);
        result
    }

    /// Masks a vector: no message of it is sent once this has returned.
    ///
    /// Errors: what the kernel says to unbinding an eventfd (it is masked all the same, but that
    /// eventfd still interrupts: mask again).
    pub fn mask(&self, index: u32) -> Result<()> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        vector.mask();
        let result = self.disarm(vector_control);
        self.after_disarm(control);
        result
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

    /// From now on a signal of the eventfd raises the vector. It is duplicated.
    ///
    /// Errors: `EBADF`; `EINVAL` (no eventfd, or a semaphore); `EBUSY` if it is bound to a vector already;
    /// `ENOTSUP` where there are no irqfds; `EMFILE`; outside a transaction also what serving it says.
    /// It is not bound then.
    pub fn bind_eventfd(&self, index: u32, fd: BorrowedFd<'_>) -> Result<()> {
        self.bind(index, fd, false)
    }

    /// [`Device::bind_eventfd`] without the duplicate.
    ///
    /// # Safety
    ///
    /// The descriptor stays open, and this eventfd, until it is unbound or the device is closed.
    pub unsafe fn bind_lent_eventfd(&self, index: u32, fd: BorrowedFd<'_>) -> Result<()> {
        self.bind(index, fd, true)
    }

    fn bind(&self, index: u32, fd: BorrowedFd<'_>, borrow: bool) -> Result<()> {
        if !self.cache.features().irqfd {
            return Err(Error::new(libc::ENOTSUP, "eventfds cannot be bound: there are no irqfds"));
        }
        let mut control = self.lock()?;
        let (_, vector_control) = self.both(&mut control, index)?;
        let eventfds = vector_control.eventfds.get_or_insert_default();
        let added = eventfds.add(&self.cache, fd, borrow);
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
        self.after_disarm(control);
        // In a transaction what is pending may have been waiting for the commit, with the eventfd. If it
        // cannot be sent it stays pending; the eventfd is gone all the same.
        if was_last {
            let _ = self.hand_over(index);
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
        Ok(VectorInfo {
            set: vector.is_set(),
            masked: vector.is_masked(),
            live: vector.is_set() && !vector.is_masked() && state.enabled && !state.function_masked,
            in_kernel: eventfds.is_some_and(|it| it.all_send(vector.message())),
            unserved: self.is_unserved(vector, vector_control),
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
        refuse_reentry()?;
        let control = self.control.lock();
        self.check_alive()?;
        Ok(control)
    }

    /// It should send, and has an eventfd that does not.
    fn is_unserved(&self, vector: &Vector, control: &VectorControl) -> bool {
        let waits = control.eventfds.as_deref().is_some_and(|it| !it.all_send(vector.message()));
        waits && vector.is_open(&self.gate)
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

    /// The vector can no longer send: its eventfds count from now on.
    fn disarm(&self, control: &mut VectorControl) -> Result<()> {
        match &mut control.eventfds {
            Some(eventfds) => eventfds.unbind(&self.cache),
            None => Ok(()),
        }
    }

    /// A pin may have been given up: others may find room now.
    fn after_disarm(&self, control: MutexGuard<'_, Control>) {
        drop(control);
        self.cache.retry_unserved_quietly();
    }

    /// The vector may have been opened: arms its eventfds and sends what is pending.
    fn serve(&self, index: u32) -> Result<()> {
        self.serve_those(index..index + 1)
    }

    fn serve_all(&self) -> Result<()> {
        self.serve_those(self.all())
    }

    fn all(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.vectors.len()).unwrap_or(MAX_VECTORS)
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
        let armed = arm::arm(&self.cache, &items);
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
        let armed = arm::flush(&self.cache, &self.items(self.all()));
        armed.and(first_error(self.all().map(|index| self.hand_over(index))))
    }

    fn unserved(&self) -> u64 {
        let control = self.control.lock();
        let vectors = self.vectors.iter().zip(control.vectors.iter());
        vectors.filter(|(vector, control)| self.is_unserved(vector, control)).count() as u64
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
