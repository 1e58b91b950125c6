// SPDX-License-Identifier: MPL-2.0

//! GStreamer's own WebRTC elements with their own signalling, unmodified: `webrtcsink` publishes, `webrtcsrc` plays.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_tests::netns;
use sfu_tests::server::{self, Server};

use crate::webrtcbin_plays::{assert_no_error, count, play, wait_for_goodbye};

const ENOUGH: u64 = 60;

/// Plays until enough pictures and sound have come.
fn watch(server: &Server, stream: &str, publisher: &gst::Pipeline) {
    let pipeline = play(&format!(
        "webrtcsrc name=w stun-server=\"\" signaller::uri={} signaller::producer-peer-id={stream} \
         w. ! queue ! video/x-raw ! fakesink name=video sync=false async=false \
         w. ! queue ! audio/x-raw ! fakesink name=audio sync=false async=false",
        uri(server)
    ));
    let (video, audio) = (count(&pipeline, "video"), count(&pipeline, "audio"));
    let end = Instant::now() + Duration::from_secs(40);
    while video.load(Ordering::Relaxed) < ENOUGH || audio.load(Ordering::Relaxed) < ENOUGH {
        assert_no_error(&pipeline);
        assert_no_error(publisher);
        assert!(
            Instant::now() < end,
            "{video:?} frames and {audio:?} pieces of sound of {stream}\n{}",
            server.log_tail()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    let viewers = format!("sfu_stream_viewers{{stream=\"{stream}\"}}");
    assert_eq!(server.metric(&viewers).unwrap(), 1);
    pipeline.set_state(gst::State::Null).unwrap();
}

fn uri(server: &Server) -> String {
    server.url("/gst-webrtc").replace("http://", "ws://")
}

#[test]
fn webrtcsink_publishes_to_webrtcsrc() {
    let test = "gst_webrtc::webrtcsink_publishes_to_webrtcsrc";
    let environment = server::environment().unwrap();
    if !netns::isolated(test, &environment) {
        return;
    }
    netns::add_interface();
    let server = Server::launch("gst_webrtc", "").unwrap();
    gst::init().unwrap();
    for codec in ["H264", "VP8"] {
        let publisher = play(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 \
             ! webrtcsink name=out stun-server=\"\" video-caps=video/x-{} meta=\"meta,name={codec}\" signaller::uri={} \
             audiotestsrc is-live=true ! out.",
            codec.to_lowercase(),
            uri(&server)
        ));
        let info = server.wait_for_stream(codec).unwrap();
        assert_eq!(info["video"]["codec"], codec);
        assert_eq!(info["audio"]["codec"], "opus");
        watch(&server, codec, &publisher);
        publisher.set_state(gst::State::Null).unwrap();
        wait_for_goodbye(&server);
    }
}
