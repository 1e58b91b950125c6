// SPDX-License-Identifier: MPL-2.0

//! The end of a branch: RTP buffers become the router's packets, on the track's common timeline.

use std::sync::Arc;
use std::time::Instant;

use gst_rtp::RTPBuffer;
use sfu_engine::{Codec, Publisher, RtpIn, TrackKind};

use super::clock::{Now, Wallclock};

/// Sends one branch's packets.
pub(super) struct Sender {
    publisher: Arc<Publisher>,
    wallclock: Arc<Wallclock>,
    codec: Codec,
    layer: usize,
    /// What to add to the timestamps of RTP that others payloaded, fixed at the first packet.
    foreign_offset: Option<u32>,
    is_foreign: bool,
    /// The newest running time and when it was captured: a frame's packets have one.
    last: Option<(Option<gst::ClockTime>, Instant)>,
}

impl Sender {
    pub(super) fn new(
        publisher: Arc<Publisher>,
        wallclock: Arc<Wallclock>,
        codec: Codec,
        layer: usize,
        is_foreign: bool,
    ) -> Self {
        Self {
            publisher,
            wallclock,
            codec,
            layer,
            foreign_offset: None,
            is_foreign,
            last: None,
        }
    }

    /// Sends a frame's packets, or whatever came together.
    pub(super) fn send(&mut self, sample: &gst::SampleRef, now: Now) {
        let Some(segment) = sample
            .segment()
            .and_then(|s| s.downcast_ref::<gst::ClockTime>())
        else {
            return;
        };
        let buffers = sample
            .buffer_list()
            .into_iter()
            .flat_map(gst::BufferListRef::iter);
        let packets: Vec<RtpIn> = buffers
            .chain(sample.buffer())
            .filter_map(|buffer| self.packet(buffer, segment, now))
            .collect();
        self.publisher.push(self.kind(), self.layer, packets);
    }

    fn kind(&self) -> TrackKind {
        self.codec.kind()
    }

    fn packet(
        &mut self,
        buffer: &gst::BufferRef,
        segment: &gst::FormattedSegment<gst::ClockTime>,
        now: Now,
    ) -> Option<RtpIn> {
        let rtp = RTPBuffer::from_buffer_readable(buffer).ok()?;
        let payload = rtp.payload().ok().filter(|p| !p.is_empty())?;
        let running_time = buffer.pts().and_then(|pts| segment.to_running_time(pts));
        let captured = match self.last {
            Some((time, captured)) if time == running_time && time.is_some() => captured,
            _ => self.wallclock.at(running_time, now),
        };
        self.last = Some((running_time, captured));
        Some(RtpIn {
            seq: rtp.seq(),
            timestamp: self.timestamp(rtp.timestamp(), running_time),
            captured,
            marker: rtp.is_marker(),
            payload: payload.into(),
            red: None,
        })
    }

    /// Our payloaders write running time, as all layers need it; other RTP is moved there once and keeps its precision.
    fn timestamp(&mut self, timestamp: u32, running_time: Option<gst::ClockTime>) -> u32 {
        if !self.is_foreign {
            return timestamp;
        }
        let rate = u64::from(self.codec.clock_rate());
        let offset = *self.foreign_offset.get_or_insert_with(|| {
            let time = running_time.unwrap_or_default().nseconds();
            let ticks = u128::from(time) * u128::from(rate) / 1_000_000_000;
            (ticks as u32).wrapping_sub(timestamp)
        });
        timestamp.wrapping_add(offset)
    }
}
