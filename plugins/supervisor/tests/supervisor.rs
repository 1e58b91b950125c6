// SPDX-License-Identifier: MPL-2.0

//! `supervisor` as an application sees it: on the bus, in its `stats`, and in the files that its pipeline writes.

use std::time::{Duration, Instant};

use gst::prelude::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstsupervisor::plugin_register_static().unwrap();
    });
}

/// A pipeline with a supervisor in it, taken down when dropped.
struct Outer {
    pipeline: gst::Pipeline,
    supervisor: gst::Element,
}

impl Outer {
    fn new(inner: &str, properties: &[(&str, &str)]) -> Self {
        init();
        let supervisor = gst::ElementFactory::make("supervisor")
            .property("pipeline", inner)
            .property("restart-delay", 20u32)
            .property("restart-delay-max", 40u32)
            .build()
            .unwrap();
        for (name, value) in properties {
            supervisor.set_property_from_str(name, value);
        }
        let pipeline = gst::Pipeline::new();
        pipeline.add(&supervisor).unwrap();
        Self {
            pipeline,
            supervisor,
        }
    }

    fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    fn message(&self, types: &[gst::MessageType]) -> Option<gst::Message> {
        let bus = self.pipeline.bus().unwrap();
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(PATIENCE.as_secs()), types)
    }

    fn number(&self, field: &str) -> u64 {
        let stats = self.supervisor.property::<gst::Structure>("stats");
        stats.get(field).unwrap()
    }

    fn wait_for(&self, field: &str, at_least: u64) {
        let end = Instant::now() + PATIENCE;
        while self.number(field) < at_least {
            assert!(Instant::now() < end, "{field} is {}", self.number(field));
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Outer {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[test]
fn a_pipeline_that_fails_starts_again_and_ends_nothing_else() {
    let failing = "videotestsrc ! identity error-after=3 ! fakesink";
    let outer = Outer::new(failing, &[]);
    outer.play();
    outer.wait_for("failures", 3);
    let text = warning(&outer);
    assert!(
        text.contains("identity") && text.contains("starts again"),
        "{text}"
    );
    outer.pipeline.set_state(gst::State::Null).unwrap();
    assert!(outer.number("starts") >= 3);
    let ends = [gst::MessageType::Error, gst::MessageType::Eos];
    let bus = outer.pipeline.bus().unwrap();
    assert!(bus.pop_filtered(&ends).is_none());
}

/// With this property at 200 ms `fails` fails, again and again, and says so; `goes_on` does not in `time` with a limit, nor `fails`
/// without one.
fn is_limited(
    property: &str,
    (fails, says): (&str, &str),
    (goes_on, limit): (&str, &str),
    time: Duration,
) {
    let outer = Outer::new(fails, &[(property, "200"), ("restart-delay", "10")]);
    outer.play();
    outer.wait_for("failures", 2);
    let text = warning(&outer);
    assert!(text.contains(says), "{text}");

    let [limited, unlimited] = [(goes_on, limit), (fails, "0")].map(|(pipeline, limit)| {
        let settings = [(property, limit), ("restart", "never")];
        let outer = Outer::new(pipeline, &settings);
        outer.play();
        outer
    });
    std::thread::sleep(time);
    assert_eq!(
        (limited.number("failures"), unlimited.number("failures")),
        (0, 0)
    );
}

#[test]
fn what_never_begins_has_failed_where_there_is_a_limit() {
    let nothing = "videotestsrc ! valve drop=true drop-mode=drop-all ! fakesink async=false";
    let plays = "videotestsrc is-live=true ! fakesink";
    let time = Duration::from_millis(600);
    is_limited("begin-timeout", (nothing, "200 ms"), (plays, "200"), time);
}

#[test]
fn what_goes_on_without_anything_has_failed_where_there_is_a_limit() {
    // The end of the three pictures is not told, as the other input has none.
    let stalls = "videotestsrc num-buffers=3 ! funnel name=f ! fakesink async=false \
                  videotestsrc is-live=true ! valve drop=true drop-mode=drop-all ! f.";
    let slow = "videotestsrc is-live=true ! video/x-raw,framerate=10/1 ! fakesink";
    let says = "nothing has come to a sink for 200 ms";
    let time = Duration::from_millis(2_000);
    is_limited("stall-timeout", (stalls, says), (slow, "800"), time);
}

/// The text of the next warning.
fn warning(outer: &Outer) -> String {
    let warning = outer.message(&[gst::MessageType::Warning]).unwrap();
    match warning.view() {
        gst::MessageView::Warning(warning) => warning.error().message().to_owned(),
        _ => unreachable!(),
    }
}

#[test]
fn a_sink_that_stalls_is_a_failure_where_nothing_else_comes_or_it_had_the_pictures() {
    // So many buffers, and no end after them, as the other input has none. -1 is without end.
    let branch = |source: &str, count: i32, name: &str| {
        format!(
            "{source} is-live=true num-buffers={count} ! funnel name={name} ! fakesink async=false \
             {source} is-live=true ! valve drop=true drop-mode=drop-all ! {name}. "
        )
    };
    let everything = Some("nothing has come to a sink for 1000 ms");
    let pictures_alone = Some("no picture has come to a sink for 1000 ms");
    let cases = [
        (-1, 3, "everything", None),
        (3, -1, "everything", None),
        (3, 3, "everything", everything),
        (0, 0, "everything", None),
        (-1, 3, "video", None),
        (3, -1, "video", pictures_alone),
        (0, -1, "video", None),
        (3, 3, "video", everything),
    ];
    let started = cases.map(|(pictures, sounds, of, says)| {
        let inner = branch("videotestsrc", pictures, "v") + &branch("audiotestsrc", sounds, "a");
        let limits = [
            ("stall-timeout", "1000"),
            ("stall-of", of),
            ("restart", "never"),
        ];
        let outer = Outer::new(&inner, &limits);
        outer.play();
        (outer, (pictures, sounds, of), says)
    });
    for (outer, case, says) in &started {
        if let Some(says) = says {
            let said = warning(outer);
            assert!(said.contains(says), "{case:?}: {said}");
        }
    }
    std::thread::sleep(Duration::from_millis(2_500));
    for (outer, case, says) in &started {
        let expected = u64::from(says.is_some());
        assert_eq!(outer.number("failures"), expected, "{case:?}");
    }
}

#[test]
fn what_is_only_announced_has_stalled() {
    let announces = "videotestsrc is-live=true ! valve drop=true drop-mode=forward-sticky-events \
                     ! fakesink async=false";
    let limits = [("begin-timeout", "60000"), ("stall-timeout", "200")];
    let outer = Outer::new(announces, &limits);
    outer.play();
    outer.wait_for("failures", 2);
    assert!(warning(&outer).contains("nothing has come to a sink for 200 ms"));
}

/// A folder of the test's own.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("supervisor-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_failure_names_the_file_that_is_passed_over() {
    let folder = Folder::new("names");
    for name in ["a.film", "b.film"] {
        std::fs::write(folder.0.join(name), "no film at all".repeat(300)).unwrap();
    }
    let files = folder.0.join("*.film");
    let outer = Outer::new(
        "filesrc location={file} ! decodebin ! fakesink",
        &[("files", files.to_str().unwrap())],
    );
    outer.play();
    for name in ["a.film", "b.film", "a.film"] {
        let file = folder.0.join(name);
        let begins = format!("The supervised pipeline failed at {}: ", file.display());
        let said = warning(&outer);
        assert!(said.starts_with(&begins), "{said}");
        assert!(said.contains(". It starts again in "), "{said}");
        assert!(!said.contains(".."), "{said}");
    }
}

#[test]
fn a_failure_tells_no_password() {
    let address = "rtsp://ann:secret@127.0.0.1:9/door?key=secret";
    let outer = Outer::new(&format!("rtspsrc location={address} ! fakesink"), &[]);
    outer.play();
    let said = warning(&outer);
    assert!(said.contains(" at rtsp://127.0.0.1:9/door…: "), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_film_without_pictures_is_not_warned_of() {
    init();
    let folder = Folder::new("sound");
    let file = folder.0.join("sound.wav");
    let line = format!(
        "audiotestsrc num-buffers=50 ! wavenc ! filesink location={}",
        file.display()
    );
    let writes = gst::parse::launch(&line).unwrap();
    writes.set_state(gst::State::Playing).unwrap();
    let end = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = writes.bus().unwrap();
    bus.timed_pop_filtered(gst::ClockTime::from_seconds(PATIENCE.as_secs()), &end)
        .unwrap();
    writes.set_state(gst::State::Null).unwrap();
    let inner = format!(
        "filesrc location={} ! decodebin name=in  in. ! audio/x-raw ! fakesink  \
         in. ! video/x-raw ! queue ! fakesink async=false",
        file.display()
    );
    // Its end does not come: pictures are waited for. It is warned of that, and of nothing else.
    let outer = Outer::new(&inner, &[("stall-timeout", "500")]);
    outer.play();
    outer.wait_for("failures", 2);
    for _ in 0..2 {
        let said = warning(&outer);
        assert!(said.contains("nothing has come to a sink"), "{said}");
    }
}

#[test]
fn eos_waits_for_no_decoder_that_gets_nothing() {
    // As that of a microphone that a camera does not have. It keeps the whole pipeline from ever being in PLAYING.
    let inner = "audiotestsrc is-live=true ! fakesink async=false  identity ! decodebin";
    let outer = Outer::new(inner, &[("eos-timeout", "60000")]);
    outer.play();
    outer.wait_for("starts", 1);
    std::thread::sleep(Duration::from_millis(500));
    assert!(outer.pipeline.send_event(gst::event::Eos::new()));
    assert!(outer.message(&[gst::MessageType::Eos]).is_some());
    assert_eq!(outer.number("failures"), 0);
}

#[test]
fn eos_finishes_files() {
    let folder = std::env::temp_dir().join(format!("supervisor-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("sound.wav");
    let inner = format!(
        "audiotestsrc is-live=true ! wavenc ! filesink location={} buffer-mode=unbuffered",
        file.display()
    );
    let outer = Outer::new(&inner, &[]);
    outer.play();
    let end = Instant::now() + PATIENCE;
    while std::fs::metadata(&file).map_or(0, |data| data.len()) < 20_000 {
        assert!(Instant::now() < end, "nothing is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(outer.pipeline.send_event(gst::event::Eos::new()));
    assert!(outer.message(&[gst::MessageType::Eos]).is_some());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    // Bytes 4 to 8 of a WAV file hold the length of what follows them; it is written last.
    let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
    assert_eq!(length as usize, bytes.len() - 8);
}

#[test]
fn eos_waits_for_nothing_that_has_not_begun_and_not_for_ever() {
    // Nothing comes, and so no EOS.
    for (inner, timeout) in [
        ("identity ! fakesink", "60000"),
        ("identity ! fakesink async=false", "200"),
    ] {
        let outer = Outer::new(inner, &[("eos-timeout", timeout)]);
        outer.play();
        outer.wait_for("starts", 1);
        std::thread::sleep(Duration::from_millis(100));
        assert!(outer.pipeline.send_event(gst::event::Eos::new()));
        assert!(outer.message(&[gst::MessageType::Eos]).is_some(), "{inner}");
        let late = inner.contains("async=false");
        assert_eq!(outer.number("failures"), u64::from(late), "{inner}");
    }
}

#[test]
fn restart_says_whether_eos_is_the_end() {
    let short = "audiotestsrc num-buffers=2 ! fakesink";
    for restart in ["never", "on-error"] {
        let outer = Outer::new(short, &[("restart", restart)]);
        outer.play();
        assert!(outer.message(&[gst::MessageType::Eos]).is_some());
        assert_eq!((outer.number("starts"), outer.number("failures")), (1, 0));
    }
    let outer = Outer::new(short, &[("restart", "always")]);
    outer.play();
    outer.wait_for("starts", 3);
    assert_eq!(outer.number("failures"), 0);
}

#[test]
fn a_pause_is_followed_and_a_stop_joined() {
    let outer = Outer::new("audiotestsrc is-live=true ! fakesink", &[]);
    for _ in 0..3 {
        outer.play();
        outer.wait_for("starts", 1);
        outer.pipeline.set_state(gst::State::Paused).unwrap();
        outer.play();
        outer.pipeline.set_state(gst::State::Null).unwrap();
        let stats = outer.supervisor.property::<gst::Structure>("stats");
        assert_eq!(stats.get::<String>("state").unwrap(), "stopped");
    }
}

#[test]
fn what_is_set_while_it_plays_holds_from_the_next_start_on() {
    let outer = Outer::new(
        "videotestsrc ! identity error-after=3 ! fakesink",
        &[
            ("restart-delay", "3600000"),
            ("restart-delay-max", "3600000"),
        ],
    );
    outer.play();
    outer.wait_for("failures", 1);
    outer.supervisor.set_property("pipeline", "nosuchelement");
    let refused = |message: &gst::Message| match message.view() {
        gst::MessageView::Warning(w) => w.error().message().starts_with("pipeline stays"),
        _ => false,
    };
    let end = Instant::now() + PATIENCE;
    while !outer
        .message(&[gst::MessageType::Warning])
        .is_some_and(|message| refused(&message))
    {
        assert!(Instant::now() < end, "nothing is said");
    }
    let before = outer.supervisor.property::<String>("pipeline");
    assert!(before.contains("error-after"), "{before}");
    drop(outer);
    let outer = Outer::new("videotestsrc num-buffers=3 ! fakesink", &[]);
    outer.play();
    outer.wait_for("starts", 2);
    outer.supervisor.set_property_from_str("restart", "never");
    // EOS is the end now.
    assert!(outer.message(&[gst::MessageType::Eos]).is_some());
}

#[test]
fn a_description_that_cannot_be_built_is_an_error_at_the_start() {
    for (description, word) in [
        ("", "empty"),
        ("nosuchelement ! fakesink", "nosuchelement"),
        ("fakesrc ! ", "pipeline"),
    ] {
        let outer = Outer::new(description, &[]);
        assert!(outer.pipeline.set_state(gst::State::Playing).is_err());
        let message = outer.message(&[gst::MessageType::Error]).unwrap();
        let gst::MessageView::Error(error) = message.view() else {
            unreachable!()
        };
        let text = error.error().message().to_owned();
        assert!(text.contains(word), "{description:?}: {text}");
    }
}
