// SPDX-License-Identifier: MPL-2.0

//! A peer's tracks come and go by later offers on the same connection: those that stay miss nothing, those that come again are
//! seen again, and who is gone holds nothing.

use std::time::Duration;

use sfu_impair::Conditions;

use crate::participant::Participant;
use crate::room::Room;

const SECOND: Duration = Duration::from_secs(1);
/// The first participant's streams.
const CAMERA: usize = 0;
const SCREEN: usize = 1;

fn link(loss: f64) -> Conditions {
    Conditions {
        delay: Duration::from_millis(20),
        rate: Some(60_000_000),
        loss,
        ..Conditions::default()
    }
}

/// A participant with a camera and a screen, and a guest with so many places who gets them on the first ones.
fn room(seed: u64, places: usize) -> (Room, usize) {
    let mut room = Room::new(seed, 0);
    assert_eq!(room.publish(link(0.0), true), [CAMERA, SCREEN]);
    room.run_for(SECOND);
    let guest = room.join(link(0.0), places, &[CAMERA, SCREEN]);
    room.run_for(3 * SECOND);
    (room, guest)
}

fn frames(room: &Room, guest: usize, place: usize) -> u64 {
    room.guests[guest].party.pictures[place].decoded().frames
}

fn assert_whole(room: &Room, guest: usize, place: usize, what: &str) {
    let decoded = room.guests[guest].party.pictures[place].decoded();
    let faults = (decoded.broken, decoded.gaps, decoded.time_went_back);
    assert_eq!(faults, (0, 0, false), "{what}, place {place}: {decoded:?}");
}

/// Packets of a sound that were sent, and that came, so far.
fn sounds(room: &mut Room, guest: usize, place: usize) -> (u64, u64) {
    let sent = room.participant(0).sounds_sent(place);
    (sent, room.guests[guest].party.sounds[place])
}

/// All of them came, but for those that are on their way.
fn assert_all_heard(before: (u64, u64), after: (u64, u64), what: &str) {
    let (sent, came) = (after.0 - before.0, after.1 - before.1);
    assert!(sent.abs_diff(came) <= 3, "{what}: {came} of {sent}");
}

#[test]
fn what_stays_misses_nothing_while_others_come_and_go() {
    let (mut room, guest) = room(1, 3);
    let camera = frames(&room, guest, CAMERA);
    let heard = sounds(&mut room, guest, CAMERA);
    let rounds = 15;
    for round in 0..rounds {
        // The screen goes, or one of its tracks.
        let (sound, pictures) = [(false, false), (true, false), (false, true)][round % 3];
        room.renegotiate(0, |p| p.set(1, sound, pictures));
        room.run_for(SECOND / 2);
        let before = (
            frames(&room, guest, SCREEN),
            sounds(&mut room, guest, SCREEN).1,
        );
        room.run_for(SECOND / 2);
        let after = (
            frames(&room, guest, SCREEN),
            sounds(&mut room, guest, SCREEN).1,
        );
        assert_eq!(after.0 > before.0, pictures, "round {round}");
        assert_eq!(after.1 > before.1, sound, "round {round}");
        // It comes again, on the same m-lines.
        room.renegotiate(0, |p| p.set(1, true, true));
        room.run_for(SECOND);
        let (shown, heard) = (
            frames(&room, guest, SCREEN),
            sounds(&mut room, guest, SCREEN).1,
        );
        assert!(
            shown >= after.0 + 8,
            "round {round}: {shown} after {}",
            after.0
        );
        assert!(
            heard >= after.1 + 25,
            "round {round}: {heard} after {}",
            after.1
        );
    }
    let shown = frames(&room, guest, CAMERA) - camera;
    assert!(shown >= 2 * rounds as u64 * 30 - 5, "{shown}");
    assert_whole(&room, guest, CAMERA, "the camera stays");
    // Where it goes, a frame may be cut short.
    let screen = room.guests[guest].party.pictures[SCREEN].decoded();
    assert!(
        screen.broken <= rounds as u64 && screen.gaps == 0,
        "{screen:?}"
    );
    let after = sounds(&mut room, guest, CAMERA);
    assert_all_heard(heard, after, "the microphone stays");
    assert_eq!(room.counters.snapshot().sessions_failed, 0);
}

#[test]
fn a_sound_that_goes_leaves_its_pictures_alone_and_the_other_way_round() {
    let (mut room, guest) = room(2, 2);
    for round in 0..6 {
        let before = (
            frames(&room, guest, CAMERA),
            sounds(&mut room, guest, CAMERA),
        );
        let silent = round % 2 == 0;
        room.renegotiate(0, |p| p.set(0, !silent, silent));
        room.run_for(SECOND);
        let after = (
            frames(&room, guest, CAMERA),
            sounds(&mut room, guest, CAMERA),
        );
        if silent {
            assert!(after.0 >= before.0 + 29, "round {round}");
            assert!(after.1.1 <= before.1.1 + 2, "round {round}");
        } else {
            assert_all_heard(before.1, after.1, "pictures go");
            assert!(after.0 <= before.0 + 2, "round {round}");
        }
        room.renegotiate(0, |p| p.set(0, true, true));
        room.run_for(SECOND);
        assert!(
            frames(&room, guest, CAMERA) >= after.0 + 25,
            "round {round}"
        );
        assert!(
            sounds(&mut room, guest, CAMERA).1 >= after.1.1 + 28,
            "round {round}"
        );
    }
    assert_whole(&room, guest, CAMERA, "its own tracks come and go");
    assert_whole(&room, guest, SCREEN, "another one's tracks come and go");
}

#[test]
fn tracks_are_added_on_a_lossy_network_and_ice_begins_anew() {
    let mut room = Room::new(3, 0);
    room.publish(link(0.01), false);
    room.run_for(SECOND);
    let guest = room.join(link(0.0), 4, &[CAMERA]);
    room.run_for(2 * SECOND);
    for place in 1..4 {
        // One more camera or screen.
        room.renegotiate(0, |p| p.add(place == 2, place != 2));
        assert_eq!(room.streams.len(), place + 1);
        room.watch(guest, place, Some(place));
        room.run_for(2 * SECOND);
        let shown = frames(&room, guest, place);
        assert!(shown >= 15, "place {place}: {shown}");
        let before = frames(&room, guest, CAMERA);
        room.renegotiate(0, Participant::restart_ice);
        room.run_for(2 * SECOND);
        let shown = frames(&room, guest, CAMERA) - before;
        assert!(shown >= 55, "after ICE began anew: {shown}");
        assert!(room.guests[guest].party.sounds[place] > 100);
    }
    assert_eq!(room.counters.snapshot().sessions_failed, 0);
}
