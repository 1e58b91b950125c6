// SPDX-License-Identifier: MPL-2.0
//! Time does anything: files play out exactly, and steps of live sources cost what is missing.

mod running;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Running, init};

#[test]
fn what_is_not_live_plays_out_exactly() {
    init();
    let picture = "video/x-raw,width=160,height=120,framerate=30/1";
    for (n, source) in [
        format!("videotestsrc num-buffers=150 ! {picture}"),
        format!("concat name=c ! out.  videotestsrc num-buffers=60 ! {picture} ! c.  videotestsrc num-buffers=90 ! {picture} ! c."),
    ]
    .iter()
    .enumerate()
    {
        let link = if source.contains("out.") { "" } else { "! out." };
        let line = format!("sfusink name=out stream=file{n} layers=120:200k,60:80k  {source} {link}");
        let running = Running::prepare(&line);
        let layers = Arc::new(Mutex::new(Vec::new()));
        // The layers' ends are there when caps have come: the different times of what comes to them.
        let bin = running.0.by_name("out").unwrap().downcast::<gst::Bin>().unwrap();
        let seen = layers.clone();
        bin.connect_element_added(move |_, element| {
            if element.type_().name() == "GstAppSink" {
                let count = Arc::new(Mutex::new(BTreeSet::new()));
                let times = count.clone();
                let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
                element.static_pad("sink").unwrap().add_probe(mask, move |_, info| {
                    let list = info.buffer_list().and_then(|list| list.get(0)?.pts());
                    let pts = info.buffer().and_then(|b| b.pts()).or(list);
                    times.lock().unwrap().insert(pts.unwrap().nseconds());
                    gst::PadProbeReturn::Ok
                });
                seen.lock().unwrap().push(count);
            }
        });
        running.play();
        std::thread::sleep(Duration::from_millis(700));
        // A pause loses nothing.
        running.0.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        running.play();
        running.ended();
        let frames: Vec<_> = layers.lock().unwrap().iter().map(|times| times.lock().unwrap().len()).collect();
        assert_eq!(frames, [150, 150], "{source}");
        running.quiet();
    }
}

/// A live source whose timestamps are changed, frame by frame, by this many seconds (or are taken away).
fn stepping(stream: &str, by: impl Fn(u64) -> Option<f64> + Send + Sync + 'static) -> Running {
    let running = Running::prepare(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1 ! identity name=step \
         ! sfusink name=out stream={stream} layers=120:200k  audiotestsrc is-live=true ! out."
    ));
    let pad = running
        .0
        .by_name("step")
        .unwrap()
        .static_pad("src")
        .unwrap();
    let count = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let n = count.fetch_add(1, Relaxed);
        let buffer = info.buffer_mut().unwrap().make_mut();
        let pts = buffer.pts().unwrap();
        buffer.set_pts(by(n).map(|by| {
            // Time begins late enough to be stepped back from.
            let at = pts.nseconds() as f64 + (by + 1_000.0) * 1e9;
            gst::ClockTime::from_nseconds(at as u64)
        }));
        buffer.set_dts(gst::ClockTime::NONE);
        gst::PadProbeReturn::Ok
    });
    running.play();
    running
}

#[test]
fn steps_of_time_cost_what_is_missing_and_the_next_publisher_nothing() {
    init();
    let step = 60; // frames
    type By = fn(u64) -> Option<f64>;
    let kinds: [(&str, By); 6] = [
        ("back", |n| Some(if n < 60 { 0.0 } else { -30.0 })),
        ("forward", |n| Some(if n < 60 { 0.0 } else { 60.0 })),
        ("one-ahead", |n| Some(if n == 60 { 60.0 } else { 0.0 })),
        ("repeats", |n| {
            Some(if (60..70).contains(&n) {
                (60 - n as i64) as f64 / 30.0
            } else {
                0.0
            })
        }),
        ("wraps", |n| Some(if n < 60 { 95_443.0 } else { -900.0 })),
        ("missing", |n| (!(60..65).contains(&n)).then_some(0.0)),
    ];
    for (name, by) in kinds {
        let stream = format!("steps-{name}");
        let player = Running::prepare(&format!(
            "sfusrc name=in stream={stream} in.video_0 ! fakesink name=frames sync=false in.audio_0 ! fakesink sync=false"
        ));
        let count = Arc::new((AtomicU64::new(0), Mutex::new(Vec::<u64>::new())));
        let seen = count.clone();
        let pad = player
            .0
            .by_name("frames")
            .unwrap()
            .static_pad("sink")
            .unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            seen.0.fetch_add(1, Relaxed);
            seen.1
                .lock()
                .unwrap()
                .extend(info.buffer().unwrap().pts().map(gst::ClockTime::nseconds));
            gst::PadProbeReturn::Ok
        });
        player.play();
        for round in 0..2 {
            let before = count.0.load(Relaxed);
            let publisher = match round {
                0 => stepping(&stream, by),
                _ => stepping(&stream, |_| Some(0.0)),
            };
            let began = Instant::now();
            std::thread::sleep(Duration::from_secs(5));
            let came = count.0.load(Relaxed) - before;
            let steps: u64 = publisher.stat("out", "timestamp-steps");
            println!(
                "{name}, publisher {round}: {came} frames in {:?}, {steps} steps",
                began.elapsed()
            );
            // 150 less a second to begin with, and a second for the step.
            assert!(came > 85, "{name}, publisher {round}: {came} frames");
            assert_eq!(steps > 0, round == 0 && name != "missing", "{name} {steps}");
            drop(publisher);
        }
        let times = count.1.lock().unwrap();
        let far = times.windows(2).map(|w| w[1].abs_diff(w[0])).max().unwrap();
        assert!(
            far < 3_000_000_000,
            "{name}: {far} ns between two frames; the step is at frame {step}"
        );
    }
}
