// SPDX-License-Identifier: MPL-2.0

//! The thread that runs the inner pipeline, and again: what happens in there reaches the outer pipeline as messages only.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::Delay;

use super::files::{self, Files};
use super::flow::{Flow, Pictures, Stalled};
use super::settings::{Restart, Settings};
use super::sources::Sources;
use super::stats::{State, Stats};
use super::{CAT, Supervisor};
use crate::lock;

/// What is wanted of the thread. Later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    Pause,
    Play,
    /// EOS, then stop.
    Finish,
    Stop,
}

impl Order {
    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Pause,
            1 => Self::Play,
            2 => Self::Finish,
            _ => Self::Stop,
        }
    }
}

/// How a run ended.
enum End {
    Eos,
    Failed(String),
    Stopped,
}

/// The element's side of the thread.
#[derive(Debug)]
pub(super) struct Runner {
    order: Arc<AtomicU8>,
    bus: gst::Bus,
    thread: JoinHandle<()>,
    /// Disconnected once the thread is done.
    done: Mutex<Receiver<Infallible>>,
    /// The thread has hung beyond the time that EOS may take.
    given_up: Arc<AtomicBool>,
}

/// How long a pipeline that was told to stop may take. One that opens a named pipe, or a camera whose driver hangs, takes for
/// ever; nobody else is to wait for that.
const STOPS: Duration = Duration::from_millis(1_500);
/// The same after EOS and its time.
const STOPS_AFTER_EOS: Duration = Duration::from_millis(300);

impl Runner {
    pub(super) fn start(
        element: &Supervisor,
        settings: Arc<Mutex<Settings>>,
        stats: Arc<Mutex<Stats>>,
    ) -> std::io::Result<Self> {
        let order = Arc::new(AtomicU8::new(Order::Play as u8));
        let bus = gst::Bus::new();
        let now = lock(&settings).clone();
        let run = Run {
            element: element.downgrade(),
            files: files_of(&now),
            delay: Delay::new(now.delay, now.delay_max),
            settings: now,
            wanted_settings: settings,
            stats,
            order: order.clone(),
            bus: bus.clone(),
            sources: Sources::default(),
            pictures: Pictures::default(),
        };
        let (running, done) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || {
                // Dropped at the end, also by a panic.
                let _running = running;
                run.main();
            })?;
        Ok(Self {
            order,
            bus,
            thread,
            done: Mutex::new(done),
            given_up: Arc::default(),
        })
    }

    /// EOS, and the element's own message when it is done, or has hung for too long.
    pub(super) fn finish(&self, element: &Supervisor, patience: Duration) {
        self.order(Order::Finish);
        let (element, given_up) = (element.downgrade(), self.given_up.clone());
        let wait = move || {
            std::thread::sleep(patience + STOPS_AFTER_EOS);
            let Some(element) = element.upgrade().filter(|e| !e.imp().has_ended()) else {
                return;
            };
            given_up.store(true, SeqCst);
            gst::warning!(
                CAT,
                obj = element,
                "its pipeline hangs; it is not waited for"
            );
            let _ = element.post_message(gst::message::Eos::builder().src(&element).build());
        };
        let waits = std::thread::Builder::new()
            .name("supervisor-eos".into())
            .spawn(wait);
        if let Err(error) = waits {
            gst::warning!(CAT, "no thread: {error}");
        }
    }

    /// Tells the thread what is wanted from now on. What ends it is not taken back.
    pub(super) fn order(&self, order: Order) {
        let change = |wanted| {
            let ends = wanted >= Order::Finish as u8;
            (!ends || order as u8 > wanted).then_some(order as u8)
        };
        // An order that comes too late changes nothing.
        let _ = self.order.fetch_update(SeqCst, SeqCst, change);
        let wake = gst::message::Application::new(gst::Structure::new_empty("supervisor-order"));
        // Refused only by a bus that flushes, which ours never does.
        let _ = self.bus.post(wake);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Stops the pipeline and waits until it has, unless it hangs.
    pub(super) fn stop(self) {
        self.order(Order::Stop);
        let patience = match self.given_up.load(SeqCst) {
            true => Duration::ZERO,
            false => STOPS,
        };
        let done = lock(&self.done).recv_timeout(patience);
        if done == Err(RecvTimeoutError::Timeout) {
            gst::warning!(CAT, "the pipeline does not stop; it is left behind");
        } else if self.thread.join().is_err() {
            gst::error!(CAT, "the supervising thread panicked");
        }
    }
}

/// The thread's own.
struct Run {
    element: glib::WeakRef<Supervisor>,
    /// Those that hold, and those that the element has.
    settings: Settings,
    wanted_settings: Arc<Mutex<Settings>>,
    stats: Arc<Mutex<Stats>>,
    order: Arc<AtomicU8>,
    bus: gst::Bus,
    delay: Delay,
    files: Option<Files>,
    /// Of the pipeline that ran last.
    sources: Sources,
    pictures: Pictures,
}

fn files_of(settings: &Settings) -> Option<Files> {
    let files = &settings.files;
    (!files.is_empty()).then(|| Files::new(files))
}

/// Builds the pipeline of a description.
pub(super) fn build(description: &str) -> Result<gst::Pipeline, String> {
    let mut context = gst::ParseContext::new();
    let flags = gst::ParseFlags::FATAL_ERRORS;
    let built = gst::parse::launch_full(description, Some(&mut context), flags);
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
    top.downcast::<gst::Pipeline>().or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|error| error.to_string())?;
        Ok(pipeline)
    })
}

/// Whether anything came to a sink: before that there is nothing to finish, and no EOS comes from a source that has no
/// pads yet.
fn has_begun(pipeline: &gst::Pipeline) -> bool {
    let sinks = pipeline.iterate_sinks().into_iter().flatten();
    // A sink that waits for its first buffer is not yet paused.
    sinks
        .into_iter()
        .any(|sink| sink.current_state() >= gst::State::Paused)
}

/// Whether nothing at all came to its sinks, not even what it would be.
fn is_empty(pipeline: &gst::Pipeline) -> bool {
    let sinks = pipeline.iterate_sinks().into_iter().flatten();
    let mut pads = sinks.flat_map(|sink| sink.sink_pads());
    pads.all(|pad| pad.current_caps().is_none())
}

/// What a part of a pipeline has posted, as the pipeline tells it in a message of its own.
fn forwarded(message: &gst::Message) -> Option<gst::Message> {
    let about = message.structure();
    let about = about.filter(|about| about.name() == "GstBinForwarded");
    about.and_then(|about| about.get("message").ok())
}

/// The sinks that have ended after EOS. A pipeline itself tells nothing of that as long as one of its elements waits for
/// what it never gets: the decoder of a microphone that a camera does not have.
#[derive(Default)]
struct Ended(Vec<gst::Object>);

impl Ended {
    /// One more message of a part. Returns whether all have ended to which something came.
    fn came(&mut self, pipeline: &gst::Pipeline, message: &gst::Message) -> bool {
        if message.type_() != gst::MessageType::Eos {
            return false;
        }
        self.0.extend(message.src().cloned());
        let has_ended = |sink: &gst::Element| self.0.contains(sink.upcast_ref());
        let mut sinks = pipeline.iterate_sinks().into_iter().flatten();
        sinks.all(|sink| has_ended(&sink) || sink.current_state() < gst::State::Paused)
    }
}

impl Run {
    fn main(mut self) {
        loop {
            let started = Instant::now();
            let end = self.once();
            self.follow_settings();
            let again = match (&end, self.settings.restart) {
                (End::Stopped, _) | (_, Restart::Never) => false,
                (End::Eos, Restart::OnError) => false,
                _ => self.wanted() <= Order::Play,
            };
            let delay = again.then(|| {
                let ended = matches!(end, End::Eos);
                self.delay.after(started.elapsed(), ended)
            });
            self.tell_end(&end, delay);
            if !delay.is_some_and(|delay| self.wait(delay)) {
                break;
            }
            self.follow_settings();
        }
        if self.wanted() != Order::Stop {
            self.post(|element| gst::message::Eos::builder().src(element).build());
        }
    }

    /// Takes over what has been set meanwhile.
    fn follow_settings(&mut self) {
        let wanted = lock(&self.wanted_settings).clone();
        let before = std::mem::replace(&mut self.settings, wanted);
        let now = &self.settings;
        if (before.delay, before.delay_max) != (now.delay, now.delay_max) {
            self.delay = Delay::new(now.delay, now.delay_max);
        }
        if before.pipeline != now.pipeline {
            self.pictures = Pictures::default();
        }
        if before.files != now.files {
            self.files = files_of(now);
        }
    }

    fn wanted(&self) -> Order {
        Order::from_u8(self.order.load(SeqCst))
    }

    fn post(&self, message: impl FnOnce(&Supervisor) -> gst::Message) {
        if let Some(element) = self.element.upgrade() {
            let _ = element.post_message(message(&element));
        }
    }

    fn set_state(&self, state: State, change: impl FnOnce(&mut Stats)) {
        let structure = {
            let mut stats = lock(&self.stats);
            stats.state = state;
            change(&mut stats);
            stats.structure()
        };
        self.post(|element| {
            gst::message::Element::builder(structure)
                .src(element)
                .build()
        });
    }

    fn tell_end(&self, end: &End, delay: Option<Duration>) {
        let state = match delay {
            Some(_) => State::Waiting,
            None => State::Ended,
        };
        let End::Failed(error) = end else {
            return self.set_state(state, |_| {});
        };
        let (error, at) = (self.sources.told(error), self.sources.named());
        let next = match delay {
            Some(delay) => format!("It starts again in {} ms.", delay.as_millis()),
            None => "It does not start again.".to_owned(),
        };
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(
                element,
                gst::ResourceError::Failed,
                ("The supervised pipeline failed{at}: {error}. {next}")
            );
        }
        self.set_state(state, |stats| {
            stats.failures += 1;
            stats.error = Some(error);
        });
    }

    /// Builds the pipeline, and runs it to its end.
    fn once(&mut self) -> End {
        if self.wanted() >= Order::Finish {
            return End::Stopped;
        }
        let description = &self.settings.pipeline;
        let file = self.files.as_mut().map(Files::next).transpose();
        let built = file.as_ref().map_err(String::clone).and_then(|file| {
            let described = file.as_ref().map(|file| files::describe(description, file));
            build(described.as_ref().unwrap_or(description))
        });
        let file = file.ok().flatten();
        self.sources = Sources::of(built.as_ref().ok(), file.as_deref());
        let pipeline = match built {
            Ok(pipeline) => pipeline,
            Err(error) => return End::Failed(error),
        };
        pipeline.set_bus(Some(&self.bus));
        self.set_state(State::Running, |stats| stats.starts += 1);
        let Settings {
            stall_timeout,
            stall_of,
            ..
        } = self.settings;
        let mut flow = Flow::of(&pipeline, stall_timeout, stall_of, self.pictures);
        let end = self.watch(&pipeline, &mut flow);
        // The next file may be without.
        if self.files.is_none() {
            self.pictures = flow.pictures();
        }
        pipeline.set_bus(None);
        if pipeline.set_state(gst::State::Null).is_err() {
            gst::warning!(CAT, "{} does not stop", pipeline.name());
        }
        // What it left on the bus is nothing to the next one. Orders are read elsewhere; on the bus they only wake.
        while self.bus.pop().is_some() {}
        end
    }

    /// Keeps the pipeline in the state that is wanted, until it ends.
    fn watch(&self, pipeline: &gst::Pipeline, flow: &mut Flow) -> End {
        let mut followed = None;
        let mut finish_by = None;
        let mut begin_by = None;
        let begins = self.settings.begin_timeout;
        let mut limit = self.settings.eos_timeout;
        let mut ended = Ended::default();
        loop {
            let wanted = self.wanted();
            if followed != Some(wanted) {
                let played = followed == Some(Order::Play);
                let timed = wanted == Order::Play && !begins.is_zero();
                begin_by = timed.then(|| Instant::now() + begins);
                followed = Some(wanted);
                flow.begin();
                let done = match wanted {
                    Order::Pause => pipeline.set_state(gst::State::Paused).is_ok(),
                    Order::Play => pipeline.set_state(gst::State::Playing).is_ok(),
                    Order::Finish if played && has_begun(pipeline) => {
                        limit = lock(&self.wanted_settings).eos_timeout;
                        finish_by = Some(Instant::now() + limit);
                        pipeline.set_property("message-forward", true);
                        pipeline.send_event(gst::event::Eos::new())
                    }
                    Order::Finish | Order::Stop => return End::Stopped,
                };
                if !done {
                    return self.why(pipeline, "it does not start");
                }
            }
            let due = flow.due().filter(|_| followed == Some(Order::Play));
            let until = [finish_by, begin_by, due].into_iter().flatten().min();
            if let Some(message) = self.pop(until) {
                let own = finish_by.is_some() && message.src() == Some(pipeline.upcast_ref());
                let end = match own.then(|| forwarded(&message)).flatten() {
                    Some(inner) => ended.came(pipeline, &inner).then_some(End::Eos),
                    None => self.handle(pipeline, &message),
                };
                if let Some(end) = end {
                    return end;
                }
            }
            // An error may be lost on its way: decodebin (1.22) keeps some to itself.
            if begin_by.take_if(|by| *by <= Instant::now()).is_some() && is_empty(pipeline) {
                let limit = begins.as_millis();
                return End::Failed(format!("nothing came to a sink in {limit} ms"));
            }
            if followed == Some(Order::Play)
                && let Some((stalled, limit)) = flow.stalled(Instant::now())
            {
                let limit = limit.as_millis();
                let what = match stalled {
                    Stalled::Everything => "nothing has come to a sink",
                    Stalled::Video => "no picture has come to a sink",
                };
                return End::Failed(format!("{what} for {limit} ms"));
            }
            if finish_by.is_some_and(|by| by <= Instant::now()) {
                let limit = limit.as_millis();
                return End::Failed(format!("it was not finished {limit} ms after EOS"));
            }
        }
    }

    /// The next message, or none until then.
    fn pop(&self, until: Option<Instant>) -> Option<gst::Message> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(|left| gst::ClockTime::from_nseconds(left.as_nanos() as u64));
        self.bus.timed_pop(left)
    }

    /// The error message that tells why a state change failed, or else this.
    fn why(&self, pipeline: &gst::Pipeline, otherwise: &str) -> End {
        while let Some(message) = self.bus.pop() {
            if let Some(end @ End::Failed(_)) = self.handle(pipeline, &message) {
                return end;
            }
        }
        End::Failed(otherwise.to_owned())
    }

    fn handle(&self, pipeline: &gst::Pipeline, message: &gst::Message) -> Option<End> {
        use gst::MessageView::{
            Application, ClockLost, Element, Eos, Error, Latency, RequestState, Warning,
        };
        // Who posted it may be in the pipeline no more: decodebin removes what has failed.
        match message.view() {
            Application(_) => None,
            Eos(_) => Some(End::Eos),
            Error(error) => {
                gst::debug!(CAT, "{}: {:?}", error.error(), error.debug());
                let from = message.src().map(GstObjectExt::name).unwrap_or_default();
                Some(End::Failed(format!("{from}: {}", error.error().message())))
            }
            Warning(warning) if warning.error().matches(gst::ParseError::DelayedLink) => {
                // A film without sound, a camera without a second track.
                gst::info!(CAT, "{}: {:?}", warning.error(), warning.debug());
                None
            }
            Warning(warning) => {
                self.post(|_| message.to_owned());
                gst::debug!(CAT, "{}: {:?}", warning.error(), warning.debug());
                None
            }
            Element(_) => {
                self.post(|_| message.to_owned());
                None
            }
            Latency(_) => {
                let _ = pipeline.recalculate_latency();
                None
            }
            ClockLost(_) if self.wanted() == Order::Play => {
                let _ = pipeline.set_state(gst::State::Paused);
                let _ = pipeline.set_state(gst::State::Playing);
                None
            }
            RequestState(request) => {
                let _ = pipeline.set_state(request.requested_state());
                None
            }
            _ => None,
        }
    }

    /// Waits before the next start. False where there is to be none.
    fn wait(&self, delay: Duration) -> bool {
        let end = Instant::now() + delay;
        loop {
            if self.wanted() >= Order::Finish {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            let playing = self.wanted() == Order::Play;
            if left.is_zero() && playing {
                return true;
            }
            let _ = self.pop(playing.then_some(end));
        }
    }
}
