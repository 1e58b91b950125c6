// SPDX-License-Identifier: MPL-2.0

//! One layer of a stream's video: how its packets are read, what is kept of them, and what is known of it.
//!
//! Owned by the [`Stream`](crate::stream::Stream), on the publisher's side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gop::{Gop, GopCache};
use crate::health::Health;
use crate::ids::Rid;
use crate::info::LayerStatus;
use crate::keyframe::KeyframeArbiter;
use crate::layers::{ACTIVE_FOR, Candidate, LayerInfo, TemporalCosts};
use crate::loss::LossWatch;
use crate::packet::{Batch, LayerReader};
use crate::price::{Price, SOURCE_MAX};
use crate::rate::RateMeter;
use crate::snapshot::EVERY;
use crate::temporal::{CUTS, Limit};

/// No layer that is behind the others for less counts as not sent.
pub(crate) const MISSED_AFTER: Duration = Duration::from_millis(500);

/// See the module's description.
pub(crate) struct Layer {
    pub(crate) info: LayerInfo,
    pub(crate) reader: LayerReader,
    pub(crate) gop: GopCache,
    pub(crate) arbiter: KeyframeArbiter,
    pub(crate) health: Health,
    loss: LossWatch,
    loss_price: Price,
    rate: RateMeter,
    /// The same of its temporal layers up to number 0, 1 and 2.
    temporal_rates: [RateMeter; CUTS],
    last_packet: Option<Instant>,
    pauses: Pauses,
    /// The highest temporal layer, when packets came last.
    top: u8,
    /// From how many layers above viewers may come at any picture.
    from_above: u8,
    /// The last packet that viewers know of.
    seen: Option<Instant>,
}

impl Layer {
    pub(crate) fn new(info: LayerInfo, keyframe_min_interval: Duration) -> Self {
        Self {
            info,
            reader: LayerReader::default(),
            gop: GopCache::default(),
            arbiter: KeyframeArbiter::new(keyframe_min_interval),
            health: Health::default(),
            loss: LossWatch::default(),
            loss_price: Price::new(SOURCE_MAX),
            rate: RateMeter::default(),
            temporal_rates: Default::default(),
            last_packet: None,
            pauses: Pauses::default(),
            top: 0,
            from_above: 0,
            seen: None,
        }
    }

    /// Packets that were read are about to be forwarded. Returns whether something is new that viewers choose by.
    pub(crate) fn note(&mut self, now: Instant, batch: &Arc<Batch>) -> bool {
        let size = (self.info.width, self.info.height);
        let top = std::mem::replace(&mut self.top, self.reader.top());
        if let Some(before) = self.last_packet.replace(now) {
            self.pauses.note(now, before);
        }
        let measured = self.rate.add(now, batch);
        for (id, rate) in (0..).zip(&mut self.temporal_rates) {
            rate.add_those(now, batch, |p| p.temporal.is_within(Limit::up_to(id)));
        }
        if let Some((width, height)) = self.reader.size {
            self.info.width = Some(width);
            self.info.height = Some(height);
        }
        for packet in &batch.packets {
            self.loss.packet(now, packet.seq, packet.keyframe_start);
            self.from_above = self.from_above.max(packet.from_above);
            if packet.keyframe_start {
                self.from_above = 0;
                self.arbiter.keyframe(now);
                self.loss_price.keyframe(0);
            }
        }
        self.gop.push(now, batch);
        let known = |at: Instant| now.saturating_duration_since(at) < EVERY;
        !self.seen.is_some_and(known)
            || measured
            || size != (self.info.width, self.info.height)
            || top != self.top
    }

    /// Viewers know of all that has come.
    pub(crate) fn seen(&mut self) {
        self.seen = self.last_packet;
    }

    /// Whether packets are lost for good, so that a keyframe is needed.
    pub(crate) fn take_lost(&mut self, now: Instant) -> bool {
        let lost = self.loss.take_lost(now);
        let held = self.loss_price.due().is_some_and(|(at, _)| at <= now);
        (lost || held) && self.loss_price.ask(now, 0)
    }

    /// What a joining viewer can be shown at once.
    pub(crate) fn gop(&self, now: Instant) -> Option<Gop> {
        Some(Gop {
            rate: self.rate.peak().or(self.info.target_bitrate),
            deaf: self.arbiter.is_deaf(now),
            ..self.gop.get(now)?
        })
    }

    /// When its last keyframe came, while what came since is kept.
    pub(crate) fn keyframe_at(&self) -> Option<Instant> {
        self.gop.began()
    }

    /// It as it is, whenever that is looked at.
    pub(crate) fn view(&self) -> LayerView {
        let costs = self.temporal_rates.each_ref().map(RateMeter::peak);
        LayerView {
            candidate: Candidate {
                info: self.info.clone(),
                bitrate: self.rate.bits_per_second().or(self.info.target_bitrate),
                cost: self.rate.peak().or(self.info.target_bitrate),
                most: self.rate.most(),
                active: false,
                temporal: TemporalCosts::new(self.reader.top(), costs),
                from_above: self.from_above,
            },
            last_packet: self.last_packet,
            patience: self.pauses.patience(),
        }
    }
}

/// What there is to say of a layer but whether it is being sent, which depends on when one asks.
#[derive(Debug, Clone)]
pub(crate) struct LayerView {
    candidate: Candidate,
    last_packet: Option<Instant>,
    patience: Duration,
}

impl LayerView {
    pub(crate) fn rid(&self) -> &Rid {
        &self.candidate.info.rid
    }

    /// The layer as it is now; with the newest packet of all layers it is missed by its own measure.
    pub(crate) fn at(&self, now: Instant, newest: Option<Instant>) -> Candidate {
        Candidate {
            active: self.is_active(now, newest),
            ..self.candidate.clone()
        }
    }

    fn is_active(&self, now: Instant, newest: Option<Instant>) -> bool {
        self.last_packet.is_some_and(|last| {
            let behind = newest.map_or(Duration::ZERO, |at| at.saturating_duration_since(last));
            now.saturating_duration_since(last) < ACTIVE_FOR && behind < self.patience
        })
    }
}

/// All layers of a stream as viewers should see them now, into memory that is there already.
pub(crate) fn all_at(views: &[LayerView], now: Instant, candidates: &mut Vec<Candidate>) {
    let newest = views.iter().filter_map(|view| view.last_packet).max();
    candidates.clear();
    candidates.extend(views.iter().map(|view| view.at(now, newest)));
}

/// How long nothing came between two packets of a layer lately. A layer that its publisher has stopped, while others of the same
/// pictures go on, is to be missed before [`ACTIVE_FOR`]: who watches it sees its last picture until then.
#[derive(Debug, Default)]
struct Pauses {
    /// The longest one of the whole span before, which says what to expect.
    before: Option<Duration>,
    longest: Duration,
    since: Option<Instant>,
}

impl Pauses {
    /// Encoders leave pictures out of one layer alone.
    const TIMES: u32 = 4;
    const SPAN: Duration = Duration::from_secs(4);

    fn note(&mut self, now: Instant, before: Instant) {
        let since = *self.since.get_or_insert(before);
        self.longest = self.longest.max(now.saturating_duration_since(before));
        if now.saturating_duration_since(since) >= Self::SPAN {
            self.before = Some(std::mem::take(&mut self.longest));
            self.since = Some(now);
        }
    }

    /// So far it may be behind the others.
    fn patience(&self) -> Duration {
        let Some(before) = self.before else {
            return ACTIVE_FOR;
        };
        let usual = self.longest.max(before) * Self::TIMES;
        usual.clamp(MISSED_AFTER, ACTIVE_FOR)
    }
}

impl From<Candidate> for LayerStatus {
    fn from(candidate: Candidate) -> Self {
        let Candidate {
            info,
            bitrate,
            active,
            cost: _,
            most: _,
            temporal,
            from_above: _,
        } = candidate;
        Self {
            rid: info.rid,
            width: info.width,
            height: info.height,
            bitrate,
            active,
            temporal_layers: temporal.top + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(last: Instant, pauses: &Pauses) -> LayerView {
        let info = LayerInfo {
            rid: Rid::from_index(0),
            width: None,
            height: None,
            target_bitrate: None,
        };
        LayerView {
            last_packet: Some(last),
            patience: pauses.patience(),
            ..Layer::new(info, Duration::ZERO).view()
        }
    }

    #[test]
    fn a_layer_that_stops_is_missed_by_its_own_measure_while_others_go_on() {
        for (every, for_so_long, patience) in [
            (33, 8_000, 500),
            // Not long enough to know.
            (33, 3_000, 2_000),
            (200, 8_000, 800),
            // Pictures of a screen.
            (1_000, 20_000, 2_000),
        ] {
            let (start, mut pauses) = (Instant::now(), Pauses::default());
            let mut last = start;
            while last < start + Duration::from_millis(for_so_long) {
                let now = last + Duration::from_millis(every);
                pauses.note(now, last);
                last = now;
            }
            let stopped = view(last, &pauses);
            let active = |newest: Instant, now: Instant| {
                let mut all = Vec::new();
                all_at(&[stopped.clone(), view(newest, &pauses)], now, &mut all);
                all[0].active
            };
            let after = |ms| last + Duration::from_millis(ms);
            assert!(active(after(patience - 1), after(patience - 1)), "{every}");
            assert!(!active(after(patience), after(patience)), "{every}");
            // All have stopped.
            assert!(active(last, after(1_999)), "{every}");
            assert!(!active(last, after(2_000)), "{every}");
            // It came and went: that is its way for a while.
            let again = after(1_500);
            pauses.note(again, last);
            assert_eq!(pauses.patience(), ACTIVE_FOR, "{every}");
        }
    }
}
