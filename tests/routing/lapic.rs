// SPDX-License-Identifier: MIT OR Apache-2.0
//! A real VM below: what the local APICs of two vCPUs that never run have in their IRR is what was sent.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_bindings::{kvm_enable_cap, kvm_lapic_state, KVM_CAP_SPLIT_IRQCHIP};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use msiroute::backend::kvm::KvmBackend;
use msiroute::backend::Backend;

use super::machine::Machine;
use super::tap::Message64;
use super::Expected;

/// In the APIC's registers: the spurious-interrupt vector, whose bit 8 enables the APIC, and the IRR.
const SVR: usize = 0xF0;
const ENABLED: u32 = 0x1FF;
const IRR: usize = 0x200;
/// For what may come or not.
const A_LITTLE: Duration = Duration::from_millis(3);
/// The kernel may take a signal a little later than the write.
const DEADLINE: Duration = Duration::from_secs(1);

/// APIC and vector: what a message becomes. Equal ones are one.
type Arrived = BTreeSet<(u64, u32)>;

pub struct OnKvm {
    kvm: Kvm,
    vm: VmFd,
    vcpus: Vec<VcpuFd>,
}

fn borrow<'a>(fd: &'a impl AsRawFd) -> BorrowedFd<'a> {
    // SAFETY: open as long as what owns it, which is borrowed as long.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

fn read(apic: &kvm_lapic_state, at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|byte| apic.regs[at + byte].to_le_bytes()[0]))
}

fn write(apic: &mut kvm_lapic_state, at: usize, value: u32) {
    for (to, byte) in apic.regs[at..].iter_mut().zip(value.to_le_bytes()) {
        *to = i8::from_le_bytes([byte]);
    }
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

    /// What has arrived, and has not been taken yet.
    fn take_irr(&self) -> Arrived {
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
}

fn arrival(&(address, data, _): &Message64) -> (u64, u32) {
    (address >> 12 & 0xFF, data)
}

impl Machine for OnKvm {
    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(KvmBackend::new(borrow(&self.vm), Some(borrow(&self.kvm))).unwrap())
    }

    fn settle(&self) {}

    fn check(&self, expected: Expected) {
        let sure: Arrived = expected.sure.iter().map(arrival).collect();
        let maybe: Arrived = expected.maybe.iter().map(arrival).collect();
        let mut arrived = self.take_irr();
        let start = Instant::now();
        // What binding finds counted, the kernel sends a little later: not to be taken for the next step's.
        let waits = |arrived: &Arrived| match arrived.is_superset(&sure) {
            true => !arrived.is_superset(&maybe) && start.elapsed() < A_LITTLE,
            false => start.elapsed() < DEADLINE,
        };
        while waits(&arrived) {
            std::thread::yield_now();
            arrived.append(&mut self.take_irr());
        }
        assert!(arrived.is_superset(&sure), "{arrived:x?}, not {sure:x?}");
        assert!((&sure | &maybe).is_superset(&arrived), "{arrived:x?}, not only {sure:x?}");
    }

    fn takes(&self, _address: u64) -> bool {
        true
    }
}
