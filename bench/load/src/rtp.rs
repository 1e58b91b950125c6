// SPDX-License-Identifier: MPL-2.0

//! RTP headers (RFC 3550, RFC 8285), which SRTP leaves in the clear. Used for every packet that comes.

/// What is needed of a packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub payload_type: u8,
    pub marker: bool,
    pub seq: u16,
    pub timestamp: u32,
    pub ssrc: u32,
    /// The packet ends with padding.
    pub padded: bool,
    /// Where the payload begins.
    pub len: usize,
    /// The transport-wide sequence number.
    pub twcc: Option<u16>,
}

impl Header {
    /// Reads a header. `twcc` is the number of the extension with the transport-wide sequence number.
    pub fn parse(data: &[u8], twcc: Option<u8>) -> Option<Self> {
        let fixed = data.first_chunk::<12>()?;
        if fixed[0] >> 6 != 2 {
            return None;
        }
        let mut len = 12 + 4 * usize::from(fixed[0] & 0x0f);
        let mut found = None;
        if fixed[0] & 0x10 != 0 {
            let head = data.get(len..len + 4)?;
            let words = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let body = data.get(len + 4..len + 4 + 4 * words)?;
            let profile = u16::from_be_bytes([head[0], head[1]]);
            if let (Some(id), 0xbede) = (twcc, profile) {
                found = one_byte_extension(body, id);
            }
            len += 4 + 4 * words;
        }
        if len > data.len() {
            return None;
        }
        Some(Self {
            payload_type: fixed[1] & 0x7f,
            marker: fixed[1] & 0x80 != 0,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            padded: fixed[0] & 0x20 != 0,
            len,
            twcc: found,
        })
    }
}

fn one_byte_extension(mut body: &[u8], id: u8) -> Option<u16> {
    while let [head, rest @ ..] = body {
        if *head == 0 {
            body = rest;
            continue;
        }
        let size = usize::from(head & 0x0f) + 1;
        let value = rest.get(..size)?;
        if head >> 4 == id {
            return Some(u16::from_be_bytes([*value.first()?, *value.get(1)?]));
        }
        body = &rest[size..];
    }
    None
}

/// The payload of a decrypted packet, without its padding.
pub fn payload<'a>(header: &Header, packet: &'a [u8]) -> &'a [u8] {
    let payload = packet.get(header.len..).unwrap_or_default();
    let padding = match payload.last() {
        Some(&count) if header.padded => usize::from(count),
        _ => 0,
    };
    &payload[..payload.len().saturating_sub(padding)]
}

/// Whether a datagram on a multiplexed port (RFC 5761) is RTCP rather than RTP.
pub fn is_rtcp(data: &[u8]) -> bool {
    data.get(1).is_some_and(|b| (192..=223).contains(b))
}

/// Writes a header without extensions.
pub fn write(
    payload_type: u8,
    marker: bool,
    seq: u16,
    timestamp: u32,
    ssrc: u32,
    out: &mut Vec<u8>,
) {
    out.extend([0x80, payload_type | u8::from(marker) << 7]);
    out.extend(seq.to_be_bytes());
    out.extend(timestamp.to_be_bytes());
    out.extend(ssrc.to_be_bytes());
}

/// The number nearest to `near` whose low 16 bits are `seq`.
pub fn extend(seq: u16, near: u64) -> u64 {
    let difference = seq.wrapping_sub(near as u16) as i16;
    near.wrapping_add_signed(difference.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_with_their_extensions() {
        let mut packet = Vec::new();
        write(102, true, 7, 90_000, 0x1234, &mut packet);
        packet[0] |= 0x10;
        // A mid of one octet, then a transport-wide sequence number, then padding.
        packet.extend([
            0xbe, 0xde, 0, 2, 0x40, b'0', 0x31, 0xab, 0xcd, 0, 0, 0, 1, 2, 3,
        ]);
        let header = Header::parse(&packet, Some(3)).unwrap();
        assert_eq!(
            (header.payload_type, header.marker, header.seq),
            (102, true, 7)
        );
        assert_eq!((header.twcc, header.len), (Some(0xabcd), 24));
        assert_eq!(payload(&header, &packet), [1, 2, 3]);
        assert_eq!(Header::parse(&packet, Some(5)).unwrap().twcc, None);
        for len in 0..24 {
            assert_eq!(Header::parse(&packet[..len], Some(3)), None, "{len}");
        }
    }

    #[test]
    fn sequence_numbers_are_extended_over_their_end() {
        assert_eq!(extend(2, 65_535), 65_538);
        assert_eq!(extend(65_535, 65_538), 65_535);
        assert_eq!(extend(10, 65_536 + 8), 65_536 + 10);
    }
}
