// SPDX-License-Identifier: MPL-2.0
//! What the streaming threads, the supervisor and the application's threads share.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Fallback;

/// After a pause of 700 ms the first frame of `ndisrc` came 500 to 600 ms late.
const AFTER_PAUSE: Duration = Duration::from_millis(500);

/// Latency to report before the caps are settled: one frame of the slowest common rate.
const LATENCY_BEFORE_CAPS: gst::ClockTime = gst::ClockTime::from_mseconds(42);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Video,
    Audio,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Video, Self::Audio];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Video => "video",
            Self::Audio => "audio",
        }
    }
}

/// What the supervisor is told by other threads.
#[derive(Debug)]
pub(super) enum Event {
    /// The demuxer has a pad, which is blocked until there is a branch to take its data.
    PadAdded {
        pad: gst::Pad,
        block: Option<gst::PadProbeId>,
        attempt: u32,
    },
    /// The inner source has ended or failed.
    Gone {
        reason: String,
        attempt: u32,
    },
    /// The first data of the source after a while without.
    Arrived,
    /// `ndi-name` or `url-address` was changed.
    SourceChanged,
    /// The application has ended the streams.
    Finished,
    Stop,
}

/// The part of the output's sticky events that downstream has seen already.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The one stream start of a run, until it has been sent.
    pub(super) stream_start: Option<gst::Event>,
    pub(super) caps: Option<gst::Caps>,
    pub(super) segment: Option<gst::Segment>,
}

/// State of one of the two streams.
#[derive(Debug, Default)]
pub(super) struct StreamShared {
    /// When the last buffer of the source arrived, in ns after `Shared::epoch`; 0 for never.
    last_arrival: AtomicU64,
    buffers: AtomicU64,
    /// The caps, once they are settled.
    pub(super) caps: Mutex<Option<gst::Caps>>,
    pub(super) seen: Mutex<Seen>,
}

#[derive(Debug)]
pub(super) struct Shared {
    epoch: Instant,
    events: Mutex<Option<Sender<Event>>>,
    video: StreamShared,
    audio: StreamShared,
    /// Counts the starts of the inner source, so that late news of an older one is ignored.
    pub(super) attempt: AtomicU32,
    pub(super) playing: AtomicBool,
    /// Whether the application has ended the streams: nothing may follow an end.
    pub(super) finished: AtomicBool,
    pub(super) connected: AtomicBool,
    connects: AtomicU64,
    losses: AtomicU64,
    restarts: AtomicU64,
    times: Mutex<Times>,
    /// Whether `last_frame` is to be filled.
    keep_last_frame: AtomicBool,
    last_frame: Mutex<Option<gst::Buffer>>,
    latency: AtomicU64,
}

#[derive(Debug, Default)]
struct Times {
    last_connect: Option<gst::ClockTime>,
    last_loss: Option<gst::ClockTime>,
    last_error: Option<String>,
}

/// Locks even if a thread died with the lock: nothing in here can be half written.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            events: Mutex::default(),
            video: StreamShared::default(),
            audio: StreamShared::default(),
            attempt: AtomicU32::default(),
            playing: AtomicBool::default(),
            finished: AtomicBool::default(),
            connected: AtomicBool::default(),
            connects: AtomicU64::default(),
            losses: AtomicU64::default(),
            restarts: AtomicU64::default(),
            times: Mutex::default(),
            keep_last_frame: AtomicBool::default(),
            last_frame: Mutex::default(),
            latency: AtomicU64::new(LATENCY_BEFORE_CAPS.nseconds()),
        }
    }
}

impl Shared {
    /// Begins a run: from here on events go to `events` and all counters are at zero.
    pub(super) fn start(&self, events: Sender<Event>, fallback: Fallback) {
        for kind in Kind::ALL {
            let stream = self.stream(kind);
            stream.last_arrival.store(0, Relaxed);
            stream.buffers.store(0, Relaxed);
            *lock(&stream.caps) = None;
            *lock(&stream.seen) = Seen::default();
        }
        for counter in [&self.connects, &self.losses, &self.restarts] {
            counter.store(0, Relaxed);
        }
        *lock(&self.times) = Times::default();
        self.connected.store(false, Relaxed);
        self.finished.store(false, Relaxed);
        self.keep_last_frame
            .store(fallback == Fallback::LastFrame, Relaxed);
        self.latency.store(LATENCY_BEFORE_CAPS.nseconds(), Relaxed);
        *lock(&self.events) = Some(events);
    }

    /// Ends a run: events go nowhere, caps are open again.
    pub(super) fn stop(&self) {
        *lock(&self.events) = None;
        *lock(&self.last_frame) = None;
        for kind in Kind::ALL {
            *lock(&self.stream(kind).caps) = None;
        }
    }

    pub(super) fn send(&self, event: Event) {
        if let Some(events) = &*lock(&self.events) {
            // It fails only while the supervisor is ending, and then nobody needs the event.
            let _ = events.send(event);
        }
    }

    pub(super) fn stream(&self, kind: Kind) -> &StreamShared {
        match kind {
            Kind::Video => &self.video,
            Kind::Audio => &self.audio,
        }
    }

    /// Called for each buffer of the source.
    pub(super) fn arrived(&self, kind: Kind, buffer: &gst::Buffer) {
        let stream = self.stream(kind);
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        // Not below what a pause has set: a frame from before it may still be on its way.
        stream.last_arrival.fetch_max(now.max(1), Relaxed);
        stream.buffers.fetch_add(1, Relaxed);
        if kind == Kind::Video && self.keep_last_frame.load(Relaxed) {
            *lock(&self.last_frame) = Some(buffer.clone());
        }
        if !self.connected.load(Relaxed) {
            self.send(Event::Arrived);
        }
    }

    /// PAUSED to PLAYING: what was not seen in the pause is not missing, nor what `ndisrc` takes to begin again.
    pub(super) fn resume(&self) {
        let begins = self.epoch.elapsed() + AFTER_PAUSE;
        let begins = u64::try_from(begins.as_nanos()).unwrap_or(u64::MAX);
        for kind in Kind::ALL {
            let last = &self.stream(kind).last_arrival;
            if last.load(Relaxed) > 0 {
                last.store(begins, Relaxed);
            }
        }
        self.playing.store(true, Relaxed);
    }

    /// How long ago the last buffer of the source arrived.
    pub(super) fn quiet_for(&self, kind: Kind) -> Option<Duration> {
        match self.stream(kind).last_arrival.load(Relaxed) {
            0 => None,
            at => Some(
                self.epoch
                    .elapsed()
                    .saturating_sub(Duration::from_nanos(at)),
            ),
        }
    }

    pub(super) fn last_frame(&self) -> Option<gst::Buffer> {
        lock(&self.last_frame).clone()
    }

    pub(super) fn set_connected(&self, connected: bool, now: Option<gst::ClockTime>) {
        self.connected.store(connected, Relaxed);
        let mut times = lock(&self.times);
        if connected {
            self.connects.fetch_add(1, Relaxed);
            times.last_connect = now;
        } else {
            self.losses.fetch_add(1, Relaxed);
            times.last_loss = now;
        }
    }

    pub(super) fn restarting(&self, reason: &str) {
        self.restarts.fetch_add(1, Relaxed);
        lock(&self.times).last_error = Some(reason.to_owned());
    }

    pub(super) fn latency(&self) -> gst::ClockTime {
        gst::ClockTime::from_nseconds(self.latency.load(Relaxed))
    }

    /// Returns whether this changes the latency.
    pub(super) fn set_latency(&self, latency: gst::ClockTime) -> bool {
        self.latency.swap(latency.nseconds(), Relaxed) != latency.nseconds()
    }

    /// The value of the property `stats`.
    pub(super) fn stats(&self) -> gst::Structure {
        let times = lock(&self.times);
        gst::Structure::builder("ndi-live-stats")
            .field("connected", self.connected.load(Relaxed))
            .field("connects", self.connects.load(Relaxed))
            .field("losses", self.losses.load(Relaxed))
            .field("restarts", self.restarts.load(Relaxed))
            .field("frames", self.video.buffers.load(Relaxed))
            .field("audio-buffers", self.audio.buffers.load(Relaxed))
            .field("last-connect", times.last_connect)
            .field("last-loss", times.last_loss)
            .field("last-error", times.last_error.as_deref())
            .build()
    }
}
