// SPDX-License-Identifier: MPL-2.0
//! Audio of `sfusink` with any number of channels, and that it never takes the picture away.

mod running;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Running, init};
use sfu_engine::Router;

const VIDEO: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=90,framerate=30/1";

/// Caps of raw audio; a mask of 0 says that the channels have no positions.
fn raw(channels: u32, mask: u64) -> String {
    format!("audio/x-raw,channels={channels},channel-mask=(bitmask)0x{mask:x}")
}

fn wait(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until media has gone on at these pads.
fn goes_on(running: &Running, pads: &[&str], what: &str) {
    let pads = pads.iter().map(|pad| {
        let pad = running.0.by_name("out").unwrap().static_pad(pad).unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counter = count.clone();
        let probe = pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counter.fetch_add(1, Relaxed);
            gst::PadProbeReturn::Ok
        });
        (pad, probe, count)
    });
    let pads: Vec<_> = pads.collect();
    wait(what, || {
        pads.iter().all(|(_, _, count)| count.load(Relaxed) > 15)
    });
    for (pad, probe, _) in pads {
        pad.remove_probe(probe.unwrap());
    }
}

/// Packets that the router got of a stream that has audio alone tell that audio comes out.
#[test]
fn every_number_of_channels_is_heard() {
    init();
    for (channels, mask) in [
        (1, 0x0),
        (1, 0x4),
        (2, 0x0),
        (2, 0x3),
        (3, 0x0),
        (3, 0x7),
        (6, 0x0),
        (6, 0x3f),
        (8, 0x0),
        (8, 0xc3f),
        (16, 0x0),
        (32, 0x0),
        (63, 0x0),
    ] {
        let stream = format!("channels-{channels}-{mask:x}");
        let caps = raw(channels, mask);
        let line = format!("audiotestsrc is-live=true ! {caps} ! sfusink name=out stream={stream}");
        let running = Running::start(&line);
        wait(&caps, || running.stat::<u64>("out", "packets") > 10);
        running.quiet();
        let info = Router::get("default").stream(&stream.parse().unwrap());
        assert!(info.is_some_and(|info| !info.audio.is_empty()), "{caps}");
    }
}

#[test]
fn channels_change_while_playing() {
    init();
    let line = format!(
        "{VIDEO} ! sfusink name=out stream=changing-channels layers=90:200k \
         audiotestsrc is-live=true ! capsfilter name=filter caps={} ! out.audio_0",
        raw(2, 0x3)
    );
    let running = Running::start(&line);
    goes_on(&running, &["video_0", "audio_0"], "at first");
    let filter = running.0.by_name("filter").unwrap();
    for (channels, mask) in [(16, 0x0), (2, 0x0), (3, 0x0), (6, 0x3f), (1, 0x4), (8, 0x0)] {
        let caps = raw(channels, mask);
        filter.set_property("caps", caps.parse::<gst::Caps>().unwrap());
        let pad = running
            .0
            .by_name("out")
            .unwrap()
            .static_pad("audio_0")
            .unwrap();
        wait(&caps, || {
            let current = pad
                .current_caps()
                .and_then(|caps| caps.structure(0)?.get("channels").ok());
            current == Some(channels as i32)
        });
        let before = running.stat::<u64>("out", "packets");
        goes_on(&running, &["video_0", "audio_0"], &caps);
        assert!(running.stat::<u64>("out", "packets") > before, "{caps}");
        running.quiet();
    }
}

/// Audio that can't be served is left out with one warning.
#[test]
fn audio_that_is_refused_never_takes_the_picture_away() {
    init();
    let unpositioned = raw(64, 0);
    for (stream, refused, says) in [
        ("picture-raw", unpositioned.as_str(), "63 channels"),
        (
            "picture-opus",
            "audio/x-raw,channels=6 ! opusenc",
            "one or two channels",
        ),
    ] {
        let line = format!(
            "{VIDEO} ! sfusink name=out stream={stream} layers=90:200k audiotestsrc is-live=true ! {refused} ! out.audio_0"
        );
        let running = Running::start(&line);
        let warning = running.warning();
        assert!(warning.contains(says), "{warning}");
        goes_on(&running, &["video_0"], stream);
        running.quiet();
    }
}

/// An error of an element that is ours ends nothing but that; without a picture there is nothing left to go on.
#[test]
fn audio_that_fails_within_never_takes_the_picture_away() {
    init();
    for (stream, video) in [
        ("within", format!("{VIDEO} ! out.video_0")),
        ("alone", String::new()),
    ] {
        let line = format!(
            "sfusink name=out stream=fails-{stream} layers=90:200k {video} audiotestsrc is-live=true ! out.audio_0"
        );
        let running = Running::start(&line);
        wait(stream, || running.stat::<u64>("out", "packets") > 10);
        let sink = running
            .0
            .by_name("out")
            .unwrap()
            .downcast::<gst::Bin>()
            .unwrap();
        let is_opus = |e: &gst::Element| e.factory().is_some_and(|f| f.name() == "opusenc");
        let mut elements = sink.iterate_elements();
        let encoder = std::iter::from_fn(|| elements.next().ok().flatten())
            .find(is_opus)
            .unwrap();
        gst::element_error!(encoder, gst::StreamError::Encode, ("it broke"));
        if video.is_empty() {
            assert!(running.error().contains("it broke"));
        } else {
            assert!(running.warning().contains("it broke"));
            goes_on(&running, &["video_0"], stream);
            running.quiet();
        }
    }
}

/// Languages are tracks of one stream, by whatever pads they come, and come out again with their tags.
#[test]
fn languages_are_tracks_of_their_own() {
    init();
    let tone =
        |code: &str| format!("audiotestsrc is-live=true ! taginject tags=language-code={code}");
    let line = format!(
        "{VIDEO} ! sfusink name=out stream=languages layers=90:200k {} ! out.audio_0 {} ! out.audio_5",
        tone("de"),
        tone("pt-BR")
    );
    let running = Running::start(&line);
    let told = || {
        let info = Router::get("default").stream(&"languages".parse().unwrap());
        let tracks = info.into_iter().flat_map(|info| info.audio);
        let tracks = tracks.map(|audio| {
            let language = audio.track.language.as_ref().map(ToString::to_string);
            (audio.track.number, language.unwrap_or_default())
        });
        tracks.collect::<Vec<_>>()
    };
    let (german, portuguese) = ((0, "de".to_owned()), (1, "pt-BR".to_owned()));
    wait("both languages", || {
        told() == [german.clone(), portuguese.clone()]
    });
    let outputs = Running::start(
        "sfusrc name=in stream=languages in.audio_0 ! fakesink name=a async=false in.audio_1 ! fakesink name=b async=false",
    );
    for (sink, language) in [("a", "de"), ("b", "pt-BR")] {
        let sink = outputs.0.by_name(sink).unwrap();
        let pad = sink.static_pad("sink").unwrap();
        wait(language, || {
            let tags = (0..).map_while(|n| pad.sticky_event::<gst::event::Tag>(n));
            let is_it = |tags: &gst::TagListRef| {
                let code = tags.get::<gst::tags::LanguageCode>();
                code.is_some_and(|code| code.get() == language)
            };
            let stats: gst::Structure = sink.property("stats");
            tags.into_iter().any(|event| is_it(event.tag()))
                && stats.get::<u64>("rendered").unwrap() > 20
        });
    }
    outputs.quiet();
    running.quiet();
    let sink = running.0.by_name("out").unwrap();
    let pad = sink.static_pad("audio_0").unwrap();
    sink.release_request_pad(&pad);
    wait("one language", || told() == [portuguese.clone()]);
}
