// SPDX-License-Identifier: MPL-2.0

//! What strangers write in a viewer's name, and how long a viewer is sent anything that says nothing.

use std::time::Duration;

use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// Records that anybody can write, plain and sealed with nothing.
fn records() -> Vec<Vec<u8>> {
    let record = |kind: u8, epoch: u8, content: &[u8]| {
        let mut record = vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 9, 0];
        record.push(content.len() as u8);
        record.extend(content);
        record
    };
    vec![
        record(21, 0, &[2, 40]),
        record(21, 0, &[1, 0]),
        record(21, 1, &[7; 26]),
        record(20, 0, &[1]),
        record(22, 0, &[1; 40]),
        record(23, 1, &[9; 40]),
        vec![21],
        vec![22; 1_200],
        vec![63],
    ]
}

#[test]
fn records_of_strangers_end_nobody() {
    for record in records() {
        let mut world = World::new(11, 1);
        world.join(good(), None);
        // In the middle of the handshake, too.
        for _ in 0..20 {
            world.run_for(Duration::from_millis(10));
            world.inject(0, &record);
        }
        world.connect();
        world.run_for(15 * SECOND);
        world.inject(0, &record);
        let frames = world.viewers[0].0.decoded().frames;
        world.run_for(10 * SECOND);
        assert_eq!(world.counters.snapshot().sessions_closed, 0, "{record:?}");
        let more = world.viewers[0].0.decoded().frames - frames;
        assert!(more > 200, "{more} frames after {record:?}");
    }
}

#[test]
fn who_consents_is_sent_media_for_as_long_as_it_does() {
    let mut world = World::new(13, 1);
    world.join(good(), None);
    world.connect();
    world.run_for(120 * SECOND);
    let decoded = world.viewers[0].0.decoded();
    assert!(decoded.frames > 3_500, "{decoded:?}");
}

#[test]
fn octets_of_strangers_keep_nobody_alive() {
    let mut world = World::new(12, 1);
    world.join(good(), None);
    world.connect();
    world.run_for(15 * SECOND);
    world.mute(0);
    for _ in 0..5 {
        world.run_for(5 * SECOND);
        for record in records() {
            world.inject(0, &record);
        }
    }
    assert_eq!(world.counters.snapshot().sessions_closed, 1);
}

#[test]
fn media_of_strangers_uses_up_no_publishers_rate() {
    let mut world = World::with_limited_peer(14, true, 2_000_000);
    world.join(good(), None);
    world.connect();
    world.run_for(2 * SECOND);
    let frames = world.viewers[0].0.decoded().frames;
    // Six times the limit, in the peer's name.
    let mut packet = vec![0x80; 1_200];
    packet[1] = 96;
    for _ in 0..1_500 {
        world.run_for(Duration::from_millis(10));
        for _ in 0..12 {
            world.inject_from_peer(0, &packet);
        }
    }
    let counters = world.counters.snapshot();
    assert_eq!(counters.publisher_packets_over_bitrate, 0, "{counters:?}");
    assert_eq!(counters.publishers_over_bitrate, 0);
    assert!(world.stream.info(world.now).live);
    let more = world.viewers[0].0.decoded().frames - frames;
    assert!(more > 400, "{more} frames");
}
