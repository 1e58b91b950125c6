// SPDX-License-Identifier: MPL-2.0

//! What is told when, and how large packets become.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use is::IceCreds;
use proptest::prelude::*;

use super::super::super::{Slot, TransportEvent};
use super::super::agreed::{Extensions, Numbers};
use super::*;
use crate::codec::Codec;
use crate::codec::dependency::{Descriptor, Reader};
use crate::size::{MAX_DATAGRAM, MAX_PAYLOAD};
use crate::srtp::{Profile, Role, session};

const TWCC: u8 = 3;
const MID: u8 = 4;
const DELAY: u8 = 6;
const CAPTURED: u8 = 12;
const DESCRIPTOR: u8 = 13;
const MS: Duration = Duration::from_millis(1);

/// The last datagram.
#[derive(Default)]
struct Wire(Vec<u8>);

impl TransportSink for Wire {
    fn compose(&mut self, _: SocketAddr, _: SocketAddr, append: &mut dyn FnMut(&mut Vec<u8>)) {
        self.0.clear();
        append(&mut self.0);
    }

    fn event(&mut self, _: TransportEvent) {}
}

impl Wire {
    /// Those of the extensions that can wait.
    fn optional(&self) -> Vec<u8> {
        let all = [DELAY, CAPTURED].into_iter();
        all.filter(|id| self.extension(*id).is_some()).collect()
    }

    /// The value of a header extension.
    fn extension(&self, id: u8) -> Option<&[u8]> {
        if self.0[0] & 0x10 == 0 {
            return None;
        }
        let words = usize::from(u16::from_be_bytes([self.0[14], self.0[15]]));
        let mut rest = &self.0[16..16 + 4 * words];
        loop {
            let (number, length, after) = match rest {
                [] => return None,
                [0, after @ ..] => (0, 0, after),
                [number, length, after @ ..] if self.is_long() => (*number, *length, after),
                [first, after @ ..] => (first >> 4, (first & 15) + 1, after),
            };
            let (value, others) = after.split_at(length.into());
            if number == id {
                return Some(value);
            }
            rest = others;
        }
    }

    /// Its extensions have headers of two octets.
    fn is_long(&self) -> bool {
        self.0[12..14] == [0x10, 0]
    }

    /// The time of capture in seconds since 1900.
    fn captured(&self) -> Option<f64> {
        let (ntp, offset) = self.extension(CAPTURED)?.split_at(8);
        assert_eq!(offset, [0; 8]);
        let ntp = u64::from_be_bytes(ntp.try_into().unwrap());
        Some(ntp as f64 / f64::from(2.0f32.powi(32)))
    }
}

fn format() -> Format {
    Format {
        slot: Slot(0),
        codec: Codec::H264,
        pt: 97,
        red: None,
        rtx: Some(98),
        nack: true,
        profiles: Vec::new(),
        mid: "v".into(),
        ssrc: 7,
        rtx_ssrc: Some(8),
        cname: "me".into(),
        extensions: Extensions {
            mid: Some(MID),
            twcc: Some(TWCC),
            playout_delay: Some(DELAY),
            capture_time: Some(CAPTURED),
            descriptor: Some(DESCRIPTOR),
        },
    }
}

fn media(clock: WallClock) -> Media {
    let mut media = media_of(format(), Profile::AeadAes128Gcm, clock);
    media.tracks[0].is_new = false;
    media
}

fn media_of(format: Format, profile: Profile, clock: WallClock) -> Media {
    let agreed = Agreed {
        local: IceCreds::new(),
        remote: IceCreds::new(),
        peer_is_lite: false,
        remote_candidates: Vec::new(),
        candidates: Vec::new(),
        mid: "v".into(),
        fingerprints: Vec::new(),
        heard: 0,
        is_client: false,
        formats: vec![format],
        asks_for_keyframes: true,
        by_slot: false,
        data: None,
    };
    let keys = vec![3; profile.exporter_len()];
    let (protect, _) = session(profile, &keys, Role::Server).unwrap();
    Media::new(&agreed, protect, clock, PlayoutDelay::from_millis(0, 200))
}

fn path() -> Path {
    let local = "192.0.2.1:8189".parse().unwrap();
    let remote = "192.0.2.2:4000".parse().unwrap();
    Path { local, remote }
}

fn packet(number: u32, captured: Instant, is_key: bool, data: &Arc<[u8]>) -> Outgoing<'_> {
    Outgoing {
        slot: Slot(0),
        codec: Codec::H264,
        seq: 1_000 + u64::from(number),
        timestamp: number * 9_000,
        captured,
        marker: true,
        keyframe_start: is_key,
        vp8: None,
        descriptor: None,
        payload: data,
        red: None,
    }
}

#[test]
fn the_capture_time_is_told_at_keyframes_and_once_a_second() {
    let start = Instant::now();
    let mut media = media(WallClock::new(start, SystemTime::now()));
    let (mut wire, data) = (Wire::default(), Arc::from([0x41; 100]));
    let mut told = Vec::new();
    for number in 0..25 {
        let is_key = number == 0 || number == 12;
        let packet = packet(number, start + number * 100 * MS, is_key, &data);
        media
            .send(Instant::now(), path(), &packet, &mut wire)
            .unwrap();
        assert!(wire.extension(TWCC).is_some());
        let delay = wire.extension(DELAY);
        assert_eq!(delay, is_key.then_some(&[0, 0, 20][..]), "{number}");
        told.extend(wire.captured().map(|_| number));
    }
    assert_eq!(told, [0, 10, 12, 22]);
}

#[test]
fn a_keyframe_that_is_sent_again_tells_the_same() {
    let start = Instant::now();
    let mut media = media(WallClock::new(start, SystemTime::now()));
    let (mut wire, data) = (Wire::default(), Arc::from([0x41; 100]));
    media.send(
        Instant::now(),
        path(),
        &packet(0, start, true, &data),
        &mut wire,
    );
    let told = wire.captured().unwrap();
    for number in 1..10 {
        let packet = packet(number, start + number * 100 * MS, false, &data);
        media.send(Instant::now(), path(), &packet, &mut wire);
    }
    // It had been replayed: dated later than it was captured.
    let again = packet(0, start - 500 * MS, true, &data);
    media.resend(path(), &again, &mut wire).unwrap();
    assert!((wire.captured().unwrap() - told).abs() < 0.001);
    assert!(wire.extension(DELAY).is_some());
    let other = packet(3, start + 300 * MS, false, &data);
    media.resend(path(), &other, &mut wire).unwrap();
    assert_eq!((wire.captured(), wire.extension(DELAY)), (None, None));
    media.pad(path(), &mut wire).unwrap();
    assert_eq!((wire.captured(), wire.extension(DELAY)), (None, None));
}

/// What a frame is predicted from leaves with each of its packets, as it came but for the frame's number.
#[test]
fn descriptors_are_told_to_who_takes_them() {
    let start = Instant::now();
    let clock = WallClock::new(start, SystemTime::now());
    let data: Arc<[u8]> = Arc::from([0x10; 1_100]);
    for (id, length, is_long) in [
        (DESCRIPTOR, 3, false),
        (DESCRIPTOR, 16, false),
        (DESCRIPTOR, 17, true),
        (DESCRIPTOR, 255, true),
        (200, 3, true),
    ] {
        let mut octets = vec![0x80, 1, 2];
        octets.resize(length, 0x77);
        let descriptor = Descriptor::read(&octets, &mut Reader::default());
        let descriptor = Arc::new(descriptor.unwrap());
        octets[1..3].copy_from_slice(&[0xab, 0xcd]);
        for takes in [true, false] {
            let mut format = format();
            format.extensions.descriptor = takes.then_some(id);
            let mut media = media_of(format, Profile::AeadAes128Gcm, clock);
            media.tracks[0].is_new = false;
            let told = takes.then_some(&octets[..]);
            let packet = Outgoing {
                descriptor: Some((&descriptor, 0xab_cd)),
                ..packet(0, start, true, &data)
            };
            let mut wire = Wire::default();
            media.send(start, path(), &packet, &mut wire).unwrap();
            assert_eq!(wire.extension(id), told, "{id} {length}");
            assert!(wire.extension(TWCC).is_some());
            assert_eq!(wire.is_long(), takes && is_long, "{id} {length}");
            // What can wait makes no packet too large that is not with the descriptor alone.
            assert!(wire.optional().is_empty() || wire.0.len() <= MAX_DATAGRAM);
            media.resend(path(), &packet, &mut wire).unwrap();
            assert_eq!(wire.extension(id), told, "{id} {length}, again");
            assert_eq!(wire.is_long(), takes && is_long, "{id} {length}, again");
            media.pad(path(), &mut wire).unwrap();
            assert_eq!(wire.extension(id), None);
        }
    }
}

#[test]
fn only_what_can_be_sent_again_as_it_left_is_kept() {
    let clock = WallClock::new(Instant::now(), SystemTime::now());
    for (what, format, is_kept) in [
        ("RTX", format(), false),
        (
            "NACK alone",
            Format {
                rtx: None,
                ..format()
            },
            true,
        ),
        (
            "neither",
            Format {
                rtx: None,
                nack: false,
                ..format()
            },
            false,
        ),
        (
            "sound",
            Format {
                rtx: None,
                codec: Codec::Opus,
                ..format()
            },
            false,
        ),
    ] {
        let media = media_of(format, Profile::AeadAes128Gcm, clock);
        assert_eq!(!media.sealed.is_empty(), is_kept, "{what}");
    }
}

#[test]
fn each_profile_leaves_under_its_payload_type() {
    use H264Profile::{ConstrainedBaseline, High};
    let start = Instant::now();
    let offered = [
        (ConstrainedBaseline, 102, Some(103)),
        (High, 104, Some(105)),
    ];
    let numbers = |(profile, pt, rtx)| Numbers { profile, pt, rtx };
    let format = Format {
        profiles: offered.map(numbers).to_vec(),
        ..format()
    };
    let clock = WallClock::new(start, SystemTime::now());
    let mut media = media_of(format.clone(), Profile::AeadAes128Gcm, clock);
    let mut wire = Wire::default();
    // Until the first sequence parameter set it is what was agreed on first.
    for (number, (payload, pt, rtx)) in [
        (&[0x41, 1, 2, 3][..], 97, 98),
        (&[0x67, 0x64, 0x00, 0x1f], 104, 105),
        (&[0x65, 1, 2, 3], 104, 105),
        (&[0x41, 1, 2, 3], 104, 105),
        (&[0x67, 0x42, 0xe0, 0x1f], 102, 103),
        (&[0x41, 1, 2, 3], 102, 103),
        // Who takes high takes main; what is unknown changes nothing.
        (&[0x67, 0x4d, 0x00, 0x1f], 104, 105),
        (&[0x67, 0xf4, 0x00, 0x1f], 104, 105),
        (
            &[0x78, 0, 4, 0x67, 0x42, 0xe0, 0x1f, 0, 2, 0x68, 1],
            102,
            103,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let data = Arc::from(payload);
        let packet = packet(number as u32, start, false, &data);
        // Other m-lines come and go: this one's decoder is to go on.
        media.set_formats(std::slice::from_ref(&format));
        media
            .send(Instant::now(), path(), &packet, &mut wire)
            .unwrap();
        assert_eq!(wire.0[1] & 0x7f, pt, "{payload:02x?}");
        media.resend(path(), &packet, &mut wire).unwrap();
        assert_eq!(wire.0[1] & 0x7f, rtx, "{payload:02x?}");
    }
}

/// What offer, publisher and peer make of a session, as far as sizes depend on it.
#[derive(Debug, Clone)]
struct Case {
    profile: Profile,
    /// MID, transport-wide number, playout delay, time of capture.
    agreed: [bool; 4],
    mid: usize,
    has_rtx: bool,
    has_red: bool,
    is_new: bool,
}

impl Case {
    fn media(&self) -> Media {
        let [mid, twcc, delay, captured] = self.agreed;
        let mut format = format();
        format.mid = "m".repeat(self.mid);
        format.red = self.has_red.then_some(63);
        format.codec = if self.has_red {
            Codec::Opus
        } else {
            Codec::Vp8
        };
        format.rtx = format.rtx.filter(|_| self.has_rtx);
        format.extensions = Extensions {
            mid: mid.then_some(MID),
            twcc: twcc.then_some(TWCC),
            playout_delay: delay.then_some(DELAY),
            capture_time: captured.then_some(CAPTURED),
            descriptor: None,
        };
        let clock = WallClock::new(Instant::now(), SystemTime::now());
        let mut media = media_of(format, self.profile, clock);
        media.tracks[0].is_new = self.is_new;
        media
    }

    /// Octets of a packet with this payload and nothing that could be left out.
    fn least(&self, payload: usize) -> usize {
        self.least_with(self.is_new, payload)
    }

    fn least_with(&self, mid: bool, payload: usize) -> usize {
        let [has_mid, twcc, ..] = self.agreed;
        let mid = if has_mid && mid { 1 + self.mid } else { 0 };
        let octets: usize = mid + if twcc { 3 } else { 0 };
        let block = if octets > 0 {
            4 + octets.next_multiple_of(4)
        } else {
            0
        };
        12 + block + payload + self.profile.rtp_overhead()
    }

    fn codec(&self) -> Codec {
        if self.has_red {
            Codec::Opus
        } else {
            Codec::Vp8
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let profiles = prop_oneof![
        Just(Profile::AeadAes128Gcm),
        Just(Profile::AeadAes256Gcm),
        Just(Profile::AesCm128HmacSha1_80),
    ];
    let flags = any::<(bool, bool, bool)>();
    (profiles, any::<[bool; 4]>(), 1usize..=16, flags).prop_map(
        |(profile, agreed, mid, (has_rtx, has_red, is_new))| Case {
            profile,
            agreed,
            mid,
            has_rtx: has_rtx && !has_red,
            has_red,
            is_new,
        },
    )
}

/// Sizes around those at which something is left out, and others.
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..1_100, 1_100usize..1_210, 1_200usize..1_500]
}

proptest! {
    #[test]
    fn header_extensions_make_no_packet_too_large(
        case in cases(),
        packets in proptest::collection::vec((sizes(), any::<bool>(), 0usize..300, 1u32..4), 1..12),
    ) {
        let mut media = case.media();
        let mut wire = Wire::default();
        let start = Instant::now();
        let mut number = 0;
        for (size, is_key, older, step) in packets {
            number += step - 1;
            let (data, red) = (Arc::from(vec![0x41; size]), Arc::from(vec![0x6f; size + older]));
            let outgoing = Outgoing {
                codec: case.codec(),
                red: case.has_red.then_some(&red),
                ..packet(number, start + number * 400 * MS, is_key, &data)
            };
            media.send(Instant::now(), path(), &outgoing, &mut wire).unwrap();
            let limit = |payload| case.least(payload).max(MAX_DATAGRAM);
            prop_assert!(wire.0.len() <= limit(size), "{} of {size}", wire.0.len());
            if size <= MAX_PAYLOAD {
                prop_assert!(wire.0.len() <= MAX_DATAGRAM);
            }
            prop_assert_eq!(wire.extension(TWCC).is_some(), case.agreed[1]);
            prop_assert_eq!(wire.extension(MID).is_some(), case.agreed[0] && case.is_new);
            let with_red = case.has_red && case.least(size + older) <= MAX_DATAGRAM;
            prop_assert_eq!(wire.0[1] & 0x7f == 63, with_red);
            if case.has_rtx {
                let told = wire.optional();
                media.resend(path(), &outgoing, &mut wire).unwrap();
                let limit = case.least_with(true, size + 2).max(MAX_DATAGRAM);
                prop_assert!(wire.0.len() <= limit, "again: {} of {size}", wire.0.len());
                prop_assert_eq!(wire.extension(MID).is_some(), case.agreed[0]);
                if is_key {
                    let again = wire.optional();
                    prop_assert!(told.iter().all(|id| again.contains(id)), "{told:?} {again:?}");
                }
            }
            if let Some(left) = media.pad(path(), &mut wire) {
                prop_assert!(left.bytes <= MAX_DATAGRAM);
                prop_assert_eq!(wire.extension(MID).is_some(), case.agreed[0]);
            }
        }
    }

    /// Two seals under one number would give the keys away: without a stream of retransmissions it is the same seal.
    #[test]
    fn without_rtx_what_leaves_again_is_the_same_to_the_last_bit(
        case in cases(),
        packets in proptest::collection::vec((sizes(), any::<bool>()), 1..20),
    ) {
        let case = Case { has_rtx: false, has_red: false, ..case };
        let mut media = case.media();
        let mut wire = Wire::default();
        let start = Instant::now();
        let mut left = Vec::new();
        let data: Vec<Arc<[u8]>> = packets.iter().map(|(size, _)| vec![0x41; *size].into()).collect();
        let outgoing = |number: usize| Outgoing {
            codec: case.codec(),
            ..packet(number as u32, start, packets[number].1, &data[number])
        };
        for number in 0..packets.len() {
            let packet = outgoing(number);
            let first = media.send(start, path(), &packet, &mut wire).unwrap();
            left.push((first.number, wire.0.clone()));
            prop_assert!(media.resend(path(), &packet, &mut wire).is_none());
        }
        for (number, (twcc, datagram)) in left.iter().enumerate() {
            let again = media.repeat(path(), &outgoing(number), &mut wire).unwrap();
            prop_assert_eq!(&wire.0, datagram);
            prop_assert_eq!((again.number, again.bytes), (*twcc, datagram.len()));
        }
        let next = Outgoing { seq: 1_000 + packets.len() as u64, ..outgoing(0) };
        prop_assert!(media.repeat(path(), &next, &mut wire).is_none(), "has not left");
    }

    #[test]
    fn what_had_no_room_is_told_by_the_next_packet_that_has(
        case in cases(),
        large in proptest::collection::vec(1_190usize..1_400, 1..6),
    ) {
        let case = Case { has_red: false, is_new: false, ..case };
        let mut media = case.media();
        let mut wire = Wire::default();
        let start = Instant::now();
        let told = |media: &mut Media, wire: &mut Wire, number, is_key, size| {
            let data = Arc::from(vec![0x41; size]);
            let outgoing = Outgoing {
                codec: case.codec(),
                ..packet(number, start + number * 10 * MS, is_key, &data)
            };
            media.send(Instant::now(), path(), &outgoing, wire).unwrap();
            wire.optional()
        };
        let agreed: Vec<u8> = [(case.agreed[2], DELAY), (case.agreed[3], CAPTURED)]
            .into_iter()
            .filter_map(|(is, id)| is.then_some(id))
            .collect();
        for (index, size) in (0u32..).zip(&large) {
            prop_assert_eq!(told(&mut media, &mut wire, index, index == 0, *size), Vec::<u8>::new());
        }
        prop_assert_eq!(told(&mut media, &mut wire, 20, false, 900), agreed);
        prop_assert_eq!(told(&mut media, &mut wire, 21, false, 900), Vec::<u8>::new());
    }
}

#[test]
fn an_m_line_that_is_used_again_begins_anew_for_its_peer() {
    let mut track = Track::new(&format());
    track.newest = 70_000;
    let other = Format {
        ssrc: 9,
        rtx_ssrc: Some(10),
        ..format()
    };
    let track = track.renamed(&other, std::slice::from_ref(&other));
    assert_eq!((track.ssrc, track.rtx_ssrc), (9, Some(10)));
    assert_eq!((track.newest, track.is_new), (70_000, true));
    // No number comes twice with the same count of wraps, and the first of the SSRC has none.
    for (seq, expected) in [
        (4_465, None),
        (70_000, None),
        (70_001, Some(0)),
        (131_071, Some(0)),
        (131_072, Some(1)),
        (196_608, Some(2)),
    ] {
        assert_eq!(track.rollover(seq), expected, "{seq}");
    }
}
