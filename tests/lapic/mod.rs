// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM that never runs: what the local APICs of its two vCPUs have in their IRR is what was sent.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; not every user uses all"
)]

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_enable_cap, kvm_lapic_state, KVM_CAP_SPLIT_IRQCHIP};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use msiroute::backend::kvm::KvmBackend;

/// In the APIC's registers: the spurious-interrupt vector, whose bit 8 enables the APIC, and the IRR.
const SVR: usize = 0xF0;
const ENABLED: u32 = 0x1FF;
const IRR: usize = 0x200;
/// The kernel may take a signal a little later than the write.
pub const DEADLINE: Duration = Duration::from_secs(1);

/// APIC and vector: what a message becomes. Equal ones are one.
pub type Arrived = BTreeSet<(u64, u32)>;

/// The APIC that a message goes to.
pub fn apic(address: u64) -> u64 {
    address >> 12 & 0xFF
}

pub struct OnKvm {
    kvm: Kvm,
    vm: VmFd,
    vcpus: Vec<VcpuFd>,
}

fn borrow<'a>(fd: &'a impl AsRawFd) -> BorrowedFd<'a> {
    // SAFETY: open as long as what owns it, which is borrowed as long.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

fn word(at: usize) -> std::ops::Range<usize> {
    at..at + 4
}

fn read(apic: &kvm_lapic_state, at: usize) -> u32 {
    let bytes = apic.regs.get(word(at)).unwrap();
    let value = |value, byte: &i8| value << 8 | u32::from(u8::from_le_bytes(byte.to_le_bytes()));
    bytes.iter().rev().fold(0, value)
}

fn write(apic: &mut kvm_lapic_state, at: usize, value: u32) {
    let bytes = apic.regs.get_mut(word(at)).unwrap();
    bytes
        .iter_mut()
        .zip(value.to_le_bytes())
        .for_each(|(to, from)| *to = i8::from_le_bytes([from]));
}

impl OnKvm {
    pub fn new(split: bool) -> Self {
        let kvm = Kvm::new().unwrap();
        let vm = kvm.create_vm().unwrap();
        if split {
            let mut cap = kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, ..Default::default() };
            cap.args[0] = 24;
            vm.enable_cap(&cap).unwrap();
        } else {
            vm.create_irq_chip().unwrap();
        }
        let vcpus: Vec<VcpuFd> = (0..2).map(|id| vm.create_vcpu(id).unwrap()).collect();
        for vcpu in &vcpus {
            let mut apic = vcpu.get_lapic().unwrap();
            write(&mut apic, SVR, ENABLED);
            vcpu.set_lapic(&apic).unwrap();
        }
        OnKvm { kvm, vm, vcpus }
    }

    pub fn kvm_backend(&self) -> KvmBackend {
        KvmBackend::new(borrow(&self.vm), Some(borrow(&self.kvm))).unwrap()
    }

    /// What has arrived, and has not been taken yet.
    pub fn take_irr(&self) -> Arrived {
        let mut arrived = Arrived::new();
        for (id, vcpu) in (0..).zip(&self.vcpus) {
            let mut apic = vcpu.get_lapic().unwrap();
            let before = arrived.len();
            for (first, at) in (0..256).step_by(32).zip((IRR..).step_by(16)) {
                let bits = read(&apic, at);
                let set = (0..32).filter(|bit| bits >> bit & 1 != 0);
                arrived.extend(set.map(|bit| (id, first + bit)));
                write(&mut apic, at, 0);
            }
            if arrived.len() > before {
                vcpu.set_lapic(&apic).unwrap();
            }
        }
        arrived
    }

    /// The same, for as long as `waits` says, of what has arrived and of the time.
    pub fn take_irr_while(&self, waits: impl Fn(&Arrived, Duration) -> bool) -> Arrived {
        let mut arrived = self.take_irr();
        let start = Instant::now();
        while waits(&arrived, start.elapsed()) {
            std::thread::yield_now();
            arrived.append(&mut self.take_irr());
        }
        arrived
    }
}
