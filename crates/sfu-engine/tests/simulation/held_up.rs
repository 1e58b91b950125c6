// SPDX-License-Identifier: MPL-2.0

//! The server's own network takes less than a keyframe of all viewers at once: nothing is lost by that, and sound passes.

use std::time::Duration;

use crate::device::Device;
use crate::net::good;
use crate::publisher::FRAME;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
const VIEWERS: usize = 60;

/// Sixty viewers of some 1.3 Mbit/s, a keyframe each two seconds, all of whom have a picture.
fn audience(seed: u64) -> World {
    let mut world = World::new(seed, 1);
    world.publisher.delta_packets = 4;
    world.publisher.keyframe_every = 60;
    for _ in 0..VIEWERS {
        world.join(good(), None);
    }
    world.run_until("all play", SECOND * 5, |w| {
        w.viewers.iter().all(|(v, _)| v.first_picture_at.is_some())
    });
    world.run_for(SECOND);
    world
}

/// What all viewers are sent in a second, in bit/s.
fn load(world: &mut World) -> u64 {
    let octets = |w: &World| w.out.octets;
    let before = octets(world);
    world.run_for(SECOND * 4);
    (octets(world) - before) * 8 / 4
}

#[test]
fn a_burst_is_not_lost_and_sound_passes_it() {
    for seed in 0..5 {
        let mut world = audience(seed);
        let load = load(&mut world);
        let begin = world.now;
        for (viewer, _) in &mut world.viewers {
            viewer.longest_between_sounds = Duration::ZERO;
        }
        world.out.device = Some(Device::new(world.now, load * 4 / 3));
        world.run_for(SECOND * 20);
        let device = world.out.device.unwrap();
        assert!(device.refusals > 20, "it was held up: {device:?}");
        let late = world.counters.snapshot().packets_late;
        assert_eq!(late, 0, "nothing had to go (seed {seed})");
        world.check("all arrives", |viewer| {
            let decoded = viewer.decoded();
            decoded.gaps == 0 && decoded.broken == 0 && decoded.frames > 700
        });
        let longest = world.viewers.iter().map(|(v, _)| v.longest_between_sounds);
        let longest = longest.max().unwrap().saturating_sub(FRAME);
        assert!(
            longest < Duration::from_millis(20),
            "sound waited {longest:?} (seed {seed})"
        );
        let asked = world.asked_at.iter().filter(|at| **at > begin).count();
        assert_eq!(asked, 0, "no keyframe was needed");
    }
}

#[test]
fn too_much_for_the_network_costs_all_alike_and_sound_nothing() {
    for seed in 0..2 {
        too_much(seed);
    }
}

fn too_much(seed: u64) {
    let mut world = audience(seed);
    let load = load(&mut world);
    world.out.device = Some(Device::new(world.now, load * 3 / 4));
    let before: Vec<_> = world.viewers.iter().map(|(v, _)| v.packets.len()).collect();
    let sound: Vec<_> = world.viewers.iter().map(|(v, _)| v.audio_packets).collect();
    world.run_for(SECOND * 20);
    let late = world.counters.snapshot().packets_late;
    assert!(late > 100, "{late}");
    // Who is last changes with each frame, so that all get about as much; but for the few whose estimate pauses their picture,
    // which makes room for the others.
    let got = world.viewers.iter().zip(&before);
    let mut got: Vec<_> = got
        .map(|((v, _), before)| v.packets.len() - before)
        .collect();
    got.sort();
    let (few, most) = (got[VIEWERS / 10], got[VIEWERS - 1]);
    assert!(few * 2 > most, "seed {seed}: {got:?}");
    for ((viewer, _), before) in world.viewers.iter().zip(&sound) {
        assert!(
            viewer.audio_packets - before > 600,
            "{}",
            viewer.audio_packets
        );
    }
    assert!(
        world.out.most_held < 1_024 * 1_024,
        "{} octets held",
        world.out.most_held
    );
    // And when it is over, it is over.
    world.out.device = None;
    world.run_for(SECOND * 4);
    let shown: Vec<_> = world
        .viewers
        .iter()
        .map(|(v, _)| v.decoded().frames)
        .collect();
    world.run_for(SECOND * 2);
    for ((viewer, _), before) in world.viewers.iter().zip(shown) {
        assert!(viewer.decoded().frames >= before + 55);
    }
}

#[test]
fn whoever_leaves_or_joins_meanwhile_is_no_one_elses_loss() {
    let mut world = audience(3);
    let load = load(&mut world);
    world.out.device = Some(Device::new(world.now, load * 3 / 2));
    for round in 0..20 {
        world.run_for(Duration::from_millis(333));
        world.leave(round * 2);
        world.join(good(), None);
    }
    world.run_for(SECOND * 4);
    for (index, (viewer, _)) in world.viewers.iter().enumerate() {
        let decoded = viewer.decoded();
        assert!(decoded.frames > 30, "viewer {index}: {decoded:?}");
        assert_eq!((decoded.gaps, decoded.broken), (0, 0), "viewer {index}");
    }
}

#[test]
fn a_network_that_takes_nothing_holds_little_and_is_forgotten() {
    let mut world = audience(5);
    world.out.device = Some(Device::new(world.now, 1));
    for _ in 0..50 {
        world.run_for(Duration::from_millis(100));
        let waiting = world.shard.frames_waiting();
        assert!(waiting <= 2 * 14, "{waiting} frames wait");
    }
    assert!(
        world.out.most_held < 1_024 * 1_024,
        "{}",
        world.out.most_held
    );
    world.out.device = None;
    world.run_for(SECOND * 4);
    let frames =
        |w: &World| -> Vec<_> { w.viewers.iter().map(|(v, _)| v.decoded().frames).collect() };
    let before = frames(&world);
    world.run_for(SECOND * 2);
    assert!(
        frames(&world)
            .iter()
            .zip(before)
            .all(|(now, before)| *now >= before + 55)
    );
}

#[test]
fn joiners_of_a_network_that_is_held_up_wait_unsealed() {
    let mut world = audience(9);
    let load = load(&mut world);
    world.out.device = Some(Device::new(world.now, load / 2));
    for _ in 0..200 {
        world.join(good(), None);
    }
    world.run_for(SECOND * 6);
    assert!(world.out.most_held < 4 << 20, "{}", world.out.most_held);
    // And nobody is forgotten.
    world.out.device = None;
    world.run_until("all play", SECOND * 10, |w| {
        w.viewers.iter().all(|(v, _)| v.first_picture_at.is_some())
    });
}
