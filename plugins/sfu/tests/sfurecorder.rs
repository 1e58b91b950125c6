// SPDX-License-Identifier: MPL-2.0
//! `sfusink` in one pipeline, `sfurecorder` in another one of the same process: what is in the files.

mod running;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::Running;

const LIMIT: Duration = Duration::from_secs(40);
const WIDTH: usize = 320;
const HEIGHT: usize = 180;
/// Bits of a picture's number, each a field in the upper half of the picture.
const BITS: usize = 16;

fn init() {
    running::init();
    // The companion of this build: target/PROFILE/deps/PROGRAM, and target/PROFILE/libgstfmp4.so.
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("libgstfmp4.so");
    gst::Plugin::load_file(built).expect("isofmp4mux must be built: ./sfu build");
}

/// Waits for `count` messages of files with this state, and returns their paths.
fn recorded(recorder: &Running, state: &str, count: usize) -> Vec<PathBuf> {
    let mut files = Vec::new();
    while files.len() < count {
        let message = recorder.next(&[gst::MessageType::Element]);
        let about = message.structure().unwrap();
        if about.name() == "sfu-recording" && about.get::<&str>("state") == Ok(state) {
            files.push(about.get::<String>("location").unwrap().into());
        }
    }
    files
}

/// A folder of the test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sfurecorder-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// All files, by name.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => files.push(path),
                }
            }
        }
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("see {}", self.0.display());
            return;
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "no {what} in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A publisher whose pictures have their number in the upper half, and the moment of their second as brightness in the
/// lower one; in the first 200 ms of each second there is a tone.
fn publisher(stream: &str, codec: &str) -> Running {
    let running = Running::prepare(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=15/1 \
           ! identity name=v ! sfusink name=out stream={stream} codec={codec} layers=180:500k \
         audiotestsrc is-live=true samplesperbuffer=480 ! audio/x-raw,format=S8,rate=48000,channels=1 \
           ! identity name=a ! audioconvert ! out."
    ));
    let mut number = 0usize;
    draw(&running, "v", move |picture, phase| {
        for (at, pixel) in picture[..WIDTH * HEIGHT].iter_mut().enumerate() {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let bit = number >> (x / (WIDTH / BITS)) & 1;
            *pixel = match y < HEIGHT / 2 {
                true => [16, 235][bit],
                false => 16 + (phase / 5) as u8,
            };
        }
        picture[WIDTH * HEIGHT..].fill(128);
        number += 1;
    });
    draw(&running, "a", |sound, phase| {
        for (at, byte) in sound.iter_mut().enumerate() {
            // A tone of 1 kHz.
            let high = (at / 24).is_multiple_of(2);
            *byte = match (phase < 200, high) {
                (false, _) => 0,
                (true, true) => 100,
                (true, false) => 156,
            };
        }
    });
    running.play();
    running
}

/// Lets a function fill each buffer, which is told the millisecond of the second.
fn draw(running: &Running, name: &str, fill: impl FnMut(&mut [u8], u64) + Send + 'static) {
    let fill = Mutex::new(fill);
    let pad = running.0.by_name(name).unwrap().static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let phase = buffer.pts().unwrap_or_default().mseconds() % 1_000;
            let mut map = buffer.make_mut().map_writable().unwrap();
            (fill.lock().unwrap())(&mut map, phase);
        }
        gst::PadProbeReturn::Ok
    });
}

#[derive(Debug, Default, Clone)]
struct Content {
    /// Each picture's number, its time in ms, and when its second began.
    pictures: Vec<(usize, u64, u64)>,
    /// When sounds begin, in ms.
    sounds: Vec<u64>,
    /// How long the sound is, in ms.
    sound_length: u64,
}

/// Decodes a file, which must go without an error.
fn content(file: &Path) -> Content {
    let player = Running::prepare(&format!(
        "filesrc location={} ! qtdemux name=d \
         d.video_0 ! queue ! decodebin ! videoconvert ! video/x-raw,format=I420 ! fakesink name=v sync=false \
         d.audio_0 ! queue ! decodebin ! audioconvert ! audio/x-raw,format=S8,channels=1 ! fakesink name=a sync=false",
        file.display()
    ));
    let content = Arc::new(Mutex::new(Content::default()));
    let seen = content.clone();
    look(&player, "v", move |picture, time| {
        let middle = |bit: usize| {
            let x = bit * WIDTH / BITS + WIDTH / BITS / 2;
            usize::from(picture[HEIGHT / 4 * WIDTH + x] > 125)
        };
        let number = (0..BITS).map(|bit| middle(bit) << bit).sum();
        let level = picture[HEIGHT * 3 / 4 * WIDTH + WIDTH / 2];
        let phase = u64::from(level.saturating_sub(16)) * 5;
        let begins = (time + 1_000 - phase) % 1_000;
        seen.lock().unwrap().pictures.push((number, time, begins));
    });
    let heard = content.clone();
    let mut loud = true;
    look(&player, "a", move |sound, time| {
        let mut heard = heard.lock().unwrap();
        for (at, samples) in sound.chunks(48).enumerate() {
            let is_loud = samples.iter().any(|s| (*s as i8).unsigned_abs() > 40);
            if is_loud && !loud {
                heard.sounds.push(time + at as u64);
            }
            loud = is_loud;
        }
        heard.sound_length += sound.len() as u64 / 48;
    });
    let _ = player.0.set_state(gst::State::Playing);
    let end = player.next(&[gst::MessageType::Error, gst::MessageType::Eos]);
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    let content = content.lock().unwrap();
    content.clone()
}

/// Shows a function each buffer and its time in ms.
fn look(player: &Running, name: &str, seen: impl FnMut(&[u8], u64) + Send + 'static) {
    let seen = Mutex::new(seen);
    let pad = player.0.by_name(name).unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer() {
            let map = buffer.map_readable().unwrap();
            let time = buffer.pts().unwrap_or_default().mseconds();
            (seen.lock().unwrap())(&map, time);
        }
        gst::PadProbeReturn::Ok
    });
}

fn end(recorder: &Running) {
    let element = recorder.0.by_name("rec").unwrap();
    assert!(element.send_event(gst::event::Eos::new()));
    recorder.ended();
}

#[test]
fn no_picture_is_lost_between_files_and_sound_stays_in_sync() {
    init();
    let folder = Folder::new("split");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=split directory={} max-duration=2",
        folder.path()
    ));
    let _publisher = publisher("split", "h264");
    // The sound of a file may end after the next one has begun.
    let finished = recorded(&recorder, "finished", 3);
    end(&recorder);
    let files = folder.files();
    assert!(
        files.len() >= 4 && files.starts_with(&finished),
        "{files:?}"
    );
    let contents: Vec<_> = files.iter().map(|file| content(file)).collect();
    let numbers: Vec<_> = contents
        .iter()
        .flat_map(|c| c.pictures.iter().map(|p| p.0))
        .collect();
    let expected: Vec<_> = (numbers[0]..numbers[0] + numbers.len()).collect();
    assert_eq!(numbers, expected, "each picture once");
    for (file, content) in files.iter().zip(&contents) {
        assert!(content.pictures[0].1 < 10, "each begins at its beginning");
        println!(
            "{}: {} pictures, {} ms of sound",
            file.display(),
            content.pictures.len(),
            content.sound_length
        );
    }
    for content in &contents[..3] {
        let length = content.pictures.last().unwrap().1;
        assert!((1_900..4_500).contains(&length), "about 2 s: {length}");
        assert!(
            content.sound_length.abs_diff(length) < 250,
            "{}",
            content.sound_length
        );
        let sound = *content.sounds.last().expect("a tone each second") % 1_000;
        let mut apart: Vec<_> = content
            .pictures
            .iter()
            .map(|p| p.2.abs_diff(sound))
            .collect();
        apart.iter_mut().for_each(|a| *a = (*a).min(1_000 - *a));
        apart.sort_unstable();
        let off = apart[apart.len() / 2];
        println!("sound and pictures are {off} ms apart");
        // 35 ms where nothing else runs. A decoder delays sound by 7 ms, and an encoder by another 6.
        assert!(off < 120, "{apart:?}");
    }
    assert_eq!(recorder.stat::<u64>("rec", "dropped"), 0);
    assert_eq!(recorder.stat::<u64>("rec", "failures"), 0);
    assert_eq!(recorder.stat::<u64>("rec", "files"), files.len() as u64);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let open = open.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    assert_eq!(
        open.filter(|path| path.starts_with(&folder.0)).count(),
        0,
        "all are closed"
    );
}

#[test]
fn a_publisher_that_returns_begins_a_new_file_whatever_its_codec() {
    init();
    let folder = Folder::new("returns");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=a/returns directory={} location-template={{number}}-{{stream}}.mp4",
        folder.path()
    ));
    for (n, codec) in ["h264", "h264", "vp8"].into_iter().enumerate() {
        let publisher = publisher("a/returns", codec);
        let begun = recorded(&recorder, "recording", 1);
        assert!(
            begun[0].ends_with(format!("{:05}-a/returns.mp4", n + 1)),
            "{begun:?}"
        );
        let (bytes, fragments): (u64, u64) = (
            recorder.stat("rec", "bytes"),
            recorder.stat("rec", "fragments"),
        );
        until("four more fragments", || {
            recorder.stat::<u64>("rec", "fragments") >= fragments + 4
        });
        assert!(recorder.stat::<u64>("rec", "bytes") > bytes);
        assert_eq!(recorder.stat::<String>("rec", "state"), "recording");
        drop(publisher);
        assert_eq!(
            recorded(&recorder, "finished", 1),
            begun,
            "it is over when the publisher goes"
        );
        let pictures = content(&begun[0]).pictures.len();
        assert!(pictures > 15, "{codec}: {pictures}");
    }
    assert_eq!(recorder.stat::<String>("rec", "state"), "waiting");
    assert_eq!(folder.files().len(), 3);
}

#[test]
fn a_file_is_finished_when_the_element_stops_without_eos() {
    init();
    let folder = Folder::new("stops");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=stops directory={}",
        folder.path()
    ));
    let _publisher = publisher("stops", "vp8");
    until("a fragment", || {
        recorder.stat::<u64>("rec", "fragments") >= 1
    });
    let location: String = recorder.0.by_name("rec").unwrap().property("location");
    drop(recorder);
    assert_eq!(folder.files(), [PathBuf::from(&location)]);
    let data = std::fs::read(&location).unwrap();
    assert!(data.windows(4).any(|w| w == b"sidx"), "it has its index");
    assert!(!content(Path::new(&location)).pictures.is_empty());
}

/// Browsers' VP9 says nothing of its colours, which the muxer wants to be told.
#[test]
fn vp9_without_colours_is_recorded() {
    init();
    let folder = Folder::new("colours");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=colours directory={}",
        folder.path()
    ));
    let publisher = Running::prepare(&format!(
        "videotestsrc is-live=true ! video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate=15/1 \
           ! vp9enc deadline=1 cpu-used=8 keyframe-max-dist=15 lag-in-frames=0 ! identity name=e ! sfusink name=out stream=colours \
         audiotestsrc is-live=true ! out."
    ));
    let encoded = publisher.0.by_name("e").unwrap().static_pad("src").unwrap();
    encoded.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let buffer = info.buffer_mut().unwrap();
        if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            // Behind the frame's kind and the sync code: three bits that name the colours.
            let mut octets = buffer.make_mut().map_writable().unwrap();
            octets[4] &= 0x1f;
        }
        gst::PadProbeReturn::Ok
    });
    publisher.play();
    until("a fragment", || {
        recorder.stat::<u64>("rec", "fragments") >= 1
    });
    let location: String = recorder.0.by_name("rec").unwrap().property("location");
    drop(recorder);
    let data = std::fs::read(&location).unwrap();
    assert!(data.windows(4).any(|w| w == b"vpcC"), "it is VP9");
    assert!(data.windows(4).any(|w| w == b"sidx"), "it has its index");
}

#[test]
fn what_cannot_be_written_is_a_warning_and_tried_again() {
    init();
    let folder = Folder::new("trouble");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=trouble directory={} location-template={{stream}}/{{number}}.mp4",
        folder.path()
    ));
    // A file stands where the folder of the stream is to be.
    std::fs::write(folder.0.join("trouble"), "").unwrap();
    let _publisher = publisher("trouble", "h264");
    let warning = recorder.next(&[gst::MessageType::Warning, gst::MessageType::Error]);
    let gst::MessageView::Warning(warning) = warning.view() else {
        panic!("{warning:?}");
    };
    let text = warning.error().to_string();
    assert!(text.contains("trouble can't be recorded"), "{text}");
    assert_eq!(recorder.stat::<String>("rec", "state"), "failed");
    std::fs::remove_file(folder.0.join("trouble")).unwrap();
    recorded(&recorder, "recording", 1);
    let info = recorder.next(&[gst::MessageType::Info]);
    assert!(
        format!("{info:?}").contains("is recorded again"),
        "{info:?}"
    );
    assert!(
        recorder.stat::<u64>("rec", "dropped") > 0,
        "what came meanwhile is counted"
    );
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    init();
    let folder = Folder::new("wrong");
    let file = Folder::new("wrong-file");
    std::fs::write(&file.0, "").unwrap();
    for (properties, says) in [
        (
            format!(
                "directory={} location-template={{nummer}}.mp4",
                folder.path()
            ),
            "{number}",
        ),
        (
            format!(
                "directory={} location-template=/{{number}}.mp4",
                folder.path()
            ),
            "inside of directory",
        ),
        (
            format!("directory={} stream=api/x", folder.path()),
            "reserved",
        ),
        (
            format!("directory={} layer=all", folder.path()),
            "layer=all",
        ),
        ("directory=\"\"".into(), "directory is empty"),
        (format!("directory={}", file.path()), file.path()),
    ] {
        let error = Running::start(&format!("sfurecorder {properties}")).error();
        assert!(error.contains(says), "{error}");
        assert!(!folder.0.exists(), "nothing was made");
    }
    std::fs::remove_file(&file.0).unwrap();
}

#[test]
fn a_publisher_whose_size_changes_all_the_time_makes_few_files_and_the_next_one_is_recorded() {
    init();
    let folder = Folder::new("sizes");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=sizes directory={} min-free=0",
        folder.path()
    ));
    let sizes =
        |width: usize| format!("video/x-raw,format=I420,width={width},height=90,framerate=30/1");
    let line = format!(
        "videotestsrc is-live=true ! capsfilter name=size caps={} ! x264enc tune=zerolatency speed-preset=ultrafast \
           key-int-max=1 ! h264parse ! sfusink name=out stream=sizes",
        sizes(160)
    );
    let publisher = Running::start(&line);
    let began = Instant::now();
    let filter = publisher.0.by_name("size").unwrap();
    let mut changes = 0usize;
    while began.elapsed() < Duration::from_secs(8) {
        let caps: gst::Caps = sizes([160, 176][changes % 2]).parse().unwrap();
        filter.set_property("caps", &caps);
        changes += 1;
        std::thread::sleep(Duration::from_millis(70));
    }
    drop(publisher);
    let files: u64 = recorder.stat("rec", "files");
    let dropped: u64 = recorder.stat("rec", "dropped");
    println!("{changes} changes of size, {files} files, {dropped} dropped");
    assert!((5..=13).contains(&files), "{files} files");
    assert!(dropped > 0);
    // Whoever comes then is recorded as soon as one more file may begin.
    let _next = Running::start(&format!(
        "videotestsrc is-live=true ! {} ! sfusink stream=sizes",
        sizes(160)
    ));
    until("file of the next publisher", || {
        recorder.stat::<u64>("rec", "files") > files
    });
}

#[test]
fn an_application_splits_stops_and_starts_and_loses_nothing_of_what_it_wants() {
    init();
    let folder = Folder::new("signals");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=signals directory={} recording=false",
        folder.path()
    ));
    let element = recorder.0.by_name("rec").unwrap();
    let (told, heard) = std::sync::mpsc::channel();
    for name in ["recording-started", "recording-finished"] {
        let told = told.clone();
        element.connect(name, false, move |values| {
            let about = values[1].get::<gst::Structure>().unwrap();
            let _ = told.send((
                name,
                PathBuf::from(about.get::<String>("location").unwrap()),
            ));
            None
        });
    }
    let _publisher = publisher("signals", "h264");
    std::thread::sleep(Duration::from_secs(2));
    assert!(folder.files().is_empty(), "nothing is wanted yet");
    element.emit_by_name::<()>("start", &[]);
    recorded(&recorder, "recording", 1);
    assert!(element.property::<bool>("recording"));
    std::thread::sleep(Duration::from_millis(1_500));
    element.emit_by_name::<()>("split-now", &[]);
    // The keyframe is asked for: one comes by itself after 2 s at the latest.
    recorded(&recorder, "finished", 1);
    std::thread::sleep(Duration::from_millis(1_500));
    element.emit_by_name::<()>("stop", &[]);
    recorded(&recorder, "finished", 1);
    assert_eq!(recorder.stat::<String>("rec", "state"), "waiting");
    let before = folder.files();
    assert_eq!(before.len(), 2);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(folder.files(), before, "nothing is wanted any more");
    // More than the beginnings that are had without a wish.
    for _ in 0..3 {
        element.set_property("recording", true);
        recorded(&recorder, "recording", 1);
        element.set_property("recording", false);
        recorded(&recorder, "finished", 1);
    }
    assert_eq!(folder.files().len(), 5);
    let numbers = |file: &PathBuf| -> Vec<usize> {
        content(file)
            .pictures
            .iter()
            .map(|(number, _, _)| *number)
            .collect()
    };
    let (first, second) = (numbers(&before[0]), numbers(&before[1]));
    let all: Vec<_> = first.iter().chain(&second).copied().collect();
    assert!(
        first.len() > 10 && second.len() > 10,
        "{first:?} {second:?}"
    );
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "{all:?}");
    end(&recorder);
    recorder.quiet();
    for file in folder.files() {
        for name in ["recording-started", "recording-finished"] {
            let said = heard.recv_timeout(Duration::from_secs(20)).unwrap();
            assert_eq!(said, (name, file.clone()));
        }
    }
}

/// Two in a room, of whom the second comes later and goes earlier: a file each, in sync by what the messages and the files say.
#[test]
fn a_room_is_recorded_in_sync() {
    use sfu_engine::{Publishing, Router};
    init();
    let folder = Folder::new("room");
    let router = Router::get("recorded-room");
    let enter = |sid: &str, identity: &str, stream: &str| {
        let publishing = Publishing {
            identity: identity.to_owned(),
            streams: vec![stream.parse().unwrap()],
        };
        router.roster().set("The room", sid, publishing);
    };
    let recorder = Running::start(&format!(
        "sfurecorder name=r router=recorded-room directory={}",
        folder.path()
    ));
    recorder.0.set_state(gst::State::Null).unwrap();
    let element = recorder.0.by_name("r").unwrap();
    element.set_property("room", "The room");
    recorder.play();
    let camera = |stream: &str| {
        Running::start(&format!(
            "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=20/1 \
             ! sfusink router=recorded-room stream={stream} codec=vp8 layers=120:200k"
        ))
    };
    enter("PA_1", "ann", "show/ann");
    let ann = camera("show/ann");
    let began = std::time::SystemTime::now();
    let first = told(&recorder, "recording");
    enter("PA_2", "Ben B", "PA_2");
    let ben = camera("PA_2");
    let second = told(&recorder, "recording");
    for (one, identity, stream) in [(&first, "ann", "show/ann"), (&second, "Ben B", "PA_2")] {
        assert_eq!(one.get::<&str>("identity"), Ok(identity));
        assert_eq!(one.get::<&str>("room"), Ok("The room"));
        assert_eq!(one.get::<&str>("stream"), Ok(stream));
    }
    let start = |of: &gst::Structure| of.get::<u64>("start-ms").unwrap();
    let began = began.duration_since(std::time::UNIX_EPOCH).unwrap();
    let off = start(&first).abs_diff(u64::try_from(began.as_millis()).unwrap());
    assert!(off < 3_000, "{off} ms from the beginning");
    assert!(start(&second) > start(&first));
    // Who goes has its file finished, and the other one goes on.
    router.roster().remove("The room", "PA_2");
    drop(ben);
    let finished = told(&recorder, "finished");
    assert_eq!(finished.get::<&str>("identity"), Ok("Ben B"));
    assert_eq!(start(&finished), start(&second));
    let state = |element: &gst::Element| {
        let stats = element.property::<gst::Structure>("stats");
        stats.get::<String>("state").unwrap()
    };
    assert_eq!(state(&element), "recording");
    // Who comes back is recorded again, in another file.
    enter("PA_3", "Ben B", "PA_2");
    let ben = camera("PA_2");
    let third = told(&recorder, "recording");
    assert_eq!(third.get::<&str>("identity"), Ok("Ben B"));
    drop((ann, ben));
    recorder.0.set_state(gst::State::Null).unwrap();
    let files = folder.files();
    assert_eq!(files.len(), 3, "{files:?}");
    assert_eq!(state(&element), "waiting");
}

/// The next message of a file with this state.
fn told(recorder: &Running, state: &str) -> gst::Structure {
    loop {
        let message = recorder.next(&[gst::MessageType::Element]);
        let about = message.structure().unwrap();
        if about.name() == "sfu-recording" && about.get::<&str>("state") == Ok(state) {
            return about.to_owned();
        }
    }
}

/// Which language each track of sound in a file is in, and its pitch.
fn spoken(file: &Path, tracks: usize) -> Vec<(String, f64)> {
    let of = |track: usize| {
        let demuxed = format!(
            "filesrc location={} ! qtdemux name=d d.audio_{track}",
            file.display()
        );
        let player = Running::start(&format!("{demuxed} ! fakesink name=sink sync=false"));
        player.ended();
        let pad = player
            .0
            .by_name("sink")
            .unwrap()
            .static_pad("sink")
            .unwrap();
        let tags = (0..).map_while(|n| pad.sticky_event::<gst::event::Tag>(n));
        let language = tags.into_iter().find_map(|event| {
            let code = event.tag().get::<gst::tags::LanguageCode>()?;
            Some(code.get().to_owned())
        });
        let pitch = running::pitch(&format!("{demuxed} ! queue ! decodebin"));
        (language.unwrap_or_default(), pitch)
    };
    (0..tracks).map(of).collect()
}

#[test]
fn languages_are_told_apart_in_the_file() {
    init();
    let folder = Folder::new("languages");
    let recorder = Running::start(&format!(
        "sfurecorder name=rec stream=rec-languages directory={}",
        folder.path()
    ));
    let speaker = |language: &str, hz: u32| {
        format!(
            "audiotestsrc is-live=true samplesperbuffer=480 volume=0.5 freq={hz} ! audio/x-raw,rate=48000,channels=1 \
               {language} ! queue"
        )
    };
    let _publisher = Running::start(&format!(
        "videotestsrc is-live=true ! video/x-raw,width={WIDTH},height={HEIGHT},framerate=15/1 \
           ! sfusink name=out stream=rec-languages layers=180:300k \
         {} ! out.audio_0  {} ! out.audio_1  {} ! out.audio_2",
        speaker("! taginject tags=language-code=de", 400),
        speaker("! taginject tags=language-code=pt-BR", 1000),
        speaker("", 2000)
    ));
    recorded(&recorder, "recording", 1);
    std::thread::sleep(Duration::from_secs(4));
    let recorder_element = recorder.0.by_name("rec").unwrap();
    recorder_element.send_event(gst::event::Eos::new());
    let files = recorded(&recorder, "finished", 1);
    assert_eq!(folder.files().len(), 1, "{:?}", folder.files());
    let seen = spoken(&files[0], 3);
    println!("{seen:?}");
    let expected = [("de", 400.0), ("pt", 1000.0), ("", 2000.0)];
    for ((language, pitch), (wanted, hz)) in seen.iter().zip(expected) {
        assert_eq!(language, wanted, "{seen:?}");
        assert!((pitch - hz).abs() < 40.0, "{seen:?}");
    }
    recorder.quiet();
}
