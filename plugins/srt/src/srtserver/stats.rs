// SPDX-License-Identifier: MPL-2.0

//! What is counted from one start of the element to the next.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::lock;

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) restarts: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) last_cut: Mutex<String>,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

impl Stats {
    pub(super) fn structure(&self, callers: usize) -> gst::Structure {
        gst::Structure::builder("srtserver-stats")
            .field("callers", u32::try_from(callers).unwrap_or(u32::MAX))
            .field("accepted", self.accepted.load(Relaxed))
            .field("refused", self.refused.load(Relaxed))
            .field("cut", self.cut.load(Relaxed))
            .field("restarts", self.restarts.load(Relaxed))
            .field("bytes", self.bytes.load(Relaxed))
            .field("dropped", self.dropped.load(Relaxed))
            .field("last-cut", lock(&self.last_cut).clone())
            .build()
    }
}
