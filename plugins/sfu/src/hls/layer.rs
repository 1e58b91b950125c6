// SPDX-License-Identifier: MPL-2.0

//! A layer, or a further audio track, on its way into segments: where they begin is decided in front of the muxer, and done behind it.
//!
//! What is decided goes through the muxer as an event: with `GstForceKeyUnit` it begins anew with its tables, and what
//! comes out behind the event is the next segment's.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;

use super::CAT;
use super::cuts::{Cut, Cutter, Rules};
use super::master::{Media, h264_codec};
use super::rendition::Rendition;
use super::slots::Segment;
use super::standstill::{STANDSTILL, Standstill, Then};
use crate::properties::lock;

/// The cut of what has no pictures.
const CUT: &str = "sfu-hls-cut";
/// No running time.
const NEVER: u64 = u64::MAX;

/// What the layers of a session have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) rules: Rules,
    pub(super) folder: PathBuf,
    pub(super) audio: bool,
    /// The running time at which the first layer's first segment begins; the grid begins there.
    origin: AtomicU64,
    /// Running time of the newest picture of all layers.
    newest: AtomicU64,
    /// The newest slot that a layer has begun, and where. Further audio tracks are cut there, too.
    begun: Mutex<Option<(u64, u64)>>,
    pub(super) report: Sender<Report>,
}

/// What the layers tell the element's thread.
#[derive(Debug)]
pub(super) enum Report {
    Segment(Segment),
    /// A segment could not be written.
    Failed(String),
}

impl Common {
    pub(super) fn new(rules: Rules, folder: PathBuf, audio: bool, report: Sender<Report>) -> Self {
        Self {
            rules,
            folder,
            audio,
            origin: AtomicU64::new(NEVER),
            newest: AtomicU64::new(0),
            begun: Mutex::default(),
            report,
        }
    }

    /// Where the grid begins, once that is known.
    pub(super) fn origin(&self) -> Option<u64> {
        let origin = self.origin.load(Relaxed);
        (origin != NEVER).then_some(origin)
    }

    fn origin_or(&self, at: u64) -> u64 {
        let set = self.origin.compare_exchange(NEVER, at, Relaxed, Relaxed);
        set.map_or_else(|origin| origin, |_| at)
    }

    /// A layer has begun a segment.
    fn begins(&self, cut: Cut) {
        let mut begun = lock(&self.begun);
        if begun.is_none_or(|(slot, _)| slot < cut.slot) {
            *begun = Some((cut.slot, cut.start));
        }
    }
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Layer {
    common: Arc<Common>,
    which: Rendition,
    /// Has pictures, and not sound alone.
    pictures: bool,
    plan: Mutex<Plan>,
    writer: Mutex<Writer>,
    /// Running time of the first picture since there was none: sound from before it is dropped.
    begin: AtomicU64,
}

#[derive(Debug)]
struct Plan {
    cutter: Cutter,
    media: Media,
    /// Cuts on their way through the muxer.
    cuts: VecDeque<Cut>,
    standstill: Standstill,
    /// The newest keyframe.
    keyframe: Option<gst::Buffer>,
}

impl Layer {
    pub(super) fn new(common: Arc<Common>, which: Rendition, pictures: bool) -> Self {
        let plan = Plan {
            cutter: Cutter::new(common.rules),
            media: Media {
                audio: common.audio,
                ..Media::default()
            },
            cuts: VecDeque::new(),
            standstill: Standstill::default(),
            keyframe: None,
        };
        Self {
            common,
            which,
            pictures,
            plan: Mutex::new(plan),
            writer: Mutex::default(),
            begin: AtomicU64::new(NEVER),
        }
    }

    pub(super) fn media(&self) -> Media {
        lock(&self.plan).media.clone()
    }

    /// The slot that the newest segment is in, if there is one.
    pub(super) fn slot(&self) -> Option<u64> {
        lock(&self.plan).cutter.slot()
    }

    /// Nothing comes of it: what is written shows its last keyframe, or nothing.
    pub(super) fn stalls(&self) -> bool {
        let plan = lock(&self.plan);
        plan.standstill.is_still() || plan.cutter.slot().is_none()
    }

    /// Its pictures are back, and wait for a keyframe.
    pub(super) fn wants_keyframe(&self) -> bool {
        lock(&self.plan).standstill.wants_keyframe()
    }

    /// Watches what goes into the muxer, on the pad `from`, and puts the cuts in front of it, by the pad `into`.
    pub(super) fn watch_input(self: &Arc<Self>, from: &gst::Pad, into: &gst::Pad) {
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        let (layer, into) = (self.clone(), into.downgrade());
        from.add_probe(types, move |pad, info| {
            if let Some(event) = info.event() {
                // The parser tells of keyframes that were asked for. Which of them count is decided here.
                return match gst_video::DownstreamForceKeyUnitEvent::parse(event) {
                    Ok(_) => gst::PadProbeReturn::Handled,
                    Err(_) => gst::PadProbeReturn::Ok,
                };
            }
            let (Some(buffer), Some(into)) = (info.buffer_mut(), into.upgrade()) else {
                return gst::PadProbeReturn::Ok;
            };
            layer.input(pad, buffer, &into)
        });
    }

    fn input(
        &self,
        pad: &gst::Pad,
        buffer: &mut gst::Buffer,
        into: &gst::Pad,
    ) -> gst::PadProbeReturn {
        let Some(at) = buffer.pts().map(gst::ClockTime::nseconds) else {
            return gst::PadProbeReturn::Drop;
        };
        if self.which.is_audio() {
            return self.follow(at, into);
        }
        let keyframe = !self.pictures || !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let cut = {
            let mut plan = lock(&self.plan);
            if self.pictures && !plan.standstill.picture(at, keyframe) {
                return gst::PadProbeReturn::Drop;
            }
            self.common.newest.fetch_max(at, Relaxed);
            let origin = match plan.cutter.slot() {
                None if keyframe => self.common.origin_or(at),
                _ => self.common.origin().unwrap_or(at),
            };
            let cut = plan.cutter.picture(at, keyframe, origin);
            gst::trace!(CAT, obj = pad, "{at} keyframe {keyframe}: {cut:?}");
            plan.cuts.extend(cut);
            if self.pictures && keyframe {
                plan.keyframe = self.common.audio.then(|| buffer.clone());
                if cut.is_some() {
                    look_at(&mut plan.media, pad, buffer);
                }
            }
            match plan.cutter.slot() {
                // It would be in no segment.
                None => return gst::PadProbeReturn::Drop,
                Some(_) => cut,
            }
        };
        if let Some(cut) = cut {
            self.common.begins(cut);
            let _ = self.begin.compare_exchange(NEVER, at, Relaxed, Relaxed);
            if self.pictures && !keyframe {
                // Else the muxer would wait with the event for a keyframe, which is what did not come.
                buffer.make_mut().unset_flags(gst::BufferFlags::DELTA_UNIT);
            }
            into.push_event(self.cut_event());
        }
        gst::PadProbeReturn::Ok
    }

    /// A piece of a further audio track.
    fn follow(&self, at: u64, into: &gst::Pad) -> gst::PadProbeReturn {
        let Some(begun) = *lock(&self.common.begun) else {
            return gst::PadProbeReturn::Drop;
        };
        let cut = {
            let mut plan = lock(&self.plan);
            let cut = plan.cutter.follow(at, begun);
            plan.cuts.extend(cut);
            if plan.cutter.slot().is_none() {
                return gst::PadProbeReturn::Drop;
            }
            cut
        };
        if cut.is_some() {
            into.push_event(self.cut_event());
        }
        gst::PadProbeReturn::Ok
    }

    fn cut_event(&self) -> gst::Event {
        if self.pictures {
            let event = gst_video::DownstreamForceKeyUnitEvent::builder();
            return event.all_headers(true).build();
        }
        gst::event::CustomDownstream::new(gst::Structure::new_empty(CUT))
    }

    /// Drops sound that comes before the first picture, so that the muxer's clock (PCR) is the pictures', and lets the last
    /// keyframe stand in by the pad `into` where there are no more.
    pub(super) fn watch_sound(self: &Arc<Self>, pad: &gst::Pad, into: &gst::Pad) {
        let (layer, into) = (self.clone(), into.downgrade());
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let at = info.buffer().and_then(|buffer| buffer.pts());
            let goes_on = at.zip(into.upgrade());
            match goes_on.is_some_and(|(at, into)| layer.sound(at.nseconds(), &into)) {
                true => gst::PadProbeReturn::Ok,
                false => gst::PadProbeReturn::Drop,
            }
        });
    }

    /// Returns whether sound of this moment goes on.
    fn sound(&self, at: u64, into: &gst::Pad) -> bool {
        if at < self.begin.load(Relaxed) {
            return false;
        }
        loop {
            let mut plan = lock(&self.plan);
            let newest = self.common.newest.load(Relaxed);
            let again = match plan.standstill.sound(at, newest) {
                Then::Nothing => return true,
                Then::Again(again) => again,
                Then::Away => {
                    // It begins anew with its next picture.
                    self.begin.store(NEVER, Relaxed);
                    let end = plan.cutter.leave();
                    drop(plan);
                    end.into_iter().for_each(|end| self.finish(end));
                    return false;
                }
            };
            let Some(mut buffer) = plan.keyframe.clone() else {
                return true;
            };
            let origin = self.common.origin().unwrap_or(again);
            let cut = plan.cutter.picture(again, true, origin);
            plan.cuts.extend(cut);
            drop(plan);
            let made = buffer.make_mut();
            let time = gst::ClockTime::from_nseconds(again);
            made.set_pts(time);
            made.set_dts(time);
            if let Some(cut) = cut {
                self.common.begins(cut);
                into.push_event(self.cut_event());
            }
            // Where this ends, sound is told as well.
            let _ = into.push(buffer);
        }
    }

    /// Writes what comes out of the muxer.
    pub(super) fn watch_output(self: &Arc<Self>, sink: &gst_app::AppSink) {
        let layer = self.clone();
        if let Some(pad) = sink.static_pad("sink") {
            pad.add_probe(
                gst::PadProbeType::EVENT_DOWNSTREAM,
                move |_, info| match info.event().is_some_and(|event| layer.output_event(event)) {
                    true => gst::PadProbeReturn::Handled,
                    false => gst::PadProbeReturn::Ok,
                },
            );
        }
        let layer = self.clone();
        let new_sample = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            if let Some(map) = sample.buffer().and_then(|b| b.map_readable().ok()) {
                let written = lock(&layer.writer).write(&map);
                layer.tell(written);
            }
            Ok(gst::FlowSuccess::Ok)
        };
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(new_sample);
        sink.set_callbacks(callbacks.build());
    }

    /// Does what an event behind the muxer says. Returns whether it was a cut.
    fn output_event(&self, event: &gst::EventRef) -> bool {
        let is_cut = gst_video::DownstreamForceKeyUnitEvent::parse(event).is_ok()
            || event.structure().is_some_and(|s| s.name() == CUT);
        if is_cut {
            let Some(cut) = lock(&self.plan).cuts.pop_front() else {
                return true;
            };
            self.finish(cut.end);
            let file = self.which.part(&self.common.folder, cut.slot);
            let begun = lock(&self.writer).begin(cut, file);
            self.tell(begun);
        } else if event.type_() == gst::EventType::Eos {
            let end = lock(&self.plan).cutter.end();
            self.finish(end);
        }
        is_cut
    }

    /// Ends the segment of a layer from which nothing has come for long: the others go on without it. Where there is sound,
    /// that sees to it, unless it does not come either.
    pub(super) fn lapse(&self, now: u64) {
        let sound = self.which.is_audio() || (self.pictures && self.common.audio);
        let now = now.saturating_sub(if sound { 2 * STANDSTILL } else { 0 });
        let end = lock(&self.plan).cutter.lapse(now);
        if let Some(end) = end {
            self.finish(end);
        }
    }

    fn finish(&self, end: u64) {
        match lock(&self.writer).finish(self.which, end) {
            Ok(Some(segment)) => {
                // The session may be over.
                let _ = self.common.report.send(Report::Segment(segment));
            }
            Ok(None) => {}
            Err(error) => self.tell(Err(error)),
        }
    }

    fn tell(&self, result: io::Result<()>) {
        if let Err(error) = result {
            let folder = self.common.folder.display();
            let message = format!("a segment in {folder} could not be written: {error}");
            let _ = self.common.report.send(Report::Failed(message));
        }
    }
}

fn look_at(media: &mut Media, pad: &gst::Pad, buffer: &gst::Buffer) {
    let caps = pad.current_caps();
    if let Some(caps) = caps.as_ref().and_then(|caps| caps.structure(0)) {
        let number = |name| {
            caps.get::<i32>(name)
                .ok()
                .and_then(|n| u32::try_from(n).ok())
        };
        media.size = number("width").zip(number("height"));
    }
    if let Ok(map) = buffer.map_readable()
        && let Some(codec) = h264_codec(&map)
    {
        media.video = Some(codec);
    }
}

/// The file that a segment is written to.
#[derive(Debug, Default)]
struct Writer(Option<Open>);

#[derive(Debug)]
struct Open {
    cut: Cut,
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl Writer {
    fn begin(&mut self, cut: Cut, path: PathBuf) -> io::Result<()> {
        let file = BufWriter::with_capacity(64 * 1024, File::create(&path)?);
        self.0 = Some(Open {
            cut,
            path,
            file,
            bytes: 0,
        });
        Ok(())
    }

    /// Writes to the present segment, where there is one.
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let Some(open) = &mut self.0 else {
            return Ok(());
        };
        open.bytes += data.len() as u64;
        let written = open.file.write_all(data);
        self.or_give_up(written)
    }

    fn finish(&mut self, rendition: Rendition, end: u64) -> io::Result<Option<Segment>> {
        let Some(open) = &mut self.0 else {
            return Ok(None);
        };
        let flushed = open.file.flush();
        self.or_give_up(flushed)?;
        let Some(open) = self.0.take() else {
            return Ok(None);
        };
        let segment = Segment {
            rendition,
            slot: open.cut.slot,
            file: open.path,
            start: open.cut.start,
            duration: Duration::from_nanos(end.saturating_sub(open.cut.start)),
            bytes: open.bytes,
            gap: open.cut.gap,
        };
        if segment.bytes == 0 || segment.duration.is_zero() {
            super::output::discard(&segment);
            return Ok(None);
        }
        Ok(Some(segment))
    }

    /// What could not be written whole is not kept: the next segment may find room.
    fn or_give_up(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err()
            && let Some(open) = self.0.take()
        {
            let (_, _) = open.file.into_parts();
            let _ = std::fs::remove_file(&open.path);
        }
        result
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            let _ = std::fs::remove_file(&open.path);
        }
    }
}
