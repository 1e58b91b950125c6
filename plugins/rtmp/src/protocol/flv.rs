// SPDX-License-Identifier: MPL-2.0
//! What audio and video messages hold (FLV 10.1, annex E.4; Enhanced RTMP v1), checked so far that parsers downstream
//! have nothing to fail at, for `rtmpserversrc/feed.rs`.

use bytes::Bytes;

use super::Misuse;

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

fn enhanced(data: &Bytes, first: u8) -> Result<Video, Misuse> {
    let frame_type = first >> 4 & 7;
    if frame_type == 5 {
        return Ok(Video::Other);
    }
    let fourcc = data.get(1..5).ok_or(CUT_SHORT)?;
    let codec = match fourcc {
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
    match first & 0x0f {
        0 => header(codec, data.slice(5..)),
        1 if codec != VideoCodec::Av1 => {
            let offset = data.get(5..).and_then(offset).ok_or(CUT_SHORT)?;
            Ok(frame(offset, data.slice(8..)))
        }
        1 | 3 => Ok(frame(0, data.slice(5..))),
        _ => Ok(Video::Other),
    }
}

fn header(codec: VideoCodec, record: Bytes) -> Result<Video, Misuse> {
    let whole = match codec {
        VideoCodec::H264 => avc_record(&record).is_some(),
        VideoCodec::H265 => record.len() >= 23 && record[0] <= 1,
        VideoCodec::Av1 => record.len() >= 4 && record[0] == 0x81,
    };
    if whole {
        Ok(Video::Header(codec, record))
    } else {
        Err(Misuse::Tag("its configuration record is broken"))
    }
}

/// How many bytes a NAL unit's length has, if the record (ISO 14496-15, 5.3.3.1) is whole.
fn avc_record(record: &[u8]) -> Option<usize> {
    let (fixed, mut rest) = record.split_at_checked(6)?;
    let size = usize::from(fixed[4] & 3) + 1;
    let mut take = |count: u8| {
        for _ in 0..count {
            let (length, after) = rest.split_at_checked(2)?;
            let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
            rest = after.split_at_checked(length)?.1;
            if length < 2 {
                return None;
            }
        }
        let (next, after) = rest.split_at_checked(1).unwrap_or((&[0], &[]));
        rest = after;
        Some(next[0])
    };
    let parameter_sets = fixed[5] & 31;
    let pictures = take(parameter_sets)?;
    take(pictures)?;
    (fixed[0] == 1 && parameter_sets > 0 && pictures > 0 && size != 3).then_some(size)
}

/// Whether a frame consists of whole NAL units, by the record that came before.
pub(crate) fn units_are_whole(codec: VideoCodec, record: &[u8], frame: &[u8]) -> bool {
    let size = match codec {
        VideoCodec::H264 => avc_record(record),
        VideoCodec::H265 => record.get(21).map(|byte| usize::from(byte & 3) + 1),
        VideoCodec::Av1 => return !frame.is_empty(),
    };
    let Some(size) = size else {
        return false;
    };
    let mut rest = frame;
    while !rest.is_empty() {
        let Some((length, after)) = rest.split_at_checked(size) else {
            return false;
        };
        let length = length
            .iter()
            .fold(0usize, |n, byte| n << 8 | usize::from(*byte));
        match after.split_at_checked(length) {
            Some((_, after)) if length > 0 => rest = after,
            _ => return false,
        }
    }
    !frame.is_empty()
}

/// Reads an audio message.
pub(crate) fn audio(data: &Bytes) -> Result<Audio, Misuse> {
    let Some(&first) = data.first() else {
        return Ok(Audio::Other);
    };
    match first >> 4 {
        10 => {}
        2 | 14 => return Err(Misuse::Codec("MP3".into())),
        codec => return Err(Misuse::Codec(format!("audio codec {codec}"))),
    }
    let kind = data.get(1).ok_or(CUT_SHORT)?;
    let data = data.slice(2..);
    match kind {
        0 => aac(data)
            .map(Audio::Header)
            .ok_or(Misuse::Tag("AAC's configuration is broken")),
        1 if data.is_empty() => Ok(Audio::Other),
        1 => Ok(Audio::Frame(data)),
        _ => Ok(Audio::Other),
    }
}

fn aac(config: Bytes) -> Option<Aac> {
    const RATES: [u32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025,
        8_000, 7_350,
    ];
    let bits = config
        .iter()
        .take(8)
        .fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    let length = 8 * config.len().min(8);
    let mut at = 0;
    let mut take = |count: usize| {
        at += count;
        let shift = length.checked_sub(at)?;
        usize::try_from(bits >> shift & ((1 << count) - 1)).ok()
    };
    let kind = take(5)?;
    if kind == 31 {
        take(6)?;
    }
    let rate = match take(4)? {
        15 => u32::try_from(take(24)?).ok()?,
        index => *RATES.get(index)?,
    };
    let channels = match take(4)? {
        7 => 8,
        channels @ 1..=6 => u8::try_from(channels).ok()?,
        _ => return None,
    };
    (kind != 0 && (7_350..=96_000).contains(&rate)).then_some(Aac {
        config,
        rate,
        channels,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As x264 writes it, with the parameter sets shortened.
    const AVCC: [u8; 15] = [
        1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 3, 0x67, 0x64, 0, 1, 0, 2, 0x68,
    ];

    fn record() -> Vec<u8> {
        let mut record = AVCC.to_vec();
        record.push(0xee);
        record
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
    fn broken_records_and_frames_are_seen() {
        for length in 0..record().len() {
            assert_eq!(avc_record(&record()[..length]), None, "{length} bytes");
        }
        let whole = |frame: &[u8]| units_are_whole(VideoCodec::H264, &record(), frame);
        assert!(whole(&[0, 0, 0, 1, 9, 0, 0, 0, 2, 5, 5]));
        for frame in [
            &[][..],
            &[0, 0, 0],
            &[0, 0, 0, 0],
            &[0, 0, 0, 2, 5],
            &[0xff, 0xff, 0xff, 0xff, 5],
        ] {
            assert!(!whole(frame), "{frame:?}");
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
        for broken in [&[][..], &[0x11], &[0, 0], &[0x17, 0x90], &[0x11, 0x80]] {
            let read = audio(&tag(&[0xaf, 0], broken));
            assert!(matches!(read, Err(Misuse::Tag(_))), "{broken:?}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, frame: Vec<u8>) {
            for codec in [VideoCodec::H264, VideoCodec::H265, VideoCodec::Av1] {
                units_are_whole(codec, &bytes, &frame);
            }
            let bytes = Bytes::from(bytes);
            let _ = (video(&bytes), audio(&bytes));
        }
    }
}
