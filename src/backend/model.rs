// SPDX-License-Identifier: MIT OR Apache-2.0
//! KVM's rules in memory: the table, irqfds, APICs; for tests, and for machines without /dev/kvm.
//!
//! What is modelled is what `docs/kvm.md` says of the kernel, return codes and limits included, and the
//! tests that judge the library on /dev/kvm judge it on the model too. Two things differ. The kernel
//! takes an eventfd's event at the moment of the write; the model when somebody calls
//! [`Model::settle`], or its thread ([`Model::with_thread`]) does. And an event counted before the
//! eventfd is bound is taken out of the counter then, where the kernel leaves it readable.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use kvm_bindings::{
    kvm_irq_routing_entry, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID,
};
use parking_lot::{RwLock, RwLockWriteGuard};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::{inside_host, Backend, Features, Reception};
use crate::cancel;
use crate::error::{Error, Result};
use crate::eventfd;
use crate::message::{Message, NO_REQUESTER};

/// What the model's VM has of interrupt controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irqchip {
    /// Not created yet: nothing can be routed or injected.
    Absent,
    /// All in the kernel: the table starts with 40 entries for GSIs 0 to 23.
    Full,
    /// Local APICs only: no IRQCHIP entries.
    Split,
}

/// The guest's side: takes a message; above zero is accepted, zero is not, below is an errno.
pub type Guest = Box<dyn Fn(&Message) -> i32 + Send + Sync>;

/// See the [module](self).
pub struct Model {
    inner: Arc<Inner>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Inner {
    /// Written by who changes routes and irqfds, read while a message goes to the guest: a change waits
    /// for messages under way, as the kernel's does. Reads nest (a guest may deliver).
    state: RwLock<State>,
    guest: Guest,
    features: Features,
    /// All bound eventfds, and `stop`.
    epoll: Epoll,
    stop: EventFd,
    stopped: AtomicBool,
}

struct State {
    irqchip: Irqchip,
    routes: BTreeMap<u32, Vec<kvm_irq_routing_entry>>,
    irqfds: Vec<Irqfd>,
}

struct Irqfd {
    file: OwnedFd,
    /// Of the eventfd behind the descriptor: two descriptors of one eventfd are the same irqfd.
    identity: u64,
    gsi: u32,
}

/// The entries that a full irqchip starts with: both PICs and the IOAPIC.
pub(crate) fn x86_default_routes() -> Vec<kvm_irq_routing_entry> {
    const PIC_PINS: u32 = 16;
    const IOAPIC_PINS: u32 = 24;
    const IOAPIC: u32 = 2;
    let entry = |gsi, irqchip, pin| {
        let mut entry =
            kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
        entry.u.irqchip.irqchip = irqchip;
        entry.u.irqchip.pin = pin;
        entry
    };
    let ioapic = (0..IOAPIC_PINS).map(|gsi| entry(gsi, IOAPIC, gsi));
    let pics = (0..PIC_PINS).map(|gsi| entry(gsi, gsi / 8, gsi % 8));
    ioapic.chain(pics).collect()
}

impl Model {
    /// A model that takes events only when [`Model::settle`] is called.
    pub fn new(irqchip: Irqchip, features: Features, guest: Guest) -> Result<Self> {
        let os = |doing| {
            move |e: std::io::Error| Error::new(e.raw_os_error().unwrap_or(libc::EINVAL), doing)
        };
        let epoll = Epoll::new().map_err(os("epoll_create1"))?;
        let stop = EventFd::new(libc::EFD_CLOEXEC).map_err(os("eventfd"))?;
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, stop.as_raw_fd(), event).map_err(os("epoll_ctl"))?;
        let state = State { irqchip, routes: BTreeMap::new(), irqfds: Vec::new() };
        let inner = Inner {
            state: RwLock::new(state),
            guest,
            features,
            epoll,
            stop,
            stopped: AtomicBool::new(false),
        };
        inner.state.write().set_irqchip(irqchip);
        Ok(Model { inner: Arc::new(inner), thread: None })
    }

    /// A model with a thread that plays the kernel's part: takes the events of bound eventfds as
    /// they come.
    pub fn with_thread(irqchip: Irqchip, features: Features, guest: Guest) -> Result<Self> {
        let mut model = Model::new(irqchip, features, guest)?;
        let inner = model.inner.clone();
        let thread = std::thread::Builder::new()
            .name("msiroute-model".into())
            .spawn(move || inner.run())
            .map_err(|e| {
                Error::new(e.raw_os_error().unwrap_or(libc::EAGAIN), "starting a thread")
            })?;
        model.thread = Some(thread);
        Ok(model)
    }

    /// The features of a current x86 kernel.
    pub fn x86_features() -> Features {
        Features {
            direct: true,
            routes: true,
            irqfd: true,
            raise: true,
            gsi_direct: false,
            resample: true,
            requester: false,
            max_routes: 4096,
        }
    }

    /// Creates the interrupt controller; the table is then as the kernel makes it.
    pub fn create_irqchip(&self, irqchip: Irqchip) {
        self.inner.state.write().set_irqchip(irqchip);
    }

    /// Takes what bound eventfds have counted.
    pub fn settle(&self) {
        self.inner.settle();
    }

    /// The table, entry by entry.
    pub fn routes(&self) -> Vec<kvm_irq_routing_entry> {
        self.inner.state.read_recursive().routes.values().flatten().copied().collect()
    }

    /// How many irqfds are bound.
    pub fn irqfds(&self) -> usize {
        self.inner.state.read_recursive().irqfds.len()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to stop.
            let _ = thread.join();
        }
    }
}

impl State {
    fn set_irqchip(&mut self, irqchip: Irqchip) {
        self.irqchip = irqchip;
        self.routes.clear();
        if irqchip == Irqchip::Full {
            for entry in x86_default_routes() {
                self.routes.entry(entry.gsi).or_default().push(entry);
            }
        }
    }

    /// The message that a GSI is routed to, if it is an MSI route.
    fn message_of(&self, gsi: u32) -> Option<Message> {
        let entry = self.routes.get(&gsi)?.first()?;
        if entry.type_ != KVM_IRQ_ROUTING_MSI {
            return None;
        }
        // SAFETY: the entry's type says that `msi` is the member in use.
        let msi = unsafe { entry.u.msi };
        // SAFETY: of two u32 with the same meaning.
        let devid = unsafe { msi.__bindgen_anon_1.devid };
        Some(Message {
            address: u64::from(msi.address_hi) << 32 | u64::from(msi.address_lo),
            data: msi.data,
            requester: if entry.flags & KVM_MSI_VALID_DEVID != 0 { devid } else { NO_REQUESTER },
        })
    }
}

impl Inner {
    fn run(&self) {
        let mut ready = [EpollEvent::default(); 16];
        while !self.stopped.load(Ordering::Acquire) {
            match self.epoll.wait(-1, &mut ready) {
                Ok(_) => self.settle(),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return log::error!("the model's thread ends: {e}"),
            }
        }
    }

    /// One interrupt for each bound eventfd that has counted; lost if its GSI has no route.
    fn settle(&self) {
        let state = self.state.read_recursive();
        for irqfd in &state.irqfds {
            self.take_event(&state, irqfd);
        }
    }

    fn take_event(&self, state: &State, irqfd: &Irqfd) {
        if eventfd::take_count(irqfd.file.as_fd()) == 0 {
            return;
        }
        if let Some(message) = state.message_of(irqfd.gsi) {
            inside_host(|| (self.guest)(&message));
        }
    }

    fn inject(&self, message: &Message) -> Result<Reception> {
        match cancel::put_off(|| (self.guest)(message)) {
            error if error < 0 => Err(Error::new(error.saturating_neg(), "the model's guest")),
            count => Ok(Reception::of(count)),
        }
    }
}

impl Backend for Model {
    fn features(&self) -> Features {
        self.inner.features
    }

    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        match self.inner.state.read_recursive().irqchip {
            Irqchip::Full => x86_default_routes(),
            Irqchip::Absent | Irqchip::Split => Vec::new(),
        }
    }

    fn signal(&self, message: &Message) -> Result<Reception> {
        let state = self.inner.state.read_recursive();
        if state.irqchip == Irqchip::Absent {
            return Err(Error::new(libc::EINVAL, "KVM_SIGNAL_MSI (model)"));
        }
        self.inner.inject(message)
    }

    fn raise(&self, gsi: u32) -> Result<Reception> {
        let state = self.inner.state.read_recursive();
        if state.irqchip == Irqchip::Absent {
            return Err(Error::new(libc::ENXIO, "KVM_IRQ_LINE_STATUS (model)"));
        }
        match state.message_of(gsi) {
            Some(message) => self.inner.inject(&message),
            None => Ok(Reception::Refused),
        }
    }

    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        let refused = |errno| Err(Error::new(errno, "KVM_SET_GSI_ROUTING (model)"));
        let limit = self.inner.features.max_routes;
        let mut state = self.inner.state.write();
        if state.irqchip == Irqchip::Absent
            || u32::try_from(entries.len()).map_or(true, |n| n > limit)
        {
            return refused(libc::EINVAL);
        }
        let mut routes: BTreeMap<u32, Vec<kvm_irq_routing_entry>> = BTreeMap::new();
        for entry in entries {
            let known_flags = if self.inner.features.requester { KVM_MSI_VALID_DEVID } else { 0 };
            let is_pin = entry.type_ == KVM_IRQ_ROUTING_IRQCHIP;
            let known_type = match entry.type_ {
                KVM_IRQ_ROUTING_MSI => true,
                KVM_IRQ_ROUTING_IRQCHIP => state.irqchip == Irqchip::Full,
                _ => false,
            };
            let others = routes.entry(entry.gsi).or_default();
            let shares_badly =
                others.iter().any(|other| !is_pin || other.type_ != KVM_IRQ_ROUTING_IRQCHIP);
            if entry.gsi >= limit || !known_type || entry.flags & !known_flags != 0 || shares_badly
            {
                return refused(libc::EINVAL);
            }
            others.push(*entry);
        }
        state.routes = routes;
        Ok(())
    }

    /// Nobody ends an interrupt here, so nothing is ever resampled.
    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        _resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        let refused = |errno| Error::new(errno, "KVM_IRQFD (model)");
        let identity = eventfd::inspect(eventfd)?.ok_or_else(|| refused(libc::EINVAL))?;
        let mut state = self.inner.state.write();
        if state.irqchip == Irqchip::Absent {
            return Err(refused(libc::EINVAL));
        }
        if state.irqfds.iter().any(|irqfd| irqfd.identity == identity) {
            return Err(refused(libc::EBUSY));
        }
        let file = eventfd.try_clone_to_owned().map_err(|_| refused(libc::EMFILE))?;
        let event = EpollEvent::new(EventSet::IN, 0);
        self.inner
            .epoll
            .ctl(ControlOperation::Add, file.as_raw_fd(), event)
            .map_err(|_| refused(libc::ENOMEM))?;
        state.irqfds.push(Irqfd { file, identity, gsi });
        // An event already counted: injected now, lost if there is no route. The guest may deliver.
        let state = RwLockWriteGuard::downgrade(state);
        if let Some(irqfd) = state.irqfds.iter().find(|irqfd| irqfd.identity == identity) {
            self.inner.take_event(&state, irqfd);
        }
        Ok(())
    }

    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        let identity = eventfd::inspect(eventfd)?;
        let mut state = self.inner.state.write();
        let found = |irqfd: &Irqfd| Some(irqfd.identity) == identity && irqfd.gsi == gsi;
        // Like the kernel: no match is no error.
        if let Some(at) = state.irqfds.iter().position(found) {
            let irqfd = state.irqfds.swap_remove(at);
            let state = RwLockWriteGuard::downgrade(state);
            self.inner.take_event(&state, &irqfd);
            self.inner.forget(&irqfd);
        }
        Ok(())
    }

    fn close(&self) {
        self.inner.stopped.store(true, Ordering::Release);
        if self.inner.stop.write(1).is_err() {
            log::error!("the model's thread cannot be told to stop");
        }
        for irqfd in self.inner.state.write().irqfds.drain(..) {
            self.inner.forget(&irqfd);
        }
    }
}

impl Inner {
    /// Out of the epoll set, before the descriptor closes: a duplicate would go on sending events.
    fn forget(&self, irqfd: &Irqfd) {
        let event = EpollEvent::default();
        if let Err(e) = self.epoll.ctl(ControlOperation::Delete, irqfd.file.as_raw_fd(), event) {
            log::error!("the model cannot forget an eventfd: {e}");
        }
    }
}
