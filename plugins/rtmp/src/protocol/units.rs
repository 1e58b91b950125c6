// SPDX-License-Identifier: MPL-2.0
//! What the NAL units of a message are to its picture (H.264 7.3.1 and 7.3.3, H.265 7.3.1.2 and 7.3.6.1), for `flv.rs`, which
//! shows them, and `pictures.rs`, which joins pictures that come in several messages.

use super::flv::VideoCodec;

/// What a message is to a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has no slice.
    Apart,
    /// It has the first slice.
    Begins,
    /// It has later slices alone.
    Continues,
}

/// What was seen of a message's units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Units {
    codec: VideoCodec,
    /// How many octets a unit's length has.
    size: usize,
    pub(crate) role: Role,
    /// A decoder can begin with it, whatever its message says.
    pub(crate) random_access: bool,
}

fn kind(codec: VideoCodec, unit: &[u8]) -> Option<u8> {
    let first = unit.first()?;
    Some(match codec {
        VideoCodec::H265 => first >> 1 & 0x3f,
        _ => first & 0x1f,
    })
}

/// Whether a unit is a picture's first slice. None where it is no slice.
fn first_slice(codec: VideoCodec, unit: &[u8]) -> Option<bool> {
    match (codec, kind(codec, unit)?) {
        (VideoCodec::H265, 0..=9 | 16..=21) => {
            // first_slice_segment_in_pic_flag
            Some(unit.get(2).is_none_or(|byte| byte & 0x80 != 0))
        }
        (VideoCodec::H265, _) => None,
        (_, 1 | 2 | 5) => Some(!later_macroblock(&unit[1..])),
        // Partitions B and C of a slice whose A came before.
        (_, 3 | 4) => Some(false),
        _ => None,
    }
}

/// Whether first_mb_in_slice, an exp-golomb code, is another than 0. One that can't be is for the decoder to shrug off.
fn later_macroblock(slice: &[u8]) -> bool {
    // No emulation prevention can stand here: two octets of zeros would be more than there are macroblocks.
    let octets = slice.iter().take(4);
    let head = octets.fold(0u32, |head, octet| head << 8 | u32::from(*octet));
    let bits = 8 * u32::try_from(slice.len().min(4)).unwrap_or(0);
    let zeros = head.leading_zeros().saturating_sub(32 - bits);
    (1..=15).contains(&zeros) && 2 * zeros < bits
}

/// Whether a unit stands before the slices of its picture (H.264 7.4.1.2.3, H.265 7.4.2.4.4).
fn leads(codec: VideoCodec, kind: u8) -> bool {
    match codec {
        VideoCodec::H265 => matches!(kind, 32..=35 | 39 | 41..=44 | 48..=55),
        _ => matches!(kind, 6..=9 | 14..=18),
    }
}

/// Whether a unit is of use to the picture after it, too: parameter sets and SEI.
fn is_kept(codec: VideoCodec, kind: u8) -> bool {
    match codec {
        VideoCodec::H265 => matches!(kind, 32..=34 | 39),
        _ => matches!(kind, 6..=8 | 13 | 15),
    }
}

fn is_delimiter(codec: VideoCodec, kind: u8) -> bool {
    kind == if codec == VideoCodec::H265 { 35 } else { 9 }
}

/// The first unit of a message, and what comes behind it.
pub(super) fn sized_unit(message: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (length, after) = message.split_at_checked(size)?;
    let number = |n, byte: &u8| n << 8 | usize::from(*byte);
    after.split_at_checked(length.iter().fold(0usize, number))
}

impl Units {
    /// Of a message whose units have lengths of so many octets.
    pub(super) fn new(codec: VideoCodec, size: usize) -> Self {
        Self {
            codec,
            size,
            role: Role::Apart,
            random_access: false,
        }
    }

    /// Looks at the next one.
    pub(super) fn see(&mut self, unit: &[u8]) {
        if let (Role::Apart, Some(first)) = (self.role, first_slice(self.codec, unit)) {
            self.role = if first { Role::Begins } else { Role::Continues };
        }
        let kind = kind(self.codec, unit);
        self.random_access |= match self.codec {
            // BLA, IDR and CRA.
            VideoCodec::H265 => matches!(kind, Some(16..=21)),
            _ => kind == Some(5),
        };
    }

    /// The units that `wanted` says, with their lengths.
    fn select(self, message: &[u8], wanted: impl Fn(u8) -> bool) -> Vec<u8> {
        let (mut rest, mut selected) = (message, Vec::new());
        while let Some((unit, after)) = sized_unit(rest, self.size) {
            if kind(self.codec, unit).is_some_and(&wanted) {
                selected.extend_from_slice(&rest[..self.size + unit.len()]);
            }
            rest = after;
        }
        selected
    }

    /// What of a message without slices goes in front of the next picture.
    pub(super) fn for_the_next(self, message: &[u8]) -> Vec<u8> {
        self.select(message, |kind| is_kept(self.codec, kind))
    }

    /// What of a message with later slices goes behind those before. Some encoders repeat parameter sets with each slice.
    pub(super) fn for_the_same(self, message: &[u8]) -> Vec<u8> {
        self.select(message, |kind| !leads(self.codec, kind))
    }

    /// Where other units may be put in front of a picture: behind its delimiter, which comes first.
    pub(super) fn front(self, message: &[u8]) -> usize {
        let first = sized_unit(message, self.size).map(|(unit, _)| unit);
        let delimiter = first.filter(|unit| {
            kind(self.codec, unit).is_some_and(|kind| is_delimiter(self.codec, kind))
        });
        delimiter.map_or(0, |unit| self.size + unit.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(codec: VideoCodec, units: &[&[u8]]) -> (Role, bool) {
        let mut seen = Units::new(codec, 4);
        units.iter().for_each(|unit| seen.see(unit));
        (seen.role, seen.random_access)
    }

    #[test]
    fn slices_tell_where_a_picture_begins() {
        use Role::{Apart, Begins, Continues};
        let avc = |units: &[&[u8]]| seen(VideoCodec::H264, units);
        for (units, expected) in [
            (&[][..], (Apart, false)),
            (&[&[][..]], (Apart, false)),
            (
                &[&[9, 0xf0], &[0x67, 1], &[0x68, 1], &[6, 5]],
                (Apart, false),
            ),
            (&[&[0x65, 0x88]], (Begins, true)),
            (&[&[0x41, 0x9a]], (Begins, false)),
            // Macroblock 1, and 3600 (24 bits: 11 zeros, 3601 in 12 bits).
            (&[&[0x65, 0x40]], (Continues, true)),
            (&[&[0x41, 0x00, 0x1c, 0x22]], (Continues, false)),
            (&[&[6, 5], &[0x41, 0x40]], (Continues, false)),
            // The first slice says it.
            (&[&[0x65, 0x88], &[0x65, 0x40]], (Begins, true)),
            (&[&[0x44, 0x40]], (Continues, false)),
            // No number at all: cut short, and too large.
            (&[&[0x65]], (Begins, true)),
            (&[&[0x65, 1]], (Begins, true)),
            (&[&[0x65, 0]], (Begins, true)),
            (&[&[0x65, 0, 0, 1, 1, 1]], (Begins, true)),
        ] {
            assert_eq!(avc(units), expected, "{units:?}");
        }
        let hevc = |units: &[&[u8]]| seen(VideoCodec::H265, units);
        for (units, expected) in [
            (
                &[&[0x40, 1][..], &[0x42, 1], &[0x44, 1], &[0x4e, 1]][..],
                (Apart, false),
            ),
            (&[&[0x26, 1, 0x80]], (Begins, true)),
            (&[&[0x26, 1, 0x40]], (Continues, true)),
            (&[&[0x2a, 1, 0x80]], (Begins, true)),
            (&[&[0x02, 1, 0x80]], (Begins, false)),
            (&[&[0x02, 1, 0x00]], (Continues, false)),
            (&[&[0x02, 1]], (Begins, false)),
        ] {
            assert_eq!(hevc(units), expected, "{units:?}");
        }
    }

    /// Units, each with a length of one octet.
    fn message(units: &[&[u8]]) -> Vec<u8> {
        let sized = |unit: &&[u8]| [&[u8::try_from(unit.len()).unwrap()], *unit].concat();
        units.iter().flat_map(sized).collect()
    }

    #[test]
    fn units_go_to_the_picture_that_they_can_stand_in() {
        let (sei, pps, delimiter, filler) =
            (&[6, 5][..], &[0x68, 1][..], &[9, 0xf0][..], &[12, 1][..]);
        let slice = &[0x41, 0x40, 7][..];
        let all = message(&[delimiter, pps, sei, slice, filler]);
        let units = Units::new(VideoCodec::H264, 1);
        assert_eq!(units.for_the_next(&all), message(&[pps, sei]));
        assert_eq!(units.for_the_same(&all), message(&[slice, filler]));
        assert_eq!(units.front(&all), 1 + delimiter.len());
        assert_eq!(units.front(&message(&[sei, delimiter])), 0);
        assert_eq!(units.front(&[]), 0);
        // A suffix SEI of H.265 can't stand in front.
        let (prefix, suffix) = (&[0x4e, 1, 5][..], &[0x50, 1, 5][..]);
        let units = Units::new(VideoCodec::H265, 1);
        assert_eq!(
            units.for_the_next(&message(&[suffix, prefix])),
            message(&[prefix])
        );
        assert_eq!(
            units.for_the_same(&message(&[suffix, prefix])),
            message(&[suffix])
        );
    }
}
