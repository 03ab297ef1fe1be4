// SPDX-License-Identifier: MIT OR Apache-2.0
//! As `seeds.rs`, for programs of C calls: alone in its process, for it counts descriptors.
#![cfg(feature = "capi")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../fuzz/bodies/calls/mod.rs"]
mod calls;

#[test]
fn seeds_of_calls() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/calls");
    let mut seeds = 0;
    for seed in std::fs::read_dir(folder).unwrap() {
        let path = seed.unwrap().path();
        // Shown if it fails.
        println!("{}", path.display());
        calls::run(&std::fs::read(&path).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {folder}");
}
