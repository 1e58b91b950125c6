// SPDX-License-Identifier: MPL-2.0

//! Streams of the server that are to be participants of rooms (LiveKit's ingress), and those that are: one comes when it has a
//! publisher, and goes with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sfu_engine::stream::Stream;
use sfu_engine::{Engine, StreamInfo, StreamName};
use sfu_rooms::proto::TrackType;
use sfu_rooms::{Rooms, Sid, StreamTrack};

use crate::lock;
use crate::media::Media;
use crate::publications::mime;

/// Between two looks at which of them have a publisher.
const LOOK: Duration = Duration::from_millis(250);
/// As many as there may be.
const MOST: usize = 1_000;

/// Which are to be participants, by room.
#[derive(Debug, Default)]
pub(crate) struct Wanted(Mutex<BTreeSet<(String, StreamName)>>);

impl Wanted {
    /// Returns whether that is new; `None`: there are too many.
    pub(crate) fn add(&self, room: &str, stream: &StreamName) -> Option<bool> {
        let mut wanted = lock(&self.0);
        let one = (room.to_owned(), stream.clone());
        let has_room = wanted.len() < MOST || wanted.contains(&one);
        has_room.then(|| wanted.insert(one))
    }

    /// Returns whether it was.
    pub(crate) fn remove(&self, room: &str, stream: &StreamName) -> bool {
        lock(&self.0).remove(&(room.to_owned(), stream.clone()))
    }

    pub(crate) fn of(&self, room: &str) -> Vec<StreamName> {
        let wanted = lock(&self.0);
        let of_room = wanted.iter().filter(|(known, _)| known == room);
        of_room.map(|(_, stream)| stream.clone()).collect()
    }

    fn all(&self) -> BTreeSet<(String, StreamName)> {
        lock(&self.0).clone()
    }
}

/// See the module's description.
pub(crate) struct Ingresses {
    wanted: Arc<Wanted>,
    present: BTreeMap<(String, StreamName), Present>,
    look: Instant,
}

struct Present {
    participant: Sid,
    stream: Arc<Stream>,
    tracks: Vec<StreamTrack>,
}

impl Ingresses {
    pub(crate) fn new(wanted: Arc<Wanted>, now: Instant) -> Self {
        Self {
            wanted,
            present: BTreeMap::new(),
            look: now,
        }
    }

    /// When it is to be looked at them next, if there are any.
    pub(crate) fn due(&self) -> Option<Instant> {
        let is_idle = self.present.is_empty() && lock(&self.wanted.0).is_empty();
        (!is_idle).then_some(self.look)
    }

    /// What is wanted has changed.
    pub(crate) fn wake(&mut self, now: Instant) {
        self.look = now;
    }

    /// Lets come and go what has.
    pub(crate) fn follow(
        &mut self,
        now: Instant,
        rooms: &mut Rooms,
        media: &mut Media,
        engine: &Engine,
    ) {
        self.look = now + LOOK;
        // Whom an application has removed does not come back by itself.
        let removed = |_: &_, present: &mut Present| !rooms.has(&present.participant);
        for ((room, stream), _) in self.present.extract_if(.., removed) {
            self.wanted.remove(&room, &stream);
        }
        let wanted = self.wanted.all();
        let published = |name: &StreamName| {
            let stream = engine.router().find(name)?;
            let info = stream.info(now);
            info.live.then_some((stream, info))
        };
        let is_over = |(room, name): &(String, StreamName), present: &mut Present| {
            let now = published(name);
            let same = now.is_some_and(|(stream, _)| Arc::ptr_eq(&stream, &present.stream));
            !same || !wanted.contains(&(room.clone(), name.clone()))
        };
        for (_, over) in self.present.extract_if(.., is_over) {
            rooms.end_ingress(now, &over.participant);
        }
        for (room, name) in wanted {
            let Some((stream, info)) = published(&name) else {
                continue;
            };
            let tracks = tracks(&info);
            let key = (room, name);
            let known = self.present.get(&key);
            if tracks.is_empty() || known.is_some_and(|known| known.tracks == tracks) {
                continue;
            }
            let (room, name) = &key;
            match rooms.ingress(now, room, name.as_str(), &tracks) {
                Ok((participant, sids)) => {
                    media.ingest(&participant, room, &stream, sids.into_iter().zip(&tracks));
                    let present = Present {
                        participant,
                        stream,
                        tracks,
                    };
                    self.present.insert(key, present);
                }
                // It is tried again each time: who is in its place may go.
                Err(why) => tracing::debug!(%room, stream = %name, why = why.reason, "not let in"),
            }
        }
    }
}

/// What there is of a stream so far.
fn tracks(info: &StreamInfo) -> Vec<StreamTrack> {
    let video = info.video.as_ref().map(|video| {
        // Those of a stream are told the highest first.
        let layers = video.layers.iter().rev();
        StreamTrack {
            kind: TrackType::Video,
            mime: mime(video.codec).to_owned(),
            sizes: layers.filter_map(|l| l.width.zip(l.height)).collect(),
        }
    });
    let audio = info.audio.first().map(|first| StreamTrack {
        kind: TrackType::Audio,
        mime: mime(first.track.codec).to_owned(),
        sizes: Vec::new(),
    });
    video.into_iter().chain(audio).collect()
}
