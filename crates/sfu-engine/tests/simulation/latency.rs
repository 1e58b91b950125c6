// SPDX-License-Identifier: MPL-2.0

//! A viewer learns when what it sees was captured, and how long it may keep it back, whatever it watches.

use std::time::{Duration, Instant, SystemTime};

use crate::net::good;
use crate::publisher::{FRAME, TestPublisher};
use crate::viewer::Received;
use crate::world::World;

const MS: Duration = Duration::from_millis(1);

fn distance(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b)
        .unwrap_or_else(|earlier| earlier.duration())
}

/// Those of a viewer's packets whose frames were made after it joined, and by this publisher.
fn live(world: &World, viewer: usize, since: Instant, start: Instant) -> Vec<(Instant, Received)> {
    let packets = world.viewers[viewer].0.packets.values();
    let made = |packet: &Received| start + FRAME * packet.mark.frame;
    let all = packets.map(|packet| (made(packet), *packet));
    all.filter(|(at, _)| *at > since).collect()
}

#[test]
fn the_time_of_capture_reaches_the_viewer_over_layers() {
    let mut world = World::new(1, 3);
    world.run_for(Duration::from_millis(500));
    let viewer = world.join(good(), Some("0"));
    let joined = world.now;
    for layer in ["2", "1", "0", "2"] {
        world.run_for(Duration::from_millis(2_500));
        world.set_layer(viewer, Some(layer));
    }
    world.run_for(Duration::from_millis(2_500));
    let packets = live(&world, viewer, joined, world.start);
    let told: Vec<_> = packets
        .iter()
        .filter_map(|(at, packet)| Some((*at, packet.captured?)))
        .collect();
    // Twelve seconds and five layers: at least once a second, hardly ever else.
    assert!((12..=20).contains(&told.len()), "{}", told.len());
    for (at, captured) in told {
        let off = distance(captured, world.wall(at));
        assert!(off <= MS, "off by {off:?}");
    }
    for (_, packet) in packets
        .iter()
        .filter(|(_, p)| p.mark.key && p.mark.index == 0)
    {
        assert!(packet.captured.is_some(), "each keyframe tells it");
        assert_eq!(packet.playout_delay, Some((0, 200)));
    }
}

#[test]
fn the_playout_delay_is_told_until_the_viewer_has_reported() {
    let mut world = World::new(1, 1);
    let viewer = world.join(good(), None);
    world.run_for(Duration::from_secs(10));
    let packets: Vec<_> = world.viewers[viewer].0.packets.values().collect();
    let (early, late) = packets.split_at(packets.len() / 2);
    assert!(early[..5].iter().all(|p| p.playout_delay.is_some()));
    let late = late.iter().filter(|p| !p.mark.key);
    assert!(late.clone().count() > 100);
    assert!(late.clone().all(|p| p.playout_delay.is_none()));
}

/// What a page is told of the session's timestamps gives each picture's time of capture.
#[test]
fn the_sessions_clock_holds_over_layers_and_publishers() {
    let mut world = World::new(1, 2);
    world.run_for(Duration::from_millis(500));
    let viewer = world.join(good(), Some("0"));
    let (joined, start) = (world.now, world.start);
    world.run_for(Duration::from_secs(2));
    world.set_layer(viewer, Some("1"));
    world.run_for(Duration::from_secs(2));
    check_clock(&world, viewer, joined, start);

    world.stream.stop(world.publisher.lease);
    world.run_for(Duration::from_millis(700));
    world.publisher = TestPublisher::new(world.stream.clone(), world.now, 2);
    let start = world.now;
    world.viewers[viewer].0.packets.clear();
    world.run_for(Duration::from_secs(2));
    check_clock(&world, viewer, start + FRAME, start);
}

fn check_clock(world: &World, viewer: usize, since: Instant, start: Instant) {
    let session = &world.sessions[viewer];
    let packets = live(world, viewer, since, start);
    assert!(packets.len() > 50, "{}", packets.len());
    for (at, packet) in packets {
        let expected = session.video_timestamp(at).unwrap();
        let off = expected.wrapping_sub(packet.timestamp as u32) as i32;
        assert!(off.abs() <= 180, "off by {off} ticks");
    }
}
