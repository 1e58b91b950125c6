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
            top: 0,
            from_above: 0,
            seen: None,
        }
    }

    /// Packets that were read are about to be forwarded. Returns whether something is new that viewers choose by.
    pub(crate) fn note(&mut self, now: Instant, batch: &Arc<Batch>) -> bool {
        let size = (self.info.width, self.info.height);
        let top = std::mem::replace(&mut self.top, self.reader.top());
        self.last_packet = Some(now);
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
        }
    }

    pub(crate) fn candidate(&self, now: Instant) -> Candidate {
        self.view().at(now)
    }
}

/// What there is to say of a layer but whether it is being sent, which depends on when one asks.
#[derive(Debug, Clone)]
pub(crate) struct LayerView {
    candidate: Candidate,
    last_packet: Option<Instant>,
}

impl LayerView {
    pub(crate) fn rid(&self) -> &Rid {
        &self.candidate.info.rid
    }

    /// The layer as it is now.
    pub(crate) fn at(&self, now: Instant) -> Candidate {
        Candidate {
            active: is_active(self.last_packet, now),
            ..self.candidate.clone()
        }
    }
}

fn is_active(last_packet: Option<Instant>, now: Instant) -> bool {
    last_packet.is_some_and(|at| now.saturating_duration_since(at) < ACTIVE_FOR)
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
