// SPDX-License-Identifier: MPL-2.0

//! An application ends whoever sends a stream. `sfusink` tells it upstream, where an element that has somebody to end hears
//! it on its source pads: an event of its own, since nothing else goes up through any pipeline.

use gst::glib;
use gst::glib::subclass::Signal;
use gst::prelude::*;

/// The action signal by which an application ends whoever sends to an element. It returns whether there was somebody. Where
/// `streams` it takes the name of one.
pub fn signal<T>(streams: bool, end: fn(&T, &str) -> bool) -> Signal
where
    T: IsA<gst::Element>,
{
    let text = streams.then(String::static_type);
    let kick = Signal::builder("kick").param_types(text);
    let ends = move |args: &[glib::Value]| {
        let element = args.first()?.get::<gst::Element>().ok()?;
        let stream = args.get(1).map(glib::Value::get::<Option<String>>);
        let stream = stream.transpose().ok()?.flatten().unwrap_or_default();
        Some(end(element.downcast_ref::<T>()?, &stream).to_value())
    };
    kick.return_type::<bool>()
        .action()
        .class_handler(ends)
        .build()
}

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
