// SPDX-License-Identifier: MPL-2.0

//! Who watches what: the streams that come into a shard, and for each the forwarders that it goes to.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::downlink::Watch;
use super::member::Member;
use super::ring::Rings;
use crate::codec::TrackKind;
use crate::ids::SessionId;
use crate::session::SessionShared;
use crate::stream::{Stream, Viewing};

/// Where a forwarder is among those of its stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) attached: usize,
    pub(super) place: usize,
}

/// Who sits there: one of a member's forwarders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Viewer {
    pub(super) member: usize,
    pub(super) forwarder: usize,
}

/// A stream that has viewers here.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) stream: Arc<Stream>,
    /// Who watches it; each knows its place.
    pub(super) viewers: Vec<Viewer>,
    /// Who begins: of sound, and of each layer.
    pub(super) rounds: Vec<Round>,
    /// What they may want again.
    pub(super) rings: Rings,
}

/// Which viewer is the first to get the next frame.
#[derive(Debug, Clone, Default)]
pub(super) struct Round {
    first: usize,
    /// How many have been first since each was.
    count: usize,
    random: u64,
}

impl Round {
    /// Each of so many once, far from those who were last. Then all again, from another one on: else it were the same who
    /// are last at each keyframe, where there are as many viewers as frames in between.
    fn next(&mut self, viewers: usize) -> usize {
        let mut step = viewers * 5 / 8 + 1;
        while gcd(step, viewers) > 1 {
            step += 1;
        }
        self.count += 1;
        if self.count >= viewers {
            self.count = 0;
            // Knuth's generator: no viewer gains from knowing who is next.
            let next = self.random.wrapping_mul(6_364_136_223_846_793_005);
            self.random = next.wrapping_add(1_442_695_040_888_963_407);
            step = (self.random >> 33) as usize;
        }
        let first = self.first.checked_rem(viewers).unwrap_or(0);
        self.first = first.wrapping_add(step);
        first
    }
}

impl Attached {
    /// How many viewers a frame goes to, and which of them is the first: another one each time, until each has been.
    pub(super) fn begin_round(&mut self, kind: TrackKind, layer: usize) -> (usize, usize) {
        let count = self.viewers.len();
        let track = match kind {
            TrackKind::Audio => 0,
            TrackKind::Video => 1 + layer,
        };
        if self.rounds.len() <= track {
            self.rounds.resize(track + 1, Round::default());
        }
        (count, self.rounds[track].next(count))
    }
}

impl Shard {
    /// Sends the keyframe requests of a stream that are due.
    pub(super) fn poll_keyframes(&mut self, now: Instant, attached: usize) {
        let stream = self.streams.get(attached).map(|a| &a.stream);
        match stream.and_then(|stream| stream.poll_keyframes(now)) {
            Some(at) => self.keyframe_timers.set(attached, at),
            None => self.keyframe_timers.remove(attached),
        }
    }

    /// What a peer's m-lines with this place carry from now on.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        session: SessionId,
        place: usize,
        stream: Option<Viewing>,
        figures: Arc<SessionShared>,
    ) {
        let Some(&index) = self.by_session.get(&session) else {
            return;
        };
        if let Some(stream) = stream {
            return self.seat(now, index, place, stream, figures);
        }
        let mut before = None;
        self.visit(now, index, |member, _| {
            if let Some(viewer) = member.viewer() {
                before = viewer.unwatch(now, place);
            }
            true
        });
        if let Some(seat) = before {
            self.unseat(seat);
        }
    }

    pub(super) fn seat(
        &mut self,
        now: Instant,
        index: usize,
        forwarder: usize,
        stream: Viewing,
        figures: Arc<SessionShared>,
    ) {
        if self
            .members
            .get_mut(index)
            .and_then(Member::viewer)
            .is_none()
        {
            return;
        }
        let attached = self.attach(&stream);
        let Some(viewers) = self.streams.get_mut(attached).map(|a| &mut a.viewers) else {
            return;
        };
        let seat = Seat {
            attached,
            place: viewers.len(),
        };
        viewers.push(Viewer {
            member: index,
            forwarder,
        });
        // Until it is taken: a panic in between leaves no seat behind.
        let mut free = Some(seat);
        self.visit(now, index, |member, outbox| {
            if let Some(viewer) = member.viewer() {
                let watch = Watch { stream, seat };
                free = viewer.watch(now, forwarder, watch, figures, outbox);
            }
            true
        });
        if let Some(seat) = free {
            self.unseat(seat);
        }
    }

    /// From now on the stream's packets come here.
    pub(super) fn attach(&mut self, stream: &Arc<Stream>) -> usize {
        *self.by_key.entry(stream.key()).or_insert_with(|| {
            stream.attach(self.queue.clone());
            self.streams.insert(Attached {
                stream: stream.clone(),
                viewers: Vec::new(),
                rounds: Vec::new(),
                rings: Rings::default(),
            })
        })
    }

    /// Sends the keyframe requests that are due, of the streams of which a member has just asked for some.
    pub(super) fn poll_keyframes_of(&mut self, now: Instant, index: usize) {
        for place in 0.. {
            let Some(viewer) = self.members.get_mut(index).and_then(Member::viewer) else {
                return;
            };
            let Some(forwarder) = viewer.forwarder(place) else {
                return;
            };
            let asking = forwarder.was_asking();
            let seat = forwarder.watch.as_ref().map(|watch| watch.seat);
            if let Some(seat) = seat.filter(|_| asking) {
                self.poll_keyframes(now, seat.attached);
            }
        }
    }

    /// A member that is still there gives all of its seats back.
    pub(super) fn unseat_all(&mut self, index: usize) {
        for place in 0.. {
            let Some(viewer) = self.members.get_mut(index).and_then(Member::viewer) else {
                return;
            };
            let Some(forwarder) = viewer.forwarder(place) else {
                return;
            };
            if let Some(seat) = forwarder.unwatch() {
                self.unseat(seat);
            }
        }
    }

    /// A forwarder leaves its stream, and the last one takes its place. Without viewers there is no use for its packets.
    pub(super) fn unseat(&mut self, Seat { attached, place }: Seat) {
        let Some(stream) = self.streams.get_mut(attached) else {
            return;
        };
        stream.viewers.swap_remove(place);
        if let Some(&moved) = stream.viewers.get(place)
            && let Some(member) = self.members.get_mut(moved.member)
            && let Some(viewer) = member.viewer()
            && let Some(forwarder) = viewer.forwarder(moved.forwarder)
            && let Some(watch) = &mut forwarder.watch
        {
            watch.seat.place = place;
        }
        if stream.viewers.is_empty() {
            let stream = self.streams.remove(attached).stream;
            self.by_key.remove(&stream.key());
            self.keyframe_timers.remove(attached);
            stream.detach(&self.queue);
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}
