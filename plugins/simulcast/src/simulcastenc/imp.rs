// SPDX-License-Identifier: MPL-2.0

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::CAT;
use super::chain::{self, Chain};
use super::layers::Layer;
use super::settings::{PROPERTIES, Settings};

#[derive(Debug, Default)]
pub struct SimulcastEnc {
    settings: Mutex<Settings>,
    chain: Mutex<Option<Chain>>,
    sink: Mutex<Option<gst::GhostPad>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[glib::object_subclass]
impl ObjectSubclass for SimulcastEnc {
    const NAME: &'static str = "GstSimulcastEnc";
    type Type = super::SimulcastEnc;
    type ParentType = gst::Bin;
}

impl ObjectImpl for SimulcastEnc {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "layers" => {
                let text = value
                    .get::<Option<String>>()
                    .ok()
                    .flatten()
                    .unwrap_or_default();
                settings.layers = text.parse();
                if let Err(reason) = &settings.layers {
                    gst::warning!(CAT, imp = self, "layers={text:?}: {reason}");
                }
            }
            "codec" => settings.codec = value.get().unwrap_or_default(),
            "encoder" => {
                let name = value.get::<Option<String>>().ok().flatten();
                settings.encoder = name.filter(|n| !n.is_empty());
            }
            "keyframe-interval" => {
                settings.keyframe_interval_ms = value.get().unwrap_or(2_000);
            }
            "temporal-layers" => settings.temporal_layers = value.get().unwrap_or(1),
            "speed" => settings.speed = value.get().unwrap_or_default(),
            name => gst::warning!(CAT, imp = self, "property {name} can't be set"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "layers" => settings
                .layers
                .map_or_else(|_| String::new(), |l| l.to_string())
                .to_value(),
            "codec" => settings.codec.to_value(),
            "encoder" => settings.encoder.to_value(),
            "keyframe-interval" => settings.keyframe_interval_ms.to_value(),
            "temporal-layers" => settings.temporal_layers.to_value(),
            "speed" => settings.speed.to_value(),
            "encoders" => {
                let chain = lock(&self.chain);
                let names = chain
                    .iter()
                    .flat_map(|c| &c.branches)
                    .map(|b| b.encoder.to_send_value());
                gst::Array::from_values(names).to_value()
            }
            "stats" => {
                let empty = || gst::Structure::new_empty("simulcastenc-stats");
                lock(&self.chain)
                    .as_ref()
                    .map_or_else(empty, Chain::stats)
                    .to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_suppressed_flags(gst::ElementFlags::SOURCE | gst::ElementFlags::SINK);
        if let Some(template) = obj.pad_template("sink") {
            let sink = gst::GhostPad::builder_from_template(&template)
                .name("sink")
                .build();
            if obj.add_pad(&sink).is_ok() {
                *lock(&self.sink) = Some(sink);
            }
        }
    }
}

impl GstObjectImpl for SimulcastEnc {}

impl ElementImpl for SimulcastEnc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Simulcast encoder",
                "Codec/Encoder/Video",
                "Encodes one raw video into several layers with aligned keyframes, by the best encoder installed. \
                 Example: gst-launch-1.0 videotestsrc is-live=true ! simulcastenc name=e e.src_0 ! fakesink e.src_1 ! fakesink",
                env!("CARGO_PKG_AUTHORS"),
            )
        });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let raw = gst::Caps::new_empty_simple("video/x-raw");
            let mut encoded = super::encoded_h264();
            encoded.merge(gst::Caps::new_empty_simple("video/x-vp8"));
            let template = |name, direction, presence, caps| {
                gst::PadTemplate::new(name, direction, presence, caps).ok()
            };
            let sink = template(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &raw,
            );
            let src = template(
                "src_%u",
                gst::PadDirection::Src,
                gst::PadPresence::Request,
                &encoded,
            );
            sink.into_iter().chain(src).collect()
        });
        &TEMPLATES
    }

    fn request_new_pad(
        &self,
        templ: &gst::PadTemplate,
        name: Option<&str>,
        _caps: Option<&gst::Caps>,
    ) -> Option<gst::Pad> {
        let obj = self.obj();
        if lock(&self.chain).is_some() {
            gst::warning!(
                CAT,
                imp = self,
                "request pads in the NULL state: the layers are running"
            );
            return None;
        }
        let settings = lock(&self.settings).clone();
        let count = settings.layers.as_ref().map_or(0, |l| l.as_slice().len());
        let taken = |index: &usize| obj.static_pad(&format!("src_{index}")).is_some();
        let index = match name {
            Some(name) => name.strip_prefix("src_").and_then(|n| n.parse().ok()),
            None => (0..count).find(|index| !taken(index)),
        };
        let index = index.filter(|index| *index < count && !taken(index));
        let Some(index) = index else {
            gst::warning!(
                CAT,
                imp = self,
                "pad {name:?} can't be had: `layers` has {count}, so src_0 to src_{} can be requested once",
                count.saturating_sub(1)
            );
            return None;
        };
        let pad = gst::GhostPad::builder_from_template(templ)
            .name(format!("src_{index}"))
            .build();
        obj.add_pad(&pad).ok()?;
        Some(pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        if let Err(error) = self.obj().remove_pad(pad) {
            gst::warning!(CAT, imp = self, "{error}");
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            self.start().map_err(|message| {
                gst::element_imp_error!(self, gst::CoreError::MissingPlugin, ("{message}"));
                gst::StateChangeError
            })?;
        }
        let result = self.parent_change_state(transition);
        if transition == gst::StateChange::ReadyToNull
            || (transition == gst::StateChange::NullToReady && result.is_err())
        {
            self.stop();
        }
        result
    }
}

impl BinImpl for SimulcastEnc {}

impl SimulcastEnc {
    /// The layers whose pads were requested, by index.
    fn requested(&self, settings: &Settings) -> Result<Vec<(usize, Layer)>, String> {
        let layers = settings
            .layers
            .as_ref()
            .map_err(|reason| format!("layers: {reason}"))?;
        let obj = self.obj();
        let requested: Vec<_> = layers
            .as_slice()
            .iter()
            .copied()
            .enumerate()
            .filter(|(index, _)| obj.static_pad(&format!("src_{index}")).is_some())
            .collect();
        if requested.len() != obj.src_pads().len() {
            return Err("a pad was requested for a layer that `layers` no longer has".into());
        }
        Ok(requested)
    }

    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let requested = self.requested(&settings)?;
        let obj = self.obj();
        let bin: &gst::Bin = obj.upcast_ref();
        let chain = match chain::build(bin, &settings, &requested) {
            Ok(chain) => chain,
            Err(message) => {
                for child in bin.children() {
                    // It was just added, and is in the NULL state.
                    let _ = bin.remove(&child);
                }
                return Err(message);
            }
        };
        let sink = lock(&self.sink).clone();
        let targets = sink.into_iter().map(|pad| (pad, &chain.entry)).chain(
            requested
                .iter()
                .zip(&chain.branches)
                .filter_map(|((index, _), branch)| {
                    let pad = obj.static_pad(&format!("src_{index}"))?;
                    Some((pad.downcast().ok()?, &branch.exit))
                }),
        );
        for (ghost, target) in targets {
            ghost.set_target(Some(target)).map_err(|e| e.to_string())?;
        }
        *lock(&self.chain) = Some(chain);
        Ok(())
    }

    fn stop(&self) {
        let Some(chain) = lock(&self.chain).take() else {
            return;
        };
        for pad in self.obj().pads() {
            if let Ok(ghost) = pad.downcast::<gst::GhostPad>() {
                // Letting go of a target can't fail.
                let _ = ghost.set_target(None::<&gst::Pad>);
            }
        }
        for element in chain.elements {
            // The bin has brought its children to NULL.
            let _ = self.obj().remove(&element);
        }
    }
}
