// SPDX-License-Identifier: MPL-2.0

//! A stream: what a publisher sends under a name, the layers it has, and who forwards it.
//!
//! The publisher's thread calls [`Stream::push`] for each frame; shards call in for joins and keyframe requests only. What
//! viewers look at several times a second is in the [`Snapshot`].
//! A stream outlives its publisher while it has viewers, so that a publisher that comes back finds them.

mod lag;
mod media;
mod publishing;

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};

use crate::audio::{self, AudioTrack};
use crate::codec::Codec;
use crate::gop::Gop;
use crate::ids::{Rid, StreamName};
use crate::info::{AudioStatus, LayerStatus, StreamInfo, StreamLook, VideoInfo};
use crate::latency::Latencies;
use crate::layer::Layer;
use crate::layers::{self, Candidate};
use crate::local::{LocalQueue, Tracks};
use crate::packet::RtpIn;
use crate::queue::ShardQueue;
use crate::router::Home;
use crate::snapshot::Snapshot;
use crate::spatial::Splitter;
use crate::speech::{LastSpeech, Speech};
use crate::transport::negotiate::StreamCodecs;
use lag::Lag;
use publishing::PublisherState;
pub use publishing::{Feedback, Lease, PublishOptions};

/// Levels have seven bits.
const NO_LEVEL: u8 = u8::MAX;

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
    /// Of the publisher's sound, in dB below the loudest; [`NO_LEVEL`] where it tells none.
    sound_level: AtomicU8,
    speech: LastSpeech,
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
    /// By their numbers.
    audio: Vec<audio::Track>,
    layers: Vec<Layer>,
    /// Makes layers of those that share an SSRC.
    splitter: Option<Splitter>,
    /// It has found several. Known while the splitter is at work, too.
    is_split: bool,
    /// Kept for its memory: packets that are to be split.
    run: Vec<RtpIn>,
    lag: Lag,
    shards: Vec<ShardQueue>,
    locals: Vec<LocalQueue>,
    /// The snapshot before the present one, for its memory.
    spare: Arc<Snapshot>,
    /// How often the lock was taken.
    locked: u64,
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
            sound_level: AtomicU8::new(NO_LEVEL),
            speech: LastSpeech::new(Instant::now()),
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

    /// What a joining viewer of a layer can be shown at once.
    pub(crate) fn gop(&self, now: Instant, layer: usize) -> Option<Gop> {
        self.lock().layers.get(layer)?.gop(now)
    }

    /// When a layer's last keyframe came, if that is not long ago.
    pub(crate) fn keyframe_at(&self, layer: usize) -> Option<Instant> {
        self.lock().layers.get(layer)?.keyframe_at()
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
            audio: snapshot.audio.iter().map(|v| v.track.clone()).collect(),
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
            audio: state.audio_tracks().collect(),
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

    /// How loud the publisher's sound is, in dB below the loudest (RFC 6464), where it tells that.
    pub(crate) fn set_sound_level(&self, level: Option<u8>) {
        self.sound_level.store(level.unwrap_or(NO_LEVEL), Relaxed);
    }

    fn sound_level(&self) -> Option<u8> {
        let level = self.sound_level.load(Relaxed);
        (level != NO_LEVEL).then_some(level)
    }

    /// Whether its publisher's sound is speech, and how loud. Reads one number: for whoever asks each 400 ms.
    pub fn speech(&self, now: Instant) -> Speech {
        self.speech.get(now)
    }

    /// How many layers of its pictures come.
    pub fn active_layers(&self, now: Instant) -> usize {
        let layers = self.snapshot().ranked(now);
        layers.iter().filter(|layer| layer.active).count()
    }

    /// Whether its publisher's sound was loud a moment ago, if only for one packet. Reads one number.
    pub fn is_loud(&self, now: Instant) -> bool {
        self.speech.is_loud(now)
    }

    pub(crate) fn heard(&self, now: Instant, level: Option<u8>) {
        self.speech.packet(now, level);
    }

    pub(crate) fn set_speech(&self, now: Instant, level: f32) {
        self.speech.set(now, level);
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
                let all = state.candidates(now);
                let order = layers::ranked(&all);
                let health = |index: &usize| state.layers[*index].health.view(now);
                VideoInfo {
                    codec,
                    layers: order
                        .iter()
                        .map(|index| all[*index].clone().into())
                        .collect(),
                    health: order.iter().map(health).collect(),
                }
            }),
            audio: state.audio_status(now, self.sound_level()),
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

impl State {
    fn holds(&self, lease: Lease) -> bool {
        self.publisher.as_ref().is_some_and(|p| p.lease == lease)
    }

    fn tell_locals(&self) {
        for local in &self.locals {
            local.changed();
        }
    }

    fn candidates(&self, now: Instant) -> Vec<Candidate> {
        // Not as viewers see them: a recording or a segment that begins anew is worse than a picture that stands for a second.
        let all = self.layers.iter().map(|layer| layer.view().at(now, None));
        all.collect()
    }

    /// The audio tracks that are declared.
    fn audio_tracks(&self) -> impl Iterator<Item = AudioTrack> {
        self.audio.iter().filter_map(audio::Track::declared)
    }

    /// What there is to say of the sound. `level` is the first track's.
    fn audio_status(&self, now: Instant, level: Option<u8>) -> Vec<AudioStatus> {
        let levels = std::iter::once(level).chain(std::iter::repeat(None));
        let declared = self.audio.iter().filter_map(|t| Some((t.declared()?, t)));
        let status = |((track, kept), level): ((AudioTrack, &audio::Track), _)| AudioStatus {
            track,
            health: kept.health.view(now).with_level(level),
        };
        declared.zip(levels).map(status).collect()
    }

    /// Fills in what viewers read.
    fn picture(&self, snapshot: &mut Snapshot) {
        snapshot.epoch = self.epoch;
        snapshot.live = self.publisher.is_some();
        snapshot.locals = self.locals.len();
        snapshot.codecs = StreamCodecs {
            video: self.video,
            audio: self.audio_tracks().next().map(|track| track.codec),
        };
        let audio = self.audio.iter().filter_map(audio::Track::view);
        snapshot.audio.clear();
        snapshot.audio.extend(audio);
        snapshot.sound_lags = self.lag.lags();
        snapshot.is_split = self.is_split;
        snapshot.layers.clear();
        snapshot.layers.extend(self.layers.iter().map(Layer::view));
    }
}
