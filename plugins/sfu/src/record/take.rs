// SPDX-License-Identifier: MPL-2.0

//! One file: a muxer in a pipeline of its own, which is told where each fragment ends.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use gst::prelude::*;

use super::file::{Writer, Written};
use super::inbox::{Event, Failure, Inbox, TakeId, TrackId};
use super::tracks::Format;
use crate::properties::lock;

/// A track that is so far behind the others is not waited for.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_mseconds(500);
/// What is to be written may be so much: the disk is too slow.
const BACKLOG: u64 = 64 << 20;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Take {
    pub(super) id: TakeId,
    pub(super) path: PathBuf,
    /// When its first picture was taken, in ms since 1970.
    pub(super) start_ms: u64,
    /// The running time at which it begins.
    pub(super) base: gst::ClockTime,
    /// The track that says where fragments begin.
    reference: TrackId,
    fragment: gst::ClockTime,
    /// Where the present fragment began, since `base`.
    begun: gst::ClockTime,
    pipeline: gst::Pipeline,
    sources: BTreeMap<TrackId, Source>,
    /// The file, until it is finished.
    writer: Arc<Mutex<Option<Writer>>>,
    /// The muxer has panicked. Its locks are of no more use, and to stop it would end the process.
    panicked: Arc<AtomicBool>,
    pub(super) written: Written,
    /// Since when it is to end.
    pub(super) ending: Option<Instant>,
}

/// A track's way into the muxer.
#[derive(Debug)]
struct Source {
    appsrc: gst_app::AppSrc,
    caps: gst::Caps,
    /// The newest sample, since `base`.
    newest: Option<gst::ClockTime>,
    /// Where fragments are to end that have not ended yet, and whether a keyframe follows.
    splits: VecDeque<(gst::ClockTime, bool)>,
    /// Something of it has come, or stands for that.
    begun: bool,
    /// What is earlier comes too late.
    floor: gst::ClockTime,
    ended: bool,
}

/// What a take begins with.
pub(super) struct Begin<'a> {
    pub(super) id: TakeId,
    pub(super) path: &'a Path,
    pub(super) start_ms: u64,
    pub(super) base: gst::ClockTime,
    pub(super) reference: TrackId,
    pub(super) fragment: gst::ClockTime,
    pub(super) tracks: Vec<(TrackId, Format)>,
}

impl Take {
    pub(super) fn new(begin: Begin<'_>, writer: Writer, inbox: &Inbox) -> Result<Self, String> {
        let text = |e: glib::BoolError| e.to_string();
        let pipeline = gst::Pipeline::new();
        let muxer = muxer()?;
        let writer = Arc::new(Mutex::new(Some(writer)));
        let sink = sink(begin.id, &writer, inbox);
        let last: &gst::Element = sink.upcast_ref();
        pipeline.add_many([&muxer, last]).map_err(text)?;
        muxer.link(last).map_err(text)?;
        let mut sources = BTreeMap::new();
        for (track, Format { caps, language }) in begin.tracks {
            let appsrc = gst_app::AppSrc::builder()
                .caps(&complete(&caps))
                .format(gst::Format::Time)
                .max_bytes(0)
                .build();
            pipeline.add(&appsrc).map_err(text)?;
            appsrc
                .link_pads(Some("src"), &muxer, Some("sink_%u"))
                .map_err(|_| format!("isofmp4mux takes no {caps}"))?;
            if let Some(language) = language {
                tell(&appsrc, &language);
            }
            let source = Source {
                appsrc,
                caps,
                newest: None,
                splits: VecDeque::new(),
                begun: false,
                floor: gst::ClockTime::ZERO,
                ended: false,
            };
            sources.insert(track, source);
        }
        let take = Self {
            id: begin.id,
            path: begin.path.to_owned(),
            start_ms: begin.start_ms,
            base: begin.base,
            reference: begin.reference,
            fragment: begin.fragment,
            begun: gst::ClockTime::ZERO,
            pipeline,
            sources,
            writer,
            panicked: Arc::default(),
            written: Written::default(),
            ending: None,
        };
        take.start(inbox)?;
        Ok(take)
    }

    fn start(&self, inbox: &Inbox) -> Result<(), String> {
        let bus = self.pipeline.bus().ok_or("a pipeline has no bus")?;
        let (id, inbox, panicked) = (self.id, inbox.clone(), self.panicked.clone());
        bus.set_sync_handler(move |_, message| {
            if let gst::MessageView::Error(error) = message.view() {
                let text = format!("{} ({})", error.error(), error.debug().unwrap_or_default());
                // As gstreamer-rs says it of each element.
                panicked.fetch_or(text.contains("Panicked"), Relaxed);
                inbox.send(Event::Failed(id, Failure::Muxer(text)));
            }
            gst::BusSyncReply::Drop
        });
        let state = self.pipeline.set_state(gst::State::Playing);
        state.map(drop).map_err(|e| e.to_string())
    }

    /// Whether it takes what comes of a track, in that format.
    pub(super) fn takes(&self, track: TrackId, caps: &gst::Caps) -> bool {
        let source = self.sources.get(&track);
        source.is_some_and(|s| !s.ended && s.caps == *caps)
    }

    pub(super) fn reference(&self) -> TrackId {
        self.reference
    }

    /// How long it is so far.
    pub(super) fn duration(&self) -> gst::ClockTime {
        let newest = self.sources.values().filter_map(|s| s.newest);
        newest.max().unwrap_or_default()
    }

    /// Takes a sample, which is dated in running time.
    pub(super) fn push(&mut self, track: TrackId, mut buffer: gst::Buffer) {
        let Some(pts) = buffer.pts().and_then(|pts| pts.checked_sub(self.base)) else {
            return;
        };
        if track == self.reference {
            self.split(pts, !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
        }
        let Some(source) = self.sources.get_mut(&track).filter(|s| !s.ended) else {
            return;
        };
        if pts < source.floor {
            return;
        }
        let made = buffer.make_mut();
        // There are no B-frames: each is decoded when it is shown.
        made.set_dts(pts);
        made.set_pts(pts);
        if made.duration().is_none() {
            // Counts for the last one only.
            made.set_duration(source.newest.and_then(|newest| pts.checked_sub(newest)));
        }
        while source.splits.front().is_some_and(|(at, _)| *at <= pts) {
            source.split(pts);
        }
        source.newest = source.newest.max(Some(pts));
        source.begun = true;
        let _ = source.appsrc.push_buffer(buffer);
    }

    /// Ends the present fragment before the sample at `pts` where that is a keyframe, or the fragment is long enough.
    fn split(&mut self, pts: gst::ClockTime, key: bool) {
        let all_are = self
            .sources
            .get(&self.reference)
            .is_some_and(Source::all_are_keys);
        let long = pts.saturating_sub(self.begun) >= self.fragment;
        let is_first = pts.is_zero();
        // The muxer would not see the end of a fragment of which a track has nothing yet. One that stays away is no reason
        // to wait: `tick` fills it up.
        let begins = |source: &Source| !source.ended && source.newest.is_none();
        let early = pts < self.fragment && self.sources.values().any(begins);
        if is_first || early || !(long || (key && !all_are)) {
            return;
        }
        self.begun = pts;
        for source in self.sources.values_mut().filter(|s| !s.ended) {
            source.splits.push_back((pts, key));
        }
    }

    /// Looks after tracks of which nothing comes, so that the others are written. `now` is the newest running time.
    pub(super) fn tick(&mut self, now: gst::ClockTime) {
        let now = now.saturating_sub(self.base);
        for source in self.sources.values_mut().filter(|s| !s.ended) {
            while let Some((at, _)) = source.splits.front().copied()
                && at + PATIENCE <= now
            {
                source.split(at);
                source.skip(at);
                // Nothing may go back behind that.
                source.floor = at + gst::ClockTime::NSECOND;
            }
        }
    }

    /// Whether the muxer or the disk is too slow.
    pub(super) fn is_overdue(&self) -> bool {
        let waiting = self
            .sources
            .values()
            .map(|s| s.appsrc.current_level_bytes());
        waiting.sum::<u64>() > BACKLOG
    }

    /// Ends a track while others go on: what comes of it belongs to the next file.
    pub(super) fn end_track(&mut self, track: TrackId) {
        if let Some(source) = self.sources.get_mut(&track).filter(|s| !s.ended) {
            source.end();
        }
    }

    /// Ends all tracks. `Done` follows.
    pub(super) fn end(&mut self) {
        self.ending.get_or_insert_with(Instant::now);
        self.sources
            .values_mut()
            .filter(|s| !s.ended)
            .for_each(Source::end);
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        if self.panicked.load(Relaxed) {
            // It stays as it is, for ever: some memory, and threads that sleep.
            std::mem::forget(self.pipeline.clone());
            let finished = lock(&self.writer).take().map(Writer::finish);
            gst::debug!(super::CAT, "finished after a panic: {finished:?}");
            return;
        }
        let _ = self.pipeline.set_state(gst::State::Null);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

impl Source {
    fn all_are_keys(&self) -> bool {
        let name = self.caps.structure(0).map(gst::StructureRef::name);
        name.is_some_and(|name| name.starts_with("audio/"))
    }

    fn end(&mut self) {
        self.ended = true;
        // The muxer panics where another track's fragment has ended and this one's has not, at its end either: the others'
        // ends may come later.
        let last = self.newest.map(|newest| newest + gst::ClockTime::NSECOND);
        self.splits.extend(last.map(|last| (last, false)));
        while let Some((at, _)) = self.splits.front().copied() {
            self.split(at);
        }
        let _ = self.appsrc.end_of_stream();
    }

    /// Ends the oldest fragment that is to end before what comes at `next`.
    ///
    /// The muxer may hold one buffer back, and then ends the fragment before that one. So it gets an empty buffer to
    /// hold, which it leaves out.
    fn split(&mut self, next: gst::ClockTime) {
        if let Some((_, key)) = self.splits.pop_front() {
            // It waits for ever for the end of a fragment with nothing in front, and panics at the track's end.
            if !std::mem::replace(&mut self.begun, true) {
                self.skip(gst::ClockTime::ZERO);
            }
            self.skip(next);
            let split = gst::Structure::builder("FMP4MuxSplitNow").field("chunk", !key);
            let event = gst::event::CustomDownstream::new(split.build());
            self.appsrc.send_event(event);
        }
    }

    /// Says that nothing comes for this moment.
    fn skip(&mut self, at: gst::ClockTime) {
        let gap = gst::event::Gap::builder(at).duration(gst::ClockTime::NSECOND);
        self.appsrc.send_event(gap.build());
    }
}

/// Tells the muxer what is spoken, in front of what comes first.
fn tell(appsrc: &gst_app::AppSrc, language: &str) {
    // Files have room for ISO 639 only, without where it is spoken.
    let spoken = language.split('-').next().unwrap_or_default();
    let mut tags = gst::TagList::new();
    if let Some(tags) = tags.get_mut() {
        tags.add::<gst::tags::LanguageCode>(&spoken, gst::TagMergeMode::Append);
    }
    let Some(pad) = appsrc.static_pad("src") else {
        return;
    };
    let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    pad.add_probe(types, move |pad, info| {
        let is_gap = info
            .event()
            .map(|event| event.type_() == gst::EventType::Gap);
        if is_gap == Some(false) {
            return gst::PadProbeReturn::Ok;
        }
        pad.push_event(gst::event::Tag::new(tags.clone()));
        gst::PadProbeReturn::Remove
    });
}

/// What the muxer wants to be told of VP9, and what keyframes don't say of themselves: those of browsers name no colours, which
/// is said of HD pictures then, as players take it.
fn complete(caps: &gst::Caps) -> gst::Caps {
    let mut caps = caps.clone();
    let made = caps.make_mut();
    let Some(format) = made.structure_mut(0).filter(|s| s.name() == "video/x-vp9") else {
        return caps;
    };
    let texts = [
        ("profile", "0"),
        ("chroma-format", "4:2:0"),
        ("colorimetry", "bt709"),
    ];
    for (field, usual) in texts {
        if !format.has_field_with_type(field, glib::Type::STRING) {
            format.set(field, usual);
        }
    }
    for field in ["bit-depth-luma", "bit-depth-chroma"] {
        if !format.has_field_with_type(field, glib::Type::U32) {
            format.set(field, 8u32);
        }
    }
    caps
}

fn muxer() -> Result<gst::Element, String> {
    gst::ElementFactory::make("isofmp4mux")
        // Fragments end where they are told to, so that each keyframe begins one and none is longer than wanted.
        .property("manual-split", true)
        .property("send-force-keyunit", false)
        .property_from_str("write-edts-mode", "never")
        .build()
        .map_err(|_| {
            "element isofmp4mux is missing: run ./sfu build, or install gst-plugin-fmp4 of gst-plugins-rs".into()
        })
}

/// Whether files can be made at all.
pub(super) fn check() -> Result<(), String> {
    muxer().map(drop)
}

/// Where the muxer's output goes.
fn sink(id: TakeId, writer: &Arc<Mutex<Option<Writer>>>, inbox: &Inbox) -> gst_app::AppSink {
    let sink = gst_app::AppSink::builder()
        .sync(false)
        .async_(false)
        .enable_last_sample(false)
        .buffer_list(true)
        .build();
    let (writer, at_end) = (writer.clone(), writer.clone());
    let (inbox, said) = (inbox.clone(), inbox.clone());
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let mut writer = lock(&writer);
            let Some(file) = writer.as_mut() else {
                return Err(gst::FlowError::Eos);
            };
            let before = file.written().fragments;
            if let Err(error) = write(file, &sample) {
                // It has its whole fragments; the rest of its end is the index.
                let finished = writer.take().map(Writer::finish);
                gst::debug!(super::CAT, "finished after an error: {finished:?}");
                inbox.send(Event::Failed(id, Failure::Disk(error)));
                return Err(gst::FlowError::Error);
            }
            if file.written().fragments > before {
                inbox.send(Event::Progress(id, file.written()));
            }
            Ok(gst::FlowSuccess::Ok)
        })
        .eos(move |_| {
            let writer = lock(&at_end).take();
            match writer.map(Writer::finish) {
                Some(Ok(written)) => said.send(Event::Done(id, written)),
                Some(Err(error)) => said.send(Event::Failed(id, Failure::Disk(error))),
                None => {}
            }
        });
    sink.set_callbacks(callbacks.build());
    sink
}

fn write(file: &mut Writer, sample: &gst::Sample) -> std::io::Result<()> {
    let map = |buffer: &gst::BufferRef| {
        let map = buffer.map_readable();
        map.map(|map| map.to_vec()).map_err(std::io::Error::other)
    };
    let pieces = match (sample.buffer_list(), sample.buffer()) {
        (Some(list), _) => list.iter().map(map).collect::<Result<Vec<_>, _>>()?,
        (None, Some(buffer)) => vec![map(buffer)?],
        (None, None) => Vec::new(),
    };
    file.write(pieces.iter().map(Vec::as_slice))
}
