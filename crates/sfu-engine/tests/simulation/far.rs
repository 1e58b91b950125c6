// SPDX-License-Identifier: MPL-2.0

//! A viewer far away: 80 ms of round trip, and 1 % lost in bursts, for five minutes.

use std::time::{Duration, Instant};

use sfu_impair::Conditions;

use crate::publisher::FRAME;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// A browser's buffer holds pictures back so that what is sent again once comes in time: the round trip, and what it takes
/// to notice the loss.
const BUFFER: Duration = Duration::from_millis(150);

/// When each frame was captured and when a decoder had all of it and of those before.
fn whole(world: &World, since: Instant) -> Vec<(Instant, Instant)> {
    let mut newest = world.start;
    let mut frames: Vec<(u32, Instant)> = Vec::new();
    for packet in world.viewers[0].0.packets.values() {
        newest = newest.max(packet.at);
        match frames.last_mut() {
            Some((frame, at)) if *frame == packet.mark.frame => *at = newest,
            _ => frames.push((packet.mark.frame, newest)),
        }
    }
    let captured = |frame| world.start + FRAME * frame;
    let all = frames.into_iter().map(|(frame, at)| (captured(frame), at));
    all.filter(|(captured, _)| *captured >= since).collect()
}

/// 1 % is lost in bursts of four on average, both ways.
fn far() -> Conditions {
    Conditions {
        delay: 40 * MS,
        loss: 0.01,
        burst: 4.0,
        ..Conditions::default()
    }
}

#[test]
fn pictures_are_young_and_never_freeze() {
    for seed in 0..3 {
        let mut world = World::new(seed, 1);
        // The simulated viewer repairs only its newest 100 packets: five tries of a round trip each must fit in there.
        world.publisher.delta_packets = 3;
        world.publisher.keyframe_every = 60;
        world.join(far(), None);
        world.connect();
        world.run_for(20 * SECOND);
        let since = world.now;
        world.run_for(300 * SECOND);
        // The last losses are repaired while nothing new is lost.
        world.set_link(0, Conditions { loss: 0.0, ..far() });
        world.run_for(SECOND);
        world.check("no frame is undecodable", |v| {
            let decoded = v.decoded();
            decoded.broken == 0 && decoded.gaps == 0 && !decoded.time_went_back
        });
        let frames = whole(&world, since);
        assert!(frames.len() > 8_900, "{} frames", frames.len());
        let shown: Vec<_> = frames
            .iter()
            .map(|(captured, at)| (*at).max(*captured + BUFFER))
            .collect();
        let mut ages: Vec<_> = frames.iter().zip(&shown).map(|(f, at)| *at - f.0).collect();
        ages.sort();
        let p95 = ages[ages.len() * 95 / 100];
        let gaps = shown.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = gaps.max().unwrap_or_default();
        println!(
            "seed {seed}: 95 % {p95:?}, oldest {:?}, longest gap {longest:?}",
            ages.last()
        );
        assert!(p95 <= 300 * MS, "seed {seed}: {p95:?}");
        assert!(longest <= 200 * MS, "seed {seed}: a freeze of {longest:?}");
    }
}

#[test]
fn losses_in_bursts_are_no_reason_for_another_layer() {
    for seed in 0..3 {
        let mut world = World::new(seed, 3);
        world.publisher.use_ladder();
        world.join(far(), None);
        world.connect();
        world.run_for(20 * SECOND);
        let layer = world.sessions[0].info().current;
        assert!(layer.as_ref().is_some_and(|rid| rid.as_str() == "0"));
        for _ in 0..300 {
            world.run_for(SECOND);
            let now = world.sessions[0].info().current;
            assert_eq!(now, layer, "seed {seed}: a needless change");
        }
    }
}
