// SPDX-License-Identifier: MPL-2.0
//! What audio and video messages hold (FLV 10.1, annex E.4; Enhanced RTMP v2), checked so far that parsers downstream
//! have nothing to fail at, for `rtmpserversrc/feed.rs`.

#[cfg(test)]
mod tests;

use bytes::Bytes;

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

/// What an audio message holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Audio {
    /// AAC's configuration.
    Header(Aac),
    Frame(Bytes),
    Other,
}

/// An AudioSpecificConfig (ISO 14496-3, 1.6.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aac {
    pub(crate) config: Bytes,
    pub(crate) rate: u32,
    pub(crate) channels: u8,
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

/// What an extended message holds of track 0 (Enhanced RTMP v2, "Extended VideoTagHeader" and the audio one, which are
/// built alike): a packet type, a codec, and what follows. None where track 0 has nothing in it.
fn extended(data: &Bytes, multitrack: u8) -> Result<Option<(u8, [u8; 4], Bytes)>, Misuse> {
    let mut rest = data.clone();
    let mut take = |length: usize| {
        let long_enough = rest.len() >= length;
        long_enough.then(|| rest.split_to(length)).ok_or(CUT_SHORT)
    };
    let mut kind = take(1)?[0] & 0x0f;
    // What modifies the message, such as nanoseconds, stands before it.
    while kind == MODIFIER {
        let mut length = usize::from(take(1)?[0]) + 1;
        if length == 256 {
            let long = take(2)?;
            length = usize::from(u16::from_be_bytes([long[0], long[1]])) + 1;
        }
        take(length)?;
        kind = take(1)?[0] & 0x0f;
    }
    let fourcc = |bytes: Bytes| [bytes[0], bytes[1], bytes[2], bytes[3]];
    if kind != multitrack {
        let codec = fourcc(take(4)?);
        return Ok(Some((kind, codec, rest)));
    }
    let tracks = take(1)?[0];
    let (kind, several, codecs) = (tracks & 0x0f, tracks >> 4 != 0, tracks >> 4 == 2);
    let mut codec = [0; 4];
    if !codecs {
        codec = fourcc(take(4)?);
    }
    loop {
        // The end: track 0 was not there.
        if codecs {
            let Ok(bytes) = take(4) else { return Ok(None) };
            codec = fourcc(bytes);
        }
        let Ok(track) = take(1) else { return Ok(None) };
        let track = track[0];
        if !several {
            return Ok((track == 0).then_some((kind, codec, rest)));
        }
        let length = take(3)?;
        let length = u32::from_be_bytes([0, length[0], length[1], length[2]]);
        let body = take(usize::try_from(length).map_err(|_| CUT_SHORT)?)?;
        if track == 0 {
            return Ok(Some((kind, codec, body)));
        }
    }
}

const MODIFIER: u8 = 7;
const VIDEO_TRACKS: u8 = 6;
const AUDIO_TRACKS: u8 = 5;

fn enhanced(data: &Bytes, first: u8) -> Result<Video, Misuse> {
    let frame_type = first >> 4 & 7;
    if frame_type == 5 {
        return Ok(Video::Other);
    }
    let Some((kind, fourcc, data)) = extended(data, VIDEO_TRACKS)? else {
        return Ok(Video::Other);
    };
    let codec = match &fourcc {
        b"avc1" => VideoCodec::H264,
        b"hvc1" => VideoCodec::H265,
        b"av01" => VideoCodec::Av1,
        other => {
            return Err(Misuse::Codec(String::from_utf8_lossy(other).into_owned()));
        }
    };
    let keyframe = frame_type == 1;
    let frame = |offset, data| Video::Frame {
        codec,
        keyframe,
        offset,
        data,
    };
    match kind {
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

/// Reads an audio message.
pub(crate) fn audio(data: &Bytes) -> Result<Audio, Misuse> {
    let Some(&first) = data.first() else {
        return Ok(Audio::Other);
    };
    let (kind, data) = match first >> 4 {
        10 => (*data.get(1).ok_or(CUT_SHORT)?, data.slice(2..)),
        9 => match extended(data, AUDIO_TRACKS)? {
            Some((kind, fourcc, data)) if &fourcc == b"mp4a" => (kind, data),
            Some((_, other, _)) => {
                return Err(Misuse::Codec(String::from_utf8_lossy(&other).into_owned()));
            }
            None => return Ok(Audio::Other),
        },
        2 | 14 => return Err(Misuse::Codec("MP3".into())),
        codec => return Err(Misuse::Codec(format!("audio codec {codec}"))),
    };
    match kind {
        0 => aac(data).map(Audio::Header).map_err(|why| match why {
            NoAac::Broken => Misuse::Tag("AAC's configuration is broken"),
            NoAac::Layout => Misuse::Codec("AAC with a layout of its own".into()),
        }),
        1 if data.is_empty() => Ok(Audio::Other),
        1 => Ok(Audio::Frame(data)),
        _ => Ok(Audio::Other),
    }
}

/// Bits of an AudioSpecificConfig.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let bit = |at: usize| {
            let byte = self.bytes.get(at / 8)?;
            Some(u32::from(byte >> (7 - at % 8) & 1))
        };
        let bits = (self.at..self.at + count).try_fold(0, |bits, at| Some(bits << 1 | bit(at)?))?;
        self.at += count;
        Some(bits)
    }

    /// The layout of a program_config_element (ISO 14496-3, 4.4.1.1), which stands where the channel configuration is 0.
    fn program(&mut self) -> Option<Layout> {
        self.take(4 + 2 + 4)?;
        let [front, side, back] = [self.take(4)?, self.take(4)?, self.take(4)?];
        let low = self.take(2)?;
        // Data, coupling, and how it is mixed down.
        self.take(3 + 4)?;
        for length in [4, 4, 3] {
            if self.take(1)? == 1 {
                self.take(length)?;
            }
        }
        let (mut elements, mut tags, mut in_order) = (Vec::new(), [0, 0], true);
        for _ in 0..front + side + back {
            let pair = self.take(1)? == 1;
            let tag = &mut tags[usize::from(pair)];
            in_order &= self.take(4)? == *tag;
            *tag += 1;
            elements.push(pair);
        }
        let counts = (front, side, back, low);
        Some(match (&elements[..], low) {
            _ if !in_order => return None,
            ([true, false, false, true], 0) if counts == (2, 1, 1, 0) => Layout::FFmpegSide,
            ([false], 0) => Layout::Numbered(1),
            ([true], 0) => Layout::Numbered(2),
            ([false, true], 0) => Layout::Numbered(3),
            ([false, true, false], 0) => Layout::Numbered(4),
            ([false, true, true], 0) => Layout::Numbered(5),
            ([false, true, true], 1) => Layout::Numbered(6),
            ([false, true, true, true], 1) => Layout::Numbered(7),
            _ => return None,
        })
    }
}

/// Where the channels of a program are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// As in this channel configuration. 5.1 with side loudspeakers has the elements of 5.1.
    Numbered(u32),
    /// FFmpeg's 5.1 with side loudspeakers: its low frequencies are a single channel at the side, and the loudspeakers there
    /// a pair at the back.
    FFmpegSide,
}

/// Why a configuration of AAC is none that has a way through here.
enum NoAac {
    Broken,
    Layout,
}

fn aac(config: Bytes) -> Result<Aac, NoAac> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025,
        8_000, 7_350,
    ];
    let mut bits = Bits {
        bytes: &config,
        at: 0,
    };
    let kind = bits.take(5).ok_or(NoAac::Broken)?;
    let head = |bits: &mut Bits<'_>| {
        if kind == 31 {
            bits.take(6)?;
        }
        let index = bits.take(4)?;
        let rate = match index {
            15 => bits.take(24),
            index => RATES.get(usize::try_from(index).ok()?).copied(),
        }?;
        let sane = kind != 0 && (7_350..=96_000).contains(&rate);
        sane.then_some((index, rate, bits.take(4)?))
    };
    let (index, rate, layout) = head(&mut bits).ok_or(NoAac::Broken)?;
    let (config, layout) = match layout {
        0 => with_layout(&mut bits, kind, index).ok_or(NoAac::Layout)?,
        _ => (config, layout),
    };
    let channels = match layout {
        7 => 8,
        1..=6 => layout,
        _ => return Err(NoAac::Broken),
    };
    Ok(Aac {
        config,
        rate,
        channels: u8::try_from(channels).unwrap_or(2),
    })
}

/// A configuration that names the layout which the program in it has. Decoders leave the channels without positions
/// otherwise, and nothing can mix those down.
fn with_layout(bits: &mut Bits<'_>, kind: u32, index: u32) -> Option<(Bytes, u32)> {
    let short = bits.take(1)?;
    let (depends, extended) = (bits.take(1)?, bits.take(1)?);
    // Plain AAC (main, LC, SSR, LTP) alone has nothing else in between.
    if !(1..=4).contains(&kind) || index == 15 || depends + extended > 0 {
        return None;
    }
    let head = |layout: u32| {
        let config = u16::try_from(kind << 11 | index << 7 | layout << 3 | short << 2).ok()?;
        Some(config.to_be_bytes())
    };
    match bits.program()? {
        Layout::Numbered(layout) => Some((Bytes::copy_from_slice(&head(layout)?), layout)),
        Layout::FFmpegSide => {
            // The same elements where decoders have positions for them: the pair at the side, the single one, of which nobody
            // hears where it comes from, behind.
            let fields = [
                (0, 4),
                (kind - 1, 2),
                (index, 4),
                // Elements in front, at the side and behind; none of another kind.
                (2, 4),
                (1, 4),
                (1, 4),
                (0, 2 + 3 + 4 + 3),
                (0, 5),
                (0x10, 5),
                (0x11, 5),
                (0x01, 5),
            ];
            // They take 54 bits, which two fill up; no comment follows.
            let program = fields
                .iter()
                .fold(0u64, |all, (field, bits)| all << bits | u64::from(*field));
            let mut config = head(0)?.to_vec();
            config.extend_from_slice(&(program << 10).to_be_bytes());
            Some((config.into(), 6))
        }
    }
}
