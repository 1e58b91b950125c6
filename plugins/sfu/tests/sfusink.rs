// SPDX-License-Identifier: MPL-2.0
//! `sfusink` in small pipelines: what reaches the router, and what is refused.

#[path = "../../../tests/leaks.rs"]
#[allow(dead_code, unreachable_pub)]
mod leaks;
#[path = "../../../tests/netns.rs"]
#[allow(dead_code, unreachable_pub)]
mod netns;
mod running;

use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_rtp::prelude::*;
use running::{Running, init};
use sfu_engine::{Codec, Router, StreamInfo};

fn info(stream: &str) -> Option<StreamInfo> {
    Router::get("default").stream(&stream.parse().unwrap())
}

/// Waits until the stream is as it should be.
fn wait_for(stream: &str, is_so: impl Fn(&StreamInfo) -> bool) -> StreamInfo {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let info = info(stream);
        if let Some(info) = info.as_ref().filter(|info| is_so(info)) {
            return info.clone();
        }
        assert!(Instant::now() < end, "{stream} is {info:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn all_layers(info: &StreamInfo, sizes: &[(u32, u32)]) -> bool {
    info.video.as_ref().is_some_and(|video| {
        let layers = video
            .layers
            .iter()
            .map(|l| (l.width.unwrap_or(0), l.height.unwrap_or(0)));
        layers.eq(sizes.iter().copied()) && video.layers.iter().all(|l| l.active)
    })
}

const RAW: &str = "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=30/1";

#[test]
fn raw_video_and_sound_without_pad_names() {
    init();
    let line = format!(
        "{RAW} ! sfusink name=out stream=raw layers=180:300k,90:100k audiotestsrc is-live=true ! out."
    );
    let running = Running::start(&line);
    let info = wait_for("raw", |i| {
        all_layers(i, &[(320, 180), (160, 90)]) && !i.audio.is_empty()
    });
    assert_eq!(info.video.unwrap().codec, Codec::H264);
    assert!(info.live);
    let sink = running.0.by_name("out").unwrap();
    let stats = sink.property::<gst::Structure>("stats");
    assert!(stats.get::<u64>("packets").unwrap() > 0);
    assert_eq!(stats.get::<gst::Array>("layers").unwrap().len(), 2);
    drop(running);
    assert!(
        self::info("raw").is_none(),
        "it is unpublished when it stops"
    );
}

#[test]
fn encoded_layers_are_pads() {
    init();
    let encode = "x264enc tune=zerolatency bitrate=200 key-int-max=15 ! video/x-h264,profile=constrained-baseline";
    let line = format!(
        "videotestsrc is-live=true ! video/x-raw,width=160,height=90,framerate=30/1 ! {encode} ! out.video_1 \
         {RAW} ! {encode} ! out.video_0 sfusink name=out stream=encoded"
    );
    let _running = Running::start(&line);
    let info = wait_for("encoded", |i| all_layers(i, &[(320, 180), (160, 90)]));
    let rids: Vec<_> = info
        .video
        .unwrap()
        .layers
        .iter()
        .map(|l| l.rid.to_string())
        .collect();
    assert_eq!(rids, ["0", "1"]);
}

/// One by one, as some encoders give them.
#[test]
fn units_of_h264_become_pictures() {
    init();
    let encode = "x264enc tune=zerolatency bitrate=200 key-int-max=15 ! h264parse \
                  ! video/x-h264,stream-format=byte-stream,alignment=nal";
    for how in ["auto", "never", "always"] {
        let stream = format!("units-{how}");
        let size = "video/x-raw,format=I420,width=320,height=180,framerate=30/1";
        let running = Running::start(&format!(
            "videotestsrc is-live=true ! {size} ! {encode} ! sfusink name=out stream={stream} encode={how} layers=180:300k"
        ));
        let info = wait_for(&stream, |i| all_layers(i, &[(320, 180)]));
        let health = info.video.unwrap().health;
        assert!(health[0].frames > 0, "{stream}");
        running.quiet();
    }
}

#[test]
fn vp8_vp9_opus_and_rtp_are_taken() {
    init();
    let vp9 = "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=15 lag-in-frames=0";
    let vp8 = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=15";
    let lines = [
        format!(
            "{RAW} ! {vp8} ! sfusink name=out stream=vp8 audiotestsrc is-live=true ! opusenc ! out."
        ),
        format!(
            "{RAW} ! {vp8} ! rtpvp8pay ! sfusink name=out stream=rtp audiotestsrc is-live=true ! opusenc ! rtpopuspay ! out."
        ),
        format!(
            "{RAW} ! {vp9} ! sfusink name=out stream=vp9 audiotestsrc is-live=true ! out.audio_0"
        ),
        format!(
            "{RAW} ! {vp9} ! rtpvp9pay ! sfusink name=out stream=rtp9 audiotestsrc is-live=true ! out.audio_0"
        ),
    ];
    let all = [
        ("vp8", Codec::Vp8),
        ("rtp", Codec::Vp8),
        ("vp9", Codec::Vp9),
        ("rtp9", Codec::Vp9),
    ];
    for (line, (stream, codec)) in lines.iter().zip(all) {
        let _running = Running::start(line);
        let info = wait_for(stream, |i| {
            all_layers(i, &[(320, 180)]) && !i.audio.is_empty()
        });
        assert_eq!(info.video.unwrap().codec, codec, "{stream}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    init();
    let opus = "audiotestsrc is-live=true ! audio/x-raw,channels=6 ! opusenc";
    let two_raw =
        format!("{RAW} ! out.video_0 {RAW} ! out.video_1 sfusink name=out stream=refused");
    for (line, says) in [
        (
            format!("{opus} ! sfusink stream=refused"),
            "one or two channels",
        ),
        (two_raw, "only video pad"),
        (
            format!("{RAW} ! sfusink stream=refused layers=nonsense"),
            "HEIGHT:BITRATE",
        ),
        (
            format!("{RAW} ! sfusink stream=refused encoder=nosuchenc"),
            "x264enc",
        ),
        (
            "appsrc is-live=true caps=video/x-h264 name=in ! queue ! sfusink stream=refused".into(),
            "stream-format is missing",
        ),
        (
            "appsrc is-live=true caps=video/x-h264,stream-format=avc name=in ! sfusink stream=refused".into(),
            "codec_data is missing",
        ),
    ] {
        let running = Running::start(&line);
        if let Some(source) = running.0.by_name("in") {
            let buffer = gst::Buffer::from_slice([0, 0, 0, 1, 0x65]);
            let _: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        }
        let error = running.error();
        assert!(error.contains(says), "{line}: {error}");
    }
    let theora =
        gst::parse::launch("appsrc caps=video/x-theora ! theoraparse ! sfusink stream=refused");
    assert!(theora.is_err(), "no pad for it");
}

/// The next publisher of an ingest may send something else.
#[test]
fn what_comes_may_become_something_else() {
    init();
    let size = "video/x-raw,format=I420,width=160,height=90,framerate=30/1";
    let encoders = [
        "x264enc tune=zerolatency speed-preset=ultrafast ! video/x-h264,stream-format=byte-stream,alignment=au",
        "x265enc tune=zerolatency speed-preset=ultrafast ! h265parse ! video/x-h265,stream-format=hvc1",
        "vp8enc deadline=1",
        "identity",
        "x264enc tune=zerolatency speed-preset=ultrafast bframes=2 ! h264parse ! video/x-h264,stream-format=avc",
        "vp8enc deadline=1 ! rtpvp8pay",
    ];
    let parts = encoders.iter().map(|encoder| {
        format!("videotestsrc is-live=true num-buffers=45 ! {size} ! {encoder} ! c.")
    });
    let parts: Vec<String> = parts.collect();
    // A queue asks whether the next caps are taken while what came before is still under way.
    let running = Running::prepare(&format!(
        "concat name=c ! queue ! sfusink name=out stream=something-else layers=90:200k {}",
        parts.join(" ")
    ));
    running.play();
    let over = || {
        running
            .0
            .bus()
            .unwrap()
            .pop_filtered(&[gst::MessageType::Eos, gst::MessageType::Error])
    };
    let mut codecs: Vec<(Codec, u64)> = Vec::new();
    let message = loop {
        if let Some(message) = over() {
            break message;
        }
        std::thread::sleep(Duration::from_millis(20));
        let Some(info) = info("something-else") else {
            continue;
        };
        let Some(video) = info.video.filter(|video| !video.layers.is_empty()) else {
            continue;
        };
        match codecs.last_mut() {
            Some((last, packets)) if *last == video.codec => *packets = info.packets_in,
            _ => codecs.push((video.codec, info.packets_in)),
        }
    };
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    println!("{codecs:?}");
    let came: Vec<Codec> = codecs.iter().map(|(codec, _)| *codec).collect();
    use Codec::{H264, H265, Vp8};
    assert_eq!(came, [H264, H265, Vp8, H264, Vp8]);
    // Each a packet a frame, but for what decoders and encoders keep back.
    let mut before = 0;
    for (codec, packets) in codecs {
        assert!(packets > before + 30, "{codec:?}: {packets} after {before}");
        before = packets;
    }
}

/// One that shows an earlier frame is an octet, which `rtpvp9pay` takes for a broken one.
#[test]
fn frames_of_vp9_may_be_an_octet() {
    init();
    let sink = gst::ElementFactory::make("sfusink")
        .property("stream", "short")
        .build()
        .unwrap();
    let bus = gst::Bus::new();
    sink.set_bus(Some(&bus));
    let mut harness = gst_check::Harness::with_element(&sink, Some("video_%u"), None);
    harness.set_src_caps_str("video/x-vp9");
    harness.play();
    let keyframe = [0x82, 0x49, 0x83, 0x42, 0x20, 0x13, 0xf0, 0x0b, 0x30, 0];
    for (n, frame) in [&keyframe[..], &[0x88], &[0x88]].into_iter().enumerate() {
        let mut buffer = gst::Buffer::from_slice(frame.to_vec());
        let at = gst::ClockTime::from_mseconds(40 * n as u64);
        buffer.get_mut().unwrap().set_pts(at);
        harness.push(buffer).unwrap();
    }
    let packets = || {
        let stats: gst::Structure = sink.property("stats");
        stats.get::<u64>("packets").unwrap()
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while packets() < 3 {
        let error = bus.pop_filtered(&[gst::MessageType::Error]);
        assert!(error.is_none(), "{error:?}");
        assert!(std::time::Instant::now() < end, "{} packets", packets());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A payload descriptor, and the beginning of a keyframe of 320x180.
fn rtp_vp8_keyframe() -> gst::Buffer {
    let key = [
        0x10, 0x50, 0x01, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00, 0x00,
    ];
    let mut buffer = gst::Buffer::new_rtp_with_sizes(key.len() as u32, 0, 0).unwrap();
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.set_pts(gst::ClockTime::ZERO);
        let mut rtp = gst_rtp::RTPBuffer::from_buffer_writable(buffer).unwrap();
        rtp.payload_mut().unwrap().copy_from_slice(&key);
    }
    buffer
}

#[test]
fn names_are_checked_and_unique() {
    init();
    let start = |stream: &str| {
        let line = format!("{RAW} ! sfusink stream={stream} layers=90:100k");
        let pipeline = gst::parse::launch(&line)
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
        let result = pipeline.set_state(gst::State::Playing);
        (Running(pipeline), result)
    };
    let (bad, result) = start("no/../way");
    assert!(result.is_err() && bad.error().contains("is not valid"));
    let (_first, result) = start("taken");
    assert!(result.is_ok());
    let (second, result) = start("taken");
    assert!(result.is_err());
    assert!(second.error().contains("already has a publisher"));
}

#[test]
fn the_end_of_all_inputs_is_the_end() {
    init();
    let running = Running::start(
        "videotestsrc num-buffers=30 ! video/x-raw,width=320,height=180,framerate=30/1 ! sfusink name=out stream=ends layers=90:100k \
         audiotestsrc num-buffers=30 ! out.",
    );
    running.ended();
    let nothing = Running::start("videotestsrc num-buffers=0 ! sfusink stream=empty");
    // Also where nothing ever came.
    nothing.ended();
}

#[test]
fn input_that_is_not_live_is_sent_in_its_own_time() {
    init();
    let start = Instant::now();
    let running = Running::start(
        "videotestsrc num-buffers=60 ! video/x-raw,width=320,height=180,framerate=30/1 ! sfusink stream=file layers=90:100k",
    );
    running.ended();
    assert!(
        start.elapsed() > Duration::from_millis(1_500),
        "two seconds of video in {:?}",
        start.elapsed()
    );
}

#[test]
fn a_harness_pushes_and_pads_come_and_go() {
    init();
    let sink = gst::ElementFactory::make("sfusink")
        .property("stream", "harness")
        .build()
        .unwrap();
    let mut harness = gst_check::Harness::with_element(&sink, Some("video_%u"), None);
    harness.set_src_caps_str("application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8");
    harness.play();
    harness.push(rtp_vp8_keyframe()).unwrap();
    let info = wait_for("harness", |i| i.packets_in == 1);
    assert_eq!(info.video.unwrap().layers[0].height, Some(180));
    let audio = sink.request_pad_simple("audio_%u").unwrap();
    assert!(sink.request_pad_simple("audio_0").is_none(), "it is there");
    assert!(sink.request_pad_simple("audio_8").is_none(), "too many");
    sink.release_request_pad(&audio);
    assert!(sink.request_pad_simple("audio_0").is_some());
}

#[test]
fn a_hundred_starts_and_stops_leak_nothing() {
    let test = "a_hundred_starts_and_stops_leak_nothing";
    if !netns::isolated(test, &leaks::environment()) {
        return;
    }
    init();
    leaks::assert_none(|| {
        let line = "sfusignaller listen=127.0.0.1:0 udp-port=0 shards=1 \
            videotestsrc is-live=true ! video/x-raw,width=64,height=64 ! sfusink name=out stream=leaks layers=64:100k,32:50k \
            audiotestsrc is-live=true ! out.";
        let running = Running::start(line);
        wait_for("leaks", |info| info.packets_in > 0);
        drop(running);
    });
}

#[test]
fn whoever_sends_is_told_upstream_that_it_is_to_end() {
    init();
    let running = Running::start(
        "videotestsrc name=source is-live=true ! video/x-raw,width=64,height=64,framerate=15/1 ! queue ! sfusink stream=kick",
    );
    wait_for("kick", |info| info.live);
    let kick = || Router::get("default").kick(&"kick".parse().unwrap());
    assert!(!kick(), "nobody there can be ended");
    let (told, heard) = std::sync::mpsc::channel();
    let source = running.0.by_name("source").unwrap();
    let pad = source.static_pad("src").unwrap();
    sfu_elements::kick::hear(&pad, move || told.send(()).is_ok());
    assert!(kick());
    assert_eq!(heard.try_iter().count(), 1);
}
