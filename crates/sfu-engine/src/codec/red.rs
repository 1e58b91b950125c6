// SPDX-License-Identifier: MPL-2.0

//! RED (RFC 2198): sound that carries the last packets again, so that a loss needs no repair.
//!
//! A publisher's blocks are numbered with its own payload type for Opus, a viewer expects its own. Called for sound only.

/// Another header follows.
const MORE: u8 = 0x80;
/// Header of a redundant block: type, timestamp offset, length.
const HEADER: usize = 4;

/// The newest block of a payload: what a viewer without RED gets. `None`: it is not RED, or not of one codec.
pub(crate) fn primary(payload: &[u8], opus: u8) -> Option<&[u8]> {
    let (mut at, mut older) = (0, 0);
    loop {
        let &octet = payload.get(at)?;
        if octet & !MORE != opus {
            return None;
        }
        if octet & MORE == 0 {
            break;
        }
        // After 14 bits of timestamp offset, ten of length.
        let &[high, low] = payload.get(at + 2..)?.first_chunk()?;
        older += usize::from(high & 3) << 8 | usize::from(low);
        at += HEADER;
    }
    let newest = payload.get(at + 1 + older..)?;
    (!newest.is_empty()).then_some(newest)
}

/// Gives each block this type.
pub(crate) fn set_type(payload: &mut [u8], opus: u8) {
    let mut at = 0;
    while let Some(octet) = payload.get_mut(at) {
        let more = *octet & MORE;
        *octet = more | opus;
        if more == 0 {
            break;
        }
        at += HEADER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use str0m::rtp::{RedEncoder, RedundantBlock};

    fn red(pt: u8, older: u8) -> Vec<u8> {
        let block = RedundantBlock {
            pt: older,
            timestamp_offset: 960,
            payload: vec![1; 40],
        };
        RedEncoder::encode(pt, &[2; 50], &[block])
    }

    #[test]
    fn the_newest_block_is_taken_out() {
        assert_eq!(primary(&red(111, 111), 111), Some(&[2; 50][..]));
        assert_eq!(primary(&red(111, 0), 111), None, "another codec among them");
        assert_eq!(primary(&red(111, 111), 96), None, "another type");
        assert_eq!(primary(&[0x80], 111), None, "cut off");
        let whole = red(111, 111);
        for len in 0..=whole.len() - 50 {
            assert_eq!(primary(&whole[..len], 111), None, "cut off at {len}");
        }
    }

    #[test]
    fn blocks_get_the_viewers_type() {
        let mut blocks = red(111, 111);
        set_type(&mut blocks, 109);
        assert_eq!(blocks, red(109, 109));
    }

    proptest! {
        #[test]
        fn no_payload_panics(payload: Vec<u8>, pt in 0u8..128) {
            let _ = primary(&payload, pt);
            set_type(&mut payload.clone(), pt);
        }
    }
}
