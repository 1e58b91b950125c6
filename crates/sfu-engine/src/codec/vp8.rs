// SPDX-License-Identifier: MPL-2.0

//! Reads the VP8 payload descriptor (RFC 7741, section 4.2). Called by [`super::inspect`].

use super::PayloadInfo;

/// The counters of a VP8 payload descriptor that must stay continuous when the layer changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Vp8Header {
    /// PictureID and whether it is written with 15 bits (else 7).
    pub picture_id: Option<(u16, bool)>,
    /// TL0PICIDX, the running index of base temporal layer frames.
    pub tl0_pic_idx: Option<u8>,
}

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    parse(payload).unwrap_or_default()
}

fn parse(payload: &[u8]) -> Option<PayloadInfo> {
    let mut rest = payload.iter().copied();
    let required = rest.next()?;
    let starts_partition = required & 0x10 != 0;
    let partition = required & 0x07;
    let mut header = Vp8Header::default();
    if required & 0x80 != 0 {
        let extension = rest.next()?;
        if extension & 0x80 != 0 {
            let first = rest.next()?;
            header.picture_id = Some(if first & 0x80 != 0 {
                (u16::from_be_bytes([first & 0x7f, rest.next()?]), true)
            } else {
                (u16::from(first), false)
            });
        }
        if extension & 0x40 != 0 {
            header.tl0_pic_idx = Some(rest.next()?);
        }
        if extension & 0x30 != 0 {
            rest.next()?;
        }
    }
    // The first octet of a frame: the inverse key frame flag is its lowest bit (RFC 6386, section 9.1).
    let keyframe_start =
        starts_partition && partition == 0 && rest.next().is_some_and(|first| first & 0x01 == 0);
    Some(PayloadInfo {
        keyframe_start,
        vp8: Some(header),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_read() {
        for (what, payload, key, picture_id, tl0) in [
            ("key, no extension", &[0x10, 0x00][..], true, None, None),
            ("delta, no extension", &[0x10, 0x01], false, None, None),
            (
                "second packet of a key frame",
                &[0x00, 0x00],
                false,
                None,
                None,
            ),
            ("second partition", &[0x11, 0x00], false, None, None),
            (
                "key, 7-bit id",
                &[0x90, 0x80, 0x05, 0x00],
                true,
                Some((5, false)),
                None,
            ),
            (
                "key, 15-bit id",
                &[0x90, 0x80, 0x81, 0x02, 0x00],
                true,
                Some((0x102, true)),
                None,
            ),
            (
                "delta, id, TL0PICIDX, TID",
                &[0x90, 0xe0, 0x81, 0x02, 0x07, 0x20, 0x01],
                false,
                Some((0x102, true)),
                Some(7),
            ),
        ] {
            let info = inspect(payload);
            let header = info.vp8.unwrap_or_default();
            assert_eq!(info.keyframe_start, key, "{what}");
            assert_eq!(header.picture_id, picture_id, "{what}");
            assert_eq!(header.tl0_pic_idx, tl0, "{what}");
        }
        assert_eq!(inspect(&[0x90, 0x80]), PayloadInfo::default(), "cut short");
    }
}
