// SPDX-License-Identifier: MPL-2.0

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;
use sfu_engine::{Router, StreamName};

use super::CAT;
use super::member::{Member, Numbers};
use crate::ending;
use crate::properties::{latency, lock, number_of, text, text_of};

/// Between two looks at who is there.
const LOOK: Duration = Duration::from_millis(100);
/// What failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// So many streams there are pads of at a time: each is taken apart, or decoded, by threads of its own.
const MOST: usize = 100;

#[derive(Debug, Clone)]
struct Settings {
    room: String,
    router: String,
    layer: String,
    latency_ms: u32,
    keyframe_interval_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            room: "meeting".into(),
            router: "default".into(),
            layer: "highest".into(),
            latency_ms: 100,
            keyframe_interval_ms: 0,
        }
    }
}

#[derive(Debug, Default)]
pub struct SfuRoomSrc {
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
}

/// What the thread is told.
#[derive(Debug)]
enum Told {
    /// The source of a stream has failed.
    Failed(gst::Element),
    /// EOS.
    End,
    Stop,
}

/// What there is between READY and PAUSED and back.
#[derive(Debug)]
struct Running {
    told: Sender<Told>,
    thread: JoinHandle<Vec<Member>>,
}

#[glib::object_subclass]
impl ObjectSubclass for SfuRoomSrc {
    const NAME: &'static str = "GstSfuRoomSrc";
    type Type = super::SfuRoomSrc;
    type ParentType = gst::Bin;
}

impl ObjectImpl for SfuRoomSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let defaults = Settings::default();
            vec![
                text("room", "Room", "Name of the room", &defaults.room),
                text(
                    "router",
                    "Router",
                    "Name of the process-wide router of whose streams the room is",
                    &defaults.router,
                ),
                text(
                    "layer",
                    "Layer",
                    "Which simulcast layer of each: highest or lowest of those that are sent, or a layer's name (RID)",
                    &defaults.layer,
                ),
                latency(defaults.latency_ms),
                crate::properties::number(
                    "keyframe-interval",
                    "Keyframe interval",
                    "Ask for a keyframe where none came for this long, in ms; 0 leaves it to the publishers",
                    0..=60_000,
                    defaults.keyframe_interval_ms,
                ),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "room" => settings.room = text_of(value),
            "router" => settings.router = text_of(value),
            "layer" => settings.layer = text_of(value),
            "latency" => settings.latency_ms = number_of(value),
            "keyframe-interval" => settings.keyframe_interval_ms = number_of(value),
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "room" => settings.room.to_value(),
            "router" => settings.router.to_value(),
            "layer" => settings.layer.to_value(),
            "latency" => settings.latency_ms.to_value(),
            "keyframe-interval" => settings.keyframe_interval_ms.to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // It is a source from the start, also while nobody is there.
        self.obj().set_element_flags(gst::ElementFlags::SOURCE);
    }
}

impl GstObjectImpl for SfuRoomSrc {}

impl ElementImpl for SfuRoomSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU room source",
                "Source/Network/WebRTC",
                "Gives all that is published in a room of this process back to GStreamer, with pads for each participant as it comes. \
                 Example: gst-launch-1.0 sfusignaller api-keys-file=api.keys  sfuroomsrc room=meeting ! decodebin ! autovideosink",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, names: &[&str]| {
                let caps = names.iter().map(|name| gst::Structure::new_empty(*name));
                let caps: gst::Caps = caps.collect();
                let (src, sometimes) = (gst::PadDirection::Src, gst::PadPresence::Sometimes);
                let gtype = super::SfuRoomSrcPad::static_type();
                gst::PadTemplate::with_gtype(name, src, sometimes, &caps, gtype).ok()
            };
            let video = [
                "video/x-h264",
                "video/x-h265",
                "video/x-vp8",
                "video/x-vp9",
                "video/x-av1",
            ];
            let templates = [
                template("video_%u", &video),
                template("audio_%u", &["audio/x-opus"]),
            ];
            templates.into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::ReadyToPaused {
            self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
                gst::StateChangeError
            })?;
        }
        // The thread is gone before its sources stop.
        let members = match transition {
            gst::StateChange::PausedToReady => self.stop(),
            _ => Vec::new(),
        };
        let result = self.parent_change_state(transition);
        let members = match (transition, &result) {
            (gst::StateChange::ReadyToPaused, Err(_)) => self.stop(),
            _ => members,
        };
        for member in members {
            member.end(&self.obj());
        }
        match (transition, result) {
            (gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused, Ok(_)) => {
                Ok(gst::StateChangeSuccess::NoPreroll)
            }
            (_, result) => result,
        }
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if event.type_() == gst::EventType::Eos {
            self.tell(Told::End);
        }
        self.parent_send_event(event)
    }
}

impl BinImpl for SfuRoomSrc {
    /// What fails in one stream is not the end of the others.
    fn handle_message(&self, message: gst::Message) {
        let source = message.src().and_then(|src| self.source_of(src));
        if let (gst::MessageView::Error(error), Some(source)) = (message.view(), source) {
            let stream: String = source.property("stream");
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Failed,
                (
                    "{stream} is left out, and tried again in {} s: {}",
                    RETRY.as_secs(),
                    error.error()
                )
            );
            self.tell(Told::Failed(source));
            return;
        }
        let is_ours = message.src() == Some(self.obj().upcast_ref());
        if message.type_() == gst::MessageType::Error && !is_ours {
            // Of one that has just been taken out.
            gst::debug!(CAT, imp = self, "passed over: {message:?}");
            return;
        }
        self.parent_handle_message(message);
    }
}

impl SfuRoomSrc {
    fn tell(&self, told: Told) {
        if let Some(running) = &*lock(&self.running) {
            // After its end there is nobody to be told.
            let _ = running.told.send(told);
        }
    }

    /// Of our own sources the one that this is, or is a part of.
    fn source_of(&self, object: &gst::Object) -> Option<gst::Element> {
        let mut object = object.clone();
        loop {
            let parent = object.parent()?;
            if parent == *self.obj().upcast_ref::<gst::Object>() {
                return object.downcast().ok();
            }
            object = parent;
        }
    }

    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        if settings.room.is_empty() {
            return Err("room is empty: name the room".into());
        }
        if settings.layer == "all" {
            return Err("layer=all: one layer of each is taken; set layer to highest, lowest, or a layer's name".into());
        }
        let (told, inbox) = channel();
        let room = Room {
            element: self.obj().downgrade(),
            properties: vec![
                ("router", settings.router.to_send_value()),
                ("layer", settings.layer.to_send_value()),
                ("latency", settings.latency_ms.to_send_value()),
                (
                    "keyframe-interval",
                    settings.keyframe_interval_ms.to_send_value(),
                ),
            ],
            router: Router::get(&settings.router),
            name: settings.room,
            numbers: Arc::default(),
            members: BTreeMap::new(),
            failed: BTreeMap::new(),
            full: false,
        };
        let thread = std::thread::Builder::new()
            .name("sfuroomsrc".into())
            .spawn(move || room.run(&inbox))
            .map_err(|e| format!("no thread could be started: {e}"))?;
        *lock(&self.running) = Some(Running { told, thread });
        Ok(())
    }

    fn stop(&self) -> Vec<Member> {
        let Some(running) = lock(&self.running).take() else {
            return Vec::new();
        };
        let _ = running.told.send(Told::Stop);
        running.thread.join().unwrap_or_else(|_| {
            gst::error!(CAT, imp = self, "the element's thread has panicked");
            Vec::new()
        })
    }
}

/// What the thread works on.
struct Room {
    element: glib::WeakRef<super::SfuRoomSrc>,
    router: Arc<Router>,
    name: String,
    /// Of each source.
    properties: Vec<(&'static str, glib::SendValue)>,
    numbers: Arc<Numbers>,
    members: BTreeMap<StreamName, Member>,
    /// What failed, and until when it is left out.
    failed: BTreeMap<StreamName, Instant>,
    /// It was told that there are too many.
    full: bool,
}

impl Room {
    /// Until it is told to stop. Returns who is still there.
    fn run(mut self, inbox: &Receiver<Told>) -> Vec<Member> {
        let mut ended = None::<Instant>;
        loop {
            let told = inbox.recv_timeout(LOOK);
            let Some(element) = self.element.upgrade() else {
                break;
            };
            match told {
                Ok(Told::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Told::End) => ended = Some(Instant::now()),
                Ok(Told::Failed(source)) => self.failed(&element, &source),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match ended {
                // Nobody is let in any more, and who is there ends by itself.
                Some(at) => {
                    if ending::idle_sinks_ended(element.upcast_ref(), at.elapsed()) {
                        while !matches!(inbox.recv(), Ok(Told::Stop) | Err(_)) {}
                        break;
                    }
                }
                None => self.look(&element),
            }
        }
        self.members.into_values().collect()
    }

    fn failed(&mut self, element: &super::SfuRoomSrc, source: &gst::Element) {
        let known = self.members.iter().find(|(_, m)| m.source == *source);
        if let Some(stream) = known.map(|(stream, _)| stream.clone()) {
            self.failed.insert(stream.clone(), Instant::now() + RETRY);
            self.end(element, &stream);
        }
    }

    /// Begins with who has come, and ends with who has gone.
    fn look(&mut self, element: &super::SfuRoomSrc) {
        let mut present = BTreeMap::new();
        for one in self.router.roster().of(&self.name) {
            for stream in one.streams {
                present.insert(stream, one.identity.clone());
            }
        }
        let now = Instant::now();
        self.failed.retain(|_, until| now < *until);
        let is_same = |(stream, member): &(&StreamName, &Member)| {
            present
                .get(*stream)
                .is_some_and(|identity| *identity == member.identity)
        };
        let gone = self.members.iter().filter(|one| !is_same(one));
        let gone: Vec<_> = gone.map(|(stream, _)| stream.clone()).collect();
        for stream in &gone {
            self.end(element, stream);
        }
        for (stream, identity) in present {
            if self.members.contains_key(&stream) || self.failed.contains_key(&stream) {
                continue;
            }
            if self.members.len() >= MOST {
                if !std::mem::replace(&mut self.full, true) {
                    gst::element_warning!(
                        element,
                        gst::ResourceError::NoSpaceLeft,
                        (
                            "{}: there are more than {MOST} streams; pads of others come as some go",
                            self.name
                        )
                    );
                }
                break;
            }
            let begun = Member::begin(element, &identity, &stream, &self.numbers, &self.properties);
            match begun {
                Ok(member) => {
                    self.tell(element, &identity, &stream, true);
                    self.members.insert(stream, member);
                }
                Err(why) => {
                    gst::warning!(CAT, obj = element, "{stream}: {why}");
                    self.failed.insert(stream, now + RETRY);
                }
            }
        }
    }

    fn end(&mut self, element: &super::SfuRoomSrc, stream: &StreamName) {
        if let Some(member) = self.members.remove(stream) {
            let identity = member.identity.clone();
            member.end(element);
            self.tell(element, &identity, stream, false);
        }
    }

    /// The element message `sfu-room-changed`.
    fn tell(
        &self,
        element: &super::SfuRoomSrc,
        identity: &str,
        stream: &StreamName,
        present: bool,
    ) {
        gst::info!(
            CAT,
            obj = element,
            "{stream}: {}",
            if present { "here" } else { "gone" }
        );
        let about = gst::Structure::builder("sfu-room-changed")
            .field("room", &self.name)
            .field("identity", identity)
            .field("stream", stream.as_str())
            .field("present", present)
            .build();
        let message = gst::message::Element::builder(about).src(element);
        let _ = element.post_message(message.build());
    }
}
