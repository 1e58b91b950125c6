// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;
use sfu_engine::StreamName;

use super::cuts::Rules;
use crate::properties::{latency, live_number, number, stream_and_router, text};
use crate::src::OnLoss;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) stream: String,
    pub(super) router: String,
    pub(super) directory: String,
    pub(super) segment_ms: u32,
    pub(super) length: u32,
    pub(super) latency_ms: u32,
    pub(super) on_loss: OnLoss,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream: "live".into(),
            router: "default".into(),
            directory: String::new(),
            segment_ms: 2_000,
            length: 6,
            latency_ms: 200,
            on_loss: OnLoss::default(),
        }
    }
}

impl Settings {
    pub(super) fn name(&self) -> Result<StreamName, String> {
        self.stream.parse().map_err(|e| format!("stream: {e}"))
    }

    /// The stream's own folder.
    pub(super) fn folder(&self) -> Result<PathBuf, String> {
        if self.directory.is_empty() {
            let what = "directory is empty: set it to the folder that the streams' folders are in";
            return Err(what.into());
        }
        Ok(PathBuf::from(&self.directory).join(self.name()?.as_str()))
    }

    pub(super) fn rules(&self) -> Rules {
        Rules::new(Duration::from_millis(self.segment_ms.into()))
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let own = [
        text(
            "directory",
            "Directory",
            "Folder in which the stream has its own, DIRECTORY/STREAM; it is made where it is not there",
            &defaults.directory,
        ),
        number(
            "segment-duration",
            "Segment duration",
            "How long a segment is to be, in ms; keyframes are asked for at its end",
            1_000..=20_000,
            defaults.segment_ms,
        ),
        live_number(
            "playlist-length",
            "Playlist length",
            "Segments in a playlist; files stay on disk about twice as long",
            3..=10_000,
            defaults.length,
        ),
        latency(defaults.latency_ms),
        glib::ParamSpecEnum::builder_with_default("on-loss", defaults.on_loss)
            .nick("On loss")
            .blurb("What happens when the publisher goes; with eos the playlists end")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("state (waiting, live, stalled (no pictures for long, or nothing at all), refused or ended), layers, segments, sequence (the next segment's), \
                    discontinuities, late (segments that came too late for their row), errors, last-error")
            .read_only()
            .build(),
    ];
    let stream = stream_and_router(&defaults.stream, &defaults.router);
    stream.into_iter().chain(own).collect()
});
