// SPDX-License-Identifier: MPL-2.0

//! What the element tells of itself.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::Trouble;
use super::file::Written;
use crate::properties::lock;

#[derive(Debug, Clone, Default)]
struct Figures {
    state: State,
    /// The files that are being written.
    locations: Vec<String>,
    files: u64,
    fragments: u64,
    bytes: u64,
    failures: u64,
    deleted: u64,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Waiting,
    Recording,
    Full,
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Recording => "recording",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// What the element and its threads share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    figures: Mutex<Figures>,
    pub(super) dropped: Arc<AtomicU64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Figures> {
        lock(&self.figures)
    }

    pub(super) fn begin(&self, path: &Path) {
        let mut figures = self.lock();
        figures.state = State::Recording;
        let location = path.to_string_lossy().into_owned();
        figures.locations.push(location);
        figures.files += 1;
    }

    /// A file is over. Another one may have begun already.
    pub(super) fn end(&self, path: &Path) {
        let mut figures = self.lock();
        let before = figures.locations.len();
        let location = path.to_string_lossy();
        figures.locations.retain(|known| *known != location);
        if figures.locations.is_empty() && before > 0 {
            figures.state = State::Waiting;
        }
    }

    pub(super) fn progress(&self, before: Written, now: Written) {
        let mut figures = self.lock();
        figures.fragments += now.fragments.saturating_sub(before.fragments);
        figures.bytes += now.bytes.saturating_sub(before.bytes);
    }

    pub(super) fn fail(&self, trouble: Trouble) {
        let mut figures = self.lock();
        figures.failures += 1;
        figures.state = match trouble {
            Trouble::Full => State::Full,
            Trouble::Failed => State::Failed,
        };
    }

    pub(super) fn wait(&self) {
        self.lock().state = State::Waiting;
    }

    pub(super) fn delete(&self, count: usize) {
        self.lock().deleted += count as u64;
    }

    /// A frame, or a packet of sound, is in no file though it should be.
    pub(super) fn drop_one(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(super) fn location(&self) -> Option<String> {
        self.lock().locations.last().cloned()
    }

    pub(super) fn structure(&self) -> gst::Structure {
        let figures = self.lock().clone();
        gst::Structure::builder("sfurecorder-stats")
            .field("state", figures.state.as_str())
            .field("location", figures.locations.last().cloned())
            .field("files", figures.files)
            .field("fragments", figures.fragments)
            .field("bytes", figures.bytes)
            .field("dropped", self.dropped.load(Relaxed))
            .field("failures", figures.failures)
            .field("deleted", figures.deleted)
            .build()
    }
}
