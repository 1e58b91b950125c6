// SPDX-License-Identifier: MPL-2.0

//! Packets of any sizes that come in any order: what leaves fits, is numbered once and without a break, and holds the same
//! units.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::codec::{Codec, sets};
use crate::packet::{LayerReader, RtpIn, tests::rtp};
use crate::rewrite::{Rewriter, Source};
use crate::temporal::Limit;

/// The header of a unit of a picture, of one that no other needs, and of a parameter set.
fn header(format: Format, kind: u8) -> [u8; 2] {
    match (format, kind % 3) {
        (Format::H264, 0) => [0x41, 0],
        (Format::H264, 1) => [0x01, 0],
        (Format::H264, _) => [0x67, 0],
        (Format::H265, 0) => [0x02, 0x01],
        (Format::H265, 1) => [0x00, 0x02],
        (Format::H265, _) => [0x42, 0x01],
    }
}

fn codec(format: Format) -> Codec {
    match format {
        Format::H264 => Codec::H264,
        Format::H265 => Codec::H265,
    }
}

/// A unit whose octets tell which it is and where in it they are.
fn unit(format: Format, kind: u8, index: usize, len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..len)
        .map(|at| (at / 7 + at * 31 + index * 101) as u8)
        .collect();
    format.unit(header(format, kind), &data)
}

/// How a payloader with another limit than ours packs a frame.
fn pack(format: Format, units: &[Vec<u8>], mtu: usize) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut group: Vec<&[u8]> = Vec::new();
    let mut size = 0;
    let flush = |group: &mut Vec<&[u8]>, payloads: &mut Vec<Vec<u8>>| {
        match &group[..] {
            [] => {}
            [one] => payloads.push(one.to_vec()),
            many => payloads.push(format.aggregate(many)),
        }
        group.clear();
    };
    for unit in units {
        if unit.len() > mtu {
            flush(&mut group, &mut payloads);
            size = 0;
            let Content::Part(part) = format.read(unit) else {
                panic!("a unit");
            };
            let room = format.room(mtu);
            let count = part.data.len().div_ceil(room);
            for (index, data) in part.data.chunks(room).enumerate() {
                payloads.push(format.fragment(Part {
                    start: index == 0,
                    end: index + 1 == count,
                    data,
                    ..part
                }));
            }
            continue;
        }
        if format.aggregate_len(size + 2 + unit.len()) > mtu {
            flush(&mut group, &mut payloads);
            size = 0;
        }
        group.push(unit);
        size += 2 + unit.len();
    }
    flush(&mut group, &mut payloads);
    payloads
}

/// What a receiver that got all these packets, by number, makes of them. Units with holes are left out.
fn unpack(format: Format, packets: &BTreeMap<u64, Packet>) -> Vec<(u32, Vec<u8>)> {
    let mut units = Vec::new();
    let mut begun: Option<(u64, u32, Vec<u8>)> = None;
    for (&seq, packet) in packets {
        let before = begun
            .take()
            .filter(|(next, at, _)| (*next, *at) == (seq, packet.timestamp));
        match format.read(&packet.payload) {
            Content::Part(part) if part.start && part.end => {
                units.push((packet.timestamp, format.unit(part.header, part.data)));
            }
            Content::Part(part) => {
                let whole = match (part.start, before) {
                    (true, _) => format.unit(part.header, part.data),
                    (false, Some((_, _, before))) => [&before, part.data].concat(),
                    (false, None) => continue,
                };
                match part.end {
                    true => units.push((packet.timestamp, whole)),
                    false => begun = Some((seq + 1, packet.timestamp, whole)),
                }
            }
            Content::Aggregate(rest) => {
                let inside = format.units(rest).expect("a whole aggregate");
                units.extend(inside.iter().map(|u| (packet.timestamp, u.to_vec())));
            }
            Content::Other => panic!("nothing else was sent"),
        }
    }
    units
}

/// A publisher's packets.
#[derive(Debug, Clone)]
struct Sent {
    packets: Vec<RtpIn>,
    /// Each unit with its timestamp.
    units: Vec<(u32, Vec<u8>)>,
}

fn sent(format: Format, frames: &[Vec<(u8, usize)>], mtu: usize, first: u16) -> Sent {
    let mut sent = Sent {
        packets: Vec::new(),
        units: Vec::new(),
    };
    let mut seq = first;
    for (number, frame) in frames.iter().enumerate() {
        let timestamp = number as u32 * 3_000;
        let units: Vec<_> = frame
            .iter()
            .enumerate()
            .map(|(index, (kind, len))| unit(format, *kind, 16 * number + index, *len))
            .collect();
        let payloads = pack(format, &units, mtu);
        let count = payloads.len();
        for (index, payload) in payloads.into_iter().enumerate() {
            let marker = index + 1 == count;
            sent.packets.push(RtpIn {
                marker,
                ..rtp(seq, timestamp, &payload)
            });
            seq = seq.wrapping_add(1);
        }
        sent.units.extend(units.into_iter().map(|u| (timestamp, u)));
    }
    sent
}

fn read(codec: Codec, batches: impl IntoIterator<Item = Vec<RtpIn>>) -> Vec<Packet> {
    let mut reader = LayerReader::default();
    let mut packets = Vec::new();
    for batch in batches {
        packets.extend(reader.read(codec, batch).0);
    }
    packets
}

fn formats() -> impl Strategy<Value = Format> {
    prop_oneof![Just(Format::H264), Just(Format::H265)]
}

/// Units of frames: small, about as large as a packet, and much larger. A frame is needed by others as a whole or not at
/// all (H.264, 7.4.1: `nal_ref_idc`).
fn frames() -> impl Strategy<Value = Vec<Vec<(u8, usize)>>> {
    let len = prop_oneof![1usize..60, 1_000usize..1_500, 1usize..6_000];
    let frame = (0u8..3, proptest::collection::vec(len, 1..6))
        .prop_map(|(kind, lens)| lens.into_iter().map(|len| (kind, len)).collect());
    proptest::collection::vec(frame, 1..8)
}

/// What the network does with a publisher's packet.
#[derive(Debug, Clone, Copy)]
enum Luck {
    Comes,
    Lost,
    /// Comes again after so many others.
    Twice(usize),
    /// Comes after so many others.
    Late(usize),
}

fn luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        20 => Just(Luck::Comes),
        1 => Just(Luck::Lost),
        1 => (1usize..12).prop_map(Luck::Twice),
        3 => (1usize..12).prop_map(Luck::Late),
    ]
}

/// The packets as they come, and how many never do.
fn network(packets: &[RtpIn], luck: &[Luck]) -> (Vec<RtpIn>, usize) {
    let mut lost = 0;
    let mut order = Vec::new();
    for (index, packet) in packets.iter().enumerate() {
        // The first and the last one come, so that what is missing can be told.
        let inner = index > 0 && index + 1 < packets.len();
        match luck[index % luck.len()] {
            _ if !inner => order.push((2 * index, packet)),
            Luck::Comes => order.push((2 * index, packet)),
            Luck::Lost => lost += 1,
            Luck::Late(after) => order.push((2 * (index + after) + 1, packet)),
            Luck::Twice(after) => {
                order.push((2 * index, packet));
                order.push((2 * (index + after) + 1, packet));
            }
        }
    }
    order.sort_by_key(|(at, _)| *at);
    (order.into_iter().map(|(_, p)| p.clone()).collect(), lost)
}

proptest! {
    #[test]
    fn what_comes_in_order_leaves_whole_and_fits(
        format in formats(),
        frames in frames(),
        mtu in 900usize..3_000,
        first: u16,
        batch in 1usize..9,
    ) {
        let sent = sent(format, &frames, mtu, first);
        let packets = read(codec(format), sent.packets.chunks(batch).map(<[_]>::to_vec));
        for pair in packets.windows(2) {
            prop_assert_eq!(pair[1].seq, pair[0].seq + 1);
        }
        prop_assert!(packets.iter().all(|p| p.payload.len() <= MAX_PAYLOAD));
        let by_number: BTreeMap<_, _> = packets.iter().map(|p| (p.seq, p.clone())).collect();
        prop_assert_eq!(&unpack(format, &by_number), &sent.units);
        prop_assert!(!packets.is_empty());
        // Each frame ends with its marker, and nothing else has one: what comes before pictures alone is no frame.
        for (at, packet) in packets.iter().enumerate() {
            let next = packets.get(at + 1).map(|next| next.timestamp);
            let ends = next != Some(packet.timestamp);
            let is_before = sets::are_before_pictures(format, &packet.payload);
            prop_assert_eq!(packet.marker, ends && !is_before);
        }
        // No more packets than there are octets for, but one for what could not be joined of each unit.
        let octets: usize = packets.iter().map(|p| p.payload.len()).sum();
        let bound = sent.packets.len() + sent.units.len() + octets / format.room(MAX_PAYLOAD);
        prop_assert!(packets.len() <= bound);
        let starts = |packets: &[Packet]| packets.iter().filter(|p| p.keyframe_start).count();
        let is_key = |f: &&Vec<_>| f.iter().any(|(kind, _)| kind % 3 == 2);
        let key_frames = frames.iter().filter(is_key).count();
        // Before the very first one parameter sets may be missing.
        let unsure = usize::from(frames.first().is_some_and(|f| is_key(&f)));
        prop_assert!((key_frames - unsure..=key_frames).contains(&starts(&packets)));
    }

    #[test]
    fn no_number_leaves_twice_and_gaps_are_what_never_came(
        format in formats(),
        frames in frames(),
        mtu in 900usize..2_000,
        first: u16,
        batch in 1usize..9,
        luck in proptest::collection::vec(luck(), 1..64),
    ) {
        let sent = sent(format, &frames, mtu, first);
        let (came, lost) = network(&sent.packets, &luck);
        let packets = read(codec(format), came.chunks(batch).map(<[_]>::to_vec));
        let numbers: HashSet<u64> = packets.iter().map(|p| p.seq).collect();
        prop_assert_eq!(numbers.len(), packets.len(), "a number left twice");
        let (low, high) = (numbers.iter().min().unwrap(), numbers.iter().max().unwrap());
        prop_assert_eq!((high - low + 1) as usize - numbers.len(), lost);
        for packet in &packets {
            prop_assert!(packet.temporal.late || packet.payload.len() <= MAX_PAYLOAD);
        }
        let by_number: BTreeMap<_, _> = packets.iter().map(|p| (p.seq, p.clone())).collect();
        let units = unpack(format, &by_number);
        let known: HashSet<_> = sent.units.iter().collect();
        prop_assert!(units.iter().all(|unit| known.contains(unit)), "a unit that was never sent");
        if lost == 0 {
            prop_assert_eq!(units, sent.units);
        }
    }

    #[test]
    fn viewers_numbers_are_unique_and_without_a_break(
        frames in frames(),
        mtu in 900usize..2_000,
        first: u16,
        luck in proptest::collection::vec(luck(), 1..64),
        base_only: bool,
    ) {
        // Viewers begin with a keyframe.
        let frames = [vec![vec![(2, 20)]], frames].concat();
        let sent = sent(Format::H264, &frames, mtu, first);
        let (came, lost) = network(&sent.packets, &luck);
        let packets = read(Codec::H264, came.chunks(3).map(<[_]>::to_vec));
        let limit = if base_only { Limit::BASE } else { Limit::ALL };
        let mut rewriter = Rewriter::new(90_000);
        let source = Source { epoch: 1, layer: 0 };
        rewriter.switch(source, &packets[0], None, limit);
        let left: Vec<_> = packets.iter().filter_map(|p| rewriter.rewrite(p, None)).collect();
        let numbers: HashSet<u64> = left.iter().map(|r| r.seq).collect();
        prop_assert_eq!(numbers.len(), left.len(), "two contents under one number");
        if let (Some(low), Some(high)) = (numbers.iter().min(), numbers.iter().max()) {
            prop_assert!((high - low + 1) as usize - numbers.len() <= lost);
        }
    }

    #[test]
    fn no_payload_panics(
        format in formats(),
        payloads in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..6), 0usize..4_000, any::<bool>()), 1..20),
    ) {
        let mut octets = 0;
        let packets = payloads.into_iter().zip(0u16..).map(|((head, len, marker), seq)| {
            let payload = [head, vec![seq as u8; len]].concat();
            octets += payload.len();
            RtpIn { marker, ..rtp(seq, 7, &payload) }
        });
        let packets: Vec<_> = packets.collect();
        let packets = read(codec(format), packets.into_iter().map(|p| vec![p]));
        let left: usize = packets.iter().map(|p| p.payload.len()).sum();
        prop_assert!(left <= 2 * octets + 64);
    }
}

#[test]
fn what_can_not_be_taken_apart_passes_as_it_is() {
    let long = |head: &[u8]| [head, &[0x55; 1_400]].concat();
    for (what, format, payload) in [
        ("STAP-A cut short", Format::H264, long(&[0x78, 0xff, 0xff])),
        ("STAP-B", Format::H264, long(&[0x79, 0, 1, 0, 9])),
        ("FU-B", Format::H264, long(&[0x7d, 0x85, 0, 1])),
        ("type 0", Format::H264, long(&[0x60])),
        ("AP cut short", Format::H265, long(&[0x60, 1, 0xff, 0xff])),
        ("PACI", Format::H265, long(&[0x64, 1, 0, 0])),
    ] {
        let [packet] = &read(codec(format), [vec![rtp(1, 0, &payload)]])[..] else {
            panic!("{what}: one packet");
        };
        assert_eq!(*packet.payload, payload[..], "{what}");
    }
    let vp8 = long(&[0x10, 0x01]);
    assert_eq!(read(Codec::Vp8, [vec![rtp(1, 0, &vp8)]]).len(), 1, "VP8");
}

#[test]
fn a_packet_that_is_a_little_too_large_costs_little() {
    // As OBS sends them: fragments with 1,220 octets of a unit of 30 kB.
    let frame = [vec![(2u8, 30_000usize)]];
    let sent = sent(Format::H264, &frame, 1_220, 5);
    assert_eq!(sent.packets.len(), 25);
    let one_by_one = sent.packets.iter().map(|p| vec![p.clone()]);
    let packets = read(Codec::H264, one_by_one);
    assert_eq!(packets.len(), 27);
    assert!(packets[..26].iter().all(|p| p.payload.len() == MAX_PAYLOAD));
}

#[test]
fn what_was_kept_back_leaves_before_a_gap() {
    let frame = [vec![(0u8, 6_000usize)], vec![(0, 100)]];
    let sent = sent(Format::H264, &frame, 1_400, 5);
    // Of the first unit, the third fragment is lost.
    let came = sent.packets.iter().filter(|p| p.seq != 7);
    let packets = read(Codec::H264, came.map(|p| vec![p.clone()]));
    let numbers: Vec<_> = packets.iter().map(|p| p.seq - packets[0].seq).collect();
    assert_eq!(numbers, [0, 1, 2, 4, 5, 6]);
    assert!(packets[2].payload.len() < MAX_PAYLOAD / 2);
}
