// SPDX-License-Identifier: MPL-2.0

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;
use sfu_engine::Router;

use super::CAT;
use super::input::{Input, make};
use super::layout::{Layout, tiles};
use crate::properties::{latency, lock, number, number_of, text, text_of};

/// Between two looks at who speaks.
const LOOK: Duration = Duration::from_millis(200);
/// What is mixed waits so long for its inputs, so that who comes later changes nothing for the others.
const LATENCY: gst::ClockTime = gst::ClockTime::from_mseconds(300);
/// Who is to be seen large has spoken for so long, beside who was.
const KEEP: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
struct Settings {
    room: String,
    router: String,
    layout: Layout,
    width: u32,
    height: u32,
    framerate: u32,
    latency_ms: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            room: "meeting".into(),
            router: "default".into(),
            layout: Layout::default(),
            width: 1280,
            height: 720,
            framerate: 30,
            latency_ms: 100,
        }
    }
}

#[derive(Debug, Default)]
pub struct SfuRoomMixer {
    settings: Mutex<Settings>,
    /// From READY on.
    mixed: Mutex<Option<Mixed>>,
    /// From PAUSED on.
    watching: Mutex<Option<Watching>>,
    inputs: Arc<Mutex<Inputs>>,
}

/// By the pads of the room.
type Inputs = BTreeMap<u64, (gst::Pad, Input)>;

/// What is there whoever comes.
#[derive(Debug)]
struct Mixed {
    elements: Vec<gst::Element>,
}

/// Arranges the pictures until it is dropped.
#[derive(Debug)]
struct Watching {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for SfuRoomMixer {
    const NAME: &'static str = "GstSfuRoomMixer";
    type Type = super::SfuRoomMixer;
    type ParentType = gst::Bin;
}

impl ObjectImpl for SfuRoomMixer {
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
                glib::ParamSpecEnum::builder_with_default("layout", defaults.layout)
                    .nick("Layout")
                    .blurb("How the pictures are arranged")
                    .mutable_playing()
                    .build(),
                number(
                    "width",
                    "Width",
                    "Of the picture",
                    16..=8_192,
                    defaults.width,
                ),
                number(
                    "height",
                    "Height",
                    "Of the picture",
                    16..=8_192,
                    defaults.height,
                ),
                number(
                    "framerate",
                    "Frame rate",
                    "Pictures a second",
                    1..=120,
                    defaults.framerate,
                ),
                latency(defaults.latency_ms),
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
            "layout" => settings.layout = value.get().unwrap_or_default(),
            "width" => settings.width = number_of(value),
            "height" => settings.height = number_of(value),
            "framerate" => settings.framerate = number_of(value),
            "latency" => settings.latency_ms = number_of(value),
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "room" => settings.room.to_value(),
            "router" => settings.router.to_value(),
            "layout" => settings.layout.to_value(),
            "width" => settings.width.to_value(),
            "height" => settings.height.to_value(),
            "framerate" => settings.framerate.to_value(),
            "latency" => settings.latency_ms.to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        element.set_element_flags(gst::ElementFlags::SOURCE);
        for name in ["video", "audio"] {
            let Some(template) = element.pad_template(name) else {
                continue;
            };
            let pad = gst::GhostPad::builder_from_template(&template)
                .name(name)
                .build();
            // What nobody takes must not be an error that ends the other one.
            let data = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(data, |pad, _| match pad.is_linked() {
                true => gst::PadProbeReturn::Ok,
                false => gst::PadProbeReturn::Drop,
            });
            if let Err(error) = element.add_pad(&pad) {
                gst::error!(CAT, imp = self, "no pad {name}: {error}");
            }
        }
    }
}

impl GstObjectImpl for SfuRoomMixer {}

impl ElementImpl for SfuRoomMixer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU room mixer",
                "Source/Network/WebRTC",
                "Makes one picture and one sound of all that is published in a room of this process (MCU). \
                 Example: gst-launch-1.0 sfusignaller api-keys-file=api.keys  sfuroommixer room=meeting name=mix \
                 mix.video ! sfusink stream=mixed name=out  mix.audio ! out.audio_0",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let template = |name, caps: &str| {
                let caps = gst::Caps::new_empty_simple(caps);
                let (src, always) = (gst::PadDirection::Src, gst::PadPresence::Always);
                gst::PadTemplate::new(name, src, always, &caps).ok()
            };
            let templates = [
                template("video", "video/x-raw"),
                template("audio", "audio/x-raw"),
            ];
            templates.into_iter().flatten().collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let fail = |message: String| {
            gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
            gst::StateChangeError
        };
        match transition {
            gst::StateChange::ReadyToPaused => {
                self.build().map_err(fail)?;
                self.watch().map_err(fail)?;
            }
            gst::StateChange::PausedToReady => drop(lock(&self.watching).take()),
            _ => {}
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::PausedToReady
            || (transition == gst::StateChange::ReadyToPaused && result.is_err())
        {
            drop(lock(&self.watching).take());
            self.take_down();
        }
        result
    }
}

impl BinImpl for SfuRoomMixer {
    /// What one publishes and can't be decoded is not the end of the others, also when it has just gone.
    fn handle_message(&self, message: gst::Message) {
        if let (gst::MessageView::Error(error), Some(source)) = (message.view(), message.src())
            && !self.is_shared(source)
        {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Failed,
                ("a track is left out: {}", error.error())
            );
            return;
        }
        self.parent_handle_message(message);
    }
}

impl SfuRoomMixer {
    /// Whether this is the element itself, or of what mixes all of the room.
    fn is_shared(&self, source: &gst::Object) -> bool {
        let is_of = |element: &gst::Element| {
            let element: &gst::Object = element.upcast_ref();
            source == element || source.has_as_ancestor(element)
        };
        let mixed = lock(&self.mixed);
        let mut elements = mixed.iter().flat_map(|mixed| &mixed.elements);
        source == self.obj().upcast_ref::<gst::Object>() || elements.any(is_of)
    }

    /// The room, and what is mixed with whatever comes from it: a black picture, and silence.
    fn build(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let element = self.obj();
        let bin: &gst::Bin = element.upcast_ref();
        let text = |e: glib::BoolError| e.to_string();
        let picture = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("width", settings.width as i32)
            .field("height", settings.height as i32)
            .field(
                "framerate",
                gst::Fraction::new(settings.framerate as i32, 1),
            )
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build();
        let sound = gst::Caps::builder("audio/x-raw")
            .field("format", "S16LE")
            .field("rate", 48_000)
            .field("channels", 2)
            .field("layout", "interleaved")
            .build();
        let mut elements = Vec::new();
        let mut mixers = Vec::new();
        for (name, mixer, nothing, pattern, caps) in [
            (
                "video",
                "compositor",
                "videotestsrc",
                ("pattern", "black"),
                &picture,
            ),
            (
                "audio",
                "audiomixer",
                "audiotestsrc",
                ("wave", "silence"),
                &sound,
            ),
        ] {
            let mixer = make(mixer)?;
            mixer.set_property("min-upstream-latency", LATENCY.nseconds());
            let nothing = make(nothing)?;
            nothing.set_property("is-live", true);
            nothing.set_property_from_str(pattern.0, pattern.1);
            let chain = [nothing, filter(caps)?, mixer.clone(), filter(caps)?];
            bin.add_many(&chain).map_err(text)?;
            elements.extend(chain.clone());
            gst::Element::link_many(&chain).map_err(text)?;
            let out = chain[3].static_pad("src");
            let ghost = element.static_pad(name).and_downcast::<gst::GhostPad>();
            let ghost = ghost.ok_or("the element has no pad")?;
            ghost.set_target(out.as_ref()).map_err(text)?;
            mixers.push(mixer);
        }
        let room = gst::ElementFactory::make("sfuroomsrc")
            .property("room", &settings.room)
            .property("router", &settings.router)
            .property("latency", settings.latency_ms)
            .build()
            .map_err(text)?;
        bin.add(&room).map_err(text)?;
        elements.push(room.clone());
        *lock(&self.mixed) = Some(Mixed { elements });
        let (weak, inputs) = (element.downgrade(), self.inputs.clone());
        room.connect_pad_added(move |_, pad| {
            let Some(element) = weak.upgrade() else {
                return;
            };
            let mixer = &mixers[usize::from(!pad.name().starts_with("video"))];
            match Input::new(element.upcast_ref(), pad, mixer) {
                Ok(input) => {
                    let mut inputs = lock(&inputs);
                    let next = inputs.last_key_value().map_or(0, |(last, _)| last + 1);
                    inputs.insert(next, (pad.clone(), input));
                }
                Err(why) => gst::warning!(CAT, obj = pad, "left out: {why}"),
            }
        });
        let (weak, inputs) = (element.downgrade(), self.inputs.clone());
        room.connect_pad_removed(move |_, pad| {
            let gone = |_: &u64, (known, _): &mut (gst::Pad, Input)| known == pad;
            let gone: Vec<_> = lock(&inputs).extract_if(.., gone).collect();
            if let Some(element) = weak.upgrade() {
                for (_, (_, input)) in gone {
                    input.remove(element.upcast_ref());
                }
            }
        });
        Ok(())
    }

    fn take_down(&self) {
        let element = self.obj();
        let inputs = std::mem::take(&mut *lock(&self.inputs));
        for (_, input) in inputs.into_values() {
            input.remove(element.upcast_ref());
        }
        for pad in element.src_pads() {
            if let Ok(ghost) = pad.downcast::<gst::GhostPad>() {
                let _ = ghost.set_target(None::<&gst::Pad>);
            }
        }
        for inner in lock(&self.mixed)
            .take()
            .into_iter()
            .flat_map(|m| m.elements)
        {
            crate::sink::take_out(element.upcast_ref(), &inner);
        }
    }

    /// Arranges the pictures from now on.
    fn watch(&self) -> Result<(), String> {
        let (stop, stopped) = channel::<()>();
        let (element, inputs) = (self.obj().downgrade(), self.inputs.clone());
        let router = Router::get(&lock(&self.settings).router);
        let run = move || {
            let mut speaker = Speaker::default();
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let Some(element) = element.upgrade() else {
                    return;
                };
                let settings = lock(&element.imp().settings).clone();
                let inputs = lock(&inputs);
                let shown = inputs.values().map(|(_, input)| input);
                let shown: Vec<_> = shown.filter(|input| input.picture.is_some()).collect();
                let streams = shown.iter().filter_map(|input| input.picture.as_deref());
                let main = speaker.look(&router, streams);
                let size = (settings.width, settings.height);
                let tiles = tiles(settings.layout, shown.len(), main, size);
                for (input, tile) in shown.into_iter().zip(tiles) {
                    let place = |name: &str, value: u32| {
                        let value = i32::try_from(value).unwrap_or(i32::MAX);
                        input.pad.set_property(name, value);
                    };
                    place("xpos", tile.x);
                    place("ypos", tile.y);
                    place("width", tile.width);
                    place("height", tile.height);
                    input.pad.set_property("alpha", 1.0);
                }
            }
        };
        let thread = std::thread::Builder::new().name("sfuroommixer".into());
        let thread = thread.spawn(run).map_err(|e| format!("no thread: {e}"))?;
        *lock(&self.watching) = Some(Watching {
            stop: Some(stop),
            thread: Some(thread),
        });
        Ok(())
    }
}

/// Whom to look at.
#[derive(Debug, Default)]
struct Speaker {
    main: String,
    since: Option<Instant>,
}

impl Speaker {
    /// The place of the one to look at among these.
    fn look<'a>(&mut self, router: &Router, streams: impl Iterator<Item = &'a str>) -> usize {
        let now = Instant::now();
        let streams: Vec<_> = streams.collect();
        let screen = streams.iter().rposition(|name| name.ends_with("/screen"));
        let level = |name: &str| {
            let stream = name.parse().ok().and_then(|name| router.find(&name));
            let speech = stream.map(|stream| stream.speech(now));
            speech
                .filter(|speech| speech.active)
                .map_or(0.0, |speech| speech.level)
        };
        let loudest = streams.iter().map(|name| (level(name), *name));
        let loudest = loudest.max_by(|(a, _), (b, _)| a.total_cmp(b));
        let is_kept = self.since.is_some_and(|since| now < since + KEEP);
        if let Some((level, name)) = loudest
            && level > 0.0
            && name != self.main
            && !(is_kept && streams.contains(&self.main.as_str()))
        {
            name.clone_into(&mut self.main);
            self.since = Some(now);
        }
        let main = streams.iter().position(|name| *name == self.main);
        screen.or(main).unwrap_or(0)
    }
}

fn filter(caps: &gst::Caps) -> Result<gst::Element, String> {
    let filter = make("capsfilter")?;
    filter.set_property("caps", caps);
    Ok(filter)
}
