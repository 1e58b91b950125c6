// SPDX-License-Identifier: MPL-2.0

//! The elements between one publisher and its segments: a pipeline of its own, made when the publisher's tracks are
//! known and taken down when it goes. So nothing of one publisher is left when the next one comes, and what fails in
//! there ends there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, SystemTime};

use gst::prelude::*;
use sfu_engine::{Codec, StreamInfo, TrackHealth};

use super::CAT;
use super::alternates::Alternates;
use super::layer::{Common, Layer, Report};
use super::master::{Media, Sound};
use super::rendition::Rendition;
use super::settings::Settings;
use super::standstill::STANDSTILL;
use crate::aac;

const AUDIO_BITRATE: i32 = 128_000;
/// How long the muxer waits for a track that is late: longer than until a standstill, and two cores that encode may hold
/// sound up.
pub(super) const MUXER_LATENCY: u64 = STANDSTILL + 1_000_000_000;
/// How long the mixer waits for sound before it puts silence there.
const MIXER_LATENCY: u64 = 200_000_000;

/// What a publisher sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracks {
    pub(super) video: Option<Codec>,
    pub(super) layers: usize,
    /// The number of the first audio track. Others come and go while it plays.
    pub(super) audio: Option<usize>,
}

impl Tracks {
    /// What there is of a stream, if it has a publisher.
    pub(super) fn of(info: &StreamInfo) -> Option<Self> {
        let tracks = Self {
            video: info.video.as_ref().map(|video| video.codec),
            layers: info.video.as_ref().map_or(0, |video| video.layers.len()),
            audio: info.audio.first().map(|first| first.track.number),
        };
        let any = tracks.layers > 0 || tracks.audio.is_some();
        (info.live && any).then_some(tracks)
    }

    /// The same without what was promised and does not come.
    pub(super) fn flowing(info: &StreamInfo) -> Option<Self> {
        let tracks = Self::of(info)?;
        let flows = |track: &TrackHealth| track.frames > 0 && track.frame_rate != Some(0.0);
        let pictures = info.video.iter().flat_map(|video| &video.health).any(flows);
        Some(match tracks.audio {
            Some(_) if !pictures => Self {
                video: None,
                layers: 0,
                ..tracks
            },
            _ => tracks,
        })
    }

    /// Why HLS can't carry it.
    pub(super) fn refused(&self) -> Option<String> {
        let codec = self.video.filter(|codec| *codec != Codec::H264)?;
        Some(format!(
            "it is {}, and this element puts only H.264 into HLS. Publish H.264 (the menu Codec on the page /publish/…, \
             codec=h264 on sfusink), or encode it anew: sfusrc ! decodebin ! videoconvert ! sfusink, as ./sfu run \
             re-encode does",
            codec.name()
        ))
    }

    /// How many playlists it makes. Sound alone is a layer.
    pub(super) fn outputs(&self) -> usize {
        self.layers.max(1)
    }

    /// What it is expected to write from the start, with these audio tracks.
    pub(super) fn renditions(&self, sound: &[Sound]) -> BTreeSet<Rendition> {
        let layers = (0..self.outputs()).map(Rendition::Layer);
        let further = sound.iter().skip(1);
        let further = further.map(|sound| Rendition::Audio(sound.number));
        layers.chain(further).collect()
    }

    /// The pipeline's description.
    fn description(&self, encoder: &str) -> String {
        let mut line = "sfusrc name=in layer=all on-loss=eos".to_owned();
        let more = |line: &mut String, text: String| {
            line.push(' ');
            line.push_str(&text);
        };
        if let Some(first) = self.audio {
            let queue = format!("audio_{first}");
            let mixer = mixer(&queue, encoder);
            more(
                &mut line,
                format!("queue name={queue} {mixer} ! tee name=sound"),
            );
        }
        for n in 0..self.outputs() {
            let sink = format!(
                "mpegtsmux name=mux_{n} latency={MUXER_LATENCY} ! appsink name=sink_{n} sync=false async=false"
            );
            more(&mut line, sink);
            let first = match self.layers {
                0 => format!(
                    "sound. ! queue name=first_{n} ! capsfilter name=into_{n} ! mux_{n}.sink_65"
                ),
                _ => format!(
                    "queue name=video_{n} ! capsfilter name=into_{n} caps=video/x-h264,stream-format=byte-stream,alignment=au \
                       ! mux_{n}.sink_65"
                ),
            };
            more(&mut line, first);
            if self.layers > 0 && self.audio.is_some() {
                more(
                    &mut line,
                    format!("sound. ! queue name=sound_{n} ! mux_{n}.sink_66"),
                );
            }
        }
        line
    }
}

/// From a queue to AAC. The mixer is what makes sound without holes of it: players stall at holes.
pub(super) fn mixer(queue: &str, encoder: &str) -> String {
    format!(
        "{queue}. ! opusdec ! audioconvert ! audioresample ! audio/x-raw,rate=48000,channels=2 ! mix. \
         audiotestsrc name=silence is-live=true wave=silence ! audio/x-raw,rate=48000,channels=2 ! mix. \
         audiomixer name=mix latency={MIXER_LATENCY} start-time-selection=first \
           ! audio/x-raw,rate=48000,channels=2 ! audioconvert ! {encoder} bitrate={AUDIO_BITRATE} ! aacparse"
    )
}

/// Lets silence end with its next buffer, once that is wanted.
pub(super) fn silence_at_end(silence: &gst::Pad, silenced: &Arc<AtomicBool>) {
    let silenced = silenced.clone();
    silence.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if !silenced.load(Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        info.flow_res = Err(gst::FlowError::Eos);
        gst::PadProbeReturn::Handled
    });
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Session {
    pipeline: gst::Pipeline,
    /// The silence is to end.
    silenced: Arc<AtomicBool>,
    common: Arc<Common>,
    layers: Vec<Arc<Layer>>,
    alternates: Alternates,
    /// When running time was zero.
    zero: SystemTime,
    started: Instant,
    /// By layer: the last slot whose keyframe was asked for, and when, in running time.
    asked: Vec<(u64, u64)>,
}

/// A keyframe that does not come is asked for again.
const ASK_AGAIN: u64 = 250_000_000;
/// Nothing can be written for so long: it does not begin.
const BEGINS: Duration = Duration::from_secs(5);

impl Session {
    pub(super) fn start(
        settings: &Settings,
        folder: &std::path::Path,
        tracks: &Tracks,
        report: Sender<Report>,
    ) -> Result<Self, String> {
        let description = tracks.description(aac::encoder()?);
        gst::debug!(CAT, "{description}");
        let pipeline = gst::parse::launch(&description).map_err(|e| e.to_string())?;
        let pipeline = pipeline.downcast::<gst::Pipeline>();
        let pipeline = pipeline.map_err(|_| "the description is no pipeline")?;
        let common = Common::new(
            settings.rules(),
            folder.to_owned(),
            tracks.audio.is_some(),
            report,
        );
        let common = Arc::new(common);
        let pictures = tracks.layers > 0;
        let layer = |n| Arc::new(Layer::new(common.clone(), Rendition::Layer(n), pictures));
        let layers = (0..tracks.outputs()).map(layer).collect();
        let mut session = Self {
            pipeline,
            silenced: Arc::default(),
            common,
            layers,
            alternates: Alternates::default(),
            zero: SystemTime::now(),
            started: Instant::now(),
            asked: vec![(0, 0); tracks.outputs()],
        };
        session.connect(settings)?;
        let started = session.pipeline.set_state(gst::State::Playing);
        started.map_err(|e| {
            crate::ending::failure(&session.pipeline).unwrap_or_else(|| e.to_string())
        })?;
        session.zero = session.now().map_or_else(SystemTime::now, |now| {
            SystemTime::now() - Duration::from_nanos(now)
        });
        Ok(session)
    }

    fn child(&self, name: &str) -> Result<gst::Element, String> {
        let child = self.pipeline.by_name(name);
        child.ok_or_else(|| format!("the pipeline has no {name}"))
    }

    fn pad(&self, element: &str, pad: &str) -> Result<gst::Pad, String> {
        let found = self.child(element)?.static_pad(pad);
        found.ok_or_else(|| format!("{element} has no pad {pad}"))
    }

    fn connect(&self, settings: &Settings) -> Result<(), String> {
        let source = self.child("in")?;
        source.set_property("stream", &settings.stream);
        source.set_property("router", &settings.router);
        source.set_property("latency", settings.latency_ms);
        let pipeline = self.pipeline.downgrade();
        source.connect_pad_added(move |_, pad| {
            let queue = pipeline.upgrade().and_then(|p| p.by_name(&pad.name()));
            let sink = queue.and_then(|queue| queue.static_pad("sink"));
            match sink.map(|sink| pad.link(&sink)) {
                Some(Ok(_)) => {}
                // A further track is taken once it is known what it is.
                None if pad.name().starts_with("audio_") => {}
                linked => gst::warning!(CAT, obj = pad, "is not linked: {linked:?}"),
            }
        });
        if let Ok(pad) = self.pad("silence", "src") {
            silence_at_end(&pad, &self.silenced);
        }
        for (n, layer) in self.layers.iter().enumerate() {
            let into = self.pad(&format!("into_{n}"), "src")?;
            let first = ["video", "first"].iter().find_map(|kind| {
                let queue = self.pipeline.by_name(&format!("{kind}_{n}"))?;
                queue.static_pad("src")
            });
            layer.watch_input(&first.ok_or("a layer has no queue")?, &into);
            if let Ok(pad) = self.pad(&format!("sound_{n}"), "src") {
                layer.watch_sound(&pad, &into);
            }
            let sink = self
                .child(&format!("sink_{n}"))?
                .downcast::<gst_app::AppSink>();
            layer.watch_output(&sink.map_err(|_| "a sink is no appsink")?);
        }
        Ok(())
    }

    fn now(&self) -> Option<u64> {
        let now = self.pipeline.current_running_time();
        now.map(gst::ClockTime::nseconds)
    }

    /// The wall clock's time at a running time.
    pub(super) fn date(&self, running_time: u64) -> SystemTime {
        self.zero + Duration::from_nanos(running_time)
    }

    pub(super) fn media(&self, layer: usize) -> Media {
        self.layers
            .get(layer)
            .map_or_else(Media::default, |l| l.media())
    }

    /// Takes the further ones of these audio tracks that have come. Returns what went wrong.
    pub(super) fn take(&mut self, sound: &[Sound]) -> Result<(), String> {
        let Self {
            pipeline,
            common,
            silenced,
            alternates,
            ..
        } = self;
        alternates.take(sound, pipeline, common, silenced)
    }

    /// Asks for the keyframes that are due, and gives up layers from which nothing comes.
    pub(super) fn tick(&mut self) {
        let (Some(now), Some(origin)) = (self.now(), self.common.origin()) else {
            return;
        };
        self.alternates.layers().for_each(|layer| layer.lapse(now));
        for (n, layer) in self.layers.iter().enumerate() {
            layer.lapse(now);
            let slot = layer.slot().map_or(0, |slot| slot + 1);
            let due = now >= self.common.rules.ask_at(slot, origin);
            if !due && !layer.wants_keyframe() {
                continue;
            }
            let (asked, at) = self.asked[n];
            if asked == slot && now < at + ASK_AGAIN {
                continue;
            }
            self.asked[n] = (slot, now);
            if let Some(pad) = self.source_pad(n) {
                let event = gst_video::UpstreamForceKeyUnitEvent::builder();
                pad.send_event(event.all_headers(true).build());
            }
        }
    }

    /// Nothing has been written yet, which takes too long.
    pub(super) fn does_not_begin(&self) -> bool {
        self.common.origin().is_none() && self.started.elapsed() > BEGINS
    }

    /// No layer has got anything for long.
    pub(super) fn stalls(&self) -> bool {
        let begun = self.common.origin().is_some();
        self.does_not_begin() || (begun && self.layers.iter().all(|layer| layer.stalls()))
    }

    /// The source's pad of a layer with pictures that has come.
    fn source_pad(&self, layer: usize) -> Option<gst::Pad> {
        let queue = self.pipeline.by_name(&format!("video_{layer}"))?;
        queue.static_pad("sink")?.peer()
    }

    /// What the pipeline has to say, if that is soon.
    pub(super) fn message(&self, patience: Duration) -> Option<gst::Message> {
        let patience = gst::ClockTime::from_nseconds(patience.as_nanos() as u64);
        let types = [
            gst::MessageType::Error,
            gst::MessageType::Eos,
            gst::MessageType::Element,
            gst::MessageType::Latency,
        ];
        let message = self.pipeline.bus()?.timed_pop_filtered(patience, &types)?;
        if message.type_() == gst::MessageType::Latency {
            let _ = self.pipeline.recalculate_latency();
            return None;
        }
        Some(message)
    }

    /// Ends the media: segments that have begun come to their ends.
    ///
    /// An EOS event to the source of silence would wait for what it just pushes, which waits for ever behind a picture that
    /// stalls: it is told at its next buffer, if there is one.
    pub(super) fn finish(&self) {
        self.silenced.store(true, Relaxed);
        if let Some(source) = self.pipeline.by_name("in") {
            source.send_event(gst::event::Eos::new());
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(error) = self.pipeline.set_state(gst::State::Null) {
            gst::warning!(CAT, "the inner pipeline does not stop: {error}");
        }
    }
}
