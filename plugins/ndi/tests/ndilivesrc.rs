// SPDX-License-Identifier: MPL-2.0
//! `ndilivesrc` without a sender: each test is a process in a network namespace of its own, with
//! the plugins as users load them. What needs a real sender is in `tests/e2e/ndi_*.rs`.

#[path = "../../../tests/leaks.rs"]
#[allow(dead_code, unreachable_pub)]
mod leaks;
#[path = "../../../tests/ndi.rs"]
#[allow(dead_code, unreachable_pub)]
mod ndi;
#[path = "../../../tests/netns.rs"]
#[allow(dead_code, unreachable_pub)]
mod netns;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// What arrived at one pad.
#[derive(Debug, Default)]
struct Seen {
    caps: Vec<gst::Caps>,
    buffers: Vec<gst::Buffer>,
    stream_starts: usize,
    eos: bool,
}

type Record = Arc<Mutex<Seen>>;

fn isolated(test: &str) -> bool {
    let inside = netns::isolated(test, &ndi::environment());
    if inside {
        gst::init().unwrap();
    }
    inside
}

fn source(settings: &str) -> gst::Element {
    let line = format!("ndilivesrc name=ndi url-address=127.0.0.1:5961 {settings}");
    gst::parse::launch(&line).expect("ndilivesrc must be built and found through GST_PLUGIN_PATH")
}

fn record(pad: &gst::Pad) -> Record {
    let record = Record::default();
    let seen = Arc::clone(&record);
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        let mut seen = seen.lock().unwrap();
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => seen.buffers.push(buffer.clone()),
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(caps) => seen.caps.push(caps.caps_owned()),
                gst::EventView::StreamStart(_) => seen.stream_starts += 1,
                gst::EventView::Eos(_) => seen.eos = true,
                _ => {}
            },
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    record
}

/// `source` with what `video` and `audio` describe behind its pads; an empty one is left unlinked.
fn pipeline(source: &gst::Element, video: &str, audio: &str) -> (gst::Pipeline, [Record; 2]) {
    let pipeline = gst::Pipeline::new();
    pipeline.add(source).unwrap();
    let records = [("video", video), ("audio", audio)].map(|(name, line)| {
        let pad = source.static_pad(name).unwrap();
        if !line.is_empty() {
            let bin = gst::parse::bin_from_description(line, true).unwrap();
            pipeline.add(&bin).unwrap();
            pad.link(&bin.static_pad("sink").unwrap()).unwrap();
        }
        record(&pad)
    });
    (pipeline, records)
}

/// Plays for this long, and returns what was said meanwhile; no error and no end may be among it.
fn play(pipeline: &gst::Pipeline, time: Duration) -> Vec<gst::Message> {
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = Instant::now() + time;
    let mut messages = Vec::new();
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        messages.extend(bus.timed_pop(gst::ClockTime::try_from(left).unwrap()));
    }
    let bad = [gst::MessageType::Error, gst::MessageType::Eos];
    let first = messages
        .iter()
        .find(|message| bad.contains(&message.type_()));
    assert!(first.is_none(), "{first:?}");
    messages
}

/// Fails if a buffer does not begin where the one before it ends, but for rounding.
fn assert_continuous(seen: &Seen) {
    for pair in seen.buffers.windows(2) {
        let end = pair[0].pts().unwrap() + pair[0].duration().unwrap();
        let off = end.nseconds().abs_diff(pair[1].pts().unwrap().nseconds());
        assert!(
            off < 1_000,
            "{:?} is not followed at once by {:?}",
            pair[0],
            pair[1]
        );
    }
}

/// The bytes at the middle of a packed 4:2:2 or the start of a row half way down.
fn middle(buffer: &gst::BufferRef, caps: &gst::CapsRef) -> [u8; 4] {
    let structure = caps.structure(0).unwrap();
    let width = usize::try_from(structure.get::<i32>("width").unwrap()).unwrap();
    let height = usize::try_from(structure.get::<i32>("height").unwrap()).unwrap();
    let data = buffer.map_readable().unwrap();
    let at = (height / 2 * width + width / 2) / 2 * 4;
    data[at..at + 4].try_into().unwrap()
}

#[test]
fn properties_have_their_documented_defaults() {
    if !isolated("properties_have_their_documented_defaults") {
        return;
    }
    let source = gst::ElementFactory::make("ndilivesrc").build().unwrap();
    assert_eq!(source.property::<Option<String>>("ndi-name"), None);
    assert_eq!(source.property::<u32>("timeout"), 500);
    assert_eq!(source.property::<u32>("start-timeout"), 2_000);
    assert_eq!(source.property::<u32>("width"), 0);
    assert_eq!(
        source.property::<gst::Fraction>("framerate"),
        gst::Fraction::new(0, 1)
    );
    assert!(!source.property::<bool>("connected"));
    assert_eq!(
        source
            .property::<gst::Structure>("stats")
            .get::<u64>("connects"),
        Ok(0)
    );
    for property in source
        .list_properties()
        .iter()
        .filter(|p| p.owner_type() == source.type_())
    {
        assert!(
            property.blurb().is_some_and(|blurb| blurb.len() > 20),
            "{property:?}"
        );
        let told = property.blurb().unwrap().contains("(default: ");
        assert!(
            told || !property.flags().contains(glib::ParamFlags::WRITABLE),
            "{property:?}"
        );
    }
    source.set_property_from_str("fallback", "last-frame");
    source.set_property("framerate", gst::Fraction::new(30_000, 1_001));
    assert_eq!(
        source.property::<gst::Fraction>("framerate"),
        gst::Fraction::new(30_000, 1_001)
    );
}

#[test]
fn missing_runtime_is_one_error_that_names_it() {
    let test = "missing_runtime_is_one_error_that_names_it";
    let mut environment = ndi::environment();
    environment.retain(|(name, _)| *name != "NDI_RUNTIME_DIR_V6");
    environment.push(("NDI_RUNTIME_DIR_V6", "/nonexistent".into()));
    if !netns::isolated(test, &environment) {
        return;
    }
    gst::init().unwrap();
    let source = source("");
    let (pipeline, _) = pipeline(&source, "fakesink", "fakesink");
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    let text = the_one_error(&pipeline);
    assert!(
        text.contains("libndi") && text.contains("NDI_RUNTIME_DIR_V6"),
        "{text}"
    );
    pipeline.set_state(gst::State::Null).unwrap();
}

/// The text of the only error on the bus.
fn the_one_error(pipeline: &gst::Pipeline) -> String {
    let bus = pipeline.bus().unwrap();
    let errors: Vec<_> = bus.iter_filtered(&[gst::MessageType::Error]).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let gst::MessageView::Error(err) = errors[0].view() else {
        unreachable!("filtered")
    };
    err.error().to_string()
}

#[test]
fn missing_companion_is_named() {
    let test = "missing_companion_is_named";
    let mut environment = ndi::environment();
    let folder = temporary(test);
    let built = environment
        .iter()
        .find(|(name, _)| *name == "GST_PLUGIN_PATH")
        .unwrap()
        .1
        .clone();
    let plugin = "libgstndilive.so";
    let _ = std::fs::remove_file(folder.join(plugin));
    std::os::unix::fs::symlink(Path::new(&built).join(plugin), folder.join(plugin)).unwrap();
    environment.retain(|(name, _)| !name.starts_with("GST_"));
    environment.push(("GST_PLUGIN_PATH", folder.clone().into()));
    environment.push(("GST_REGISTRY", folder.join("registry.bin").into()));
    if !netns::isolated(test, &environment) {
        return;
    }
    gst::init().unwrap();
    let source = source("");
    let (pipeline, _) = pipeline(&source, "fakesink", "fakesink");
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    let text = the_one_error(&pipeline);
    assert!(
        text.contains("ndisrc") && text.contains("libgstndi.so"),
        "{text}"
    );
    pipeline.set_state(gst::State::Null).unwrap();
}

fn temporary(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_source_must_be_named() {
    if !isolated("a_source_must_be_named") {
        return;
    }
    let source = gst::ElementFactory::make("ndilivesrc").build().unwrap();
    let (pipeline, _) = pipeline(&source, "fakesink", "fakesink");
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    assert!(the_one_error(&pipeline).contains("ndi-name"));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn black_and_silence_before_the_source() {
    if !isolated("black_and_silence_before_the_source") {
        return;
    }
    let source = source("");
    let (pipeline, [video, audio]) =
        pipeline(&source, "fakesink sync=false", "fakesink sync=false");
    play(&pipeline, Duration::from_secs(4));

    let mut latency = gst::query::Latency::new();
    assert!(source.static_pad("video").unwrap().query(&mut latency));
    let (live, min, _) = latency.result();
    assert!(
        live && min <= gst::ClockTime::from_mseconds(34),
        "{latency:?}"
    );

    let seen = video.lock().unwrap();
    assert_eq!((seen.caps.len(), seen.stream_starts), (1, 1));
    let info = &seen.caps[0];
    assert_eq!(
        info.to_string().matches("format=(string)UYVY").count(),
        1,
        "{info}"
    );
    for field in [
        "width=(int)1920",
        "height=(int)1080",
        "framerate=(fraction)30/1",
    ] {
        assert!(info.to_string().contains(field), "{info}");
    }
    assert!(
        (40..=65).contains(&seen.buffers.len()),
        "{} pictures",
        seen.buffers.len()
    );
    assert!(seen.buffers[0].pts().unwrap() < gst::ClockTime::from_mseconds(2_500));
    assert_continuous(&seen);
    assert!(
        seen.buffers
            .iter()
            .all(|buffer| middle(buffer, info) == [128, 16, 128, 16])
    );

    drop(seen);

    let seen = audio.lock().unwrap();
    assert_eq!((seen.caps.len(), seen.stream_starts), (1, 1));
    assert!(
        seen.caps[0]
            .to_string()
            .contains("rate=(int)48000, channels=(int)2"),
        "{seen:?}"
    );
    assert!(
        seen.buffers.len() > 75,
        "{} pieces of silence",
        seen.buffers.len()
    );
    assert_continuous(&seen);
    assert!(
        seen.buffers
            .iter()
            .all(|buffer| buffer.map_readable().unwrap().iter().all(|b| *b == 0))
    );
    drop(seen);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn caps_come_from_properties_and_downstream() {
    if !isolated("caps_come_from_properties_and_downstream") {
        return;
    }
    let source = source("width=1280 channels=1 rate=44100");
    let (pipeline, [video, audio]) = pipeline(
        &source,
        "capsfilter caps=video/x-raw,format=(string){I420,NV12},framerate=25/1 ! fakesink",
        "capsfilter caps=audio/x-raw,format=S16LE ! fakesink",
    );
    play(&pipeline, Duration::from_secs(3));
    let caps = video.lock().unwrap().caps.clone();
    let expected = "video/x-raw, format=NV12, width=1280, height=720, framerate=25/1, \
                    interlace-mode=progressive, pixel-aspect-ratio=1/1, colorimetry=bt709";
    let expected: gst::Caps = expected.parse().unwrap();
    assert!(caps.len() == 1 && caps[0].is_subset(&expected), "{caps:?}");
    let caps = audio.lock().unwrap().caps.clone();
    let expected = "audio/x-raw, format=S16LE, rate=44100, channels=1, layout=interleaved";
    assert!(
        caps.len() == 1 && caps[0].is_subset(&expected.parse::<gst::Caps>().unwrap()),
        "{caps:?}"
    );
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn caps_that_cannot_be_are_refused_with_the_reason() {
    if !isolated("caps_that_cannot_be_are_refused_with_the_reason") {
        return;
    }
    let source = source("width=1280 height=720");
    let (pipeline, _) = pipeline(
        &source,
        "capsfilter caps=video/x-raw,framerate=[1/1,30/1] ! fakesink",
        "fakesink",
    );
    // What cannot be linked is found at linking; this one is only found now.
    source.set_property("framerate", gst::Fraction::new(50, 1));
    let _ = pipeline.set_state(gst::State::Playing);
    let timeout = gst::ClockTime::from_seconds(5);
    let error = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(timeout, &[gst::MessageType::Error]);
    let error = error.expect("an error");
    let gst::MessageView::Error(error) = error.view() else {
        unreachable!("filtered")
    };
    let error = error.error().to_string();
    assert!(
        error.contains("pad video") && error.contains("50/1"),
        "{error}"
    );
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_pad_that_nobody_links_holds_up_nothing() {
    if !isolated("a_pad_that_nobody_links_holds_up_nothing") {
        return;
    }
    for (video, audio) in [("fakesink", ""), ("", "fakesink")] {
        let source = source("width=320 height=180 framerate=30/1 rate=48000 channels=2");
        let (pipeline, records) = pipeline(&source, video, audio);
        play(&pipeline, Duration::from_secs(2));
        let linked = &records[usize::from(video.is_empty())];
        assert!(linked.lock().unwrap().buffers.len() > 45, "{linked:?}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn an_image_is_the_slate() {
    if !isolated("an_image_is_the_slate") {
        return;
    }
    let image = temporary("an_image_is_the_slate").join("red.png");
    let line = format!(
        "videotestsrc num-buffers=1 pattern=red ! video/x-raw,width=64,height=36 ! pngenc ! filesink location={}",
        image.display()
    );
    let writer = gst::parse::launch(&line).unwrap();
    writer.set_state(gst::State::Playing).unwrap();
    let timeout = gst::ClockTime::from_seconds(10);
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = writer
        .bus()
        .unwrap()
        .timed_pop_filtered(timeout, &ends)
        .unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos);
    writer.set_state(gst::State::Null).unwrap();

    for (file, colour, warnings) in [
        (image, [90, 81, 240, 81], 0),
        (PathBuf::from("/nonexistent.png"), [128, 16, 128, 16], 1),
    ] {
        let settings = format!(
            "width=320 height=180 framerate=30/1 fallback=image fallback-image={}",
            file.display()
        );
        let source = source(&settings);
        let (pipeline, [video, _]) = pipeline(&source, "fakesink", "fakesink");
        let messages = play(&pipeline, Duration::from_secs(2));
        let seen = video.lock().unwrap();
        let pixels = middle(seen.buffers.last().unwrap(), &seen.caps[0]);
        let off = pixels
            .iter()
            .zip(colour)
            .map(|(is, should)| is.abs_diff(should))
            .max();
        assert!(off <= Some(3), "{pixels:?} instead of {colour:?}");
        drop(seen);
        let warned = messages
            .iter()
            .filter(|m| m.type_() == gst::MessageType::Warning)
            .count();
        assert_eq!(warned, warnings);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn an_end_asked_for_is_an_end() {
    if !isolated("an_end_asked_for_is_an_end") {
        return;
    }
    // After the slate has started, and before.
    for before in [Duration::from_secs(3), Duration::from_millis(100)] {
        let source = source("");
        let (pipeline, records) = pipeline(&source, "fakesink", "fakesink");
        play(&pipeline, before);
        assert!(pipeline.send_event(gst::event::Eos::new()));
        let timeout = gst::ClockTime::from_seconds(5);
        let ends = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = pipeline.bus().unwrap().timed_pop_filtered(timeout, &ends);
        let ended = message
            .as_ref()
            .is_some_and(|m| m.type_() == gst::MessageType::Eos);
        assert!(ended, "{message:?}");
        assert!(records.iter().all(|record| record.lock().unwrap().eos));
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn a_hundred_starts_and_stops_leak_nothing() {
    let test = "a_hundred_starts_and_stops_leak_nothing";
    let mut environment = ndi::environment();
    environment.extend(leaks::environment());
    if !netns::isolated(test, &environment) {
        return;
    }
    gst::init().unwrap();
    leaks::assert_none(start_and_stop);
}

fn start_and_stop() {
    let source = source("width=64 height=36 framerate=30/1 rate=48000 channels=2");
    let (pipeline, _) = pipeline(&source, "fakesink", "fakesink");
    pipeline.set_state(gst::State::Playing).unwrap();
    // So that some rounds stop in the middle of starting.
    std::thread::sleep(Duration::from_millis(u64::from(
        glib::random_int_range(0, 60).cast_unsigned(),
    )));
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_harness_gets_slate_caps_and_end() {
    if !isolated("a_harness_gets_slate_caps_and_end") {
        return;
    }
    let source = source("width=320 height=180 framerate=25/1");
    let mut harness = gst_check::Harness::with_element(&source, None, Some("video"));
    harness.use_systemclock();
    harness.play();
    let first = harness.pull().unwrap();
    let second = harness.pull().unwrap();
    assert_eq!(first.duration(), Some(gst::ClockTime::from_mseconds(40)));
    assert_eq!(
        second.pts().unwrap() - first.pts().unwrap(),
        gst::ClockTime::from_mseconds(40)
    );
    let caps = harness.sinkpad().unwrap().current_caps().unwrap();
    let expected = "video/x-raw, format=UYVY, width=320, height=180, framerate=25/1";
    assert!(
        caps.is_subset(&expected.parse::<gst::Caps>().unwrap()),
        "{caps}"
    );
    assert_eq!(
        harness.query_latency(),
        Some(gst::ClockTime::from_mseconds(40))
    );
    let seek = source.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO);
    assert!(seek.is_err(), "it is live");

    assert!(source.send_event(gst::event::Eos::new()));
    let ends = std::iter::from_fn(|| harness.pull_event().ok())
        .any(|event| event.type_() == gst::EventType::Eos);
    assert!(ends, "no end arrived");
}

#[test]
fn a_pause_is_no_loss() {
    if !isolated("a_pause_is_no_loss") {
        return;
    }
    let source = source("width=320 height=180 framerate=25/1 rate=48000 channels=2");
    let (pipeline, records) = pipeline(&source, "fakesink sync=true", "fakesink sync=true");
    for state in [gst::State::Playing, gst::State::Paused, gst::State::Playing] {
        let (result, now, _) = {
            pipeline.set_state(state).unwrap();
            pipeline.state(gst::ClockTime::from_seconds(5))
        };
        assert!(result.is_ok() && now == state, "{result:?} {now:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
    // Back to READY and up again, which is another start.
    pipeline.set_state(gst::State::Ready).unwrap();
    let before = records
        .each_ref()
        .map(|record| record.lock().unwrap().buffers.len());
    play(&pipeline, Duration::from_secs(1));
    let after = records
        .each_ref()
        .map(|record| record.lock().unwrap().buffers.len());
    assert!(
        after[0] > before[0] + 15 && after[1] > before[1] + 30,
        "{before:?} {after:?}"
    );
    assert_eq!(
        records[0].lock().unwrap().caps.len(),
        2,
        "one caps event a start"
    );
    pipeline.set_state(gst::State::Null).unwrap();
}
