// SPDX-License-Identifier: MIT OR Apache-2.0
//! As `transitions`, on /dev/kvm: what the local APICs of two vCPUs that never run have in their IRR is what was sent.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
mod lapic;
mod reference;

use beside::{Beside, Machine, Part, Program, Shape};
use lapic::{apic, Arrived, OnKvm, DEADLINE};
use msiroute::backend::Host;
use proptest::prelude::*;
use reference::{Kind, Message};

impl Machine for &OnKvm {
    fn host(&self) -> Host {
        self.kvm_backend().into()
    }

    fn check_sent(&self, expected: Vec<Message>) {
        let there = expected.iter().filter(|(address, _)| apic(*address) < 2);
        let expected: Arrived = there.map(|&(address, data)| (apic(address), data)).collect();
        let arrived =
            self.take_irr_while(|arrived, time| !arrived.is_superset(&expected) && time < DEADLINE);
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
    let machine = OnKvm::new(false);
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
