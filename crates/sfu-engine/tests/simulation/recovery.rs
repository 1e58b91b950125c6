// SPDX-License-Identifier: MPL-2.0

//! Loss is repaired, garbage is dropped, and a viewer that vanishes is forgotten.

use std::time::Duration;

use sfu_engine::transport::PatchOutcome;

use sfu_impair::{Conditions, Rng};

use crate::net::{Trouble, good, troubled};
use crate::world::World;

const DELAY: Duration = Duration::from_millis(25);

fn link(loss: f64) -> Conditions {
    Conditions {
        delay: DELAY,
        loss,
        ..Conditions::default()
    }
}

#[test]
fn every_video_packet_arrives_over_a_lossy_link() {
    for (seed, trouble) in troubled(0..20) {
        let mut world = World::new(seed, 1);
        // The simulated viewer repairs only its newest 100 packets: five tries must fit in there.
        world.publisher.delta_packets = 1;
        world.publisher.keyframe_every = 30;
        for _ in 0..4 {
            world.join(link(0.0), None);
        }
        world.run_until("all play", Duration::from_secs(10), |w| {
            w.viewers.iter().all(|(v, _)| v.first_picture_at.is_some())
        });
        world.trouble = trouble;
        for viewer in 0..4 {
            world.set_link(viewer, link(0.05));
        }
        world.run_for(Duration::from_secs(20));
        // The last losses are repaired while nothing new is lost.
        world.trouble = Trouble::None;
        for viewer in 0..4 {
            world.set_link(viewer, link(0.0));
        }
        world.run_for(Duration::from_secs(2));
        world.check(&format!("all of 20 s at 5 % loss, {trouble:?}"), |viewer| {
            let decoded = viewer.decoded();
            decoded.gaps == 0 && decoded.broken == 0 && decoded.frames > 600
        });
        let lost: u64 = world.sessions.iter().map(|s| s.info().retransmitted).sum();
        assert!(lost > 80, "something was lost and sent again: {lost}");
    }
}

#[test]
fn garbage_is_dropped_and_counted() {
    let mut world = World::new(1, 1);
    world.join(good(), None);
    world.run_until("plays", Duration::from_secs(3), |w| {
        w.viewers[0].0.first_picture_at.is_some()
    });
    let before = world.counters.snapshot();
    let stranger = "203.0.113.9:9".parse().unwrap();
    let viewer = world.viewers[0].0.address;
    let server = "192.0.2.1:8189".parse().unwrap();
    let mut stun = vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    stun.extend([7; 20]);
    let mut rng = Rng::new(9);
    for round in 0..500usize {
        let mut garbage: Vec<u8> = (0..round % 200).map(|_| rng.next_u64() as u8).collect();
        if round % 5 == 0 {
            garbage.clone_from(&stun);
        }
        world.shard.receive(world.now, stranger, server, &garbage);
        // From the viewer's own address, too: as RTP, RTCP, DTLS and nonsense.
        if let Some(first) = garbage.first_mut() {
            *first = [0x80, 0x80, 22, 0xff][round % 4];
        }
        world.shard.receive(world.now, viewer, server, &garbage);
    }
    let after = world.counters.snapshot();
    assert_eq!(after.datagrams_in - before.datagrams_in, 1_000);
    assert_eq!(after.datagrams_unknown - before.datagrams_unknown, 500);
    assert!(after.datagrams_invalid > before.datagrams_invalid);
    assert_eq!(after.sessions_failed, 0);
    let frames = world.viewers[0].0.decoded().frames;
    world.run_for(Duration::from_secs(2));
    world.check("still plays", |v| {
        v.decoded().frames >= frames + 55 && v.decoded().broken == 0
    });
}

#[test]
fn a_vanished_viewer_is_gone_within_30_seconds() {
    let mut world = World::new(3, 1);
    world.join(good(), None);
    let stays = world.join(good(), None);
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.shard.viewers(), 2);
    world.viewers[0].0.dead = true;
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.shard.viewers(), 1);
    assert_eq!(world.stream.viewers(), 1);
    assert!(
        world.viewers[stays].0.decoded().frames > 900,
        "the other one sees all"
    );
}

#[test]
fn a_viewer_that_never_connects_is_gone_within_30_seconds() {
    let mut world = World::new(4, 1);
    let index = world.join(good(), None);
    world.viewers[index].0.dead = true;
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.shard.viewers(), 0);
}

#[test]
fn an_ice_restart_keeps_the_session() {
    let mut world = World::new(5, 1);
    let index = world.join(good(), None);
    world.run_for(Duration::from_secs(2));
    let fragment = world.viewers[index].0.restart_ice();
    let PatchOutcome::Restarted { fragment, .. } = world.patch(index, &fragment) else {
        panic!("new credentials are an ICE restart");
    };
    assert!(fragment.contains("a=candidate:"), "{fragment}");
    let before = world.viewers[index].0.decoded().frames;
    world.viewers[index].0.restarted(&fragment);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.shard.viewers(), 1);
    world.check("plays on without a gap", |v| {
        let decoded = v.decoded();
        decoded.frames > before + 900 && decoded.broken == 0 && decoded.gaps == 0
    });
}

#[test]
fn candidates_are_taken_and_unusable_ones_passed_over() {
    let mut world = World::new(6, 1);
    let index = world.join(good(), None);
    let fragment = "a=candidate:1 1 udp 2130706431 10.9.9.9 5000 typ host\r\n\
        a=candidate:2 1 udp 2130706431 3a2b.local 5001 typ host\r\na=end-of-candidates\r\n";
    assert_eq!(world.patch(index, fragment), PatchOutcome::Trickled);
    world.run_for(Duration::from_secs(2));
    world.check("plays", |v| v.decoded().frames > 30);
}

/// Keyframe requests that the encoder got so far.
fn asked(world: &World) -> usize {
    world.publisher.encoder.requests.lock().unwrap().len()
}

#[test]
fn loss_far_away_at_any_bitrate_costs_nobody_a_keyframe() {
    // Packets of a frame: 2.4, 8, 16 and 30 Mbit/s.
    for (packets, round_trip) in [
        (9, 160),
        (9, 600),
        (30, 300),
        (60, 300),
        (60, 160),
        (114, 300),
    ] {
        let what = format!("{packets} packets a frame, {round_trip} ms");
        let mut world = World::new(packets.into(), 1);
        world.publisher.delta_packets = packets;
        world.publisher.keyframe_every = 60;
        for _ in 0..3 {
            world.join(good(), None);
        }
        world.run_for(Duration::from_secs(4));
        let far = Conditions {
            delay: Duration::from_millis(round_trip / 2),
            ..Conditions::default()
        };
        world.set_link(0, Conditions { loss: 0.01, ..far });
        world.run_for(Duration::from_secs(1));
        let requests = |world: &World| world.counters.snapshot().keyframe_requests;
        let (before, again) = (requests(&world), world.sessions[0].info().retransmitted);
        world.run_for(Duration::from_secs(12));
        assert_eq!(
            requests(&world),
            before,
            "{what}: all that it asked for was there"
        );
        world.set_link(0, far);
        world.run_for(Duration::from_secs(1));
        let lost = u64::from(packets) * 30 * 12 / 100;
        let again = world.sessions[0].info().retransmitted - again;
        assert!(again > lost * 3 / 4, "{what}: {again} of {lost} sent again");
        // The simulated viewer takes nothing that is older than its newest 100 packets.
        if u64::from(packets) * 30 * round_trip / 1_000 < 60 {
            let gaps = world.viewers[0].0.decoded().gaps;
            assert!(gaps <= 1, "{what}: {gaps} of {lost} not repaired");
        }
        for viewer in 1..3 {
            let decoded = world.viewers[viewer].0.decoded();
            let whole = decoded.gaps == 0 && decoded.broken == 0 && decoded.frames > 450;
            assert!(whole, "{what}: viewer {viewer}: {decoded:?}");
        }
    }
}

#[test]
fn a_joiner_far_away_that_loses_parts_of_the_replay_gets_them_again() {
    let mut world = World::new(8, 1);
    world.publisher.delta_packets = 9;
    world.publisher.keyframe_every = 45;
    world.join(good(), None);
    world.run_for(Duration::from_secs(3));
    let before = asked(&world);
    for seed in 0..20 {
        // At another moment of the group of pictures each time.
        world.run_for(Duration::from_millis(430 + seed));
        let link = Conditions {
            delay: Duration::from_millis(100),
            loss: 0.05,
            ..Conditions::default()
        };
        world.join(link, None);
    }
    world.run_for(Duration::from_secs(4));
    let repaired: u64 = world.sessions.iter().map(|s| s.info().retransmitted).sum();
    assert!(repaired > 200, "{repaired}");
    assert_eq!(asked(&world), before, "no keyframe but the regular ones");
}

#[test]
fn neither_repairs_nor_looks_at_the_layers_take_the_streams_lock() {
    let mut world = World::new(9, 3);
    world.publisher.use_ladder();
    for _ in 0..20 {
        world.join(link(0.0), None);
    }
    world.run_for(Duration::from_secs(15));
    for viewer in 0..20 {
        world.set_link(viewer, link(0.01));
    }
    let again = |world: &World| -> u64 {
        let sessions = world.sessions.iter();
        sessions.map(|s| s.info().retransmitted).sum()
    };
    let (again_before, asked_before) = (again(&world), asked(&world));
    let (locked, start) = (world.stream.locked(), world.now);
    world.run_for(Duration::from_secs(10));
    let frames = (world.now - start).as_millis() as u64 / 33 + 1;
    // Once for each layer and the sound, and to read this number.
    let pushes = frames * 4 + 1;
    let locked = world.stream.locked() - locked;
    assert!(again(&world) - again_before > 300, "repairs");
    let requests = (asked(&world) - asked_before) as u64;
    assert!(
        locked <= pushes + 20 * requests,
        "{locked} locks for {pushes} frames and {requests} keyframe requests"
    );
}
