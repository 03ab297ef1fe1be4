// SPDX-License-Identifier: MIT OR Apache-2.0
#![no_main]

#[path = "../../tests/beside/mod.rs"]
mod beside;
#[path = "../bodies/load.rs"]
mod body;
#[path = "../../tests/reference/mod.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
