// SPDX-License-Identifier: MPL-2.0

//! A publisher promises picture and sound, and one of them comes late or never: RTSP players and RTMP services get the other one
//! soon, and both once both are there.

use std::time::{Duration, Instant};

use serde_json::json;
use sfu_tests::rtmp::Service;
use sfu_tests::server::{Server, free_ports};

use crate::rtsp_out::probe;

/// How late the sound is.
const LATE: u64 = 14;
/// What players wait before they give up; ten times of what it takes on a machine that has nothing else to do.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn what_does_not_come_is_not_waited_for_and_what_is_late_is_taken_in() {
    let (push, rtsp) = (free_ports().unwrap().0, free_ports().unwrap().0);
    let service = Service::start("promised", push).unwrap();
    let picture = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=15/1";
    // Only its caps pass, or its buffers after a time.
    let never = "identity drop-probability=1";
    // Buffers of 20 ms.
    let late = format!("audio/x-raw,rate=48000 ! netsim drop-packets={}", LATE * 50);
    let server = Server::launch(
        "promised",
        &format!(
            "{picture} ! sfusink name=a stream=late layers=180:200k audiotestsrc is-live=true samplesperbuffer=960 ! {late} ! a.audio_0 \
             {picture} ! {never} ! sfusink name=b stream=never layers=180:200k audiotestsrc is-live=true ! b.audio_0 \
             sfurtspserver listen=127.0.0.1:{rtsp}"
        ),
    )
    .unwrap();
    let began = Instant::now();
    for stream in ["late", "never"] {
        let is_live =
            || Ok((server.json(&format!("/api/streams/{stream}"))?["live"] == true).then_some(()));
        server.wait_for("the streams", is_live).unwrap();
        let url = format!("rtmp://127.0.0.1:{push}/live/{stream}");
        let body = json!({"stream": stream, "url": url}).to_string();
        let post =
            ureq::post(server.url("/api/v1/pushes")).header("Content-Type", "application/json");
        assert_eq!(post.send(body).unwrap().status(), 201);
    }
    let played = |stream: &str| {
        let asked = Instant::now();
        let (content, said) = probe("tcp", &format!("rtsp://127.0.0.1:{rtsp}/{stream}"));
        assert!(content, "{stream}: {said}");
        let has = |codec: &str| said.contains(&format!("codec_name={codec}"));
        (has("h264"), has("opus"), asked.elapsed())
    };
    let pushed = |stream: &str| {
        let recording = service.record(stream, &format!("{stream}.flv"), 3).unwrap();
        // Who looks as a push begins anew may see neither.
        recording
            .finish()
            .map(|recorded| recorded.codecs)
            .unwrap_or_default()
    };
    let (h264, opus, took) = played("never");
    println!("the sound alone, by RTSP after {took:?}");
    assert!(!h264 && opus && took < SOON);
    assert_eq!(pushed("never"), ["aac"]);
    let (h264, opus, took) = played("late");
    // A machine may take so long that the sound is there.
    let is_early = began.elapsed() < Duration::from_secs(LATE - 1);
    println!("RTSP after {took:?}, before the sound: {is_early}");
    assert!(h264 && (!opus || !is_early));

    let both = server.wait_for("both by RTSP", || Ok((played("late").1).then_some(())));
    both.unwrap();
    let both = server.wait_for("both by RTMP", || {
        Ok((pushed("late") == ["h264", "aac"]).then_some(()))
    });
    both.unwrap();
}
