// SPDX-License-Identifier: MIT OR Apache-2.0
//! A scenario that fails, without the steps that it fails without.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

use super::step::Scenario;

/// Short enough then.
const LONGEST: Duration = Duration::from_secs(5);

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Whether it fails; what it says is not shown.
fn fails(run: impl FnOnce()) -> bool {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_QUIET.get() {
                loud(info);
            }
        }));
    });
    IS_QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_QUIET.set(false);
    result.is_err()
}

pub fn is_quiet() -> bool {
    IS_QUIET.get()
}

/// Shown if the test fails.
pub struct Told(pub String);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// If it fails, it is made as short as it can be, shown, and run again, to fail loudly.
pub fn run(scenario: &Scenario, run: impl Fn(&Scenario)) {
    if !fails(|| run(scenario)) {
        return;
    }
    let mut shortest = scenario.clone();
    let mut chunk = shortest.steps.len();
    let start = Instant::now();
    while chunk > 0 && start.elapsed() < LONGEST {
        let (mut at, mut any) = (0, false);
        while at < shortest.steps.len() && start.elapsed() < LONGEST {
            let mut shorter = shortest.clone();
            shorter.steps.drain(at..shorter.steps.len().min(at + chunk));
            if fails(|| run(&shorter)) {
                (shortest, any) = (shorter, true);
            } else {
                at += chunk;
            }
        }
        if !any || chunk > 1 {
            chunk /= 2;
        }
    }
    eprintln!("{shortest:?}");
    run(&shortest);
    panic!("it fails, but not every time");
}
