// SPDX-License-Identifier: MPL-2.0

//! What keyframes cost: whoever asks for them without end, in whatever way, leaves the others nearly alone.

use std::time::{Duration, Instant};

use sfu_impair::Conditions;

use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A stream that two others watch, and what was asked of its encoder so far.
fn watched(seed: u64, layers: usize) -> World {
    let mut world = World::new(seed, layers);
    // A packet a frame and layer is enough, and fast.
    world.publisher.delta_packets = 1;
    for _ in 0..2 {
        world.join(good(), Some("0"));
    }
    world.run_for(3 * SECOND);
    world.check("watches", |v| v.decoded().frames > 60);
    world
}

fn asked_since(world: &World, start: Instant) -> usize {
    world.asked_at.iter().filter(|at| **at >= start).count()
}

/// The first two viewers have seen all.
fn others_saw_all(world: &World, what: &str) {
    for (viewer, _) in &world.viewers[..2] {
        let decoded = viewer.decoded();
        let frames = (world.now - world.start).as_millis() / 33;
        assert!(
            decoded.broken == 0 && decoded.gaps == 0 && decoded.frames + 60 > frames as u64,
            "{what}: {decoded:?} of {frames}"
        );
    }
}

#[test]
fn one_viewer_without_nack_and_one_loss_a_second_costs_the_others_little() {
    // Some 120 packets a second.
    let lossy = Conditions {
        loss: 1.0 / 120.0,
        ..good()
    };
    let mut world = watched(1, 1);
    world.publisher.delta_packets = 3;
    world.viewers_lack_rtx = Some(sfu_engine::Codec::H264);
    world.viewers_lack_nack = true;
    let viewer = world.join(good(), None);
    world.viewers[viewer].0.asks = true;
    world.run_for(2 * SECOND);
    world.set_link(viewer, lossy);
    for most in [14, 9, 9] {
        let start = world.now;
        world.run_for(MINUTE);
        let asked = asked_since(&world, start);
        println!("{asked} keyframes in a minute");
        assert!((4..=most).contains(&asked), "{asked}, not {most}");
    }
    let lost = world.viewers[viewer].0.decoded();
    assert!(lost.gaps > 50, "{lost:?}");
    others_saw_all(&world, "the others");
}

#[test]
fn whoever_asks_in_a_loop_is_served_seldom_and_others_at_once() {
    // What a viewer does, of so many layers, and the most keyframes of one layer and minute.
    type Abuse = fn(&mut World, usize, u32);
    let flood: Abuse = |_, _, _| {};
    let flap: Abuse = |world, viewer, n| {
        let layer = ["0", "1"][n as usize % 2];
        world.set_layer(viewer, Some(layer));
    };
    let pause: Abuse = |world, viewer, n| {
        let preference = sfu_engine::Preference {
            video_paused: n.is_multiple_of(2),
            ..Default::default()
        };
        world.set_preference(viewer, preference);
    };
    let come_and_go: Abuse = |world, _, n| {
        if n.is_multiple_of(5) {
            let last = world.viewers.len() - 1;
            world.leave(last);
            world.join(good(), Some("0"));
        }
    };
    for (what, layers, flooding, act, most) in [
        ("a flood of PLI", 1, true, flood, 14),
        ("layers changed 10 times a second", 2, false, flap, 14),
        ("both", 2, true, flap, 14),
        ("pictures paused and not", 1, false, pause, 14),
        ("joins and leaves", 1, false, come_and_go, 45),
        ("joins, leaves and PLI", 1, true, come_and_go, 45),
    ] {
        let mut world = watched(2, layers);
        // No group of pictures that could be replayed.
        world.run_for(10 * SECOND);
        let viewer = world.join(good(), Some("0"));
        world.run_for(SECOND);
        let start = world.now;
        for n in 0..600 {
            act(&mut world, viewer, n);
            if flooding {
                let last = world.viewers.len() - 1;
                world.viewers[last].0.nag = Some((Duration::from_millis(20), world.now));
            }
            world.run_for(Duration::from_millis(100));
        }
        let asked = asked_since(&world, start);
        let info = world.stream.info(world.now);
        println!(
            "{what}: {asked} keyframes in a minute of {} requests, {} refused, {} merged",
            info.keyframe_requests_received,
            info.keyframe_requests_refused,
            info.keyframe_requests_merged
        );
        assert!(asked <= most, "{what}: {asked}");
        let known = info.keyframe_requests_refused
            + info.keyframe_requests_merged
            + info.keyframe_requests_sent;
        let waiting = info.keyframe_requests_received - known;
        assert!(waiting <= layers as u64, "{what}: {info:?}");
        others_saw_all(&world, what);
        // Another viewer that needs one gets it as fast as ever, while it goes on.
        let start = world.now;
        world.viewers[0].0.nag = Some((Duration::from_secs(3_600), world.now));
        world.run_for(Duration::from_millis(600));
        assert!(asked_since(&world, start) >= 1, "{what}: the other's PLI");
    }
}

#[test]
fn who_cannot_decode_still_gets_keyframes_and_after_a_quiet_time_at_once() {
    let mut world = watched(3, 1);
    let viewer = world.join(good(), None);
    world.run_for(SECOND);
    world.viewers[viewer].0.nag = Some((Duration::from_millis(100), world.now));
    world.run_for(2 * MINUTE);
    let longest = world
        .asked_at
        .windows(2)
        .map(|w| w[1] - w[0])
        .max()
        .unwrap();
    assert!(longest < Duration::from_secs(10), "{longest:?}");
    world.viewers[viewer].0.nag = None;
    world.run_for(MINUTE);
    let start = world.now;
    world.viewers[viewer].0.nag = Some((Duration::from_secs(3_600), world.now));
    world.run_for(Duration::from_millis(100));
    assert_eq!(asked_since(&world, start), 1);
}
