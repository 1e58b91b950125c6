// SPDX-License-Identifier: MPL-2.0

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, LazyLock, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::layers::{Layer, Layers};
use sfu_elements::properties::may_change;
use sfu_elements::refusal;

use super::CAT;
use super::elements::pad;
use super::encoders::{self, Candidate};
use super::front::{self, Front};
use super::layer::{self, Branch, Common};
use super::lock;
use super::settings::{Codec, PROPERTIES, Settings};
use super::stats::stats;

#[derive(Debug)]
pub struct SimulcastEnc {
    settings: Mutex<Settings>,
    chain: Mutex<Option<Chain>>,
    sink: Mutex<Option<gst::GhostPad>>,
    /// The layers whose pads are being requested.
    coming: Mutex<BTreeSet<usize>>,
    /// What the sink pad answers that it takes.
    takes: Arc<Mutex<gst::Caps>>,
}

impl Default for SimulcastEnc {
    fn default() -> Self {
        Self {
            settings: Mutex::default(),
            chain: Mutex::default(),
            sink: Mutex::default(),
            coming: Mutex::default(),
            takes: Arc::new(Mutex::new(front::template_caps())),
        }
    }
}

/// Everything that was built for one run.
#[derive(Debug)]
struct Chain {
    front: Front,
    plan: Plan,
    branches: Vec<Branch>,
}

/// What a layer is built by.
#[derive(Debug, Clone)]
struct Plan {
    candidates: Vec<Candidate>,
    /// What the chain was built with.
    settings: Settings,
    live: Arc<AtomicBool>,
    tee: gst::Element,
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

    fn signals() -> &'static [glib::subclass::Signal] {
        static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
            let (text, element) = (String::static_type(), gst::Element::static_type());
            let setup = glib::subclass::Signal::builder("encoder-setup")
                .param_types([text, text, element])
                .return_type::<bool>()
                .accumulator(|_, _, value| match value.get::<bool>() {
                    Ok(true) => ControlFlow::Break(value.clone()),
                    _ => ControlFlow::Continue(value.clone()),
                })
                .build();
            vec![setup]
        });
        &SIGNALS
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        if !may_change(&*self.obj(), pspec) {
            return;
        }
        if pspec.name() == "layers" {
            return self.set_layers(value);
        }
        let mut settings = lock(&self.settings);
        match pspec.name() {
            "codec" => settings.codec = value.get().unwrap_or_default(),
            "encoder" => {
                let name = value.get::<Option<String>>().ok().flatten();
                settings.encoder = name.filter(|n| !n.is_empty());
            }
            "encoder-properties" => settings.encoder_properties = value.get().unwrap_or_default(),
            "deinterlace" => settings.deinterlace = value.get().unwrap_or_default(),
            "deinterlace-fields" => settings.deinterlace_fields = value.get().unwrap_or_default(),
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
            "layers" => settings.layers.to_string().to_value(),
            "codec" => settings.codec.to_value(),
            "encoder" => settings.encoder.to_value(),
            "encoder-properties" => settings.encoder_properties.to_value(),
            "deinterlace" => settings.deinterlace.to_value(),
            "deinterlace-fields" => settings.deinterlace_fields.to_value(),
            "keyframe-interval" => settings.keyframe_interval_ms.to_value(),
            "temporal-layers" => settings.temporal_layers.to_value(),
            "speed" => settings.speed.to_value(),
            "encoders" => {
                let chain = lock(&self.chain);
                let branches = chain.iter().flat_map(|c| &c.branches);
                let names = branches.map(|b| b.shared.encoder_name().to_send_value());
                gst::Array::from_values(names).to_value()
            }
            "stats" => match &*lock(&self.chain) {
                Some(chain) => stats(&chain.front, &chain.branches),
                None => gst::Structure::new_empty("simulcastenc-stats"),
            }
            .to_value(),
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
            front::answer_caps(sink.upcast_ref(), self.takes.clone());
            let takes = self.takes.clone();
            refusal::watch(sink.upcast_ref(), move || lock(&takes).clone());
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
            let raw = front::template_caps();
            let codecs = [Codec::H264, Codec::Vp8, Codec::H265, Codec::Av1];
            let mut encoded = gst::Caps::new_empty();
            for codec in codecs {
                encoded.merge(codec.encoded());
            }
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
        let layers = lock(&self.settings).layers.clone();
        let count = layers.as_slice().len();
        // Several threads may ask at once.
        let index = {
            let mut coming = lock(&self.coming);
            let free = |index: &usize| {
                *index < count
                    && !coming.contains(index)
                    && obj.static_pad(&format!("src_{index}")).is_none()
            };
            let index = match name {
                Some(name) => name.strip_prefix("src_").and_then(|n| n.parse().ok()),
                None => (0..count).find(free),
            };
            let index = index.filter(free);
            coming.extend(index);
            index
        };
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
        let added = self.add_layer((index, layers.as_slice()[index]), &pad);
        lock(&self.coming).remove(&index);
        if let Err(reason) = added {
            gst::warning!(CAT, imp = self, "pad src_{index} can't be had: {reason}");
            return None;
        }
        Some(pad.upcast())
    }

    fn release_pad(&self, pad: &gst::Pad) {
        let obj = self.obj();
        let index = pad.name();
        let index = index.strip_prefix("src_").and_then(|n| n.parse().ok());
        let branch = lock(&self.chain).as_mut().and_then(|chain| {
            let at = chain
                .branches
                .iter()
                .position(|branch| Some(branch.index) == index)?;
            Some(chain.branches.remove(at))
        });
        if let Some(ghost) = pad.downcast_ref::<gst::GhostPad>() {
            let _ = ghost.set_target(None::<&gst::Pad>);
        }
        if let Err(error) = obj.remove_pad(pad) {
            gst::warning!(CAT, imp = self, "{error}");
        }
        match branch {
            Some(branch) => remove_layer(&obj, &branch.bin, Some(pad.clone())),
            None => {
                let _ = pad.set_active(false);
            }
        }
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        let outdated = transition == gst::StateChange::ReadyToPaused
            && lock(&self.chain)
                .as_ref()
                .is_some_and(|chain| chain.plan.settings != *lock(&self.settings));
        if outdated {
            self.stop();
        }
        if transition == gst::StateChange::NullToReady || outdated {
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

/// A layer, by index, and the pad at which it ends.
type Requested = ((usize, Layer), gst::GhostPad);

impl BinImpl for SimulcastEnc {
    /// An encoder that fails is replaced.
    fn handle_message(&self, message: gst::Message) {
        let gst::MessageView::Error(error) = message.view() else {
            return self.parent_handle_message(message);
        };
        let layers: Vec<_> = lock(&self.chain)
            .iter()
            .flat_map(|chain| &chain.branches)
            .map(|branch| branch.shared.clone())
            .collect();
        let reason = error.error().to_string();
        let is_encoders = |source: &gst::Object| layers.iter().any(|l| l.complain(source, &reason));
        if message.src().is_some_and(is_encoders) {
            return;
        }
        if !refusal::tell(self.obj().upcast_ref(), &message) {
            self.parent_handle_message(message);
        }
    }
}

/// Takes a layer out while the others go on. Its thread may be held up behind the element, for as long as a sink is paused:
/// nobody waits for that.
fn remove_layer(obj: &super::SimulcastEnc, layer: &gst::Bin, ghost: Option<gst::Pad>) {
    let sink = layer.static_pad("sink");
    if let Some(from) = sink.and_then(|pad| pad.peer())
        && let Some(tee) = from.parent_element()
    {
        tee.release_request_pad(&from);
    }
    layer.set_locked_state(true);
    if layer.parent().as_ref() == Some(obj.upcast_ref()) {
        // Nobody brings it up again.
        let _ = obj.remove(layer);
    }
    layer.call_async(move |layer| {
        let _ = layer.set_state(gst::State::Null);
        if let Some(ghost) = ghost {
            let _ = ghost.set_active(false);
        }
    });
}

impl SimulcastEnc {
    fn set_layers(&self, value: &glib::Value) {
        let text = value.get::<Option<String>>().ok().flatten();
        let text = text.unwrap_or_default();
        let layers = match text.parse::<Layers>() {
            Ok(layers) => layers,
            Err(reason) => {
                let told = format!("layers={text:?}: {reason}");
                let is_running = self.obj().current_state() > gst::State::Ready;
                if !is_running {
                    lock(&self.settings).refused = Some(told.clone());
                }
                gst::element_imp_warning!(self, gst::ResourceError::Settings, ("{told}"));
                return;
            }
        };
        {
            let mut settings = lock(&self.settings);
            settings.layers = layers.clone();
            settings.refused = None;
        }
        if let Some(chain) = &mut *lock(&self.chain) {
            chain.plan.settings.layers = layers.clone();
            for branch in &chain.branches {
                branch
                    .shared
                    .change(layers.as_slice().get(branch.index).copied());
            }
        }
    }

    /// Sets what the user wants of an encoder that was made for a layer.
    pub(super) fn set_up(
        &self,
        encoder: &gst::Element,
        index: usize,
        properties: Option<&gst::Structure>,
    ) {
        if let Some(properties) = properties {
            let wrong = encoders::apply_properties(encoder, properties, index);
            if !wrong.is_empty() {
                let wrong = wrong.join("; ");
                gst::element_imp_warning!(
                    self,
                    gst::ResourceError::Settings,
                    ("encoder-properties: {wrong}")
                );
            }
        }
        let (consumer, pad) = (index.to_string(), format!("src_{index}"));
        self.obj()
            .emit_by_name::<bool>("encoder-setup", &[&consumer, &pad, encoder]);
    }

    /// The layers whose pads were requested, by index.
    fn requested(&self, settings: &Settings) -> Result<Vec<Requested>, String> {
        if let Some(reason) = &settings.refused {
            return Err(reason.clone());
        }
        let obj = self.obj();
        let layers = settings.layers.as_slice().iter().copied().enumerate();
        let requested: Vec<_> = layers
            .filter_map(|(index, layer)| {
                let pad = obj.static_pad(&format!("src_{index}"))?;
                Some(((index, layer), pad.downcast().ok()?))
            })
            .collect();
        if requested.len() != obj.src_pads().len() {
            return Err("a pad was requested for a layer that `layers` no longer has".into());
        }
        Ok(requested)
    }

    fn start(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        let requested = self.requested(&settings)?;
        let built = self.build(&settings, requested);
        match built {
            Ok(chain) => {
                *lock(&self.chain) = Some(chain);
                Ok(())
            }
            Err(message) => {
                self.clear();
                Err(message)
            }
        }
    }

    fn build(&self, settings: &Settings, requested: Vec<Requested>) -> Result<Chain, String> {
        let obj = self.obj();
        let candidates = encoders::candidates(settings)?;
        let front = front::build(obj.upcast_ref(), settings, candidates.first())?;
        *lock(&self.takes) = front::taken_caps(&candidates);
        let plan = Plan {
            candidates,
            settings: settings.clone(),
            live: front.live.clone(),
            tee: front.tee.clone(),
        };
        let mut chain = Chain {
            front,
            plan,
            branches: Vec::new(),
        };
        for (layer, pad) in requested {
            let branch = self.attach(&chain.plan, layer, &pad)?;
            chain.branches.push(branch);
        }
        if let Some(sink) = lock(&self.sink).clone() {
            let entry = Some(&chain.front.entry);
            sink.set_target(entry).map_err(|e| e.to_string())?;
        }
        Ok(chain)
    }

    /// Builds a layer into the bin, in the state that that is in. Without any lock: applications set up its encoder.
    fn attach(
        &self,
        plan: &Plan,
        layer: (usize, Layer),
        ghost: &gst::GhostPad,
    ) -> Result<Branch, String> {
        let obj = self.obj();
        let common = Common {
            obj: &obj,
            settings: &plan.settings,
            candidates: &plan.candidates,
            live: &plan.live,
        };
        let branch = layer::build(&common, layer, ghost)?;
        obj.add(&branch.bin).map_err(|e| e.to_string())?;
        let bin = branch.bin.upcast_ref();
        let exit = pad(bin, "src")?;
        ghost.set_target(Some(&exit)).map_err(|e| e.to_string())?;
        branch
            .bin
            .sync_state_with_parent()
            .map_err(|e| e.to_string())?;
        let from = plan.tee.request_pad_simple("src_%u");
        let from = from.ok_or("tee gives no pad")?;
        let linked = from.link(&pad(bin, "sink")?);
        linked.map_err(|e| e.to_string())?;
        Ok(branch)
    }

    /// A pad comes, in whatever state.
    fn add_layer(&self, layer: (usize, Layer), ghost: &gst::GhostPad) -> Result<(), String> {
        let obj = self.obj();
        let plan = lock(&self.chain).as_ref().map(|chain| chain.plan.clone());
        if let Some(plan) = plan {
            let branch = self.attach(&plan, layer, ghost)?;
            let mut chain = lock(&self.chain);
            match chain.as_mut().filter(|chain| chain.plan.tee == plan.tee) {
                Some(chain) => {
                    chain.branches.push(branch);
                    chain.branches.sort_by_key(|branch| branch.index);
                }
                None => {
                    drop(chain);
                    let _ = ghost.set_target(None::<&gst::Pad>);
                    remove_layer(&obj, &branch.bin, None);
                    return Err("the element was just stopped".into());
                }
            }
        }
        if obj.current_state() > gst::State::Ready {
            let _ = ghost.set_active(true);
        }
        obj.add_pad(ghost).map_err(|e| e.to_string())
    }

    fn stop(&self) {
        lock(&self.chain).take();
        self.clear();
    }

    fn clear(&self) {
        let obj = self.obj();
        for pad in obj.pads() {
            if let Ok(ghost) = pad.downcast::<gst::GhostPad>() {
                // Letting go of a target can't fail.
                let _ = ghost.set_target(None::<&gst::Pad>);
            }
        }
        for child in obj.children() {
            let _ = obj.remove(&child);
            let _ = child.set_state(gst::State::Null);
        }
    }
}
