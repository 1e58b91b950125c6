// SPDX-License-Identifier: MPL-2.0

//! Who joins sees a picture at once, and who waits for a publisher sees it when it comes.

use std::time::Duration;

use sfu_impair::Conditions;

use crate::net::{good, troubled};
use crate::publisher::TestPublisher;
use crate::world::World;

#[test]
fn a_late_joiner_is_served_from_the_current_group_of_pictures() {
    let mut world = World::new(1, 1);
    world.run_for(Duration::from_millis(1_500));
    let asked = world.publisher.encoder.requests.lock().unwrap().len();
    world.join(good(), None);
    world.run_until("plays", Duration::from_secs(2), |w| {
        w.viewers[0].0.first_picture_at.is_some()
    });
    let (viewer, _) = &world.viewers[0];
    let wait = viewer.first_picture_at.unwrap() - viewer.connected_at.unwrap();
    assert!(
        wait < Duration::from_millis(60),
        "first picture {wait:?} after connecting"
    );
    world.run_for(Duration::from_secs(1));
    let now = world.publisher.encoder.requests.lock().unwrap().len();
    assert_eq!(now, asked, "nobody had to ask the encoder");
    world.check("plays all, in order", |v| {
        let decoded = v.decoded();
        decoded.frames > 70 && decoded.broken == 0 && decoded.gaps == 0 && !decoded.time_went_back
    });
}

#[test]
fn replayed_frames_are_dated_just_before_the_live_ones() {
    let mut world = World::new(1, 1);
    world.run_for(Duration::from_millis(1_500));
    world.join(good(), None);
    world.run_for(Duration::from_secs(1));
    let packets: Vec<_> = world.viewers[0].0.packets.values().collect();
    let first = packets[0].timestamp;
    let span = |frames: u64| {
        let until = packets.iter().find(|p| u64::from(p.mark.frame) >= frames);
        until.map(|p| p.timestamp - first).unwrap()
    };
    // 45 frames were there when the viewer came: a millisecond each instead of a frame's 33.
    assert!(span(40) <= 40 * 90, "{}", span(40));
    let live: Vec<_> = packets
        .iter()
        .filter(|p| p.mark.frame > 55 && p.mark.index == 0)
        .collect();
    for pair in live.windows(2) {
        assert_eq!(pair[1].timestamp - pair[0].timestamp, 33 * 90);
    }
}

#[test]
fn an_old_group_of_pictures_is_not_replayed() {
    let mut world = World::new(1, 1);
    // 40 s without a keyframe: too much to replay.
    world.run_for(Duration::from_secs(40));
    world.join(good(), None);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.publisher.encoder.requests.lock().unwrap().len(), 1);
    world.check("begins with the new keyframe", |v| {
        let first = v.packets.values().next().unwrap().mark;
        first.key && first.frame > 1_200 && v.decoded().broken == 0
    });
}

#[test]
fn viewers_wait_for_a_publisher_that_comes_back() {
    let mut world = World::new(1, 2);
    for _ in 0..3 {
        world.join(good(), None);
    }
    world.run_for(Duration::from_secs(2));
    world.publisher_paused = true;
    world.stream.stop(world.publisher.lease);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.shard.viewers(), 3, "nobody has to join again");
    let before: Vec<_> = world
        .viewers
        .iter()
        .map(|(v, _)| v.decoded().frames)
        .collect();
    world.publisher = TestPublisher::new(world.stream.clone(), world.now, 2);
    world.publisher_paused = false;
    world.run_for(Duration::from_secs(1));
    let mut before = before.into_iter();
    world.check("goes on without a gap", |v| {
        let decoded = v.decoded();
        decoded.frames > before.next().unwrap() + 25
            && decoded.gaps == 0
            && decoded.broken == 0
            && !decoded.time_went_back
    });
}

#[test]
fn sound_comes_with_the_pictures() {
    let mut world = World::new(1, 1);
    world.join(good(), None);
    world.run_for(Duration::from_secs(3));
    world.check("hears", |v| v.audio_packets > 80);
}

#[test]
fn a_join_over_a_lossy_link_takes_longer_and_succeeds() {
    // Where 10 % are lost a handshake may need its fourth repeat, after 15 s: one join of some 500, who then joins anew.
    let mut given_up = Vec::new();
    for (seed, trouble) in troubled(0..20) {
        let mut world = World::new(seed, 1);
        world.trouble = trouble;
        let lossy = Conditions {
            loss: 0.1,
            ..good()
        };
        world.join(lossy, None);
        let end = world.now + Duration::from_secs(15);
        while world.viewers[0].0.connected_at.is_none() && world.now < end {
            world.run_for(Duration::from_millis(10));
        }
        if world.viewers[0].0.connected_at.is_none() {
            given_up.push((seed, trouble));
            continue;
        }
        world.run_for(Duration::from_secs(2));
        let packets = world.viewers[0].0.packets.len();
        assert!(packets > 100, "seed {seed}, {trouble:?}: {packets} packets");
    }
    assert!(given_up.len() <= 2, "of 80 joins: {given_up:?}");
}

/// Each with little room for what is sent from its first moment on. `SFU_JOINS=…` tries more.
#[test]
fn joins_over_links_that_lose_a_little_are_quick() {
    let number = |name: &str, default: u64| {
        let value = std::env::var(name)
            .ok()
            .and_then(|value| value.parse().ok());
        value.unwrap_or(default)
    };
    let (first, count) = (number("SFU_SEED", 0), number("SFU_JOINS", 20));
    let mut slow = Vec::new();
    for (seed, trouble) in troubled(first..first + count) {
        for rate in [None, Some(1_600_000)] {
            let mut world = World::new(seed, 3);
            world.publisher.use_ladder();
            world.trouble = trouble;
            world.run_for(Duration::from_millis(2_900));
            let link = Conditions {
                loss: 0.02,
                rate,
                delay: Duration::from_millis(20),
                ..good()
            };
            world.join(link, None);
            let begun = world.now;
            let end = begun + Duration::from_secs(15);
            let is_connected =
                |w: &World| w.sessions[0].info().connected && w.viewers[0].0.connected_at.is_some();
            while !is_connected(&world) && world.now < end {
                world.run_for(Duration::from_millis(10));
            }
            let took = world.now - begun;
            if took > Duration::from_secs(6) {
                let ours = world.sessions[0].info().connected;
                let theirs = world.viewers[0].0.connected_at;
                slow.push((seed, trouble, rate, took, ours, theirs.is_some()));
            }
        }
    }
    println!("{slow:#?}");
    assert!(slow.is_empty(), "{slow:?}");
}
