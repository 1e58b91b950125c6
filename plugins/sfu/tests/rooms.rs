// SPDX-License-Identifier: MPL-2.0
//! `sfuroomsrc` and `sfuroommixer`: streams come and go, and what comes out.

mod running;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use running::{Running, init};
use sfu_engine::{Publishing, Router};

const LIMIT: Duration = Duration::from_secs(40);

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "no {what} in {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A room, as rooms tell of it.
struct Room {
    router: Arc<Router>,
    name: &'static str,
}

impl Room {
    /// Router and room have the test's name.
    fn new(name: &'static str) -> Self {
        let router = Router::get(name);
        Self { router, name }
    }

    /// Somebody publishes these from now on.
    fn enter(&self, identity: &str, streams: &[&str]) {
        let publishing = Publishing {
            identity: identity.to_owned(),
            streams: streams.iter().map(|name| name.parse().unwrap()).collect(),
        };
        self.router.roster().set(self.name, identity, publishing);
    }

    fn leave(&self, identity: &str) {
        self.router.roster().remove(self.name, identity);
    }

    /// A picture of one colour, and a tone.
    fn camera(&self, stream: &str, pattern: &str) -> Running {
        Running::start(&format!(
            "videotestsrc is-live=true pattern={pattern} ! video/x-raw,width=160,height=90,framerate=15/1 \
               ! sfusink name=out router={} stream={stream} codec=vp8 layers=90:150k \
             audiotestsrc is-live=true ! out.audio_0",
            self.name
        ))
    }
}

/// Whose pads there are now, as `video_0 of ann`.
fn pads(element: &gst::Element) -> BTreeSet<String> {
    let pads = element.src_pads().into_iter();
    pads.map(|pad| format!("{} of {}", pad.name(), pad.property::<String>("identity")))
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn pads_come_and_go_with_participants() {
    init();
    let room = Room::new("pads");
    let running = Running::prepare("sfuroomsrc name=in router=pads room=pads");
    let element = running.0.by_name("in").unwrap();
    // What each pad that is linked has got.
    let got = Arc::new(Mutex::new(Vec::<(String, &'static str)>::new()));
    let (bin, into) = (running.0.downgrade(), got.clone());
    element.connect_pad_added(move |_, pad| {
        let Some(bin) = bin.upgrade().filter(|_| pad.name().starts_with("audio")) else {
            return;
        };
        let sink = gst::ElementFactory::make("fakesink").property("sync", false);
        let sink = sink.property("async", false).build().unwrap();
        bin.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        let (name, into) = (pad.name().to_string(), into.clone());
        let target = sink.static_pad("sink").unwrap();
        let both = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        target.add_probe(both, move |_, info| {
            let what = match &info.data {
                Some(gst::PadProbeData::Buffer(_)) => "sound",
                Some(gst::PadProbeData::Event(e)) if e.type_() == gst::EventType::Eos => "end",
                _ => return gst::PadProbeReturn::Ok,
            };
            let mut into = into.lock().unwrap();
            let one = (name.clone(), what);
            if !into.contains(&one) {
                into.push(one);
            }
            gst::PadProbeReturn::Ok
        });
        pad.link(&target).unwrap();
    });
    running.play();
    let has = |what: &[(&str, &'static str)]| {
        let got = got.lock().unwrap();
        what.iter()
            .all(|(name, what)| got.iter().any(|(n, w)| n == name && w == what))
    };
    // Who publishes nothing yet has no pads.
    room.enter("ann", &["pads/ann"]);
    let ann = room.camera("pads/ann", "red");
    until("ann", || {
        pads(&element) == set(&["audio_0 of ann", "video_0 of ann"])
    });
    until("her sound", || has(&[("audio_0", "sound")]));
    room.enter("Ben B", &["PA_2"]);
    let ben = room.camera("PA_2", "blue");
    until("ben", || {
        pads(&element).len() == 4 && pads(&element).contains("video_1 of Ben B")
    });
    until("his sound", || has(&[("audio_1", "sound")]));
    let message = running.next(&[gst::MessageType::Element]);
    assert!(message.structure().is_some());
    // Who goes takes its pads along, and they have an end.
    room.leave("ann");
    until("ann to go", || {
        pads(&element) == set(&["audio_1 of Ben B", "video_1 of Ben B"])
    });
    assert!(has(&[("audio_0", "end")]) && !has(&[("audio_1", "end")]));
    drop(ann);
    // A publisher that stops for a while stays: its pads wait, as sfusrc's do.
    drop(ben);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(pads(&element).len(), 2);
    running.quiet();
    running.0.set_state(gst::State::Null).unwrap();
    assert!(
        pads(&element).is_empty()
            && element
                .downcast::<gst::Bin>()
                .unwrap()
                .children()
                .is_empty()
    );
}

#[test]
fn who_comes_and_goes_again_and_again_leaves_nothing() {
    init();
    let room = Room::new("again");
    let running = Running::start("sfuroomsrc name=in router=again room=again");
    let element = running.0.by_name("in").unwrap();
    let camera = room.camera("again/a", "red");
    for round in 0..30 {
        room.enter("a", &["again/a"]);
        // Some go before all of them is there.
        let some = round % 3;
        until("pads", || pads(&element).len() >= some);
        room.leave("a");
        until("no pads", || pads(&element).is_empty());
    }
    running.quiet();
    let bin = element.downcast::<gst::Bin>().unwrap();
    until("no sources", || bin.children().is_empty());
    drop(camera);
}

#[test]
fn what_can_not_be_is_refused_in_words() {
    init();
    for (line, words) in [
        ("sfuroomsrc room=\"\"", "name the room"),
        ("sfuroomsrc layer=all", "one layer of each"),
    ] {
        assert!(Running::start(line).error().contains(words), "{line}");
    }
}

/// The middle of a part of a picture in I420: how bright, and how blue and red.
fn colour(sample: &gst::Sample, part: (usize, usize)) -> [u8; 3] {
    let (width, height) = (320, 180);
    let map = sample.buffer().unwrap().map_readable().unwrap();
    let (x, y) = part;
    let chroma = width * height;
    let at = (y / 2) * (width / 2) + x / 2;
    let plane = chroma / 4;
    [
        map[y * width + x],
        map[chroma + at],
        map[chroma + plane + at],
    ]
}

fn is_black([y, u, v]: [u8; 3]) -> bool {
    y < 40 && u.abs_diff(128) < 20 && v.abs_diff(128) < 20
}

fn is_red([_, _, v]: [u8; 3]) -> bool {
    v > 190
}

fn is_blue([_, u, _]: [u8; 3]) -> bool {
    u > 190
}

#[test]
fn a_room_becomes_one_picture_and_one_sound() {
    init();
    let room = Room::new("mixed");
    let running = Running::start(
        "sfuroommixer name=mix router=mixed room=mixed width=320 height=180 framerate=15 \
         mix.video ! appsink name=v sync=false max-buffers=1 drop=true \
         mix.audio ! audioconvert ! audio/x-raw,format=S16LE,channels=1 ! appsink name=a sync=false max-buffers=1 drop=true",
    );
    let sink = |name: &str| {
        let sink = running.0.by_name(name).unwrap();
        sink.downcast::<gst_app::AppSink>().unwrap()
    };
    let (pictures, sounds) = (sink("v"), sink("a"));
    let shows = |what: &str, is_so: &dyn Fn(&gst::Sample) -> bool| {
        let mut last = None;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let Some(sample) = pictures.try_pull_sample(gst::ClockTime::SECOND) else {
                continue;
            };
            if is_so(&sample) {
                return;
            }
            last = Some([(80, 90), (240, 90), (160, 90)].map(|part| colour(&sample, part)));
        }
        panic!("no {what} in {LIMIT:?}: {last:?}");
    };
    let is_loud = || {
        let sample = sounds.try_pull_sample(gst::ClockTime::SECOND);
        let sample = sample.expect("sound without an end");
        let map = sample.buffer().unwrap().map_readable().unwrap();
        map.chunks_exact(2)
            .any(|s| i16::from_le_bytes([s[0], s[1]]).unsigned_abs() > 1_000)
    };
    shows("black", &|sample| is_black(colour(sample, (160, 90))));
    assert!(!is_loud());
    room.enter("ann", &["mixed/ann"]);
    let ann = room.camera("mixed/ann", "red");
    shows("red", &|sample| is_red(colour(sample, (160, 90))));
    until("sound", is_loud);
    // The second one: each has a half.
    room.enter("ben", &["mixed/ben"]);
    let ben = room.camera("mixed/ben", "blue");
    shows("red and blue", &|sample| {
        is_red(colour(sample, (80, 90))) && is_blue(colour(sample, (240, 90)))
    });
    // Large is the first one, and the other one is in a column.
    let mixer = running.0.by_name("mix").unwrap();
    mixer.set_property_from_str("layout", "speaker");
    shows("a large one", &|sample| {
        is_red(colour(sample, (200, 90))) && is_blue(colour(sample, (288, 22)))
    });
    mixer.set_property_from_str("layout", "grid");
    room.leave("ann");
    drop(ann);
    shows("blue", &|sample| is_blue(colour(sample, (160, 90))));
    room.leave("ben");
    drop(ben);
    shows("black again", &|sample| is_black(colour(sample, (160, 90))));
    until("silence", || !is_loud());
    running.quiet();
    running.0.set_state(gst::State::Null).unwrap();
    // And once more.
    running.play();
    shows("black after a stop", &|sample| {
        is_black(colour(sample, (160, 90)))
    });
}
