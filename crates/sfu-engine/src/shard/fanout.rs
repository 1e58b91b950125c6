// SPDX-License-Identifier: MPL-2.0

//! A frame's way to all viewers of its stream, at the pace of the network.
//!
//! Where the network takes all at once, a frame is with everybody before the next thing is done. Where it does not, the
//! frame waits here *before* it is numbered and sealed for those who don't have it yet: so that sound goes before pictures,
//! numbers and times of departure are true (estimates depend on them), and what has waited for too long costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Send, Shard, Viewer};
use crate::codec::TrackKind;
use crate::packet::Batch;

/// Media that has waited for longer is of no use to a live picture: receivers have given it up. A keyframe of 300 viewers
/// of 2.5 Mbit/s takes 145 ms at 1 Gbit/s.
const USEFUL: Duration = Duration::from_millis(400);

/// Frames that not all viewers have. Sound goes first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    audio: VecDeque<Frame>,
    video: VecDeque<Frame>,
}

/// One of them.
#[derive(Debug)]
struct Frame {
    stream: u64,
    batch: Arc<Batch>,
    since: Instant,
    /// The viewers who don't have it, where some do.
    left: Option<Vec<Viewer>>,
}

impl Frame {
    fn is_useful(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < USEFUL
    }
}

impl Waiting {
    fn of(&mut self, kind: TrackKind) -> &mut VecDeque<Frame> {
        match kind {
            TrackKind::Audio => &mut self.audio,
            TrackKind::Video => &mut self.video,
        }
    }

    fn next(&mut self) -> Option<Frame> {
        self.audio.pop_front().or_else(|| self.video.pop_front())
    }

    /// One that has waited for too long.
    fn stale(&mut self, now: Instant) -> Option<Frame> {
        let mut queues = [&mut self.audio, &mut self.video].into_iter();
        let is_stale = |queue: &VecDeque<Frame>| queue.front().is_some_and(|f| !f.is_useful(now));
        queues.find(|queue| is_stale(queue))?.pop_front()
    }
}

impl Shard {
    /// Whether frames wait for the network: call [`go_on`](Self::go_on) when it takes more.
    pub fn is_held_up(&self) -> bool {
        self.frames_waiting() > 0
    }

    /// How many frames wait for the network.
    pub fn frames_waiting(&self) -> usize {
        self.waiting.audio.len() + self.waiting.video.len()
    }

    /// The network takes more, and the outbox is not full: frames that wait go on, until it is held up again.
    pub fn go_on(&mut self, mut now: Instant, send: &mut Send<'_>) {
        while let Some(frame) = self.waiting.next() {
            let kind = frame.batch.kind;
            if let Some(rest) = self.fan_out(now, frame, send) {
                self.waiting.of(kind).push_front(rest);
                break;
            }
            now = send(&mut self.outbox);
            if self.outbox.is_full() {
                break;
            }
        }
        self.bury();
    }

    /// Sends a frame to every viewer of its stream, or lets it wait behind those that wait already.
    pub(super) fn forward(
        &mut self,
        mut now: Instant,
        stream: u64,
        batch: Arc<Batch>,
        send: &mut Send<'_>,
    ) {
        if !self.by_key.contains_key(&stream) {
            return;
        }
        let kind = batch.kind;
        let frame = Frame {
            stream,
            batch,
            since: now,
            left: None,
        };
        if self.outbox.is_full() {
            now = send(&mut self.outbox);
        }
        if self.outbox.is_full() || !self.waiting.of(kind).is_empty() {
            self.waiting.of(kind).push_back(frame);
            // However long the network takes nothing, no more than what is of use waits.
            while let Some(stale) = self.waiting.stale(now) {
                self.fan_out(now, stale, send);
            }
        } else if let Some(rest) = self.fan_out(now, frame, send) {
            self.waiting.of(kind).push_front(rest);
        }
    }

    /// The way of every packet: no lock, no clock, no formatting. Returns the frame where it is to wait.
    ///
    /// Each frame begins with another viewer, so that it never is the same ones who get theirs last.
    fn fan_out(&mut self, mut now: Instant, frame: Frame, send: &mut Send<'_>) -> Option<Frame> {
        let attached = *self.by_key.get(&frame.stream)?;
        let (count, first) = match &frame.left {
            Some(left) => (left.len(), 0),
            None => {
                let stream = self.streams.get_mut(attached)?;
                if frame.batch.kind == TrackKind::Video {
                    stream.rings.push(now, &frame.batch);
                }
                stream.begin_round(frame.batch.kind, frame.batch.layer)
            }
        };
        let viewer = |shard: &Self, position: usize| match &frame.left {
            Some(left) => left.get(position).copied(),
            None => {
                // Nobody is buried before the end.
                let viewers = &shard.streams.get(attached)?.viewers;
                viewers.get((first + position) % count).copied()
            }
        };
        for position in 0..count {
            let Some(Viewer { member, forwarder }) = viewer(self, position) else {
                continue;
            };
            let useful = frame.is_useful(now);
            let Frame { stream, batch, .. } = &frame;
            self.visit(now, member, |member, outbox| match member.viewer() {
                Some(viewer) => viewer.media(now, forwarder, (*stream, batch), !useful, outbox),
                None => false,
            });
            if !useful || !self.outbox.is_full() {
                continue;
            }
            now = send(&mut self.outbox);
            if self.outbox.is_full() {
                let rest = position + 1..count;
                let left = rest.filter_map(|position| viewer(self, position));
                let left = Some(left.collect());
                return Some(Frame { left, ..frame });
            }
        }
        None
    }
}
