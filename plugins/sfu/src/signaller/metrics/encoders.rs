// SPDX-License-Identifier: MPL-2.0

//! What the encoders beside the signaller do: those of its own pipeline, which tell it by their `stats`.

use std::fmt;

use gst::prelude::*;

use super::page::Page;
use crate::signaller::SfuSignaller;

/// Layers of encoders that are told of.
const MOST: usize = 256;

/// One layer of one.
#[derive(Debug)]
pub(in crate::signaller) struct Encoder {
    /// The stream that it encodes for; else its own name.
    pub(in crate::signaller) stream: String,
    pub(in crate::signaller) layer: usize,
    pub(in crate::signaller) encoder: String,
    pub(in crate::signaller) encoded: u64,
    pub(in crate::signaller) dropped: u64,
}

/// Those of the pipeline that the element is in.
pub(in crate::signaller) fn encoders(element: &glib::WeakRef<SfuSignaller>) -> Vec<Encoder> {
    let Some(element) = element.upgrade() else {
        return Vec::new();
    };
    let mut top = element.parent().and_downcast::<gst::Bin>();
    while let Some(parent) = top.as_ref().and_then(|bin| bin.parent().and_downcast()) {
        top = Some(parent);
    }
    let Some(top) = top else {
        return Vec::new();
    };
    let all = top.iterate_recurse().into_iter().flatten();
    let is_encoder = |e: &gst::Element| e.factory().is_some_and(|f| f.name() == "simulcastenc");
    all.filter(is_encoder)
        .flat_map(|e| layers(&e))
        .take(MOST)
        .collect()
}

fn layers(element: &gst::Element) -> Vec<Encoder> {
    let sink = element.parent().and_downcast::<gst::Element>();
    let stream = sink.filter(|sink| sink.find_property("stream").is_some());
    let stream = stream.and_then(|sink| sink.property::<Option<String>>("stream"));
    let stream = stream.unwrap_or_else(|| element.name().to_string());
    // Elements may have any name; no label may.
    let stream = stream.replace(['"', '\\', '\n'], "_");
    let stats = element.property::<gst::Structure>("stats");
    let Ok(layers) = stats.get::<gst::Array>("layers") else {
        return Vec::new();
    };
    let structures = layers.iter().filter_map(|v| v.get::<gst::Structure>().ok());
    let of = |(layer, told): (usize, gst::Structure)| Encoder {
        stream: stream.clone(),
        layer,
        encoder: told.get("encoder").unwrap_or_default(),
        encoded: told.get("frames-encoded").unwrap_or_default(),
        dropped: told.get("frames-dropped").unwrap_or_default(),
    };
    structures.enumerate().map(of).collect()
}

pub(super) fn write(page: &mut Page<'_>, encoders: &[Encoder]) -> fmt::Result {
    type Sum = (&'static str, &'static str, fn(&Encoder) -> u64);
    let figures: [Sum; 2] = [
        (
            "sfu_encoder_frames",
            "Frames that came out of an encoder of this pipeline, by layer, the highest first.",
            |e| e.encoded,
        ),
        (
            "sfu_encoder_frames_dropped",
            "Frames that it did not keep up with.",
            |e| e.dropped,
        ),
    ];
    for (name, help, value) in figures {
        let mut family = page.counters(name, help)?;
        for encoder in encoders {
            let layer = encoder.layer.to_string();
            let labels = [
                ("stream", encoder.stream.as_str()),
                ("layer", &layer),
                ("encoder", &encoder.encoder),
            ];
            family.add(&labels, value(encoder))?;
        }
    }
    Ok(())
}
