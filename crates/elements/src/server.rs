// SPDX-License-Identifier: MPL-2.0

//! EOS of elements that give and take no media: a pipeline posts its own when all its sinks have, and without any it would
//! wait for ever.

use gst::prelude::*;

use crate::is_sink;

/// The element exists: a bin sends EOS events to its sources, and so to this one.
pub fn constructed(element: &impl IsA<gst::Element>) {
    element.set_element_flags(gst::ElementFlags::SOURCE);
}

/// The element is used, perhaps again.
pub fn begins(element: &impl IsA<gst::Element>) {
    element.unset_element_flags(gst::ElementFlags::SINK);
}

/// EOS came. Where nothing else can be waited for the element counts as a sink from now on, which is at its end.
pub fn ended(element: &impl IsA<gst::Element>) {
    let element = element.upcast_ref();
    let bin = element.parent().and_downcast::<gst::Bin>();
    if bin.is_some_and(|bin| bin.children().iter().any(is_sink)) {
        return;
    }
    element.set_element_flags(gst::ElementFlags::SINK);
    let _ = element.post_message(gst::message::Eos::builder().src(element).build());
}
