// SPDX-License-Identifier: MPL-2.0

//! Whether a source is live, as the latency query tells.

use gst::prelude::*;

/// Elements that are looked behind, one after the other.
const DEPTH: u32 = 8;

/// Whether upstream produces in real time, or as fast as it is taken. What does not know (`concat`) is looked behind.
pub fn is_live(pad: &gst::Pad) -> bool {
    asked(pad, DEPTH).unwrap_or(true)
}

fn asked(pad: &gst::Pad, depth: u32) -> Option<bool> {
    let mut query = gst::query::Latency::new();
    if pad.peer_query(&mut query) {
        return Some(query.result().0);
    }
    let behind = pad.peer()?.parent().filter(|_| depth > 0)?;
    let pads = match behind.downcast::<gst::GhostPad>() {
        // The inner side of a bin's pad.
        Ok(outer) => vec![outer.upcast()],
        Err(behind) => behind.downcast::<gst::Element>().ok()?.sink_pads(),
    };
    let answers = pads.iter().filter_map(|pad| asked(pad, depth - 1));
    answers.reduce(|one, other| one || other)
}
