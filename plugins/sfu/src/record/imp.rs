// SPDX-License-Identifier: MPL-2.0

use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;

use super::CAT;
use super::file::Whose;
use super::folder::Keeper;
use super::inbox::{Event, Inbox, inbox};
use super::room::Room;
use super::settings::{PROPERTIES, Settings};
use super::stats::Shared;
use super::take;
use super::worker::Recorder;
use crate::notices::Kind;
use crate::properties::{lock, number_of, text_of};

#[derive(Debug, Default)]
pub struct SfuRecorder {
    settings: Mutex<Settings>,
    shared: Mutex<Arc<Shared>>,
    running: Mutex<Option<Running>>,
}

/// What there is between READY and PAUSED and back.
#[derive(Debug)]
struct Running {
    inbox: Inbox,
    thread: JoinHandle<()>,
    /// Deletes what is old until it is dropped.
    keeper: Keeper,
}

#[glib::object_subclass]
impl ObjectSubclass for SfuRecorder {
    const NAME: &'static str = "GstSfuRecorder";
    type Type = super::SfuRecorder;
    type ParentType = gst::Element;
}

impl ObjectImpl for SfuRecorder {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let action = |name: &'static str, act: fn(&SfuRecorder)| {
                glib::subclass::Signal::builder(name)
                    .action()
                    .class_handler(move |args| {
                        if let Ok(element) = args[0].get::<super::SfuRecorder>() {
                            act(element.imp());
                        }
                        None
                    })
                    .build()
            };
            vec![
                action("split-now", |recorder| recorder.send(Event::Split)),
                action("start", |recorder| recorder.record(true)),
                action("stop", |recorder| recorder.record(false)),
                Kind::RecordingStarted.signal(),
                Kind::RecordingFinished.signal(),
            ]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        if pspec.name() == "recording" {
            return self.record(value.get().unwrap_or_default());
        }
        let text = || text_of(value);
        let number = || number_of(value);
        let bytes = || value.get::<u64>().unwrap_or_default();
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "stream" => settings.stream = text(),
            "room" => settings.room = text(),
            "router" => settings.router = text(),
            "layer" => settings.layer = text(),
            "directory" => settings.directory = text(),
            "location-template" => settings.location_template = text(),
            "fragment-duration" => settings.fragment_duration = number(),
            "max-duration" => settings.max_duration = number(),
            "max-size" => settings.max_size = bytes(),
            "delete-after" => settings.delete_after = number(),
            "min-free" => settings.min_free = bytes(),
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
        let limits = settings.limits();
        drop(settings);
        if let Some(running) = &*lock(&self.running) {
            running.keeper.keep_for(limits.delete_after);
            running.inbox.send(Event::Limits(limits));
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "stream" => settings.stream.to_value(),
            "room" => settings.room.to_value(),
            "router" => settings.router.to_value(),
            "layer" => settings.layer.to_value(),
            "directory" => settings.directory.to_value(),
            "location-template" => settings.location_template.to_value(),
            "fragment-duration" => settings.fragment_duration.to_value(),
            "max-duration" => settings.max_duration.to_value(),
            "max-size" => settings.max_size.to_value(),
            "delete-after" => settings.delete_after.to_value(),
            "min-free" => settings.min_free.to_value(),
            "recording" => settings.recording.to_value(),
            "location" => lock(&self.shared).location().to_value(),
            "stats" => lock(&self.shared).structure().to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // A bin sends EOS events to its sources, and waits for the EOS messages of its sinks.
        let flags = gst::ElementFlags::SOURCE | gst::ElementFlags::SINK;
        self.obj().set_element_flags(flags);
    }
}

impl GstObjectImpl for SfuRecorder {}

impl ElementImpl for SfuRecorder {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU stream recorder",
                "Sink/File",
                "Records one stream of this process's router to fragmented MP4 files, which are split, named and deleted \
                 as wanted. \
                 Example: gst-launch-1.0 -e sfusignaller recordings-directory=recordings  sfurecorder stream=cam1",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::ReadyToPaused => self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
                gst::StateChangeError
            })?,
            gst::StateChange::PausedToPlaying => self.send(Event::Playing(true)),
            gst::StateChange::PlayingToPaused => self.send(Event::Playing(false)),
            gst::StateChange::PausedToReady => self.stop(),
            _ => {}
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::ReadyToPaused && result.is_err() {
            self.stop();
        }
        result
    }

    fn send_event(&self, event: gst::Event) -> bool {
        match event.type_() {
            // The message follows when all files are finished.
            gst::EventType::Eos => self.send(Event::End),
            // Nothing waits for it.
            gst::EventType::Latency => {}
            _ => return self.parent_send_event(event),
        }
        true
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                // Nothing waits for it.
                latency.set(false, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                true
            }
            _ => self.parent_query(query),
        }
    }
}

impl SfuRecorder {
    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let plan = settings.plan()?;
        let room = Some(settings.room).filter(|room| !room.is_empty());
        take::check()?;
        std::fs::create_dir_all(&plan.directory)
            .map_err(|e| format!("directory {}: {e}", plan.directory.display()))?;
        let shared = Arc::new(Shared::default());
        *lock(&self.shared) = shared.clone();
        let deleted = shared.clone();
        let keeper = Keeper::start(
            plan.directory.clone(),
            match &room {
                Some(room) => Whose::Room(room.clone()),
                None => Whose::Stream(plan.stream.to_string()),
            },
            plan.limits.delete_after,
            move |count| deleted.delete(count),
        );
        let no_thread = |e: std::io::Error| format!("no thread could be started: {e}");
        let keeper = keeper.map_err(no_thread)?;
        let (inbox, events) = inbox(shared.dropped.clone());
        let thread = std::thread::Builder::new().name("sfurecorder".into());
        let thread = match room {
            Some(room) => {
                let room = Room::new(&self.obj(), room, plan, events, shared);
                thread.spawn(move || room.run())
            }
            None => {
                let channel = (inbox.clone(), events);
                let recorder = Recorder::new(&self.obj(), plan, channel, shared);
                thread.spawn(move || recorder.run())
            }
        };
        let thread = thread.map_err(no_thread)?;
        *lock(&self.running) = Some(Running {
            inbox,
            thread,
            keeper,
        });
        Ok(())
    }

    /// Finishes all files.
    fn stop(&self) {
        let Some(running) = lock(&self.running).take() else {
            return;
        };
        running.inbox.send(Event::Stop);
        if running.thread.join().is_err() {
            gst::error!(CAT, imp = self, "the element's thread has panicked");
        }
    }

    /// Records what comes from now on, or no more.
    fn record(&self, recording: bool) {
        let before = std::mem::replace(&mut lock(&self.settings).recording, recording);
        self.send(Event::Record(recording));
        if before != recording {
            self.obj().notify("recording");
        }
    }

    fn send(&self, event: Event) {
        if let Some(running) = &*lock(&self.running) {
            running.inbox.send(event);
        }
    }
}
