// SPDX-License-Identifier: MPL-2.0

//! Finds where an H.264 stream can be joined, and which of its frames no other one needs (RFC 6184). Called by
//! [`super::inspect`].

use super::TemporalMark;

const NAL_IDR: u8 = 5;
const NAL_SPS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Whether a decoder can begin here: the packet holds a sequence parameter set or begins an IDR picture.
///
/// Where both come in one frame, the first of the two packets is the one to begin with; the caller keeps the first.
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    let Some(&header) = payload.first() else {
        return false;
    };
    match header & 0x1f {
        STAP_A => aggregated(&payload[1..]).any(|nal| is_key(nal & 0x1f)),
        FU_A => {
            let Some(&fu) = payload.get(1) else {
                return false;
            };
            fu & 0x80 != 0 && is_key(fu & 0x1f)
        }
        nal_type => is_key(nal_type),
    }
}

fn is_key(nal_type: u8) -> bool {
    matches!(nal_type, NAL_IDR | NAL_SPS)
}

/// The temporal layer of the packet's frame: pictures that are no references for others (`nal_ref_idc` is 0) are the upper
/// one of two. Encoders with two or three temporal layers mark the highest one like that, and nothing tells the others.
///
/// `None` where the packet has no part of a picture.
pub(super) fn temporal(payload: &[u8]) -> Option<TemporalMark> {
    let &header = payload.first()?;
    let slice = match header & 0x1f {
        STAP_A => aggregated(&payload[1..]).find(|nal| is_slice(*nal))?,
        // The indicator has the unit's reference bits, the octet behind it the unit's type.
        FU_A => Some(header & 0x60 | payload.get(1)? & 0x1f).filter(|nal| is_slice(*nal))?,
        _ => Some(header).filter(|nal| is_slice(*nal))?,
    };
    let is_needed = slice & 0x60 != 0;
    Some(TemporalMark {
        id: u8::from(!is_needed),
        switches_up: !is_needed,
    })
}

/// `profile_idc`, the constraints behind it and `level_idc`, where the packet has a sequence parameter set. It is before all
/// pictures, and a fragment has no whole one.
#[inline]
pub(crate) fn sequence(payload: &[u8]) -> Option<[u8; 3]> {
    let unit = match payload.first()? & 0x1f {
        NAL_SPS => payload,
        STAP_A => units(&payload[1..])
            .find(|unit| unit.first().is_some_and(|nal| nal & 0x1f == NAL_SPS))?,
        _ => return None,
    };
    Some([*unit.get(1)?, *unit.get(2)?, *unit.get(3)?])
}

/// Slices and data partitions, of IDR pictures or others.
fn is_slice(nal: u8) -> bool {
    matches!(nal & 0x1f, 1..=5)
}

/// The first octets of the NAL units in an aggregation packet, each behind a 16-bit length.
pub(super) fn aggregated(rest: &[u8]) -> impl Iterator<Item = u8> {
    units(rest).filter_map(|nal| nal.first().copied())
}

fn units(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [hi, lo, nal @ ..] = rest else {
            return None;
        };
        let size = usize::from(u16::from_be_bytes([*hi, *lo])).min(nal.len());
        let (unit, behind) = nal.split_at(size);
        rest = behind;
        Some(unit)
    })
}

/// The size that a sequence parameter set in the packet tells.
pub(super) fn picture_size(payload: &[u8]) -> Option<(u32, u32)> {
    let nal = match payload.first()? & 0x1f {
        NAL_SPS => payload,
        STAP_A => {
            units(&payload[1..]).find(|nal| nal.first().is_some_and(|n| n & 0x1f == NAL_SPS))?
        }
        _ => return None,
    };
    let rbsp = h264_reader::rbsp::decode_nal(nal).ok()?;
    let reader = h264_reader::rbsp::BitReader::new(&*rbsp);
    let sps = h264_reader::nal::sps::SeqParameterSet::from_bits(reader).ok()?;
    sps.pixel_dimensions().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_that_no_other_needs_are_the_upper_temporal_layer() {
        let (base, upper) = (Some(0), Some(1));
        for (what, payload, id) in [
            ("P slice", &[0x41, 0x9a][..], base),
            ("P slice, no reference", &[0x01, 0x9a], upper),
            ("IDR", &[0x65, 0x88], base),
            ("FU-A of a P slice", &[0x5c, 0x41, 0xaa], base),
            ("FU-A, no reference, middle", &[0x1c, 0x01, 0xaa], upper),
            ("FU-A cut short", &[0x1c], None),
            (
                "STAP-A of SEI, P slice",
                &[0x58, 0, 1, 0x06, 0, 2, 0x41, 0x9a],
                base,
            ),
            (
                "STAP-A of AUD, P slice, no reference",
                &[0x18, 0, 2, 0x09, 0xf0, 0, 2, 0x01, 0x9a],
                upper,
            ),
            ("SEI alone, which is never a reference", &[0x06, 0x05], None),
            ("AUD alone", &[0x09, 0xf0], None),
            ("SPS alone", &[0x67, 0x42], None),
            ("nothing", &[], None),
        ] {
            let mark = temporal(payload);
            assert_eq!(mark.map(|m| m.id), id, "{what}");
            assert!(mark.is_none_or(|m| m.switches_up == (m.id > 0)), "{what}");
        }
    }

    #[test]
    fn the_size_is_read_from_a_parameter_set() {
        // 1280x720, constrained baseline, as x264 writes it.
        let sps = [
            0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xe8, 0x06, 0xd0, 0xa1, 0x35,
        ];
        assert_eq!(picture_size(&sps), Some((1280, 720)));
        assert_eq!(picture_size(&sps[..4]), None);
        assert_eq!(picture_size(&[0x65, 0x88]), None);
    }

    #[test]
    fn keyframes_are_found_in_every_packetization() {
        for (what, payload, key) in [
            ("IDR alone", &[0x65, 0x88][..], true),
            ("SPS alone", &[0x67, 0x42], true),
            ("PPS alone", &[0x68, 0xce], false),
            ("P slice", &[0x41, 0x9a], false),
            ("AUD", &[0x09, 0xf0], false),
            (
                "STAP-A of AUD, SPS",
                &[0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 0x42],
                true,
            ),
            (
                "STAP-A of SEI, P slice",
                &[0x78, 0, 1, 0x06, 0, 2, 0x41, 0x9a],
                false,
            ),
            ("STAP-A cut short", &[0x78, 0], false),
            (
                "STAP-A with a length beyond the end",
                &[0x78, 0xff, 0xff, 0x41],
                false,
            ),
            ("FU-A, start of an IDR", &[0x7c, 0x85, 0xaa], true),
            ("FU-A, middle of an IDR", &[0x7c, 0x05, 0xaa], false),
            ("FU-A, start of a P slice", &[0x7c, 0x81, 0xaa], false),
            ("FU-A cut short", &[0x7c], false),
            ("nothing", &[], false),
        ] {
            assert_eq!(starts_keyframe(payload), key, "{what}");
        }
    }
}
