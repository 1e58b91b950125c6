// SPDX-License-Identifier: MPL-2.0

//! Whose check a STUN request is: the first half of its USERNAME (RFC 8445, section 7.2.2), read before anything else is.
//!
//! Anybody may send such requests. So no more is read than is needed to find the session, nothing is allocated, and what
//! only costs time (hundreds of attributes) is refused here.

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 6;
/// Attributes of a message; a browser's check has seven to ten.
const ATTRIBUTES: usize = 24;
/// Octets of a name: what RFC 8839 (section 5.4) allows of both halves.
const LONGEST: usize = 513;

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stun<'a> {
    /// No STUN request or indication.
    Other,
    /// For the session with this user fragment, so it says.
    For(&'a str),
    /// An answer to a check of the session with this tag: the transaction's first four octets.
    Answer(u32),
    /// One that names nobody.
    Nameless,
    /// It cannot be meant well.
    Broken,
}

pub(super) fn read(data: &[u8]) -> Stun<'_> {
    if data.first().is_none_or(|first| *first > 3) {
        return Stun::Other;
    }
    attributes(data).unwrap_or(Stun::Broken)
}

/// Goes over all of them: whoever reads it afterwards finds no more than these.
fn attributes(data: &[u8]) -> Option<Stun<'_>> {
    let (header, mut rest) = data.split_at_checked(HEADER)?;
    let length = u16::from_be_bytes([header[2], header[3]]);
    if header[4..8] != COOKIE || usize::from(length) != rest.len() {
        return None;
    }
    let is_answer = header[0] & 1 == 1;
    let mut found = match is_answer {
        true => Stun::Answer(u32::from_be_bytes([
            header[8], header[9], header[10], header[11],
        ])),
        false => Stun::Nameless,
    };
    for _ in 0..ATTRIBUTES {
        let Some((&[high, low, len_high, len_low], value)) = rest.split_first_chunk() else {
            return rest.is_empty().then_some(found);
        };
        let len = usize::from(u16::from_be_bytes([len_high, len_low]));
        if u16::from_be_bytes([high, low]) == USERNAME && !is_answer {
            let name = value.get(..len).filter(|name| name.len() <= LONGEST)?;
            let (ours, _) = std::str::from_utf8(name).ok()?.split_once(':')?;
            found = Stun::For(ours);
        }
        rest = value.get(len.next_multiple_of(4)..)?;
    }
    rest.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use str0m::ice::{StunMessage, TransId};

    use super::*;

    fn check(name: &str) -> Vec<u8> {
        let message = StunMessage::binding_request(name, TransId::new(), true, 1, 7, true);
        let mut data = vec![0; 1_000];
        let len = message
            .to_bytes(Some(b"secret"), &mut data, |_, _| [7; 20])
            .expect("written");
        data.truncate(len);
        data
    }

    fn message(attributes: &[u8]) -> Vec<u8> {
        let mut data = vec![0, 1];
        data.extend((attributes.len() as u16).to_be_bytes());
        data.extend(COOKIE);
        data.extend([9; 12]);
        data.extend(attributes);
        data
    }

    #[test]
    fn what_is_no_check_of_a_browser_is_told_apart() {
        let whole = check("ours:theirs");
        assert_eq!(read(&whole), Stun::For("ours"));
        for len in 1..whole.len() {
            assert_eq!(read(&whole[..len]), Stun::Broken, "cut to {len}");
        }
        for (attributes, expected) in [
            (&[][..], Stun::Nameless),
            (&[0, 6, 0, 3, b'a', b':', b'b', 0], Stun::For("a")),
            (&[0, 6, 0, 1, b'a', 0, 0, 0], Stun::Broken),
            (&[0, 6, 0, 3, b'a', b':', 0xff, 0], Stun::Broken),
            (&[0, 6, 0, 9, b'a', b':', b'b', 0], Stun::Broken),
            (&[0, 6, 0xff, 0xff], Stun::Broken),
            (&[0, 6], Stun::Broken),
            (&[0; 4 * ATTRIBUTES], Stun::Nameless),
            (&[0; 4 * ATTRIBUTES + 4], Stun::Broken),
        ] {
            assert_eq!(read(&message(attributes)), expected, "{attributes:?}");
        }
        for answer in [[1, 1], [1, 0x11]] {
            let mut data = message(&[0, 6, 0, 3, b'a', b':', b'b', 0]);
            data[..2].copy_from_slice(&answer);
            assert_eq!(read(&data), Stun::Answer(0x0909_0909));
        }
        assert_eq!(read(&[]), Stun::Other);
        assert_eq!(read(&[0x80; 100]), Stun::Other);
    }

    #[test]
    fn fuzz_names_of_checks() {
        let samples = [check("ours:theirs"), check("a:b"), message(&[0; 40])];
        sfu_fuzz::fuzz("names of checks", &samples, |data| {
            if let Stun::For(name) = read(data) {
                assert!(name.len() <= LONGEST && !name.contains(':'));
            }
        });
    }

    proptest! {
        #[test]
        fn names_are_read_as_others_read_them(
            attributes in vec((0..9u16, vec(any::<u8>(), 0..40)), 0..30),
        ) {
            let mut octets = Vec::new();
            for (kind, value) in &attributes {
                octets.extend(kind.to_be_bytes());
                octets.extend((value.len() as u16).to_be_bytes());
                octets.extend(value);
                octets.resize(octets.len().next_multiple_of(4), 0);
            }
            // Neither reader may panic, on whole messages and on any other.
            let _ = read(&octets);
            let data = message(&octets);
            if let Stun::For(name) = read(&data) {
                let mut names = attributes.iter().filter(|(kind, _)| *kind == USERNAME);
                let is_one = names.any(|(_, value)| value.starts_with(name.as_bytes()));
                prop_assert!(is_one);
                prop_assert!(attributes.len() <= ATTRIBUTES);
            }
        }
    }
}
