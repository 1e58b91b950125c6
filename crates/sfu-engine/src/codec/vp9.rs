// SPDX-License-Identifier: MPL-2.0

//! Reads the VP9 payload descriptor (RFC 9628, section 4.2). Called by [`super::inspect`].

use super::PayloadInfo;

const PICTURE_ID: u8 = 0x80;
const INTER: u8 = 0x40;
const LAYERS: u8 = 0x20;
const FLEXIBLE: u8 = 0x10;
const BEGINS: u8 = 0x08;
const STRUCTURE: u8 = 0x02;

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    parse(payload).unwrap_or_default()
}

fn parse(payload: &[u8]) -> Option<PayloadInfo> {
    let mut rest = payload.iter().copied();
    let flags = rest.next()?;
    if flags & PICTURE_ID != 0 && rest.next()? & 0x80 != 0 {
        rest.next()?;
    }
    let mut spatial = 0;
    if flags & LAYERS != 0 {
        spatial = (rest.next()? >> 1) & 0x07;
        if flags & FLEXIBLE == 0 {
            rest.next()?;
        }
    }
    let keyframe_start = flags & INTER == 0 && flags & BEGINS != 0 && spatial == 0;
    let size = (keyframe_start && flags & STRUCTURE != 0)
        .then(|| largest_size(&mut rest))
        .flatten();
    Some(PayloadInfo {
        keyframe_start,
        size,
        ..PayloadInfo::default()
    })
}

/// The size of the highest spatial layer in the scalability structure.
fn largest_size(rest: &mut impl Iterator<Item = u8>) -> Option<(u32, u32)> {
    let structure = rest.next()?;
    if structure & 0x10 == 0 {
        return None;
    }
    let mut size = None;
    for _ in 0..=(structure >> 5) {
        let mut side = || Some(u32::from(u16::from_be_bytes([rest.next()?, rest.next()?])));
        size = Some((side()?, side()?));
    }
    size
}

#[cfg(test)]
mod tests {
    use super::inspect;

    #[test]
    fn keyframes_and_sizes_are_read() {
        for (what, payload, key, size) in [
            ("key", &[0x88, 0x05, 0x00][..], true, None),
            ("key, 15-bit id", &[0x88, 0x85, 0x01, 0x00], true, None),
            ("inter", &[0xc8, 0x05, 0x00], false, None),
            ("second packet", &[0x80, 0x05, 0x00], false, None),
            (
                "key, upper spatial layer",
                &[0xa8, 0x05, 0x02, 0x00],
                false,
                None,
            ),
            (
                "key with two sizes",
                &[
                    0xaa, 0x05, 0x00, 0x00, 0x30, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68,
                ],
                true,
                Some((640, 360)),
            ),
            ("cut short", &[0xaa, 0x05], false, None),
        ] {
            let info = inspect(payload);
            assert_eq!(info.keyframe_start, key, "{what}");
            assert_eq!(info.size, size, "{what}");
        }
    }
}
