// SPDX-License-Identifier: MPL-2.0

//! GStreamer with the plugin under test, and pipelines that are played to their end: shared by the element's tests.

#![allow(dead_code)]

use gst::prelude::*;

const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(60);

pub(crate) fn init() {
    gst::init().unwrap();
    gstsimulcast::plugin_register_static().unwrap();
}

/// Plays to the end, and fails on an error.
pub(crate) fn play(pipeline: &gst::Pipeline) {
    pipeline.set_state(gst::State::Playing).unwrap();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(LIMIT, &types);
    let message = message.expect("it ends in time");
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    pipeline.set_state(gst::State::Null).unwrap();
}
