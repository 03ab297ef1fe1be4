// SPDX-License-Identifier: MIT OR Apache-2.0
#![no_main]

#[path = "../bodies/calls/mod.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
