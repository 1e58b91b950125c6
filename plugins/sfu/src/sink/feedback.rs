// SPDX-License-Identifier: MPL-2.0

//! What the router asks of a publisher becomes events upstream: for a keyframe `GstForceKeyUnit` to the encoder, and the end
//! of whoever sends.

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::kick;
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

    fn kick(&self) -> bool {
        let sink = self.0.upgrade();
        let pads = sink.map(|sink| sink.sink_pads()).unwrap_or_default();
        let heard = pads.iter().filter(|pad| kick::tell(pad));
        heard.count() > 0
    }
}
