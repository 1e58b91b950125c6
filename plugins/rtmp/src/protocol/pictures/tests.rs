// SPDX-License-Identifier: MPL-2.0

use proptest::prelude::*;

use super::*;
use crate::protocol::flv::VideoCodec;

const DELIMITER: &[u8] = &[9, 0xf0];
const SPS: &[u8] = &[0x67, 1];
const PPS: &[u8] = &[0x68, 1];
const SEI: &[u8] = &[6, 5, 1];
/// The first and later slices of two kinds of pictures.
const IDR: &[u8] = &[0x65, 0x88];
const IDR_2: &[u8] = &[0x65, 0x40];
const P: &[u8] = &[0x41, 0x9a];
const P_2: &[u8] = &[0x41, 0x50];
const P_3: &[u8] = &[0x41, 0x60];

/// Units, each with a length of two octets.
fn sized(units: &[&[u8]]) -> Vec<u8> {
    let sized = |unit: &&[u8]| [&u16::try_from(unit.len()).unwrap().to_be_bytes(), *unit].concat();
    units.iter().flat_map(sized).collect()
}

/// Gives a message to `pictures` as `feed.rs` does.
fn send(
    pictures: &mut Pictures,
    codec: VideoCodec,
    timestamp: u32,
    units: &[&[u8]],
) -> Result<Vec<Frame>, Lost> {
    let ended = pictures.ended_by(timestamp);
    let mut seen = Units::new(codec, 2);
    units.iter().for_each(|unit| seen.see(unit));
    let frame = Frame {
        timestamp,
        offset: i32::try_from(timestamp % 1_000).unwrap(),
        keyframe: seen.random_access,
        came: Some(u64::from(timestamp)),
        data: sized(units).into(),
    };
    let taken = pictures.take(frame, seen)?;
    Ok(ended
        .into_iter()
        .chain(taken.into_iter().flatten())
        .collect())
}

fn avc(pictures: &mut Pictures, timestamp: u32, units: &[&[u8]]) -> Result<Vec<Frame>, Lost> {
    send(pictures, VideoCodec::H264, timestamp, units)
}

fn picture(timestamp: u32, keyframe: bool, units: &[&[u8]]) -> Frame {
    Frame {
        timestamp,
        offset: i32::try_from(timestamp % 1_000).unwrap(),
        keyframe,
        came: Some(u64::from(timestamp)),
        data: sized(units).into(),
    }
}

/// A timestamp and the units of a message.
type Message<'a> = (u32, &'a [&'a [u8]]);
/// A name, what comes, and the timestamps, keyframes and units of what goes on.
type Case<'a> = (
    &'a str,
    &'a [Message<'a>],
    &'a [(u32, bool, &'a [&'a [u8]])],
);

#[test]
fn pictures_in_several_messages_are_joined() {
    let cases: [Case; 8] = [
        (
            "whole pictures",
            &[(0, &[SPS, PPS, IDR, IDR_2]), (40, &[P]), (80, &[P, P_2])],
            &[
                (0, true, &[SPS, PPS, IDR, IDR_2]),
                (40, false, &[P]),
                (80, false, &[P, P_2]),
            ],
        ),
        (
            "SEI before each",
            &[(0, &[SEI]), (0, &[IDR]), (40, &[SEI]), (40, &[P])],
            &[(0, true, &[SEI, IDR]), (40, false, &[SEI, P])],
        ),
        (
            "SEI behind each",
            &[
                (0, &[IDR]),
                (0, &[SEI]),
                (40, &[P]),
                (40, &[SEI]),
                (80, &[P]),
            ],
            &[
                (0, true, &[IDR]),
                (40, false, &[SEI, P]),
                (80, false, &[SEI, P]),
            ],
        ),
        (
            "delimiters before each, and sets",
            &[
                (0, &[DELIMITER]),
                (0, &[SPS]),
                (0, &[PPS]),
                (0, &[IDR]),
                (40, &[DELIMITER]),
                (40, &[P]),
            ],
            &[(0, true, &[SPS, PPS, IDR]), (40, false, &[P])],
        ),
        (
            "SEI before pictures with a delimiter",
            &[(0, &[SEI]), (0, &[DELIMITER, IDR])],
            &[(0, true, &[DELIMITER, SEI, IDR])],
        ),
        (
            "one slice a message",
            &[
                (0, &[SPS]),
                (0, &[IDR]),
                (0, &[IDR_2]),
                (40, &[P]),
                (40, &[P_2]),
                (40, &[P_3]),
                (80, &[P]),
            ],
            &[
                (0, true, &[SPS, IDR, IDR_2]),
                (40, false, &[P, P_2, P_3]),
                (80, false, &[P]),
            ],
        ),
        (
            "sets and SEI with each slice",
            &[
                (0, &[SPS, IDR]),
                (0, &[SPS, SEI, IDR_2]),
                (40, &[SEI, P]),
                (40, &[DELIMITER, P_2]),
            ],
            &[(0, true, &[SPS, IDR, IDR_2]), (40, false, &[SEI, P, P_2])],
        ),
        (
            "all with one timestamp",
            &[
                (0, &[IDR]),
                (0, &[IDR_2]),
                (0, &[P]),
                (0, &[P_2]),
                (0, &[P]),
            ],
            &[
                (0, true, &[IDR, IDR_2]),
                (0, false, &[P, P_2]),
                (0, false, &[P]),
            ],
        ),
    ];
    for (name, messages, expected) in cases {
        let mut pictures = Pictures::default();
        let send = |(timestamp, units): &Message| avc(&mut pictures, *timestamp, units).unwrap();
        let mut gone: Vec<_> = messages.iter().flat_map(send).collect();
        gone.extend(pictures.end());
        let expected = expected
            .iter()
            .map(|(timestamp, key, units)| picture(*timestamp, *key, units));
        assert_eq!(gone, expected.collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn h265_is_joined_as_well() {
    let (prefix, suffix) = (&[0x4e, 1, 5][..], &[0x50, 1, 5][..]);
    let (first, second) = (&[0x26, 1, 0x80][..], &[0x26, 1, 0x40][..]);
    let mut pictures = Pictures::default();
    for units in [prefix, first, second, suffix] {
        let gone = send(&mut pictures, VideoCodec::H265, 0, &[units]);
        assert_eq!(gone, Ok(vec![]), "{units:?}");
    }
    assert_eq!(
        pictures.end(),
        Some(picture(0, true, &[prefix, first, second]))
    );
    assert!(pictures.before.is_empty());
}

#[test]
fn nothing_waits_where_pictures_are_whole() {
    let mut pictures = Pictures::default();
    assert_eq!(avc(&mut pictures, 0, &[IDR]), Ok(vec![]));
    // The first one does, for the next message.
    let second = avc(&mut pictures, 40, &[P]).unwrap();
    assert_eq!(second, [picture(0, true, &[IDR]), picture(40, false, &[P])]);
    for timestamp in [80, 80, 120] {
        let gone = avc(&mut pictures, timestamp, &[P, P_2]).unwrap();
        assert_eq!(gone, [picture(timestamp, false, &[P, P_2])]);
    }
    // Nor for SEI of its own.
    assert_eq!(avc(&mut pictures, 160, &[SEI]), Ok(vec![]));
    assert_eq!(avc(&mut pictures, 160, &[P]).unwrap().len(), 1);
    // A slice that is no picture's before is on its own.
    assert_eq!(avc(&mut pictures, 200, &[P_2]).unwrap().len(), 1);
}

#[test]
fn who_begins_to_split_pictures_loses_one() {
    let mut pictures = Pictures::default();
    let _ = avc(&mut pictures, 0, &[IDR]);
    assert_eq!(avc(&mut pictures, 40, &[P]).unwrap().len(), 2);
    assert_eq!(avc(&mut pictures, 40, &[P_2]), Err(Lost));
    assert_eq!(avc(&mut pictures, 40, &[P_3]), Err(Lost));
    for units in [P, P_2, P_3] {
        assert_eq!(avc(&mut pictures, 80, &[units]), Ok(vec![]));
    }
    assert_eq!(pictures.end(), Some(picture(80, false, &[P, P_2, P_3])));
}

#[test]
fn a_picture_is_not_held_for_long() {
    // Whatever sound was there before, it has to go on; also where timestamps turn over.
    for before in [None, Some(0), Some(1_500), Some(u32::MAX - 40)] {
        let first = before.unwrap_or(7);
        for (later, ends) in [(0, false), (99, false), (100, true), (5_000, true)] {
            let mut pictures = Pictures::default();
            if let Some(before) = before {
                assert_eq!(pictures.ended_by_sound(before), None);
            }
            let _ = avc(&mut pictures, 1_000, &[IDR]);
            assert_eq!(pictures.ended_by_sound(first), None);
            let _ = avc(&mut pictures, 1_000, &[IDR_2]);
            let ended = pictures.ended_by_sound(first.wrapping_add(later));
            assert_eq!(ended.is_some(), ends, "{before:?} {later}");
        }
    }
    // Silence ends it the second time, unless something came meanwhile.
    let mut pictures = Pictures::default();
    let _ = avc(&mut pictures, 0, &[IDR]);
    assert_eq!(pictures.ended_by_silence(), None);
    pictures.stir();
    assert_eq!(pictures.ended_by_silence(), None);
    assert_eq!(pictures.ended_by_silence(), Some(picture(0, true, &[IDR])));
    assert_eq!(pictures.ended_by_silence(), None);
    // Where there are more parts networks may rest for longer.
    let mut pictures = Pictures::default();
    let _ = avc(&mut pictures, 0, &[IDR]);
    let _ = avc(&mut pictures, 0, &[IDR_2]);
    for _ in 1..RESTS {
        assert_eq!(pictures.ended_by_silence(), None);
    }
    assert_eq!(
        pictures.ended_by_silence(),
        Some(picture(0, true, &[IDR, IDR_2]))
    );
}

#[test]
fn a_picture_with_a_hole_is_lost_as_a_whole() {
    // Its first message is broken, or a later one.
    for begun in [false, true] {
        let mut pictures = Pictures::default();
        if begun {
            let _ = avc(&mut pictures, 0, &[IDR]);
        }
        pictures.discard(0);
        assert_eq!(avc(&mut pictures, 0, &[IDR_2]), Err(Lost), "{begun}");
        assert_eq!(pictures.end(), None);
        assert_eq!(avc(&mut pictures, 40, &[IDR]), Ok(vec![]));
        assert_eq!(avc(&mut pictures, 40, &[IDR_2]), Ok(vec![]));
        assert_eq!(pictures.end(), Some(picture(40, true, &[IDR, IDR_2])));
    }
}

#[test]
fn what_is_held_is_bounded() {
    let mut pictures = Pictures::default();
    let _ = avc(&mut pictures, 0, &[IDR]);
    let joined = (0..10_000).take_while(|_| avc(&mut pictures, 0, &[IDR_2]).is_ok());
    assert_eq!(joined.count(), usize::try_from(MAX_MESSAGES).unwrap() - 1);
    assert_eq!(pictures.end(), None);

    let large = [IDR_2, &[0xff; 60_000]].concat();
    let _ = avc(&mut pictures, 40, &[IDR]);
    let joined = (0..10_000).take_while(|_| avc(&mut pictures, 40, &[&large]).is_ok());
    assert_eq!(joined.count(), MAX_MESSAGE / (large.len() + 2));
    assert_eq!(pictures.end(), None);

    let sei = [SEI, &[0xff; 30_000]].concat();
    for _ in 0..10 {
        let _ = avc(&mut pictures, 80, &[&sei]);
        assert!(pictures.before.len() <= MAX_BEFORE);
    }
    assert!(!pictures.before.is_empty());
    pictures.forget_units();
    let _ = avc(&mut pictures, 80, &[P]);
    assert_eq!(pictures.end(), Some(picture(80, false, &[P])));
}

proptest! {
    #[test]
    fn no_octets_panic(messages: Vec<(bool, bool, Vec<u8>, Vec<u8>)>) {
        let mut pictures = Pictures::default();
        for (hevc, later, unit, octets) in messages {
            let codec = if hevc { VideoCodec::H265 } else { VideoCodec::H264 };
            let mut units = Units::new(codec, 1 + usize::from(hevc));
            units.see(&unit);
            let mut frame = picture(u32::from(later), false, &[]);
            frame.data = octets.into();
            let _ = pictures.ended_by(frame.timestamp);
            let _ = pictures.take(frame, units);
        }
    }

    /// However messages are cut: each picture comes out once, whole and in order.
    #[test]
    fn every_cut_gives_the_same_pictures(slices in prop::collection::vec((1u8..6, any::<[bool; 6]>()), 1..40)) {
        let (mut pictures, mut gone, mut expected) = (Pictures::default(), Vec::new(), Vec::new());
        for (n, (slices, cuts)) in (0u32..).zip(slices) {
            // The first one tells that this publisher splits pictures.
            let slices = slices.max(if n == 0 { 2 } else { 1 });
            let units: Vec<_> = (0..slices).map(|slice| [0x41, if slice == 0 { 0x80 } else { 0x40 }, slice]).collect();
            let units: Vec<_> = units.iter().map(|unit| &unit[..]).collect();
            let mut from = 0;
            for to in 1..=units.len() {
                if to == units.len() || cuts[to - 1] || n == 0 {
                    gone.extend(avc(&mut pictures, n * 40, &units[from..to]).unwrap());
                    from = to;
                }
            }
            expected.push(picture(n * 40, false, &units));
        }
        gone.extend(pictures.end());
        prop_assert_eq!(gone, expected);
    }
}
