// SPDX-License-Identifier: MPL-2.0

//! The element's properties.

use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;

/// When the pipeline is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSupervisorRestart")]
#[repr(u32)]
pub(crate) enum Restart {
    #[default]
    #[enum_value(name = "After an error and after EOS", nick = "always")]
    Always,
    #[enum_value(name = "After an error only", nick = "on-error")]
    OnError,
    #[enum_value(name = "Never", nick = "never")]
    Never,
}

/// What may not stall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, glib::Enum)]
#[enum_type(name = "GstSupervisorStallOf")]
#[repr(u32)]
pub(crate) enum StallOf {
    #[default]
    #[enum_value(name = "All that comes", nick = "everything")]
    Everything,
    #[enum_value(name = "All that comes, or pictures alone", nick = "video")]
    Video,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) pipeline: String,
    pub(super) files: String,
    pub(super) restart: Restart,
    pub(super) delay: Duration,
    pub(super) delay_max: Duration,
    pub(super) eos_timeout: Duration,
    /// Zero: no limit.
    pub(super) begin_timeout: Duration,
    pub(super) stall_timeout: Duration,
    pub(super) stall_of: StallOf,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            pipeline: String::new(),
            files: String::new(),
            restart: Restart::default(),
            delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(15),
            eos_timeout: Duration::from_millis(1_500),
            begin_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
            stall_of: StallOf::default(),
        }
    }
}

fn milliseconds(name: &str, nick: &str, blurb: &str, default: Duration) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(blurb)
        .maximum(3_600_000)
        .default_value(default.as_millis() as u32)
        .mutable_playing()
        .build()
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let defaults = Settings::default();
    vec![
        glib::ParamSpecString::builder("pipeline")
            .nick("Pipeline")
            .blurb("The pipeline to run, in the words of gst-launch-1.0; a change while playing holds from its next start on")
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("files")
            .nick("Files")
            .blurb("FOLDER/PATTERN, such as /srv/films/*.mp4: {file} in pipeline stands for the next of them at each start (default: none); a change while playing holds from the next start on")
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("restart", defaults.restart)
            .nick("Restart")
            .blurb("When the pipeline is started again")
            .mutable_playing()
            .build(),
        milliseconds(
            "restart-delay",
            "Restart delay",
            "How long to wait before the first new start, in ms; doubles with each failure",
            defaults.delay,
        ),
        milliseconds(
            "restart-delay-max",
            "Longest restart delay",
            "How long to wait at most before a new start, in ms",
            defaults.delay_max,
        ),
        milliseconds(
            "eos-timeout",
            "EOS timeout",
            "How long the pipeline may take to finish after an EOS event, in ms",
            defaults.eos_timeout,
        ),
        milliseconds(
            "begin-timeout",
            "Begin timeout",
            "How long it may take until something comes to a sink of the pipeline, in ms; then it has failed. 0: for ever",
            defaults.begin_timeout,
        ),
        milliseconds(
            "stall-timeout",
            "Stall timeout",
            "How long nothing may come to any sink of the pipeline once something has, while it plays, in ms; then it has failed, as where a demuxer never tells that its file is over. 0: for ever",
            defaults.stall_timeout,
        ),
        glib::ParamSpecEnum::builder_with_default("stall-of", defaults.stall_of)
            .nick("Stall of")
            .blurb("What stall-timeout counts for: everything, where any sink that still gets something will do, or video, where pictures that have begun may not stop either, as those of a camera whose sound goes on")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("state (stopped, running, waiting, ended), starts, failures, and the last error")
            .read_only()
            .build(),
    ]
});
