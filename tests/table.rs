// SPDX-License-Identifier: MIT OR Apache-2.0
//! The routing table under random scenarios, on the model of KVM, beside a reference: see `routing`.

mod routing;

use proptest::prelude::*;
use routing::machine::OnModel;
use routing::seeded::{part, pins, small};
use routing::step::{Kind, Scenario, Shape, Step};
use routing::{minimal, Rig};

fn shapes(no_direct: bool) -> impl Strategy<Value = Shape> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_flat_map(
        move |(split, requester, is_small)| {
            let third = prop_oneof![
                Just(pins(split)),
                Just(part(Kind::Msix, 2)),
                Just(part(Kind::Plain, 1)),
            ];
            (third, 0..8u32).prop_map(move |(third, more)| Shape {
                parts: vec![part(Kind::Plain, 3), part(Kind::Msix, 4), third],
                split,
                no_direct,
                requester,
                max_routes: if is_small { small(split, no_direct) + more } else { 0 },
                many: false,
                tame: false,
            })
        },
    )
}

fn scenario(shapes: impl Strategy<Value = Shape>, steps: usize) -> impl Strategy<Value = Scenario> {
    let words = prop::collection::vec(any::<u64>(), 1..steps);
    (shapes, words).prop_map(|(shape, words)| shape.scenario(words))
}

fn run(scenario: &Scenario) {
    minimal::run(scenario, |it| Rig::run(OnModel::new(&it.shape), it));
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        // `minimal` is quicker: steps depend on each other.
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    }
}

/// A driver that gives its vectors one message after the other, and so leaves idle routes.
fn busy(words: Vec<u64>, no_direct: bool) -> Scenario {
    let parts = vec![part(Kind::Msix, 4), part(Kind::Plain, 2)];
    let (split, requester, tame) = (false, false, false);
    let shape = Shape { parts, split, no_direct, requester, max_routes: 0, many: true, tame };
    let mut steps = vec![Step::Control { f: 0, enabled: true, function_masked: false }];
    steps.extend((0..4).map(|v| Step::Bind { f: 0, v, e: v }));
    steps.extend((0..2).map(|v| Step::Bind { f: 1, v, e: 4 + v }));
    // Messages and masks, and now and then a signal, or a message of no vector.
    let kinds = [38u64, 38, 38, 0, 38, 38, 24, 0, 206];
    let words = words.into_iter().zip(kinds.into_iter().cycle());
    steps.extend(words.map(|(word, kind)| shape.step(word & !0xFF | kind)));
    Scenario { shape, steps }
}

proptest! {
    #![proptest_config(config(30))]

    #[test]
    fn with_many_messages_like_the_reference(
        words in prop::collection::vec(any::<u64>(), 600..900),
        no_direct in any::<bool>(),
    ) {
        run(&busy(words, no_direct));
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn like_the_reference(scenario in scenario(shapes(false), 300)) {
        run(&scenario);
    }

    #[test]
    fn through_routes_like_the_reference(scenario in scenario(shapes(true), 300)) {
        run(&scenario);
    }
}
