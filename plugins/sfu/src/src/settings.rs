// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;
use sfu_engine::{Codec, Rid, layers, local::Tracks};

use crate::properties::{latency, live_number, stream_and_router, text};

/// What happens when the publisher goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSfuSrcOnLoss")]
#[repr(u32)]
pub(crate) enum OnLoss {
    #[default]
    #[enum_value(name = "Wait for the next publisher", nick = "wait")]
    Wait,
    #[enum_value(name = "End with EOS", nick = "eos")]
    Eos,
}

/// Which layers of the video go out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Choice {
    #[default]
    Highest,
    Lowest,
    Rid(Rid),
    All,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "highest" => Ok(Self::Highest),
            "lowest" => Ok(Self::Lowest),
            "all" => Ok(Self::All),
            _ => text.parse().map(Self::Rid).map_err(|_| {
                format!("layer={text:?} is neither highest, lowest, all, nor a layer's name (1 to 32 of A-Z a-z 0-9 _ -)")
            }),
        }
    }
}

impl Choice {
    /// The layer to send, by its index: one that is being sent where there is a choice.
    pub(super) fn pick(&self, tracks: &Tracks) -> Option<usize> {
        let mut order = layers::ranked(&tracks.layers);
        match self {
            Self::Highest | Self::All => {}
            Self::Lowest => order.reverse(),
            Self::Rid(rid) => return tracks.layers.iter().position(|l| l.info.rid == *rid),
        }
        let sent = |index: &&usize| tracks.layers[**index].active;
        order.iter().find(sent).or(order.first()).copied()
    }
}

/// Which video codecs the stream is taken with, or without video; an empty list is all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codecs(Vec<Option<Codec>>);

impl FromStr for Codecs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H265];
        let one = |name: &str| {
            if name.eq_ignore_ascii_case("none") {
                return Ok(None);
            }
            let found = all.iter().find(|c| c.name().eq_ignore_ascii_case(name));
            found.copied().map(Some).ok_or_else(|| {
                let names = all.map(Codec::name).join(", ");
                format!("video-codecs: {name:?} is not one of {names}, none")
            })
        };
        let names = text.split(',').map(str::trim).filter(|n| !n.is_empty());
        Ok(Self(names.map(one).collect::<Result<_, _>>()?))
    }
}

impl Codecs {
    /// Whether a stream with this video is taken.
    pub(super) fn take(&self, video: Option<Codec>) -> bool {
        self.0.is_empty() || self.0.contains(&video)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) stream: String,
    pub(super) router: String,
    pub(super) layer: String,
    pub(super) video_codecs: String,
    pub(super) on_loss: OnLoss,
    pub(super) latency_ms: u32,
    pub(super) keyframe_interval_ms: u32,
}

impl Settings {
    pub(super) fn keyframe_interval(&self) -> Duration {
        Duration::from_millis(self.keyframe_interval_ms.into())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream: "live".into(),
            router: "default".into(),
            layer: "highest".into(),
            video_codecs: String::new(),
            on_loss: OnLoss::default(),
            latency_ms: 100,
            keyframe_interval_ms: 0,
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let own = [
        glib::ParamSpecString::builder("layer")
            .nick("Layer")
            .blurb("Which simulcast layer: highest or lowest of those that are sent, a layer's name (RID), or all, one a pad, to which and from which it can't change while playing")
            .default_value(Some(defaults.layer.as_str()))
            .mutable_playing()
            .build(),
        text(
            "video-codecs",
            "Video codecs",
            "Take the stream only while its video is one of these, such as VP8,VP9, or none for sound alone: with others it counts as away, and is at its end where it has begun; empty takes all",
            &defaults.video_codecs,
        ),
        glib::ParamSpecEnum::builder_with_default("on-loss", defaults.on_loss)
            .nick("On loss")
            .blurb("What happens when the publisher goes")
            .mutable_playing()
            .build(),
        latency(defaults.latency_ms),
        live_number(
            "keyframe-interval",
            "Keyframe interval",
            "Ask for a keyframe where none came for this long, in ms; 0 leaves it to the publisher",
            0..=60_000,
            defaults.keyframe_interval_ms,
        ),
        glib::ParamSpecBoolean::builder("live")
            .nick("Live")
            .blurb("Whether the stream has a publisher; changes are notified")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stream-info")
            .nick("Stream information")
            .blurb("What the router knows of the stream, in any state: live, uptime (ms), viewers, and of its tracks video and audio (codecs), video-flows and audio-flows (whether frames come), layers (RIDs, highest first) and audio-tracks (of each number, codec, language where it is known, and flows); null where there is no such stream")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("live, packets, bytes, dropped (frames that came while this element or what follows was too slow), begins, keyframe-requests, and for each of pads name, codec, layer, packets, lost, late")
            .read_only()
            .build(),
    ];
    let stream = stream_and_router(&defaults.stream, &defaults.router);
    stream.into_iter().chain(own).collect()
});

#[cfg(test)]
mod tests {
    use super::*;
    use sfu_engine::LayerInfo;
    use sfu_engine::layers::{Candidate, TemporalCosts};

    #[test]
    fn a_layer_is_picked_among_those_that_are_sent() {
        let layer = |index, height, active| Candidate {
            info: LayerInfo {
                rid: Rid::from_index(index),
                width: None,
                height: Some(height),
                target_bitrate: None,
            },
            bitrate: None,
            cost: None,
            most: None,
            active,
            temporal: TemporalCosts::default(),
            from_above: 0,
        };
        let tracks = |active: [bool; 3]| Tracks {
            layers: vec![
                layer(0, 180, active[0]),
                layer(1, 360, active[1]),
                layer(2, 720, active[2]),
            ],
            ..Tracks::default()
        };
        for (choice, active, expected) in [
            ("highest", [true, true, false], Some(1)),
            ("highest", [false; 3], Some(2)),
            ("lowest", [false, true, true], Some(1)),
            ("2", [true, false, false], Some(2)),
            ("x", [true; 3], None),
        ] {
            let choice: Choice = choice.parse().unwrap();
            assert_eq!(choice.pick(&tracks(active)), expected, "{choice:?}");
        }
        assert!("a layer".parse::<Choice>().unwrap_err().contains("highest"));
    }

    #[test]
    fn codecs_are_a_list() {
        let some: Codecs = "vp8, H264".parse().unwrap();
        assert!(some.take(Some(Codec::H264)) && some.take(Some(Codec::Vp8)));
        assert!(!some.take(Some(Codec::Av1)) && !some.take(None));
        let none: Codecs = "none, AV1".parse().unwrap();
        assert!(none.take(None) && none.take(Some(Codec::Av1)) && !none.take(Some(Codec::H264)));
        let all: Codecs = "".parse().unwrap();
        assert!(all.take(Some(Codec::Av1)) && all.take(None));
        assert!("opus".parse::<Codecs>().unwrap_err().contains("H264, VP8"));
    }
}
