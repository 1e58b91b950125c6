// SPDX-License-Identifier: MPL-2.0

//! Finds where an H.265 stream can be joined (RFC 7798). Called by [`super::inspect`].

use super::h264::aggregated;

const AP: u8 = 48;
const FU: u8 = 49;

/// Whether a decoder can begin here: the packet holds a parameter set or begins an IRAP picture.
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    let (Some(&header), Some(rest)) = (payload.first(), payload.get(2..)) else {
        return false;
    };
    match (header >> 1) & 0x3f {
        AP => aggregated(rest).any(|nal| is_key((nal >> 1) & 0x3f)),
        FU => rest
            .first()
            .is_some_and(|fu| fu & 0x80 != 0 && is_key(fu & 0x3f)),
        nal_type => is_key(nal_type),
    }
}

/// IRAP pictures (BLA, IDR, CRA) and the video and sequence parameter sets.
fn is_key(nal_type: u8) -> bool {
    matches!(nal_type, 16..=21 | 32 | 33)
}

#[cfg(test)]
mod tests {
    use super::starts_keyframe;

    #[test]
    fn keyframes_are_found_in_every_packetization() {
        for (what, payload, key) in [
            ("VPS", &[0x40, 0x01, 0x0c][..], true),
            ("PPS", &[0x44, 0x01, 0xc0], false),
            ("IDR_W_RADL", &[0x26, 0x01, 0xaf], true),
            ("TRAIL_R", &[0x02, 0x01, 0xd0], false),
            ("AP of VPS", &[0x60, 0x01, 0, 2, 0x40, 0x01], true),
            ("AP of TRAIL_R", &[0x60, 0x01, 0, 2, 0x02, 0x01], false),
            ("FU, start of IDR_N_LP", &[0x62, 0x01, 0x94], true),
            ("FU, middle", &[0x62, 0x01, 0x14], false),
            ("cut short", &[0x62], false),
        ] {
            assert_eq!(starts_keyframe(payload), key, "{what}");
        }
    }
}
