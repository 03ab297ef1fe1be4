// SPDX-License-Identifier: MIT OR Apache-2.0
//! Single cases of commits, room and refusals, each short: found by `table` and `faults`, with the same reference.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod routing;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use kvm_bindings::kvm_irq_routing_entry;
use msiroute::backend::model::{Irqchip, Model};
use msiroute::backend::Host;
use msiroute::explicit::ExplicitRoutes;
use msiroute::message::NO_REQUESTER;
use msiroute::{Config, RouteCache};
use routing::machine::OnModel;
use routing::seeded::{part, pins};
use routing::step::{Kind, Shape, Step, Step::*, FIRST_GSI};
use routing::tap::{entry, Call, Plan, Target};
use routing::Rig;
use vmm_sys_util::eventfd::EventFd;

const APIC: u64 = 0xFEE0_0000;
/// Entries that are there with a full irqchip.
const PINS: u32 = 40;
const GSI: u32 = FIRST_GSI;

/// A device of three vectors, and one of pins; GSIs run out, or entries do.
fn shape(split: bool, max_routes: u32) -> Shape {
    let parts = vec![part(Kind::Plain, 3), pins(split)];
    let (no_direct, requester, many, tame) = (false, false, false, false);
    Shape { parts, split, no_direct, requester, max_routes, many, tame }
}

fn few_gsis(n: u32) -> Shape {
    shape(true, GSI + n)
}

fn few_entries(n: u32) -> Shape {
    shape(false, PINS + n)
}

fn roomy() -> Shape {
    shape(true, 0)
}

/// And then all that `Rig::end` does.
fn run(shape: Shape, steps: &[Step]) {
    let mut rig = Rig::new(OnModel::new(&shape), shape);
    rig.steps(steps);
    rig.end();
}

fn set(v: usize, data: u32) -> Step {
    Set { f: 0, v, message: (APIC, data) }
}

fn bind(v: usize, e: usize) -> Step {
    Bind { f: 0, v, e }
}

fn message(data: u32) -> Target {
    Target::Msi((APIC, data, NO_REQUESTER))
}

fn add(data: u32) -> Step {
    Add { target: message(data), gsi: None, alone: false }
}

/// The kernel does not take it.
fn add_bad() -> Step {
    Add { target: Target::Unknown, gsi: None, alone: false }
}

fn refuse(call: Call) -> Step {
    Plan(Plan::All(call, libc::ENOMEM))
}

fn accept() -> Step {
    Plan(Plan::Nothing)
}

/// Two routes that nobody uses any more.
fn two_idle() -> Vec<Step> {
    let one = |data| [set(0, data), bind(0, 0), Unbind { f: 0, v: 0, e: 0 }];
    [one(0x41), one(0x42)].concat()
}

#[test]
fn a_refused_route_costs_nobody_else() {
    let shape = roomy();
    let mut rig = Rig::new(OnModel::new(&shape), shape);
    let all = (0..3).flat_map(|v| [bind(v, v), set(v, [0x51, 0x66, 0x53][v])]);
    let steps = [vec![Plan(Plan::Poison(0x66)), Begin], all.collect(), vec![Commit]].concat();
    rig.steps(&steps);
    assert_eq!([0, 1, 2].map(|v| rig.serves(0, v)), [true, false, true]);
    rig.end();
}

#[test]
fn a_gsi_that_a_commit_frees_serves_who_waits() {
    let steps = [add(0x41), Commit, bind(0, 0), set(0, 0x51), Begin, Remove { gsi: GSI }, Commit];
    run(few_gsis(1), &steps);
}

#[test]
fn a_gsi_that_a_failed_commit_frees_serves_who_waits() {
    run(few_gsis(2), &[bind(0, 0), Begin, add(0x41), add_bad(), set(0, 0x51), Commit]);
}

#[test]
fn what_was_removed_stays_so_when_its_commit_fails() {
    run(roomy(), &[add(0x41), Commit, Begin, Remove { gsi: GSI }, add_bad(), Commit, add(0x42)]);
}

#[test]
fn a_commit_that_fails_in_sending_takes_explicit_routes_back() {
    let unmask = SetMasked { f: 0, v: 0, masked: false };
    let pending =
        [set(0, 0x51), SetMasked { f: 0, v: 0, masked: true }, Deliver { f: 0, v: 0 }, bind(0, 0)];
    let steps = [Begin, unmask, add(0x41), refuse(Call::Signal), Commit, accept(), Commit];
    run(roomy(), &[&pending[..], &steps[..]].concat());
}

#[test]
fn what_cannot_be_taken_back_is_at_the_next_commit() {
    let bind_gsi = BindGsi { gsi: GSI, e: 1 };
    let steps = [Begin, add(0x41), refuse(Call::Unbind), bind_gsi, add_bad(), Commit, accept()];
    // The GSI and the eventfd are free again.
    run(roomy(), &[&steps[..], &[Commit, add(0x42), bind(0, 1)]].concat());
}

#[test]
fn a_gsi_that_cannot_be_removed_is_served_as_before() {
    let (bind_gsi, remove) = (BindGsi { gsi: GSI, e: 1 }, Remove { gsi: GSI });
    let steps =
        [add(0x41), bind_gsi, refuse(Call::Unbind), remove, accept(), Pause, Resume, Commit];
    run(roomy(), &steps);
}

#[test]
fn an_update_that_waits_for_its_commit_silences_nobody() {
    let update = Update { gsi: GSI, target: message(0x42) };
    run(roomy(), &[add(0x41), BindGsi { gsi: GSI, e: 1 }, update, Pause, Resume]);
}

#[test]
fn a_pause_does_not_say_what_was_refused_before_it() {
    let bind_gsi = BindGsi { gsi: GSI, e: 1 };
    let resume = [Pause, refuse(Call::Bind), Resume, accept(), Pause, Resume, Commit];
    run(roomy(), &[&[add(0x41), bind_gsi][..], &resume[..]].concat());
}

#[test]
fn idle_routes_make_way_for_explicit_ones() {
    run(few_entries(2), &[&two_idle()[..], &[add(0x43), Commit]].concat());
}

#[test]
fn idle_routes_make_way_for_pins() {
    let pin = Set { f: 1, v: 0, message: (APIC, 0x43) };
    run(few_entries(2), &[&two_idle()[..], &[pin]].concat());
}

#[test]
fn idle_routes_make_way_for_fixed_ones() {
    run(few_entries(2), &[&two_idle()[..], &[Fixed { which: 6 }]].concat());
}

#[test]
fn a_vector_changes_places_with_an_idle_route_where_there_is_just_enough() {
    let shape = Shape { no_direct: true, ..few_gsis(5) };
    let idle = Message { message: (APIC, 0x42), requester: 0 };
    run(shape, &[set(0, 0x41), bind(0, 0), idle, set(0, 0x42)]);
}

#[test]
fn what_a_call_frees_serves_the_rest_of_it() {
    let parts = vec![part(Kind::Plain, 3), part(Kind::Plain, 1)];
    let shape = Shape { parts, no_direct: true, requester: true, ..few_gsis(7) };
    let of = |f: usize| Requester { f, requester: 0 };
    let other = [of(1), Set { f: 1, v: 0, message: (APIC, 0x42) }, Bind { f: 1, v: 0, e: 3 }];
    let idle = Message { message: (APIC, 0x41), requester: 0 };
    let two = [set(0, 0x41), bind(0, 0), set(1, 0x42), bind(1, 1), idle, add(0x45), Commit];
    run(shape, &[&other[..], &two, &[of(0)]].concat());
}

#[test]
fn a_pin_that_is_cleared_makes_way_for_the_one_before_it() {
    let pin = |v, data| Set { f: 1, v, message: (APIC, data) };
    let bind = Bind { f: 1, v: 1, e: 0 };
    run(few_entries(1), &[pin(1, 0x41), bind, pin(0, 0x42), Clear { f: 1, v: 1 }]);
}

#[test]
fn a_pin_whose_irqfd_stays_keeps_its_gsi() {
    let (pin, bind) = (Set { f: 1, v: 0, message: (APIC, 0x41) }, Bind { f: 1, v: 0, e: 0 });
    run(roomy(), &[pin, bind, refuse(Call::Unbind), Close { f: 1 }, accept()]);
}

#[test]
fn a_route_whose_irqfd_stayed_is_let_go_when_that_goes() {
    let others = [set(0, 0x41), bind(0, 0), set(1, 0x42), bind(1, 1), bind(0, 2)];
    // Of the vector's two eventfds one goes to the other route.
    let steps = [Plan(Plan::Nth(7, libc::ENOMEM)), set(0, 0x42), accept(), Commit];
    run(roomy(), &[&others[..], &steps[..]].concat());
}

#[test]
fn what_was_staged_before_begin_survives_a_failed_transaction() {
    let model = Model::new(Irqchip::Split, Model::x86_features(), Box::new(|_| 1)).unwrap();
    let model = Arc::new(model);
    let host = Host::Other(Box::new(model.clone()));
    let cache = RouteCache::new(host, &Config::default()).unwrap();
    let explicit = ExplicitRoutes::new(&cache).unwrap();
    let old = explicit.add(entry(0, message(0x50)), None, false).unwrap();
    explicit.commit_staged().unwrap();
    let gsi = explicit.add(entry(0, message(0x41)), None, false).unwrap();
    explicit.update(old, entry(0, message(0x51))).unwrap();
    cache.begin().unwrap();
    explicit.update(gsi, entry(0, message(0x42))).unwrap();
    explicit.update(old, entry(0, message(0x52))).unwrap();
    explicit.add(entry(0, Target::Unknown), None, false).unwrap();
    assert!(cache.commit().is_err());
    // SAFETY: all entries that the kernel took are messages.
    let data = |route: &kvm_irq_routing_entry| (route.gsi, unsafe { route.u.msi.data });
    let in_force = || model.routes().iter().map(data).collect::<Vec<_>>();
    assert_eq!(in_force(), [(old, 0x50)]);
    explicit.commit_staged().unwrap();
    assert_eq!(in_force(), [(old, 0x51), (gsi, 0x41)]);
    // As before begin: added, and now live.
    let eventfd = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    // SAFETY: open as long as the EventFd.
    explicit.bind(gsi, unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }, None).unwrap();
    let update = explicit.update(gsi, entry(0, message(0x43)));
    assert!(update.is_ok(), "the GSI is gone: {update:?}");
    drop((explicit, Arc::clone(&cache)));
}
