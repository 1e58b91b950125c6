// SPDX-License-Identifier: MPL-2.0

//! The end of a branch: RTP buffers become the router's packets, on the track's common timeline.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Instant;

use gst_rtp::RTPBuffer;
use sfu_engine::{Codec, Publisher, RtpIn, TrackKind};

use super::clock::{Now, Wallclock};
use super::timeline::{Frame, Order, Timeline, Track};

/// Sends one branch's packets.
pub(super) struct Sender {
    /// The element's: what it has stopped publishing nobody goes on with, however long messages on a bus keep this.
    publisher: Weak<Publisher>,
    wallclock: Arc<Wallclock>,
    timeline: Arc<Timeline>,
    track: Track,
    /// Upstream has begun elsewhere.
    flushed: Arc<AtomicBool>,
    codec: Codec,
    layer: usize,
    /// What to add to the timestamps of RTP that others payloaded, fixed at the first packet and where they step.
    foreign_offset: Option<u32>,
    is_foreign: bool,
    /// The newest running time and when it was captured: a frame's packets have one.
    last: Option<(Option<gst::ClockTime>, Instant)>,
}

impl Sender {
    pub(super) fn new(
        publisher: &Arc<Publisher>,
        wallclock: Arc<Wallclock>,
        timeline: Arc<Timeline>,
        codec: Codec,
        layer: usize,
        is_foreign: bool,
    ) -> Self {
        Self {
            publisher: Arc::downgrade(publisher),
            wallclock,
            timeline,
            track: Track::new(Order::DecodingParts),
            flushed: Arc::default(),
            codec,
            layer,
            foreign_offset: None,
            is_foreign,
            last: None,
        }
    }

    /// To be set when a flush ends.
    pub(super) fn flushed(&self) -> Arc<AtomicBool> {
        self.flushed.clone()
    }

    /// Sends a frame's packets, or whatever came together.
    pub(super) fn send(&mut self, sample: &gst::SampleRef, now: Now) {
        let Some(publisher) = self.publisher.upgrade() else {
            return;
        };
        if self.flushed.swap(false, Relaxed) {
            self.track.interrupt();
        }
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
        publisher.push(self.kind(), self.layer, packets);
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
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
            timestamp: self.timestamp(rtp.timestamp(), running_time, now),
            captured,
            marker: rtp.is_marker(),
            payload: payload.into(),
            red: None,
            layering: sfu_engine::Layering::default(),
        })
    }

    /// Our payloaders write running time, as all layers need it; other RTP is moved there and keeps its precision. Where
    /// running time begins anew, viewers' time goes on.
    fn timestamp(&mut self, timestamp: u32, running_time: Option<gst::ClockTime>, now: Now) -> u32 {
        let signed = |time: gst::ClockTime| i64::try_from(time.nseconds()).ok();
        let frame = Frame {
            time: running_time.and_then(signed),
            duration: None,
            came: now.instant(),
            now: now.running_time().and_then(signed),
        };
        let moved = match frame.time {
            Some(time) => self.track.at(&self.timeline, frame).saturating_sub(time),
            None => self.track.offset(),
        };
        let moved = self.ticks(moved);
        if !self.is_foreign {
            return timestamp.wrapping_add(moved);
        }
        let wanted = running_time.and_then(signed).map(|time| self.ticks(time));
        let offset = self.foreign_offset.unwrap_or_default();
        let off = |wanted: u32| wanted.wrapping_sub(timestamp.wrapping_add(offset)) as i32;
        let second = self.codec.clock_rate();
        let offset = match wanted {
            Some(wanted)
                if self.foreign_offset.is_none() || off(wanted).unsigned_abs() > second =>
            {
                wanted.wrapping_sub(timestamp)
            }
            _ => offset,
        };
        self.foreign_offset = Some(offset);
        timestamp.wrapping_add(offset).wrapping_add(moved)
    }

    fn ticks(&self, nanoseconds: i64) -> u32 {
        let ticks = i128::from(nanoseconds) * i128::from(self.codec.clock_rate()) / 1_000_000_000;
        ticks as u32
    }
}
