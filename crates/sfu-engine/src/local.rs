// SPDX-License-Identifier: MPL-2.0

//! A stream's consumer inside this process: it gets the packets as viewers' shards get them, by a queue of its own.
//!
//! The publisher's thread puts batches in and never waits; the consumer's thread takes them out with
//! [`LocalSubscription::recv`], which also keeps the keyframe arbiters' time. Used by the element `sfusrc`.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::audio::AudioTrack;
use crate::codec::Codec;
use crate::gop::Gop;
use crate::ids::StreamName;
use crate::keyframe::Need;
use crate::layers::Candidate;
use crate::packet::Batch;
use crate::stream::Stream;

/// Batches that may wait: four seconds of three layers and sound. Who is so far behind begins anew at a keyframe.
const CAPACITY: usize = 1_024;

/// What a consumer takes out of its queue.
#[derive(Debug)]
pub enum Received {
    /// Packets of one track and layer. Look at [`Batch::epoch`]: with another one everything may be different.
    Media(Arc<Batch>),
    /// The publisher, its codecs or its layers changed: [`LocalSubscription::tracks`] tells how.
    Changed,
    /// The queue was full, and packets are missing before the next ones: begin at a keyframe.
    Overrun,
    /// Nothing came in time, or [`LocalSubscription::wake`] was called.
    Nothing,
    /// [`LocalSubscription::close`] was called: nothing will come any more.
    Closed,
}

/// What a stream consists of at a moment.
#[derive(Debug, Clone, Default)]
pub struct Tracks {
    /// Which publisher is there, counted over the stream's life.
    pub publisher: Option<u32>,
    /// What [`Batch::epoch`] is of packets that belong to these tracks.
    pub epoch: u32,
    /// The video codec, where there is video.
    pub video: Option<Codec>,
    /// The video layers by their index, which says nothing of their order: see [`crate::layers::ranked`].
    pub layers: Vec<Candidate>,
    /// The audio tracks, in the order of their numbers.
    pub audio: Vec<AudioTrack>,
}

/// The stream's end of the queue.
#[derive(Debug, Clone, Default)]
pub(crate) struct LocalQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    batches: VecDeque<Arc<Batch>>,
    changed: bool,
    /// It was full: nothing goes in until it is empty.
    overrun: bool,
    woken: bool,
    closed: bool,
    /// The consumer has no use for what there is: nothing goes in.
    idle: bool,
    dropped: u64,
}

impl Inner {
    fn pop(&mut self) -> Option<Received> {
        if self.closed {
            return Some(Received::Closed);
        }
        if let Some(batch) = self.batches.pop_front() {
            return Some(Received::Media(batch));
        }
        if std::mem::take(&mut self.overrun) {
            return Some(Received::Overrun);
        }
        if std::mem::take(&mut self.changed) {
            return Some(Received::Changed);
        }
        std::mem::take(&mut self.woken).then_some(Received::Nothing)
    }
}

impl LocalQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a batch. Never waits: a full queue drops it and counts.
    pub(crate) fn push(&self, batch: &Arc<Batch>) {
        let mut inner = self.lock();
        if inner.idle {
            return;
        }
        inner.overrun |= inner.batches.len() >= CAPACITY;
        if inner.overrun {
            inner.dropped += 1;
            return;
        }
        inner.batches.push_back(batch.clone());
        drop(inner);
        self.0.ready.notify_one();
    }

    /// The stream is not what it was.
    pub(crate) fn changed(&self) {
        self.lock().changed = true;
        self.0.ready.notify_one();
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the consumer takes what comes.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().idle
    }

    fn recv(&self, until: Instant) -> Received {
        let mut inner = self.lock();
        loop {
            if let Some(received) = inner.pop() {
                return received;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Received::Nothing;
            }
            let waited = self.0.ready.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A consumer's place at a stream, whether it has a publisher or not. Dropping it ends it.
#[derive(Debug)]
pub struct LocalSubscription {
    stream: Arc<Stream>,
    queue: LocalQueue,
}

impl LocalSubscription {
    pub(crate) fn new(stream: Arc<Stream>, queue: LocalQueue) -> Self {
        Self { stream, queue }
    }

    /// The stream's name.
    pub fn name(&self) -> &StreamName {
        self.stream.name()
    }

    /// Takes out what comes next, and waits for it `timeout` at most.
    ///
    /// Meanwhile it sends the keyframe requests that the arbiters held back: there may be no shard that does.
    pub fn recv(&self, timeout: Duration) -> Received {
        let now = Instant::now();
        let due = self.stream.poll_keyframes(now);
        let until = now + timeout;
        self.queue.recv(due.map_or(until, |due| due.min(until)))
    }

    /// What the stream consists of.
    pub fn tracks(&self) -> Tracks {
        self.stream.tracks(Instant::now())
    }

    /// The packets since a layer's last keyframe, where they are whole and fresh. They may come by the queue as well.
    pub fn gop(&self, layer: usize) -> Option<Gop> {
        let gop = self.stream.gop(Instant::now(), layer);
        gop.filter(|gop| gop.holes.is_empty())
    }

    /// Asks the arbiter for a keyframe of a layer.
    pub fn request_keyframe(&self, layer: usize) {
        self.stream
            .request_keyframe(Instant::now(), layer, Need::Source);
    }

    /// Says whether this consumer takes the stream as it now is. One that does not gets nothing but
    /// [`Received::Changed`], and is no output of the stream.
    pub fn set_idle(&self, idle: bool) {
        self.queue.lock().idle = idle;
    }

    /// Batches that found the queue full.
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }

    /// Makes a [`recv`](Self::recv) under way, or the next one, return.
    pub fn wake(&self) {
        self.queue.lock().woken = true;
        self.queue.0.ready.notify_one();
    }

    /// Makes every [`recv`](Self::recv) from now on return at once.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.0.ready.notify_one();
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        self.stream.detach_local(&self.queue);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::codec::TrackKind;
    use crate::ids::Rid;
    use crate::layers::LayerInfo;
    use crate::packet::RtpIn;
    use crate::router::Router;
    use crate::stream::{Feedback, PublishOptions};

    #[derive(Default)]
    struct Asked(AtomicUsize);

    impl Feedback for Asked {
        fn keyframe_request(&self, _layer: usize) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn publish(router: &Arc<Router>, feedback: Arc<Asked>) -> crate::router::Publisher {
        let options = PublishOptions {
            keyframe_min_interval: Duration::from_millis(200),
            feedback,
        };
        let publisher = router.publish("a".parse().unwrap(), options).unwrap();
        let layer = LayerInfo {
            rid: Rid::from_index(0),
            width: None,
            height: None,
            target_bitrate: None,
        };
        publisher.set_video(Codec::Vp8, vec![layer]);
        publisher
    }

    fn packet(seq: u16) -> RtpIn {
        RtpIn {
            seq,
            timestamp: 0,
            captured: Instant::now(),
            marker: true,
            payload: [0; 8].into(),
            red: None,
            layering: crate::packet::Layering::default(),
        }
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn it_waits_for_publishers_and_outlives_them() {
        let router = Arc::new(Router::default());
        let name: StreamName = "a".parse().unwrap();
        let subscription = router.subscribe(&name);
        assert_eq!(subscription.tracks().publisher, None);
        assert!(router.stream(&name).is_none(), "nobody can watch it yet");
        let publisher = publish(&router, Arc::default());
        assert!(matches!(subscription.recv(NOW), Received::Changed));
        let first = subscription.tracks();
        assert_eq!((first.video, first.layers.len()), (Some(Codec::Vp8), 1));
        publisher.push(TrackKind::Video, 0, [packet(1)]);
        assert_eq!(router.stream(&name).unwrap().outputs, 1);
        drop(publisher);
        let Received::Media(batch) = subscription.recv(NOW) else {
            panic!("what came before the end is not lost");
        };
        assert_eq!(batch.epoch, first.epoch);
        assert!(matches!(subscription.recv(NOW), Received::Changed));
        assert_eq!(subscription.tracks().publisher, None);
        let _publisher = publish(&router, Arc::default());
        assert_ne!(subscription.tracks().publisher, first.publisher);
        drop(subscription);
        assert_eq!(router.stream(&name).unwrap().outputs, 0);
    }

    #[test]
    fn an_idle_one_gets_no_packets_and_is_no_output() {
        let router = Arc::new(Router::default());
        let subscription = router.subscribe(&"a".parse().unwrap());
        let publisher = publish(&router, Arc::default());
        assert!(matches!(subscription.recv(NOW), Received::Changed));
        subscription.set_idle(true);
        assert_eq!(publisher.stats().outputs, 0);
        publisher.push(TrackKind::Video, 0, [packet(1)]);
        assert!(matches!(subscription.recv(NOW), Received::Nothing));
        publisher.set_video(Codec::H264, Vec::new());
        assert!(matches!(subscription.recv(NOW), Received::Changed));
        subscription.set_idle(false);
        publisher.push(TrackKind::Audio, 0, [packet(1)]);
        assert_eq!(publisher.stats().outputs, 1);
    }

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let router = Arc::new(Router::default());
        let subscription = router.subscribe(&"a".parse().unwrap());
        let publisher = publish(&router, Arc::default());
        for seq in 0..CAPACITY as u16 + 10 {
            publisher.push(TrackKind::Video, 0, [packet(seq)]);
        }
        assert_eq!(subscription.dropped(), 10);
        let mut batches = 0;
        while let Received::Media(_) = subscription.recv(NOW) {
            batches += 1;
        }
        assert_eq!(batches, CAPACITY, "and then Overrun");
        publisher.push(TrackKind::Video, 0, [packet(CAPACITY as u16 + 10)]);
        assert!(matches!(subscription.recv(NOW), Received::Media(_)));
    }

    #[test]
    fn it_keeps_the_arbiters_time() {
        let router = Arc::new(Router::default());
        let asked = Arc::new(Asked::default());
        let publisher = publish(&router, asked.clone());
        let subscription = router.subscribe(publisher.name());
        for _ in 0..5 {
            subscription.request_keyframe(0);
        }
        assert_eq!(asked.0.load(Relaxed), 1);
        let end = Instant::now() + Duration::from_secs(5);
        while asked.0.load(Relaxed) < 2 && Instant::now() < end {
            subscription.recv(Duration::from_secs(1));
        }
        assert_eq!(
            asked.0.load(Relaxed),
            2,
            "once more when the interval is over"
        );
        subscription.close();
        assert!(matches!(
            subscription.recv(Duration::from_secs(9)),
            Received::Closed
        ));
    }
}
