// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sequences of all that can be done to two devices, on the model of KVM, beside a reference of a
//! vector that can be checked by eye: the same messages, in the same step, and the same pending bits.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex};

use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Host;
use msiroute::message::Message;
use msiroute::{Config, Delivery, Device, DeviceConfig, Kind, Masking, RouteCache};
use proptest::prelude::*;
use vmm_sys_util::eventfd::EventFd;

const VECTORS: usize = 3;
const EVENTFDS: usize = 4;
/// Few, so that vectors share routes.
const MESSAGES: u32 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Set { vector: usize, data: u32 },
    Clear { vector: usize },
    Mask { vector: usize },
    Unmask { vector: usize },
    ClearPending { vector: usize },
    Bind { vector: usize, eventfd: usize },
    Unbind { vector: usize, eventfd: usize },
    Deliver { vector: usize },
    Signal { eventfd: usize, times: u64 },
    Control { enabled: bool, function_masked: bool },
    BusMaster { on: bool },
    Reset,
    Begin,
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let vector = || 0..VECTORS;
    let eventfd = || 0..EVENTFDS;
    prop_oneof![
        3 => (vector(), 0..MESSAGES).prop_map(|(vector, data)| Step::Set { vector, data }),
        1 => vector().prop_map(|vector| Step::Clear { vector }),
        2 => vector().prop_map(|vector| Step::Mask { vector }),
        3 => vector().prop_map(|vector| Step::Unmask { vector }),
        1 => vector().prop_map(|vector| Step::ClearPending { vector }),
        3 => (vector(), eventfd()).prop_map(|(vector, eventfd)| Step::Bind { vector, eventfd }),
        1 => (vector(), eventfd()).prop_map(|(vector, eventfd)| Step::Unbind { vector, eventfd }),
        4 => vector().prop_map(|vector| Step::Deliver { vector }),
        4 => (eventfd(), 1..3u64).prop_map(|(eventfd, times)| Step::Signal { eventfd, times }),
        2 => (prop::bool::weighted(0.8), prop::bool::weighted(0.2))
            .prop_map(|(enabled, function_masked)| Step::Control { enabled, function_masked }),
        1 => prop::bool::weighted(0.7).prop_map(|on| Step::BusMaster { on }),
        1 => Just(Step::Reset),
        1 => Just(Step::Begin),
        2 => Just(Step::Commit),
    ]
}

// ---- the reference -----------------------------------------------------------------------------

#[derive(Clone, Default)]
struct RefVector {
    masked: bool,
    data: Option<u32>,
    pending: bool,
    eventfds: Vec<usize>,
}

#[derive(Clone, Copy, Default)]
struct RefEventfd {
    counted: bool,
    /// The kernel reads it, and sends this.
    armed: Option<u32>,
}

struct Reference {
    vectors: Vec<RefVector>,
    eventfds: Vec<RefEventfd>,
    enabled: bool,
    function_masked: bool,
    bus_master: bool,
    depth: u32,
    sent: Vec<u32>,
}

impl Reference {
    fn new() -> Self {
        let vector = RefVector { masked: true, ..RefVector::default() };
        Reference {
            vectors: vec![vector; VECTORS],
            eventfds: vec![RefEventfd::default(); EVENTFDS],
            enabled: false,
            function_masked: false,
            bus_master: true,
            depth: 0,
            sent: Vec::new(),
        }
    }

    fn open(&self, vector: usize) -> Option<u32> {
        let gate = self.enabled && !self.function_masked && self.bus_master;
        let it = &self.vectors[vector];
        it.data.filter(|_| gate && !it.masked)
    }

    fn pending(&self, vector: usize) -> bool {
        let it = &self.vectors[vector];
        let counted = |&fd: &usize| self.eventfds[fd].armed.is_none() && self.eventfds[fd].counted;
        it.pending || it.eventfds.iter().any(counted)
    }

    /// After anything that may have opened or closed vectors. In a transaction those with eventfds wait
    /// for its commit.
    fn settle(&mut self) {
        for vector in 0..VECTORS {
            let fds = self.vectors[vector].eventfds.clone();
            let Some(data) = self.open(vector) else {
                fds.iter().for_each(|&fd| self.eventfds[fd].armed = None);
                continue;
            };
            if self.depth > 0 && !fds.is_empty() {
                continue;
            }
            if self.pending(vector) {
                self.sent.push(data);
                self.drain(vector);
            }
            fds.iter().for_each(|&fd| self.eventfds[fd].armed = Some(data));
        }
    }

    fn drain(&mut self, vector: usize) {
        self.vectors[vector].pending = false;
        for fd in self.vectors[vector].eventfds.clone() {
            if self.eventfds[fd].armed.is_none() {
                self.eventfds[fd].counted = false;
            }
        }
    }

    fn deliver(&mut self, vector: usize) -> Delivery {
        if !self.enabled {
            return Delivery::Disabled;
        }
        match self.open(vector) {
            Some(data) => {
                self.sent.push(data);
                self.vectors[vector].pending = false;
                Delivery::Sent
            }
            None => {
                self.vectors[vector].pending = true;
                Delivery::Pending
            }
        }
    }

    fn signal(&mut self, eventfd: usize) {
        match self.eventfds[eventfd].armed {
            Some(data) => self.sent.push(data),
            None => self.eventfds[eventfd].counted = true,
        }
    }

    fn owner(&self, eventfd: usize) -> Option<usize> {
        self.vectors.iter().position(|vector| vector.eventfds.contains(&eventfd))
    }

    fn reset(&mut self) {
        (self.enabled, self.function_masked) = (false, false);
        for vector in 0..VECTORS {
            self.vectors[vector].eventfds.iter().for_each(|&fd| self.eventfds[fd].armed = None);
            self.drain(vector);
            let it = &mut self.vectors[vector];
            (it.masked, it.data) = (true, None);
        }
    }
}

// ---- the library -------------------------------------------------------------------------------

struct Subject {
    model: Arc<Model>,
    cache: Arc<RouteCache>,
    device: Arc<Device>,
    eventfds: Vec<EventFd>,
    received: Arc<Mutex<Vec<u32>>>,
}

impl Subject {
    fn new(no_direct: bool) -> Self {
        let received: Arc<Mutex<Vec<u32>>> = Arc::default();
        let guest = {
            let received = received.clone();
            move |message: &Message| {
                assert_eq!(message.address, address(message.data), "torn");
                received.lock().unwrap().push(message.data);
                1
            }
        };
        let model = Model::new(Irqchip::Full, Model::x86_features(), Box::new(guest)).unwrap();
        let model = Arc::new(model);
        let config = Config { no_direct, ..Config::default() };
        let cache = RouteCache::new(Host::Other(Box::new(model.clone())), &config).unwrap();
        let device = Device::new(&cache, DeviceConfig::new(Kind::Msix, 3)).unwrap();
        let eventfds = (0..EVENTFDS).map(|_| EventFd::new(0).unwrap()).collect();
        Subject { model, cache, device, eventfds, received }
    }

    fn take_received(&self) -> Vec<u32> {
        self.model.settle();
        let mut received = std::mem::take(&mut *self.received.lock().unwrap());
        received.sort_unstable();
        received
    }

    fn fd(&self, eventfd: usize) -> BorrowedFd<'_> {
        // SAFETY: open as long as the EventFd, which outlives the subject's use of it.
        unsafe { BorrowedFd::borrow_raw(self.eventfds[eventfd].as_raw_fd()) }
    }
}

fn address(data: u32) -> u64 {
    0xFEE0_0000 | u64::from(data) << 12
}

fn index(vector: usize) -> u32 {
    u32::try_from(vector).unwrap()
}

fn run(steps: &[Step], no_direct: bool) {
    let mut reference = Reference::new();
    let subject = Subject::new(no_direct);
    let device = &subject.device;
    for (at, &step) in steps.iter().enumerate() {
        match step {
            Step::Set { vector, data } => {
                reference.vectors[vector].data = Some(data);
                device.set(index(vector), address(data), data).unwrap();
            }
            Step::Clear { vector } => {
                reference.vectors[vector].data = None;
                device.clear(index(vector)).unwrap();
            }
            Step::Mask { vector } => {
                reference.vectors[vector].masked = true;
                device.mask(index(vector)).unwrap();
            }
            Step::Unmask { vector } => {
                reference.vectors[vector].masked = false;
                device.unmask(index(vector)).unwrap();
            }
            Step::ClearPending { vector } => {
                let was = reference.pending(vector);
                reference.drain(vector);
                assert_eq!(device.clear_pending(index(vector)).unwrap(), was, "{at}: {step:?}");
            }
            Step::Bind { vector, eventfd } => {
                let fd = subject.fd(eventfd);
                let bound = match vector {
                    // SAFETY: open as long as the subject.
                    0 => unsafe { device.bind_lent_eventfd(index(vector), fd, Masking::Unbind) },
                    _ => device.bind_eventfd(index(vector), fd, Masking::Unbind),
                };
                if reference.owner(eventfd).is_some() {
                    assert_eq!(bound.unwrap_err().errno(), libc::EBUSY, "{at}: {step:?}");
                } else {
                    bound.unwrap();
                    reference.vectors[vector].eventfds.push(eventfd);
                }
            }
            Step::Unbind { vector, eventfd } => {
                let number = subject.fd(eventfd).as_raw_fd();
                let unbound = device.unbind_eventfd(index(vector), Some(number));
                if reference.owner(eventfd) == Some(vector) {
                    unbound.unwrap();
                    reference.vectors[vector].eventfds.retain(|&fd| fd != eventfd);
                    reference.eventfds[eventfd].armed = None;
                } else {
                    assert_eq!(unbound.unwrap_err().errno(), libc::ENOENT, "{at}: {step:?}");
                }
            }
            Step::Deliver { vector } => {
                let expected = reference.deliver(vector);
                assert_eq!(device.deliver(index(vector)).unwrap(), expected, "{at}: {step:?}");
            }
            Step::Signal { eventfd, times } => {
                reference.signal(eventfd);
                subject.eventfds[eventfd].write(times).unwrap();
            }
            Step::Control { enabled, function_masked } => {
                (reference.enabled, reference.function_masked) = (enabled, function_masked);
                device.set_control(enabled, function_masked).unwrap();
            }
            Step::BusMaster { on } => {
                reference.bus_master = on;
                device.set_bus_master(on).unwrap();
            }
            Step::Reset => {
                reference.reset();
                device.reset().unwrap();
            }
            Step::Begin => {
                reference.depth += 1;
                subject.cache.begin().unwrap();
            }
            Step::Commit => {
                reference.depth = reference.depth.saturating_sub(1);
                subject.cache.commit().unwrap();
            }
        }
        // What a transaction defers is what its own thread did inside it; the kernel's view of vectors
        // that nobody touched is unchanged, so settling all of them is settling those.
        reference.settle();
        let mut sent = std::mem::take(&mut reference.sent);
        sent.sort_unstable();
        assert_eq!(subject.take_received(), sent, "messages after {at}: {step:?}");
        for vector in 0..VECTORS {
            let pending = device.is_pending(index(vector)).unwrap();
            assert_eq!(
                pending,
                reference.pending(vector),
                "pending of {vector} after {at}: {step:?}"
            );
        }
    }
    while reference.depth > 0 {
        reference.depth -= 1;
        subject.cache.commit().unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn like_the_reference(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps, false);
    }

    #[test]
    fn like_the_reference_through_routes(steps in prop::collection::vec(step(), 1..80)) {
        run(&steps, true);
    }
}
