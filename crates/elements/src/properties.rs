// SPDX-License-Identifier: MPL-2.0

//! Properties that can't change now: whoever sets one is told, and reads back what is in force.

use gst::prelude::*;
use gst::{PARAM_FLAG_MUTABLE_PAUSED, PARAM_FLAG_MUTABLE_PLAYING, PARAM_FLAG_MUTABLE_READY, glib};

/// Whether a property may be set now, as its flags have it: one without any is read on the way to READY. Where it may not
/// that is said in the log and on the bus.
pub fn may_change(element: &impl IsA<gst::Element>, spec: &glib::ParamSpec) -> bool {
    let element = element.upcast_ref::<gst::Element>();
    let flags = spec.flags();
    let paused = PARAM_FLAG_MUTABLE_PLAYING | PARAM_FLAG_MUTABLE_PAUSED;
    let (_, current, pending) = element.state(gst::ClockTime::ZERO);
    // What is on its way to READY has let go of its settings only when it is there.
    let state = current.max(pending);
    let may = match state {
        gst::State::Playing => flags.contains(PARAM_FLAG_MUTABLE_PLAYING),
        gst::State::Paused => flags.intersects(paused),
        gst::State::Ready => flags.intersects(paused | PARAM_FLAG_MUTABLE_READY),
        _ => true,
    };
    if !may {
        let name = spec.name();
        let when = match flags.intersects(paused | PARAM_FLAG_MUTABLE_READY) {
            true => "the NULL or READY state",
            false => "the NULL state",
        };
        gst::element_warning!(
            element,
            gst::ResourceError::Settings,
            ("{name} can't change in the {state:?} state, and stays as it was: set it in {when}")
        );
    }
    may
}

/// A secret as it reads back: whoever may read an element's properties, as a dump of the pipeline does, need not know it.
pub fn hidden(secret: &str) -> &'static str {
    if secret.is_empty() { "" } else { "…" }
}

/// The same of NAME:SECRET, several with commas between.
pub fn hidden_by_name(secrets: &str) -> String {
    let one = |entry: &str| match entry.split_once(':') {
        Some((name, _)) => format!("{name}:…"),
        None => "…".to_owned(),
    };
    let entries = secrets.split(',').filter(|entry| !entry.is_empty());
    entries.map(one).collect::<Vec<_>>().join(",")
}
