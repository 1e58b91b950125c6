// SPDX-License-Identifier: MPL-2.0

//! Whatever SRTP profile a viewer offers, it plays; and reports that are not its own change nothing.

use std::time::Duration;

use sfu_engine::srtp::{Profile, Role, session};
use str0m::crypto::dtls::SrtpProfile;

use crate::keys;
use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// Two viewers that offer these profiles play for ten seconds; one has a lossy link. Returns what was agreed on.
fn agreed(profiles: &'static [SrtpProfile]) -> SrtpProfile {
    let (crypto, told) = keys::offering(profiles);
    let mut world = World::new(1, 2);
    world.viewers_crypto = Some(crypto);
    world.join(good(), None);
    let lossy = world.join(good(), None);
    world.run_for(2 * SECOND);
    world.set_link(
        lossy,
        sfu_impair::Conditions {
            loss: 0.02,
            ..good()
        },
    );
    world.run_for(6 * SECOND);
    world.set_link(lossy, good());
    world.run_for(2 * SECOND);
    world.check(&format!("{profiles:?}"), |v| {
        let decoded = v.decoded();
        decoded.frames > 270 && decoded.broken == 0 && decoded.gaps == 0 && v.audio_packets > 240
    });
    let info = world.sessions[lossy].info();
    assert!(
        info.retransmitted > 0,
        "{profiles:?}: reports are understood"
    );
    assert_eq!(world.counters.snapshot().datagrams_invalid, 0);
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 2);
    told[1].profile
}

#[test]
fn viewers_play_in_each_profile() {
    for profile in [
        &[SrtpProfile::AES128_CM_SHA1_80],
        &[SrtpProfile::AEAD_AES_128_GCM],
        &[SrtpProfile::AEAD_AES_256_GCM],
    ] {
        assert_eq!(agreed(profile), profile[0]);
    }
}

#[test]
fn aes_128_gcm_is_preferred_in_whatever_order_it_is_offered() {
    const ALL: &[SrtpProfile] = &[
        SrtpProfile::AES128_CM_SHA1_80,
        SrtpProfile::AEAD_AES_256_GCM,
        SrtpProfile::AEAD_AES_128_GCM,
    ];
    assert_eq!(agreed(ALL), SrtpProfile::AEAD_AES_128_GCM);
    const OLD: &[SrtpProfile] = &[
        SrtpProfile::AES128_CM_SHA1_80,
        SrtpProfile::AEAD_AES_256_GCM,
    ];
    assert_eq!(agreed(OLD), SrtpProfile::AEAD_AES_256_GCM);
}

#[test]
fn reports_that_are_replayed_cut_or_sealed_by_others_are_dropped_and_counted() {
    let mut world = World::new(2, 1);
    world.join(good(), None);
    world.run_for(2 * SECOND);
    world.overheard = Some(Vec::new());
    world.run_for(2 * SECOND);
    let heard = world.overheard.take().unwrap();
    assert!(heard.len() > 10, "{} reports", heard.len());
    assert_eq!(world.counters.snapshot().datagrams_invalid, 0);
    let before = world.sessions[0].info();
    for report in &heard {
        assert!(world.inject(0, report), "replayed");
        for length in 0..report.len() {
            assert!(world.inject(0, &report[..length]), "cut to {length}");
        }
        let mut changed = report.clone();
        for at in 1..report.len() {
            changed[at] ^= 1;
            // From its second octet on, an octet of the header may turn a report into an RTP packet: no less invalid.
            assert!(world.inject(0, &changed), "octet {at} changed");
            changed[at] ^= 1;
        }
    }
    for profile in Profile::ALL {
        let keys = vec![7; profile.exporter_len()];
        let (mut stranger, _) = session(profile, &keys, Role::Client).unwrap();
        for _ in 0..10 {
            // A request for a keyframe, of any stream.
            let mut pli = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0];
            stranger.rtcp(&mut pli, 0).unwrap();
            assert!(world.inject(0, &pli), "sealed with other keys");
        }
    }
    let after = world.sessions[0].info();
    assert_eq!(
        (after.keyframe_requests, after.retransmitted, after.estimate),
        (
            before.keyframe_requests,
            before.retransmitted,
            before.estimate
        )
    );
    let asked = world.publisher.encoder.requests.lock().unwrap().len();
    let frames = world.viewers[0].0.decoded().frames;
    let invalid = world.counters.snapshot().datagrams_invalid;
    world.run_for(3 * SECOND);
    world.check("plays on, and is understood", |v| {
        let decoded = v.decoded();
        decoded.frames >= frames + 88 && decoded.broken == 0 && decoded.gaps == 0
    });
    assert_eq!(world.counters.snapshot().datagrams_invalid, invalid);
    let now = world.publisher.encoder.requests.lock().unwrap().len();
    assert_eq!(now, asked, "nobody asked for a keyframe");
}
