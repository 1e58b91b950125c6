// SPDX-License-Identifier: MPL-2.0

//! What becomes of video that comes encoded: it goes on as it is, or is decoded and encoded anew where browsers could not show
//! it (B-frames, 4:2:2, 10 bits, fields) or who joins would wait for a keyframe.
//!
//! A probe behind the parser looks at parameter sets and pictures, and decides in the thread in which they come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst::subclass::prelude::*;
use sfu_engine::{Codec, TrackKind};

use super::CAT;
use super::branch::{Branch, Work, can_pass};
use super::imp::{SfuSink, State, key};
use super::keyframes::{Groups, Keyframes};
use super::media::Form;
use super::order::{self, Says, Seen, Watch};
use super::settings::{Encode, Settings};
use crate::properties::lock;

/// A group of pictures that is kept, for the case that it is to be encoded anew, is this large at most: 12 s of 20 Mbit/s, after
/// which it is known whether there are B-frames, and whether keyframes come.
const KEPT: usize = 900;
const KEPT_OCTETS: usize = 30_000_000;
/// What was decided stays so long at least where the other way would only be cheaper.
const SETTLED: Duration = Duration::from_secs(5);

/// What is done with a pad's media, as far as that is known before any comes.
pub(super) fn work(
    kind: TrackKind,
    form: Form,
    settings: &Settings,
    videos: usize,
) -> Result<Work, String> {
    let layers = settings.layers.as_slice().len();
    let work = match (kind, form, settings.encode) {
        (TrackKind::Audio, ..) | (_, Form::Rtp(_), _) | (_, Form::Encoded(_), Encode::Never) => {
            Work::Pass
        }
        (_, Form::Raw, _) | (_, Form::Encoded(_), Encode::Always) => Work::Encode(layers),
        (_, Form::Encoded(Codec::H264 | Codec::H265), Encode::Auto) if videos == 1 => Work::Wait,
        // What nothing here can send is sent all the same.
        (_, Form::Encoded(codec), Encode::Auto) if videos == 1 && !can_pass(codec) => {
            Work::Encode(layers)
        }
        (_, Form::Encoded(_), Encode::Auto) => Work::Pass,
    };
    if matches!(work, Work::Encode(_)) && videos > 1 {
        return Err(
            "raw video makes all layers by itself and must be the only video pad; \
                    link encoded video for one layer a pad, with encode=auto or never"
                .into(),
        );
    }
    Ok(work)
}

impl State {
    /// Whether what comes encoded is encoded anew.
    pub(super) fn encodes_anew(&self) -> bool {
        let anew =
            |media: Form, work: Work| matches!((media, work), (Form::Encoded(_), Work::Encode(_)));
        let mut inputs = self.inputs.values();
        inputs.any(|input| {
            input
                .media
                .is_some_and(|media| anew(media.form, input.work))
        })
    }
}

/// Why what comes encoded had better be encoded anew.
#[derive(Debug, Clone, Copy)]
enum Lacks {
    Order,
    Decoders,
    Keyframes,
}

impl Lacks {
    fn why(self) -> &'static str {
        match self {
            Self::Order => "has B-frames",
            Self::Decoders => "is interlaced, or not 4:2:0 of 8 bits",
            Self::Keyframes => {
                "had no keyframe for 10 s or 300 pictures, and got none when one was asked for"
            }
        }
    }

    /// What viewers see of it, and what helps.
    fn so(self) -> &'static str {
        match self {
            Self::Order => {
                "of which browsers show about one picture a group of pictures: \
                 encode without (x264: tune=zerolatency or bframes=0)"
            }
            Self::Decoders => {
                "which browsers don't offer to decode: encode progressive pictures as 4:2:0 of 8 bits"
            }
            Self::Keyframes => {
                "so that who joins sees nothing until the next one: \
                 encode with one each 2 s (x264: key-int-max, FFmpeg: -g) and without intra refresh"
            }
        }
    }
}

/// A pad's pictures, as the probe saw them.
#[derive(Debug)]
struct Look {
    codec: Codec,
    says: Says,
    /// The sequence parameter set that came last.
    set: Vec<u8>,
    /// Browsers don't decode it.
    foreign: bool,
    watch: Watch,
    groups: Groups,
    work: Work,
    /// Whether what lacks something is encoded anew.
    may_encode: bool,
    told: [bool; 3],
    decided: Option<Instant>,
    /// The group of pictures so far, while they go on as they are and it is not sure that they may.
    kept: Vec<gst::Buffer>,
    octets: usize,
    /// The latest that went on as it is.
    shown: Option<gst::ClockTime>,
    /// What was kept passes.
    again: bool,
    out_of_order: Arc<AtomicU64>,
    /// Told to the way that all comes in by.
    in_order: Arc<AtomicBool>,
}

/// What one picture says.
#[derive(Debug)]
struct Picture {
    /// What is done from now on, where that is something else.
    turn: Option<Work>,
    lacks: Option<Lacks>,
    /// A keyframe is to be asked for.
    ask: bool,
}

impl Look {
    fn picture(&mut self, buffer: &gst::BufferRef) -> Picture {
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        if keyframe {
            self.parameter_sets(buffer);
        }
        let seen = self.watch.picture(buffer.pts(), keyframe);
        let keyframes = self.groups.picture(buffer.dts_or_pts(), keyframe);
        if seen != Seen::InOrder {
            self.out_of_order.fetch_add(1, Relaxed);
        }
        let lacks = match keyframes {
            _ if self.reorders(seen) => Some(Lacks::Order),
            _ if self.foreign => Some(Lacks::Decoders),
            Keyframes::Seldom => Some(Lacks::Keyframes),
            _ => None,
        };
        let settled = self.decided.is_none_or(|at| at.elapsed() > SETTLED);
        let turn = match (self.work, lacks) {
            // Viewers begin there.
            (Work::Encode(_), None) if keyframe && self.says == Says::Never && settled => {
                Some(Work::Pass)
            }
            (Work::Wait | Work::Pass, Some(_)) if self.may_encode => Some(Work::Encode(0)),
            (Work::Wait, _) => Some(Work::Pass),
            _ => None,
        };
        let ask = keyframes == Keyframes::Ask;
        Picture { turn, lacks, ask }
    }

    /// Parameter sets come with each keyframe, and parsers tell of another one only where their caps would differ.
    fn parameter_sets(&mut self, buffer: &gst::BufferRef) {
        let Some(set) = order::sequence_set(self.codec, buffer) else {
            return;
        };
        if self.set != set {
            let says = order::set_says(self.codec, &set);
            self.set = set;
            self.heard(says);
        }
    }

    fn heard(&mut self, says: Says) {
        self.says = says;
        self.in_order.store(says == Says::Never, Relaxed);
    }

    fn reorders(&self, seen: Seen) -> bool {
        match self.says {
            Says::Reorders => true,
            Says::Never => false,
            Says::Nothing => seen == Seen::Again,
        }
    }

    /// Keeps what a decoder would begin with.
    fn keep(&mut self, buffer: &gst::Buffer) {
        if !self.may_encode {
            return self.forget();
        }
        let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        if keyframe || self.kept.len() >= KEPT || self.octets > KEPT_OCTETS {
            self.forget();
        }
        if keyframe || !self.kept.is_empty() {
            // A copy: an encoder with a pool of few buffers would wait for what is kept here.
            if let Ok(copy) = buffer.copy_deep() {
                self.octets += copy.size();
                self.kept.push(copy);
            }
        }
    }

    /// What viewers miss is told once, where nothing can be done about it.
    fn untold(&mut self, picture: &Picture) -> Option<Lacks> {
        let lacks = picture.lacks.filter(|_| !self.may_encode)?;
        let told = std::mem::replace(&mut self.told[lacks as usize], true);
        (!told).then_some(lacks)
    }

    /// Time does, and so does what is decoded.
    fn begin_anew(&mut self) {
        self.watch = Watch::default();
        self.groups = Groups::default();
        self.shown = None;
        self.forget();
    }

    fn forget(&mut self) {
        self.kept.clear();
        self.octets = 0;
    }
}

/// Asks upstream for a keyframe, which most sources have no way to make.
fn ask(source: &gst::Pad) {
    let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true);
    let _ = source.send_event(event.build());
}

impl SfuSink {
    /// Looks at what comes encoded on a video pad, behind its parser.
    pub(super) fn look(&self, pad: &gst::Pad, number: u32, form: Form, branch: &Branch) {
        let Form::Encoded(codec @ (Codec::H264 | Codec::H265)) = form else {
            return;
        };
        let point = branch.point();
        let Some(source) = point.and_then(|point| point.static_pad("src")) else {
            return;
        };
        let (settings, state) = (lock(&self.settings), lock(&self.state));
        let videos = state.inputs.keys().filter(|(audio, _)| !audio).count();
        let input = state.inputs.get(&key(TrackKind::Video, number));
        let in_order = input.map(|input| input.in_order.clone());
        let in_order = in_order.unwrap_or_default();
        in_order.store(false, Relaxed);
        let work = work(TrackKind::Video, form, &settings, videos).unwrap_or(Work::Pass);
        if matches!(work, Work::Encode(_)) {
            return;
        }
        let look = Mutex::new(Look {
            codec,
            says: Says::Nothing,
            set: Vec::new(),
            foreign: false,
            watch: Watch::default(),
            groups: Groups::default(),
            work,
            may_encode: work == Work::Wait,
            told: [false; 3],
            decided: None,
            kept: Vec::new(),
            octets: 0,
            shown: None,
            again: false,
            out_of_order: state.out_of_order.clone(),
            in_order,
        });
        drop((settings, state));
        let (sink, pad) = (self.obj().downgrade(), pad.name());
        let mask = gst::PadProbeType::DATA_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        source.add_probe(mask, move |source, info| {
            let Some(sink) = sink.upgrade() else {
                return gst::PadProbeReturn::Ok;
            };
            sink.imp().looked_at(source, info, &look, number, &pad)
        });
    }

    fn looked_at(
        &self,
        source: &gst::Pad,
        info: &mut gst::PadProbeInfo<'_>,
        look: &Mutex<Look>,
        number: u32,
        pad: &str,
    ) -> gst::PadProbeReturn {
        match &info.data {
            Some(gst::PadProbeData::Event(event)) => match event.view() {
                gst::EventView::Caps(caps) => {
                    let says = order::says(caps.caps());
                    let mut look = lock(look);
                    look.heard(says);
                    look.foreign = order::is_foreign(caps.caps());
                }
                gst::EventView::FlushStop(_) => lock(look).begin_anew(),
                gst::EventView::Eos(_) if lock(look).work == Work::Wait => {
                    self.close(number);
                }
                _ => {}
            },
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let (picture, lacks) = {
                    let mut look = lock(look);
                    if look.again {
                        return gst::PadProbeReturn::Ok;
                    }
                    let picture = look.picture(buffer);
                    let lacks = look.untold(&picture);
                    (picture, lacks)
                };
                if let Some(lacks) = lacks {
                    self.tell(lacks, pad);
                }
                if picture.ask {
                    ask(source);
                }
                let turn = picture.turn.map(|work| (work, picture.lacks));
                let result = turn.map_or(Ok(gst::FlowSuccess::Ok), |turn| {
                    self.turn(source, look, number, turn, pad)
                });
                if result.is_err() {
                    info.flow_res = result;
                    return gst::PadProbeReturn::Handled;
                }
                let mut look = lock(look);
                if look.work == Work::Pass {
                    look.shown = look.shown.max(buffer.pts());
                    look.keep(buffer);
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    }

    fn tell(&self, lacks: Lacks, pad: &str) {
        gst::element_imp_warning!(
            self,
            gst::StreamError::Format,
            (
                "{pad}: the video {}, {}, or have it encoded anew by encode=auto, which takes a single video pad",
                lacks.why(),
                lacks.so()
            )
        );
    }

    /// Does otherwise with what comes.
    fn turn(
        &self,
        source: &gst::Pad,
        look: &Mutex<Look>,
        number: u32,
        (work, lacks): (Work, Option<Lacks>),
        pad: &str,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let why = lacks.map_or("", Lacks::why);
        let anew = matches!(work, Work::Encode(_));
        let before = lock(look).work;
        gst::debug!(CAT, imp = self, "{pad}: {before:?} becomes {work:?}, {why}");
        if anew && before == Work::Pass && lock(&self.state).videos().count() > 1 {
            // Another layer has come meanwhile.
            lock(look).may_encode = false;
            return Ok(gst::FlowSuccess::Ok);
        }
        let layers = lock(&self.settings).layers.as_slice().len();
        let work = if anew { Work::Encode(layers) } else { work };
        let first = lock(look).work == Work::Wait;
        let decided = self.decide(number, work).or_else(|error| {
            if !anew || !self.is_running(number) {
                return Err(error);
            }
            // Better than nothing.
            lock(look).may_encode = false;
            gst::element_imp_warning!(
                self,
                gst::StreamError::Decode,
                ("{pad}: the video {why} and can't be encoded anew: {error}")
            );
            self.decide(number, Work::Pass)
        });
        if let Err(error) = decided {
            gst::debug!(CAT, imp = self, "{pad}: {error}");
            return Err(gst::FlowError::Flushing);
        }
        let (kept, shown) = {
            let mut look = lock(look);
            let anew = anew && look.may_encode;
            look.work = if anew { work } else { Work::Pass };
            look.decided = Some(Instant::now());
            let kept = std::mem::take(&mut look.kept);
            look.forget();
            look.again = anew;
            (kept, look.shown.take())
        };
        if !anew || !lock(look).again {
            return Ok(gst::FlowSuccess::Ok);
        }
        let since = if first { "" } else { " from now on" };
        gst::element_imp_info!(
            self,
            gst::StreamError::Format,
            ("{pad}: the video {why}, and is encoded anew{since}")
        );
        let result = Self::again(source, kept, shown);
        lock(look).again = false;
        result
    }

    /// Has the decoder begin where the group of pictures does. What viewers have seen is not shown again.
    fn again(
        source: &gst::Pad,
        kept: Vec<gst::Buffer>,
        shown: Option<gst::ClockTime>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let decoder = source.peer().and_then(|peer| peer.parent_element());
        let decoded = decoder.and_then(|decoder| decoder.static_pad("src"));
        if let Some(decoded) = decoded {
            decoded.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let time = info.buffer().and_then(|buffer| buffer.pts());
                match time.zip(shown) {
                    Some((time, shown)) if time <= shown => gst::PadProbeReturn::Drop,
                    _ => gst::PadProbeReturn::Remove,
                }
            });
        }
        if kept.is_empty() {
            // It begins with the next one: sooner, if upstream can be asked.
            ask(source);
        }
        for buffer in kept {
            source.push(buffer)?;
        }
        Ok(gst::FlowSuccess::Ok)
    }

    fn is_running(&self, number: u32) -> bool {
        let state = lock(&self.state);
        let input = state.inputs.get(&key(TrackKind::Video, number));
        input.is_some_and(|input| input.branch.is_some())
    }

    /// The end comes before anything that could be shown.
    fn close(&self, number: u32) {
        let key = key(TrackKind::Video, number);
        let publisher = lock(&self.state).publisher.clone();
        let Some((publisher, mut branch)) = publisher.zip(self.take_branch(key)) else {
            return self.let_go(key);
        };
        if let Err(why) = branch.close(self.obj().upcast_ref()) {
            gst::debug!(CAT, imp = self, "{why}");
        }
        let _ = self.put_back(key, branch, &publisher, None);
    }
}
