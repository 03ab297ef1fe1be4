// SPDX-License-Identifier: MIT OR Apache-2.0
//! What concerns all vectors of a function at once: its control bits, reset, its requester ID, unplug. Each
//! waits for deliveries once, and writes the kernel's table at most once.

use parking_lot::MutexGuard;

use super::{closed, Control, Device, Kind, State};
use crate::cache::{first_error, not_a_message, refuse_reentry};
use crate::error::{Error, Result};
use crate::sync;
use crate::vector::Vector;

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
        let (was_open, is_open) = (before == 0, (before & !clear) | set == 0);
        if is_open {
            drop(control);
            return if was_open { Ok(()) } else { self.serve_all() };
        }
        if was_open {
            self.wait_for_deliveries();
        }
        // Also if it was closed already: the kernel may have refused to let an eventfd go.
        let result = self.disarm_all(&mut control);
        self.after_disarm(control);
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
        self.after_disarm(control);
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

    pub(super) fn leave(&self, why: u32) -> Result<()> {
        refuse_reentry()?;
        let mut control = self.control.lock();
        let before = self.gate.change(why, 0);
        if before & (closed::UNPLUGGED | closed::SHUT_DOWN) != 0 {
            return Ok(());
        }
        self.wait_for_deliveries();
        let result = first_error(control.vectors.iter_mut().map(|control| {
            let result = self.remove_eventfd(control, None);
            if control.eventfds.is_some() {
                log::error!(
                    "{}: an eventfd that cannot be unbound keeps its GSI for good",
                    self.name
                );
            }
            result
        }));
        drop(control);
        if why == closed::UNPLUGGED {
            self.cache.retry_unserved_quietly();
        }
        result
    }

    // ---- inside --------------------------------------------------------------------------------

    pub(super) fn wait_for_deliveries(&self) {
        if let (Some(first), Some(last)) = (self.vectors.first(), self.vectors.last()) {
            let all = self.vectors.iter().map(Vector::readers);
            sync::wait_for_all(first.readers(), last.readers(), all);
        }
    }

    pub(super) fn disarm_all(&self, control: &mut Control) -> Result<()> {
        first_error(control.vectors.iter_mut().map(|control| self.disarm(control)))
    }

    /// Every message anew, in the form it must have now; waits once.
    pub(super) fn encode_all(&self, mut control: MutexGuard<'_, Control>) -> Result<()> {
        let (addressing, requester) = (self.cache.addressing(), control.requester);
        // Closed meanwhile, so that a stream of sections without slots cannot keep the wait going.
        self.gate.change(closed::CHANGING, 0);
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
        self.gate.change(0, closed::CHANGING);
        let vectors = self.vectors.iter().zip(control.vectors.iter_mut());
        let unset = vectors.filter(|(vector, _)| !vector.is_set());
        let disarmed = first_error(unset.map(|(_, vector_control)| self.disarm(vector_control)));
        drop(control);
        self.serve_all().and(disarmed).and(lost)
    }
}
