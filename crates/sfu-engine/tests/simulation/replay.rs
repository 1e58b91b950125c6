// SPDX-License-Identifier: MPL-2.0

//! Who joins sees a picture at once and is live soon after, whatever the publisher sends and over which network.

use std::time::Duration;

use sfu_impair::Conditions;

use crate::net::good;
use crate::publisher::{FRAME, Uplink};
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// How old the newest frame is that a viewer has.
fn age(world: &World, viewer: usize) -> Duration {
    let newest = (world.now - world.start).as_millis() / FRAME.as_millis();
    let last = world.viewers[viewer].0.packets.values().last().unwrap();
    FRAME * (newest as u32).saturating_sub(last.mark.frame)
}

#[test]
fn joiners_see_a_picture_at_once_whatever_the_publisher_sends() {
    let mut seed = 0;
    for mbit in [1, 4, 8, 20] {
        for every in [1, 2, 4] {
            for (deaf, lossy) in [(false, false), (true, false), (false, true), (true, true)] {
                // The simulated viewer takes nothing that is more than 100 packets late, and a keyframe of 20 Mbit/s is twice that.
                let repair = match mbit {
                    1 | 4 => Duration::from_millis(90),
                    8 => Duration::from_millis(20),
                    _ if lossy => continue,
                    _ => Duration::ZERO,
                };
                seed += 1;
                let mut world = World::new(seed, 1);
                world.publisher.use_rate(mbit, every * SECOND);
                world.publisher.deaf = deaf;
                if lossy {
                    world.publisher.uplink = Some(Uplink::new(seed, 0.01, 0.02, repair));
                }
                world.join(good(), None);
                // Anywhere in a group of pictures.
                let into = Duration::from_millis(150 * (seed % 7));
                world.run_for(4 * SECOND + every * SECOND / 2 + into);
                let asked = world.asked_at.len();
                let viewer = world.join(good(), None);
                let (kept, wait) = (mbit * every.min(6) <= 40, every * SECOND);
                let what = format!(
                    "{mbit} Mbit/s, a keyframe each {every} s, deaf {deaf}, lossy {lossy} (SFU_SEED={seed})"
                );
                world.run_until(&what, 5 * SECOND, |w| {
                    w.viewers[viewer].0.first_picture_at.is_some()
                });
                let joined = &world.viewers[viewer].0;
                let first = joined.first_picture_at.unwrap() - joined.connected_at.unwrap();
                let most = match (kept, deaf) {
                    // Packets of the keyframe that are sent again take their time.
                    (true, _) => Duration::from_millis(150),
                    (false, false) => Duration::from_millis(400),
                    (false, true) => wait + Duration::from_millis(200),
                };
                world.run_for(3 * SECOND);
                let late = age(&world, viewer);
                if let Some(uplink) = &mut world.publisher.uplink {
                    (uplink.loss, uplink.reordered) = (0.0, 0.0);
                }
                world.run_for(SECOND / 2);
                let asked = world.asked_at.len() - asked;
                println!(
                    "{what}: first picture after {first:?}, {late:?} behind 3 s later, {asked} keyframes asked"
                );
                assert!(first <= most, "{what}: {first:?}");
                assert!(late <= 5 * FRAME, "{what}: {late:?}");
                assert!(asked <= if kept { 0 } else { 12 }, "{what}: {asked}");
                world.check(&what, |v| {
                    let d = v.decoded();
                    d.frames > 80 && d.broken == 0 && d.gaps == 0 && !d.time_went_back
                });
            }
        }
    }
}

#[test]
fn a_replay_does_not_fall_behind_however_small_packets_are_and_little_the_network_seems_to_carry() {
    for (packets, layer) in [(1, None), (10, Some("1")), (20, Some("1")), (10, None)] {
        let mut world = World::new(1, 2);
        world.publisher.delta_packets = packets;
        world.publisher.packet_size = 150;
        world.publisher.keyframe_every = 3_000;
        world.run_for(Duration::from_millis(900));
        let link = Conditions {
            rate: Some(1_000_000),
            delay: Duration::from_millis(10),
            ..Conditions::default()
        };
        let viewer = world.join(link, layer);
        world.run_for(5 * SECOND);
        let late = age(&world, viewer);
        let decoded = world.viewers[viewer].0.decoded();
        println!("{packets} packets, {layer:?}: {late:?}, {decoded:?}");
        assert!(late <= 6 * FRAME, "{packets} packets, {layer:?}: {late:?}");
        // Twenty of them are nearly all that the network carries.
        assert!(packets == 20 || decoded.broken == 0, "{decoded:?}");
    }
}

/// What is left of a replay is not wanted any more, but for the rest of the frame that is on its way.
#[test]
fn a_frame_that_has_begun_ends_whatever_cuts_a_replay_off() {
    for layers in [1, 2] {
        for n in 0..24 {
            let mut world = World::new(n, layers);
            world.publisher.use_rate(8, 2 * SECOND);
            world.run_for(3 * SECOND + SECOND / 2);
            let viewer = world.join(good(), None);
            let what = format!("{layers} layers, after {n} steps");
            world.run_until(&what, SECOND, |w| !w.viewers[viewer].0.packets.is_empty());
            world.run_for(Duration::from_millis(4) * n as u32);
            let before = world.viewers[viewer].0.decoded();
            assert!(before.frames < 80, "{what}: the replay is over, {before:?}");
            if layers == 1 {
                world.publisher.become_another();
            } else {
                world.publisher.make_keyframes();
            }
            world.run_for(2 * SECOND);
            let decoded = world.viewers[viewer].0.decoded();
            assert_eq!(
                (decoded.broken, decoded.gaps),
                (0, 0),
                "{what}: {decoded:?}"
            );
            assert!(decoded.frames > before.frames + 50, "{what}: {decoded:?}");
        }
    }
}

#[test]
fn a_joiners_burst_fits_a_network_of_three_times_the_rate() {
    let mut world = World::new(4, 1);
    world.publisher.use_rate(4, 2 * SECOND);
    world.run_for(3 * SECOND + SECOND / 2);
    let link = Conditions {
        rate: Some(12_000_000),
        queue: Duration::from_millis(100),
        ..good()
    };
    let viewer = world.join(link, None);
    world.run_for(5 * SECOND);
    let decoded = world.viewers[viewer].0.decoded();
    let again = world.sessions[viewer].info().retransmitted;
    assert!(decoded.broken == 0 && decoded.gaps == 0, "{decoded:?}");
    assert_eq!(again, 0, "nothing was lost");
    assert!(age(&world, viewer) <= 3 * FRAME);
}

#[test]
fn a_publisher_that_makes_no_keyframes_is_not_waited_for() {
    // OBS by default: 250 frames, and no answer. More than can be caught up with in short is only asked for in vain once.
    let mut world = World::new(5, 1);
    world.publisher.use_rate(4, Duration::from_millis(8_300));
    world.publisher.deaf = true;
    world.run_for(7 * SECOND);
    for most in [700, 150] {
        let viewer = world.join(good(), None);
        world.run_for(Duration::from_millis(1_500));
        let joined = &world.viewers[viewer].0;
        let first = joined.first_picture_at.expect("it sees something");
        let first = first - joined.connected_at.unwrap();
        assert!(first <= Duration::from_millis(most), "{first:?}");
        // The next group of pictures.
        world.run_for(13 * SECOND + SECOND / 2 + SECOND / 10);
    }
}
