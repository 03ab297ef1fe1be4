// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random sequences of all that can be done to devices, on the model of KVM, beside a reference that can be checked
//! by eye: after every step the same messages were sent, the same is pending, every register reads the same, and the
//! VMM was told the same.

mod beside;
mod reference;

use beside::model::OnModel;
use beside::{Beside, Part, Program, Shape};
use proptest::prelude::*;
use reference::Kind;

fn part(kind: Kind, vectors: usize) -> Part {
    Part { kind, vectors, data0_off: false }
}

fn msi() -> impl Strategy<Value = Part> {
    (any::<bool>(), prop::bool::weighted(0.8), 0..6usize, prop::bool::weighted(0.1)).prop_map(
        |(wide, maskable, log, data0_off)| Part {
            kind: Kind::Msi { wide, maskable },
            vectors: 1 << log,
            data0_off,
        },
    )
}

fn msix() -> impl Strategy<Value = Part> {
    let vectors = prop_oneof![8 => Just(3usize), 4 => Just(1usize), 1 => Just(66usize)];
    (vectors, prop::bool::weighted(0.1))
        .prop_map(|(vectors, data0_off)| Part { data0_off, ..part(Kind::Msix, vectors) })
}

fn program(
    parts: impl Strategy<Value = Vec<Part>>,
    no_direct: impl Strategy<Value = bool>,
) -> impl Strategy<Value = Program> {
    let words = prop::collection::vec(any::<u64>(), 1..440);
    (parts, no_direct, words).prop_map(|(parts, no_direct, words)| {
        Shape { parts, no_direct, tame: false }.program(words)
    })
}

fn one(part: impl Strategy<Value = Part>) -> impl Strategy<Value = Vec<Part>> {
    part.prop_map(|part| vec![part])
}

fn run(program: Program) {
    Beside::run(OnModel::new(), program);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn msix_is_like_the_reference(program in program(one(msix()), Just(false))) {
        run(program);
    }

    #[test]
    fn msix_through_routes_is_like_the_reference(program in program(one(msix()), Just(true))) {
        run(program);
    }

    #[test]
    fn msi_is_like_the_reference(program in program(one(msi()), any::<bool>())) {
        run(program);
    }

    #[test]
    fn a_plain_device_is_like_the_reference(
        program in program(Just(vec![part(Kind::Plain, 3)]), any::<bool>()),
    ) {
        run(program);
    }

    #[test]
    fn with_a_relay_they_are_like_the_reference(
        program in program(
            msi().prop_map(|msi| vec![part(Kind::Msix, 2), msi, part(Kind::Plain, 1)]),
            any::<bool>(),
        ),
    ) {
        Beside::run_relayed(OnModel::new(), program);
    }

    #[test]
    fn three_devices_are_like_the_reference(
        program in program(
            msi().prop_map(|msi| vec![part(Kind::Msix, 2), msi, part(Kind::Plain, 1)]),
            any::<bool>(),
        ),
    ) {
        run(program);
    }
}
