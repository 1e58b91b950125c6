// SPDX-License-Identifier: MPL-2.0

//! Finds where an H.264 stream can be joined (RFC 6184). Called by [`super::inspect`].

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
    use super::{picture_size, starts_keyframe};

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
