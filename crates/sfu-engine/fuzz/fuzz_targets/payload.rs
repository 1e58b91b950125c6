// SPDX-License-Identifier: MPL-2.0

//! What is read of a publisher's RTP payloads: keyframes, sizes, temporal layers. The first byte decides on the codec.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/hostile/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::payload(data));
