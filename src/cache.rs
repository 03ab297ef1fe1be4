// SPDX-License-Identifier: MIT OR Apache-2.0
//! A route cache: all that one VM's devices share. Its backend, its routes, how its guest addresses
//! APICs, and which devices there are.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use kvm_bindings::kvm_irq_routing_entry;
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::backend::kvm::FastVm;
use crate::backend::{self, Backend, Features, Host, Reception};
use crate::cancel;
use crate::dump::Described;
use crate::error::{Error, Result};
use crate::hash::{self, HashMap, HashSet};
use crate::memory;
use crate::message::{Addressing, GuestMessage, Message, NO_REQUESTER};
use crate::relay::Relay;
use crate::remap::{Remap, Translate, NO_TAG};
use crate::routes::Routes;
use crate::stats::Stats;
use crate::sync::{self, barrier, Readers};
use crate::trace;
use crate::transaction;

/// What a cache is made with; the default is a plain one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// The lowest GSI that may be taken; 0: above an IOAPIC's 24 pins.
    pub first_gsi: u32,
    /// Entries in the table, and one above the highest GSI; 0: what the backend says.
    pub max_routes: u32,
    /// Send messages through routes even where they could be sent directly.
    pub no_direct: bool,
    /// Begin as after [`RouteCache::pause`].
    pub paused: bool,
    /// Short-lived threads may be started, to unbind many eventfds at once.
    pub helper_threads: bool,
    /// Never use `membarrier(2)` in this process; for its first cache.
    pub fences: bool,
}

/// The pins of an x86 IOAPIC, in the kernel or in user space, have GSIs 0 to 23.
const IOAPIC_PINS: u32 = 24;

/// More threads than exchange one vector's message at the same time.
const MOST_ROUNDS: u32 = 64;

/// More routes than any kernel has.
const MAX_ROUTES: u32 = 1 << 16;

/// What came of an attempt to send.
pub(crate) enum Sending {
    Done(Reception),
    /// Leave the section, [`RouteCache::provide_route`], and try again.
    NeedsRoute,
    Failed(Error),
}

/// What a cache asks of the devices on it. (They know the cache; this is all it knows of them.)
pub(crate) trait Member: Send + Sync {
    /// The cache goes: unbind everything, answer `ESHUTDOWN` from now on.
    fn shut_down(&self);
    /// Addressing changed: encode every message anew.
    fn readdress(&self) -> Result<()>;
    /// Send nothing more, keep everything.
    fn pause(&self) -> Result<()>;
    /// Sending is allowed again. Nothing is done about it yet: see [`Member::serve`].
    fn unpause(&self);
    /// Give eventfds to the kernel and send what is pending.
    fn serve(&self) -> Result<()>;
    /// Wait until the VMM's function for changes does not run.
    fn wait_until_told(&self);
    /// Tell the VMM what it could not be told while the cache was paused.
    fn tell_untold(&self);
    /// These tags of this requester's messages, or of anybody's, are invalid.
    fn invalidate(&self, requester: u32, tags: &RangeInclusive<u64>);
    /// Nothing of what is invalid is sent any more when this returns; what the vIOMMU says now is.
    fn translate(&self) -> Result<()>;
    /// Some irqfd is not on a route of its vector's message.
    fn sends_late(&self) -> bool;
    /// The relay is on: it hears the eventfds.
    fn start_relaying(&self) -> Result<()>;
    /// It is off: give them to the kernel.
    fn stop_relaying(&self) -> Result<()>;
    /// Vectors that the relay serves now.
    fn relayed(&self) -> u64;
    /// Try again to serve what could not be served.
    fn retry(&self) -> Result<()>;
    /// Vectors that are open and have an eventfd nobody serves.
    fn unserved(&self) -> u64;
    /// All of it, for people.
    fn describe(&self) -> Result<Described<'_>>;
}

/// One VM's routes and what its devices share. See the [module](self).
// What a delivery reads comes first, together: behind a system call, every cache line counts.
#[repr(C)]
pub struct RouteCache {
    /// The host, in the case that is nearly all there is.
    fast_vm: FastVm,
    host: Host,
    /// Messages are sent by [`Backend::signal`], not through routes.
    direct: bool,
    features: Features,
    pub(crate) routes: Routes,
    /// Sections of [`RouteCache::deliver_message`], which has no vector to read.
    readers: Readers,
    addressing: AtomicU8,
    may_start_helpers: bool,
    /// How often it was paused; held while members are paused one by one, and while a new one joins them. Taken
    /// before any other lock.
    pauses: Mutex<u32>,
    /// Whether that is more than 0.
    paused: AtomicBool,
    shared: Mutex<Shared>,
    remap: Remap,
    relay: OnceCell<Relay>,
    /// Some vector may be unserved. Only a hint that looking is worth while.
    some_unserved: AtomicBool,
    occasions: AtomicU64,
    pub(crate) irqfd_binds: AtomicU64,
    pub(crate) irqfd_unbinds: AtomicU64,
}

/// The innermost lock: nothing is called under it.
#[derive(Default)]
struct Shared {
    /// By address, so that a device can take itself out.
    members: HashMap<usize, Weak<dyn Member>>,
    /// By the eventfd's identity, or its number where there is none: bound to some vector.
    eventfds: HashSet<EventfdKey>,
}

/// What tells eventfds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventfdKey {
    Identity(u64),
    Number(i32),
}

impl std::fmt::Debug for RouteCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouteCache").field("features", &self.features).finish_non_exhaustive()
    }
}

impl RouteCache {
    /// A cache over this backend. Writes nothing: the VM need not have an interrupt controller yet.
    ///
    /// Errors: `ENOTSUP` if the backend cannot send messages; `EINVAL` for bounds that leave no GSI;
    /// `EBUSY` if fences are asked for too late.
    pub fn new(backend: impl Into<Host>, config: &Config) -> Result<Arc<Self>> {
        let host = backend.into();
        let mut features = host.get().features();
        let direct = features.direct && !config.no_direct;
        if features.gsi_direct && features.routes {
            return Err(Error::invalid("a message is a GSI, or routed by a table: not both"));
        }
        let by_gsi = features.routes || (features.gsi_direct && features.raise);
        if !direct && !by_gsi {
            return Err(Error::new(
                libc::ENOTSUP,
                "messages can be sent neither directly nor by routes",
            ));
        }
        if config.max_routes > features.max_routes {
            return Err(Error::invalid("max_routes is more than there are"));
        }
        if config.max_routes != 0 {
            features.max_routes = config.max_routes;
        }
        features.max_routes = features.max_routes.min(MAX_ROUTES);
        let first_gsi = if config.first_gsi == 0 { IOAPIC_PINS } else { config.first_gsi };
        if features.routes && (features.irqfd || !direct) && first_gsi >= features.max_routes {
            return Err(Error::invalid("first_gsi leaves no GSI below max_routes"));
        }
        barrier::choose(config.fences)?;
        hash::prepare();
        let fast_vm = match &host {
            Host::Kvm(kvm) if direct => kvm.fast_vm(),
            _ => FastVm::NONE,
        };
        Ok(Arc::new(RouteCache {
            fast_vm,
            routes: Routes::new(first_gsi, &features, direct)?,
            host,
            features: Features { direct, ..features },
            direct,
            readers: Readers::new(),
            addressing: AtomicU8::new(Addressing::default().to_bits()),
            may_start_helpers: config.helper_threads,
            pauses: Mutex::new(u32::from(config.paused)),
            paused: AtomicBool::new(config.paused),
            shared: Mutex::default(),
            remap: Remap::new(),
            relay: OnceCell::new(),
            some_unserved: AtomicBool::new(false),
            occasions: AtomicU64::new(0),
            irqfd_binds: AtomicU64::new(0),
            irqfd_unbinds: AtomicU64::new(0),
        }))
    }

    /// What works here; `direct` and `max_routes` as this cache uses them.
    pub fn features(&self) -> Features {
        self.features
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        self.host.get()
    }

    /// Sends a message that belongs to no vector, past the vIOMMU.
    ///
    /// Errors: `EINVAL` if it is no interrupt message; `EAGAIN` while the cache is paused (it has nowhere to be kept); what
    /// the kernel says.
    pub fn deliver_message(&self, address: u64, data: u32, requester: u32) -> Result<Reception> {
        trace::deliver_message(self, address, data, requester);
        let message = self.encode(GuestMessage { address, data }, requester);
        let message = message.ok_or_else(not_a_message)?;
        loop {
            if let Some(reception) = self.send_if(&message, || true)? {
                return Ok(reception);
            }
        }
    }

    /// The same, of a message as the guest wrote it: through the vIOMMU, if there is one. `None` if that blocks it.
    pub fn deliver_untranslated(
        &self,
        address: u64,
        data: u32,
        requester: u32,
    ) -> Result<Option<Reception>> {
        trace::deliver_message(self, address, data, requester);
        let message = GuestMessage { address, data };
        while !self.remap.is_on() {
            let encoded = self.encode(message, requester).ok_or_else(not_a_message)?;
            if let Some(reception) = self.send_if(&encoded, || !self.remap.is_on())? {
                return Ok(Some(reception));
            }
        }
        if !self.is_interrupt(message) {
            return Err(not_a_message());
        }
        loop {
            let generation = self.remap.generation();
            let answer = self.remap.translate(requester, message, || self.is_paused());
            let translated = answer.ok_or_else(paused)?.message;
            let encoded = translated.and_then(|it| self.encode(it, requester));
            let Some(encoded) = encoded else { return Ok(None) };
            let is_valid = || self.remap.generation() == generation;
            if let Some(reception) = self.send_if(&encoded, is_valid)? {
                return Ok(Some(reception));
            }
        }
    }

    /// Sends a message in a section, if it is still to be sent there. `None` if it is not, or had no route yet: try again.
    fn send_if(&self, message: &Message, is_valid: impl Fn() -> bool) -> Result<Option<Reception>> {
        let section = self.readers.enter();
        if self.is_paused() {
            return Err(paused());
        }
        if !is_valid() {
            return Ok(None);
        }
        let sending = self.send(message, section.is_counted());
        drop(section);
        match sending {
            Sending::Done(reception) => Ok(Some(reception)),
            Sending::Failed(error) => Err(error),
            Sending::NeedsRoute => self.provide_route(message).map(|()| None),
        }
    }

    /// KVM, if it takes messages directly: the way that nearly all deliveries go.
    #[inline(always)]
    pub(crate) fn fast_vm(&self) -> Option<FastVm> {
        self.fast_vm.is_any().then_some(self.fast_vm)
    }

    /// Sends a message. Inside a section; `is_counted` says of which kind.
    #[inline(always)]
    pub(crate) fn send(&self, message: &Message, is_counted: bool) -> Sending {
        let result = if self.direct {
            self.host.signal(message)
        } else if self.features.gsi_direct {
            self.host.get().gsi_of(message).and_then(|gsi| self.host.raise(gsi))
        } else {
            match self.routes.with_gsi(message, is_counted, |gsi| self.host.raise(gsi)) {
                Some(result) => result,
                None => return Sending::NeedsRoute,
            }
        };
        match result {
            Ok(reception) => Sending::Done(reception),
            Err(error) => Sending::Failed(error),
        }
    }

    #[cold]
    pub(crate) fn provide_route(&self, message: &Message) -> Result<()> {
        // Whoever holds the table's lock may be waiting for this thread's section.
        refuse_reentry()?;
        self.routes.provide(self.backend(), message)
    }

    /// Replaces the VMM's own routes, the kernel's defaults included. They are written at once and go
    /// along with every later write.
    ///
    /// Errors: `EINVAL` (a GSI beyond the table), `EBUSY` (a GSI in use), `ENOSPC`, what the kernel says. Nothing is
    /// changed then.
    pub fn set_fixed(&self, entries: Vec<kvm_irq_routing_entry>) -> Result<()> {
        refuse_reentry()?;
        self.routes.set_fixed(self.backend(), entries)?;
        self.retry_unserved_quietly();
        Ok(())
    }

    /// Says how the guest addresses APICs; live messages are encoded anew.
    ///
    /// Errors: `EINVAL` for `ext_dest_id` without `x2apic_ids`; what the kernel says to the new routes (the addressing
    /// stands, and what could not be served is tried again).
    pub fn set_addressing(&self, addressing: Addressing) -> Result<()> {
        if addressing.ext_dest_id && !addressing.x2apic_ids {
            let what = "15-bit destinations reach the kernel only with 32-bit APIC IDs (MSIROUTE_X2APIC_IDS)";
            return Err(Error::invalid(what));
        }
        refuse_reentry()?;
        // SeqCst: a change of a vector that reads the old value under its device's lock is before
        // `readdress` in that lock's order.
        if self.addressing.swap(addressing.to_bits(), Ordering::SeqCst) == addressing.to_bits() {
            return Ok(());
        }
        first_error(self.members().iter().map(|member| member.readdress()))
    }

    pub(crate) fn addressing(&self) -> Addressing {
        Addressing::from_bits(self.addressing.load(Ordering::SeqCst))
    }

    /// The guest's message in the form that the backend takes; `None` if it is none.
    pub(crate) fn encode(&self, message: GuestMessage, requester: u32) -> Option<Message> {
        let GuestMessage { address, data } = message;
        if self.features.gsi_direct {
            // Which messages are any is the interrupt controller's to say.
            let message = Message { address, data, requester };
            return self.backend().gsi_of(&message).is_ok().then_some(message);
        }
        self.addressing().encode(message, requester)
    }

    /// The high half of an address matters.
    pub(crate) fn high_half_counts(&self) -> bool {
        self.addressing().x2apic_ids
            || self.features.gsi_direct
            || cfg!(not(any(target_arch = "x86_64", target_arch = "x86")))
    }

    /// Whether a vIOMMU takes it for an interrupt.
    pub(crate) fn is_interrupt(&self, message: GuestMessage) -> bool {
        self.features.gsi_direct || message.is_interrupt()
    }

    /// Numbers of this moment.
    pub fn stats(&self) -> Stats {
        let counts = self.routes.counts();
        let members = self.members();
        let relay = |of: fn(&Relay) -> &AtomicU64| {
            self.relay.get().map_or(0, |relay| of(relay).load(Ordering::Relaxed))
        };
        Stats {
            table_writes: counts.writes,
            table_write_errors: counts.write_errors,
            routes: counts.routes,
            routes_pinned: counts.pinned,
            evictions: counts.evictions,
            irqfd_binds: self.irqfd_binds.load(Ordering::Relaxed),
            irqfd_unbinds: self.irqfd_unbinds.load(Ordering::Relaxed),
            relayed_vectors: members.iter().map(|member| member.relayed()).sum(),
            relayed_messages: relay(|it| &it.messages),
            promotions: relay(|it| &it.promotions),
            demotions: relay(|it| &it.demotions),
            unserved_vectors: members.iter().map(|member| member.unserved()).sum(),
        }
    }

    /// Unbinds everything and lets the VM go; devices answer `ESHUTDOWN` from now on.
    pub fn shut_down(&self) {
        self.end_relay();
        for member in self.members() {
            member.shut_down();
        }
        sync::wait_for(&self.readers);
        self.routes.close();
        self.host.get().close();
        self.remap.set(None);
        transaction::abandon(self);
    }

    // ---- pausing -------------------------------------------------------------------------------

    /// Once this returns nothing is sent: what is raised is kept pending, eventfds count, and the VMM is not told of
    /// changes. Nests.
    ///
    /// Errors: what the kernel says to unbinding eventfds. It is paused all the same, but those still interrupt.
    pub fn pause(&self) -> Result<()> {
        refuse_reentry()?;
        let mut pauses = self.pauses.lock();
        *pauses = pauses.saturating_add(1);
        let mut paused = Ok(());
        if *pauses == 1 {
            self.paused.store(true, Ordering::SeqCst);
            paused = first_error(self.members().iter().map(|member| member.pause()));
            sync::wait_for(&self.readers);
        }
        drop(pauses);
        // Not under the lock: what is waited for may want it.
        self.remap.wait();
        self.members().iter().for_each(|member| member.wait_until_told());
        paused
    }

    /// Undoes one pause; with the last each vector's pending interrupt is sent once, and eventfds are given to the
    /// kernel with one write of the table. Then the VMM is told what changed meanwhile.
    ///
    /// Errors: `EINVAL` if it is not paused; what serving the vectors says (it goes on all the same, and serving is tried
    /// again).
    pub fn resume(self: &Arc<Self>) -> Result<()> {
        refuse_reentry()?;
        let mut pauses = self.pauses.lock();
        if *pauses == 0 {
            return Err(Error::invalid("the route cache is not paused"));
        }
        *pauses = pauses.saturating_sub(1);
        if *pauses > 0 {
            return Ok(());
        }
        let members = self.members();
        members.iter().for_each(|member| member.unpause());
        self.paused.store(false, Ordering::SeqCst);
        drop(pauses);
        let begun = self.begin();
        let served = first_error(members.iter().map(|member| member.serve()));
        // A thread that is ending has no transactions: each device was served by itself.
        let committed = if begun.is_ok() { self.commit() } else { Ok(()) };
        members.iter().for_each(|member| member.tell_untold());
        served.and(committed)
    }

    /// SeqCst: pairs with `pause`, which stores it and then waits for sections, and for the vIOMMU's function.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// How often.
    pub(crate) fn pause_count(&self) -> u32 {
        *self.pauses.lock()
    }

    /// Waits until it is either paused, with all its members, or not. Not with a lock held.
    pub(crate) fn wait_for_pause(&self) {
        drop(self.pauses.lock());
    }

    // ---- the relay -----------------------------------------------------------------------------

    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.relay.get()
    }

    pub(crate) fn get_or_make_relay(&self) -> Result<&Relay> {
        self.relay.get_or_try_init(Relay::new)
    }

    // ---- remapping -----------------------------------------------------------------------------

    pub(crate) fn remap(&self) -> &Remap {
        &self.remap
    }

    /// From now on messages go through the vIOMMU; `None`: not any more. Live ones too: when this returns, each is what the new
    /// function says, and the old one is not called any more.
    ///
    /// Errors: what serving the vectors says (serving is tried again).
    pub fn set_remap(self: &Arc<Self>, translate: Option<Translate>) -> Result<()> {
        refuse_reentry()?;
        self.remap.set(translate);
        self.invalidate(NO_REQUESTER, 0..=NO_TAG)
    }

    /// The vIOMMU's entries with these tags have changed, for this requester, or for all ([`NO_REQUESTER`]). When this returns nothing of
    /// what they said before is sent any more, and what they say now is in force, by one write of the kernel's table at most; also
    /// inside a transaction. While the cache is paused nothing is asked; it is when it is resumed.
    ///
    /// Errors: what serving the vectors says (serving is tried again).
    pub fn invalidate(self: &Arc<Self>, requester: u32, tags: RangeInclusive<u64>) -> Result<()> {
        refuse_reentry()?;
        self.remap.invalidate();
        let members = self.members();
        members.iter().for_each(|member| member.invalidate(requester, &tags));
        let translate =
            || self.with_one_write(|| first_error(members.iter().map(|member| member.translate())));
        let mut translated = translate();
        // Under the write somebody may have exchanged a message once more, and not told the kernel. (An irqfd that the
        // kernel does not let go is no reason to try for ever.)
        for _ in 0..MOST_ROUNDS {
            if translated.is_err() || !members.iter().any(|member| member.sends_late()) {
                break;
            }
            translated = translate();
        }
        sync::wait_for(&self.readers);
        translated
    }

    // ---- members -------------------------------------------------------------------------------

    /// Takes a member in; paused, if the cache is.
    ///
    /// Errors: `ENOMEM`.
    pub(crate) fn join(&self, address: usize, member: Arc<dyn Member>) -> Result<()> {
        let pauses = self.pauses.lock();
        let mut shared = self.shared.lock();
        memory::want(|| shared.members.try_reserve(1))?;
        shared.members.insert(address, Arc::downgrade(&member));
        drop(shared);
        if *pauses > 0 {
            // It has nothing yet that could be refused.
            let _ = member.pause();
        }
        Ok(())
    }

    pub(crate) fn leave(&self, address: usize) {
        self.shared.lock().members.remove(&address);
    }

    pub(crate) fn members(&self) -> Vec<Arc<dyn Member>> {
        // The last reference to a device must not go while the lock is held: its drop takes it.
        self.shared.lock().members.values().filter_map(Weak::upgrade).collect()
    }

    pub(crate) fn own_pins(&self, first: u32, n: u32) -> Result<()> {
        if !self.features.routes {
            return Err(Error::new(libc::ENOTSUP, "pins need a table of routes"));
        }
        self.routes.own_pins(self.backend(), first..first.saturating_add(n))
    }

    pub(crate) fn disown_pins(&self, gsis: &[u32]) -> Result<()> {
        self.routes.disown_pins(self.backend(), gsis)
    }

    pub(crate) fn may_start_helpers(&self) -> bool {
        self.may_start_helpers
    }

    /// An eventfd serves one vector at a time. False if it serves one already.
    ///
    /// Errors: `ENOMEM`.
    pub(crate) fn claim_eventfd(&self, key: EventfdKey) -> Result<bool> {
        let mut shared = self.shared.lock();
        memory::want(|| shared.eventfds.try_reserve(1))?;
        Ok(shared.eventfds.insert(key))
    }

    pub(crate) fn release_eventfd(&self, key: EventfdKey) {
        self.shared.lock().eventfds.remove(&key);
    }

    pub(crate) fn some_unserved(&self) -> bool {
        self.some_unserved.load(Ordering::SeqCst)
    }

    /// How often it was tried again to serve what is unserved.
    pub(crate) fn occasions(&self) -> u64 {
        self.occasions.load(Ordering::SeqCst)
    }

    pub(crate) fn note_unserved(&self) {
        self.some_unserved.store(true, Ordering::SeqCst);
    }

    /// After a write of the table, a freed route, a commit: what was not served may be now. The first
    /// error met, for whoever asked; who is still not served notes it again.
    pub(crate) fn retry_unserved(&self) -> Result<()> {
        let mut result = Ok(());
        // Once more if the first round freed something: who came before may have it now.
        for _ in 0..2 {
            self.occasions.fetch_add(1, Ordering::SeqCst);
            if !self.some_unserved.swap(false, Ordering::SeqCst) {
                break;
            }
            // It takes memory for all there are; where that is short, the next occasion is soon enough.
            if let Err(e) = memory::is_plenty() {
                self.note_unserved();
                return Err(e);
            }
            let chances = self.routes.chances();
            // A device may go with its last reference here, and closes descriptors.
            let retry = || first_error(self.members().iter().map(|member| member.retry()));
            result = cancel::put_off(retry);
            if result.is_ok() || self.routes.chances() == chances {
                break;
            }
        }
        result
    }

    /// The same where nobody asked: it is in the vectors' infos.
    pub(crate) fn retry_unserved_quietly(&self) {
        if let Err(e) = self.retry_unserved() {
            log::info!("vectors stay unserved: {e}");
        }
    }
}

/// For calls that wait for readers, or for a lock under which others do: from inside a callback they
/// would wait for themselves.
pub(crate) fn refuse_reentry() -> Result<()> {
    if sync::in_section() || backend::is_inside_host() {
        return Err(Error::new(
            libc::EDEADLK,
            "the call comes from inside a callback of the library's",
        ));
    }
    Ok(())
}

/// Goes through all of them, whatever happens.
pub(crate) fn first_error(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let mut first = Ok(());
    for result in results {
        first = first.and(result);
    }
    first
}

fn paused() -> Error {
    Error::new(libc::EAGAIN, "the route cache is paused")
}

pub(crate) fn not_a_message() -> Error {
    Error::invalid("not an interrupt message (address outside 0xFEExxxxx, or reserved bits set)")
}
