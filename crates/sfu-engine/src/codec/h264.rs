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
        STAP_A => aggregated_types(&payload[1..]).any(is_key),
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

/// The types of the NAL units in a STAP-A, each behind a 16-bit length.
fn aggregated_types(mut rest: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let [hi, lo, nal @ ..] = rest else {
            return None;
        };
        let size = usize::from(u16::from_be_bytes([*hi, *lo]));
        let nal_type = nal.first()? & 0x1f;
        rest = nal.get(size..).unwrap_or_default();
        Some(nal_type)
    })
}

#[cfg(test)]
mod tests {
    use super::starts_keyframe;

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
