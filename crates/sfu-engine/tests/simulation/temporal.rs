// SPDX-License-Identifier: MPL-2.0

//! A viewer may go without the upper temporal layers: fewer frames a second, and it can't tell that there were others.

use std::time::Duration;

use sfu_engine::{Preference, Why};
use sfu_impair::Conditions;

use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// No temporal layer above this number.
fn most(max: Option<u8>) -> Preference {
    Preference {
        max_temporal: max,
        ..Preference::default()
    }
}

/// One layer with so many temporal layers, in VP8 or H.264.
fn world(seed: u64, vp8: bool, temporal_layers: u8) -> World {
    let mut world = World::new(seed, 1);
    if vp8 {
        world.publisher.use_vp8();
    }
    world.publisher.use_temporal_layers(temporal_layers);
    world
}

/// Frames that a viewer could show in the last seconds.
fn frames_in(world: &mut World, viewer: usize, seconds: u32) -> u64 {
    let before = world.viewers[viewer].0.decoded().frames;
    world.run_for(SECOND * seconds);
    world.viewers[viewer].0.decoded().frames - before
}

fn check_all_is_whole(world: &World) {
    world.check("one continuous stream", |v| {
        let decoded = v.decoded();
        let whole = decoded.gaps == 0 && decoded.broken == 0 && decoded.miscounted == 0;
        whole && !decoded.time_went_back
    });
}

#[test]
fn a_viewer_gets_as_many_temporal_layers_as_it_wants_without_a_keyframe() {
    for (vp8, layers, rates) in [
        (true, 3, &[(Some(0), 15), (Some(1), 30), (None, 61)][..]),
        (true, 2, &[(Some(0), 30), (Some(1), 61)]),
        (false, 2, &[(Some(0), 30), (None, 61)]),
    ] {
        let mut world = world(1, vp8, layers);
        let viewer = world.join(good(), None);
        let other = world.join(good(), None);
        world.run_for(SECOND);
        let asked = world.publisher.encoder.requests.lock().unwrap().len();
        for &(max, frames) in rates.iter().chain(rates.iter().rev()) {
            world.set_preference(viewer, most(max));
            world.run_for(SECOND / 5);
            let shown = frames_in(&mut world, viewer, 2);
            assert!(
                shown.abs_diff(frames) <= 1,
                "{layers} temporal layers up to {max:?}: {shown} frames in 2 s"
            );
            let info = world.sessions[viewer].info();
            let is_all = max.is_none_or(|max| max + 1 >= layers);
            assert_eq!(info.current_limit.id(), max.filter(|_| !is_all));
            let why = if is_all { Why::Highest } else { Why::Capped };
            assert_eq!(info.why, why);
        }
        let after = world.publisher.encoder.requests.lock().unwrap().len();
        assert_eq!(after, asked, "no keyframe was asked for");
        assert!(frames_in(&mut world, other, 2) >= 60, "the other has all");
        check_all_is_whole(&world);
    }
}

#[test]
fn half_steps_are_taken_where_the_network_carries_no_whole_layer() {
    let link = |rate| Conditions {
        delay: SECOND / 50,
        rate: Some(rate),
        ..Conditions::default()
    };
    // With three layers of 2.65 Mbit/s, 950 and 350 kbit/s, of which half are without the upper temporal layer.
    for (rate, layer, limit) in [
        (6_000_000, 0, None),
        (2_000_000, 0, Some(0)),
        (1_250_000, 1, None),
        (750_000, 1, Some(0)),
        (300_000, 2, Some(0)),
    ] {
        let mut world = World::new(rate, 3);
        world.publisher.use_ladder();
        world.publisher.use_vp8();
        world.publisher.use_temporal_layers(2);
        world.run_for(3 * SECOND);
        let viewer = world.join(link(rate), None);
        world.run_for(20 * SECOND);
        let settled = world.viewers[viewer].0.decoded();
        let mut right = 0;
        for _ in 0..150 {
            world.run_for(SECOND / 5);
            let info = world.sessions[viewer].info();
            let current = info.current.map(|rid| rid.as_str().parse().unwrap());
            right += u32::from((current, info.current_limit.id()) == (Some(layer), limit));
        }
        assert!(
            right >= 135,
            "{rate} bit/s: {right} of 150 times; in the end {:?}",
            world.sessions[viewer].info()
        );
        let decoded = world.viewers[viewer].0.decoded();
        assert_eq!(
            (decoded.broken, decoded.gaps, decoded.miscounted),
            (settled.broken, settled.gaps, 0),
            "{rate} bit/s: whole and continuous"
        );
    }
}

#[test]
fn a_viewer_falls_to_a_half_step_and_comes_back_without_a_keyframe() {
    let deep = |rate| Conditions {
        delay: SECOND / 50,
        rate: Some(rate),
        queue: 2 * SECOND,
        ..Conditions::default()
    };
    for seed in 0..10 {
        let mut world = World::new(seed, 1);
        world.publisher.delta_packets = 9;
        world.publisher.use_temporal_layers(2);
        let viewer = world.join(deep(5_000_000), None);
        world.run_for(10 * SECOND);
        assert!(frames_in(&mut world, viewer, 2) >= 60, "seed {seed}");
        let asked = world.publisher.encoder.requests.lock().unwrap().len();
        world.set_link(viewer, deep(1_900_000));
        world.run_for(2 * SECOND);
        let info = world.sessions[viewer].info();
        assert_eq!(info.current_limit.id(), Some(0), "seed {seed}");
        let shown = frames_in(&mut world, viewer, 8);
        assert!((119..=125).contains(&shown), "seed {seed}: {shown} in 8 s");
        world.set_link(viewer, deep(5_000_000));
        world.run_for(15 * SECOND);
        let shown = frames_in(&mut world, viewer, 2);
        assert!(shown >= 60, "seed {seed}: {shown} in 2 s, back");
        let after = world.publisher.encoder.requests.lock().unwrap().len();
        assert_eq!(after, asked, "seed {seed}: no keyframe was asked for");
        check_all_is_whole(&world);
    }
}

#[test]
fn loss_on_both_ways_leaves_no_hole() {
    let lossy = Conditions {
        delay: SECOND / 50,
        loss: 0.02,
        jitter: Duration::from_millis(4),
        ..Conditions::default()
    };
    for seed in 0..5 {
        let mut world = World::with_peer(seed, good(), 1);
        world.peers[0].0.temporal_layers = 2;
        world.set_peer_link(0, lossy);
        for max in [None, Some(0)] {
            world.join_with(lossy, most(max));
        }
        world.run_for(SECOND);
        let asked = world.peers[0].0.asked.len();
        world.run_for(30 * SECOND);
        let asked = world.peers[0].0.asked.len() - asked;
        assert!(asked <= 2, "seed {seed}: {asked} keyframes in 30 s");
        world.set_peer_link(0, good());
        world.set_link(0, good());
        world.set_link(1, good());
        world.run_for(2 * SECOND);
        let frames = [0, 1].map(|v| world.viewers[v].0.decoded());
        assert!(frames[0].frames > 950, "seed {seed}: {frames:?}");
        assert!(
            (470..520).contains(&frames[1].frames),
            "seed {seed}: {frames:?}"
        );
        assert!(!world.viewers[1].0.empty.is_empty(), "seed {seed}");
        world.check("nothing is missing", |v| {
            let decoded = v.decoded();
            decoded.gaps == 0 && decoded.broken == 0
        });
    }
}

#[test]
fn switches_of_layers_and_of_temporal_layers_mix() {
    let mut world = World::new(1, 3);
    world.publisher.use_vp8();
    world.publisher.use_temporal_layers(3);
    let viewer = world.join(good(), Some("0"));
    world.run_for(2 * SECOND);
    let mut rng = sfu_impair::Rng::new(1);
    for _ in 0..60 {
        let layer = (rng.next_u64() % 3).to_string().parse().unwrap();
        let max = [None, Some(0), Some(1)][(rng.next_u64() % 3) as usize];
        let preference = Preference {
            max_temporal: max,
            ..Preference::pin(layer)
        };
        world.set_preference(viewer, preference);
        let pause = Duration::from_millis(rng.next_u64() % 900);
        world.run_for(pause);
    }
    let frames = world.viewers[viewer].0.decoded().frames;
    assert!(frames > 300, "{frames}");
    check_all_is_whole(&world);
}
