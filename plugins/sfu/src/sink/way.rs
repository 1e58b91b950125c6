// SPDX-License-Identifier: MPL-2.0

//! A pad's way into the element: what comes gets the time that [`timeline`](super::timeline) gives it, and one segment that
//! begins early enough for whatever that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use sfu_engine::Codec;

use super::media::Form;
use super::timeline::{Frame, Order, Timeline, Track};

/// Where running time begins: timestamps before it can be written as well.
const ZERO: gst::ClockTime = gst::ClockTime::from_seconds(3_600 * 1_000);
/// What a seek shows begins with frames that only its decoder needs: they take this part of their time. A viewer gets them at
/// once, and as frames that differ in time.
const NEEDED: i64 = 500;

type Segment = gst::FormattedSegment<gst::ClockTime>;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Way {
    timeline: Arc<Timeline>,
    /// Upstream's, where it is one of time, in a direction in which frames can be shown as they come.
    segment: Option<Segment>,
    /// What times are stretched by: sound that is played faster is made shorter behind this.
    stretch: f64,
    /// Of frames before the segment: when the first one would have been shown, and by how much all others are later for them.
    needed: Option<i64>,
    later: i64,
    /// Before this nothing that is decoded is to be seen.
    hidden: Arc<AtomicU64>,
    /// Pictures come in the order in which they are shown.
    in_order: Arc<AtomicBool>,
    track: Option<Track>,
    /// Buffers are whole frames, each with a time of its own.
    whole: bool,
    pub(super) form: Option<Form>,
    pub(super) live: bool,
    audio: bool,
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

impl Way {
    pub(super) fn new(
        timeline: Arc<Timeline>,
        audio: bool,
        (hidden, in_order): (Arc<AtomicU64>, Arc<AtomicBool>),
    ) -> Self {
        Self {
            timeline,
            segment: None,
            stretch: 1.0,
            needed: None,
            later: 0,
            hidden,
            in_order,
            track: None,
            whole: false,
            form: None,
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
                // Backwards what is encoded would have to be decoded first.
                let shown = time.filter(|segment| segment.rate() > 0.0 || self.is_raw());
                self.segment = shown.cloned();
                self.begin_segment().map(|ours| {
                    let ours = gst::event::Segment::builder(&ours);
                    ours.seqnum(event.seqnum()).build()
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
                    let at = self.timestamp(at.saturating_add(offset));
                    let gap = gst::event::Gap::builder(at);
                    gap.duration(duration).seqnum(event.seqnum()).build()
                })
            }
            _ => None,
        };
        if let Some(replaced) = replaced {
            *event = replaced;
        }
    }

    fn is_raw(&self) -> bool {
        self.form == Some(Form::Raw)
    }

    /// Whether frames that come encoded are in the order in which they are shown: in these codecs there is no other, or, as
    /// parameter sets say, in this stream.
    fn is_in_order(&self) -> bool {
        match self.form {
            Some(Form::Encoded(Codec::Vp8 | Codec::Vp9 | Codec::Av1)) => true,
            Some(Form::Encoded(_)) => self.in_order.load(Relaxed),
            _ => false,
        }
    }

    /// What goes on instead of a segment of upstream's: whatever its rate, frames are dated by when they are to be shown.
    fn begin_segment(&mut self) -> Option<Segment> {
        (self.needed, self.later) = (None, 0);
        self.hidden.store(0, Relaxed);
        let rate = self.segment.as_ref()?.rate().abs();
        // `scaletempo` needs to know.
        self.stretch = if self.audio && self.is_raw() {
            rate
        } else {
            1.0
        };
        let mut ours = Segment::new();
        ours.set_rate(self.stretch);
        ours.set_start(ZERO);
        ours.set_time(gst::ClockTime::ZERO);
        Some(ours)
    }

    fn timestamp(&self, running_time: i64) -> gst::ClockTime {
        let time = if self.stretch == 1.0 {
            running_time
        } else {
            (running_time as f64 * self.stretch) as i64
        };
        gst::ClockTime::from_nseconds(ZERO.nseconds().saturating_add_signed(time))
    }

    /// A buffer comes, `now` being the running time. Returns whether it is to be shown at all.
    pub(super) fn buffer(&mut self, buffer: &mut gst::Buffer, now: Option<gst::ClockTime>) -> bool {
        let Some(segment) = &self.segment else {
            return true;
        };
        let clipped = |pts| segment.to_running_time(pts).is_none();
        if self.is_raw() && !self.live && buffer.pts().is_some_and(clipped) {
            return false;
        }
        if self.is_over(buffer) {
            return false;
        }
        if self.is_needed(buffer) {
            self.write_needed(buffer);
            return true;
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
        let forward = self.is_raw() || self.audio || buffer.dts().is_some() || self.is_in_order();
        let order = match (forward, self.is_raw() || self.whole) {
            (true, true) => Order::Strict,
            (true, false) => Order::Parts,
            (false, true) => Order::Decoding,
            (false, false) => Order::DecodingParts,
        };
        let time = running_time(segment, buffer.dts_or_pts());
        let time = time.map(|time| time.saturating_add(self.later));
        let frame = Frame {
            time,
            duration: self
                .shown_for(buffer)
                .and_then(|d| i64::try_from(d.nseconds()).ok()),
            came: Instant::now(),
            now: now
                .filter(|_| self.live)
                .and_then(|now| i64::try_from(now.nseconds()).ok()),
        };
        let track = self.track.get_or_insert_with(|| Track::new(order));
        track.set_order(order);
        let out = track.at(&self.timeline, frame);
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
            let time = running_time(segment, time)?.saturating_add(self.later);
            Some(self.timestamp(time.saturating_add(by)))
        };
        let (pts, dts) = match shift {
            Shift::By(by) => (moved(buffer.pts(), by), moved(buffer.dts(), by)),
            Shift::To(out) => (Some(self.timestamp(out)), None),
        };
        let is_stretched = self.audio && self.is_raw();
        let duration = if is_stretched {
            buffer.duration()
        } else {
            self.shown_for(buffer)
        };
        let buffer = buffer.make_mut();
        buffer.set_pts(pts);
        buffer.set_dts(dts);
        buffer.set_duration(duration);
    }

    /// How long a buffer lasts at the segment's rate.
    fn shown_for(&self, buffer: &gst::BufferRef) -> Option<gst::ClockTime> {
        let rate = self.segment.as_ref().map_or(1.0, |s| s.rate().abs());
        let duration = buffer.duration()?;
        if rate == 1.0 {
            return Some(duration);
        }
        let nanoseconds = duration.nseconds() as f64 / rate;
        Some(gst::ClockTime::from_nseconds(nanoseconds as u64))
    }

    /// Whether it is behind the segment: demuxers go on to the next keyframe. What is decoded before it stays.
    fn is_over(&self, buffer: &gst::BufferRef) -> bool {
        let stop = self.segment.as_ref().and_then(gst::FormattedSegment::stop);
        let behind =
            |time: Option<gst::ClockTime>| time.zip(stop).is_some_and(|(t, stop)| t >= stop);
        let forward = self.segment.as_ref().is_some_and(|s| s.rate() > 0.0);
        let encoded = matches!(self.form, Some(Form::Encoded(_)));
        encoded && !self.live && forward && behind(buffer.pts()) && behind(buffer.dts_or_pts())
    }

    /// Whether a frame comes for what is decoded after it alone: a seek is to a time between two keyframes.
    fn is_needed(&self, buffer: &gst::BufferRef) -> bool {
        let encoded = matches!(self.form, Some(Form::Encoded(_)));
        let start = self.segment.as_ref().and_then(gst::FormattedSegment::start);
        let before = buffer
            .pts()
            .zip(start)
            .is_some_and(|(pts, start)| pts < start);
        encoded && !self.audio && !self.live && before
    }

    fn write_needed(&mut self, buffer: &mut gst::Buffer) {
        let Some(segment) = self.segment.clone() else {
            return;
        };
        let begins = running_time(&segment, segment.start()).unwrap_or_default();
        let at = running_time(&segment, buffer.dts_or_pts()).unwrap_or(begins);
        let first = *self.needed.get_or_insert(at);
        self.later = begins.saturating_sub(first).max(0) / NEEDED + 1;
        let newest = || self.timeline.newest();
        let offset = self.track.as_ref().map_or_else(newest, Track::offset);
        let from = begins.saturating_add(offset);
        let squeezed = |time: Option<gst::ClockTime>| {
            let since = running_time(&segment, time)?.saturating_sub(first);
            Some(self.timestamp(from.saturating_add(since / NEEDED)))
        };
        let (pts, dts) = (squeezed(buffer.pts()), squeezed(buffer.dts()));
        let until = self.timestamp(from.saturating_add(self.later));
        self.hidden.store(until.nseconds(), Relaxed);
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
