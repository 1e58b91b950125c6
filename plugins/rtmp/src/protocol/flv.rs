// SPDX-License-Identifier: MPL-2.0
//! What audio and video messages hold (FLV 10.1, annex E.4; Enhanced RTMP v2), checked so far that parsers downstream
//! have nothing to fail at, for `rtmpserversrc/feed.rs`.

mod audio;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub(crate) use audio::{Audio, AudioCodec, AudioFormat, audio};

use super::units::{Units, sized_unit};
use super::{Misuse, parameters};

/// A codec that has a way through here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VideoCodec {
    H264,
    H265,
    Av1,
}

/// What a video message holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Video {
    /// The codec's configuration record.
    Header(VideoCodec, Bytes),
    Frame {
        codec: VideoCodec,
        keyframe: bool,
        /// How much later than decoded it is shown, in ms.
        offset: i32,
        data: Bytes,
    },
    /// Nothing to be shown.
    Other,
}

const CUT_SHORT: Misuse = Misuse::Tag("it is cut short");

/// A signed number of 24 bits.
fn offset(bytes: &[u8]) -> Option<i32> {
    match bytes {
        [a, b, c, ..] => Some(i32::from_be_bytes([*a, *b, *c, 0]) >> 8),
        _ => None,
    }
}

/// Reads a video message.
pub(crate) fn video(data: &Bytes) -> Result<Video, Misuse> {
    let Some(&first) = data.first() else {
        // Some encoders send empty ones to keep the connection alive.
        return Ok(Video::Other);
    };
    if first & 0x80 != 0 {
        return enhanced(data, first);
    }
    let keyframe = match first >> 4 {
        1 => true,
        5 => return Ok(Video::Other),
        _ => false,
    };
    match first & 0x0f {
        7 => {}
        2 => return Err(Misuse::Codec("Sorenson H.263".into())),
        4 | 5 => return Err(Misuse::Codec("VP6".into())),
        codec => return Err(Misuse::Codec(format!("video codec {codec}"))),
    }
    let (Some(kind), Some(offset)) = (data.get(1), data.get(2..).and_then(offset)) else {
        return Err(CUT_SHORT);
    };
    let codec = VideoCodec::H264;
    let data = data.slice(5..);
    match kind {
        0 => header(codec, data),
        1 => Ok(Video::Frame {
            codec,
            keyframe,
            offset,
            data,
        }),
        _ => Ok(Video::Other),
    }
}

/// What a message holds of one track.
#[derive(Debug, PartialEq, Eq)]
struct Track {
    id: u8,
    packet_type: u8,
    fourcc: [u8; 4],
    body: Bytes,
}

/// The tracks of an extended message (Enhanced RTMP v2, "Extended VideoTagHeader" and the audio one, which are built alike),
/// in the order that they have there.
#[derive(Debug)]
struct Tracks {
    rest: Bytes,
    packet_type: u8,
    /// `None`: each track has its own.
    fourcc: Option<[u8; 4]>,
    /// Each track has a length.
    several: bool,
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes, Misuse> {
    let long_enough = rest.len() >= length;
    long_enough.then(|| rest.split_to(length)).ok_or(CUT_SHORT)
}

fn fourcc(rest: &mut Bytes) -> Result<[u8; 4], Misuse> {
    let bytes = take(rest, 4)?;
    Ok([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// What an extended message holds: its only track, or several.
#[derive(Debug)]
enum Extended {
    One(Track),
    Several(Tracks),
}

impl Extended {
    /// `multitrack` is the packet type that several tracks come by.
    fn read(message: &Bytes, multitrack: u8) -> Result<Self, Misuse> {
        let mut rest = message.clone();
        let mut packet_type = take(&mut rest, 1)?[0] & 0x0f;
        // What modifies the message, such as nanoseconds, stands before it.
        while packet_type == MODIFIER {
            let mut length = usize::from(take(&mut rest, 1)?[0]) + 1;
            if length == 256 {
                let long = take(&mut rest, 2)?;
                length = usize::from(u16::from_be_bytes([long[0], long[1]])) + 1;
            }
            take(&mut rest, length)?;
            packet_type = take(&mut rest, 1)?[0] & 0x0f;
        }
        if packet_type != multitrack {
            let fourcc = fourcc(&mut rest)?;
            return Ok(Self::One(Track {
                id: 0,
                packet_type,
                fourcc,
                body: rest,
            }));
        }
        let tracks = take(&mut rest, 1)?[0];
        let codecs = tracks >> 4 == 2;
        let fourcc = match codecs {
            true => None,
            false => Some(fourcc(&mut rest)?),
        };
        Ok(Self::Several(Tracks {
            rest,
            packet_type: tracks & 0x0f,
            fourcc,
            several: tracks >> 4 != 0,
        }))
    }
}

impl Tracks {
    /// The track that comes next, none at the end.
    fn read(&mut self) -> Result<Option<Track>, Misuse> {
        let Tracks { rest, .. } = self;
        if rest.is_empty() {
            return Ok(None);
        }
        let fourcc = match self.fourcc {
            Some(fourcc) => fourcc,
            None => fourcc(rest)?,
        };
        let id = take(rest, 1)?[0];
        let length = match self.several {
            true => {
                let length = take(rest, 3)?;
                let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
                usize::try_from(length).map_err(|_| CUT_SHORT)?
            }
            false => rest.len(),
        };
        let body = take(rest, length)?;
        Ok(Some(Track {
            id,
            packet_type: self.packet_type,
            fourcc,
            body,
        }))
    }
}

impl Iterator for Tracks {
    type Item = Result<Track, Misuse>;

    fn next(&mut self) -> Option<Self::Item> {
        let track = self.read();
        if track.is_err() {
            self.rest.clear();
        }
        track.transpose()
    }
}

/// The name of a codec, which a stranger may have written.
fn name_of(fourcc: [u8; 4]) -> String {
    let printable = |byte: u8| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '?',
    };
    fourcc.map(printable).iter().collect()
}

const MODIFIER: u8 = 7;
const VIDEO_TRACKS: u8 = 6;
const AUDIO_TRACKS: u8 = 5;

fn enhanced(data: &Bytes, first: u8) -> Result<Video, Misuse> {
    let frame_type = first >> 4 & 7;
    if frame_type == 5 {
        return Ok(Video::Other);
    }
    let track = match Extended::read(data, VIDEO_TRACKS)? {
        Extended::One(track) => Some(track),
        Extended::Several(mut tracks) => {
            let is_other = |track: &Result<Track, _>| matches!(track, Ok(track) if track.id != 0);
            tracks.find(|track| !is_other(track)).transpose()?
        }
    };
    let Some(track) = track else {
        return Ok(Video::Other);
    };
    let data = track.body;
    let codec = match &track.fourcc {
        b"avc1" => VideoCodec::H264,
        b"hvc1" => VideoCodec::H265,
        b"av01" => VideoCodec::Av1,
        other => return Err(Misuse::Codec(name_of(*other))),
    };
    let keyframe = frame_type == 1;
    let frame = |offset, data| Video::Frame {
        codec,
        keyframe,
        offset,
        data,
    };
    match track.packet_type {
        0 => header(codec, data),
        1 if codec != VideoCodec::Av1 => {
            let offset = offset(&data).ok_or(CUT_SHORT)?;
            Ok(frame(offset, data.slice(3..)))
        }
        1 | 3 => Ok(frame(0, data)),
        _ => Ok(Video::Other),
    }
}

fn header(codec: VideoCodec, record: Bytes) -> Result<Video, Misuse> {
    let units = match codec {
        VideoCodec::H264 => avc_record(&record).map(|(_, units)| units),
        VideoCodec::H265 => hevc_record(&record),
        VideoCodec::Av1 => (record.len() >= 4 && record[0] == 0x81).then(Vec::new),
    };
    let units = units.ok_or(Misuse::Tag("its configuration record is broken"))?;
    parameters::check(codec, &record, &units)?;
    Ok(Video::Header(codec, record))
}

/// Takes a unit with a length of two bytes.
fn unit<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(2)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (unit, after) = after.split_at_checked(length)?;
    *rest = after;
    (length >= 2).then_some(unit)
}

/// How many bytes a NAL unit's length has, and the parameter sets, if the record (ISO 14496-15, 5.3.3.1) is whole.
fn avc_record(record: &[u8]) -> Option<(usize, Vec<&[u8]>)> {
    let (fixed, mut rest) = record.split_at_checked(6)?;
    let size = usize::from(fixed[4] & 3) + 1;
    let sequences = fixed[5] & 31;
    let mut units = Vec::new();
    for _ in 0..sequences {
        units.push(unit(&mut rest)?);
    }
    let (pictures, mut rest) = rest.split_first()?;
    for _ in 0..*pictures {
        units.push(unit(&mut rest)?);
    }
    (fixed[0] == 1 && sequences > 0 && *pictures > 0 && size != 3).then_some((size, units))
}

/// The parameter sets, if the record (ISO 14496-15, 8.3.3.1) is whole.
fn hevc_record(record: &[u8]) -> Option<Vec<&[u8]>> {
    let (fixed, mut rest) = record.split_at_checked(23)?;
    let mut units = Vec::new();
    for _ in 0..fixed[22] {
        let (head, after) = rest.split_at_checked(3)?;
        rest = after;
        for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
            units.push(unit(&mut rest)?);
        }
    }
    (fixed[0] <= 1).then_some(units)
}

/// A message's frame, checked.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) data: Bytes,
    /// What it is to a picture, where pictures may come in several messages: not for AV1.
    pub(crate) units: Option<Units>,
}

/// Gives a frame without its empty units, if the others are whole by the record that came before.
pub(crate) fn whole(codec: VideoCodec, record: &[u8], frame: Bytes) -> Result<Whole, Misuse> {
    const BROKEN: Misuse = Misuse::Tag("a frame is not whole");
    let size = match codec {
        VideoCodec::H264 => avc_record(record).map(|(size, _)| size),
        VideoCodec::H265 => record.get(21).map(|byte| usize::from(byte & 3) + 1),
        VideoCodec::Av1 if frame.is_empty() => None,
        VideoCodec::Av1 => {
            parameters::check_temporal_unit(&frame)?;
            let (data, units) = (frame, None);
            return Ok(Whole { data, units });
        }
    };
    let size = size.ok_or(BROKEN)?;
    let (mut rest, mut count, mut empty) = (&frame[..], 0, false);
    let mut units = Units::new(codec, size);
    while !rest.is_empty() {
        let (unit, after) = sized_unit(rest, size).ok_or(BROKEN)?;
        parameters::check_unit(codec, unit)?;
        units.see(unit);
        empty |= unit.is_empty();
        count += usize::from(!unit.is_empty());
        rest = after;
    }
    let data = match (count, empty) {
        (0, _) => return Err(BROKEN),
        (_, false) => frame,
        (_, true) => without_empty_units(&frame, size),
    };
    let units = Some(units);
    Ok(Whole { data, units })
}

fn without_empty_units(frame: &[u8], size: usize) -> Bytes {
    let (mut rest, mut kept) = (frame, Vec::with_capacity(frame.len()));
    while let Some((unit, after)) = sized_unit(rest, size) {
        if !unit.is_empty() {
            kept.extend_from_slice(&rest[..size + unit.len()]);
        }
        rest = after;
    }
    kept.into()
}
