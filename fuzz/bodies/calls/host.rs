// SPDX-License-Identifier: MIT OR Apache-2.0
//! What stands below the library: functions that play the kernel and refuse on demand, a guest, a vIOMMU.

use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicU8, Ordering::Relaxed};
use std::sync::Mutex;

use kvm_bindings::{kvm_irq_routing_entry, KVM_IRQ_ROUTING_MSI};
use msiroute::capi::types::*;
use msiroute::capi::{cache, deliver, device, msi_device, msi_route_cache, vector};

/// With which all refusals come: nothing else says it.
pub const REFUSED: c_int = libc::EXDEV;
/// From the functions of `ops` and from `changed` the library may be called.
const DEEPEST: u8 = 3;

#[derive(Default)]
struct Kernel {
    table: HashMap<u32, Vec<kvm_irq_routing_entry>>,
    irqfds: HashMap<RawFd, u32>,
    /// GSIs that the VMM has bound irqfds to itself: whether they have a route is its business.
    explicit: HashSet<u32>,
}

#[derive(Default)]
pub struct Host {
    kernel: Mutex<Kernel>,
    /// A bit for each call to come, from the lowest: it is refused.
    pub refusals: AtomicU32,
    /// Messages whose data has this in its low bits are blocked: a set of eight.
    pub blocked: AtomicU8,
    /// Added to what is translated.
    pub twist: AtomicU8,
    /// What a function calls when it is called.
    pub calls_back: AtomicU8,
    /// By whom it can.
    pub cache: AtomicU64,
    depth: AtomicU8,
    /// The last refused unbind leaves an irqfd for good.
    pub left: AtomicI32,
    pub arrived: AtomicU64,
}

/// SAFETY: the opaque pointer of every callback is a `Host` that lives until everything is freed.
unsafe fn host<'a>(opaque: *mut c_void) -> &'a Host {
    // SAFETY: as above.
    unsafe { &*opaque.cast::<Host>() }
}

impl Host {
    pub fn ops(&self, whole: bool, has_signal: bool) -> msi_route_cache_ops {
        let mut ops = msi_route_cache_ops {
            size: size_of::<msi_route_cache_ops>() as u32,
            flags: 0,
            signal: None,
            set_routes: None,
            bind_irqfd: None,
            unbind_irqfd: None,
            raise_gsi: None,
            gsi_of: None,
        };
        if has_signal {
            ops.signal = Some(signal);
        }
        if whole {
            ops.set_routes = Some(set_routes);
            ops.bind_irqfd = Some(bind_irqfd);
            ops.unbind_irqfd = Some(unbind_irqfd);
            ops.raise_gsi = Some(raise_gsi);
        }
        ops
    }

    fn is_refused(&self) -> bool {
        let refusals = self.refusals.load(Relaxed);
        self.refusals.store(refusals >> 1, Relaxed);
        refusals & 1 != 0
    }

    pub fn note_explicit(&self, gsi: u32) {
        self.kernel.lock().unwrap().explicit.insert(gsi);
    }

    pub fn irqfds(&self) -> usize {
        self.kernel.lock().unwrap().irqfds.len()
    }

    /// What bound eventfds count arrives, as the kernel has it the moment they are written.
    pub fn pump(&self) {
        let kernel = self.kernel.lock().unwrap();
        for &fd in kernel.irqfds.keys() {
            if super::take_count(fd) {
                self.arrived.fetch_add(1, Relaxed);
            }
        }
    }

    /// No control function may be called with locks held, and each says so.
    fn call_in(&self) {
        let cache = self.cache.load(Relaxed) as *mut msi_route_cache;
        if self.calls_back.load(Relaxed) & 1 == 0 || cache.is_null() {
            return;
        }
        // SAFETY: the cache is not freed while it calls.
        unsafe {
            assert_eq!(cache::msi_route_cache_commit(cache), -libc::EDEADLK);
            assert_eq!(cache::msi_route_cache_pause(cache), -libc::EDEADLK);
        }
    }
}

fn check_message(address: u64) {
    assert_eq!(address as u32 >> 20, 0xFEE, "a message that is none: {address:#x}");
}

unsafe extern "C" fn signal(opaque: *mut c_void, _: u32, address: u64, _: u32) -> c_int {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    check_message(address);
    host.call_in();
    if host.is_refused() {
        return -REFUSED;
    }
    host.arrived.fetch_add(1, Relaxed);
    c_int::from(address & 0x8000 == 0)
}

unsafe extern "C" fn set_routes(
    opaque: *mut c_void,
    entries: *const kvm_irq_routing_entry,
    n: usize,
) -> c_int {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    host.call_in();
    host.pump();
    if host.is_refused() {
        return -REFUSED;
    }
    let mut table: HashMap<u32, Vec<kvm_irq_routing_entry>> = HashMap::new();
    for at in 0..n {
        // SAFETY: n entries are there.
        let entry = unsafe { *entries.add(at) };
        if entry.type_ == KVM_IRQ_ROUTING_MSI {
            // SAFETY: such an entry has a message.
            check_message(u64::from(unsafe { entry.u.msi.address_lo }));
        }
        table.entry(entry.gsi).or_default().push(entry);
    }
    let mut kernel = host.kernel.lock().unwrap();
    for (fd, gsi) in kernel.irqfds.iter().filter(|_| host.left.load(Relaxed) == 0) {
        let has_route = table.contains_key(gsi) || kernel.explicit.contains(gsi);
        assert!(has_route, "irqfd {fd} loses GSI {gsi}");
    }
    kernel.table = table;
    0
}

unsafe extern "C" fn bind_irqfd(opaque: *mut c_void, fd: c_int, _: c_int, gsi: u32) -> c_int {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    host.call_in();
    if host.is_refused() {
        return -REFUSED;
    }
    let mut kernel = host.kernel.lock().unwrap();
    let before = kernel.irqfds.insert(fd, gsi);
    // The number of one that it would not let go may be another's by now.
    assert!(before.is_none() || host.left.load(Relaxed) > 0, "bound twice: {fd}");
    0
}

unsafe extern "C" fn unbind_irqfd(opaque: *mut c_void, fd: c_int, gsi: u32) -> c_int {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    host.call_in();
    host.pump();
    if host.is_refused() {
        host.left.fetch_add(1, Relaxed);
        return -REFUSED;
    }
    let gone = host.kernel.lock().unwrap().irqfds.remove(&fd);
    let was_bound = gone == Some(gsi) || host.left.load(Relaxed) > 0;
    assert!(was_bound, "unbound, and was not bound: {fd}");
    0
}

unsafe extern "C" fn raise_gsi(opaque: *mut c_void, gsi: u32) -> c_int {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    host.call_in();
    if host.is_refused() {
        return -REFUSED;
    }
    assert!(host.kernel.lock().unwrap().table.contains_key(&gsi), "GSI {gsi} has no route");
    host.arrived.fetch_add(1, Relaxed);
    1
}

pub unsafe extern "C" fn translate(
    opaque: *mut c_void,
    _: u32,
    address: *mut u64,
    data: *mut u32,
    tag: *mut u64,
) -> c_int {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    // SAFETY: the library's own.
    let (address, data, tag) = unsafe { (&mut *address, &mut *data, &mut *tag) };
    assert_eq!(*tag, MSIROUTE_NO_TAG);
    let low = *data & 7;
    if low & 4 == 0 {
        *tag = u64::from(low);
    }
    if host.calls_back.load(Relaxed) & 2 != 0 {
        let cache = host.cache.load(Relaxed) as *mut msi_route_cache;
        // SAFETY: as in `call_in`; NULL is refused.
        let result = unsafe { cache::msi_route_cache_resume(cache) };
        assert_eq!(result, -libc::EDEADLK);
        // SAFETY: as above.
        unsafe { deliver::msi_deliver_message(cache, 0, 0xFEE0_0000, 0x41, 1) };
    }
    if host.blocked.load(Relaxed) >> low & 1 != 0 {
        return -1;
    }
    *address ^= u64::from(host.twist.load(Relaxed)) << 12;
    *data = data.wrapping_add(0x100);
    0
}

pub unsafe extern "C" fn changed(
    opaque: *mut c_void,
    dev: *mut msi_device,
    what: u32,
    first: u32,
    n: u32,
) {
    // SAFETY: see there.
    let host = unsafe { host(opaque) };
    assert!(what != 0 && what & !(MSIROUTE_CHANGED_ENABLE | MSIROUTE_CHANGED_VECTORS) == 0);
    assert_eq!(what & MSIROUTE_CHANGED_VECTORS != 0, n != 0);
    let does = host.calls_back.load(Relaxed);
    if host.depth.fetch_add(1, Relaxed) < DEEPEST {
        // SAFETY: the device is not freed while it tells.
        unsafe {
            device::msi_device_state(dev);
            if does & 4 != 0 {
                deliver::msi_deliver(dev, first);
            }
            if does & 8 != 0 {
                vector::msi_vector_mask(dev, first);
            }
            if does & 16 != 0 {
                vector::msi_vector_unmask(dev, first);
            }
        }
    }
    host.depth.fetch_sub(1, Relaxed);
}
