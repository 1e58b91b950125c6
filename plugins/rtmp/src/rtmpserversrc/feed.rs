// SPDX-License-Identifier: MPL-2.0
//! What one publisher sends, brought to the pads. Belongs to the thread of its connection: no lock.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::CAT;
use super::output::{Kind, Output};
use super::server::Shared;
use super::stats::count;
use crate::protocol::Misuse;
use crate::protocol::flv::{self, Aac, Audio, Video, VideoCodec};
use crate::protocol::pictures::{Frame, Lost, Pictures};
use crate::protocol::timeline::{Timeline, Track};
use crate::protocol::units::{Role, Units};

/// What may wait for a downstream that does not take it, a few seconds' worth: then video goes on from a keyframe.
const MAX_WAITING: u64 = 8 * 1024 * 1024;
const MAX_WAITING_TIME: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// So many messages of a stream that can't be used, one after the other, some seconds' worth, end it. Sound is left out then, if
/// there are pictures.
const MAX_UNUSABLE: u32 = 100;

/// Why the publisher can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error(transparent)]
    Misuse(#[from] Misuse),
    #[error("the pipeline has ended")]
    Ended,
}

/// One pad's part.
#[derive(Debug)]
struct Stream {
    output: Arc<Output>,
    track: Track,
    /// What the last caps were made of.
    codec: Option<VideoCodec>,
    header: Option<Bytes>,
    /// Something was left out, or nothing was there yet.
    gap: bool,
    /// Messages since the last one that could be used.
    unusable: u32,
}

#[derive(Debug)]
pub(super) struct Feed {
    shared: Arc<Shared>,
    timeline: Timeline,
    video: Stream,
    audio: Stream,
    pictures: Pictures,
    /// Sound comes that nothing here can be done with.
    deaf: bool,
}

impl Stream {
    fn new(output: &Arc<Output>) -> Self {
        Self {
            track: Track::from(output.floor.load(Relaxed)),
            output: Arc::clone(output),
            codec: None,
            header: None,
            gap: true,
            unusable: 0,
        }
    }

    fn set_caps(&mut self, codec: Option<VideoCodec>, header: Bytes, caps: &gst::Caps) -> bool {
        if self.header.as_ref() == Some(&header) && self.codec == codec {
            return true;
        }
        if !self.output.takes(caps) {
            return false;
        }
        self.output.source.set_caps(Some(caps));
        self.codec = codec;
        self.header = Some(header);
        self.gap = true;
        true
    }

    fn overflows(&self) -> bool {
        let source = &self.output.source;
        source.current_level_bytes() > MAX_WAITING || source.current_level_time() > MAX_WAITING_TIME
    }
}

fn video_caps(codec: VideoCodec, header: &Bytes) -> gst::Caps {
    let (name, format, alignment) = match codec {
        VideoCodec::H264 => ("video/x-h264", "avc", "au"),
        VideoCodec::H265 => ("video/x-h265", "hvc1", "au"),
        VideoCodec::Av1 => ("video/x-av1", "obu-stream", "tu"),
    };
    gst::Caps::builder(name)
        .field("stream-format", format)
        .field("alignment", alignment)
        .field("codec_data", gst::Buffer::from_slice(header.clone()))
        .build()
}

fn audio_caps(aac: &Aac) -> gst::Caps {
    gst::Caps::builder("audio/mpeg")
        .field("mpegversion", 4i32)
        .field("stream-format", "raw")
        .field("framed", true)
        .field("rate", i32::try_from(aac.rate).unwrap_or(48_000))
        .field("channels", i32::from(aac.channels))
        .field("codec_data", gst::Buffer::from_slice(aac.config.clone()))
        .build()
}

impl Feed {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        let [video, audio] = &shared.outputs;
        Self {
            shared: Arc::clone(shared),
            timeline: Timeline::default(),
            video: Stream::new(video),
            audio: Stream::new(audio),
            pictures: Pictures::default(),
            deaf: false,
        }
    }

    pub(super) fn video(&mut self, timestamp: u32, message: &Bytes) -> Result<(), Stop> {
        let ended = self.pictures.ended_by(timestamp);
        self.push_pictures(ended)?;
        let result = self.take_video(timestamp, message);
        if let Err(Stop::Misuse(_)) = result {
            self.pictures.discard(timestamp);
        }
        // Pictures go on with the next keyframe, by the last header that was good.
        self.forgive(Kind::Video, result)
    }

    fn take_video(&mut self, timestamp: u32, message: &Bytes) -> Result<(), Stop> {
        match flv::video(message)? {
            Video::Header(codec, record) => self.take_header(codec, record),
            Video::Frame {
                codec,
                keyframe,
                offset,
                data,
            } => {
                let header = self.video.header.as_ref();
                let header = header.filter(|_| self.video.codec == Some(codec));
                let record = header.ok_or(Misuse::Tag("a frame has no header that is good"))?;
                let whole = flv::whole(codec, record, data)?;
                let frame = Frame {
                    timestamp,
                    offset,
                    keyframe,
                    came: self.now(),
                    data: whole.data,
                };
                if let Some(units) = whole.units {
                    return self.take_units(frame, units);
                }
                self.video.unusable = 0;
                self.push(Kind::Video, frame)
            }
            Video::Other => Ok(()),
        }
    }

    fn take_header(&mut self, codec: VideoCodec, record: Bytes) -> Result<(), Stop> {
        if self.video.codec == Some(codec) && self.video.header.as_ref() == Some(&record) {
            return Ok(());
        }
        // What came before goes by the header before.
        self.end_picture()?;
        self.pictures.forget_units();
        let caps = video_caps(codec, &record);
        if self.video.set_caps(Some(codec), record, &caps) {
            return Ok(());
        }
        Err(Misuse::Codec(format!("{codec:?} for what receives it here")).into())
    }

    /// Takes a message of H.264 or H.265, which may be a part of a picture.
    fn take_units(&mut self, mut frame: Frame, units: Units) -> Result<(), Stop> {
        if units.role != Role::Apart {
            self.video.unusable = 0;
        }
        // Not every publisher says so.
        frame.keyframe |= units.random_access;
        match self.pictures.take(frame, units) {
            Ok(pictures) => self.push_pictures(pictures.into_iter().flatten()),
            Err(Lost) => {
                self.video.gap = true;
                count(&self.shared.stats.unusable);
                gst::debug!(CAT, "A part of a picture that is not whole is left out");
                Ok(())
            }
        }
    }

    fn push_pictures(&mut self, pictures: impl IntoIterator<Item = Frame>) -> Result<(), Stop> {
        let mut pictures = pictures.into_iter();
        pictures.try_for_each(|picture| self.push(Kind::Video, picture))
    }

    /// What may be the last picture goes on.
    pub(super) fn end_picture(&mut self) -> Result<(), Stop> {
        let ended = self.pictures.end();
        self.push_pictures(ended)
    }

    /// Something has come.
    pub(super) fn stir(&mut self) {
        self.pictures.stir();
    }

    /// Nothing has come for a while.
    pub(super) fn silence(&mut self) -> Result<(), Stop> {
        let ended = self.pictures.ended_by_silence();
        self.push_pictures(ended)
    }

    pub(super) fn audio(&mut self, timestamp: u32, message: &Bytes) -> Result<(), Stop> {
        let ended = self.pictures.ended_by_sound(timestamp);
        self.push_pictures(ended)?;
        match self.take_audio(timestamp, message) {
            // Pictures go on without.
            Err(Stop::Misuse(why @ Misuse::Codec(_))) => {
                self.leave_out_sound(&why);
                // Nor do its frames follow on a header of before.
                self.audio.header = None;
                count(&self.shared.stats.unusable);
                Ok(())
            }
            result => self.forgive(Kind::Audio, result),
        }
    }

    fn leave_out_sound(&mut self, why: &dyn std::fmt::Display) {
        if !std::mem::replace(&mut self.deaf, true) {
            gst::warning!(CAT, "The sound is left out: {why}");
        }
    }

    fn take_audio(&mut self, timestamp: u32, message: &Bytes) -> Result<(), Stop> {
        match flv::audio(message)? {
            Audio::Header(aac) => {
                let caps = audio_caps(&aac);
                if self.audio.set_caps(None, aac.config, &caps) {
                    self.deaf = false;
                    return Ok(());
                }
                Err(Misuse::Codec("AAC for what receives it here".into()).into())
            }
            Audio::Frame(data) if self.audio.header.is_some() => {
                self.audio.unusable = 0;
                self.deaf = false;
                let frame = Frame {
                    timestamp,
                    offset: 0,
                    keyframe: true,
                    came: self.now(),
                    data,
                };
                self.push(Kind::Audio, frame)
            }
            Audio::Frame(_) if self.deaf => Ok(()),
            Audio::Frame(_) => Err(Misuse::Tag("a frame has no header that is good").into()),
            Audio::Other => Ok(()),
        }
    }

    /// Leaves out what is broken, unless it does not end. Sound never takes the picture away.
    fn forgive(&mut self, kind: Kind, result: Result<(), Stop>) -> Result<(), Stop> {
        let Err(Stop::Misuse(Misuse::Tag(why))) = result else {
            return result;
        };
        let stream = match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        };
        stream.gap = true;
        stream.unusable += 1;
        count(&self.shared.stats.unusable);
        gst::debug!(CAT, "A message of {} is left out: {why}", kind.name());
        if stream.unusable <= MAX_UNUSABLE {
            return Ok(());
        }
        if kind == Kind::Audio && self.video.header.is_some() {
            self.leave_out_sound(&why);
            return Ok(());
        }
        Err(Misuse::Unusable(MAX_UNUSABLE, why.to_owned()).into())
    }

    /// The running time, while it plays.
    fn now(&self) -> Option<u64> {
        self.shared.running_time().map(gst::ClockTime::nseconds)
    }

    /// Hands a frame to its pad, unless it would be of no use there.
    fn push(&mut self, kind: Kind, frame: Frame) -> Result<(), Stop> {
        let stream = match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        };
        let wanted = frame.keyframe || !stream.gap;
        let Some(came) = frame.came.filter(|_| wanted && !stream.overflows()) else {
            stream.gap = true;
            count(&self.shared.stats.dropped_frames);
            return Ok(());
        };
        let place = self
            .timeline
            .place(&mut stream.track, frame.timestamp, came);
        stream.output.floor.store(stream.track.floor(), Relaxed);
        let shown = place
            .time
            .saturating_add_signed(i64::from(frame.offset) * 1_000_000);
        let mut buffer = gst::Buffer::from_slice(frame.data);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_dts(gst::ClockTime::from_nseconds(place.time));
            buffer.set_pts(gst::ClockTime::from_nseconds(shown));
            if std::mem::take(&mut stream.gap) || place.discontinuous {
                buffer.set_flags(gst::BufferFlags::DISCONT);
            }
            if !frame.keyframe {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        if stream.output.kind == Kind::Video {
            count(&self.shared.stats.frames);
        }
        // Not blocking: it only queues.
        match stream.output.source.push_buffer(buffer) {
            Ok(_) => Ok(()),
            Err(_) => Err(Stop::Ended),
        }
    }
}
