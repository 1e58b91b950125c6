// SPDX-License-Identifier: MPL-2.0

//! The m-lines that a participant gets, and the offers that tell it: one at a time, and the newest state in each.
//!
//! By v1 it is the participant who offers ([`Client`]): it is told how many m-lines are missing, and its next offer is answered
//! with the newest state.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use livekit_protocol::{MediaSectionsRequirement, SessionDescription, TrackType};

use crate::media::Section;
use crate::sid::Sid;

/// What ends is offered so much later: more may end with it, or begin again. As LiveKit's server does.
const LINGER: Duration = Duration::from_millis(200);
/// Who was asked for m-lines and has not offered them is asked again so much later: an offer of before may have been on its way.
const AGAIN: Duration = Duration::from_secs(5);
/// Who makes all offers is asked so much later: what is published seldom comes alone.
const TOGETHER: Duration = Duration::from_millis(50);
/// Who is asked again and again is asked twice as seldom each time, down to once in so long, until there was quiet for a while: each
/// question costs it an offer, and a single publisher that comes and goes brings one about for everybody. Not tuned.
const SELDOM: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(5);
/// M-lines of a client's offers that carry something to it, at most: Chromium's have 4.7 kB for each picture, and a message has a bound.
const CLIENTS: usize = 120;
/// Those of its m-lines that carried something once, and are of one kind for ever: of 256 some are its own.
const LINES: usize = 200;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Offering {
    places: Vec<Place>,
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
    /// Of who makes all offers itself.
    client: Option<Client>,
}

/// An m-line, or what is to have one.
#[derive(Debug)]
struct Place {
    section: Section,
    /// The client's last offer has an m-line that carries it: kept, since it is asked for each track of each participant.
    placed: bool,
}

/// Of a participant who makes all offers.
#[derive(Debug, Default)]
struct Client {
    /// It has made one.
    has_offered: bool,
    /// M-lines for sounds, and for pictures, that carried nothing after the last one.
    free: [usize; 2],
    /// All that it had to get something on.
    lines: [usize; 2],
    /// When it was asked for another one that has not come yet.
    asked: Option<Instant>,
    /// When it was asked last, answered or not, and how long after that it is not asked again.
    last: Option<Instant>,
    gap: Duration,
    /// The m-lines that it was asked for: it adds what each question says.
    outstanding: [usize; 2],
    /// It had m-lines enough and not all was put on them.
    is_stuck: bool,
}

impl Client {
    /// It is asked.
    fn ask(&mut self, now: Instant) {
        let follows = self.last.is_some_and(|last| now < last + QUIET);
        self.gap = match follows {
            true => (2 * self.gap).min(SELDOM),
            false => TOGETHER,
        };
        self.last = Some(now);
        self.asked = Some(now);
    }

    /// When it may be asked what is due then. Its answer to the last question comes first.
    fn may_be_asked(&self, due: Instant) -> Instant {
        let again = self.asked.map(|asked| asked + AGAIN);
        let rested = self.last.map(|last| last + self.gap);
        again.into_iter().chain(rested).fold(due, Instant::max)
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
            self.asked = None;
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
    /// To who makes all offers itself, or to somebody else.
    pub(super) fn new(by_client: bool) -> Self {
        Self {
            client: by_client.then(Client::default),
            ..Self::default()
        }
    }

    /// There is to be an offer, even if nothing has changed.
    pub(super) fn again(&mut self, now: Instant, restart_ice: bool) {
        if let Some(client) = &mut self.client {
            // It makes one by itself.
            client.asked = None;
            client.outstanding = [0; 2];
            self.state = State::Idle;
            return;
        }
        self.due = Some(now);
        self.restart_ice |= restart_ice;
        if restart_ice {
            // Whoever was to answer the last one is gone.
            self.state = State::Idle;
        }
    }

    /// Whether one more track of this kind can be carried, where there may be so many sections.
    pub(super) fn has_room(&self, kind: TrackType, most: usize) -> bool {
        let Some(client) = &self.client else {
            return self.places.len() < most || self.free(kind, None).is_some();
        };
        if self.tracks().count() >= most.min(CLIENTS) {
            return false;
        }
        // What has been added since its last offer takes of what that had, and of what it is asked for.
        let unplaced = self.unplaced();
        let kind = usize::from(kind != TrackType::Audio);
        if client.free[kind] > unplaced[kind] {
            return true;
        }
        let missing = client.missing(unplaced);
        client.lines.iter().chain(&missing).sum::<usize>() < LINES
    }

    /// What is to be carried.
    fn tracks(&self) -> impl Iterator<Item = &Place> {
        let all = self.places.iter();
        all.filter(|place| place.section.track.is_some())
    }

    /// A section that can carry this track. One whose last offer had another one can't yet: clients hear of a track where an
    /// m-line begins to send (JSEP, section 5.10), and so of none that takes another one's place without an offer in between.
    /// Of who makes all offers they are no m-lines, and that is seen to where these are chosen.
    fn free(&self, kind: TrackType, track: Option<&Sid>) -> Option<usize> {
        let last = |n: usize| {
            let offered = self.offered.get(n).filter(|_| self.client.is_none());
            offered.and_then(|section| section.track.as_ref())
        };
        let is_free = |n: usize, offered: bool| {
            let section = &self.places[n].section;
            let is_new = match last(n) {
                Some((last, _)) => offered && Some(last) == track,
                None => !offered,
            };
            section.kind == kind && section.track.is_none() && is_new
        };
        let mut all = 0..self.places.len();
        let same = all.clone().find(|n| is_free(*n, true));
        same.or_else(|| all.find(|n| is_free(*n, false)))
    }

    /// Whether a section has been given up since this was asked last.
    pub(super) fn take_freed(&mut self) -> bool {
        std::mem::take(&mut self.freed)
    }

    /// A track is to be carried.
    pub(super) fn add(&mut self, now: Instant, kind: TrackType, track: Sid, publisher: Sid) {
        self.due = match self.client {
            Some(_) => Some(self.due.unwrap_or(now + TOGETHER).min(now + TOGETHER)),
            None => Some(now),
        };
        let free = self.free(kind, Some(&track));
        let track = Some((track, publisher));
        let section = Section { kind, track };
        // What was given up and comes again before that was offered has the m-line that it had.
        let placed = self.client.is_some() && self.offered.contains(&section);
        let place = Place { section, placed };
        match free {
            Some(free) => self.places[free] = place,
            None => self.places.push(place),
        }
    }

    /// A track is not to be carried any more.
    pub(super) fn remove(&mut self, now: Instant, track: &Sid) {
        let is_it = |place: &Place| {
            let carried = place.section.track.as_ref();
            carried.is_some_and(|(carried, _)| carried == track)
        };
        if let Some(place) = self.places.iter().position(is_it) {
            self.places[place].section.track = None;
            self.places[place].placed = false;
            // Else it is free when that is offered.
            let was_offered = |section: &Section| section.track.is_some();
            self.freed |=
                self.client.is_some() || !self.offered.get(place).is_some_and(was_offered);
            self.due.get_or_insert(now + LINGER);
        }
    }

    /// What is to be offered now, and whether the way is to be found anew.
    pub(super) fn next(&mut self, now: Instant) -> Option<(Vec<Section>, bool)> {
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

    /// When there is something to offer, if nothing has to come before.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.due.filter(|_| self.state == State::Idle)?;
        match &self.client {
            Some(client) if !client.has_offered => None,
            Some(client) => Some(client.may_be_asked(due)),
            None => Some(due),
        }
    }

    /// What who makes all offers is asked to offer now: as it is, or with more m-lines.
    pub(super) fn require(&mut self, now: Instant) -> Option<MediaSectionsRequirement> {
        if self.client.is_none() || self.due()? > now {
            return None;
        }
        let unplaced = self.unplaced();
        self.due = None;
        let client = self.client.as_mut()?;
        let missing = client.missing(unplaced);
        client.ask(now);
        client.outstanding = missing;
        let [num_audios, num_videos] = missing.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Some(MediaSectionsRequirement {
            num_audios,
            num_videos,
        })
    }

    /// What the client's last offer had no m-line for, or was not there yet, of sounds and of pictures.
    fn unplaced(&self) -> [usize; 2] {
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
    pub(super) fn wanted(&mut self) -> Option<Vec<Section>> {
        self.client.as_ref()?;
        self.due = None;
        self.state = State::Making;
        let wanted = self.tracks().map(|place| place.section.clone());
        self.offered = wanted.collect();
        Some(self.offered.clone())
    }

    /// That is answered: the m-lines' mids, in the order of what was wanted, and those that carry nothing. Returns which track
    /// each mid has.
    pub(super) fn conversed(
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

    /// The offer is written: what the client is told.
    pub(super) fn made(&mut self, sdp: String, mids: &[String]) -> Option<SessionDescription> {
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

    /// Of one who publishes and stops eight times a second, and of one who does so now and then.
    #[test]
    fn who_toggles_makes_others_offer_ever_more_seldom() {
        for (period, time, least, most) in [
            (Duration::from_millis(125), 60, 30, 40),
            (QUIET + LINGER, 60, 11, 12),
        ] {
            let mut now = Instant::now();
            let end = now + Duration::from_secs(time);
            let mut offering = Offering::new(true);
            offering.wanted().unwrap();
            offering.conversed(now, &[], [3, 3]);
            let mut offers = 0;
            while now < end {
                let track = Sid::track(TrackSource::Camera);
                offering.add(now, TrackType::Video, track.clone(), Sid::participant());
                let toggled = now + period;
                while now < toggled {
                    if offering.require(now).is_some() {
                        offers += 1;
                        let wanted = offering.wanted().unwrap().len();
                        let mids: Vec<_> = (0..wanted).map(|n| Some(n.to_string())).collect();
                        offering.conversed(now, &mids, [3, 3 - wanted]);
                    }
                    now += Duration::from_millis(25);
                }
                offering.remove(now, &track);
            }
            assert!(
                (least..=most).contains(&offers),
                "{offers} in {time} s, each {period:?}"
            );
            // What is there in the end is told.
            offering.add(
                now,
                TrackType::Video,
                Sid::track(TrackSource::Camera),
                Sid::participant(),
            );
            assert!(offering.due().is_some_and(|due| due <= now + SELDOM));
        }
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
    fn m_lines_that_others_wait_for_already_are_no_room() {
        let now = Instant::now();
        let most = 255;
        let (audio, video) = (TrackType::Audio, TrackType::Video);
        let mut offering = Offering::new(true);
        offering.wanted().unwrap();
        let half = LINES / 2;
        offering.conversed(now, &[], [half, half]);
        assert!(offering.take_freed(), "there are more than before");
        let mut tracks = Vec::new();
        for n in 0..half {
            assert!(offering.has_room(video, most), "{n}");
            let track = Sid::track(TrackSource::Camera);
            offering.add(now, video, track.clone(), Sid::participant());
            tracks.push(track);
        }
        assert!(
            !offering.has_room(video, most),
            "all lines that there may be"
        );
        assert!(offering.has_room(audio, most));
        let placed = |offering: &mut Offering, free: usize| {
            let wanted = offering.wanted().unwrap().len();
            let mids: Vec<_> = (0..wanted).map(|mid| Some(mid.to_string())).collect();
            offering.conversed(now, &mids, [half, free]);
        };
        placed(&mut offering, 0);
        assert!(!offering.has_room(video, most));
        // What has gone is free once that was answered.
        offering.remove(now, &tracks[0]);
        offering.take_freed();
        assert!(!offering.has_room(video, most));
        placed(&mut offering, 1);
        assert!(offering.take_freed() && offering.has_room(video, most));
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
