// SPDX-License-Identifier: MPL-2.0

//! Finds where an AV1 stream can be joined, its size, and its frames' temporal layers (RTP payload format for AV1, section 4;
//! AV1 bitstream specification, section 5.3). Called by [`super::inspect`].

use scuffle_av1::ObuHeader;
use scuffle_av1::seq::SequenceHeaderObu;

use super::TemporalMark;

/// Aggregation header: the first element goes on from the packet before, and the number of elements.
const CONTINUES: u8 = 0x80;
const FIRST_OF_SEQUENCE: u8 = 0x08;
/// OBU header: an octet with the layers follows, and a size.
const HAS_EXTENSION: u8 = 0x04;
const SEQUENCE_HEADER: u8 = 1;
/// So many octets of zeros in a row are in no sequence header. `scuffle-av1` counts the zeros before a number in eight bits.
const ZEROS: usize = 31;
/// Frame header, tile group, frame, redundant frame header, tile list.
const OF_A_FRAME: [u8; 5] = [3, 4, 6, 7, 8];

/// Whether the aggregation header marks the first packet of a coded video sequence (the N bit).
pub(super) fn starts_keyframe(payload: &[u8]) -> bool {
    payload
        .first()
        .is_some_and(|header| header & FIRST_OF_SEQUENCE != 0)
}

/// The size that a sequence header in the packet tells.
pub(super) fn picture_size(payload: &[u8]) -> Option<(u32, u32)> {
    let mut obu = obus(payload).find(|obu| obu_type(obu) == Some(SEQUENCE_HEADER))?;
    if obu.windows(ZEROS).any(|octets| octets == [0; ZEROS]) {
        return None;
    }
    let header = ObuHeader::parse(&mut obu).ok()?;
    let sequence = SequenceHeaderObu::parse(header, &mut obu).ok()?;
    let side = |pixels: u64| u32::try_from(pixels).ok();
    Some((
        side(sequence.max_frame_width)?,
        side(sequence.max_frame_height)?,
    ))
}

/// The temporal layer of the packet's frame, from the first OBU that begins in the packet and is part of one.
///
/// Where a temporal layer may be joined is not in the OBUs, only in the dependency descriptor: at keyframes.
pub(super) fn temporal(payload: &[u8]) -> Option<TemporalMark> {
    let of_a_frame = |obu: &&[u8]| obu_type(obu).is_some_and(|kind| OF_A_FRAME.contains(&kind));
    let frame = obus(payload).find(of_a_frame)?;
    let layers = match frame.first()? & HAS_EXTENSION {
        0 => 0,
        _ => *frame.get(1)?,
    };
    Some(TemporalMark {
        id: layers >> 5,
        switches_up: false,
    })
}

fn obu_type(obu: &[u8]) -> Option<u8> {
    obu.first().map(|header| (header >> 3) & 0x0f)
}

/// The OBUs that begin in the packet. The last one may end in another.
fn obus(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (header, mut rest) = payload.split_first().map_or((0, payload), |(h, r)| (*h, r));
    let count = usize::from(header >> 4) & 0x03;
    let mut index = 0;
    let elements = std::iter::from_fn(move || {
        index += 1;
        // The last one has no length where the header tells how many there are.
        match index == count {
            _ if rest.is_empty() => None,
            true => Some(std::mem::take(&mut rest)),
            false => take_element(&mut rest),
        }
    });
    elements.skip(usize::from(header & CONTINUES != 0))
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
    use proptest::prelude::*;

    #[test]
    fn the_n_bit_marks_a_sequence() {
        assert!(starts_keyframe(&[0x18, 0x0a]));
        assert!(!starts_keyframe(&[0x10, 0x32]));
        assert!(!starts_keyframe(&[]));
    }

    #[test]
    fn the_size_is_in_the_sequence_header() {
        // 1280x720, as libaom writes it for real time.
        let sequence = [
            0x08, 0x20, 0x00, 0x00, 0x2d, 0x4c, 0xff, 0xb3, 0xcd, 0xaf, 0x92, 0x02, 0x1a, 0x00,
            0x40,
        ];
        let mut payload = vec![0x28, sequence.len() as u8];
        payload.extend(sequence);
        payload.extend([0x30, 1, 2]);
        assert_eq!(picture_size(&payload), Some((1280, 720)));
        assert_eq!(picture_size(&payload[..8]), None, "cut off");
        assert_eq!(picture_size(&[0x10, 0x30, 1, 2]), None, "a frame alone");
    }

    #[test]
    fn no_run_of_zeros_is_a_number() {
        let header = |zeros: usize| {
            // Profile, timing information with equal intervals, whose length in ticks is the number. Then: no decoder model,
            // one operating point, sides of 9 bits, and nothing of what is optional.
            let ticks =
                "0".repeat(32 + 31) + "1" + "1" + &"0".repeat(zeros) + "1" + &"0".repeat(zeros);
            let point = "0".repeat(1 + 1 + 5 + 12) + "00000";
            let size = "10001000".to_owned() + "100111111" + "010110011";
            let bits = format!("000001{ticks}{point}{size}{}", "0".repeat(40));
            let octet = |octet: &[u8]| {
                let bits = std::str::from_utf8(octet).unwrap();
                u8::from_str_radix(bits, 2).unwrap() << (8 - bits.len())
            };
            let mut payload = vec![0x18, SEQUENCE_HEADER << 3];
            payload.extend(bits.as_bytes().chunks(8).map(octet));
            payload
        };
        assert_eq!(picture_size(&header(3)), Some((320, 180)));
        assert_eq!(picture_size(&header(256 + 3)), None);
    }

    proptest! {
        #[test]
        fn no_sequence_header_panics(payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut header = vec![0x18, SEQUENCE_HEADER << 3];
            header.extend(payload);
            let _ = picture_size(&header);
        }
    }

    #[test]
    fn a_packet_may_have_many_obus() {
        let mut payload = vec![0x00];
        payload.extend([2, 0x28, 0].repeat(255));
        payload.extend([3, 0x34, 0x20, 1]);
        assert_eq!(obus(&payload).count(), 256);
        assert_eq!(temporal(&payload).map(|mark| mark.id), Some(1));
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
