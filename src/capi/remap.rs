// SPDX-License-Identifier: MIT OR Apache-2.0
//! Interrupt remapping: `msi_route_cache_set_remap`, `msi_route_cache_invalidate`.

use std::ffi::{c_int, c_void};

use super::types::*;
use super::{arg, control, creating, msi_route_cache};
use crate::error::Error;
use crate::message::GuestMessage;
use crate::remap::{Translate, Translation};

/// The VMM's vIOMMU: what becomes of a message.
///
/// \param opaque     as given to msi_route_cache_set_remap().
/// \param requester  who sends it, or MSIROUTE_NO_REQUESTER.
/// \param address    the message as the guest wrote it; receives what becomes of it, in the form that a guest without
///                   remapping would write (15-bit destinations and x2APIC IDs as msi_route_cache_set_addressing()
///                   says).
/// \param data       the same.
/// \param tag        holds MSIROUTE_NO_TAG; receives a number that msi_route_cache_invalidate() will name: that of the
///                   vIOMMU's table entry. Also of a message that is blocked; without a tag that is tried again at
///                   every invalidation.
/// \return 0, or a negative number: the message is blocked. (What is no interrupt message afterwards is blocked too.)
pub type msi_route_cache_translate_fn = Option<
    unsafe extern "C" fn(
        opaque: *mut c_void,
        requester: u32,
        address: *mut u64,
        data: *mut u32,
        tag: *mut u64,
    ) -> c_int,
>;

/// From now on the messages of the VM's devices go through the vIOMMU, live ones too; but for those of devices with
/// MSIROUTE_DEVICE_NO_REMAP, and explicit routes, which the VMM translates. A vector's message is translated when the
/// vector could send it: when it is set or unmasked, and at invalidations; never in msi_deliver(). Paused, nothing is
/// translated. [control]
///
/// `translate` is called inside every [control] call that may change what a vector sends, msi_route_cache_invalidate()
/// among them, and inside msi_deliver_message(): on the calling thread, with no lock of the library's held, on several
/// threads at once. So hold no lock around those that it takes itself (a recursive one apart): let go of the vIOMMU's
/// lock before invalidating. Nor may it wait for a lock that another thread holds around this function,
/// msi_route_cache_pause() or msi_route_cache_free(): those wait for it. It may call msi_deliver() and
/// msi_deliver_message(); other functions say -EDEADLK. It is asked when a vector could send, not when one does: a
/// fault is to be recorded when msi_deliver() says MSIROUTE_BLOCKED, not in here. (An eventfd's events say nothing:
/// they are counted. Hardware would drop what is blocked; here it is kept.)
///
/// \param translate  NULL: messages are sent as the guest wrote them. When this returns the old one does not run and is
///                   not called any more.
/// \return 0; -ENOMEM; -EINVAL; what serving the vectors says (it stands, and serving is tried again).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_set_remap(
    cache: *mut msi_route_cache,
    translate: msi_route_cache_translate_fn,
    opaque: *mut c_void,
) -> c_int {
    creating(|| {
        let translate = wrap(translate, opaque);
        // SAFETY: C's handle.
        unsafe { arg(cache) }?.cache.set_remap(translate)
    })
}

fn wrap(translate: msi_route_cache_translate_fn, opaque: *mut c_void) -> Option<Translate> {
    let translate = translate?;
    /// Only passed on; the header says that `translate` may be called with it from any thread.
    struct Target<F>(F, *mut c_void);
    // SAFETY: as the type says.
    unsafe impl<F> Send for Target<F> {}
    // SAFETY: as the type says.
    unsafe impl<F> Sync for Target<F> {}
    let target = Target(translate, opaque);
    Some(Box::new(move |requester, GuestMessage { mut address, mut data }| {
        // All of it, so that its markers hold.
        let Target(translate, opaque) = &target;
        let mut tag = MSIROUTE_NO_TAG;
        // SAFETY: as the header says, until another is set or the cache is freed, which wait for this call.
        let result = unsafe { translate(*opaque, requester, &mut address, &mut data, &mut tag) };
        Translation { message: (result >= 0).then_some(GuestMessage { address, data }), tag }
    }))
}

/// The vIOMMU's entries with these tags have changed, as the guest said by invalidating them. When this returns no
/// message that they made before is sent any more, and live vectors send what they say now; what they block now is
/// held. Only messages with such a tag are translated again (and those that were blocked without one), and the kernel's
/// table is written at most once, also inside a transaction. [control]
///
/// \param requester  of this device alone; MSIROUTE_NO_REQUESTER: of any.
/// \param first_tag  0 with a last_tag of UINT64_MAX: all.
/// \param last_tag   inclusive.
/// \return 0; -EINVAL (also for a first_tag above last_tag); what serving the vectors says (it is tried again, and
///         nothing old is sent).
#[no_mangle]
pub unsafe extern "C" fn msi_route_cache_invalidate(
    cache: *mut msi_route_cache,
    requester: u32,
    first_tag: u64,
    last_tag: u64,
) -> c_int {
    control(|| {
        if first_tag > last_tag {
            return Err(Error::invalid("first_tag is above last_tag"));
        }
        // SAFETY: C's handle.
        unsafe { arg(cache) }?.cache.invalidate(requester, first_tag..=last_tag)
    })
}
