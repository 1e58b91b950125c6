// SPDX-License-Identifier: MPL-2.0
//! What audio and video messages hold (FLV 10.1, annex E.4; Enhanced RTMP v2), checked so far that parsers downstream
//! have nothing to fail at, for `rtmpserversrc/feed.rs`.

use bytes::Bytes;

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

/// Gives a frame without its empty units, if the others are whole by the record that came before.
pub(crate) fn whole(codec: VideoCodec, record: &[u8], frame: Bytes) -> Result<Bytes, Misuse> {
    const BROKEN: Misuse = Misuse::Tag("a frame is not whole");
    let size = match codec {
        VideoCodec::H264 => avc_record(record).map(|(size, _)| size),
        VideoCodec::H265 => record.get(21).map(|byte| usize::from(byte & 3) + 1),
        VideoCodec::Av1 if frame.is_empty() => None,
        VideoCodec::Av1 => {
            parameters::check_temporal_unit(&frame)?;
            return Ok(frame);
        }
    };
    let size = size.ok_or(BROKEN)?;
    let (mut rest, mut units, mut empty) = (&frame[..], 0, false);
    while !rest.is_empty() {
        let (unit, after) = sized_unit(rest, size).ok_or(BROKEN)?;
        parameters::check_unit(codec, unit)?;
        empty |= unit.is_empty();
        units += usize::from(!unit.is_empty());
        rest = after;
    }
    match (units, empty) {
        (0, _) => Err(BROKEN),
        (_, false) => Ok(frame),
        (_, true) => Ok(without_empty_units(&frame, size)),
    }
}

/// The first unit of a frame, and what comes behind it.
fn sized_unit(frame: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (length, after) = frame.split_at_checked(size)?;
    let number = |n, byte: &u8| n << 8 | usize::from(*byte);
    after.split_at_checked(length.iter().fold(0usize, number))
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

    /// The channel configuration that has the elements of a program_config_element (ISO 14496-3, 4.4.1.1), which stands
    /// where the configuration is 0. 5.1 with side loudspeakers needs it, and has the elements of 5.1.
    fn program(&mut self) -> Option<u32> {
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
        let (mut elements, mut tags) = (Vec::new(), [0, 0]);
        for _ in 0..front + side + back {
            let pair = self.take(1)? == 1;
            let tag = &mut tags[usize::from(pair)];
            if self.take(4)? != *tag {
                return None;
            }
            *tag += 1;
            elements.push(pair);
        }
        match (&elements[..], low) {
            ([false], 0) => Some(1),
            ([true], 0) => Some(2),
            ([false, true], 0) => Some(3),
            ([false, true, false], 0) => Some(4),
            ([false, true, true], 0) => Some(5),
            ([false, true, true], 1) => Some(6),
            ([false, true, true, true], 1) => Some(7),
            _ => None,
        }
    }
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
    let layout = bits.program()?;
    let config = u16::try_from(kind << 11 | index << 7 | layout << 3 | short << 2).ok()?;
    Some((Bytes::copy_from_slice(&config.to_be_bytes()), layout))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of 1280x720.
    const SPS: [u8; 9] = [0x67, 0x42, 0x00, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe4];
    const PPS: [u8; 4] = [0x68, 0xce, 0x3c, 0x80];

    fn record_of(sps: &[u8], pps: &[u8]) -> Vec<u8> {
        let length = |unit: &[u8]| u16::try_from(unit.len()).unwrap().to_be_bytes();
        let head = [1, 0x42, 0, 0x1f, 0xff, 0xe1];
        [&head[..], &length(sps), sps, &[1], &length(pps), pps].concat()
    }

    fn record() -> Vec<u8> {
        record_of(&SPS, &PPS)
    }

    fn header_of(record: &[u8]) -> Result<Video, Misuse> {
        video(&tag(&[0x17, 0, 0, 0, 0], record))
    }

    fn tag(head: &[u8], body: &[u8]) -> Bytes {
        [head, body].concat().into()
    }

    #[test]
    fn video_messages_are_read() {
        let head = video(&tag(&[0x17, 0, 0, 0, 0], &record())).unwrap();
        assert_eq!(head, Video::Header(VideoCodec::H264, record().into()));
        let frame = |codec, keyframe, offset| Video::Frame {
            codec,
            keyframe,
            offset,
            data: Bytes::from_static(&[0, 0, 0, 1, 9]),
        };
        let body = [0, 0, 0, 1, 9];
        for (head, expected) in [
            (&[0x17, 1, 0, 0, 80][..], frame(VideoCodec::H264, true, 80)),
            (
                &[0x27, 1, 0xff, 0xff, 0xfe],
                frame(VideoCodec::H264, false, -2),
            ),
            (
                &[0x91, b'h', b'v', b'c', b'1', 0, 0, 40],
                frame(VideoCodec::H265, true, 40),
            ),
            (
                &[0xa3, b'h', b'v', b'c', b'1'],
                frame(VideoCodec::H265, false, 0),
            ),
            (
                &[0x91, b'a', b'v', b'0', b'1'],
                frame(VideoCodec::Av1, true, 0),
            ),
        ] {
            assert_eq!(video(&tag(head, &body)).unwrap(), expected, "{head:?}");
        }
        assert!(matches!(video(&tag(&[0x12], &[])), Err(Misuse::Codec(_))));
        assert!(matches!(video(&tag(&[0x17, 1], &[])), Err(Misuse::Tag(_))));
        assert_eq!(video(&Bytes::new()).unwrap(), Video::Other);
    }

    #[test]
    fn of_several_tracks_the_first_goes_on() {
        let avc = |kind: u8, tracks: &[u8]| tag(&[0x90 | kind], tracks);
        let frame = |data: &'static [u8]| Video::Frame {
            codec: VideoCodec::H264,
            keyframe: true,
            offset: 0,
            data: Bytes::from_static(data),
        };
        for (message, expected) in [
            // One track, several, and several of several codecs.
            (avc(6, b"\x03avc1\x00ab"), frame(b"ab")),
            (avc(6, b"\x03avc1\x01ab"), Video::Other),
            (avc(6, b"\x13avc1\x00\0\0\x02ab\x01\0\0\x01c"), frame(b"ab")),
            (avc(6, b"\x13avc1\x01\0\0\x01c\x00\0\0\x02ab"), frame(b"ab")),
            (avc(6, b"\x13avc1\x01\0\0\x01c"), Video::Other),
            (
                avc(6, b"\x23vp09\x01\0\0\x01cavc1\x00\0\0\x02ab"),
                frame(b"ab"),
            ),
            // Behind a modifier of two bytes.
            (avc(7, b"\x01xx\x03avc1ab"), frame(b"ab")),
        ] {
            assert_eq!(video(&message).unwrap(), expected, "{message:?}");
        }
        let sound = audio(&tag(&[0x95], b"\x11mp4a\x01\0\0\x01c\x00\0\0\x02ab")).unwrap();
        assert_eq!(sound, Audio::Frame(Bytes::from_static(b"ab")));
    }

    #[test]
    fn broken_records_and_frames_are_seen() {
        for length in 0..record().len() {
            assert!(header_of(&record()[..length]).is_err(), "{length} bytes");
        }
        let kept = |frame: &[u8]| whole(VideoCodec::H264, &record(), Bytes::copy_from_slice(frame));
        let good = [0, 0, 0, 1, 9, 0, 0, 0, 2, 5, 5];
        assert_eq!(kept(&good).unwrap(), good[..]);
        let padded = [&[0; 4][..], &good[..5], &[0; 4], &good[5..], &[0; 4]].concat();
        assert_eq!(kept(&padded).unwrap(), good[..]);
        let annex_b = [0, 0, 0, 1, 0x65, 1, 2, 3];
        for frame in [
            &[][..],
            &[0, 0, 0],
            &[0, 0, 0, 0],
            &[0, 0, 0, 2, 5],
            &[0xff, 0xff, 0xff, 0xff, 5],
            &annex_b,
        ] {
            assert!(kept(frame).is_err(), "{frame:?}");
        }
    }

    /// Writes exp-golomb codes and bits for the sets of sizes.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn bits(mut self, count: u32, value: u64) -> Self {
            self.0.extend(
                (0..count)
                    .rev()
                    .map(|n| value.checked_shr(n).unwrap_or(0) & 1 == 1),
            );
            self
        }

        fn golomb(self, value: u64) -> Self {
            let length = (value + 1).ilog2();
            self.bits(length, 0).bits(length + 1, value + 1)
        }

        fn unit(self, head: &[u8]) -> Vec<u8> {
            let padded = self.bits(1, 1).0;
            let byte = |bits: &[bool]| {
                (0..8).fold(0, |all, n| all << 1 | u8::from(bits.get(n) == Some(&true)))
            };
            let mut unit = head.to_vec();
            for byte in padded.chunks(8).map(byte) {
                if byte <= 3 && unit.ends_with(&[0, 0]) {
                    unit.push(3);
                }
                unit.push(byte);
            }
            unit
        }
    }

    /// A record of H.264 for pictures of this size.
    fn avc_of(width: u64, height: u64) -> Vec<u8> {
        let set = Writer::default()
            .golomb(0)
            .golomb(0)
            .golomb(2)
            .golomb(1)
            .bits(1, 0);
        let set = set.golomb(width / 16 - 1).golomb(height / 16 - 1);
        record_of(&set.bits(4, 0b1100).unit(&[0x67, 0x42, 0, 0x1f]), &PPS)
    }

    /// A record of H.265 for pictures of this size.
    fn hevc_of(width: u64, height: u64) -> Vec<u8> {
        let set = Writer::default()
            .bits(8, 1)
            .bits(32, 0)
            .bits(32, 0)
            .bits(32, 0);
        let set = set.golomb(0).golomb(1).golomb(width).golomb(height);
        let set = set.unit(&[0x42, 1]);
        let mut record = vec![1; 22];
        record.extend_from_slice(&[1, 0xa1, 0, 1, 0, u8::try_from(set.len()).unwrap()]);
        record.extend_from_slice(&set);
        record
    }

    #[test]
    fn pictures_above_the_limit_are_refused_before_they_are_decoded() {
        for (width, height, fits) in [
            (16, 16, true),
            (1920, 1088, true),
            (2304, 4096, true),
            (4096, 2304, true),
            (4112, 2304, false),
            (16_000, 16, false),
            (16_000, 8_000, false),
            (8_000, 16_000, false),
            (1 << 20, 1 << 20, false),
        ] {
            let avc = header_of(&avc_of(width, height));
            let hevc = video(&tag(b"\x90hvc1", &hevc_of(width, height)));
            for read in [avc, hevc] {
                match fits {
                    true => assert!(read.is_ok(), "{width}x{height}: {read:?}"),
                    false => {
                        let refused = matches!(read, Err(Misuse::TooLarge));
                        assert!(refused, "{width}x{height}: {read:?}");
                    }
                }
            }
            // As well where a frame brings the set.
            let record = avc_of(width, height);
            let unit = &record[8..8 + usize::from(record[7])];
            let frame = [&[0, 0, 0, record[7]], unit].concat();
            let kept = whole(VideoCodec::H264, &record, frame.into());
            assert_eq!(kept.is_ok(), fits, "{width}x{height}: {kept:?}");
        }
    }

    #[test]
    fn a_header_without_both_parameter_sets_is_broken() {
        for (sps, pps) in [
            (&SPS[..], &SPS[..]),
            (&PPS, &PPS),
            (&SPS, &[0, 0]),
            (&[0, 0], &PPS),
        ] {
            assert!(header_of(&record_of(sps, pps)).is_err(), "{sps:?} {pps:?}");
        }
        let mut none = record();
        none.truncate(8 + SPS.len());
        none.push(0);
        assert!(header_of(&none).is_err());
    }

    #[test]
    fn channels_are_counted_where_a_program_tells_them() {
        // 5.1 with side loudspeakers at 48 kHz, as its elements are named in the standard.
        let side = [0x11, 0x80, 0x04, 0xc8, 0x41, 0x00, 0x01, 0x08, 0x80, 0x00];
        // As FFmpeg names them: its low frequencies are a single channel at the side.
        let own = [
            0x11, 0x80, 0x04, 0xc8, 0x44, 0x00, 0x20, 0x00, 0xc4, 0x0d, 0x4c, 0x61, 0x76, 0x63,
            0x35, 0x39, 0x2e, 0x33, 0x37, 0x2e, 0x31, 0x30, 0x30, 0x56, 0xe5, 0x00,
        ];
        let own = audio(&tag(&[0xaf, 0], &own));
        assert!(matches!(own, Err(Misuse::Codec(_))), "{own:?}");
        for (config, channels) in [
            (&[0x11, 0x88][..], 1),
            (&[0x11, 0xb0], 6),
            (&[0x11, 0xb8], 8),
            (&side, 6),
        ] {
            let Ok(Audio::Header(aac)) = audio(&tag(&[0xaf, 0], config)) else {
                panic!("{config:?}");
            };
            assert_eq!((aac.rate, aac.channels), (48_000, channels), "{config:?}");
            assert_eq!(aac.config.len(), 2);
        }
    }

    #[test]
    fn audio_messages_are_read() {
        let Audio::Header(aac) = audio(&tag(&[0xaf, 0], &[0x11, 0x90])).unwrap() else {
            panic!("no header");
        };
        assert_eq!((aac.rate, aac.channels), (48_000, 2));
        let frame = audio(&tag(&[0xaf, 1], &[1, 2])).unwrap();
        assert_eq!(frame, Audio::Frame(Bytes::from_static(&[1, 2])));
        assert!(matches!(audio(&tag(&[0x2f], &[])), Err(Misuse::Codec(_))));
        let own = audio(&tag(&[0xaf, 0], &[0x11, 0x80]));
        assert!(matches!(own, Err(Misuse::Codec(_))), "{own:?}");
        for broken in [&[][..], &[0x11], &[0, 0], &[0x17, 0x90], &[0x11, 0xc0]] {
            let read = audio(&tag(&[0xaf, 0], broken));
            assert!(matches!(read, Err(Misuse::Tag(_))), "{broken:?}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, frame: Vec<u8>) {
            for codec in [VideoCodec::H264, VideoCodec::H265, VideoCodec::Av1] {
                let _ = whole(codec, &bytes, frame.clone().into());
            }
            let bytes = Bytes::from(bytes);
            let _ = (video(&bytes), audio(&bytes));
            let sets = [&[0x67, 0x64, 0, 0x1f][..], &frame].concat();
            let _ = header_of(&record_of(&sets[..sets.len().min(999)], &PPS));
            let mut obus = vec![0x81, 0, 0, 0, 0x0a, u8::try_from(frame.len()).unwrap_or(99)];
            obus.extend_from_slice(&frame);
            let _ = video(&tag(b"\x90av01", &obus));
            let hevc = [&[1; 22][..], &[1, 0xa1, 0, 1, 0, u8::try_from(frame.len()).unwrap_or(99)], &frame].concat();
            let _ = video(&tag(b"\x90hvc1", &hevc));
        }
    }
}
