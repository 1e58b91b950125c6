// SPDX-License-Identifier: MPL-2.0

//! The process-wide meeting point of publishers and viewers, by name.
//!
//! Elements in different pipelines of one process meet here, so that streams come and go while every pipeline stays a
//! fixed line of text.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use thiserror::Error;

use crate::audio::AudioTrack;
use crate::claim::Claim;
use crate::codec::{Codec, TrackKind};
use crate::ids::StreamName;
use crate::info::StreamInfo;
use crate::layers::LayerInfo;
use crate::local::{LocalQueue, LocalSubscription};
use crate::packet::RtpIn;
use crate::roster::Roster;
use crate::stream::{Lease, PublishOptions, Stream, Viewing};

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

/// See the module's description.
#[derive(Debug, Default)]
pub struct Router {
    streams: Arc<Mutex<Streams>>,
    roster: Roster,
}

#[derive(Debug, Default)]
struct Streams {
    by_name: BTreeMap<StreamName, Arc<Stream>>,
    next_key: u64,
}

/// Where a stream is found. It leaves when nobody uses it any more.
#[derive(Debug)]
pub(crate) struct Home(Weak<Mutex<Streams>>);

impl Home {
    /// A user of the stream has gone: if it was the last one, the stream is forgotten. Not to be called with the
    /// stream's lock.
    pub(crate) fn left(&self, stream: &Stream) {
        if stream.is_used() {
            return;
        }
        let Some(streams) = self.0.upgrade() else {
            return;
        };
        let mut streams = lock(&streams);
        let known = streams.by_name.get(stream.name());
        // Under the lock, since whoever comes uses it under the lock. What has its name may be its successor.
        let forgotten =
            if known.is_some_and(|s| std::ptr::eq(&raw const **s, stream) && !s.is_used()) {
                streams.by_name.remove(stream.name())
            } else {
                None
            };
        drop(streams);
        drop(forgotten);
    }
}

fn lock(streams: &Mutex<Streams>) -> MutexGuard<'_, Streams> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    /// The process's router with this name, made on first use.
    pub fn get(name: &str) -> Arc<Router> {
        let mut routers = ROUTERS.lock().unwrap_or_else(PoisonError::into_inner);
        routers.entry(name.to_owned()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        lock(&self.streams)
    }

    /// The stream with this name, made where there is none.
    fn named(&self, streams: &mut Streams, name: &StreamName) -> Arc<Stream> {
        let Streams { by_name, next_key } = streams;
        let stream = by_name.entry(name.clone()).or_insert_with(|| {
            *next_key += 1;
            let home = Home(Arc::downgrade(&self.streams));
            Arc::new(Stream::at(home, name.clone(), *next_key))
        });
        stream.clone()
    }

    /// Makes the caller the publisher of a stream, until the returned [`Publisher`] is dropped.
    pub fn publish(
        &self,
        name: StreamName,
        options: PublishOptions,
    ) -> Result<Publisher, PublishError> {
        let started = self.start(&name, options, false);
        let (stream, lease) = started.ok_or(PublishError::InUse(name))?;
        tracing::info!(stream = %stream.name(), "published");
        Ok(Publisher { stream, lease })
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
        let stream = self.named(&mut streams, name);
        let lease = stream.start(options, takeover, Instant::now())?;
        Some((stream, lease))
    }

    /// The stream with this name, made where there is none, and what a publisher may have of it before its media comes.
    pub(crate) fn claim(
        &self,
        name: &StreamName,
        options: PublishOptions,
        takeover: bool,
    ) -> Option<(Arc<Stream>, Claim)> {
        let mut streams = self.lock();
        let stream = self.named(&mut streams, name);
        let claim = stream.claim(options, takeover, Instant::now())?;
        Some((stream, claim))
    }

    /// Gives a consumer in this process a stream's packets, from now on or from when it gets a publisher.
    pub fn subscribe(&self, name: &StreamName) -> LocalSubscription {
        let queue = LocalQueue::default();
        let mut streams = self.lock();
        let stream = self.named(&mut streams, name);
        stream.attach_local(queue.clone());
        drop(streams);
        LocalSubscription::new(stream, queue)
    }

    /// Counts a viewer in before its session is handed to a shard. `None`: the stream was forgotten meanwhile, and
    /// whoever publishes the name again makes another one.
    pub(crate) fn add_viewer(&self, stream: &Arc<Stream>) -> Option<Viewing> {
        let streams = self.lock();
        let known = streams.by_name.get(stream.name());
        let known = known.filter(|s| Arc::ptr_eq(s, stream));
        known.map(|stream| Viewing::new(stream.clone()))
    }

    /// All streams that have a publisher or viewers, by name.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let now = Instant::now();
        let streams: Vec<_> = {
            let streams = self.lock();
            let known = streams.by_name.values().filter(|s| s.is_known());
            known.cloned().collect()
        };
        streams.iter().map(|stream| stream.info(now)).collect()
    }

    /// One stream, if it has a publisher or viewers.
    pub fn stream(&self, name: &StreamName) -> Option<StreamInfo> {
        self.find(name).map(|stream| stream.info(Instant::now()))
    }

    /// Ends whoever sends a stream to its publisher, an element that can tell it. Returns whether it was told.
    pub fn kick(&self, name: &StreamName) -> bool {
        self.find(name).is_some_and(|stream| stream.kick())
    }

    /// Who publishes in which room.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// The stream with this name, if it has a publisher or viewers.
    pub fn find(&self, name: &StreamName) -> Option<Arc<Stream>> {
        let stream = self.lock().by_name.get(name).cloned()?;
        stream.is_known().then_some(stream)
    }
}

/// The right to publish one stream. Dropping it unpublishes; viewers stay and wait for the next publisher.
#[derive(Debug)]
pub struct Publisher {
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

    /// Declares an audio track. May be called again when it changes.
    pub fn set_audio(&self, track: AudioTrack) {
        self.stream.set_audio(self.lease, track);
    }

    /// Goes on without an audio track.
    pub fn unset_audio(&self, number: usize) {
        self.stream.unset_audio(self.lease, number);
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Feedback;

    struct NoEncoder;

    impl Feedback for NoEncoder {
        fn keyframe_request(&self, _: usize) {}
    }

    fn publish(router: &Router, name: &StreamName) -> Publisher {
        let options = PublishOptions {
            keyframe_min_interval: std::time::Duration::from_millis(500),
            feedback: Arc::new(NoEncoder),
        };
        router.publish(name.clone(), options).unwrap()
    }

    fn len(router: &Router) -> usize {
        router.lock().by_name.len()
    }

    #[test]
    fn names_that_were_used_once_leave_nothing() {
        let router = Router::default();
        for n in 0..10_000 {
            let name = format!("once{n}").parse().unwrap();
            let publisher = publish(&router, &name);
            assert_eq!(len(&router), 1);
            match n % 4 {
                0 => drop(publisher),
                1 => {
                    let viewed = router.find(&name).unwrap();
                    let viewing = router.add_viewer(&viewed).unwrap();
                    drop(publisher);
                    assert_eq!(len(&router), 1, "its viewer waits for the next publisher");
                    drop(viewing);
                }
                2 => {
                    let local = router.subscribe(&name);
                    drop(publisher);
                    assert_eq!(len(&router), 1);
                    drop(local);
                }
                _ => {
                    drop(router.subscribe(&name));
                    drop(publisher);
                }
            }
            assert_eq!(len(&router), 0, "{n}");
        }
    }

    #[test]
    fn a_viewer_that_comes_as_the_stream_goes_is_told() {
        let router = Router::default();
        let name = "a".parse().unwrap();
        let publisher = publish(&router, &name);
        let found = router.find(&name).unwrap();
        drop(publisher);
        assert!(router.add_viewer(&found).is_none(), "it has gone");
        let _next = publish(&router, &name);
        assert!(
            router.add_viewer(&found).is_none(),
            "and this is another one"
        );
        // What becomes of the old one is nothing to the new one.
        drop(Viewing::new(found));
        assert!(router.find(&name).is_some());
    }
}
