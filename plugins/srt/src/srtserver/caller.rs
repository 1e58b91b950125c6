// SPDX-License-Identifier: MPL-2.0

//! One caller, on a thread of its own: its messages into its pipeline, which is built anew when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_access::Pass;
use sfu_elements::kick;

use super::CAT;
use super::server::{Entry, Shared};
use super::stats::count;
use crate::libsrt::{Buffer, Socket};

/// Who sends nothing, or nothing that reaches a sink, is cut after this.
const USELESS: Duration = Duration::from_secs(10);
/// A pipeline that brought something to a sink for so long has not failed at its start.
const STABLE: Duration = Duration::from_secs(5);
/// So many pipelines may fail one after the other.
const FAILURES: u32 = 5;
/// How long to wait before the next one: so many times as have failed.
const AGAIN: Duration = Duration::from_millis(200);
/// When it is looked at what nothing takes.
const SETTLED: Duration = Duration::from_secs(3);
/// What may wait in front of a pipeline that is too slow, some seconds' worth.
const MAX_WAITING: u64 = 8 * 1024 * 1024;
/// The same of messages, which are small where their sender likes: each takes a buffer of its own. A caller's are 1,316 octets.
const MAX_WAITING_MESSAGES: u64 = 32_768;

/// How a caller ended.
#[derive(Debug)]
pub(super) enum End {
    Gone,
    Stopped,
    Kicked,
    Cut(String),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("it hung up"),
            Self::Stopped => f.write_str("it is ended"),
            Self::Kicked => f.write_str("the application ended it"),
            Self::Cut(why) => write!(f, "cut: {why}"),
        }
    }
}

/// Builds the pipeline of a description.
pub(super) fn build(
    description: &str,
    stream: &str,
) -> Result<(gst::Pipeline, gst_app::AppSrc), String> {
    let description = description.replace("{stream}", stream);
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    let built = gst::parse::launch_full(&description, Some(&mut context), flags);
    let top = built.map_err(|error| {
        // GStreamer lists an element whose property is wrong as well, though it is there.
        match error.matches(gst::ParseError::NoSuchElement) {
            false => error.message().to_owned(),
            true => {
                let missing = context.missing_elements().join(", ");
                format!("{} (missing: {missing})", error.message())
            }
        }
    })?;
    let pipeline = top.downcast::<gst::Pipeline>().or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|error| error.to_string())?;
        Ok::<_, String>(pipeline)
    })?;
    let source = pipeline.by_name("caller").and_downcast::<gst_app::AppSrc>();
    let source = source.ok_or("it has no appsrc name=caller")?;
    let caps = gst::Caps::builder("video/mpegts")
        .field("systemstream", true)
        .build();
    source.set_caps(Some(&caps));
    source.set_format(gst::Format::Time);
    source.set_is_live(true);
    source.set_do_timestamp(true);
    source.set_max_bytes(0);
    Ok((pipeline, source))
}

/// A pipeline that runs, and is stopped when dropped.
struct Running {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    /// Something has come to a sink since this was looked at.
    reached: Arc<AtomicBool>,
    since: Instant,
    /// What there are no decoders for.
    missing: Vec<String>,
    looked: bool,
}

impl Running {
    /// It takes nothing, or too little.
    fn is_behind(&self) -> bool {
        let messages: u64 = self.source.property("current-level-buffers");
        self.source.current_level_bytes() > MAX_WAITING || messages > MAX_WAITING_MESSAGES
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            gst::warning!(CAT, "{} does not stop", self.pipeline.name());
        }
    }
}

impl Running {
    fn start(description: &str, stream: &str) -> Result<Self, String> {
        let (pipeline, source) = build(description, stream)?;
        let reached = Arc::<AtomicBool>::default();
        for sink in pipeline.iterate_sinks().into_iter().flatten() {
            for pad in sink.sink_pads() {
                let reached = reached.clone();
                let types = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
                pad.add_probe(types, move |_, _| {
                    reached.store(true, Relaxed);
                    gst::PadProbeReturn::Ok
                });
            }
        }
        let mut running = Self {
            pipeline,
            source,
            reached,
            since: Instant::now(),
            missing: Vec::new(),
            looked: false,
        };
        match running.pipeline.set_state(gst::State::Playing) {
            Ok(_) => Ok(running),
            Err(_) => Err(running
                .ended()
                .unwrap_or_else(|| "it does not start".into())),
        }
    }

    /// Whoever publishes what this caller sends may say that it is to end.
    fn of(self, entry: &Arc<Entry>) -> Self {
        let entry = entry.clone();
        if let Some(pad) = self.source.static_pad("src") {
            kick::hear(&pad, move || {
                entry.kick();
                true
            });
        }
        self
    }

    /// Why it has ended, if it has.
    fn ended(&mut self) -> Option<String> {
        use gst::MessageView::{ClockLost, Element, Eos, Error, Latency, RequestState};
        let bus = self.pipeline.bus()?;
        while let Some(message) = bus.pop() {
            match message.view() {
                Eos(_) => return Some("its streams ended".into()),
                Error(error) => {
                    gst::debug!(CAT, "{}: {:?}", error.error(), error.debug());
                    let from = message.src().map(GstObjectExt::name).unwrap_or_default();
                    return Some(format!("{from}: {}", error.error().message()));
                }
                Latency(_) => {
                    let _ = self.pipeline.recalculate_latency();
                }
                ClockLost(_) => {
                    let _ = self.pipeline.set_state(gst::State::Paused);
                    let _ = self.pipeline.set_state(gst::State::Playing);
                }
                RequestState(request) => {
                    let _ = self.pipeline.set_state(request.requested_state());
                }
                Element(element) => {
                    let about = element.structure().filter(|s| s.name() == "missing-plugin");
                    let what = about.and_then(|s| s.get::<String>("name").ok());
                    self.missing.extend(what.filter(|_| self.missing.len() < 8));
                }
                _ => {}
            }
        }
        None
    }

    /// What comes and is not used, once that is known.
    fn unused(&mut self) -> Option<String> {
        if self.looked || self.since.elapsed() < SETTLED {
            return None;
        }
        self.looked = true;
        let mut unused = std::mem::take(&mut self.missing);
        for element in self.pipeline.iterate_elements().into_iter().flatten() {
            for pad in element.src_pads().iter().filter(|pad| !pad.is_linked()) {
                let caps = pad.current_caps();
                let name = caps.as_ref().and_then(|caps| caps.structure(0));
                unused.extend(name.map(|s| s.name().to_string()));
            }
        }
        (!unused.is_empty()).then(|| unused.join(", "))
    }
}

struct Caller<'a> {
    shared: &'a Arc<Shared>,
    entry: &'a Arc<Entry>,
    socket: &'a Socket,
    /// By what it was let in.
    pass: Option<Pass>,
    buffer: Buffer,
    /// When something came to a sink last.
    shown: Instant,
    failures: u32,
    warned: bool,
}

/// Serves a caller to its end.
pub(super) fn run(
    shared: &Arc<Shared>,
    entry: &Arc<Entry>,
    socket: &Socket,
    pass: Option<Pass>,
) -> End {
    let mut caller = Caller {
        shared,
        entry,
        socket,
        pass,
        buffer: Buffer::default(),
        shown: Instant::now(),
        failures: 0,
        warned: false,
    };
    loop {
        let why = match Running::start(&shared.settings.pipeline, &entry.stream) {
            Ok(running) => match caller.feed(running.of(entry)) {
                Ok(why) => why,
                Err(end) => return end,
            },
            Err(why) => why,
        };
        caller.failures += 1;
        count(&shared.stats.restarts);
        gst::info!(CAT, "{}: the pipeline begins again: {why}", entry.stream);
        if caller.failures >= FAILURES {
            return End::Cut(format!("its pipeline ended {FAILURES} times: {why}"));
        }
        if let Err(end) = caller.pass(AGAIN * caller.failures) {
            return end;
        }
    }
}

impl Caller<'_> {
    /// The next message, or none soon.
    fn receive(&mut self) -> Result<Option<gst::Buffer>, End> {
        if self.shared.stopping.load(Relaxed) || self.entry.ends.load(Relaxed) {
            return Err(End::Stopped);
        }
        if self.entry.kicked.load(Relaxed) {
            return Err(End::Kicked);
        }
        if let Some(pass) = &mut self.pass
            && let Err(why) = self.shared.still(pass)
        {
            return Err(End::Cut(format!("it may no longer: {why}")));
        }
        match self.socket.receive(&mut self.buffer) {
            Ok([]) => Err(End::Gone),
            Ok(message) => {
                self.entry.refresh();
                let bytes = &self.shared.stats.bytes;
                bytes.fetch_add(message.len() as u64, Relaxed);
                Ok(Some(gst::Buffer::from_slice(message.to_vec())))
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                match self.entry.silence() > USELESS {
                    true => Err(End::Cut(format!("it sent nothing for {USELESS:?}"))),
                    false => Ok(None),
                }
            }
            Err(error) => {
                gst::debug!(CAT, "{}: {error}", self.entry.stream);
                Err(End::Gone)
            }
        }
    }

    /// Lets what comes pass for a while.
    fn pass(&mut self, time: Duration) -> Result<(), End> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.receive()?;
        }
        Ok(())
    }

    /// Feeds a pipeline until that ends, which is told, or the caller does.
    fn feed(&mut self, mut running: Running) -> Result<String, End> {
        loop {
            if let Some(buffer) = self.receive()? {
                if running.is_behind() {
                    count(&self.shared.stats.dropped);
                } else if running.source.push_buffer(buffer).is_err() {
                    let why = running.ended();
                    return Ok(why.unwrap_or_else(|| "it takes nothing more".into()));
                }
            }
            if let Some(why) = running.ended() {
                return Ok(why);
            }
            self.look(&mut running)?;
        }
    }

    fn look(&mut self, running: &mut Running) -> Result<(), End> {
        if running.reached.swap(false, Relaxed) {
            self.shown = Instant::now();
            if running.since.elapsed() >= STABLE {
                self.failures = 0;
            }
        }
        if self.shown.elapsed() > USELESS && self.entry.silence() < USELESS / 2 {
            let why = "nothing of what it sends can be shown: MPEG-TS is expected, with codecs that are installed";
            return Err(End::Cut(why.into()));
        }
        if !self.warned
            && let Some(unused) = running.unused()
        {
            self.warned = true;
            self.shared.warn(&format!(
                "Of what the SRT caller {} sends as stream {} this is not used: {unused}",
                self.entry.from, self.entry.stream
            ));
        }
        Ok(())
    }
}
