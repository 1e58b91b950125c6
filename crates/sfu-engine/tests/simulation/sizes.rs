// SPDX-License-Identifier: MPL-2.0

//! Packets that the path to a viewer does not carry.

use std::time::Duration;

use sfu_engine::shard::TooLarge;
use sfu_engine::{Preference, Why};

use crate::net::good;
use crate::world::World;

#[test]
fn a_viewer_whose_path_is_too_narrow_is_told_until_it_is_over() {
    let mut world = World::new(12, 1);
    let narrow = world.join(good(), None);
    let other = world.join(good(), None);
    world.run_for(Duration::from_secs(2));
    let info = |world: &World, viewer: usize| world.sessions[viewer].info();
    assert_eq!(info(&world, narrow).why, Why::Highest);
    let address = world.viewers[narrow].0.address;
    let failure = |mtu| TooLarge { datagrams: 3, mtu };
    let now = world.now;
    world.shard.send_failed(now, address, failure(Some(1_280)));
    let told = info(&world, narrow);
    assert_eq!(told.why, Why::PacketTooLarge);
    assert_eq!((told.too_large, told.path_mtu), (3, Some(1_280)));
    assert_eq!(info(&world, other).why, Why::Highest, "nobody else");

    // What is not known does not forget what was.
    world.run_for(Duration::from_secs(8));
    let now = world.now;
    world.shard.send_failed(now, address, failure(None));
    world.run_for(Duration::from_secs(8));
    let told = info(&world, narrow);
    assert_eq!((told.too_large, told.path_mtu), (6, Some(1_280)));
    assert_eq!(told.why, Why::PacketTooLarge, "it goes on");

    // Who wants no video is told that.
    let paused = Preference {
        video_paused: true,
        ..Preference::default()
    };
    world.set_preference(narrow, paused);
    world.run_for(Duration::from_secs(1));
    assert_eq!(info(&world, narrow).why, Why::Paused);
    world.set_preference(narrow, Preference::default());
    world.run_for(Duration::from_secs(4));
    assert_eq!(info(&world, narrow).why, Why::Highest, "it is over");

    // Of somebody who has gone, or never was.
    let stranger = "203.0.113.9:9".parse().unwrap();
    let now = world.now;
    world.shard.send_failed(now, stranger, failure(Some(0)));
    assert_eq!(world.counters.snapshot().datagrams_too_large, 9);
    world.check("plays", |viewer| viewer.decoded().broken == 0);
}
