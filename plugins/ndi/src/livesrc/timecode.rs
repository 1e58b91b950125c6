// SPDX-License-Identifier: MPL-2.0
//! Carries the NDI timecode past an element that makes new buffers without it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::shared::lock;

/// More frames than any deinterlacing method looks ahead.
const KEPT: usize = 16;

type References = Vec<(gst::Caps, gst::ClockTime, Option<gst::ClockTime>)>;

/// The references of the last frames that went in, oldest first.
#[derive(Debug, Default)]
struct Kept(VecDeque<(gst::ClockTime, References)>);

/// Puts the reference timestamps that go into `element` on what comes out of it.
pub(super) fn carry(element: &gst::Element) {
    let kept = Arc::<Mutex<Kept>>::default();
    if let Some(sink) = element.static_pad("sink") {
        let kept = Arc::clone(&kept);
        sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(buffer) = info.buffer() {
                lock(&kept).remember(buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }
    if let Some(source) = element.static_pad("src") {
        source.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
                lock(&kept).attach(buffer);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

impl Kept {
    fn remember(&mut self, buffer: &gst::Buffer) {
        let Some(pts) = buffer.pts() else {
            return;
        };
        let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
        let references = metas
            .map(|meta| (meta.reference_owned(), meta.timestamp(), meta.duration()))
            .collect();
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((pts, references));
    }

    /// A field has the timecode of the frame that it is from: the last one to begin before it.
    fn attach(&self, buffer: &mut gst::Buffer) {
        if buffer.meta::<gst::ReferenceTimestampMeta>().is_some() {
            return;
        }
        let pts = buffer.pts();
        let Some((_, references)) = self.0.iter().rev().find(|(begin, _)| Some(*begin) <= pts)
        else {
            return;
        };
        let buffer = buffer.make_mut();
        for (reference, timestamp, duration) in references {
            gst::ReferenceTimestampMeta::add(buffer, reference, *timestamp, *duration);
        }
    }
}
