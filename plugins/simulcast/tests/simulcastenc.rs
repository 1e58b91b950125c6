// SPDX-License-Identifier: MPL-2.0
//! `simulcastenc` in small pipelines: what comes out on each layer.

#[path = "../../../tests/leaks.rs"]
#[allow(dead_code, unreachable_pub)]
mod leaks;
#[path = "../../../tests/netns.rs"]
#[allow(dead_code, unreachable_pub)]
mod netns;
mod playing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use playing::{init, play};

/// What came out of one layer.
#[derive(Debug, Default)]
struct Layer {
    sizes: Vec<(i32, i32)>,
    media: String,
    frames: Vec<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    pts: gst::ClockTime,
    key: bool,
    references: usize,
}

type Record = Arc<Mutex<Layer>>;

/// A pipeline whose `simulcastenc` is called `enc`, with a record of each layer.
fn pipeline(source: &str, settings: &str, layers: usize) -> (gst::Pipeline, Vec<Record>) {
    let sinks: String = (0..layers)
        .map(|n| format!(" enc.src_{n} ! fakesink name=sink{n} sync=false async=false"))
        .collect();
    let line = format!("{source} ! simulcastenc name=enc {settings} {sinks}");
    let pipeline = gst::parse::launch(&line)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let records = (0..layers).map(|n| record(&pipeline, &format!("sink{n}")));
    let records = records.collect();
    (pipeline, records)
}

fn record(pipeline: &gst::Pipeline, sink: &str) -> Record {
    let record = Record::default();
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    let seen = record.clone();
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        let mut seen = seen.lock().unwrap();
        if let Some(buffer) = info.buffer() {
            seen.frames.push(Frame {
                pts: buffer.pts().unwrap(),
                key: !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                references: buffer.iter_meta::<gst::ReferenceTimestampMeta>().count(),
            });
        } else if let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view()) {
            let caps = caps.caps().structure(0).unwrap();
            seen.media = caps.name().to_string();
            let size = (caps.get("width").unwrap(), caps.get("height").unwrap());
            if seen.sizes.last() != Some(&size) {
                seen.sizes.push(size);
            }
        }
        gst::PadProbeReturn::Ok
    });
    record
}

fn test_source(frames: u32, width: u32, height: u32) -> String {
    // Not live, but in real time: nothing may be lost on a busy machine but by the encoders' own fault.
    format!(
        "videotestsrc num-buffers={frames} ! video/x-raw,width={width},height={height},framerate=30/1 ! clocksync"
    )
}

#[test]
fn each_layer_has_its_size_and_keyframes_are_aligned() {
    init();
    for (codec, media) in [("h264", "video/x-h264"), ("vp8", "video/x-vp8")] {
        // So much that VP8's encoder leaves no frame out to keep its bitrate, with so many keyframes.
        let settings = format!("layers=180:2000k,90:800k keyframe-interval=500 codec={codec}");
        // `clocksync` of GStreamer 1.26 makes it live, and what is live may be dropped on a busy machine.
        let source = test_source(60, 320, 180).replace("! clocksync", "");
        let (pipeline, records) = pipeline(&source, &settings, 2);
        play(&pipeline);
        let layers: Vec<_> = records.iter().map(|r| r.lock().unwrap()).collect();
        assert_eq!(layers[0].sizes, [(320, 180)]);
        assert_eq!(layers[1].sizes, [(160, 90)]);
        let keys: Vec<Vec<_>> = layers
            .iter()
            .map(|l| {
                l.frames
                    .iter()
                    .filter(|f| f.key)
                    // A busy machine drops frames: then the next one of the interval is the keyframe.
                    .map(|f| (f.pts - l.frames[0].pts).mseconds() / 500)
                    .collect()
            })
            .collect();
        assert!(
            keys[0].len() >= 4,
            "{codec}: a keyframe each 500 ms of 2 s: {keys:?}"
        );
        assert_eq!(keys[0], keys[1], "{codec}");
        for layer in &layers {
            assert_eq!(layer.media, media);
            assert!(
                layer.frames.is_sorted_by_key(|f| f.pts),
                "{codec}: no frame is out of order"
            );
            // What a busy machine can't encode in time is dropped.
            assert!(
                layer.frames.len() >= 15,
                "{codec}: {} frames",
                layer.frames.len()
            );
        }
    }
}

#[test]
fn a_forced_keyframe_is_that_layers_alone() {
    init();
    let settings = "layers=180:400k,90:100k keyframe-interval=60000";
    let (pipeline, records) = pipeline(&test_source(90, 320, 180), settings, 2);
    let sink = pipeline.by_name("sink1").unwrap();
    let asked = Arc::new(Mutex::new(None));
    let (record, when) = (records[1].clone(), asked.clone());
    // After a second, from a thread of its own, as a viewer's request would come.
    let asker = std::thread::spawn(move || {
        while record.lock().unwrap().frames.len() < 30 {
            std::thread::sleep(Duration::from_millis(5));
        }
        *when.lock().unwrap() = Some(record.lock().unwrap().frames.len());
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        assert!(sink.send_event(event));
    });
    play(&pipeline);
    asker.join().unwrap();
    let keys = |n: usize| -> Vec<usize> {
        let layer = records[n].lock().unwrap();
        let keys = layer.frames.iter().enumerate().filter(|(_, f)| f.key);
        keys.map(|(at, _)| at).collect()
    };
    assert_eq!(keys(0), [0], "the other layer has only its first");
    let [0, forced] = keys(1)[..] else {
        panic!("one keyframe more: {:?}", keys(1));
    };
    let asked = asked.lock().unwrap().unwrap();
    assert!(
        forced <= asked + 5,
        "asked at frame {asked}, got it at {forced}"
    );
}

#[test]
fn nothing_is_scaled_up() {
    init();
    let (pipeline, records) = pipeline(
        &test_source(10, 160, 90),
        "layers=1080:1M,90:200k,45:50k",
        3,
    );
    play(&pipeline);
    let sizes: Vec<_> = records
        .iter()
        .map(|r| r.lock().unwrap().sizes.clone())
        .collect();
    assert_eq!(sizes, [[(160, 90)], [(160, 90)], [(78, 44)]]);
}

#[test]
fn the_shape_is_kept_in_square_pixels_and_follows_a_change() {
    init();
    let source = "videotestsrc num-buffers=90 ! capsfilter name=size caps=video/x-raw,width=320,height=240,framerate=30/1,pixel-aspect-ratio=4/3 ! clocksync";
    let (pipeline, records) = pipeline(source, "layers=120:200k", 1);
    let size = pipeline.by_name("size").unwrap();
    let record = records[0].clone();
    let changer = std::thread::spawn(move || {
        while record.lock().unwrap().frames.len() < 20 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let caps = "video/x-raw,width=240,height=240,framerate=30/1,pixel-aspect-ratio=1/1";
        size.set_property("caps", caps.parse::<gst::Caps>().unwrap());
    });
    play(&pipeline);
    changer.join().unwrap();
    assert_eq!(records[0].lock().unwrap().sizes, [(214, 120), (120, 120)]);
}

#[test]
fn capture_times_go_along() {
    init();
    let (pipeline, records) = pipeline(
        &format!("{} ! identity name=mark", test_source(20, 160, 90)),
        "layers=90:200k",
        1,
    );
    let mark = pipeline
        .by_name("mark")
        .unwrap()
        .static_pad("sink")
        .unwrap();
    let reference = gst::Caps::new_empty_simple("timestamp/x-ndi-timecode");
    mark.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let buffer = info.buffer_mut().unwrap().make_mut();
        let time = gst::ClockTime::from_seconds(7);
        gst::ReferenceTimestampMeta::add(buffer, &reference, time, gst::ClockTime::NONE);
        gst::PadProbeReturn::Ok
    });
    play(&pipeline);
    let layer = records[0].lock().unwrap();
    assert!(!layer.frames.is_empty());
    assert!(
        layer.frames.iter().all(|f| f.references == 1),
        "{:?}",
        layer.frames
    );
}

#[test]
fn wrong_settings_are_one_error_that_says_why() {
    init();
    for (settings, says) in [
        ("layers=hello", "HEIGHT:BITRATE"),
        ("encoder=nosuchenc", "x264enc"),
        ("encoder=vp8enc", "codec=h264"),
        ("temporal-layers=2", "codec=vp8"),
        ("temporal-layers=2 codec=vp8 encoder=vavp8enc", "vp8enc"),
    ] {
        let line = format!("videotestsrc ! simulcastenc {settings} ! fakesink");
        let pipeline = gst::parse::launch(&line);
        let Ok(pipeline) = pipeline else {
            assert_eq!(settings, "layers=hello", "no pad without layers");
            continue;
        };
        assert!(pipeline.set_state(gst::State::Ready).is_err());
        let bus = pipeline.bus().unwrap();
        let error = bus
            .pop_filtered(&[gst::MessageType::Error])
            .expect("an error");
        let gst::MessageView::Error(error) = error.view() else {
            unreachable!("only errors are popped");
        };
        assert!(
            error.error().to_string().contains(says),
            "{settings}: {error:?}"
        );
        assert!(
            bus.pop_filtered(&[gst::MessageType::Error]).is_none(),
            "one is enough"
        );
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn pads_are_the_layers() {
    init();
    let encoder = gst::ElementFactory::make("simulcastenc")
        .property("layers", "180:400k,90:100k")
        .build()
        .unwrap();
    assert!(encoder.request_pad_simple("src_1").is_some());
    assert!(encoder.request_pad_simple("src_1").is_none(), "once");
    assert!(
        encoder.request_pad_simple("src_2").is_none(),
        "there are two layers"
    );
    let first = encoder.request_pad_simple("src_%u").unwrap();
    assert_eq!(first.name(), "src_0");
    encoder.release_request_pad(&first);
    assert!(encoder.request_pad_simple("src_0").is_some());
}

#[test]
fn a_hundred_starts_and_stops_leak_nothing() {
    let test = "a_hundred_starts_and_stops_leak_nothing";
    if !netns::isolated(test, &leaks::environment()) {
        return;
    }
    init();
    leaks::assert_none(|| {
        let line = "videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! simulcastenc layers=64:100k,32:50k name=enc enc.src_0 ! fakesink enc.src_1 ! fakesink";
        let pipeline = gst::parse::launch(line).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        pipeline.set_state(gst::State::Null).unwrap();
    });
}
