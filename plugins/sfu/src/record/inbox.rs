// SPDX-License-Identifier: MPL-2.0

//! What reaches the recorder's thread, and the bounded way there.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::file::Written;
use super::settings::Limits;

/// Frames and packets of sound that may wait: half a minute. What comes on top is dropped.
const CAPACITY: usize = 3_000;

/// A track of the stream, by the pad that it comes from.
pub(super) type TrackId = u32;
/// A file, counted over the element's life.
pub(super) type TakeId = u64;

#[derive(Debug)]
pub(super) enum Event {
    /// A track came; its first sample is still to come.
    Track(TrackId),
    /// What is spoken on a track, as its publisher tells it.
    Language(TrackId, String),
    /// No more will come of a track.
    Gone(TrackId),
    /// All tracks that the publisher declared have come.
    Settled,
    /// A frame, or a packet of sound, dated in running time.
    Sample(TrackId, gst::Buffer, gst::Caps),
    /// The publisher came or went.
    Changed,
    /// The stream can't be taken.
    InputFailed(String),
    /// A file got another fragment.
    Progress(TakeId, Written),
    /// A file has its end.
    Done(TakeId, Written),
    /// A file can't be written.
    Failed(TakeId, Failure),
    /// The pipeline plays, or does not.
    Playing(bool),
    /// The application wants a new file with the next keyframe.
    Split,
    /// It wants what comes to be recorded, or not.
    Record(bool),
    /// Other limits hold from now on.
    Limits(Limits),
    /// EOS: finish, and say so.
    End,
    /// Finish, and end.
    Stop,
}

/// Why a file can't be written.
#[derive(Debug)]
pub(super) enum Failure {
    Disk(io::Error),
    Muxer(String),
}

/// The sending end.
#[derive(Debug, Clone)]
pub(super) struct Inbox {
    sender: Sender<Event>,
    waiting: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Events {
    receiver: Receiver<Event>,
    waiting: Arc<AtomicUsize>,
}

pub(super) fn inbox(dropped: Arc<AtomicU64>) -> (Inbox, Events) {
    let (sender, receiver) = channel();
    let waiting = Arc::default();
    let inbox = Inbox {
        sender,
        waiting: Arc::clone(&waiting),
        dropped,
    };
    (inbox, Events { receiver, waiting })
}

impl Inbox {
    /// Never waits. Nobody hears it once the recorder has ended.
    pub(super) fn send(&self, event: Event) {
        let _ = self.sender.send(event);
    }

    /// Sends a sample, unless too many wait. Returns whether it was taken.
    pub(super) fn sample(&self, track: TrackId, buffer: gst::Buffer, caps: gst::Caps) -> bool {
        if self.waiting.load(Relaxed) >= CAPACITY {
            self.dropped.fetch_add(1, Relaxed);
            return false;
        }
        self.waiting.fetch_add(1, Relaxed);
        self.send(Event::Sample(track, buffer, caps));
        true
    }
}

impl Events {
    /// The next one, or `None` when none comes in time.
    pub(super) fn next(&self, timeout: Duration) -> Option<Event> {
        match self.receiver.recv_timeout(timeout) {
            Ok(event) => {
                if matches!(event, Event::Sample(..)) {
                    self.waiting.fetch_sub(1, Relaxed);
                }
                Some(event)
            }
            Err(RecvTimeoutError::Timeout) => None,
            // The element is gone without a word.
            Err(RecvTimeoutError::Disconnected) => Some(Event::Stop),
        }
    }
}
