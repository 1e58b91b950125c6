// SPDX-License-Identifier: MPL-2.0

//! The element's pads: how they come and go, and what is done with what comes through one.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::is_live;
use sfu_elements::layers::MAX_LAYERS;
use sfu_elements::refusal;
use sfu_engine::{Language, TrackKind};

use super::CAT;
use super::begins::Begins;
use super::branch::{self, Work};
use super::clock::Now;
use super::imp::{Input, SfuSink, key};
use super::media;
use super::way::Way;
use crate::properties::lock;

impl SfuSink {
    pub(super) fn add_input(
        &self,
        templ: &gst::PadTemplate,
        name: Option<&str>,
    ) -> Result<gst::Pad, String> {
        let prefix = templ.name_template().trim_end_matches("%u");
        let kind = if prefix == "audio_" {
            TrackKind::Audio
        } else {
            TrackKind::Video
        };
        let number = {
            let mut state = lock(&self.state);
            let free = |n: &u32| {
                let key = key(kind, *n);
                !state.inputs.contains_key(&key) && !state.coming.contains(&key)
            };
            let number = match name.and_then(|n| n.strip_prefix(prefix)).map(str::parse) {
                Some(Ok(number)) if free(&number) => number,
                Some(Ok(_)) => return Err("it was requested already".into()),
                Some(Err(_)) => return Err(format!("a number is expected behind {prefix}")),
                None => (0..).find(free).unwrap_or_default(),
            };
            if number as usize >= MAX_LAYERS {
                return Err(format!(
                    "a stream has at most {MAX_LAYERS} layers, and as many audio tracks"
                ));
            }
            state.coming.insert(key(kind, number));
            number
        };
        let added = self.add_numbered(templ, prefix, (kind, number));
        lock(&self.state).coming.remove(&key(kind, number));
        added
    }

    fn add_numbered(
        &self,
        templ: &gst::PadTemplate,
        prefix: &str,
        (kind, number): (TrackKind, u32),
    ) -> Result<gst::Pad, String> {
        let entry = gst::ElementFactory::make("capsfilter")
            .property("caps", media::template_caps(kind))
            .build()
            .map_err(|_| "element capsfilter is missing: install libgstreamer1.0-0")?;
        let obj = self.obj();
        obj.add(&entry).map_err(|e| e.to_string())?;
        let target = entry
            .static_pad("sink")
            .ok_or("capsfilter has no sink pad")?;
        let mut pad = gst::GhostPad::builder_from_template_with_target(templ, &target)
            .map_err(|e| e.to_string())?
            .name(format!("{prefix}{number}"))
            .query_function(self.may_change(kind, number));
        if kind == TrackKind::Audio {
            pad = pad.chain_function(|pad, parent, buffer| {
                let result = gst::ProxyPad::chain_default(pad, parent, buffer);
                Self::without_audio(pad, result)
            });
        }
        let pad = pad.build();
        let (hidden, in_order) = (Arc::default(), Arc::default());
        let told = (Arc::clone(&hidden), Arc::clone(&in_order));
        let way = Way::new(Arc::default(), kind == TrackKind::Audio, told);
        refusal::let_come(pad.upcast_ref(), media::template_caps(kind));
        let begins = Arc::<Begins>::default();
        self.watch(&pad, &entry, (kind, number), (way, begins.clone()));
        let input = Input {
            pad: pad.clone(),
            entry: entry.clone(),
            media: None,
            work: Work::Wait,
            branch: None,
            busy: false,
            layer: None,
            takes_any_raw: false,
            language: None,
            hidden,
            in_order,
            begins,
        };
        lock(&self.state).inputs.insert(key(kind, number), input);
        pad.set_active(true).map_err(|e| e.to_string())?;
        obj.add_pad(&pad).map_err(|e| e.to_string())?;
        entry.sync_state_with_parent().map_err(|e| e.to_string())?;
        Ok(pad.upcast())
    }

    /// Says of a pad that it also takes what the elements behind it were not built for: others are built for that. They are
    /// while somebody asks, too: who asks then is told of everything, since it is unknown which ones have answered.
    fn may_change(
        &self,
        kind: TrackKind,
        number: u32,
    ) -> impl Fn(&gst::GhostPad, Option<&gst::Object>, &mut gst::QueryRef) -> bool + use<> {
        let weak = self.obj().downgrade();
        // None: nothing came yet. Some(None): they are being exchanged.
        let built = move || {
            let obj = weak.upgrade()?;
            let state = lock(&obj.imp().state);
            let input = state.inputs.get(&key(kind, number))?;
            input.media?;
            Some(input.branch.as_ref().and_then(|branch| branch.form))
        };
        let takes = media::template_caps(kind);
        move |pad, parent, query| {
            let before = built();
            let answered = gst::Pad::query_default(pad, parent, query);
            let after = built();
            let stays = after.flatten().filter(|_| before == after);
            let is_other = |caps: &gst::CapsRef| {
                let comes = media::parse(kind, caps);
                after.is_some() && comes.is_ok_and(|comes| Some(comes.form) != stays)
            };
            match query.view_mut() {
                gst::QueryViewMut::Caps(query) if after.is_some() => {
                    add_others(query, &takes, is_other);
                }
                gst::QueryViewMut::AcceptCaps(query) => {
                    let caps = query.caps();
                    let changes = is_other(caps) && caps.can_intersect(&takes);
                    // What lacks something comes to be told so.
                    if changes || media::parse(kind, caps).is_err() {
                        query.set_result(true);
                    }
                }
                _ => return answered,
            }
            true
        }
    }

    fn has(&self, kind: TrackKind, number: u32) -> bool {
        lock(&self.state).inputs.contains_key(&key(kind, number))
    }

    /// A pad goes, in whatever state.
    pub(super) fn release(&self, pad: &gst::Pad) {
        let input = {
            let mut state = lock(&self.state);
            let mut all = state.inputs.iter();
            let key = all.find(|(_, i)| i.pad == *pad).map(|(key, _)| *key);
            key.and_then(|key| Some((key, state.inputs.remove(&key)?)))
        };
        let Some(((is_audio, _), input)) = input else {
            return;
        };
        let Input {
            pad,
            entry,
            branch,
            layer,
            ..
        } = input;
        let obj = self.obj();
        let bin = obj.upcast_ref::<gst::Bin>();
        let was_built = branch.is_some();
        if let Some(branch) = branch {
            // The ends first: a thread of upstream's may be held up there.
            branch.remove(bin);
        }
        // Nothing may flow any more when the elements go.
        let _ = pad.set_active(false);
        let _ = obj.remove_pad(&pad);
        branch::take_out(bin, &entry);
        if is_audio {
            self.undeclare_audio(layer);
        } else if was_built {
            // Where no layer is left the track stays as it was.
            let _ = self.declare(TrackKind::Video);
        }
    }

    /// Builds the pad's elements when its caps come, before they go further.
    fn watch(
        &self,
        pad: &gst::GhostPad,
        entry: &gst::Element,
        (kind, number): (TrackKind, u32),
        (way, begins): (Way, Arc<Begins>),
    ) {
        let weak = self.obj().downgrade();
        let negotiated = entry.static_pad("src").map(|pad| pad.downgrade());
        let refused = AtomicBool::new(false);
        let way = Mutex::new(way);
        let mask = gst::PadProbeType::DATA_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(mask, move |pad, info| {
            let Some(obj) = weak.upgrade() else {
                return gst::PadProbeReturn::Ok;
            };
            let imp = obj.imp();
            if !imp.in_time(&way, pad.upcast_ref(), kind, info) {
                info.flow_res = Ok(gst::FlowSuccess::Ok);
                return gst::PadProbeReturn::Handled;
            }
            if info.event().is_some() && !imp.has(kind, number) {
                // It was just released.
                return gst::PadProbeReturn::Ok;
            }
            let result = match info.event().map(|e| e.view()) {
                Some(gst::EventView::FlushStart(_)) => {
                    imp.flush_comes(kind, number);
                    return gst::PadProbeReturn::Ok;
                }
                Some(gst::EventView::Caps(caps)) => {
                    imp.caps_came(pad.upcast_ref(), kind, number, caps.caps())
                }
                // What was refused is over already.
                Some(gst::EventView::Eos(_)) if refused.load(Relaxed) => {
                    return gst::PadProbeReturn::Ok;
                }
                Some(gst::EventView::Eos(_)) => imp.eos_came(kind, number),
                Some(gst::EventView::Tag(tag)) if kind == TrackKind::Audio => {
                    imp.tags_came(number, tag.tag());
                    return gst::PadProbeReturn::Ok;
                }
                Some(_) => return gst::PadProbeReturn::Ok,
                None => {
                    let refused = refused.load(Relaxed);
                    let through = negotiated.as_ref().and_then(glib::WeakRef::upgrade);
                    if !refused && through.is_some_and(|pad| pad.has_current_caps()) {
                        if let (TrackKind::Video, Some(buffer)) = (kind, info.buffer()) {
                            begins.look(pad.upcast_ref(), buffer);
                            imp.observe(buffer, pad.upcast_ref());
                        }
                        return gst::PadProbeReturn::Ok;
                    }
                    // Or the caps did not get through, because everything is being stopped.
                    info.flow_res = if !refused {
                        Err(gst::FlowError::Flushing)
                    } else if imp.may_lack(kind) {
                        Ok(gst::FlowSuccess::Ok)
                    } else {
                        Err(gst::FlowError::NotNegotiated)
                    };
                    return gst::PadProbeReturn::Handled;
                }
            };
            refused.store(result.is_err(), Relaxed);
            if let Err(message) = result {
                let name = pad.name();
                if imp.may_lack(kind) {
                    gst::element_imp_warning!(
                        imp,
                        gst::StreamError::WrongType,
                        ("{name}: {message}")
                    );
                    return gst::PadProbeReturn::Handled;
                }
                gst::element_imp_error!(imp, gst::StreamError::WrongType, ("{name}: {message}"));
                info.flow_res = Err(gst::FlowError::NotNegotiated);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Gives what comes its time. Returns false where it is not to be shown.
    fn in_time(
        &self,
        way: &Mutex<Way>,
        pad: &gst::Pad,
        kind: TrackKind,
        info: &mut gst::PadProbeInfo<'_>,
    ) -> bool {
        let mut way = lock(way);
        match &mut info.data {
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    let media = media::parse(kind, caps.caps());
                    way.form = media.ok().map(|media| media.form);
                    way.live = is_live(pad);
                    way.begin(&lock(&self.state).timeline);
                }
                way.event(event);
                true
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                way.buffer(buffer, self.obj().current_running_time())
            }
            Some(gst::PadProbeData::BufferList(list)) => {
                way.list(list, self.obj().current_running_time());
                true
            }
            _ => true,
        }
    }

    /// Video that knows when it was captured tells it for all pads.
    fn observe(&self, buffer: &gst::BufferRef, pad: &gst::Pad) {
        if buffer.meta::<gst::ReferenceTimestampMeta>().is_some() {
            let wallclock = lock(&self.state).wallclock.clone();
            wallclock.observe(buffer, pad, Now::of(&*self.obj()));
        }
    }

    /// Whether the stream goes on without this: audio beside video.
    fn may_lack(&self, kind: TrackKind) -> bool {
        kind == TrackKind::Audio && lock(&self.state).has_video()
    }

    /// Keeps audio that fails from ending upstream, which often is the picture's source, too.
    fn without_audio(
        pad: &gst::GhostPad,
        result: Result<gst::FlowSuccess, gst::FlowError>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let failed = matches!(
            result,
            Err(gst::FlowError::NotNegotiated | gst::FlowError::Error | gst::FlowError::NotLinked)
        );
        let sink = pad.parent().and_downcast::<super::SfuSink>();
        match sink.filter(|sink| failed && sink.imp().may_lack(TrackKind::Audio)) {
            Some(sink) => {
                gst::debug!(CAT, obj = sink, "audio is discarded: {result:?}");
                Ok(gst::FlowSuccess::Ok)
            }
            None => result,
        }
    }

    /// A track tells its language.
    fn tags_came(&self, number: u32, tags: &gst::TagListRef) {
        let Some(code) = tags.get::<gst::tags::LanguageCode>() else {
            return;
        };
        let language: Language = match code.get().parse() {
            Ok(language) => language,
            Err(error) => {
                gst::warning!(CAT, imp = self, "audio_{number}: {error}");
                return;
            }
        };
        let is_declared = {
            let mut state = lock(&self.state);
            let input = state.inputs.get_mut(&key(TrackKind::Audio, number));
            input.is_some_and(|input| {
                let before = input.language.replace(language);
                input.media.is_some() && before != input.language
            })
        };
        if is_declared {
            let _ = self.declare(TrackKind::Audio);
        }
    }

    fn flush_comes(&self, kind: TrackKind, number: u32) {
        let state = lock(&self.state);
        if kind == TrackKind::Audio && state.has_video() {
            // One end is enough to begin running time anew, and for audio that fails the picture would wait for ever.
            return;
        }
        let input = state.inputs.get(&key(kind, number));
        if let Some(branch) = input.and_then(|input| input.branch.as_ref()) {
            branch.flush();
        }
    }

    fn eos_came(&self, kind: TrackKind, number: u32) -> Result<(), String> {
        let key = key(kind, number);
        let (entry, publisher) = {
            let mut state = self.when_settled(key);
            let publisher = state.publisher.clone();
            let input = state.inputs.get_mut(&key).ok_or("the pad was released")?;
            if input.branch.is_some() {
                return Ok(());
            }
            input.busy = true;
            (input.entry.clone(), publisher)
        };
        let built = branch::build_empty(self.obj().upcast_ref(), &entry);
        match (built, publisher) {
            (Ok(branch), Some(publisher)) => self.put_back(key, branch, &publisher, None),
            (built, _) => {
                self.let_go(key);
                built.map(|branch| branch.remove(self.obj().upcast_ref()))
            }
        }
    }

    /// Whether this is an element of the audio, and there is a picture.
    pub(super) fn is_beside_video(&self, source: &gst::Object) -> bool {
        let state = lock(&self.state);
        let in_audio = |input: &Input| input.branch.as_ref().is_some_and(|b| b.has(source));
        state.audios().any(in_audio) && state.has_video()
    }
}

/// Adds what else a pad takes to what the elements behind it answered.
fn add_others(
    query: &mut gst::query::Caps,
    takes: &gst::Caps,
    is_other: impl Fn(&gst::CapsRef) -> bool,
) {
    let others = takes.iter_with_features().filter(|(one, _)| {
        let caps: gst::Caps = std::iter::once((*one).to_owned()).collect();
        // RTP's codecs have one name.
        one.name() == "application/x-rtp" || is_other(&caps)
    });
    let owned = others.map(|(one, features)| (one.to_owned(), features.to_owned()));
    let mut others: gst::Caps = owned.collect();
    if let Some(filter) = query.filter_owned() {
        others = filter.intersect_with_mode(&others, gst::CapsIntersectMode::First);
    }
    let mut all = query.result_owned().unwrap_or_else(gst::Caps::new_empty);
    all.merge(others);
    query.set_result(&all);
}
