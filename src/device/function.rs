// SPDX-License-Identifier: MIT OR Apache-2.0
//! What concerns all vectors of a function at once: its control bits, reset, its requester ID, unplug. Each
//! waits for deliveries once, and writes the kernel's table at most once.

use parking_lot::MutexGuard;

use super::change::{GateChange, Pending};
use super::{closed, Control, Device, Kind, State};
use crate::cache::{not_a_message, refuse_reentry};
use crate::error::{Error, Result};
use crate::registers::msi::MsiBits;
use crate::registers::Registers;
use crate::vector;

impl Device {
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
    /// Errors: `EINVAL` where there is no such bit; what serving the vectors says (the bits stand).
    pub fn set_control(&self, enabled: bool, function_masked: bool) -> Result<()> {
        let control = self.lock()?;
        match self.kind {
            Kind::Msix => self.write_msix_control(control, enabled, function_masked),
            Kind::Msi(_) if !function_masked => {
                self.write_msi(control, |msi, bits| msi.follow(bits, MsiBits { enabled, ..bits }))
            }
            Kind::Msi(_) => Err(Error::invalid("MSI has no function mask")),
            Kind::Plain | Kind::Pins { .. } => {
                Err(Error::invalid("the device has no Message Control"))
            }
        }
    }

    /// Whether the function may master the bus; if not, everything it raises is kept pending.
    pub fn set_bus_master(&self, on: bool) -> Result<()> {
        let off = if on { 0 } else { closed::NOT_BUS_MASTER };
        let gate = GateChange::to(closed::NOT_BUS_MASTER, off);
        self.change(self.lock()?, gate, self.all(), |_, _, _| {})
    }

    /// Function-level reset (PCI 3.0, 6.8.2): registers as at the start, no messages, nothing pending.
    /// Eventfds stay with their vectors; what they have counted is thrown away. The bus-master bit is
    /// the VMM's.
    pub fn reset(&self) -> Result<()> {
        let mut control = self.lock()?;
        let (masked, disabled) = match &mut control.registers {
            Registers::Msix(table) => {
                table.reset();
                (true, closed::DISABLED)
            }
            Registers::Msi(msi) => {
                msi.reset();
                (false, closed::DISABLED)
            }
            Registers::None => (false, 0),
        };
        let gate = GateChange::to(closed::BY_GUEST, disabled);
        self.change(control, gate, self.all(), |_, _, wanted| {
            (wanted.masked, wanted.message) = (masked, None);
            wanted.pending = Pending::Gone;
        })
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

    pub(super) fn leave(&self, why: u32) -> Result<()> {
        refuse_reentry()?;
        let mut control = self.control();
        let before = self.gate.change(why, 0);
        if before & (closed::UNPLUGGED | closed::SHUT_DOWN) != 0 {
            return Ok(());
        }
        vector::wait_for_deliveries(&self.vectors);
        let (_, unbound) = self.disarm(&self.vectors, &mut control.vectors);
        let mut pins = Vec::new();
        for vector_control in &mut *control.vectors {
            let Some(eventfds) = &mut vector_control.eventfds else { continue };
            eventfds.forget_unbound(&self.cache);
            if eventfds.len() > 0 {
                let name = &self.name;
                log::error!("{name}: an eventfd that cannot be unbound keeps its GSI for good");
            } else {
                pins.extend(eventfds.pin);
                vector_control.eventfds = None;
            }
        }
        drop(control);
        let mut disowned = Ok(());
        if why == closed::UNPLUGGED {
            if !pins.is_empty() {
                disowned = self.cache.disown_pins(&pins);
            }
            self.cache.retry_unserved_quietly();
        }
        unbound.and(disowned)
    }

    // ---- inside --------------------------------------------------------------------------------

    pub(super) fn is_paused(&self) -> bool {
        self.gate.bits() & closed::PAUSED != 0
    }

    /// Every message anew, in the form it must have now.
    ///
    /// Errors: `EINVAL` if what was a message is none any more (the vector holds what is raised); what serving says.
    pub(super) fn encode_all(&self, mut control: MutexGuard<'_, Control>) -> Result<()> {
        if self.is_remapped() {
            self.outdate(&mut control, |_, _| true);
            drop(control);
            return self.finish_change(self.translate(self.all()));
        }
        let is_lost =
            self.vectors.iter().zip(control.vectors.iter()).any(|(vector, control_of)| {
                let message = control_of.message();
                let encoded = message.and_then(|it| self.encode(control.requester, it));
                vector.is_set() && encoded.is_none()
            });
        let lost = if is_lost { Err(not_a_message()) } else { Ok(()) };
        self.change(control, GateChange::NONE, self.all(), |_, _, _| {}).and(lost)
    }
}
