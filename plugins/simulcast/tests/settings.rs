// SPDX-License-Identifier: MPL-2.0
//! What the user wants of encoders: ranks, properties, the signal, bitrates, and changes while playing.

mod playing;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use playing::{init, play};

fn launch(line: &str) -> gst::Pipeline {
    gst::parse::launch(line).unwrap().downcast().unwrap()
}

fn inner(pipeline: &gst::Pipeline, factory: &str) -> Vec<gst::Element> {
    let bin = pipeline.by_name("e").and_downcast::<gst::Bin>().unwrap();
    let all = bin.iterate_recurse().into_iter().flatten();
    all.filter(|element| element.factory().is_some_and(|f| f.name() == factory))
        .collect()
}

fn warning(pipeline: &gst::Pipeline) -> Option<String> {
    let message = pipeline.bus()?.pop_filtered(&[gst::MessageType::Warning])?;
    match message.view() {
        gst::MessageView::Warning(warning) => Some(warning.error().to_string()),
        _ => None,
    }
}

const SOURCE: &str = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1";

#[test]
fn ranks_choose_the_encoder() {
    init();
    let find = |name| gst::ElementFactory::find(name).unwrap();
    let (x264, openh264) = (find("x264enc"), find("openh264enc"));
    let stock = [x264.rank(), openh264.rank()];
    for (ranks, expected) in [
        ([256, 64], "x264enc"),
        ([256, 257], "openh264enc"),
        ([256, i32::MAX], "openh264enc"),
        ([300, 257], "x264enc"),
        ([0, 64], "openh264enc"),
        ([1, 64], "openh264enc"),
    ] {
        x264.set_rank(gst::Rank::from(ranks[0]));
        openh264.set_rank(gst::Rank::from(ranks[1]));
        let pipeline = launch(&format!("{SOURCE} ! simulcastenc name=e ! fakesink"));
        pipeline.set_state(gst::State::Ready).unwrap();
        let names = pipeline
            .by_name("e")
            .unwrap()
            .property::<gst::Array>("encoders");
        assert_eq!(names[0].get::<&str>(), Ok(expected), "{ranks:?}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
    x264.set_rank(stock[0]);
    openh264.set_rank(stock[1]);
}

#[test]
fn encoder_properties_are_of_all_of_a_layer_or_of_a_factory() {
    init();
    let two = "encoder=x264enc layers=48:100k,24:50k e.src_0 ! fakesink e.src_1 ! fakesink";
    for (properties, keys, warns) in [
        ("props,key-int-max=7", [7, 7], None),
        (
            "props,key-int-max=7,layer-1=[props,key-int-max=9]",
            [7, 9],
            None,
        ),
        (
            "props,layer-1=[props,key-int-max=9],key-int-max=7",
            [7, 9],
            None,
        ),
        (
            "props,key-int-max=7,x264enc=[props,key-int-max=8]",
            [8, 8],
            None,
        ),
        (
            "props,x264enc=[props,key-int-max=8,layer-0=[props,key-int-max=5]]",
            [5, 8],
            None,
        ),
        (
            "props,key-int-max=7,openh264enc=[props,gop-size=8]",
            [7, 7],
            None,
        ),
        ("props,key-int-max=(guint64)11", [11, 11], None),
        ("props,key-int-max=(string)12", [12, 12], None),
        (
            "props,key-int-max=-4",
            [360, 360],
            Some("key-int-max of x264enc can't be -4"),
        ),
        ("props,key-int-max=often", [360, 360], Some("can't be")),
        (
            "props,no-such=4,key-int-max=6",
            [6, 6],
            Some("x264enc has no property no-such"),
        ),
        ("props,speed-preset=medium,key-int-max=3", [3, 3], None),
        ("props,speed-preset=quick", [360, 360], Some("speed-preset")),
    ] {
        let line =
            format!("{SOURCE} ! simulcastenc name=e encoder-properties=\"{properties}\" {two}");
        let pipeline = launch(&line);
        pipeline.set_state(gst::State::Ready).unwrap();
        let encoders = inner(&pipeline, "x264enc");
        let mut got: Vec<_> = encoders
            .iter()
            .map(|encoder| {
                (
                    encoder.property::<u32>("bitrate"),
                    encoder.property::<u32>("key-int-max"),
                )
            })
            .collect();
        got.sort_unstable_by(|one, other| other.cmp(one));
        let got: Vec<_> = got.into_iter().map(|(_, keys)| keys).collect();
        assert_eq!(got, keys, "{properties}");
        let said = warning(&pipeline);
        match (warns, &said) {
            (None, None) => {}
            (Some(part), Some(said)) if said.contains(part) => {}
            _ => panic!("{properties}: {said:?} instead of {warns:?}"),
        }
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

#[test]
fn the_signal_gives_each_encoder_once_and_what_it_sets_stays() {
    init();
    let pipeline = launch(&format!(
        "{SOURCE} ! simulcastenc name=e layers=48:100k,24:50k encoder=x264enc e.src_0 ! fakesink name=a e.src_1 ! fakesink"
    ));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let encoder = pipeline.by_name("e").unwrap();
    for returns in [false, true, false] {
        let seen = seen.clone();
        encoder.connect("encoder-setup", false, move |args| {
            let consumer: String = args[1].get().unwrap();
            let pad: String = args[2].get().unwrap();
            let encoder: gst::Element = args[3].get().unwrap();
            encoder.set_property("bitrate", 77u32);
            seen.lock().unwrap().push((consumer, pad));
            Some(returns.to_value())
        });
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    for encoder in inner(&pipeline, "x264enc") {
        assert_eq!(encoder.property::<u32>("bitrate"), 77);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    let expected = [
        ("0", "src_0"),
        ("0", "src_0"),
        ("1", "src_1"),
        ("1", "src_1"),
    ];
    let seen = seen.lock().unwrap().clone();
    // The third one is not called: the second said that all is set.
    assert!(
        seen.iter()
            .map(|(c, p)| (c.as_str(), p.as_str()))
            .eq(expected),
        "{seen:?}"
    );
}

/// Octets and frames of a pad, and their sizes in pixels.
#[derive(Debug, Default, Clone)]
struct Seen {
    octets: usize,
    frames: u32,
    heights: Vec<i32>,
}

fn watch(pipeline: &gst::Pipeline, sink: &str) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let record = seen.clone();
    let pad = pipeline.by_name(sink).unwrap().static_pad("sink").unwrap();
    let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(mask, move |_, info| {
        let mut seen = record.lock().unwrap();
        if let Some(buffer) = info.buffer() {
            seen.octets += buffer.size();
            seen.frames += 1;
        } else if let Some(gst::EventView::Caps(caps)) = info.event().map(|e| e.view()) {
            let height = caps.caps().structure(0).unwrap().get("height").unwrap();
            if seen.heights.last() != Some(&height) {
                seen.heights.push(height);
            }
        }
        gst::PadProbeReturn::Ok
    });
    seen
}

#[test]
fn every_encoder_keeps_its_bitrate_whatever_comes() {
    init();
    const SECONDS: usize = 6;
    for (codec, kbit) in [
        ("h264", 300),
        ("h264 encoder=openh264enc", 300),
        ("vp8", 300),
        ("vp8", 60),
        ("vp8 temporal-layers=2", 300),
        ("h265", 300),
    ] {
        for pattern in ["snow", "ball", "smpte"] {
            let pipeline = launch(&format!(
                "videotestsrc pattern={pattern} num-buffers={} ! video/x-raw,width=320,height=180,framerate=30/1 ! \
                 simulcastenc codec={codec} layers=180:{kbit}k speed=ultrafast ! fakesink name=a async=false",
                SECONDS * 30
            ));
            let seen = watch(&pipeline, "a");
            play(&pipeline);
            let seen = seen.lock().unwrap().clone();
            let got = seen.octets * 8 / 1_000 / SECONDS;
            println!(
                "{codec} {pattern}: {got} of {kbit} kbit/s, {} frames",
                seen.frames
            );
            // Of noise there are no pictures that are small enough: the first one alone is most of it.
            let limit = if pattern == "snow" {
                kbit * 8 / 5
            } else {
                kbit * 5 / 4
            };
            assert!(
                got <= limit,
                "{codec} {pattern}: {got} kbit/s instead of {kbit}"
            );
            assert!(
                seen.frames
                    >= if pattern == "snow" || kbit < 100 {
                        5
                    } else {
                        100
                    },
                "{codec} {pattern}: {} frames",
                seen.frames
            );
        }
    }
}

#[test]
fn layers_change_while_playing() {
    init();
    for codec in [
        "h264",
        "vp8",
        "h264 encoder=openh264enc",
        "vp8 temporal-layers=2",
    ] {
        let pipeline = launch(&format!(
            "videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=180,framerate=30/1 ! \
             simulcastenc name=e codec={codec} speed=ultrafast layers=180:800k,90:100k e.src_0 ! fakesink name=a e.src_1 ! fakesink name=b"
        ));
        let seen = [watch(&pipeline, "a"), watch(&pipeline, "b")];
        let encoder = pipeline.by_name("e").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let measure = |seconds: u64| {
            let before = seen.each_ref().map(|seen| seen.lock().unwrap().clone());
            std::thread::sleep(Duration::from_secs(seconds));
            let after = seen.each_ref().map(|seen| seen.lock().unwrap().clone());
            [0, 1].map(|n| {
                (
                    (after[n].octets - before[n].octets) * 8 / 1_000 / seconds as usize,
                    (after[n].frames - before[n].frames) / seconds as u32,
                    after[n].heights.last().copied(),
                )
            })
        };
        let first = measure(3);
        encoder.set_property("layers", "90:100k@10");
        assert_eq!(encoder.property::<String>("layers"), "90:100k@10");
        let _settles = measure(1);
        let second = measure(3);
        encoder.set_property("layers", "180:800k,90:100k");
        let _settles = measure(1);
        let third = measure(2);
        pipeline.set_state(gst::State::Null).unwrap();
        println!("{codec}: {first:?} {second:?} {third:?}");
        assert_eq!(
            (first[0].2, second[0].2, third[0].2),
            (Some(180), Some(90), Some(180)),
            "{codec}"
        );
        assert!(
            second[0].0 * 2 < first[0].0,
            "{codec}: the bitrate falls: {first:?} {second:?}"
        );
        assert!(
            (2..=12).contains(&second[0].1),
            "{codec}: ten frames a second: {second:?}"
        );
        assert_eq!(second[1].1, 0, "{codec}: the layer rests: {second:?}");
        assert!(third[1].1 > 0, "{codec}: and comes back: {third:?}");
    }
}

#[test]
fn what_can_not_change_says_so_and_keeps_its_value_in_every_state() {
    init();
    let changes: [(&str, &str); 9] = [
        ("layers", "48:90k"),
        ("codec", "vp8"),
        ("encoder", "vp8enc"),
        ("encoder-properties", "props,threads=1"),
        ("keyframe-interval", "700"),
        ("temporal-layers", "2"),
        ("speed", "faster"),
        ("deinterlace", "off"),
        ("deinterlace-fields", "all"),
    ];
    for state in [
        gst::State::Null,
        gst::State::Ready,
        gst::State::Paused,
        gst::State::Playing,
    ] {
        for (name, text) in changes {
            let pipeline = launch(&format!(
                "{SOURCE} ! simulcastenc name=e layers=48:100k ! fakesink"
            ));
            pipeline.set_state(state).unwrap();
            let encoder = pipeline.by_name("e").unwrap();
            while encoder.current_state() != state {
                std::thread::sleep(Duration::from_millis(2));
            }
            let spec = encoder.find_property(name).unwrap();
            let shown = |encoder: &gst::Element| format!("{:?}", encoder.property_value(name));
            let before = shown(&encoder);
            encoder.set_property_from_str(name, text);
            let is_changed = shown(&encoder) != before;
            let may = state <= gst::State::Ready
                || spec.flags().contains(gst::PARAM_FLAG_MUTABLE_PLAYING);
            assert_eq!(is_changed, may, "{name} in {state:?}");
            let said = warning(&pipeline);
            assert_eq!(said.is_none(), may, "{name} in {state:?}: {said:?}");
            assert!(said.is_none_or(|said| said.contains(name)));
            pipeline.set_state(gst::State::Null).unwrap();
        }
    }
}

#[test]
fn what_is_set_in_ready_counts() {
    init();
    let pipeline = launch(&format!(
        "{SOURCE} ! simulcastenc name=e layers=48:100k ! fakesink"
    ));
    let encoder = pipeline.by_name("e").unwrap();
    for (codec, factory) in [("vp8", "vp8enc"), ("h264", "x264enc")] {
        pipeline.set_state(gst::State::Ready).unwrap();
        encoder.set_property_from_str("codec", codec);
        pipeline.set_state(gst::State::Playing).unwrap();
        let names = encoder.property::<gst::Array>("encoders");
        assert_eq!(names[0].get::<&str>(), Ok(factory));
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn wrong_layers_are_refused_when_they_are_set() {
    init();
    for wrong in ["foo", "", "720", "0:1M", "48:100k@0"] {
        let pipeline = launch(&format!(
            "{SOURCE} ! simulcastenc name=e layers=48:100k ! fakesink"
        ));
        let encoder = pipeline.by_name("e").unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        encoder.set_property("layers", wrong);
        assert_eq!(encoder.property::<String>("layers"), "48:100k", "{wrong:?}");
        assert!(
            warning(&pipeline)
                .is_some_and(|said| said.contains("HEIGHT:BITRATE") || said.contains("height"))
        );
        pipeline.set_state(gst::State::Null).unwrap();
        // Nobody runs something else than was asked for.
        encoder.set_property("layers", wrong);
        assert!(
            pipeline.set_state(gst::State::Playing).is_err(),
            "{wrong:?}"
        );
        pipeline.set_state(gst::State::Null).unwrap();
        encoder.set_property("layers", "48:200k");
        assert!(pipeline.set_state(gst::State::Playing).is_ok());
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Waits until frames come at a sink again.
fn flows(seen: &Arc<Mutex<Seen>>) {
    let before = seen.lock().unwrap().frames;
    let end = Instant::now() + Duration::from_secs(10);
    while seen.lock().unwrap().frames < before + 3 {
        assert!(Instant::now() < end, "nothing comes");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn pads_come_and_go_and_are_linked_anew_in_any_state_and_the_others_go_on() {
    init();
    for state in [
        gst::State::Null,
        gst::State::Ready,
        gst::State::Paused,
        gst::State::Playing,
    ] {
        let pipeline = launch(&format!(
            "{SOURCE} ! simulcastenc name=e layers=48:100k,24:50k e.src_0 ! fakesink name=a async=false"
        ));
        let encoder = pipeline.by_name("e").unwrap();
        let seen = watch(&pipeline, "a");
        pipeline.set_state(state).unwrap();
        std::thread::sleep(Duration::from_millis(150));
        let start = Instant::now();
        for _ in 0..3 {
            let pad = encoder.request_pad_simple("src_1").unwrap();
            let sink = gst::ElementFactory::make("fakesink")
                .property("async", false)
                .build()
                .unwrap();
            pipeline.add(&sink).unwrap();
            pad.link(&sink.static_pad("sink").unwrap()).unwrap();
            sink.sync_state_with_parent().unwrap();
            std::thread::sleep(Duration::from_millis(100));
            encoder.release_request_pad(&pad);
            pipeline.remove(&sink).unwrap();
            sink.set_state(gst::State::Null).unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{state:?}: nothing hangs"
        );
        pipeline.set_state(gst::State::Playing).unwrap();
        flows(&seen);
        // Unlinked, and linked again.
        let (pad, sink) = (
            encoder.static_pad("src_0").unwrap(),
            pipeline.by_name("a").unwrap(),
        );
        let into = sink.static_pad("sink").unwrap();
        pad.unlink(&into).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        pad.link(&into).unwrap();
        flows(&seen);
        let bus = pipeline.bus().unwrap();
        let error = bus.pop_filtered(&[gst::MessageType::Error]);
        assert!(error.is_none(), "{state:?}: {error:?}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Does it on a thread of its own, and waits for no longer than anybody would.
fn in_time(what: &str, does: impl FnOnce() + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        does();
        let _ = done.send(());
    });
    let waited = is_done.recv_timeout(Duration::from_secs(10));
    assert!(waited.is_ok(), "{what} does not return");
}

/// A thread is held up behind it: in PAUSED by a sink that has its first frame, and by one that takes its time.
#[test]
fn a_pad_is_released_whatever_holds_its_thread_up() {
    init();
    let file = "videotestsrc num-buffers=60 ! video/x-raw,width=64,height=48,framerate=30/1";
    let slow = "queue max-size-buffers=1 ! identity sleep-time=500000 ! fakesink sync=false";
    for (what, source, sink, state) in [
        ("a file", file, "fakesink", gst::State::Paused),
        ("a slow sink", SOURCE, slow, gst::State::Playing),
    ] {
        let pipeline = launch(&format!(
            "{source} ! simulcastenc name=e layers=48:100k,24:50k e.src_0 ! {sink} e.src_1 ! queue ! fakesink async=false"
        ));
        pipeline.set_state(state).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        let (encoder, stopped) = (pipeline.by_name("e").unwrap(), pipeline.clone());
        in_time(what, move || {
            let pad = encoder.static_pad("src_0").unwrap();
            if let Some(peer) = pad.peer() {
                pad.unlink(&peer).unwrap();
            }
            encoder.release_request_pad(&pad);
        });
        in_time(what, move || {
            stopped.set_state(gst::State::Null).unwrap();
        });
    }
}

#[test]
fn who_sets_up_an_encoder_may_ask_the_element_for_anything() {
    init();
    let pipeline = launch(&format!(
        "{SOURCE} ! simulcastenc name=e layers=48:100k,24:50k e.src_0 ! fakesink async=false"
    ));
    let encoder = pipeline.by_name("e").unwrap();
    encoder.connect("encoder-setup", false, |args| {
        let element = args[0].get::<gst::Element>().unwrap();
        let _: gst::Structure = element.property("stats");
        let _ = element.property_value("encoders");
        Some(false.to_value())
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let asked = encoder.clone();
    in_time("request", move || {
        assert!(asked.request_pad_simple("src_1").is_some());
    });
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn threads_that_request_at_once_get_a_pad_each() {
    init();
    for _ in 0..20 {
        let layers = "48:100k,40:90k,32:80k,28:50k,24:40k,16:30k";
        let encoder = gst::ElementFactory::make("simulcastenc")
            .property("layers", layers)
            .build()
            .unwrap();
        let ask = |_| {
            let encoder = encoder.clone();
            std::thread::spawn(move || encoder.request_pad_simple("src_%u").map(|pad| pad.name()))
        };
        let asked: Vec<_> = (0..6).map(ask).collect();
        let mut names: Vec<_> = asked
            .into_iter()
            .map(|t| t.join().unwrap().unwrap())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 6);
    }
}

/// Encoders would read on where nothing is.
#[test]
fn frames_that_are_smaller_than_they_say_are_left_out() {
    init();
    let pipeline = launch(
        "appsrc name=in is-live=true format=time caps=video/x-raw,format=I420,width=160,height=120,framerate=30/1 \
         ! simulcastenc name=e layers=120:100k e.src_0 ! fakesink name=a async=false",
    );
    let seen = watch(&pipeline, "a");
    let source = pipeline.by_name("in").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for n in 0..40u64 {
        let size = match n {
            10 => 0,
            15 => 1,
            20 => 19_200,
            25 => 28_799,
            _ => 28_800,
        };
        let mut buffer = gst::Buffer::from_slice(vec![128u8; size]);
        let time = gst::ClockTime::from_mseconds(33 * n);
        buffer.get_mut().unwrap().set_pts(time);
        let pushed: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(pushed, gst::FlowReturn::Ok);
        std::thread::sleep(Duration::from_millis(20));
    }
    flows_until(&seen, 30);
    let stats: gst::Structure = pipeline.by_name("e").unwrap().property("stats");
    assert_eq!(stats.get::<u64>("frames-broken").unwrap(), 4);
    let said = warning(&pipeline).unwrap();
    assert!(
        said.contains("octets") && said.contains("160x120"),
        "{said}"
    );
    assert!(warning(&pipeline).is_none(), "once");
    let bus = pipeline.bus().unwrap();
    assert!(bus.pop_filtered(&[gst::MessageType::Error]).is_none());
    pipeline.set_state(gst::State::Null).unwrap();
}

/// Waits for so many frames in all.
fn flows_until(seen: &Arc<Mutex<Seen>>, frames: u32) {
    let end = Instant::now() + Duration::from_secs(10);
    while seen.lock().unwrap().frames < frames {
        assert!(Instant::now() < end, "fewer than {frames} come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
