// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;
use sfu_engine::StreamName;

use super::cuts::Rules;
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

fn text(name: &str, nick: &str, blurb: &str, default: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(Some(default))
        .mutable_ready()
        .build()
}

fn number(name: &str, nick: &str, blurb: &str, range: [u32; 2], default: u32) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(range[0])
        .maximum(range[1])
        .default_value(default)
        .mutable_ready()
        .build()
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    vec![
        text(
            "stream",
            "Stream",
            "Name of the stream: parts of A-Z a-z 0-9 . _ - joined by /",
            &defaults.stream,
        ),
        text(
            "router",
            "Router",
            "Name of the process-wide router to take the stream from",
            &defaults.router,
        ),
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
            [1_000, 20_000],
            defaults.segment_ms,
        ),
        number(
            "playlist-length",
            "Playlist length",
            "Segments in a playlist; files stay on disk about twice as long",
            [3, 10_000],
            defaults.length,
        ),
        number(
            "latency",
            "Latency",
            "How long a packet that is missing is waited for, in ms",
            [0, 10_000],
            defaults.latency_ms,
        ),
        glib::ParamSpecEnum::builder_with_default("on-loss", defaults.on_loss)
            .nick("On loss")
            .blurb("What happens when the publisher goes; with eos the playlists end")
            .mutable_ready()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("state (waiting, live, refused or ended), layers, segments, sequence (the next segment's), \
                    discontinuities, late (segments that came too late for their row), errors, last-error")
            .read_only()
            .build(),
    ]
});
