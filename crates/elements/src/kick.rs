// SPDX-License-Identifier: MPL-2.0

//! An application ends whoever sends a stream. `sfusink` tells it upstream, where an element that has somebody to end hears
//! it on its source pads: an event of its own, since nothing else goes up through any pipeline.

use gst::prelude::*;

const NAME: &str = "sfu-kick";

/// Tells it upstream of a sink pad. Returns whether somebody there heard it.
pub fn tell(pad: &gst::Pad) -> bool {
    let event = gst::event::CustomUpstream::new(gst::Structure::new_empty(NAME));
    pad.push_event(event)
}

/// Hears it at a source's pad. `end` returns whether there is somebody to end; it may not wait.
pub fn hear(pad: &gst::Pad, end: impl Fn() -> bool + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        let told = info.event().and_then(|event| event.structure());
        match told.is_some_and(|told| told.name() == NAME) && end() {
            true => gst::PadProbeReturn::Handled,
            false => gst::PadProbeReturn::Ok,
        }
    });
}
