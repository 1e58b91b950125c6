// SPDX-License-Identifier: MPL-2.0

//! The router's keyframe requests become `GstForceKeyUnit` events on their way to the encoder.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_engine::Feedback;

use super::{CAT, SfuSink};

/// See the module's description.
#[derive(Debug)]
pub(super) struct ForceKeyUnit(pub(super) glib::WeakRef<SfuSink>);

impl Feedback for ForceKeyUnit {
    fn keyframe_request(&self, layer: usize) {
        let Some(sink) = self.0.upgrade() else {
            return;
        };
        // An encoder may take its time over an event, and a shard has none.
        sink.call_async(move |sink| {
            let Some(branch_sink) = sink.imp().branch_sink(layer) else {
                return;
            };
            let event = gst_video::UpstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            gst::debug!(
                CAT,
                obj = sink,
                "asking upstream for a keyframe of layer {layer}"
            );
            if !branch_sink.send_event(event) {
                gst::warning!(
                    CAT,
                    obj = sink,
                    "nobody upstream makes keyframes of layer {layer}"
                );
            }
        });
    }
}
