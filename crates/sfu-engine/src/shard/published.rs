// SPDX-License-Identifier: MPL-2.0

//! What a publishing peer sends under one name: pictures and sound, maybe in several languages, which feed one stream. A peer's sound and camera
//! are one publication, so that they stay in sync for whoever plays the stream; its screen is another one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::timeline::{Stamp, Timeline};
use crate::audio::AudioTrack;
use crate::claim::Claim;
use crate::codec::{Codec, TrackKind};
use crate::ids::Rid;
use crate::layers::LayerInfo;
use crate::loudness::Loudness;
use crate::packet::{Layering, RtpIn};
use crate::speech::Windows;
use crate::stream::{Lease, Stream};
use crate::transport::negotiate::PublisherTrack;
use crate::transport::{Incoming, TrackIn};

/// The least time between two changes of a peer's codec.
const CODEC_KEPT: Duration = Duration::from_secs(1);
/// Who sends although the stream is another one's is told once in this time.
const REFUSED: Duration = Duration::from_secs(1);

/// A publication among those of its peer, as whoever made it counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicationId(pub u32);

/// What a peer publishes under one name.
#[derive(Debug)]
pub struct Publication {
    /// Which one it is.
    pub id: PublicationId,
    /// What it has of the stream until its media comes. `None`: the peer has it since an earlier command.
    pub claim: Option<Claim>,
    /// The pictures.
    pub video: Option<PublisherTrack>,
    /// The sound, in one language or several: tracks of the stream in this order.
    pub audio: Vec<PublisherTrack>,
}

impl Publication {
    /// Of the first pictures, and all sound.
    pub fn new(id: PublicationId, claim: Option<Claim>, tracks: &[PublisherTrack]) -> Self {
        let of = |kind| move |t: &&PublisherTrack| t.codec.kind() == kind;
        Self {
            id,
            claim,
            video: tracks.iter().find(of(TrackKind::Video)).cloned(),
            audio: tracks
                .iter()
                .filter(of(TrackKind::Audio))
                .cloned()
                .collect(),
        }
    }
}

/// See the module's description.
pub(super) struct Published {
    pub(super) id: PublicationId,
    pub(super) stream: Arc<Stream>,
    claim: Claim,
    /// It came with media when another one had the stream, who was told so then.
    refused: Option<Instant>,
    video: Option<Track>,
    /// In the order of their numbers in the stream.
    audio: Vec<Track>,
    /// The last packet's number of each audio track, whichever m-line that came on.
    last_sound: Vec<Option<u16>>,
    loudness: Loudness,
    windows: Windows,
}

/// One of its tracks.
struct Track {
    offered: PublisherTrack,
    /// What it comes with now.
    codec: Codec,
    codec_changed: Option<Instant>,
    /// Of each layer.
    timelines: Vec<Timeline>,
    /// What to add to the numbers of a sound, so that they go on from the track before. Wraps.
    shift: Option<u16>,
}

impl Track {
    fn new(offered: PublisherTrack) -> Self {
        let codec = offered.codec;
        let timelines = offered.rids.iter();
        let timelines = timelines.map(|_| Timeline::new(codec.clock_rate()));
        Self {
            codec,
            codec_changed: None,
            timelines: timelines.collect(),
            offered,
            shift: None,
        }
    }

    /// Whether after another offer it is what it was.
    fn goes_on(&self, offered: &PublisherTrack) -> bool {
        let of = |t: &PublisherTrack| (t.track, t.codec.kind());
        of(&self.offered) == of(offered)
            && self.offered.mid == offered.mid
            && self.offered.language == offered.language
            && self.offered.rids == offered.rids
    }

    /// `number` is that of an audio track.
    fn declare(&self, stream: &Stream, lease: Lease, number: usize) {
        match self.codec.kind() {
            TrackKind::Audio => stream.set_audio(
                lease,
                AudioTrack {
                    number,
                    codec: self.codec,
                    language: self.offered.language.clone(),
                },
            ),
            TrackKind::Video => {
                let infos = self.offered.rids.iter().cloned().zip(0..);
                let infos = infos.map(|(rid, index)| layer_info(rid, index));
                stream.set_video(lease, self.codec, infos.collect());
            }
        }
    }
}

impl Published {
    /// `None`: it has no claim.
    pub(super) fn new(publication: Publication) -> Option<Self> {
        let claim = publication.claim?;
        let this = Self {
            id: publication.id,
            stream: claim.stream.clone(),
            claim,
            refused: None,
            video: publication.video.map(Track::new),
            audio: publication.audio.into_iter().map(Track::new).collect(),
            last_sound: Vec::new(),
            loudness: Loudness::default(),
            windows: Windows::default(),
        };
        if let Some(lease) = this.claim.lease() {
            this.declare(lease);
        }
        Some(this)
    }

    /// Tells the stream what it is going to consist of.
    fn declare(&self, lease: Lease) {
        if let Some(track) = &self.video {
            track.declare(&self.stream, lease, 0);
        }
        for (number, track) in self.audio.iter().enumerate() {
            track.declare(&self.stream, lease, number);
        }
    }

    /// It consists of these tracks from now on. What was one of them before goes on without a break.
    pub(super) fn change(&mut self, video: Option<PublisherTrack>, audio: Vec<PublisherTrack>) {
        let lease = self.claim.lease();
        let goes_on = match (&self.video, &video) {
            (Some(track), Some(offered)) => track.goes_on(offered),
            (before, now) => before.is_none() && now.is_none(),
        };
        if !goes_on {
            if let (Some(_), Some(lease)) = (&self.video, lease) {
                self.stream.unset_video(lease);
            }
            self.video = video.map(Track::new);
            if let (Some(track), Some(lease)) = (&self.video, lease) {
                track.declare(&self.stream, lease, 0);
            }
        }
        for number in audio.len()..self.audio.len() {
            if let Some(lease) = lease {
                self.stream.unset_audio(lease, number);
            }
        }
        self.audio.truncate(audio.len());
        for (number, offered) in audio.into_iter().enumerate() {
            let before = self.audio.get(number);
            if before.is_some_and(|track| track.goes_on(&offered)) {
                continue;
            }
            let replaces = before.is_some();
            let track = Track::new(offered);
            if let Some(lease) = lease {
                if replaces {
                    self.stream.unset_audio(lease, number);
                }
                track.declare(&self.stream, lease, number);
            }
            match self.audio.get_mut(number) {
                Some(at) => *at = track,
                None => self.audio.push(track),
            }
        }
    }

    /// What comes on an m-line: its kind, and of audio the track's number.
    pub(super) fn kind_of(&self, track: TrackIn) -> Option<(TrackKind, usize)> {
        if self.video() == Some(track) {
            return Some((TrackKind::Video, 0));
        }
        let number = self.audio.iter().position(|t| t.offered.track == track)?;
        Some((TrackKind::Audio, number))
    }

    /// Where its pictures come.
    pub(super) fn video(&self) -> Option<TrackIn> {
        self.video.as_ref().map(|t| t.offered.track)
    }

    /// The right to the stream, which is taken when the first media comes.
    pub(super) fn lease(&mut self, now: Instant, packet: &Incoming) -> Option<Lease> {
        if let Some(lease) = self.claim.lease() {
            return Some(lease);
        }
        if packet.payload.is_empty() {
            return None;
        }
        let is_recent = |at| now.saturating_duration_since(at) < REFUSED;
        if self.refused.is_some_and(is_recent) {
            return None;
        }
        let begun = self.claim.begin(now);
        match begun {
            Some(lease) => self.declare(lease),
            None => {
                if self.refused.is_none() {
                    tracing::info!(
                        stream = %self.stream.name(),
                        "not published: another one had the stream when a publisher's media came"
                    );
                }
                self.refused = Some(now);
                self.claim.refuse();
            }
        }
        begun
    }

    /// A packet as the stream takes it. `None`: it is left out.
    pub(super) fn take(
        &mut self,
        now: Instant,
        start: Instant,
        (lease, (kind, number)): (Lease, (TrackKind, usize)),
        packet: Incoming,
    ) -> Option<RtpIn> {
        let track = match kind {
            TrackKind::Video => self.video.as_mut()?,
            TrackKind::Audio => self.audio.get_mut(number)?,
        };
        if kind == TrackKind::Video && !track.follow_codec(now, &self.stream, lease, &packet) {
            return None;
        }
        let stamp = Stamp {
            source: packet.source,
            timestamp: packet.timestamp,
            // What holds nothing has the time of something else.
            is_late: packet.is_late || packet.payload.is_empty(),
        };
        let timeline = track.timelines.get_mut(packet.layer)?;
        let (timestamp, captured) = timeline.map(stamp, now, start);
        let mut seq = packet.seq;
        if kind == TrackKind::Audio {
            seq = self.sound(now, number, &packet);
        }
        Some(RtpIn {
            seq,
            timestamp,
            captured,
            marker: packet.marker,
            payload: packet.payload,
            red: packet.red,
            layering: Layering {
                descriptor: packet.descriptor,
                sets: packet.sets,
                ..Layering::default()
            },
        })
    }

    /// Takes note of a packet of sound. Returns its number in the stream.
    fn sound(&mut self, now: Instant, number: usize, packet: &Incoming) -> u16 {
        if self.last_sound.len() <= number {
            self.last_sound.resize(number + 1, None);
        }
        let (Some(track), Some(last)) =
            (self.audio.get_mut(number), self.last_sound.get_mut(number))
        else {
            return packet.seq;
        };
        // Pictures on another track are another encoding, which begins with a keyframe; a sound just goes on.
        let next = last.map_or(packet.seq, |last| last.wrapping_add(1));
        let shift = *track.shift.get_or_insert(next.wrapping_sub(packet.seq));
        let seq = packet.seq.wrapping_add(shift);
        if packet.is_late {
            return seq;
        }
        *last = Some(seq);
        if number > 0 {
            // How loud a stream is, and who speaks in it, is told by its first track.
            return seq;
        }
        let level = self.loudness.add(now, packet.audio_level);
        self.stream.set_sound_level(level);
        self.stream.heard(now, packet.audio_level);
        let speech = self.windows.add(now, packet.timestamp, packet.audio_level);
        if let Some(level) = speech {
            self.stream.set_speech(now, level);
        }
        seq
    }

    /// The timeline of a track's layer.
    pub(super) fn timeline(&mut self, track: TrackIn, layer: usize) -> Option<&mut Timeline> {
        let mut tracks = self.video.iter_mut().chain(&mut self.audio);
        let found = tracks.find(|t| t.offered.track == track)?;
        found.timelines.get_mut(layer)
    }
}

impl Track {
    /// A peer may change to another codec that was agreed on: to viewers that is another publisher, which costs them a
    /// keyframe, and the stream all that it knows. `false`: it does so too often, and the packet is left out.
    fn follow_codec(
        &mut self,
        now: Instant,
        stream: &Stream,
        lease: Lease,
        packet: &Incoming,
    ) -> bool {
        if packet.payload.is_empty() || self.codec == packet.codec {
            return true;
        }
        let recent = |at: Instant| now.saturating_duration_since(at) < CODEC_KEPT;
        if packet.is_late || self.codec_changed.is_some_and(recent) {
            return false;
        }
        self.codec_changed = Some(now);
        self.codec = packet.codec;
        stream.set_codec(lease, packet.codec);
        true
    }
}

/// A layer without a name is called by its index.
fn layer_info(rid: Option<Rid>, index: usize) -> LayerInfo {
    LayerInfo {
        rid: rid.unwrap_or_else(|| Rid::from_index(index)),
        width: None,
        height: None,
        target_bitrate: None,
    }
}
