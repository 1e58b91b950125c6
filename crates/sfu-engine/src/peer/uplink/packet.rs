// SPDX-License-Identifier: MPL-2.0

//! The header of an RTP packet that comes in, with its extensions (RFC 3550, section 5; RFC 8285). Read once per packet.

use super::agreed::Media;

const FIXED: usize = 12;
/// The first octet: whether there is padding, an extension, and how many contributing sources.
const PADDED: u8 = 0x20;
const EXTENDED: u8 = 0x10;
const CONTRIBUTORS: u8 = 0x0f;
const MARKER: u8 = 0x80;

/// Extensions with headers of one octet, and of two, of which four bits are the application's (RFC 8285, section 4.3).
const ONE_OCTET: u16 = 0xbede;
const TWO_OCTETS: u16 = 0x1000;
const TWO_OCTETS_MASK: u16 = 0xfff0;
/// With headers of one octet: nothing more is to be read (section 4.2).
const END: u8 = 15;

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) pt: u8,
    pub(super) marker: bool,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
    /// Octets of it, with contributing sources and extensions.
    pub(super) len: usize,
    padded: bool,
    /// Where the extension begins, with its word of profile and length.
    extension: Option<usize>,
}

impl Header {
    /// `None`: it ends before it is complete, or is of another version.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let fixed = data.first_chunk::<FIXED>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let word = |at: usize| {
            u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let mut len = FIXED + 4 * usize::from(fixed[0] & CONTRIBUTORS);
        let mut extension = None;
        if fixed[0] & EXTENDED != 0 {
            let &[_, _, high, low] = data.get(len..)?.first_chunk()?;
            extension = Some(len);
            len += 4 + 4 * usize::from(u16::from_be_bytes([high, low]));
        }
        (len <= data.len()).then_some(Self {
            pt: fixed[1] & !MARKER,
            marker: fixed[1] & MARKER != 0,
            timestamp: word(4),
            ssrc: word(8),
            len,
            padded: fixed[0] & PADDED != 0,
            extension,
        })
    }

    /// What of a payload that was opened is media. `None`: its padding is longer than it.
    pub(super) fn unpadded<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        if !self.padded {
            return Some(payload);
        }
        let padding = usize::from(*payload.last()?);
        if padding == 0 {
            return None;
        }
        payload.get(..payload.len().checked_sub(padding)?)
    }

    /// The extensions of the packet that this is the header of. Other profiles than those of RFC 8285 have none.
    pub(super) fn extensions<'a>(&self, data: &'a [u8], numbers: &Numbers) -> Extensions<'a> {
        let mut found = Extensions::default();
        let Some((profile, elements)) = self.extension.and_then(|at| {
            let ([high, low, _, _], elements) = data.get(at..self.len)?.split_first_chunk()?;
            Some((u16::from_be_bytes([*high, *low]), elements))
        }) else {
            return found;
        };
        let mut rest = elements;
        while let Some((id, value, behind)) = next(profile, rest) {
            found.take(numbers.of(id), value);
            rest = behind;
        }
        found
    }
}

/// The next element of an extension: its number, value, and what comes after it. Padding has the number 0.
fn next(profile: u16, elements: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = elements.split_first()?;
    if first == 0 {
        return Some((0, &[], rest));
    }
    let (id, len, rest) = if profile == ONE_OCTET {
        (first >> 4, usize::from(first & 0x0f) + 1, rest)
    } else if profile & TWO_OCTETS_MASK == TWO_OCTETS {
        let (&len, rest) = rest.split_first()?;
        (first, usize::from(len), rest)
    } else {
        return None;
    };
    if profile == ONE_OCTET && id == END {
        return None;
    }
    let (value, rest) = rest.split_at_checked(len)?;
    Some((id, value, rest))
}

/// What an extension is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mid,
    Rid,
    RepairedRid,
    Twcc,
    AudioLevel,
    Dependency,
}

/// Which extension has which number, in all m-lines: in one connection a number has one meaning (RFC 9143, section 9.1).
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<(u8, Kind)>);

impl Numbers {
    pub(super) fn new(medias: &[Media]) -> Self {
        let mut numbers: Vec<(u8, Kind)> = Vec::new();
        for media in medias {
            let agreed = media.extensions;
            for (id, kind) in [
                (agreed.mid, Kind::Mid),
                (agreed.rid, Kind::Rid),
                (agreed.repaired_rid, Kind::RepairedRid),
                (agreed.twcc, Kind::Twcc),
                (agreed.audio_level, Kind::AudioLevel),
                (agreed.dependency, Kind::Dependency),
            ] {
                if let Some(id) = id.filter(|id| numbers.iter().all(|(known, _)| known != id)) {
                    numbers.push((id, kind));
                }
            }
        }
        Self(numbers)
    }

    fn of(&self, id: u8) -> Option<Kind> {
        self.0
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, kind)| *kind)
    }
}

/// What the extensions of a packet say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extensions<'a> {
    pub(super) mid: Option<&'a [u8]>,
    pub(super) rid: Option<&'a [u8]>,
    pub(super) repaired_rid: Option<&'a [u8]>,
    pub(super) twcc: Option<u16>,
    /// How far below the loudest, in dB (RFC 6464).
    pub(super) audio_level: Option<u8>,
    /// See [`dependency`](crate::codec::dependency).
    pub(super) dependency: Option<&'a [u8]>,
}

impl<'a> Extensions<'a> {
    fn take(&mut self, kind: Option<Kind>, value: &'a [u8]) {
        match (kind, value) {
            (Some(Kind::Mid), [_, ..]) => self.mid = Some(value),
            (Some(Kind::Rid), [_, ..]) => self.rid = Some(value),
            (Some(Kind::RepairedRid), [_, ..]) => self.repaired_rid = Some(value),
            (Some(Kind::Twcc), [high, low, ..]) => {
                self.twcc = Some(u16::from_be_bytes([*high, *low]));
            }
            (Some(Kind::AudioLevel), [level, ..]) => self.audio_level = Some(level & 0x7f),
            (Some(Kind::Dependency), _) => self.dependency = Some(value),
            _ => {}
        }
    }

    /// Whether it says whose packet it is.
    pub(super) fn names(&self) -> bool {
        self.mid.is_some() || self.rid.is_some() || self.repaired_rid.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NUMBERS: [(u8, Kind); 5] = [
        (1, Kind::AudioLevel),
        (3, Kind::Twcc),
        (4, Kind::Mid),
        (10, Kind::Rid),
        (200, Kind::RepairedRid),
    ];

    /// A packet with so many contributing sources, an extension and a payload.
    fn packet(contributors: u8, extension: Option<(u16, &[u8])>, payload: &[u8]) -> Vec<u8> {
        let extended = if extension.is_some() { EXTENDED } else { 0 };
        let mut data = vec![
            0x80 | extended | contributors,
            0xe1,
            0,
            1,
            0,
            0,
            0,
            2,
            0,
            0,
            0,
            3,
        ];
        data.resize(data.len() + 4 * usize::from(contributors), 7);
        if let Some((profile, elements)) = extension {
            let words = elements.len().div_ceil(4);
            data.extend(profile.to_be_bytes());
            data.extend((words as u16).to_be_bytes());
            data.extend(elements);
            data.resize(data.len() + 4 * words - elements.len(), 0);
        }
        data.extend(payload);
        data
    }

    #[test]
    fn headers_of_every_form_are_read() {
        let numbers = Numbers(NUMBERS.to_vec());
        let level_and_twcc = Extensions {
            twcc: Some(0x0102),
            audio_level: Some(5),
            ..Extensions::default()
        };
        let named = Extensions {
            mid: Some(b"v"),
            repaired_rid: Some(b"a-layer-of-22-letters!"),
            ..Extensions::default()
        };
        let long = [
            &[4, 1, b'v', 0, 0, 200, 22][..],
            b"a-layer-of-22-letters!",
            &[9, 0],
        ]
        .concat();
        for (what, extension, expected) in [
            ("none", None, Extensions::default()),
            (
                "one octet",
                Some((0xbede, &[0x10, 0x85, 0, 0x31, 1, 2][..])),
                level_and_twcc,
            ),
            ("two octets", Some((0x1000, &long)), named),
            (
                "two octets, the application's bits",
                Some((0x100f, &long)),
                named,
            ),
            (
                "an end",
                Some((0xbede, &[0xf0, 0x10, 0x85])),
                Extensions::default(),
            ),
            (
                "another profile",
                Some((0x1234, &[0x10, 0x85])),
                Extensions::default(),
            ),
            (
                "cut off",
                Some((0xbede, &[0, 0, 0, 0x4f])),
                Extensions::default(),
            ),
            ("empty", Some((0xbede, &[])), Extensions::default()),
            (
                "no value",
                Some((0x1000, &[4, 0, 3, 1, 9, 10, 0])),
                Extensions::default(),
            ),
        ] {
            for contributors in [0, 3, 15] {
                let data = packet(contributors, extension, b"payload");
                let header = Header::read(&data).unwrap();
                assert_eq!(&data[header.len..], b"payload", "{what}");
                assert_eq!(
                    (header.pt, header.marker, header.timestamp, header.ssrc),
                    (0x61, true, 2, 3)
                );
                assert_eq!(header.extensions(&data, &numbers), expected, "{what}");
            }
        }
    }

    #[test]
    fn padding_is_taken_off_and_no_more() {
        let mut header = Header::read(&packet(0, None, &[])).unwrap();
        assert_eq!(header.unpadded(b"ab\x01"), Some(&b"ab\x01"[..]));
        header.padded = true;
        for (payload, expected) in [
            (&b"ab\x01"[..], Some(&b"ab"[..])),
            (&[0, 0, 3], Some(&[])),
            (&[0, 0, 4], None),
            (&[0, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(header.unpadded(payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn fuzz_packets() {
        let samples = [
            packet(0, None, b"payload"),
            packet(3, Some((0xbede, &[0x10, 0x85, 0, 0x31, 1, 2])), b"payload"),
            packet(
                0,
                Some((0x1000, &[4, 1, b'v', 0, 0, 200, 2, b'a', b'b'])),
                b"ab\x01",
            ),
        ];
        let numbers = Numbers(NUMBERS.to_vec());
        sfu_fuzz::fuzz("packets", &samples, |data| {
            let Some(header) = Header::read(data) else {
                return;
            };
            let payload = &data[header.len..];
            let media = header.unpadded(payload);
            assert!(media.is_none_or(|media| media.len() <= payload.len()));
            let found = header.extensions(data, &numbers);
            assert!(found.audio_level.is_none_or(|level| level < 128));
        });
    }

    proptest! {
        #[test]
        fn no_datagram_panics(mut data: Vec<u8>, first in 0x80..=0xbfu8, profile in prop_oneof![Just(0xbedeu16), 0x1000..=0x100fu16, any::<u16>()]) {
            if let Some(octet) = data.first_mut() {
                *octet = first;
            }
            let at = 12 + 4 * usize::from(first & CONTRIBUTORS);
            if let Some(place) = data.get_mut(at..at + 2) {
                place.copy_from_slice(&profile.to_be_bytes());
            }
            if let Some(header) = Header::read(&data) {
                header.extensions(&data, &Numbers(NUMBERS.to_vec()));
                let _ = header.unpadded(&data[header.len..]);
            }
        }
    }
}
