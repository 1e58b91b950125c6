// SPDX-License-Identifier: MPL-2.0
//! Who may publish by SRT, by the rules of the access file and what stream ids show; callers are GStreamer's `srtsink`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_access::{Action, hash_password};
use sfu_access_rows::{KEY, SECRET, grants, token, wrong};

/// How long something may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

struct Served {
    element: gst::Element,
    folder: PathBuf,
    port: u32,
}

impl Served {
    fn new(test: &str, rules: &str, properties: &[(&str, &str)]) -> Self {
        gst::init().unwrap();
        // Tests of one process register it more than once.
        let _ = gstsrtserver::plugin_register_static();
        let folder = std::env::temp_dir().join(format!("sfu-srt-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("secret"), SECRET).unwrap();
        fs::write(folder.join("key"), KEY).unwrap();
        fs::write(folder.join("access"), rules).unwrap();
        let element = gst::ElementFactory::make("srtserver").build().unwrap();
        element.set_property("listen", "127.0.0.1:0");
        element.set_property("stream", "cam1");
        element.set_property("pipeline", "appsrc name=caller ! fakesink");
        element.set_property("access", folder.join("access").to_str().unwrap());
        for (name, value) in properties {
            element.set_property_from_str(name, value);
        }
        element.set_state(gst::State::Playing).unwrap();
        let port = element.property("port");
        Self {
            element,
            folder,
            port,
        }
    }

    fn rewrite(&self, rules: &str) {
        let new = self.folder.join("new");
        fs::write(&new, rules).unwrap();
        fs::rename(&new, self.folder.join("access")).unwrap();
    }

    fn count(&self, field: &str) -> u64 {
        let stats = self.element.property::<gst::Structure>("stats");
        stats.get(field).unwrap()
    }

    fn wait(&self, what: &str, reached: impl Fn() -> bool) {
        let end = Instant::now() + LIMIT;
        while !reached() {
            let stats = self.element.property::<gst::Structure>("stats");
            assert!(Instant::now() < end, "{what}: {stats}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Calls, and goes on sending until it is dropped.
    fn call(&self, id: &str, passphrase: &str) -> Caller {
        let line =
            "audiotestsrc is-live=true num-buffers=-1 ! avenc_mp2 ! mpegtsmux ! srtsink name=out";
        let pipeline = gst::parse::launch(line).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("out").unwrap();
        sink.set_property("uri", format!("srt://127.0.0.1:{}?mode=caller", self.port));
        sink.set_property("streamid", id);
        sink.set_property("wait-for-connection", false);
        if sink.find_property("auto-reconnect").is_some() {
            sink.set_property("auto-reconnect", false);
        }
        if !passphrase.is_empty() {
            sink.set_property("passphrase", passphrase);
        }
        let _ = pipeline.set_state(gst::State::Playing);
        Caller(pipeline)
    }

    /// Whether who shows that is let in.
    fn lets_in(&self, id: &str, passphrase: &str) -> bool {
        self.wait("nobody to be there", || self.callers() == 0);
        let before = (self.count("accepted"), self.count("refused"));
        let caller = self.call(id, passphrase);
        self.wait(&format!("an answer to {id:?}"), || {
            (self.count("accepted"), self.count("refused")) != before
        });
        drop(caller);
        self.count("accepted") > before.0
    }

    fn callers(&self) -> u32 {
        let stats = self.element.property::<gst::Structure>("stats");
        stats.get("callers").unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.element.set_state(gst::State::Null).unwrap();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

struct Caller(gst::Pipeline);

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

#[test]
fn nobody_gets_in_by_what_is_not_right() {
    let hash = hash_password("horse").unwrap();
    let rules = format!(
        "loopback\ntokens secret\nkey key publish=cam1\nuser ann {hash} publish=cam1\nuser bob {hash} play\n"
    );
    let served = Served::new("matrix", &rules, &[]);
    let right = token(SECRET, &grants(&[Action::Publish], "cam1"), 60);
    let mut rows = wrong(&[Action::Publish], "cam1");
    rows.push(("right", right));
    rows.push(("right: a key", KEY.to_owned()));
    for (what, shown) in &rows {
        for id in [
            format!("cam1?token={shown}"),
            format!("#!::r=cam1,m=publish,s={shown}"),
            format!("#!::s={shown},u=me"),
            format!("publish:cam1::{shown}"),
        ] {
            let let_in = what.starts_with("right");
            assert_eq!(served.lets_in(&id, ""), let_in, "{what}: {id}");
        }
    }
    for (id, let_in) in [
        ("", false),
        ("cam1", false),
        ("#!::r=cam1,m=publish,u=ann,s=horse", true),
        ("#!::r=cam1,m=publish,u=ann,s=cow", false),
        ("#!::r=cam1,m=publish,u=bob,s=horse", false),
        ("#!::r=cam2,m=publish,u=ann,s=horse", false),
        ("#!::r=cam1,m=publish,u=ann", false),
        ("cam1?user=ann&pass=horse", true),
        ("publish:cam1:ann:horse", true),
        ("publish:cam1:ann:cow", false),
    ] {
        assert_eq!(served.lets_in(id, ""), let_in, "{id}");
    }
}

#[test]
fn a_passphrase_is_needed_besides_where_both_are_set() {
    let properties = [("passphrase", "correct-horse")];
    let served = Served::new("both", "loopback\nkey key publish\n", &properties);
    let shown = format!("cam1?token={KEY}");
    assert!(served.lets_in(&shown, "correct-horse"));
    assert!(!served.lets_in("cam1", "correct-horse"));
    // libsrt itself turns away who doesn't know it, and counts nothing here.
    let accepted = served.count("accepted");
    let _wrong = served.call(&shown, "wrong-horse-x");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(served.count("accepted"), accepted);
}

#[test]
fn who_may_no_longer_is_cut() {
    let hash = hash_password("horse").unwrap();
    let rules = format!("loopback\ntokens secret\nuser ann {hash} publish=cam2\n");
    let served = Served::new("ends", &rules, &[]);
    let brief = token(SECRET, &grants(&[Action::Publish], "cam1"), 4);
    let _by_token = served.call(&format!("cam1?token={brief}"), "");
    let _by_password = served.call("#!::r=cam2,u=ann,s=horse", "");
    served.wait("both", || served.count("accepted") == 2);
    served.wait("the token's end", || served.count("cut") == 1);
    assert_eq!(served.callers(), 1);
    served.rewrite("loopback\ntokens secret\n");
    served.wait("the user's end", || served.count("cut") == 2);
    let stats = served.element.property::<gst::Structure>("stats");
    let why: String = stats.get("last-cut").unwrap();
    assert!(why.contains("it may no longer"), "{why}");
}

/// Also where nobody is there whose connection they could end.
#[test]
fn rules_that_change_while_nobody_is_there_hold_for_who_calls() {
    let served = Served::new("idle", "loopback\n", &[]);
    let with_key = format!("cam1?token={KEY}");
    assert!(!served.lets_in(&with_key, ""));
    for (rules, by_nothing, by_key) in [
        ("loopback\nkey key publish=cam1\n", false, true),
        ("loopback publish\n", true, true),
        ("loopback\n", false, false),
    ] {
        served.wait("nobody to be there", || served.callers() == 0);
        served.rewrite(rules);
        std::thread::sleep(Duration::from_millis(1_100));
        assert_eq!(served.lets_in(&with_key, ""), by_key, "{rules}");
        assert_eq!(served.lets_in("cam1", ""), by_nothing, "{rules}");
    }
}

#[test]
fn the_application_hears_of_callers_and_ends_them() {
    let served = Served::new("kick", "loopback publish\n", &[]);
    let (told, heard) = std::sync::mpsc::channel();
    for name in ["caller-joined", "caller-left"] {
        let told = told.clone();
        served.element.connect(name, false, move |values| {
            let about = values[1].get::<gst::Structure>().unwrap();
            let text = |field| about.get::<String>(field).unwrap();
            let _ = told.send((name, text("stream"), text("reason")));
            None
        });
    }
    let kick = |stream: &str| served.element.emit_by_name::<bool>("kick", &[&stream]);
    let (_other, _caller) = (served.call("cam2", ""), served.call("cam1", ""));
    let mut joined: Vec<_> = (0..2).map(|_| heard.recv_timeout(LIMIT).unwrap()).collect();
    joined.sort();
    let joined: Vec<_> = joined
        .iter()
        .map(|(name, stream, _)| (*name, stream.as_str()))
        .collect();
    assert_eq!(
        joined,
        [("caller-joined", "cam1"), ("caller-joined", "cam2")]
    );
    assert!(!kick("cam3"), "nobody sends it");
    assert!(kick("cam1"));
    let left = heard.recv_timeout(LIMIT).unwrap();
    let expected = (
        "caller-left",
        "cam1".to_owned(),
        "the application ended it".to_owned(),
    );
    assert_eq!(left, expected);
    assert_eq!((served.callers(), served.count("cut")), (1, 0));
}

/// Wrong passwords take a publisher's place not even while they are looked at, whoever shows them.
#[test]
fn who_waits_to_be_known_takes_nobodys_place() {
    let hash = hash_password("horse").unwrap();
    let rules = format!("loopback\nkey key publish\nuser ann {hash} publish\n");
    let served = Served::new("place", &rules, &[]);
    let _publisher = served.call(&format!("cam1?token={KEY}"), "");
    served.wait("the publisher", || served.count("bytes") > 0);
    let strangers: Vec<_> = (0..10)
        .map(|n| served.call(&format!("#!::r=cam1,u=ann,s=guess{n}"), ""))
        .collect();
    served.wait("the strangers", || served.count("refused") >= 10);
    drop(strangers);
    assert_eq!((served.count("accepted"), served.count("cut")), (1, 0));
    assert_eq!(served.callers(), 1);
    let bytes = served.count("bytes");
    served.wait("the publisher to go on", || served.count("bytes") > bytes);
}

/// Encoders show a refusal as an error of input and output: what was wrong is said here.
#[test]
fn who_is_turned_away_is_told_of_once_a_kind() {
    let served = Served::new("told", "loopback\n", &[]);
    let bus = gst::Bus::new();
    served.element.set_bus(Some(&bus));
    for id in [
        "cam 1",
        "read:cam1",
        "/live/x",
        "cam 2",
        "cam1?token=secret",
    ] {
        assert!(!served.lets_in(id, ""), "{id}");
    }
    let warning = || {
        let kinds = [gst::MessageType::Warning];
        let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(2), &kinds)?;
        let gst::MessageView::Warning(warning) = message.view() else {
            return None;
        };
        Some(warning.error().message().to_owned())
    };
    let told: Vec<_> = std::iter::from_fn(warning).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    for (id, why) in [
        ("cam 1", "it names no stream"),
        ("cam1", "it asks to play"),
        ("/live/x", "it shows nothing by which it may publish"),
    ] {
        let what = format!("the stream id {id:?} is refused: {why}");
        assert!(told.iter().any(|told| told.contains(&what)), "{told:?}");
    }
}
