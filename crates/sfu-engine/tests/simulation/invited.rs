// SPDX-License-Identifier: MPL-2.0

//! Peers that are offered what they get: m-lines are added and used again, one for each track, and what is watched meanwhile
//! misses nothing.

use std::time::Duration;

use sfu_engine::TrackKind;
use sfu_impair::Conditions;

use crate::room::Room;

const SECOND: Duration = Duration::from_secs(1);

fn link(rate: u64) -> Conditions {
    Conditions {
        delay: Duration::from_millis(20),
        rate: Some(rate),
        ..Conditions::default()
    }
}

/// Frames on each m-line of pictures, and packets on each of sound.
fn seen(room: &Room, guest: usize) -> (Vec<u64>, Vec<u64>) {
    let party = &room.guests[guest].party;
    let frames = party.pictures.iter().map(|p| p.decoded().frames);
    (frames.collect(), party.sounds.clone())
}

fn assert_whole(room: &Room, guest: usize, what: &str) {
    let pictures = &room.guests[guest].party.pictures;
    for (line, pictures) in pictures.iter().enumerate() {
        let decoded = pictures.decoded();
        let faults = (decoded.broken, decoded.gaps, decoded.time_went_back);
        assert_eq!(faults, (0, 0, false), "{what}, {line}: {decoded:?}");
    }
}

#[test]
fn m_lines_are_added_and_used_again_and_those_that_stay_miss_nothing() {
    let mut room = Room::new(1, 6);
    let guest = room.invite(link(60_000_000), &[0]);
    room.run_for(2 * SECOND);
    let mut others = vec![room.subscribe(guest, 1)];
    for round in 0..12 {
        let (frames, sounds) = seen(&room, guest);
        if round % 3 == 2 {
            let leaver = others.remove(round % others.len());
            room.unsubscribe(guest, leaver);
        } else {
            let stream = 1 + room.draw(5);
            others.push(room.subscribe(guest, stream));
        }
        room.run_for(SECOND);
        let (frames_now, sounds_now) = seen(&room, guest);
        assert!(frames_now[0] - frames[0] >= 29, "round {round}");
        assert!(sounds_now[0] - sounds[0] >= 29, "round {round}");
    }
    // Each that is subscribed to is seen and heard, on as many m-lines as there ever were at once.
    let (frames, sounds) = seen(&room, guest);
    room.run_for(SECOND);
    let (frames_now, sounds_now) = seen(&room, guest);
    let live = |now: &[u64], then: &[u64]| {
        let pairs = now.iter().zip(then);
        pairs.filter(|(now, then)| *now - *then >= 29).count()
    };
    assert_eq!(live(&frames_now, &frames), 1 + others.len());
    assert_eq!(live(&sounds_now, &sounds), 1 + others.len());
    assert_eq!((frames.len(), sounds.len()), (7, 7));
    assert_whole(&room, guest, "m-lines come and go");
    assert_eq!(room.counters.snapshot().sessions_failed, 0);
}

#[test]
fn a_sound_alone_becomes_a_picture_and_ice_begins_anew() {
    let mut room = Room::new(2, 3);
    let guest = room.invite(link(60_000_000), &[0]);
    room.run_for(SECOND);
    // Of the second stream the sound alone, of the third the pictures alone.
    let (mut sound, mut pictures) = (0, 0);
    room.offer(guest, |o| {
        sound = o.add(TrackKind::Audio, "PA_1 TR_1a").unwrap();
    });
    room.carry(guest, sound, Some(1));
    room.offer(guest, |o| {
        pictures = o.add(TrackKind::Video, "PA_2 TR_2v").unwrap();
    });
    room.carry(guest, pictures, Some(2));
    room.run_for(2 * SECOND);
    let (frames, sounds) = seen(&room, guest);
    assert_eq!((frames.len(), sounds.len()), (2, 2));
    assert!(frames[1] >= 55 && sounds[1] >= 55, "{frames:?} {sounds:?}");
    for _ in 0..3 {
        room.offer(guest, |o| o.restart_ice().unwrap());
        room.run_for(2 * SECOND);
        let (now, _) = seen(&room, guest);
        assert!(now[0] >= frames[0] + 55, "{now:?}");
    }
    assert_whole(&room, guest, "ICE begins anew");
}

#[test]
fn many_at_once_share_what_the_network_carries() {
    let mut room = Room::new(3, 9);
    let all: Vec<usize> = (0..9).collect();
    let guest = room.invite(link(6_000_000), &all);
    room.run_for(20 * SECOND);
    let (before, heard) = seen(&room, guest);
    room.run_for(10 * SECOND);
    let (after, heard_now) = seen(&room, guest);
    let shown = after.iter().zip(&before).map(|(a, b)| a - b);
    assert!(
        shown.clone().all(|frames| frames >= 250),
        "{:?}",
        shown.collect::<Vec<_>>()
    );
    let sounds = heard_now.iter().zip(&heard).map(|(a, b)| a - b);
    assert!(
        sounds.clone().all(|packets| packets >= 290),
        "{:?}",
        sounds.collect::<Vec<_>>()
    );
}
