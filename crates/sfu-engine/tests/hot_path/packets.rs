// SPDX-License-Identifier: MPL-2.0

//! A shard with fifty viewers, warm: packets, reports, repairs and timers allocate nothing.

use std::time::Duration;

use sfu_impair::Conditions;

use crate::alone;
use crate::counting;
use crate::net::good;
use crate::world::{Taken, World};

const VIEWERS: usize = 50;

fn warm(loss: f64, rate: Option<u64>) -> World {
    let mut world = World::new(1, 3);
    world.publisher.use_ladder();
    world
        .publisher
        .encoder
        .requests
        .lock()
        .unwrap()
        .reserve(10_000);
    let link = Conditions {
        loss,
        rate,
        ..good()
    };
    for _ in 0..VIEWERS {
        world.join(link, None);
        world.run_for(Duration::from_millis(20));
    }
    world.run_for(Duration::from_secs(40));
    world.taken = Taken::default();
    world.allocations = counting::calls;
    world
}

fn check(world: &mut World, what: &str) {
    let before = world.counters.snapshot();
    let again = |world: &World| -> u64 {
        let sessions = world.sessions.iter();
        sessions.map(|s| s.info().retransmitted).sum()
    };
    let again_before = again(world);
    world.run_for(Duration::from_secs(10));
    let after = world.counters.snapshot();
    let taken = world.taken;
    println!(
        "{what}: {} packets, {} sent again, {} datagrams in: {taken:?}",
        after.packets_out - before.packets_out,
        again(world) - again_before,
        after.datagrams_in - before.datagrams_in
    );
    assert!(after.packets_out - before.packets_out > VIEWERS as u64 * 600);
    assert!(taken.reports.1 > VIEWERS * 20, "reports came");
    assert_eq!(
        taken.media.0, 0,
        "{what}: a frame and its viewers: {taken:?}"
    );
    assert_eq!(taken.reports.0, 0, "{what}: viewers' reports: {taken:?}");
    assert_eq!(taken.timers.0, 0, "{what}: what is due: {taken:?}");
}

#[test]
fn a_frame_to_fifty_viewers_allocates_nothing() {
    let _alone = alone();
    let mut world = warm(0.0, None);
    check(&mut world, "a good network");
}

#[test]
fn what_is_sent_again_allocates_nothing() {
    let _alone = alone();
    let mut world = warm(0.02, None);
    check(&mut world, "2 % loss");
    let again: u64 = world.sessions.iter().map(|s| s.info().retransmitted).sum();
    assert!(again > 500, "{again} packets were sent again");
}

#[test]
fn packets_spread_in_time_allocate_nothing() {
    let _alone = alone();
    let mut world = warm(0.0, Some(1_500_000));
    check(&mut world, "a narrow network");
}

/// What the stream itself takes for a frame, however many viewers it has.
#[test]
fn a_frame_takes_one_batch() {
    let _alone = alone();
    let mut world = warm(0.0, None);
    let stream = world.stream.clone();
    let lease = world.publisher.lease;
    let at = world.now;
    let packets = world.publisher.next_packets(0);
    let (calls, _, ()) = counting::taken(|| {
        stream.push(at, lease, sfu_engine::TrackKind::Video, 0, packets);
    });
    // The list of packets and the batch that is shared; once in a while the list of a group of pictures grows.
    assert!(calls <= 3, "{calls} allocations");
}
