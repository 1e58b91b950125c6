// SPDX-License-Identifier: MPL-2.0

//! What a viewer keeps of memory once it watches, what C libraries hold for it included.

use std::time::Duration;

use crate::alone;
use crate::day::live;
use crate::net::good;
use crate::world::World;

const VIEWERS: usize = 100;
/// Bytes a viewer of the engine's. What a process grows by is more: the allocator's holes, and signalling.
const MOST: usize = 48_000;

#[test]
fn a_viewer_keeps_little() {
    let _alone = alone();
    let mut world = World::new(1, 1);
    world.publisher.delta_packets = 9;
    world.publisher.keyframe_every = 60;
    world.join(good(), None);
    world.run_for(Duration::from_secs(20));
    let before = live();
    for _ in 0..VIEWERS {
        world.join(good(), None);
    }
    world.run_for(Duration::from_secs(20));
    world.publisher_paused = true;
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.shard.viewers(), VIEWERS + 1);
    // The test's own side of them goes.
    world.viewers.truncate(1);
    let each = (live() - before) / VIEWERS;
    println!("{each} bytes a viewer");
    assert!(each < MOST, "{each} bytes a viewer");
}
