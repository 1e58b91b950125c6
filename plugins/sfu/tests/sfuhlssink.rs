// SPDX-License-Identifier: MPL-2.0
//! `sfusink` and `sfuhlssink` in one process: what is in the folder, as a player that knows RFC 8216 reads it.

#[path = "../../../tests/hls.rs"]
#[allow(dead_code, unreachable_pub)]
mod hls;
mod running;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gst::prelude::*;
use hls::{Checker, Playlist};
use running::{Running, init, pitch};

const LIMIT: Duration = Duration::from_secs(40);

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sfuhlssink-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn sink(&self, stream: &str, more: &str) -> String {
        let folder = self.0.display();
        format!(
            "sfuhlssink name=hls stream={stream} directory={folder} segment-duration=1000 playlist-length=4 {more}"
        )
    }

    fn stream(&self, stream: &str) -> PathBuf {
        self.0.join(stream)
    }

    fn checker(&self, stream: &str) -> Checker {
        let folder = self.stream(stream);
        Checker::new(Box::new(move |name| std::fs::read(folder.join(name)).ok()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn files(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).unwrap();
    let name = |file: std::io::Result<std::fs::DirEntry>| {
        file.unwrap().file_name().to_string_lossy().into_owned()
    };
    files.map(name).collect()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "no {what} in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const VIDEO: &str =
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=180,framerate=30/1";
const AUDIO: &str = "audiotestsrc is-live=true samplesperbuffer=480";

fn publisher(stream: &str, more: &str) -> Running {
    Running::start(&format!(
        "{VIDEO} ! sfusink name=out stream={stream} {more}  {AUDIO} ! out."
    ))
}

/// A tone in a language. All are at the same moment.
fn speaker(language: &str, hz: u32) -> String {
    format!(
        "audiotestsrc is-live=true samplesperbuffer=480 volume=0.5 freq={hz} ! audio/x-raw,rate=48000,channels=1 \
           ! taginject tags=language-code={language} ! queue"
    )
}

/// One layer, with keyframes at most each 20 s unless they are asked for.
fn encoder(name: &str, rate: u32) -> String {
    format!(
        "{VIDEO} ! x264enc name={name} tune=zerolatency speed-preset=ultrafast key-int-max=600 bitrate={rate} \
           ! video/x-h264,profile=constrained-baseline ! h264parse"
    )
}

fn newest(all: &BTreeMap<String, Playlist>) -> u64 {
    all.values().map(Playlist::newest).min().unwrap_or_default()
}

#[test]
fn layers_are_aligned_and_old_segments_go() {
    init();
    let folder = Folder::new("aligned");
    let sink = Running::start(&folder.sink("a/b", ""));
    let _publisher = publisher("a/b", "layers=180:300k,90:100k");
    let mut checker = folder.checker("a/b");
    let all = checker.until("segments", LIMIT, |all| newest(all) > 0);
    let first = newest(&all);
    let variants = checker.variants().unwrap();
    let shown: Vec<_> = variants
        .iter()
        .map(|v| v.attributes["RESOLUTION"].as_str())
        .collect();
    assert_eq!(shown, ["320x180", "160x90"]);
    assert!(variants[0].attributes["CODECS"].starts_with("avc1.42"));
    assert!(variants[0].attributes["CODECS"].ends_with(",mp4a.40.2"));
    checker.until("more segments", LIMIT, |all| newest(all) > first + 12);
    let files = files(&folder.stream("a/b"));
    // Listed, as many again that may still be wanted, one being removed, one being written, and three playlists.
    assert!(files.len() <= 2 * (4 + 7 + 2) + 3, "{files:?}");
    assert_eq!(sink.stat::<u64>("hls", "discontinuities"), 0);
    assert_eq!(sink.stat::<String>("hls", "state"), "live");
    assert!(checker.seen >= 24);
    sink.quiet();
}

#[test]
fn a_publisher_that_returns_is_a_discontinuity_and_a_run_goes_on_after_another() {
    init();
    let folder = Folder::new("returns");
    let sink = Running::start(&folder.sink("returns", ""));
    let mut checker = folder.checker("returns");
    let first = publisher("returns", "layers=180:300k,90:100k");
    let all = checker.until("segments", LIMIT, |all| all["v0.m3u8"].segments.len() >= 2);
    drop(first);
    until("end", || sink.stat::<String>("hls", "state") == "waiting");
    let away = checker.look().unwrap();
    assert!(away.values().all(|playlist| !playlist.ended));
    // What it was made of may change: one layer fewer.
    let _second = publisher("returns", "layers=90:100k");
    let again = checker.until("the second publisher", LIMIT, |all| {
        all["v0.m3u8"].era() == 1
    });
    assert!(newest(&again) > newest(&all));
    until("new list", || checker.variants().unwrap().len() == 1);
    checker.until("more segments", LIMIT, |now| newest(now) > newest(&again));

    assert!(sink.0.send_event(gst::event::Eos::new()));
    sink.ended();
    let ended = checker.look().unwrap();
    assert!(ended.values().all(|playlist| playlist.ended), "{ended:?}");
    sink.quiet();
    drop(sink);
    std::fs::write(folder.stream("returns").join("v0-1.ts"), b"from long ago").unwrap();

    let _sink = Running::start(&folder.sink("returns", "on-loss=eos"));
    let on = checker.until("a new run", LIMIT, |all| all["v0.m3u8"].era() == 2);
    assert_eq!(on["v0.m3u8"].newest(), ended["v0.m3u8"].newest() + 1);
    assert!(!on["v0.m3u8"].ended);
    let left = "v0-1.ts".to_owned();
    until("end of what was left behind", || {
        !files(&folder.stream("returns")).contains(&left)
    });
    checker.look().unwrap();
}

#[test]
fn with_on_loss_eos_the_playlists_end_with_the_publisher() {
    init();
    let folder = Folder::new("eos");
    let sink = Running::start(&folder.sink("eos", "on-loss=eos"));
    let publisher = publisher("eos", "layers=90:100k");
    let mut checker = folder.checker("eos");
    checker.until("segments", LIMIT, |all| newest(all) > 0);
    drop(publisher);
    sink.ended();
    assert!(checker.look().unwrap()["v0.m3u8"].ended);
}

#[test]
fn what_hls_cannot_carry_is_said_and_waited_out() {
    init();
    let folder = Folder::new("vp8");
    let sink = Running::start(&folder.sink("vp8", ""));
    let vp8 = publisher("vp8", "codec=vp8 layers=90:100k");
    let warning = sink.warning();
    assert!(
        warning.contains("VP8") && warning.contains("re-encode"),
        "{warning}"
    );
    assert_eq!(sink.stat::<String>("hls", "state"), "refused");
    assert!(files(&folder.stream("vp8")).is_empty());
    drop(vp8);
    let _h264 = publisher("vp8", "layers=90:100k");
    let mut checker = folder.checker("vp8");
    checker.until("segments", LIMIT, |all| newest(all) > 0);
    sink.quiet();
}

#[test]
fn sound_alone_and_pictures_alone() {
    init();
    let folder = Folder::new("alone");
    let lines = [
        (
            "sound",
            format!("{AUDIO} ! sfusink stream=sound"),
            "mp4a.40.2",
        ),
        (
            "pictures",
            format!("{VIDEO} ! sfusink stream=pictures layers=90:100k"),
            "avc1.42",
        ),
    ];
    for (stream, line, codec) in lines {
        let sink = Running::start(&folder.sink(stream, ""));
        let _publisher = Running::start(&line);
        let mut checker = folder.checker(stream);
        checker.until("segments", LIMIT, |all| all["v0.m3u8"].segments.len() >= 4);
        let variants = checker.variants().unwrap();
        let codecs = &variants[0].attributes["CODECS"];
        assert!(
            codecs.starts_with(codec) && !codecs.contains(','),
            "{codecs}"
        );
        sink.quiet();
    }
}

#[test]
fn a_layer_that_pauses_is_stood_in_for() {
    init();
    let folder = Folder::new("pause");
    let sink = Running::start(&folder.sink("pause", ""));
    let (high, low) = (encoder("high", 500), encoder("low", 100));
    let publisher = Running::start(&format!(
        "sfusink name=out stream=pause  {high} ! valve name=valve ! out.video_0  {low} ! out.video_1"
    ));
    let mut checker = folder.checker("pause");
    let of = |all: &BTreeMap<String, Playlist>, layer: &str| {
        let newest = all["v0.m3u8"].segments.values().next_back();
        newest.is_some_and(|segment| segment.uri.starts_with(layer))
    };
    let begun = checker.until("the high layer", LIMIT, |all| of(all, "v0-"));
    let valve = publisher.0.by_name("valve").unwrap();
    valve.set_property("drop", true);
    let paused = checker.until("the low layer", LIMIT, |all| of(all, "v1-"));
    assert!(paused["v0.m3u8"].era() > begun["v0.m3u8"].era());
    checker.until("more of it", LIMIT, |all| {
        of(all, "v1-") && newest(all) > newest(&paused) + 1
    });
    valve.set_property("drop", false);
    checker.until("the high layer again", LIMIT, |all| of(all, "v0-"));
    sink.quiet();
}

/// The newest segment of a playlist.
fn newest_segment(all: &BTreeMap<String, Playlist>, playlist: &str) -> String {
    all[playlist]
        .segments
        .values()
        .next_back()
        .unwrap()
        .uri
        .clone()
}

/// When the first packet of sound (0xc0) in a segment is to be heard, in seconds.
fn begins(segment: &Path) -> f64 {
    let data = std::fs::read(segment).unwrap();
    let at = data.windows(4).position(|w| w == [0, 0, 1, 0xc0]);
    let head = &data[at.expect("sound") + 9..];
    let bits = |n: usize, shift: u64| u64::from(head[n]) << shift;
    let pts = (u64::from(head[0] >> 1 & 7) << 30)
        | bits(1, 22)
        | (u64::from(head[2] >> 1) << 15)
        | bits(3, 7)
        | u64::from(head[4] >> 1);
    pts as f64 / 90_000.0
}

#[test]
fn languages_are_renditions_of_their_own() {
    init();
    let folder = Folder::new("languages");
    let sink = Running::start(&folder.sink("languages", ""));
    let publisher = Running::start(&format!(
        "{VIDEO} ! sfusink name=out stream=languages layers=180:300k,90:100k \
         {} ! out.audio_0  {} ! out.audio_1",
        speaker("de", 400),
        speaker("pt-BR", 1000)
    ));
    let mut checker = folder.checker("languages");
    let all = checker.until("three segments", LIMIT, |all| {
        all["v0.m3u8"].segments.len() >= 3 && all.contains_key("a1.m3u8")
    });
    let told = |checker: &Checker| {
        let renditions = checker.renditions().into_iter();
        let of = |r: BTreeMap<String, String>| {
            assert_eq!((&*r["TYPE"], &*r["GROUP-ID"]), ("AUDIO", "audio"));
            let get = |name: &str| r.get(name).cloned().unwrap_or_default();
            ["LANGUAGE", "URI", "DEFAULT", "AUTOSELECT"].map(get)
        };
        renditions.map(of).collect::<Vec<_>>()
    };
    let german = ["de", "", "YES", "YES"].map(str::to_owned);
    let portuguese = ["pt-BR", "a1.m3u8", "", "YES"].map(str::to_owned);
    assert_eq!(told(&checker), [german.clone(), portuguese.clone()]);
    let variants = checker.variants().unwrap();
    assert_eq!(variants.len(), 2);
    assert!(variants.iter().all(|v| v.attributes["AUDIO"] == "audio"));
    let heard = |segment: &str| {
        let path = folder.stream("languages").join(segment);
        pitch(&format!(
            "filesrc location={} ! tsdemux name=d d. ! audio/mpeg ! queue ! decodebin",
            path.display()
        ))
    };
    for (playlist, hz) in [("v0.m3u8", 400.0), ("v1.m3u8", 400.0), ("a1.m3u8", 1000.0)] {
        let segment = newest_segment(&all, playlist);
        let pitch = heard(&segment);
        println!("{segment}: {pitch} Hz");
        assert!(
            (pitch - hz).abs() < 40.0,
            "{segment}: {pitch} Hz and not {hz}"
        );
    }
    // They are of the same moment, on one time line.
    let [muxed, alone] = ["v0.m3u8", "a1.m3u8"].map(|playlist| {
        let segment = newest_segment(&all, playlist);
        begins(&folder.stream("languages").join(segment))
    });
    assert!((muxed - alone).abs() < 0.3, "{muxed} s and {alone} s");
    assert_eq!(sink.stat::<u64>("hls", "discontinuities"), 0);

    // Another one comes: everything goes on, and it is named.
    let out = publisher.0.by_name("out").unwrap();
    let more = gst::parse::bin_from_description(&speaker("fr", 2000), true).unwrap();
    let beside = out.parent().and_downcast::<gst::Bin>().unwrap();
    beside.add(&more).unwrap();
    let pad = out.request_pad_simple("audio_2").unwrap();
    more.static_pad("src").unwrap().link(&pad).unwrap();
    more.sync_state_with_parent().unwrap();
    let three = checker.until("the third language", LIMIT, |all| {
        all.contains_key("a2.m3u8")
    });
    let french = ["fr", "a2.m3u8", "", "YES"].map(str::to_owned);
    assert_eq!(told(&checker), [german.clone(), portuguese.clone(), french]);
    let pitch = heard(&newest_segment(&three, "a2.m3u8"));
    assert!((pitch - 2000.0).abs() < 40.0, "{pitch} Hz");
    assert_eq!(sink.stat::<u64>("hls", "discontinuities"), 0);

    // It goes: who plays it is not left without segments, and it is named no more.
    more.static_pad("src").unwrap().unlink(&pad).unwrap();
    out.release_request_pad(&pad);
    more.set_state(gst::State::Null).unwrap();
    beside.remove(&more).unwrap();
    until("two languages", || {
        told(&checker) == [german.clone(), portuguese.clone()]
    });
    let at = newest(&checker.look().unwrap());
    checker.until("more segments", LIMIT, |all| newest(all) > at + 2);
    let track = std::fs::read_to_string(folder.stream("languages").join("a2.m3u8")).unwrap();
    assert!(track.lines().last().unwrap().starts_with("a2-"), "{track}");
    assert_eq!(sink.stat::<u64>("hls", "discontinuities"), 0);

    // The first one goes: the other one is for all then.
    let pad = out.static_pad("audio_0").unwrap();
    let german = pad.peer().unwrap();
    german.unlink(&pad).unwrap();
    out.release_request_pad(&pad);
    let alone = checker.until("one language", LIMIT, |all| {
        let segments = all["v0.m3u8"].segments.values();
        all.len() == 2 && segments.filter(|s| s.era == 1).count() >= 2
    });
    assert!(checker.renditions().is_empty());
    let pitch = heard(&newest_segment(&alone, "v0.m3u8"));
    assert!((pitch - 1000.0).abs() < 40.0, "{pitch} Hz");
    sink.quiet();
}

#[test]
fn without_keyframes_segments_are_not_longer_than_promised() {
    init();
    let folder = Folder::new("keyless");
    let sink = Running::start(&folder.sink("keyless", ""));
    let publisher = Running::prepare(&format!(
        "sfusink name=out stream=keyless  {} ! out.video_0",
        encoder("encoder", 100)
    ));
    let encoder = publisher.0.by_name("encoder").unwrap();
    let pad = encoder.static_pad("src").unwrap();
    let deaf = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_deaf = deaf.clone();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, _| match is_deaf
        .load(std::sync::atomic::Ordering::Relaxed)
    {
        true => gst::PadProbeReturn::Handled,
        false => gst::PadProbeReturn::Ok,
    });
    publisher.0.set_state(gst::State::Playing).unwrap();
    let mut checker = folder.checker("keyless");
    let all = checker.until("segments", LIMIT, |all| newest(all) > 0);
    deaf.store(true, std::sync::atomic::Ordering::Relaxed);
    checker.until("more segments", LIMIT, |now| newest(now) > newest(&all) + 6);
    assert_eq!(sink.stat::<u64>("hls", "discontinuities"), 0);
    sink.quiet();
}

#[test]
fn what_is_wrong_is_said() {
    init();
    let file = std::env::temp_dir().join(format!("sfuhlssink-file-{}", std::process::id()));
    std::fs::write(&file, b"no folder").unwrap();
    for (properties, says) in [
        ("stream=x".to_owned(), "directory is empty"),
        ("stream=no/../way directory=/tmp".to_owned(), "is not valid"),
        (
            format!("stream=x directory={}", file.display()),
            "can't be used",
        ),
    ] {
        let sink = Running::start(&format!("sfuhlssink name=hls {properties}"));
        let error = sink.error();
        assert!(error.contains(says), "{error}");
    }
    std::fs::remove_file(file).unwrap();
}

#[test]
fn waiting_ends_at_once() {
    init();
    let folder = Folder::new("waiting");
    let sink = Running::start(&folder.sink("waiting", ""));
    std::thread::sleep(Duration::from_millis(300));
    assert!(sink.0.send_event(gst::event::Eos::new()));
    sink.ended();
    assert!(files(&folder.stream("waiting")).is_empty());
}

#[test]
fn null_ends_the_playlists_in_time_also_where_the_picture_stalls() {
    init();
    // The last one is longer than the queues behind the sound, which goes on.
    for stalls in [0, 1_500, 7_000] {
        let stream = format!("null-{stalls}");
        let folder = Folder::new(&stream);
        let sink = Running::start(&folder.sink(&stream, ""));
        let publisher = Running::start(&format!(
            "sfusink name=out stream={stream}  {} ! valve name=valve ! out.video_0  {AUDIO} ! out.",
            encoder("high", 300)
        ));
        let mut checker = folder.checker(&stream);
        checker.until("segments", LIMIT, |all| newest(all) > 0);
        if stalls > 0 {
            let valve = publisher.0.by_name("valve").unwrap();
            valve.set_property("drop", true);
            std::thread::sleep(Duration::from_millis(stalls));
        }
        if stalls > 5_000 {
            until("what stalls to be said", || {
                sink.stat::<String>("hls", "state") == "stalled"
            });
        }
        let asked = Instant::now();
        sink.0.set_state(gst::State::Null).unwrap();
        let took = asked.elapsed();
        println!("stalls for {stalls} ms, NULL after {took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        let all = checker.look().unwrap();
        assert!(all.values().all(|playlist| playlist.ended), "{all:?}");
    }
}
