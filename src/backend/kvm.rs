// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM of the kernel's, through a duplicate of the VMM's own descriptor.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

use kvm_bindings::{
    kvm_irq_level, kvm_irq_routing, kvm_irq_routing_entry, kvm_msi, KVM_API_VERSION,
    KVM_MSI_VALID_DEVID,
};
use kvm_ioctls::{Cap, Kvm, VmFd};
use syscalls::{raw, Errno, Sysno};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ptr, ioctl_with_val};

use super::{Backend, Features, Reception};
use crate::error::{Error, Result};
use crate::memory;
use crate::message::{Message, NO_REQUESTER};

use numbers::{
    KVM_CHECK_EXTENSION, KVM_GET_API_VERSION, KVM_IRQ_LINE_STATUS, KVM_SET_GSI_ROUTING,
    KVM_SIGNAL_MSI,
};

/// What kvm-ioctls lacks (it has KVM_IRQ_LINE, but that says 0 even for a GSI without a route), asks only of
/// descriptors whose kind is known already, or goes through libc for.
mod numbers {
    #![allow(missing_docs, reason = "the macros make functions without")]
    use kvm_bindings::{kvm_irq_level, kvm_irq_routing, kvm_msi, KVMIO};
    use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr, ioctl_iowr_nr};

    ioctl_iowr_nr!(KVM_IRQ_LINE_STATUS, KVMIO, 0x67, kvm_irq_level);
    ioctl_iow_nr!(KVM_SIGNAL_MSI, KVMIO, 0xa5, kvm_msi);
    ioctl_iow_nr!(KVM_SET_GSI_ROUTING, KVMIO, 0x6a, kvm_irq_routing);
    ioctl_io_nr!(KVM_GET_API_VERSION, KVMIO, 0x00);
    ioctl_io_nr!(KVM_CHECK_EXTENSION, KVMIO, 0x03);
}

const IRQ_ROUTING: libc::c_ulong = kvm_bindings::KVM_CAP_IRQ_ROUTING as libc::c_ulong;

/// See the [module](self).
pub struct KvmBackend {
    vm: VmFd,
    features: Features,
}

impl KvmBackend {
    /// Duplicates `vm`. kvm-ioctls wants /dev/kvm to make a `VmFd`: `kvm` is it, or it is opened; either
    /// way it is not used after this returns.
    ///
    /// Errors: `EBADF`, `EINVAL` if `vm` is no VM, what opening /dev/kvm says, `EMFILE`.
    pub fn new(vm: BorrowedFd<'_>, kvm: Option<BorrowedFd<'_>>) -> Result<Self> {
        check_is_vm(vm)?;
        let kvm = match kvm {
            Some(kvm) => duplicate(kvm, "duplicating the descriptor of /dev/kvm")?,
            None => {
                let path = c"/dev/kvm";
                let fd = Kvm::open_with_cloexec_at(path, true).map_err(|e| {
                    Error::new(e.errno(), "opening /dev/kvm (or give its descriptor in kvm_fd)")
                })?;
                // SAFETY: just opened, and owned by nobody else.
                unsafe { OwnedFd::from_raw_fd(fd) }
            }
        };
        // SAFETY: an owned descriptor, handed over. That it is /dev/kvm is checked by the ioctls.
        let kvm = unsafe { Kvm::from_raw_fd(kvm.into_raw_fd()) };
        if u32::try_from(kvm.get_api_version()) != Ok(KVM_API_VERSION) {
            return Err(Error::invalid("kvm_fd is not /dev/kvm"));
        }
        let vm = duplicate(vm, "duplicating the VM's descriptor")?;
        let size = kvm.get_vcpu_mmap_size();
        size.map_err(|e| Error::new(e.errno(), "KVM_GET_VCPU_MMAP_SIZE"))?;
        // SAFETY: an owned descriptor of a VM. The call cannot fail, and so not lose it: what it asks
        // of `kvm` was just answered.
        let vm = unsafe { kvm.create_vmfd_from_rawfd(vm.into_raw_fd()) }
            .map_err(|e| Error::new(e.errno(), "KVM_GET_VCPU_MMAP_SIZE"))?;
        let max_routes = vm.check_extension_int(Cap::IrqRouting);
        let features = Features {
            direct: vm.check_extension(Cap::SignalMsi),
            routes: max_routes > 0,
            irqfd: max_routes > 0 && vm.check_extension(Cap::Irqfd),
            raise: true,
            gsi_direct: false,
            resample: vm.check_extension(Cap::IrqfdResample),
            requester: vm.check_extension(Cap::MsiDevid),
            max_routes: u32::try_from(max_routes).unwrap_or(0),
        };
        Ok(KvmBackend { vm, features })
    }
}

/// A VM answers KVM_CHECK_EXTENSION, and nothing else does but /dev/kvm; that alone says its version.
fn check_is_vm(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: neither ioctl has an argument that points anywhere; other files than KVM's refuse them.
    let (version, routes) = unsafe {
        (ioctl(&fd, KVM_GET_API_VERSION()), ioctl_with_val(&fd, KVM_CHECK_EXTENSION(), IRQ_ROUTING))
    };
    if version >= 0 || routes < 0 {
        return Err(Error::invalid("vm_fd is not a KVM virtual machine"));
    }
    Ok(())
}

/// A close-on-exec duplicate.
fn duplicate(fd: BorrowedFd<'_>, doing: &'static str) -> Result<OwnedFd> {
    fd.try_clone_to_owned().map_err(|e| Error::new(e.raw_os_error().unwrap_or(libc::EINVAL), doing))
}

/// kvm-ioctls takes eventfds only as the type `EventFd`.
fn with_eventfd<T>(fd: BorrowedFd<'_>, f: impl FnOnce(&EventFd) -> T) -> T {
    // SAFETY: never dropped, so the descriptor stays its owner's; nothing is done with it here but an
    // ioctl that takes any descriptor and checks it.
    let eventfd = ManuallyDrop::new(unsafe { EventFd::from_raw_fd(fd.as_raw_fd()) });
    f(&eventfd)
}

/// What KVM_SIGNAL_MSI said, as it came back.
#[derive(Clone, Copy)]
pub(crate) struct Signalled(usize);

impl Signalled {
    #[inline(always)]
    pub fn is_accepted(self) -> bool {
        self.0 as isize > 0
    }

    pub fn reception(self) -> Result<Reception> {
        match Errno::from_ret(self.0) {
            Ok(1..) => Ok(Reception::Accepted),
            // The kernel's -1 is for "no such destination", and looks like an errno.
            Ok(0) | Err(Errno::EPERM) => Ok(Reception::Refused),
            Err(e) => Err(Error::new(e.into_raw(), "KVM_SIGNAL_MSI")),
        }
    }
}

/// A message is handed over as the 64-bit words in which the kernel loads it. A load that finds its bytes in
/// two stores waits for both to leave the processor's store queue, which takes 20 ns.
#[repr(align(16))]
struct Words([u64; 4]);

impl Words {
    /// Word by word: two in one store of 16 bytes cost the load 3 ns.
    #[inline(always)]
    fn store(&mut self, words: [u64; 4]) {
        for (at, word) in self.0.iter_mut().zip(words) {
            // SAFETY: a reference.
            unsafe { std::ptr::write_volatile(at, word) };
        }
    }
}

const _: () = assert!(size_of::<kvm_msi>() == size_of::<[u64; 4]>());
const _: () = assert!(std::mem::offset_of!(kvm_msi, data) == 8);
const _: () = assert!(std::mem::offset_of!(kvm_msi, devid) == 16);

/// Two fields that follow each other.
#[inline(always)]
fn in_memory_order(first: u32, second: u32) -> u64 {
    let (first, second) = (u64::from(first), u64::from(second));
    if cfg!(target_endian = "little") {
        second << 32 | first
    } else {
        first << 32 | second
    }
}

/// An ioctl without a call, and so without a return; leaves `errno` alone.
///
/// # Safety
///
/// `arg` points to what `request` wants.
#[inline(always)]
unsafe fn ioctl_in_place<T>(vm: RawFd, request: libc::c_ulong, arg: *mut T) -> usize {
    #[expect(clippy::cast_sign_loss, reason = "an open descriptor is not negative")]
    let fd = vm as usize;
    #[expect(clippy::cast_possible_truncation, reason = "a request has 32 bits")]
    let request = request as usize;
    // SAFETY: as promised to us.
    unsafe { raw::syscall3(Sysno::ioctl, fd, request, arg.expose_provenance()) }
}

/// KVM_SIGNAL_MSI.
#[inline(always)]
fn signal_in_place(vm: RawFd, message: &Message, flags: u32, devid: u32) -> Signalled {
    let mut msi = Words([0; 4]);
    msi.store([
        in_memory_order(message.address_lo(), message.address_hi()),
        in_memory_order(message.data, flags),
        in_memory_order(devid, 0),
        0,
    ]);
    // Not through libc: a return that comes after a system call is mispredicted, and costs 8 ns of the
    // 330 that the call takes.
    // SAFETY: the kernel reads one kvm_msi, which this is, word by word.
    let returned = unsafe { ioctl_in_place(vm, KVM_SIGNAL_MSI(), &raw mut msi.0) };
    Signalled(returned)
}

/// A VM that takes messages and does not ask who sends them: nearly every one. Nothing but its descriptor, so that a delivery
/// has all it needs in one word.
#[derive(Clone, Copy)]
pub(crate) struct FastVm(RawFd);

impl FastVm {
    pub const NONE: FastVm = FastVm(-1);

    #[inline(always)]
    pub fn is_any(self) -> bool {
        self.0 >= 0
    }

    /// [`Backend::signal`]; of one that [`is_any`](Self::is_any).
    #[inline(always)]
    pub fn signal(self, message: &Message) -> Signalled {
        signal_in_place(self.0, message, 0, 0)
    }
}

impl KvmBackend {
    /// The VM as long as the backend lives; none if it is not of that kind.
    pub(crate) fn fast_vm(&self) -> FastVm {
        match self.features {
            Features { direct: true, requester: false, .. } => FastVm(self.vm.as_raw_fd()),
            _ => FastVm::NONE,
        }
    }
}

#[cold]
fn failed(e: kvm_ioctls::Error, doing: &'static str) -> Error {
    Error::new(e.errno(), doing)
}

impl Backend for KvmBackend {
    fn features(&self) -> Features {
        self.features
    }

    /// With the whole interrupt controller in the kernel (it answers KVM_GET_IRQCHIP then, not when
    /// it is split or not yet there) the table starts with the pins of the two PICs and the IOAPIC.
    #[cfg(target_arch = "x86_64")]
    fn default_routes(&self) -> Vec<kvm_irq_routing_entry> {
        let mut ioapic = kvm_bindings::kvm_irqchip {
            chip_id: kvm_bindings::KVM_IRQCHIP_IOAPIC,
            ..Default::default()
        };
        match self.vm.get_irqchip(&mut ioapic) {
            Ok(()) => super::model::x86_default_routes(),
            Err(_) => Vec::new(),
        }
    }

    #[inline(always)]
    fn signal(&self, message: &Message) -> Result<Reception> {
        let (flags, devid) = match message.requester {
            requester if self.features.requester && requester != NO_REQUESTER => {
                (KVM_MSI_VALID_DEVID, requester)
            }
            _ => (0, 0),
        };
        signal_in_place(self.vm.as_raw_fd(), message, flags, devid).reception()
    }

    #[inline(always)]
    fn raise(&self, gsi: u32) -> Result<Reception> {
        let mut level = kvm_irq_level { level: 1, ..Default::default() };
        level.__bindgen_anon_1.irq = gsi;
        // SAFETY: the kernel reads and writes one kvm_irq_level, which is ours.
        let returned =
            unsafe { ioctl_in_place(self.vm.as_raw_fd(), KVM_IRQ_LINE_STATUS(), &raw mut level) };
        if let Err(e) = Errno::from_ret(returned) {
            return Err(Error::new(e.into_raw(), "KVM_IRQ_LINE_STATUS"));
        }
        // SAFETY: the kernel has written `status`, the other name of `irq`.
        Ok(Reception::of(unsafe { level.__bindgen_anon_1.status }))
    }

    fn set_routes(&self, entries: &[kvm_irq_routing_entry]) -> Result<()> {
        // Not by kvm-ioctls' type, which aborts where there is no memory for it: the number of entries, then they.
        const HEADER: usize = size_of::<kvm_irq_routing>() / size_of::<u64>();
        const ENTRY: usize = size_of::<kvm_irq_routing_entry>() / size_of::<u64>();
        let mut table: Vec<u64> = Vec::new();
        memory::want(|| table.try_reserve_exact(HEADER + ENTRY * entries.len()))?;
        let n = u32::try_from(entries.len()).map_err(|_| Error::invalid("too many routes"))?;
        table.push(in_memory_order(n, 0));
        // SAFETY: there is room for them behind the header, where they are aligned as words are.
        unsafe {
            let to = table.as_mut_ptr().add(HEADER).cast();
            entries.as_ptr().copy_to_nonoverlapping(to, entries.len());
        }
        // SAFETY: the kernel reads the header and as many entries as it says.
        match unsafe { ioctl_with_ptr(&self.vm, KVM_SET_GSI_ROUTING(), table.as_ptr()) } {
            0 => Ok(()),
            _ => Err(Error::last_os("KVM_SET_GSI_ROUTING")),
        }
    }

    fn bind_irqfd(
        &self,
        eventfd: BorrowedFd<'_>,
        resample: Option<BorrowedFd<'_>>,
        gsi: u32,
    ) -> Result<()> {
        let bound = with_eventfd(eventfd, |eventfd| match resample {
            None => self.vm.register_irqfd(eventfd, gsi),
            Some(resample) => with_eventfd(resample, |resample| {
                self.vm.register_irqfd_with_resample(eventfd, resample, gsi)
            }),
        });
        bound.map_err(|e| failed(e, "KVM_IRQFD"))
    }

    fn unbind_irqfd(&self, eventfd: BorrowedFd<'_>, gsi: u32) -> Result<()> {
        with_eventfd(eventfd, |eventfd| self.vm.unregister_irqfd(eventfd, gsi))
            .map_err(|e| failed(e, "KVM_IRQFD (deassign)"))
    }

    /// Puts something that is no VM in the descriptor's place: the VM is let go at once, and a call
    /// that comes late gets ENOTTY rather than somebody else's file.
    fn close(&self) {
        let Ok(nothing) = EventFd::new(libc::EFD_CLOEXEC) else {
            log::error!("no descriptor left to close the VM with: it closes with its last device");
            return;
        };
        // SAFETY: both are open and ours; whoever uses the second meanwhile uses the old file or the
        // new one, and dup3 makes the change at once.
        unsafe { libc::dup3(nothing.as_raw_fd(), self.vm.as_raw_fd(), libc::O_CLOEXEC) };
    }
}
