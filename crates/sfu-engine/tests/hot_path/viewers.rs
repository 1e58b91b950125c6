// SPDX-License-Identifier: MPL-2.0

//! What a viewer keeps of memory once it watches, what C libraries hold for it included.

use std::time::Duration;

use crate::alone;
use crate::day::live;
use crate::net::good;
use crate::world::World;

/// Bytes a viewer of the engine's. What a process grows by is more: the allocator's holes, and signalling.
const MOST: usize = 48_000;

/// What is allocated once these viewers have watched for a while, without their own side.
fn after(viewers: usize) -> usize {
    let mut world = World::new(1, 1);
    world.publisher.delta_packets = 9;
    world.publisher.keyframe_every = 60;
    for _ in 0..viewers {
        world.join(good(), None);
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(Duration::from_secs(20));
    world.check("watches", |v| v.decoded().frames > 500);
    world.publisher_paused = true;
    world.run_for(Duration::from_secs(1));
    world.forget_viewers();
    assert_eq!(world.shard.viewers(), viewers);
    live()
}

#[test]
fn a_viewer_keeps_little() {
    let _alone = alone();
    after(1);
    let few = after(20);
    let each = (after(120) - few) / 100;
    println!("{each} bytes a viewer");
    assert!(each < MOST, "{each} bytes a viewer");
}
