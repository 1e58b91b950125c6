// SPDX-License-Identifier: MPL-2.0

//! The header of an RTP packet with its extensions (RFC 3550, RFC 8285). Written once per packet and viewer.

const EXTENDED: u8 = 0x10;
const PADDED: u8 = 0x20;
/// Extensions with headers of one octet, and of two, which hold longer ones and higher numbers.
const ONE_OCTET: [u8; 2] = [0xbe, 0xde];
const TWO_OCTETS: [u8; 2] = [0x10, 0x00];
/// The most that a header of one octet tells.
const SHORT_ID: u8 = 14;
const SHORT: usize = 16;

/// The fixed part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) pt: u8,
    pub(super) marker: bool,
    pub(super) padded: bool,
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
}

/// An extension's number and value.
type Value<'a> = (u8, &'a [u8]);

/// The extensions of a packet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Block<'a> {
    /// Those whose numbers are 14 at most, with no more than 16 octets.
    pub(super) short: [Option<Value<'a>>; 4],
    /// One that may have more, where both forms may be mixed (`a=extmap-allow-mixed`).
    pub(super) long: Option<Value<'a>>,
}

impl<'a> Block<'a> {
    /// Octets that it adds to a header.
    pub(super) fn len(&self) -> usize {
        match self.octets() {
            0 => 0,
            length => 4 + length.next_multiple_of(4),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        self.short.iter().flatten().copied().chain(self.long)
    }

    fn octets(&self) -> usize {
        let head = if self.is_long() { 2 } else { 1 };
        self.iter().map(|(_, value)| head + value.len()).sum()
    }

    /// Whether its elements have headers of two octets.
    fn is_long(&self) -> bool {
        let is_long = |(id, value): (u8, &[u8])| id > SHORT_ID || value.len() > SHORT;
        self.long.is_some_and(is_long)
    }
}

impl Header {
    /// Appends the header with the extensions that there are, and returns its length.
    pub(super) fn write(self, buffer: &mut Vec<u8>, extensions: &Block<'_>) -> usize {
        let start = buffer.len();
        let length = extensions.octets();
        let mut first = 0x80;
        if length > 0 {
            first |= EXTENDED;
        }
        if self.padded {
            first |= PADDED;
        }
        buffer.extend_from_slice(&[first, u8::from(self.marker) << 7 | self.pt]);
        buffer.extend_from_slice(&self.seq.to_be_bytes());
        buffer.extend_from_slice(&self.timestamp.to_be_bytes());
        buffer.extend_from_slice(&self.ssrc.to_be_bytes());
        if length > 0 {
            let words = length.div_ceil(4);
            let is_long = extensions.is_long();
            buffer.extend_from_slice(if is_long { &TWO_OCTETS } else { &ONE_OCTET });
            buffer.extend_from_slice(&(words as u16).to_be_bytes());
            for (id, value) in extensions.iter() {
                match is_long {
                    true => buffer.extend_from_slice(&[id, value.len() as u8]),
                    false => buffer.push(id << 4 | (value.len() as u8 - 1)),
                }
                buffer.extend_from_slice(value);
            }
            buffer.resize(start + 16 + words * 4, 0);
        }
        buffer.len() - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header {
        pt: 97,
        marker: true,
        padded: false,
        seq: 0x0102,
        timestamp: 0x0304_0506,
        ssrc: 0x0708_090a,
    };

    fn short<const N: usize>(values: [Value<'_>; N]) -> Block<'_> {
        let mut block = Block::default();
        for (place, value) in block.short.iter_mut().zip(values) {
            *place = Some(value);
        }
        block
    }

    #[test]
    fn a_plain_header_has_twelve_octets() {
        let mut buffer = vec![0xff];
        assert_eq!(HEADER.write(&mut buffer, &Block::default()), 12);
        assert_eq!(buffer[1..], [0x80, 0xe1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn extensions_are_padded_to_whole_words() {
        let mut buffer = Vec::new();
        let extensions = short([(4, &b"v0"[..]), (3, &[1, 2][..])]);
        assert_eq!(HEADER.write(&mut buffer, &extensions), 24);
        assert_eq!(extensions.len(), 12);
        let expected = [0xbe, 0xde, 0, 2, 0x41, b'v', b'0', 0x31, 1, 2, 0, 0];
        assert_eq!(buffer[0], 0x90);
        assert_eq!(buffer[12..], expected);
    }

    #[test]
    fn the_longest_value_has_sixteen_octets() {
        let mut buffer = Vec::new();
        let extensions = short([(3, &[1, 2][..]), (6, &[0, 0, 0]), (5, &[7; 16])]);
        assert_eq!(HEADER.write(&mut buffer, &extensions), 12 + 4 + 24);
        assert_eq!(buffer[12..16], [0xbe, 0xde, 0, 6]);
        assert_eq!(buffer[16..24], [0x31, 1, 2, 0x62, 0, 0, 0, 0x5f]);
        assert_eq!(buffer[24..], [7; 16]);
    }

    #[test]
    fn what_a_header_of_one_octet_cannot_tell_has_one_of_two() {
        let value = [7; 255];
        for (id, length, expected) in [
            (14, 3, &[0xbe, 0xde, 0, 2, 0x31, 1, 2, 0xe2, 7, 7, 7, 0][..]),
            (14, 16, &[0xbe, 0xde, 0, 5, 0x31, 1, 2, 0xef]),
            (15, 3, &[0x10, 0, 0, 3, 3, 2, 1, 2, 15, 3, 7, 7, 7, 0, 0, 0]),
            (14, 17, &[0x10, 0, 0, 6, 3, 2, 1, 2, 14, 17]),
            (254, 255, &[0x10, 0, 0, 66, 3, 2, 1, 2, 254, 255]),
        ] {
            let extensions = Block {
                long: Some((id, &value[..length])),
                ..short([(3, &[1, 2][..])])
            };
            let mut buffer = Vec::new();
            let header = HEADER.write(&mut buffer, &extensions);
            assert_eq!(header, 12 + extensions.len(), "{id} {length}");
            assert_eq!(header, buffer.len());
            let words = usize::from(u16::from_be_bytes([buffer[14], buffer[15]]));
            assert_eq!(header, 16 + 4 * words);
            assert_eq!(buffer[12..12 + expected.len()], *expected, "{id} {length}");
        }
    }
}
