// SPDX-License-Identifier: MPL-2.0

//! Whatever a publisher's packets look like, viewers see one stream: no gap but what was lost, no jump of numbers or times,
//! and nothing of what others wrote in its name.

use std::time::Duration;

use sfu_impair::Rng;

use crate::net::good;
use crate::raw::{RTX, Raw, Rtp, VIDEO};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MID: u8 = 4;

/// All frames, in one piece.
fn saw_all(world: &World, viewer: usize, frames: u64) {
    let decoded = world.viewers[viewer].0.decoded();
    assert!(decoded.frames >= frames, "{decoded:?}");
    let whole = decoded.gaps == 0 && decoded.broken == 0 && !decoded.time_went_back;
    assert!(whole, "{decoded:?}");
}

/// The longest step between the timestamps of two frames, in ms.
fn longest_step(world: &World, viewer: usize) -> u64 {
    let packets = world.viewers[viewer].0.packets.values();
    let times: Vec<_> = packets.map(|p| p.timestamp).collect();
    let steps = times.windows(2).map(|w| w[1].saturating_sub(w[0]));
    steps.max().unwrap() / 90
}

fn one_octet(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id << 4 | (value.len() as u8 - 1)], value].concat()
}

fn two_octets(id: u8, value: &[u8]) -> Vec<u8> {
    [&[id, value.len() as u8], value].concat()
}

/// A world in which a viewer watches the publisher.
fn watched(seed: u64) -> (World, Raw) {
    let (mut world, mut raw) = Raw::world(seed);
    raw.send_frames(&mut world, 3);
    world.join(good(), None);
    raw.key = true;
    raw.send_frames(&mut world, 30);
    raw.key = true;
    (world, raw)
}

#[test]
fn packets_are_told_apart_by_whatever_they_say_of_themselves() {
    let mid = |world: &World| world.peers[0].0.video_mid().into_bytes();
    type Names = fn(&[u8]) -> Option<(u16, Vec<u8>)>;
    for (what, extension) in [
        ("nothing: no MID, no a=ssrc", (|_| None) as Names),
        ("MID", |mid| Some((0xbede, one_octet(MID, mid)))),
        ("MID, two octets", |mid| {
            Some((0x1000, two_octets(MID, mid)))
        }),
        ("an unknown profile", |_| Some((0x4321, vec![0x11; 8]))),
        ("an unknown extension, two octets", |_| {
            Some((0x1007, two_octets(99, &[7; 200])))
        }),
        ("what ends in the middle", |_| {
            Some((0xbede, vec![0, 0, 0, 0x4f]))
        }),
    ] {
        let (mut world, mut raw) = Raw::world(1);
        let mid = mid(&world);
        raw.next.extension = extension(&mid);
        raw.send_frames(&mut world, 3);
        world.join(good(), None);
        raw.key = true;
        raw.send_frames(&mut world, 60);
        println!("{what}");
        saw_all(&world, 0, 50);
        assert_eq!(
            world.counters.snapshot().publisher_packets_unrouted,
            0,
            "{what}"
        );
    }
}

#[test]
fn padding_leaves_no_gap() {
    for seed in 0..5 {
        let (mut world, mut raw) = watched(seed);
        let mut rng = Rng::new(seed);
        for _ in 0..300 {
            let mut packets = raw.frame();
            // Chromium's probes come in bursts of padding, under numbers of the media, behind a frame.
            let before = raw.next.clone();
            raw.next.marker = false;
            raw.next.timestamp = before.timestamp.wrapping_sub(33 * 90);
            for _ in 0..rng.next_u64() % 8 {
                raw.next.padding = 224;
                packets.push(raw.sealed(&[]));
            }
            raw.next.padding = 0;
            raw.next.timestamp = before.timestamp;
            // Some overtake each other.
            for at in 1..packets.len() {
                if rng.chance(0.1) {
                    packets.swap(at - 1, at);
                }
            }
            for data in packets {
                world.inject_from_peer(0, &data);
            }
            world.run_for(Duration::from_millis(33));
        }
        saw_all(&world, 0, 320);
    }
}

#[test]
fn an_encoder_that_begins_anew_is_followed() {
    for (what, bye) in [("at once", false), ("after a goodbye", true)] {
        let (mut world, mut raw) = watched(1);
        for n in 1..6u32 {
            if bye {
                let mut goodbye = Vec::new();
                goodbye.extend([0x80, 201, 0, 1, 0, 0, 0, 9]);
                sfu_engine::rtcp::write_bye(&mut goodbye, &[raw.next.ssrc]);
                let data = raw.seal_report(goodbye);
                world.inject_from_peer(0, &data);
            }
            let before = raw.next.clone();
            raw.next.ssrc = before.ssrc + n;
            raw.next.index = u64::from(n) * 11_111;
            raw.next.timestamp = before.timestamp.wrapping_mul(77) ^ 0x8000_0000;
            raw.key = true;
            raw.send_frames(&mut world, 30);
            // What of the one before is still on its way comes to nobody.
            let late = raw.seal(&before);
            world.inject_from_peer(0, &late);
        }
        println!("{what}");
        saw_all(&world, 0, 30 + 5 * 30 - 10);
        assert!(longest_step(&world, 0) < 200);
    }
}

#[test]
fn an_encoder_that_begins_anew_without_a_keyframe_is_asked_for_one() {
    let (mut world, mut raw) = watched(1);
    raw.send_frames(&mut world, 10);
    raw.told(&mut world);
    raw.next.ssrc += 1;
    raw.send_frame(&mut world);
    let told = raw.told(&mut world);
    assert_eq!(told.keyframes, [raw.next.ssrc]);
}

#[test]
fn jumps_of_numbers_and_times_do_not_reach_viewers() {
    for (what, index, timestamp) in [
        ("time, ahead", 0, 90_000 * 60),
        ("time, far ahead", 0, 1 << 31),
        ("time, back", 0, 0u32.wrapping_sub(90_000 * 60)),
        ("numbers", 20_000, 0),
        ("both", 30_000, 123_456_789),
    ] {
        let (mut world, mut raw) = watched(1);
        raw.send_frames(&mut world, 30);
        raw.next.index += index;
        raw.next.timestamp = raw.next.timestamp.wrapping_add(timestamp);
        raw.key = true;
        raw.send_frames(&mut world, 60);
        let decoded = world.viewers[0].0.decoded();
        assert!(decoded.frames >= 110, "{what}: {decoded:?}");
        assert!(!decoded.time_went_back, "{what}");
        assert!(decoded.gaps <= u64::from(index > 0), "{what}: {decoded:?}");
        assert!(
            longest_step(&world, 0) < 500,
            "{what}: {}",
            longest_step(&world, 0)
        );
    }
}

#[test]
fn who_joins_late_gets_parameter_sets_that_came_once() {
    let (sps, pps) = ([0x67, 0x42, 0xc0, 0x1f, 0xda, 1], [0x68, 0xce, 0x3c]);
    for aggregated in [false, true] {
        let (mut world, mut raw) = Raw::world(1);
        raw.is_bare = true;
        let together = [&[0x78, 0, 6][..], &sps, &[0, 3], &pps].concat();
        let payloads = match aggregated {
            false => vec![sps.to_vec(), pps.to_vec()],
            true => vec![together.clone()],
        };
        for payload in payloads {
            let data = raw.sealed(&payload);
            world.inject_from_peer(0, &data);
        }
        raw.send_frames(&mut world, 90);
        for _ in 0..3 {
            raw.key = true;
            raw.send_frames(&mut world, 20);
            world.join(good(), None);
            raw.send_frames(&mut world, 40);
        }
        for (viewer, seen) in [170, 110, 50].into_iter().enumerate() {
            saw_all(&world, viewer, seen - 15);
            let viewer = &world.viewers[viewer].0;
            let (first, _) = viewer.packets.first_key_value().unwrap();
            assert_eq!(
                viewer.sets.first(),
                Some(&(first - 1)),
                "before the first picture"
            );
        }
    }
}

#[test]
fn what_is_lost_is_asked_for_where_there_is_no_rtx() {
    for seed in 0..5 {
        let (mut world, mut raw) = watched(seed);
        let mut rng = Rng::new(seed);
        let mut later = Vec::new();
        let trip = Duration::from_millis(40);
        let mut asked = 0;
        for n in 0..450 {
            for data in raw.frame() {
                // The last ones come, so that it is known what was lost before them.
                if n > 420 || !rng.chance(0.02) {
                    world.inject_from_peer(0, &data);
                }
            }
            for _ in 0..11 {
                asked += raw.obey(&mut world, trip, &mut later).lost.len();
                later.retain(|(at, data)| {
                    let waits = *at > world.now;
                    if !waits && !rng.chance(0.02) {
                        world.inject_from_peer(0, data);
                    }
                    waits
                });
                world.run_for(Duration::from_millis(3));
            }
        }
        world.run_for(SECOND);
        saw_all(&world, 0, 470);
        // 27 of 1,350 were lost; each is asked for once, or once more.
        assert!((15..80).contains(&asked), "{asked}");
    }
}

#[test]
fn what_never_comes_is_not_asked_for_for_ever() {
    let (mut world, mut raw) = watched(1);
    raw.told(&mut world);
    let mut largest = 0;
    let mut asked = 0;
    for n in 0..300 {
        let packets = raw.frame();
        // Of each second frame all but the last.
        let skipped = if n % 2 == 0 { packets.len() - 1 } else { 0 };
        for data in &packets[skipped..] {
            world.inject_from_peer(0, data);
        }
        world.run_for(Duration::from_millis(33));
        let told = raw.told(&mut world);
        asked += told.lost.len();
        largest = largest.max(told.largest);
        raw.key = false;
    }
    assert!(asked <= 300 * 10, "{asked}");
    assert!(largest < 1_200, "{largest}");
}

#[test]
fn forged_packets_change_nothing() {
    let (mut world, mut raw) = watched(1);
    let mid = world.peers[0].0.video_mid().into_bytes();
    let mut rng = Rng::new(1);
    for n in 0..200u32 {
        let mut forged = Rtp {
            ssrc: if n % 2 == 0 { raw.next.ssrc } else { n },
            index: if n % 3 == 0 { raw.next.index } else { 7 },
            extension: Some((0xbede, one_octet(MID, &mid))),
            payload: vec![0x67; 1_000],
            ..raw.next.clone()
        };
        if n % 5 == 0 {
            forged.pt = RTX;
        }
        let (mut data, _) = forged.clear();
        data.extend((0..16).map(|_| rng.next_u64() as u8));
        assert!(world.inject_from_peer(0, &data), "dropped as invalid");
        raw.send_frame(&mut world);
    }
    saw_all(&world, 0, 220);
    assert_eq!(world.counters.snapshot().publisher_ssrcs_forgotten, 0);
}

#[test]
fn ssrcs_without_end_take_no_memory_and_end_nothing() {
    let (mut world, mut raw) = watched(1);
    for n in 0..1_000 {
        let packet = Rtp {
            ssrc: 100_000 + n,
            payload: vec![0x41, 0],
            pt: 111,
            ..Rtp::default()
        };
        let data = raw.seal(&packet);
        world.inject_from_peer(0, &data);
        if n % 20 == 0 {
            raw.send_frame(&mut world);
        }
    }
    raw.send_frames(&mut world, 30);
    saw_all(&world, 0, 30 + 50 + 20);
    let forgotten = world.counters.snapshot().publisher_ssrcs_forgotten;
    assert!(forgotten > 900, "{forgotten}");
}

#[test]
fn authentic_nonsense_ends_nothing() {
    for seed in 0..3 {
        let (mut world, mut raw) = watched(seed);
        let mut rng = Rng::new(seed);
        for n in 0..2_000 {
            let mut octets = |most: u64| {
                let count = rng.next_u64() % most;
                (0..count).map(|_| rng.next_u64() as u8).collect::<Vec<_>>()
            };
            let (elements, payload) = (octets(60), octets(300));
            let mut word = || rng.next_u64();
            let packet = Rtp {
                ssrc: word() as u32 % 8,
                index: n + word() % 2_000,
                pt: [VIDEO, RTX, 111, 63, 13][word() as usize % 5],
                timestamp: word() as u32,
                marker: word() % 2 == 0,
                extension: (word() % 2 == 0)
                    .then_some(([0xbede, 0x1000, 0x1234][word() as usize % 3], elements)),
                payload,
                padding: if word() % 4 == 0 { word() as u8 } else { 0 },
            };
            let (mut data, header) = packet.clear();
            // Its padding may be any.
            if let Some(last) = data.last_mut().filter(|_| packet.padding > 0) {
                *last = word() as u8;
            }
            raw.seal_clear(&mut data, header, packet.index);
            world.inject_from_peer(0, &data);
            if n % 50 == 0 {
                world.run_for(Duration::from_millis(20));
            }
        }
        let counters = world.counters.snapshot();
        assert_eq!(counters.sessions_failed, 0);
        assert_eq!(counters.sessions_closed, 0);
        // The publisher goes on, under an SSRC of its own.
        raw.next.ssrc = 0x77_7777;
        raw.next.index = 3_000;
        raw.key = true;
        let before = world.viewers[0].0.decoded().frames;
        raw.send_frames(&mut world, 60);
        let after = world.viewers[0].0.decoded().frames;
        assert!(after > before + 20, "{before}, {after}");
    }
}

#[test]
fn receiver_reports_tell_what_was_lost() {
    let (mut world, mut raw) = watched(1);
    raw.told(&mut world);
    for _ in 0..90 {
        let packets = raw.frame();
        for (n, data) in packets.iter().enumerate() {
            if n != 1 {
                world.inject_from_peer(0, data);
            }
        }
        world.run_for(Duration::from_millis(33));
    }
    let told = raw.told(&mut world);
    let blocks: Vec<_> = told
        .blocks
        .iter()
        .filter(|b| b.0 == raw.next.ssrc)
        .collect();
    assert!((2..=4).contains(&blocks.len()), "one a second: {blocks:?}");
    // A third, in 256ths.
    assert!((70..=90).contains(&blocks.last().unwrap().1), "{blocks:?}");
    assert!(blocks.last().unwrap().2 > 50);
}
