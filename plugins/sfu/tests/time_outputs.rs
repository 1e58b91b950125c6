// SPDX-License-Identifier: MPL-2.0
//! Steps of time through every output of a stream: each goes on within a second, and the next publisher finds nothing left.

mod running;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Folder, Running};

/// Frames a second, and sound buffers.
const RATE: f64 = 15.0;
const SOUND_RATE: f64 = 50.0;
/// What may be lost: by a step of time, and by the beginning and the end of a publisher, once an output has begun.
const STEP: f64 = 1.0;
const END: f64 = 0.6;
/// How long there are pictures before the step, and after it, and of the clean publisher that follows.
const BEFORE: f64 = 0.5;
const AFTER: f64 = 3.5;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

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

/// By how many seconds time is moved, this many seconds after the step.
type By = fn(f64) -> Option<f64>;

/// A publisher whose time steps once it is told to, and what it really made.
struct Source {
    running: Running,
    pictures: Arc<AtomicU64>,
    /// The timestamp at which it steps.
    step: Arc<AtomicU64>,
}

impl Source {
    fn start(stream: &str, encoded: bool, by: By) -> Self {
        let encoder = match encoded {
            true => {
                "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 bitrate=200 ! h264parse !"
            }
            false => "",
        };
        let running = Running::prepare(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=15/1 ! {encoder} identity name=v \
             ! sfusink name=out stream={stream} layers=120:200k \
             audiotestsrc is-live=true samplesperbuffer=882 ! audio/x-raw,rate=44100 ! identity name=a ! out."
        ));
        let source = Self {
            running,
            pictures: Arc::default(),
            step: Arc::new(AtomicU64::new(u64::MAX)),
        };
        source.change("v", source.pictures.clone(), by);
        source.change("a", Arc::default(), by);
        source.running.play();
        source
    }

    fn change(&self, name: &str, count: Arc<AtomicU64>, by: By) {
        let element = self.running.0.by_name(name).unwrap();
        let step = self.step.clone();
        let mask = gst::PadProbeType::BUFFER;
        let probe = move |_: &gst::Pad, info: &mut gst::PadProbeInfo<'_>| {
            count.fetch_add(1, Relaxed);
            let buffer = info.buffer_mut().unwrap().make_mut();
            let pts = buffer.pts().unwrap().nseconds();
            let since = pts as f64 / 1e9 - step.load(Relaxed) as f64 / 1e9;
            // Half a millisecond: frames have times that are rounded down.
            let by = if since < -0.0005 {
                Some(0.0)
            } else {
                by(since + 0.0005)
            };
            let moved = by.map(|by| {
                // Time begins late enough to be stepped back from.
                gst::ClockTime::from_nseconds((pts as f64 + (by + 1_000.0) * 1e9) as u64)
            });
            buffer.set_pts(moved);
            buffer.set_dts(moved.filter(|_| buffer.dts().is_some()));
            gst::PadProbeReturn::Ok
        };
        element.static_pad("src").unwrap().add_probe(mask, probe);
    }

    /// How many seconds of pictures there were so far.
    fn made(&self) -> f64 {
        self.pictures.load(Relaxed) as f64 / RATE
    }

    fn until(&self, made: f64) {
        wait("pictures", || self.made() >= made);
    }

    fn steps(&self) -> u64 {
        self.running.stat("out", "timestamp-steps")
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What came out at one end: each buffer's time.
#[derive(Clone, Default)]
struct Came(Arc<Mutex<Vec<f64>>>);

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
                times.lock().unwrap().push(time.nseconds() as f64 / 1e9);
            }
            gst::PadProbeReturn::Ok
        });
        came
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Their times, from this one on.
    fn since(&self, first: usize) -> Vec<f64> {
        self.0.lock().unwrap()[first..].to_vec()
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

/// How many seconds of pictures and of sound a file has.
fn recorded(file: &Path) -> (f64, f64) {
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
    (
        pictures.len() as f64 / RATE,
        sound.len() as f64 / SOUND_RATE,
    )
}

/// A viewer by WHEP, who watches for as long as the rest of a round takes.
struct Viewer {
    load: Child,
    began: Instant,
    made: f64,
}

impl Viewer {
    fn start(source: &Source, stream: &str, port: u32) -> Self {
        let program = std::env::current_exe().unwrap();
        let tool = program.ancestors().nth(2).unwrap().join("sfu-load");
        let load = Command::new(tool)
            .args(["--whep", &format!("http://127.0.0.1:{port}/whep/{stream}")])
            .args(["--duration", &format!("{}s", BEFORE + AFTER), "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sfu-load must be built: ./sfu build");
        let out = source.running.0.by_name("out").unwrap();
        wait("viewer", || out.property::<u32>("viewers") > 0);
        Self {
            load,
            began: Instant::now(),
            made: source.made(),
        }
    }

    /// How many seconds of pictures it lost of those that were made meanwhile.
    fn lost(self, source: &Source) -> f64 {
        let output = self.load.wait_with_output().unwrap();
        let made = (source.made() - self.made) / self.began.elapsed().as_secs_f64();
        let text = String::from_utf8(output.stdout).unwrap();
        let seen: serde_json::Value = serde_json::from_str(text.trim()).expect(&text);
        let figure = |name: &str| seen[name].as_f64().unwrap();
        assert_eq!(figure("broken_frames"), 0.0, "{text}");
        let seconds = figure("steady_seconds");
        (made * RATE - figure("frames_per_second_per_viewer")) * seconds / RATE
    }
}

/// One kind of step: what each output lost of what was made, once it had begun.
fn run(name: &str, encoded: bool, by: By, port: u32) {
    let form = if encoded { "encoded" } else { "raw" };
    let stream = format!("out-{name}-{form}");
    let folder = std::env::temp_dir().join(format!("sfu-time-{stream}-{}", std::process::id()));
    let folder = Folder(folder);
    let path = folder.0.display();
    let outputs = Running::start(&format!(
        "sfuhlssink name=hls stream={stream} directory={path}/hls segment-duration=1000 playlist-length=60 \
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
    let ends = [
        ("flv", Came::at(&push, "flv")),
        ("rtp", Came::at(&play, "rtp")),
    ];
    push.play();
    play.play();
    let (hls, rec) = (folder.0.join("hls").join(&stream), folder.0.join("rec"));
    let (mut files_before, mut wanted) = (0, Vec::new());
    for (round, by) in [(0, by), (1, (|_| Some(0.0)) as By)] {
        let before = ends.each_ref().map(|(_, came)| came.count());
        let source = Source::start(&stream, encoded, by);
        let begun = |came: &Came, before: usize| came.count() > before + 3;
        wait(&format!("beginning of {stream}"), || {
            let both = ends
                .iter()
                .zip(before)
                .all(|((_, came), before)| begun(came, before));
            both && files(&rec).len() > files_before && playlist(&hls).len() > round
        });
        let viewer = Viewer::start(&source, &stream, port);
        let began = source.made();
        // What is in the playlist by now was made before.
        let (at, counts) = (
            began + BEFORE,
            ends.each_ref().map(|(_, came)| came.count()),
        );
        let step = gst::ClockTime::from_nseconds((at * RATE).round() as u64 * 1_000_000_000 / 15);
        source.step.store(step.nseconds(), Relaxed);
        source.until(at + AFTER);
        let made = source.made() - began;
        let may_lose = END + if round == 0 { STEP } else { 0.0 };
        let steps = source.steps();
        println!("{stream}, publisher {round}: {made:.2} s after all had begun, {steps} steps");
        // What has no times gets those at which it comes, which may be later than those that follow.
        let has_steps = round == 0 && name != "clean";
        let may_have = round == 0 && name == "missing";
        assert!(
            may_have || (steps > 0) == has_steps,
            "{stream}: {steps} steps"
        );
        for ((end, came), count) in ends.iter().zip(counts) {
            wait(
                &format!("end of {stream} by {end}: {:?}", came.since(count)),
                || (came.count() - count) as f64 / RATE >= made - may_lose,
            );
            let times = came.since(count);
            let far = times.windows(2).map(|pair| pair[1] - pair[0]);
            let far = far.fold(0.0, |far: f64, step| far.max(step.abs()));
            let lasts = times.last().unwrap() - times[0];
            println!(
                "{stream}, publisher {round}: {end} {lasts:.2} s, {far:.2} s at most between two"
            );
            assert!(far < 1.2, "{stream}: {end}: {far} s between two");
        }
        let lost = viewer.lost(&source);
        println!("{stream}, publisher {round}: WHEP lost {lost:.2} s");
        assert!(lost <= may_lose, "{stream}: WHEP lost {lost} s");
        wanted.push(made - may_lose);
        drop(source);
        wait(&format!("end of {stream}"), || {
            outputs
                .0
                .by_name("hls")
                .unwrap()
                .property::<gst::Structure>("stats")
                .get::<String>("state")
                .unwrap()
                == "waiting"
        });
        files_before = files(&rec).len();
    }
    for name in ["rec", "hls"] {
        let element = outputs.0.by_name(name).unwrap();
        element.send_event(gst::event::Eos::new());
    }
    outputs.next(&[gst::MessageType::Eos]);
    drop(outputs);

    let runs = playlist(&hls);
    println!("{stream}: HLS of {runs:?} s");
    assert_eq!(runs.len(), 2, "{stream}: runs of HLS");
    for (run, wanted) in runs.iter().zip(&wanted) {
        // A segment that had begun ends with its publisher.
        assert!(run > wanted, "{stream}: {run} s of HLS instead of {wanted}");
    }
    let files: Vec<_> = files(&rec).iter().map(|file| recorded(file)).collect();
    println!("{stream}: recordings of {files:?} seconds of pictures and of sound");
    assert!((2..=3).contains(&files.len()), "{stream}: {files:?}");
    let pictures = files.iter().map(|(pictures, _)| pictures).sum::<f64>();
    let sound = files.iter().map(|(_, sound)| sound).sum::<f64>();
    let all = wanted.iter().sum::<f64>();
    assert!(
        pictures > all && sound > all,
        "{stream}: {files:?} instead of {all}"
    );
}

#[test]
fn every_output_goes_on_and_the_next_publisher_finds_nothing_left() {
    running::init_recordings();
    const FRAME: f64 = 1.0 / RATE;
    let kinds: [(&str, By); 8] = [
        ("clean", |_| Some(0.0)),
        ("back", |_| Some(-30.0)),
        ("forward", |_| Some(60.0)),
        ("one-ahead", |t| Some(if t < FRAME { 60.0 } else { 0.0 })),
        ("repeats", |t| Some(if t < 8.0 * FRAME { -t } else { 0.0 })),
        ("twice", |t| Some(-(t % (2.0 * FRAME)))),
        ("wraps", |_| Some(-900.0)),
        ("missing", |t| (t > 5.0 * FRAME).then_some(0.0)),
    ];
    let only = std::env::var("SFU_KIND").unwrap_or_default();
    let runs = kinds
        .iter()
        .flat_map(|(name, by)| [(*name, false, *by), (*name, true, *by)])
        .filter(|(name, ..)| name.contains(&only));
    let runs: Vec<_> = runs.collect();
    let server = Running::start("sfusignaller name=http listen=127.0.0.1:0 udp-port=0");
    let port: u32 = server.0.by_name("http").unwrap().property("port");
    for together in runs.chunks(8) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = together
                .iter()
                .map(|(name, encoded, by)| scope.spawn(|| run(name, *encoded, *by, port)))
                .collect();
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }
}
