// SPDX-License-Identifier: MPL-2.0
//! What is counted from one start of the element to the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::imp::lock;

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) connections: AtomicU64,
    pub(super) publishers: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) dropped_frames: AtomicU64,
    pub(super) unusable: AtomicU64,
    pub(super) last_cut: Mutex<String>,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Stats {
    pub(super) fn structure(&self, connected: bool) -> gst::Structure {
        let last_cut = lock(&self.last_cut).clone();
        gst::Structure::builder("rtmpserversrc-stats")
            .field("connected", connected)
            .field("connections", self.connections.load(Relaxed))
            .field("publishers", self.publishers.load(Relaxed))
            .field("refused", self.refused.load(Relaxed))
            .field("cut", self.cut.load(Relaxed))
            .field("bytes", self.bytes.load(Relaxed))
            .field("frames", self.frames.load(Relaxed))
            .field("dropped-frames", self.dropped_frames.load(Relaxed))
            .field("unusable", self.unusable.load(Relaxed))
            .field("last-cut", last_cut)
            .build()
    }
}
