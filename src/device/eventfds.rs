// SPDX-License-Identifier: MIT OR Apache-2.0
//! The eventfds of one vector, and the route they stand on in the kernel. A pin (see [`Kind::Pins`]) has its
//! route whether it has eventfds or not.
//!
//! [`Kind::Pins`]: super::Kind::Pins
//!
//! Order, always: the route in the kernel first, then the irqfd; the irqfd out first, then the route
//! may go. An eventfd that is not bound counts, and its counter is its vector's pending bit; what it
//! counted is taken over just before it is bound.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Weak;

use super::relaying::Traffic;
use crate::cache::{first_error, RouteCache};
use crate::error::Result;
use crate::irqfd::Irqfd;
use crate::message::Message;
use crate::owner::Owner;
use crate::relay::{Relay, Token};
use crate::routes::PinnedRoute;

/// How an eventfd is kept from interrupting while the guest has its vector masked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masking {
    /// It is no irqfd then; it counts, and that is the vector's pending bit.
    #[default]
    Unbind,
    /// It stays an irqfd, and the VMM, told that the vector is not live, sees to it that it is not signalled
    /// (vhost, VFIO). What the source holds back is the VMM's to tell: by delivering it.
    AtSource,
}

/// Who may serve an eventfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Server {
    /// The kernel, or the relay if there is one: see there.
    #[default]
    Any,
    /// The kernel alone (posted interrupts).
    Kernel,
    /// The relay alone.
    Relay,
}

/// How an eventfd is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventfdOptions {
    /// While its vector is masked.
    pub masking: Masking,
    /// While it is not.
    pub server: Server,
}

impl From<Masking> for EventfdOptions {
    fn from(masking: Masking) -> Self {
        EventfdOptions { masking, ..Self::default() }
    }
}

pub(super) struct Eventfd {
    irqfd: Irqfd,
    options: EventfdOptions,
    /// Its place in the relay, while that is on.
    token: Option<Token>,
    /// The relay does not hear it.
    is_deaf: bool,
}

impl Eventfd {
    fn number(&self) -> RawFd {
        self.irqfd.as_fd().as_raw_fd()
    }

    fn may_be_bound(&self) -> bool {
        self.options.server != Server::Relay
    }
}

/// Exists while the vector has an eventfd, or if it is a pin.
#[derive(Default)]
pub(super) struct Eventfds {
    list: Vec<Eventfd>,
    /// The GSI that is this pin's for good.
    pub pin: Option<u32>,
    /// `None` also while a change of it is under way (see `arm`); the change owns the pin then.
    pub route: Option<PinnedRoute>,
    /// Why there could be no route; 0 if there could.
    pub refusal: i32,
    pub traffic: Traffic,
    /// Pins given up while an irqfd that cannot be unbound stands on them.
    strays: Vec<u32>,
}

impl Eventfds {
    pub fn on_pin(gsi: u32) -> Self {
        Eventfds { pin: Some(gsi), ..Eventfds::default() }
    }

    /// The pin's route is not what it should be.
    pub fn is_wrong_pin(&self, message: Option<Message>) -> bool {
        self.pin.is_some() && self.route.map(|route| route.message) != message
    }

    /// Why it is not served; 0 if it is.
    pub fn errno(&self) -> i32 {
        let of_eventfds = self.list.iter().map(|eventfd| eventfd.irqfd.errno);
        std::iter::once(self.refusal).chain(of_eventfds).find(|&errno| errno != 0).unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Neither eventfds nor a pin.
    pub fn is_unused(&self) -> bool {
        self.list.is_empty() && self.pin.is_none()
    }

    /// Every one is an irqfd, and sends this message.
    pub fn all_send(&self, message: Option<Message>) -> bool {
        self.route.is_some_and(|route| {
            Some(route.message) == message
                && self.bindable().all(|eventfd| eventfd.irqfd.bound == Some(route.gsi))
        })
    }

    fn bindable(&self) -> impl Iterator<Item = &Eventfd> {
        self.list.iter().filter(|eventfd| eventfd.may_be_bound())
    }

    /// Some may be irqfds.
    pub fn may_be_bound(&self) -> bool {
        self.bindable().next().is_some()
    }

    /// Some are served by the relay or not at all.
    pub fn need_relay(&self) -> bool {
        self.list.iter().any(|eventfd| !eventfd.may_be_bound())
    }

    /// The relay hears all of them.
    pub fn may_be_relayed(&self) -> bool {
        !self.list.is_empty() && self.list.iter().all(|eventfd| eventfd.token.is_some())
    }

    /// What they send as irqfds is not this.
    pub fn is_stale(&self, message: Option<Message>) -> bool {
        self.route.is_some_and(|route| Some(route.message) != message)
    }

    /// Has the relay hear those that it may serve.
    pub fn take_in(&mut self, relay: &Relay, owner: &Weak<dyn Owner>, index: u32) -> Result<()> {
        if self.pin.is_some() {
            return Ok(());
        }
        for eventfd in &mut self.list {
            if eventfd.token.is_none() && eventfd.options.server != Server::Kernel {
                let token = relay.take_in(eventfd.number(), owner.clone(), index)?;
                (eventfd.token, eventfd.is_deaf) = (Some(token), false);
            }
        }
        Ok(())
    }

    pub fn leave(&mut self, relay: &Relay) {
        for eventfd in &mut self.list {
            if let Some(token) = eventfd.token.take() {
                relay.let_go(eventfd.number(), token);
            }
        }
    }

    pub fn deafen(&mut self, relay: &Relay) {
        for eventfd in self.list.iter_mut().filter(|eventfd| !eventfd.is_deaf) {
            if let Some(token) = eventfd.token {
                relay.deafen(eventfd.number(), token);
                eventfd.is_deaf = true;
            }
        }
    }

    pub fn listen(&mut self, relay: &Relay) {
        for eventfd in self.list.iter_mut().filter(|eventfd| eventfd.is_deaf) {
            if let Some(token) = eventfd.token {
                relay.listen(eventfd.number(), token);
                eventfd.is_deaf = false;
            }
        }
    }

    /// None is an irqfd, but the route stays.
    pub fn unbind_for_a_while(&mut self, cache: &RouteCache) -> Result<()> {
        self.unbind_if(cache, |_| true)
    }

    /// Whether this one is an irqfd now; `None` if it is not here.
    pub fn is_bound(&self, number: RawFd) -> Option<bool> {
        let found = self.list.iter().find(|eventfd| eventfd.irqfd.number == number);
        found.map(|eventfd| eventfd.irqfd.bound.is_some())
    }

    /// How many the kernel reads.
    pub fn bound(&self) -> usize {
        self.list.iter().filter(|eventfd| eventfd.irqfd.bound.is_some()).count()
    }

    pub fn any_bound(&self) -> bool {
        self.list.iter().any(|eventfd| eventfd.irqfd.bound.is_some())
    }

    pub fn is_bound_to(&self, gsi: u32) -> bool {
        self.list.iter().any(|eventfd| eventfd.irqfd.bound == Some(gsi))
    }

    /// Something is counted by an eventfd that the kernel does not read.
    pub fn has_counted(&self) -> bool {
        self.unbound().any(|eventfd| eventfd.irqfd.has_count())
    }

    /// Takes what eventfds that the kernel does not read have counted. Whether that was anything.
    pub fn take_counted(&self) -> bool {
        // Of every one, not only up to the first.
        let counts = self.unbound().map(|eventfd| eventfd.irqfd.take_count());
        counts.filter(|&count| count > 0).count() > 0
    }

    /// Takes an eventfd in, unbound.
    pub fn add(
        &mut self,
        cache: &RouteCache,
        fd: BorrowedFd<'_>,
        options: EventfdOptions,
        borrow: bool,
    ) -> Result<()> {
        let irqfd = Irqfd::take(cache, fd, None, borrow)?;
        // Nearly always there is one only.
        self.list.reserve_exact(1);
        self.list.push(Eventfd { irqfd, options, token: None, is_deaf: false });
        Ok(())
    }

    /// Lets an eventfd go, or all. Those that the kernel would not let go stay.
    pub fn remove(&mut self, cache: &RouteCache, number: Option<RawFd>) -> Result<()> {
        let is_meant =
            |eventfd: &Eventfd| number.is_none_or(|number| eventfd.irqfd.number == number);
        let result = self.unbind_if(cache, |eventfd| is_meant(eventfd));
        self.forget_if(cache, is_meant);
        result
    }

    /// Forgets all that are not bound.
    pub fn forget_unbound(&mut self, cache: &RouteCache) {
        self.forget_if(cache, |_| true);
    }

    fn forget_if(&mut self, cache: &RouteCache, is_meant: impl Fn(&Eventfd) -> bool) {
        self.list.retain(|eventfd| {
            let stays = !is_meant(eventfd) || eventfd.irqfd.bound.is_some();
            if !stays {
                if let (Some(token), Some(relay)) = (eventfd.token, cache.relay()) {
                    relay.let_go(eventfd.number(), token);
                }
                eventfd.irqfd.release(cache);
            }
            stays
        });
        if self.list.is_empty() {
            self.traffic.ends_sample();
        }
        self.release_unused_route(cache);
    }

    /// Makes irqfds of all, on the pinned route. True if something had been counted before: it is
    /// taken out of the counters, for the caller to send.
    pub fn bind(&mut self, cache: &RouteCache) -> (bool, Result<()>) {
        self.refusal = 0;
        self.traffic.ends_sample();
        let Some(route) = self.route else {
            return (false, Ok(()));
        };
        let mut result = self.unbind_if(cache, |eventfd| eventfd.irqfd.bound != Some(route.gsi));
        let mut counted = false;
        let is_meant =
            |eventfd: &&mut Eventfd| eventfd.irqfd.bound.is_none() && eventfd.may_be_bound();
        for eventfd in self.list.iter_mut().filter(is_meant) {
            // Before it is bound: afterwards the counter no longer tells what was delivered.
            let count = eventfd.irqfd.take_count();
            match eventfd.irqfd.bind(cache, route.gsi) {
                Ok(()) => counted |= count > 0,
                Err(e) => {
                    eventfd.irqfd.put_back(count);
                    result = result.and(Err(e));
                }
            }
        }
        self.release_unused_route(cache);
        (counted, result)
    }

    /// From now on all count. If the kernel refuses, those it refused stay bound and keep the route.
    pub fn unbind(&mut self, cache: &RouteCache) -> Result<()> {
        let result = self.unbind_if(cache, |_| true);
        self.release_unused_route(cache);
        result
    }

    /// Those that the kernel reads; `may_stay`: but for those that their source keeps silent.
    pub fn bound_ones(&mut self, may_stay: bool) -> impl Iterator<Item = &mut Irqfd> {
        let is_meant = move |eventfd: &&mut Eventfd| {
            eventfd.irqfd.bound.is_some()
                && !(may_stay && eventfd.options.masking == Masking::AtSource)
        };
        self.list.iter_mut().filter(is_meant).map(|eventfd| &mut eventfd.irqfd)
    }

    /// Gives up a pin that the vector does not hold by `route`, unless an irqfd still stands on it:
    /// then it becomes the vector's route, or, if it has another, stays pinned for good, so that the GSI
    /// does not get a new owner.
    pub fn give_up(&mut self, cache: &RouteCache, pin: PinnedRoute) {
        let is_held_twice = self.route.is_some_and(|route| route.gsi == pin.gsi);
        if is_held_twice || !self.is_bound_to(pin.gsi) {
            cache.routes.unpin(pin.gsi);
        } else if self.route.is_none() {
            self.route = Some(pin);
        } else {
            self.strays.push(pin.gsi);
        }
    }

    fn unbind_if(&mut self, cache: &RouteCache, is_meant: impl Fn(&Eventfd) -> bool) -> Result<()> {
        let meant = self.list.iter_mut().filter(|eventfd| is_meant(eventfd));
        first_error(meant.map(|eventfd| eventfd.irqfd.unbind(cache)))
    }

    fn unbound(&self) -> impl Iterator<Item = &Eventfd> {
        self.list.iter().filter(|eventfd| eventfd.irqfd.bound.is_none())
    }

    pub fn release_unused_route(&mut self, cache: &RouteCache) {
        let list = &self.list;
        self.strays.retain(|&gsi| {
            let stays = list.iter().any(|eventfd| eventfd.irqfd.bound == Some(gsi));
            if !stays {
                cache.routes.unpin(gsi);
            }
            stays
        });
        if self.pin.is_some() || self.traffic.is_sampled() {
            return;
        }
        if let Some(unused) = self.route.filter(|route| !self.is_bound_to(route.gsi)) {
            self.route = None;
            cache.routes.unpin(unused.gsi);
        }
    }
}
