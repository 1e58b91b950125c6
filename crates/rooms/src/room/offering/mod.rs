// SPDX-License-Identifier: MPL-2.0

//! The m-lines that a participant gets, and the offers that tell it: one at a time, and the newest state in each.
//!
//! By v0 the offers are [`ours`]. By v1 they are [`theirs`]: the participant is told how many m-lines are missing, and its next offer
//! is answered with the newest state.

mod ours;
mod pace;
mod theirs;

use std::time::Instant;

use livekit_protocol::TrackType;

use crate::media::Section;
use crate::sid::Sid;
use ours::LINGER;
use pace::TOGETHER;
use theirs::{CLIENTS, Client};

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
            client.offers_anew();
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
        let is_full = self.tracks().count() >= most.min(CLIENTS);
        !is_full && client.has_room(kind, self.unplaced())
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
        let together = now + TOGETHER;
        self.due = match self.client {
            Some(_) => Some(self.due.unwrap_or(together).min(together)),
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

    /// When there is something to offer, if nothing has to come before.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.due.filter(|_| self.state == State::Idle)?;
        match &self.client {
            Some(client) if !client.has_offered => None,
            Some(client) => Some(client.pace.may_be_asked(due)),
            None => Some(due),
        }
    }

    /// What the last offer carries, and who published it.
    pub(super) fn carried(&self) -> impl Iterator<Item = &(Sid, Sid)> {
        self.offered.iter().filter_map(|s| s.track.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::TrackSource;

    use super::theirs::LINES;
    use super::*;

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
}
