// SPDX-License-Identifier: MPL-2.0

//! The thread of a recorder of a room: a recorder for each stream that somebody publishes there, for as long as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gst::prelude::*;
use sfu_engine::{Router, StreamName};

use super::inbox::{Event, Events, Inbox, inbox};
use super::settings::{Of, Plan};
use super::stats::Shared;
use super::worker::Recorder;
use super::{CAT, SfuRecorder};

/// Between two looks at who is there.
const LOOK: Duration = Duration::from_millis(100);
/// The recorder of who has gone stays so long, for who comes back: its file ends before that.
const LINGER: Duration = Duration::from_secs(30);
/// So many streams are recorded at a time: each has threads of its own.
const MOST: usize = 100;

/// See the module's description.
pub(super) struct Room {
    element: glib::WeakRef<SfuRecorder>,
    name: String,
    plan: Plan,
    events: Events,
    shared: Arc<Shared>,
    members: BTreeMap<StreamName, Member>,
    /// Those whose files are being finished.
    leaving: Vec<JoinHandle<()>>,
    playing: bool,
    /// It was told that there are too many.
    full: bool,
}

/// A stream that is recorded.
struct Member {
    inbox: Inbox,
    thread: JoinHandle<()>,
    /// Since when nobody publishes it.
    gone: Option<Instant>,
}

impl Member {
    fn end(self) -> JoinHandle<()> {
        self.inbox.send(Event::Stop);
        self.thread
    }
}

impl Room {
    pub(super) fn new(
        element: &SfuRecorder,
        name: String,
        plan: Plan,
        events: Events,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            element: element.downgrade(),
            name,
            plan,
            events,
            shared,
            members: BTreeMap::new(),
            leaving: Vec::new(),
            playing: false,
            full: false,
        }
    }

    /// Runs until it is told to stop, and returns when all files are finished.
    pub(super) fn run(mut self) {
        let mut looked = None::<Instant>;
        loop {
            match self.events.next(LOOK) {
                Some(Event::Stop) => break,
                Some(Event::End) => {
                    self.finish_all();
                    if let Some(element) = self.element.upgrade() {
                        let eos = gst::message::Eos::builder().src(&element).build();
                        let _ = element.post_message(eos);
                    }
                    // Nothing is recorded any more.
                    while !matches!(self.events.next(LOOK), Some(Event::Stop)) {}
                    break;
                }
                Some(event) => self.handle(&event),
                None => {}
            }
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                self.look();
            }
        }
        self.finish_all();
    }

    fn handle(&mut self, event: &Event) {
        let tell = |again: &dyn Fn() -> Event| {
            let members = self.members.values();
            members.for_each(|member| member.inbox.send(again()));
        };
        match event {
            Event::Playing(playing) => {
                self.playing = *playing;
                tell(&|| Event::Playing(*playing));
            }
            Event::Record(recording) => {
                self.plan.recording = *recording;
                tell(&|| Event::Record(*recording));
            }
            Event::Limits(limits) => {
                self.plan.limits = *limits;
                tell(&|| Event::Limits(*limits));
            }
            Event::Split => tell(&|| Event::Split),
            _ => {}
        }
    }

    /// Begins with who has come, and ends with who has gone.
    fn look(&mut self) {
        let router = Router::get(&self.plan.router);
        let mut present = BTreeMap::new();
        for one in router.roster().of(&self.name) {
            for stream in one.streams {
                present.insert(stream, one.identity.clone());
            }
        }
        let now = Instant::now();
        for (stream, member) in &mut self.members {
            match present.contains_key(stream) {
                true => member.gone = None,
                false => _ = member.gone.get_or_insert(now),
            }
        }
        let is_over = |_: &_, member: &mut Member| member.gone.is_some_and(|at| now >= at + LINGER);
        let over = self.members.extract_if(.., is_over);
        let over: Vec<_> = over.map(|(_, member)| member.end()).collect();
        self.leaving.extend(over);
        self.leaving.retain(|thread| !thread.is_finished());
        for (stream, identity) in present {
            if !self.members.contains_key(&stream) && self.has_room() {
                self.add(stream, identity);
            }
        }
    }

    /// Whether there may be one more. Who has gone makes room.
    fn has_room(&mut self) -> bool {
        if self.members.len() < MOST {
            return true;
        }
        let gone = |(stream, member): (&StreamName, &Member)| Some((member.gone?, stream.clone()));
        if let Some((_, stream)) = self.members.iter().filter_map(gone).min()
            && let Some(member) = self.members.remove(&stream)
        {
            self.leaving.push(member.end());
            return true;
        }
        if !std::mem::replace(&mut self.full, true)
            && let Some(element) = self.element.upgrade()
        {
            gst::element_warning!(
                element,
                gst::ResourceError::Busy,
                (
                    "{} has more than {MOST} streams: the others are not recorded",
                    self.name
                )
            );
        }
        false
    }

    fn add(&mut self, stream: StreamName, identity: String) {
        let Some(element) = self.element.upgrade() else {
            return;
        };
        gst::info!(CAT, obj = element, "{stream} is in {}", self.name);
        let plan = Plan {
            stream: stream.clone(),
            of: Of::Room {
                room: self.name.clone(),
                identity,
            },
            ..self.plan.clone()
        };
        let (inbox, events) = inbox(self.shared.dropped.clone());
        let recorder = Recorder::new(&element, plan, (inbox.clone(), events), self.shared.clone());
        let thread = std::thread::Builder::new().name("sfurecorder".into());
        match thread.spawn(move || recorder.run()) {
            Ok(thread) => {
                inbox.send(Event::Playing(self.playing));
                let member = Member {
                    inbox,
                    thread,
                    gone: None,
                };
                self.members.insert(stream, member);
            }
            // It is tried again at the next look.
            Err(error) => gst::warning!(CAT, "{stream} is not recorded: no thread: {error}"),
        }
    }

    /// All at the same time.
    fn finish_all(&mut self) {
        let members = std::mem::take(&mut self.members);
        self.leaving.extend(members.into_values().map(Member::end));
        for thread in self.leaving.drain(..) {
            if thread.join().is_err() {
                gst::error!(CAT, "the thread of a recorder has panicked");
            }
        }
    }
}
