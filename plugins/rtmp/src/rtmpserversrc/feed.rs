// SPDX-License-Identifier: MPL-2.0
//! What one publisher sends, brought to the pads. Belongs to the thread of its connection: no lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::CAT;
use super::output::{Kind, Output};
use super::server::Shared;
use super::stats::count;
use crate::protocol::Misuse;
use crate::protocol::choice::Choice;
use crate::protocol::flv::{self, Audio, AudioCodec, AudioFormat, Video, VideoCodec};
use crate::protocol::pictures::{Frame, Lost, Pictures};
use crate::protocol::timeline::{Timeline, Track};
use crate::protocol::units::{Role, Units};

/// What may wait for a downstream that does not take it, a few seconds' worth: then video goes on from a keyframe.
const MAX_WAITING: u64 = 8 * 1024 * 1024;
const MAX_WAITING_TIME: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// So many messages of a stream that can't be used, one after the other, some seconds' worth, end it. Sound is left out then, if
/// there are pictures.
const MAX_UNUSABLE: u32 = 100;

const NO_HEADER: Misuse = Misuse::Tag("a frame has no header that is good");

/// Why the publisher can't go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error(transparent)]
    Misuse(#[from] Misuse),
    #[error("the pipeline has ended")]
    Ended,
}

/// What a pad's caps are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Format {
    Video(VideoCodec, Bytes),
    Audio(AudioFormat),
}

impl Format {
    fn caps(&self) -> gst::Caps {
        match self {
            Self::Video(codec, record) => video_caps(*codec, record),
            Self::Audio(format) => audio_caps(format),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Video(VideoCodec::H264, _) => "H.264",
            Self::Video(VideoCodec::H265, _) => "HEVC",
            Self::Video(VideoCodec::Av1, _) => "AV1",
            Self::Audio(format) => match format.codec() {
                AudioCodec::Aac => "AAC",
                AudioCodec::Opus => "Opus",
                AudioCodec::Mp3 => "MP3",
            },
        }
    }
}

/// One pad's part.
#[derive(Debug)]
struct Stream {
    output: Arc<Output>,
    track: Track,
    /// By which what comes is to be read.
    format: Option<Format>,
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
    /// Which audio track goes on.
    choice: Choice,
    /// Sound comes that nothing here can be done with.
    deaf: bool,
    /// The application was told so.
    told: bool,
    from: SocketAddr,
}

impl Stream {
    fn new(output: &Arc<Output>) -> Self {
        Self {
            track: Track::from(output.floor.load(Relaxed)),
            output: Arc::clone(output),
            format: None,
            gap: true,
            unusable: 0,
        }
    }

    /// Goes on by this format, if what is linked takes it.
    fn set_format(&mut self, format: Format) -> Result<(), Misuse> {
        if self.format.as_ref() == Some(&format) {
            return Ok(());
        }
        let caps = format.caps();
        if !self.output.takes(&caps) {
            return Err(Misuse::Unwanted(format.name()));
        }
        self.output.source.set_caps(Some(&caps));
        self.format = Some(format);
        self.gap = true;
        Ok(())
    }

    /// The configuration record of a codec, if that is what has come.
    fn record(&self, codec: VideoCodec) -> Option<&Bytes> {
        match &self.format {
            Some(Format::Video(own, record)) if *own == codec => Some(record),
            _ => None,
        }
    }

    /// Whether the header of a codec has come.
    fn has(&self, codec: AudioCodec) -> bool {
        matches!(&self.format, Some(Format::Audio(format)) if format.codec() == codec)
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

fn audio_caps(format: &AudioFormat) -> gst::Caps {
    let number = |number: u32| i32::try_from(number).unwrap_or(48_000);
    match format {
        AudioFormat::Aac(aac) => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4i32)
            .field("stream-format", "raw")
            .field("framed", true)
            .field("rate", number(aac.rate))
            .field("channels", i32::from(aac.channels))
            .field("codec_data", gst::Buffer::from_slice(aac.config.clone()))
            .build(),
        // Without a streamheader, which has comments, too: nobody needs it for one or two channels.
        AudioFormat::Opus { channels } => gst::Caps::builder("audio/x-opus")
            .field("channel-mapping-family", 0i32)
            .field("rate", 48_000i32)
            .field("channels", i32::from(*channels))
            .build(),
        AudioFormat::Mp3 { rate, channels } => gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 1i32)
            .field("layer", 3i32)
            .field("parsed", true)
            .field("rate", number(*rate))
            .field("channels", i32::from(*channels))
            .build(),
    }
}

impl Feed {
    pub(super) fn new(shared: &Arc<Shared>, from: SocketAddr) -> Self {
        let [video, audio] = &shared.outputs;
        Self {
            shared: Arc::clone(shared),
            timeline: Timeline::default(),
            video: Stream::new(video),
            audio: Stream::new(audio),
            pictures: Pictures::default(),
            choice: Choice::default(),
            deaf: false,
            told: false,
            from,
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
                let record = self.video.record(codec).ok_or(NO_HEADER)?;
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
        if self.video.record(codec) == Some(&record) {
            return Ok(());
        }
        // What came before goes by the header before.
        self.end_picture()?;
        self.pictures.forget_units();
        Ok(self.video.set_format(Format::Video(codec, record))?)
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
        let mut result = self.take_tracks(timestamp, message);
        // Pictures go on without, and so may another track.
        while let Err(Stop::Misuse(why @ (Misuse::Codec(_) | Misuse::Unwanted(_)))) = result {
            count(&self.shared.stats.unusable);
            self.leave_out_sound(&why);
            // Nor do its frames follow on a header of before.
            self.audio.format = None;
            let Some(other) = self.choice.refuse() else {
                return Ok(());
            };
            gst::info!(CAT, "Audio track {} goes on", self.choice.chosen());
            result = self.set_audio_format(other);
        }
        self.forgive(Kind::Audio, result)
    }

    /// Takes the chosen track, and hears of the headers of others.
    fn take_tracks(&mut self, timestamp: u32, message: &Bytes) -> Result<(), Stop> {
        let mut taken = None;
        for track in flv::audio(message)? {
            let (track, read) = match track {
                Ok(track) => track,
                // What we want was there.
                Err(_) if taken.is_some() => break,
                Err(why) => return Err(why.into()),
            };
            if track == self.choice.chosen() {
                if taken.is_some() {
                    continue;
                }
                let audio = read.map_err(Stop::from);
                taken = Some(audio.and_then(|audio| self.take_audio(timestamp, audio)));
                continue;
            }
            let Ok(Audio::Header(format) | Audio::Whole(format, _)) = read else {
                continue;
            };
            if self.choice.offer(track, format.clone()) {
                gst::info!(CAT, "Audio track {track} goes on");
                taken = Some(self.set_audio_format(format));
            }
        }
        taken.unwrap_or(Ok(()))
    }

    fn set_audio_format(&mut self, format: AudioFormat) -> Result<(), Stop> {
        self.audio.set_format(Format::Audio(format))?;
        self.choice.accept();
        self.deaf = false;
        Ok(())
    }

    /// The application is told once a publisher.
    fn leave_out_sound(&mut self, why: &Misuse) {
        if std::mem::replace(&mut self.deaf, true) {
            return;
        }
        let (from, track) = (self.from, self.choice.chosen());
        let instead = match why {
            Misuse::Unwanted(_) if self.audio.output.decoder().is_some() => {
                ", not even a decoder: install gstreamer1.0-libav"
            }
            Misuse::Unwanted(_) => ": link what does, or set decode-audio",
            _ => "",
        };
        let left_out = format!(
            "The sound of the RTMP publisher {from} (track {track}) is left out: {why}{instead}"
        );
        gst::info!(CAT, "{left_out}");
        if !std::mem::replace(&mut self.told, true) {
            self.shared.warn(gst::StreamError::Format, &left_out);
        }
    }

    fn take_audio(&mut self, timestamp: u32, audio: Audio) -> Result<(), Stop> {
        let data = match audio {
            Audio::Header(format) => return self.set_audio_format(format),
            Audio::Whole(format, data) => {
                self.set_audio_format(format)?;
                data
            }
            Audio::Frame(codec, data) if self.audio.has(codec) => data,
            Audio::Frame(..) if self.deaf => return Ok(()),
            Audio::Frame(..) => return Err(NO_HEADER.into()),
            Audio::Other => return Ok(()),
        };
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
        if kind == Kind::Audio && self.video.format.is_some() {
            self.leave_out_sound(&Misuse::Tag(why));
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
