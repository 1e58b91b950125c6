// SPDX-License-Identifier: MPL-2.0

//! Elements inside of the bin: made, linked, and what is said where they are missing.

use gst::prelude::*;

pub(super) fn make(factory: &str, package: &str) -> Result<gst::Element, String> {
    gst::ElementFactory::make(factory)
        .build()
        .map_err(|_| format!("element {factory} is missing: install {package}"))
}

/// Two frames wait at most.
pub(super) fn queue() -> Result<gst::Element, String> {
    let queue = make("queue", "gstreamer1.0-plugins-base")?;
    queue.set_property("max-size-buffers", 2u32);
    queue.set_property("max-size-bytes", 0u32);
    queue.set_property("max-size-time", 0u64);
    Ok(queue)
}

pub(super) fn add_and_link(bin: &gst::Bin, elements: &[&gst::Element]) -> Result<(), String> {
    bin.add_many(elements.iter().copied())
        .map_err(|e| e.to_string())?;
    gst::Element::link_many(elements.iter().copied()).map_err(|e| e.to_string())
}

pub(super) fn pad(element: &gst::Element, name: &str) -> Result<gst::Pad, String> {
    element
        .static_pad(name)
        .ok_or_else(|| format!("{} has no {name} pad", element.name()))
}

/// Takes elements out of the bin, the last ones first, and stops them.
pub(super) fn take_out<'a>(
    bin: &gst::Bin,
    elements: impl DoubleEndedIterator<Item = &'a gst::Element>,
) {
    for element in elements.rev() {
        if element.parent().as_ref() == Some(bin.upcast_ref()) {
            // Out of the bin first, so that nobody brings it up again.
            let _ = bin.remove(element);
        }
        let _ = element.set_state(gst::State::Null);
    }
}
