// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can be done to one vector: its message, its mask, its pending bit, its eventfds.

use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::change::GateChange;
use super::eventfds::Eventfds;
use super::{
    guest, one, Control, Device, EventfdOptions, Kind, Masking, VectorControl, VectorInfo,
};
use crate::cache::not_a_message;
use crate::error::{Error, Result};
use crate::message::GuestMessage;
use crate::registers::msi::MsiBits;
use crate::registers::Registers;
use crate::vector::{self, Vector};

impl Device {
    /// Gives a vector a message, the guest's address and data. The old one is not sent once this has
    /// returned, and no mixture of the two ever is. With MSI-X registers it is as if the guest had written
    /// both at once. A vector that has the message already, and is served, is left alone: no system call.
    ///
    /// Errors: `EINVAL` if it is no interrupt message (nothing is changed), or if the message is in an
    /// MSI capability; what serving its eventfds says (the message stands, and serving is tried again).
    pub fn set(&self, index: u32, address: u64, data: u32) -> Result<()> {
        let message = GuestMessage { address, data };
        let mut control = self.lock_vector(index)?;
        self.refuse_msi()?;
        if self.has_and_serves(&mut control, index, message) {
            return Ok(());
        }
        // "Unused" is something that can be set.
        let is_message = match self.is_remapped() && self.cache.remap().is_on() {
            true => self.cache.is_interrupt(message),
            false => self.encode(control.requester, message).is_some(),
        };
        if !is_message && !self.is_off(message) {
            return Err(not_a_message());
        }
        self.change(control, GateChange::NONE, one(index), |index, registers, wanted| {
            if let Registers::Msix(table) = registers {
                table.set_message(index, message);
            }
            wanted.message = Some(message);
        })
    }

    /// Setting this message would change nothing. (Only where no registers and no vIOMMU have a say in it.)
    fn has_and_serves(&self, control: &mut Control, index: u32, message: GuestMessage) -> bool {
        let Ok((vector, control)) = self.both(control, index) else { return false };
        self.kind == Kind::Plain
            && !self.is_remapped()
            && control.message() == Some(message)
            && vector.is_set()
            && !vector.is_pending()
            && control.eventfds.as_deref().is_none_or(|it| it.errno() == 0)
            && !self.is_unserved(vector, control)
    }

    /// Takes a vector's message away: it holds what is raised until it has one again.
    ///
    /// Errors: `EINVAL` if the message is in an MSI capability; what the kernel says.
    pub fn clear(&self, index: u32) -> Result<()> {
        let control = self.lock_vector(index)?;
        self.refuse_msi()?;
        self.change(control, GateChange::NONE, one(index), |index, registers, wanted| {
            if let Registers::Msix(table) = registers {
                table.set_message(index, GuestMessage::default());
            }
            wanted.message = None;
        })
    }

    fn refuse_msi(&self) -> Result<()> {
        match self.kind {
            Kind::Msi(_) => Err(Error::invalid(
                "an MSI capability has one message for all vectors: write its registers",
            )),
            _ => Ok(()),
        }
    }

    /// Masks a vector: no message of it is sent once this has returned.
    ///
    /// Errors: what the kernel says to unbinding an eventfd (it is masked all the same, but that
    /// eventfd still interrupts: mask again).
    pub fn mask(&self, index: u32) -> Result<()> {
        self.set_masked(index, true)
    }

    /// Unmasks a vector; what was raised while it was masked is sent once.
    ///
    /// Errors: what serving its eventfds says (it is unmasked all the same, its events are counted, and serving is tried again).
    pub fn unmask(&self, index: u32) -> Result<()> {
        self.set_masked(index, false)
    }

    fn set_masked(&self, index: u32, masked: bool) -> Result<()> {
        let control = self.lock_vector(index)?;
        if let Kind::Msi(_) = self.kind {
            return self.write_msi(control, |msi, bits| {
                let bit = 1u32.checked_shl(index).unwrap_or(0);
                let masked = if masked { bits.masked | bit } else { bits.masked & !bit };
                msi.follow(bits, MsiBits { masked, ..bits })
            });
        }
        self.change(control, GateChange::NONE, one(index), |index, registers, wanted| {
            wanted.masked = masked;
            if let Registers::Msix(table) = registers {
                guest::settle_entry(table, index, wanted, self.high_counts());
            }
        })
    }

    /// Whether something was raised that could not be sent yet.
    pub fn is_pending(&self, index: u32) -> Result<bool> {
        let control = self.lock_vector(index)?;
        Ok(self.pending(&control, one(index)) != 0)
    }

    /// The pending bits of up to 64 vectors, the first in bit 0. Makes system calls only for eventfds that the
    /// kernel does not read now.
    pub(super) fn pending(&self, control: &Control, indices: Range<u32>) -> u64 {
        let slice = indices.start as usize..indices.end as usize;
        let vectors = self.vectors.get(slice.clone()).unwrap_or_default();
        let controls = control.vectors.get(slice).unwrap_or_default();
        let mut bits = 0;
        for (at, (vector, control)) in (0..u64::BITS).zip(vectors.iter().zip(controls)) {
            let counted = || control.eventfds.as_ref().is_some_and(|it| it.has_counted());
            bits |= u64::from(vector.is_pending() || counted()).wrapping_shl(at);
        }
        bits
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
    /// Errors: `EBADF`; `EINVAL` (no eventfd, or a semaphore; [`Masking::AtSource`] without anybody to tell); `EBUSY`
    /// if it is bound to a vector already; `ENOTSUP` where there are no irqfds; `EMFILE`; outside a transaction
    /// also what serving it says. It is not bound then.
    pub fn bind_eventfd(
        &self,
        index: u32,
        fd: BorrowedFd<'_>,
        options: impl Into<EventfdOptions>,
    ) -> Result<()> {
        self.bind(index, fd, options.into(), false)
    }

    /// [`Device::bind_eventfd`] without the duplicate.
    ///
    /// # Safety
    ///
    /// The descriptor stays open, and this eventfd, until it is unbound or the device is closed.
    pub unsafe fn bind_lent_eventfd(
        &self,
        index: u32,
        fd: BorrowedFd<'_>,
        options: impl Into<EventfdOptions>,
    ) -> Result<()> {
        self.bind(index, fd, options.into(), true)
    }

    fn bind(
        &self,
        index: u32,
        fd: BorrowedFd<'_>,
        options: EventfdOptions,
        borrow: bool,
    ) -> Result<()> {
        if !self.cache.features().irqfd && !self.may_relay(options.server) {
            return Err(Error::new(libc::ENOTSUP, "eventfds cannot be bound: there are no irqfds"));
        }
        if options.masking == Masking::AtSource && self.listener.is_none() {
            return Err(Error::invalid(
                "a source that is masked by the VMM needs a device that tells it when (changed)",
            ));
        }
        let mut control = self.lock()?;
        let (_, vector_control) = self.both(&mut control, index)?;
        let eventfds = vector_control.eventfds.get_or_insert_default();
        let mut added = eventfds.add(&self.cache, fd, options, borrow);
        if added.is_ok() {
            added = self.take_in(eventfds, index);
            if added.is_err() {
                eventfds.remove(&self.cache, Some(fd.as_raw_fd()))?;
            }
        }
        if eventfds.is_unused() {
            vector_control.eventfds = None;
        }
        added?;
        drop(control);
        self.serve_those(one(index))
            .or_else(|refusal| self.take_back_eventfd(index, fd.as_raw_fd(), refusal))
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
                    others.refusal = if others.all_send(message) { 0 } else { others.refusal };
                }
                drop(control);
                self.relay_those(one(index));
                let _ = self.hand_over(index);
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
            (eventfds, _) => eventfds.as_ref().is_some_and(|it| it.len() > 0),
        };
        if !found {
            return Err(Error::new(libc::ENOENT, "the eventfd is not bound to this vector"));
        }
        self.remove_eventfd(vector_control, number)?;
        let was_last = vector_control.eventfds.as_ref().is_none_or(|it| it.len() == 0);
        let is_relayed = self.is_relayed(vector_control);
        drop(control);
        self.cache.retry_unserved_quietly();
        // The relay may serve what is left.
        self.relay_those(one(index));
        // In a transaction what is pending may have been waiting for the commit, with the eventfd. If it
        // cannot be sent it stays pending; the eventfd is gone all the same.
        if was_last || is_relayed {
            let _ = self.hand_over(index);
        }
        // And it may be sending what came by this one.
        if self.cache.relay().is_some() {
            let _control = self.control();
            vector::wait_for_deliveries(std::slice::from_ref(self.vector(index)?));
        }
        Ok(())
    }

    fn remove_eventfd(&self, control: &mut VectorControl, number: Option<RawFd>) -> Result<()> {
        let Some(eventfds) = &mut control.eventfds else {
            return Ok(());
        };
        let result = eventfds.remove(&self.cache, number);
        if eventfds.is_unused() {
            control.eventfds = None;
        }
        result
    }

    /// What is true of a vector now.
    pub fn info(&self, index: u32) -> Result<VectorInfo> {
        let mut control = self.lock()?;
        let (vector, vector_control) = self.both(&mut control, index)?;
        Ok(self.info_of(vector, vector_control))
    }

    pub(super) fn info_of(&self, vector: &Vector, vector_control: &VectorControl) -> VectorInfo {
        let eventfds = vector_control.eventfds.as_deref();
        let state = self.state();
        let message = vector_control.message();
        let is_asked = |message| self.is_remapped() && self.is_translatable(message);
        let set = vector.is_set() || message.is_some_and(is_asked);
        let unmasked = !vector.is_masked() && state.enabled && !state.function_masked;
        let message = message.unwrap_or_default();
        VectorInfo {
            set,
            masked: vector.is_masked(),
            live: set && unmasked && !vector.is_blocked(),
            blocked: vector.is_blocked(),
            relayed: self.is_in_relay(vector, vector_control),
            in_kernel: eventfds.is_some_and(|it| {
                it.may_be_bound() && it.all_send(vector.message()) && !it.need_relay()
            }),
            unserved: self.is_unserved(vector, vector_control),
            address: message.address,
            data: message.data,
            eventfds: eventfds.map_or(0, |it| u32::try_from(it.len()).unwrap_or(u32::MAX)),
            gsi: eventfds.and_then(|it| it.route).map(|route| route.gsi),
            errno: eventfds.map_or(0, Eventfds::errno),
        }
    }
}
