// SPDX-License-Identifier: MPL-2.0

//! Whether pictures come in another order than that in which they are shown: B-frames, which WebRTC has no place for.
//!
//! A sequence parameter set may say so (H.264 E.2.1, `max_num_reorder_frames`; H.265 7.4.3.2.1, `sps_max_num_reorder_pics`).
//! Where it says nothing it shows in the pictures' times.

use std::num::NonZeroUsize;

use h264_reader::nal::sps::{PicOrderCntType, ProfileIdc, SeqParameterSet};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader};
use sfu_engine::Codec;

/// What parameter sets say of pictures out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// There are none.
    Never,
    /// Nothing.
    Nothing,
    /// There are some.
    Reorders,
}

/// A level that there is not: the parser would refuse sets that do not keep to theirs.
const NO_LEVEL: u8 = 0xff;
const H264_SPS: u8 = 7;
const H265_SPS: u8 = 33;

/// What caps say, as parsers make them.
pub(super) fn says(caps: &gst::CapsRef) -> Says {
    let said = caps.structure(0).and_then(|structure| {
        let record = structure.get::<gst::Buffer>("codec_data").ok()?;
        let record = record.map_readable().ok()?;
        match structure.name().as_str() {
            "video/x-h264" => h264(&record),
            "video/x-h265" => h265(&record),
            _ => None,
        }
    });
    said.unwrap_or(Says::Nothing)
}

/// The first sequence parameter set of a picture, as parsers give it: units with lengths of four octets.
pub(super) fn sequence_set(codec: Codec, picture: &gst::BufferRef) -> Option<Vec<u8>> {
    let map = picture.map_readable().ok()?;
    let mut rest = map.as_slice();
    while let Some((length, after)) = rest.split_at_checked(4) {
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        let (unit, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        let is_set = unit.first().is_some_and(|head| match codec {
            Codec::H265 => head >> 1 == H265_SPS,
            _ => head & 31 == H264_SPS,
        });
        if is_set {
            return Some(unit.to_vec());
        }
        rest = after;
    }
    None
}

/// What that says.
pub(super) fn set_says(codec: Codec, set: &[u8]) -> Says {
    let says = match codec {
        Codec::H265 => h265_set(set),
        _ => h264_set(set),
    };
    says.unwrap_or(Says::Nothing)
}

/// Whether parsers' caps are of pictures that no browser offers to decode: of other colours or more bits than 4:2:0 of eight, or
/// interlaced.
pub(super) fn is_foreign(caps: &gst::CapsRef) -> bool {
    let Some(structure) = caps.structure(0) else {
        return false;
    };
    let other = |field, usual: &str| structure.get::<&str>(field).is_ok_and(|is| is != usual);
    let deep = |field| structure.get::<u32>(field).is_ok_and(|bits| bits > 8);
    other("chroma-format", "4:2:0")
        || other("interlace-mode", "progressive")
        || deep("bit-depth-luma")
        || deep("bit-depth-chroma")
}

fn unit<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_at_checked(2)?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let (unit, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(unit)
}

/// The strongest of what several sets say.
fn strongest(said: impl Iterator<Item = Says>) -> Option<Says> {
    said.reduce(|one, other| match (one, other) {
        (Says::Reorders, _) | (_, Says::Reorders) => Says::Reorders,
        (Says::Never, Says::Never) => Says::Never,
        _ => Says::Nothing,
    })
}

/// An AVCDecoderConfigurationRecord (ISO 14496-15, 5.3.3.1).
fn h264(record: &[u8]) -> Option<Says> {
    let (fixed, mut rest) = record.split_at_checked(6)?;
    let sets = (0..fixed[5] & 31).map_while(|_| unit(&mut rest));
    strongest(sets.map(|set| h264_set(set).unwrap_or(Says::Nothing)))
}

fn h264_set(unit: &[u8]) -> Option<Says> {
    let end = unit.iter().rposition(|byte| *byte != 0)?;
    let mut unit = unit[..=end].to_vec();
    *unit.get_mut(3)? = NO_LEVEL;
    let bits = BitReader::new(ByteReader::skipping_h264_header(&unit[..]));
    let set = SeqParameterSet::from_bits(bits).ok()?;
    let restrictions = set
        .vui_parameters
        .and_then(|vui| vui.bitstream_restrictions);
    // Baseline has no B-slices, and pictures of the second type of order come in it (8.2.1.3).
    let in_order = matches!(set.pic_order_cnt, PicOrderCntType::TypeTwo)
        || set.profile_idc == ProfileIdc::from(66);
    Some(match restrictions {
        _ if in_order => Says::Never,
        Some(said) if said.max_num_reorder_frames == 0 => Says::Never,
        Some(_) => Says::Reorders,
        None => Says::Nothing,
    })
}

/// An HEVCDecoderConfigurationRecord (ISO 14496-15, 8.3.3.1).
fn h265(record: &[u8]) -> Option<Says> {
    let (fixed, mut rest) = record.split_at_checked(23)?;
    let mut sets = Vec::new();
    for _ in 0..fixed[22] {
        let (head, after) = rest.split_at_checked(3)?;
        rest = after;
        for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
            let unit = unit(&mut rest)?;
            if head[0] & 0x3f == H265_SPS {
                sets.push(unit);
            }
        }
    }
    strongest(
        sets.into_iter()
            .map(|set| h265_set(set).unwrap_or(Says::Nothing)),
    )
}

/// The beginning of a sequence parameter set (H.265, 7.3.2.2.1).
fn h265_set(unit: &[u8]) -> Option<Says> {
    let mut bits = BitReader::new(ByteReader::skipping_bytes(unit, NonZeroUsize::new(2)?));
    bits.skip(4, "id").ok()?;
    let sublayers: u32 = bits.read::<3, u32>("sublayers").ok()?;
    // The profile and level, also of each sublayer.
    bits.skip(1 + 88 + 8, "profile").ok()?;
    let mut skipped = 0;
    if sublayers > 0 {
        for sublayer in 0..8 {
            let profile = bits.read_bit("profile").ok()?;
            let level = bits.read_bit("level").ok()?;
            if sublayer < sublayers {
                skipped += 88 * u32::from(profile) + 8 * u32::from(level);
            }
        }
    }
    bits.skip(skipped, "sublayers").ok()?;
    bits.read_ue("id").ok()?;
    if bits.read_ue("chroma").ok()? == 3 {
        bits.skip(1, "planes").ok()?;
    }
    for _ in 0..2 {
        bits.read_ue("side").ok()?;
    }
    if bits.read_bit("window").ok()? {
        for _ in 0..4 {
            bits.read_ue("window").ok()?;
        }
    }
    for _ in 0..3 {
        bits.read_ue("depths and order").ok()?;
    }
    let each = bits.read_bit("each sublayer").ok()?;
    let mut reordered = 0;
    for _ in 0..if each { sublayers + 1 } else { 1 } {
        bits.read_ue("buffering").ok()?;
        reordered = bits.read_ue("reordered").ok()?;
        bits.read_ue("latency").ok()?;
    }
    Some(match reordered {
        0 => Says::Never,
        _ => Says::Reorders,
    })
}

/// Pictures out of order come again within so many, or time has just stepped.
const AGAIN: u32 = 60;

/// Looks at pictures' times, in the order in which they come.
#[derive(Debug, Default)]
pub(super) struct Watch {
    last: Option<gst::ClockTime>,
    /// How long ago a picture was out of order, in pictures.
    since: Option<u32>,
}

/// What a picture is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    InOrder,
    /// To be shown before the one that came before it.
    Back,
    /// The same, again: these are B-frames.
    Again,
}

impl Watch {
    pub(super) fn picture(&mut self, time: Option<gst::ClockTime>, keyframe: bool) -> Seen {
        let Some(time) = time else {
            return Seen::InOrder;
        };
        let back = self.last.replace(time).is_some_and(|last| time < last);
        // Behind a keyframe nothing is shown that came before: time has stepped.
        if !back || keyframe {
            self.since = self.since.map(|n| n + 1).filter(|n| *n < AGAIN);
            return Seen::InOrder;
        }
        match self.since.replace(0) {
            Some(_) => Seen::Again,
            None => Seen::Back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(times: &[u64], keyframes: &[usize]) -> Vec<Seen> {
        let mut watch = Watch::default();
        let times = times.iter().enumerate();
        times
            .map(|(n, ms)| {
                let time = gst::ClockTime::from_mseconds(*ms);
                watch.picture(Some(time), keyframes.contains(&n))
            })
            .collect()
    }

    #[test]
    fn b_frames_are_told_from_steps_of_time() {
        use Seen::{Again, Back, InOrder};
        for (what, times, keyframes, seen) in [
            (
                "in order",
                &[0, 40, 80, 120][..],
                &[0][..],
                &[InOrder; 4][..],
            ),
            (
                "one between two",
                &[0, 80, 40, 160, 120],
                &[0],
                &[InOrder, InOrder, Back, InOrder, Again],
            ),
            (
                "a pyramid",
                &[0, 160, 80, 40, 120],
                &[0],
                &[InOrder, InOrder, Back, Again, InOrder],
            ),
            (
                "one step back",
                &[0, 40, 80, 10, 50, 90],
                &[0],
                &[InOrder, InOrder, InOrder, Back, InOrder, InOrder],
            ),
            (
                "steps at keyframes",
                &[0, 40, 0, 40, 0, 40],
                &[0, 2, 4],
                &[InOrder; 6],
            ),
        ] {
            assert_eq!(watch(times, keyframes), seen, "{what}");
        }
        let rare: Vec<u64> = (0..300)
            .map(|n| n * 40 - 60 * u64::from(n % 100 == 99))
            .collect();
        let seen = watch(&rare, &[0]);
        assert!(!seen.contains(&Again), "steps that are far apart");
    }

    #[test]
    fn no_octets_of_a_record_are_too_much() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        for length in 0..200 {
            for _ in 0..50 {
                let record: Vec<u8> = (0..length)
                    .map(|_| {
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        (seed >> 32) as u8
                    })
                    .collect();
                let _ = (
                    h264(&record),
                    h265(&record),
                    h264_set(&record),
                    h265_set(&record),
                );
            }
        }
    }
}
