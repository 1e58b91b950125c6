// SPDX-License-Identifier: MPL-2.0

//! What the property `stats` says.

use gst::prelude::*;
use std::sync::atomic::Ordering::Relaxed;

use sfu_engine::StreamInfo;

use super::imp::State;

pub(super) fn stats(info: Option<StreamInfo>, state: &State) -> gst::Structure {
    let structure = gst::Structure::builder("sfusink-stats");
    let Some(info) = info else {
        return structure.build();
    };
    let layers = info
        .video
        .iter()
        .flat_map(|video| &video.layers)
        .map(|layer| {
            gst::Structure::builder("layer")
                .field("rid", layer.rid.as_str())
                .field("width", layer.width.unwrap_or(0))
                .field("height", layer.height.unwrap_or(0))
                .field("bitrate", layer.bitrate.unwrap_or(0))
                .field("active", layer.active)
                .build()
                .to_send_value()
        });
    structure
        .field("viewers", info.viewers as u64)
        .field("packets", info.packets_in)
        .field("bytes", info.bytes_in)
        .field("timestamp-steps", state.timeline.steps())
        .field("pictures-out-of-order", state.out_of_order.load(Relaxed))
        .field("encoded-anew", state.encodes_anew())
        .field(
            "keyframe-requests-received",
            info.keyframe_requests_received,
        )
        .field("keyframe-requests-refused", info.keyframe_requests_refused)
        .field("keyframe-requests-merged", info.keyframe_requests_merged)
        .field("keyframe-requests-sent", info.keyframe_requests_sent)
        .field("layers", gst::Array::from_values(layers))
        .build()
}
