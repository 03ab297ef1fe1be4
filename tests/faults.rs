// SPDX-License-Identifier: MIT OR Apache-2.0
//! What if the kernel refuses: scenarios as in `table`, in which a call of the backend's fails, any one of them, or all of
//! a kind for a while. What the guest wrote stands, a failed commit leaves explicit routes as they were, nothing wrong is
//! ever sent, nothing is lost; and one commit after the last failure all is as if there had been none.

mod routing;

use routing::machine::OnModel;
use routing::seeded::{errno, scenario};
use routing::step::Step;
use routing::tap::{Call, Plan};
use routing::{minimal, Rig};

const STEPS: usize = 150;
const CALLS: [Call; 5] = [Call::SetRoutes, Call::Unbind, Call::Bind, Call::Signal, Call::Raise];

/// These of its steps with the plan, the others without.
fn run(seed: u64, plan: Plan, from: usize, to: usize) {
    let _told = minimal::Told(format!("seed {seed}, {plan:?}"));
    let mut scenario = scenario(seed, STEPS, false);
    scenario.steps.insert(to, Step::Plan(Plan::Nothing));
    scenario.steps.insert(from, Step::Plan(plan));
    minimal::run(&scenario, |it| Rig::run(OnModel::new(&it.shape), it));
}

/// Every call of these scenarios fails once; which errno goes round.
fn each_call(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let it = scenario(seed, STEPS, false);
        let mut rig = Rig::new(OnModel::new(&it.shape), it.shape.clone());
        rig.steps(&it.steps);
        let calls = rig.calls();
        drop(rig);
        for n in 1..=calls {
            run(seed, Plan::Nth(n, errno(n + seed)), 0, STEPS);
        }
    }
}

#[test]
fn any_call_may_fail() {
    each_call(0..12);
}

#[test]
fn any_call_may_fail_again() {
    each_call(12..24);
}

#[test]
fn all_calls_of_a_kind_fail_for_a_while() {
    for (seed, from) in (0..40).zip((20..70).cycle()) {
        for call in CALLS {
            run(seed, Plan::All(call, libc::ENOMEM), from, from + 60);
        }
    }
}

#[test]
fn now_and_then_a_call_fails() {
    for seed in 0..200 {
        run(seed, Plan::OneIn(2 + seed % 17, errno(seed)), 10, 140);
    }
}
