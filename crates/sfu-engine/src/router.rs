// SPDX-License-Identifier: MPL-2.0

//! The process-wide meeting point of publishers and viewers, by name.
//!
//! Elements in different pipelines of one process meet here, so that streams come and go while every pipeline stays a
//! fixed line of text.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;

use crate::codec::{Codec, TrackKind};
use crate::ids::StreamName;
use crate::info::StreamInfo;
use crate::layers::LayerInfo;
use crate::local::{LocalQueue, LocalSubscription};
use crate::packet::RtpIn;
use crate::stream::{Lease, PublishOptions, Stream};

static ROUTERS: LazyLock<Mutex<HashMap<String, Arc<Router>>>> = LazyLock::new(Mutex::default);

/// Why a stream could not be published.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// There is one publisher a stream.
    #[error(
        "stream {0:?} already has a publisher: choose another name, or stop that publisher first"
    )]
    InUse(StreamName),
}

impl Streams {
    /// The stream with this name, made where there is none.
    fn named(&mut self, name: &StreamName) -> Arc<Stream> {
        let next_key = &mut self.next_key;
        let stream = self.by_name.entry(name.clone()).or_insert_with(|| {
            *next_key += 1;
            Arc::new(Stream::new(name.clone(), *next_key))
        });
        stream.clone()
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Router {
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    by_name: BTreeMap<StreamName, Arc<Stream>>,
    next_key: u64,
}

impl Router {
    /// The process's router with this name, made on first use.
    pub fn get(name: &str) -> Arc<Router> {
        let mut routers = ROUTERS.lock().unwrap_or_else(PoisonError::into_inner);
        routers.entry(name.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the caller the publisher of a stream, until the returned [`Publisher`] is dropped.
    pub fn publish(
        self: &Arc<Self>,
        name: StreamName,
        options: PublishOptions,
    ) -> Result<Publisher, PublishError> {
        let started = self.start(&name, options, false);
        let (stream, lease) = started.ok_or(PublishError::InUse(name))?;
        tracing::info!(stream = %stream.name(), "published");
        Ok(Publisher {
            router: self.clone(),
            stream,
            lease,
        })
    }

    /// The stream with this name, made where there is none, and the right to publish it.
    pub(crate) fn start(
        &self,
        name: &StreamName,
        options: PublishOptions,
        takeover: bool,
    ) -> Option<(Arc<Stream>, Lease)> {
        // Under the lock, so that the stream is not forgotten as unused before it has its publisher.
        let mut streams = self.lock();
        let stream = streams.named(name);
        let lease = stream.start(options, takeover, Instant::now())?;
        Some((stream, lease))
    }

    /// Gives a consumer in this process a stream's packets, from now on or from when it gets a publisher.
    pub fn subscribe(self: &Arc<Self>, name: &StreamName) -> LocalSubscription {
        let queue = LocalQueue::default();
        let mut streams = self.lock();
        let stream = streams.named(name);
        stream.attach_local(queue.clone());
        drop(streams);
        LocalSubscription::new(self.clone(), stream, queue)
    }

    /// All streams that have a publisher or viewers, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let now = Instant::now();
        let streams: Vec<_> = {
            let mut streams = self.lock();
            streams.by_name.retain(|_, stream| stream.is_used());
            let known = streams.by_name.values().filter(|s| s.is_known());
            known.cloned().collect()
        };
        streams.iter().map(|stream| stream.info(now)).collect()
    }

    /// One stream, if it has a publisher or viewers.
    pub fn stream(&self, name: &StreamName) -> Option<StreamInfo> {
        self.find(name).map(|stream| stream.info(Instant::now()))
    }

    pub(crate) fn find(&self, name: &StreamName) -> Option<Arc<Stream>> {
        let stream = self.lock().by_name.get(name).cloned()?;
        stream.is_known().then_some(stream)
    }

    /// Forgets a stream that nobody uses any more.
    pub(crate) fn tidy(&self, name: &StreamName) {
        let mut streams = self.lock();
        if streams.by_name.get(name).is_some_and(|s| !s.is_used()) {
            streams.by_name.remove(name);
        }
    }
}

/// The right to publish one stream. Dropping it unpublishes; viewers stay and wait for the next publisher.
#[derive(Debug)]
pub struct Publisher {
    router: Arc<Router>,
    stream: Arc<Stream>,
    lease: Lease,
}

impl Publisher {
    /// The name of the stream.
    pub fn name(&self) -> &StreamName {
        self.stream.name()
    }

    /// Declares the video track and its layers, highest first. May be called again when they change.
    pub fn set_video(&self, codec: Codec, layers: Vec<LayerInfo>) {
        self.stream.set_video(self.lease, codec, layers);
    }

    /// Declares the audio track.
    pub fn set_audio(&self, codec: Codec) {
        self.stream.set_audio(self.lease, codec);
    }

    /// Sends RTP packets of one track and layer to all viewers. One call a frame where possible.
    pub fn push(&self, kind: TrackKind, layer: usize, packets: impl IntoIterator<Item = RtpIn>) {
        let now = Instant::now();
        self.stream.push(now, self.lease, kind, layer, packets);
    }

    /// What there is to say of the stream.
    pub fn stats(&self) -> StreamInfo {
        self.stream.info(Instant::now())
    }

    /// Keyframe requests that viewers made, and that went upstream.
    pub fn keyframe_requests(&self) -> (u64, u64) {
        let info = self.stats();
        (info.keyframe_requests_received, info.keyframe_requests_sent)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stream.stop(self.lease);
        tracing::info!(stream = %self.stream.name(), "unpublished");
        self.router.tidy(self.stream.name());
    }
}
