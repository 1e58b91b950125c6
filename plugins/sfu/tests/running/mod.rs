// SPDX-License-Identifier: MPL-2.0

//! A pipeline from text that is brought to an end when dropped, and what is asked of it: shared by the elements' tests.

#![allow(dead_code)]

use gst::prelude::*;

/// How long anything may take.
const LIMIT: gst::ClockTime = gst::ClockTime::from_seconds(40);

/// GStreamer with the plugins under test, registered once: doing it again takes the factories from elements that other
/// tests have.
pub(crate) fn init() {
    // Tests are threads, and the registry is one.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstsfu::plugin_register_static().unwrap();
        gstsimulcast::plugin_register_static().unwrap();
    });
}

/// The same, with the muxer of recordings.
pub(crate) fn init_recordings() {
    init();
    let program = std::env::current_exe().unwrap();
    let built = program.ancestors().nth(2).unwrap().join("libgstfmp4.so");
    gst::Plugin::load_file(built).expect("isofmp4mux must be built: ./sfu build");
}

/// A folder that is removed where its test has passed.
pub(crate) struct Folder(pub(crate) std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// See the module's description. Streams are named after the test: all tests of a program share the router.
pub(crate) struct Running(pub(crate) gst::Pipeline);

impl Running {
    pub(crate) fn prepare(line: &str) -> Self {
        let bin = gst::parse::launch_full(line, None, gst::ParseFlags::PLACE_IN_BIN).unwrap();
        let pipeline = bin.downcast::<gst::Pipeline>().unwrap_or_else(|bin| {
            let pipeline = gst::Pipeline::new();
            pipeline.add(&bin).unwrap();
            pipeline
        });
        Self(pipeline)
    }

    pub(crate) fn start(line: &str) -> Self {
        let running = Self::prepare(line);
        running.play();
        running
    }

    pub(crate) fn play(&self) {
        // What goes wrong at once is on the bus as well.
        let _ = self.0.set_state(gst::State::Playing);
    }

    /// The next message of one of these types.
    pub(crate) fn next(&self, types: &[gst::MessageType]) -> gst::Message {
        let message = self.0.bus().unwrap().timed_pop_filtered(LIMIT, types);
        message.unwrap_or_else(|| panic!("no message of {types:?} in time"))
    }

    /// Waits for the end of the stream.
    pub(crate) fn ended(&self) {
        self.next(&[gst::MessageType::Eos]);
    }

    /// The next error's text.
    pub(crate) fn error(&self) -> String {
        match self.next(&[gst::MessageType::Error]).view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => unreachable!("only errors are popped"),
        }
    }

    /// The next warning's text.
    pub(crate) fn warning(&self) -> String {
        match self.next(&[gst::MessageType::Warning]).view() {
            gst::MessageView::Warning(warning) => warning.error().to_string(),
            _ => unreachable!("only warnings are popped"),
        }
    }

    /// Nothing was complained of so far.
    pub(crate) fn quiet(&self) {
        let types = [gst::MessageType::Error, gst::MessageType::Warning];
        let message = self.0.bus().unwrap().pop_filtered(&types);
        assert!(message.is_none(), "{message:?}");
    }

    /// A figure of an element's `stats`.
    pub(crate) fn stat<T>(&self, element: &str, name: &str) -> T
    where
        for<'a> T: glib::value::FromValue<'a> + 'static,
    {
        let stats: gst::Structure = self.0.by_name(element).unwrap().property("stats");
        stats.get::<T>(name).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// The pitch of the sound that a line gives to `! ...`, in Hz, by how often it crosses zero.
pub(crate) fn pitch(line: &str) -> f64 {
    let running = Running::prepare(&format!(
        "{line} ! audioconvert ! audioresample ! audio/x-raw,format=S16LE,rate=48000,channels=1,layout=interleaved \
           ! fakesink name=heard sync=false"
    ));
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::<i16>::new()));
    let pad = running
        .0
        .by_name("heard")
        .unwrap()
        .static_pad("sink")
        .unwrap();
    let all = heard.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let map = info.buffer().unwrap().map_readable().unwrap();
        let samples = map
            .chunks_exact(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]));
        all.lock().unwrap().extend(samples);
        gst::PadProbeReturn::Ok
    });
    running.play();
    let end = running.next(&[gst::MessageType::Error, gst::MessageType::Eos]);
    assert_eq!(end.type_(), gst::MessageType::Eos, "{line}: {end:?}");
    let heard = heard.lock().unwrap();
    // Silence, and what codecs make of it, has no pitch.
    let loud = |s: &&i16| s.unsigned_abs() > 1_000;
    let signs: Vec<bool> = heard.iter().filter(loud).map(|s| *s > 0).collect();
    let crossings = signs.windows(2).filter(|w| w[0] != w[1]).count();
    let quiet = heard.iter().filter(|s| s.unsigned_abs() < 8).count();
    let seconds = (heard.len() - quiet.min(heard.len())) as f64 / 48_000.0;
    crossings as f64 / 2.0 / seconds.max(0.001)
}
