// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msi_route_cache_*`.

use std::ffi::{c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};

use kvm_bindings::kvm_irq_routing_entry;

use super::types::*;
use super::{
    arg, check_flags, control, creating, fail, fork, last_error, msi_route_cache, put, read_struct,
    write_struct,
};
use crate::backend::callbacks::{Callbacks, Functions};
use crate::backend::kvm::KvmBackend;
use crate::backend::model::{Irqchip, Model};
use crate::backend::Host;
use crate::error::{Error, Result};
use crate::explicit::ExplicitRoutes;
use crate::memory;
use crate::message::Addressing;
use crate::transaction;
use crate::{Config, RouteCache};

/// With `ops` and nothing said: as many as KVM has.
const DEFAULT_ROUTES: u32 = 4096;

/// Makes a VM's cache. Before the VM has an interrupt controller is fine: nothing is written until something needs a route.
/// Registers membarrier(2): call it before a seccomp filter that forbids the registration. [control]
///
/// \param config  its size is set (MSIROUTE_CACHE_CONFIG_INIT); read during the call.
/// \param cache   receives the handle, NULL on failure; ends with msi_route_cache_free().
/// \return 0; -ENOMEM; -EBADF (a descriptor is closed); -EINVAL (vm_fd is no VM, kvm_fd is not /dev/kvm, bad config); -E2BIG; -EMFILE;
///         -ENOTSUP (messages can be sent neither directly nor by routes); -EBUSY (fences asked for too late); what opening
///         /dev/kvm says.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_new(
    config: *const msi_route_cache_config,
    cache: *mut *mut msi_route_cache,
) -> c_int {
    creating(|| {
        // SAFETY: `cache` is C's to give.
        unsafe { put(cache, std::ptr::null_mut()) }?;
        // SAFETY: `config` is C's to give.
        let config = unsafe { read_struct(config) }?;
        let known = MSIROUTE_CACHE_NO_DIRECT
            | MSIROUTE_CACHE_MODEL
            | MSIROUTE_CACHE_FENCES
            | MSIROUTE_CACHE_PAUSED
            | MSIROUTE_CACHE_HELPER_THREADS;
        check_flags(config.flags, known)?;
        fork::watch()?;
        let is_on = |flag: u32| config.flags & flag != 0;
        let made = RouteCache::new(
            backend(&config)?,
            &Config {
                first_gsi: config.first_gsi,
                max_routes: config.max_routes,
                no_direct: is_on(MSIROUTE_CACHE_NO_DIRECT),
                fences: is_on(MSIROUTE_CACHE_FENCES),
                paused: is_on(MSIROUTE_CACHE_PAUSED),
                helper_threads: is_on(MSIROUTE_CACHE_HELPER_THREADS),
            },
        )?;
        let explicit = ExplicitRoutes::new(&made)?;
        let handle = Box::new(msi_route_cache { cache: made, explicit });
        // SAFETY: as above.
        unsafe { put(cache, Box::into_raw(handle)) }
    })
}

fn backend(config: &msi_route_cache_config) -> Result<Host> {
    let is_model = config.flags & MSIROUTE_CACHE_MODEL != 0;
    if config.ops.is_null() && !is_model {
        let vm = borrow_fd(config.vm_fd, "vm_fd is not open")?;
        let kvm = match config.kvm_fd {
            -1 => None,
            fd => Some(borrow_fd(fd, "kvm_fd is not open")?),
        };
        return Ok(KvmBackend::new(vm, kvm)?.into());
    }
    if config.vm_fd != -1 || config.kvm_fd != -1 {
        return Err(Error::invalid("vm_fd and kvm_fd are -1 with ops or the model"));
    }
    let functions = match config.ops.is_null() {
        true => None,
        // SAFETY: C says it points to the table.
        false => Some(unsafe { functions(config.ops) }?),
    };
    let max_routes = if config.max_routes == 0 { DEFAULT_ROUTES } else { config.max_routes };
    match functions {
        Some(functions) if !is_model => {
            // SAFETY: the header says what C promises: callable from any thread, until the cache is freed.
            let callbacks = unsafe { Callbacks::new(functions, config.opaque, max_routes) };
            Ok(Host::Other(Box::new(callbacks)))
        }
        functions => Ok(Host::Other(Box::new(model(functions, config.opaque)?))),
    }
}

unsafe fn functions(ops: *const msi_route_cache_ops) -> Result<Functions> {
    // SAFETY: as promised to us.
    let ops = unsafe { read_struct(ops) }?;
    check_flags(ops.flags, 0)?;
    Ok(Functions {
        signal: ops.signal,
        set_routes: ops.set_routes,
        bind_irqfd: ops.bind_irqfd,
        unbind_irqfd: ops.unbind_irqfd,
        raise_gsi: ops.raise_gsi,
        gsi_of: ops.gsi_of,
    })
}

fn model(functions: Option<Functions>, opaque: *mut c_void) -> Result<Model> {
    let signal = match functions {
        Some(Functions {
            signal: Some(signal),
            set_routes: None,
            bind_irqfd: None,
            unbind_irqfd: None,
            raise_gsi: None,
            gsi_of: None,
        }) => signal,
        _ => {
            return Err(Error::invalid(
                "the model wants `signal`, the guest's side, and no other function",
            ))
        }
    };
    /// Only passed on; the header says that `signal` may be called with it from any thread.
    struct Opaque(*mut c_void);
    // SAFETY: as the type says.
    unsafe impl Send for Opaque {}
    // SAFETY: as the type says.
    unsafe impl Sync for Opaque {}
    let opaque = Opaque(opaque);
    let guest = move |message: &crate::message::Message| {
        // All of it, so that its markers hold.
        let opaque: &Opaque = &opaque;
        // SAFETY: as the header says, until the cache is freed: the model's thread has ended then.
        unsafe { signal(opaque.0, message.requester, message.address, message.data) }
    };
    Model::with_thread(Irqchip::Full, Model::x86_features(), Box::new(guest))
}

/// An open descriptor of the caller's.
pub(super) fn borrow_fd<'a>(fd: RawFd, closed: &'static str) -> Result<BorrowedFd<'a>> {
    // SAFETY: asks about a number; one that is not open is refused.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(Error::new(libc::EBADF, closed));
    }
    // SAFETY: just seen open; the caller keeps it so during the call.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Unbinds everything and closes the library's descriptor of the VM. Devices still held answer -ESHUTDOWN until they are
/// freed. NULL is nothing. Not from inside a callback. [control]
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_free(cache: *mut msi_route_cache) {
    if cache.is_null() {
        return;
    }
    control(|| {
        // SAFETY: C says it is a handle from msi_route_cache_new, not freed yet.
        unsafe { arg(cache) }?.cache.shut_down();
        // SAFETY: as above; this is the last use of it.
        drop(unsafe { Box::from_raw(cache) });
        Ok(())
    });
}

/// What works here. [fast]
///
/// \param max_routes  receives the size of the kernel's table as this cache uses it, in entries; may be NULL.
/// \return MSIROUTE_HAS_...; 0 for a bad handle.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_features(
    cache: *const msi_route_cache,
    max_routes: *mut u32,
) -> u32 {
    // SAFETY: C's handle.
    let features = match unsafe { arg(cache) } {
        Ok(handle) => handle.cache.features(),
        Err(e) => {
            fail(&e);
            return 0;
        }
    };
    if !max_routes.is_null() {
        // SAFETY: C's to give.
        if let Err(e) = unsafe { put(max_routes, features.max_routes) } {
            fail(&e);
            return 0;
        }
    }
    let bits = [
        (features.direct, MSIROUTE_HAS_DIRECT),
        (features.irqfd, MSIROUTE_HAS_IRQFD),
        (features.resample, MSIROUTE_HAS_RESAMPLE),
        (features.requester, MSIROUTE_HAS_REQUESTER),
    ];
    bits.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum()
}

/// Says how the guest addresses APICs: MSIROUTE_X2APIC_IDS, MSIROUTE_EXT_DEST_ID. May come late: live messages are encoded
/// anew, and one that is none any more holds what is raised. [control]
///
/// \param flags  MSIROUTE_X2APIC_IDS, MSIROUTE_EXT_DEST_ID.
/// \return 0; -EINVAL (unknown flags, EXT_DEST_ID alone, or a message that is none any more); what the kernel says to the
///         new routes. The addressing stands but for bad flags.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_set_addressing(
    cache: *mut msi_route_cache,
    flags: u32,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(cache) }?;
        check_flags(flags, MSIROUTE_X2APIC_IDS | MSIROUTE_EXT_DEST_ID)?;
        handle.cache.set_addressing(Addressing {
            x2apic_ids: flags & MSIROUTE_X2APIC_IDS != 0,
            ext_dest_id: flags & MSIROUTE_EXT_DEST_ID != 0,
        })
    })
}

/// Replaces the VMM's own routes, the kernel's default pins included (n = 0: none). Written at once, and with every later
/// write of the table; never evicted or renumbered. [control]
///
/// \param entries  in the kernel's form; copied.
/// \param n        how many.
/// \return 0; -EINVAL (a GSI beyond the table, a kind the kernel does not know); -EBUSY (a GSI that an irqfd of the
///         library's uses: first_gsi belongs above the VMM's own); -ENOSPC (more than the table holds);
///         -ENOMEM; what the kernel says. On failure
///         nothing is changed.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_set_fixed(
    cache: *mut msi_route_cache,
    entries: *const kvm_irq_routing_entry,
    n: usize,
) -> c_int {
    creating(|| {
        // SAFETY: C's handle.
        let handle = unsafe { arg(cache) }?;
        let entries = match n {
            0 => Vec::new(),
            _ if n > handle.cache.features().max_routes as usize => {
                return Err(Error::new(
                    libc::ENOSPC,
                    "more fixed routes than the table has room for",
                ));
            }
            _ => {
                // SAFETY: C says that n entries are there; the first is checked.
                let first = unsafe { arg(entries) }?;
                // SAFETY: as above.
                let entries = unsafe { std::slice::from_raw_parts(first, n) };
                memory::collect(entries.iter().copied())?.into_vec()
            }
        };
        handle.cache.set_fixed(entries)
    })
}

/// From now on this thread's changes are staged until its matching commit: eventfds are given to the kernel, or follow their
/// vector's new message, there, all with one write of the table. Other threads' changes are live when their calls return, as
/// ever. Masking, and whatever else stops interrupts, is never staged. Nests. [control]
///
/// \return 0; -EINVAL.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_begin(cache: *mut msi_route_cache) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        unsafe { arg(cache) }?.cache.begin()
    })
}

/// Makes this thread's staged changes live, explicit routes among them, then calls `changed` once a device. Without a
/// begin it makes live the explicit routes that were staged without one. Also tries again to serve vectors that could
/// not be served. [control]
///
/// \return 0; -EINVAL; -ENOSPC (no route is free); what the kernel says (msi_route_cache_last_error() names the GSI that it
///         refused). An error is the first that this thread's changes met; without a begin, that any met. Explicit routes
///         and their irqfds are then as they were before begin, but for what was removed and unbound. Vectors keep what was
///         written to them; those that are not served say so in msi_vector_info(), count their events, and are tried again.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_commit(cache: *mut msi_route_cache) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let msi_route_cache { cache, explicit } = unsafe { arg(cache) }?;
        let staged = if transaction::is_open(cache) { Ok(()) } else { explicit.commit_staged() };
        staged.and(cache.commit())
    })
}

/// Pauses the VM's interrupts, to save or restore it. Once this returns nothing of the library's reaches the guest:
/// what is raised is kept pending, eventfds count, msi_deliver_message() says -EAGAIN, and `changed` is neither running
/// (but for one that this is called from) nor called. Save and load devices meanwhile, and the guest's APICs: what was
/// sent before is in them, what comes now is not. Nests. [control]
///
/// \return 0; -EINVAL; what the kernel says to unbinding eventfds (it is paused all the same, but those still interrupt).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_pause(cache: *mut msi_route_cache) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(cache) }?.cache.pause())
}

/// Undoes one pause. With the last, each pending vector is sent once and eventfds are given to the kernel, with one write of
/// its table; then `changed` tells of what changed meanwhile. Restore the APICs before. [control]
///
/// \return 0; -EINVAL (also if it is not paused); what serving the vectors says (the first error; the cache goes on all the
///         same, and it is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_resume(cache: *mut msi_route_cache) -> c_int {
    // SAFETY: C's handle.
    control(|| unsafe { arg(cache) }?.cache.resume())
}

/// Fills in the numbers of this moment. [control]
///
/// \param stats  filled in; its size is set (MSIROUTE_STATS_INIT).
/// \return 0; -EINVAL.
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_stats(
    cache: *const msi_route_cache,
    stats: *mut msi_route_cache_stats,
) -> c_int {
    control(|| {
        // SAFETY: C's handle.
        let now = unsafe { arg(cache) }?.cache.stats();
        let filled = msi_route_cache_stats {
            size: 0,
            flags: 0,
            table_writes: now.table_writes,
            table_write_errors: now.table_write_errors,
            routes: now.routes,
            routes_pinned: now.routes_pinned,
            evictions: now.evictions,
            irqfd_binds: now.irqfd_binds,
            irqfd_unbinds: now.irqfd_unbinds,
            relayed_vectors: now.relayed_vectors,
            relayed_messages: now.relayed_messages,
            promotions: now.promotions,
            demotions: now.demotions,
            unserved_vectors: now.unserved_vectors,
        };
        // SAFETY: C's to give.
        unsafe { write_struct(stats, &filled) }
    })
}

/// What this thread's last failed call says, in words. The wording may change. [fast]
///
/// \return the text, valid until this thread's next failure; "" if none failed.
#[no_mangle]
pub extern "C" fn msi_route_cache_last_error() -> *const c_char {
    last_error()
}

/// The library's version. [fast]
///
/// \return "major.minor.patch"; static.
#[no_mangle]
pub extern "C" fn msi_route_cache_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}
