// SPDX-License-Identifier: MPL-2.0

//! Opening of SRTCP. The first byte decides on the profile, and whether the rest is sealed first.

#![no_main]

#[allow(dead_code)]
#[path = "../../tests/hostile/check.rs"]
mod check;

use sfu_engine::srtp::{Profile, Role, session};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let profile = Profile::ALL[usize::from(choice % 3)];
    let exported = vec![5; profile.exporter_len()];
    let (mut protect, _) = session(profile, &exported, Role::Client).expect("keys fit");
    let (_, mut unprotect) = session(profile, &exported, Role::Server).expect("keys fit");
    let mut packet = data.to_vec();
    let sealed = choice & 0x80 != 0 && protect.rtcp(&mut packet, 0).is_ok();
    assert_eq!(check::srtcp(&mut unprotect, &mut packet).is_ok(), sealed);
});
