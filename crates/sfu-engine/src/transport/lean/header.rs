// SPDX-License-Identifier: MPL-2.0

//! The header of an RTP packet with extensions of one octet (RFC 3550, RFC 8285). Written once per packet and viewer.

const EXTENDED: u8 = 0x10;
const PADDED: u8 = 0x20;
/// Extensions with headers of one octet.
const PROFILE: [u8; 2] = [0xbe, 0xde];

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
pub(super) type Value<'a> = (u8, &'a [u8]);

/// Octets that extensions add to a header.
pub(super) fn extensions_len(extensions: &[Option<Value<'_>>]) -> usize {
    match octets(extensions) {
        0 => 0,
        length => 4 + length.next_multiple_of(4),
    }
}

fn octets(extensions: &[Option<Value<'_>>]) -> usize {
    extensions.iter().flatten().map(|(_, v)| 1 + v.len()).sum()
}

impl Header {
    /// Appends the header with the extensions that there are, and returns its length.
    pub(super) fn write(self, buffer: &mut Vec<u8>, extensions: &[Option<Value<'_>>]) -> usize {
        let start = buffer.len();
        let length = octets(extensions);
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
            buffer.extend_from_slice(&PROFILE);
            buffer.extend_from_slice(&(words as u16).to_be_bytes());
            for (id, value) in extensions.iter().flatten() {
                buffer.push(id << 4 | (value.len() as u8 - 1));
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

    #[test]
    fn a_plain_header_has_twelve_octets() {
        let mut buffer = vec![0xff];
        assert_eq!(HEADER.write(&mut buffer, &[None, None]), 12);
        assert_eq!(buffer[1..], [0x80, 0xe1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn extensions_are_padded_to_whole_words() {
        let mut buffer = Vec::new();
        let extensions = [Some((4, &b"v0"[..])), None, Some((3, &[1, 2][..]))];
        assert_eq!(HEADER.write(&mut buffer, &extensions), 24);
        assert_eq!(extensions_len(&extensions), 12);
        let expected = [0xbe, 0xde, 0, 2, 0x41, b'v', b'0', 0x31, 1, 2, 0, 0];
        assert_eq!(buffer[0], 0x90);
        assert_eq!(buffer[12..], expected);
    }

    #[test]
    fn the_longest_value_has_sixteen_octets() {
        let mut buffer = Vec::new();
        let extensions = [
            Some((3, &[1, 2][..])),
            Some((6, &[0, 0, 0][..])),
            Some((5, &[7; 16][..])),
        ];
        assert_eq!(HEADER.write(&mut buffer, &extensions), 12 + 4 + 24);
        assert_eq!(buffer[12..16], [0xbe, 0xde, 0, 6]);
        assert_eq!(buffer[16..24], [0x31, 1, 2, 0x62, 0, 0, 0, 0x5f]);
        assert_eq!(buffer[24..], [7; 16]);
    }
}
