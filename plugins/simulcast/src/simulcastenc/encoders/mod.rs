// SPDX-License-Identifier: MPL-2.0

//! Which encoders there are, best first, and how one becomes what a layer needs.

mod known;
mod user;

use std::cmp::Reverse;

use gst::prelude::*;

use super::CAT;
use super::settings::{Codec, Settings, Speed};
use known::{KNOWN, Known};

pub(super) use user::apply as apply_properties;

/// What an encoder is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Bit/s.
    pub(super) bitrate: u32,
    /// The longest distance between keyframes, in frames. The element forces them earlier than that.
    pub(super) max_distance: u32,
    pub(super) speed: Speed,
    /// 1 where there is no choice of frame rates.
    pub(super) temporal_layers: u32,
}

/// The one that makes temporal layers.
const WITH_TEMPORAL_LAYERS: &str = "vp8enc";

/// An encoder that may be taken.
#[derive(Clone)]
pub(super) struct Candidate {
    factory: gst::ElementFactory,
    configure: fn(&gst::Element, &Wanted),
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

/// The encoders to try one after the other, or why there is none.
pub(super) fn candidates(settings: &Settings) -> Result<Vec<Candidate>, String> {
    let codec = settings.codec;
    let layers = settings.temporal_layers;
    let forced = match settings.encoder.as_deref() {
        None if layers > 1 => Some(WITH_TEMPORAL_LAYERS),
        forced => forced,
    };
    if layers > 1 && (codec, forced) != (Codec::Vp8, Some(WITH_TEMPORAL_LAYERS)) {
        return Err(format!(
            "temporal-layers={layers} needs codec=vp8, and no other encoder than {WITH_TEMPORAL_LAYERS}; set \
             temporal-layers=1 for others"
        ));
    }
    match forced {
        Some(name) => forced_one(name, codec).map(|one| vec![one]),
        None => by_rank(codec),
    }
}

fn forced_one(name: &str, codec: Codec) -> Result<Candidate, String> {
    let known = KNOWN.iter().find(|known| known.factory == name);
    let factory = gst::ElementFactory::find(name);
    match (known, factory) {
        (Some(known), _) if known.codec != codec => Err(format!(
            "encoder {name:?} does not encode codec={}",
            codec.nick()
        )),
        (Some(known), Some(factory)) => Ok(Candidate {
            factory,
            configure: known.configure,
        }),
        (None, Some(factory)) if encodes(&factory, codec) => Ok(Candidate {
            factory,
            configure: known::unknown,
        }),
        (None, Some(_)) => Err(format!(
            "encoder {name:?} does not encode codec={}",
            codec.nick()
        )),
        (_, None) => Err(format!(
            "encoder {name:?} is not installed here; set encoder to one of {}, or leave it unset",
            names(codec).join(", ")
        )),
    }
}

/// Those of a codec, best first: as this project prefers them, unless the user has given one another rank. A higher one than
/// GStreamer's own (above PRIMARY) puts it before all others, a lower one behind them, and NONE takes it out.
fn by_rank(codec: Codec) -> Result<Vec<Candidate>, String> {
    let of_codec = KNOWN.iter().filter(|known| known.codec == codec);
    let ours = of_codec.filter_map(|known| {
        let factory = gst::ElementFactory::find(known.factory)?;
        let rank = user_rank(&factory, known);
        let configure = known.configure;
        Some((rank, Candidate { factory, configure }))
    });
    let others = gst::ElementFactory::factories_with_type(
        gst::ElementFactoryType::VIDEO_ENCODER,
        gst::Rank::MARGINAL,
    );
    let others = others.into_iter().filter_map(|factory| {
        let is_known = KNOWN.iter().any(|known| known.factory == factory.name());
        if is_known || !encodes(&factory, codec) {
            return None;
        }
        let rank = i32::from(factory.rank());
        // One that nobody here knows is taken for its rank alone.
        let rank = if rank > PRIMARY { rank } else { rank - PRIMARY };
        let configure = known::unknown;
        Some((Some(rank), Candidate { factory, configure }))
    });
    let mut all: Vec<_> = ours
        .chain(others)
        .filter_map(|(rank, candidate)| match rank {
            Some(rank) if rank == i32::from(gst::Rank::NONE) => None,
            rank => Some((rank.unwrap_or(PRIMARY), candidate)),
        })
        .collect();
    // Those of the same rank stay in the order in which they are.
    all.sort_by_key(|(rank, _)| Reverse(*rank));
    if all.is_empty() {
        return Err(none_found(codec, ""));
    }
    Ok(all.into_iter().map(|(_, candidate)| candidate).collect())
}

/// Stands in for the rank of those that have their own.
const PRIMARY: i32 = 256;

/// The rank that the user has set, if any.
fn user_rank(factory: &gst::ElementFactory, known: &Known) -> Option<i32> {
    let rank = i32::from(factory.rank());
    // Some have none by themselves, but whoever names one here means it.
    let named = std::env::var("GST_PLUGIN_FEATURE_RANK").is_ok_and(|ranks| {
        let names = ranks.split(',').filter_map(|pair| pair.split(':').next());
        names.map(str::trim).any(|name| name == known.factory)
    });
    (named || !known.stock.contains(&rank)).then_some(rank)
}

fn encodes(factory: &gst::ElementFactory, codec: Codec) -> bool {
    let encoded = gst::Caps::new_empty_simple(codec.media_type());
    factory.static_pad_templates().into_iter().any(|template| {
        template.direction() == gst::PadDirection::Src
            && !template.caps().is_any()
            && template.caps().can_intersect(&encoded)
    })
}

fn names(codec: Codec) -> Vec<&'static str> {
    let of_codec = KNOWN.iter().filter(|known| known.codec == codec);
    of_codec.map(|known| known.factory).collect()
}

/// The error where nothing is left to try.
pub(super) fn none_found(codec: Codec, failures: &str) -> String {
    let package = match codec {
        Codec::H264 => {
            "gstreamer1.0-plugins-ugly (x264enc) or gstreamer1.0-plugins-bad (openh264enc)"
        }
        Codec::Vp8 => "gstreamer1.0-plugins-good (vp8enc)",
        Codec::H265 => "gstreamer1.0-plugins-bad (x265enc)",
        Codec::Av1 => "gstreamer1.0-plugins-bad (av1enc, svtav1enc)",
    };
    let nick = codec.nick();
    if failures.is_empty() {
        let tried = names(codec).join(", ");
        return format!("no encoder for codec={nick} was found (tried {tried}): install {package}");
    }
    format!("no encoder for codec={nick} works ({failures}): install {package}, or set encoder")
}

impl Candidate {
    pub(super) fn name(&self) -> String {
        self.factory.name().to_string()
    }

    /// The kinds of memory that it takes beside the system's: on a GPU, for example.
    pub(super) fn memories(&self) -> Vec<String> {
        memories(&self.factory, gst::PadDirection::Sink)
    }

    /// Whether it takes pictures of this format in the system's memory.
    pub(super) fn takes(&self, format: &str) -> bool {
        let caps = gst::Caps::builder("video/x-raw").field("format", format);
        let templates = self.factory.static_pad_templates();
        let mut sinks = templates
            .into_iter()
            .filter(|t| t.direction() == gst::PadDirection::Sink);
        let caps = caps.build();
        sinks.any(|template| template.caps().can_intersect(&caps))
    }

    /// Makes one, set up, which starts: a factory may be installed without its device.
    pub(super) fn make(&self, wanted: &Wanted) -> Result<gst::Element, String> {
        let encoder = self.factory.create().build();
        let encoder = encoder.map_err(|error| error.to_string())?;
        (self.configure)(&encoder, wanted);
        let ready = encoder.set_state(gst::State::Ready).is_ok();
        // Back to NULL: the bin takes it up with everything else.
        let back = encoder.set_state(gst::State::Null).is_ok();
        if !(ready && back) {
            gst::info!(CAT, "{} is installed but does not start", self.name());
            return Err("it does not start, its device may be missing".into());
        }
        Ok(encoder)
    }
}

/// The kinds of memory beside the system's that pads of a factory name.
pub(super) fn memories(factory: &gst::ElementFactory, direction: gst::PadDirection) -> Vec<String> {
    let mut memories = Vec::new();
    for template in factory.static_pad_templates() {
        if template.direction() != direction {
            continue;
        }
        for (_, features) in template.caps().iter_with_features() {
            let named = features.iter().filter(|f| f.starts_with("memory:"));
            let own = named.filter(|f| *f != gst::CAPS_FEATURE_MEMORY_SYSTEM_MEMORY);
            memories.extend(own.map(ToString::to_string));
        }
    }
    memories.dedup();
    memories
}

/// Sets another bitrate. Returns false where it can't change while playing.
pub(super) fn set_bitrate(encoder: &gst::Element, wanted: &Wanted) -> bool {
    wanted.temporal_layers == 1 && known::set_bitrate(encoder, wanted)
}
