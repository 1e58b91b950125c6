// SPDX-License-Identifier: MPL-2.0
//! Files that are sought in, played at other speeds, paused and played in pieces: viewers get the frames that were asked for, at
//! the pace that was asked for, and no others.

mod running;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Folder, Running, init};

const RATE: u64 = 30;
/// How many frames a file has, and from one keyframe to the next.
const FRAMES: u64 = 330;
const GROUP: u64 = 30;
const BITS: usize = 9;
const WIDTH: usize = 16 * BITS;
const HEIGHT: usize = 64;
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How soon it goes on, unless the machine has other things to do.
const SOON: Duration = Duration::from_secs(5);

/// Numbers a picture by bars, which survive any encoder.
fn number(buffer: &mut gst::BufferRef, number: u64) {
    let mut map = buffer.map_writable().unwrap();
    for (at, luma) in map[..WIDTH * HEIGHT].iter_mut().enumerate() {
        let bar = at % WIDTH / 16;
        *luma = if number >> bar & 1 == 1 { 235 } else { 16 };
    }
}

fn numbered(buffer: &gst::BufferRef) -> u64 {
    let map = buffer.map_readable().unwrap();
    let middle = &map[HEIGHT / 2 * WIDTH..];
    let bit = |bar: &usize| middle[bar * 16 + 8] > 128;
    (0..BITS).filter(bit).map(|bar| 1 << bar).sum()
}

/// A file whose pictures are numbered, beside a tone.
fn film(folder: &Path) -> PathBuf {
    let path = folder.join("film.mkv");
    let writer = Running::prepare(&format!(
        "videotestsrc num-buffers={FRAMES} ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={RATE}/1 \
         ! identity name=number ! x264enc bframes=0 key-int-max={GROUP} speed-preset=ultrafast ! h264parse ! m.video_0 \
         audiotestsrc num-buffers=550 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! m.audio_0 \
         matroskamux name=m ! filesink location={}",
        path.display()
    ));
    number_pictures(&writer);
    writer.play();
    writer.ended();
    path
}

fn number_pictures(source: &Running) {
    let pad = source.0.by_name("number").unwrap().static_pad("src");
    let mask = gst::PadProbeType::BUFFER;
    pad.unwrap().add_probe(mask, |_, info| {
        let buffer = info.buffer_mut().unwrap().make_mut();
        // Times are rounded down.
        let frames = (buffer.pts().unwrap().nseconds() * RATE + 500_000_000) / 1_000_000_000;
        number(buffer, frames);
        gst::PadProbeReturn::Ok
    });
}

/// Who plays a film, and what of it a viewer saw: which frame, and when.
struct Played {
    film: Running,
    seen: Arc<Mutex<Vec<(u64, Instant)>>>,
    _viewer: Running,
}

impl Played {
    fn start(stream: &str, film: Running) -> Self {
        let viewer = Running::prepare(&format!(
            "sfusrc name=in stream={stream} latency=50 in.video_0 ! h264parse ! avdec_h264 max-threads=1 ! videoconvert ! video/x-raw,format=I420 \
             ! fakesink name=seen sync=false async=false in.audio_0 ! fakesink sync=false async=false"
        ));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let pad = viewer.0.by_name("seen").unwrap().static_pad("sink");
        let frames = seen.clone();
        pad.unwrap()
            .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let frame = numbered(info.buffer().unwrap());
                frames.lock().unwrap().push((frame, Instant::now()));
                gst::PadProbeReturn::Ok
            });
        viewer.play();
        film.play();
        Self {
            film,
            seen,
            _viewer: viewer,
        }
    }

    /// The next frames from the first one on that is of these.
    fn frames(&self, from: std::ops::Range<u64>, count: usize) -> Vec<(u64, Instant)> {
        let began = Instant::now();
        loop {
            {
                let seen = self.seen.lock().unwrap();
                let first = seen.iter().position(|(frame, _)| from.contains(frame));
                if let Some(first) = first
                    && seen.len() >= first + count
                {
                    return seen[first..first + count].to_vec();
                }
            }
            let seen: Vec<_> = self.numbers();
            assert!(began.elapsed() < PATIENCE, "{from:?}: {seen:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn numbers(&self) -> Vec<u64> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(frame, _)| *frame).collect()
    }

    fn seek(&self, rate: f64, flags: gst::SeekFlags, range: std::ops::Range<u64>) {
        let at = |frame: u64| gst::ClockTime::from_nseconds(frame * 1_000_000_000 / RATE);
        let stop = match range.end {
            FRAMES => gst::ClockTime::NONE,
            end => Some(at(end)),
        };
        let set = gst::SeekType::Set;
        let sought = self
            .film
            .0
            .seek(rate, flags, set, at(range.start), set, stop);
        sought.expect("a file can be sought in");
    }
}

/// The pace of frames, in those of the file a second.
fn pace(frames: &[(u64, Instant)]) -> f64 {
    let (first, last) = (frames[0], frames[frames.len() - 1]);
    (last.0 - first.0) as f64 / (last.1 - first.1).as_secs_f64()
}

/// Films go through the element in each of its ways.
fn plays(name: &str, way: &str, encode: &str) {
    init();
    let folder = Folder(std::env::temp_dir().join(format!("seeks-{name}-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    let path = film(&folder.0);
    let stream = format!("seeks-{name}");
    let film = Running::prepare(&format!(
        "filesrc location={} ! matroskademux name=d d.video_0 ! queue ! {way} ! out.video_0 \
         d.audio_0 ! queue ! opusdec ! out.audio_0 sfusink name=out stream={stream} layers={HEIGHT}:900k encode={encode}",
        path.display()
    ));
    let played = Played::start(&stream, film);
    played.frames(0..20, 15);
    let flush = gst::SeekFlags::FLUSH;
    let (accurate, key_unit) = (
        flush | gst::SeekFlags::ACCURATE,
        flush | gst::SeekFlags::KEY_UNIT,
    );
    // What is shown as it is encoded begins with its keyframe.
    let begins = |frame: u64| match encode {
        "never" => frame / GROUP * GROUP,
        _ => frame,
    };
    for (what, rate, flags, to, first) in [
        ("forward", 1.0, accurate, 190, begins(190)),
        ("back", 1.0, accurate, 40, begins(40)),
        ("to a keyframe", 1.0, key_unit, 100, 90),
        ("at twice the speed", 2.0, accurate, 60, 60),
        ("at half the speed", 0.5, accurate, 120, 120),
        ("again", 1.0, flush, 200, begins(200)),
    ] {
        played.seen.lock().unwrap().clear();
        let began = Instant::now();
        played.seek(rate, flags, to..FRAMES);
        let near = first.saturating_sub(1)..to + 5;
        let needed = to.saturating_sub(first) as usize;
        let frames = played.frames(near, needed + if rate > 1.0 { 45 } else { 20 });
        let took = frames[0].1 - began;
        let shown: Vec<_> = frames
            .iter()
            .filter(|(frame, _)| *frame >= to)
            .copied()
            .collect();
        let pace = pace(&shown[1..]) / RATE as f64;
        println!(
            "{name}, {what}: {took:?}, from {} at {pace:.2}",
            frames[0].0
        );
        assert!(took < SOON, "{what}: {took:?}");
        let numbers: Vec<_> = frames.iter().map(|(frame, _)| *frame).collect();
        let gaps = numbers.windows(2).filter(|w| w[1] != w[0] + 1).count();
        assert!(gaps == 0, "{what}: {numbers:?}");
        // A machine that is busy may make it slower.
        assert!(pace < rate * 1.6, "{what}: {pace} of {rate}: {numbers:?}");
    }
    several(&played, accurate);
    pauses(&played);
    // A decoder of GStreamer 1.22 shows nothing after a piece's end.
    if encode == "never" {
        pieces(&played, accurate);
    }
    played.film.quiet();
}

/// Seeks one after the other: nothing of those that nobody waited for comes after the last one's frames.
fn several(played: &Played, accurate: gst::SeekFlags) {
    for to in [150, 60, 240, 0, 210, 30, 180] {
        played.seek(1.0, accurate, to..FRAMES);
        std::thread::sleep(Duration::from_millis(30));
    }
    played.seen.lock().unwrap().clear();
    played.seek(1.0, accurate, 120..FRAMES);
    let frames = played.frames(120..125, 20);
    let others = frames.iter().filter(|(f, _)| !(120..150).contains(f));
    assert_eq!(others.count(), 0, "{frames:?}");
    println!("after several: {:.2}", pace(&frames[2..]) / RATE as f64);
    assert!(pace(&frames[2..]) < 1.6 * RATE as f64, "{frames:?}");
}

fn pauses(played: &Played) {
    let last = *played.numbers().last().unwrap();
    played.film.0.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    played.film.play();
    let frames = played.frames(last..last + 1, 40);
    let numbers: Vec<_> = frames.iter().map(|(frame, _)| *frame).collect();
    let gaps = numbers.windows(2).filter(|w| w[1] != w[0] + 1).count();
    assert!(gaps == 0, "a pause loses nothing: {numbers:?}");
    let longest = frames.windows(2).map(|w| w[1].1 - w[0].1).max().unwrap();
    assert!(longest > Duration::from_millis(1_500), "{longest:?}");
}

/// Pieces that follow each other without a flush, as players have it for a loop.
fn pieces(played: &Played, accurate: gst::SeekFlags) {
    let segment = gst::SeekFlags::SEGMENT;
    played.seen.lock().unwrap().clear();
    played.seek(1.0, accurate | segment, 150..165);
    for _ in 0..2 {
        played.film.next(&[gst::MessageType::SegmentDone]);
        played.seek(1.0, segment | gst::SeekFlags::ACCURATE, 150..165);
    }
    let frames = played.frames(150..151, 43);
    let numbers: Vec<_> = frames.iter().map(|(frame, _)| *frame).collect();
    let expected: Vec<_> = (0..43).map(|n| 150 + n % 15).collect();
    assert_eq!(numbers, expected);
    let took = (frames[42].1 - frames[0].1).as_secs_f64();
    println!("three pieces of half a second: {took:.2} s");
    assert!(took > 1.0, "{took}");
}

#[test]
fn raw_films_are_sought_in() {
    plays("raw", "avdec_h264", "always");
}

#[test]
fn pieces_follow_each_other() {
    init();
    let stream = "seeks-pieces";
    let film = Running::prepare(&format!(
        "videotestsrc ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={RATE}/1 ! identity name=number \
         ! sfusink name=out stream={stream} layers={HEIGHT}:900k"
    ));
    number_pictures(&film);
    let played = Played::start(stream, film);
    played.frames(0..20, 15);
    pieces(&played, gst::SeekFlags::FLUSH | gst::SeekFlags::ACCURATE);
    played.film.quiet();
}

#[test]
fn films_that_go_on_as_they_are_are_sought_in() {
    plays("as-it-is", "h264parse", "never");
}

#[test]
fn films_that_are_encoded_anew_are_sought_in() {
    plays("anew", "h264parse", "always");
}
