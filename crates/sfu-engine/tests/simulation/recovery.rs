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
    let PatchOutcome::Restarted { fragment, .. } = world.patch(index, fragment) else {
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
    assert_eq!(world.patch(index, fragment.into()), PatchOutcome::Trickled);
    world.run_for(Duration::from_secs(2));
    world.check("plays", |v| v.decoded().frames > 30);
}
