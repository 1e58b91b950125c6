// SPDX-License-Identifier: MPL-2.0

//! A keyframe that came in parts, something of it late or lost on the way in: whoever begins a layer there sees it whole, or
//! begins with another one; nobody sees broken pictures until the next.

use std::time::Duration;

use sfu_engine::{Codec, Preference};

use crate::net::good;
use crate::publisher::{Fate, Part, TestPublisher, Uplink};
use crate::room::Room;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);
/// The time until a lost packet comes by RTX.
const REPAIR: Duration = Duration::from_millis(110);

/// Why a layer is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Start,
    Up,
    Down,
    Anew,
    Another,
    Resumed,
}

const ALL: [Why; 6] = [
    Why::Start,
    Why::Up,
    Why::Down,
    Why::Anew,
    Why::Another,
    Why::Resumed,
];

fn parts() -> impl Iterator<Item = Option<(Part, Fate)>> {
    let parts = [
        Part::First,
        Part::Second,
        Part::Middle,
        Part::Last,
        Part::Begin,
    ];
    let fates = [Fate::Repaired, Fate::Reordered, Fate::Lost];
    let pairs = parts
        .into_iter()
        .flat_map(move |part| fates.map(|fate| Some((part, fate))));
    std::iter::once(None).chain(pairs)
}

fn paused(video_paused: bool) -> Preference {
    Preference {
        layer: "0".parse().ok(),
        video_paused,
        ..Preference::default()
    }
}

fn uplink() -> Option<Uplink> {
    Some(Uplink::new(1, 0.0, 0.0, REPAIR))
}

/// A viewer begins a layer with a keyframe that comes like this.
fn begin(codec: Codec, why: Why, spoiled: Option<(Part, Fate)>) {
    let what = format!("{codec:?}, {why:?}, {spoiled:?}");
    let mut world = World::new(1, 3);
    world.publisher.use_codec(codec);
    world.publisher.uplink = uplink();
    world.run_for(SECOND);
    let (first, then) = match why {
        Why::Up => (Some("2"), "0"),
        Why::Down => (Some("0"), "2"),
        _ => (Some("0"), "0"),
    };
    if why != Why::Start {
        world.join(good(), first);
        world.viewers[0].0.asks = true;
        world.run_for(2 * SECOND);
    }
    if why == Why::Resumed {
        world.set_preference(0, paused(true));
        world.run_for(SECOND);
    }
    if why == Why::Another {
        world.stream.stop(world.publisher.lease);
        let now = world.now;
        world.publisher = TestPublisher::new(world.stream.clone(), now, 3);
        world.publisher.use_codec(codec);
        world.publisher.uplink = uplink();
    }
    let uplink = world.publisher.uplink.as_mut().unwrap();
    uplink.spoil(spoiled);
    let before = world.viewers.first().map_or(0, |v| v.0.decoded().frames);
    match why {
        Why::Start => {
            // What there is to be replayed is spoiled, too.
            world.publisher.begin_anew();
            world.run_for(Duration::from_millis(66));
            world.join(good(), first);
            world.viewers[0].0.asks = true;
        }
        Why::Up | Why::Down => world.set_layer(0, Some(then)),
        Why::Anew => world.publisher.begin_anew(),
        Why::Another => {}
        Why::Resumed => world.set_preference(0, paused(false)),
    }
    world.run_for(3 * SECOND);
    let decoded = world.viewers[0].0.decoded();
    let fate = spoiled.map(|(_, fate)| fate);
    let last = decoded.last.unwrap_or_else(|| panic!("{what}: no picture"));
    let layer = usize::from(then == "2") * 2;
    assert_eq!(last.layer, layer, "{what}: {decoded:?}");
    assert!(!decoded.time_went_back, "{what}: {decoded:?}");
    // Two seconds are shown at least, and what was asked for because of a loss came soon.
    let shown = decoded.frames - before;
    assert!(shown >= 50, "{what}: {shown}, {decoded:?}");
    let (broken, gaps) = match fate {
        // What is noticed as a loss, and asked for, has come within 400 ms, a round trip, and the wait for another request.
        Some(Fate::Lost) => (36, 3),
        // The encoder's first packet alone may be taken for one that went astray.
        _ if why == Why::Anew => (36, 3),
        _ => (0, 0),
    };
    assert!(
        decoded.broken <= broken && decoded.gaps <= gaps,
        "{what}: {decoded:?}"
    );
}

#[test]
fn h264_begins_whole_whatever_came_late_of_a_keyframe() {
    for why in ALL {
        parts().for_each(|spoiled| begin(Codec::H264, why, spoiled));
    }
}

#[test]
fn vp8_begins_whole_whatever_came_late_of_a_keyframe() {
    for why in ALL {
        parts().for_each(|spoiled| begin(Codec::Vp8, why, spoiled));
    }
}

#[test]
fn vp9_begins_whole_whatever_came_late_of_a_keyframe() {
    for why in ALL {
        parts().for_each(|spoiled| begin(Codec::Vp9, why, spoiled));
    }
}

/// The same with losses anywhere, of many publishers' streams for one peer.
#[test]
fn many_streams_begin_whole_whose_keyframes_came_in_parts() {
    for seed in 0..30 {
        let mut room = Room::new(seed, 4);
        for (n, publisher) in room.publishers.iter_mut().enumerate() {
            publisher.uplink = Some(Uplink::new(n as u64 + seed * 10, 0.02, 0.0, REPAIR));
        }
        room.run_for(2 * SECOND);
        let guest = room.join(good(), 4, &[0, 1, 2, 3]);
        room.run_for(6 * SECOND);
        for place in 0..4 {
            let decoded = room.guests[guest].party.pictures[place].decoded();
            assert!(
                decoded.broken <= 8,
                "seed {seed}, place {place}: {decoded:?}"
            );
        }
    }
}
