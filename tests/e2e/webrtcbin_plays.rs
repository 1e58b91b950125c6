// SPDX-License-Identifier: MPL-2.0

//! A second, independent WebRTC stack: GStreamer's own `webrtcbin`, through `whepclientsrc`, plays the same stream.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_tests::netns;
use sfu_tests::server::{self, Server};

/// Frames of video and buffers of sound that must arrive.
const ENOUGH: u64 = 60;

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{program} {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn count(pipeline: &gst::Pipeline, sink: &str) -> Arc<AtomicU64> {
    let counter = Arc::new(AtomicU64::new(0));
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    let buffers = counter.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        buffers.fetch_add(1, Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    counter
}

#[test]
fn whepclientsrc_plays_pictures_and_sound() {
    let test = "webrtcbin_plays::whepclientsrc_plays_pictures_and_sound";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment, Duration::from_secs(120)) {
        return;
    }
    // libnice leaves loopback alone: give it an interface.
    run("ip", "link add viewers type veth peer name servers");
    run("ip", "addr add 10.99.0.1/24 dev viewers");
    run("ip", "link set viewers up");
    run("ip", "link set servers up");
    let picture = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
        ! sfusink stream=test layers=180:200k name=out audiotestsrc is-live=true ! out.";
    let server = Server::launch("webrtcbin_plays", picture).unwrap();
    server.wait_for_stream("test").unwrap();

    gst::init().unwrap();
    let line = format!(
        "whepclientsrc name=w stun-server=\"\" signaller::whep-endpoint={} \
         w. ! queue ! video/x-raw ! fakesink name=video sync=false async=false \
         w. ! queue ! audio/x-raw ! fakesink name=audio sync=false async=false",
        server.url("/whep/test")
    );
    let pipeline = gst::parse::launch(&line)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let (video, audio) = (count(&pipeline, "video"), count(&pipeline, "audio"));
    pipeline.set_state(gst::State::Playing).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let played = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    while played(&video) < ENOUGH || played(&audio) < ENOUGH {
        let error = pipeline
            .bus()
            .unwrap()
            .pop_filtered(&[gst::MessageType::Error]);
        assert!(error.is_none(), "{error:?}");
        let (v, a) = (played(&video), played(&audio));
        assert!(
            Instant::now() < end,
            "{v} frames and {a} pieces of sound in a minute\n{}",
            server.log_tail()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let viewers = server
        .metric("sfu_stream_viewers{stream=\"test\"}")
        .unwrap();
    assert_eq!(viewers, 1);
    pipeline.set_state(gst::State::Null).unwrap();
    // It says goodbye by DELETE.
    server
        .wait_for("the session to end", || {
            Ok((server.metric("sfu_sessions")? == 0).then_some(()))
        })
        .unwrap();
}
