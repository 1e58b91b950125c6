// SPDX-License-Identifier: MPL-2.0

//! What participants publish, and in which of its codecs each subscriber gets a track: part of [`Media`].

use std::collections::HashMap;
use std::sync::Arc;

use sfu_engine::stream::Stream;
use sfu_engine::{Codec, Preference, Publishing, TrackKind};
use sfu_rooms::{Expected, Sid, Wish};

use super::Media;
use super::duplex::Way;
use crate::publications::mime;

/// A track that is published.
pub(super) struct Published {
    pub(super) stream: Arc<Stream>,
    pub(super) kind: TrackKind,
    /// Its codec, of people's tracks, and it in others, for who can't show that one.
    pub(super) codec: Option<Codec>,
    pub(super) further: Vec<(Codec, Arc<Stream>)>,
    /// Width and height of its layers, from the smallest up.
    pub(super) sizes: Vec<(u32, u32)>,
}

impl Published {
    /// What of it is sent to who takes these codecs: the first that it can show.
    pub(super) fn stream_for(&self, takes: impl FnOnce() -> Vec<Codec>) -> &Arc<Stream> {
        let Some(codec) = self.codec.filter(|_| !self.further.is_empty()) else {
            return &self.stream;
        };
        let takes = takes();
        let mut further = self.further.iter();
        let other = further.find(|(codec, _)| takes.contains(codec));
        match (takes.contains(&codec), other) {
            (false, Some((_, stream))) => stream,
            _ => &self.stream,
        }
    }

    /// Whether these are the same streams.
    fn is_as(&self, other: &Self) -> bool {
        let all = |of: &Self| {
            let further = of.further.iter().map(|(_, stream)| Arc::as_ptr(stream));
            let all = std::iter::once(Arc::as_ptr(&of.stream)).chain(further);
            all.collect::<Vec<_>>()
        };
        self.codec == other.codec && all(self) == all(other)
    }

    /// A wish in the engine's words. `None`: it is not to be sent.
    pub(super) fn preference(&self, wish: Wish) -> Option<Preference> {
        if !wish.shown {
            return None;
        }
        // The smallest layer that is as large as is wanted; pictures may stand upright, and encoders round.
        let is_enough = |(width, height): &&(u32, u32)| *width.min(height) >= wish.height;
        let enough = self.sizes.iter().find(is_enough);
        Some(Preference {
            max_height: enough
                .filter(|_| wish.height > 0)
                .map(|(_, height)| height.saturating_add(height / 16)),
            priority: u8::try_from(wish.priority).unwrap_or(u8::MAX),
            ..Preference::default()
        })
    }
}

impl Media {
    /// What a participant publishes is other tracks than before.
    pub(super) fn published(&mut self, sid: &Sid, before: &[Sid], expected: &[Expected]) {
        let Some(party) = self.parties.get(sid) else {
            return;
        };
        let before = before.iter().filter_map(|t| self.tracks.remove_entry(t));
        let before: HashMap<_, _> = before.collect();
        let mut changed = Vec::new();
        for (track, kind, publication) in party.publications.all() {
            let expected = expected.iter().find(|e| e.track == *track);
            let known = party.stream(publication).zip(expected);
            if let Some((stream, expected)) = known {
                let further = party.publications.further(track);
                let further =
                    further.filter_map(|(codec, id)| Some((codec, party.stream(id)?.clone())));
                let published = Published {
                    stream: stream.clone(),
                    kind,
                    codec: party.publications.codec(track),
                    further: further.collect(),
                    sizes: expected.sizes.clone(),
                };
                if before.get(track).is_some_and(|b| !b.is_as(&published)) {
                    changed.push(track.clone());
                }
                self.tracks.insert(track.clone(), published);
            }
        }
        let streams = party.publications.streams();
        let streams = streams.filter_map(|publication| party.stream(publication));
        let publishing = Publishing {
            identity: party.identity.clone(),
            streams: streams.map(|stream| stream.name().clone()).collect(),
        };
        let roster = self.engine.router().roster();
        roster.set(&party.room, sid.as_str(), publishing);
        for track in changed {
            self.choose_codecs(&track);
        }
    }

    /// A track comes in other codecs than before: each subscriber gets the one that it can show.
    fn choose_codecs(&mut self, track: &Sid) {
        let Some(published) = self.tracks.get(track) else {
            return;
        };
        let mut changed = Vec::new();
        for (sid, party) in &mut self.parties {
            let way = Way::of(party.invited.as_ref(), party.duplex.as_ref());
            let Some(line) = party.lines.get_mut(track).filter(|line| line.carries) else {
                continue;
            };
            let stream = published.stream_for(|| way.pictures(line.number));
            if line.sent.as_ptr() != Arc::as_ptr(stream) {
                line.carries = false;
                changed.push(sid.clone());
            }
        }
        for sid in changed {
            self.carry(&sid);
        }
    }
}

/// Codecs as rooms name them.
pub(super) fn shown(codecs: &[Codec]) -> Vec<String> {
    codecs.iter().map(|codec| mime(*codec).to_owned()).collect()
}
