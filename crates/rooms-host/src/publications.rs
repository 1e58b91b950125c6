// SPDX-License-Identifier: MPL-2.0

//! Which m-line of a participant's offer is which track that it has announced, and which tracks are one stream: microphone and
//! camera, so that they stay in sync for whoever plays them; the screen and its sound; each other track alone.

use std::collections::HashMap;

use sfu_engine::transport::negotiate::PublisherTrack;
use sfu_engine::{Codec, Grouped, PublicationId, TrackKind};
use sfu_rooms::proto::TrackType;
use sfu_rooms::{Expected, Found, Sid};

use crate::names::{Names, Part};

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    next: u32,
    groups: Vec<Group>,
    /// Tracks in a further codec each, for who can't show their first.
    further: Vec<Further>,
    /// Of the m-lines of the last offer.
    by_mid: HashMap<String, Sid>,
    /// In which codec each track comes first.
    codecs: HashMap<Sid, Codec>,
}

/// A track in one more codec: a stream of its own.
#[derive(Debug)]
struct Further {
    id: PublicationId,
    track: Sid,
    codec: Codec,
}

/// What is one stream.
#[derive(Debug)]
struct Group {
    id: PublicationId,
    part: Part,
    video: Option<Sid>,
    audio: Option<Sid>,
}

impl Group {
    fn of(&mut self, kind: TrackKind) -> &mut Option<Sid> {
        match kind {
            TrackKind::Video => &mut self.video,
            TrackKind::Audio => &mut self.audio,
        }
    }
}

impl Publications {
    /// The tracks of an offer: what of them was announced, and how they are published.
    pub(crate) fn group(
        &mut self,
        names: &Names,
        tracks: &[PublisherTrack],
        expected: &[Expected],
    ) -> (Vec<Found>, Vec<Grouped>) {
        let matched = self.matched(tracks, expected);
        let by_mid = matched
            .iter()
            .map(|(t, e)| (t.mid.clone(), e.track.clone()));
        self.by_mid = by_mid.collect();
        let found = matched.iter().map(|(track, e)| found(track, e)).collect();
        let (one_each, further) = split(matched);
        let codecs = one_each.iter().map(|(t, e)| (e.track.clone(), t.codec));
        self.codecs = codecs.collect();
        self.assign(&one_each);
        self.assign_further(&further);
        let grouped = self.groups.iter().map(|group| {
            let is_in =
                |e: &Expected| [&group.video, &group.audio].contains(&&Some(e.track.clone()));
            let tracks = one_each.iter().filter(|(_, e)| is_in(e));
            Grouped {
                id: group.id,
                names: names.of(&group.part),
                tracks: tracks.map(|(track, _)| (*track).clone()).collect(),
            }
        });
        let further = self.further.iter().map(|known| {
            let is_it = |(t, e): &&(&PublisherTrack, &Expected)| {
                e.track == known.track && t.codec == known.codec
            };
            let tracks = further.iter().filter(is_it);
            let part = Part::Codec(known.track.clone(), known.codec);
            Grouped {
                id: known.id,
                names: names.of(&part),
                tracks: tracks.map(|(track, _)| (*track).clone()).collect(),
            }
        });
        (found, grouped.chain(further).collect())
    }

    /// Which announced track each m-line is: by the client's id for it, by what it was before, or the first of its kind that is on
    /// none yet. An id that was announced twice is what the m-line was, if that has it, or the newest.
    fn matched<'a>(
        &self,
        tracks: &'a [PublisherTrack],
        expected: &'a [Expected],
    ) -> Vec<(&'a PublisherTrack, &'a Expected)> {
        let before = |track: &PublisherTrack| {
            let sid = self.by_mid.get(&track.mid)?;
            expected.iter().find(|e| e.track == *sid)
        };
        let by_cid = |track: &PublisherTrack| {
            let cid = cid(track)?;
            let has = |e: &&Expected| e.cids.iter().any(|c| c == cid);
            let before = before(track).filter(has);
            before.or_else(|| expected.iter().rev().find(has))
        };
        // Of another kind it is another track, whatever its id.
        let fits = |track: &PublisherTrack, e: &Expected| kind(e.kind) == track.codec.kind();
        let known = |track: &PublisherTrack| {
            let known = by_cid(track).or_else(|| before(track));
            known.filter(|e| fits(track, e))
        };
        let mut taken: Vec<_> = tracks.iter().filter_map(known).map(|e| &e.track).collect();
        let is_live = |e: &Expected| self.by_mid.values().any(|sid| *sid == e.track);
        let mut matched = Vec::new();
        for track in tracks {
            let is_free =
                |e: &&Expected| fits(track, e) && !is_live(e) && !taken.contains(&&e.track);
            let found = known(track).or_else(|| expected.iter().find(is_free));
            // What was not announced is nobody's.
            let Some(found) = found else {
                continue;
            };
            taken.push(&found.track);
            matched.push((track, found));
        }
        matched
    }

    /// Each track to a stream: where it was, with those that it belongs to, or alone. One that has lost all its tracks in this offer is
    /// there for others that belong to it: its name is claimed still, and so is none that another stream could have yet.
    fn assign(&mut self, tracks: &[(&PublisherTrack, &Expected)]) {
        let is_there = |sid: &Sid| tracks.iter().any(|(_, e)| e.track == *sid);
        for group in &mut self.groups {
            group.video.take_if(|sid| !is_there(sid));
            group.audio.take_if(|sid| !is_there(sid));
        }
        for (track, expected) in tracks {
            let (kind, sid) = (track.codec.kind(), &expected.track);
            if self
                .groups
                .iter_mut()
                .any(|g| g.of(kind).as_ref() == Some(sid))
            {
                continue;
            }
            let wanted = match expected.is_screen {
                true => Part::Screen,
                false => Part::Camera,
            };
            let known = self.groups.iter_mut().find(|group| group.part == wanted);
            match known.map(|group| group.of(kind)) {
                Some(free @ None) => *free = Some(sid.clone()),
                Some(_) => self.add(Part::Track(sid.clone()), kind, sid),
                None => self.add(wanted, kind, sid),
            }
        }
        self.groups
            .retain(|group| group.video.is_some() || group.audio.is_some());
    }

    /// The same, of tracks in further codecs.
    fn assign_further(&mut self, tracks: &[(&PublisherTrack, &Expected)]) {
        let is = |known: &Further, (track, expected): &(&PublisherTrack, &Expected)| {
            known.track == expected.track && known.codec == track.codec
        };
        self.further
            .retain(|known| tracks.iter().any(|t| is(known, t)));
        for new in tracks {
            if self.further.iter().all(|known| !is(known, new)) {
                let id = PublicationId(self.next);
                self.next += 1;
                self.further.push(Further {
                    id,
                    track: new.1.track.clone(),
                    codec: new.0.codec,
                });
            }
        }
    }

    fn add(&mut self, part: Part, kind: TrackKind, sid: &Sid) {
        let id = PublicationId(self.next);
        self.next += 1;
        let mut group = Group {
            id,
            part,
            video: None,
            audio: None,
        };
        *group.of(kind) = Some(sid.clone());
        self.groups.push(group);
    }

    /// What is one stream each: the camera and microphone first, then the screen, then others.
    pub(crate) fn streams(&self) -> impl Iterator<Item = PublicationId> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|group| match group.part {
            Part::Camera => 0,
            Part::Screen => 1,
            Part::Track(_) | Part::Codec(..) => 2,
        });
        groups.into_iter().map(|group| group.id)
    }

    /// The tracks that are published.
    pub(crate) fn sids(&self) -> Vec<Sid> {
        self.all().map(|(track, ..)| track.clone()).collect()
    }

    /// In which codec a track comes first.
    pub(crate) fn codec(&self, track: &Sid) -> Option<Codec> {
        self.codecs.get(track).copied()
    }

    /// In which others it comes, and the streams of that.
    pub(crate) fn further(&self, track: &Sid) -> impl Iterator<Item = (Codec, PublicationId)> {
        let of_it = self.further.iter().filter(move |f| f.track == *track);
        of_it.map(|further| (further.codec, further.id))
    }

    /// All tracks that are published, with their streams.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Sid, TrackKind, PublicationId)> {
        self.groups.iter().flat_map(|group| {
            let video = group.video.as_ref();
            let video = video.map(|sid| (sid, TrackKind::Video, group.id));
            let audio = group.audio.as_ref();
            let audio = audio.map(|sid| (sid, TrackKind::Audio, group.id));
            video.into_iter().chain(audio)
        })
    }
}

type Matched<'a> = Vec<(&'a PublisherTrack, &'a Expected)>;

/// One m-line of each track, that of the id that was announced first or the first of all; and others in further codecs, one of each.
fn split<'a>(matched: Matched<'a>) -> (Matched<'a>, Matched<'a>) {
    let (mut first, mut further): (Matched<'a>, Matched<'a>) = (Vec::new(), Vec::new());
    for (track, expected) in matched {
        let of_it = first.iter_mut().find(|(_, e)| e.track == expected.track);
        let Some(known) = of_it else {
            first.push((track, expected));
            continue;
        };
        let is_first = expected.cids.first().map(String::as_str) == cid(track);
        let other = match is_first {
            true => std::mem::replace(known, (track, expected)),
            false => (track, expected),
        };
        let codec = other.0.codec;
        let is_there =
            |(t, e): &(&PublisherTrack, &Expected)| e.track == expected.track && t.codec == codec;
        if known.0.codec != codec && !further.iter().any(is_there) {
            further.push(other);
        }
    }
    (first, further)
}

/// The id that the client gave it, where its offer tells it (`a=msid`).
fn cid(track: &PublisherTrack) -> Option<&str> {
    let (_, cid) = track.msid.as_deref()?.split_once(' ')?;
    Some(cid)
}

pub(crate) fn kind(kind: TrackType) -> TrackKind {
    match kind {
        TrackType::Audio => TrackKind::Audio,
        TrackType::Video | TrackType::Data => TrackKind::Video,
    }
}

fn found(track: &PublisherTrack, expected: &Expected) -> Found {
    Found {
        track: expected.track.clone(),
        cid: cid(track).unwrap_or_default().to_owned(),
        mid: track.mid.clone(),
        mime: mime(track.codec).to_owned(),
        rids: rids(track),
    }
}

/// From the lowest up, as LiveKit's clients list them.
fn rids(track: &PublisherTrack) -> Vec<String> {
    let rids = track.rids.iter().flatten();
    rids.map(|rid| rid.as_str().to_owned()).collect()
}

pub(crate) fn mime(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "video/H264",
        Codec::Vp8 => "video/VP8",
        Codec::Vp9 => "video/VP9",
        Codec::Av1 => "video/AV1",
        Codec::H265 => "video/H265",
        Codec::Opus => "audio/opus",
    }
}

#[cfg(test)]
mod tests;
