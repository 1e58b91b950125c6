// SPDX-License-Identifier: MPL-2.0

//! What the property `stats` says.

use std::sync::atomic::Ordering::Relaxed;

use gst::prelude::*;

use super::front::Front;
use super::layer::Branch;

/// Frames that a queue holds without having lost any.
const IN_QUEUE: u64 = 2;
/// And a queue and an encoder.
const IN_FLIGHT: u64 = 4;

pub(super) fn stats(front: &Front, branches: &[Branch]) -> gst::Structure {
    let frames_in = front.frames_in.load(Relaxed);
    let offered = front.offered.load(Relaxed);
    let late = frames_in.saturating_sub(front.taken.load(Relaxed) + IN_QUEUE);
    let layers = branches.iter().map(|branch| {
        let shared = &branch.shared;
        let encoded = shared.encoded.load(Relaxed);
        let thinned = shared.thinned.load(Relaxed);
        // A few may still be on their way.
        let lost = late + offered.saturating_sub(encoded + thinned + IN_FLIGHT);
        gst::Structure::builder("layer")
            .field("encoder", shared.encoder_name())
            .field("width", shared.width.load(Relaxed))
            .field("height", shared.height.load(Relaxed))
            .field("bitrate", shared.bitrate())
            .field("frames-encoded", encoded)
            .field("frames-dropped", lost)
            .field("frames-thinned", thinned)
            .field("keyframes", shared.keyframes.load(Relaxed))
            .build()
            .to_send_value()
    });
    gst::Structure::builder("simulcastenc-stats")
        .field("frames-in", frames_in)
        .field("frames-broken", front.broken.load(Relaxed))
        .field("layers", gst::Array::from_values(layers))
        .build()
}
