// SPDX-License-Identifier: MPL-2.0

//! The recorder's thread: decides which sample goes into which file. It never waits for the disk or a muxer.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_elements::signals::Signals;

use super::allowance::Allowance;
use super::disk::{Disk, Trouble};
use super::file::{self, About, Writer, Written};
use super::inbox::{Event, Events, Failure, Inbox, TakeId, TrackId};
use super::input::Input;
use super::settings::{Of, Plan};
use super::stats::Shared;
use super::take::{Begin, Take};
use super::tracks::Tracks;
use super::{CAT, SfuRecorder, folder};
use crate::notices::{self, Kind, Notice};

const TICK: Duration = Duration::from_millis(100);
/// How often the disk is asked how much is free.
const LOOK: Duration = Duration::from_millis(500);
/// A publisher that went has sent its last after this.
const SILENCE: Duration = Duration::from_secs(1);
/// A file that is over waits this long for sound that belongs to it.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Nothing takes longer to be finished.
const FINISH: Duration = Duration::from_secs(10);
/// Nor may the element's end, which NULL waits for. A disk that takes longer finishes what it has on its own.
const FINISH_AT_END: Duration = Duration::from_millis(1_200);
/// How long the end waits for what is given up.
const LEAVING: Duration = Duration::from_millis(100);
/// A keyframe that did not come is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After the stream could not be taken it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A file that is over, but for what is earlier than this.
type Closing = (Take, gst::ClockTime);

/// See the module's description.
pub(super) struct Recorder {
    element: glib::WeakRef<SfuRecorder>,
    plan: Plan,
    inbox: Inbox,
    events: Events,
    shared: Arc<Shared>,
    input: Option<Input>,
    retry: Option<Instant>,
    playing: bool,
    tracks: Tracks,
    /// Samples that wait until it is known which tracks there are.
    waiting: VecDeque<(TrackId, gst::Buffer, gst::Caps)>,
    current: Option<Take>,
    closing: Vec<Closing>,
    /// Threads on which files are given up: a disk that hangs holds nothing else up.
    leaving: Vec<JoinHandle<()>>,
    /// The publisher came or went since the present file began.
    changed: bool,
    disk: Disk,
    looked: Instant,
    asked: Option<Instant>,
    takes: TakeId,
    number: u64,
    allowance: Allowance,
    /// The next file begins because the last one was full, which is the user's wish.
    split: bool,
    /// The application wants one.
    wanted: bool,
    /// And anything at all.
    recording: bool,
    /// EOS came, and whether that was said.
    ended: Option<bool>,
    /// Trouble was told of, and not yet that it is over.
    told: bool,
    signals: Option<Signals>,
}

impl Recorder {
    pub(super) fn new(
        element: &SfuRecorder,
        plan: Plan,
        (inbox, events): (Inbox, Events),
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            element: element.downgrade(),
            disk: Disk::new(plan.limits.min_free),
            recording: plan.recording,
            plan,
            inbox,
            events,
            shared,
            input: None,
            retry: Some(Instant::now()),
            playing: false,
            tracks: Tracks::default(),
            waiting: VecDeque::new(),
            current: None,
            closing: Vec::new(),
            leaving: Vec::new(),
            changed: false,
            looked: Instant::now(),
            asked: None,
            takes: 0,
            number: 1,
            allowance: Allowance::new(Instant::now()),
            split: false,
            wanted: false,
            ended: None,
            told: false,
            signals: Signals::start(element).ok(),
        }
    }

    /// Runs until it is told to stop, and returns when all files are finished.
    pub(super) fn run(mut self) {
        let mut ticked = Instant::now();
        loop {
            match self.events.next(TICK) {
                Some(Event::Stop) => break,
                Some(event) => self.handle(event),
                None => {}
            }
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.tick();
            }
        }
        self.finish_all();
    }

    fn finish_all(&mut self) {
        self.input = None;
        // What was sent before belongs to the files.
        while let Some(event) = self.events.next(Duration::ZERO) {
            self.handle(event);
        }
        self.end_current();
        self.closing.iter_mut().for_each(|(take, _)| take.end());
        let until = Instant::now() + FINISH_AT_END;
        while !self.closing.is_empty() && Instant::now() < until {
            if let Some(event) = self.events.next(TICK) {
                self.handle(event);
            }
        }
        for (take, _) in std::mem::take(&mut self.closing) {
            gst::warning!(CAT, "{} is not finished in time", take.path.display());
            self.discard(take);
        }
        while self.leaving.iter().any(|thread| !thread.is_finished())
            && Instant::now() < until + LEAVING
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Track(track) => self.tracks.add(track),
            Event::Language(track, language) => self.tracks.speaks(track, language),
            Event::Gone(track) => {
                self.tracks.remove(track);
                let takes = self.current.iter_mut();
                takes
                    .chain(self.closing.iter_mut().map(|(take, _)| take))
                    .for_each(|take| take.end_track(track));
            }
            Event::Settled => self.tracks.settle(),
            Event::Sample(track, buffer, caps) => self.sample(track, buffer, caps),
            Event::Changed => {
                self.changed = true;
                self.tracks.unsettle();
            }
            Event::InputFailed(message) => self.input_failed(&message),
            Event::Progress(take, written) => self.progress(take, written),
            Event::Done(take, written) => self.done(take, written),
            Event::Failed(take, failure) => self.failed(take, &failure),
            Event::Playing(playing) => {
                self.playing = playing;
                self.changed |= !playing;
                if let Some(input) = &self.input {
                    input.set_playing(playing);
                }
            }
            Event::Split => self.wanted = self.current.is_some(),
            Event::Record(recording) => {
                // The file that the application asks for is none too many.
                self.split |= recording && !self.recording;
                self.recording = recording;
                if !recording {
                    self.end_current();
                }
            }
            Event::Limits(limits) => {
                self.plan.limits = limits;
                self.disk.keep_free(limits.min_free);
            }
            Event::End => {
                self.ended.get_or_insert(false);
                self.input = None;
                self.end_current();
            }
            Event::Stop => {}
        }
    }

    fn sample(&mut self, track: TrackId, buffer: gst::Buffer, caps: gst::Caps) {
        let Some(pts) = buffer.pts().filter(|_| self.ended.is_none()) else {
            return;
        };
        self.tracks.saw(track, &caps, pts);
        if !self.recording {
            return;
        }
        let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let begins = key && self.tracks.reference() == Some(track);
        if begins
            && self
                .current
                .as_ref()
                .is_some_and(|t| self.is_over(t, &buffer))
        {
            self.split = self.current.as_ref().is_some_and(|t| self.is_full(t));
            self.close_current(pts);
        }
        if self.current.is_some() {
            self.give(track, buffer, pts);
            return;
        }
        self.waiting.push_back((track, buffer, caps));
        if self.tracks.are_ready() {
            self.begin();
        }
    }

    /// Whether a file ends before this keyframe.
    fn is_over(&self, take: &Take, buffer: &gst::BufferRef) -> bool {
        let discont = buffer.flags().contains(gst::BufferFlags::DISCONT);
        (self.changed && discont) || !self.tracks.fit(take) || self.is_full(take)
    }

    /// Whether the next keyframe begins another file because of its length, or since that is wanted.
    fn is_full(&self, take: &Take) -> bool {
        let long = self
            .plan
            .limits
            .max_duration
            .is_some_and(|max| take.duration() >= max);
        self.wanted
            || long
            || self
                .plan
                .limits
                .max_size
                .is_some_and(|max| take.written.bytes >= max)
    }

    /// Begins a file with the first keyframe that waits, and gives it what follows.
    fn begin(&mut self) {
        let reference = self.tracks.reference();
        for (track, buffer, _) in std::mem::take(&mut self.waiting) {
            let Some(pts) = buffer.pts() else {
                continue;
            };
            let key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            if self.current.is_none() && key && reference == Some(track) {
                self.open(track, pts);
            }
            self.give(track, buffer, pts);
        }
    }

    /// Gives a sample to the file that it belongs to.
    fn give(&mut self, track: TrackId, buffer: gst::Buffer, pts: gst::ClockTime) {
        for (take, until) in &mut self.closing {
            if pts >= *until {
                take.end_track(track);
            }
        }
        let earlier = self.closing.iter_mut().filter(|(_, until)| pts < *until);
        let earlier = earlier.map(|(take, _)| take).next_back();
        match self.current.as_mut().filter(|take| pts >= take.base) {
            Some(take) => take.push(track, buffer),
            None => match earlier {
                Some(take) => take.push(track, buffer),
                // What is before the first keyframe belongs to no file.
                None if self.disk.trouble().is_some() => self.shared.drop_one(),
                None => {}
            },
        }
    }

    /// The present file ends; the next one begins at `until`.
    fn close_current(&mut self, until: gst::ClockTime) {
        if let Some(mut take) = self.current.take() {
            take.end_track(take.reference());
            take.ending = Some(Instant::now());
            self.closing.push((take, until));
        }
    }

    /// The present file ends now.
    fn end_current(&mut self) {
        if let Some(mut take) = self.current.take() {
            take.end();
            self.closing.push((take, gst::ClockTime::ZERO));
        }
        self.waiting.clear();
    }

    fn open(&mut self, reference: TrackId, base: gst::ClockTime) {
        if self.disk.trouble().is_some() {
            return;
        }
        if !self.split && !self.allowance.take(Instant::now()) {
            self.shared.drop_one();
            return;
        }
        (self.split, self.wanted, self.changed) = (false, false, false);
        // What waited for the other tracks, and on its way, is older than now.
        let now = self.input.as_ref().and_then(Input::running_time);
        let age = now.unwrap_or(self.tracks.now()).saturating_sub(base);
        let opened = self.next_path(age).and_then(|path| {
            self.takes += 1;
            let about = About::new(self.plan.stream.as_str(), &self.plan.of, age.into());
            let begin = Begin {
                id: self.takes,
                start_ms: about.start_ms,
                path: &path,
                base,
                reference,
                fragment: self.plan.fragment,
                tracks: self.tracks.present(),
            };
            let take = Take::new(begin, Writer::new(&path, about), &self.inbox);
            take.map_err(Failure::Muxer)
        });
        match opened {
            Ok(take) => self.current = Some(take),
            Err(failure) => self.trouble(&failure),
        }
    }

    /// The name of the next file, whose folder is made. It begins `age` ago.
    fn next_path(&mut self, age: gst::ClockTime) -> Result<PathBuf, Failure> {
        let now = glib::DateTime::now_utc();
        let begins = now.and_then(|now| now.add(glib::TimeSpan(-(age.useconds() as i64))));
        let begins = begins.map_err(|e| Failure::Disk(io::Error::other(e)))?;
        if !self.plan.template.is_numbered() {
            self.number = 1;
        }
        let stream = self.plan.stream.as_str().to_owned();
        loop {
            let name = self.plan.template.path(&stream, &begins, self.number);
            let path = self.plan.directory.join(name);
            self.number += 1;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(Failure::Disk)?;
            }
            let known = |take: &Take| take.path == path;
            let taken = self.closing.iter().any(|(take, _)| known(take));
            if !taken && !path.try_exists().map_err(Failure::Disk)? {
                return Ok(path);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.tracks.now();
        self.current.iter_mut().for_each(|take| take.tick(now));
        for (take, _) in &mut self.closing {
            take.tick(now);
            if take.ending.is_some_and(|at| at.elapsed() >= STRAGGLERS) {
                take.end();
            }
        }
        let stuck = |(take, _): &Closing| take.ending.is_some_and(|at| at.elapsed() >= FINISH);
        for (take, _) in self
            .closing
            .extract_if(.., |c| stuck(c))
            .collect::<Vec<_>>()
        {
            gst::warning!(CAT, "{} took too long to be finished", take.path.display());
            self.discard(take);
        }
        if self.current.is_some() && self.changed && self.tracks.are_silent_for(SILENCE) {
            self.end_current();
        }
        if self.current.is_none() && !self.waiting.is_empty() && self.tracks.are_ready() {
            self.begin();
        }
        self.look_at_disk();
        self.ask();
        self.follow();
    }

    fn look_at_disk(&mut self) {
        if let Some(take) = self.current.take_if(|take| take.is_overdue()) {
            self.discard(take);
            let slow = io::Error::new(
                io::ErrorKind::TimedOut,
                "the disk is too slow for the stream",
            );
            self.trouble(&Failure::Disk(slow));
        }
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        if self.disk.recovers(&self.plan.directory) {
            self.shared.wait();
            self.waiting.clear();
            return;
        }
        if self.disk.trouble().is_none()
            && self.current.is_some()
            && self.disk.is_short(&self.plan.directory)
        {
            self.end_current();
            self.trouble(&Failure::Disk(io::ErrorKind::StorageFull.into()));
        }
    }

    /// Asks for a keyframe where one is waited for.
    fn ask(&mut self) {
        let wanted = match &self.current {
            Some(take) => self.is_full(take) || !self.tracks.fit(take),
            None => self.waiting.is_empty() && !self.tracks.are_silent_for(SILENCE),
        };
        let wanted = wanted && self.recording && self.disk.trouble().is_none();
        let wanted = wanted && self.ended.is_none();
        let again = self.asked.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
        if let Some(track) = self.tracks.reference().filter(|_| wanted && again)
            && let Some(input) = &self.input
        {
            self.asked = Some(Instant::now());
            input.request_keyframe(track);
        }
    }

    /// Takes the stream where it is not taken, and says EOS when all is finished.
    fn follow(&mut self) {
        let due = self.retry.is_some_and(|at| Instant::now() >= at);
        if due && self.input.is_none() && self.ended.is_none() {
            self.retry = None;
            match Input::start(&self.plan, &self.inbox) {
                Ok(input) => {
                    input.set_playing(self.playing);
                    self.input = Some(input);
                }
                Err(message) => self.input_failed(&message),
            }
        }
        if self.ended == Some(false) && self.closing.is_empty() {
            self.ended = Some(true);
            if let Some(element) = self.element.upgrade() {
                let eos = gst::message::Eos::builder().src(&element).build();
                let _ = element.post_message(eos);
            }
        }
    }

    fn input_failed(&mut self, message: &str) {
        self.input = None;
        self.tracks = Tracks::default();
        self.end_current();
        self.retry = Some(Instant::now() + RETRY);
        let stream = &self.plan.stream;
        self.warn(&format!(
            "{stream} can't be recorded, which is tried again in {} s: {message}",
            RETRY.as_secs()
        ));
    }

    fn progress(&mut self, id: TakeId, written: Written) {
        self.disk.succeed();
        let takes = self.current.iter_mut();
        let mut takes = takes.chain(self.closing.iter_mut().map(|(take, _)| take));
        let Some(take) = takes.find(|take| take.id == id) else {
            return;
        };
        let before = std::mem::replace(&mut take.written, written);
        let (path, start_ms) = (take.path.clone(), take.start_ms);
        if before.fragments == 0 {
            self.shared.begin(&path);
            self.tell("recording", (&path, start_ms), None);
        }
        self.shared.progress(before, written);
        if std::mem::take(&mut self.told) {
            let stream = &self.plan.stream;
            if let Some(element) = self.element.upgrade() {
                gst::element_info!(
                    element,
                    gst::ResourceError::Write,
                    ["{stream} is recorded again"]
                );
            }
        }
    }

    fn done(&mut self, id: TakeId, written: Written) {
        if let Some(take) = self.take_out(id) {
            self.shared.end(&take.path);
            if written.fragments == 0 {
                self.discard(take);
            } else {
                self.tell("finished", (&take.path, take.start_ms), Some(written));
            }
        }
    }

    fn failed(&mut self, id: TakeId, failure: &Failure) {
        if let Some(take) = self.take_out(id) {
            self.discard(take);
            self.trouble(failure);
        }
    }

    fn take_out(&mut self, id: TakeId) -> Option<Take> {
        if let Some(take) = self.current.take_if(|take| take.id == id) {
            return Some(take);
        }
        let at = self.closing.iter().position(|(take, _)| take.id == id)?;
        Some(self.closing.remove(at).0)
    }

    /// Ends a file that does not end by itself, and keeps of it what plays. Where no thread can be had for that, the next
    /// start repairs it.
    fn discard(&mut self, take: Take) {
        let (path, fragments) = (take.path.clone(), take.written.fragments);
        self.shared.end(&path);
        let root = self.plan.directory.clone();
        let leave = move || {
            // Waits for what is being written.
            drop(take);
            if fragments > 0 {
                let repaired = file::repair(&path);
                gst::debug!(CAT, "{}: {repaired:?}", path.display());
            } else {
                // There is no file yet.
                folder::remove_empty(&path, &root);
            }
        };
        self.leaving.retain(|thread| !thread.is_finished());
        let thread = std::thread::Builder::new().name("sfurecorder-end".into());
        match thread.spawn(leave) {
            Ok(thread) => self.leaving.push(thread),
            Err(error) => gst::warning!(CAT, "a file is left as it is: no thread: {error}"),
        }
    }

    /// Nothing can be written for now. Said once.
    fn trouble(&mut self, failure: &Failure) {
        let trouble = match failure {
            Failure::Disk(error) => self.disk.fail(error),
            Failure::Muxer(_) => {
                self.disk.stop(Trouble::Failed);
                Trouble::Failed
            }
        };
        self.shared.fail(trouble);
        let (stream, directory) = (&self.plan.stream, self.plan.directory.display());
        let message = match (trouble, failure) {
            (Trouble::Full, _) => format!(
                "{stream} is not recorded any more: the disk of {directory} is full. It goes on when there is room"
            ),
            (_, Failure::Disk(error)) => {
                format!("{stream} can't be recorded in {directory}, which is tried again: {error}")
            }
            (_, Failure::Muxer(error)) => {
                format!("{stream} can't be recorded, which is tried again: {error}")
            }
        };
        if !std::mem::replace(&mut self.told, true) {
            self.warn(&message);
        }
    }

    fn warn(&self, message: &str) {
        if let Some(element) = self.element.upgrade() {
            gst::element_warning!(element, gst::ResourceError::Write, ("{message}"));
        }
    }

    /// The element message `sfu-recording`.
    fn tell(&self, state: &str, (path, start_ms): (&Path, u64), written: Option<Written>) {
        let Some(element) = self.element.upgrade() else {
            return;
        };
        gst::info!(CAT, obj = element, "{state}: {}", path.display());
        element.notify("location");
        let about = gst::Structure::builder("sfu-recording")
            .field("stream", self.plan.stream.as_str())
            .field("state", state)
            .field("location", path.to_string_lossy().as_ref())
            .field("start-ms", start_ms);
        let about = match &self.plan.of {
            Of::Stream => about,
            Of::Room { room, identity } => about.field("room", room).field("identity", identity),
        };
        let kind = self.notice(path, written.as_ref());
        let about = match written {
            None => about,
            Some(w) => about
                .field("bytes", w.bytes)
                .field("duration", gst::ClockTime::try_from(w.duration).ok()),
        };
        let about = about.build();
        if let Some(signals) = &self.signals {
            signals.emit(kind.name(), about.clone());
        }
        let message = gst::message::Element::builder(about).src(&element);
        let _ = element.post_message(message.build());
    }

    /// The same for who listens to the router.
    fn notice(&self, path: &Path, written: Option<&Written>) -> Kind {
        let kind = match written {
            None => Kind::RecordingStarted,
            Some(_) => Kind::RecordingFinished,
        };
        let mut notice = Notice::new(kind, self.plan.stream.as_str());
        let file = path.strip_prefix(&self.plan.directory).unwrap_or(path);
        notice.file = Some(file.to_string_lossy().into_owned());
        notice.octets = written.map(|w| w.bytes);
        notice.seconds = written.map(|w| w.duration.as_secs_f64());
        notices::tell(&self.plan.router, notice);
        kind
    }
}
