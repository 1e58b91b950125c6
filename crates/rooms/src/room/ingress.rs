// SPDX-License-Identifier: MPL-2.0

//! Streams of the server that are participants (LiveKit's kind INGRESS): part of [`Room`].

use livekit_protocol::{AddTrackRequest, TrackSource, TrackType, VideoLayer, VideoQuality};

use super::participant::Participant;
use super::track::Track;
use super::{Outputs, Room};
use crate::media::{Found, StreamTrack};
use crate::rooms::Now;
use crate::sid::Sid;

impl Room {
    pub(crate) fn is_ingress(&self, sid: &Sid) -> bool {
        self.participants
            .get(sid)
            .is_some_and(Participant::is_ingress)
    }

    /// A stream is there, or has other tracks than before: what is the same keeps its name. Returns who it is, and its tracks' names
    /// in the order of `tracks`.
    pub(crate) fn ingress(
        &mut self,
        now: Now,
        identity: &str,
        tracks: &[StreamTrack],
        out: &mut Outputs,
    ) -> (Sid, Vec<Sid>) {
        let sid = match self.of_identity(identity) {
            Some(sid) => sid,
            None => self.enter(now, identity, out),
        };
        let Some(participant) = self.participants.get_mut(&sid) else {
            return (sid, Vec::new());
        };
        let mut found: Vec<Found> = Vec::new();
        let mut is_new = false;
        for track in tracks {
            let announced = announce(track);
            let same = |known: &&mut Track| {
                known.kind() == track.kind && known.info().mime_type == track.mime
            };
            let track_sid = match participant.tracks.iter_mut().find(same) {
                Some(known) => {
                    if known.info().layers != announced.layers {
                        known.set_size(now, announced.width, announced.height);
                        known.set_layers(now, announced.layers);
                        is_new = true;
                    }
                    known.sid.clone()
                }
                None => {
                    let added = Track::announced(now, &announced);
                    let added_sid = added.sid.clone();
                    self.publishers.insert(added_sid.clone(), sid.clone());
                    participant.tracks.push(added);
                    added_sid
                }
            };
            found.push(Found {
                track: track_sid,
                cid: String::new(),
                mid: String::new(),
                mime: track.mime.clone(),
                rids: Vec::new(),
            });
        }
        if is_new {
            participant.changed();
            self.note(now, &sid);
        }
        self.published(now, &sid, &found, out);
        self.settle(now, out);
        (sid, found.into_iter().map(|found| found.track).collect())
    }

    fn enter(&mut self, now: Now, identity: &str, out: &mut Outputs) -> Sid {
        let participant = Participant::ingress(now, identity);
        let sid = participant.sid.clone();
        self.add(participant);
        self.tell_room_in(now, super::TELL_ROOM);
        if let Some(participant) = self.participants.get(&sid) {
            self.tell_of("participant_joined", now, participant, None, out);
        }
        sid
    }
}

/// As a client would announce it.
fn announce(track: &StreamTrack) -> AddTrackRequest {
    let source = match track.kind {
        TrackType::Audio => TrackSource::Microphone,
        TrackType::Video | TrackType::Data => TrackSource::Camera,
    };
    let highest = track.sizes.len().saturating_sub(1);
    let quality = |place: usize| match place {
        place if place == highest => VideoQuality::High,
        0 => VideoQuality::Low,
        _ => VideoQuality::Medium,
    };
    let layers = track.sizes.iter().enumerate();
    let layers = layers.map(|(place, (width, height))| VideoLayer {
        quality: quality(place).into(),
        width: *width,
        height: *height,
        ..VideoLayer::default()
    });
    let (width, height) = track.sizes.last().copied().unwrap_or_default();
    AddTrackRequest {
        r#type: track.kind.into(),
        source: source.into(),
        width,
        height,
        layers: layers.collect(),
        ..AddTrackRequest::default()
    }
}
