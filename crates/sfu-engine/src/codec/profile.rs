// SPDX-License-Identifier: MPL-2.0

//! The H.264 profiles that payload types stand for, and the one that a stream has (RFC 6184, sections 8.1 and 8.2.2).

use super::h264;

/// What an H.264 decoder must be able to do (RFC 6184, table 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
}

impl H264Profile {
    /// Of `profile-level-id`, six hexadecimal digits. Extended beyond baseline, more than 8 bits and other than 4:2:0 are none.
    pub(crate) fn parse(id: &str) -> Option<Self> {
        if id.len() != 6 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let id = u32::from_str_radix(id, 16).ok()?;
        Self::of((id >> 16) as u8, (id >> 8) as u8)
    }

    /// Of `profile_idc` and the octet of constraints behind it.
    pub(crate) fn of(idc: u8, constraints: u8) -> Option<Self> {
        let has = |bit: u8| constraints & bit != 0;
        match idc {
            0x42 if has(0x40) => Some(Self::ConstrainedBaseline),
            0x42 => Some(Self::Baseline),
            0x4d if has(0x80) => Some(Self::ConstrainedBaseline),
            0x4d => Some(Self::Main),
            0x58 if has(0x80) && has(0x40) => Some(Self::ConstrainedBaseline),
            0x58 if has(0x80) => Some(Self::Baseline),
            0x64 if constraints & 0x0c == 0x0c => Some(Self::ConstrainedHigh),
            0x64 => Some(Self::High),
            _ => None,
        }
    }

    /// Of what comes from here on: the packet has a sequence parameter set.
    pub(crate) fn told(payload: &[u8]) -> Option<Self> {
        let [idc, constraints, _] = h264::sequence(payload)?;
        Self::of(idc, constraints)
    }

    /// How well something of this profile goes to who takes `taken`, the least the best.
    pub(crate) fn distance(self, taken: Self) -> u8 {
        use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main};
        match (self, taken) {
            _ if self == taken => 0,
            // Its decoder takes it, the least able first.
            (ConstrainedBaseline, Baseline) | (ConstrainedHigh | Main, High) => 1,
            (ConstrainedBaseline, Main) => 2,
            (ConstrainedBaseline, ConstrainedHigh) => 3,
            (ConstrainedBaseline, High) => 4,
            // Encoders that say baseline use nothing of what others lack (no slice groups, no redundant slices).
            (Baseline, ConstrainedBaseline) => 5,
            (Baseline, Main | ConstrainedHigh | High) => 6,
            // Progressive pictures are all that there are.
            (Main, ConstrainedHigh) => 7,
            _ => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_goes_to_who_takes_its_profile() {
        use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main};
        let best = |sent: H264Profile, taken: &[H264Profile]| {
            let mut taken = taken.to_vec();
            taken.sort_by_key(|t| sent.distance(*t));
            taken[0]
        };
        for (sent, taken, expected) in [
            (High, &[Baseline, ConstrainedBaseline, Main, High][..], High),
            (
                ConstrainedBaseline,
                &[Baseline, ConstrainedBaseline, High],
                ConstrainedBaseline,
            ),
            (ConstrainedBaseline, &[High, Main, Baseline], Baseline),
            (ConstrainedBaseline, &[High, Main], Main),
            (Main, &[ConstrainedBaseline, High], High),
            (ConstrainedHigh, &[ConstrainedBaseline, Main, High], High),
            (Baseline, &[High, ConstrainedBaseline], ConstrainedBaseline),
            // Nothing fits: the first that was offered.
            (High, &[Main, ConstrainedBaseline], Main),
        ] {
            assert_eq!(best(sent, taken), expected, "{sent:?} to {taken:?}");
        }
    }

    #[test]
    fn the_profile_is_that_of_the_sequence_parameter_set() {
        let sps = [0x67, 0x64, 0x0c, 0x1f, 0xac];
        let mut aggregate = vec![0x78, 0, 2, 0x09, 0xf0, 0, 5];
        aggregate.extend(sps);
        for (payload, expected) in [
            (&sps[..], Some(H264Profile::ConstrainedHigh)),
            (&aggregate, Some(H264Profile::ConstrainedHigh)),
            (
                &[0x67, 0x42, 0xe0, 0x1f],
                Some(H264Profile::ConstrainedBaseline),
            ),
            // None that is known, none that is whole, and none at all.
            (&[0x67, 0xf4, 0, 0x1f], None),
            (&[0x67, 0x42], None),
            (&aggregate[..8], None),
            (&[0x65, 0x64, 0, 0x1f], None),
            (&[0x78, 0xff, 0xff, 0x67], None),
            (&[0x78], None),
            (&[], None),
        ] {
            assert_eq!(H264Profile::told(payload), expected, "{payload:02x?}");
        }
    }
}
