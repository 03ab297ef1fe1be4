// SPDX-License-Identifier: MIT OR Apache-2.0
//! The fuzz targets' bodies, with every seed: without a fuzzer, and everywhere.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beside;
#[path = "../fuzz/bodies/load.rs"]
mod load;
mod reference;
#[path = "../fuzz/bodies/registers.rs"]
mod registers;

fn each_seed(target: &str, run: fn(&[u8])) {
    let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut seeds = 0;
    for seed in std::fs::read_dir(&folder).unwrap() {
        let path = seed.unwrap().path();
        // Shown if it fails.
        println!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "no seeds in {folder}");
}

#[test]
fn seeds_of_registers() {
    each_seed("registers", registers::run);
}

#[test]
fn seeds_of_load() {
    each_seed("load", load::run);
}
