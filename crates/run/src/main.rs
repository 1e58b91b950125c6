// SPDX-License-Identifier: MPL-2.0

//! Plays a line as `gst-launch-1.0` does, and ends it cleanly whatever asks for that: `./sfu run` becomes this program.
//!
//! `gst-launch-1.0` itself (1.22) ends cleanly on the first SIGINT only: it dies of SIGTERM and of a second SIGINT, ignores
//! SIGHUP, and with `-e` waits without end for an EOS that a stalled source never sends. No shell around it can mend
//! that: the one signal that it has is used up by then. The line stays one for `gst-launch-1.0`.

mod ending;
mod signals;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gst::prelude::*;

use ending::{Ending, Step};
use signals::{Wish, eprintln_if_possible as say};

const USAGE: &str = "usage: sfu-run [-e] PIPELINE…
plays a pipeline as gst-launch-1.0 does; -e sends EOS before the end. Its other options: gst-launch-1.0 has them";

fn main() -> ExitCode {
    let mut line: Vec<String> = std::env::args().skip(1).collect();
    let eos = line.first().is_some_and(|first| first == "-e");
    if eos {
        line.remove(0);
    }
    if line.first().is_none_or(|first| first.starts_with('-')) {
        say(USAGE);
        return ExitCode::from(2);
    }
    match run(&line, eos) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(line: &[String], eos: bool) -> Result<(), String> {
    // Before GStreamer has threads.
    let signals = signals::block()?;
    let woken: Arc<OnceLock<gst::Bus>> = Arc::default();
    let wakes = woken.clone();
    let wake = move || {
        let Some(bus) = wakes.get() else {
            // GStreamer looks for its plugins, which may take long. There is nothing to be ended.
            std::process::exit(0);
        };
        let wish = gst::Structure::new_empty("sfu-run-wish");
        let _ = bus.post(gst::message::Application::new(wish));
    };
    let wish = Wish::start(signals, Ending::new(eos), wake)?;
    gst::init().map_err(|e| e.to_string())?;
    let pipeline = build(line)?;
    let bus = woken.get_or_init(gst::Bus::new);
    pipeline.set_bus(Some(bus));
    wish.set_drain(drain_timeout(&pipeline));
    let played = play(&pipeline, bus, &wish);
    pipeline
        .set_state(gst::State::Null)
        .map_err(|e| e.to_string())?;
    played
}

fn build(line: &[String]) -> Result<gst::Pipeline, String> {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    let mut context = gst::ParseContext::new();
    let built = gst::parse::launchv_full(&words, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
    let top = built.map_err(|error| {
        // GStreamer lists an element whose property is wrong as well, though it is there.
        match error.matches(gst::ParseError::NoSuchElement) {
            false => format!("the pipeline can't be built: {}", error.message()),
            true => {
                let missing = context.missing_elements().join(", ");
                format!("these elements are missing: {missing}")
            }
        }
    })?;
    top.downcast::<gst::Pipeline>().or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|e| e.to_string())?;
        Ok(pipeline)
    })
}

/// Plays until the end, which is left to the caller.
fn play(pipeline: &gst::Pipeline, bus: &gst::Bus, wish: &Arc<Wish>) -> Result<(), String> {
    let started = pipeline.set_state(gst::State::Playing);
    let live = started == Ok(gst::StateChangeSuccess::NoPreroll);
    let (mut asked, mut drains) = (false, false);
    loop {
        // A pipeline that could not start tells why on its bus.
        let patience = started.is_err().then_some(gst::ClockTime::ZERO);
        match wish.step() {
            Step::Play => {}
            Step::Drain => {
                if !std::mem::replace(&mut drains, true) {
                    drainers(pipeline)
                        .for_each(|(element, _)| element.emit_by_name::<()>("drain", &[]));
                }
            }
            Step::Eos if gives_eos(pipeline) => {
                if !std::mem::replace(&mut asked, true) {
                    send_eos(pipeline);
                }
            }
            Step::Eos | Step::Null | Step::Kill => return Ok(()),
        }
        let Some(message) = bus.timed_pop(patience) else {
            return Err("the pipeline does not start".into());
        };
        if message
            .structure()
            .is_some_and(|told| told.name() == "sfu-drained")
        {
            wish.drained();
        }
        if let Some(end) = handle(pipeline, &message, live) {
            return end;
        }
    }
}

/// Whether an EOS event makes an EOS message: one without sinks never posts it, and before it has started there is nothing
/// to be finished.
fn gives_eos(pipeline: &gst::Pipeline) -> bool {
    let sinks = pipeline.iterate_sinks().into_iter().flatten().count();
    sinks > 0 && pipeline.current_state() >= gst::State::Paused
}

/// The elements that drain before they end, and how long they may take.
fn drainers(pipeline: &gst::Pipeline) -> impl Iterator<Item = (gst::Element, Duration)> {
    let all = pipeline.iterate_recurse().into_iter().flatten();
    all.filter_map(|element| {
        element.find_property("drain-timeout")?;
        let timeout = Duration::from_millis(element.property::<u32>("drain-timeout").into());
        (timeout > Duration::ZERO).then_some((element, timeout))
    })
}

/// The longest that one of them may take.
fn drain_timeout(pipeline: &gst::Pipeline) -> Duration {
    drainers(pipeline)
        .map(|(_, timeout)| timeout)
        .max()
        .unwrap_or_default()
}

/// A source that hangs must not hang the end.
fn send_eos(pipeline: &gst::Pipeline) {
    let pipeline = pipeline.clone();
    let send = move || pipeline.send_event(gst::event::Eos::new());
    if let Err(error) = std::thread::Builder::new().name("eos".into()).spawn(send) {
        say(&format!("no thread: {error}"));
    }
}

/// What a message asks for. Returns something where the pipeline is over.
fn handle(
    pipeline: &gst::Pipeline,
    message: &gst::Message,
    live: bool,
) -> Option<Result<(), String>> {
    use gst::MessageView::{
        Buffering, ClockLost, Eos, Error, Info, Latency, RequestState, StateChanged, Warning,
    };
    let from = || {
        message
            .src()
            .map(|s| s.path_string().to_string())
            .unwrap_or_default()
    };
    match message.view() {
        Eos(_) => return Some(Ok(())),
        Error(error) => {
            let told = tell("ERROR", &from(), &error.error(), error.debug());
            return Some(Err(told));
        }
        Warning(warning) => say(&tell("WARNING", &from(), &warning.error(), warning.debug())),
        Info(info) => say(&tell("INFO", &from(), &info.error(), info.debug())),
        Latency(_) => {
            let _ = pipeline.recalculate_latency();
        }
        ClockLost(_) => {
            let _ = pipeline.set_state(gst::State::Paused);
            let _ = pipeline.set_state(gst::State::Playing);
        }
        RequestState(request) => {
            let _ = pipeline.set_state(request.requested_state());
        }
        // A live source can't be made to wait.
        Buffering(buffering) if !live => {
            let full = buffering.percent() >= 100;
            let state = if full {
                gst::State::Playing
            } else {
                gst::State::Paused
            };
            let _ = pipeline.set_state(state);
        }
        StateChanged(change) if message.src().is_some_and(|src| src == pipeline) => {
            let name = format!("sfu-run.{:?}_{:?}", change.old(), change.current());
            pipeline.debug_to_dot_file_with_ts(gst::DebugGraphDetails::all(), name);
            if change.current() == gst::State::Playing {
                say("playing");
            }
        }
        _ => {}
    }
    None
}

/// What an element says, with its details but for where in the source it says so: that is `GST_DEBUG`'s.
fn tell(
    kind: &str,
    from: &str,
    error: &gst::glib::Error,
    debug: Option<gst::glib::GString>,
) -> String {
    let debug = debug.unwrap_or_default();
    let is_place = |line: &str| {
        let place = line.split_once("): ").map(|(place, _)| place);
        let place = place.filter(|place| !place.contains(char::is_whitespace));
        let number = place.and_then(|place| place.rsplit_once('(')).map(|p| p.1);
        number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut told = format!("{kind}: from element {from}: {error}");
    for line in debug.lines().filter(|line| !is_place(line)) {
        told.push('\n');
        told.push_str(line);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_line_lacks_is_told_as_it_is() {
        gst::init().unwrap();
        for (line, expected) in [
            ("fakesrc foo=1 ! fakesink", "no property \"foo\""),
            ("fakesrc num-buffers=x ! fakesink", "\"num-buffers\""),
            ("nosuch foo=1 ! fakesink", "missing: nosuch"),
            ("fakesrc ! nosuch", "missing: nosuch"),
        ] {
            let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
            let error = build(&words).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
            assert_eq!(error.contains("missing"), line.contains("nosuch"), "{line}");
        }
    }

    #[test]
    fn errors_are_told_without_their_place_in_the_source() {
        let error = gst::glib::Error::new(gst::ResourceError::OpenRead, "The port is in use");
        let place = "plugins/a/src/imp.rs(123): a::b::start (): /GstPipeline:p/A:a";
        for (debug, details) in [
            (None, ""),
            (Some(place.to_owned()), ""),
            (
                Some(format!("{place}:\nreason (5): none")),
                "\nreason (5): none",
            ),
            (Some("a plain line".into()), "\na plain line"),
        ] {
            let told = tell("ERROR", "/a", &error, debug.map(Into::into));
            let expected = format!("ERROR: from element /a: The port is in use{details}");
            assert_eq!(told, expected);
        }
    }
}
