// SPDX-License-Identifier: MPL-2.0

//! What the elements' properties have in common: how they are declared, read and kept.

use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gst::prelude::*;

/// What a mutex holds, also after a panic elsewhere: what is kept here is whole at any time.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text_spec(
    (name, nick, blurb): (&str, &str, &str),
    default: &str,
    may_change: glib::ParamFlags,
) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name)
        .nick(nick)
        .blurb(blurb)
        .default_value(Some(default))
        .flags(glib::ParamFlags::READWRITE | may_change)
        .build()
}

fn number_spec(
    (name, nick, blurb): (&str, &str, &str),
    range: RangeInclusive<u32>,
    default: u32,
    may_change: glib::ParamFlags,
) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(*range.start())
        .maximum(*range.end())
        .default_value(default)
        .flags(glib::ParamFlags::READWRITE | may_change)
        .build()
}

/// A text that may change until READY.
pub(crate) fn text(name: &str, nick: &str, blurb: &str, default: &str) -> glib::ParamSpec {
    text_spec((name, nick, blurb), default, gst::PARAM_FLAG_MUTABLE_READY)
}

/// A number that may change until READY.
pub(crate) fn number(
    name: &str,
    nick: &str,
    blurb: &str,
    range: RangeInclusive<u32>,
    default: u32,
) -> glib::ParamSpec {
    let names = (name, nick, blurb);
    number_spec(names, range, default, gst::PARAM_FLAG_MUTABLE_READY)
}

/// A text that is read on the way to READY, and may change in NULL only.
pub(crate) fn text_at_start(name: &str, nick: &str, blurb: &str, default: &str) -> glib::ParamSpec {
    text_spec((name, nick, blurb), default, glib::ParamFlags::empty())
}

/// A number that is.
pub(crate) fn number_at_start(
    name: &str,
    nick: &str,
    blurb: &str,
    range: RangeInclusive<u32>,
    default: u32,
) -> glib::ParamSpec {
    let names = (name, nick, blurb);
    number_spec(names, range, default, glib::ParamFlags::empty())
}

/// A text that may change while it plays.
pub(crate) fn live_text(name: &str, nick: &str, blurb: &str, default: &str) -> glib::ParamSpec {
    let names = (name, nick, blurb);
    text_spec(names, default, gst::PARAM_FLAG_MUTABLE_PLAYING)
}

/// A number that may change while it plays.
pub(crate) fn live_number(
    name: &str,
    nick: &str,
    blurb: &str,
    range: RangeInclusive<u32>,
    default: u32,
) -> glib::ParamSpec {
    let names = (name, nick, blurb);
    number_spec(names, range, default, gst::PARAM_FLAG_MUTABLE_PLAYING)
}

/// Which stream to take, for elements that take one, and from where.
pub(crate) fn stream_and_router(stream: &str, router: &str) -> [glib::ParamSpec; 2] {
    [
        text(
            "stream",
            "Stream",
            "Name of the stream: parts of A-Z a-z 0-9 . _ - joined by /",
            stream,
        ),
        text(
            "router",
            "Router",
            "Name of the process-wide router to take the stream from",
            router,
        ),
    ]
}

/// How long to wait for packets, for elements that take a stream.
pub(crate) fn latency(default: u32) -> glib::ParamSpec {
    let blurb = "How long a packet that is missing is waited for, in ms";
    number("latency", "Latency", blurb, 0..=10_000, default)
}

/// A text that was set; null is none.
pub(crate) fn text_of(value: &glib::Value) -> String {
    let text = value.get::<Option<String>>().ok().flatten();
    text.unwrap_or_default()
}

/// A number that was set.
pub(crate) fn number_of(value: &glib::Value) -> u32 {
    value.get().unwrap_or_default()
}
