// SPDX-License-Identifier: MPL-2.0

//! The m-lines that a participant gets, and the offers that tell it: one at a time, and the newest state in each.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use livekit_protocol::{SessionDescription, TrackType};

use crate::media::Section;
use crate::sid::Sid;

/// What ends is offered so much later: more may end with it, or begin again. As LiveKit's server does.
const LINGER: Duration = Duration::from_millis(200);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Offering {
    sections: Vec<Section>,
    /// As they are in the offer that is being made or answered.
    offered: Vec<Section>,
    state: State,
    /// What was offered last is not what there is now, and is offered then.
    due: Option<Instant>,
    restart_ice: bool,
    /// A section has been given up.
    freed: bool,
    /// Of the offer that was sent last.
    id: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    /// The media writes it.
    Making,
    /// The client reads it.
    Sent,
}

impl Offering {
    /// There is to be an offer, even if nothing has changed.
    pub(super) fn again(&mut self, now: Instant, restart_ice: bool) {
        self.due = Some(now);
        self.restart_ice |= restart_ice;
        if restart_ice {
            // Whoever was to answer the last one is gone.
            self.state = State::Idle;
        }
    }

    /// Whether one more track of this kind can be carried, where there may be so many sections.
    pub(super) fn has_room(&self, kind: TrackType, most: usize) -> bool {
        self.sections.len() < most || self.free(kind, None).is_some()
    }

    /// A section that can carry this track. One whose last offer had another one can't yet: clients hear of a track where an
    /// m-line begins to send (JSEP, section 5.10), and so of none that takes another one's place without an offer in between.
    fn free(&self, kind: TrackType, track: Option<&Sid>) -> Option<usize> {
        let last = |n: usize| {
            self.offered
                .get(n)
                .and_then(|section| section.track.as_ref())
        };
        let is_free = |n: usize, offered: bool| {
            let section = &self.sections[n];
            let is_new = match last(n) {
                Some((last, _)) => offered && Some(last) == track,
                None => !offered,
            };
            section.kind == kind && section.track.is_none() && is_new
        };
        let mut all = 0..self.sections.len();
        let same = all.clone().find(|n| is_free(*n, true));
        same.or_else(|| all.find(|n| is_free(*n, false)))
    }

    /// Whether a section has been given up since this was asked last.
    pub(super) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// A track is to be carried.
    pub(super) fn add(&mut self, now: Instant, kind: TrackType, track: Sid, publisher: Sid) {
        self.due = Some(now);
        let free = self.free(kind, Some(&track));
        let track = Some((track, publisher));
        match free {
            Some(free) => self.sections[free].track = track,
            None => self.sections.push(Section { kind, track }),
        }
    }

    /// A track is not to be carried any more.
    pub(super) fn remove(&mut self, now: Instant, track: &Sid) {
        let is_it = |section: &&Section| section.track.as_ref().is_some_and(|(t, _)| t == track);
        if let Some(place) = self.sections.iter().position(|section| is_it(&section)) {
            self.sections[place].track = None;
            // Else it is free when that is offered.
            let was_offered = |section: &Section| section.track.is_some();
            self.freed |= !self.offered.get(place).is_some_and(was_offered);
            self.due.get_or_insert(now + LINGER);
        }
    }

    /// What is to be offered now, and whether the way is to be found anew.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Vec<Section>, bool)> {
        if self.due()? > now {
            return None;
        }
        self.due = None;
        self.state = State::Making;
        let both = self.offered.iter().zip(&self.sections);
        let mut ended =
            both.filter(|(before, after)| before.track.is_some() && after.track.is_none());
        self.freed |= ended.next().is_some();
        self.offered.clone_from(&self.sections);
        Some((self.offered.clone(), std::mem::take(&mut self.restart_ice)))
    }

    /// When there is something to offer, if nothing has to come before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| self.state == State::Idle)
    }

    /// The offer is written: what the client is told.
    pub(super) fn made(&mut self, sdp: String, mids: &[String]) -> Option<SessionDescription> {
        if self.state != State::Making {
            return None;
        }
        self.state = State::Sent;
        self.id += 1;
        // What has changed meanwhile is in the next one.
        let both = self.offered.iter().zip(&self.sections).zip(mids);
        let named = both.filter_map(|((offered, section), mid)| {
            let (track, _) = offered.track.as_ref().filter(|_| offered == section)?;
            Some((mid.clone(), String::from(track)))
        });
        Some(SessionDescription {
            r#type: "offer".into(),
            sdp,
            id: self.id,
            mid_to_track_id: named.collect::<HashMap<_, _>>(),
        })
    }

    /// Nobody could be told: the next one is for who comes back.
    pub(super) fn failed(&mut self, now: Instant) {
        self.state = State::Idle;
        self.due = Some(now);
    }

    /// Whether this answers the offer that was sent last. Some clients leave the number out.
    pub(super) fn answered(&mut self, id: u32) -> bool {
        let is_it = self.state == State::Sent && (id == self.id || id == 0);
        if is_it {
            self.state = State::Idle;
        }
        is_it
    }

    /// What the last offer carries, and who published it.
    pub(super) fn carried(&self) -> impl Iterator<Item = &(Sid, Sid)> {
        self.offered.iter().filter_map(|s| s.track.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::TrackSource;

    use super::*;

    #[test]
    fn one_offer_at_a_time_and_places_are_used_again() {
        let (camera, screen) = (
            Sid::track(TrackSource::Camera),
            Sid::track(TrackSource::ScreenShare),
        );
        let (ann, video) = (Sid::participant(), TrackType::Video);
        let now = Instant::now();
        let mut offering = Offering::default();
        assert!(offering.next(now).is_none());
        offering.add(now, video, camera.clone(), ann.clone());
        let (first, _) = offering.next(now).unwrap();
        assert_eq!(first.len(), 1);
        offering.remove(now, &camera);
        offering.add(
            now,
            TrackType::Audio,
            Sid::track(TrackSource::Microphone),
            ann.clone(),
        );
        assert!(offering.next(now).is_none(), "the first one is on its way");
        let told = offering.made("sdp".into(), &["1".into()]).unwrap();
        assert_eq!(
            (told.id, told.mid_to_track_id.len()),
            (1, 0),
            "what is gone meanwhile is not named"
        );
        assert!(!offering.answered(7));
        assert!(offering.answered(0));
        let (second, restart) = offering.next(now).unwrap();
        let kinds: Vec<_> = second.iter().map(|s| s.kind).collect();
        assert_eq!((kinds, restart), (vec![video, TrackType::Audio], false));
        assert!(second[0].track.is_none());
        offering.add(now, video, screen.clone(), ann);
        offering.made("sdp".into(), &["1".into(), "2".into()]);
        assert!(offering.answered(2));
        let (third, _) = offering.next(now).unwrap();
        assert_eq!(third.len(), 2);
        assert_eq!(third[0].track.as_ref().unwrap().0, screen);
        // The connection broke.
        offering.again(now, true);
        assert!(offering.next(now).unwrap().1);
    }

    /// Whatever is subscribed to, ends, and is answered, in whatever order: between two tracks of a place there is an offer
    /// without any, as clients need it; none is forgotten; and places are not wasted.
    #[test]
    fn no_track_takes_the_place_of_another_one_directly() {
        for seed in 0..500_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut roll = move |most: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % most
            };
            let mut now = Instant::now();
            let mut offering = Offering::default();
            let mut wanted: Vec<Sid> = Vec::new();
            let mut before: Vec<Section> = Vec::new();
            for _ in 0..60 {
                match roll(4) {
                    0 if wanted.len() < 3 => {
                        let track = Sid::track(TrackSource::Camera);
                        let publisher = Sid::participant();
                        offering.add(now, TrackType::Video, track.clone(), publisher);
                        wanted.push(track);
                    }
                    1 if !wanted.is_empty() => {
                        let gone = wanted.remove(roll(wanted.len() as u64) as usize);
                        offering.remove(now, &gone);
                    }
                    2 => now += LINGER * roll(3) as u32 / 2,
                    _ => _ = offering.answered(0),
                }
                let Some((sections, _)) = offering.next(now) else {
                    continue;
                };
                for (old, new) in before.iter().zip(&sections) {
                    let direct =
                        old.track != new.track && old.track.is_some() && new.track.is_some();
                    assert!(!direct, "seed {seed}: {old:?} became {new:?}");
                }
                let carried = |track: &Sid| {
                    sections
                        .iter()
                        .filter(|s| s.track.as_ref().is_some_and(|(t, _)| t == track))
                        .count()
                };
                assert!(
                    wanted.iter().all(|track| carried(track) == 1),
                    "seed {seed}"
                );
                before = sections;
                offering.made(String::new(), &[]);
            }
            assert!(before.len() <= 6, "seed {seed}: {} places", before.len());
        }
    }

    #[test]
    fn where_all_places_are_taken_one_is_free_once_that_was_offered() {
        let now = Instant::now();
        let (camera, screen) = (
            Sid::track(TrackSource::Camera),
            Sid::track(TrackSource::ScreenShare),
        );
        let video = TrackType::Video;
        let mut offering = Offering::default();
        offering.add(now, video, camera.clone(), Sid::participant());
        offering.next(now).unwrap();
        offering.made(String::new(), &["1".into()]).unwrap();
        assert!(offering.answered(1));
        assert!(!offering.has_room(video, 1));
        offering.remove(now, &camera);
        assert!(!offering.has_room(video, 1) && !offering.take_freed());
        offering.next(now + LINGER).unwrap();
        assert!(offering.take_freed() && offering.has_room(video, 1));
        // What nobody was offered yet is free at once.
        offering.add(now, video, screen.clone(), Sid::participant());
        offering.remove(now, &screen);
        assert!(offering.take_freed() && offering.has_room(video, 1));
    }

    #[test]
    fn what_ends_is_offered_a_little_later_and_not_if_it_begins_again() {
        let now = Instant::now();
        let camera = Sid::track(TrackSource::Camera);
        let mut offering = Offering::default();
        offering.add(now, TrackType::Video, camera.clone(), Sid::participant());
        offering.next(now).unwrap();
        offering.made(String::new(), &["1".into()]).unwrap();
        assert!(offering.answered(1));
        offering.remove(now, &camera);
        assert!(offering.next(now).is_none());
        assert_eq!(offering.due(), Some(now + LINGER));
        let (sections, _) = offering.next(now + LINGER).unwrap();
        assert!(sections.iter().all(|section| section.track.is_none()));
    }
}
