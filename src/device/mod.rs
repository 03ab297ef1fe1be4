// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device: the vectors of one PCI function, HPET, IOAPIC or the like.
//!
//! - [`vectors`]: what can be done to one vector.
//! - [`deliver`]: raising it.
//! - [`describe`]: telling people.
//! - [`change`]: the one way in which messages, masks and the function's gate change.
//! - [`guest`]: the guest's accesses to registers.
//! - [`function`]: what concerns all vectors at once.
//! - [`state`]: save and load, import and export.
//! - [`relaying`]: a vector as what the relay serves.
//! - [`remapping`]: messages through the vIOMMU.
//! - [`summary`]: what is true of all vectors together.
//! - [`notice`]: telling the VMM what changed.
//! - [`eventfds`]: a vector's eventfds and the route they stand on.
//! - [`arming`]: which route a vector wants, and its eventfds bound to it.
//! - This file: the device, and how it is served.
//!
//! # Locks
//!
//! One mutex a device, `control`, keeps changes of its vectors and registers apart; irqfds are bound and
//! unbound under it. It is not held across a write of the table, nor when a message is sent or the VMM is
//! told something, nor is another device's taken under it. Under it the table's lock may be taken (to give up
//! a pin: that may wait for somebody else's write), and the cache's innermost one. Deliveries take none of
//! them: see `vector`.

mod arming;
mod change;
mod deliver;
mod describe;
mod eventfds;
mod function;
mod guest;
mod notice;
mod relaying;
mod remapping;
mod state;
mod summary;
mod vectors;

use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};

use crate::arm;
use crate::backend::Reception;
use crate::cache::{first_error, refuse_reentry, Member, RouteCache};
use crate::dump::Described;
use crate::error::{Error, Result};
use crate::memory;
use crate::message::{GuestMessage, NO_REQUESTER};
use crate::owner::Item;
use crate::registers::{msi, msix, Registers};
use crate::transaction;
use crate::vector::{Gate, Vector};
use change::{GateChange, Next, Outcome};
use eventfds::Eventfds;
use notice::Listener;
use summary::Summary;

pub use crate::changed::Changed;
pub use crate::registers::msi::MsiForm;
pub use crate::registers::{Capability, Place};
pub use eventfds::{EventfdOptions, Masking, Server};
pub use notice::OnChange;
pub use state::{Raw, RawMut};

/// Vectors a device may have (PCI 3.0, 6.8.2.3: the table size field has 11 bits).
pub const MAX_VECTORS: u32 = 2048;

/// What kind of registers the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// None of the library's: always enabled; vectors start unmasked, without a message.
    Plain,
    /// An MSI-X capability: starts disabled, its vectors masked.
    Msix,
    /// An MSI capability: starts disabled, its vectors unmasked.
    Msi(MsiForm),
    /// As [`Kind::Plain`], but vector i owns the GSI `first + i`, and is in the kernel's table while it has
    /// a message: the pins of an IOAPIC in user space, of which the kernel reads there which are
    /// level-triggered, to tell of their EOIs.
    Pins {
        /// The first vector's GSI.
        first: u32,
    },
}

/// What a device is made with.
pub struct DeviceConfig {
    /// Its registers.
    pub kind: Kind,
    /// 1 to [`MAX_VECTORS`]; an MSI capability has 1, 2, 4, 8, 16 or 32.
    pub vectors: u32,
    /// Bus/device/function or ITS device ID, or [`NO_REQUESTER`].
    pub requester: u32,
    /// For people.
    pub name: String,
    /// A message whose data is 0 is none (an old trick of device assignment).
    pub data0_off: bool,
    /// Its messages go through the vIOMMU, if the cache has one; not those of the vIOMMU itself.
    pub remap: bool,
    /// Where the capability lies in config space; `None`: not where the library is asked.
    pub capability: Option<Capability>,
    /// Told what changed.
    pub on_change: Option<OnChange>,
}

impl DeviceConfig {
    /// A nameless device with nothing special to it.
    pub fn new(kind: Kind, vectors: u32) -> Self {
        DeviceConfig {
            kind,
            vectors,
            requester: NO_REQUESTER,
            name: String::from("device"),
            data0_off: false,
            remap: true,
            capability: None,
            on_change: None,
        }
    }

    fn check(&self) -> Result<()> {
        let fits = match self.kind {
            Kind::Msi(_) => self.vectors.is_power_of_two() && self.vectors <= msi::MAX_VECTORS,
            _ => (1..=MAX_VECTORS).contains(&self.vectors),
        };
        if !fits {
            return Err(Error::invalid(
                "a device has 1 to 2048 vectors; with an MSI capability 1, 2, 4, 8, 16 or 32",
            ));
        }
        match (self.kind, &self.capability) {
            (_, None) => Ok(()),
            (Kind::Msix, Some(place)) => place.check_msix(self.vectors),
            (Kind::Msi(form), Some(place)) => place.check(form.size()),
            _ => Err(Error::invalid("only MSI and MSI-X have a capability")),
        }
    }
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
    /// The cache is paused.
    pub const PAUSED: u32 = 1 << 5;

    /// What the guest says in Message Control: with none of it, an unmasked vector is live.
    pub const BY_GUEST: u32 = DISABLED | FUNCTION_MASKED;
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
    /// The vIOMMU refuses the message: it is pending.
    Blocked,
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
    /// The vIOMMU refuses its message.
    pub blocked: bool,
    /// It has eventfds, and every one is an irqfd now.
    pub in_kernel: bool,
    /// It has eventfds, and the relay serves them now.
    pub relayed: bool,
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
    data0_off: bool,
    remap: bool,
    me: Weak<Device>,
    control: Mutex<Control>,
    capability: Option<Capability>,
    listener: Option<Listener>,
    name: String,
}

struct Control {
    requester: u32,
    registers: Registers,
    vectors: Box<[VectorControl]>,
    /// If its messages are remapped.
    translations: Option<Box<[remapping::Translation]>>,
    /// What changed while the cache was paused, to be told when it is resumed.
    untold: Changed,
    /// `None`: something may have changed.
    summary: Option<Box<Summary>>,
}

/// A vector's side that only changes look at.
#[derive(Default)]
struct VectorControl {
    /// The message in force, as it was set; the vector has it in the kernel's form, if it is one.
    address: u64,
    data: u32,
    is_set: bool,
    /// Counts changes of the message.
    generation: u32,
    /// What a change under way has still to do.
    next: Next,
    eventfds: Option<Box<Eventfds>>,
}

impl VectorControl {
    fn message(&self) -> Option<GuestMessage> {
        self.is_set.then_some(GuestMessage { address: self.address, data: self.data })
    }

    fn set_message(&mut self, message: Option<GuestMessage>) {
        self.is_set = message.is_some();
        GuestMessage { address: self.address, data: self.data } = message.unwrap_or_default();
    }
}

// What a vector costs, with and without an eventfd; an MSI-X table entry is 20 more.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Vector>() + size_of::<VectorControl>() + 20 <= 96);

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut device = f.debug_struct("Device");
        device.field("name", &self.name).field("kind", &self.kind);
        device.field("vectors", &self.vectors.len()).finish_non_exhaustive()
    }
}

impl Device {
    /// Makes a device.
    ///
    /// Errors: `EINVAL` for what no device can be; for [`Kind::Pins`] also `EBUSY` (one of the GSIs is
    /// somebody else's) and `ENOTSUP` (there is no table).
    pub fn new(cache: &Arc<RouteCache>, config: DeviceConfig) -> Result<Arc<Self>> {
        config.check()?;
        let DeviceConfig { kind, vectors, requester, name, .. } = config;
        let DeviceConfig { data0_off, remap, capability, on_change, .. } = config;
        let (gate, masked, registers) = match kind {
            Kind::Plain | Kind::Pins { .. } => (0, false, Registers::None),
            Kind::Msix => (closed::DISABLED, true, Registers::Msix(msix::Table::new(vectors)?)),
            Kind::Msi(form) => {
                (closed::DISABLED, false, Registers::Msi(msi::Msi::new(form, vectors)))
            }
        };
        let mut controls = memory::collect((0..vectors).map(|_| VectorControl::default()))?;
        let states = memory::collect((0..vectors).map(|_| Vector::new(masked)))?;
        if let Kind::Pins { first } = kind {
            for (at, control) in (0..).zip(controls.iter_mut()) {
                // If there is no such GSI, none is owned below.
                let gsi = first.saturating_add(at);
                control.eventfds = Some(memory::boxed(Eventfds::on_pin(gsi))?);
            }
            cache.own_pins(first, vectors)?;
        }
        let control = Control {
            requester,
            registers,
            vectors: controls,
            translations: None,
            untold: Changed::default(),
            summary: None,
        };
        let device = Arc::new_cyclic(|me| Device {
            cache: cache.clone(),
            vectors: states,
            gate: Gate::new(gate),
            kind,
            data0_off,
            remap,
            me: me.clone(),
            control: Mutex::new(control),
            capability,
            listener: on_change.map(Listener::new),
            name,
        });
        cache.join(std::ptr::from_ref(&*device).addr(), device.clone())?;
        Ok(device)
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

    /// [`Device::lock`], for a vector that there is.
    fn lock_vector(&self, index: u32) -> Result<MutexGuard<'_, Control>> {
        let control = self.lock()?;
        self.vector(index)?;
        Ok(control)
    }

    /// The message in the form that the kernel takes; `None` if it is none, or means none here.
    fn encode(&self, requester: u32, message: GuestMessage) -> Option<crate::message::Message> {
        let encoded = self.cache.encode(message, requester);
        encoded.filter(|_| !self.is_off(message))
    }

    fn is_off(&self, message: GuestMessage) -> bool {
        self.data0_off && message.data == 0
    }

    /// For changes: not from inside a delivery, not on a device that is gone.
    fn lock(&self) -> Result<MutexGuard<'_, Control>> {
        refuse_reentry()?;
        let control = self.control();
        self.check_alive()?;
        Ok(control)
    }

    /// It should send, and has an eventfd that does not; or a pin that is not what it should be.
    fn is_unserved(&self, vector: &Vector, control: &VectorControl) -> bool {
        control.eventfds.as_deref().is_some_and(|it| {
            let should_send = it.len() > 0 && vector.is_open(&self.gate);
            let is_served = it.all_send(vector.message()) && !it.need_relay();
            (should_send && !is_served && !self.is_relayed(control))
                || it.is_wrong_pin(vector.message())
        })
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

    fn all(&self) -> Range<u32> {
        0..u32::try_from(self.vectors.len()).unwrap_or(MAX_VECTORS)
    }

    fn serve_those(&self, indices: Range<u32>) -> Result<()> {
        self.relay_those(indices.clone());
        let items = self.items(indices.clone());
        if transaction::defer(&self.cache, &items) {
            // Vectors with eventfds send what is pending at the commit, together with what those have
            // counted by then: once.
            let waits = |index: &u32| items.binary_search_by_key(index, |item| item.index).is_ok();
            let others = indices.filter(|index| !waits(index));
            return first_error(others.map(|index| self.hand_over(index)));
        }
        let armed = arm::arm(&self.cache, &items);
        armed.and(first_error(indices.map(|index| self.hand_over(index))))
    }

    /// Those that have eventfds which the kernel is to serve now.
    fn items(&self, indices: Range<u32>) -> Vec<Item> {
        let Some(device) = self.me.upgrade() else {
            return Vec::new();
        };
        let control = self.control();
        let has_eventfds = |index: &u32| {
            let vector_control = control.vectors.get(*index as usize);
            vector_control.is_some_and(|it| it.eventfds.is_some() && !self.is_relayed(it))
        };
        let item = |index| Item { owner: device.clone(), index };
        indices.filter(has_eventfds).map(item).collect()
    }
}

/// This vector alone.
fn one(index: u32) -> Range<u32> {
    index..index.saturating_add(1)
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

    fn pause(&self) -> Result<()> {
        match self.lock() {
            Ok(control) => {
                let gate = GateChange { set: closed::PAUSED, clear: 0 };
                self.change(control, gate, self.all(), |_, _, _| {})
            }
            Err(_) => Ok(()),
        }
    }

    fn unpause(&self) {
        let _control = self.control();
        self.gate.change(0, closed::PAUSED);
    }

    fn serve(&self) -> Result<()> {
        let mut outcome = self.translate(self.all());
        (outcome.indices, outcome.to_serve) = (self.all(), true);
        self.finish_change(outcome)
    }

    fn invalidate(&self, requester: u32, tags: &RangeInclusive<u64>) {
        Device::invalidate(self, requester, tags);
    }

    fn translate(&self) -> Result<()> {
        let mut outcome = match self.with_summary(|it| it.outdated) {
            true => Device::translate(self, self.all()),
            false => Outcome::nothing(0..0),
        };
        // Exchanged by others, who have not, or will not before their commit, told the kernel.
        if let Some(late) = self.with_summary(|it| it.late.clone()) {
            outcome.indices = match outcome.indices.is_empty() {
                true => late,
                false => outcome.indices.start.min(late.start)..outcome.indices.end.max(late.end),
            };
            outcome.to_serve = true;
        }
        self.finish_change(outcome)
    }

    fn sends_late(&self) -> bool {
        self.with_summary(|it| it.late.is_some())
    }

    fn wait_until_told(&self) {
        Device::wait_until_told(self);
    }

    fn tell_untold(&self) {
        Device::tell_untold(self);
    }

    fn retry(&self) -> Result<()> {
        let armed = arm::flush(&self.cache, &self.items(self.all()));
        armed.and(first_error(self.all().map(|index| self.hand_over(index))))
    }

    fn start_relaying(&self) -> Result<()> {
        Device::start_relaying(self)
    }

    fn stop_relaying(&self) -> Result<()> {
        Device::stop_relaying(self)
    }

    fn describe(&self) -> Result<Described<'_>> {
        Device::describe(self).map(Described::Device)
    }

    fn relayed(&self) -> u64 {
        self.with_summary(|it| it.relayed)
    }

    fn unserved(&self) -> u64 {
        self.with_summary(|it| it.unserved)
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
