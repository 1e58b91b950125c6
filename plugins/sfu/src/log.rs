// SPDX-License-Identifier: MPL-2.0

//! What the engine says through `tracing` appears in the GStreamer log, in the category `sfuengine`.

use std::fmt::Write;
use std::sync::LazyLock;

use gst::prelude::*;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "sfuengine",
        gst::DebugColorFlags::empty(),
        Some("Selective forwarding engine"),
    )
});

/// Begins to forward, unless the application has its own subscriber.
pub(crate) fn forward() {
    LazyLock::force(&CAT);
    if tracing::subscriber::set_global_default(ToGstreamer).is_err() {
        gst::debug!(CAT, "the application takes the engine's log");
    }
}

struct ToGstreamer;

fn level(level: Level) -> gst::DebugLevel {
    match level {
        Level::ERROR => gst::DebugLevel::Error,
        Level::WARN => gst::DebugLevel::Warning,
        Level::INFO => gst::DebugLevel::Info,
        Level::DEBUG => gst::DebugLevel::Debug,
        Level::TRACE => gst::DebugLevel::Trace,
    }
}

/// Our own crate in full; of WebRTC's inner life only what a user must know.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().starts_with("sfu_engine");
    ours || (metadata.target().starts_with("str0m") && *metadata.level() <= Level::ERROR)
}

impl Subscriber for ToGstreamer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && is_ours(metadata) {
            // Thresholds change at run time.
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && is_ours(metadata) && CAT.above_threshold(level(*metadata.level()))
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let level = level(*event.metadata().level());
        gst::log_with_level!(CAT, level, "{}{}", line.message, line.fields);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// One line of the log: the message, then the fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string can't fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
