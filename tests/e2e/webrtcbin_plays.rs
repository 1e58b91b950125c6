// SPDX-License-Identifier: MPL-2.0

//! A second, independent WebRTC stack: GStreamer's own `webrtcbin` plays what we publish, through `whepclientsrc`, and
//! publishes what we forward, through `whipclientsink`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_tests::netns;
use sfu_tests::server::{self, Server};

/// Frames of video and buffers of sound that must arrive.
const ENOUGH: u64 = 60;

pub(crate) fn count(pipeline: &gst::Pipeline, sink: &str) -> Arc<AtomicU64> {
    let counter = Arc::new(AtomicU64::new(0));
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    let buffers = counter.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        buffers.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    counter
}

pub(crate) fn play(line: &str) -> gst::Pipeline {
    let pipeline = gst::parse::launch(line).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    pipeline
}

pub(crate) fn assert_no_error(pipeline: &gst::Pipeline) {
    let bus = pipeline.bus().unwrap();
    let error = bus.pop_filtered(&[gst::MessageType::Error]);
    assert!(error.is_none(), "{error:?}");
}

/// Plays a stream with `whepclientsrc` until enough pictures and sound have come, and stops.
pub(crate) fn watch(server: &Server, stream: &str, publisher: Option<&gst::Pipeline>) {
    let pipeline = play(&format!(
        "whepclientsrc name=w stun-server=\"\" signaller::whep-endpoint={} \
         w. ! queue ! video/x-raw ! fakesink name=video sync=false async=false \
         w. ! queue ! audio/x-raw ! fakesink name=audio sync=false async=false",
        server.url(&format!("/whep/{stream}"))
    ));
    let (video, audio) = (count(&pipeline, "video"), count(&pipeline, "audio"));
    let end = Instant::now() + Duration::from_secs(30);
    let played = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    while played(&video) < ENOUGH || played(&audio) < ENOUGH {
        assert_no_error(&pipeline);
        publisher.into_iter().for_each(assert_no_error);
        let (v, a) = (played(&video), played(&audio));
        assert!(
            Instant::now() < end,
            "{v} frames and {a} pieces of sound of {stream} in half a minute\n{}",
            server.log_tail()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let viewers = format!("sfu_stream_viewers{{stream=\"{stream}\"}}");
    assert_eq!(server.metric(&viewers).unwrap(), 1);
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Both elements say goodbye by DELETE.
pub(crate) fn wait_for_goodbye(server: &Server) {
    let ended = || Ok((server.metric("sfu_sessions")? == 0).then_some(()));
    server.wait_for("the sessions to end", ended).unwrap();
}

#[test]
fn whepclientsrc_plays_pictures_and_sound() {
    let test = "webrtcbin_plays::whepclientsrc_plays_pictures_and_sound";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    let picture = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
        ! sfusink stream=test layers=180:200k name=out audiotestsrc is-live=true ! out.";
    let server = Server::launch("webrtcbin_plays", picture).unwrap();
    server.wait_for_stream("test").unwrap();
    gst::init().unwrap();
    watch(&server, "test", None);
    wait_for_goodbye(&server);
}

#[test]
fn whipclientsink_publishes_to_whepclientsrc() {
    let test = "webrtcbin_plays::whipclientsink_publishes_to_whepclientsrc";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    let server = Server::launch("webrtcbin_publishes", "").unwrap();
    gst::init().unwrap();
    for codec in ["H264", "VP8"] {
        let publisher = play(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
             ! whipclientsink name=out stun-server=\"\" video-caps=video/x-{} signaller::whip-endpoint={} \
             audiotestsrc is-live=true ! out.",
            codec.to_lowercase(),
            server.url(&format!("/whip/{codec}"))
        ));
        let info = server.wait_for_stream(codec).unwrap();
        assert_eq!(info["video"]["codec"], codec);
        assert_eq!(info["audio"]["codec"], "opus");
        watch(&server, codec, Some(&publisher));
        publisher.set_state(gst::State::Null).unwrap();
        wait_for_goodbye(&server);
        let info = server.json("/api/streams").unwrap();
        assert_eq!(info["streams"], serde_json::json!([]), "nobody is left");
    }
}
