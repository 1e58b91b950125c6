// SPDX-License-Identifier: MPL-2.0
//! Steps of time through every output of a stream: each goes on within a second, and the next publisher finds nothing left.

mod running;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::Running;

/// How long the publisher whose time steps is there, and the clean one that follows.
const FIRST: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(4);
/// What each may cost: its beginning, and the step.
const BEGINNING: f64 = 1.8;
const STEP: f64 = 1.0;
/// Frames a second, and the frame at which time steps.
const RATE: f64 = 15.0;
const AT: u64 = 30;

fn init() {
    running::init();
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("libgstfmp4.so");
    gst::Plugin::load_file(built).expect("isofmp4mux must be built: ./sfu build");
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let all = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = all
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect();
    files.sort();
    files
}

type By = fn(u64) -> Option<f64>;

/// Changes the time of what leaves an element, `rate` buffers a second, by this many seconds.
fn change(running: &Running, name: &str, rate: f64, by: By) {
    let pad = running.0.by_name(name).unwrap().static_pad("src").unwrap();
    let count = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let n = count.fetch_add(1, Relaxed) as f64 * RATE / rate;
        let buffer = info.buffer_mut().unwrap().make_mut();
        let pts = buffer.pts().unwrap();
        let moved = by(n as u64).map(|by| {
            // Time begins late enough to be stepped back from.
            let at = pts.nseconds() as f64 + (by + 1_000.0) * 1e9;
            gst::ClockTime::from_nseconds(at as u64)
        });
        buffer.set_pts(moved);
        buffer.set_dts(moved.filter(|_| buffer.dts().is_some()));
        gst::PadProbeReturn::Ok
    });
}

fn publisher(stream: &str, encoded: bool, by: By) -> Running {
    let encoder = match encoded {
        true => {
            "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=200 ! h264parse !"
        }
        false => "",
    };
    let running = Running::prepare(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=15/1 ! {encoder} identity name=v \
         ! sfusink name=out stream={stream} layers=120:200k \
         audiotestsrc is-live=true samplesperbuffer=882 ! audio/x-raw,rate=44100 ! identity name=a ! out."
    ));
    change(&running, "v", RATE, by);
    change(&running, "a", 50.0, by);
    running.play();
    running
}

/// What came out at one end: each buffer's time and when it came.
#[derive(Clone, Default)]
struct Came(Arc<Mutex<Vec<(f64, Instant)>>>);

impl Came {
    fn at(running: &Running, name: &str) -> Self {
        let came = Self::default();
        let pad = running.0.by_name(name).unwrap().static_pad("sink").unwrap();
        let (times, flv) = (came.0.clone(), name == "flv");
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            // Of what is in FLV, pictures: sound alone goes on by itself.
            let is_sound = |buffer: &gst::BufferRef| {
                let data = buffer.map_readable().unwrap();
                flv && data.first() != Some(&9)
            };
            let buffer = info.buffer().filter(|buffer| !is_sound(buffer));
            let time = buffer.and_then(|buffer| buffer.dts_or_pts());
            if let Some(time) = time {
                let time = time.nseconds() as f64 / 1e9;
                times.lock().unwrap().push((time, Instant::now()));
            }
            gst::PadProbeReturn::Ok
        });
        came
    }

    fn between(&self, from: Instant, until: Instant) -> Vec<f64> {
        let times = self.0.lock().unwrap();
        let in_time = times.iter().filter(|(_, at)| (from..until).contains(at));
        in_time.map(|(time, _)| *time).collect()
    }
}

/// The seconds that each run of a playlist lasts.
fn playlist(folder: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(folder.join("0.m3u8"))
        .or_else(|_| {
            let lists = files(folder);
            let list = lists.iter().find(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(".m3u8") && name != "index.m3u8"
            });
            std::fs::read_to_string(list.cloned().unwrap_or_default())
        })
        .unwrap_or_default();
    let mut runs = vec![0.0];
    for line in text.lines() {
        if line == "#EXT-X-DISCONTINUITY" {
            runs.push(0.0);
        }
        let lasts = line
            .strip_prefix("#EXTINF:")
            .and_then(|rest| rest.split(',').next());
        if let (Some(lasts), Some(run)) = (lasts, runs.last_mut()) {
            *run += lasts.parse::<f64>().unwrap();
        }
    }
    runs.retain(|run| *run > 0.0);
    runs
}

/// How many pictures and seconds of sound a file has.
fn recorded(file: &Path) -> (usize, f64) {
    let player = Running::prepare(&format!(
        "filesrc location={} ! qtdemux name=d d.video_0 ! fakesink name=v sync=false async=false d.audio_0 ! fakesink name=a sync=false async=false",
        file.display()
    ));
    let (pictures, sound) = (Came::at(&player, "v"), Came::at(&player, "a"));
    player.play();
    let end = player.next(&[gst::MessageType::Error, gst::MessageType::Eos]);
    assert_eq!(
        end.type_(),
        gst::MessageType::Eos,
        "{}: {end:?}",
        file.display()
    );
    let (pictures, sound) = (pictures.0.lock().unwrap(), sound.0.lock().unwrap());
    (pictures.len(), sound.len() as f64 * 0.02)
}

/// One kind of step: what each output lost of what it should have, in seconds.
fn run(name: &str, encoded: bool, by: By) {
    let form = if encoded { "encoded" } else { "raw" };
    let stream = format!("out-{name}-{form}");
    let folder = std::env::temp_dir().join(format!("sfu-time-{stream}-{}", std::process::id()));
    let folder = Folder(folder);
    let path = folder.0.display();
    let outputs = Running::start(&format!(
        "sfuhlssink name=hls stream={stream} directory={path}/hls segment-duration=1000 playlist-length=30 \
         sfurecorder name=rec stream={stream} directory={path}/rec"
    ));
    // What is pushed to an RTMP service, and what RTSP players get.
    let push = Running::prepare(&format!(
        "sfusrc name=in stream={stream} in.video_0 ! queue ! h264parse ! flvmux name=mux streamable=true latency=500000000 \
         ! fakesink name=flv sync=false async=false \
         in.audio_0 ! queue ! opusdec plc=true ! audioconvert ! audioresample ! avenc_aac ! mux."
    ));
    let play = Running::prepare(&format!(
        "sfusrc name=in stream={stream} in.video_0 ! queue ! h264parse ! rtph264pay ! fakesink name=rtp sync=false async=false"
    ));
    let ends = [("flv", Came::at(&push, "flv")), ("rtp", Came::at(&play, "rtp"))];
    push.play();
    play.play();
    let mut times = Vec::new();
    for (by, lasts) in [(by, FIRST), (|_| Some(0.0), SECOND)] {
        let publisher = publisher(&stream, encoded, by);
        let began = Instant::now();
        std::thread::sleep(lasts);
        times.push((began, Instant::now()));
        let steps: u64 = publisher.stat("out", "timestamp-steps");
        println!("{stream}: {steps} steps");
        drop(publisher);
        std::thread::sleep(Duration::from_millis(300));
    }
    let element = outputs.0.by_name("rec").unwrap();
    element.send_event(gst::event::Eos::new());
    std::thread::sleep(Duration::from_millis(1_200));
    drop(outputs);

    let wanted = [
        FIRST.as_secs_f64() - BEGINNING - STEP,
        SECOND.as_secs_f64() - BEGINNING,
    ];
    let hls = playlist(&folder.0.join("hls").join(&stream));
    println!("{stream}: HLS of {hls:?} s");
    // A segment that had begun ends with its publisher.
    assert_eq!(hls.len(), 2, "{stream}: runs of HLS");
    for (run, wanted) in hls.iter().zip(wanted) {
        assert!(
            *run > wanted - 0.5 && *run < 6.5,
            "{stream}: {run} s of HLS instead of {wanted}"
        );
    }
    let files: Vec<_> = files(&folder.0.join("rec"))
        .iter()
        .map(|file| recorded(file))
        .collect();
    println!("{stream}: recordings of {files:?} pictures and seconds of sound");
    assert!((2..=3).contains(&files.len()), "{stream}: {files:?}");
    let pictures = files.iter().map(|(pictures, _)| *pictures).sum::<usize>() as f64 / RATE;
    let sound = files.iter().map(|(_, sound)| *sound).sum::<f64>();
    let all = wanted.iter().sum::<f64>();
    assert!(pictures > all && sound > all, "{stream}: {files:?}");
    for (end, came) in ends {
        for ((from, until), wanted) in times.iter().zip(wanted) {
            let times = came.between(*from, *until);
            let (first, last) = (times.first().unwrap_or(&0.0), times.last().unwrap_or(&0.0));
            let far = times.windows(2).map(|pair| pair[1] - pair[0]);
            let far = far.fold(0.0, |far: f64, step| far.max(step.abs()));
            println!(
                "{stream}: {end} from {first:.2} to {last:.2} s, {far:.2} s at most between two"
            );
            assert!(
                last - first > wanted && last - first < 7.0,
                "{stream}: {end}"
            );
            assert!(far < 1.2, "{stream}: {end}: {far} s between two");
        }
    }
}

#[test]
fn every_output_goes_on_and_the_next_publisher_finds_nothing_left() {
    init();
    let kinds: [(&str, By); 7] = [
        ("clean", |_| Some(0.0)),
        ("back", |n| Some(if n < AT { 0.0 } else { -30.0 })),
        ("forward", |n| Some(if n < AT { 0.0 } else { 60.0 })),
        ("one-ahead", |n| Some(if n == AT { 60.0 } else { 0.0 })),
        ("repeats", |n| {
            let by = (AT as f64 - n as f64) / RATE;
            Some(if (AT..AT + 8).contains(&n) { by } else { 0.0 })
        }),
        ("wraps", |n| Some(if n < AT { 95_443.0 } else { -900.0 })),
        ("missing", |n| (!(AT..AT + 5).contains(&n)).then_some(0.0)),
    ];
    let runs = kinds
        .iter()
        .flat_map(|(name, by)| [(*name, false, *by), (*name, true, *by)]);
    let runs: Vec<_> = runs.collect();
    for together in runs.chunks(5) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = together
                .iter()
                .map(|(name, encoded, by)| scope.spawn(|| run(name, *encoded, *by)))
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
