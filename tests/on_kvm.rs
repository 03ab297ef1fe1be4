// SPDX-License-Identifier: MIT OR Apache-2.0
//! As `transitions`, on /dev/kvm: what the local APICs of two vCPUs that never run have in their IRR is what was sent.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
mod reference;

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use beside::{Beside, Machine, Part, Program, Shape};
use kvm_bindings::kvm_lapic_state;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use msiroute::backend::kvm::KvmBackend;
use msiroute::backend::Host;
use proptest::prelude::*;
use reference::{Kind, Message};

/// In the APIC's registers: the spurious-interrupt vector, whose bit 8 enables the APIC, and the IRR.
const SVR: usize = 0xF0;
const ENABLED: u32 = 0x1FF;
const IRR: usize = 0x200;
/// The kernel may take a signal a little later than the write.
const DEADLINE: Duration = Duration::from_secs(1);

/// APIC and vector: what a message becomes. Equal ones are one.
type Arrived = BTreeSet<(u64, u32)>;

struct OnKvm {
    kvm: Kvm,
    vm: VmFd,
    vcpus: Vec<VcpuFd>,
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
    fn new() -> Self {
        let kvm = Kvm::new().unwrap();
        let vm = kvm.create_vm().unwrap();
        vm.create_irq_chip().unwrap();
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
                arrived.extend(
                    (0..32).filter(|bit| bits >> bit & 1 != 0).map(|bit| (id, first + bit)),
                );
                write(&mut apic, at, 0);
            }
            if arrived.len() > before {
                vcpu.set_lapic(&apic).unwrap();
            }
        }
        arrived
    }
}

fn borrow<'a>(fd: &'a impl AsRawFd) -> BorrowedFd<'a> {
    // SAFETY: open as long as what owns it, which is borrowed as long.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

impl Machine for &OnKvm {
    fn host(&self) -> Host {
        KvmBackend::new(borrow(&self.vm), Some(borrow(&self.kvm))).unwrap().into()
    }

    fn check_sent(&self, expected: Vec<Message>) {
        let apic = |address: u64| address >> 12 & 0xFF;
        let there = expected.iter().filter(|(address, _)| apic(*address) < 2);
        let expected: Arrived = there.map(|&(address, data)| (apic(address), data)).collect();
        let mut arrived = self.take_irr();
        let start = Instant::now();
        while !arrived.is_superset(&expected) && start.elapsed() < DEADLINE {
            std::thread::yield_now();
            arrived.append(&mut self.take_irr());
        }
        assert_eq!(arrived, expected, "APICs and vectors");
    }

    fn irqfds(&self) -> Option<usize> {
        None
    }
}

fn part(kind: Kind, vectors: usize) -> Part {
    Part { kind, vectors, data0_off: false }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let msi = |wide, maskable| Kind::Msi { wide, maskable };
    prop_oneof![
        Just(vec![part(Kind::Msix, 3)]),
        Just(vec![part(msi(true, true), 4)]),
        Just(vec![part(msi(false, false), 2)]),
        Just(vec![part(Kind::Plain, 2)]),
        Just(vec![part(Kind::Msix, 2), part(msi(false, true), 2), part(Kind::Plain, 1)]),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    let words = prop::collection::vec(any::<u64>(), 1..200);
    (parts(), any::<bool>(), words)
        .prop_map(|(parts, no_direct, words)| Shape { parts, no_direct, tame: true }.program(words))
}

/// One VM for all programs: what one leaves behind would be the next one's fault.
#[test]
#[ignore = "needs /dev/kvm"]
fn like_the_reference_on_kvm() {
    let machine = OnKvm::new();
    let config = ProptestConfig {
        cases: 600,
        failure_persistence: None,
        // What does not arrive is waited for, every time.
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    };
    proptest!(config, |(program in program())| {
        machine.take_irr();
        Beside::run(&machine, program);
    });
}
