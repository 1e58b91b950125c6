// SPDX-License-Identifier: MPL-2.0

//! Properties that can't change now: whoever sets one is told, and reads back what is in force.

use gst::prelude::*;
use gst::{PARAM_FLAG_MUTABLE_PAUSED, PARAM_FLAG_MUTABLE_PLAYING, glib};

/// Whether a property may be set now, as its flags have it. Where it may not that is said in the log and on the bus.
pub fn may_change(element: &impl IsA<gst::Element>, spec: &glib::ParamSpec) -> bool {
    let element = element.upcast_ref::<gst::Element>();
    let flags = spec.flags();
    let (_, current, pending) = element.state(gst::ClockTime::ZERO);
    // What is on its way to READY has let go of its settings only when it is there.
    let state = current.max(pending);
    let may = match state {
        gst::State::Playing => flags.contains(PARAM_FLAG_MUTABLE_PLAYING),
        gst::State::Paused => {
            flags.intersects(PARAM_FLAG_MUTABLE_PLAYING | PARAM_FLAG_MUTABLE_PAUSED)
        }
        _ => true,
    };
    if !may {
        let name = spec.name();
        gst::element_warning!(
            element,
            gst::ResourceError::Settings,
            ("{name} can't change in the {state:?} state, and stays as it was: set it in the NULL or READY state")
        );
    }
    may
}
