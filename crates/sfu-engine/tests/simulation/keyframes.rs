// SPDX-License-Identifier: MPL-2.0

//! Keyframe absorption: what five hundred viewers ask for, the encoder hears once.

use std::time::Duration;

use crate::net::good;
use crate::world::World;

#[test]
fn requests_of_500_viewers_become_one_an_interval() {
    const VIEWERS: u32 = 500;
    let mut world = World::new(1, 1);
    world.run_for(Duration::from_millis(100));
    for n in 0..VIEWERS {
        let index = world.join(good(), None);
        // Spread over the period, so that there is a request in every few hundred microseconds.
        let first = world.now + Duration::from_millis(u64::from(n % 200));
        world.viewers[index].0.nag = Some((Duration::from_millis(200), first));
        world.run_for(Duration::from_secs(1) / VIEWERS);
    }
    world.run_for(Duration::from_secs(10));
    let info = world.stream.info(world.now);
    let seconds = world.now.duration_since(world.start).as_secs_f64();
    println!(
        "{} keyframe requests in {seconds} s became {}",
        info.keyframe_requests_received, info.keyframe_requests_sent
    );
    let asked = &world.asked_at;
    let closest = asked
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .min()
        .unwrap();
    assert!(
        closest >= Duration::from_millis(500),
        "the source was asked again after {closest:?}"
    );
    assert!(
        asked.len() >= 15,
        "nagging viewers are still served: {}",
        asked.len()
    );
    assert!(
        info.keyframe_requests_received > 15_000,
        "the viewers did ask"
    );
    assert_eq!(info.keyframe_requests_sent, asked.len() as u64);
    world.check("decodes all of it", |viewer| {
        let decoded = viewer.decoded();
        decoded.frames > 280 && decoded.broken == 0 && decoded.gaps == 0
    });
}

#[test]
fn a_lone_viewer_gets_its_keyframe_at_once() {
    let mut world = World::new(2, 1);
    world.join(good(), None);
    world.run_until("connects", Duration::from_secs(2), |w| {
        w.viewers[0].0.connected_at.is_some()
    });
    world.run_for(Duration::from_secs(2));
    let before = world.publisher.encoder.requests.lock().unwrap().len();
    let (viewer, _) = &mut world.viewers[0];
    viewer.nag = Some((Duration::from_secs(3_600), world.now));
    world.run_for(Duration::from_millis(100));
    let after = world.publisher.encoder.requests.lock().unwrap().len();
    assert_eq!(after, before + 1);
}

/// A request that is held back has nobody to go to then: the shard must not wait for its time, which is over for ever.
#[test]
fn a_publisher_that_leaves_while_a_request_is_held_back_leaves_the_shard_in_peace() {
    for layers in [1, 2] {
        let mut world = World::new(3, layers);
        world.join(good(), None);
        world.run_for(Duration::from_secs(3));
        let (viewer, _) = &mut world.viewers[0];
        viewer.nag = Some((Duration::from_millis(50), world.now));
        // Some are held back at any time.
        world.run_for(Duration::from_millis(700));
        world.publisher_paused = true;
        world.stream.stop(world.publisher.lease);
        world.run_for(Duration::from_secs(5));
        assert_eq!(world.shard.viewers(), 1);
        let due = world.shard.poll_timeout();
        assert!(due.is_none_or(|at| at >= world.now), "{due:?}");
    }
}
