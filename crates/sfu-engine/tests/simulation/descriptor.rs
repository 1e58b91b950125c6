// SPDX-License-Identifier: MPL-2.0

//! Dependency descriptors (RTP payload format for AV1, appendix A) as an encoder of three spatial and three temporal layers writes
//! them, and what a receiver that knows nothing else makes of them.

use std::collections::BTreeSet;

use bitstream_io::{BigEndian, BitWrite, BitWriter};

use crate::svc::Mark;
use crate::viewer::Pictures;

const SPATIAL: u8 = 3;
const TEMPORAL: u8 = 3;
const TARGETS: u8 = SPATIAL * TEMPORAL;
/// By phase, the template of a spatial layer, the first of which is that of keyframes.
const TEMPLATE: [u8; 4] = [1, 3, 2, 3];
const TEMPLATES: u8 = 4;
/// By template: its temporal layer, and how many pictures lie between it and what it is predicted from.
const KINDS: [(u8, u8); TEMPLATES as usize] = [(0, 0), (0, 4), (1, 2), (2, 1)];
const FIRST: u8 = 61;
const NUMBERS: u8 = 64;

type Bits = BitWriter<Vec<u8>, BigEndian>;

/// A packet's descriptor; with `structure` it is a keyframe's first.
pub(crate) fn write(mark: Mark, structure: bool, last: bool) -> Vec<u8> {
    let kind = match mark.key {
        true => 0,
        false => TEMPLATE[usize::from(mark.phase)],
    };
    let template = FIRST + TEMPLATES * mark.spatial + kind;
    let frame = mark.frame * u32::from(SPATIAL) + u32::from(mark.spatial);
    let mut bits = BitWriter::endian(Vec::new(), BigEndian);
    bits.write_bit(mark.index == 0).unwrap();
    bits.write_bit(last).unwrap();
    bits.write_unsigned::<6, u8>(template % NUMBERS).unwrap();
    // They begin near the wrap.
    bits.write_unsigned::<16, u16>((frame + 65_000) as u16)
        .unwrap();
    if structure {
        bits.write_unsigned::<5, u8>(0b1_0000).unwrap();
        write_structure(&mut bits, mark.full);
    }
    bits.byte_align().unwrap();
    bits.into_writer()
}

fn write_structure(bits: &mut Bits, full: bool) {
    bits.write_unsigned::<6, u8>(FIRST).unwrap();
    bits.write_unsigned::<5, u8>(TARGETS - 1).unwrap();
    let all = || (0..SPATIAL).flat_map(|s| (0..).zip(KINDS).map(move |(n, kind)| (s, n, kind)));
    for (spatial, kind, _) in all() {
        let step = match kind {
            // The next one has the same layers.
            0 => 0u8,
            3 if spatial + 1 == SPATIAL => 3,
            3 => 2,
            _ => 1,
        };
        bits.write_unsigned::<2, u8>(step).unwrap();
    }
    for (spatial, kind, (temporal, _)) in all() {
        for target in 0..TARGETS {
            let (s, t) = (target / TEMPORAL, target % TEMPORAL);
            let is_needed = temporal <= t && (s == spatial || s > spatial && (kind == 0 || full));
            let indication = if is_needed { 2u8 } else { 0 };
            bits.write_unsigned::<2, u8>(indication).unwrap();
        }
    }
    for (spatial, kind, (_, back)) in all() {
        let in_time = (kind > 0).then_some(back * SPATIAL);
        let in_picture = (spatial > 0 && (kind == 0 || full)).then_some(1);
        for difference in [in_time, in_picture].into_iter().flatten() {
            bits.write_bit(true).unwrap();
            bits.write_unsigned::<4, u8>(difference - 1).unwrap();
        }
        bits.write_bit(false).unwrap();
    }
    // No chains.
    bits.write_unsigned::<3, u8>(0).unwrap();
    bits.write_bit(true).unwrap();
    for spatial in 0..SPATIAL {
        bits.write_unsigned::<16, u16>((320 << spatial) - 1)
            .unwrap();
        bits.write_unsigned::<16, u16>((180 << spatial) - 1)
            .unwrap();
    }
}

/// What a receiver makes of the descriptors.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Those of which at least one frame can be decoded.
    pub(crate) pictures: u64,
    /// Frames whose references are not there, though no packet is missing.
    pub(crate) broken: u64,
}

/// The frame that is being put together.
#[derive(Debug, Clone, Copy)]
struct Frame {
    number: u16,
    template: u8,
    is_key: bool,
}

pub(crate) fn decoded(pictures: &Pictures) -> Decoded {
    let mut result = Decoded::default();
    let mut have: BTreeSet<u16> = BTreeSet::new();
    let (mut expected, mut shown) = (None, None);
    // Whether frames of this structure are predicted across layers, as the keyframe's payload tells.
    let (mut full, mut lost, mut frame): (bool, bool, Option<Frame>) = (false, true, None);
    for (&seq, packet) in pictures.raw.as_ref().unwrap() {
        if expected.replace(seq + 1).is_some_and(|e| e != seq) {
            (lost, frame) = (true, None);
            have.clear();
        }
        if packet.payload.is_empty() {
            continue;
        }
        let octets = packet.descriptor.as_deref().expect("a descriptor");
        let [first, high, low, rest @ ..] = octets else {
            panic!("{octets:?} is short");
        };
        let is_key = !rest.is_empty();
        if is_key {
            full = crate::svc::read(&packet.payload).unwrap().full;
            lost = false;
            have.clear();
        }
        let number = u16::from_be_bytes([*high, *low]);
        if first & 0x80 != 0 {
            let template = (first % NUMBERS + NUMBERS - FIRST) % NUMBERS;
            let is_key = template.is_multiple_of(TEMPLATES);
            result.broken += u64::from(frame.is_some());
            frame = Some(Frame {
                number,
                template,
                is_key,
            });
        }
        let ends = first & 0x40 != 0;
        let whole = frame.filter(|f| f.number == number && ends && !lost);
        if ends {
            frame = None;
        }
        let Some(whole) = whole else {
            result.broken += u64::from(!lost && ends);
            continue;
        };
        if !references(whole, full).all(|reference| have.contains(&reference)) {
            result.broken += 1;
            continue;
        }
        have.insert(whole.number);
        if shown.replace(packet.timestamp) != Some(packet.timestamp) {
            result.pictures += 1;
        }
    }
    result
}

fn references(frame: Frame, full: bool) -> impl Iterator<Item = u16> {
    let (_, back) = KINDS[usize::from(frame.template % TEMPLATES)];
    let in_time = (!frame.is_key).then_some(back * SPATIAL);
    let in_picture = (frame.template >= TEMPLATES && (frame.is_key || full)).then_some(1);
    let all = [in_time, in_picture].into_iter().flatten();
    all.map(move |back| frame.number.wrapping_sub(back.into()))
}
