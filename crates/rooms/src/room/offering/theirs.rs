// SPDX-License-Identifier: MPL-2.0

//! Offers that the participant makes, all of them (v1): part of [`Offering`].

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use livekit_protocol::{MediaSectionsRequirement, TrackType};

use super::pace::{AGAIN, Pace};
use super::{Offering, Place, State};
use crate::media::Section;

/// M-lines of a client's offers that carry something to it, at most: Chromium's have 4.7 kB for each picture, and a message has a bound.
pub(super) const CLIENTS: usize = 120;
/// Those of its m-lines that carried something once, and are of one kind for ever: of 256 some are its own.
pub(super) const LINES: usize = 200;

/// Of a participant who makes all offers.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// It has made one.
    pub(super) has_offered: bool,
    /// M-lines for sounds, and for pictures, that carried nothing after the last one.
    free: [usize; 2],
    /// All that it had to get something on.
    lines: [usize; 2],
    /// When it may be asked for another one.
    pub(super) pace: Pace,
    /// The m-lines that it was asked for: it adds what each question says.
    outstanding: [usize; 2],
    /// It had m-lines enough and not all was put on them.
    is_stuck: bool,
}

impl Client {
    /// It makes one by itself, as one does who is new.
    pub(super) fn offers_anew(&mut self) {
        self.pace.answered();
        self.outstanding = [0; 2];
    }

    /// Whether it can have an m-line for one more track of this kind beside those that have none yet, for sounds and for pictures.
    pub(super) fn has_room(&self, kind: TrackType, unplaced: [usize; 2]) -> bool {
        // What has been added since its last offer takes of what that had, and of what it is asked for.
        let kind = usize::from(kind != TrackType::Audio);
        if self.free[kind] > unplaced[kind] {
            return true;
        }
        let missing = self.missing(unplaced);
        self.lines.iter().chain(&missing).sum::<usize>() < LINES
    }

    /// It has offered, with so many m-lines for what it gets.
    fn offered(&mut self, lines: [usize; 2], free: [usize; 2]) {
        self.has_offered = true;
        self.free = free;
        let before = self.lines.iter().zip(lines);
        for (outstanding, (before, now)) in self.outstanding.iter_mut().zip(before) {
            *outstanding = outstanding.saturating_sub(now.saturating_sub(*before));
        }
        self.lines = lines;
        if self.outstanding == [0; 2] {
            self.pace.answered();
        }
    }

    /// The m-lines that its last offer had too few of, where so many tracks have none, for sounds and for pictures.
    fn missing(&self, unplaced: [usize; 2]) -> [usize; 2] {
        let mut left = LINES.saturating_sub(self.lines.iter().sum());
        [0, 1].map(|kind: usize| {
            let missing = unplaced[kind].saturating_sub(self.free[kind]).min(left);
            left -= missing;
            missing
        })
    }
}

impl Offering {
    /// What who makes all offers is asked to offer now: as it is, or with more m-lines.
    pub(in crate::room) fn require(&mut self, now: Instant) -> Option<MediaSectionsRequirement> {
        if self.client.is_none() || self.due()? > now {
            return None;
        }
        let unplaced = self.unplaced();
        self.due = None;
        let client = self.client.as_mut()?;
        let missing = client.missing(unplaced);
        client.pace.ask(now);
        client.outstanding = missing;
        let [num_audios, num_videos] = missing.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Some(MediaSectionsRequirement {
            num_audios,
            num_videos,
        })
    }

    /// What the client's last offer had no m-line for, or was not there yet, of sounds and of pictures.
    pub(super) fn unplaced(&self) -> [usize; 2] {
        self.count(|place| !place.placed)
    }

    /// How many tracks are so, of sounds and of pictures.
    fn count(&self, is_so: impl Fn(&Place) -> bool) -> [usize; 2] {
        let mut counts = [0; 2];
        for place in self.tracks().filter(|place| is_so(place)) {
            counts[usize::from(place.section.kind != TrackType::Audio)] += 1;
        }
        counts
    }

    /// The client offers: what its offer is to be answered with. `None`: it does not make all offers.
    pub(in crate::room) fn wanted(&mut self) -> Option<Vec<Section>> {
        self.client.as_ref()?;
        self.due = None;
        self.state = State::Making;
        let wanted = self.tracks().map(|place| place.section.clone());
        self.offered = wanted.collect();
        Some(self.offered.clone())
    }

    /// That is answered: the m-lines' mids, in the order of what was wanted, and those that carry nothing. Returns which track
    /// each mid has.
    pub(in crate::room) fn conversed(
        &mut self,
        now: Instant,
        mids: &[Option<String>],
        free: [usize; 2],
    ) -> HashMap<String, String> {
        self.state = State::Idle;
        let both = self.offered.iter().zip(mids);
        let carried = both.filter_map(|(section, mid)| {
            let (track, _) = section.track.as_ref()?;
            Some((mid.clone()?, String::from(track), section.clone()))
        });
        let carried: Vec<_> = carried.collect();
        let is_short = carried.len() < self.offered.len();
        self.offered = carried
            .iter()
            .map(|(.., section)| section.clone())
            .collect();
        let placed = self.offered.iter().filter_map(|s| s.track.as_ref());
        let placed: HashSet<_> = placed.collect();
        for place in &mut self.places {
            let track = place.section.track.as_ref();
            place.placed = track.is_some_and(|track| placed.contains(track));
        }
        let carries = self.count(|place| place.placed);
        let unplaced = self.unplaced();
        let missing = match &mut self.client {
            Some(client) => {
                client.offered([0, 1].map(|kind| carries[kind] + free[kind]), free);
                // For who waits. There may be no more free ones than before: one was taken, and one given up.
                self.freed |= (0..2).any(|kind| free[kind] > unplaced[kind]);
                client.missing(unplaced)
            }
            None => [0; 2],
        };
        if is_short {
            // What was to be free for one offer is taken with the next one, of which no client makes too few m-lines.
            let has_enough = missing == [0; 2];
            let client = self.client.as_mut();
            let was_stuck = client.is_some_and(|c| std::mem::replace(&mut c.is_stuck, has_enough));
            let later = has_enough && was_stuck;
            self.due
                .get_or_insert(if later { now + AGAIN } else { now });
        } else if let Some(client) = &mut self.client {
            client.is_stuck = false;
        }
        let named = carried.into_iter().map(|(mid, track, _)| (mid, track));
        named.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use livekit_protocol::TrackSource;

    use super::super::ours::LINGER;
    use super::super::pace::TOGETHER;
    use super::*;
    use crate::sid::Sid;

    #[test]
    fn who_offers_itself_is_asked_for_the_m_lines_that_are_missing() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let ann = Sid::participant();
        let track = || Sid::track(TrackSource::Camera);
        let mut offering = Offering::new(true);
        let first = track();
        offering.add(now, TrackType::Video, first.clone(), ann.clone());
        assert_eq!(offering.require(now), None, "its first offer is on its way");
        assert_eq!(offering.wanted().unwrap().len(), 1);
        let named = offering.conversed(now, &[Some("3".into())], [3, 2]);
        assert_eq!(named["3"], first.as_str());
        assert_eq!((offering.require(now), offering.due()), (None, None));
        // Two fit, the third and a fourth do not.
        for _ in 0..4 {
            offering.add(now, TrackType::Video, track(), ann.clone());
        }
        assert_eq!(offering.require(now), None, "more may come with it");
        let soon = now + TOGETHER;
        let required = offering.require(soon).unwrap();
        assert_eq!((required.num_audios, required.num_videos), (0, 2));
        assert_eq!(offering.require(soon), None, "it is told once");
        // An offer that was on its way has too few: it is not asked again at once.
        let wanted = offering.wanted().unwrap();
        assert_eq!(wanted.len(), 5);
        let mut mids: Vec<_> = (3..6).map(|mid: u32| Some(mid.to_string())).collect();
        mids.resize(5, None);
        assert_eq!(offering.conversed(now + second, &mids, [3, 0]).len(), 3);
        assert_eq!(offering.require(now + second), None);
        assert_eq!(offering.carried().count(), 3);
        let required = offering.require(soon + AGAIN).unwrap();
        assert_eq!((required.num_audios, required.num_videos), (0, 2));
        let later = now + 3 * AGAIN;
        offering.wanted().unwrap();
        let mids: Vec<_> = (3..8).map(|mid: u32| Some(mid.to_string())).collect();
        assert_eq!(offering.conversed(later, &mids, [3, 0]).len(), 5);
        assert_eq!(offering.due(), None);
        // One that waits for an m-line of what has gone is not let wait.
        offering.remove(later, &first);
        let second_camera = track();
        offering.add(later, TrackType::Video, second_camera.clone(), ann.clone());
        offering.wanted().unwrap();
        let mids = (4..9).map(|mid: u32| (mid < 8).then(|| mid.to_string()));
        let mids: Vec<_> = mids.collect();
        offering.conversed(later, &mids, [3, 1]);
        let required = offering.require(later).unwrap();
        assert_eq!(required, MediaSectionsRequirement::default());
        offering.wanted().unwrap();
        let mids: Vec<_> = (3..8).map(|mid: u32| Some(mid.to_string())).collect();
        assert_eq!(offering.conversed(later, &mids, [3, 0]).len(), 5);
        // What goes is told a little later, by an offer as it is.
        offering.remove(later, &second_camera);
        assert_eq!(offering.require(later), None);
        let required = offering.require(later + LINGER).unwrap();
        assert_eq!(required, MediaSectionsRequirement::default());
        assert_eq!(offering.wanted().unwrap().len(), 4);
    }

    /// Clients add what each question says, however many there have been before.
    #[test]
    fn a_client_is_asked_for_each_line_once() {
        let now = Instant::now();
        let ann = Sid::participant();
        let mut offering = Offering::new(true);
        let (mut asked, mut lines) = (0, 3);
        let mut at = now;
        for round in 0..40 {
            let track = Sid::track(TrackSource::Camera);
            offering.add(at, TrackType::Video, track, ann.clone());
            at += Duration::from_millis(60);
            let required = offering.require(at);
            asked += required.map_or(0, |required| required.num_videos);
            // It offers now and then, and the first time by itself.
            if round % 7 == 0 {
                lines += std::mem::take(&mut asked);
                let wanted = offering.wanted().unwrap().len();
                let placed = wanted.min(lines as usize);
                let mid = |n: usize| (n < placed).then(|| n.to_string());
                let mids: Vec<_> = (0..wanted).map(mid).collect();
                offering.conversed(at, &mids, [0, lines as usize - placed]);
            }
        }
        assert!(lines + asked <= 40, "{lines} and {asked}");
        assert!(lines >= 30, "{lines}");
    }

    /// Whoever has lines enough and is given nothing on them is not asked all the time.
    #[test]
    fn what_can_be_put_nowhere_is_not_tried_without_end() {
        let mut now = Instant::now();
        let mut offering = Offering::new(true);
        let track = Sid::track(TrackSource::Camera);
        offering.add(now, TrackType::Video, track, Sid::participant());
        let mut offers = 0;
        let end = now + 10 * AGAIN;
        while now < end {
            if offers == 0 || offering.require(now).is_some() {
                offering.wanted().unwrap();
                offering.conversed(now, &[None], [0, 3]);
                offers += 1;
            }
            now += TOGETHER;
        }
        assert!((5..20).contains(&offers), "{offers}");
    }

    #[test]
    fn an_m_line_that_becomes_free_while_another_one_is_taken_is_told_of() {
        let (now, most) = (Instant::now(), 255);
        let video = TrackType::Video;
        let mut offering = Offering::new(true);
        let conversed = |offering: &mut Offering, free: usize, placed: usize| {
            let wanted = offering.wanted().unwrap().len();
            let mid = |n: usize| (n < placed).then(|| n.to_string());
            let mids: Vec<_> = (0..wanted).map(mid).collect();
            offering.conversed(now, &mids, [LINES - 2, free]);
        };
        conversed(&mut offering, 2, 0);
        let tracks = [(); 2].map(|()| Sid::track(TrackSource::Camera));
        for track in &tracks {
            offering.add(now, video, track.clone(), Sid::participant());
        }
        // The m-line that the second one is to have is free for one offer yet.
        conversed(&mut offering, 1, 1);
        offering.remove(now, &tracks[0]);
        offering.take_freed();
        assert!(!offering.has_room(video, most));
        conversed(&mut offering, 1, 1);
        assert!(offering.take_freed() && offering.has_room(video, most));
    }

    /// Whatever is added, goes, comes again and is answered, in whatever order: what is said to have an m-line is what the last
    /// offer carries.
    #[test]
    fn what_has_an_m_line_is_known_at_any_time() {
        for seed in 0..500_u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut roll = move |most: usize| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random as usize % most
            };
            let now = Instant::now();
            let publisher = Sid::participant();
            let mut offering = Offering::new(true);
            let (mut wanted, mut gone): (Vec<Sid>, Vec<Sid>) = (Vec::new(), Vec::new());
            for _ in 0..60 {
                match roll(4) {
                    0 if gone.is_empty() => gone.push(Sid::track(TrackSource::Camera)),
                    0 => {
                        let track = gone.swap_remove(roll(gone.len()));
                        offering.add(now, TrackType::Video, track.clone(), publisher.clone());
                        wanted.push(track);
                    }
                    1 if !wanted.is_empty() => {
                        let track = wanted.swap_remove(roll(wanted.len()));
                        offering.remove(now, &track);
                        gone.push(track);
                    }
                    2 => {
                        let asked = offering.wanted().unwrap().len();
                        let mid = |n: usize| (roll(3) > 0).then(|| n.to_string());
                        let mids: Vec<_> = (0..asked).map(mid).collect();
                        offering.conversed(now, &mids, [0, 0]);
                    }
                    _ => {}
                }
                let carried: HashSet<_> = offering.carried().map(|(track, _)| track).collect();
                let unplaced = wanted.iter().filter(|track| !carried.contains(track));
                let unplaced = unplaced.count();
                assert_eq!(offering.unplaced(), [0, unplaced], "seed {seed}");
            }
        }
    }
}
