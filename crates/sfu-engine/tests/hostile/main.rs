// SPDX-License-Identifier: MPL-2.0

//! Packets of viewers, changed at random: none may panic, take more than its share, or pass where it is not authentic.
//!
//! The same for the same seed. `SFU_SEED=…` tries another, `SFU_FUZZ_ITERATIONS=…` longer.

mod check;

use std::env;
use std::fmt::Write as _;

use sfu_engine::StreamName;
use sfu_engine::rtcp::{SenderReport, write_bye, write_sender_report};
use sfu_engine::srtp::{Profile, Role, UnprotectError, session};
use sfu_impair::Rng;

fn number(name: &str, default: u64) -> u64 {
    env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// One packet of each kind.
fn samples() -> Vec<Vec<u8>> {
    let report = SenderReport {
        ssrc: 7,
        ntp_time: 1 << 40,
        rtp_time: 90_000,
        packets: 10,
        octets: 9000,
    };
    let mut sender_report = Vec::new();
    write_sender_report(&mut sender_report, &report, "a name");
    write_bye(&mut sender_report, &[7, 8]);

    let mut receiver_report = vec![0x82, 201, 0, 13, 0, 0, 0, 1];
    receiver_report.extend(1..=48);
    let mut nack = vec![0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2];
    nack.extend([0xff, 0xfe, 0xff, 0xff, 0, 9, 0x80, 1]);
    let pli = vec![0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
    let mut fir = vec![0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
    fir.extend([0, 0, 0, 2, 5, 0, 0, 0]);
    let remb = b"\x8f\xce\x00\x05\0\0\0\x01\0\0\0\0REMB\x01\x0b\xff\xff\0\0\0\x02".to_vec();
    let mut twcc = vec![0xaf, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xfc, 0, 8];
    twcc.extend([
        0, 0, 2, 9, 0x20, 3, 0xc9, 0xd0, 4, 0, 1, 0xff, 0xff, 2, 3, 1,
    ]);
    let mut vectors = vec![0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 9, 0, 35];
    vectors.extend([0xff, 0xff, 0xff, 1, 0xb5, 0x55, 0x00, 14, 0xd5, 0x55]);
    vectors.extend(1..=10);
    let compound = [&receiver_report[..], &nack, &twcc, &pli].concat();
    vec![
        sender_report,
        receiver_report,
        nack,
        pli,
        fir,
        remb,
        twcc,
        vectors,
        compound,
    ]
}

/// Changes a packet in one to four ways.
fn mutate(random: &mut Rng, data: &mut Vec<u8>, samples: &[Vec<u8>]) {
    for _ in 0..=random.below(4) {
        let at = random.below(data.len());
        match random.below(9) {
            0 if !data.is_empty() => data[at] ^= 1 << random.below(8),
            1 if !data.is_empty() => data[at] = random.next_u64() as u8,
            // Lengths and counts: the extremes, and off by one.
            2 if data.len() > at + 1 => {
                data[at..at + 2].fill([0, 0x7f, 0x80, 0xff][random.below(4)]);
            }
            3 if !data.is_empty() => data[at] = data[at].wrapping_add(1),
            4 => data.truncate(at),
            5 => drop(data.drain(..at)),
            6 => data.extend_from_slice(&random.next_u64().to_be_bytes()[..1 + random.below(8)]),
            7 => data.extend_from_slice(&samples[random.below(samples.len())]),
            _ => data.insert(at, random.next_u64() as u8),
        }
    }
}

/// Runs `work` for each changed packet; a panic prints what it was about.
fn each_mutation(iterations: u64, mut work: impl FnMut(&mut Rng, &[u8], &[Vec<u8>])) {
    let seed = number("SFU_SEED", 1);
    let samples = samples();
    let mut random = Rng::new(seed);
    for iteration in 0..number("SFU_FUZZ_ITERATIONS", iterations) {
        let mut data = samples[random.below(samples.len())].clone();
        mutate(&mut random, &mut data, &samples);
        let shown = Shown(seed, iteration, &data);
        work(&mut random, &data, &samples);
        std::mem::forget(shown);
    }
}

/// Prints, when dropped by a panic, what caused it.
struct Shown<'a>(u64, u64, &'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut hex = String::new();
        for byte in self.2 {
            let _ = write!(hex, "{byte:02x}");
        }
        eprintln!("SFU_SEED={} in iteration {}: {hex}", self.0, self.1);
    }
}

#[test]
fn rtcp_is_read_whatever_it_is() {
    for sample in samples() {
        check::rtcp(&sample);
        for len in 0..sample.len() {
            check::rtcp(&sample[..len]);
        }
    }
    each_mutation(4_000_000, |_, data, _| check::rtcp(data));
}

#[test]
fn srtcp_opens_only_what_was_sealed() {
    for profile in Profile::ALL {
        let exported = vec![5; profile.exporter_len()];
        let (mut protect, _) = session(profile, &exported, Role::Client).expect("keys fit");
        let (_, mut unprotect) = session(profile, &exported, Role::Server).expect("keys fit");
        each_mutation(300_000, |random, data, samples| {
            // What is authentic opens, whatever it holds.
            let mut sealed = data.to_vec();
            if protect.rtcp(&mut sealed, 0).is_err() {
                // Too short to be a packet: it is not sealed, and cannot be opened.
                assert!(check::srtcp(&mut unprotect, &mut sealed).is_err());
                return;
            }
            let mut changed = sealed.clone();
            mutate(random, &mut changed, samples);
            let unchanged = changed == sealed;
            let opened = check::srtcp(&mut unprotect, &mut changed);
            assert_eq!(opened.is_ok(), unchanged, "{profile:?} {opened:?}");
            let again = check::srtcp(&mut unprotect, &mut sealed);
            if unchanged {
                assert_eq!(again, Err(UnprotectError::Replayed));
            } else {
                assert!(again.is_ok(), "{profile:?} {again:?}");
            }
        });
    }
}

#[test]
fn fuzz_reports() {
    sfu_fuzz::fuzz("reports", &samples(), check::rtcp);
}

/// The beginnings of payloads as encoders make them. The first octet says of which codec.
const PAYLOADS: [&[u8]; 12] = [
    // H.264: parameter sets and a keyframe in one packet, a fragment of one, and a picture nobody refers to.
    b"\x00\x78\x00\x09\x67\x42\x00\x1f\xda\x01\x40\x16\xe4\x00\x04\x68\xce\x3c\x80\x00\x02\x65\x88",
    b"\x00\x7c\x85\x88\x84",
    b"\x00\x01\x9a",
    b"\x00\x67\x64\x00\x28\xac\xd9\x40\x78\x02\x27\xe5\xc0\x44",
    // VP8: all that a descriptor may have, and the start of a keyframe.
    b"\x01\x90\xf0\x81\x23\x45\x67\x10\x02\x00\x9d\x01\x2a\x80\x02\xe0\x01",
    b"\x01\x10\x50\x00\x00\x9d\x01\x2a\x40\x01\xf0\x00",
    // VP9: flexible or not, with a structure of three layers.
    b"\x02\xaf\x81\x23\x08\x00\x5c\x01\x40\x00\xb4\x02\x80\x01\x68\x05\x00\x02\xd0\x82\x49\x83\x42",
    b"\x02\xf8\x81\x23\x26\x03\x05\x82",
    // AV1: a sequence header and a frame.
    b"\x03\x18\x0b\x0a\x0a\x00\x00\x00\x24\xce\x1f\x77\xf8\xdb\x60\x32\x02\x10\x00",
    b"\x03\x10\x34\x40\x01\x02",
    // H.265: an aggregate of parameter sets, and a fragment of a keyframe.
    b"\x04\x60\x01\x00\x04\x40\x01\x0c\x01\x00\x05\x42\x01\x01\x01\x60\x00\x03\x44\x01\xc1",
    b"\x04\x62\x01\x93\xaf",
];

#[test]
fn fuzz_payloads() {
    sfu_fuzz::fuzz("payloads", &PAYLOADS, check::payload);
}

#[test]
fn fuzz_names_of_streams() {
    sfu_fuzz::fuzz(
        "names of streams",
        &["cam1", "news/cam-1.b_2", &"a/".repeat(100)],
        |data| {
            if let Ok(name) = String::from_utf8_lossy(data).parse::<StreamName>() {
                let name = name.as_str();
                assert!(
                    name.len() <= 255
                        && name.split('/').all(|part| part != ".." && !part.is_empty())
                );
            }
        },
    );
}
