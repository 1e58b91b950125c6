// SPDX-License-Identifier: MPL-2.0

//! A layer's keyframe that comes while a frame of the other layer is still on its way: it waits until that is whole.
//!
//! Publishers spread their packets over time, so that the layers' frames interleave. Cut in the middle, the old layer's
//! last frame would be lost to the decoder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::packet::{Batch, Packet};

/// The rest of a frame that has not come by then is late or lost.
const PATIENCE: Duration = Duration::from_millis(50);

/// See the module's description.
#[derive(Debug)]
pub(super) struct Handover {
    layer: usize,
    until: Instant,
    packets: Vec<(Arc<Batch>, usize)>,
}

impl Handover {
    /// Begins with a keyframe's first packet.
    pub(super) fn begin(now: Instant, batch: &Arc<Batch>, index: usize) -> Self {
        Self {
            layer: batch.layer,
            until: now + PATIENCE,
            packets: vec![(batch.clone(), index)],
        }
    }

    /// The layer that waits.
    pub(super) fn layer(&self) -> usize {
        self.layer
    }

    /// When it waits no longer.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Another packet of the layer that waits.
    pub(super) fn push(&mut self, batch: &Arc<Batch>, index: usize) {
        self.packets.push((batch.clone(), index));
    }

    /// What has waited, in order.
    pub(super) fn packets(&self) -> impl Iterator<Item = &Packet> {
        self.packets
            .iter()
            .map(|(batch, index)| &batch.packets[*index])
    }
}
