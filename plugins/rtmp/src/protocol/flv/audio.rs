// SPDX-License-Identifier: MPL-2.0
//! Audio messages: AAC, Opus and MP3, for `rtmpserversrc/feed.rs`.

use bytes::Bytes;

use super::{AUDIO_TRACKS, CUT_SHORT, Extended, Track, Tracks, name_of};
use crate::protocol::Misuse;

/// A codec that has a way through here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AudioCodec {
    Aac,
    Opus,
    Mp3,
}

/// What decoders have to know before any frame comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AudioFormat {
    Aac(Aac),
    /// Of channel mapping family 0 (RFC 7845, 5.1.1.1).
    Opus {
        channels: u8,
    },
    Mp3 {
        rate: u32,
        channels: u8,
    },
}

impl AudioFormat {
    pub(crate) fn codec(&self) -> AudioCodec {
        match self {
            Self::Aac(_) => AudioCodec::Aac,
            Self::Opus { .. } => AudioCodec::Opus,
            Self::Mp3 { .. } => AudioCodec::Mp3,
        }
    }
}

/// An AudioSpecificConfig (ISO 14496-3, 1.6.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aac {
    pub(crate) config: Bytes,
    pub(crate) rate: u32,
    pub(crate) channels: u8,
}

/// What an audio message holds of one track.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Audio {
    Header(AudioFormat),
    /// By the header before.
    Frame(AudioCodec, Bytes),
    /// It has its header in itself.
    Whole(AudioFormat, Bytes),
    Other,
}

/// The tracks of an audio message, each with its number.
#[derive(Debug)]
pub(crate) struct AudioTracks {
    /// Track 0 is of a codec that has no name of Enhanced RTMP's.
    foreign: Option<Misuse>,
    one: Option<Track>,
    several: Option<Tracks>,
}

impl AudioTracks {
    fn none() -> Self {
        Self {
            foreign: None,
            one: None,
            several: None,
        }
    }

    fn foreign(codec: &str) -> Self {
        Self {
            foreign: Some(Misuse::Codec(codec.to_owned())),
            ..Self::none()
        }
    }
}

impl From<Track> for AudioTracks {
    fn from(track: Track) -> Self {
        Self {
            one: Some(track),
            ..Self::none()
        }
    }
}

const AAC: [u8; 4] = *b"mp4a";
const OPUS: [u8; 4] = *b"Opus";
const MP3: [u8; 4] = *b".mp3";

/// Reads an audio message.
pub(crate) fn audio(data: &Bytes) -> Result<AudioTracks, Misuse> {
    let Some(&first) = data.first() else {
        // Some encoders send empty ones to keep the connection alive.
        return Ok(AudioTracks::none());
    };
    // As Enhanced RTMP would have it.
    let (packet_type, fourcc, body) = match first >> 4 {
        9 => {
            return Ok(match Extended::read(data, AUDIO_TRACKS)? {
                Extended::One(track) => track.into(),
                Extended::Several(tracks) => AudioTracks {
                    several: Some(tracks),
                    ..AudioTracks::none()
                },
            });
        }
        10 => (*data.get(1).ok_or(CUT_SHORT)?, AAC, data.slice(2..)),
        2 | 14 => (FRAMES, MP3, data.slice(1..)),
        0 | 3 => return Ok(AudioTracks::foreign("PCM")),
        1 => return Ok(AudioTracks::foreign("ADPCM")),
        4..=6 => return Ok(AudioTracks::foreign("Nellymoser")),
        7 | 8 => return Ok(AudioTracks::foreign("G.711")),
        11 => return Ok(AudioTracks::foreign("Speex")),
        codec => return Ok(AudioTracks::foreign(&format!("audio codec {codec}"))),
    };
    let id = 0;
    let track = Track {
        id,
        packet_type,
        fourcc,
        body,
    };
    Ok(track.into())
}

impl Iterator for AudioTracks {
    type Item = Result<(u8, Result<Audio, Misuse>), Misuse>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(why) = self.foreign.take() {
            return Some(Ok((0, Err(why))));
        }
        let track = match &mut self.several {
            None => self.one.take().map(Ok),
            Some(tracks) => tracks.next(),
        };
        Some(track?.map(|track| (track.id, read(track))))
    }
}

const HEADER: u8 = 0;
const FRAMES: u8 = 1;

fn read(track: Track) -> Result<Audio, Misuse> {
    let data = track.body;
    match (track.fourcc, track.packet_type) {
        (AAC, HEADER) => read_aac(data)
            .map(|aac| Audio::Header(AudioFormat::Aac(aac)))
            .map_err(|why| match why {
                NoAac::Broken => Misuse::Tag("AAC's configuration is broken"),
                NoAac::Layout => Misuse::Codec("AAC with a layout of its own".into()),
            }),
        (OPUS, HEADER) => opus_header(&data),
        (AAC | OPUS | MP3, FRAMES) if data.is_empty() => Ok(Audio::Other),
        (AAC, FRAMES) => Ok(Audio::Frame(AudioCodec::Aac, data)),
        (OPUS, FRAMES) if is_opus_packet(&data) => Ok(Audio::Frame(AudioCodec::Opus, data)),
        (OPUS, FRAMES) => Err(Misuse::Tag("a packet of Opus is broken")),
        (MP3, FRAMES) => {
            let format = mp3_frames(&data).ok_or(Misuse::Tag("a frame of MP3 is not whole"))?;
            Ok(Audio::Whole(format, data))
        }
        (AAC | OPUS | MP3, _) => Ok(Audio::Other),
        (other, _) => Err(Misuse::Codec(name_of(other))),
    }
}

/// The identification header (RFC 7845, 5.1); Enhanced RTMP lets the comment header come by the same packet type.
fn opus_header(data: &[u8]) -> Result<Audio, Misuse> {
    if data.starts_with(b"OpusTags") {
        return Ok(Audio::Other);
    }
    let fields = data.strip_prefix(b"OpusHead");
    // Version, channels, pre-skip, the rate that it had once, gain, and the mapping of channels. A version of which the upper
    // half is not 0 is of another format.
    let Some(&[0..=0x0f, channels, _, _, _, _, _, _, _, _, family, ..]) = fields else {
        return Err(Misuse::Tag("Opus's header is broken"));
    };
    match (family, channels) {
        (_, 0) => Err(Misuse::Tag("Opus's header has no channels")),
        (0, 1 | 2) => Ok(Audio::Header(AudioFormat::Opus { channels })),
        _ => Err(Misuse::Codec(format!(
            "Opus of {channels} channels, mapped by family {family},"
        ))),
    }
}

/// Whether a packet is one by RFC 6716, 3.4.
fn is_opus_packet(packet: &[u8]) -> bool {
    /// R2.
    const LONGEST: usize = 1_275;
    /// R5, in units of 2.5 ms.
    const LONGEST_TIME: usize = 48;
    let Some((toc, mut rest)) = packet.split_first() else {
        return false;
    };
    // In those units (table 2).
    let frame = match toc >> 3 {
        0..=11 => [4, 8, 16, 24][usize::from(toc >> 3 & 3)],
        12..=15 => [4, 8][usize::from(toc >> 3 & 1)],
        _ => 1 << (toc >> 3 & 3),
    };
    let (count, is_variable) = match toc & 3 {
        0 => (1, false),
        1 => (2, false),
        2 => (2, true),
        _ => {
            let Some((head, after)) = rest.split_first() else {
                return false;
            };
            rest = after;
            if head & 0x40 != 0 && !strip_padding(&mut rest) {
                return false;
            }
            (usize::from(head & 0x3f), head & 0x80 != 0)
        }
    };
    if count == 0 || count * frame > LONGEST_TIME {
        return false;
    }
    if !is_variable {
        return rest.len() % count == 0 && rest.len() / count <= LONGEST;
    }
    let mut sizes = 0;
    for _ in 1..count {
        match opus_length(&mut rest) {
            Some(length) => sizes += length,
            None => return false,
        }
    }
    let last = rest.len().checked_sub(sizes);
    last.is_some_and(|last| last <= LONGEST)
}

/// The length of a frame (RFC 6716, 3.2.1).
fn opus_length(rest: &mut &[u8]) -> Option<usize> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    if first < 252 {
        return Some(first.into());
    }
    let (&second, after) = rest.split_first()?;
    *rest = after;
    Some(usize::from(second) * 4 + usize::from(first))
}

/// Takes away the padding (RFC 6716, 3.2.5), if it is all there.
fn strip_padding(rest: &mut &[u8]) -> bool {
    let mut padding = 0;
    loop {
        let Some((&length, after)) = rest.split_first() else {
            return false;
        };
        *rest = after;
        if length < 255 {
            padding += usize::from(length);
            break;
        }
        padding += 254;
    }
    let kept = rest.len().checked_sub(padding);
    if let Some(kept) = kept {
        *rest = &rest[..kept];
    }
    kept.is_some()
}

/// The format of frames of MP3 (ISO 11172-3, 2.4.1.3, and 13818-3), if all of them are whole and of the same.
fn mp3_frames(data: &[u8]) -> Option<AudioFormat> {
    let (format, mut length) = mp3_header(data)?;
    let mut rest = data;
    loop {
        rest = rest.get(length..)?;
        if rest.is_empty() {
            return Some(format);
        }
        let (other, next) = mp3_header(rest)?;
        if other != format {
            return None;
        }
        length = next;
    }
}

/// The format of a frame, and how long it is.
fn mp3_header(data: &[u8]) -> Option<(AudioFormat, usize)> {
    const BITRATES: [[usize; 14]; 2] = [
        [
            32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
        ],
        [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    let &[0xff, second, third, fourth, ..] = data else {
        return None;
    };
    // The sync word and layer III.
    if second & 0xe6 != 0xe2 {
        return None;
    }
    // MPEG-1, MPEG-2, and 2.5, which has no standard.
    let (half, divisor) = match second >> 3 & 3 {
        3 => (0, 1),
        2 => (1, 2),
        0 => (1, 4),
        _ => return None,
    };
    let bitrate = usize::from(third >> 4).checked_sub(1)?;
    let bitrate = BITRATES[half].get(bitrate)?;
    let rates: [u32; 3] = [44_100, 48_000, 32_000];
    let rate = rates.get(usize::from(third >> 2 & 3))? / divisor;
    let padding = usize::from(third >> 1 & 1);
    let samples = if half == 0 { 144_000 } else { 72_000 };
    let length = samples * bitrate / usize::try_from(rate).ok()? + padding;
    let channels = if fourth >> 6 == 3 { 1 } else { 2 };
    Some((AudioFormat::Mp3 { rate, channels }, length))
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

fn read_aac(config: Bytes) -> Result<Aac, NoAac> {
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
