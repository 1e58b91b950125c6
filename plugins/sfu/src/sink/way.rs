// SPDX-License-Identifier: MPL-2.0

//! A pad's way into the element: what comes gets the time that [`timeline`](super::timeline) gives it, and one segment that
//! begins early enough for whatever that is.

use std::sync::Arc;
use std::time::Instant;

use super::timeline::{Frame, Order, Timeline, Track};

/// Where running time begins: timestamps before it can be written as well.
const ZERO: gst::ClockTime = gst::ClockTime::from_seconds(3_600 * 1_000);

type Segment = gst::FormattedSegment<gst::ClockTime>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Way {
    timeline: Arc<Timeline>,
    /// Upstream's, where it is one of time in the normal direction.
    segment: Option<Segment>,
    track: Option<Track>,
    /// Buffers are whole frames, each with a time of its own.
    whole: bool,
    pub(super) raw: bool,
    pub(super) live: bool,
    pub(super) audio: bool,
}

/// The running time of a timestamp, which may be before the segment.
fn running_time(segment: &Segment, time: Option<gst::ClockTime>) -> Option<i64> {
    let (sign, time) = match segment.to_running_time_full(time?)? {
        gst::Signed::Positive(time) => (1, time),
        gst::Signed::Negative(time) => (-1, time),
    };
    i64::try_from(time.nseconds()).ok().map(|time| sign * time)
}

/// Whether buffers of these caps are frames, and not parts of them.
fn is_whole(caps: &gst::StructureRef) -> bool {
    let alignment = caps.get::<&str>("alignment").ok();
    match caps.name().as_str() {
        "application/x-rtp" => false,
        "video/x-h264" | "video/x-h265" => alignment == Some("au"),
        "video/x-av1" => matches!(alignment, Some("tu" | "frame")),
        _ => true,
    }
}

fn timestamp(running_time: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(ZERO.nseconds().saturating_add_signed(running_time))
}

impl Way {
    pub(super) fn new(timeline: Arc<Timeline>, audio: bool) -> Self {
        Self {
            timeline,
            segment: None,
            track: None,
            whole: false,
            raw: false,
            live: true,
            audio,
        }
    }

    /// The next run.
    pub(super) fn begin(&mut self, timeline: &Arc<Timeline>) {
        if !Arc::ptr_eq(&self.timeline, timeline) {
            self.timeline = timeline.clone();
            self.track = None;
        }
    }

    /// An event comes. It may become another one.
    pub(super) fn event(&mut self, event: &mut gst::Event) {
        let replaced = match event.view() {
            gst::EventView::Segment(segment) => {
                let time = segment.segment().downcast_ref::<gst::ClockTime>();
                self.segment = time.filter(|segment| segment.rate() == 1.0).cloned();
                self.segment.as_ref().map(|_| {
                    let mut ours = Segment::new();
                    ours.set_start(ZERO);
                    ours.set_time(gst::ClockTime::ZERO);
                    gst::event::Segment::builder(&ours)
                        .seqnum(event.seqnum())
                        .build()
                })
            }
            gst::EventView::Caps(caps) => {
                self.whole = caps.caps().structure(0).is_some_and(is_whole);
                None
            }
            gst::EventView::FlushStop(_) => {
                // Running time begins anew, and upstream chooses where.
                self.timeline.forget();
                self.track = None;
                None
            }
            gst::EventView::Gap(gap) => {
                let (at, duration) = gap.get();
                let offset = self.track.as_ref().map_or(0, Track::offset);
                let at = self
                    .segment
                    .as_ref()
                    .and_then(|s| running_time(s, Some(at)));
                at.map(|at| {
                    let gap = gst::event::Gap::builder(timestamp(at.saturating_add(offset)));
                    gap.duration(duration).seqnum(event.seqnum()).build()
                })
            }
            _ => None,
        };
        if let Some(replaced) = replaced {
            *event = replaced;
        }
    }

    /// A buffer comes, `now` being the running time. Returns whether it is to be shown at all.
    pub(super) fn buffer(&mut self, buffer: &mut gst::Buffer, now: Option<gst::ClockTime>) -> bool {
        let Some(segment) = &self.segment else {
            return true;
        };
        let clipped = |pts| segment.to_running_time(pts).is_none();
        if self.raw && !self.live && buffer.pts().is_some_and(clipped) {
            return false;
        }
        let shift = self.shift(buffer, now);
        self.write(buffer, shift);
        true
    }

    /// Buffers come together: the first one's time counts.
    pub(super) fn list(&mut self, list: &mut gst::BufferList, now: Option<gst::ClockTime>) {
        let Some(first) = list.get(0).filter(|_| self.segment.is_some()) else {
            return;
        };
        let shift = self.shift(first, now);
        let mut moved = gst::BufferList::new_sized(list.len());
        if let Some(moved) = moved.get_mut() {
            for mut buffer in list.iter_owned() {
                self.write(&mut buffer, shift);
                moved.add(buffer);
            }
        }
        *list = moved;
    }

    /// How far the buffer's times are to be moved, or where to, if it has none.
    fn shift(&mut self, buffer: &gst::BufferRef, now: Option<gst::ClockTime>) -> Shift {
        let Some(segment) = &self.segment else {
            return Shift::By(0);
        };
        let forward = self.raw || self.audio || buffer.dts().is_some();
        let order = match (forward, self.raw || self.whole) {
            (true, true) => Order::Strict,
            (true, false) => Order::Parts,
            (false, true) => Order::Decoding,
            (false, false) => Order::DecodingParts,
        };
        let time = running_time(segment, buffer.dts_or_pts());
        let frame = Frame {
            time,
            duration: buffer
                .duration()
                .and_then(|d| i64::try_from(d.nseconds()).ok()),
            came: Instant::now(),
            now: now
                .filter(|_| self.live)
                .and_then(|now| i64::try_from(now.nseconds()).ok()),
        };
        let out = self
            .track
            .get_or_insert_with(|| Track::new(order))
            .at(&self.timeline, frame);
        match time {
            Some(time) => Shift::By(out.saturating_sub(time)),
            None => Shift::To(out),
        }
    }

    fn write(&self, buffer: &mut gst::Buffer, shift: Shift) {
        let Some(segment) = &self.segment else {
            return;
        };
        let moved = |time: Option<gst::ClockTime>, by: i64| {
            Some(timestamp(running_time(segment, time)?.saturating_add(by)))
        };
        let (pts, dts) = match shift {
            Shift::By(by) => (moved(buffer.pts(), by), moved(buffer.dts(), by)),
            Shift::To(out) => (Some(timestamp(out)), None),
        };
        let buffer = buffer.make_mut();
        buffer.set_pts(pts);
        buffer.set_dts(dts);
    }
}

#[derive(Debug, Clone, Copy)]
enum Shift {
    By(i64),
    To(i64),
}
