// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one way in which messages, masks and the function's gate change.
//!
//! In this order, whatever the change: close what is to be closed and exchange messages; wait, once, for
//! the deliveries that may not have seen it; let go of the eventfds of closed vectors; and only then
//! open. So when a change returns, the old message is not sent any more, a masked vector is silent, and
//! nothing that opens has missed what closed. Then, without the lock: the vIOMMU is asked about messages, if
//! there is one, and what it says is exchanged in the same order; eventfds are given to the kernel (one write
//! of the table for all), what is pending is sent, and the VMM is told.

use std::ops::Range;

use parking_lot::MutexGuard;

use super::remapping::{Answer, InForce};
use super::{closed, Changed, Control, Device, Kind, VectorControl};
use crate::error::Result;
use crate::irqfd;
use crate::message::GuestMessage;
use crate::registers::Registers;
use crate::vector::{self, Vector};

/// Bits of the gate that a change sets and clears. With other than none of them, it concerns all vectors.
#[derive(Clone, Copy)]
pub(super) struct GateChange {
    pub set: u32,
    pub clear: u32,
}

impl GateChange {
    pub const NONE: GateChange = GateChange { set: 0, clear: 0 };

    /// Of these bits of the gate, just `on`.
    pub fn to(bits: u32, on: u32) -> Self {
        GateChange { set: bits & on, clear: bits & !on }
    }
}

/// What a vector is to be; it begins as what it is.
pub(super) struct Wanted {
    pub masked: bool,
    pub message: Option<GuestMessage>,
    pub pending: Pending,
    /// What the vIOMMU made of the message, which stays then.
    pub answer: Option<Answer>,
    /// The guest let it send, as far as Message Control and its mask go.
    pub was_live: bool,
    /// Message Control lets it send after the change.
    pub allowed: bool,
}

/// What becomes of a vector's pending bit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    Stays,
    Becomes(bool),
    /// And what its eventfds have counted is thrown away.
    Gone,
}

/// What the first half of a change leaves to the second.
#[derive(Clone, Copy)]
pub(super) struct Next {
    unmask: bool,
    pending: Pending,
}

impl Default for Next {
    fn default() -> Self {
        Next { unmask: false, pending: Pending::Stays }
    }
}

/// What a change has done under the lock, and what is left to do without it.
pub(super) struct Outcome {
    /// These vectors.
    pub indices: Range<u32>,
    /// Some are open, or will be when they are translated, perhaps by somebody else; or they are pins.
    pub to_serve: bool,
    /// Eventfds were unbound.
    unbound: bool,
    changed: Changed,
    result: Result<()>,
}

impl Outcome {
    pub fn nothing(indices: Range<u32>) -> Self {
        let changed = Changed::default();
        Outcome { indices, to_serve: false, unbound: false, changed, result: Ok(()) }
    }

    /// And this; its vectors are among those here.
    pub fn add(&mut self, other: Outcome) {
        self.to_serve |= other.to_serve;
        self.unbound |= other.unbound;
        self.changed.add(other.changed);
        self.result = std::mem::replace(&mut self.result, Ok(())).and(other.result);
    }
}

impl Device {
    /// Makes a change, of these vectors; `edit` says what each is to be, and may change the registers.
    ///
    /// Errors: what the kernel says to unbinding eventfds and to serving vectors. What was to be changed is
    /// changed all the same.
    pub(super) fn change(
        &self,
        control: MutexGuard<'_, Control>,
        gate: GateChange,
        indices: Range<u32>,
        edit: impl FnMut(u32, &mut Registers, &mut Wanted),
    ) -> Result<()> {
        let mut outcome = self.change_locked(control, gate, indices.clone(), edit);
        outcome.add(self.translate(indices));
        self.finish_change(outcome)
    }

    /// What is done without the lock.
    pub(super) fn finish_change(&self, outcome: Outcome) -> Result<()> {
        let Outcome { indices, to_serve, unbound, changed, result } = outcome;
        if unbound {
            // A pin may have been given up: others may find room now.
            self.cache.retry_unserved_quietly();
        }
        let served = if to_serve { self.serve_those(indices) } else { Ok(()) };
        self.tell(changed);
        result.and(served)
    }

    /// What is done under it.
    pub(super) fn change_locked(
        &self,
        mut control: MutexGuard<'_, Control>,
        gate: GateChange,
        indices: Range<u32>,
        edit: impl FnMut(u32, &mut Registers, &mut Wanted),
    ) -> Outcome {
        let slice = indices.start as usize..indices.end as usize;
        let vectors = self.vectors.get(slice.clone()).unwrap_or_default();
        let (must_wait, changed) =
            self.close_and_exchange(&mut control, gate, indices.clone(), edit);
        let controls = control.vectors.get_mut(slice).unwrap_or_default();
        if must_wait {
            vector::wait_for_deliveries(vectors);
        }
        let (unbound, disarmed) = self.disarm(vectors, controls);
        open(vectors, controls);
        self.gate.change(0, gate.clear);
        let is_pin = matches!(self.kind, Kind::Pins { .. });
        let to_serve = is_pin
            || vectors.iter().zip(controls).any(|(vector, control)| {
                vector.is_open(&self.gate) || self.waits_for_translation(vector, control)
            });
        Outcome { indices, to_serve, unbound, changed, result: disarmed }
    }

    /// Whether deliveries must be waited for, and what the VMM will be told.
    fn close_and_exchange(
        &self,
        control: &mut Control,
        gate: GateChange,
        indices: Range<u32>,
        mut edit: impl FnMut(u32, &mut Registers, &mut Wanted),
    ) -> (bool, Changed) {
        let Control { requester, registers, vectors: controls, translations, .. } = control;
        let is_remapped = self.is_remapped();
        let is_asked = |message: GuestMessage| self.is_translatable(message);
        if is_remapped {
            translations.get_or_insert_with(|| self.new_translations());
        }
        let before = self.gate.change(gate.set, 0);
        let after = (before & !gate.clear) | gate.set;
        let guest_allows = |bits: u32| bits & closed::BY_GUEST == 0;
        let mut must_wait = before == 0 && gate.set != 0;
        let mut changed = Changed::enable((before ^ after) & closed::DISABLED != 0);
        for index in indices {
            let at = index as usize;
            let (Some(vector), Some(control)) = (self.vectors.get(at), controls.get_mut(at)) else {
                continue;
            };
            let (was_masked, old) = (vector.is_masked(), vector.message());
            let (was_blocked, old_message) = (vector.is_blocked(), control.message());
            let mut wanted = Wanted {
                masked: was_masked,
                message: control.message(),
                pending: Pending::Stays,
                answer: None,
                was_live: guest_allows(before) && !was_masked,
                allowed: guest_allows(after),
            };
            edit(index, registers, &mut wanted);

            let translation = translations.as_deref_mut().and_then(|all| all.get_mut(at));
            let in_force = match (translation, wanted.message, wanted.answer) {
                (None, message, _) => InForce::Answer(message),
                (Some(translation), Some(_), Some(answer)) => translation.answer(answer),
                (_, message, _) if message == control.message() => InForce::Same,
                (Some(translation), message, _) => {
                    translation.change(message.filter(|it| self.is_translatable(*it)))
                }
            };
            let (new, blocked) = match in_force {
                InForce::Same => (old, was_blocked),
                InForce::Nothing => (None, false),
                InForce::Answer(message) => {
                    let new = message.and_then(|message| self.encode(*requester, message));
                    (new, new.is_none() && wanted.answer.is_some())
                }
            };
            if (new, blocked) != (old, was_blocked) {
                control.generation = control.generation.wrapping_add(1);
                match &new {
                    Some(message) => vector.set(message),
                    None if blocked => vector.block(),
                    None => vector.unset(),
                }
            }
            if wanted.masked && !was_masked {
                vector.mask();
            }
            control.set_message(wanted.message);
            control.next = Next { unmask: was_masked && !wanted.masked, pending: wanted.pending };

            let could_send = before == 0 && !was_masked && old.is_some();
            must_wait |= could_send && (new != old || wanted.masked);
            // Who keeps an interrupt pending does so in a section: it is seen, or comes later.
            must_wait |= wanted.pending != Pending::Stays;
            let has_message = |message: Option<GuestMessage>, encoded: Option<_>| {
                encoded.is_some() || (is_remapped && message.is_some_and(is_asked))
            };
            let was_live = guest_allows(before)
                && !was_masked
                && !was_blocked
                && has_message(old_message, old);
            let is_live = guest_allows(after)
                && !wanted.masked
                && !blocked
                && has_message(wanted.message, new);
            if was_live != is_live || (is_live && new != old) || blocked != was_blocked {
                changed.add_vector(index);
            }
        }
        (must_wait, changed)
    }

    /// Closed vectors' eventfds count from now on. Whether any was let go.
    pub(super) fn disarm(
        &self,
        vectors: &[Vector],
        controls: &mut [VectorControl],
    ) -> (bool, Result<()>) {
        // A source that the VMM masks need not be unbound where the guest's masks alone are in the way.
        let only_masked = self.gate.bits() & !closed::FUNCTION_MASKED == 0;
        let mut to_unbind = Vec::new();
        for (vector, control) in vectors.iter().zip(controls.iter_mut()) {
            let is_relayed = self.is_relayed(control);
            let Some(eventfds) = &mut control.eventfds else { continue };
            // The relay serves it without waiting for another route.
            let is_stale = is_relayed && eventfds.is_stale(vector.message());
            if is_stale || !vector.is_open(&self.gate) {
                if is_relayed {
                    eventfds.traffic.unbound();
                    eventfds.release_unused_route(&self.cache);
                }
                // What the vIOMMU invalidated is not sent even if its source is not silent.
                let is_invalid = self.is_remapped() && !eventfds.all_send(vector.message());
                let may_stay = only_masked && vector.is_set() && !is_stale && !is_invalid;
                to_unbind.extend(eventfds.bound_ones(may_stay));
            }
        }
        if to_unbind.is_empty() {
            return (false, Ok(()));
        }
        let result = irqfd::unbind_all(&self.cache, &mut to_unbind);
        for eventfds in controls.iter_mut().filter_map(|control| control.eventfds.as_mut()) {
            eventfds.release_unused_route(&self.cache);
        }
        (true, result)
    }
}

/// The second half: nothing is sent by these vectors now that was not before.
fn open(vectors: &[Vector], controls: &mut [VectorControl]) {
    for (vector, control) in vectors.iter().zip(controls) {
        let Next { unmask, pending } = std::mem::take(&mut control.next);
        match pending {
            Pending::Stays => {}
            Pending::Becomes(true) => vector.set_pending(),
            Pending::Becomes(false) => _ = vector.take_pending(),
            Pending::Gone => {
                vector.take_pending();
                if let Some(eventfds) = &control.eventfds {
                    eventfds.take_counted();
                }
            }
        }
        if unmask {
            vector.unmask();
        }
    }
}
