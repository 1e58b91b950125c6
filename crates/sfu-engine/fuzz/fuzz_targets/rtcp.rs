// SPDX-License-Identifier: MPL-2.0

//! The reader of RTCP and of transport-wide feedback.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/hostile/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::rtcp(data));
