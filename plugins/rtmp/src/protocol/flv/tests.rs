// SPDX-License-Identifier: MPL-2.0

use proptest::prelude::*;

use super::audio::Aac;
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

/// The tracks of an audio message, in its order.
/// A track's number, and what comes of it.
type Told = (u8, Result<Audio, Misuse>);

fn tracks_of(message: &Bytes) -> Result<Vec<Told>, Misuse> {
    audio(message)?.collect()
}

/// What an audio message of one track holds.
fn sound(message: &Bytes) -> Result<Audio, Misuse> {
    match tracks_of(message)?.pop() {
        Some((0, read)) => read,
        None => Ok(Audio::Other),
        other => panic!("{other:?}"),
    }
}

fn aac_of(config: &[u8]) -> Result<Aac, Misuse> {
    match sound(&tag(&[0xaf, 0], config))? {
        Audio::Header(AudioFormat::Aac(aac)) => Ok(aac),
        other => panic!("{config:?}: {other:?}"),
    }
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
    // Of audio all are read: which goes on is not chosen here.
    let message = tag(
        &[0x95],
        b"\x21fLaC\x00\0\0\x01xmp4a\x01\0\0\x01cOpus\x02\0\0\x02\x0cd",
    );
    let mut tracks = tracks_of(&message).unwrap().into_iter();
    let (id, first) = tracks.next().unwrap();
    assert!(
        matches!((id, &first), (0, Err(Misuse::Codec(name))) if name == "fLaC"),
        "{first:?}"
    );
    for (id, codec, data) in [
        (1, AudioCodec::Aac, &b"c"[..]),
        (2, AudioCodec::Opus, b"\x0cd"),
    ] {
        let (track, read) = tracks.next().unwrap();
        let expected = Audio::Frame(codec, Bytes::from_static(data));
        assert_eq!((track, read.unwrap()), (id, expected));
    }
    assert!(tracks.next().is_none());
    let cut_short = tag(&[0x95], b"\x11mp4a\x01\0\0\x01c\x00\0\0\x09ab");
    assert!(matches!(tracks_of(&cut_short), Err(Misuse::Tag(_))));
}

#[test]
fn broken_records_and_frames_are_seen() {
    for length in 0..record().len() {
        assert!(header_of(&record()[..length]).is_err(), "{length} bytes");
    }
    let kept = |frame: &[u8]| {
        let whole = whole(VideoCodec::H264, &record(), Bytes::copy_from_slice(frame));
        whole.map(|whole| whole.data)
    };
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
        0x11, 0x80, 0x04, 0xc8, 0x44, 0x00, 0x20, 0x00, 0xc4, 0x0d, 0x4c, 0x61, 0x76, 0x63, 0x35,
        0x39, 0x2e, 0x33, 0x37, 0x2e, 0x31, 0x30, 0x30, 0x56, 0xe5, 0x00,
    ];
    let aac = aac_of(&own).unwrap();
    assert_eq!((aac.rate, aac.channels), (48_000, 6));
    // Front: a single one and a pair; side: a pair; back: a single one. FFmpeg decodes it to channels with positions.
    let known = [0x11, 0x80, 0x04, 0xc8, 0x44, 0x00, 0x01, 0x08, 0x84, 0x00];
    assert_eq!(aac.config[..], known);
    // One of which nothing is known: its elements have other names.
    let mut odd = own;
    odd[8] ^= 0x80;
    let odd = aac_of(&odd);
    assert!(matches!(odd, Err(Misuse::Codec(_))), "{odd:?}");
    for (config, channels) in [
        (&[0x11, 0x88][..], 1),
        (&[0x11, 0xb0], 6),
        (&[0x11, 0xb8], 8),
        (&side, 6),
    ] {
        let aac = aac_of(config).unwrap();
        assert_eq!((aac.rate, aac.channels), (48_000, channels), "{config:?}");
        assert_eq!(aac.config.len(), 2);
    }
}

#[test]
fn audio_messages_are_read() {
    let aac = aac_of(&[0x11, 0x90]).unwrap();
    assert_eq!((aac.rate, aac.channels), (48_000, 2));
    let frame = sound(&tag(&[0xaf, 1], &[1, 2])).unwrap();
    let expected = Audio::Frame(AudioCodec::Aac, Bytes::from_static(&[1, 2]));
    assert_eq!(frame, expected);
    for first in [0x0f, 0x1f, 0x3f, 0x4f, 0x5f, 0x6f, 0x7f, 0x8f, 0xbf, 0xcf] {
        let read = sound(&tag(&[first], &[]));
        assert!(matches!(read, Err(Misuse::Codec(_))), "{first}: {read:?}");
    }
    let own = aac_of(&[0x11, 0x80]);
    assert!(matches!(own, Err(Misuse::Codec(_))), "{own:?}");
    for broken in [&[][..], &[0x11], &[0, 0], &[0x17, 0x90], &[0x11, 0xc0]] {
        let read = aac_of(broken);
        assert!(matches!(read, Err(Misuse::Tag(_))), "{broken:?}: {read:?}");
    }
    // A codec's name is shown, and may be anything.
    let Err(Misuse::Codec(name)) = sound(&tag(&[0x91], b"\x1b[\xffz")) else {
        panic!("no codec");
    };
    assert_eq!(name, "?[?z");
}

/// Opus's header.
fn opus_head(version: u8, channels: u8, family: u8) -> Bytes {
    let fields = [version, channels, 0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, family];
    tag(b"\x90OpusOpusHead", &fields)
}

#[test]
fn opus_is_taken_as_browsers_play_it() {
    for (channels, version) in [(1, 1), (2, 1), (2, 15)] {
        let read = sound(&opus_head(version, channels, 0)).unwrap();
        assert_eq!(read, Audio::Header(AudioFormat::Opus { channels }));
    }
    for (channels, family) in [(3, 0), (6, 1), (2, 1), (2, 255)] {
        let read = sound(&opus_head(1, channels, family));
        assert!(matches!(read, Err(Misuse::Codec(_))), "{read:?}");
    }
    let whole = opus_head(1, 2, 0);
    for length in 5..whole.len() {
        let read = sound(&whole.slice(..length));
        assert!(matches!(read, Err(Misuse::Tag(_))), "{length}: {read:?}");
    }
    for broken in [opus_head(16, 2, 0), opus_head(1, 0, 0)] {
        let read = sound(&broken);
        assert!(matches!(read, Err(Misuse::Tag(_))), "{read:?}");
    }
    // Comments.
    let read = sound(&tag(b"\x90OpusOpusTags", &[0; 8])).unwrap();
    assert_eq!(read, Audio::Other);
}

#[test]
fn packets_of_opus_are_those_of_its_rfc() {
    let long = [&[0xfc][..], &[7; 1_275]].concat();
    let too_long = [&long[..], &[7]].concat();
    for (packet, is_one) in [
        // One frame, of 20 ms, that may be empty.
        (&[0xfc, 1, 2, 3][..], true),
        (&[0xfc], true),
        (&long, true),
        (&too_long, false),
        // Two of one size, and of two.
        (&[0xfd, 1, 2], true),
        (&[0xfd, 1], false),
        (&[0xfe, 1, 9, 8], true),
        (&[0xfe, 2, 9], false),
        (&[0xfe, 252, 0, 8], false),
        (&[0xfe], false),
        // Any number: of one size, each with its own, padded.
        (&[0xff, 3, 1, 2, 3], true),
        (&[0xff, 2, 1, 2, 3], false),
        (&[0xff, 0x82, 1, 9, 8, 7], true),
        (&[0xff, 0x82, 9, 1], false),
        (&[0xff, 0x42, 1, 9, 8, 0], true),
        (&[0xff, 0x42, 9, 9, 8, 0], false),
        (&[0xff, 0x42, 255, 0, 9], false),
        (&[0xff, 0], false),
        (&[0xff], false),
        // 120 ms are the most: of 60 ms (SILK), 20 ms and 2.5 ms.
        (&[0x1b, 2, 1, 2], true),
        (&[0x1b, 3, 1, 2, 3], false),
        (&[0xff, 6, 1, 2, 3, 4, 5, 6], true),
        (&[0xff, 7, 1, 2, 3, 4, 5, 6, 7], false),
        (&[0xe7, 48], true),
        (&[0xe7, 49], false),
    ] {
        let read = sound(&tag(b"\x91Opus", packet));
        match is_one {
            true => assert!(matches!(read, Ok(Audio::Frame(AudioCodec::Opus, _)))),
            false => assert!(matches!(read, Err(Misuse::Tag(_)))),
        }
    }
}

/// A frame of MP3, as its header says.
fn mp3(header: [u8; 4], length: usize) -> Vec<u8> {
    let mut frame = header.to_vec();
    frame.resize(length, 0);
    frame
}

#[test]
fn mp3_says_in_each_frame_what_it_is() {
    let stereo = mp3([0xff, 0xfb, 0x90, 0x64], 417);
    for (frame, rate, channels) in [
        (stereo.clone(), 44_100, 2),
        // Padded by one, with a checksum; of 48 kHz, mono; MPEG-2 and 2.5.
        (mp3([0xff, 0xfa, 0x92, 0x64], 418), 44_100, 2),
        (mp3([0xff, 0xfb, 0x94, 0xc4], 384), 48_000, 1),
        (mp3([0xff, 0xf3, 0x80, 0x64], 208), 22_050, 2),
        (mp3([0xff, 0xe3, 0x88, 0xc4], 576), 8_000, 1),
        (stereo.repeat(3), 44_100, 2),
    ] {
        let expected = Audio::Whole(AudioFormat::Mp3 { rate, channels }, frame.clone().into());
        for head in [&[0x2f][..], &[0xef], b"\x91.mp3"] {
            assert_eq!(sound(&tag(head, &frame)).unwrap(), expected);
        }
    }
    let mono = mp3([0xff, 0xfb, 0x90, 0xc4], 417);
    for broken in [
        stereo[..416].to_vec(),
        [&stereo[..], &[0]].concat(),
        [stereo, mono].concat(),
        // Layer II, a free bitrate, and ones that don't exist.
        mp3([0xff, 0xfd, 0x90, 0x64], 417),
        mp3([0xff, 0xfb, 0x00, 0x64], 417),
        mp3([0xff, 0xfb, 0xf0, 0x64], 417),
        mp3([0xff, 0xfb, 0x9c, 0x64], 417),
        mp3([0xff, 0xeb, 0x90, 0x64], 417),
        vec![0],
    ] {
        let read = sound(&tag(&[0x2f], &broken));
        assert!(matches!(read, Err(Misuse::Tag(_))), "{read:?}");
    }
    assert_eq!(sound(&tag(&[0x2f], &[])).unwrap(), Audio::Other);
}

#[test]
fn fuzz_tags() {
    let samples = [
        [&[9, 0x17, 0, 0, 0, 0][..], &record()].concat(),
        vec![9, 0x17, 1, 0, 0, 80, 0, 0, 0, 2, 0x65, 0x88],
        [
            &b"\x09\x90hvc1"[..],
            &[1; 22],
            &[1, 0xa1, 0, 1, 0, 3, 0x42, 1, 1],
        ]
        .concat(),
        b"\x09\x90av01\x81\x08\x0c\x00\x0a\x0b\x00\x00\x00\x24\xce\x1f\x77\xf8\xdb\x60\x00"
            .to_vec(),
        vec![8, 0xaf, 0, 0x11, 0x90, 0x56, 0xe5, 0],
        vec![8, 0xaf, 1, 0x21, 0x10],
        [&[8][..], &opus_head(1, 2, 0)].concat(),
        b"\x08\x95\x21Opus\x00\0\0\x05\xff\x82\x01\x09\x08mp4a\x01\0\0\x01c".to_vec(),
        [&[8, 0x2f][..], &mp3([0xff, 0xfb, 0x90, 0x64], 417)].concat(),
    ];
    sfu_fuzz::fuzz("tags of FLV", &samples, |data| {
        let Some((kind, body)) = data.split_first() else {
            return;
        };
        let body = Bytes::copy_from_slice(body);
        if kind & 1 == 0 {
            let _ = tracks_of(&body);
        } else if let Ok(Video::Frame { codec, data, .. }) = video(&body) {
            let _ = whole(codec, &record(), data);
        }
    });
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, frame: Vec<u8>) {
        for codec in [VideoCodec::H264, VideoCodec::H265, VideoCodec::Av1] {
            let _ = whole(codec, &bytes, frame.clone().into());
        }
        let bytes = Bytes::from(bytes);
        let _ = (video(&bytes), tracks_of(&bytes));
        for head in [&[0x2f][..], b"\x90OpusOpusHead", b"\x91Opus", b"\x91.mp3", b"\x95\x21", b"\x95\x11"] {
            let _ = tracks_of(&tag(head, &bytes));
        }
        let sets = [&[0x67, 0x64, 0, 0x1f][..], &frame].concat();
        let _ = header_of(&record_of(&sets[..sets.len().min(999)], &PPS));
        let mut obus = vec![0x81, 0, 0, 0, 0x0a, u8::try_from(frame.len()).unwrap_or(99)];
        obus.extend_from_slice(&frame);
        let _ = video(&tag(b"\x90av01", &obus));
        let hevc = [&[1; 22][..], &[1, 0xa1, 0, 1, 0, u8::try_from(frame.len()).unwrap_or(99)], &frame].concat();
        let _ = video(&tag(b"\x90hvc1", &hevc));
    }
}
