// SPDX-License-Identifier: MPL-2.0

//! A stream: what a publisher sends under a name, the layers it has, and who forwards it.
//!
//! The publisher's thread calls [`Stream::push`] for each frame; shards call in for joins and keyframe requests only. What
//! viewers look at several times a second is in the [`Snapshot`].
//! A stream outlives its publisher while it has viewers, so that a publisher that comes back finds them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::claim::{Claim, Right};
use crate::codec::{Codec, TrackKind};
use crate::gop::Gop;
use crate::health::Health;
use crate::ids::{Rid, StreamName};
use crate::info::{LayerStatus, StreamInfo, StreamLook, VideoInfo};
use crate::keyframe::{KeyframeArbiter, Need};
use crate::latency::Latencies;
use crate::layer::Layer;
use crate::layers::{self, Candidate, LayerInfo};
use crate::local::{LocalQueue, Tracks};
use crate::packet::{Batch, LayerReader, RtpIn};
use crate::queue::{ShardCommand, ShardQueue};
use crate::rate::RateMeter;
use crate::router::Home;
use crate::snapshot::Snapshot;
use crate::spatial::Splitter;
use crate::transport::negotiate::StreamCodecs;

/// A publisher that has sent nothing for this long makes room for one that comes (back).
const PUBLISHER_SILENT: Duration = Duration::from_secs(1);

/// What sound takes until it is measured, in bit/s.
const AUDIO_BITRATE: u64 = 64_000;

/// How a publisher wants to be treated.
#[derive(Clone)]
pub struct PublishOptions {
    /// The shortest time between two keyframe requests that the publisher gets for one layer.
    pub keyframe_min_interval: Duration,
    /// Where requests to the publisher go.
    pub feedback: Arc<dyn Feedback>,
}

impl std::fmt::Debug for PublishOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishOptions")
            .field("keyframe_min_interval", &self.keyframe_min_interval)
            .finish_non_exhaustive()
    }
}

/// What the engine asks of a publisher.
pub trait Feedback: Send + Sync {
    /// A keyframe is needed on this layer. Called on a shard's thread: must return at once.
    fn keyframe_request(&self, layer: usize);

    /// How the media comes: `element` or `whip`.
    fn input(&self) -> &'static str {
        "element"
    }

    /// Whether another publisher may step in: when it asks to take over, or when this one has fallen silent.
    fn is_replaceable(&self) -> bool {
        false
    }

    /// Another publisher has stepped in: what this one sends is ignored from now on.
    fn replaced(&self) {}
}

/// The right to publish a stream. What comes with an older one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(u32);

/// A stream by its name. See the module's description.
pub struct Stream {
    name: StreamName,
    /// Distinguishes streams inside shards.
    key: u64,
    /// Where it is found by its name.
    home: Option<Home>,
    viewers: AtomicUsize,
    /// Publishers that want it when their media comes.
    claims: AtomicUsize,
    packets_in: AtomicU64,
    packets_dropped: AtomicU64,
    bytes_in: AtomicU64,
    /// Keyframe requests that were put off by their price, since the publisher came.
    keyframes_refused: AtomicU64,
    latencies: Latencies,
    state: Mutex<State>,
    /// Replaced with the lock, read without.
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Default)]
struct State {
    publisher: Option<PublisherState>,
    /// Counts publishers and their changes of codec or layers, so that what comes of different ones is not mixed.
    epoch: u32,
    last_lease: u32,
    video: Option<Codec>,
    /// The publisher has, or had, pictures.
    had_video: bool,
    audio: Option<Codec>,
    layers: Vec<Layer>,
    /// Makes layers of those that share an SSRC.
    splitter: Option<Splitter>,
    /// Kept for its memory: packets that are to be split.
    run: Vec<RtpIn>,
    audio_reader: LayerReader,
    audio_rate: RateMeter,
    audio_health: Health,
    shards: Vec<ShardQueue>,
    locals: Vec<LocalQueue>,
    /// The snapshot before the present one, for its memory.
    spare: Arc<Snapshot>,
    /// How often the lock was taken.
    locked: u64,
}

struct PublisherState {
    lease: Lease,
    since: Instant,
    last_packet: Instant,
    /// Something has come from it.
    has_media: bool,
    options: PublishOptions,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A viewer counted in, wherever its session is on its way. Its end counts it out.
#[derive(Debug)]
pub struct Viewing(Arc<Stream>);

impl Viewing {
    /// Counts a viewer in.
    pub fn new(stream: Arc<Stream>) -> Self {
        stream.viewers.fetch_add(1, Relaxed);
        Self(stream)
    }
}

impl std::ops::Deref for Viewing {
    type Target = Arc<Stream>;

    fn deref(&self) -> &Arc<Stream> {
        &self.0
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        if self.0.viewers.fetch_sub(1, Relaxed) == 1 {
            self.0.left();
        }
    }
}

impl Stream {
    /// A stream without a publisher, which nobody finds by its name.
    pub fn new(name: StreamName, key: u64) -> Self {
        Self::with(None, name, key)
    }

    /// A stream without a publisher, which leaves its home when nobody uses it any more.
    pub(crate) fn at(home: Home, name: StreamName, key: u64) -> Self {
        Self::with(Some(home), name, key)
    }

    fn with(home: Option<Home>, name: StreamName, key: u64) -> Self {
        Self {
            name,
            key,
            home,
            viewers: AtomicUsize::new(0),
            claims: AtomicUsize::new(0),
            packets_in: AtomicU64::new(0),
            packets_dropped: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            keyframes_refused: AtomicU64::new(0),
            latencies: Latencies::default(),
            state: Mutex::default(),
            snapshot: ArcSwap::default(),
        }
    }

    /// The stream's name.
    pub fn name(&self) -> &StreamName {
        &self.name
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// A poisoned lock only means that a thread died between two plain assignments: the state stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.locked += 1;
        state
    }

    /// How often its lock was taken, for tests of who must not.
    #[doc(hidden)]
    pub fn locked(&self) -> u64 {
        self.lock().locked
    }

    /// What viewers read. No lock: it is what the publisher's side has last put there.
    pub(crate) fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Makes what has changed known.
    fn publish(&self, state: &mut State) {
        let mut next = std::mem::take(&mut state.spare);
        if Arc::get_mut(&mut next).is_none() {
            // Somebody still reads it.
            next = Arc::default();
        }
        if let Some(next) = Arc::get_mut(&mut next) {
            state.picture(next);
        }
        state.spare = self.snapshot.swap(next);
        for layer in &mut state.layers {
            layer.seen();
        }
    }

    /// Gives the caller what it may have of the stream before its media comes. `None`: somebody has it who stays.
    pub fn claim(
        self: &Arc<Self>,
        options: PublishOptions,
        takeover: bool,
        now: Instant,
    ) -> Option<Claim> {
        let gives_way = {
            let state = self.lock();
            state.publisher.as_ref().map(|p| p.gives_way(takeover, now))
        };
        let right = match gives_way {
            None => Right::Held(self.start(options, takeover, now)?),
            Some(true) => {
                self.claims.fetch_add(1, Relaxed);
                Right::Wanted { options, takeover }
            }
            Some(false) => return None,
        };
        Some(Claim {
            stream: self.clone(),
            right,
        })
    }

    /// Makes the caller the stream's publisher, unless there is one that stays.
    pub fn start(&self, options: PublishOptions, takeover: bool, now: Instant) -> Option<Lease> {
        let (lease, before) = {
            let mut state = self.lock();
            if state
                .publisher
                .as_ref()
                .is_some_and(|p| !p.gives_way(takeover, now))
            {
                return None;
            }
            state.last_lease += 1;
            let lease = Lease(state.last_lease);
            let before = state.publisher.replace(PublisherState {
                lease,
                since: now,
                last_packet: now,
                has_media: false,
                options,
            });
            state.epoch += 1;
            state.video = None;
            state.had_video = false;
            state.audio = None;
            state.layers.clear();
            state.splitter = None;
            self.keyframes_refused.store(0, Relaxed);
            state.audio_reader = LayerReader::default();
            state.audio_rate = RateMeter::default();
            state.audio_health = Health::default();
            self.publish(&mut state);
            state.tell_locals();
            (lease, before)
        };
        if let Some(before) = before {
            before.options.feedback.replaced();
        }
        Some(lease)
    }

    /// The publisher is gone: viewers keep their sessions and wait for the next one.
    pub fn stop(&self, lease: Lease) {
        let mut state = self.lock();
        if state.holds(lease) {
            state.publisher = None;
            for layer in &mut state.layers {
                layer.gop.clear();
            }
            self.publish(&mut state);
            state.tell_locals();
        }
        drop(state);
        self.left();
    }

    /// A publisher that wanted it has it, or is gone.
    pub(crate) fn unclaim(&self) {
        self.claims.fetch_sub(1, Relaxed);
        self.left();
    }

    /// Somebody who used it has gone.
    fn left(&self) {
        if let Some(home) = &self.home {
            home.left(self);
        }
    }

    /// Whether it must be kept.
    pub(crate) fn is_used(&self) -> bool {
        let snapshot = self.snapshot();
        snapshot.live || self.viewers() > 0 || snapshot.locals > 0 || self.claims.load(Relaxed) > 0
    }

    /// Whether it is there for others: not if all that there is are consumers that wait for its first publisher.
    pub(crate) fn is_known(&self) -> bool {
        self.snapshot().epoch > 0 && self.is_used()
    }

    /// Declares the video track. Layers that stay keep what is known of them.
    pub fn set_video(&self, lease: Lease, codec: Codec, layers: Vec<LayerInfo>) {
        let mut state = self.lock();
        if !state.holds(lease) {
            return;
        }
        let State {
            publisher: Some(publisher),
            video,
            had_video,
            layers: known,
            splitter,
            epoch,
            ..
        } = &mut *state
        else {
            return;
        };
        // Those that were found in its packets are not declared.
        let declared = splitter.as_ref().map_or(known.len(), |_| 1);
        let same_rids = known
            .iter()
            .take(declared)
            .map(|l| &l.info.rid)
            .eq(layers.iter().map(|l| &l.rid));
        if *video == Some(codec) && same_rids {
            for (layer, info) in known.iter_mut().zip(layers) {
                layer.info = info;
            }
            self.publish(&mut state);
            return;
        }
        if std::mem::replace(had_video, true) {
            // Another codec, other layers or another track: to viewers it is another publisher.
            *epoch += 1;
        }
        let interval = publisher.options.keyframe_min_interval;
        *video = Some(codec);
        *splitter = Splitter::new(codec, layers.len());
        *known = layers
            .into_iter()
            .map(|info| Layer::new(info, interval))
            .collect();
        self.publish(&mut state);
        state.tell_locals();
    }

    /// The video track goes on with another codec, and the same layers.
    pub(crate) fn set_codec(&self, lease: Lease, codec: Codec) {
        let renewed = |layer: &Layer| LayerInfo {
            width: None,
            height: None,
            ..layer.info.clone()
        };
        let infos = {
            let state = self.lock();
            let declared = state.splitter.as_ref().map_or(usize::MAX, |_| 1);
            state.layers.iter().take(declared).map(renewed).collect()
        };
        self.set_video(lease, codec, infos);
    }

    /// The publisher goes on without one of its tracks. Pictures that come again are other ones; a sound goes on in its numbers.
    pub(crate) fn unset(&self, lease: Lease, kind: TrackKind) {
        let mut state = self.lock();
        if !state.holds(lease) {
            return;
        }
        match kind {
            TrackKind::Audio => state.audio = None,
            TrackKind::Video => {
                state.video = None;
                state.layers.clear();
            }
        }
        self.publish(&mut state);
        state.tell_locals();
    }

    /// Declares the audio track.
    pub fn set_audio(&self, lease: Lease, codec: Codec) {
        let mut state = self.lock();
        if state.holds(lease) {
            state.audio = Some(codec);
            self.publish(&mut state);
            state.tell_locals();
        }
    }

    /// Reads a publisher's packets and hands them to every shard that has viewers of this stream.
    ///
    /// Once per frame: one lock, one batch, one reference a shard.
    pub fn push(
        &self,
        now: Instant,
        lease: Lease,
        kind: TrackKind,
        layer: usize,
        packets: impl IntoIterator<Item = RtpIn>,
    ) {
        let mut state = self.lock();
        if !state.holds(lease) {
            return;
        }
        let splits = kind == TrackKind::Video && layer == 0 && state.splitter.is_some();
        let asks = match splits {
            true => self.split(now, &mut state, packets),
            false => self.hand_over(now, &mut state, kind, layer, packets, None),
        };
        drop(state);
        for layer in asks.layers(|asks| asks.lost) {
            self.request_keyframe(now, layer, Need::Source);
        }
        for layer in asks.layers(|asks| asks.held) {
            // What the publisher's own loss asked for has nobody else who looks when it is due.
            self.with_arbiter(layer, |arbiter| arbiter.poll(now));
        }
    }

    /// The same of video that may have several layers in one SSRC.
    fn split(
        &self,
        now: Instant,
        state: &mut State,
        packets: impl IntoIterator<Item = RtpIn>,
    ) -> Asks {
        let mut run = std::mem::take(&mut state.run);
        run.extend(packets);
        let mut asks = Asks::default();
        if let Some(mut splitter) = state.splitter.take() {
            if splitter.grows(&run) {
                self.regroup(state, &splitter);
            }
            match splitter.count() {
                0 | 1 => {
                    let packets = run.drain(..);
                    asks = self.hand_over(now, state, TrackKind::Video, 0, packets, None);
                }
                _ => splitter.split(&mut run, |layer, size, packets| {
                    let packets = packets.drain(..);
                    asks.add(self.hand_over(now, state, TrackKind::Video, layer, packets, size));
                }),
            }
            state.splitter = Some(splitter);
        }
        state.run = run;
        asks
    }

    /// Its publisher's packets are of more layers than were known: to viewers it is another publisher.
    fn regroup(&self, state: &mut State, splitter: &Splitter) {
        let (Some(publisher), Some(first)) = (&state.publisher, state.layers.first()) else {
            return;
        };
        let interval = publisher.options.keyframe_min_interval;
        let infos = splitter.infos(&first.info).into_iter();
        state.layers = infos.map(|info| Layer::new(info, interval)).collect();
        state.epoch += 1;
        self.publish(state);
        state.tell_locals();
    }

    /// One layer's packets go to every shard that has viewers of the stream.
    fn hand_over(
        &self,
        now: Instant,
        state: &mut State,
        kind: TrackKind,
        layer: usize,
        packets: impl IntoIterator<Item = RtpIn>,
        size: Option<(u32, u32)>,
    ) -> Asks {
        let (read, dropped) = state.read(now, kind, layer, packets, size);
        self.packets_dropped.fetch_add(dropped, Relaxed);
        let Some((batch, is_news)) = read else {
            return Asks::default();
        };
        if is_news {
            self.publish(state);
        }
        let wanted = self.viewers() > 0 || !state.locals.is_empty();
        let lost = wanted && kind == TrackKind::Video && state.lost(now, layer);
        let deadline = |l: &Layer| l.arbiter.deadline().is_some_and(|at| at <= now);
        let held = kind == TrackKind::Video && state.layers.get(layer).is_some_and(deadline);
        self.packets_in
            .fetch_add(batch.packets.len() as u64, Relaxed);
        self.bytes_in.fetch_add(batch.bytes() as u64, Relaxed);
        for local in &state.locals {
            local.push(&batch);
        }
        state.shards.retain(|shard| {
            shard.send_media(ShardCommand::Media {
                stream: self.key,
                batch: batch.clone(),
            })
        });
        Asks::of(layer, lost, held)
    }

    /// A keyframe of a layer is needed: the arbiter decides whether the publisher hears of it.
    pub(crate) fn request_keyframe(&self, now: Instant, layer: usize, need: Need) {
        self.with_arbiter(layer, |arbiter| arbiter.request(now, need));
    }

    /// A viewer asks for keyframes too often: its request was put off.
    pub(crate) fn refuse_keyframe(&self) {
        self.keyframes_refused.fetch_add(1, Relaxed);
    }

    /// Sends the requests that were held back and are due, and returns when the next one is.
    pub(crate) fn poll_keyframes(&self, now: Instant) -> Option<Instant> {
        let count = self.lock().layers.len();
        for layer in 0..count {
            self.with_arbiter(layer, |arbiter| arbiter.poll(now));
        }
        let state = self.lock();
        state
            .layers
            .iter()
            .filter_map(|l| l.arbiter.deadline())
            .min()
    }

    /// Asks a layer's arbiter and tells the publisher, after the lock is released.
    fn with_arbiter(&self, layer: usize, ask: impl FnOnce(&mut KeyframeArbiter) -> bool) {
        let feedback = {
            let mut state = self.lock();
            let State {
                publisher,
                layers,
                splitter,
                ..
            } = &mut *state;
            let (Some(publisher), Some(at)) = (publisher, layers.get_mut(layer)) else {
                return;
            };
            // All that are in one SSRC have their keyframes together.
            let asked = if splitter.is_some() { 0 } else { layer };
            ask(&mut at.arbiter).then(|| (publisher.options.feedback.clone(), asked))
        };
        if let Some((feedback, layer)) = feedback {
            feedback.keyframe_request(layer);
        }
    }

    /// What a joining viewer of a layer can be shown at once.
    pub(crate) fn gop(&self, now: Instant, layer: usize) -> Option<Gop> {
        self.lock().layers.get(layer)?.gop(now)
    }

    /// The layers' names.
    pub fn rids(&self) -> Vec<Rid> {
        self.snapshot().rids()
    }

    /// The codecs of the tracks that the publisher has declared.
    pub fn codecs(&self) -> StreamCodecs {
        self.snapshot().codecs
    }

    /// What a viewer's page is told.
    pub(crate) fn look(&self, now: Instant) -> StreamLook {
        let snapshot = self.snapshot();
        let layers = snapshot.ranked(now);
        StreamLook {
            live: snapshot.live,
            viewers: self.viewers(),
            layers: layers.into_iter().map(LayerStatus::from).collect(),
        }
    }

    /// From now on this shard gets every packet.
    pub(crate) fn attach(&self, queue: ShardQueue) {
        let mut state = self.lock();
        if !state.shards.iter().any(|q| q.same_as(&queue)) {
            state.shards.push(queue);
        }
    }

    pub(crate) fn detach(&self, queue: &ShardQueue) {
        self.lock().shards.retain(|q| !q.same_as(queue));
    }

    /// From now on this consumer gets every packet.
    pub(crate) fn attach_local(&self, queue: LocalQueue) {
        let mut state = self.lock();
        state.locals.push(queue);
        self.publish(&mut state);
    }

    pub(crate) fn detach_local(&self, queue: &LocalQueue) {
        let mut state = self.lock();
        state.locals.retain(|q| !q.same_as(queue));
        self.publish(&mut state);
        drop(state);
        self.left();
    }

    /// What a consumer must know of the stream.
    pub(crate) fn tracks(&self, now: Instant) -> Tracks {
        let state = self.lock();
        Tracks {
            publisher: state.publisher.as_ref().map(|p| p.lease.0),
            epoch: state.epoch,
            video: state.video,
            layers: state.candidates(now),
            audio: state.audio,
        }
    }

    /// Viewers' sessions on all shards.
    pub fn viewers(&self) -> usize {
        self.viewers.load(Relaxed)
    }

    /// What viewers' pages have measured.
    pub(crate) fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// What there is to say of the stream.
    pub fn info(&self, now: Instant) -> StreamInfo {
        let state = self.lock();
        let refused = self.keyframes_refused.load(Relaxed);
        let (mut received, mut merged, mut sent) = (refused, 0, 0);
        for layer in &state.layers {
            let counts = layer.arbiter.counts();
            received += counts.received;
            merged += counts.merged;
            sent += counts.sent;
        }
        StreamInfo {
            name: self.name.clone(),
            live: state.publisher.is_some(),
            input: state.publisher.as_ref().map(|p| p.options.feedback.input()),
            viewers: self.viewers(),
            outputs: state.locals.iter().filter(|local| !local.is_idle()).count(),
            uptime: state
                .publisher
                .as_ref()
                .map_or(Duration::ZERO, |p| now.saturating_duration_since(p.since)),
            video: state.video.map(|codec| {
                let order = layers::ranked(&state.candidates(now));
                let layers = || order.iter().map(|index| &state.layers[*index]);
                VideoInfo {
                    codec,
                    layers: layers().map(|l| l.candidate(now).into()).collect(),
                    health: layers().map(|l| l.health.view(now)).collect(),
                }
            }),
            audio: state.audio,
            audio_health: state.audio_health.view(now),
            keyframe_requests_received: received,
            keyframe_requests_refused: refused,
            keyframe_requests_merged: merged,
            keyframe_requests_sent: sent,
            packets_in: self.packets_in.load(Relaxed),
            packets_dropped: self.packets_dropped.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            latency: self.latencies.info(now),
        }
    }
}

/// Which layers need a keyframe after a push: each bit is a layer's.
#[derive(Debug, Clone, Copy, Default)]
struct Asks {
    lost: u32,
    held: u32,
}

impl Asks {
    fn of(layer: usize, lost: bool, held: bool) -> Self {
        let bit = |is: bool| u32::from(is).checked_shl(layer as u32).unwrap_or(0);
        Self {
            lost: bit(lost),
            held: bit(held),
        }
    }

    fn add(&mut self, other: Self) {
        self.lost |= other.lost;
        self.held |= other.held;
    }

    fn layers(self, bits: impl Fn(Self) -> u32) -> impl Iterator<Item = usize> {
        let bits = bits(self);
        (0..u32::BITS as usize).filter(move |layer| bits >> layer & 1 == 1)
    }
}

impl State {
    fn holds(&self, lease: Lease) -> bool {
        self.publisher.as_ref().is_some_and(|p| p.lease == lease)
    }

    fn tell_locals(&self) {
        for local in &self.locals {
            local.changed();
        }
    }

    /// Whether packets of a layer are lost for good.
    fn lost(&mut self, now: Instant, layer: usize) -> bool {
        let layer = self.layers.get_mut(layer);
        layer.is_some_and(|l| l.take_lost(now))
    }

    fn candidates(&self, now: Instant) -> Vec<Candidate> {
        self.layers.iter().map(|l| l.candidate(now)).collect()
    }

    /// Fills in what viewers read.
    fn picture(&self, snapshot: &mut Snapshot) {
        snapshot.epoch = self.epoch;
        snapshot.live = self.publisher.is_some();
        snapshot.locals = self.locals.len();
        snapshot.codecs = StreamCodecs {
            video: self.video,
            audio: self.audio,
        };
        snapshot.audio_bitrate = match self.audio {
            Some(_) => self.audio_rate.peak().unwrap_or(AUDIO_BITRATE),
            None => 0,
        };
        snapshot.layers.clear();
        snapshot.layers.extend(self.layers.iter().map(Layer::view));
    }

    /// A batch of what came and whether it tells viewers something new, and how much of it was left out.
    fn read(
        &mut self,
        now: Instant,
        kind: TrackKind,
        index: usize,
        packets: impl IntoIterator<Item = RtpIn>,
        size: Option<(u32, u32)>,
    ) -> (Option<(Arc<Batch>, bool)>, u64) {
        if let Some(publisher) = &mut self.publisher {
            publisher.last_packet = now;
            publisher.has_media = true;
        }
        let layer = self.layers.get_mut(index);
        let (codec, reader) = match (kind, layer) {
            (TrackKind::Audio, _) => (self.audio, &mut self.audio_reader),
            (TrackKind::Video, Some(layer)) => (self.video, &mut layer.reader),
            (TrackKind::Video, None) => return (None, 0),
        };
        let Some(codec) = codec else {
            return (None, 0);
        };
        let (packets, dropped) = reader.read(codec, packets);
        if packets.is_empty() {
            return (None, dropped);
        }
        let batch = Arc::new(Batch {
            kind,
            layer: index,
            epoch: self.epoch,
            packets,
        });
        let is_news = match (kind, self.layers.get_mut(index)) {
            (TrackKind::Video, Some(layer)) => {
                layer.health.add(now, codec, &batch);
                layer.reader.size = size.or(layer.reader.size);
                layer.note(now, &batch)
            }
            _ => {
                self.audio_health.add(now, codec, &batch);
                self.audio_rate.add(now, &batch)
            }
        };
        (Some((batch, is_news)), dropped)
    }
}

impl PublisherState {
    fn gives_way(&self, takeover: bool, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.last_packet) >= PUBLISHER_SILENT;
        self.options.feedback.is_replaceable() && (takeover || silent || !self.has_media)
    }
}
