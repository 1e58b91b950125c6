// SPDX-License-Identifier: MPL-2.0
//! The way of one of the source's streams to its switch: into a thread of its own, and into the
//! settled caps by as few elements as these differ.

use gst::prelude::*;

use super::caps;
use super::mix;
use super::shared::Kind;
use super::stream::{Failure, Missing, Stream, make};
use super::timecode;

/// Exists as long as the demuxer's pad does.
#[derive(Debug)]
pub(super) struct Branch {
    elements: Vec<gst::Element>,
    is_mixed: bool,
    /// What the branch adds to the latency.
    pub(super) latency: gst::ClockTime,
}

impl Branch {
    /// Builds and starts the branch that takes `source` into `settled` caps.
    pub(super) fn start(
        bin: &gst::Bin,
        pad: &gst::Pad,
        stream: &Stream,
        source: &gst::CapsRef,
        settled: &gst::Caps,
    ) -> Result<Self, Failure> {
        let queue = queue(stream.kind)?;
        let (mut elements, latency) = match stream.kind {
            Kind::Video => {
                let (middle, latency) = video(source, settled)?;
                let mut elements = vec![queue];
                elements.extend(middle);
                (elements, latency)
            }
            Kind::Audio => {
                let convert = mix::mixer(settled)?;
                let resample = make("audioresample", "ingest-audio-resample")?;
                (vec![convert, queue, resample], gst::ClockTime::ZERO)
            }
        };
        let name = stream.kind.name();
        let filter = make("capsfilter", &format!("ingest-{name}-caps"))?;
        filter.set_property("caps", settled);
        elements.push(filter);
        let branch = Self {
            elements,
            is_mixed: source
                .structure(0)
                .is_some_and(|s| s.name() == "audio/x-raw"),
            latency,
        };
        match branch.attach(bin, pad, &stream.source) {
            Ok(()) => Ok(branch),
            Err(error) => {
                branch.remove_from(bin);
                Err(error.into())
            }
        }
    }

    fn attach(
        &self,
        bin: &gst::Bin,
        from: &gst::Pad,
        to: &gst::Pad,
    ) -> Result<(), glib::BoolError> {
        bin.add_many(&self.elements)?;
        gst::Element::link_many(&self.elements)?;
        let pad = |element: Option<&gst::Element>, name| {
            let pad = element.and_then(|element| element.static_pad(name));
            pad.ok_or_else(|| glib::bool_error!("no pad {name}"))
        };
        let failed = |err: gst::PadLinkError| glib::bool_error!("{err}");
        pad(self.elements.last(), "src")?.link(to).map_err(failed)?;
        for element in self.elements.iter().rev() {
            element.sync_state_with_parent()?;
        }
        // Sound that needs a matrix has one when its caps come (`mix`); by its caps alone it could not be linked.
        let checks = match self.is_mixed {
            true => gst::PadLinkCheck::HIERARCHY,
            false => gst::PadLinkCheck::DEFAULT,
        };
        from.link_full(&pad(self.elements.first(), "sink")?, checks)
            .map_err(failed)?;
        Ok(())
    }

    pub(super) fn remove_from(self, bin: &gst::Bin) {
        for element in &self.elements {
            let _ = element.set_state(gst::State::Null);
        }
        let _ = bin.remove_many(&self.elements);
    }
}

/// The two streams come out of one thread: a slow receiver of one must not hold up the other, and
/// old data is of no use to a live stream.
fn queue(kind: Kind) -> Result<gst::Element, Missing> {
    let queue = make("queue", &format!("ingest-{}-queue", kind.name()))?;
    queue.set_property_from_str("leaky", "downstream");
    queue.set_property("silent", true);
    queue.set_property("max-size-bytes", 0u32);
    match kind {
        Kind::Video => {
            queue.set_property("max-size-buffers", 4u32);
            queue.set_property("max-size-time", 0u64);
        }
        Kind::Audio => {
            queue.set_property("max-size-buffers", 0u32);
            queue.set_property("max-size-time", 400_000_000u64);
        }
    }
    Ok(queue)
}

fn video(
    source: &gst::CapsRef,
    settled: &gst::Caps,
) -> Result<(Vec<gst::Element>, gst::ClockTime), Missing> {
    let mut elements = Vec::new();
    let mut latency = gst::ClockTime::ZERO;
    let structure = source.structure(0);
    let field = |name| structure.and_then(|s| s.get::<&str>(name).ok());
    let interlaced = field("interlace-mode").is_some_and(|mode| mode != "progressive");
    let fps = |caps: &gst::CapsRef| {
        caps.structure(0)
            .and_then(|s| s.get::<gst::Fraction>("framerate").ok())
    };
    let frame = caps::frame_duration(source).unwrap_or(gst::ClockTime::ZERO);
    if interlaced {
        let deinterlace = make("deinterlace", "ingest-video-deinterlace")?;
        timecode::carry(&deinterlace);
        elements.push(deinterlace);
        latency += frame;
    }
    // Only where it is needed, because it holds each picture back until the next has come. Should
    // a source change its frame rate on the way, negotiation fails here, which ends this
    // connection, and the next one has a branch that fits.
    if interlaced || fps(source) != fps(settled) {
        let rate = make("videorate", "ingest-video-rate")?;
        rate.set_property("skip-to-first", true);
        elements.push(rate);
        latency += frame;
    }
    elements.push(make("videoconvertscale", "ingest-video-convert")?);
    Ok((elements, latency))
}
