// SPDX-License-Identifier: MIT OR Apache-2.0
//! A device's vectors as what the relay serves.
//!
//! Who serves an eventfd is decided under the device's lock: the kernel while it is bound, the relay while it is not and the
//! vector is open, nobody while it is closed: then it counts. The relay reads a counter and makes the vector pending under that
//! lock, and sends without it, as after an unmask; so a mask that comes between keeps it pending.

use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::Weak;
use std::time::{Duration, Instant};

use super::eventfds::{Eventfds, Server};
use super::{Device, VectorControl};
use crate::cache::first_error;
use crate::error::Result;
use crate::owner::{Owner, Sample, ServedBy, Verdict};
use crate::relay::Relay;
use crate::trace;
use crate::vector::Vector;

/// Signals that make a vector busy.
const BUSY: u32 = 4;
/// How long a vector has been open when it is calm, at first. Each time that it is masked soon after it was promoted doubles it.
const CALM: Duration = Duration::from_millis(2);
const MOST_IMPATIENT: u8 = 9;
/// In the kernel for so many times that long, it was worth it.
const WORTH: u32 = 16;
/// Samples that a vector found busy is left out of, at most.
const MOST_REST: u16 = 64;

/// What the relay has seen of a vector with eventfds.
#[derive(Default)]
pub(super) struct Traffic {
    /// Since when it is open; `None`: closed, or the relay does not serve it.
    open_since: Option<Instant>,
    promoted: Option<Instant>,
    /// Signals lately.
    signals: u32,
    /// How often calm was too short.
    restless: u8,
    /// On its way into the kernel.
    is_candidate: bool,
    /// Among those that are sampled in turn.
    is_listed: bool,
    /// Taken from the kernel to be watched, its route kept.
    is_sampled: bool,
    /// Samples to be left out of, and how many the next time.
    rest: u16,
    next_rest: u16,
}

impl Traffic {
    fn calm(&self) -> Duration {
        CALM.saturating_mul(1u32.checked_shl(self.restless.into()).unwrap_or(u32::MAX))
    }

    /// The vector's eventfds are not the kernel's any more, for the guest changed it.
    pub fn unbound(&mut self) {
        if let Some(promoted) = self.promoted.take() {
            let was_worth_it = promoted.elapsed() > self.calm().saturating_mul(WORTH);
            self.restless = match was_worth_it {
                true => self.restless.saturating_sub(1),
                false => self.restless.saturating_add(1).min(MOST_IMPATIENT),
            };
        }
        self.is_sampled = false;
        self.open_since = None;
        self.signals = 0;
    }

    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    pub fn ends_sample(&mut self) {
        self.is_sampled = false;
    }

    fn is_busy_and_calm(&self) -> bool {
        self.signals >= BUSY && self.open_since.is_some_and(|since| since.elapsed() >= self.calm())
    }
}

impl Device {
    fn relay(&self) -> Option<&Relay> {
        self.cache.relay().filter(|relay| relay.is_on())
    }

    /// The relay serves this vector, but for what it has promoted.
    pub(super) fn is_relayed(&self, control: &VectorControl) -> bool {
        self.relay().is_some()
            && control.eventfds.as_ref().is_some_and(|eventfds| eventfds.may_be_relayed())
    }

    /// And it does so now.
    pub(super) fn is_in_relay(&self, vector: &Vector, control: &VectorControl) -> bool {
        let eventfds = control.eventfds.as_ref();
        self.is_relayed(control)
            && vector.is_open(&self.gate)
            && eventfds.is_some_and(|it| !it.all_send(vector.message()) || it.need_relay())
    }

    /// Whether an eventfd may be bound where there are no irqfds.
    pub(super) fn may_relay(&self, server: Server) -> bool {
        server == Server::Relay || (server == Server::Any && self.relay().is_some())
    }

    /// The relay hears an eventfd that is new.
    pub(super) fn take_in(&self, eventfds: &mut Eventfds, index: u32) -> Result<()> {
        let Some(relay) = self.relay() else { return Ok(()) };
        let me: Weak<dyn Owner> = self.me.clone();
        eventfds.take_in(relay, &me, index)
    }

    /// Of these, the relay serves what is open and its to serve. The others are the kernel's.
    pub(super) fn relay_those(&self, indices: Range<u32>) {
        let Some(relay) = self.relay() else { return };
        let mut control = self.control();
        for index in indices {
            let Ok((vector, vector_control)) = self.both(&mut control, index) else { continue };
            let is_open = vector.is_open(&self.gate);
            let Some(eventfds) = &mut vector_control.eventfds else { continue };
            if is_open && eventfds.may_be_relayed() {
                // Together with what is pending: one message. What comes after this the relay is told of.
                if eventfds.take_counted() {
                    trace::relay(self, index);
                    vector.set_pending();
                    relay.messages.fetch_add(1, Ordering::Relaxed);
                }
                eventfds.listen(relay);
                let traffic = &mut eventfds.traffic;
                traffic.open_since.get_or_insert_with(Instant::now);
                eventfds.refusal = 0;
            }
        }
    }

    pub(super) fn start_relaying(&self) -> Result<()> {
        let Ok(mut control) = self.lock() else { return Ok(()) };
        let mut in_kernel = Vec::new();
        for index in self.all() {
            let Ok((vector, vector_control)) = self.both(&mut control, index) else { continue };
            if let Some(eventfds) = &mut vector_control.eventfds {
                self.take_in(eventfds, index)?;
                let is_promoted = self.is_promoted(vector, eventfds);
                if is_promoted && !std::mem::replace(&mut eventfds.traffic.is_listed, true) {
                    in_kernel.push((self.me.clone() as Weak<dyn Owner>, index));
                }
            }
        }
        drop(control);
        if let Some(relay) = self.relay() {
            relay.list(in_kernel);
        }
        self.relay_those(self.all());
        first_error(self.all().map(|index| self.hand_over(index)))
    }

    pub(super) fn stop_relaying(&self) -> Result<()> {
        let Some(relay) = self.cache.relay() else { return Ok(()) };
        let Ok(mut control) = self.lock() else { return Ok(()) };
        for vector_control in &mut *control.vectors {
            if let Some(eventfds) = &mut vector_control.eventfds {
                eventfds.leave(relay);
                eventfds.traffic = Traffic::default();
            }
        }
        drop(control);
        self.serve_those(self.all())
    }

    pub(super) fn relay_signalled(&self, index: u32) {
        let Some(relay) = self.relay() else { return };
        let mut control = self.control();
        let Ok((vector, vector_control)) = self.both(&mut control, index) else { return };
        let Some(eventfds) = &mut vector_control.eventfds else { return };
        if !vector.is_open(&self.gate) || !eventfds.may_be_relayed() {
            eventfds.deafen(relay);
            return;
        }
        // Nothing if the kernel has taken it: it may have been promoted since.
        if !eventfds.take_counted() {
            return;
        }
        trace::relay(self, index);
        vector.set_pending();
        relay.messages.fetch_add(1, Ordering::Relaxed);
        let can_bind = self.cache.features().irqfd;
        let traffic = &mut eventfds.traffic;
        traffic.signals = traffic.signals.saturating_add(1);
        let is_ready = traffic.is_busy_and_calm() && !traffic.is_candidate;
        let is_served = eventfds.all_send(vector.message());
        if eventfds.traffic.is_sampled {
            self.back_into_kernel(vector, eventfds);
        } else if is_ready && !is_served && can_bind && eventfds.may_be_bound() {
            eventfds.traffic.is_candidate = true;
            relay.promote((self.me.clone(), index));
        }
        drop(control);
        if let Err(e) = self.hand_over(index) {
            log::error!("{}: vector {index}: {e}", self.name);
        }
    }

    /// A sample ends with a signal.
    fn back_into_kernel(&self, vector: &Vector, eventfds: &mut Eventfds) {
        eventfds.traffic.is_sampled = false;
        let stands = eventfds.route.is_some_and(|route| Some(route.message) == vector.message());
        if stands {
            // What the kernel refuses the relay serves.
            let (counted, _) = eventfds.bind(&self.cache);
            if counted {
                vector.set_pending();
            }
        }
        let traffic = &mut eventfds.traffic;
        traffic.next_rest = traffic.next_rest.saturating_mul(2).clamp(1, MOST_REST);
        traffic.rest = traffic.next_rest;
    }

    pub(super) fn relay_served_by(&self, index: u32) -> ServedBy {
        let served_by = |vector: &Vector, eventfds: &mut Eventfds| {
            eventfds.traffic.is_candidate = false;
            if !vector.is_open(&self.gate) || self.relay().is_none() {
                return ServedBy::Nobody;
            }
            if eventfds.all_send(vector.message()) {
                eventfds.traffic.promoted.get_or_insert_with(Instant::now);
                let is_listed = std::mem::replace(&mut eventfds.traffic.is_listed, true);
                return ServedBy::Kernel { is_listed };
            }
            let errno = eventfds.errno();
            eventfds.refusal = 0;
            let traffic = &mut eventfds.traffic;
            if errno == libc::ENOSPC {
                traffic.is_candidate = true;
                return ServedBy::Relay;
            }
            if errno != 0 {
                // The kernel's own reasons, which no other vector's route changes: it is tried again, ever later.
                (traffic.signals, traffic.open_since) = (0, Some(Instant::now()));
                traffic.restless = traffic.restless.saturating_add(1).min(MOST_IMPATIENT);
            }
            // Else it was changed meanwhile.
            ServedBy::Nobody
        };
        self.with_eventfds(index, served_by).unwrap_or(ServedBy::Nobody)
    }

    pub(super) fn relay_heat(&self, index: u32) -> u32 {
        let heat = |_: &Vector, eventfds: &mut Eventfds| {
            let signals = eventfds.traffic.signals;
            eventfds.traffic.signals /= 2;
            signals
        };
        self.with_eventfds(index, heat).unwrap_or(0)
    }

    pub(super) fn relay_sample(&self, index: u32) -> Sample {
        let sample = |vector: &Vector, eventfds: &mut Eventfds| {
            if !self.is_promoted(vector, eventfds) {
                eventfds.traffic.is_listed = false;
                return Sample::Gone;
            }
            let traffic = &mut eventfds.traffic;
            if traffic.rest > 0 {
                traffic.rest -= 1;
                return Sample::NotNow;
            }
            match eventfds.unbind_for_a_while(&self.cache) {
                Ok(()) => {
                    eventfds.traffic.is_sampled = true;
                    Sample::Begun
                }
                Err(_) => Sample::NotNow,
            }
        };
        self.with_eventfds(index, sample).unwrap_or(Sample::Gone)
    }

    pub(super) fn relay_judge(&self, index: u32) -> Verdict {
        let judge = |vector: &Vector, eventfds: &mut Eventfds| {
            if !std::mem::take(&mut eventfds.traffic.is_sampled) {
                let is_promoted = self.is_promoted(vector, eventfds);
                eventfds.traffic.is_listed = is_promoted;
                return if is_promoted { Verdict::Busy } else { Verdict::Gone };
            }
            eventfds.release_unused_route(&self.cache);
            let traffic = &mut eventfds.traffic;
            (traffic.promoted, traffic.signals, traffic.next_rest) = (None, 0, 0);
            traffic.is_listed = false;
            Verdict::Idle
        };
        self.with_eventfds(index, judge).unwrap_or(Verdict::Gone)
    }

    /// The kernel serves it, and the relay might.
    fn is_promoted(&self, vector: &Vector, eventfds: &Eventfds) -> bool {
        vector.is_open(&self.gate)
            && eventfds.may_be_relayed()
            && eventfds.all_send(vector.message())
    }

    /// Under the lock; `None` if the vector has no eventfds.
    fn with_eventfds<T>(
        &self,
        index: u32,
        f: impl FnOnce(&Vector, &mut Eventfds) -> T,
    ) -> Option<T> {
        let mut control = self.control();
        let (vector, vector_control) = self.both(&mut control, index).ok()?;
        Some(f(vector, vector_control.eventfds.as_mut()?))
    }
}
