// SPDX-License-Identifier: MPL-2.0

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::codec::Codec;
use crate::codec::dependency::{Descriptor, Reader};
use crate::packet::{LayerReader, RtpIn};
use crate::temporal::Temporal;
use proptest::prelude::*;

fn packet(seq: u64, timestamp: u32, captured: Instant) -> Packet {
    Packet {
        seq,
        timestamp,
        captured,
        marker: true,
        keyframe_start: true,
        vp8: Some(Vp8Header {
            picture_id: Some(((seq & 0x7fff) as u16, true)),
            tl0_pic_idx: Some(seq as u8),
        }),
        temporal: Temporal::default(),
        payload: Vec::new().into(),
        red: None,
        from_above: 0,
        descriptor: None,
    }
}

const fn source(epoch: u32, layer: usize) -> Source {
    Source { epoch, layer }
}

#[test]
fn a_layer_switch_at_the_same_instant_moves_time_on() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(90_000);
    rewriter.switch(source(0, 0), &packet(70_000, 9_000, now), None, Limit::ALL);
    let a = rewriter.rewrite(&packet(70_000, 9_000, now), None).unwrap();
    assert_eq!((a.seq, a.timestamp), (FIRST_SEQ, 9_000));
    rewriter.switch(source(0, 1), &packet(300_000, 9_000, now), None, Limit::ALL);
    let b = rewriter
        .rewrite(&packet(300_000, 9_000, now), None)
        .unwrap();
    assert_eq!((b.seq, b.timestamp), (FIRST_SEQ + 1, 9_090));
    assert_eq!(rewriter.rewrite(&packet(299_999, 8_000, now), None), None);
}

#[test]
fn a_new_publisher_continues_in_real_time() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(90_000);
    rewriter.switch(source(0, 0), &packet(70_000, 1_000, now), None, Limit::ALL);
    rewriter.rewrite(&packet(70_000, 1_000, now), None);
    let later = now + Duration::from_secs(2);
    rewriter.switch(source(1, 0), &packet(80_000, 77, later), None, Limit::ALL);
    let out = rewriter.rewrite(&packet(80_000, 77, later), None).unwrap();
    assert_eq!(out.timestamp, 1_000 + 180_000);
}

/// Of dependency descriptors. A keyframe whose number is not ahead is one that comes late, to a receiver.
#[test]
fn numbers_of_frames_go_on_whoever_publishes() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(90_000);
    let mut seq = 70_000;
    let mut left = |source, number: u16, begins: bool, late: bool| {
        let [high, low] = number.to_be_bytes();
        let descriptor = Descriptor::read(&[0x80, high, low], &mut Reader::default());
        seq += 1;
        let mut packet = Packet {
            keyframe_start: begins,
            descriptor: descriptor.map(Arc::new),
            ..packet(seq, seq as u32 * 3_000, now)
        };
        packet.temporal.late = late;
        if rewriter.source() != Some(source) {
            rewriter.switch(source, &packet, None, Limit::ALL);
        }
        rewriter.rewrite(&packet, None).unwrap().frame_number
    };
    for (epoch, layer, number, begins, late, expected) in [
        (0, 0, 20_000, true, false, 20_000),
        (0, 0, 20_001, false, false, 20_001),
        (0, 0, 20_007, false, false, 20_007),
        // Comes late.
        (0, 0, 20_004, false, true, 20_004),
        // Another spatial layer of the same publisher.
        (0, 1, 20_010, true, false, 20_010),
        (0, 1, 20_010, false, false, 20_010),
        // Another publisher, which counts anew; and one whose numbers are ahead.
        (1, 0, 1, true, false, 20_011),
        (1, 0, 3, false, false, 20_013),
        (1, 0, 2, true, true, 20_012),
        (2, 0, 20_000, true, false, 40_010),
        (2, 0, 25_600, false, false, 45_610),
        // It begins anew in the middle.
        (2, 0, 25_599, true, false, 45_611),
        (2, 0, 25_600, false, false, 45_612),
        (2, 0, 45_530, false, false, 6),
    ] {
        let number_out = left(source(epoch, layer), number, begins, late);
        assert_eq!(number_out, Some(expected), "{epoch} {layer} {number}");
    }
}

#[test]
fn replayed_packets_are_not_sent_twice() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(90_000);
    let squeezed = Some(Squeezed {
        timestamp: 8_910,
        captured: now,
    });
    rewriter.switch(
        source(0, 0),
        &packet(70_000, 3_000, now),
        squeezed,
        Limit::ALL,
    );
    let first = rewriter
        .rewrite(&packet(70_000, 3_000, now), squeezed)
        .unwrap();
    assert_eq!(first.timestamp, 8_910);
    rewriter.set_replayed(70_001, Vec::new());
    assert_eq!(rewriter.rewrite(&packet(70_001, 9_000, now), None), None);
    let live = rewriter
        .rewrite(&packet(70_002, 12_000, now), None)
        .unwrap();
    assert_eq!((live.seq, live.timestamp), (FIRST_SEQ + 2, 12_000));
}

#[test]
fn what_a_replay_lacked_takes_its_place_once() {
    let now = Instant::now();
    let mut rewriter = Rewriter::new(90_000);
    let squeezed = |timestamp| {
        Some(Squeezed {
            timestamp,
            captured: now,
        })
    };
    let first = packet(70_000, 3_000, now);
    rewriter.switch(source(0, 0), &first, squeezed(3_000), Limit::ALL);
    rewriter.set_replayed(70_003, vec![70_001, 70_002]);
    for seq in [70_000, 70_003] {
        let out = rewriter.rewrite(&packet(seq, 3_000, now), squeezed(3_000));
        assert_eq!(out.unwrap().seq, FIRST_SEQ + seq - 70_000);
    }
    for (seq, passes) in [
        (70_000, false),
        (70_002, true),
        (70_002, false),
        (70_003, false),
        (70_001, true),
        (70_001, false),
        (70_004, true),
    ] {
        let out = rewriter.rewrite(&packet(seq, 3_000, now), None);
        let wanted = passes.then_some(FIRST_SEQ + seq - 70_000);
        assert_eq!(out.map(|o| o.seq), wanted, "{seq}");
    }
}

proptest! {
    /// Whatever the layers, publishers and wraps: numbers rise by one a packet, picture ids too, time moves on.
    #[test]
    fn the_outgoing_stream_is_continuous(
        runs in proptest::collection::vec((0u32..3, 0usize..3, 1u64..40, any::<u32>(), any::<u16>()), 1..20)
    ) {
        let mut rewriter = Rewriter::new(90_000);
        let mut now = Instant::now();
        let mut last: Option<Rewritten> = None;
        for (n, (_, layer, count, timestamp, seq)) in runs.into_iter().enumerate() {
            let first_seq = (1 << 16) + u64::from(seq);
            let source = source(n as u32, layer);
            for i in 0..count {
                now += Duration::from_millis(33);
                let packet = packet(first_seq + i, timestamp.wrapping_add(i as u32 * 3_000), now);
                if i == 0 {
                    rewriter.switch(source, &packet, None, Limit::ALL);
                }
                let out = rewriter.rewrite(&packet, None).expect("packets in order are forwarded");
                if let Some(last) = last {
                    prop_assert_eq!(out.seq, last.seq + 1);
                    prop_assert!(is_after(out.timestamp, last.timestamp));
                    let id = |r: Rewritten| r.vp8.unwrap().picture_id.unwrap().0;
                    prop_assert_eq!(id(out), (id(last) + 1) & 0x7fff);
                    let tl0 = |r: Rewritten| r.vp8.unwrap().tl0_pic_idx.unwrap();
                    prop_assert_eq!(tl0(out), tl0(last).wrapping_add(1));
                }
                last = Some(out);
            }
        }
    }
}

/// Frames of one to three packets in the order of their arrival, with the temporal layers 0 2 1 2, some late and some lost.
fn arrivals(frames: &[(u8, u8)], lost: &[bool], delays: &[u8]) -> Vec<RtpIn> {
    let now = Instant::now();
    let mut sent = Vec::new();
    let mut lowest = 0u8;
    for (n, &(packets, _)) in frames.iter().enumerate() {
        let id = [0u8, 2, 1, 2][n % 4];
        lowest = lowest.wrapping_add(u8::from(id == 0));
        let y = u8::from(n % 4 != 3) << 5;
        for index in 0..packets {
            let start = if index == 0 { 0x90 } else { 0x80 };
            let [hi, lo] = (n as u16 | 0x8000).to_be_bytes();
            sent.push(RtpIn {
                seq: (60_000 + sent.len()) as u16,
                timestamp: n as u32 * 3_000,
                captured: now + Duration::from_millis(33) * n as u32,
                marker: index + 1 == packets,
                payload: [start, 0xe0, hi, lo, lowest, id << 6 | y, u8::from(n > 0)].into(),
                red: None,
                layering: crate::packet::Layering::default(),
            });
        }
    }
    let mut order: Vec<_> = (0..sent.len())
        .filter(|&n| n < 8 || !lost[n % lost.len()])
        .map(|n| {
            let delay = if n < 8 { 0 } else { delays[n % delays.len()] };
            (n + usize::from(delay), n)
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, n)| sent[n].clone()).collect()
}

proptest! {
    /// Whatever is late, lost or left out: no number leaves twice, frames are left out whole, and what is missing in the
    /// end is what never came.
    #[test]
    fn temporal_layers_are_left_out_without_a_trace(
        frames in proptest::collection::vec((1u8..4, 0u8..5), 20..150),
        lost in proptest::collection::vec(proptest::bool::weighted(0.03), 97),
        delays in proptest::collection::vec(prop_oneof![8 => Just(0u8), 1 => 1u8..10], 89),
    ) {
        let mut reader = LayerReader::default();
        let mut rewriter = Rewriter::new(90_000);
        let incoming = arrivals(&frames, &lost, &delays);
        let total: usize = frames.iter().map(|(packets, _)| usize::from(*packets)).sum();
        let never_came = total - incoming.len();
        let mut left = BTreeMap::new();
        for rtp in incoming {
            // Now and then the viewer wants something else.
            let n = (rtp.timestamp / 3_000) as usize;
            let wish = if n.is_multiple_of(12) { frames[n].1 } else { u8::MAX };
            if let Some(id) = [0, 1, 3].get(usize::from(wish)) {
                rewriter.set_limit(Limit::up_to(*id));
            }
            for packet in reader.read(Codec::Vp8, [rtp]).0 {
                if rewriter.source().is_none() {
                    rewriter.switch(source(0, 0), &packet, None, Limit::ALL);
                }
                if let Some(out) = rewriter.rewrite(&packet, None) {
                    prop_assert!(left.insert(out.seq, (packet, out)).is_none(), "{} leaves twice", out.seq);
                }
            }
        }
        let (first, last) = (*left.keys().next().unwrap(), *left.keys().last().unwrap());
        prop_assert_eq!(first, FIRST_SEQ);
        let holes = (last - first + 1) as usize - left.len();
        prop_assert!(holes <= never_came, "{} holes, {} never came", holes, never_came);
        let full = left.values().filter(|(_, out)| !out.empty);
        let mut before: Option<&(Packet, Rewritten)> = None;
        for pair @ (packet, out) in full {
            let id = |r: &Rewritten| r.vp8.unwrap().picture_id.unwrap().0;
            if let Some((packet_before, out_before)) = before {
                prop_assert!(packet.seq > packet_before.seq, "in order");
                let frames = u16::from(packet.timestamp != packet_before.timestamp);
                let adjacent = out.seq == out_before.seq + 1;
                prop_assert!(id(out) - id(out_before) >= frames);
                prop_assert!(!adjacent || never_came > 0 || id(out) == id(out_before) + frames);
            }
            before = Some(pair);
        }
    }
}
