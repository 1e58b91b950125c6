// SPDX-License-Identifier: MPL-2.0

//! What comes of the stream, and when all of it is there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::inbox::TrackId;
use super::take::Take;

/// A track of which nothing came for this long is not there.
const ABSENT: Duration = Duration::from_secs(5);
/// A track that was declared is waited for this long.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
struct Track {
    /// The format of its newest sample, and when that came.
    newest: Option<(gst::Caps, Instant)>,
    language: Option<String>,
    time: gst::ClockTime,
}

/// What a file is told of a track.
#[derive(Debug, Clone)]
pub(super) struct Format {
    pub(super) caps: gst::Caps,
    /// By BCP 47.
    pub(super) language: Option<String>,
}

impl Track {
    fn present(&self) -> Option<&gst::Caps> {
        let newest = self.newest.as_ref();
        newest
            .filter(|(_, at)| at.elapsed() < ABSENT)
            .map(|(caps, _)| caps)
    }
}

fn is_video(caps: &gst::Caps) -> bool {
    let name = caps.structure(0).map(gst::StructureRef::name);
    name.is_some_and(|name| name.starts_with("video/"))
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Tracks {
    tracks: BTreeMap<TrackId, Track>,
    /// The source said that there are no more.
    settled: bool,
    /// Since when samples wait for the other tracks.
    waiting: Option<Instant>,
    last: Option<Instant>,
}

impl Tracks {
    pub(super) fn add(&mut self, track: TrackId) {
        self.tracks.insert(track, Track::default());
    }

    pub(super) fn remove(&mut self, track: TrackId) {
        self.tracks.remove(&track);
    }

    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Another publisher: it may have other tracks.
    pub(super) fn unsettle(&mut self) {
        self.settled = false;
        self.waiting = None;
    }

    /// Takes note of what is spoken. A file that has begun goes on without.
    pub(super) fn speaks(&mut self, track: TrackId, language: String) {
        self.tracks.entry(track).or_default().language = Some(language);
    }

    /// Takes note of a sample.
    pub(super) fn saw(&mut self, track: TrackId, caps: &gst::Caps, time: gst::ClockTime) {
        let now = Instant::now();
        self.last = Some(now);
        let track = self.tracks.entry(track).or_default();
        track.time = track.time.max(time);
        match &mut track.newest {
            Some((before, at)) if before == caps => *at = now,
            newest => *newest = Some((caps.clone(), now)),
        }
    }

    /// Whether a file can begin that has all tracks.
    pub(super) fn are_ready(&mut self) -> bool {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let all = self.tracks.values().all(|t| t.newest.is_some());
        (self.settled && all) || since.elapsed() >= PATIENCE
    }

    /// The track whose keyframes files begin with.
    pub(super) fn reference(&self) -> Option<TrackId> {
        let present = |t: &(&TrackId, &Track)| t.1.present().is_some();
        let video = |t: &(&TrackId, &Track)| t.1.present().is_some_and(is_video);
        let found = self.tracks.iter().find(video);
        found
            .or_else(|| self.tracks.iter().find(present))
            .map(|(id, _)| *id)
    }

    /// What is there now.
    pub(super) fn present(&self) -> Vec<(TrackId, Format)> {
        let present = |(id, t): (&TrackId, &Track)| {
            let format = Format {
                caps: t.present()?.clone(),
                language: t.language.clone(),
            };
            Some((*id, format))
        };
        self.tracks.iter().filter_map(present).collect()
    }

    /// Whether a file takes all that is there, and begins with the right track's keyframes.
    pub(super) fn fit(&self, take: &Take) -> bool {
        let mut present = self
            .tracks
            .iter()
            .filter_map(|(id, t)| Some((*id, t.present()?)));
        self.reference().is_none_or(|r| r == take.reference())
            && present.all(|(id, caps)| take.takes(id, caps))
    }

    /// The newest running time.
    pub(super) fn now(&self) -> gst::ClockTime {
        let times = self.tracks.values().map(|t| t.time);
        times.max().unwrap_or_default()
    }

    /// Whether nothing came for so long.
    pub(super) fn are_silent_for(&self, time: Duration) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= time)
    }
}
