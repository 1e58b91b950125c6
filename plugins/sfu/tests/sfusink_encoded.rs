// SPDX-License-Identifier: MPL-2.0
//! Video that comes encoded to `sfusink`: whether it goes on as it is, and that viewers never get it out of order.

mod running;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Running, init};

const LIVE: &str = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=180,framerate=30/1";
const X264: &str = "x264enc speed-preset=ultrafast key-int-max=60 bitrate=300";
const LAYERS: &str = "layers=180:300k,90:100k";

/// What a viewer gets: the pictures' times and when each came.
#[derive(Default)]
struct Seen(Arc<Mutex<Vec<(u64, Instant)>>>);

impl Seen {
    fn watch(stream: &str) -> (Running, Self) {
        let player = Running::prepare(&format!(
            "sfusrc name=in stream={stream} in.video_0 ! fakesink name=frames sync=false async=false"
        ));
        let seen = Self::default();
        let frames = player.0.by_name("frames").unwrap();
        let pad = frames.static_pad("sink").unwrap();
        let times = seen.0.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(pts) = info.buffer().unwrap().pts() {
                let mut times = times.lock().unwrap();
                times.push((pts.nseconds(), Instant::now()));
            }
            gst::PadProbeReturn::Ok
        });
        player.play();
        (player, seen)
    }

    fn out_of_order(&self) -> usize {
        let seen = self.0.lock().unwrap();
        seen.windows(2)
            .filter(|pair| pair[1].0 <= pair[0].0)
            .count()
    }

    /// The longest time without a picture.
    fn longest_wait(&self) -> Duration {
        let seen = self.0.lock().unwrap();
        let waits = seen.windows(2).map(|pair| pair[1].1 - pair[0].1);
        waits.max().unwrap_or(Duration::MAX)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn layers(running: &Running) -> usize {
    running.stat::<gst::Array>("out", "layers").len()
}

/// Waits until `is_so`, and gives how long that took.
fn until(what: &str, limit: Duration, is_so: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "{what}: not after {limit:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

#[test]
fn what_has_b_frames_is_encoded_anew_and_the_rest_goes_on_as_it_is() {
    init();
    let h265 = "x265enc speed-preset=ultrafast key-int-max=60 bitrate=300";
    let vp8 = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=60";
    let vp9 = "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=60 lag-in-frames=0";
    let av1 = "av1enc usage-profile=realtime cpu-used=8 keyframe-max-dist=60";
    let kinds = [
        ("plain", "auto", format!("{X264} tune=zerolatency"), false),
        (
            "baseline",
            "auto",
            format!("{X264} bframes=0 ! video/x-h264,profile=constrained-baseline"),
            false,
        ),
        ("b", "auto", format!("{X264} bframes=2 b-adapt=false"), true),
        (
            "b-stream",
            "auto",
            format!(
                "{X264} bframes=3 b-pyramid=true ! video/x-h264,stream-format=byte-stream,alignment=au"
            ),
            true,
        ),
        ("always", "always", format!("{X264} tune=zerolatency"), true),
        ("never", "never", format!("{X264} tune=zerolatency"), false),
        ("vp8", "auto", vp8.to_owned(), false),
        ("vp8-always", "always", vp8.to_owned(), true),
        // Where nothing can send it as it is, whatever the order.
        (
            "av1-always",
            "auto",
            av1.to_owned(),
            gst::ElementFactory::find("rtpav1pay").is_none(),
        ),
        ("vp9", "auto", vp9.to_owned(), false),
        ("vp9-always", "always", vp9.to_owned(), true),
        ("h265", "auto", format!("{h265} tune=zerolatency"), false),
        (
            "h265-b",
            "auto",
            format!("{h265} option-string=bframes=3"),
            true,
        ),
    ];
    let all = kinds.iter().map(|(name, encode, encoder, anew)| {
        let stream = format!("encoded-{name}");
        let (player, seen) = Seen::watch(&stream);
        let line = format!(
            "{LIVE} ! {encoder} ! sfusink name=out stream={stream} encode={encode} {LAYERS}"
        );
        (name, anew, Running::start(&line), player, seen)
    });
    for (name, anew, publisher, _player, seen) in all {
        // The encoder looks ahead itself.
        let took = until(name, Duration::from_secs(15), || {
            layers(&publisher) == if *anew { 2 } else { 1 } && seen.count() > 60
        });
        println!(
            "{name}: {took:?}, {} pictures, longest wait {:?}",
            seen.count(),
            seen.longest_wait()
        );
        assert_eq!(
            publisher.stat::<bool>("out", "encoded-anew"),
            *anew,
            "{name}"
        );
        assert_eq!(seen.out_of_order(), 0, "{name}");
        let out_of_order: u64 = publisher.stat("out", "pictures-out-of-order");
        assert_eq!(
            out_of_order > 0,
            *anew && !name.contains("always"),
            "{name}"
        );
        publisher.quiet();
    }
}

#[test]
fn where_nothing_may_encode_b_frames_are_told_once_and_counted() {
    init();
    let encoder = format!("{X264} bframes=2 b-adapt=false");
    let two = format!(
        "sfusink name=out stream=told-two {LIVE} ! {encoder} ! out.video_0 {LIVE} ! {encoder} ! out.video_1"
    );
    let one = format!("{LIVE} ! {encoder} ! sfusink name=out stream=told-one encode=never");
    for (line, pads) in [(one, 1), (two, 2)] {
        let publisher = Running::start(&line);
        let mut said = publisher.warning();
        assert!(
            said.contains("B-frames") && said.contains("encode=auto"),
            "{said}"
        );
        if pads == 2 {
            said = publisher.warning();
            assert!(said.contains("video_"), "{said}");
        }
        let before: u64 = publisher.stat("out", "pictures-out-of-order");
        let more = || publisher.stat::<u64>("out", "pictures-out-of-order") > before + 20;
        until("more of them", Duration::from_secs(20), more);
        publisher.quiet();
        assert!(!publisher.stat::<bool>("out", "encoded-anew"));
    }
}

/// The decision is made on the thread that is stopped, whenever that is.
#[test]
fn stopping_takes_no_time_while_it_is_decided() {
    init();
    let path = std::env::temp_dir().join(format!("gst-sfu-b-frames-{}.mkv", std::process::id()));
    let path = path.to_str().unwrap();
    let made = Running::start(&format!(
        "videotestsrc num-buffers=60 ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 ! {X264} bframes=2 b-adapt=false \
         ! h264parse ! matroskamux ! filesink location={path}"
    ));
    made.ended();
    drop(made);
    for n in 0..24 {
        let running = Running::start(&format!(
            "filesrc location={path} ! matroskademux ! h264parse ! sfusink stream=decided-{n} {LAYERS}"
        ));
        std::thread::sleep(Duration::from_millis(10 * n));
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(running);
            let _ = done.send(());
        });
        let stopped = is_done.recv_timeout(Duration::from_secs(8));
        assert!(stopped.is_ok(), "not after {} ms", 10 * n);
    }
    std::fs::remove_file(path).unwrap();
}

/// Of other colours, more bits, or in fields.
#[test]
fn what_browsers_do_not_decode_is_encoded_anew() {
    init();
    let foreign = ["format=Y42B", "format=I420_10LE"];
    for (n, foreign) in foreign.into_iter().enumerate() {
        let stream = format!("foreign-{n}");
        let (_player, seen) = Seen::watch(&stream);
        let publisher = Running::start(&format!(
            "{LIVE} ! videoconvert ! video/x-raw,{foreign} ! {X264} tune=zerolatency \
             ! sfusink name=out stream={stream} {LAYERS}"
        ));
        until(foreign, Duration::from_secs(15), || {
            layers(&publisher) == 2 && seen.count() > 30
        });
        assert!(publisher.stat::<bool>("out", "encoded-anew"), "{foreign}");
    }
}

/// Encoders that make one keyframe by themselves, and others when they are asked, or never (`deaf`).
#[test]
fn who_joins_an_encoder_with_one_keyframe_sees_a_picture() {
    init();
    let encoder = "x264enc name=encoder speed-preset=ultrafast tune=zerolatency bitrate=300 key-int-max=99999 \
                   option-string=scenecut=0";
    let live = LIVE.replace("framerate=30", "framerate=60");
    let all = [
        ("deaf", "auto", true, true),
        ("hears", "auto", false, false),
        ("never", "never", true, false),
    ];
    let all = all.map(|(name, encode, deaf, anew)| {
        let stream = format!("one-keyframe-{name}");
        let (player, seen) = Seen::watch(&stream);
        let publisher = Running::prepare(&format!(
            "{live} ! {encoder} ! sfusink name=out stream={stream} encode={encode} {LAYERS}"
        ));
        let pad = publisher.0.by_name("encoder").unwrap().static_pad("src");
        if deaf {
            let mask = gst::PadProbeType::EVENT_UPSTREAM;
            pad.unwrap().add_probe(mask, |_, info| match info.event() {
                Some(event) if gst_video::ForceKeyUnitEvent::is(event) => gst::PadProbeReturn::Drop,
                _ => gst::PadProbeReturn::Ok,
            });
        }
        publisher.play();
        (name, anew, publisher, player, seen)
    });
    for (name, anew, publisher, _player, seen) in &all {
        // 300 pictures and two seconds.
        until(name, Duration::from_secs(30), || seen.count() > 480);
        let is = publisher.stat::<bool>("out", "encoded-anew");
        assert_eq!(is, *anew, "{name}");
        assert!(seen.longest_wait() < Duration::from_secs(3), "{name}");
        assert_eq!(seen.out_of_order(), 0, "{name}");
        if *name == "never" {
            let said = publisher.warning();
            assert!(
                said.contains("no keyframe") && said.contains("key-int-max"),
                "{said}"
            );
            continue;
        }
        let (_late, seen) = Seen::watch(&format!("one-keyframe-{name}"));
        let took = until(name, Duration::from_secs(10), || seen.count() > 30);
        println!("{name}: who joins has 30 pictures after {took:?}");
    }
}

/// An SPS of x264's without its VUI: nothing says whether there are B-frames.
fn silent(sps: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    let mut zeros = 0;
    for byte in &sps[1..] {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        bits.extend((0..8).rev().map(|bit| byte >> bit & 1 == 1));
    }
    let mut at = 24;
    let number = |at: &mut usize| {
        let zeros = bits[*at..].iter().position(|bit| *bit).unwrap();
        let end = *at + 2 * zeros + 1;
        let value = bits[*at + zeros..end]
            .iter()
            .fold(0u32, |v, b| v << 1 | u32::from(*b));
        *at = end;
        value - 1
    };
    number(&mut at);
    if bits[..8].iter().fold(0, |v, b| v << 1 | u32::from(*b)) >= 100 {
        // Chroma, depths; no scaling.
        for _ in 0..3 {
            number(&mut at);
        }
        at += 2;
    }
    number(&mut at);
    if number(&mut at) == 0 {
        number(&mut at);
    }
    number(&mut at);
    at += 1;
    for _ in 0..2 {
        number(&mut at);
    }
    assert!(bits[at], "frames");
    at += 2;
    at += 1;
    if bits[at - 1] {
        for _ in 0..4 {
            number(&mut at);
        }
    }
    bits.truncate(at);
    bits.extend([false, true]);
    bits.resize(bits.len().next_multiple_of(8), false);
    let bytes = bits
        .chunks(8)
        .map(|bits| bits.iter().fold(0, |v, b| v << 1 | u8::from(*b)));
    let mut unit = vec![sps[0]];
    let mut zeros = 0;
    for byte in bytes {
        if zeros >= 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        unit.push(byte);
    }
    unit
}

/// Has an encoder's parameter sets say nothing.
fn silence(running: &Running, element: &str) {
    let pad = running
        .0
        .by_name(element)
        .unwrap()
        .static_pad("src")
        .unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let buffer = info.buffer_mut().unwrap().make_mut();
        let data = buffer.map_readable().unwrap().to_vec();
        let mut units: Vec<Vec<u8>> = Vec::new();
        let mut at = 0;
        while at < data.len() {
            let start = (at..data.len()).find(|i| data[*i..].starts_with(&[0, 0, 1]));
            let Some(start) = start else { break };
            let end = (start + 3..data.len()).find(|i| data[*i..].starts_with(&[0, 0, 1]));
            let end = end.unwrap_or(data.len());
            let mut unit = data[start + 3..end].to_vec();
            if end < data.len() && unit.last() == Some(&0) {
                unit.pop();
            }
            units.push(if unit[0] & 0x1f == 7 {
                silent(&unit)
            } else {
                unit
            });
            at = end;
        }
        let mut out = Vec::new();
        for unit in units {
            out.extend([0, 0, 0, 1]);
            out.extend(unit);
        }
        let memory = gst::Memory::from_slice(out);
        buffer.replace_all_memory(memory);
        gst::PadProbeReturn::Ok
    });
}

/// Two encoders one after the other on one pad.
fn two(stream: &str, first: &str, second: &str) -> String {
    let caps = "video/x-h264,stream-format=byte-stream,alignment=au,profile=main";
    format!(
        "sfusink name=out stream={stream} {LAYERS}  concat name=c ! h264parse ! out.video_0 \
         videotestsrc num-buffers=150 is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=30/1 \
         ! {first} name=first ! {caps} ! c. \
         {LIVE} ! {second} name=second ! {caps} ! c."
    )
}

#[test]
fn b_frames_that_begin_later_are_followed_and_what_comes_without_goes_on_as_it_is_again() {
    init();
    let (plain, b) = (
        format!("{X264} tune=zerolatency"),
        format!("{X264} bframes=2 b-adapt=false"),
    );
    let cabac = |frames: &str| format!("{X264} {frames} option-string=cabac=1");
    let (same, same_b) = (cabac("bframes=0"), cabac("bframes=2 b-adapt=false"));
    for (name, first, second, is_silent, anew) in [
        ("said", &plain, &b, false, [false, true]),
        // By the parameter sets alone: profile, level and size are the same.
        ("same-caps", &same, &same_b, false, [false, true]),
        ("seen", &plain, &b, true, [false, true]),
        ("seen-at-once", &b, &b, true, [true, true]),
        ("back", &b, &plain, false, [true, false]),
    ] {
        let stream = format!("later-{name}");
        let (_player, seen) = Seen::watch(&stream);
        let publisher = Running::prepare(&two(&stream, first, second));
        if is_silent {
            silence(&publisher, "first");
            silence(&publisher, "second");
        }
        publisher.play();
        for (turn, anew) in anew.into_iter().enumerate() {
            let what = format!("{name}, encoder {turn}");
            let is_so = || publisher.stat::<bool>("out", "encoded-anew") == anew;
            let took = until(&what, Duration::from_secs(12), || {
                seen.count() > 30 + 150 * turn && is_so()
            });
            println!("{what}: {took:?}");
        }
        let before = seen.count();
        until(name, Duration::from_secs(12), || seen.count() > before + 90);
        println!(
            "{name}: {} pictures, longest wait {:?}",
            seen.count(),
            seen.longest_wait()
        );
        // Where nothing says that they come, they are known by the second one.
        let most = if is_silent { 2 } else { 0 };
        assert!(
            seen.out_of_order() <= most,
            "{name}: {}",
            seen.out_of_order()
        );
        assert!(seen.longest_wait() < Duration::from_secs(2), "{name}");
        publisher.quiet();
    }
}
