// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single interleavings of changes, made to happen: a backend that stops where the test wants it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{mpsc, Arc, Mutex};
use std::time::Duration;

use kvm_bindings::{kvm_irq_routing_entry, KVM_IRQ_ROUTING_MSI};
use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::{Backend, Features, Host, Reception};
use msiroute::explicit::ExplicitRoutes;
use msiroute::message::{Message, NO_REQUESTER};
use msiroute::{Config, Device, DeviceConfig, Error, Kind, Masking, Result, RouteCache};
use vmm_sys_util::eventfd::EventFd;

const APIC: u64 = 0xFEE0_0000;
/// No table with this is taken.
const REFUSED: u32 = 0xBAD;

/// The model, with doors that can be held shut and calls that fail.
struct Doors {
    model: Model,
    hold_bind: AtomicBool,
    in_bind: AtomicBool,
    hold_table: AtomicBool,
    in_table: AtomicBool,
    refuse_unbind: AtomicBool,
    refuse_bind: AtomicBool,
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

fn stop_at(hold: &AtomicBool, inside: &AtomicBool) {
    if hold.load(Ordering::SeqCst) {
        inside.store(true, Ordering::SeqCst);
        wait_until(|| !hold.load(Ordering::SeqCst));
        inside.store(false, Ordering::SeqCst);
    }
}

impl Backend for Doors {
    fn features(&self) -> Features {
        self.model.features()
    }
    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        self.model.default_routes()
    }
    fn signal(&self, message: &Message) -> Result<Reception> {
        self.model.signal(message)
    }
    fn raise(&self, gsi: u32) -> Result<Reception> {
        self.model.raise(gsi)
    }
    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        stop_at(&self.hold_table, &self.in_table);
        // SAFETY: the entry's type says that `msi` is the member in use.
        let data = |entry: &kvm_irq_routing_entry| unsafe { entry.u.msi.data };
        let mut messages = entries.iter().filter(|entry| entry.type_ == KVM_IRQ_ROUTING_MSI);
        if messages.any(|entry| data(entry) == REFUSED) {
            return Err(Error::new(libc::EINVAL, "refused"));
        }
        self.model.set_routes(entries)
    }
    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        stop_at(&self.hold_bind, &self.in_bind);
        if self.refuse_bind.load(Ordering::SeqCst) {
            return Err(Error::new(libc::ENOMEM, "refused"));
        }
        self.model.bind_irqfd(eventfd, resample, gsi)
    }
    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        if self.refuse_unbind.load(Ordering::SeqCst) {
            return Err(Error::new(libc::ENOMEM, "refused"));
        }
        self.model.unbind_irqfd(eventfd, gsi)
    }
}

type Received = Arc<Mutex<Vec<u32>>>;

fn set_up(irqchip: Irqchip, max_routes: u32) -> (Arc<Doors>, Arc<RouteCache>, Received) {
    let received = Received::default();
    let guest = {
        let received = received.clone();
        move |message: &Message| {
            received.lock().unwrap().push(message.data);
            1
        }
    };
    let model = Model::new(irqchip, Model::x86_features(), Box::new(guest)).unwrap();
    let doors = Arc::new(Doors {
        model,
        hold_bind: AtomicBool::new(false),
        in_bind: AtomicBool::new(false),
        hold_table: AtomicBool::new(false),
        in_table: AtomicBool::new(false),
        refuse_unbind: AtomicBool::new(false),
        refuse_bind: AtomicBool::new(false),
    });
    let config = Config { max_routes, ..Config::default() };
    let cache = RouteCache::new(Host::Other(Box::new(doors.clone())), &config).unwrap();
    (doors, cache, received)
}

fn device(cache: &Arc<RouteCache>) -> Arc<Device> {
    Device::new(cache, DeviceConfig::new(Kind::Plain, 1)).unwrap()
}

/// Two devices, in the order in which a commit arms them.
fn two_devices(cache: &Arc<RouteCache>) -> (Arc<Device>, Arc<Device>) {
    let (a, b) = (device(cache), device(cache));
    if Arc::as_ptr(&a) < Arc::as_ptr(&b) {
        (a, b)
    } else {
        (b, a)
    }
}

fn fd(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: open while the EventFd lives.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

fn eventfd() -> EventFd {
    EventFd::new(0).unwrap()
}

/// One thread's commit changes `first` to 0x50 and `second` to `data`, and stands still between the write of
/// the table and the end of `second`'s change; `meanwhile` runs there.
fn during_a_commit(
    doors: &Doors,
    cache: &Arc<RouteCache>,
    (first, second): (&Device, &Device),
    data: u32,
    meanwhile: impl FnOnce(),
) -> Result<()> {
    doors.hold_bind.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| {
            cache.begin()?;
            first.set(0, APIC, 0x50)?;
            second.set(0, APIC, data)?;
            cache.commit()
        });
        wait_until(|| doors.in_bind.load(Ordering::SeqCst));
        meanwhile();
        doors.hold_bind.store(false, Ordering::SeqCst);
        commit.join().unwrap()
    })
}

#[test]
fn a_change_that_fails_leaves_anothers_irqfd_alone() {
    let (doors, cache, received) = set_up(Irqchip::Split, 0);
    let (first, second) = two_devices(&cache);
    let (one, two) = (eventfd(), eventfd());
    second.set(0, APIC, 0x41).unwrap();
    second.bind_eventfd(0, fd(&two), Masking::Unbind).unwrap();
    first.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    let committed = during_a_commit(&doors, &cache, (&first, &second), REFUSED, || {
        // Back to the good message.
        doors.hold_bind.store(false, Ordering::SeqCst);
        second.set(0, APIC, 0x41).unwrap();
        assert!(second.info(0).unwrap().in_kernel);
    });
    assert!(committed.is_ok(), "the vector is served: {committed:?}");
    assert!(second.info(0).unwrap().in_kernel);
    two.write(1).unwrap();
    doors.model.settle();
    assert_eq!(*received.lock().unwrap(), [0x41]);
}

#[test]
fn a_set_that_fails_leaves_no_other_message_live() {
    let (doors, cache, received) = set_up(Irqchip::Split, 26);
    let (first, second) = two_devices(&cache);
    let (one, two) = (eventfd(), eventfd());
    second.set(0, APIC, 0x41).unwrap();
    second.bind_eventfd(0, fd(&two), Masking::Unbind).unwrap();
    first.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    let mut refused = Ok(());
    let _ = during_a_commit(&doors, &cache, (&first, &second), 0x42, || {
        refused = second.set(0, APIC, 0x43);
        two.write(1).unwrap();
        doors.model.settle();
    });
    assert_eq!(refused.unwrap_err().errno(), libc::ENOSPC);
    two.write(1).unwrap();
    doors.model.settle();
    assert!(!received.lock().unwrap().contains(&0x42), "{:x?}", received.lock().unwrap());
}

#[test]
fn a_route_freed_before_the_failure_is_noted_is_used() {
    let (doors, cache, _) = set_up(Irqchip::Split, 26);
    let (first, second) = two_devices(&cache);
    let third = device(&cache);
    let (one, two, three) = (eventfd(), eventfd(), eventfd());
    third.set(0, APIC, 0x60).unwrap();
    third.bind_eventfd(0, fd(&three), Masking::Unbind).unwrap();
    first.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    second.bind_eventfd(0, fd(&two), Masking::Unbind).unwrap();
    let _ = during_a_commit(&doors, &cache, (&first, &second), 0x51, || third.close().unwrap());
    assert!(second.info(0).unwrap().in_kernel);
    assert_eq!(cache.stats().unserved_vectors, 0);
}

#[test]
fn a_cache_ends_after_its_last_write_of_the_table() {
    let (doors, cache, _) = set_up(Irqchip::Split, 0);
    let device = device(&cache);
    let one = eventfd();
    device.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    doors.hold_table.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| device.set(0, APIC, 0x41));
        wait_until(|| doors.in_table.load(Ordering::SeqCst));
        let (ended, end) = mpsc::channel();
        let cache = cache.clone();
        scope.spawn(move || {
            cache.shut_down();
            ended.send(()).unwrap();
        });
        let too_early = end.recv_timeout(Duration::from_millis(300)).is_ok();
        doors.hold_table.store(false, Ordering::SeqCst);
        assert!(!too_early, "the table was being written when the cache had ended");
        end.recv().unwrap();
    });
    assert_eq!(device.set(0, APIC, 0x42).unwrap_err().errno(), libc::ESHUTDOWN);
}

#[test]
fn what_could_not_be_sent_at_unmask_is_sent_later() {
    let (doors, cache, received) = set_up(Irqchip::Absent, 0);
    let device = device(&cache);
    device.set(0, APIC, 0x41).unwrap();
    device.mask(0).unwrap();
    device.deliver(0).unwrap();
    assert_eq!(device.unmask(0).unwrap_err().errno(), libc::EINVAL);
    assert!(device.is_pending(0).unwrap());
    doors.model.create_irqchip(Irqchip::Split);
    cache.commit().unwrap();
    assert_eq!(*received.lock().unwrap(), [0x41]);
    assert!(!device.is_pending(0).unwrap());
}

#[test]
fn disabling_again_lets_go_what_the_kernel_kept() {
    let (doors, cache, _) = set_up(Irqchip::Split, 0);
    let device = Device::new(&cache, DeviceConfig::new(Kind::Msix, 1)).unwrap();
    let one = eventfd();
    device.set_control(true, false).unwrap();
    device.set(0, APIC, 0x41).unwrap();
    device.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    device.unmask(0).unwrap();
    doors.refuse_unbind.store(true, Ordering::SeqCst);
    assert_eq!(device.set_control(false, false).unwrap_err().errno(), libc::ENOMEM);
    doors.refuse_unbind.store(false, Ordering::SeqCst);
    device.set_control(false, false).unwrap();
    assert!(!device.info(0).unwrap().in_kernel);
    assert_eq!(doors.model.irqfds(), 0);
}

/// The guest's side of the model delivers, and would mask, from inside whatever calls it.
#[test]
fn the_models_guest_may_deliver_but_not_control() {
    static DEVICE: Mutex<Option<Arc<Device>>> = Mutex::new(None);
    static NESTED: AtomicU64 = AtomicU64::new(0);
    let guest = |message: &Message| {
        if message.data == 0x41 {
            let device = DEVICE.lock().unwrap().clone().unwrap();
            assert_eq!(device.mask(0).unwrap_err().errno(), libc::EDEADLK);
            device.deliver(1).unwrap();
        } else {
            NESTED.fetch_add(1, Ordering::SeqCst);
        }
        1
    };
    let model =
        Arc::new(Model::new(Irqchip::Full, Model::x86_features(), Box::new(guest)).unwrap());
    let cache = RouteCache::new(Host::Other(Box::new(model.clone())), &Config::default()).unwrap();
    let device = Device::new(&cache, DeviceConfig::new(Kind::Plain, 2)).unwrap();
    *DEVICE.lock().unwrap() = Some(device.clone());
    let one = eventfd();
    device.set(0, APIC, 0x41).unwrap();
    device.set(1, APIC, 0x42).unwrap();
    device.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    one.write(1).unwrap();
    model.settle();
    one.write(1).unwrap();
    device.mask(0).unwrap();
    one.write(1).unwrap();
    device.unmask(0).unwrap();
    device.deliver(0).unwrap();
    assert_eq!(NESTED.load(Ordering::SeqCst), 4);
    *DEVICE.lock().unwrap() = None;
}

/// Through routes, four for five messages, all of them hot: there is always one to send by.
#[test]
fn hot_routes_make_way_all_the_same() {
    struct Line;
    impl Backend for Line {
        fn features(&self) -> Features {
            Features { routes: true, max_routes: 4096, ..Features::default() }
        }
        fn signal(&self, _: &Message) -> Result<Reception> {
            Err(Error::new(libc::ENOTSUP, "signal"))
        }
        fn raise(&self, _: u32) -> Result<Reception> {
            Ok(Reception::Accepted)
        }
        fn set_routes(&self, _: &[kvm_irq_routing_entry]) -> Result<()> {
            Ok(())
        }
        fn bind_irqfd(&self, _: BorrowedFd<'_>, _: Option<BorrowedFd<'_>>, _: u32) -> Result<()> {
            Err(Error::new(libc::ENOTSUP, "bind"))
        }
        fn unbind_irqfd(&self, _: BorrowedFd<'_>, _: u32) -> Result<()> {
            Err(Error::new(libc::ENOTSUP, "unbind"))
        }
    }
    let config = Config { first_gsi: 4092, ..Config::default() };
    let cache = RouteCache::new(Host::Other(Box::new(Line)), &config).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hot = scope.spawn(|| {
            let mut sent = 0u32;
            while !stop.load(Ordering::Relaxed) {
                cache.deliver_message(APIC, 0x40 + sent % 4, NO_REQUESTER).unwrap();
                sent = sent.wrapping_add(1);
            }
        });
        for _ in 0..2_000 {
            cache.deliver_message(APIC, 0x50, NO_REQUESTER).unwrap();
            std::thread::sleep(Duration::from_micros(100));
        }
        stop.store(true, Ordering::Relaxed);
        hot.join().unwrap();
    });
    assert!(cache.stats().evictions > 0);
}

// ---- explicit routes ----

const GSI: u32 = 40;

fn entry(data: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    (entry.u.msi.address_lo, entry.u.msi.data) = (0xFEE0_0000, data);
    entry
}

/// All zero: the GSI stays the VMM's, and is not in the table.
fn no_message() -> kvm_irq_routing_entry {
    kvm_irq_routing_entry { type_: KVM_IRQ_ROUTING_MSI, ..Default::default() }
}

/// What the kernel would send for the GSI.
fn data_in_force(doors: &Doors) -> Option<u32> {
    let routes = doors.model.routes();
    // SAFETY: the test makes no other entries than messages.
    routes.iter().find(|entry| entry.gsi == GSI).map(|entry| unsafe { entry.u.msi.data })
}

fn explicit_route(cache: &Arc<RouteCache>, data: u32) -> Arc<ExplicitRoutes> {
    let explicit = ExplicitRoutes::new(cache).unwrap();
    explicit.add(entry(data), Some(GSI), false).unwrap();
    explicit.commit_staged().unwrap();
    explicit
}

#[test]
fn nothing_is_bound_to_what_was_removed() {
    let (_doors, cache, _) = set_up(Irqchip::Split, 0);
    let explicit = explicit_route(&cache, 0x40);
    let one = eventfd();
    explicit.remove(GSI).unwrap();
    assert_eq!(explicit.bind(GSI, fd(&one), None).unwrap_err().errno(), libc::ENOENT);
    explicit.add(entry(0x41), Some(GSI), false).unwrap();
    explicit.bind(GSI, fd(&one), None).unwrap();
}

#[test]
fn what_a_thread_staged_that_has_ended_is_anothers_to_commit() {
    let (doors, cache, _) = set_up(Irqchip::Split, 0);
    let explicit = explicit_route(&cache, 0x40);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            cache.begin().unwrap();
            explicit.update(GSI, entry(0x41)).unwrap();
        });
        // With what a thread does when it ends.
        thread.join().unwrap();
    });
    assert_eq!(data_in_force(&doors), Some(0x40));
    explicit.commit_staged().unwrap();
    assert_eq!(data_in_force(&doors), Some(0x41));
}

#[test]
fn a_change_where_there_is_room_evicts_nobody() {
    let (_doors, cache, _) = set_up(Irqchip::Split, 0);
    let device = device(&cache);
    let one = eventfd();
    device.set(0, APIC, 0x50).unwrap();
    device.bind_eventfd(0, fd(&one), Masking::Unbind).unwrap();
    device.mask(0).unwrap();
    explicit_route(&cache, 0x40);
    assert_eq!((cache.stats().evictions, cache.stats().routes), (0, 1));
}

#[test]
fn a_change_back_is_not_live_before_the_one_under_way() {
    let (doors, cache, _) = set_up(Irqchip::Split, 0);
    let explicit = explicit_route(&cache, 0x40);
    let change = |data| {
        explicit.update(GSI, entry(data)).unwrap();
        explicit.commit_staged().unwrap();
    };
    doors.hold_table.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        scope.spawn(|| change(0x41));
        wait_until(|| doors.in_table.load(Ordering::SeqCst));
        let (returned, back) = mpsc::channel();
        scope.spawn(move || {
            change(0x40);
            returned.send(()).unwrap();
        });
        let too_early = back.recv_timeout(Duration::from_millis(300)).is_ok();
        doors.hold_table.store(false, Ordering::SeqCst);
        assert!(!too_early, "0x41 was about to be written when 0x40 was said to be live");
        back.recv().unwrap();
        assert_eq!(data_in_force(&doors), Some(0x40));
    });
}

#[test]
fn what_is_live_when_a_commit_returns_is_never_older_than_its_change() {
    const THREADS: u32 = 4;
    const EACH: u32 = 300;
    let (doors, cache, _) = set_up(Irqchip::Split, 0);
    let explicit = explicit_route(&cache, 0);
    let latest = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let mut latest = latest.lock().unwrap();
                    *latest += 1;
                    let mine = *latest;
                    cache.begin().unwrap();
                    explicit.update(GSI, entry(mine)).unwrap();
                    drop(latest);
                    cache.commit().unwrap();
                    let live = data_in_force(&doors).unwrap();
                    assert!(live >= mine, "{live} is live, {mine} was set before");
                }
            });
        }
    });
    assert_eq!(data_in_force(&doors), Some(THREADS * EACH));
    assert!(cache.stats().table_writes <= u64::from(THREADS * EACH) + 1);
}

#[test]
fn a_gsi_that_many_threads_add_and_remove_is_free_in_the_end() {
    let (doors, cache, _) = set_up(Irqchip::Split, 0);
    let explicit = ExplicitRoutes::new(&cache).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cache, explicit) = (&cache, &explicit);
            scope.spawn(move || {
                for i in 0..300 {
                    cache.begin().unwrap();
                    // Whoever is too late finds it taken, changed or gone.
                    let _ = match (thread + i) % 3 {
                        0 => explicit.add(entry(0x40 + i % 0x80), Some(GSI), false).map(|_| ()),
                        1 => explicit.update(GSI, entry(0x41 + i % 0x80)),
                        _ => explicit.remove(GSI),
                    };
                    cache.commit().unwrap();
                }
            });
        }
    });
    let _ = explicit.remove(GSI);
    explicit.commit_staged().unwrap();
    assert_eq!(data_in_force(&doors), None);
    explicit.add(entry(0x40), Some(GSI), false).unwrap();
    explicit.commit_staged().unwrap();
    assert_eq!(data_in_force(&doors), Some(0x40));
}

#[test]
fn what_a_failed_commit_took_out_of_a_full_table_comes_back() {
    // With 40 entries of the kernel's own there is room for two.
    let (doors, cache, _) = set_up(Irqchip::Full, 42);
    let explicit = explicit_route(&cache, 0x40);
    let late = device(&cache);
    let (one, two) = (eventfd(), eventfd());
    late.set(0, APIC, 0x60).unwrap();
    doors.hold_bind.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| {
            cache.begin()?;
            explicit.update(GSI, no_message())?;
            let other = explicit.add(entry(0x41), None, false)?;
            explicit.bind(other, fd(&one), None)?;
            cache.commit()
        });
        wait_until(|| doors.in_bind.load(Ordering::SeqCst));
        let meanwhile = data_in_force(&doors);
        // The room is nobody else's.
        let (answer, answers) = mpsc::channel();
        let (late, two) = (&late, &two);
        scope.spawn(move || answer.send(late.bind_eventfd(0, fd(two), Masking::Unbind)).unwrap());
        let refused = answers.recv_timeout(Duration::from_secs(1));
        doors.refuse_bind.store(true, Ordering::SeqCst);
        doors.hold_bind.store(false, Ordering::SeqCst);
        assert_eq!(commit.join().unwrap().unwrap_err().errno(), libc::ENOMEM);
        assert_eq!(meanwhile, None);
        assert_eq!(refused.unwrap().unwrap_err().errno(), libc::ENOSPC);
    });
    assert_eq!(data_in_force(&doors), Some(0x40));
    // When a commit goes well, it is.
    doors.refuse_bind.store(false, Ordering::SeqCst);
    explicit.add(entry(0x41), None, false).unwrap();
    explicit.update(GSI, no_message()).unwrap();
    explicit.commit_staged().unwrap();
    late.bind_eventfd(0, fd(&two), Masking::Unbind).unwrap();
    assert!(late.info(0).unwrap().in_kernel);
}
