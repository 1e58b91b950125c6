// SPDX-License-Identifier: MPL-2.0

//! Who publishes a stream, and what it declares: part of [`Stream`].

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::lag::Lag;
use super::{State, Stream};
use crate::audio::{self, AudioTrack};
use crate::claim::{Claim, Right};
use crate::codec::Codec;
use crate::ids::SessionId;
use crate::layer::Layer;
use crate::layers::LayerInfo;
use crate::spatial::Splitter;

/// A publisher that has sent nothing for this long makes room for one that comes (back).
const PUBLISHER_SILENT: Duration = Duration::from_secs(1);

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

    /// Whoever sends it is to be ended. Returns whether somebody can be: not where it is a pipeline of this process.
    fn kick(&self) -> bool {
        false
    }

    /// The session on which it comes, where there is one.
    fn session(&self) -> Option<SessionId> {
        None
    }
}

/// The right to publish a stream. What comes with an older one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(pub(super) u32);

pub(super) struct PublisherState {
    pub(super) lease: Lease,
    pub(super) since: Instant,
    pub(super) last_packet: Instant,
    /// Something has come from it.
    pub(super) has_media: bool,
    pub(super) options: PublishOptions,
}

impl Stream {
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
            state.audio.clear();
            state.layers.clear();
            state.splitter = None;
            state.is_split = false;
            self.keyframes_refused.store(0, Relaxed);
            self.set_sound_level(None);
            self.speech.clear();
            state.lag = Lag::default();
            self.publish(&mut state);
            state.tell_locals();
            (lease, before)
        };
        if let Some(before) = before {
            before.options.feedback.replaced();
        }
        Some(lease)
    }

    /// Ends whoever sends it, where that can be told. Returns whether it was.
    pub(crate) fn kick(&self) -> bool {
        self.feedback().is_some_and(|feedback| feedback.kick())
    }

    /// The session of a peer that publishes it.
    pub fn publisher(&self) -> Option<SessionId> {
        self.feedback()?.session()
    }

    fn feedback(&self) -> Option<Arc<dyn Feedback>> {
        let state = self.lock();
        let publisher = state.publisher.as_ref()?;
        Some(publisher.options.feedback.clone())
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
            is_split,
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
            tracing::debug!(
                epoch,
                ?codec,
                layers = layers.len(),
                "the video track is another one"
            );
        }
        let interval = publisher.options.keyframe_min_interval;
        *video = Some(codec);
        *splitter = Splitter::new(codec, layers.len());
        *is_split = false;
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

    /// The publisher goes on without pictures. What comes again are other ones.
    pub(crate) fn unset_video(&self, lease: Lease) {
        let mut state = self.lock();
        if !state.holds(lease) {
            return;
        }
        state.video = None;
        state.layers.clear();
        self.publish(&mut state);
        state.tell_locals();
    }

    /// Declares an audio track.
    pub fn set_audio(&self, lease: Lease, track: AudioTrack) {
        let mut state = self.lock();
        if state.holds(lease) {
            audio::declare(&mut state.audio, track);
            self.publish(&mut state);
            state.tell_locals();
        }
    }

    /// The publisher goes on without one of its audio tracks. One that comes again goes on in its numbers.
    pub fn unset_audio(&self, lease: Lease, number: usize) {
        let mut state = self.lock();
        if !state.holds(lease) {
            return;
        }
        if let Some(track) = state.audio.iter_mut().find(|t| t.number == number) {
            track.codec = None;
            self.publish(&mut state);
            state.tell_locals();
        }
    }
}

impl PublisherState {
    fn gives_way(&self, takeover: bool, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.last_packet) >= PUBLISHER_SILENT;
        self.options.feedback.is_replaceable() && (takeover || silent || !self.has_media)
    }
}
