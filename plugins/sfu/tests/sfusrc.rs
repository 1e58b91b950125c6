// SPDX-License-Identifier: MPL-2.0
//! `sfusink` in one pipeline, `sfusrc` in another one of the same process: what comes out, and when.

#[path = "../../../tests/leaks.rs"]
#[allow(dead_code, unreachable_pub)]
mod leaks;
#[path = "../../../tests/netns.rs"]
#[allow(dead_code, unreachable_pub)]
mod netns;
mod running;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Running, init};
use sfu_engine::Router;

const LIMIT: Duration = Duration::from_secs(30);

/// What comes to a sink's pad from now on.
fn seen(running: &Running, sink: &str) -> Seen {
    let seen = Seen::default();
    let into = seen.0.clone();
    let is_sound = sink == "a";
    let pad = running.0.by_name(sink).unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let map = buffer.map_readable().unwrap();
            into.lock().unwrap().push(Sample {
                pts: buffer.pts().map_or(0, gst::ClockTime::nseconds),
                discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
                delta: buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                level: level(&map, is_sound),
            });
        }
        gst::PadProbeReturn::Ok
    });
    seen
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    pts: u64,
    discont: bool,
    delta: bool,
    level: u64,
}

/// Pixels of a picture.
const PIXELS: usize = 320 * 180;

/// How bright a raw picture (I420) is, or how many of a thousand samples (S8) are loud.
fn level(data: &[u8], is_sound: bool) -> u64 {
    if is_sound {
        let loud = data
            .iter()
            .filter(|byte| (**byte as i8).unsigned_abs() > 40);
        return loud.count() as u64 * 1_000 / data.len().max(1) as u64;
    }
    let sum: u64 = data.iter().take(PIXELS).map(|byte| u64::from(*byte)).sum();
    sum / PIXELS as u64
}

/// By how much two moments in a second are apart, whichever second.
fn apart(a: u64, b: u64) -> u64 {
    let apart = a.abs_diff(b) % 1_000_000_000;
    apart.min(1_000_000_000 - apart)
}

#[derive(Debug, Clone, Default)]
struct Seen(Arc<Mutex<Vec<Sample>>>);

impl Seen {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn all(&self) -> Vec<Sample> {
        self.0.lock().unwrap().clone()
    }

    fn wait(&self, count: usize) -> Vec<Sample> {
        until(&format!("{count} buffers"), || self.len() >= count);
        self.all()
    }

    /// When in a second the sound begins.
    fn sound_begins(&self) -> Vec<u64> {
        let all = self.all();
        let pairs = all
            .windows(2)
            .filter(|w| w[0].level < 250 && w[1].level >= 250);
        pairs.map(|w| w[1].pts % 1_000_000_000).collect()
    }

    /// When in a second the second of the publisher begins, by the pictures' brightness.
    fn pictures_begin(&self) -> Vec<u64> {
        let middle = self
            .all()
            .into_iter()
            .filter(|s| (60..=170).contains(&s.level));
        let begin =
            middle.map(|s| (s.pts + 1_000_000_000 - (s.level - 16) * 5_000_000) % 1_000_000_000);
        begin.collect()
    }

    fn assert_forward(&self) {
        let all = self.all();
        for pair in all.windows(2) {
            assert!(pair[0].pts < pair[1].pts, "{pair:?}");
        }
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "no {what} in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A publisher whose picture brightens during each second, in the first 200 ms of which there is a tone.
fn publisher(stream: &str, codec: &str) -> Running {
    let running = Running::prepare(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 \
           ! identity name=v ! sfusink name=out stream={stream} codec={codec} layers=180:300k,90:100k \
         audiotestsrc is-live=true samplesperbuffer=480 ! audio/x-raw,format=S8,rate=48000,channels=1 \
           ! identity name=a ! audioconvert ! out."
    ));
    for name in ["v", "a"] {
        let pad = running.0.by_name(name).unwrap().static_pad("src").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
                let phase = buffer.pts().unwrap_or_default().mseconds() % 1_000;
                let mut map = buffer.make_mut().map_writable().unwrap();
                if name == "v" {
                    map[..PIXELS].fill(16 + (phase / 5) as u8);
                    map[PIXELS..].fill(128);
                } else {
                    // A tone of 1 kHz.
                    let loud = |at: usize| {
                        if (at / 24).is_multiple_of(2) {
                            100
                        } else {
                            156
                        }
                    };
                    let silent = phase >= 200;
                    for (at, byte) in map.iter_mut().enumerate() {
                        *byte = if silent { 0 } else { loud(at) };
                    }
                }
            }
            gst::PadProbeReturn::Ok
        });
    }
    running.play();
    running
}

/// Decodes both tracks.
fn player(stream: &str, more: &str) -> Running {
    Running::prepare(&format!(
        "sfusrc name=in stream={stream} {more} \
         in.video_0 ! decodebin ! videoconvert ! video/x-raw,format=I420 ! fakesink name=v sync=false async=false \
         in.audio_0 ! decodebin ! audioconvert ! audio/x-raw,format=S8,channels=1 ! fakesink name=a sync=false async=false"
    ))
}

fn stats(running: &Running) -> gst::Structure {
    running.0.by_name("in").unwrap().property("stats")
}

fn median(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn pictures_and_sound_come_out_in_sync_whoever_starts_first() {
    init();
    for (codec, player_first) in [("h264", true), ("vp8", false), ("h264", false)] {
        let stream = format!("sync-{codec}-{player_first}");
        let before = (!player_first).then(|| publisher(&stream, codec));
        if before.is_some() {
            std::thread::sleep(Duration::from_millis(700));
        }
        let player = player(&stream, "");
        let (video, audio) = (seen(&player, "v"), seen(&player, "a"));
        let start = Instant::now();
        player.play();
        std::thread::sleep(Duration::from_millis(300));
        let _publisher = before.unwrap_or_else(|| publisher(&stream, codec));
        video.wait(1);
        println!("{stream}: first picture after {:?}", start.elapsed());
        until("sound", || audio.sound_begins().len() > 4);
        let (sounds, pictures) = (audio.sound_begins(), video.pictures_begin());
        let sound = sounds[2];
        let off = median(pictures.iter().map(|p| apart(*p, sound)).collect()) / 1_000;
        println!("{stream}: sound and picture are {off} us apart");
        assert!(off < 40_000, "{pictures:?} {sounds:?}");
        video.assert_forward();
        audio.assert_forward();
        player.quiet();
        let stats = stats(&player);
        println!("{stats}");
        assert!(stats.get::<bool>("live").unwrap());
        assert_eq!(stats.get::<u64>("dropped").unwrap(), 0);
        let info = Router::get("default").stream(&stream.parse().unwrap());
        assert_eq!(info.unwrap().outputs, 1);
    }
}

#[test]
fn latency_is_told_and_the_format_is_downstreams_choice() {
    init();
    let _publisher = publisher("formats", "h264");
    for format in ["avc", "byte-stream"] {
        let caps = format!("video/x-h264,stream-format={format},alignment=au");
        let player = Running::start(&format!(
            "sfusrc name=in stream=formats latency=80 layer=lowest in.video_0 ! {caps} ! fakesink name=v sync=true"
        ));
        let seen = seen(&player, "v").wait(10);
        assert!(!seen[0].delta, "it begins at a keyframe");
        let sink = player.0.by_name("v").unwrap().static_pad("sink").unwrap();
        let caps = sink.current_caps().unwrap();
        let height = caps.structure(0).unwrap().get::<i32>("height");
        assert_eq!(height, Ok(90), "{caps}");
        let mut query = gst::query::Latency::new();
        assert!(player.0.query(&mut query));
        let (live, min, _) = query.result();
        // The sink adds its processing-deadline.
        assert!(live && min == gst::ClockTime::from_mseconds(100), "{min}");
        player.quiet();
    }
}

#[test]
fn all_layers_are_pads_highest_first() {
    init();
    let player = Running::prepare(
        "sfusrc name=in stream=all layer=all in.video_0 ! fakesink name=v0 in.video_1 ! fakesink name=v1",
    );
    let done = Arc::new(Mutex::new(0));
    let counted = done.clone();
    let source = player.0.by_name("in").unwrap();
    source.connect_no_more_pads(move |source| *counted.lock().unwrap() = source.num_src_pads());
    player.play();
    let _publisher = publisher("all", "vp8");
    for (sink, height) in [("v0", 180), ("v1", 90)] {
        seen(&player, sink).wait(20);
        let sink = player.0.by_name(sink).unwrap().static_pad("sink").unwrap();
        let caps = sink.current_caps().unwrap();
        assert_eq!(caps.structure(0).unwrap().get("height"), Ok(height));
    }
    until("no-more-pads", || *done.lock().unwrap() == 3);
    player.quiet();
}

#[test]
fn the_layer_changes_while_it_plays_but_not_how_many() {
    init();
    let _publisher = publisher("change", "vp8");
    let player = Running::start(
        "sfusrc name=in stream=change in.video_0 ! fakesink name=v sync=false async=false",
    );
    let source = player.0.by_name("in").unwrap();
    let height = |wanted: i32| {
        let sink = player.0.by_name("v").unwrap().static_pad("sink").unwrap();
        until(&format!("picture of {wanted} lines"), || {
            let caps = sink.current_caps();
            caps.is_some_and(|caps| caps.structure(0).unwrap().get("height") == Ok(wanted))
        });
    };
    height(180);
    for (layer, lines) in [("lowest", 90), ("highest", 180), ("1", 90)] {
        source.set_property("layer", layer);
        height(lines);
    }
    for refused in ["all", "no such name"] {
        source.set_property("layer", refused);
        assert_eq!(source.property::<String>("layer"), "1");
    }
    source.set_property("keyframe-interval", 300u32);
    let before = stats(&player).get::<u64>("keyframe-requests").unwrap();
    until("requests", || {
        stats(&player).get::<u64>("keyframe-requests").unwrap() >= before + 2
    });
}

#[test]
fn a_publisher_that_returns_is_continued() {
    init();
    let player = player("returns", "");
    let (video, audio) = (seen(&player, "v"), seen(&player, "a"));
    let encoded = Seen::default();
    let into = encoded.clone();
    let source = player.0.by_name("in").unwrap();
    source.connect_pad_added(move |_, pad| {
        if pad.name() == "video_0" {
            let into = into.0.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let buffer = info.buffer().unwrap();
                into.lock().unwrap().push(Sample {
                    pts: buffer.pts().map_or(0, gst::ClockTime::nseconds),
                    discont: buffer.flags().contains(gst::BufferFlags::DISCONT),
                    delta: buffer.flags().contains(gst::BufferFlags::DELTA_UNIT),
                    level: 0,
                });
                gst::PadProbeReturn::Ok
            });
        }
    });
    player.play();
    let first = publisher("returns", "h264");
    video.wait(30);
    assert!(source.property::<bool>("live"));
    drop(first);
    until("end", || !source.property::<bool>("live"));
    std::thread::sleep(Duration::from_millis(500));
    let (pictures, sounds, frames) = (video.len(), audio.len(), encoded.len());
    std::thread::sleep(Duration::from_millis(1_000));
    let _second = publisher("returns", "h264");
    video.wait(pictures + 30);
    audio.wait(sounds + 30);
    video.assert_forward();
    audio.assert_forward();
    encoded.assert_forward();
    let again = encoded.all()[frames];
    assert!(again.discont && !again.delta, "{again:?}");
    let gap = again.pts - encoded.all()[frames - 1].pts;
    assert!(gap > 900_000_000, "running time went on: {gap}");
    player.quiet();
}

/// Longer than `rtpjitterbuffer` takes for one stream, and than what follows may be behind.
const LONG: Duration = Duration::from_secs(4);

#[test]
fn a_publisher_may_come_late_and_stay_away_for_long() {
    init();
    let player = player("late", "");
    let (video, audio) = (seen(&player, "v"), seen(&player, "a"));
    player.play();
    let start = Instant::now();
    std::thread::sleep(LONG);
    let first = publisher("late", "h264");
    let sees = |counts: (usize, usize)| {
        let (pictures, sounds) = (video.wait(counts.0 + 30), audio.wait(counts.1 + 30));
        let begins = [pictures[counts.0].pts, sounds[counts.1].pts];
        let now = start.elapsed().as_nanos() as u64;
        for pts in begins {
            // Running time, as the player's clock has it.
            assert!(
                pts < now && now - pts < LONG.as_nanos() as u64,
                "{begins:?}"
            );
        }
    };
    sees((0, 0));
    drop(first);
    until("end", || {
        !player.0.by_name("in").unwrap().property::<bool>("live")
    });
    std::thread::sleep(LONG);
    let counts = (video.len(), audio.len());
    let _second = publisher("late", "h264");
    sees(counts);
    video.assert_forward();
    audio.assert_forward();
    player.quiet();
}

#[test]
fn timestamps_are_running_time_after_a_late_start_and_a_pause() {
    init();
    let player =
        Running::start("sfusrc name=in stream=late in.video_0 ! fakesink name=v sync=false");
    let seen = seen(&player, "v");
    std::thread::sleep(Duration::from_secs(2));
    let publisher = Running::start(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=64,framerate=30/1 \
           ! x264enc tune=zerolatency key-int-max=30 ! valve name=valve ! h264parse ! sfusink name=out stream=late",
    );
    let near = |what: &str| {
        let count = seen.len() + 20;
        let newest = seen.wait(count)[count - 1].pts;
        let now = player.0.current_running_time().unwrap().nseconds();
        let off = now.abs_diff(newest) / 1_000_000;
        assert!(off < 1_500, "{what}: {newest} comes at {now}");
    };
    near("late start");
    let valve = publisher.0.by_name("valve").unwrap();
    valve.set_property("drop", true);
    std::thread::sleep(Duration::from_millis(4_500));
    valve.set_property("drop", false);
    near("pause");
    seen.assert_forward();
    player.quiet();
}

#[test]
fn a_publisher_that_goes_is_the_end_where_that_is_wanted() {
    init();
    let player = player("goes", "on-loss=eos");
    let video = seen(&player, "v");
    player.play();
    let publisher = publisher("goes", "vp8");
    video.wait(20);
    drop(publisher);
    player.ended();
}

#[test]
fn another_codec_is_another_pad() {
    init();
    let player = Running::prepare("sfusrc name=in stream=codec");
    let names = Arc::new(Mutex::new(Vec::new()));
    let source = player.0.by_name("in").unwrap();
    for (signal, sign) in [("pad-added", '+'), ("pad-removed", '-')] {
        let names = names.clone();
        source.connect(signal, false, move |values| {
            let pad = values[1].get::<gst::Pad>().unwrap();
            if pad.name().starts_with("video") {
                let caps = pad.query_caps(None);
                let codec = caps.structure(0).map(|s| s.name().to_string());
                names
                    .lock()
                    .unwrap()
                    .push(format!("{sign}{}", codec.unwrap_or_default()));
            }
            None
        });
    }
    player.play();
    let first = publisher("codec", "h264");
    until("pad", || names.lock().unwrap().len() == 1);
    drop(first);
    let _second = publisher("codec", "vp8");
    until("another pad", || names.lock().unwrap().len() == 3);
    let names = names.lock().unwrap().clone();
    assert_eq!(
        (names[0].as_str(), names[2].as_str()),
        ("+video/x-h264", "+video/x-vp8")
    );
    player.quiet();
}

#[test]
fn a_stream_is_taken_with_the_codecs_that_are_wanted() {
    init();
    let player = Running::start(
        "sfusrc name=in stream=wanted video-codecs=vp9,vp8 in.video_0 ! fakesink name=v async=false \
         in.audio_0 ! fakesink name=a async=false",
    );
    let (video, audio) = (seen(&player, "v"), seen(&player, "a"));
    let source = player.0.by_name("in").unwrap();
    let outputs = || {
        let info = Router::get("default").stream(&"wanted".parse().unwrap());
        info.unwrap().outputs
    };
    let other = publisher("wanted", "h264");
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!((video.len(), audio.len(), outputs()), (0, 0, 0));
    assert!(!source.property::<bool>("live"));
    drop(other);
    let wanted = publisher("wanted", "vp8");
    video.wait(10);
    audio.wait(10);
    assert_eq!(outputs(), 1);
    drop(wanted);
    std::thread::sleep(Duration::from_millis(500));
    let bus = player.0.bus().unwrap();
    assert!(bus.pop_filtered(&[gst::MessageType::Eos]).is_none());
    let _other = publisher("wanted", "h264");
    // What began ends.
    player.ended();
}

#[test]
fn keyframe_requests_reach_the_encoder_once_an_interval() {
    init();
    let publisher = publisher("keys", "h264");
    let player =
        Running::start("sfusrc name=in stream=keys in.video_0 ! h264parse ! fakesink name=v");
    let seen = seen(&player, "v");
    seen.wait(10);
    std::thread::sleep(Duration::from_millis(1_000));
    let sent = || {
        let stats: gst::Structure = publisher.0.by_name("out").unwrap().property("stats");
        stats.get::<u64>("keyframe-requests-sent").unwrap()
    };
    let (before, start) = (sent(), Instant::now());
    let sink = player.0.by_name("v").unwrap();
    let from = seen.len();
    while start.elapsed() < Duration::from_millis(1_400) {
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .all_headers(true)
            .build();
        assert!(sink.send_event(event));
        std::thread::sleep(Duration::from_millis(20));
    }
    let asked = sent() - before;
    assert!((2..=3).contains(&asked), "{asked}");
    until("keyframe", || seen.all()[from..].iter().any(|s| !s.delta));
}

#[test]
fn keyframes_are_kept_coming_where_that_is_wanted() {
    init();
    let _publisher = publisher("cadence", "h264");
    let keyframes = |interval: &str| {
        let player = Running::start(&format!(
            "sfusrc name=in stream=cadence {interval} in.video_0 ! h264parse ! fakesink name=v"
        ));
        let seen = seen(&player, "v");
        seen.wait(100);
        let keys = seen.all().into_iter().filter(|s| !s.delta);
        keys.map(|s| s.pts).collect::<Vec<_>>()
    };
    // The encoder's own are two seconds apart.
    let own = keyframes("");
    assert!(own.len() <= 3, "{own:?}");
    let asked = keyframes("keyframe-interval=600");
    assert!(asked.len() >= 4, "{asked:?}");
}

#[test]
fn what_is_wrong_is_said() {
    init();
    for (properties, says) in [
        ("stream=no/../way", "is not valid"),
        ("stream=api/x", "reserved"),
        ("stream=wrong layer=\"a b\"", "highest, lowest, all"),
    ] {
        let error = Running::start(&format!("sfusrc {properties}")).error();
        assert!(error.contains(says), "{error}");
    }
    let _publisher = publisher("wrong", "vp8");
    let error = Running::start("sfusrc stream=wrong layer=x").error();
    assert!(
        error.contains("no layer \"x\"") && error.contains("0, 1"),
        "{error}"
    );
}

#[test]
fn a_hundred_starts_and_stops_leak_nothing() {
    let test = "a_hundred_starts_and_stops_leak_nothing";
    if !netns::isolated(test, &leaks::environment()) {
        return;
    }
    init();
    leaks::assert_none(|| {
        let player = Running::prepare(
            "sfusrc stream=leaks name=in in.video_0 ! fakesink name=v in.audio_0 ! fakesink name=a",
        );
        let (video, audio) = (seen(&player, "v"), seen(&player, "a"));
        player.play();
        let publisher = Running::start(
            "videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! sfusink name=out stream=leaks layers=64:100k,32:50k \
             audiotestsrc is-live=true ! out.",
        );
        video.wait(1);
        audio.wait(1);
        let _ = player.0.set_state(gst::State::Paused);
        player.play();
        drop(publisher);
    });
}

/// The streams of a collection, as (kind, stream id, layer).
fn collected(message: &gst::Message) -> Vec<(gst::StreamType, String, Option<String>)> {
    let gst::MessageView::StreamCollection(told) = message.view() else {
        unreachable!("only collections are popped");
    };
    let collection = told.stream_collection();
    let stream = |stream: gst::Stream| {
        let tags = stream.tags();
        let title = tags.and_then(|t| Some(t.get::<gst::tags::Title>()?.get().to_owned()));
        let id = stream.stream_id().unwrap().to_string();
        (stream.stream_type(), id, title)
    };
    collection.iter().map(stream).collect()
}

#[test]
fn streams_are_a_collection_and_those_that_are_chosen_come() {
    init();
    let _publisher = publisher("collection", "vp8");
    let running = Running::prepare(
        "sfusrc name=in stream=collection latency=0 \
         in.video_0 ! fakesink name=v sync=false async=false \
         in.audio_0 ! fakesink name=a sync=false async=false",
    );
    let counts = ["v", "a"].map(|name| {
        let count = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let pad = running.0.by_name(name).unwrap().static_pad("sink").unwrap();
        let counted = count.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        count
    });
    let count = |n: usize| counts[n].load(std::sync::atomic::Ordering::Relaxed);
    running.play();
    let mut streams = Vec::new();
    while streams.len() < 2 {
        streams = collected(&running.next(&[gst::MessageType::StreamCollection]));
    }
    let (video, audio) = (&streams[0], &streams[1]);
    assert_eq!(
        (video.0, video.1.as_str()),
        (gst::StreamType::VIDEO, "collection/video_0")
    );
    assert_eq!(
        (audio.0, audio.1.as_str()),
        (gst::StreamType::AUDIO, "collection/audio_0")
    );
    until("both", || count(0) > 5 && count(1) > 5);
    let source = running.0.by_name("in").unwrap();
    for name in ["video_0", "audio_0"] {
        let pad = source.static_pad(name).unwrap();
        let start = pad.sticky_event::<gst::event::StreamStart>(0).unwrap();
        let stream = start.stream().expect("a stream");
        assert_eq!(stream.stream_id().unwrap(), format!("collection/{name}"));
        assert_eq!(stream.caps(), pad.current_caps());
        let told = pad.sticky_event::<gst::event::StreamCollection>(0).unwrap();
        assert!(told.stream_collection().iter().any(|one| one == stream));
    }
    for wrong in [
        vec!["collection/video_7"],
        vec![],
        vec!["collection/audio_0", "x"],
    ] {
        assert!(!source.send_event(gst::event::SelectStreams::new(wrong)));
    }
    assert!(source.send_event(gst::event::SelectStreams::new(["collection/audio_0"])));
    running.next(&[gst::MessageType::StreamsSelected]);
    let mut before = (count(0), count(1));
    until("sound alone", || {
        let now = (count(0), count(1));
        let before = std::mem::replace(&mut before, now);
        std::thread::sleep(std::time::Duration::from_millis(500));
        now.0 == before.0 && now.1 > before.1
    });
    let silent = count(0);
    let both = ["collection/video_0", "collection/audio_0"];
    assert!(source.send_event(gst::event::SelectStreams::new(both)));
    until("pictures again", || count(0) > silent + 5);
    running.quiet();
}

#[test]
fn decodebin3_plays_it_by_its_collection() {
    init();
    let _publisher = publisher("decodebin3", "vp8");
    let running =
        Running::prepare("sfusrc name=in stream=decodebin3 latency=0 decodebin3 name=out");
    let (source, out) = ["in", "out"]
        .map(|name| running.0.by_name(name).unwrap())
        .into();
    let weak = out.downgrade();
    source.connect_pad_added(move |_, pad| {
        let sink = weak
            .upgrade()
            .and_then(|out| out.request_pad_simple("sink_%u"));
        pad.link(&sink.expect("a pad")).unwrap();
    });
    let counts = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::new()));
    let counted = counts.clone();
    out.connect_pad_added(move |out, pad| {
        if pad.direction() == gst::PadDirection::Sink {
            return;
        }
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .unwrap();
        let bin = out.parent().and_downcast::<gst::Bin>().unwrap();
        bin.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        let counted = counted.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
            let caps = pad.current_caps().unwrap();
            let name = caps.structure(0).unwrap().name().to_string();
            *counted.lock().unwrap().entry(name).or_insert(0) += 1;
            gst::PadProbeReturn::Ok
        });
    });
    running.play();
    until("decoded pictures and sound", || {
        let counts = counts.lock().unwrap();
        let many = |name| counts.get(name).is_some_and(|n| *n > 10);
        many("video/x-raw") && many("audio/x-raw")
    });
    let mut ids = Vec::new();
    let types = [gst::MessageType::StreamCollection];
    while let Some(message) = running.0.bus().unwrap().pop_filtered(&types) {
        if message.src() == Some(out.upcast_ref()) {
            ids = collected(&message).into_iter().map(|s| s.1).collect();
        }
    }
    ids.sort();
    assert_eq!(ids, ["decodebin3/audio_0", "decodebin3/video_0"]);
    let errors = running
        .0
        .bus()
        .unwrap()
        .pop_filtered(&[gst::MessageType::Error]);
    assert!(errors.is_none(), "{errors:?}");
}
