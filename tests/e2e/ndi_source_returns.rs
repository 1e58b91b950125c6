// SPDX-License-Identifier: MPL-2.0
//! A real NDI sender is killed and brought back: the slate comes within a second, the pictures
//! come back, and nothing downstream ever notices more than that.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use sfu_tests::ndi::{self, Sender};
use sfu_tests::netns;

const SENDER: [&str; 6] = ["--name", "cam", "--width", "640", "--height", "360"];

/// A second for the loss to be seen, and half of one for a busy machine.
const SLATE_WITHIN: Duration = Duration::from_millis(1_500);

/// What one video frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Black,
    /// A time-code strip, and how many milliseconds ago it was drawn.
    Code {
        value: u32,
        age: u32,
    },
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) at: Instant,
    pub(crate) pts: gst::ClockTime,
    pub(crate) shown: Shown,
    /// Whether it carries the sender's NDI timecode.
    pub(crate) timecode: bool,
}

/// All that has come out of an `ndilivesrc`.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) frames: Vec<Frame>,
    /// Each piece of sound: when, its begin and end, and whether it is louder than silence.
    pub(crate) sounds: Vec<(Instant, gst::ClockTime, gst::ClockTime, bool)>,
    /// Events that must come once a pad, and ends, which must not come.
    stream_starts: usize,
    caps: Vec<gst::Caps>,
    ends: usize,
}

pub(crate) struct Watched {
    pub(crate) pipeline: gst::Pipeline,
    pub(crate) source: gst::Element,
    pub(crate) log: Arc<Mutex<Log>>,
}

impl Watched {
    /// Plays an `ndilivesrc` with these settings.
    pub(crate) fn start(settings: &str) -> Self {
        let line = format!(
            "ndilivesrc name=ndi {settings} \
             ndi.video ! queue ! fakesink name=video sync=false \
             ndi.audio ! queue ! fakesink name=audio sync=false"
        );
        let pipeline = gst::parse::launch(&line).expect("the plugins must be built");
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .expect("more than one element");
        let source = pipeline.by_name("ndi").expect("it is in the line");
        let log = Arc::<Mutex<Log>>::default();
        for name in ["video", "audio"] {
            let sink = pipeline
                .by_name(name)
                .and_then(|sink| sink.static_pad("sink"));
            let log = Arc::clone(&log);
            let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
            sink.expect("a sink has one")
                .add_probe(mask, move |pad, info| {
                    let mut log = log.lock().expect("no test thread dies with it");
                    log.add(pad, info);
                    gst::PadProbeReturn::Ok
                });
        }
        if pipeline.set_state(gst::State::Playing).is_err() {
            let bus = pipeline.bus().expect("a pipeline has a bus");
            panic!("{:?}", bus.pop_filtered(&[gst::MessageType::Error]));
        }
        Self {
            pipeline,
            source,
            log,
        }
    }

    /// Waits until a frame that came after `since` is as wanted, and says how long that took.
    pub(crate) fn wait_for(
        &self,
        since: Instant,
        limit: Duration,
        wanted: impl Fn(&Frame) -> bool,
    ) -> Option<Duration> {
        while since.elapsed() < limit {
            let log = self.log.lock().expect("no thread dies with it");
            let found = log.frames.iter().rev().take_while(|frame| frame.at > since);
            if let Some(frame) = found.filter(|frame| wanted(frame)).last() {
                return Some(frame.at - since);
            }
            drop(log);
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// The values of `connected` in the element's messages so far; fails on errors and ends.
    pub(crate) fn changes(&self) -> Vec<bool> {
        let bus = self.pipeline.bus().expect("a pipeline has a bus");
        let mut changes = Vec::new();
        for message in bus.iter() {
            match message.view() {
                gst::MessageView::Error(_) | gst::MessageView::Eos(_) => panic!("{message:?}"),
                gst::MessageView::Element(element) => {
                    let details = element.structure();
                    let ours = details.filter(|s| s.name() == "ndi-live-source-changed");
                    changes.extend(ours.and_then(|s| s.get::<bool>("connected").ok()));
                }
                _ => {}
            }
        }
        changes
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

impl Log {
    fn add(&mut self, pad: &gst::Pad, info: &gst::PadProbeInfo) {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let caps = pad.current_caps().expect("caps come before buffers");
                let s = caps.structure(0).expect("fixed caps");
                if s.name() == "video/x-raw" {
                    self.frames.push(frame(buffer, s));
                } else {
                    self.sounds.push(sound(buffer));
                }
            }
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::StreamStart(_) => self.stream_starts += 1,
                gst::EventView::Caps(caps) => self.caps.push(caps.caps_owned()),
                gst::EventView::Eos(_) => self.ends += 1,
                _ => {}
            },
            _ => {}
        }
    }

    /// Downstream has seen one unbroken stream a pad.
    fn assert_unbroken(&self) {
        assert_eq!(
            (self.stream_starts, self.caps.len(), self.ends),
            (2, 2, 0),
            "{:?}",
            self.caps
        );
        for pair in self.frames.windows(2) {
            let gap = pair[1]
                .pts
                .checked_sub(pair[0].pts)
                .expect("frames go forward in time");
            assert!(
                gap < gst::ClockTime::SECOND,
                "no frame for {gap} after {:?}",
                pair[0]
            );
        }
        for pair in self.sounds.windows(2) {
            let off = pair[0].2.nseconds().abs_diff(pair[1].1.nseconds());
            assert!(
                off < 1_000_000,
                "sound breaks off at {} and goes on at {}",
                pair[0].2,
                pair[1].1
            );
        }
    }
}

fn frame(buffer: &gst::Buffer, caps: &gst::StructureRef) -> Frame {
    let side = |name| {
        caps.get::<i32>(name)
            .ok()
            .and_then(|n| usize::try_from(n).ok())
    };
    let (width, height) = (side("width").unwrap_or(0), side("height").unwrap_or(0));
    let reference = gst::Caps::new_empty_simple("timestamp/x-ndi-timecode");
    let metas = buffer.iter_meta::<gst::ReferenceTimestampMeta>();
    Frame {
        at: Instant::now(),
        pts: buffer.pts().expect("frames have times"),
        shown: buffer
            .map_readable()
            .map_or(Shown::Other, |data| shown(&data, width, height)),
        timecode: metas
            .into_iter()
            .any(|meta| meta.reference() == &*reference),
    }
}

fn sound(buffer: &gst::Buffer) -> (Instant, gst::ClockTime, gst::ClockTime, bool) {
    let begin = buffer.pts().expect("sound has times");
    let end = begin + buffer.duration().expect("and durations");
    let data = buffer.map_readable().expect("system memory");
    let samples = data
        .chunks_exact(4)
        .map(|s| f32::from_le_bytes([s[0], s[1], s[2], s[3]]));
    (
        Instant::now(),
        begin,
        end,
        samples.fold(0.0, |peak: f32, s| peak.max(s.abs())) > 0.01,
    )
}

/// Reads the time-code strip of a UYVY picture.
fn shown(data: &[u8], width: usize, height: usize) -> Shown {
    let luma = |x: usize, y: usize| data[(y * width + x) * 2 + 1];
    let row = |row: usize| {
        let y = height / 16 * row + height / 32;
        let cell = |n: usize| u32::from(luma(n * width / 32 + width / 64, y) > 128);
        (0..32).fold(0, |value, n| value << 1 | cell(n))
    };
    if data.len() < width * height * 2 {
        return Shown::Other;
    }
    let (value, check) = (row(0), row(1));
    if value == !check {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = (now.as_millis() & u128::from(u32::MAX)) as u32;
        return Shown::Code {
            value,
            age: now.wrapping_sub(value),
        };
    }
    if data.chunks_exact(2).all(|pixel| pixel[1] <= 17) {
        Shown::Black
    } else {
        Shown::Other
    }
}

fn fresh(frame: &Frame) -> bool {
    matches!(frame.shown, Shown::Code { age, .. } if age < 500) && frame.timecode
}

#[test]
fn ndi_source_returns() {
    let test = "ndi_source_returns::ndi_source_returns";
    if !netns::isolated(test, &ndi::environment()) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let sender = Sender::start(&SENDER).expect("a sender");
    let started = Instant::now();
    let watched = Watched::start("url-address=127.0.0.1:5961");
    let first = watched.wait_for(started, Duration::from_secs(5), fresh);
    println!("first picture after {first:?}");
    assert!(first.is_some(), "no picture of the source");
    std::thread::sleep(Duration::from_secs(2));
    assert!(watched.source.property::<bool>("connected"));

    sender.kill();
    let killed = Instant::now();
    let slate = watched.wait_for(killed, SLATE_WITHIN, |frame| frame.shown == Shown::Black);
    println!("slate after {slate:?}");
    assert!(slate.is_some(), "no slate within {SLATE_WITHIN:?}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(!watched.source.property::<bool>("connected"));
    let silent_since = assert_slate_and_silence(&watched, killed + SLATE_WITHIN);

    let _again = Sender::start_at(5961, &SENDER).expect("the sender again");
    let back = Instant::now();
    let picture = watched.wait_for(back, Duration::from_secs(10), fresh);
    println!("picture again after {picture:?}");
    assert!(picture.is_some(), "no picture after the return");
    std::thread::sleep(Duration::from_secs(2));

    assert_eq!(watched.changes(), [true, false, true]);
    assert_eq!(watched.pipeline.current_state(), gst::State::Playing);
    let stats = watched.source.property::<gst::Structure>("stats");
    assert_eq!(stats.get::<u64>("connects"), Ok(2), "{stats}");
    assert_eq!(stats.get::<u64>("losses"), Ok(1), "{stats}");
    let log = watched.log.lock().expect("no thread dies with it");
    log.assert_unbroken();
    let loud = |from: Instant| {
        log.sounds
            .iter()
            .any(|(at, _, _, loud)| *at > from && *loud)
    };
    assert!(loud(started) && loud(silent_since), "the tone is missing");
}

/// Checks what came since `from`, and returns the time until which it did.
fn assert_slate_and_silence(watched: &Watched, from: Instant) -> Instant {
    let log = watched.log.lock().expect("no thread dies with it");
    let slate: Vec<_> = log.frames.iter().filter(|frame| frame.at > from).collect();
    assert!(slate.len() > 30, "{} frames of slate", slate.len());
    assert!(
        slate
            .iter()
            .all(|frame| frame.shown == Shown::Black && !frame.timecode)
    );
    let mut sounds = log.sounds.iter().filter(|sound| sound.0 > from).peekable();
    assert!(
        sounds.peek().is_some() && sounds.all(|sound| !sound.3),
        "no silence"
    );
    Instant::now()
}

#[test]
fn the_last_frame_is_the_slate() {
    let test = "ndi_source_returns::the_last_frame_is_the_slate";
    if !netns::isolated(test, &ndi::environment()) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let sender = Sender::start(&SENDER).expect("a sender");
    let started = Instant::now();
    let watched = Watched::start("url-address=127.0.0.1:5961 fallback=last-frame");
    assert!(
        watched
            .wait_for(started, Duration::from_secs(5), fresh)
            .is_some()
    );
    std::thread::sleep(Duration::from_secs(1));
    sender.kill();
    let killed = Instant::now();
    std::thread::sleep(Duration::from_secs(3));

    let log = watched.log.lock().expect("no thread dies with it");
    let last = log
        .frames
        .iter()
        .rfind(|frame| frame.timecode)
        .expect("pictures");
    let Shown::Code { value, .. } = last.shown else {
        panic!("{last:?}")
    };
    let slate: Vec<_> = log
        .frames
        .iter()
        .filter(|frame| frame.at > killed + SLATE_WITHIN)
        .collect();
    assert!(slate.len() > 30, "{} frames of slate", slate.len());
    let all_last = log
        .frames
        .iter()
        .filter(|frame| frame.pts > last.pts)
        .all(|frame| matches!(frame.shown, Shown::Code { value: kept, .. } if kept == value));
    assert!(all_last, "something else than the last picture was shown");
    log.assert_unbroken();
}

#[test]
fn another_format_comes_back() {
    let test = "ndi_source_returns::another_format_comes_back";
    if !netns::isolated(test, &ndi::environment()) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let sender = Sender::start(&SENDER).expect("a sender");
    let started = Instant::now();
    let watched = Watched::start("url-address=127.0.0.1:5961 rate=44100 channels=1");
    assert!(
        watched
            .wait_for(started, Duration::from_secs(5), fresh)
            .is_some()
    );
    std::thread::sleep(Duration::from_secs(1));
    sender.kill();

    for format in [
        &["--width", "960", "--height", "540", "--fps", "50"][..],
        &[
            "--width",
            "1280",
            "--height",
            "720",
            "--fps",
            "25",
            "--interlaced",
        ][..],
    ] {
        let sender = Sender::start_at(5961, format).expect("a sender of another format");
        let back = Instant::now();
        let picture = watched.wait_for(back, Duration::from_secs(10), fresh);
        println!("{format:?} after {picture:?}");
        assert!(picture.is_some(), "no picture of {format:?}");
        let from = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        let log = watched.log.lock().expect("no thread dies with it");
        let shown = log
            .frames
            .iter()
            .filter(|frame| frame.at > from && fresh(frame))
            .count();
        assert!(
            (50..=70).contains(&shown),
            "{shown} fresh frames in 2 s at 30 frames per second"
        );
        assert!(
            log.sounds.iter().any(|sound| sound.0 > from && sound.3),
            "no tone"
        );
        drop(log);
        sender.kill();
    }
    let log = watched.log.lock().expect("no thread dies with it");
    log.assert_unbroken();
    let rates = |caps: &gst::Caps| {
        caps.to_string()
            .contains("rate=(int)44100, channels=(int)1")
    };
    assert!(log.caps.iter().any(rates), "{:?}", log.caps);
}

/// Channels without positions are mixed by their numbers, also by a connection that begins with others than were settled.
#[test]
fn another_number_of_channels_comes_back() {
    let test = "ndi_source_returns::another_number_of_channels_comes_back";
    if !netns::isolated(test, &ndi::environment()) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let sender = Sender::start_at(5961, &["--channels", "10"]).expect("a sender");
    let started = Instant::now();
    let watched = Watched::start("url-address=127.0.0.1:5961");
    let begun = watched.wait_for(started, Duration::from_secs(5), fresh);
    assert!(begun.is_some());
    sender.kill();
    // Longer than the receiver waits: it is started anew.
    std::thread::sleep(Duration::from_secs(7));
    for channels in ["16", "2"] {
        let sender = Sender::start_at(5961, &["--channels", channels]).expect("another sender");
        let back = Instant::now();
        let picture = watched.wait_for(back, Duration::from_secs(10), fresh);
        assert!(picture.is_some(), "no picture beside {channels} channels");
        std::thread::sleep(Duration::from_secs(2));
        let log = watched.log.lock().expect("no thread dies with it");
        let is_heard = log.sounds.iter().any(|sound| sound.0 > back && sound.3);
        assert!(is_heard, "no tone of {channels} channels");
        drop(log);
        sender.kill();
    }
    let log = watched.log.lock().expect("no thread dies with it");
    log.assert_unbroken();
}

#[test]
fn another_source_is_chosen_while_playing() {
    let test = "ndi_source_returns::another_source_is_chosen_while_playing";
    if !netns::isolated(test, &ndi::environment()) {
        return;
    }
    gst::init().expect("GStreamer starts");
    let _silent = Sender::start(&["--name", "one", "--tone", "0"]).expect("a sender");
    let _loud = Sender::start(&["--name", "two"]).expect("a second sender");
    let started = Instant::now();
    let watched = Watched::start("url-address=127.0.0.1:5961");
    assert!(
        watched
            .wait_for(started, Duration::from_secs(5), fresh)
            .is_some()
    );
    // A pause on the way must not matter.
    for state in [gst::State::Paused, gst::State::Playing] {
        watched
            .pipeline
            .set_state(state)
            .expect("a live pipeline pauses");
        std::thread::sleep(Duration::from_millis(700));
    }

    watched.source.set_property("url-address", "127.0.0.1:5962");
    let changed = Instant::now();
    let picture = watched.wait_for(
        changed + Duration::from_millis(200),
        Duration::from_secs(5),
        fresh,
    );
    println!("picture of the other source after {picture:?}");
    assert!(picture.is_some(), "no picture of the other source");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(watched.changes(), [true, false, true]);
    let log = watched.log.lock().expect("no thread dies with it");
    assert!(
        log.sounds.iter().all(|sound| sound.0 > changed || !sound.3),
        "the first is silent"
    );
    assert!(log.sounds.iter().any(|sound| sound.3), "the second is not");
    assert_eq!((log.stream_starts, log.ends), (2, 0));
}
