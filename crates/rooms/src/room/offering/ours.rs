// SPDX-License-Identifier: MPL-2.0

//! Offers that the server makes (v0), and their answers: part of [`Offering`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use livekit_protocol::SessionDescription;

use super::{Offering, State};
use crate::media::Section;

/// What ends is offered so much later: more may end with it, or begin again. As LiveKit's server does.
pub(super) const LINGER: Duration = Duration::from_millis(200);

impl Offering {
    /// What is to be offered now, and whether the way is to be found anew.
    pub(in crate::room) fn next(&mut self, now: Instant) -> Option<(Vec<Section>, bool)> {
        if self.client.is_some() || self.due()? > now {
            return None;
        }
        self.due = None;
        self.state = State::Making;
        let sections: Vec<_> = self.places.iter().map(|p| p.section.clone()).collect();
        let both = self.offered.iter().zip(&sections);
        let mut ended =
            both.filter(|(before, after)| before.track.is_some() && after.track.is_none());
        self.freed |= ended.next().is_some();
        self.offered = sections;
        Some((self.offered.clone(), std::mem::take(&mut self.restart_ice)))
    }

    /// The offer is written: what the client is told.
    pub(in crate::room) fn made(
        &mut self,
        sdp: String,
        mids: &[String],
    ) -> Option<SessionDescription> {
        if self.state != State::Making {
            return None;
        }
        self.state = State::Sent;
        self.id += 1;
        // What has changed meanwhile is in the next one.
        let both = self.offered.iter().zip(&self.places).zip(mids);
        let named = both.filter_map(|((offered, place), mid)| {
            let is_so = *offered == place.section;
            let (track, _) = offered.track.as_ref().filter(|_| is_so)?;
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
    pub(in crate::room) fn failed(&mut self, now: Instant) {
        self.state = State::Idle;
        self.due = Some(now);
    }

    /// Whether this answers the offer that was sent last. Some clients leave the number out.
    pub(in crate::room) fn answered(&mut self, id: u32) -> bool {
        let is_it = self.state == State::Sent && (id == self.id || id == 0);
        if is_it {
            self.state = State::Idle;
        }
        is_it
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{TrackSource, TrackType};

    use super::*;
    use crate::sid::Sid;

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
