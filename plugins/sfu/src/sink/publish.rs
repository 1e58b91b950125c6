// SPDX-License-Identifier: MPL-2.0

//! What is published: each pad's elements, built when its caps come, and what the router is told of them.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_elements::is_live;
use sfu_elements::layers::Layers;
use sfu_engine::{
    AudioTrack, Codec, PublishOptions, Publisher, Router, StreamInfo, StreamName, TrackKind,
};

use super::audio;
use super::branch::{self, Branch, Plan, Work};
use super::clock::Wallclock;
use super::encoded;
use super::feedback::ForceKeyUnit;
use super::imp::{Input, SfuSink, State, key};
use super::media::{self, Form, Media};
use super::sender::Sender;
use super::timeline::Timeline;
use crate::notices::ViewerSignals;
use crate::properties::lock;

/// Who builds or changes a pad's elements is waited for so long. It was not tuned: that takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the ends of all layers share.
struct Parts {
    publisher: Arc<Publisher>,
    wallclock: Arc<Wallclock>,
    sent: Arc<Timeline>,
}

impl Parts {
    fn of(state: &State) -> Result<Self, String> {
        let publisher = state.publisher.clone();
        Ok(Self {
            publisher: publisher.ok_or("the element is not running")?,
            wallclock: state.wallclock.clone(),
            sent: state.sent.clone(),
        })
    }

    fn sender(&self, codec: Codec, layer: usize, foreign: bool) -> Sender {
        Sender::new(
            &self.publisher,
            self.wallclock.clone(),
            self.sent.clone(),
            codec,
            layer,
            foreign,
        )
    }
}

impl SfuSink {
    pub(super) fn caps_came(
        &self,
        pad: &gst::Pad,
        kind: TrackKind,
        number: u32,
        caps: &gst::CapsRef,
    ) -> Result<(), String> {
        let media = media::parse(kind, caps)?;
        let before = {
            let mut state = lock(&self.state);
            let input = state
                .inputs
                .get_mut(&key(kind, number))
                .ok_or("the pad was released")?;
            input.media.replace(media)
        };
        match before {
            Some(before) if before.form == media.form => {}
            before => {
                if before.is_some() {
                    self.make_room(kind, number)?;
                }
                let built = self.build(pad, kind, number, media);
                built.inspect_err(|_| self.let_go(key(kind, number)))?;
                self.take_any_raw(pad, kind, number);
            }
        }
        self.declare(kind)
    }

    /// Something else comes than came: what was built for that goes. Called by the pad's streaming thread.
    fn make_room(&self, kind: TrackKind, number: u32) -> Result<(), String> {
        let publisher = {
            let state = lock(&self.state);
            if kind == TrackKind::Video && state.videos().count() > 1 {
                let why = "the format of one of several video pads changed while running; restart the pipeline to change it";
                return Err(why.into());
            }
            Parts::of(&state)?.publisher
        };
        let key = key(kind, number);
        if let Some(branch) = self.take_branch(key) {
            branch.remove(self.obj().upcast_ref());
            self.let_go(key);
        }
        if kind == TrackKind::Video {
            // To viewers it is another publisher.
            let codec = lock(&self.settings).codec.engine();
            publisher.set_video(codec, Vec::new());
        }
        Ok(())
    }

    /// From now on raw sound may have any number of channels.
    fn take_any_raw(&self, pad: &gst::Pad, kind: TrackKind, number: u32) {
        let is_first = {
            let mut state = lock(&self.state);
            let input = state.inputs.get_mut(&key(kind, number));
            let raw = input.filter(|input| input.media.is_some_and(|m| m.form == Form::Raw));
            raw.is_some_and(|input| !std::mem::replace(&mut input.takes_any_raw, true))
        };
        if kind == TrackKind::Audio && is_first {
            audio::take_any_raw(pad);
        }
    }

    /// Builds a pad's elements. Where that fails `let_go` is the caller's.
    fn build(
        &self,
        pad: &gst::Pad,
        kind: TrackKind,
        number: u32,
        media: Media,
    ) -> Result<(), String> {
        let (parts, entry, hidden, begins, layer, videos) = {
            let mut state = self.when_settled(key(kind, number));
            state.number_layers();
            let videos = state.videos().count();
            let parts = Parts::of(&state)?;
            let input = state
                .inputs
                .get_mut(&key(kind, number))
                .ok_or("the pad was released")?;
            input.busy = true;
            let (entry, layer) = (input.entry.clone(), input.layer.unwrap_or_default());
            let hidden = input.hidden.clone();
            let begins = input.begins.clone();
            (parts, entry, hidden, begins, layer, videos)
        };
        // Who sets others from here on waits.
        let settings = lock(&self.settings).clone();
        let work = encoded::work(kind, media.form, &settings, videos)?;
        let obj = self.obj();
        let plan = Plan {
            bin: obj.upcast_ref(),
            pad: pad.name(),
            entry: &entry,
            settings: &settings,
            media,
            work,
            live: is_live(pad),
            hidden,
        };
        let foreign = matches!(media.form, Form::Rtp(_));
        let publisher = parts.publisher.clone();
        let branch = branch::build(&plan, |codec, index| {
            parts.sender(codec, layer + index, foreign)
        })?;
        begins.reset();
        match (media.form, branch.point()) {
            (Form::Encoded(_), Some(point)) => {
                point
                    .static_pad("src")
                    .iter()
                    .for_each(|pad| begins.watch(pad));
            }
            (Form::Encoded(_), None) => begins.watch(pad),
            _ => begins.keyframe(),
        }
        self.look(pad, number, media.form, &branch);
        self.put_back(key(kind, number), branch, &publisher, Some(work))
    }

    /// The state, once nobody builds or changes a pad's elements.
    pub(super) fn when_settled(&self, key: (bool, u32)) -> MutexGuard<'_, State> {
        let is_busy = |state: &mut State| state.inputs.get(&key).is_some_and(|i| i.busy);
        let waited = self
            .settled
            .wait_timeout_while(lock(&self.state), PATIENCE, is_busy);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Takes a pad's elements to change them: `put_back` or `let_go` follows.
    pub(super) fn take_branch(&self, key: (bool, u32)) -> Option<Branch> {
        let mut state = self.when_settled(key);
        let input = state.inputs.get_mut(&key)?;
        let branch = input.branch.take();
        input.busy |= branch.is_some();
        branch
    }

    /// Nothing was built or changed.
    pub(super) fn let_go(&self, key: (bool, u32)) {
        if let Some(input) = lock(&self.state).inputs.get_mut(&key) {
            input.busy = false;
        }
        self.settled.notify_all();
    }

    /// Gives a pad the elements that were built or changed for it, unless it was released or stopped meanwhile.
    pub(super) fn put_back(
        &self,
        key: (bool, u32),
        branch: Branch,
        publisher: &Arc<Publisher>,
        work: Option<Work>,
    ) -> Result<(), String> {
        let mut branch = Some(branch);
        {
            let mut state = lock(&self.state);
            let same = state.publisher.as_ref();
            let is_running = same.is_some_and(|same| Arc::ptr_eq(same, publisher));
            if let Some(input) = state.inputs.get_mut(&key) {
                input.busy = false;
                if is_running {
                    input.branch = branch.take();
                    input.work = work.unwrap_or(input.work);
                }
            }
        }
        self.settled.notify_all();
        let Some(branch) = branch else {
            return Ok(());
        };
        branch.remove(self.obj().upcast_ref());
        Err("the pad was released, or the element stopped".into())
    }

    /// Decides otherwise what becomes of a video pad that comes encoded. Called by its streaming thread.
    pub(super) fn decide(&self, number: u32, work: Work) -> Result<(), String> {
        let (parts, before, media, pad, entry, hidden) = {
            let state = lock(&self.state);
            let parts = Parts::of(&state)?;
            let input = state.inputs.get(&key(TrackKind::Video, number));
            let input = input.ok_or("the pad was released")?;
            let media = input.media.ok_or("it is being stopped")?;
            (
                parts,
                input.work,
                media,
                input.pad.clone(),
                input.entry.clone(),
                input.hidden.clone(),
            )
        };
        let branch = self.take_branch(key(TrackKind::Video, number));
        let mut branch = branch.ok_or("it is being stopped")?;
        // Who sets others from here on waits.
        let settings = lock(&self.settings).clone();
        let obj = self.obj();
        let plan = Plan {
            bin: obj.upcast_ref(),
            pad: pad.name(),
            entry: &entry,
            settings: &settings,
            media,
            work,
            live: is_live(pad.upcast_ref()),
            hidden,
        };
        if before != Work::Wait {
            // To viewers it is another publisher, also where the codec and the layers are the same.
            parts
                .publisher
                .set_video(settings.codec.engine(), Vec::new());
        }
        let decided = branch.decide(&plan, |codec, index| parts.sender(codec, index, false));
        let work = if decided.is_ok() { work } else { Work::Pass };
        self.put_back(
            key(TrackKind::Video, number),
            branch,
            &parts.publisher,
            Some(work),
        )?;
        decided.and_then(|()| self.declare(TrackKind::Video))
    }

    /// Tells the router what the stream consists of.
    pub(super) fn declare(&self, kind: TrackKind) -> Result<(), String> {
        if kind == TrackKind::Audio {
            return self.declare_audio();
        }
        let settings = lock(&self.settings).clone();
        let (publisher, medias) = {
            let state = lock(&self.state);
            // A pad that was released leaves its place to the next one.
            let count = state.videos().filter_map(|i| i.layer).max();
            let mut medias = vec![None; count.map_or(0, |last| last + 1)];
            for input in state.videos() {
                if let Some(place) = input.layer.and_then(|layer| medias.get_mut(layer)) {
                    *place = input.media.map(|media| (media, input.work));
                }
            }
            (
                state
                    .publisher
                    .clone()
                    .ok_or("the element is not running")?,
                medias,
            )
        };
        if let Some((codec, layers)) = media::video_track(&settings, &medias)? {
            publisher.set_video(codec, layers);
        }
        Ok(())
    }

    fn declare_audio(&self) -> Result<(), String> {
        let (publisher, tracks) = {
            let state = lock(&self.state);
            let publisher = state.publisher.clone();
            let came = state.audios().filter(|input| input.media.is_some());
            let tracks = came.filter_map(|input| {
                Some(AudioTrack {
                    number: input.layer?,
                    codec: Codec::Opus,
                    language: input.language.clone(),
                })
            });
            (
                publisher.ok_or("the element is not running")?,
                tracks.collect::<Vec<_>>(),
            )
        };
        tracks
            .into_iter()
            .for_each(|track| publisher.set_audio(track));
        Ok(())
    }

    /// An audio track is no more. Where none is left the stream stays as it was.
    pub(super) fn undeclare_audio(&self, track: Option<usize>) {
        let (publisher, is_one_of_several) = {
            let state = lock(&self.state);
            let others = state.audios().any(|input| input.media.is_some());
            (state.publisher.clone(), others)
        };
        if let (Some(publisher), Some(track), true) = (publisher, track, is_one_of_several) {
            publisher.unset_audio(track);
        }
    }

    pub(super) fn publish(&self) -> Result<(), String> {
        let settings = lock(&self.settings).clone();
        if let Some(reason) = settings.refused {
            return Err(reason);
        }
        let name: StreamName = settings
            .stream
            .parse()
            .map_err(|e| format!("stream: {e}"))?;
        let options = PublishOptions {
            keyframe_min_interval: settings.keyframe_min_interval(),
            feedback: Arc::new(ForceKeyUnit(self.obj().downgrade())),
        };
        let router = Router::get(&settings.router);
        let publisher = router.publish(name, options).map_err(|e| e.to_string())?;
        let signals = ViewerSignals::start(&*self.obj(), &settings.router, &settings.stream)
            .map_err(|e| format!("no thread could be started: {e}"))?;
        let mut state = lock(&self.state);
        state.signals = Some(signals);
        state.publisher = Some(Arc::new(publisher));
        state.removals = self.watch_removal();
        state.wallclock = Arc::default();
        state.timeline = Arc::default();
        state.sent = Arc::default();
        state.out_of_order = Arc::default();
        Ok(())
    }

    /// Whoever takes the element out of its bin may forget to stop it, and its messages on the bus keep it: it stops
    /// publishing then all the same.
    fn watch_removal(&self) -> Vec<(glib::WeakRef<gst::Bin>, glib::SignalHandlerId)> {
        let mut inner: gst::Object = self.obj().clone().upcast();
        let mut removals = Vec::new();
        while let Some(bin) = inner.parent().and_downcast::<gst::Bin>() {
            let (watched, weak) = (inner.downgrade(), self.obj().downgrade());
            let handler = bin.connect_element_removed(move |_, element| {
                let is_it = watched.upgrade().is_some_and(|it| it == *element);
                if let Some(obj) = weak.upgrade().filter(|_| is_it) {
                    obj.imp().unpublish();
                }
            });
            removals.push((bin.downgrade(), handler));
            inner = bin.upcast();
        }
        removals
    }

    pub(super) fn unpublish(&self) {
        let (publisher, branches, removals) = {
            let mut state = lock(&self.state);
            state.signals = None;
            let branches: Vec<_> = state
                .inputs
                .values_mut()
                .filter_map(|input| {
                    input.media = None;
                    input.work = Work::Wait;
                    input.layer = None;
                    input.branch.take()
                })
                .collect();
            let removals = std::mem::take(&mut state.removals);
            (state.publisher.take(), branches, removals)
        };
        for (bin, handler) in removals {
            if let Some(bin) = bin.upgrade() {
                bin.disconnect(handler);
            }
        }
        for branch in branches {
            branch.remove(self.obj().upcast_ref());
        }
        drop(publisher);
    }

    /// The last element of a layer's branch, from where events go upstream.
    pub(super) fn branch_sink(&self, layer: usize) -> Option<gst::Element> {
        let state = lock(&self.state);
        state.videos().find_map(|input| {
            let within = layer.checked_sub(input.layer?)?;
            input.branch.as_ref()?.sinks.get(within).cloned()
        })
    }

    /// Other layers of video that is encoded here: those that stay change, others come or go.
    pub(super) fn set_layers(&self, text: &str) {
        let layers: Layers = match text.parse() {
            Ok(layers) => layers,
            Err(reason) => {
                let told = format!("layers={text:?}: {reason}");
                if self.obj().current_state() <= gst::State::Ready {
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
        // Somebody else may set others meanwhile, and find nothing to be changed.
        let mut applied = None;
        while applied.as_ref() != Some(&lock(&self.settings).layers) {
            let Some(now) = self.apply_layers() else {
                return;
            };
            applied = Some(now);
        }
    }

    /// Changes the layers of what is encoded here, and returns which ones it has now.
    fn apply_layers(&self) -> Option<Layers> {
        let videos: Vec<_> = {
            let state = lock(&self.state);
            let videos = state.inputs.iter().filter(|((audio, _), _)| !audio);
            videos
                .map(|(key, input)| (*key, input.pad.clone()))
                .collect()
        };
        let (key, mut branch, pad) = videos.into_iter().find_map(|(key, pad)| {
            let is_encoded = |input: &Input| input.branch.as_ref().is_some_and(Branch::has_encoder);
            let encodes = self
                .when_settled(key)
                .inputs
                .get(&key)
                .is_some_and(is_encoded);
            let branch = encodes.then(|| self.take_branch(key)).flatten()?;
            Some((key, branch, pad))
        })?;
        // Without a lock: upstream is asked.
        let live = is_live(pad.upcast_ref());
        let parts = Parts::of(&lock(&self.state));
        let Ok(parts) = parts else {
            branch.remove(self.obj().upcast_ref());
            self.let_go(key);
            return None;
        };
        let settings = lock(&self.settings).clone();
        let changed = branch.set_layers(self.obj().upcast_ref(), &settings.layers, live, |index| {
            parts.sender(settings.codec.engine(), index, false)
        });
        self.put_back(key, branch, &parts.publisher, None).ok()?;
        if let Err(message) = changed.and_then(|()| self.declare(TrackKind::Video)) {
            gst::element_imp_warning!(self, gst::ResourceError::Settings, ("layers: {message}"));
        }
        Some(settings.layers)
    }

    pub(super) fn info(&self) -> Option<StreamInfo> {
        let publisher = lock(&self.state).publisher.clone()?;
        Some(publisher.stats())
    }
}
