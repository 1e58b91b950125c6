// SPDX-License-Identifier: MPL-2.0

//! A viewer gets the layer that it asks for, and cannot tell where one ended and the other began.

use std::time::Duration;

use crate::net::{Trouble, good, troubled};
use crate::world::World;

#[test]
fn a_viewer_starts_on_the_layer_of_its_choice() {
    let mut world = World::new(1, 3);
    world.run_for(Duration::from_millis(500));
    for layer in [None, Some("1"), Some("2")] {
        world.join(good(), layer);
    }
    world.run_for(Duration::from_secs(5));
    let layers: Vec<_> = world
        .viewers
        .iter()
        .map(|(v, _)| v.decoded().last.map(|m| m.layer))
        .collect();
    assert_eq!(layers, [Some(0), Some(1), Some(2)]);
    for (viewer, _) in &world.viewers[1..] {
        let layer = viewer.decoded().last.unwrap().layer;
        assert!(
            viewer.packets.values().all(|p| p.mark.layer == layer),
            "no other layer is mixed in"
        );
    }
}

#[test]
fn a_switch_is_invisible() {
    for (seed, trouble) in troubled(0..20) {
        switch_invisibly(World::new(seed, 3), trouble);
        let mut vp8 = World::new(seed, 3);
        vp8.publisher.use_vp8();
        switch_invisibly(vp8, trouble);
    }
}

fn switch_invisibly(mut world: World, trouble: Trouble) {
    let viewer = world.join(good(), Some("0"));
    world.connect();
    world.trouble = trouble;
    world.set_link(viewer, good());
    world.run_for(Duration::from_secs(2));
    for layer in ["2", "1", "0", "2"] {
        world.set_layer(viewer, Some(layer));
        world.run_for(Duration::from_secs(1));
        // The newest frame may be under repair.
        world.trouble = Trouble::None;
        world.set_link(viewer, good());
        world.run_for(Duration::from_millis(500));
        world.trouble = trouble;
        world.set_link(viewer, good());
        let now = world.viewers[viewer].0.decoded().last.unwrap().layer;
        assert_eq!(now.to_string(), layer, "{trouble:?}");
        let current = world.sessions[viewer].info().current.unwrap();
        assert_eq!(current.as_str(), layer);
    }
    world.trouble = Trouble::None;
    world.set_link(viewer, good());
    world.run_for(Duration::from_secs(1));
    world.check(&format!("one continuous stream, {trouble:?}"), |v| {
        let decoded = v.decoded();
        let whole = decoded.gaps == 0 && decoded.broken == 0 && decoded.miscounted == 0;
        whole && !decoded.time_went_back && decoded.frames > 170
    });
}

#[test]
fn the_old_layer_goes_on_until_the_new_one_has_a_keyframe() {
    let mut world = World::new(1, 2);
    let viewer = world.join(good(), Some("0"));
    world.run_for(Duration::from_secs(2));
    let before = world.viewers[viewer].0.decoded().frames;
    world.set_layer(viewer, Some("1"));
    world.run_for(Duration::from_millis(990));
    let frames = world.viewers[viewer].0.decoded().frames - before;
    assert!(
        (29..=31).contains(&frames),
        "a frame each 33 ms, whatever the layer: {frames}"
    );
}

/// As browsers do with their highest layer when their network takes less.
#[test]
fn a_layer_that_its_publisher_stops_is_missed_soon() {
    let mut world = World::new(1, 3);
    world.publisher.use_ladder();
    let viewer = world.join(good(), None);
    world.run_for(Duration::from_secs(10));
    let decoded = |world: &World| world.viewers[viewer].0.decoded();
    let layer = |world: &World| decoded(world).last.map(|mark| mark.layer);
    assert_eq!(layer(&world), Some(0));
    let before = decoded(&world).frames;
    world.publisher.silent = Some(0);
    world.run_for(Duration::from_millis(1_500));
    let frames = decoded(&world).frames - before;
    assert!(frames >= 20, "{frames} of 45 in the first 1.5 s");
    assert_eq!(layer(&world), Some(1));
    world.publisher.silent = None;
    world.run_for(Duration::from_secs(10));
    assert_eq!(layer(&world), Some(0), "it is there again");
    world.check("one continuous stream", |v| {
        let decoded = v.decoded();
        decoded.gaps == 0 && decoded.broken == 0 && !decoded.time_went_back
    });
}
