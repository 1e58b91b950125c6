// SPDX-License-Identifier: MPL-2.0
//! The two source pads: what they answer, and what they keep from passing.

use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::imp::{CAT, NdiLiveSrc};
use super::shared::{Kind, Shared, lock};
use super::{caps, settings::Settings};

pub(super) static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let caps = caps::template(kind);
            let (source, always) = (gst::PadDirection::Src, gst::PadPresence::Always);
            gst::PadTemplate::new(kind.name(), source, always, &caps).expect("the caps are valid")
        })
        .collect()
});

/// Makes one of the pads, without a target: that comes and goes with the state.
pub(super) fn ghost(kind: Kind) -> gst::GhostPad {
    let template = TEMPLATES
        .iter()
        .find(|template| template.name_template() == kind.name());
    gst::GhostPad::builder_from_template(template.expect("every kind has a template"))
        .proxy_pad_chain_function(|pad, parent, buffer| {
            if finished(parent) {
                return Ok(gst::FlowSuccess::Ok);
            }
            match gst::ProxyPad::chain_default(pad, parent, buffer) {
                // A pad that nobody has linked, and one whose receiver has had enough, must
                // neither stop the other pad nor look like a failure of the source.
                Err(gst::FlowError::NotLinked | gst::FlowError::Eos) => Ok(gst::FlowSuccess::Ok),
                result => result,
            }
        })
        .event_function(|pad, parent, event| match event.view() {
            // Live: and the elements inside must not try.
            gst::EventView::Seek(_) => false,
            _ => gst::Pad::event_default(pad, parent, event),
        })
        .query_function(move |pad, parent, query| {
            NdiLiveSrc::catch_panic_pad_function(
                parent,
                || false,
                |imp| answer(kind, &imp.settings(), imp.shared(), pad, parent, query),
            )
        })
        .build()
}

/// Whether the application has ended the streams of the element that this ghost pad belongs to.
fn finished(ghost: Option<&gst::Object>) -> bool {
    ghost
        .and_then(gst::Object::parent)
        .and_downcast::<super::NdiLiveSrc>()
        .is_some_and(|source| source.imp().shared().finished.load(Relaxed))
}

fn answer(
    kind: Kind,
    settings: &Settings,
    shared: &Shared,
    pad: &gst::GhostPad,
    parent: Option<&gst::Object>,
    query: &mut gst::QueryRef,
) -> bool {
    match query.view_mut() {
        // Answered here, so that the switch inside never holds pictures back to wait out a
        // latency: what arrives leaves at once, and a sink that syncs does the waiting.
        gst::QueryViewMut::Latency(latency) => {
            latency.set(true, shared.latency(), gst::ClockTime::NONE);
            true
        }
        gst::QueryViewMut::Caps(query) => {
            let settled = lock(&shared.stream(kind).caps).clone();
            let caps = settled.unwrap_or_else(|| caps::wanted(kind, settings));
            let filtered = query
                .filter_owned()
                .map(|filter| filter.intersect_with_mode(&caps, gst::CapsIntersectMode::First));
            query.set_result(&filtered.unwrap_or(caps));
            true
        }
        _ => gst::Pad::query_default(pad, parent, query),
    }
}

/// Keeps events from downstream that tell of the switch between source and slate, which is the
/// element's own business: stream starts, tags, ends, and caps and segments that change nothing.
pub(super) fn calm(
    kind: Kind,
    shared: &Shared,
    pad: &gst::Pad,
    info: &mut gst::PadProbeInfo,
) -> gst::PadProbeReturn {
    let Some(gst::PadProbeData::Event(event)) = &mut info.data else {
        return gst::PadProbeReturn::Ok;
    };
    let mut seen = lock(&shared.stream(kind).seen);
    let pass = match event.view() {
        _ if shared.finished.load(Relaxed) => false,
        gst::EventView::StreamStart(_) => match seen.stream_start.take() {
            Some(own) => {
                *event = own;
                true
            }
            None => false,
        },
        gst::EventView::Caps(caps) => {
            let caps = Some(caps.caps_owned());
            let new = seen.caps != caps;
            seen.caps = caps;
            new
        }
        gst::EventView::Segment(segment) => {
            let segment = Some(segment.segment().clone());
            let new = seen.segment != segment;
            seen.segment = segment;
            new
        }
        gst::EventView::Tag(_) | gst::EventView::Toc(_) | gst::EventView::Eos(_) => false,
        _ => true,
    };
    drop(seen);
    if pass {
        return gst::PadProbeReturn::Ok;
    }
    gst::log!(CAT, obj = pad, "Keeping {event:?}");
    // Not `Drop`: GStreamer offers a sticky event that was dropped again with every buffer.
    gst::PadProbeReturn::Handled
}

/// Called for each buffer and event of the source that has reached the switch's format.
pub(super) fn watch_source(
    kind: Kind,
    shared: &Shared,
    info: &gst::PadProbeInfo,
) -> gst::PadProbeReturn {
    match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) if shared.playing.load(Relaxed) => {
            shared.arrived(kind, buffer);
        }
        // The switch would hand an end of the source on, and never take it back.
        Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => {
            return gst::PadProbeReturn::Handled;
        }
        _ => {}
    }
    gst::PadProbeReturn::Ok
}
