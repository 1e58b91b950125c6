// SPDX-License-Identifier: MPL-2.0

//! The element's thread: takes packets from the router, and gives each pad what is its.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_engine::gop::Kept;
use sfu_engine::packet::{Batch, Packet};
use sfu_engine::{Codec, LocalSubscription, Received, TrackKind, Tracks, layers};

use super::branch::{Branch, PadStats, Plan};
use super::cadence::Cadence;
use super::feed::Feed;
use super::settings::{Choice, Codecs, OnLoss, Settings};
use super::streams::Collected;
use super::timing::{Mapping, TrackClock};
use super::{CAT, SfuSrc};
use crate::ending;
use crate::properties::lock;

/// Which layers there are to choose from is looked at once in this time.
const LOOK: Duration = Duration::from_millis(250);
/// A publisher that has declared nothing new for this long has declared all its tracks.
const SETTLED: Duration = Duration::from_millis(500);
/// Layers' sizes follow from their keyframes. One whose size is unknown after this is ranked without.
const SIZES: Duration = Duration::from_secs(2);
/// A keyframe that did not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// A group of pictures that is older is not replayed: a recording should not begin in fast motion.
const REPLAY: Duration = Duration::from_millis(500);

/// What may change while it plays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    pub(super) choice: Choice,
    pub(super) on_loss: OnLoss,
    pub(super) keyframe_interval: Duration,
}

/// What the element and its thread share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) wanted: Mutex<Wanted>,
    pub(super) playing: AtomicBool,
    pub(super) live: AtomicBool,
    /// The application sent EOS.
    pub(super) ended: AtomicBool,
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) begins: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) pads: Mutex<Vec<PadStats>>,
    pub(super) collected: Arc<Collected>,
}

/// What goes out by one pad.
#[derive(Debug)]
struct Output {
    feed: Feed,
    clock: TrackClock,
    branch: Branch,
    asked: Option<Instant>,
    cadence: Cadence,
}

impl Output {
    /// After packets of video went out, with or without a keyframe. Returns whether one must be asked for.
    fn keeps_keyframes(&mut self, keyframe: bool) -> bool {
        let now = Instant::now();
        if keyframe {
            self.cadence.keyframe(now);
            return false;
        }
        let due = self.cadence.other(now);
        if due {
            self.branch.keyframe_requests.fetch_add(1, Relaxed);
        }
        due
    }
}

/// See the module's description.
pub(super) struct Reader {
    pub(super) element: glib::WeakRef<SfuSrc>,
    pub(super) subscription: Arc<LocalSubscription>,
    pub(super) shared: Arc<Shared>,
    wanted: Wanted,
    codecs: Codecs,
    latency_ms: u32,
    group: gst::GroupId,
    mapping: Mapping,
    tracks: Tracks,
    /// When the tracks were last declared, and whether `no-more-pads` was said since then.
    declared: (Instant, bool),
    looked: Instant,
    /// The order of the layers, where there is a pad for each.
    order: Vec<usize>,
    was_playing: bool,
    over: bool,
    /// Since when the application wants the end, until those that get nothing have been told.
    ended: Option<Instant>,
    /// By kind and number.
    outputs: BTreeMap<(bool, u32), Output>,
    /// What the application was told that there is.
    streams: Vec<gst::Stream>,
}

impl Reader {
    pub(super) fn new(
        element: &SfuSrc,
        subscription: Arc<LocalSubscription>,
        shared: Arc<Shared>,
        codecs: Codecs,
        settings: &Settings,
    ) -> Self {
        let now = Instant::now();
        let wanted = lock(&shared.wanted).clone();
        Self {
            element: element.downgrade(),
            subscription,
            wanted,
            shared,
            codecs,
            latency_ms: settings.latency_ms,
            group: gst::GroupId::next(),
            mapping: Mapping::new(Duration::from_millis(settings.latency_ms.into())),
            tracks: Tracks::default(),
            declared: (now, false),
            looked: now,
            order: Vec::new(),
            was_playing: false,
            over: false,
            ended: None,
            outputs: BTreeMap::new(),
            streams: Vec::new(),
        }
    }

    /// Runs until the subscription is closed, and gives the pads back.
    pub(super) fn run(mut self) -> Vec<Branch> {
        if let Some(element) = self.element.upgrade() {
            self.look(&element);
        }
        loop {
            let received = self.subscription.recv(LOOK);
            let Some(element) = self.element.upgrade() else {
                break;
            };
            self.follow_state(&element);
            match received {
                Received::Media(batch) => self.media(&element, &batch),
                Received::Changed => self.look(&element),
                Received::Overrun => self.begin_anew(),
                Received::Nothing => {}
                Received::Closed => break,
            }
            if self.looked.elapsed() >= LOOK {
                self.look(&element);
            }
        }
        self.outputs.into_values().map(|o| o.branch).collect()
    }

    /// What is wanted may change. Running time stands still outside of PLAYING, and nothing goes out.
    fn follow_state(&mut self, element: &SfuSrc) {
        let wanted = lock(&self.shared.wanted).clone();
        if wanted != self.wanted {
            let interval = wanted.keyframe_interval;
            let outputs = self.outputs.values_mut();
            outputs.for_each(|output| output.cadence.set_interval(interval));
            self.wanted = wanted;
            self.look(element);
        }
        let playing = self.shared.playing.load(Relaxed);
        if playing != self.was_playing {
            self.was_playing = playing;
            self.mapping.reset();
            self.begin_anew();
            self.look(element);
        }
        let ended = self.shared.ended.load(Relaxed);
        if ended && !std::mem::replace(&mut self.over, true) {
            self.ended = Some(Instant::now());
        }
        let told = |at: &mut Instant| ending::idle_sinks_ended(element.upcast_ref(), at.elapsed());
        self.ended.take_if(told);
    }

    /// After something is missing: all pads wait for a keyframe.
    fn begin_anew(&mut self) {
        for output in self.outputs.values_mut() {
            output.feed.reset();
            output.asked = None;
        }
    }

    /// Looks at the stream, and sets out for what it now has.
    fn look(&mut self, element: &SfuSrc) {
        self.looked = Instant::now();
        let tracks = self.take(self.subscription.tracks());
        let before = std::mem::replace(&mut self.tracks, tracks);
        let declared = |t: &Tracks| (t.publisher, t.epoch, t.video, t.layers.len());
        if declared(&before) != declared(&self.tracks) || before.audio != self.tracks.audio {
            self.declared = (self.looked, false);
            self.changed(element, &before);
        }
        if self.over || !self.was_playing || self.tracks.publisher.is_none() {
            return;
        }
        if let Err(message) = self.aim(element) {
            self.fail(element, &message);
        }
    }

    /// What is taken of the stream: nothing while its video is not what is wanted. What has begun ends then: it can't go
    /// on with another codec.
    fn take(&mut self, tracks: Tracks) -> Tracks {
        let taken = self.codecs.take(tracks.video);
        self.subscription.set_idle(!taken);
        if taken {
            return tracks;
        }
        if let Some(codec) = tracks.video.filter(|_| !self.outputs.is_empty()) {
            self.end(&format!("the video is {} now", codec.name()));
        }
        Tracks {
            epoch: tracks.epoch,
            ..Tracks::default()
        }
    }

    /// Ends with EOS, once.
    fn end(&mut self, why: &str) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        gst::info!(CAT, "{}: {why}: that is the end", self.subscription.name());
        for output in self.outputs.values() {
            output.branch.end();
        }
    }

    /// Another publisher came, or none is there any more, or it sends something else.
    fn changed(&mut self, element: &SfuSrc, before: &Tracks) {
        let lost = before.publisher.is_some() && before.publisher != self.tracks.publisher;
        let live = self.tracks.publisher.is_some();
        if self.shared.live.swap(live, Relaxed) != live || lost {
            let name = self.subscription.name();
            gst::info!(
                CAT,
                obj = element,
                "{name} is {}",
                if live { "live" } else { "away" }
            );
            element.notify("live");
            let about = gst::Structure::builder("sfu-stream-changed")
                .field("stream", name.as_str())
                .field("live", live)
                .build();
            let _ =
                element.post_message(gst::message::Element::builder(about).src(element).build());
        }
        if before.epoch != self.tracks.epoch {
            self.mapping.reset();
            self.begin_anew();
            self.order.clear();
            for output in self.outputs.values_mut() {
                output.clock.reset();
            }
        }
        if lost && self.wanted.on_loss == OnLoss::Eos {
            self.end("the publisher is gone");
        }
    }

    /// Makes each pad wait for the layer that is its, and asks for keyframes.
    fn aim(&mut self, element: &SfuSrc) -> Result<(), String> {
        let settled = self.declared.0.elapsed() >= SETTLED;
        if let Some(codec) = self.tracks.video.filter(|_| !self.tracks.layers.is_empty()) {
            match self.wanted.choice.clone() {
                Choice::All => self.aim_at_all(element, codec)?,
                choice => match choice.pick(&self.tracks) {
                    Some(layer) => self.aim_at(element, codec, 0, layer)?,
                    None if settled => return Err(self.no_such_layer()),
                    None => {}
                },
            }
        }
        for track in self.tracks.audio.clone() {
            let number = u32::try_from(track.number).unwrap_or(u32::MAX);
            self.aim_at(element, track.codec, number, track.number)?;
            if let Some(output) = self.outputs.get_mut(&(true, number)) {
                output.branch.set_language(track.language.as_ref());
            }
        }
        self.collect(element);
        let videos = match self.wanted.choice {
            Choice::All => self.tracks.layers.len(),
            _ => usize::from(self.tracks.video.is_some()),
        };
        let all = videos + self.tracks.audio.len();
        if settled && !self.declared.1 && all > 0 && self.outputs.len() >= all {
            self.declared.1 = true;
            element.no_more_pads();
        }
        Ok(())
    }

    /// Tells of the streams that there are now.
    fn collect(&mut self, element: &SfuSrc) {
        let streams = self.outputs.values().map(|o| &o.branch.stream);
        if streams.clone().eq(&self.streams) {
            return;
        }
        self.streams = streams.cloned().collect();
        let name = self.subscription.name();
        let collection = gst::StreamCollection::builder(Some(name.as_str()));
        let collection = collection.streams(self.streams.iter().cloned()).build();
        self.shared.collected.set(collection.clone());
        let message = gst::message::StreamCollection::builder(&collection).src(element);
        let _ = element.post_message(message.build());
    }

    fn no_such_layer(&self) -> String {
        let rids: Vec<_> = self
            .tracks
            .layers
            .iter()
            .map(|l| l.info.rid.as_str())
            .collect();
        let (wrong, stream) = (&self.wanted.choice, self.subscription.name());
        let wrong = match wrong {
            Choice::Rid(rid) => rid.as_str(),
            _ => "",
        };
        format!(
            "stream {stream} has no layer {wrong:?}: set layer to highest, lowest, all, or one of {}",
            rids.join(", ")
        )
    }

    /// A pad for each layer, highest first. Their order is fixed when their sizes are known.
    fn aim_at_all(&mut self, element: &SfuSrc, codec: Codec) -> Result<(), String> {
        if self.order.is_empty() {
            let known = self.tracks.layers.iter().all(|l| l.info.height.is_some());
            if !known && self.declared.0.elapsed() < SIZES {
                return Ok(());
            }
            self.order = layers::ranked(&self.tracks.layers);
        }
        for (number, layer) in (0..).zip(self.order.clone()) {
            self.aim_at(element, codec, number, layer)?;
        }
        Ok(())
    }

    /// Makes a pad get this layer as soon as it can begin, and makes the pad where there is none.
    fn aim_at(
        &mut self,
        element: &SfuSrc,
        codec: Codec,
        number: u32,
        layer: usize,
    ) -> Result<(), String> {
        let key = (codec.kind() == TrackKind::Audio, number);
        let other = self.outputs.get(&key).map(|o| o.branch.codec());
        if other.is_some_and(|other| other != codec)
            && let Some(output) = self.outputs.remove(&key)
        {
            gst::info!(
                CAT,
                obj = element,
                "the codec is now {}: another pad",
                codec.name()
            );
            output.branch.retire(element);
        }
        if !self.outputs.contains_key(&key) {
            self.add(element, codec, key, layer)?;
        }
        let Some(output) = self.outputs.get_mut(&key) else {
            return Ok(());
        };
        let selected = self.shared.collected.is_selected(&output.branch.stream);
        if !selected || !output.branch.is_taken() {
            output.feed.reset();
            return Ok(());
        }
        let begins = output.feed.layer().is_none();
        let news = output.feed.aim(layer);
        if output.feed.target().is_none() || key.0 {
            return Ok(());
        }
        output.branch.set_layer(layer);
        if news && begins && self.replay(element, key, layer) {
            return Ok(());
        }
        let Some(output) = self.outputs.get_mut(&key) else {
            return Ok(());
        };
        if news || output.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
            output.asked = Some(Instant::now());
            output.branch.keyframe_requests.fetch_add(1, Relaxed);
            self.subscription.request_keyframe(layer);
        }
        Ok(())
    }

    fn add(
        &mut self,
        element: &SfuSrc,
        codec: Codec,
        key: (bool, u32),
        layer: usize,
    ) -> Result<(), String> {
        let several = !key.0 && matches!(self.wanted.choice, Choice::All);
        let layer = self.tracks.layers.get(layer).filter(|_| several);
        let branch = Branch::new(&Plan {
            element,
            subscription: &self.subscription,
            codec,
            number: key.1,
            latency_ms: self.latency_ms,
            group: self.group,
            layer: layer.map(|layer| layer.info.rid.to_string()),
            collected: &self.shared.collected,
        })?;
        let output = Output {
            feed: Feed::default(),
            clock: TrackClock::new(codec.clock_rate()),
            branch,
            asked: None,
            cadence: Cadence::new(self.wanted.keyframe_interval),
        };
        self.outputs.insert(key, output);
        self.tell_pads();
        let latency = gst::message::Latency::builder().src(element).build();
        let _ = element.post_message(latency);
        Ok(())
    }

    /// Begins with the present group of pictures, if that is still young. Returns whether it did.
    fn replay(&mut self, element: &SfuSrc, key: (bool, u32), layer: usize) -> bool {
        let Some(gop) = self.subscription.gop(layer) else {
            return false;
        };
        let epoch = self.tracks.epoch;
        let kept = gop.packets.iter().filter(|kept| kept.batch.epoch == epoch);
        let packets: Vec<&Packet> = kept.map(Kept::packet).collect();
        let (Some(first), Some(newest)) = (packets.first(), packets.last()) else {
            return false;
        };
        if !first.keyframe_start || first.captured.elapsed() > REPLAY {
            return false;
        }
        let Some(running_time) = running_time(element) else {
            return false;
        };
        self.mapping.begin(newest.captured, running_time);
        self.deliver(key, layer, packets.into_iter(), None);
        true
    }

    fn media(&mut self, element: &SfuSrc, batch: &Batch) {
        if self.over || !self.was_playing {
            return;
        }
        let is_audio = batch.kind == TrackKind::Audio;
        let is_known = |number| self.tracks.audio.iter().any(|track| track.number == number);
        if batch.epoch > self.tracks.epoch || (is_audio && !is_known(batch.layer)) {
            self.look(element);
        }
        let Some(running_time) = running_time(element) else {
            return;
        };
        if self.over || batch.epoch != self.tracks.epoch {
            return;
        }
        let now = (Instant::now(), running_time);
        let keys: Vec<_> = self.outputs.keys().copied().collect();
        for key in keys.into_iter().filter(|key| key.0 == is_audio) {
            self.deliver(key, batch.layer, batch.packets.iter(), Some(now));
        }
    }

    /// Gives a pad the packets that are for it. `live` is when they came, for those that just did.
    fn deliver<'a>(
        &mut self,
        key: (bool, u32),
        layer: usize,
        packets: impl Iterator<Item = &'a Packet>,
        live: Option<(Instant, i64)>,
    ) {
        let Some(output) = self.outputs.get_mut(&key) else {
            return;
        };
        let (mut begins, mut keyframe, mut passes) = (false, false, false);
        for packet in packets {
            let Some(passed) = output.feed.take(layer, packet) else {
                continue;
            };
            if !output.branch.is_taken() {
                self.shared.skipped.fetch_add(1, Relaxed);
                output.feed.reset();
                break;
            }
            begins |= passed.begins;
            keyframe |= packet.keyframe_start;
            passes = true;
            if let Some((now, running_time)) = live
                && output.clock.is_newer(packet.timestamp)
            {
                self.mapping.observe(packet.captured, now, running_time);
            }
            let captured = self.mapping.at(packet.captured);
            let time = output.clock.at(packet.timestamp, captured);
            output.branch.push(packet, passed, time);
            self.shared.packets.fetch_add(1, Relaxed);
            let bytes = packet.payload.len() as u64;
            self.shared.bytes.fetch_add(bytes, Relaxed);
        }
        if passes && !key.0 && output.keeps_keyframes(keyframe) {
            self.subscription.request_keyframe(layer);
        }
        if begins {
            gst::debug!(CAT, obj = output.branch.pad, "begins with layer {layer}");
            self.shared.begins.fetch_add(1, Relaxed);
            self.tell_pads();
        }
    }

    fn tell_pads(&self) {
        let layers = &self.tracks.layers;
        let rid = |o: &Output| {
            let layer = o.feed.layer().and_then(|index| layers.get(index));
            layer.map_or_else(String::new, |l| l.info.rid.to_string())
        };
        let pads = self.outputs.iter().map(|(key, output)| {
            let layer = if key.0 { String::new() } else { rid(output) };
            output.branch.stats(&layer)
        });
        *lock(&self.shared.pads) = pads.collect();
    }

    fn fail(&mut self, element: &SfuSrc, message: &str) {
        self.over = true;
        gst::element_error!(element, gst::ResourceError::Settings, ("{message}"));
    }
}

fn running_time(element: &SfuSrc) -> Option<i64> {
    let time = element.current_running_time()?;
    i64::try_from(time.nseconds()).ok()
}
