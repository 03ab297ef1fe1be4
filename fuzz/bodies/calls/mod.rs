// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program of C calls: a byte says which function, the next ones its arguments, right or wrong. What C must keep to (no
//! freed handle, no pointer to nowhere, no lent eventfd closed) is kept to; all else is tried.
//!
//! Of each call it is checked that it comes back with a result that the header knows, that `errno` is as before, and that
//! nothing has changed if an argument was refused; at the end, that no descriptor, irqfd or thread is left.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_lossless,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::undocumented_unsafe_blocks,
    reason = "a panic is what a fuzzer looks for; handles are live, NULL or misaligned, pointers as long as is said"
)]

mod bytes;
mod host;
mod look;

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::Ordering::Relaxed;

use kvm_bindings::{kvm_irq_routing_entry, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI};
use msiroute::capi::types::*;
use msiroute::capi::{
    cache, deliver, device, explicit, guest, log, msi_device, msi_route_cache, relay, remap, state,
    vector,
};

use bytes::Bytes;
use host::{Host, REFUSED};
use look::{look, Seen};

const STEPS: usize = 400;
const VMS: usize = 2;
const DEVICES: usize = 4;
const EVENTFDS: usize = 5;
const ERRNO: c_int = 4711;

/// How a control call may fail that has a device or a cache.
const OF_HANDLE: &[c_int] = &[libc::EINVAL, libc::ENODEV, libc::ESHUTDOWN];
/// And one that serves vectors.
const OF_SERVING: &[c_int] = &[libc::EINVAL, libc::ENODEV, libc::ESHUTDOWN, libc::ENOSPC, REFUSED];
/// After these, which are said of arguments, all is as it was.
const OF_ARGUMENTS: &[c_int] = &[
    libc::EINVAL,
    libc::E2BIG,
    libc::EBADF,
    libc::ENOENT,
    libc::EBUSY,
    libc::ENOTSUP,
    libc::ENODEV,
    libc::ESHUTDOWN,
];

struct Vm {
    cache: *mut msi_route_cache,
    host: *const Host,
    /// The functions of `ops` are the kernel.
    is_fake: bool,
    depth: u32,
    gsis: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Dev {
    dev: *mut msi_device,
    vm: usize,
    kind: u32,
    vectors: u32,
    owners: u32,
}

struct World {
    vms: Vec<Vm>,
    devices: Vec<Dev>,
    eventfds: Vec<RawFd>,
    /// Numbers that are no good: of a file, of a semaphore, of nothing.
    bad_fds: [RawFd; 4],
    saved: Vec<u8>,
}

pub fn run(data: &[u8]) {
    let before = descriptors();
    let mut bytes = Bytes::new(data);
    let mut world = World::new();
    let mut hosts = Vec::new();
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        world.step(&mut bytes, &mut hosts);
    }
    world.end(bytes.bit());
    for host in hosts {
        // Nobody calls it any more.
        let host: Box<Host> = unsafe { Box::from_raw(host) };
        assert!(host.irqfds() == 0 || host.left.load(Relaxed) > 0, "irqfds are left");
    }
    assert_eq!(descriptors(), before, "descriptors");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What an eventfd counts, if anything.
fn take_count(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut count = 0u64;
    unsafe {
        libc::poll(&mut poll, 1, 0) == 1
            && libc::read(fd, (&raw mut count).cast(), size_of::<u64>()) == 8
    }
}

fn errno() -> &'static mut c_int {
    unsafe { &mut *libc::__errno_location() }
}

impl World {
    fn new() -> Self {
        let eventfd = |at: usize| {
            let flags = if at == 0 { 0 } else { libc::EFD_NONBLOCK };
            unsafe { libc::eventfd(0, flags | libc::EFD_CLOEXEC) }
        };
        let bad_fds = unsafe {
            [
                libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC),
                libc::eventfd(0, libc::EFD_SEMAPHORE | libc::EFD_CLOEXEC),
                1 << 20,
                -1,
            ]
        };
        World {
            vms: Vec::new(),
            devices: Vec::new(),
            eventfds: (0..EVENTFDS).map(eventfd).collect(),
            bad_fds,
            saved: Vec::new(),
        }
    }

    fn end(mut self, caches_first: bool) {
        for vm in &self.vms {
            unsafe { (*vm.host).refusals.store(0, Relaxed) };
        }
        if caches_first {
            self.free_caches();
        }
        for dev in std::mem::take(&mut self.devices) {
            (0..dev.owners).for_each(|_| unsafe { device::msi_device_free(dev.dev) });
        }
        self.free_caches();
        for fd in self.eventfds.iter().chain(&self.bad_fds[..2]) {
            unsafe { libc::close(*fd) };
        }
    }

    fn free_caches(&mut self) {
        for vm in &mut self.vms {
            unsafe { cache::msi_route_cache_free(vm.cache) };
            vm.cache = std::ptr::null_mut();
        }
    }

    fn look(&self) -> Vec<Seen> {
        self.devices.iter().map(|dev| unsafe { look(dev.dev, dev.vectors) }).collect()
    }

    /// Makes a call and checks what all have in common.
    fn call(&self, name: &str, errors: &[c_int], call: impl FnOnce() -> c_int) -> c_int {
        let before = self.look();
        *errno() = ERRNO;
        let result = call();
        assert_eq!(*errno(), ERRNO, "{name}: errno");
        if result >= 0 {
            return result;
        }
        assert!(errors.contains(&-result), "{name}: {result}, {}", last_error());
        assert!(!last_error().is_empty(), "{name}: no words");
        if OF_ARGUMENTS.contains(&-result) {
            let (mut now, mut before) = (self.look(), before);
            if self.vms.len() > 1 {
                // An eventfd may be bound in one, whose thread takes what is pending in the other.
                now.iter_mut().chain(&mut before).for_each(Seen::forget_pending);
            }
            assert_eq!(now, before, "{name}: {result}, and yet something changed");
        }
        result
    }

    fn done(&self, name: &str, errors: &[c_int], call: impl FnOnce() -> c_int) -> bool {
        let result = self.call(name, errors, call);
        assert!(result <= 0, "{name}: {result}");
        result == 0
    }

    // ---- arguments -----------------------------------------------------------------------------

    fn cache(&self, bytes: &mut Bytes) -> *mut msi_route_cache {
        if self.vms.is_empty() || bytes.seldom() {
            return std::ptr::null_mut();
        }
        let cache = self.vms[bytes.below(self.vms.len())].cache;
        if bytes.seldom() {
            cache.wrapping_byte_add(1)
        } else {
            cache
        }
    }

    fn dev(&self, bytes: &mut Bytes) -> *mut msi_device {
        if self.devices.is_empty() || bytes.seldom() {
            return std::ptr::null_mut();
        }
        let dev = self.devices[bytes.below(self.devices.len())].dev;
        if bytes.seldom() {
            dev.wrapping_byte_add(1)
        } else {
            dev
        }
    }

    fn of_dev(&self, dev: *mut msi_device) -> Option<Dev> {
        self.devices.iter().find(|it| it.dev == dev).copied()
    }

    fn fd(&self, bytes: &mut Bytes) -> RawFd {
        if bytes.seldom() {
            bytes.of(&self.bad_fds)
        } else {
            bytes.of(&self.eventfds)
        }
    }

    fn gsi(&self, bytes: &mut Bytes) -> u32 {
        match bytes.below(4) {
            0 => bytes.of(&[MSIROUTE_ANY_GSI, 0, 23, 24, 4095, 4096, u32::MAX - 1]),
            1 => u32::from(bytes.u8()),
            _ => {
                let all: Vec<u32> =
                    self.vms.iter().flat_map(|vm| vm.gsis.iter().copied()).collect();
                if all.is_empty() {
                    30
                } else {
                    bytes.of(&all)
                }
            }
        }
    }

    // ---- steps ---------------------------------------------------------------------------------

    fn step(&mut self, bytes: &mut Bytes, hosts: &mut Vec<*mut Host>) {
        match bytes.u8() % 64 {
            0 => self.new_cache(bytes, hosts),
            1..=2 => self.new_device(bytes),
            3 if bytes.seldom() => self.free_cache(bytes),
            4 if bytes.bit() => self.free_device(bytes),
            5..=12 => self.registers(bytes),
            13..=17 => self.routes(bytes),
            18..=24 => self.whole_cache(bytes),
            25..=30 => self.whole_device(bytes),
            31..=34 => self.state(bytes),
            35..=39 => self.outside(bytes),
            40..=43 => self.relayed(bytes),
            44..=47 => self.deliver(bytes),
            _ => self.vector(bytes),
        }
    }

    fn new_cache(&mut self, bytes: &mut Bytes, hosts: &mut Vec<*mut Host>) {
        if self.vms.len() == VMS {
            return;
        }
        let host = Box::into_raw(Box::<Host>::default());
        hosts.push(host);
        let is_fake = bytes.bit();
        let ops = unsafe { &*host }.ops(is_fake, !(is_fake && bytes.seldom()));
        let flags = bytes.u8() as u32 & (MSIROUTE_CACHE_NO_DIRECT | MSIROUTE_CACHE_PAUSED)
            | if is_fake { 0 } else { MSIROUTE_CACHE_MODEL }
            | if bytes.seldom() { 1 << bytes.below(32) } else { 0 };
        let config = msi_route_cache_config {
            size: size_of::<msi_route_cache_config>() as u32,
            flags,
            vm_fd: if bytes.seldom() { self.fd(bytes) } else { -1 },
            kvm_fd: if bytes.seldom() { self.fd(bytes) } else { -1 },
            first_gsi: bytes.of(&[0, 0, 24, 40, 4095, u32::MAX]),
            max_routes: bytes.of(&[0, 26, 28, 48, 4096, 1, u32::MAX]),
            ops: if bytes.seldom() { std::ptr::null() } else { &ops },
            opaque: host.cast(),
        };
        let mut buffer = Sized::new(&config, bytes);
        let mut cache = std::ptr::dangling_mut();
        // Of a VM that is none, and of /dev/kvm, if there is one.
        let errors = &[libc::EINVAL, libc::E2BIG, libc::EBADF, libc::EBUSY, libc::ENOTSUP];
        let done = self.done("new", errors, || unsafe {
            cache::msi_route_cache_new(buffer.pointer(), &mut cache)
        });
        assert_eq!(done, !cache.is_null());
        if done {
            unsafe { &*host }.cache.store(cache as u64, Relaxed);
            self.vms.push(Vm { cache, host, is_fake, depth: 0, gsis: Vec::new() });
        }
    }

    fn new_device(&mut self, bytes: &mut Bytes) {
        let cache = self.cache(bytes);
        let vm = self.vms.iter().position(|vm| vm.cache == cache);
        if self.devices.len() == DEVICES {
            return;
        }
        let kind = bytes.u8() as u32 % 5;
        let seldom = |bytes: &mut Bytes| if bytes.seldom() { bytes.u32() } else { 0 };
        let config = msi_device_config {
            size: size_of::<msi_device_config>() as u32,
            flags: match kind {
                MSIROUTE_KIND_MSI => bytes.u8() as u32 & 7,
                _ => bytes.u8() as u32 & (MSIROUTE_DEVICE_DATA0_OFF | MSIROUTE_DEVICE_NO_REMAP),
            } | seldom(bytes),
            kind,
            vectors: bytes.of(&[1, 2, 4, 8, 3, 0, 33, 2049, u32::MAX]),
            requester: bytes.of(&[MSIROUTE_NO_REQUESTER, 0, 8]),
            first_pin: if kind == MSIROUTE_KIND_PINS {
                bytes.of(&[0, 2, 16, 24, u32::MAX])
            } else {
                seldom(bytes)
            },
            cap_offset: bytes.of(&[0x40, 0, 0xF0, 0x41, 0xFC]),
            cap_next: seldom(bytes),
            table_bar: if kind == MSIROUTE_KIND_MSIX { bytes.of(&[2, 0, 6]) } else { 0 },
            table_offset: seldom(bytes),
            pba_bar: if kind == MSIROUTE_KIND_MSIX { bytes.of(&[3, 2, 0]) } else { 0 },
            pba_offset: if kind == MSIROUTE_KIND_MSIX { bytes.of(&[0x800, 0, 4]) } else { 0 },
            name: if bytes.bit() { c"fuzzed".as_ptr() } else { std::ptr::null() },
            changed: bytes.bit().then_some(host::changed),
            opaque: vm.map_or(std::ptr::null_mut(), |at| self.vms[at].host as *mut c_void),
        };
        let mut buffer = Sized::new(&config, bytes);
        let mut dev = std::ptr::dangling_mut();
        let errors = &[
            libc::EINVAL,
            libc::E2BIG,
            libc::EBUSY,
            libc::ENOTSUP,
            libc::ESHUTDOWN,
            libc::ENOSPC,
            REFUSED,
        ];
        let done = self.done("device_new", errors, || unsafe {
            device::msi_device_new(cache, buffer.pointer(), &mut dev)
        });
        assert_eq!(done, !dev.is_null());
        if done {
            let (vm, vectors) = (vm.unwrap(), config.vectors);
            self.devices.push(Dev { dev, vm, kind: buffer.kind(), vectors, owners: 1 });
        }
    }

    fn free_cache(&mut self, bytes: &mut Bytes) {
        let Some(at) = (!self.vms.is_empty()).then(|| bytes.below(self.vms.len())) else { return };
        let vm = &mut self.vms[at];
        *errno() = ERRNO;
        unsafe {
            (*vm.host).cache.store(0, Relaxed);
            cache::msi_route_cache_free(vm.cache);
        }
        assert_eq!(*errno(), ERRNO);
        vm.cache = std::ptr::null_mut();
        vm.gsis.clear();
    }

    fn free_device(&mut self, bytes: &mut Bytes) {
        if self.devices.is_empty() {
            return;
        }
        let at = bytes.below(self.devices.len());
        *errno() = ERRNO;
        unsafe { device::msi_device_free(self.devices[at].dev) };
        assert_eq!(*errno(), ERRNO);
        self.devices[at].owners -= 1;
        if self.devices[at].owners == 0 {
            self.devices.remove(at);
        }
    }

    /// A guest's accesses.
    fn registers(&mut self, bytes: &mut Bytes) {
        let dev = self.dev(bytes);
        let what = bytes.below(8);
        let len = if bytes.seldom() { bytes.u8() as usize } else { bytes.of(&[4, 2, 1, 8, 16, 0]) };
        let mut data = if bytes.bit() { bytes.take(len) } else { message_like(bytes, len) };
        let mut offset = u64::from(bytes.u8()) * if bytes.seldom() { 1 } else { 4 };
        if what >= 6 {
            offset = 0x40 + offset % 32;
        }
        if bytes.seldom() {
            offset = bytes.of(&[u64::MAX, u64::MAX - 3, u64::from(u32::MAX), 0x8000]);
        }
        let pointer =
            if bytes.seldom() { std::ptr::null_mut() } else { data.as_mut_ptr().cast::<c_void>() };
        let config_offset = offset as u32;
        match what {
            0..=2 => {
                _ = self.done("table_write", OF_SERVING, || unsafe {
                    guest::msi_device_table_write(dev, offset, pointer, len)
                })
            }
            3 => {
                _ = self.done("table_read", OF_HANDLE, || unsafe {
                    guest::msi_device_table_read(dev, offset, pointer, len)
                })
            }
            4 => {
                _ = self.done("pba_read", OF_HANDLE, || unsafe {
                    guest::msi_device_pba_read(dev, offset, pointer, len)
                })
            }
            5 => {
                _ = self.done("pba_write", OF_HANDLE, || unsafe {
                    guest::msi_device_pba_write(dev, offset, pointer, len)
                })
            }
            6 => assert!(
                self.call("config_write", OF_SERVING, || unsafe {
                    guest::msi_device_config_write(dev, config_offset, pointer, len)
                }) <= 1
            ),
            _ => assert!(
                self.call("config_read", OF_HANDLE, || unsafe {
                    guest::msi_device_config_read(dev, config_offset, pointer, len)
                }) <= 1
            ),
        }
    }

    /// Explicit ones.
    fn routes(&mut self, bytes: &mut Bytes) {
        let cache = self.cache(bytes);
        let mut gsi = self.gsi(bytes);
        let entry = entry(bytes);
        let (fd, resample) = (self.fd(bytes), if bytes.seldom() { self.fd(bytes) } else { -1 });
        let flags = if bytes.seldom() { bytes.u8() as u32 } else { bytes.u8() as u32 & 1 };
        let pointer = if bytes.seldom() { std::ptr::null() } else { &raw const entry };
        let errors = &[
            libc::EINVAL,
            libc::ENOENT,
            libc::EBUSY,
            libc::ENOSPC,
            libc::ENOTSUP,
            libc::ESHUTDOWN,
            libc::EBADF,
            REFUSED,
        ];
        match bytes.below(8) {
            0..=1 => {
                let done = self.done("add_route", errors, || unsafe {
                    explicit::msi_route_cache_add_route(cache, pointer, flags, &mut gsi)
                });
                if let (true, Some(vm)) = (done, self.vms.iter_mut().find(|vm| vm.cache == cache)) {
                    assert_ne!(gsi, MSIROUTE_ANY_GSI);
                    vm.gsis.push(gsi);
                }
            }
            2 => {
                _ = self.done("update_route", errors, || unsafe {
                    explicit::msi_route_cache_update_route(cache, gsi, pointer)
                })
            }
            3 => {
                _ = self.done("remove_route", errors, || unsafe {
                    explicit::msi_route_cache_remove_route(cache, gsi)
                })
            }
            4..=5 => {
                let vm = self.vms.iter().find(|vm| vm.cache == cache);
                vm.into_iter().for_each(|vm| unsafe { &*vm.host }.note_explicit(gsi));
                _ = self.done("bind_irqfd", errors, || unsafe {
                    explicit::msi_route_cache_bind_irqfd(cache, gsi, fd, resample)
                })
            }
            6 => {
                _ = self.done("unbind_irqfd", errors, || unsafe {
                    explicit::msi_route_cache_unbind_irqfd(cache, gsi, fd)
                })
            }
            _ => {
                let n = bytes.of(&[0, 1, 3, usize::MAX]);
                let mut entries: Vec<_> = (0..n.min(3)).map(|_| entry_with_gsi(bytes)).collect();
                let pointer = if bytes.seldom() { std::ptr::null() } else { entries.as_mut_ptr() };
                _ = self.done("set_fixed", errors, || unsafe {
                    cache::msi_route_cache_set_fixed(cache, pointer, n)
                });
            }
        }
    }

    fn whole_cache(&mut self, bytes: &mut Bytes) {
        let cache = self.cache(bytes);
        let at = self.vms.iter().position(|vm| vm.cache == cache && !cache.is_null());
        let errors = OF_SERVING;
        match bytes.below(10) {
            0 => {
                if self.done("begin", errors, || unsafe { cache::msi_route_cache_begin(cache) }) {
                    self.vms[at.unwrap()].depth += 1;
                }
            }
            1..=2 => {
                self.done("commit", errors, || unsafe { cache::msi_route_cache_commit(cache) });
                if let Some(at) = at {
                    self.vms[at].depth = self.vms[at].depth.saturating_sub(1);
                }
            }
            3 => _ = self.done("pause", errors, || unsafe { cache::msi_route_cache_pause(cache) }),
            4..=5 => {
                _ = self.done("resume", errors, || unsafe { cache::msi_route_cache_resume(cache) })
            }
            6 => {
                // A message that is none any more is -EINVAL too, and then the addressing stands.
                let flags = if bytes.seldom() { bytes.u32() } else { bytes.below(4) as u32 };
                *errno() = ERRNO;
                let result = unsafe { cache::msi_route_cache_set_addressing(cache, flags) };
                assert_eq!(*errno(), ERRNO);
                assert!(result == 0 || OF_SERVING.contains(&-result), "set_addressing: {result}");
            }
            7 => {
                let mut stats: msi_route_cache_stats = unsafe { std::mem::zeroed() };
                stats.size = size_of::<msi_route_cache_stats>() as u32;
                let mut buffer = Sized::new(&stats, bytes);
                _ = self.done("stats", &[libc::EINVAL], || unsafe {
                    cache::msi_route_cache_stats(cache, buffer.pointer())
                });
            }
            8 => {
                let mut most = 0u32;
                let pointer = if bytes.bit() { std::ptr::null_mut() } else { &raw mut most };
                *errno() = ERRNO;
                let has = unsafe { cache::msi_route_cache_features(cache, pointer) };
                assert_eq!(*errno(), ERRNO);
                assert!(has <= 15);
                assert!(!cache::msi_route_cache_version().is_null());
            }
            _ => {
                let translate = bytes.bit().then_some(host::translate as _);
                let host = at.map_or(std::ptr::null_mut(), |at| self.vms[at].host as *mut c_void);
                _ = self.done("set_remap", errors, || unsafe {
                    remap::msi_route_cache_set_remap(cache, translate, host)
                });
            }
        }
    }

    fn whole_device(&mut self, bytes: &mut Bytes) {
        let dev = self.dev(bytes);
        let value = if bytes.seldom() { bytes.u32() } else { bytes.u8() as u32 & 3 };
        match bytes.below(8) {
            0 => {
                *errno() = ERRNO;
                let same = unsafe { device::msi_device_ref(dev) };
                assert_eq!(*errno(), ERRNO);
                if let Some(it) = self.devices.iter_mut().find(|it| it.dev == dev) {
                    assert_eq!(same, dev);
                    it.owners += 1;
                }
            }
            1 if bytes.seldom() => {
                _ = self.done("close", OF_SERVING, || unsafe { device::msi_device_close(dev) })
            }
            2 => _ = self.done("reset", OF_SERVING, || unsafe { device::msi_device_reset(dev) }),
            3 => {
                _ = self.done("set_requester", OF_SERVING, || unsafe {
                    device::msi_device_set_requester(dev, value)
                })
            }
            4 => {
                _ = self.done("set_bus_master", OF_SERVING, || unsafe {
                    device::msi_device_set_bus_master(dev, value as c_int)
                })
            }
            _ => {
                _ = self.done("set_control", OF_SERVING, || unsafe {
                    device::msi_device_set_control(dev, value)
                })
            }
        }
    }

    /// Saved, loaded, exported, imported.
    fn state(&mut self, bytes: &mut Bytes) {
        let dev = self.dev(bytes);
        let errors =
            &[libc::EINVAL, libc::ENOTSUP, libc::ENODEV, libc::ESHUTDOWN, libc::ENOSPC, REFUSED];
        let size = unsafe { state::msi_device_save_size(dev) };
        let len = if bytes.seldom() { bytes.u16() as usize } else { size };
        match bytes.below(4) {
            0 => {
                self.saved = vec![0; len];
                let data = self.saved.as_mut_ptr().cast();
                _ = self.done("save", errors, || unsafe { state::msi_device_save(dev, data, len) });
            }
            1 => {
                let mut saved = self.saved.clone();
                if let (true, false) = (bytes.bit(), saved.is_empty()) {
                    let at = bytes.u16() as usize % saved.len();
                    saved[at] = bytes.u8();
                }
                _ = self.done("load", errors, || unsafe {
                    state::msi_device_load(dev, saved.as_ptr().cast(), saved.len())
                });
            }
            what => {
                let Some(it) = self.of_dev(dev) else { return };
                let wrong = if bytes.seldom() { bytes.u8() as usize } else { 0 };
                let mut cap = vec![0; unsafe { guest::msi_device_capability_size(dev) } + wrong];
                let has_table = it.kind == MSIROUTE_KIND_MSIX;
                let (table, pba) =
                    if has_table { (it.vectors as usize * 16, 8) } else { (wrong, 0) };
                let (mut table, mut pba) = (vec![0; table], vec![0; pba]);
                let [c, t, p] = [&mut cap, &mut table, &mut pba]
                    .map(|it| (it.as_mut_ptr().cast::<c_void>(), it.len()));
                let exported = self.done("export", errors, || unsafe {
                    state::msi_device_export(dev, c.0, c.1, t.0, t.1, p.0, p.1)
                });
                if !exported || what == 2 {
                    return;
                }
                for _ in 0..bytes.below(4) {
                    let part = bytes.below(3);
                    let it = [&mut cap, &mut table, &mut pba].into_iter().nth(part).unwrap();
                    let at = bytes.below(it.len().max(1));
                    it.get_mut(at).into_iter().for_each(|byte| *byte = bytes.u8());
                }
                _ = self.done("import", errors, || unsafe {
                    state::msi_device_import(dev, c.0, c.1, t.0, t.1, p.0, p.1)
                });
            }
        }
    }

    /// What comes from elsewhere: signals, refusals, the vIOMMU's tables.
    fn outside(&mut self, bytes: &mut Bytes) {
        let fd = bytes.of(&self.eventfds);
        let one = 1u64;
        if self.vms.is_empty() || bytes.bit() {
            unsafe { libc::write(fd, (&raw const one).cast(), size_of::<u64>()) };
            self.vms.iter().filter(|vm| vm.is_fake).for_each(|vm| unsafe { (*vm.host).pump() });
            return;
        }
        let at = bytes.below(self.vms.len());
        let host = unsafe { &*self.vms[at].host };
        match bytes.below(6) {
            0 => host.refusals.store(bytes.u8() as u32, Relaxed),
            1 => host.calls_back.store(bytes.u8(), Relaxed),
            2 => host.blocked.store(bytes.u8(), Relaxed),
            3 => host.twist.store(bytes.u8(), Relaxed),
            4 => unsafe {
                log::msi_route_cache_set_log(
                    bytes.bit().then_some(logged as _),
                    std::ptr::null_mut(),
                )
            },
            _ => {
                let cache = self.cache(bytes);
                let (first, last) =
                    bytes.of(&[(0, u64::MAX), (0, 0), (1, 2), (3, 1), (u64::MAX, u64::MAX)]);
                let requester = bytes.of(&[MSIROUTE_NO_REQUESTER, 0, 8]);
                _ = self.done("invalidate", OF_SERVING, || unsafe {
                    remap::msi_route_cache_invalidate(cache, requester, first, last)
                });
            }
        }
    }

    fn relayed(&mut self, bytes: &mut Bytes) {
        let cache = self.cache(bytes);
        let errors = &[libc::EINVAL, libc::ENOSPC, REFUSED];
        match bytes.below(5) {
            0 => {
                _ = self
                    .call("relay_fd", errors, || unsafe { relay::msi_route_cache_relay_fd(cache) })
            }
            1 => {
                _ = self.done("relay_stop", errors, || unsafe {
                    relay::msi_route_cache_relay_stop(cache)
                })
            }
            2 if bytes.seldom() => self.relay_loop(cache),
            _ => assert!(
                self.call("relay_run", errors, || unsafe {
                    relay::msi_route_cache_relay_run(cache)
                }) <= 1
            ),
        }
    }

    /// On a thread, until it is stopped: it may not have begun then.
    fn relay_loop(&self, cache: *mut msi_route_cache) {
        let cache = cache as usize;
        let lent = std::thread::spawn(move || unsafe {
            relay::msi_route_cache_relay_loop(cache as *mut _)
        });
        let errors = &[libc::EINVAL, libc::ENOSPC, REFUSED];
        self.call("relay_stop", errors, || unsafe {
            relay::msi_route_cache_relay_stop(cache as *mut _)
        });
        let result = lent.join().unwrap();
        assert!(result == 0 || result == -libc::EINVAL, "relay_loop: {result}");
    }

    fn deliver(&mut self, bytes: &mut Bytes) {
        let errors = &[
            libc::EINVAL,
            libc::ENODEV,
            libc::ESHUTDOWN,
            libc::EAGAIN,
            libc::ENOSPC,
            libc::EDEADLK,
            REFUSED,
        ];
        if bytes.below(4) == 0 {
            let cache = self.cache(bytes);
            let (address, data) = message(bytes);
            let translated = c_int::from(bytes.bit());
            let result = self.call("deliver_message", errors, || unsafe {
                deliver::msi_deliver_message(
                    cache,
                    MSIROUTE_NO_REQUESTER,
                    address,
                    data,
                    translated,
                )
            });
            assert!(
                result < 0 || [MSIROUTE_SENT, MSIROUTE_REFUSED, MSIROUTE_BLOCKED].contains(&result)
            );
            return;
        }
        let (dev, index) = (self.dev(bytes), index(bytes));
        let arrived =
            self.of_dev(dev).map(|it| unsafe { &*self.vms[it.vm].host }.arrived.load(Relaxed));
        let result = self.call("deliver", errors, || unsafe { deliver::msi_deliver(dev, index) });
        assert!(result <= MSIROUTE_BLOCKED);
        if let (MSIROUTE_SENT, Some(arrived), Some(it)) = (result, arrived, self.of_dev(dev)) {
            let now = unsafe { &*self.vms[it.vm].host }.arrived.load(Relaxed);
            assert!(now > arrived, "sent, and nothing arrived");
        }
    }

    fn vector(&mut self, bytes: &mut Bytes) {
        let (dev, index) = (self.dev(bytes), index(bytes));
        match bytes.below(16) {
            0..=3 => {
                let (address, data) = message(bytes);
                _ = self.done("set", OF_SERVING, || unsafe {
                    vector::msi_vector_set(dev, index, address, data)
                });
            }
            4 => {
                _ = self
                    .done("clear", OF_SERVING, || unsafe { vector::msi_vector_clear(dev, index) })
            }
            5..=6 => {
                _ = self.done("mask", OF_SERVING, || unsafe { vector::msi_vector_mask(dev, index) })
            }
            7..=8 => {
                _ = self
                    .done("unmask", OF_SERVING, || unsafe { vector::msi_vector_unmask(dev, index) })
            }
            9 => assert!(
                self.call("is_pending", OF_HANDLE, || unsafe {
                    vector::msi_vector_is_pending(dev, index)
                }) <= 1
            ),
            10 => assert!(
                self.call("clear_pending", OF_HANDLE, || unsafe {
                    vector::msi_vector_clear_pending(dev, index)
                }) <= 1
            ),
            11..=12 => {
                let fd = self.fd(bytes);
                let flags = if bytes.seldom() { bytes.u32() } else { bytes.u8() as u32 & 15 };
                let errors = &[
                    libc::EBADF,
                    libc::EINVAL,
                    libc::EBUSY,
                    libc::ENOTSUP,
                    libc::ENODEV,
                    libc::ESHUTDOWN,
                    libc::ENOSPC,
                    REFUSED,
                ];
                _ = self.done("bind_eventfd", errors, || unsafe {
                    vector::msi_vector_bind_eventfd(dev, index, fd, flags)
                });
            }
            13 => {
                let fd = if bytes.seldom() { -1 } else { self.fd(bytes) };
                let errors = &[libc::EINVAL, libc::ENOENT, libc::ENODEV, libc::ESHUTDOWN, REFUSED];
                _ = self.done("unbind_eventfd", errors, || unsafe {
                    vector::msi_vector_unbind_eventfd(dev, index, fd)
                });
            }
            _ => {
                let mut buffer = Sized::new(&look::info(), bytes);
                _ = self.done("info", OF_HANDLE, || unsafe {
                    vector::msi_vector_info(dev, index, buffer.pointer())
                });
            }
        }
    }
}

fn last_error() -> String {
    let text = unsafe { std::ffi::CStr::from_ptr(cache::msi_route_cache_last_error()) };
    text.to_string_lossy().into_owned()
}

unsafe extern "C" fn logged(_: *mut c_void, level: u32, message: *const std::ffi::c_char) {
    assert!(level == MSIROUTE_LOG_ERROR || level == MSIROUTE_LOG_INFO);
    assert!(!message.is_null());
}

fn index(bytes: &mut Bytes) -> u32 {
    if bytes.seldom() {
        bytes.of(&[u32::MAX, 2047, 2048, 8])
    } else {
        bytes.u8() as u32 % 4
    }
}

fn message(bytes: &mut Bytes) -> (u64, u32) {
    let address = if bytes.seldom() {
        u64::from(bytes.u32())
    } else {
        0xFEE0_0000 | u64::from(bytes.u8()) << 12
    };
    let high = if bytes.seldom() { u64::from(bytes.u8()) << 40 } else { 0 };
    let data = if bytes.seldom() { bytes.u32() } else { 0x40 | u32::from(bytes.u8() & 7) };
    (address | high, data)
}

/// A table entry, or some of it.
fn message_like(bytes: &mut Bytes, len: usize) -> Vec<u8> {
    let (address, data) = message(bytes);
    let control = u32::from(bytes.u8() & 1);
    let mut entry: Vec<u8> = address.to_le_bytes().to_vec();
    entry.extend(data.to_le_bytes());
    entry.extend(control.to_le_bytes());
    entry.rotate_left(bytes.below(4) * 4);
    entry.resize(len, 0);
    entry
}

fn entry(bytes: &mut Bytes) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    if bytes.seldom() {
        entry.type_ = bytes.of(&[KVM_IRQ_ROUTING_IRQCHIP, 0, 3, 4, 5, u32::MAX]);
        entry.u.irqchip.irqchip = bytes.u8() as u32 % 4;
        entry.u.irqchip.pin = bytes.u8() as u32 % 25;
        return entry;
    }
    let (address, data) = message(bytes);
    entry.u.msi.address_lo = if bytes.seldom() { 0 } else { address as u32 };
    entry.u.msi.address_hi = (address >> 32) as u32;
    entry.u.msi.data = data;
    entry
}

fn entry_with_gsi(bytes: &mut Bytes) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    entry.u.irqchip.irqchip = bytes.u8() as u32 % 3;
    entry.gsi = if bytes.seldom() { bytes.u32() } else { bytes.u8() as u32 % 24 };
    entry.u.irqchip.pin = entry.gsi;
    entry
}

/// A struct as callers of another version may give it: shorter, longer, with a tail of zeros or not; or none.
struct Sized<T> {
    words: Vec<u64>,
    how: u8,
    of: std::marker::PhantomData<T>,
}

impl<T: Copy> Sized<T> {
    fn new(value: &T, bytes: &mut Bytes) -> Self {
        let how = if bytes.seldom() { bytes.u8() % 8 } else { 0 };
        let mut words = vec![0u64; 1024];
        unsafe { std::ptr::copy_nonoverlapping(value, words.as_mut_ptr().cast(), 1) };
        let size = size_of::<T>() as u32;
        let (size, tail) = match how {
            1 => (size + 16, 0),
            2 => (size + 16, 1),
            3 => (bytes.of(&[0, 7, 4097, u32::MAX]), 0),
            4 => (4096, 0),
            _ => (size, 0),
        };
        words[size_of::<T>() / 8 + 1] = tail;
        unsafe { words.as_mut_ptr().cast::<u32>().write(size) };
        Sized { words, how, of: std::marker::PhantomData }
    }

    fn pointer(&mut self) -> *mut T {
        match self.how {
            5 => std::ptr::null_mut(),
            6 => self.words.as_mut_ptr().cast::<T>().wrapping_byte_add(1),
            _ => self.words.as_mut_ptr().cast(),
        }
    }
}

impl Sized<msi_device_config> {
    fn kind(&self) -> u32 {
        unsafe { self.words.as_ptr().cast::<msi_device_config>().read() }.kind
    }
}
