// SPDX-License-Identifier: MPL-2.0
//! The thread that keeps a running element going: it settles caps, starts slates, connects the
//! source's streams, starts the receiver again when it has ended, and tells of every change.
//!
//! It is the only one that changes what is inside the bin while that runs, so none of this needs
//! a lock, and nothing of it happens on a streaming thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::branch::Branch;
use super::caps;
use super::imp::CAT;
use super::ingest::Ingest;
use super::settings::Settings;
use super::shared::{Event, Kind, Shared, lock};
use super::slate::{self, Slate};
use super::stream::{Failure, Stream};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// What runs of one stream, besides its `Stream`.
#[derive(Debug, Default)]
struct Track {
    branch: Option<Branch>,
    slate: Option<Slate>,
    /// Nothing downstream can take: said once, tried no more.
    refused: bool,
}

#[derive(Debug)]
pub(super) struct Supervisor {
    bin: super::NdiLiveSrc,
    shared: Arc<Shared>,
    settings: Settings,
    events: Receiver<Event>,
    ingest: Ingest,
    streams: [Arc<Stream>; 2],
    tracks: [Track; 2],
    group: gst::GroupId,
    started: Instant,
    /// When to start the source again; none while it runs.
    retry_at: Option<Instant>,
    retry_after: Duration,
    /// Whether the slate already shows the last frame of the source that is falling silent.
    kept_last_frame: bool,
}

impl Supervisor {
    pub(super) fn new(
        bin: &super::NdiLiveSrc,
        events: Receiver<Event>,
        ingest: Ingest,
        streams: [Arc<Stream>; 2],
    ) -> Self {
        let imp = bin.imp();
        Self {
            bin: bin.clone(),
            shared: Arc::clone(imp.shared()),
            settings: imp.settings(),
            events,
            ingest,
            streams,
            tracks: Default::default(),
            group: gst::GroupId::next(),
            started: Instant::now(),
            retry_at: Some(Instant::now()),
            retry_after: RETRY_FIRST,
            kept_last_frame: false,
        }
    }

    /// Runs until it is told to stop, and returns what is to be dismantled then.
    pub(super) fn run(mut self) -> Self {
        // Short enough to be within the second that a loss may go unseen, long enough to cost
        // nothing.
        let tick = (self.settings.timeout() / 5).min(Duration::from_millis(100));
        for kind in Kind::ALL {
            if caps::complete(kind, &self.settings) {
                self.settle(kind, None);
            }
        }
        loop {
            match self.events.recv_timeout(tick) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return self,
                Ok(event) => self.handle(event),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.tick();
        }
    }

    fn handle(&mut self, event: Event) {
        let current = self.shared.attempt.load(Relaxed);
        let finished = self.shared.finished.load(Relaxed);
        match event {
            // It needs no source any more, and an event may have been under way.
            Event::Gone { .. } | Event::Arrived | Event::SourceChanged if finished => {}
            Event::PadAdded {
                pad,
                block,
                attempt,
            } => {
                let is_current = attempt == current && self.retry_at.is_none();
                let failed = is_current.then(|| self.connect(&pad)).flatten();
                // Before it is stopped: a thread that is held there would not end.
                if let Some(block) = block {
                    pad.remove_probe(block);
                }
                if let Some(reason) = failed {
                    self.restart(&reason);
                }
            }
            Event::Gone { reason, attempt } if attempt == current && self.retry_at.is_none() => {
                self.restart(&reason);
            }
            Event::Finished => {
                self.retry_at = None;
                self.disconnect();
            }
            Event::Arrived if self.retry_at.is_none() => self.set_connected(true, "frames arrive"),
            Event::Gone { .. } | Event::Arrived | Event::Stop => {}
            Event::SourceChanged => {
                // In this order, so that nothing of the old one arrives after it is gone.
                self.restart("another source was chosen");
                self.set_connected(false, "another source was chosen");
                self.retry_after = RETRY_FIRST;
                self.retry_at = Some(Instant::now());
            }
        }
    }

    fn tick(&mut self) {
        if self.shared.finished.load(Relaxed) {
            return;
        }
        if self.started.elapsed() >= self.settings.start_timeout() {
            for kind in Kind::ALL {
                self.settle(kind, None);
            }
        }
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            self.settings = self.bin.imp().settings();
            if let Err(err) = self.ingest.start(&self.settings, &self.shared) {
                self.restart(&err.to_string());
            }
        }
        if self.shared.playing.load(Relaxed) {
            self.watch();
        }
    }

    /// Looks for the source having fallen silent.
    fn watch(&mut self) {
        let timeout = self.settings.timeout();
        let video = self.shared.quiet_for(Kind::Video);
        // Before the switch turns to the slate, so that no older picture flashes up.
        if video.is_some_and(|quiet| quiet >= timeout / 2) {
            if !std::mem::replace(&mut self.kept_last_frame, true)
                && let (Some(slate), Some(frame)) = (
                    &self.tracks[Kind::Video as usize].slate,
                    self.shared.last_frame(),
                )
            {
                slate.show(&frame);
            }
        } else {
            self.kept_last_frame = false;
        }
        let quiet = [video, self.shared.quiet_for(Kind::Audio)]
            .into_iter()
            .flatten()
            .min();
        if self.shared.connected.load(Relaxed) && quiet.is_none_or(|quiet| quiet >= timeout) {
            self.set_connected(false, "no frames arrive");
        }
    }

    fn track(&mut self, kind: Kind) -> &mut Track {
        &mut self.tracks[kind as usize]
    }

    fn stream(&self, kind: Kind) -> &Arc<Stream> {
        &self.streams[kind as usize]
    }

    /// Settles the caps of a pad, unless they are, and starts its slate.
    fn settle(&mut self, kind: Kind, source: Option<&gst::Caps>) {
        let track = self.track(kind);
        if track.slate.is_some() || track.refused {
            return;
        }
        let stream = Arc::clone(self.stream(kind));
        let wanted = caps::wanted(kind, &self.settings);
        let allowed = stream
            .ghost
            .peer_query_caps(Some(&wanted))
            .intersect(&wanted);
        let Some(settled) = caps::settle(kind, &self.settings, source, &allowed) else {
            self.track(kind).refused = true;
            gst::element_error!(
                self.bin,
                gst::CoreError::Negotiation,
                (
                    "What is linked to the pad {} takes nothing that the properties allow: {wanted}",
                    kind.name()
                ),
                ["downstream takes {}", stream.ghost.peer_query_caps(None)]
            );
            return;
        };
        gst::info!(CAT, obj = self.bin, "Caps of {}: {settled}", kind.name());
        *lock(&self.shared.stream(kind).caps) = Some(settled.clone());
        self.name_stream(kind, &stream);
        match Slate::start(self.bin.upcast_ref(), &stream, &settled) {
            Ok(slate) => {
                if kind == Kind::Video {
                    self.show_first(&slate, &settled);
                }
                self.track(kind).slate = Some(slate);
            }
            Err(Failure::Missing(missing)) => {
                self.track(kind).refused = true;
                missing.report(&self.bin);
            }
            // The next connection has another try.
            Err(Failure::Refused(error)) => {
                self.track(kind).refused = true;
                gst::warning!(CAT, obj = self.bin, "No slate of {}: {error}", kind.name());
            }
        }
        self.update_latency();
    }

    /// Readies the one stream start that downstream gets to see, under an id of our own.
    fn name_stream(&self, kind: Kind, stream: &Stream) {
        let id = stream.ghost.create_stream_id(&self.bin, Some(kind.name()));
        let event = gst::event::StreamStart::builder(&id)
            .group_id(self.group)
            .flags(gst::StreamFlags::SELECT)
            .build();
        lock(&self.shared.stream(kind).seen).stream_start = Some(event);
    }

    fn show_first(&self, slate: &Slate, settled: &gst::Caps) {
        let (picture, error) = slate::picture(&self.settings, settled);
        if let Some(err) = error {
            gst::element_warning!(
                self.bin,
                gst::ResourceError::OpenRead,
                ("The fallback image cannot be shown, so a black picture is: {err}"),
                ["fallback-image: {:?}", self.settings.fallback_image]
            );
        }
        if let Some(picture) = picture {
            slate.show(&picture);
        }
    }

    /// Links a pad of the source to its switch. Returns why the source is to be started again, where that can't be.
    fn connect(&mut self, pad: &gst::Pad) -> Option<String> {
        let source = pad.current_caps()?;
        let kind = if pad.name() == "video" {
            Kind::Video
        } else {
            Kind::Audio
        };
        self.track(kind).refused = false;
        self.settle(kind, Some(&source));
        let settled = lock(&self.shared.stream(kind).caps).clone()?;
        gst::info!(CAT, obj = self.bin, "Source has {}: {source}", kind.name());
        let stream = Arc::clone(self.stream(kind));
        let started = Branch::start(self.bin.upcast_ref(), pad, &stream, &source, &settled);
        let mut failed = None;
        match started {
            Ok(branch) => self.track(kind).branch = Some(branch),
            Err(Failure::Missing(missing)) => missing.report(&self.bin),
            // Sound takes no picture away.
            Err(Failure::Refused(error)) if kind == Kind::Audio => {
                // Else the demuxer would end where nothing takes what it has.
                pad.add_probe(gst::PadProbeType::DATA_DOWNSTREAM, |_, _| {
                    gst::PadProbeReturn::Drop
                });
                gst::element_warning!(
                    self.bin,
                    gst::StreamError::WrongType,
                    ("The source's sound is left out: {error}"),
                    ["it is {source}, and was settled as {settled}"]
                );
            }
            // It may have gone while it was linked, and comes again.
            Err(Failure::Refused(error)) => {
                failed = Some(format!("its {} can't be linked: {error}", kind.name()));
            }
        }
        self.update_latency();
        failed
    }

    fn update_latency(&mut self) {
        let frame = lock(&self.shared.stream(Kind::Video).caps)
            .as_ref()
            .and_then(|caps| caps::frame_duration(caps));
        let Some(frame) = frame else {
            return;
        };
        let branch = self.track(Kind::Video).branch.as_ref();
        let latency = frame + branch.map_or(gst::ClockTime::ZERO, |branch| branch.latency);
        if self.shared.set_latency(latency) {
            let message = gst::message::Latency::builder().src(&self.bin).build();
            let _ = self.bin.post_message(message);
        }
    }

    fn restart(&mut self, reason: &str) {
        gst::info!(
            CAT,
            obj = self.bin,
            "Starting the source again in {:?}: {reason}",
            self.retry_after
        );
        self.shared.restarting(reason);
        self.disconnect();
        self.retry_at = Some(Instant::now() + self.retry_after);
        self.retry_after = (2 * self.retry_after).min(RETRY_LONGEST);
    }

    fn disconnect(&mut self) {
        self.ingest.stop();
        for track in &mut self.tracks {
            if let Some(branch) = track.branch.take() {
                branch.remove_from(self.bin.upcast_ref());
            }
        }
    }

    fn set_connected(&mut self, connected: bool, reason: &str) {
        if self.shared.connected.load(Relaxed) == connected {
            return;
        }
        if connected {
            self.retry_after = RETRY_FIRST;
        }
        let now = self.bin.current_running_time();
        self.shared.set_connected(connected, now);
        let source = self.settings.source();
        gst::info!(
            CAT,
            obj = self.bin,
            "Source {source:?} connected: {connected}, {reason}"
        );
        let details = gst::Structure::builder("ndi-live-source-changed")
            .field("connected", connected)
            .field("source", source)
            .field("reason", reason)
            .field("running-time", now)
            .build();
        let message = gst::message::Element::builder(details)
            .src(&self.bin)
            .build();
        let _ = self.bin.post_message(message);
        self.bin.notify("connected");
    }

    /// Takes out of the bin what was put in, once nothing flows any more.
    pub(super) fn dismantle(mut self) {
        self.disconnect();
        for track in &mut self.tracks {
            if let Some(slate) = track.slate.take() {
                slate.remove_from(self.bin.upcast_ref());
            }
        }
    }
}
