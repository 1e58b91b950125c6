// SPDX-License-Identifier: MPL-2.0
//! Decodes whatever audio comes, of one codec after the other, for the pad `audio` with `decode-audio`. No `decodebin` follows
//! a change of codec, and an error in there would end the pictures, too.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::CAT;
use super::imp::lock;

/// So long after it failed a decoder is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long no other failure is told of.
const QUIET: Duration = Duration::from_secs(10);

/// What becomes of buffers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Nothing is there that they could go through.
    #[default]
    Silent,
    Decoding,
    /// An error was posted.
    Failing,
    Failed(Instant),
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) bin: gst::Bin,
    state: Arc<Mutex<State>>,
    told: Mutex<Option<Instant>>,
}

/// The decoders that take these caps, the best ones first, as ranks have it.
fn factories(caps: &gst::Caps) -> impl Iterator<Item = gst::ElementFactory> {
    let kind = gst::ElementFactoryType::DECODER | gst::ElementFactoryType::MEDIA_AUDIO;
    let mut factories: Vec<_> = gst::ElementFactory::factories_with_type(kind, gst::Rank::MARGINAL)
        .into_iter()
        .filter(|factory| factory.can_sink_all_caps(caps))
        .collect();
    factories.sort_by_key(|factory| std::cmp::Reverse(factory.rank()));
    factories.into_iter()
}

/// Whether anything here can decode these caps.
pub(super) fn decodes(caps: &gst::Caps) -> bool {
    factories(caps).next().is_some()
}

fn no_pad() -> glib::BoolError {
    glib::bool_error!("a decoder has not the pads that it should")
}

impl Decoder {
    pub(super) fn new() -> Result<Self, glib::BoolError> {
        let bin = gst::Bin::builder().name("audio-decoder").build();
        let state = Arc::<Mutex<State>>::default();
        // Answers queries until there is something to be decoded.
        let first = gst::ElementFactory::make("identity").build()?;
        bin.add(&first)?;
        let src = first.static_pad("src").ok_or_else(no_pad)?;
        let src = gst::GhostPad::builder_with_target(&src)?
            .name("src")
            .build();
        let (events, buffers) = (state.clone(), state.clone());
        let sink = gst::GhostPad::builder(gst::PadDirection::Sink)
            .name("sink")
            .chain_function(move |pad, parent, buffer| chain(&buffers, pad, parent, buffer))
            .event_function(move |pad, parent, event| match event.view() {
                gst::EventView::Caps(caps) => {
                    let caps = caps.caps_owned();
                    take_caps(&events, pad, parent, &caps, &event)
                }
                _ => gst::Pad::event_default(pad, parent, event),
            })
            // What is in there is for the caps of before.
            .query_function(|pad, parent, query| match query.view_mut() {
                gst::QueryViewMut::AcceptCaps(query) => {
                    query.set_result(true);
                    true
                }
                gst::QueryViewMut::Caps(query) => {
                    let caps = query.filter_owned().unwrap_or_else(gst::Caps::new_any);
                    query.set_result(&caps);
                    true
                }
                _ => gst::Pad::query_default(pad, parent, query),
            })
            .build();
        sink.set_target(first.static_pad("sink").as_ref())?;
        bin.add_pad(&sink)?;
        bin.add_pad(&src)?;
        let told = Mutex::default();
        Ok(Self { bin, state, told })
    }

    /// What is wrong, where this message is an error from inside: it is none for the pipeline. Empty if one was told of just
    /// before.
    pub(super) fn failure(&self, message: &gst::Message) -> Option<String> {
        let gst::MessageView::Error(error) = message.view() else {
            return None;
        };
        if !message.src()?.has_as_ancestor(&self.bin) {
            return None;
        }
        *lock(&self.state) = State::Failing;
        let mut told = lock(&self.told);
        if told.is_some_and(|then| then.elapsed() < QUIET) {
            return Some(String::new());
        }
        *told = Some(Instant::now());
        Some(error.error().message().to_owned())
    }
}

fn bin_of(pad: &gst::GhostPad) -> Option<gst::Bin> {
    pad.parent().and_downcast()
}

/// Decodes by these caps from now on.
fn take_caps(
    state: &Mutex<State>,
    pad: &gst::GhostPad,
    parent: Option<&gst::Object>,
    caps: &gst::Caps,
    event: &gst::Event,
) -> bool {
    *lock(state) = State::Silent;
    let Some(bin) = bin_of(pad) else {
        return false;
    };
    for factory in factories(caps) {
        if let Err(why) = replace(&bin, pad, &factory) {
            gst::warning!(CAT, obj = bin, "{} can't be used: {why}", factory.name());
            continue;
        }
        *lock(state) = State::Decoding;
        gst::info!(CAT, obj = bin, "{} decodes {caps}", factory.name());
        gst::Pad::event_default(pad, parent, event.clone());
        // It says no otherwise.
        let taken = pad.target().and_then(|target| target.current_caps());
        if taken.as_ref() == Some(caps) {
            return true;
        }
        gst::warning!(CAT, obj = bin, "{} refuses {caps}", factory.name());
    }
    // As an error from inside, of which the application is told as of any.
    let failed = gst::message::Error::builder(
        gst::StreamError::CodecNotFound,
        "no decoder here takes it: install gstreamer1.0-libav",
    );
    if let Some(target) = pad.target().and_then(|target| target.parent_element()) {
        let _ = bin.post_message(failed.src(&target).build());
    }
    *lock(state) = State::Silent;
    true
}

fn chain(
    state: &Mutex<State>,
    pad: &gst::GhostPad,
    parent: Option<&gst::Object>,
    buffer: gst::Buffer,
) -> Result<gst::FlowSuccess, gst::FlowError> {
    let before = *lock(state);
    match before {
        State::Decoding => {}
        State::Silent => return Ok(gst::FlowSuccess::Ok),
        State::Failing => {
            *lock(state) = State::Failed(Instant::now());
            return Ok(gst::FlowSuccess::Ok);
        }
        State::Failed(since) if since.elapsed() < PAUSE => return Ok(gst::FlowSuccess::Ok),
        // By the events that came before, which are sent again.
        State::Failed(_) => {
            let factory = pad.target().and_then(|target| target.parent_element());
            let factory = factory.and_then(|decoder| decoder.factory());
            let replaced = bin_of(pad).zip(factory);
            let replaced = replaced.map(|(bin, factory)| replace(&bin, pad, &factory));
            if !matches!(replaced, Some(Ok(()))) {
                *lock(state) = State::Failed(Instant::now());
                return Ok(gst::FlowSuccess::Ok);
            }
        }
    }
    let result = gst::ProxyPad::chain_default(pad, parent, buffer);
    let mut state = lock(state);
    match (*state, result) {
        (State::Failing, _) => {
            *state = State::Failed(Instant::now());
            Ok(gst::FlowSuccess::Ok)
        }
        (State::Failed(_), Ok(success)) => {
            *state = State::Decoding;
            Ok(success)
        }
        (_, result) => result,
    }
}

/// Puts in another decoder. Called on the thread that brings the audio.
fn replace(
    bin: &gst::Bin,
    sink: &gst::GhostPad,
    factory: &gst::ElementFactory,
) -> Result<(), glib::BoolError> {
    let src = bin.static_pad("src").and_downcast::<gst::GhostPad>();
    let src = src.ok_or_else(no_pad)?;
    let new = factory.create().build()?;
    let old = sink.target().and_then(|pad| pad.parent_element());
    bin.add(&new)?;
    let put_in = || {
        new.sync_state_with_parent()?;
        let ends = new.static_pad("sink").zip(new.static_pad("src"));
        let (entry, exit) = ends.ok_or_else(no_pad)?;
        src.set_target(Some(&exit))?;
        sink.set_target(Some(&entry))
    };
    let result = put_in();
    let out = if result.is_ok() {
        old
    } else {
        Some(new.clone())
    };
    if let Some(out) = out {
        // What is stopped must not follow the bin any more.
        out.set_locked_state(true);
        let _ = out.set_state(gst::State::Null);
        let _ = bin.remove(&out);
    }
    result
}
