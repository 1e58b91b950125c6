// SPDX-License-Identifier: MPL-2.0
//! Whether a decoder can begin with a codec's parameter sets, and whether what they announce is small enough (H.264 7.3.2,
//! H.265 7.3.2, AV1 5.5), for `flv.rs`. A decoder that fails at them would end the pipeline.

use std::num::NonZeroUsize;

use bytes::Bytes;
use h264_reader::Context;
use h264_reader::nal::pps::PicParameterSet;
use h264_reader::nal::sps::{FrameMbsFlags, SeqParameterSet, SpsError};
use h264_reader::rbsp::{BitRead, BitReader, ByteReader};
use scuffle_av1::seq::SequenceHeaderObu;
use scuffle_av1::{ObuHeader, ObuType};

use super::Misuse;
use super::flv::VideoCodec;

/// The largest picture: what level 5.2 of H.264 allows, 4096x2304.
const MAX_PIXELS: u64 = 4096 * 2304;
const MAX_SIDE: u64 = 8192;
/// A level that there is not.
const NO_LEVEL: u8 = 0xff;
/// What `h264-reader` calls that.
const PICTURE_SIZE: &str = "pic_size_in_map_units";
const UNIT_SPS: u8 = 7;
const UNIT_PPS: u8 = 8;
const UNIT_HEVC_SPS: u8 = 33;
/// So many octets of zeros in a row are in no sequence header. `scuffle-av1` counts the zeros before a number in eight bits.
const ZEROS: usize = 31;
const BROKEN: Misuse = Misuse::Tag("its parameter sets are broken");

fn bounded(width: u64, height: u64) -> Result<(), Misuse> {
    let pixels = width.saturating_mul(height);
    match pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
        true => Err(Misuse::TooLarge),
        false if pixels == 0 => Err(BROKEN),
        false => Ok(()),
    }
}

/// Some encoders fill up with zeros, which are no part of the set.
fn trimmed(unit: &[u8]) -> &[u8] {
    let end = unit.iter().rposition(|byte| *byte != 0);
    &unit[..end.map_or(0, |end| end + 1)]
}

fn avc_picture(unit: &[u8]) -> Result<SeqParameterSet, Misuse> {
    // Not every encoder keeps to the level that it names, and no decoder minds; the parser would.
    let mut unit = trimmed(unit).to_vec();
    *unit.get_mut(3).ok_or(BROKEN)? = NO_LEVEL;
    let bits = BitReader::new(ByteReader::skipping_h264_header(&unit[..]));
    let set = match SeqParameterSet::from_bits(bits) {
        Ok(set) => set,
        Err(SpsError::FieldValueTooLarge { name, .. }) if name == PICTURE_SIZE => {
            return Err(Misuse::TooLarge);
        }
        Err(_) => return Err(BROKEN),
    };
    let fields = match set.frame_mbs_flags {
        FrameMbsFlags::Fields { .. } => 2,
        FrameMbsFlags::Frames => 1,
    };
    let width = 16 * (u64::from(set.pic_width_in_mbs_minus1) + 1);
    let height = 16 * fields * (u64::from(set.pic_height_in_map_units_minus1) + 1);
    bounded(width, height)?;
    if set.pixel_dimensions().is_err() || set.max_num_ref_frames > 16 {
        return Err(BROKEN);
    }
    Ok(set)
}

/// Both kinds of parameter sets of an AVCDecoderConfigurationRecord.
fn avc(units: &[&[u8]]) -> Result<(), Misuse> {
    let kind = |unit: &[u8]| unit.first().map_or(0, |byte| byte & 0x9f);
    let mut context = Context::new();
    for unit in units.iter().filter(|unit| kind(unit) == UNIT_SPS) {
        context.put_seq_param_set(avc_picture(unit)?);
    }
    let mut pictures = 0;
    for unit in units.iter().filter(|unit| kind(unit) == UNIT_PPS) {
        let bits = BitReader::new(ByteReader::skipping_h264_header(trimmed(unit)));
        PicParameterSet::from_bits(&context, bits).map_err(|_| BROKEN)?;
        pictures += 1;
    }
    match context.sps().next().is_some() && pictures > 0 {
        true => Ok(()),
        false => Err(BROKEN),
    }
}

fn hevc_size(unit: &[u8]) -> Option<(u64, u64)> {
    let mut bits = BitReader::new(ByteReader::skipping_bytes(unit, NonZeroUsize::new(2)?));
    bits.skip(4, "id").ok()?;
    let layers: u32 = bits.read::<3, u32>("layers").ok()?;
    // The profile and level, also of each sublayer.
    bits.skip(1 + 88 + 8, "profile").ok()?;
    let mut sublayers = 0;
    if layers > 0 {
        for layer in 0..8 {
            let profile = bits.read_bit("profile").ok()?;
            let level = bits.read_bit("level").ok()?;
            if layer < layers {
                sublayers += 88 * u32::from(profile) + 8 * u32::from(level);
            }
        }
    }
    bits.skip(sublayers, "sublayers").ok()?;
    bits.read_ue("id").ok().filter(|id| *id < 16)?;
    let chroma = bits.read_ue("chroma").ok().filter(|chroma| *chroma < 4)?;
    if chroma == 3 {
        bits.skip(1, "planes").ok()?;
    }
    let mut side = || bits.read_ue("side").ok().map(u64::from);
    Some((side()?, side()?))
}

fn av1(mut obus: Bytes) -> Result<(), Misuse> {
    while !obus.is_empty() {
        let mut cursor = std::io::Cursor::new(obus.clone());
        let header = ObuHeader::parse(&mut cursor).map_err(|_| BROKEN)?;
        let at = usize::try_from(cursor.position()).map_err(|_| BROKEN)?;
        let size = header
            .size
            .map_or(Some(obus.len() - at), |size| usize::try_from(size).ok());
        let end = size
            .and_then(|size| at.checked_add(size))
            .filter(|end| *end <= obus.len());
        let end = end.ok_or(BROKEN)?;
        if header.obu_type == ObuType::SequenceHeader {
            let body = obus.slice(at..end);
            if body.windows(ZEROS).any(|octets| octets == [0; ZEROS]) {
                return Err(BROKEN);
            }
            let mut body = std::io::Cursor::new(body);
            let sequence = SequenceHeaderObu::parse(header, &mut body).map_err(|_| BROKEN)?;
            bounded(sequence.max_frame_width, sequence.max_frame_height)?;
        }
        obus = obus.slice(end..);
    }
    Ok(())
}

/// Checks what a record has, its units without their lengths.
pub(super) fn check(codec: VideoCodec, record: &Bytes, units: &[&[u8]]) -> Result<(), Misuse> {
    match codec {
        VideoCodec::H264 => avc(units),
        VideoCodec::H265 => match units.iter().any(|unit| hevc_kind(unit) == UNIT_HEVC_SPS) {
            true => units.iter().try_for_each(|unit| check_unit(codec, unit)),
            false => Err(BROKEN),
        },
        VideoCodec::Av1 => av1(record.slice(4.min(record.len())..)),
    }
}

fn hevc_kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |byte| byte >> 1 & 0x3f)
}

/// Checks a unit of a frame: parameter sets may come there as well.
pub(super) fn check_unit(codec: VideoCodec, unit: &[u8]) -> Result<(), Misuse> {
    match codec {
        VideoCodec::H264 if unit.first().is_some_and(|byte| byte & 0x1f == UNIT_SPS) => {
            avc_picture(unit).map(drop)
        }
        VideoCodec::H265 if hevc_kind(unit) == UNIT_HEVC_SPS => {
            let (width, height) = hevc_size(unit).ok_or(BROKEN)?;
            bounded(width, height)
        }
        _ => Ok(()),
    }
}

/// Checks the units of an AV1 frame.
pub(super) fn check_temporal_unit(data: &Bytes) -> Result<(), Misuse> {
    av1(data.clone())
}
