// SPDX-License-Identifier: MPL-2.0

//! Parameter sets of H.264 and H.265 (SPS, PPS, VPS), kept so that each picture that a decoder may begin with has them.
//!
//! Some encoders send them once, at the very beginning: whoever joins later could decode nothing. One a layer, called by
//! [`LayerReader`](crate::packet) for each packet that comes in, which sends them again where they are missing.

use std::sync::Arc;

use super::nal::{Content, Format};
use crate::size::MAX_PAYLOAD;

/// Units that are kept: three of a kind are rare, eight were never seen.
const MOST: usize = 8;
/// Octets of one: x264's, NVENC's and browsers' take 10 to 60.
const LARGEST: usize = 400;

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct ParameterSets {
    /// By kind, in the order in which a decoder wants them.
    kept: Vec<Kept>,
    /// The frame, by its timestamp, that has some.
    frame: Option<u32>,
}

#[derive(Debug)]
struct Kept {
    unit_type: u8,
    id: u32,
    unit: Box<[u8]>,
}

/// What a unit is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Of this type.
    Set(u8),
    /// The beginning of a picture that needs no other.
    Key,
    Other,
}

fn role(format: Format, first: u8) -> Role {
    match (format, format.unit_type([first, 0])) {
        (Format::H264, set @ (7 | 8)) | (Format::H265, set @ 32..=34) => Role::Set(set),
        (Format::H264, 5) | (Format::H265, 16..=21) => Role::Key,
        _ => Role::Other,
    }
}

/// Whether a packet holds the first of the sets that a sequence has, so that a decoder needs nothing before it.
pub(crate) fn come_first(format: Format, payload: &[u8]) -> bool {
    let first = match format {
        Format::H264 => 7,
        Format::H265 => 32,
    };
    let is_first = |unit: &[u8]| role(format, unit[0]) == Role::Set(first);
    match format.read(payload) {
        Content::Part(part) => part.start && is_first(&part.header),
        Content::Aggregate(rest) => format.units(rest).into_iter().flatten().any(is_first),
        Content::Other => false,
    }
}

/// Whether a packet holds nothing but what comes before a picture: sets, delimiters and SEI. Some payloaders set the marker on each
/// unit; on one of these it is no picture's end, and browsers that take it for one show nothing.
pub(crate) fn are_before_pictures(format: Format, payload: &[u8]) -> bool {
    let is_before = |first: [u8; 2]| match format {
        Format::H264 => matches!(format.unit_type(first), 6..=9),
        Format::H265 => matches!(format.unit_type(first), 32..=35 | 39),
    };
    match format.read(payload) {
        Content::Part(part) => is_before(part.header),
        Content::Aggregate(rest) => {
            let mut units = format.units(rest).into_iter().flatten().peekable();
            units.peek().is_some() && units.all(|unit| is_before([unit[0], 0]))
        }
        Content::Other => false,
    }
}

/// Parameter sets that are told beside the media (`sprop-parameter-sets` and its kin).
pub(crate) type Told = Arc<[Box<[u8]>]>;

impl ParameterSets {
    /// Takes those that were told beforehand. What comes with the pictures counts more.
    pub(crate) fn told(&mut self, format: Format, sets: &Told) {
        let frame = self.frame;
        for unit in sets.iter().filter(|unit| !unit.is_empty()) {
            self.keep(format, 0, unit);
        }
        self.frame = frame;
    }

    /// Looks at a packet's payload. `true`: a picture begins in it that a decoder could begin with if it had the sets, which
    /// are known and have not come with it.
    pub(crate) fn look(&mut self, format: Format, timestamp: u32, payload: &[u8]) -> bool {
        let is_bare = match format.read(payload) {
            Content::Part(part) if part.start => match role(format, part.header[0]) {
                Role::Set(_) if part.end => self.keep(format, timestamp, payload),
                Role::Set(_) => self.note(timestamp),
                Role::Key => true,
                Role::Other => false,
            },
            Content::Aggregate(rest) => {
                let mut has_key = false;
                for unit in format.units(rest).into_iter().flatten() {
                    match role(format, unit[0]) {
                        Role::Set(_) => drop(self.keep(format, timestamp, unit)),
                        Role::Key => has_key = true,
                        Role::Other => {}
                    }
                }
                has_key
            }
            Content::Part(_) | Content::Other => false,
        };
        let needed = is_bare && self.frame != Some(timestamp) && !self.kept.is_empty();
        if needed {
            self.frame = Some(timestamp);
        }
        needed
    }

    /// A frame brings sets of its own. No picture begins with them.
    fn note(&mut self, timestamp: u32) -> bool {
        self.frame = Some(timestamp);
        false
    }

    /// The same, and they are kept.
    fn keep(&mut self, format: Format, timestamp: u32, unit: &[u8]) -> bool {
        let Role::Set(unit_type) = role(format, unit[0]) else {
            return false;
        };
        if unit.len() > LARGEST {
            return self.note(timestamp);
        }
        // A whole unit alone may come as a fragment that begins and ends, which nobody sends: it is not kept.
        let id = id(format, unit_type, unit);
        let known = self
            .kept
            .iter_mut()
            .find(|k| (k.unit_type, k.id) == (unit_type, id));
        match known {
            Some(known) if *known.unit == *unit => {}
            Some(known) => known.unit = unit.into(),
            None => {
                let at = self.kept.partition_point(|k| k.unit_type <= unit_type);
                let unit = unit.into();
                self.kept.insert(
                    at,
                    Kept {
                        unit_type,
                        id,
                        unit,
                    },
                );
            }
        }
        let size = |kept: &Kept| 2 + kept.unit.len();
        let octets = self.kept.iter().map(size).sum();
        if self.kept.len() > MOST || format.aggregate_len(octets) > MAX_PAYLOAD {
            self.kept.clear();
        }
        self.note(timestamp)
    }

    /// All of them in one packet's payload.
    pub(crate) fn payload(&self, format: Format) -> Vec<u8> {
        match &self.kept[..] {
            [one] => one.unit.to_vec(),
            all => {
                let units: Vec<&[u8]> = all.iter().map(|k| &*k.unit).collect();
                format.aggregate(&units)
            }
        }
    }
}

/// The number by which others refer to a set. Those of H.265's sequences are behind too much: there is one.
fn id(format: Format, unit_type: u8, unit: &[u8]) -> u32 {
    let number = |from: usize| unit.get(from..).and_then(exp_golomb).unwrap_or(0);
    match (format, unit_type) {
        // Behind profile, constraints and level (ITU-T H.264, 7.3.2.1.1).
        (Format::H264, 7) => number(4),
        (Format::H264, _) => number(1),
        (Format::H265, 32) => unit.get(2).map_or(0, |octet| u32::from(octet >> 4)),
        (Format::H265, 34) => number(2),
        (Format::H265, _) => 0,
    }
}

/// An unsigned number as both standards code it (ue(v)), of those below 65,535.
fn exp_golomb(data: &[u8]) -> Option<u32> {
    let octet = |at: usize| u64::from(data.get(at).copied().unwrap_or(0));
    let bits = (0..5).fold(0u64, |bits, at| bits << 8 | octet(at)) << 24;
    let zeros = bits.leading_zeros();
    (zeros < 16).then(|| ((bits << zeros >> (63 - zeros)) - 1) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPS: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0xda, 1];
    const PPS: &[u8] = &[0x68, 0xce, 0x3c];
    const IDR: &[u8] = &[0x65, 0x88, 1];

    fn aggregate(units: &[&[u8]]) -> Vec<u8> {
        Format::H264.aggregate(units)
    }

    #[test]
    fn sets_and_what_belongs_to_them_end_no_picture() {
        const SEI: &[u8] = &[0x06, 5, 1];
        const AUD: &[u8] = &[0x09, 0xf0];
        for (what, payload, is_before) in [
            ("a set", SPS.to_vec(), true),
            ("SEI", SEI.to_vec(), true),
            (
                "a delimiter and sets",
                aggregate(&[AUD, SPS, PPS, SEI]),
                true,
            ),
            ("a picture", IDR.to_vec(), false),
            ("sets and a picture", aggregate(&[SPS, PPS, IDR]), false),
            ("filler behind a picture", vec![0x0c, 0xff], false),
            ("a set's fragment", vec![0x7c, 0x47, 1], true),
            ("a picture's fragment", vec![0x7c, 0x45, 1], false),
            ("nothing", Vec::new(), false),
        ] {
            assert_eq!(
                are_before_pictures(Format::H264, &payload),
                is_before,
                "{what}"
            );
        }
        for (unit_type, is_before) in [(32, true), (35, true), (39, true), (40, false), (19, false)]
        {
            let payload = [unit_type << 1, 1, 0xaa];
            assert_eq!(
                are_before_pictures(Format::H265, &payload),
                is_before,
                "{unit_type}"
            );
        }
    }

    #[test]
    fn what_was_told_beforehand_goes_before_the_first_picture() {
        let mut sets = ParameterSets::default();
        let told: Told = [SPS, &[], PPS, IDR].map(Box::from).into();
        sets.told(Format::H264, &told);
        assert!(sets.look(Format::H264, 7, IDR));
        assert_eq!(sets.payload(Format::H264), aggregate(&[SPS, PPS]));
        // The encoder's own are newer.
        let newer = [&SPS[..5], &[9]].concat();
        sets.look(Format::H264, 8, &newer);
        assert!(!sets.look(Format::H264, 8, IDR));
        assert!(sets.look(Format::H264, 9, IDR));
        assert_eq!(sets.payload(Format::H264), aggregate(&[&newer, PPS]));
    }

    #[test]
    fn sets_are_needed_where_a_picture_begins_without_them() {
        let fragment = |start: u8| vec![0x7c, start | 5, 0xaa];
        for (what, before, then, needed) in [
            (
                "alone",
                vec![SPS.to_vec(), PPS.to_vec()],
                IDR.to_vec(),
                true,
            ),
            (
                "in an aggregate",
                vec![aggregate(&[SPS, PPS, IDR])],
                IDR.to_vec(),
                true,
            ),
            (
                "a fragment begins it",
                vec![SPS.to_vec()],
                fragment(0x80),
                true,
            ),
            ("a fragment goes on", vec![SPS.to_vec()], fragment(0), false),
            (
                "they come with it",
                vec![SPS.to_vec()],
                aggregate(&[SPS, PPS, IDR]),
                false,
            ),
            (
                "in an aggregate without them",
                vec![SPS.to_vec()],
                aggregate(&[&[9, 0xf0], IDR]),
                true,
            ),
            (
                "a picture that needs others",
                vec![SPS.to_vec()],
                vec![0x41, 0x9a],
                false,
            ),
            ("none are known", vec![], IDR.to_vec(), false),
        ] {
            let mut sets = ParameterSets::default();
            for payload in before {
                assert!(!sets.look(Format::H264, 1, &payload), "{what}");
            }
            assert_eq!(sets.look(Format::H264, 2, &then), needed, "{what}");
            if needed {
                assert!(!sets.look(Format::H264, 2, IDR), "{what}: once a frame");
            }
        }
    }

    #[test]
    fn they_are_sent_as_they_came_the_newest_of_each() {
        let mut sets = ParameterSets::default();
        let newer = [0x67, 0x42, 0xc0, 0x28, 0xda, 2];
        // Number 1, of which the first is 010 in bits.
        let other = [0x68, 0x5f, 0xff];
        for unit in [PPS, SPS, &newer, &other, PPS] {
            sets.look(Format::H264, 1, unit);
        }
        assert_eq!(
            sets.payload(Format::H264),
            aggregate(&[&newer, PPS, &other])
        );
        let mut sets = ParameterSets::default();
        sets.look(Format::H264, 1, SPS);
        assert_eq!(sets.payload(Format::H264), SPS);
        let (vps, sps, pps) = ([0x40, 1, 0x0c], [0x42, 1, 1], [0x44, 1, 0xc1]);
        let mut sets = ParameterSets::default();
        for unit in [&vps, &pps, &sps] {
            sets.look(Format::H265, 1, unit);
        }
        assert!(sets.look(Format::H265, 2, &[0x26, 1, 0xaf]));
        assert_eq!(
            sets.payload(Format::H265),
            Format::H265.aggregate(&[&vps, &sps, &pps])
        );
    }

    #[test]
    fn what_is_kept_fits_a_packet() {
        let mut sets = ParameterSets::default();
        for n in 0..=255u8 {
            sets.look(Format::H264, 1, &[0x68, n, 1]);
            sets.look(
                Format::H264,
                1,
                &[&[0x67, n, 1, 1, n][..], &[n; 300]].concat(),
            );
            assert!(sets.kept.len() <= MOST);
            assert!(sets.payload(Format::H264).len() <= MAX_PAYLOAD);
        }
    }

    #[test]
    fn numbers_are_read_bit_by_bit() {
        for (data, number) in [
            (&[0x80][..], Some(0)),
            (&[0b0100_0000], Some(1)),
            (&[0b0110_0000], Some(2)),
            (&[0b0010_0000], Some(3)),
            (&[0b0000_0001, 0xff, 0xff], Some(254)),
            (&[0, 1, 0, 0, 0], Some(32_767)),
            (&[0, 0, 1], None),
            (&[], None),
        ] {
            assert_eq!(exp_golomb(data), number, "{data:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_payload_panics(payloads in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            for format in [Format::H264, Format::H265] {
                let mut sets = ParameterSets::default();
                for (timestamp, payload) in (0..).zip(&payloads) {
                    if sets.look(format, timestamp, payload) {
                        prop_assert!(sets.payload(format).len() <= MAX_PAYLOAD);
                    }
                }
            }
        }
    }
}
