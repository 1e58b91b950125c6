// SPDX-License-Identifier: MPL-2.0

//! A browser's stream is encoded anew: a hundred viewers who join cost its publisher no keyframe.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use sfu_tests::server::{self, Server};
use sfu_tests::{browser, load};

#[test]
fn a_hundred_viewers_cost_the_publisher_no_keyframe() {
    let keys = ["FROM=camera", "STREAM=demo", "LAYERS=270:500k,180:200k"];
    let server = Server::pipeline("re_encode", "re-encode", &keys).unwrap();
    let tool = load::tool().unwrap();
    let load = format!(
        "{} --whep {} --viewers 100 --duration 10s --json",
        tool.display(),
        server.url("/whep/demo")
    );
    let picture = browser::screenshot("re_encode").unwrap();
    let arguments = [
        "--base",
        &server.url(""),
        "--load",
        &load,
        "--screenshot",
        picture.to_str().unwrap(),
    ];
    let seen = browser::run("reencode.mjs", &arguments).unwrap();
    println!("{seen}");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{seen}"));
    let (before, after) = (&seen["before"], &seen["after"]);
    assert_eq!(seen["load"]["viewers_with_picture"], 100);
    assert_eq!(before["requests"], after["requests"]);
    let more = |key: &str| number(&after[key]) - number(&before[key]);
    assert!(more("framesDecoded") > 60.0);
    assert!(more("audioEnergy") > 0.0, "no sound");
    // What was spared: the viewers' own requests.
    let asked = server
        .metric("sfu_stream_keyframe_requests_received_total{stream=\"demo\"}")
        .unwrap();
    println!("viewers asked the new encoder {asked} times");
}

/// `whipclientsink`, killed when dropped.
struct Whip(Child);

impl Whip {
    fn publish(server: &Server, codec: &str, size: &str, sound: bool) -> Self {
        let picture = format!(
            "video-caps=video/x-{codec} videotestsrc is-live=true ! video/x-raw,{size},framerate=30/1 ! whip.video_0"
        );
        Self::send(server, &picture, sound)
    }

    fn send(server: &Server, picture: &str, sound: bool) -> Self {
        let endpoint = server.url("/whip/camera?takeover=1");
        let sound = if sound {
            "audiotestsrc is-live=true ! audioconvert ! whip.audio_0"
        } else {
            ""
        };
        let line = format!(
            "whipclientsink name=whip signaller::whip-endpoint={endpoint} stun-server=NULL congestion-control=disabled \
             {picture} {sound}"
        );
        let child = Command::new("gst-launch-1.0")
            .args(line.split_whitespace())
            .envs(server::environment().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Whip {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whatever_publisher_comes_next_is_followed() {
    let keys = ["FROM=camera", "STREAM=demo", "LAYERS=180:300k"];
    let server = Server::pipeline("re_encode_follows", "re-encode", &keys).unwrap();
    let uptime = || {
        let info = server.json("/api/streams/demo");
        info.ok().and_then(|info| info["uptime_ms"].as_u64())
    };
    // What has no picture leaves nothing behind that waits for one.
    let sound = Whip::send(&server, "", true);
    let is_heard = || {
        let info = server.json("/api/streams/demo")?;
        Ok((info["live"] == true && info["audio"].is_object()).then_some(()))
    };
    server.wait_for("sound alone", is_heard).unwrap();
    drop(sound);
    let mut before = None;
    for (codec, size, sound) in [
        ("vp8", "width=320,height=180", true),
        ("h264", "width=320,height=180", true),
        ("h264", "width=640,height=360", false),
        ("vp9", "width=640,height=360", false),
        ("h264", "width=320,height=180", true),
    ] {
        let publisher = Whip::publish(&server, codec, size, sound);
        let follows = || {
            let came = server.json("/api/streams/camera")?;
            let info = server.json("/api/streams/demo")?;
            let new = before.is_none_or(|before| info["uptime_ms"].as_u64() < Some(before));
            let right = came["video"]["codec"]
                .as_str()
                .is_some_and(|c| c.eq_ignore_ascii_case(codec))
                && info["audio"].is_object() == sound
                && info["live"] == true
                && info["video"]["layers"][0]["active"] == true;
            Ok((new && right).then_some(()))
        };
        let what = format!("{codec} of {size}, sound: {sound}");
        server.wait_for(&what, follows).unwrap();
        let whep = server.url("/whep/demo");
        let seen = load::run(&["--whep", &whep, "--viewers", "1", "--duration", "2s"]).unwrap();
        println!("{what}: {seen}");
        assert_eq!(
            (&seen["viewers_with_picture"], &seen["broken_frames"]),
            (&1.into(), &0.into())
        );
        before = uptime();
        // It leaves midway, as by a crash.
        drop(publisher);
    }
    assert_eq!(server.stop(), Some(0));
}
