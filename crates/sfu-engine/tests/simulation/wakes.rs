// SPDX-License-Identifier: MPL-2.0

//! How often a shard is woken by its own deadlines. A thread that sleeps and wakes costs as much as ten packets that are
//! sealed and sent, so that few viewers would pay for little else.

use std::time::Duration;

use crate::net::good;
use crate::world::World;

const SECONDS: u64 = 20;

#[test]
fn a_publishers_reports_leave_with_its_pictures() {
    for layers in [1, 3] {
        let mut world = World::with_peer(1, good(), layers);
        world.run_for(Duration::from_secs(5));
        let before = world.wakes;
        world.run_for(Duration::from_secs(SECONDS));
        let wakes = world.wakes - before;
        assert!(world.peers[0].0.twcc.is_some(), "arrival reports come");
        println!("{layers} layers: {wakes} wake-ups in {SECONDS} s");
        // A receiver report a second, and an arrival report 50 ms after the first packet of each second picture would be 320.
        assert!(
            wakes <= 40,
            "{layers} layers: {wakes} wake-ups in {SECONDS} s"
        );
    }
}
