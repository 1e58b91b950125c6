// SPDX-License-Identifier: MPL-2.0

use proptest::prelude::*;

use super::*;
use crate::codec::TrackKind;
use crate::temporal::Temporal;

const MS: Duration = Duration::from_millis(1);

/// Packets by number, of frames of ten packets; those whose numbers are multiples of `every` begin keyframes.
fn batch(seqs: &[u64], every: u64, size: usize) -> Arc<Batch> {
    let packets = seqs.iter().map(|&seq| Packet {
        seq,
        timestamp: (seq / 10) as u32 * 3_000,
        captured: Instant::now(),
        marker: seq % 10 == 9,
        keyframe_start: seq.is_multiple_of(every),
        vp8: None,
        temporal: Temporal::default(),
        payload: vec![0; size].into(),
        red: None,
        from_above: 0,
        descriptor: None,
    });
    Arc::new(Batch {
        kind: TrackKind::Video,
        layer: 0,
        epoch: 0,
        packets: packets.collect(),
    })
}

fn push(gop: &mut GopCache, now: Instant, seqs: impl IntoIterator<Item = u64>) {
    for seq in seqs {
        gop.push(now, &batch(&[seq], 100, 10));
    }
}

fn numbers(gop: &Gop) -> Vec<u64> {
    gop.packets.iter().map(|k| k.packet().seq).collect()
}

#[test]
fn holds_what_follows_the_last_keyframe() {
    let now = Instant::now();
    let mut gop = GopCache::default();
    push(&mut gop, now, 150..160);
    assert!(gop.get(now).is_none(), "no keyframe yet");
    gop.push(now, &batch(&[198, 199, 200, 201], 100, 10));
    assert_eq!(numbers(&gop.get(now).unwrap()), [200, 201]);
    push(&mut gop, now, 202..300);
    assert_eq!(gop.get(now).unwrap().packets.len(), 100);
    push(&mut gop, now, 300..302);
    assert_eq!(numbers(&gop.get(now).unwrap()), [300, 301]);
    assert!(gop.get(now + MAX_SILENCE).is_none(), "stale");
    gop.clear();
    assert!(gop.get(now).is_none());
}

#[test]
fn what_comes_late_takes_its_place() {
    let now = Instant::now();
    for (order, holes) in [
        (&[100, 102, 101, 103][..], &[][..]),
        (&[100, 103], &[101, 102]),
        (&[100, 103, 102], &[101]),
        (&[100, 104, 101, 103, 102], &[]),
        // The keyframe's start is late itself.
        (&[90, 91, 101, 102, 100], &[]),
        (&[90, 91, 103, 100, 101], &[102]),
        (&[100, 101, 99, 98], &[]),
        (&[100, 99, 199, 200, 201, 150], &[]),
    ] {
        let mut gop = GopCache::default();
        push(&mut gop, now, [0]);
        // The rest of the group of pictures before.
        push(&mut gop, now, 1..90);
        push(&mut gop, now, order.iter().copied());
        let Some(kept) = gop.get(now) else {
            assert!(order.contains(&199), "{order:?}");
            continue;
        };
        assert_eq!(kept.holes, holes, "{order:?}");
        let numbers = numbers(&kept);
        assert!(
            numbers.is_sorted() && numbers[0].is_multiple_of(100),
            "{numbers:?}"
        );
        let start = numbers[0];
        let all: Vec<u64> = order.iter().copied().filter(|seq| *seq >= start).collect();
        assert_eq!(numbers.len(), all.len(), "{order:?}");
    }
}

#[test]
fn what_never_comes_ends_it_after_a_while() {
    let now = Instant::now();
    let mut gop = GopCache::default();
    push(&mut gop, now, [100, 102]);
    assert!(gop.get(now + PATIENCE - MS).is_some());
    assert!(gop.get(now + PATIENCE).is_none());
    push(&mut gop, now + PATIENCE, [103, 101]);
    assert!(gop.get(now + PATIENCE).is_none(), "until the next keyframe");
    push(&mut gop, now + PATIENCE, [200]);
    assert!(gop.get(now + PATIENCE).is_some());
    // More than repair brings.
    push(&mut gop, now, [202 + MAX_HOLES as u64 + 1]);
    assert!(gop.get(now).is_none());
}

#[test]
fn two_seconds_are_held_up_to_20_mbit_and_a_bound_is_kept() {
    let now = Instant::now();
    for (mbit, seconds, is_held) in [
        (1, 9, true),
        (4, 4, true),
        (4, 8, true),
        (8, 2, true),
        (8, 4, true),
        (20, 2, true),
        (20, 4, false),
        (1, 11, false),
    ] {
        let mut gop = GopCache::default();
        let per_frame = (mbit * 1_000_000 / 8 / 30 / 1_000).max(1) as u64;
        let mut seq = 1_000_000;
        for frame in 0..seconds * 30 {
            let key = if frame == 0 { 1_000_000 } else { u64::MAX };
            let mut packets = batch(&(seq..seq + per_frame).collect::<Vec<_>>(), key, 1_000);
            for packet in &mut Arc::get_mut(&mut packets).unwrap().packets {
                packet.timestamp = frame as u32 * 3_000;
            }
            seq += per_frame;
            gop.push(now + MS * 33 * frame as u32, &packets);
            assert!(gop.held.octets() <= MAX_OCTETS);
        }
        let end = now + MS * 33 * (seconds * 30) as u32;
        assert_eq!(
            gop.get(end).is_some(),
            is_held,
            "{mbit} Mbit/s, {seconds} s"
        );
        if !is_held {
            assert_eq!(gop.held.octets(), 0, "the memory is given back");
        }
    }
}

proptest! {
    /// Whatever order packets come in and whatever is lost: what is kept is in order, begins with a keyframe, knows what is
    /// missing, and nothing is kept twice.
    #[test]
    fn what_is_kept_is_whole_but_for_its_holes(
        seqs in proptest::collection::vec(100u64..420, 1..600),
        every in 20u64..120,
    ) {
        let now = Instant::now();
        let mut gop = GopCache::default();
        for seq in seqs {
            gop.push(now, &batch(&[seq], every, 10));
            let Some(kept) = gop.get(now) else { continue };
            let numbers = numbers(&kept);
            prop_assert!(numbers.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(kept.packets[0].packet().timestamp <= numbers[0] as u32 / 10 * 3_000);
            let (first, last) = (numbers[0], *numbers.last().unwrap());
            let mut all: Vec<u64> = numbers.iter().chain(&kept.holes).copied().collect();
            all.sort_unstable();
            prop_assert!(all.iter().copied().eq(first..=last), "{all:?}");
            prop_assert_eq!(gop.held.octets(), numbers.len() * (10 + PACKET));
        }
    }
}
