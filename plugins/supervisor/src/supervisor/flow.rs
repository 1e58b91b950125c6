// SPDX-License-Identifier: MPL-2.0

//! Whether anything comes to the sinks of a pipeline while it plays: some demuxers never tell that their file is over, and some
//! cameras go silent while their connection stays.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::settings::StallOf;
use crate::lock;

/// It is looked so often in the time that nothing may come.
const LOOKS: u32 = 4;
/// Pictures that a new start did not bring back are waited for twice as long each time, so often: sound may go on meanwhile.
const DOUBLES: u32 = 5;

/// What has come to a sink's pad.
#[derive(Debug)]
struct Watched {
    pad: glib::WeakRef<gst::Pad>,
    count: Arc<AtomicU64>,
}

impl Watched {
    fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    fn caps(&self) -> Option<gst::Caps> {
        self.pad.upgrade()?.current_caps()
    }

    fn is_video(&self) -> bool {
        let caps = self.caps();
        let media = caps.as_ref().and_then(|caps| caps.structure(0));
        media.is_some_and(|media| {
            let name = media.name();
            let is_rtp = name == "application/x-rtp" && media.get("media") == Ok("video");
            name.starts_with("video/") || name.starts_with("image/") || is_rtp
        })
    }
}

/// A count as it was, and since when it has been that.
#[derive(Debug)]
struct Seen(u64, Instant);

impl Seen {
    /// How long it had been that until now, where that is over.
    fn gap(&self, count: u64, now: Instant) -> Option<Duration> {
        (count != self.0 && self.0 > 0).then(|| now.saturating_duration_since(self.1))
    }

    /// For how long it has been that now. What has not begun can't stall.
    fn look(&mut self, count: u64, has_begun: bool, now: Instant) -> Duration {
        if count != self.0 || !has_begun {
            *self = Self(count, now);
        }
        now.saturating_duration_since(self.1)
    }
}

/// What one run leaves to the next, of the same source, about pictures.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pictures {
    /// There were some, so that there should be.
    expected: bool,
    /// Starts that did not bring them back.
    misses: u32,
    /// The longest that they have taken to come, and came.
    slowest: Duration,
}

/// What has stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stalled {
    Everything,
    /// Something else still comes.
    Video,
}

/// Counts what comes to the sinks.
#[derive(Debug)]
pub(super) struct Flow {
    pads: Arc<Mutex<Vec<Watched>>>,
    all: Seen,
    video: Seen,
    /// When the first picture was seen.
    first: Option<Instant>,
    pictures: Pictures,
    looked: Instant,
    limit: Duration,
    of: StallOf,
}

impl Flow {
    /// Of this pipeline, before it starts. A `limit` of 0 is none.
    pub(super) fn of(
        pipeline: &gst::Pipeline,
        limit: Duration,
        of: StallOf,
        pictures: Pictures,
    ) -> Self {
        let now = Instant::now();
        let flow = Self {
            pads: Arc::default(),
            all: Seen(0, now),
            video: Seen(0, now),
            first: None,
            pictures,
            looked: now,
            limit,
            of,
        };
        if !limit.is_zero() {
            for sink in pipeline.iterate_sinks().into_iter().flatten() {
                let pads = flow.pads.clone();
                sink.connect_pad_added(move |_, pad| watch(pad, &pads));
                for pad in sink.sink_pads() {
                    watch(&pad, &flow.pads);
                }
            }
        }
        flow
    }

    /// It plays from now on.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        (self.all.1, self.video.1, self.looked) = (now, now, now);
    }

    /// When to look again.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.limit.is_zero()).then(|| self.looked + self.limit / LOOKS)
    }

    /// What has not come for as long as that may be, though it had begun, and how long that is.
    pub(super) fn stalled(&mut self, now: Instant) -> Option<(Stalled, Duration)> {
        self.due().filter(|due| *due <= now)?;
        self.looked = now;
        let mut pads = lock(&self.pads);
        pads.retain(|pad| pad.pad.upgrade().is_some());
        let count: u64 = pads.iter().map(Watched::count).sum();
        // Some sources tell what they will send before they send anything.
        let has_begun = count > 0 || pads.iter().any(|pad| pad.caps().is_some());
        if self.all.look(count, has_begun, now) >= self.limit {
            return Some((Stalled::Everything, self.limit));
        }
        if self.of == StallOf::Everything {
            return None;
        }
        let video = pads.iter().filter(|pad| pad.is_video());
        let count: u64 = video.map(Watched::count).sum();
        drop(pads);
        if count > 0 {
            self.first.get_or_insert(now);
            self.pictures.expected = true;
        }
        let gap = self.video.gap(count, now).unwrap_or_default();
        self.pictures.slowest = self.pictures.slowest.max(gap);
        let quiet = self.video.look(count, self.pictures.expected, now);
        // Where they went on for a while the start was a good one.
        let came = self
            .first
            .map(|first| self.video.1.saturating_duration_since(first));
        if came >= Some(self.limit) {
            self.pictures.misses = 0;
        }
        let longest = self.limit * (1 << DOUBLES);
        let patience = self.limit * (1 << self.pictures.misses);
        let patience = patience.max(2 * self.pictures.slowest).min(longest);
        if quiet < patience {
            return None;
        }
        if came < Some(self.limit) {
            self.pictures.misses = (self.pictures.misses + 1).min(DOUBLES);
        }
        Some((Stalled::Video, patience))
    }

    /// What is to be known by the next run.
    pub(super) fn pictures(&self) -> Pictures {
        self.pictures
    }
}

fn watch(pad: &gst::Pad, pads: &Mutex<Vec<Watched>>) {
    if pad.direction() == gst::PadDirection::Sink {
        let count = Arc::<AtomicU64>::default();
        lock(pads).push(Watched {
            pad: pad.downgrade(),
            count: count.clone(),
        });
        let mask = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(mask, move |_, _| {
            count.fetch_add(1, Relaxed);
            gst::PadProbeReturn::Ok
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A pipeline with a picture and sound, and how it flows.
    struct Run {
        pipeline: gst::Pipeline,
        sinks: [gst::Pad; 2],
        flow: Flow,
        begun: Instant,
    }

    impl Run {
        fn after(pictures: Pictures) -> Self {
            gst::init().unwrap();
            let pipeline = gst::Pipeline::new();
            let sinks = ["video/x-raw", "audio/x-raw"].map(|_| {
                let sink = gst::ElementFactory::make("fakesink").property("async", false);
                let sink = sink.build().unwrap();
                pipeline.add(&sink).unwrap();
                sink.static_pad("sink").unwrap()
            });
            let mut flow = Flow::of(&pipeline, LIMIT, StallOf::Video, pictures);
            pipeline.set_state(gst::State::Playing).unwrap();
            flow.begin();
            Self {
                pipeline,
                sinks,
                flow,
                begun: Instant::now(),
            }
        }

        fn comes(&self, kind: usize) {
            let pad = &self.sinks[kind];
            if pad.current_caps().is_none() {
                let caps = gst::Caps::new_empty_simple(["video/x-raw", "audio/x-raw"][kind]);
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                assert!(pad.send_event(gst::event::StreamStart::new("a")));
                assert!(pad.send_event(gst::event::Caps::new(&caps)));
                assert!(pad.send_event(gst::event::Segment::new(&segment)));
            }
            pad.chain(gst::Buffer::new()).unwrap();
        }

        /// Sound comes each second, and pictures in the first `pictures` ones. Returns when which of them has stalled.
        fn stalls(&mut self, pictures: u64, until: u64) -> Option<(u64, Stalled, Duration)> {
            self.stalls_where(until, |second| second < pictures)
        }

        /// The same of pictures in these seconds.
        fn stalls_where(
            &mut self,
            until: u64,
            shows: impl Fn(u64) -> bool,
        ) -> Option<(u64, Stalled, Duration)> {
            (0..until).find_map(|second| {
                self.comes(1);
                if shows(second) {
                    self.comes(0);
                }
                let now = self.begun + Duration::from_secs(second);
                let stalled = self.flow.stalled(now);
                stalled.map(|(what, patience)| (second, what, patience))
            })
        }
    }

    impl Drop for Run {
        fn drop(&mut self) {
            let _ = self.pipeline.set_state(gst::State::Null);
        }
    }

    #[test]
    fn pictures_that_do_not_come_back_are_waited_for_longer_each_time() {
        let mut pictures = Pictures::default();
        // How many come, for how long they are missed, and so how long it was.
        for (come, patience) in [
            (30, 10),
            (0, 10),
            (0, 20),
            (0, 40),
            // A few at each start are no good one.
            (3, 80),
            (0, 160),
            (0, 320),
            (0, 320),
            (60, 10),
            (0, 10),
            (0, 20),
        ] {
            let mut run = Run::after(pictures);
            let (second, what, waited) = run.stalls(come, 1_000).expect("it stalls");
            assert_eq!((what, waited.as_secs()), (Stalled::Video, patience));
            let late = second.saturating_sub(come + patience);
            assert!(
                second >= come.saturating_sub(1) + patience && late <= 4,
                "{second}"
            );
            pictures = run.flow.pictures();
        }
    }

    #[test]
    fn pictures_that_are_slow_are_waited_for_once_that_is_known() {
        let mut pictures = Pictures::default();
        let mut stalls = Vec::new();
        for _ in 0..4 {
            let mut run = Run::after(pictures);
            // The first one comes at once.
            let stalled = run.stalls_where(300, |second| second % 25 == 0);
            stalls.push(stalled.map(|(second, ..)| second));
            pictures = run.flow.pictures();
        }
        assert!(stalls[0].is_some(), "{stalls:?}");
        assert_eq!(stalls[2..], [None, None], "{stalls:?}");
    }

    #[test]
    fn sound_alone_goes_on_where_there_were_no_pictures() {
        let mut run = Run::after(Pictures::default());
        assert_eq!(run.stalls(0, 1_000), None);
        assert!(!run.flow.pictures().expected);
        let mut run = Run::after(Pictures::default());
        assert_eq!(run.stalls(1_000, 1_000), None);
    }
}
