// SPDX-License-Identifier: MPL-2.0

//! Takes the stream out of the router: `sfusrc`, in a pipeline of its own, whose samples go to the recorder's thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::inbox::{Event, Inbox, TrackId};
use super::settings::Plan;
use crate::properties::lock;

/// What a muxer is given, of what `sfusrc` can give.
const FORMATS: &str = "video/x-h264,stream-format=avc,alignment=au; \
    video/x-h265,stream-format=hvc1,alignment=au; video/x-vp8; video/x-vp9; \
    video/x-av1,stream-format=obu-stream,alignment=tu; audio/x-opus";

type Sinks = Arc<Mutex<BTreeMap<TrackId, (gst::Pad, gst_app::AppSink)>>>;

/// See the module's description. It ends when dropped.
#[derive(Debug)]
pub(super) struct Input {
    pipeline: gst::Pipeline,
    sinks: Sinks,
}

impl Input {
    pub(super) fn start(plan: &Plan, inbox: &Inbox) -> Result<Self, String> {
        let source = gst::ElementFactory::make("sfusrc")
            .property("stream", plan.stream.as_str())
            .property("router", &plan.router)
            .property("layer", &plan.layer)
            .build()
            .map_err(|e| e.to_string())?;
        let pipeline = gst::Pipeline::new();
        pipeline.add(&source).map_err(|e| e.to_string())?;
        let input = Self {
            pipeline,
            sinks: Sinks::default(),
        };
        input.watch(&source, inbox)?;
        // An error of the source is on the bus.
        let _ = input.pipeline.set_state(gst::State::Paused);
        Ok(input)
    }

    fn watch(&self, source: &gst::Element, inbox: &Inbox) -> Result<(), String> {
        let bus = self.pipeline.bus().ok_or("a pipeline has no bus")?;
        let said = inbox.clone();
        bus.set_sync_handler(move |_, message| {
            match message.view() {
                gst::MessageView::Error(error) => {
                    said.send(Event::InputFailed(error.error().to_string()));
                }
                gst::MessageView::Element(_) if message.has_name("sfu-stream-changed") => {
                    said.send(Event::Changed);
                }
                _ => {}
            }
            gst::BusSyncReply::Drop
        });
        let numbers = AtomicU32::new(0);
        let (pipeline, sinks, new) = (self.pipeline.downgrade(), self.sinks.clone(), inbox.clone());
        source.connect_pad_added(move |_, pad| {
            let number = numbers.fetch_add(1, Relaxed);
            let Some(pipeline) = pipeline.upgrade() else {
                return;
            };
            match attach(&pipeline, pad, number, &new) {
                Ok(sink) => {
                    let mut sinks = lock(&sinks);
                    sinks.insert(number, (pad.clone(), sink));
                }
                Err(message) => new.send(Event::InputFailed(message)),
            }
        });
        let (pipeline, sinks, gone) =
            (self.pipeline.downgrade(), self.sinks.clone(), inbox.clone());
        source.connect_pad_removed(move |_, pad| {
            let mut all = lock(&sinks);
            let number = all.iter().find(|(_, (p, _))| p == pad).map(|(n, _)| *n);
            let sink = number.and_then(|number| all.remove(&number));
            drop(all);
            if let (Some(number), Some((_, sink))) = (number, sink) {
                if let Some(pipeline) = pipeline.upgrade() {
                    crate::sink::take_out(pipeline.upcast_ref(), sink.upcast_ref());
                }
                gone.send(Event::Gone(number));
            }
        });
        let settled = inbox.clone();
        source.connect_no_more_pads(move |_| settled.send(Event::Settled));
        Ok(())
    }

    pub(super) fn set_playing(&self, playing: bool) {
        let state = if playing {
            gst::State::Playing
        } else {
            gst::State::Paused
        };
        let _ = self.pipeline.set_state(state);
    }

    /// The present moment, by the clock that samples are dated by.
    pub(super) fn running_time(&self) -> Option<gst::ClockTime> {
        self.pipeline.current_running_time()
    }

    /// Asks for a keyframe of a track, through the stream's arbiter.
    pub(super) fn request_keyframe(&self, track: TrackId) {
        let sinks = lock(&self.sinks);
        let sink = sinks.get(&track).map(|(_, sink)| sink.clone());
        drop(sinks);
        if let Some(sink) = sink {
            let event = gst_video::UpstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            sink.send_event(event);
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

/// Puts a sink behind a pad. No callback waits for the recorder's thread.
fn attach(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    number: TrackId,
    inbox: &Inbox,
) -> Result<gst_app::AppSink, String> {
    let text = |e: glib::BoolError| e.to_string();
    let formats: gst::Caps = FORMATS.parse().map_err(text)?;
    let sink = gst_app::AppSink::builder()
        .caps(&formats)
        .sync(false)
        .async_(false)
        .enable_last_sample(false)
        .build();
    let inbox_of_samples = inbox.clone();
    // After a drop, pictures begin again at a keyframe.
    let broken = AtomicBool::new(false);
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        if broken.load(Relaxed) && delta {
            return Ok(gst::FlowSuccess::Ok);
        }
        let taken = inbox_of_samples.sample(number, buffer, caps);
        broken.store(!taken, Relaxed);
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
    pipeline.add(&sink).map_err(text)?;
    inbox.send(Event::Track(number));
    let target = sink.static_pad("sink").ok_or("appsink has no pad")?;
    let inbox = inbox.clone();
    // Before the samples that it is about, as these come on the same thread.
    target.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::Tag(tags)) = info.event().map(|event| event.view())
            && let Some(code) = tags.tag().get::<gst::tags::LanguageCode>()
        {
            inbox.send(Event::Language(number, code.get().to_owned()));
        }
        gst::PadProbeReturn::Ok
    });
    sink.sync_state_with_parent().map_err(text)?;
    pad.link(&target).map_err(|e| e.to_string())?;
    Ok(sink)
}
