// SPDX-License-Identifier: MPL-2.0

//! A track that a participant has announced: what others are told of it.

use livekit_protocol::{
    AddTrackRequest, SimulcastCodecInfo, TimedVersion, TrackInfo, TrackSource, TrackType,
    VideoLayer, VideoQuality, video_layer,
};

use super::demand::Demands;
use crate::media::{Expected, Found};
use crate::rooms::Now;
use crate::sid::Sid;

/// RIDs of clients, from the lowest layer up.
const RIDS: [&str; 3] = ["q", "h", "f"];

/// See the module's description.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) sid: Sid,
    info: TrackInfo,
    /// It is in an offer that was answered: others may have it.
    pub(super) live: bool,
    /// What of it somebody wants.
    pub(super) demands: Demands,
    /// Its publisher knows that somebody has it.
    pub(super) subscribed: bool,
    /// How many layers the offer has.
    layers: usize,
}

impl Track {
    pub(super) fn announced(now: Now, add: &AddTrackRequest) -> Self {
        let sid = Sid::track(add.source());
        let mut info = TrackInfo {
            sid: String::from(&sid),
            r#type: add.r#type,
            name: add.name.clone(),
            muted: add.muted,
            width: add.width,
            height: add.height,
            simulcast: add.layers.len() > 1,
            disable_dtx: add.disable_dtx,
            source: add.source,
            layers: add.layers.clone(),
            stereo: add.stereo,
            disable_red: add.disable_red,
            encryption: add.encryption,
            stream: match (add.stream.as_str(), add.source()) {
                ("", TrackSource::ScreenShare | TrackSource::ScreenShareAudio) => "screen".into(),
                ("", _) => "camera".into(),
                (stream, _) => stream.to_owned(),
            },
            audio_features: add.audio_features.clone(),
            backup_codec_policy: add.backup_codec_policy,
            packet_trailer_features: add.packet_trailer_features.clone(),
            codecs: codecs(add),
            ..TrackInfo::default()
        };
        stamp(&mut info, now);
        Self {
            sid,
            info,
            live: false,
            demands: Demands::default(),
            subscribed: false,
            layers: 1,
        }
    }

    pub(super) fn info(&self) -> &TrackInfo {
        &self.info
    }

    pub(super) fn kind(&self) -> TrackType {
        self.info.r#type()
    }

    /// How many layers its publisher is to send.
    pub(super) fn wanted_layers(&self) -> usize {
        self.demands.first().min(self.layers)
    }

    /// Another codec of it is announced, for who can't show the first. There are `most` at most.
    pub(super) fn add_codecs(&mut self, now: Now, add: &AddTrackRequest, most: usize) {
        for codec in codecs(add) {
            let has_room = self.info.codecs.len() < most;
            let same = |known: &&mut SimulcastCodecInfo| known.mime_type == codec.mime_type;
            match self.info.codecs.iter_mut().find(same) {
                Some(known) => known.cid = codec.cid,
                None if has_room => self.info.codecs.push(codec),
                None => {}
            }
        }
        stamp(&mut self.info, now);
    }

    /// What of an offer it takes.
    pub(super) fn sends(&self) -> Sends {
        let mut sends = Sends::of(self.kind(), self.info.codecs.iter());
        if let Some(first) = self.info.codecs.first().filter(|_| self.live) {
            // It has been seen by now how many there are.
            sends.layers -= layers_of(self.kind(), first);
            sends.layers += self.layers;
        }
        sends
    }

    /// What further codecs of it take, or the ids that these have got.
    pub(super) fn sends_more(&self, add: &AddTrackRequest) -> Sends {
        let is_known = |codec: &SimulcastCodecInfo| {
            let mut known = self
                .info
                .codecs
                .iter()
                .filter(|known| !known.cid.is_empty());
            codec.cid.is_empty() || known.any(|known| known.mime_type == codec.mime_type)
        };
        let all = codecs(add);
        let new: Vec<_> = all.iter().filter(|codec| !is_known(codec)).collect();
        match new.is_empty() {
            true => Sends::default(),
            false => Sends::of(self.kind(), new.into_iter()),
        }
    }

    pub(super) fn expected(&self) -> Expected {
        let cids = self.info.codecs.iter().map(|codec| &codec.cid);
        let name = |codec: &SimulcastCodecInfo| {
            let (_, name) = codec.mime_type.split_once('/')?;
            Some((codec.cid.clone(), name.to_owned()))
        };
        Expected {
            track: self.sid.clone(),
            kind: self.kind(),
            cids: cids.filter(|cid| !cid.is_empty()).cloned().collect(),
            codecs: self.info.codecs.iter().filter_map(name).collect(),
            is_screen: matches!(
                self.info.source(),
                TrackSource::ScreenShare | TrackSource::ScreenShareAudio
            ),
            sizes: self.sizes(),
            // Of what is encrypted end to end nobody could tell the blocks apart.
            without_red: self.info.disable_red || self.info.encryption != 0,
        }
    }

    /// It is in an offer. Returns whether that is new, or something of it.
    pub(super) fn found(&mut self, now: Now, found: &Found) -> bool {
        let before = (
            self.live,
            self.info.mid.clone(),
            self.info.mime_type.clone(),
        );
        self.live = true;
        let codecs = &mut self.info.codecs;
        let by_cid = codecs.iter().position(|codec| codec.cid == found.cid);
        let place = by_cid.unwrap_or(0);
        if let Some(codec) = codecs.get_mut(place) {
            found.mid.clone_into(&mut codec.mid);
            codec.mime_type = found.mime.clone();
            name_layers(&mut codec.layers, &found.rids);
        }
        if place == 0 {
            self.layers = found.rids.len().max(1);
            found.mid.clone_into(&mut self.info.mid);
            found.mime.clone_into(&mut self.info.mime_type);
            name_layers(&mut self.info.layers, &found.rids);
        }
        let is_new = before != (true, self.info.mid.clone(), self.info.mime_type.clone());
        if is_new {
            stamp(&mut self.info, now);
        }
        is_new
    }

    /// Which of its codecs a subscriber gets that takes these: the first that it does, and the first of all where it is not seen to
    /// take any. One that is announced and does not come yet is asked for by that.
    pub(super) fn codec_for(&self, shows: &[String]) -> usize {
        let takes = |codec: &SimulcastCodecInfo| {
            let mut all = shows.iter();
            all.any(|mime| mime.eq_ignore_ascii_case(&codec.mime_type))
        };
        self.info.codecs.iter().position(takes).unwrap_or(0)
    }

    /// Returns whether that is new.
    pub(super) fn set_muted(&mut self, now: Now, muted: bool) -> bool {
        let is_new = self.info.muted != muted;
        self.info.muted = muted;
        if is_new {
            stamp(&mut self.info, now);
        }
        is_new
    }

    pub(super) fn set_audio_features(&mut self, now: Now, features: Vec<i32>) {
        self.info.audio_features = features;
        stamp(&mut self.info, now);
    }

    pub(super) fn set_size(&mut self, now: Now, width: u32, height: u32) {
        (self.info.width, self.info.height) = (width, height);
        stamp(&mut self.info, now);
    }

    /// The layers, where the client says what each is like.
    pub(super) fn set_layers(&mut self, now: Now, layers: Vec<VideoLayer>) {
        self.info.simulcast = layers.len() > 1;
        self.info.layers = layers;
        stamp(&mut self.info, now);
    }

    fn sizes(&self) -> Vec<(u32, u32)> {
        let sizes = self.info.layers.iter().map(|l| (l.width, l.height));
        let mut sizes: Vec<_> = sizes.filter(|(w, h)| *w > 0 && *h > 0).collect();
        sizes.sort_unstable_by_key(|(_, height)| *height);
        sizes
    }

    /// The quality of the lowest layer that is as high as is wanted, or of the highest.
    pub(super) fn quality_of(&self, height: u32) -> VideoQuality {
        if height == 0 {
            return VideoQuality::High;
        }
        let mut layers: Vec<_> = self.info.layers.iter().collect();
        layers.sort_by_key(|layer| layer.height);
        let enough = layers.iter().find(|layer| layer.height >= height);
        enough.map_or(VideoQuality::High, |layer| layer.quality())
    }

    /// How many lines the layer of this quality has; 0 where that is not known, or it is the highest.
    pub(super) fn height_of(&self, quality: VideoQuality) -> u32 {
        if quality == VideoQuality::High {
            return 0;
        }
        let layer = self.info.layers.iter().find(|l| l.quality() == quality);
        layer.map_or(0, |layer| layer.height)
    }
}

/// What tracks take of an offer: m-lines that send, and layers on them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sends {
    pub(super) lines: usize,
    pub(super) layers: usize,
}

impl Sends {
    /// Of a track with these codecs. One that has no id yet is in no offer: it may never be.
    fn of<'a>(kind: TrackType, codecs: impl Iterator<Item = &'a SimulcastCodecInfo>) -> Self {
        let offered = codecs.enumerate();
        let offered = offered.filter(|(place, codec)| *place == 0 || !codec.cid.is_empty());
        offered.fold(Self::default(), |all, (_, codec)| {
            all.and(Self {
                lines: 1,
                layers: layers_of(kind, codec),
            })
        })
    }

    /// Of a track that is announced.
    pub(super) fn announced(add: &AddTrackRequest) -> Self {
        Self::of(add.r#type(), codecs(add).iter())
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            lines: self.lines + other.lines,
            layers: self.layers + other.layers,
        }
    }
}

/// Simulcast layers, each of which is a stream of its own in the offer.
fn layers_of(kind: TrackType, codec: &SimulcastCodecInfo) -> usize {
    let has_one_stream =
        codec.video_layer_mode() == video_layer::Mode::MultipleSpatialLayersPerStream;
    match kind {
        TrackType::Video if !has_one_stream => codec.layers.len().max(1),
        _ => 1,
    }
}

/// Clients take the newest of two.
fn stamp(info: &mut TrackInfo, now: Now) {
    info.version = Some(TimedVersion {
        unix_micro: now.unix().as_micros() as i64,
        ticks: 0,
    });
}

/// The codecs that a client announces, each with the id that it will have in the offer.
fn codecs(add: &AddTrackRequest) -> Vec<SimulcastCodecInfo> {
    let kind = match add.r#type() {
        TrackType::Audio => "audio",
        _ => "video",
    };
    let mut codecs: Vec<_> = add
        .simulcast_codecs
        .iter()
        .map(|codec| SimulcastCodecInfo {
            mime_type: match codec.codec.contains('/') || codec.codec.is_empty() {
                true => codec.codec.to_lowercase(),
                false => format!("{kind}/{}", codec.codec.to_lowercase()),
            },
            cid: codec.cid.clone(),
            layers: match codec.layers.is_empty() {
                true => add.layers.clone(),
                false => codec.layers.clone(),
            },
            video_layer_mode: mode(&codec.codec, codec.video_layer_mode),
            ..SimulcastCodecInfo::default()
        })
        .collect();
    if codecs.is_empty() {
        codecs.push(SimulcastCodecInfo {
            cid: add.cid.clone(),
            layers: add.layers.clone(),
            video_layer_mode: video_layer::Mode::OneSpatialLayerPerStream.into(),
            ..SimulcastCodecInfo::default()
        });
    }
    codecs
}

/// Where the client does not say: VP9 and AV1 have all layers in one stream.
fn mode(codec: &str, said: i32) -> i32 {
    if said != 0 {
        return said;
    }
    match codec.to_lowercase().as_str() {
        "vp9" | "av1" | "video/vp9" | "video/av1" => {
            video_layer::Mode::MultipleSpatialLayersPerStream.into()
        }
        _ => video_layer::Mode::OneSpatialLayerPerStream.into(),
    }
}

fn name_layers(layers: &mut [VideoLayer], rids: &[String]) {
    for layer in layers {
        let place = match layer.quality() {
            VideoQuality::Low => 0,
            VideoQuality::Medium => 1,
            VideoQuality::High | VideoQuality::Off => 2,
        };
        let rid = rids.iter().find(|rid| rid.as_str() == RIDS[place]);
        if let Some(rid) = rid.or_else(|| rids.get(place)) {
            rid.clone_into(&mut layer.rid);
        }
    }
}
