// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;
use sfu_engine::StreamName;

use super::template::Template;
use crate::properties::{live_number, number, stream_and_router, text};

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) stream: String,
    pub(super) room: String,
    pub(super) router: String,
    pub(super) layer: String,
    pub(super) directory: String,
    pub(super) location_template: String,
    pub(super) fragment_duration: u32,
    pub(super) max_duration: u32,
    pub(super) max_size: u64,
    pub(super) delete_after: u32,
    pub(super) min_free: u64,
    pub(super) recording: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stream: "live".into(),
            room: String::new(),
            router: "default".into(),
            layer: "highest".into(),
            directory: "recordings".into(),
            location_template: "{stream}/{date}_{time}_{number}.mp4".into(),
            fragment_duration: 1_000,
            max_duration: 3_600,
            max_size: 2_000_000_000,
            delete_after: 168 * 3_600,
            min_free: 256 << 20,
            recording: true,
        }
    }
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) stream: StreamName,
    pub(super) of: Of,
    pub(super) router: String,
    pub(super) layer: String,
    pub(super) directory: PathBuf,
    pub(super) template: Template,
    pub(super) fragment: gst::ClockTime,
    pub(super) limits: Limits,
    pub(super) recording: bool,
}

/// For what a stream is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Of {
    /// Itself.
    Stream,
    /// Somebody publishes it in a room.
    Room { room: String, identity: String },
}

/// What may change while it records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) max_duration: Option<gst::ClockTime>,
    pub(super) max_size: Option<u64>,
    pub(super) delete_after: Option<Duration>,
    pub(super) min_free: u64,
}

impl Settings {
    pub(super) fn limits(&self) -> Limits {
        let seconds = |s: u32| (s > 0).then_some(u64::from(s));
        Limits {
            max_duration: seconds(self.max_duration).map(gst::ClockTime::from_seconds),
            max_size: Some(self.max_size).filter(|size| *size > 0),
            delete_after: seconds(self.delete_after).map(Duration::from_secs),
            min_free: self.min_free,
        }
    }

    pub(super) fn plan(&self) -> Result<Plan, String> {
        if self.directory.is_empty() {
            return Err("directory is empty: name the folder for the recordings".into());
        }
        if self.layer == "all" {
            return Err(
                "layer=all: one layer is recorded; set layer to highest, lowest, or a layer's name"
                    .into(),
            );
        }
        Ok(Plan {
            stream: self.stream.parse().map_err(|e| format!("stream: {e}"))?,
            of: Of::Stream,
            router: self.router.clone(),
            layer: self.layer.clone(),
            directory: self.directory.clone().into(),
            template: self.location_template.parse()?,
            fragment: gst::ClockTime::from_mseconds(self.fragment_duration.into()),
            limits: self.limits(),
            recording: self.recording,
        })
    }
}

fn bytes(name: &str, nick: &str, blurb: &str, default: u64) -> glib::ParamSpec {
    glib::ParamSpecUInt64::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(default)
        .mutable_playing()
        .build()
}

fn texts(defaults: &Settings) -> [glib::ParamSpec; 4] {
    [
        text(
            "room",
            "Room",
            "Name of a room: all that is published there is recorded, each in files of its own, instead of `stream` (empty: none)",
            &defaults.room,
        ),
        text(
            "layer",
            "Layer",
            "Which simulcast layer: highest or lowest of those that are sent, or a layer's name (RID)",
            &defaults.layer,
        ),
        text(
            "directory",
            "Directory",
            "Folder for the recordings; it is made where it is not there",
            &defaults.directory,
        ),
        text(
            "location-template",
            "Location template",
            "Name of each file inside of directory, with {stream}, {date} and {time} (UTC) of its beginning, and {number}",
            &defaults.location_template,
        ),
    ]
}

fn limits(defaults: &Settings) -> [glib::ParamSpec; 5] {
    [
        number(
            "fragment-duration",
            "Fragment duration",
            "How much is written at once, in ms: when the process is killed, that and what was under way is lost at most",
            100..=60_000,
            defaults.fragment_duration,
        ),
        live_number(
            "max-duration",
            "Maximum duration",
            "A new file begins with the first keyframe after this many seconds; 0 is never",
            0..=u32::MAX,
            defaults.max_duration,
        ),
        bytes(
            "max-size",
            "Maximum size",
            "A new file begins with the first keyframe after this many bytes; 0 is never",
            defaults.max_size,
        ),
        live_number(
            "delete-after",
            "Delete after",
            "Recordings of this stream, or room, in directory are deleted when they are this many seconds old; 0 is never",
            0..=u32::MAX,
            defaults.delete_after,
        ),
        bytes(
            "min-free",
            "Minimum free",
            "Recording stops where fewer bytes are free on the disk, and goes on when there is room again",
            defaults.min_free,
        ),
    ]
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    let figures = [
        glib::ParamSpecBoolean::builder("recording")
            .nick("Recording")
            .blurb("Whether what comes is recorded: the action signals start and stop change it, too")
            .default_value(defaults.recording)
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("location")
            .nick("Location")
            .blurb("The file that is being written, or none; changes are notified")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("state (waiting, recording, full or failed), location, files, fragments, bytes, dropped (frames while it could not write), failures, deleted")
            .read_only()
            .build(),
    ];
    let stream = stream_and_router(&defaults.stream, &defaults.router);
    let own = texts(&defaults).into_iter().chain(limits(&defaults));
    stream.into_iter().chain(own).chain(figures).collect()
});
