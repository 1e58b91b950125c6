// SPDX-License-Identifier: MPL-2.0

//! A room of a hundred: the rooms' own choice of who is forwarded to whom (last-N), over the engine, on links of any kind. People
//! speak by turns, come and go, and change their networks: all by the seed.

use std::time::Duration;

use sfu_rooms::Sound;
use sfu_rooms::proto::TrackType;

use crate::peers::Crowd;
use crate::people::Crowd as People;
use crate::room::Room;

const PEOPLE: usize = 100;
const MINUTE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

struct Hundred {
    room: Room,
    crowd: Crowd,
    people: People,
    speaking: Vec<usize>,
}

impl Hundred {
    fn new(seed: u64) -> Self {
        let mut room = Room::new(seed, 0);
        let crowd = Crowd::new(&mut room, PEOPLE);
        let people = People::new(PEOPLE, Crowd::SLOTS);
        let mut hundred = Self {
            room,
            crowd,
            people,
            speaking: Vec::new(),
        };
        hundred.forward();
        hundred
    }

    fn tick(&mut self, tick: usize) {
        self.room.run_for(TICK);
        for guest in 0..PEOPLE {
            self.crowd.look(&self.room, guest);
        }
        if tick.is_multiple_of(2) {
            self.speak();
            self.forward();
        }
        match tick % 10 {
            4 => self.roam(),
            9 => {
                self.crowd.replace_one(&mut self.room);
                self.forward();
            }
            _ => {}
        }
    }

    /// Up to three at once, for some seconds each.
    fn speak(&mut self) {
        if self.room.draw(10) == 0 {
            self.speaking.push(self.room.draw(PEOPLE));
            let most = 1 + self.room.draw(3);
            let over = self.speaking.len().saturating_sub(most);
            self.speaking.drain(..over);
        }
        for who in &self.speaking {
            let sound = Sound {
                speech: 0.1 + self.room.draw(8) as f32 / 10.0,
                loud: true,
            };
            self.people.hear(*who, sound);
        }
        self.people.listened(2 * TICK);
    }

    /// Each guest's places carry those whom the rooms chose for it, and stay as they are where they do.
    fn forward(&mut self) {
        for guest in 0..PEOPLE {
            let forwarded = self.people.forwarded(guest).into_iter();
            let pictures = forwarded.filter(|(_, kind)| *kind == TrackType::Video);
            let mut wanted: Vec<_> = pictures.map(|(who, _)| self.crowd.cameras[who]).collect();
            assert_eq!(wanted.len(), Crowd::SLOTS);
            let places = &self.room.guests[guest].places;
            let carried: Vec<_> = places.iter().map(|p| p.as_ref().map(|(s, _)| *s)).collect();
            let mut free = Vec::new();
            for (place, carried) in carried.into_iter().enumerate() {
                match wanted.iter().position(|stream| Some(*stream) == carried) {
                    Some(at) => _ = wanted.swap_remove(at),
                    None => free.push(place),
                }
            }
            for (place, stream) in free.into_iter().zip(wanted) {
                self.room.watch(guest, place, Some(stream));
            }
        }
    }

    /// What it misses meanwhile is as if its link lost it.
    fn roam(&mut self) {
        let guest = self.room.draw(PEOPLE);
        self.room.roam(guest);
        let (link, _) = &mut self.crowd.guests[guest];
        link.loss = link.loss.max(0.001);
    }
}

fn hundred(seed: u64, time: Duration) {
    let given = std::env::var("SFU_SEED").ok();
    let seed = given.and_then(|s| s.parse().ok()).unwrap_or(seed);
    let mut hundred = Hundred::new(seed);
    for tick in 0..(time.as_millis() / TICK.as_millis()) as usize {
        hundred.tick(tick);
    }
    let Hundred {
        mut room,
        mut crowd,
        people,
        ..
    } = hundred;
    for guest in 0..PEOPLE {
        crowd.count(&mut room, guest);
    }
    crowd.tally.check(&format!("SFU_SEED={seed}"));
    assert_eq!(people.negotiations, 0, "SFU_SEED={seed}");
    let failed = room.counters.snapshot().sessions_failed;
    assert_eq!(failed, 0, "SFU_SEED={seed}");
}

#[test]
fn a_room_of_a_hundred_is_forwarded_by_who_speaks_1() {
    hundred(1, MINUTE);
}

#[test]
fn a_room_of_a_hundred_is_forwarded_by_who_speaks_2() {
    hundred(2, MINUTE);
}

#[test]
fn a_room_of_a_hundred_is_forwarded_by_who_speaks_3() {
    hundred(3, MINUTE);
}

/// `./sfu soak rooms`: for as many seconds as `SFU_SECONDS` says.
#[test]
#[ignore = "an hour of simulated time"]
fn a_room_of_a_hundred_for_an_hour() {
    let seconds = std::env::var("SFU_SECONDS").ok();
    let seconds = seconds.and_then(|s| s.parse().ok()).unwrap_or(3_600);
    hundred(4, Duration::from_secs(seconds));
}
