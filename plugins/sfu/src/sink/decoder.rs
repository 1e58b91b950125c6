// SPDX-License-Identifier: MPL-2.0

//! The decoder of what came encoded and is encoded anew: the best one installed, as ranks have it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gst::prelude::*;
use sfu_engine::Codec;

use super::branch::Branch;

fn caps(codec: Codec) -> Option<gst::Caps> {
    let (media_type, format, alignment) = match codec {
        Codec::H264 => ("video/x-h264", "avc", "au"),
        Codec::H265 => ("video/x-h265", "hvc1", "au"),
        Codec::Av1 => ("video/x-av1", "obu-stream", "tu"),
        // Others know only pictures with transparency.
        Codec::Vp8 | Codec::Vp9 => {
            let media_type = if codec == Codec::Vp8 {
                "video/x-vp8"
            } else {
                "video/x-vp9"
            };
            let caps = gst::Caps::builder(media_type).field("codec-alpha", false);
            return Some(caps.build());
        }
        _ => return None,
    };
    let caps = gst::Caps::builder(media_type);
    let caps = caps.field("stream-format", format);
    Some(caps.field("alignment", alignment).build())
}

/// The first decoder that works here, of `known` caps where there are any already.
fn find(codec: Codec, known: Option<&gst::Caps>) -> Option<gst::Element> {
    let caps = caps(codec)?;
    let kind = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_VIDEO;
    let mut factories: Vec<_> = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL)
        .into_iter()
        .collect();
    factories.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
    let takes = |factory: &gst::ElementFactory| match known {
        Some(known) => factory.can_sink_all_caps(known),
        None => factory.can_sink_any_caps(&caps),
    };
    let mut decoders = factories.into_iter().filter(takes).filter_map(|factory| {
        let decoder = factory.create().build().ok()?;
        // What its hardware or library lacks shows here.
        match decoder.set_state(gst::State::Ready) {
            Ok(_) => Some(decoder),
            Err(_) => {
                let _ = decoder.set_state(gst::State::Null);
                None
            }
        }
    });
    decoders.next()
}

/// Links one behind `last`.
pub(super) fn put(
    branch: &mut Branch,
    bin: &gst::Bin,
    last: &gst::Element,
    (codec, hidden): (Codec, &Arc<AtomicU64>),
) -> Result<gst::Element, String> {
    let missing = || {
        let name = codec.name();
        format!("no decoder of {name} works here: install gstreamer1.0-libav")
    };
    let known = last.static_pad("src").and_then(|pad| pad.current_caps());
    let decoder = find(codec, known.as_ref()).ok_or_else(missing)?;
    branch.add(bin, &decoder)?;
    last.link(&decoder).map_err(|e| e.to_string())?;
    if let Some(out) = decoder.static_pad("src") {
        let hidden = hidden.clone();
        out.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let time = info.buffer().and_then(|buffer| buffer.pts());
            match time {
                Some(time) if time.nseconds() < hidden.load(Relaxed) => gst::PadProbeReturn::Drop,
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }
    Ok(decoder)
}
