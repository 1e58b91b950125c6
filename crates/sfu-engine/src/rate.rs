// SPDX-License-Identifier: MPL-2.0

//! How much a track or layer sends: now, and at worst.

use std::time::Instant;

use crate::packet::{Batch, Packet};

/// RTP header with extensions and SRTP tag, in bytes.
const HEADERS: u64 = 36;
/// An old peak loses this part of itself in each second.
const PEAK_FADES: u64 = 16;

/// Bits of the last whole second.
#[derive(Debug, Default)]
pub(crate) struct RateMeter {
    since: Option<Instant>,
    bytes: u64,
    packets: u64,
    last: Option<u64>,
    peak: Option<u64>,
    most: Option<u64>,
}

impl RateMeter {
    /// Packets that came together. Returns whether there is a new measure.
    pub(crate) fn add(&mut self, now: Instant, batch: &Batch) -> bool {
        self.add_those(now, batch, |_| true)
    }

    /// Those of them that are counted.
    pub(crate) fn add_those(
        &mut self,
        now: Instant,
        batch: &Batch,
        is_counted: impl Fn(&Packet) -> bool,
    ) -> bool {
        let since = *self.since.get_or_insert(now);
        let span = now.saturating_duration_since(since).as_secs_f64();
        let measured = span >= 1.0;
        if measured {
            let rate = |bytes: u64| (bytes as f64 * 8.0 / span) as u64;
            self.last = Some(rate(self.bytes));
            self.most = self.most.max(self.last);
            let wire = rate(self.bytes + self.packets * HEADERS);
            let faded = self.peak.map_or(0, |peak| peak - peak / PEAK_FADES);
            self.peak = Some(wire.max(faded));
            self.since = Some(now);
            (self.bytes, self.packets) = (0, 0);
        }
        for packet in batch.packets.iter().filter(|p| is_counted(p)) {
            self.bytes += packet.payload.len() as u64;
            self.packets += 1;
        }
        measured
    }

    /// RTP payload of the last whole second.
    pub(crate) fn bits_per_second(&self) -> Option<u64> {
        self.last
    }

    /// RTP payload of the fullest second that there was.
    pub(crate) fn most(&self) -> Option<u64> {
        self.most
    }

    /// What it takes on the wire, in the worst of the last seconds.
    pub(crate) fn peak(&self) -> Option<u64> {
        self.peak
    }
}
