// SPDX-License-Identifier: MPL-2.0

//! Finds where an AV1 stream can be joined (RTP payload format for AV1, section 4.4). Called by [`super::inspect`].

/// Whether the aggregation header marks the first packet of a coded video sequence (the N bit).
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    payload.first().is_some_and(|header| header & 0x08 != 0)
}

#[cfg(test)]
mod tests {
    use super::starts_keyframe;

    #[test]
    fn the_n_bit_marks_a_sequence() {
        assert!(starts_keyframe(&[0x18, 0x0a]));
        assert!(!starts_keyframe(&[0x10, 0x32]));
        assert!(!starts_keyframe(&[]));
    }
}
