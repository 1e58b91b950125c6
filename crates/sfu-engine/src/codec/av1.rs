// SPDX-License-Identifier: MPL-2.0

//! Finds where an AV1 stream can be joined, and its frames' temporal layers (RTP payload format for AV1, section 4; AV1
//! bitstream specification, section 5.3). Called by [`super::inspect`].

use super::TemporalMark;

/// Aggregation header: the first element goes on from the packet before, and the number of elements.
const CONTINUES: u8 = 0x80;
const FIRST_OF_SEQUENCE: u8 = 0x08;
/// OBU header: an octet with the layers follows, and a size.
const HAS_EXTENSION: u8 = 0x04;
/// Frame header, tile group, frame, redundant frame header, tile list.
const OF_A_FRAME: [u8; 5] = [3, 4, 6, 7, 8];

/// Whether the aggregation header marks the first packet of a coded video sequence (the N bit).
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    payload
        .first()
        .is_some_and(|header| header & FIRST_OF_SEQUENCE != 0)
}

/// The temporal layer of the packet's frame, from the first OBU that begins in the packet and is part of one.
///
/// Where a temporal layer may be joined is not in the OBUs, only in the dependency descriptor: at keyframes.
pub(super) fn temporal(payload: &[u8]) -> Option<TemporalMark> {
    let (&header, mut rest) = payload.split_first()?;
    let count = (header >> 4) & 0x03;
    let mut index = 0;
    while !rest.is_empty() {
        index += 1;
        // The last one has no length where the header tells how many there are.
        let element = if index == count {
            std::mem::take(&mut rest)
        } else {
            take_element(&mut rest)?
        };
        let goes_on = index == 1 && header & CONTINUES != 0;
        let [obu, behind @ ..] = element else {
            continue;
        };
        if goes_on || !OF_A_FRAME.contains(&((obu >> 3) & 0x0f)) {
            continue;
        }
        let layers = match obu & HAS_EXTENSION {
            0 => 0,
            _ => *behind.first()?,
        };
        return Some(TemporalMark {
            id: layers >> 5,
            switches_up: false,
        });
    }
    None
}

/// Cuts off an element behind its length (LEB128).
fn take_element<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0usize;
    for shift in (0..).step_by(7).take(4) {
        let (&octet, behind) = rest.split_first()?;
        *rest = behind;
        length |= usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            let (element, behind) = rest.split_at_checked(length)?;
            *rest = behind;
            return Some(element);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_n_bit_marks_a_sequence() {
        assert!(starts_keyframe(&[0x18, 0x0a]));
        assert!(!starts_keyframe(&[0x10, 0x32]));
        assert!(!starts_keyframe(&[]));
    }

    #[test]
    fn the_temporal_layer_is_in_the_obu_header() {
        for (what, payload, id) in [
            ("one frame, no extension", &[0x10, 0x30, 1, 2][..], Some(0)),
            ("one frame, layer 1", &[0x10, 0x34, 0x20, 1, 2], Some(1)),
            ("the same, to be continued", &[0x50, 0x34, 0x48, 1], Some(2)),
            ("with a length", &[0x00, 4, 0x34, 0x20, 1, 2], Some(1)),
            (
                "sequence header, frame",
                &[0x28, 2, 0x08, 0x00, 0x34, 0x00, 1],
                Some(0),
            ),
            (
                "metadata, frame of layer 1",
                &[0x20, 2, 0x28, 0x00, 0x34, 0x20, 1],
                Some(1),
            ),
            ("goes on, nothing else", &[0x90, 0x34, 0x20, 1], None),
            (
                "goes on, then a tile group of layer 1",
                &[0xa0, 2, 9, 9, 0x24, 0x20, 1],
                Some(1),
            ),
            ("a length beyond the end", &[0x00, 9, 0x34, 0x20], None),
            (
                "a length without end",
                &[0x00, 0xff, 0xff, 0xff, 0xff],
                None,
            ),
            ("extension cut off", &[0x10, 0x34], None),
            ("an empty element", &[0x00, 0, 3, 0x34, 0x20, 1], Some(1)),
            ("nothing", &[], None),
        ] {
            assert_eq!(temporal(payload).map(|m| m.id), id, "{what}");
        }
    }
}
