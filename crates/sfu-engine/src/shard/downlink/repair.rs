// SPDX-License-Identifier: MPL-2.0

//! What a viewer misses, and the keyframes that it needs: part of [`super::Forwarder`].

use std::time::{Duration, Instant};

use slab::Slab;

use super::super::Attached;
use super::super::history::Found;
use super::{Forwarder, Way};
use crate::keyframe::Need;

/// Until then its requests count as those of viewers who begin: a new session is no way around the price.
const BEGINNER: Duration = Duration::from_secs(10);

impl Forwarder {
    /// The viewer missed a packet of its pictures.
    pub(super) fn send_again(
        &mut self,
        now: Instant,
        seq: u64,
        streams: &Slab<Attached>,
        way: &mut Way<'_>,
    ) {
        let (Some(codec), Some(slot)) = (self.video.codec, self.video.slot) else {
            return;
        };
        // The rest of a long list is not even looked for, but where that it is gone would be a reason for a keyframe.
        if self.spent == Some(now) && way.transport.asks_for_keyframes() {
            return;
        }
        let record = match self.history.get(seq) {
            Found::Sent(record) => record,
            // Whoever watches over the publisher's packets asks for a keyframe if it does not come.
            Found::NotYet => return,
            Found::Forgotten => return self.cannot_send_again(now, way),
        };
        let (source, seq) = (record.source, record.seq);
        let seat = self.watch.as_ref().map(|watch| watch.seat.attached);
        let stream = seat.and_then(|attached| streams.get(attached));
        let packet = stream.and_then(|stream| stream.rings.get(source, seq));
        let replayed = || self.replayed.as_ref()?.get(source, seq);
        let Some(packet) = packet.or_else(replayed) else {
            return self.cannot_send_again(now, way);
        };
        if way.outbox.is_overfull() || !self.budget.spend(packet.payload.len()) {
            self.spent = Some(now);
            return;
        }
        let out = record.rewritten(packet.captured);
        if !way.resend(now, &out.of(slot, codec, packet)) {
            self.cannot_send_again(now, way);
        }
    }

    /// What is gone for good is mended by a keyframe only, if it is needed: a decoder may do without, and says so by PLI
    /// where it can't (RFC 4585, section 6.3.1). Only for a peer that has no such words it is taken for granted.
    fn cannot_send_again(&mut self, now: Instant, way: &Way<'_>) {
        if !way.transport.asks_for_keyframes() {
            self.viewer_needs_keyframe(now);
        }
    }

    /// However often a datagram says so, it is one request.
    pub(super) fn viewer_needs_keyframe(&mut self, now: Instant) {
        if self.needed_keyframe.replace(now) == Some(now) {
            return;
        }
        if let Some(source) = self.video.rewriter.source() {
            let since = self.met_first.unwrap_or(now);
            let need = match now.saturating_duration_since(since) < BEGINNER {
                true => Need::Start,
                false => Need::Repair(self.figures.id()),
            };
            self.need_keyframe(now, source.layer, need);
        }
    }

    /// Asks the arbiter for a keyframe, if it is this viewer's turn to have one. Returns whether it is.
    pub(super) fn need_keyframe(&mut self, now: Instant, layer: usize, need: Need) -> bool {
        let Some(watch) = &self.watch else {
            return false;
        };
        self.counts.keyframe_requests += 1;
        let may = self.price.ask(now, layer);
        if may {
            self.counts.keyframes_asked += 1;
            self.counts.is_asking = true;
            watch.stream.request_keyframe(now, layer, need);
        } else {
            watch.stream.refuse_keyframe();
        }
        may
    }
}
