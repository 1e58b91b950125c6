// SPDX-License-Identifier: MPL-2.0

//! Whether anything comes to the sinks of a pipeline while it plays: some demuxers never tell that their file is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// Counts what comes to the sinks.
#[derive(Debug)]
pub(super) struct Flow {
    count: Arc<AtomicU64>,
    /// The count as it was, and since when it has been that.
    seen: (u64, Instant),
    limit: Duration,
}

impl Flow {
    /// Of this pipeline, before it starts. A `limit` of 0 is none.
    pub(super) fn of(pipeline: &gst::Pipeline, limit: Duration) -> Self {
        let flow = Self {
            count: Arc::default(),
            seen: (0, Instant::now()),
            limit,
        };
        if !limit.is_zero() {
            for sink in pipeline.iterate_sinks().into_iter().flatten() {
                let count = flow.count.clone();
                sink.connect_pad_added(move |_, pad| watch(pad, &count));
                for pad in sink.sink_pads() {
                    watch(&pad, &flow.count);
                }
            }
        }
        flow
    }

    /// It plays from now on.
    pub(super) fn begin(&mut self) {
        self.seen = (self.count.load(Relaxed), Instant::now());
    }

    /// When to look again: nothing stalls that has not begun.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.limit.is_zero()).then(|| self.seen.1 + self.limit)
    }

    /// Nothing has come for as long as that may be.
    pub(super) fn has_stalled(&mut self, now: Instant) -> bool {
        let count = self.count.load(Relaxed);
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        let same = count == std::mem::replace(&mut self.seen, (count, now)).0;
        same && count > 0
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}

fn watch(pad: &gst::Pad, count: &Arc<AtomicU64>) {
    if pad.direction() == gst::PadDirection::Sink {
        let count = count.clone();
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(mask, move |_, _| {
            count.fetch_add(1, Relaxed);
            gst::PadProbeReturn::Ok
        });
    }
}
