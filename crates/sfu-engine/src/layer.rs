// SPDX-License-Identifier: MPL-2.0

//! One layer of a stream's video: how its packets are read, what is kept of them, and what is known of it.
//!
//! Owned by the [`Stream`](crate::stream::Stream), on the publisher's side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gop::GopCache;
use crate::info::LayerStatus;
use crate::keyframe::KeyframeArbiter;
use crate::layers::{ACTIVE_FOR, Candidate, LayerInfo, TemporalCosts};
use crate::loss::LossWatch;
use crate::packet::{Batch, LayerReader};
use crate::rate::RateMeter;
use crate::ring::Ring;
use crate::temporal::{CUTS, Limit};

/// See the module's description.
pub(crate) struct Layer {
    pub(crate) info: LayerInfo,
    pub(crate) reader: LayerReader,
    pub(crate) gop: GopCache,
    pub(crate) ring: Ring,
    pub(crate) arbiter: KeyframeArbiter,
    pub(crate) loss: LossWatch,
    rate: RateMeter,
    /// The same of its temporal layers up to number 0, 1 and 2.
    temporal_rates: [RateMeter; CUTS],
    last_packet: Option<Instant>,
}

impl Layer {
    pub(crate) fn new(info: LayerInfo, keyframe_min_interval: Duration) -> Self {
        Self {
            info,
            reader: LayerReader::default(),
            gop: GopCache::default(),
            ring: Ring::default(),
            arbiter: KeyframeArbiter::new(keyframe_min_interval),
            loss: LossWatch::default(),
            rate: RateMeter::default(),
            temporal_rates: Default::default(),
            last_packet: None,
        }
    }

    /// Packets that were read are about to be forwarded.
    pub(crate) fn note(&mut self, now: Instant, batch: &Arc<Batch>) {
        self.last_packet = Some(now);
        self.rate.add(now, batch);
        for (id, rate) in (0..).zip(&mut self.temporal_rates) {
            rate.add_those(now, batch, |p| p.temporal.is_within(Limit::up_to(id)));
        }
        if let Some((width, height)) = self.reader.size {
            self.info.width = Some(width);
            self.info.height = Some(height);
        }
        for packet in &batch.packets {
            self.loss.packet(now, packet.seq, packet.keyframe_start);
            if packet.keyframe_start {
                self.arbiter.keyframe();
            }
        }
        self.gop.push(now, batch);
        self.ring.push(batch);
    }

    fn is_active(&self, now: Instant) -> bool {
        self.last_packet
            .is_some_and(|at| now.saturating_duration_since(at) < ACTIVE_FOR)
    }

    pub(crate) fn candidate(&self, now: Instant) -> Candidate {
        let costs = self.temporal_rates.each_ref().map(RateMeter::peak);
        Candidate {
            info: self.info.clone(),
            bitrate: self.rate.bits_per_second().or(self.info.target_bitrate),
            cost: self.rate.peak().or(self.info.target_bitrate),
            active: self.is_active(now),
            temporal: TemporalCosts::new(self.reader.top(), costs),
        }
    }

    pub(crate) fn status(&self, now: Instant) -> LayerStatus {
        let Candidate {
            info,
            bitrate,
            active,
            cost: _,
            temporal,
        } = self.candidate(now);
        LayerStatus {
            rid: info.rid,
            width: info.width,
            height: info.height,
            bitrate,
            active,
            temporal_layers: temporal.top + 1,
        }
    }
}
