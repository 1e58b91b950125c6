// SPDX-License-Identifier: MPL-2.0
//! One of picture and sound stalls, comes late or ends: the other one goes on by every output, and what comes back is in
//! again.

#[path = "../../../tests/hls.rs"]
#[allow(dead_code, unreachable_pub)]
mod hls;
mod running;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gst::prelude::*;
use hls::{Checker, Playlist, Segment};
use running::{Folder, Running};

/// Pictures and buffers of sound a second.
const RATES: [f64; 2] = [15.0, 50.0];
/// How long each phase lasts: before, while one is away, and after.
const PHASES: [f64; 3] = [2.5, 5.0, 3.0];
/// What is away at the beginning is there, or given up, within this.
const BEGINS: f64 = 4.0;
/// What comes back is in again within this.
const BACK: f64 = 1.5;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(40);
/// What carries pictures and sound in MPEG-TS, beside each other and sound alone.
const PIDS: [u16; 2] = [65, 66];

/// Pictures, sound.
const NAMES: [&str; 2] = ["pictures", "sound"];

/// What comes in each phase.
struct Kind {
    name: &'static str,
    pictures: [bool; 3],
    sound: [bool; 3],
    /// Its format is not known before it comes.
    silent: bool,
    /// What stops has ended.
    ends: bool,
}

impl Kind {
    fn comes(&self, track: usize, phase: usize) -> bool {
        [self.pictures, self.sound][track][phase]
    }
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

/// Buffers that passed a pad, of pictures and of sound.
type Counts = Arc<[AtomicU64; 2]>;

fn seconds(counts: &Counts) -> [f64; 2] {
    [0, 1].map(|track| counts[track].load(Relaxed) as f64 / RATES[track])
}

/// A publisher, and what it really made.
struct Source {
    running: Running,
    made: Counts,
}

impl Source {
    fn start(stream: &str, kind: &Kind) -> Self {
        let mode = match kind.silent {
            true => "drop-all",
            false => "forward-sticky-events",
        };
        let running = Running::prepare(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=15/1 ! valve name=v0 drop-mode={mode} \
             ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=600 bitrate=200 ! h264parse ! sfusink name=out stream={stream} \
             audiotestsrc is-live=true samplesperbuffer=960 ! audio/x-raw,rate=48000 ! valve name=v1 drop-mode={mode} ! out."
        ));
        let source = Self {
            running,
            made: Arc::default(),
        };
        for track in [0, 1] {
            let made = source.made.clone();
            let pad = source.valve(track).static_pad("src").unwrap();
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                made[track].fetch_add(1, Relaxed);
                gst::PadProbeReturn::Ok
            });
            source.open(track, kind.comes(track, 0));
        }
        source.running.play();
        source
    }

    fn valve(&self, track: usize) -> gst::Element {
        self.running.0.by_name(&format!("v{track}")).unwrap()
    }

    fn open(&self, track: usize, open: bool) {
        self.valve(track).set_property("drop", !open);
    }

    fn end(&self, track: usize) {
        let pad = self.valve(track).static_pad("src").unwrap();
        pad.push_event(gst::event::Eos::new());
    }
}

/// What a push to an RTMP service gets.
fn pushed(stream: &str) -> (Running, Counts) {
    let push = Running::prepare(&format!(
        "sfusrc name=in stream={stream} in.video_0 ! queue ! h264parse ! flvmux name=mux streamable=true latency=500000000 \
         ! fakesink name=flv sync=false async=false \
         in.audio_0 ! queue ! opusdec plc=true ! audioconvert ! audioresample ! audio/x-raw,rate=48000 \
         ! avenc_aac ! mux."
    ));
    let counts = Counts::default();
    let (counted, pad) = (counts.clone(), push.0.by_name("flv").unwrap());
    let pad = pad.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let map = info.buffer().unwrap().map_readable().unwrap();
        match map.first() {
            Some(9) => counted[0].fetch_add(1, Relaxed),
            // 1,024 samples, as fiftieths of a second.
            Some(8) => counted[1].fetch_add(1, Relaxed),
            _ => 0,
        };
        gst::PadProbeReturn::Ok
    });
    push.play();
    (push, counts)
}

/// What a segment has: pictures and sound. Sound alone is in the place of the pictures.
fn has(folder: &Path, segment: &Segment) -> [bool; 2] {
    let data = std::fs::read(folder.join(&segment.uri)).unwrap();
    let begins = |p: &&[u8]| {
        let pid = u16::from_be_bytes([p[1] & 0x1f, p[2]]);
        p[1] & 0x40 != 0 && PIDS.contains(&pid)
    };
    [0xe0, 0xc0].map(|id| {
        let mut of_it = data.chunks(188).filter(begins);
        of_it.any(|p| p.windows(4).any(|w| w == [0, 0, 1, id]))
    })
}

/// How many seconds of pictures and of sound the files of a folder have.
fn recorded(folder: &Path) -> [f64; 2] {
    let mut all = [0.0; 2];
    let files = std::fs::read_dir(folder.read_dir().unwrap().next().unwrap().unwrap().path());
    for file in files.unwrap() {
        let path = file.unwrap().path();
        let counts = Counts::default();
        let player = Running::prepare(&format!(
            "filesrc location={} ! qtdemux name=d",
            path.display()
        ));
        let counted = counts.clone();
        player
            .0
            .by_name("d")
            .unwrap()
            .connect_pad_added(move |d, pad| {
                let track = usize::from(pad.name().starts_with("audio"));
                let sink = gst::ElementFactory::make("fakesink");
                let sink = sink
                    .property("sync", false)
                    .property("async", false)
                    .build()
                    .unwrap();
                d.parent()
                    .and_downcast::<gst::Bin>()
                    .unwrap()
                    .add(&sink)
                    .unwrap();
                sink.sync_state_with_parent().unwrap();
                pad.link(&sink.static_pad("sink").unwrap()).unwrap();
                let counted = counted.clone();
                pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                    counted[track].fetch_add(1, Relaxed);
                    gst::PadProbeReturn::Ok
                });
            });
        player.play();
        let end = player.next(&[gst::MessageType::Error, gst::MessageType::Eos]);
        assert_eq!(
            end.type_(),
            gst::MessageType::Eos,
            "{}: {end:?}",
            path.display()
        );
        println!("{}: {:?}", path.display(), seconds(&counts));
        for (sum, seconds) in all.iter_mut().zip(seconds(&counts)) {
            *sum += seconds;
        }
    }
    all
}

fn run(kind: &Kind) {
    let stream = format!("stalls-{}", kind.name);
    let folder = std::env::temp_dir().join(format!("sfu-{stream}-{}", std::process::id()));
    let folder = Folder(folder);
    let path = folder.0.display();
    let outputs = Running::start(&format!(
        "sfuhlssink name=hls stream={stream} directory={path}/hls segment-duration=1000 playlist-length=60 \
         sfurecorder name=rec stream={stream} directory={path}/rec"
    ));
    let (_push, pushed) = pushed(&stream);
    let hls = folder.0.join("hls").join(&stream);
    let fetched = hls.clone();
    let mut checker = Checker::new(Box::new(move |name| std::fs::read(fetched.join(name)).ok()));
    let source = Source::start(&stream, kind);
    // How much of it came, at the ends of the phases.
    let (mut made, mut sent) = (vec![[0.0; 2]], vec![[0.0; 2]]);
    let mut states = Vec::new();
    for (phase, lasts) in PHASES.into_iter().enumerate() {
        for track in [0, 1] {
            source.open(track, kind.comes(track, phase));
            if kind.ends && phase == 1 && !kind.comes(track, 1) {
                source.end(track);
            }
        }
        let began = now();
        wait("time", || now() > began + lasts);
        let begins = if phase == 0 { BEGINS } else { BACK };
        let wanted = [0, 1].map(|track| kind.comes(track, phase));
        let is_listed = |all: &BTreeMap<String, Playlist>| {
            let segments = all["v0.m3u8"].segments.values();
            let mut of_it = segments.filter(|s| s.date > began + begins);
            of_it.any(|segment| {
                let has = has(&hls, segment);
                (0..2).all(|track| has[track] || !wanted[track])
            })
        };
        let what = format!("segment with {wanted:?} in phase {phase} of {stream}");
        checker.until(&what, PATIENCE, is_listed);
        states.push(outputs.stat::<String>("hls", "state"));
        made.push(seconds(&source.made));
        let mut came = seconds(&pushed);
        came[1] *= 1_024.0 / 960.0;
        sent.push(came);
    }
    drop(source);
    for name in ["rec", "hls"] {
        let element = outputs.0.by_name(name).unwrap();
        element.send_event(gst::event::Eos::new());
    }
    outputs.next(&[gst::MessageType::Eos]);
    let all = checker.look().unwrap();
    let eras = all["v0.m3u8"].era();
    println!(
        "{stream}: HLS said {states:?}, {eras} discontinuities; made {made:?}; pushed {sent:?}"
    );
    // Sound alone is not what stalls where no picture has come at all.
    let stalls = |phase| kind.comes(0, 0) && !kind.comes(0, phase);
    for (phase, state) in states.iter().enumerate() {
        assert_eq!(state == "stalled", stalls(phase), "{stream}: {states:?}");
    }
    let late = (0..2).any(|track| !kind.comes(track, 0));
    assert!(
        eras <= u64::from(late || kind.ends),
        "{stream}: {eras} discontinuities"
    );

    let of_it = recorded(&folder.0.join("rec"));
    println!("{stream}: recorded {of_it:?}");
    for track in [0, 1] {
        let all = made[3][track];
        // The beginning, and a change of what there is.
        let wanted = all - BEGINS.min(all) - BACK;
        let name = NAMES[track];
        assert!(
            of_it[track] > wanted,
            "{stream}: {} s of {name} recorded of {all}",
            of_it[track]
        );
        // A push begins when all has come that was promised.
        for phase in if late { 3..3 } else { 1..3 } {
            let made = made[phase + 1][track] - made[phase][track];
            let sent = sent[phase + 1][track] - sent[phase][track];
            assert!(
                sent > made - 2.0 * BACK,
                "{stream}: {sent} s of {name} pushed of {made} in phase {phase}"
            );
        }
    }
}

#[test]
fn picture_and_sound_go_on_without_each_other() {
    running::init_recordings();
    const ALL: [bool; 3] = [true; 3];
    const STALLS: [bool; 3] = [true, false, true];
    const ENDS: [bool; 3] = [true, false, false];
    const LATE: [bool; 3] = [false, false, true];
    let kind = |name, pictures, sound, silent, ends| Kind {
        name,
        pictures,
        sound,
        silent,
        ends,
    };
    let kinds = [
        kind("picture", STALLS, ALL, false, false),
        kind("sound", ALL, STALLS, false, false),
        kind("both", STALLS, STALLS, false, false),
        kind("picture-late", LATE, ALL, false, false),
        kind("sound-late", ALL, LATE, false, false),
        kind("picture-unknown", LATE, ALL, true, false),
        kind("sound-unknown", ALL, LATE, true, false),
        kind("picture-ends", ENDS, ALL, false, true),
        kind("sound-ends", ALL, ENDS, false, true),
    ];
    let only = std::env::var("SFU_KIND").unwrap_or_default();
    let kinds: Vec<_> = kinds
        .iter()
        .filter(|kind| kind.name.contains(&only))
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = kinds.iter().map(|kind| scope.spawn(|| run(kind))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}
