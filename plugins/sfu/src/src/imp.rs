// SPDX-License-Identifier: MPL-2.0

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::properties::may_change;
use sfu_elements::refusal;
use sfu_engine::{AudioStatus, Language, LocalSubscription, Router, StreamName, TrackHealth};

use super::CAT;
use super::branch::Branch;
use super::reader::{Reader, Shared, Wanted};
use super::settings::{Choice, Codecs, PROPERTIES, Settings};
use crate::properties::{lock, number_of, text_of};

#[derive(Debug, Default)]
pub struct SfuSrc {
    settings: Mutex<Settings>,
    running: Mutex<Option<Running>>,
}

/// What there is between READY and PAUSED and back.
#[derive(Debug)]
struct Running {
    subscription: Arc<LocalSubscription>,
    shared: Arc<Shared>,
    thread: JoinHandle<Vec<Branch>>,
}

#[glib::object_subclass]
impl ObjectSubclass for SfuSrc {
    const NAME: &'static str = "GstSfuSrc";
    type Type = super::SfuSrc;
    type ParentType = gst::Bin;
}

impl ObjectImpl for SfuSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        let text = || text_of(value);
        if pspec.name() == "layer"
            && let Err(why) = self.follow_layer(&text())
        {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Settings,
                ("{why}; it stays as it was")
            );
            return;
        }
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "stream" => settings.stream = text(),
            "router" => settings.router = text(),
            "layer" => settings.layer = text(),
            "video-codecs" => settings.video_codecs = text(),
            "on-loss" => settings.on_loss = value.get().unwrap_or_default(),
            "latency" => settings.latency_ms = number_of(value),
            "keyframe-interval" => settings.keyframe_interval_ms = number_of(value),
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
        let (on_loss, interval) = (settings.on_loss, settings.keyframe_interval());
        drop(settings);
        if let Some(running) = &*lock(&self.running) {
            let mut wanted = lock(&running.shared.wanted);
            (wanted.on_loss, wanted.keyframe_interval) = (on_loss, interval);
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "stream" => settings.stream.to_value(),
            "router" => settings.router.to_value(),
            "layer" => settings.layer.to_value(),
            "video-codecs" => settings.video_codecs.to_value(),
            "on-loss" => settings.on_loss.to_value(),
            "latency" => settings.latency_ms.to_value(),
            "keyframe-interval" => settings.keyframe_interval_ms.to_value(),
            "live" => {
                let running = lock(&self.running);
                let live = running
                    .as_ref()
                    .is_some_and(|r| r.shared.live.load(Relaxed));
                live.to_value()
            }
            "stream-info" => stream_info(&settings).to_value(),
            "stats" => self.stats().to_value(),
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        // It is a source from the start, also while there is no publisher and so no pad.
        self.obj().set_element_flags(gst::ElementFlags::SOURCE);
    }
}

/// Whether something of a track has come, and still does.
fn flows(track: &TrackHealth) -> bool {
    track.frames > 0 && track.frame_rate != Some(0.0)
}

/// What other plugins ask about streams: they have no router of their own.
fn stream_info(settings: &Settings) -> Option<gst::Structure> {
    let name = settings.stream.parse().ok()?;
    let info = Router::get(&settings.router).stream(&name)?;
    let uptime = u64::try_from(info.uptime.as_millis()).unwrap_or(u64::MAX);
    let mut structure = gst::Structure::builder("sfu-stream")
        .field("live", info.live)
        .field("uptime", uptime)
        .field("viewers", info.viewers as u64);
    if let Some(video) = &info.video {
        let layers = video.layers.iter();
        let layers = layers.map(|layer| layer.rid.as_str().to_send_value());
        structure = structure
            .field("video", video.codec.name())
            .field("video-flows", video.health.iter().any(flows))
            .field("layers", gst::Array::from_values(layers));
    }
    if let Some(first) = info.audio.first() {
        structure = structure
            .field("audio", first.track.codec.name())
            .field("audio-flows", flows(&first.health))
            .field(
                "audio-tracks",
                gst::Array::new(info.audio.iter().map(audio_info)),
            );
    }
    Some(structure.build())
}

fn audio_info(audio: &AudioStatus) -> gst::Structure {
    let language = audio.track.language.as_ref().map(Language::as_str);
    gst::Structure::builder("audio")
        .field(
            "number",
            u32::try_from(audio.track.number).unwrap_or(u32::MAX),
        )
        .field("codec", audio.track.codec.name())
        .field("flows", flows(&audio.health))
        .field_if_some("language", language)
        .build()
}

impl GstObjectImpl for SfuSrc {}

impl ElementImpl for SfuSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "SFU stream source",
                "Source/Network/WebRTC",
                "Gives one stream of this process's router back to GStreamer, in sync: for HLS, RTMP, recordings or \
                 re-encoding. \
                 Example: gst-launch-1.0 -e sfusignaller  sfusrc stream=cam1 ! decodebin ! autovideosink",
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
                gst::PadTemplate::new(name, src, sometimes, &caps).ok()
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
        match transition {
            gst::StateChange::ReadyToPaused => self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::ResourceError::Settings, ("{message}"));
                gst::StateChangeError
            })?,
            gst::StateChange::PlayingToPaused => self.set_playing(false),
            _ => {}
        }
        // The thread is gone before its pads' elements stop.
        let branches = match transition {
            gst::StateChange::PausedToReady => self.stop(),
            _ => Vec::new(),
        };
        let result = self.parent_change_state(transition);
        for branch in branches {
            branch.remove(&self.obj());
        }
        match (transition, result) {
            (gst::StateChange::ReadyToPaused, Err(error)) => {
                for branch in self.stop() {
                    branch.remove(&self.obj());
                }
                Err(error)
            }
            (gst::StateChange::PausedToPlaying, Ok(success)) => {
                self.set_playing(true);
                Ok(success)
            }
            (gst::StateChange::ReadyToPaused | gst::StateChange::PlayingToPaused, Ok(_)) => {
                Ok(gst::StateChangeSuccess::NoPreroll)
            }
            (_, result) => result,
        }
    }

    fn send_event(&self, event: gst::Event) -> bool {
        if let gst::EventView::SelectStreams(select) = event.view() {
            let wanted = select.streams();
            return self.select(wanted.iter().map(ToString::to_string).collect());
        }
        if event.type_() == gst::EventType::Eos
            && let Some(running) = &*lock(&self.running)
        {
            running.shared.ended.store(true, Relaxed);
            running.subscription.wake();
        }
        self.parent_send_event(event)
    }
}

impl BinImpl for SfuSrc {
    /// What is linked to a pad and can't take it is named.
    fn handle_message(&self, message: gst::Message) {
        if !refusal::tell(self.obj().upcast_ref(), &message) {
            self.parent_handle_message(message);
        }
    }
}

impl SfuSrc {
    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let name: StreamName = settings
            .stream
            .parse()
            .map_err(|e| format!("stream: {e}"))?;
        let choice: Choice = settings.layer.parse()?;
        let codecs: Codecs = settings.video_codecs.parse()?;
        let subscription = Arc::new(Router::get(&settings.router).subscribe(&name));
        let shared = Arc::new(Shared::default());
        *lock(&shared.wanted) = Wanted {
            choice,
            on_loss: settings.on_loss,
            keyframe_interval: settings.keyframe_interval(),
        };
        let reader = Reader::new(
            &self.obj(),
            subscription.clone(),
            shared.clone(),
            codecs,
            &settings,
        );
        let thread = std::thread::Builder::new()
            .name("sfusrc".into())
            .spawn(move || reader.run())
            .map_err(|e| format!("no thread could be started: {e}"))?;
        *lock(&self.running) = Some(Running {
            subscription,
            shared,
            thread,
        });
        Ok(())
    }

    fn stop(&self) -> Vec<Branch> {
        let Some(running) = lock(&self.running).take() else {
            return Vec::new();
        };
        running.subscription.close();
        running.thread.join().unwrap_or_else(|_| {
            gst::error!(CAT, imp = self, "the element's thread has panicked");
            Vec::new()
        })
    }

    /// Another layer, while it runs. One pad does not become several, nor the other way round.
    fn follow_layer(&self, layer: &str) -> Result<(), String> {
        let Some((shared, subscription)) = lock(&self.running)
            .as_ref()
            .map(|running| (running.shared.clone(), running.subscription.clone()))
        else {
            return Ok(());
        };
        let choice: Choice = layer.parse()?;
        let mut wanted = lock(&shared.wanted);
        if (choice == Choice::All) != (wanted.choice == Choice::All) {
            return Err("layer can't change to all nor from all while it plays".into());
        }
        wanted.choice = choice;
        drop(wanted);
        subscription.wake();
        Ok(())
    }

    /// Sends the streams that an application chose, and nothing else.
    fn select(&self, wanted: Vec<String>) -> bool {
        let message = {
            let running = lock(&self.running);
            let Some(running) = &*running else {
                return false;
            };
            let message = running.shared.collected.select(wanted);
            running.subscription.wake();
            message
        };
        if let Some(message) = message {
            let _ = self.obj().post_message(message);
            return true;
        }
        false
    }

    fn set_playing(&self, playing: bool) {
        if let Some(running) = &*lock(&self.running) {
            running.shared.playing.store(playing, Relaxed);
            running.subscription.wake();
        }
    }

    fn stats(&self) -> gst::Structure {
        let structure = gst::Structure::builder("sfusrc-stats");
        let (shared, dropped) = match &*lock(&self.running) {
            Some(running) => (running.shared.clone(), running.subscription.dropped()),
            None => return structure.build(),
        };
        let pads = lock(&shared.pads).clone();
        let asked: u64 = pads.iter().map(|p| p.keyframe_requests.load(Relaxed)).sum();
        let pads = pads.iter().map(|pad| pad.structure().to_send_value());
        structure
            .field("live", shared.live.load(Relaxed))
            .field("packets", shared.packets.load(Relaxed))
            .field("bytes", shared.bytes.load(Relaxed))
            .field("dropped", dropped + shared.skipped.load(Relaxed))
            .field("begins", shared.begins.load(Relaxed))
            .field("keyframe-requests", asked)
            .field("pads", gst::Array::from_values(pads))
            .build()
    }
}
