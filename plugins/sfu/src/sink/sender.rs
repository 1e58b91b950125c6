// SPDX-License-Identifier: MPL-2.0

//! The end of a branch: RTP buffers become the router's packets, on the track's common timeline.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst_rtp::RTPBuffer;
use sfu_engine::{Codec, Publisher, RtpIn, TrackKind};

/// A running time that is further than this from the clock was not produced now: a pause or a seek lies between.
const MAX_DRIFT: Duration = Duration::from_secs(1);

/// Maps running time to moments on the machine's clock, the same for all pads of an element.
#[derive(Debug, Default)]
pub(super) struct Wallclock(Mutex<Option<(gst::ClockTime, Instant)>>);

impl Wallclock {
    fn at(&self, running_time: gst::ClockTime, now: Instant) -> Instant {
        let mut anchor = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (base, instant) = *anchor.get_or_insert((running_time, now));
        let moved = if running_time >= base {
            instant.checked_add((running_time - base).into())
        } else {
            instant.checked_sub((base - running_time).into())
        };
        let near = |at: &Instant| at.max(&now).duration_since(*at.min(&now)) <= MAX_DRIFT;
        moved.filter(near).unwrap_or_else(|| {
            *anchor = Some((running_time, now));
            now
        })
    }
}

/// Sends one branch's packets.
pub(super) struct Sender {
    publisher: Arc<Publisher>,
    wallclock: Arc<Wallclock>,
    codec: Codec,
    layer: usize,
    /// What to add to the timestamps of RTP that others payloaded, fixed at the first packet.
    foreign_offset: Option<u32>,
    is_foreign: bool,
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
        }
    }

    /// Sends a frame's packets, or whatever came together.
    pub(super) fn send(&mut self, sample: &gst::SampleRef) {
        let Some(segment) = sample
            .segment()
            .and_then(|s| s.downcast_ref::<gst::ClockTime>())
        else {
            return;
        };
        let now = Instant::now();
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
        now: Instant,
    ) -> Option<RtpIn> {
        let rtp = RTPBuffer::from_buffer_readable(buffer).ok()?;
        let payload = rtp.payload().ok().filter(|p| !p.is_empty())?;
        let running_time = buffer.pts().and_then(|pts| segment.to_running_time(pts));
        let captured = running_time.map_or(now, |time| self.wallclock.at(time, now));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_time_is_mapped_the_same_for_all_pads() {
        let clock = Wallclock::default();
        let now = Instant::now() + Duration::from_secs(100);
        let ms = |n| gst::ClockTime::from_mseconds(n);
        assert_eq!(clock.at(ms(5_000), now), now);
        assert_eq!(clock.at(ms(4_980), now), now - Duration::from_millis(20));
        let later = now + Duration::from_millis(105);
        assert_eq!(clock.at(ms(5_100), later), now + Duration::from_millis(100));
        let after_a_pause = now + Duration::from_secs(60);
        assert_eq!(clock.at(ms(5_133), after_a_pause), after_a_pause);
        assert_eq!(
            clock.at(ms(5_166), after_a_pause),
            after_a_pause + Duration::from_millis(33)
        );
    }
}
