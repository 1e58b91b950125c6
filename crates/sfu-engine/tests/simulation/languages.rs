// SPDX-License-Identifier: MPL-2.0

//! A stream with audio tracks in several languages: each viewer hears one, and changes to another without a break.

use std::time::Duration;

use sfu_engine::Preference;

use crate::net::good;
use crate::world::World;

const SECOND: Duration = Duration::from_secs(1);

fn hears(choice: &str) -> Preference {
    Preference {
        audio: choice.parse().ok(),
        ..Preference::default()
    }
}

/// Which tracks a viewer has heard since a packet, one after the other.
fn heard(world: &World, viewer: usize, since: usize) -> Vec<u8> {
    let sounds = &world.viewers[viewer].0.sounds[since..];
    assert!(sounds.len() > 40, "{} packets of sound", sounds.len());
    let mut tracks: Vec<_> = sounds.iter().map(|(track, ..)| *track).collect();
    tracks.dedup();
    tracks
}

#[test]
fn a_viewer_hears_the_language_that_it_asks_for() {
    let mut world = World::new(1, 1);
    world.publisher.use_languages(&["de", "en-GB", "fr"]);
    let viewers = ["", "en", "2", "it"].map(|choice| world.join_with(good(), hears(choice)));
    world.run_for(3 * SECOND);
    for (viewer, track) in viewers.into_iter().zip([0, 1, 2, 0]) {
        assert_eq!(heard(&world, viewer, 0), [track]);
        assert_eq!(world.sessions[viewer].info().audio, Some(track.into()));
    }
    let viewer = viewers[0];
    for (choice, track) in [("fr", 2), ("en-gb", 1), ("", 0), ("1", 1)] {
        let before = world.viewers[viewer].0.sounds.len();
        world.set_preference(viewer, hears(choice));
        world.run_for(2 * SECOND);
        // What was on its way is of the track before.
        assert_eq!(heard(&world, viewer, before + 10), [track], "{choice}");
    }
    let sounds = &world.viewers[viewer].0.sounds;
    for pair in sounds.windows(2) {
        let [(_, seq, timestamp), (_, next, later)] = pair else {
            continue;
        };
        assert_eq!(seq + 1, *next, "no number is missing, and none comes twice");
        let step = later.wrapping_sub(*timestamp);
        assert!((1_440..1_920).contains(&step), "33 ms are not {step} ticks");
    }
    let decoded = world.viewers[viewer].0.decoded();
    assert!(decoded.frames > 250 && decoded.gaps == 0, "{decoded:?}");
}

#[test]
fn who_hears_a_language_that_ends_hears_the_first_and_comes_back() {
    let mut world = World::new(1, 1);
    world.publisher.use_languages(&["de", "en"]);
    let viewer = world.join_with(good(), hears("en"));
    world.run_for(2 * SECOND);
    let (stream, lease) = (world.publisher.stream.clone(), world.publisher.lease);
    for (is_there, track) in [(false, 0), (true, 1)] {
        match is_there {
            true => world.publisher.use_languages(&["de", "en"]),
            false => stream.unset_audio(lease, 1),
        }
        let before = world.viewers[viewer].0.sounds.len();
        world.run_for(2 * SECOND);
        assert_eq!(heard(&world, viewer, before + 10), [track]);
    }
}

/// As somebody publishes by WHIP who has several m-lines of sound.
#[test]
fn a_peer_publishes_several_languages() {
    let mut world = World::with_peer(1, good(), 1);
    world.peers[0].0.dead = true;
    world.run_for(6 * SECOND);
    world.peers_languages = &["de", "pt-BR", "no language"];
    world.publish(good(), 1, true).unwrap();
    let viewers = ["", "pt", "2", "it"].map(|choice| world.join_with(good(), hears(choice)));
    world.run_for(3 * SECOND);
    for (viewer, track) in viewers.into_iter().zip([0, 1, 2, 0]) {
        assert_eq!(heard(&world, viewer, 0), [track]);
        let sounds = &world.viewers[viewer].0.sounds;
        assert!(sounds.windows(2).all(|w| w[0].1 + 1 == w[1].1), "numbers");
        let decoded = world.viewers[viewer].0.decoded();
        assert!(decoded.frames > 60 && decoded.gaps == 0, "{decoded:?}");
    }
    let told = world.publisher.stream.info(world.now).audio.into_iter();
    let told: Vec<_> = told
        .map(|audio| {
            (
                audio.track.number,
                audio.track.language.map(|l| l.to_string()),
            )
        })
        .collect();
    let some = |tag: &str| Some(tag.to_owned());
    assert_eq!(told, [(0, some("de")), (1, some("pt-BR")), (2, None)]);
    let viewer = viewers[0];
    let before = world.viewers[viewer].0.sounds.len();
    world.set_preference(viewer, hears("pt"));
    world.run_for(2 * SECOND);
    assert_eq!(heard(&world, viewer, before + 10), [1]);
}
