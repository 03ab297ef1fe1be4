// SPDX-License-Identifier: MIT OR Apache-2.0
//! What tests of interrupt remapping share: a vIOMMU's answers, and a model of KVM that can be stopped on the way.
#![allow(dead_code, reason = "not every user uses all")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use kvm_bindings::kvm_irq_routing_entry;
use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::{Backend, Features, Host, Reception};
use msiroute::device::OnChange;
use msiroute::message::{GuestMessage, Message};
use msiroute::remap::Translation;
use msiroute::{Config, Device, DeviceConfig, Kind, Masking, Result, RouteCache};
use vmm_sys_util::eventfd::EventFd;

pub const APIC: u64 = 0xFEE0_0000;

/// Remappable format; the handle is in bits 19:5.
pub fn handle(n: u64) -> u64 {
    APIC | n << 5 | 1 << 4
}

pub fn to(data: u32, tag: u64) -> Translation {
    Translation { message: Some(GuestMessage { address: APIC, data }), tag }
}

pub fn fd(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: open while the EventFd lives.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

pub fn eventfd() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK).unwrap()
}

pub fn bind(device: &Device, index: u32, masking: Masking) -> EventFd {
    let eventfd = eventfd();
    device.bind_eventfd(index, fd(&eventfd), masking).unwrap();
    eventfd
}

pub fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Once shut it holds the next who passes, and nobody else.
#[derive(Default)]
pub struct Gate {
    is_shut: AtomicBool,
    is_held: AtomicBool,
}

impl Gate {
    pub fn shut(&self) {
        self.is_shut.store(true, SeqCst);
    }

    pub fn pass(&self) {
        if self.is_shut.swap(false, SeqCst) {
            self.is_held.store(true, SeqCst);
            wait_until(|| !self.is_held.load(SeqCst));
        }
    }

    /// Waits until it holds somebody.
    pub fn wait(&self) {
        wait_until(|| self.is_held.load(SeqCst));
    }

    pub fn open(&self) {
        self.is_held.store(false, SeqCst);
    }
}

/// The model, with a gate in front of what it does.
pub struct Doors {
    model: Model,
    features: Features,
    pub table: Gate,
    pub signal: Gate,
    pub gsi_of: Gate,
}

impl Backend for Doors {
    fn features(&self) -> Features {
        self.features
    }
    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        self.model.default_routes()
    }
    fn signal(&self, message: &Message) -> Result<Reception> {
        self.signal.pass();
        self.model.signal(message)
    }
    fn raise(&self, gsi: u32) -> Result<Reception> {
        self.model.raise(gsi)
    }
    fn gsi_of(&self, message: &Message) -> Result<u32> {
        self.gsi_of.pass();
        Ok(message.data)
    }
    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        self.table.pass();
        self.model.set_routes(entries)
    }
    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        self.model.bind_irqfd(eventfd, resample, gsi)
    }
    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        self.model.unbind_irqfd(eventfd, gsi)
    }
    fn close(&self) {
        self.model.close();
    }
}

pub struct Machine {
    pub cache: Arc<RouteCache>,
    pub doors: Arc<Doors>,
    sent: Arc<Mutex<Vec<u32>>>,
}

impl Machine {
    pub fn new(irqchip: Irqchip, features: Features) -> Self {
        let sent: Arc<Mutex<Vec<u32>>> = Arc::default();
        let guest = {
            let sent = sent.clone();
            move |message: &Message| {
                sent.lock().unwrap().push(message.data);
                1
            }
        };
        let model = Model::new(irqchip, Model::x86_features(), Box::new(guest)).unwrap();
        let [table, signal, gsi_of] = [(); 3].map(|()| Gate::default());
        let doors = Arc::new(Doors { model, features, table, signal, gsi_of });
        let host = Host::Other(Box::new(doors.clone()));
        Machine { cache: RouteCache::new(host, &Config::default()).unwrap(), doors, sent }
    }

    pub fn of_x86() -> Self {
        Machine::new(Irqchip::Full, Model::x86_features())
    }

    /// The data of what has been sent since it was asked last, in that order.
    pub fn sent(&self) -> Vec<u32> {
        self.doors.model.settle();
        std::mem::take(&mut *self.sent.lock().unwrap())
    }

    pub fn device(&self, vectors: u32) -> Arc<Device> {
        Device::new(&self.cache, DeviceConfig::new(Kind::Plain, vectors)).unwrap()
    }

    /// Whose messages have this requester ID.
    pub fn device_of(&self, requester: u32) -> Arc<Device> {
        let config = DeviceConfig { requester, ..DeviceConfig::new(Kind::Plain, 1) };
        Device::new(&self.cache, config).unwrap()
    }

    /// Whose VMM is told of changes.
    pub fn told_device(&self, tell: impl Fn() + Send + Sync + 'static) -> Arc<Device> {
        let on_change: Option<OnChange> = Some(Box::new(move |_| tell()));
        let config = DeviceConfig { on_change, ..DeviceConfig::new(Kind::Plain, 1) };
        Device::new(&self.cache, config).unwrap()
    }

    pub fn remap(&self, function: impl Fn(u32) -> Translation + Send + Sync + 'static) {
        let function = move |requester: u32, _: GuestMessage| function(requester);
        self.cache.set_remap(Some(Box::new(function))).unwrap();
    }
}
