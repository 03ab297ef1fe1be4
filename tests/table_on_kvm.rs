// SPDX-License-Identifier: MIT OR Apache-2.0
//! As `table` and `faults`, on /dev/kvm: the kernel judges tables and irqfds, its local APICs the messages. A call that is to
//! fail is not made.
#![cfg(target_arch = "x86_64")]

mod routing;

use routing::lapic::OnKvm;
use routing::seeded::{errno, scenario};
use routing::step::Step;
use routing::tap::{Call, Plan};
use routing::{minimal, Rig};

const STEPS: usize = 150;

fn run(seed: u64, plan: Plan) {
    let _told = minimal::Told(format!("seed {seed}, {plan:?}"));
    let mut scenario = scenario(seed, STEPS, true);
    scenario.steps.insert(STEPS - 20, Step::Plan(Plan::Nothing));
    scenario.steps.insert(20, Step::Plan(plan));
    minimal::run(&scenario, |it| Rig::run(OnKvm::new(it.shape.split), it));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn like_the_reference_on_kvm() {
    (0..60).for_each(|seed| run(seed, Plan::Nothing));
}

#[test]
#[ignore = "needs /dev/kvm"]
fn calls_fail_on_kvm() {
    for seed in 0..60 {
        let errno = errno(seed);
        run(seed, Plan::Nth(10 + seed % 50, errno));
        run(seed, Plan::OneIn(2 + seed % 17, errno));
    }
    for seed in 60..80 {
        for call in [Call::SetRoutes, Call::Unbind, Call::Bind, Call::Signal] {
            run(seed, Plan::All(call, libc::ENOMEM));
        }
    }
}
