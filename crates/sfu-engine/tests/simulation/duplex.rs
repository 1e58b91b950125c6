// SPDX-License-Identifier: MPL-2.0

//! A peer publishes and is sent others' tracks over one connection, and makes all offers: what comes and goes in one direction
//! leaves the other one alone.

use std::time::Duration;

use sfu_engine::TrackKind::{Audio, Video};
use sfu_impair::Conditions;

use crate::participant::Participant;
use crate::room::Room;

const SECOND: Duration = Duration::from_secs(1);
/// Of the publishers; the peer's own camera is after them.
const STREAMS: usize = 3;

fn link(loss: f64) -> Conditions {
    Conditions {
        delay: Duration::from_millis(20),
        rate: Some(60_000_000),
        loss,
        ..Conditions::default()
    }
}

/// A peer that publishes sound and a camera of three layers and is sent three tracks: pictures of two, and a sound. And a guest who
/// is shown its camera.
fn room(seed: u64, loss: f64) -> (Room, usize, usize) {
    let mut room = Room::new(seed, STREAMS);
    let peer = room.converse(link(loss), 3);
    room.run_for(SECOND);
    assert!(room.carried(peer).is_empty());
    for (kind, stream, name) in [(Video, 0, "v0"), (Audio, 0, "a0"), (Video, 1, "v1")] {
        room.send(peer, kind, stream, name);
    }
    // One offer for both directions.
    room.converse_again(peer, |p| p.add(true, false));
    assert_eq!(room.streams.len(), STREAMS + 1);
    assert_eq!(room.carried(peer), [Some(3), Some(0), Some(4)]);
    room.run_for(SECOND);
    let guest = room.join(link(0.0), 1, &[STREAMS]);
    room.run_for(2 * SECOND);
    (room, peer, guest)
}

/// Frames, or packets of sound, on each m-line on which the peer receives; and frames and packets of sound of its own that the
/// guest got.
fn seen(room: &mut Room, peer: usize, guest: usize) -> (Vec<u64>, (u64, u64)) {
    let lines = &room.participant(peer).received.lines;
    let got = lines.iter().map(|line| match line.is_sound {
        true => line.sounds,
        false => line.pictures.decoded().frames,
    });
    let got = got.collect();
    let party = &room.guests[guest].party;
    let shown = party.pictures[0].decoded().frames;
    (got, (shown, party.sounds[0]))
}

/// What is missing for good, but for some of the last: pictures are repeated both ways.
fn assert_whole(room: &mut Room, peer: usize, guest: usize, last: u64) {
    let lines = &room.participant(peer).received.lines;
    let all = lines.iter().filter(|line| !line.is_sound);
    let all: Vec<_> = all.map(|line| line.pictures.decoded()).collect();
    for decoded in &all {
        assert!(decoded.gaps <= last && !decoded.time_went_back, "{all:?}");
    }
    let shown = room.guests[guest].party.pictures[0].decoded();
    assert!(!shown.time_went_back, "{shown:?}");
}

#[test]
fn sound_and_layers_go_up_and_three_tracks_come_down_with_losses() {
    for (seed, loss) in [(1, 0.0), (2, 0.02), (3, 0.02)] {
        let (mut room, peer, guest) = room(seed, loss);
        let (got, shown) = seen(&mut room, peer, guest);
        room.run_for(10 * SECOND);
        let (got_now, shown_now) = seen(&mut room, peer, guest);
        let lossy = loss > 0.0;
        let least = |pictures: bool| match (lossy, pictures) {
            (false, _) => 295,
            // One sound in fifty is lost for good.
            (true, _) => 270,
        };
        for line in [3, 4] {
            let frames = got_now[line] - got[line];
            assert!(frames >= least(true), "seed {seed}, line {line}: {frames}");
        }
        let sounds = got_now[0] - got[0];
        assert!(sounds >= least(false), "seed {seed}: {sounds}");
        let frames = shown_now.0 - shown.0;
        assert!(frames >= least(true), "seed {seed}: {frames} of its own");
        let sounds = shown_now.1 - shown.1;
        assert!(sounds >= least(false), "seed {seed}: {sounds} of its own");
        assert_whole(&mut room, peer, guest, if lossy { 5 } else { 0 });
        assert_eq!(room.counters.snapshot().sessions_failed, 0);
    }
}

#[test]
fn offers_that_add_and_remove_in_one_direction_leave_the_other_alone() {
    let (mut room, peer, guest) = room(4, 0.02);
    for round in 0..8 {
        let (got, shown) = seen(&mut room, peer, guest);
        match round % 4 {
            // One more is wanted than there are m-lines for sound, then there are more.
            0 => {
                for (stream, name) in [(1, "a1"), (2, "a2"), (1, "more")] {
                    room.send(peer, Audio, stream, name);
                }
                room.converse_again(peer, Participant::nudge);
                let missing = room.carried(peer).iter().filter(|on| on.is_none()).count();
                assert_eq!(missing, usize::from(round == 0), "round {round}");
                if missing > 0 {
                    room.converse_again(peer, |p| p.expect(1, 0));
                }
                assert!(room.carried(peer).iter().all(Option::is_some));
            }
            // It publishes a screen, too, or its sound alone.
            1 => match round {
                1 => room.converse_again(peer, |p| p.add(false, true)),
                _ => room.converse_again(peer, |p| p.set(1, true, false)),
            },
            2 => {
                for name in ["a1", "a2", "more"] {
                    room.send_no_more(peer, name);
                }
                room.converse_again(peer, Participant::restart_ice);
            }
            // The camera goes and comes again.
            _ => {
                room.converse_again(peer, |p| p.set(0, true, false));
                room.run_for(SECOND);
                let (_, gone) = seen(&mut room, peer, guest);
                room.run_for(SECOND);
                let (_, still) = seen(&mut room, peer, guest);
                assert!(still.0 <= gone.0 + 2, "round {round}");
                assert!(still.1 >= gone.1 + 25, "round {round}");
                room.converse_again(peer, |p| p.set(0, true, true));
                room.run_for(SECOND);
            }
        }
        room.run_for(3 * SECOND);
        let (got_now, shown_now) = seen(&mut room, peer, guest);
        for line in [0, 3, 4] {
            let count = got_now[line] - got[line];
            assert!(count >= 75, "round {round}, line {line}: {count}");
        }
        assert!(
            shown_now.0 >= shown.0 + 60,
            "round {round}: {shown_now:?} after {shown:?}"
        );
        assert!(
            shown_now.1 >= shown.1 + 75,
            "round {round}: {shown_now:?} after {shown:?}"
        );
    }
    assert_whole(&mut room, peer, guest, 5);
    assert_eq!(room.counters.snapshot().sessions_failed, 0);
}

#[test]
fn pictures_come_again_on_an_m_line_that_was_free() {
    let (mut room, peer, guest) = room(5, 0.0);
    for round in 0..6 {
        let stream = 1 + round % 2;
        let (before, after) = (format!("v{}", round + 1), format!("v{}", round + 2));
        room.send_no_more(peer, &before);
        room.converse_again(peer, Participant::nudge);
        room.run_for(SECOND / 2);
        let (silent, _) = seen(&mut room, peer, guest);
        room.send(peer, Video, stream, &after);
        room.converse_again(peer, Participant::nudge);
        assert!(room.carried(peer).contains(&Some(4)));
        room.run_for(2 * SECOND);
        let (got, _) = seen(&mut room, peer, guest);
        assert!(
            got[4] >= silent[4] + 50,
            "round {round}: {} after {}",
            got[4],
            silent[4]
        );
    }
    assert_whole(&mut room, peer, guest, 0);
}
