// SPDX-License-Identifier: MPL-2.0

//! The element's thread: waits for publishers, runs a session for each, and publishes the segments.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_engine::{Router, StreamInfo, StreamName};

use super::alternates::sound;
use super::layer::Report;
use super::output::{Output, discard};
use super::session::{Session, Tracks};
use super::settings::Settings;
use super::slots::{Row, Slots};
use super::{CAT, SfuHlsSink};
use crate::properties::lock;
use crate::src::OnLoss;

/// How often the stream, the clock and the reports are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// Tracks that have not changed for this long are all that there are.
const SETTLED: Duration = Duration::from_millis(500);
/// Pictures that were promised with sound, and of which none has come for this long.
const NO_PICTURES: Duration = Duration::from_secs(3);
/// How long the last segments may take when a publisher goes, and when the element is to end, which NULL waits for.
const FINISH: Duration = Duration::from_secs(4);
const FINISH_AT_END: Duration = Duration::from_secs(1);
/// Playlists that a killed process left are gone on with until then, or get their end.
const GO_ON_WITHIN: Duration = Duration::from_secs(20);
/// A session that failed is followed by the next one no sooner.
const AGAIN: Duration = Duration::from_secs(2);
/// A disk that stays full is said once in this time.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// What is wanted of the thread. Later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// End the playlists, and tell the pipeline.
    Finish = 1,
    Stop,
}

/// The element's orders to the thread.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// The last one, or 0.
    order: AtomicU8,
    /// Finish was ordered, whatever came after it.
    finish: AtomicBool,
    /// When the first one was given.
    first: Mutex<Option<Instant>>,
    given: Condvar,
}

impl Orders {
    pub(super) fn give(&self, order: Order) {
        let mut first = lock(&self.first);
        first.get_or_insert_with(Instant::now);
        self.finish.fetch_or(order == Order::Finish, SeqCst);
        self.order.fetch_max(order as u8, SeqCst);
        self.given.notify_all();
    }

    fn is(&self, order: Order) -> bool {
        self.order.load(SeqCst) >= order as u8
    }

    /// What was ordered must be done by now.
    fn is_overdue(&self) -> bool {
        let first = *lock(&self.first);
        first.is_some_and(|at| at.elapsed() >= FINISH_AT_END)
    }

    /// Waits, and returns whether to go on.
    fn wait(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut guard = lock(&self.first);
        while !self.is(Order::Finish) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.given.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }
}

/// What `stats` tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
    state: &'static str,
    layers: u32,
    segments: u64,
    sequence: u64,
    discontinuities: u64,
    late: u64,
    errors: u64,
    last_error: Option<String>,
}

impl Stats {
    pub(super) fn structure(&self) -> gst::Structure {
        gst::Structure::builder("sfuhlssink-stats")
            .field(
                "state",
                if self.state.is_empty() {
                    "waiting"
                } else {
                    self.state
                },
            )
            .field("layers", self.layers)
            .field("segments", self.segments)
            .field("sequence", self.sequence)
            .field("discontinuities", self.discontinuities)
            .field("late", self.late)
            .field("errors", self.errors)
            .field("last-error", self.last_error.as_deref())
            .build()
    }
}

/// Why a session is over.
enum End {
    /// The publisher went.
    Lost,
    /// It sends something else.
    Changed,
    Ordered,
    Failed(String),
}

/// See the module's description.
pub(super) struct Worker {
    pub(super) element: glib::WeakRef<SfuHlsSink>,
    /// Those of the start, and those that the element has now, some of which may change.
    pub(super) settings: Settings,
    pub(super) current: Arc<Mutex<Settings>>,
    pub(super) name: StreamName,
    pub(super) orders: Arc<Orders>,
    pub(super) output: Output,
    pub(super) stats: Arc<Mutex<Stats>>,
    /// The last warning.
    pub(super) said: Option<(Instant, String)>,
    /// When what killed processes left is ended.
    pub(super) end_left_at: Option<Instant>,
}

/// When that is, of an element that begins now.
pub(super) fn end_left_at() -> Option<Instant> {
    Instant::now().checked_add(GO_ON_WITHIN)
}

impl Worker {
    pub(super) fn run(mut self) {
        let mut ends = false;
        while let Some(tracks) = self.wait_for_publisher() {
            match self.session(&tracks) {
                End::Ordered => break,
                End::Lost if lock(&self.current).on_loss == OnLoss::Eos => {
                    ends = true;
                    break;
                }
                End::Lost | End::Changed => {}
                End::Failed(error) => {
                    self.warn(&error);
                    self.orders.wait(AGAIN);
                }
            }
        }
        self.update(|stats| stats.state = "ended");
        self.end(ends || self.orders.finish.load(SeqCst));
    }

    /// Waits until there is a publisher whose tracks HLS can carry. None is the end.
    fn wait_for_publisher(&mut self) -> Option<Tracks> {
        self.update(|stats| stats.state = "waiting");
        let router = Router::get(&self.settings.router);
        let mut seen: Option<(Tracks, Instant)> = None;
        let mut refused = None;
        while self.orders.wait(LOOK) {
            self.tidy();
            let info = router.stream(&self.name);
            let tracks = info.as_ref().and_then(Tracks::flowing);
            let Some(tracks) = tracks else {
                seen = None;
                if refused.take().is_some() {
                    self.update(|stats| stats.state = "waiting");
                }
                continue;
            };
            let since = match seen {
                Some((before, since)) if before == tracks => since,
                _ => Instant::now(),
            };
            let whole = info.as_ref().and_then(Tracks::of).as_ref() == Some(&tracks);
            let settled = since.elapsed() >= if whole { SETTLED } else { NO_PICTURES };
            seen = Some((tracks.clone(), since));
            if !settled || refused.as_ref() == Some(&tracks) {
                continue;
            }
            let Some(why) = tracks.refused() else {
                return Some(tracks);
            };
            self.update(|stats| stats.state = "refused");
            self.warn(&format!("Stream {} is not in HLS: {why}", self.name));
            refused = Some(tracks);
        }
        None
    }

    /// Publishes one publisher's segments until it goes.
    fn session(&mut self, tracks: &Tracks) -> End {
        let (report, reports) = mpsc::channel();
        let session = Session::start(&self.settings, self.output.folder(), tracks, report);
        let mut session = match session {
            Ok(session) => session,
            Err(error) => {
                return End::Failed(format!("HLS of {} does not start: {error}", self.name));
            }
        };
        gst::info!(CAT, "{} is live: {tracks:?}", self.name);
        let layers = tracks.outputs() as u32;
        self.update(|stats| (stats.state, stats.layers) = ("live", layers));
        let router = Router::get(&self.settings.router);
        let expected = tracks.renditions(&sound(router.stream(&self.name).as_ref()));
        self.output.begin(expected.clone());
        let mut slots = Slots::new(expected);
        let end = self.follow(tracks, &mut session, &reports, &mut slots);
        if !matches!(end, End::Failed(_)) {
            self.drain(&session, &reports, &mut slots);
        }
        while let Some(row) = slots.rest() {
            self.publish(&session, row);
        }
        gst::info!(CAT, "{} is away", self.name);
        end
    }

    fn follow(
        &mut self,
        tracks: &Tracks,
        session: &mut Session,
        reports: &Receiver<Report>,
        slots: &mut Slots,
    ) -> End {
        let router = Router::get(&self.settings.router);
        let mut live = false;
        loop {
            let message = session.message(LOOK);
            if self.orders.is(Order::Finish) {
                return End::Ordered;
            }
            match message.as_ref().map(|message| message.view()) {
                Some(gst::MessageView::Error(error)) => {
                    let (name, error) = (&self.name, error.error());
                    return End::Failed(format!("HLS of {name} was interrupted: {error}"));
                }
                Some(gst::MessageView::Eos(_)) => return End::Lost,
                Some(gst::MessageView::Element(element)) => {
                    let about = element
                        .structure()
                        .filter(|s| s.name() == "sfu-stream-changed");
                    let now = about.and_then(|about| about.get::<bool>("live").ok());
                    // A publisher that took over is another one.
                    if now.is_some_and(|now| live || !now) {
                        return End::Lost;
                    }
                    live |= now.is_some();
                }
                _ => {}
            }
            session.tick();
            let state = if session.stalls() { "stalled" } else { "live" };
            self.update(|stats| stats.state = state);
            let info = router.stream(&self.name);
            self.listen(session, info.as_ref());
            self.take(session, reports, slots);
            // Pictures that have begun may stall. Those that have not are looked for.
            let now = match tracks.video.is_some() && !session.does_not_begin() {
                true => info.as_ref().and_then(Tracks::of),
                false => info.as_ref().and_then(Tracks::flowing),
            };
            match now {
                None => return End::Lost,
                Some(now) if now != *tracks => return End::Changed,
                Some(_) => {}
            }
        }
    }

    /// Looks which audio tracks there are.
    fn listen(&mut self, session: &mut Session, info: Option<&StreamInfo>) {
        let sound = sound(info);
        if let Err(error) = session.take(&sound) {
            self.warn(&error);
        }
        self.output.set_sound(sound);
    }

    /// Lets the segments that have begun come to their ends.
    fn drain(&mut self, session: &Session, reports: &Receiver<Report>, slots: &mut Slots) {
        session.finish();
        let end = Instant::now() + FINISH;
        while Instant::now() < end && !self.orders.is_overdue() {
            let message = session.message(LOOK);
            let over = [gst::MessageType::Eos, gst::MessageType::Error];
            if message.is_some_and(|message| over.contains(&message.type_())) {
                break;
            }
        }
        self.take(session, reports, slots);
    }

    /// Takes the layers' reports, and publishes what is whole.
    fn take(&mut self, session: &Session, reports: &Receiver<Report>, slots: &mut Slots) {
        let now = Instant::now();
        for report in reports.try_iter() {
            match report {
                Report::Segment(segment) => {
                    if let Some(late) = slots.add(segment, now) {
                        discard(&late);
                        self.update(|stats| stats.late += 1);
                    }
                }
                Report::Failed(error) => self.warn(&error),
            }
        }
        while let Some(row) = slots.next(now) {
            self.publish(session, row);
        }
        self.tidy();
    }

    /// Removes what nobody wants any more, and ends once what nobody goes on with.
    fn tidy(&mut self) {
        let now = Instant::now();
        self.output.tidy(now);
        if self.end_left_at.take_if(|at| *at <= now).is_some() {
            let root = PathBuf::from(&self.settings.directory);
            let ended = self.output.end_left(&root);
            gst::debug!(CAT, "{ended} playlists were left without an end");
        }
    }

    fn publish(&mut self, session: &Session, row: Row) {
        self.output.set_length(lock(&self.current).length as usize);
        let published = self
            .output
            .publish(row, |at| session.date(at), |n| session.media(n));
        if let Err(error) = published {
            let folder = self.output.folder().display().to_string();
            self.warn(&format!("HLS in {folder} could not be written: {error}"));
        }
        let (segments, sequence) = (self.output.segments, self.output.sequence());
        let discontinuities = self.output.discontinuities();
        self.update(|stats| {
            stats.segments = segments;
            stats.sequence = sequence;
            stats.discontinuities = discontinuities;
        });
    }

    /// Ends the playlists, and tells the pipeline where that is wanted.
    fn end(&mut self, tell: bool) {
        if let Err(error) = self.output.end() {
            self.warn(&format!("the playlists could not be ended: {error}"));
        }
        if let Some(element) = self.element.upgrade().filter(|_| tell) {
            let _ = element.post_message(gst::message::Eos::builder().src(&element).build());
        }
    }

    fn update(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut lock(&self.stats));
    }

    fn warn(&mut self, message: &str) {
        self.update(|stats| {
            stats.errors += 1;
            stats.last_error = Some(message.to_owned());
        });
        let now = Instant::now();
        let same = |(at, said): &(Instant, String)| said == message && now < *at + SAY_AGAIN;
        if self.said.as_ref().is_some_and(same) {
            gst::warning!(CAT, "{message}");
            return;
        }
        self.said = Some((now, message.to_owned()));
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(element, gst::ResourceError::Failed, ("{message}"));
        }
    }
}
