// SPDX-License-Identifier: MPL-2.0

//! Rooms of a hundred, simulated: what is forwarded to each is what it would be in a room of N, whoever speaks is among it at
//! once, and nobody negotiates for that. `SFU_SEED` tries another seed.

mod crowd;

use std::time::{Duration, Instant};

use sfu_rooms::proto::{
    MuteTrackRequest, TrackSource, TrackType, UpdateTrackSettings, signal_request,
};
use sfu_rooms::{Measured, Path, Sound};

use crowd::Crowd;

const N: usize = 9;

/// A small generator of the test's own: xorshift.
struct Rng(u64);

impl Rng {
    fn new() -> Self {
        let seed = std::env::var("SFU_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or(7);
        println!("SFU_SEED={seed}");
        Self(seed * 2 + 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

#[test]
fn a_room_of_a_hundred_costs_each_what_a_room_of_n_costs() {
    let began = Instant::now();
    for (people, pictures, sounds) in [(5, 4, 4), (N + 1, N, N), (100, N, N)] {
        let crowd = Crowd::new(people, N);
        for who in 0..people {
            let got = crowd.forwarded(who);
            let of = |kind| got.iter().filter(|(_, k)| *k == kind).count();
            let got = (of(TrackType::Video), of(TrackType::Audio));
            assert_eq!(got, (pictures, sounds), "{who} of {people}");
            // All were announced and negotiated, and those that are not forwarded are said to be paused.
            assert_eq!(crowd.offered(who), 2 * (people - 1));
            assert_eq!(crowd.paused(who), 2 * (people - 1) - pictures - sounds);
        }
    }
    println!("{:?}", began.elapsed());
}

#[test]
fn whoever_speaks_is_seen_and_heard_by_all_at_once() {
    let (people, mut rng) = (50, Rng::new());
    let mut crowd = Crowd::new(people, N);
    let (mut speaking, mut changes) = (Vec::<usize>::new(), 0);
    crowd.commands = 0;
    for turn in 0..150 {
        // Up to three at once, for a second or so.
        if rng.below(5) == 0 {
            let who = rng.below(people);
            changes += usize::from(!speaking.contains(&who));
            speaking.push(who);
            let most = 1 + rng.below(3);
            let over = speaking.len().saturating_sub(most);
            speaking.drain(..over);
        }
        for who in &speaking {
            let speech = 0.1 + rng.below(8) as f32 / 10.0;
            crowd.hear(*who, Sound { speech, loud: true });
        }
        // A cough: heard, and not seen.
        let cough = rng.below(people);
        let shown = crowd.is_forwarded(0, cough, TrackType::Video);
        crowd.hear(
            cough,
            Sound {
                speech: 0.0,
                loud: true,
            },
        );
        crowd.listened(Duration::from_millis(200));
        assert_eq!(crowd.negotiations, 0, "in turn {turn}");
        for listener in (0..people).step_by(7) {
            for who in speaking.iter().filter(|who| **who != listener) {
                for kind in [TrackType::Video, TrackType::Audio] {
                    let is = crowd.is_forwarded(listener, *who, kind);
                    assert!(is, "turn {turn}: {listener} misses {who}");
                }
            }
            let count = crowd.forwarded(listener).len();
            assert_eq!(count, 2 * N, "turn {turn}");
            assert_eq!(
                crowd.paused(listener),
                2 * (people - 1) - 2 * N,
                "and is told so"
            );
        }
        if cough != 0 && !speaking.contains(&cough) {
            assert!(crowd.is_forwarded(0, cough, TrackType::Audio));
            let is = crowd.is_forwarded(0, cough, TrackType::Video);
            assert!(shown || !is, "turn {turn}: {cough} coughed");
        }
    }
    assert!(changes > 15, "{changes}");
    // One comes in and one goes, for each listener, and of pictures and sounds: what a cough brings about is as much.
    let most = people * 4 * (changes + 150);
    assert!(crowd.commands < most, "{} of {most}", crowd.commands);
}

#[test]
fn who_is_on_screen_comes_first_and_who_is_not_wanted_takes_no_place() {
    let mut crowd = Crowd::new(30, N);
    // The last five are shown, in a grid of one's own, and the first is closed.
    let shown: Vec<_> = (25..30).collect();
    for who in &shown {
        crowd.set(0, *who, |setting| {
            (setting.width, setting.height) = (320, 180);
        });
    }
    crowd.set(0, 1, |setting| {
        setting.disabled = true;
    });
    let seen = |crowd: &Crowd| {
        let pictures = crowd
            .forwarded(0)
            .into_iter()
            .filter(|(_, k)| *k == TrackType::Video);
        let mut seen: Vec<_> = pictures.map(|(who, _)| who).collect();
        seen.sort_unstable();
        seen
    };
    assert_eq!(seen(&crowd), [2, 3, 4, 5, 25, 26, 27, 28, 29]);
    // Somebody else speaks: one of those that are not on screen goes.
    crowd.hear(
        15,
        Sound {
            speech: 0.5,
            loud: true,
        },
    );
    crowd.listened(Duration::from_secs(1));
    assert_eq!(seen(&crowd), [2, 3, 4, 15, 25, 26, 27, 28, 29]);
    // A screen comes before all, and who is muted takes no place.
    crowd.publish(20, TrackSource::ScreenShare);
    assert_eq!(
        crowd
            .forwarded(0)
            .iter()
            .filter(|f| **f == (20, TrackType::Video))
            .count(),
        1
    );
    assert_eq!(seen(&crowd).len(), N);
    let camera = crowd.track(29, TrackSource::Camera);
    let mute = MuteTrackRequest {
        sid: camera,
        muted: true,
    };
    crowd.say(29, signal_request::Message::Mute(mute));
    crowd.listened(Duration::from_millis(200));
    let mut those = seen(&crowd);
    those.retain(|who| *who != 29);
    assert_eq!(those.len(), N);
    assert!(!crowd.is_forwarded(0, 1, TrackType::Video), "it is closed");
}

#[test]
fn what_is_paused_is_told_again_to_who_was_away() {
    let mut crowd = Crowd::new(20, N);
    let others = 2 * 19 - 2 * N;
    assert_eq!(crowd.paused(0), others);
    let seen = crowd.forwarded(0);
    let (whom, _) = seen.iter().find(|(_, k)| *k == TrackType::Video).unwrap();
    let camera = crowd.track(*whom, TrackSource::Camera);
    // It is told nothing while it is away.
    for (starved, more) in [(true, 1), (false, 0)] {
        crowd.lose(0);
        crowd.starve(0, &camera, starved);
        assert_eq!(crowd.paused(0), others + usize::from(!starved));
        crowd.resume(0);
        assert_eq!(crowd.paused(0), others + more);
    }
}

#[test]
fn what_the_network_has_no_room_for_is_told_and_so_is_how_good_it_is() {
    let mut crowd = Crowd::new(3, 0);
    assert_eq!(crowd.paused(0), 0);
    let camera = crowd.track(1, TrackSource::Camera);
    crowd.starve(0, &camera, true);
    assert_eq!(crowd.paused(0), 1);
    crowd.measure(|who| Measured {
        down: Some(Path {
            starved: who == 0,
            ..Path::default()
        }),
        ..Measured::default()
    });
    let quality = |crowd: &mut Crowd| crowd.take_qualities();
    let told = quality(&mut crowd);
    // Each of itself, and of those whom it gets something of.
    assert_eq!(told.len(), 9, "{told:?}");
    assert!(
        told.iter()
            .all(|(_, of, word)| (*of == 0) == (word == "POOR")),
        "{told:?}"
    );
    crowd.measure(|_| Measured::default());
    assert_eq!(
        quality(&mut crowd).len(),
        3,
        "the first is good again, and all are told"
    );
    crowd.measure(|_| Measured::default());
    crowd.measure(|_| Measured::default());
    crowd.measure(|_| Measured::default());
    assert_eq!(quality(&mut crowd).len(), 3, "excellent, once");
    crowd.starve(0, &camera, false);
    assert_eq!(crowd.paused(0), 0);
    // What it does not want is not paused.
    crowd.set(0, 1, |setting: &mut UpdateTrackSettings| {
        setting.disabled = true;
    });
    crowd.starve(0, &camera, true);
    assert_eq!(crowd.paused(0), 0);
}
