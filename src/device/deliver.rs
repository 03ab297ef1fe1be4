// SPDX-License-Identifier: MIT OR Apache-2.0
//! Raising a vector: one straight path for what nearly always happens, and another for everything else.

use super::{closed, Delivery, Device};
use crate::backend::kvm::Signalled;
use crate::backend::Reception;
use crate::cache::Sending;
use crate::error::{Error, Result};
use crate::trace;
use crate::vector::{Attempt, Cause, Vector};

impl Device {
    /// Raises a vector. Takes no lock; makes one system call if the vector may send, none if not.
    ///
    /// Errors: `EINVAL` (no such vector), `ENODEV`, `ESHUTDOWN`; what the kernel says (nothing is sent or kept then).
    pub fn deliver(&self, index: u32) -> Result<Delivery> {
        match self.deliver_fast(index) {
            Some(signalled) if signalled.is_accepted() => Ok(Delivery::Sent),
            Some(signalled) => signalled.reception().map(Delivery::from),
            None => self.deliver_slowly(index),
        }
    }

    /// [`Device::deliver`] in the case that is nearly all there is: KVM, directly, and nothing in the way.
    /// `None`, and nothing was done, in any other. Leaves `errno` alone.
    #[inline(always)]
    pub(crate) fn deliver_fast(&self, index: u32) -> Option<Signalled> {
        trace::deliver(self, index);
        let vector = self.vectors.get(index as usize)?;
        let vm = self.cache.fast_vm()?;
        let (_section, message) = vector.open_fast(&self.gate)?;
        Some(vm.signal(&message))
    }

    /// [`Device::deliver`] in any case.
    pub(crate) fn deliver_slowly(&self, index: u32) -> Result<Delivery> {
        let vector = self.vector(index)?;
        let sending = vector
            .open_fast(&self.gate)
            .map(|(_section, message)| self.cache.send(&message, false));
        match sending {
            Some(Sending::Done(Reception::Accepted)) => Ok(Delivery::Sent),
            Some(sending) => self.go_on(index, vector, Cause::Raised, Attempt::Sent(sending)),
            None => self.attempt_and_go_on(index, vector, Cause::Raised),
        }
    }

    #[cold]
    fn attempt_and_go_on(&self, index: u32, vector: &Vector, cause: Cause) -> Result<Delivery> {
        let attempt = self.attempt(vector, cause);
        self.go_on(index, vector, cause, attempt)
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
        index: u32,
        vector: &Vector,
        mut cause: Cause,
        mut attempt: Attempt<Sending>,
    ) -> Result<Delivery> {
        loop {
            match attempt {
                Attempt::Sent(Sending::Done(reception)) => return Ok(reception.into()),
                Attempt::Sent(Sending::Failed(error)) => return self.fail(vector, error),
                Attempt::Sent(Sending::NeedsRoute) => {
                    // It may be another by now: then that one needs a route.
                    let message = vector.read_message(&self.gate);
                    let provided = message.map_or(Ok(()), |it| self.cache.provide_route(&it));
                    if let Err(error) = provided {
                        return self.fail(vector, error);
                    }
                }
                Attempt::Nothing => return Ok(Delivery::Pending),
                Attempt::Closed if cause == Cause::Opened => return Ok(Delivery::Pending),
                Attempt::Closed => {
                    // In a section: a reset that closes the gate after this look waits until the bit is set,
                    // and then takes it away.
                    let section = vector.readers().enter();
                    let gate = self.gate.bits();
                    self.check_alive()?;
                    if gate & closed::DISABLED != 0 {
                        return Ok(Delivery::Disabled);
                    }
                    trace::pend(self, index);
                    if !vector.keep(&self.gate) {
                        return Ok(match vector.is_only_blocked(&self.gate) {
                            true => Delivery::Blocked,
                            false => Delivery::Pending,
                        });
                    }
                    drop(section);
                    // Opened meanwhile: whoever takes it, we or the opener, sends it.
                    cause = Cause::Opened;
                }
            }
            attempt = self.attempt(vector, cause);
        }
    }

    /// Nothing was sent. What was pending stays so, and is tried again.
    fn fail(&self, vector: &Vector, error: Error) -> Result<Delivery> {
        if vector.is_pending() {
            self.cache.note_unserved();
        }
        Err(error)
    }

    /// Sends what is pending, if the vector is open. On an error it stays pending, and is tried again.
    pub(super) fn hand_over(&self, index: u32) -> Result<()> {
        match self.vector(index) {
            Ok(vector) if vector.is_pending() => {
                self.attempt_and_go_on(index, vector, Cause::Opened).map(|_| ())
            }
            _ => Ok(()),
        }
    }
}
