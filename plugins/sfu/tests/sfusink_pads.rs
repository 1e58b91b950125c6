// SPDX-License-Identifier: MPL-2.0
//! `sfusink`'s pads and settings while it runs: layers that come late, go, and change.

mod running;

use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Running, init};
use sfu_engine::{Router, StreamInfo};

fn info(stream: &str) -> Option<StreamInfo> {
    Router::get("default").stream(&stream.parse().unwrap())
}

/// Width, height, and whether it is sent.
type Size = (u32, u32, bool);

fn sizes(stream: &str) -> Vec<Size> {
    let video = info(stream).and_then(|info| info.video);
    let layers = video.into_iter().flat_map(|video| video.layers);
    let size = |side: Option<u32>| side.unwrap_or(0);
    layers
        .map(|l| (size(l.width), size(l.height), l.active))
        .collect()
}

/// Waits until the layers are these.
fn wait_for(stream: &str, expected: &[(u32, u32, bool)]) {
    let end = Instant::now() + Duration::from_secs(20);
    while sizes(stream) != expected {
        assert!(Instant::now() < end, "{stream}: {:?}", sizes(stream));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn parent(element: &gst::Element) -> gst::Bin {
    element.parent().and_downcast().unwrap()
}

const STATES: [gst::State; 4] = [
    gst::State::Null,
    gst::State::Ready,
    gst::State::Paused,
    gst::State::Playing,
];

fn reach(running: &Running, state: gst::State) {
    running.0.set_state(state).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while running.0.current_state() != state && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn encoded(width: u32, height: u32) -> String {
    format!(
        "videotestsrc is-live=true ! video/x-raw,width={width},height={height},framerate=30/1 ! \
         vp8enc deadline=1 cpu-used=8 keyframe-max-dist=15"
    )
}

#[test]
fn a_layer_that_comes_late_is_its_own_whatever_its_number() {
    init();
    for (first, second, third) in [(1, 0, 2), (0, 1, 2), (5, 3, 1), (2, 0, 1)] {
        let stream = format!("late-{first}");
        let line = format!(
            "{} ! out.video_{first} sfusink name=out stream={stream}",
            encoded(160, 90)
        );
        let running = Running::start(&line);
        wait_for(&stream, &[(160, 90, true)]);
        for (number, width) in [(second, 320), (third, 480)] {
            let late =
                gst::parse::bin_from_description(&encoded(width, width / 16 * 9), true).unwrap();
            let out = running.0.by_name("out").unwrap();
            parent(&out).add(&late).unwrap();
            let pad = out.request_pad_simple(&format!("video_{number}")).unwrap();
            late.static_pad("src").unwrap().link(&pad).unwrap();
            late.sync_state_with_parent().unwrap();
        }
        // Shown highest first.
        let all = [(480, 270, true), (320, 180, true), (160, 90, true)];
        wait_for(&stream, &all);
        // And they stay so: nothing of one comes into another.
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(sizes(&stream), all, "{first} {second} {third}");
        }
        running.quiet();
    }
}

#[test]
fn pads_are_released_in_any_state_and_the_rest_goes_on() {
    init();
    for live in ["is-live=true", ""] {
        for state in STATES {
            let stream = format!("released-{state:?}-{}", live.len());
            let line = format!(
                "videotestsrc {live} ! video/x-raw,width=320,height=180 ! queue ! sfusink name=out stream={stream} layers=180:300k \
                 audiotestsrc {live} ! queue ! out.audio_0"
            );
            let running = Running::prepare(&line);
            let out = running.0.by_name("out").unwrap();
            reach(&running, state);
            std::thread::sleep(Duration::from_millis(200));
            for name in ["audio_0", "video_0"] {
                let pad = out.static_pad(name).unwrap();
                let start = Instant::now();
                if let Some(peer) = pad.peer() {
                    let _ = peer.unlink(&pad);
                }
                out.release_request_pad(&pad);
                assert!(
                    start.elapsed() < Duration::from_secs(2),
                    "{name} {state:?} {live}"
                );
            }
            let again = out.request_pad_simple("video_0");
            assert!(again.is_some(), "{state:?}");
            let start = Instant::now();
            running.0.set_state(gst::State::Null).unwrap();
            assert!(
                start.elapsed() < Duration::from_secs(2),
                "NULL from {state:?}"
            );
        }
    }
}

#[test]
fn a_sink_that_is_taken_out_publishes_no_more() {
    init();
    let line = format!(
        "{} ! queue ! sfusink name=out stream=removed",
        encoded(160, 90)
    );
    let running = Running::start(&line);
    wait_for("removed", &[(160, 90, true)]);
    let out = running.0.by_name("out").unwrap();
    // Nobody stops it, and its messages on the bus keep it.
    parent(&out).remove(&out).unwrap();
    let end = Instant::now() + Duration::from_millis(500);
    while info("removed").is_some_and(|info| info.live) {
        assert!(Instant::now() < end, "it publishes on");
        std::thread::sleep(Duration::from_millis(5));
    }
    out.set_state(gst::State::Null).unwrap();
}

#[test]
fn layers_of_raw_video_change_while_playing() {
    init();
    let running = Running::start(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1 ! \
         sfusink name=out stream=changing-layers layers=180:300k,90:100k keyframe-interval=500",
    );
    let out = running.0.by_name("out").unwrap();
    let rows: [(&str, &[Size]); 6] = [
        ("180:300k,90:100k", &[(320, 180, true), (160, 90, true)]),
        ("180:200k,90:50k@10", &[(320, 180, true), (160, 90, true)]),
        ("90:100k", &[(160, 90, true)]),
        (
            "180:300k,120:200k,60:50k",
            &[(320, 180, true), (214, 120, true), (106, 60, true)],
        ),
        ("144:300k", &[(256, 144, true)]),
        ("180:300k,90:100k", &[(320, 180, true), (160, 90, true)]),
    ];
    for (layers, expected) in rows {
        out.set_property("layers", layers);
        wait_for("changing-layers", expected);
        running.quiet();
    }
    out.set_property("layers", "foo");
    assert_eq!(out.property::<String>("layers"), "180:300k,90:100k");
    assert!(running.warning().contains("HEIGHT:BITRATE"));
}

#[test]
fn encoders_are_the_users() {
    init();
    let running = Running::prepare(
        "videotestsrc is-live=true ! video/x-raw,width=64,height=48 ! sfusink name=out stream=users \
         layers=48:100k,24:50k encoder=x264enc encoder-properties=\"props,key-int-max=33,layer-1=[props,key-int-max=44]\"",
    );
    let (told, seen) = std::sync::mpsc::channel();
    running
        .0
        .by_name("out")
        .unwrap()
        .connect("encoder-setup", false, move |args| {
            let consumer: String = args[1].get().unwrap();
            let pad: String = args[2].get().unwrap();
            let encoder: gst::Element = args[3].get().unwrap();
            told.send((consumer, pad, encoder.property::<u32>("key-int-max")))
                .unwrap();
            Some(false.to_value())
        });
    running.play();
    for (consumer, keys) in [("0", 33), ("1", 44)] {
        let got = seen.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(got, (consumer.into(), "video_0".into(), keys));
    }
    running.quiet();
}

#[test]
fn h265_is_published_encoded_and_raw() {
    init();
    for (stream, line) in [
        (
            "h265-raw",
            "videotestsrc is-live=true ! video/x-raw,width=320,height=180 ! sfusink stream=h265-raw codec=h265 layers=180:300k",
        ),
        (
            "h265-encoded",
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180 ! x265enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! sfusink stream=h265-encoded",
        ),
    ] {
        let running = Running::start(line);
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let video = info(stream).and_then(|info| info.video);
            if video.is_some_and(|video| {
                video.codec == sfu_engine::Codec::H265 && video.layers[0].active
            }) {
                break;
            }
            assert!(Instant::now() < end, "{stream}: {:?}", info(stream));
            std::thread::sleep(Duration::from_millis(20));
        }
        running.quiet();
    }
}

#[test]
fn what_can_not_change_while_running_says_so_in_every_element() {
    init();
    for (factory, settings) in [
        ("sfusink", ""),
        ("sfusrc", ""),
        ("sfurecorder", "directory=/tmp/sfu-nothing"),
        ("sfuhlssink", "directory=/tmp/sfu-nothing"),
        ("sfusignaller", "listen=127.0.0.1:0 udp-port=0 shards=1"),
    ] {
        let running = Running::prepare(&format!(
            "{factory} name=it {settings} fakesrc is-live=true ! fakesink"
        ));
        let element = running.0.by_name("it").unwrap();
        running.play();
        std::thread::sleep(Duration::from_millis(100));
        let bus = running.0.bus().unwrap();
        while bus.pop().is_some() {}
        if element.current_state() <= gst::State::Ready {
            // What it needs is not installed here.
            assert_eq!(factory, "sfurecorder");
            continue;
        }
        let mut refused = 0;
        for spec in element.list_properties() {
            let is_own = spec.owner_type() == element.type_();
            let flags = spec.flags();
            if !is_own
                || !flags.contains(glib::ParamFlags::WRITABLE)
                || flags.contains(gst::PARAM_FLAG_MUTABLE_PLAYING)
            {
                continue;
            }
            let shown = || format!("{:?}", element.property_value(spec.name()));
            let before = shown();
            let value = element.property_value(spec.name());
            let other = if let Ok(number) = value.get::<u32>() {
                (number + 1).to_value()
            } else if let Ok(flag) = value.get::<bool>() {
                (!flag).to_value()
            } else if value.get::<Option<String>>().is_ok() {
                "other".to_value()
            } else {
                continue;
            };
            element.set_property_from_value(spec.name(), &other);
            assert_eq!(shown(), before, "{factory} {}", spec.name());
            assert!(
                running.warning().contains(spec.name()),
                "{factory} {}",
                spec.name()
            );
            refused += 1;
        }
        assert!(refused > 3, "{factory}: {refused}");
    }
}
