// SPDX-License-Identifier: MPL-2.0

//! Reads the VP8 payload descriptor (RFC 7741, section 4.2). Called by [`super::inspect`].

use super::{PayloadInfo, TemporalMark};

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
    let mut rest = payload.iter();
    let mut next = || rest.next().copied();
    let required = next()?;
    let starts_partition = required & 0x10 != 0;
    let partition = required & 0x07;
    let mut header = Vp8Header::default();
    let mut temporal = None;
    if required & 0x80 != 0 {
        let extension = next()?;
        if extension & 0x80 != 0 {
            let first = next()?;
            header.picture_id = Some(if first & 0x80 != 0 {
                (u16::from_be_bytes([first & 0x7f, next()?]), true)
            } else {
                (u16::from(first), false)
            });
        }
        if extension & 0x40 != 0 {
            header.tl0_pic_idx = Some(next()?);
        }
        if extension & 0x30 != 0 {
            let layer = next()?;
            temporal = (extension & 0x20 != 0).then_some(TemporalMark {
                id: layer >> 6,
                switches_up: layer & 0x20 != 0,
            });
        }
    }
    // The first octet of a frame: the inverse key frame flag is its lowest bit (RFC 6386, section 9.1).
    let keyframe_start =
        starts_partition && partition == 0 && next().is_some_and(|first| first & 0x01 == 0);
    let size = keyframe_start
        .then(|| picture_size(rest.as_slice()))
        .flatten();
    Some(PayloadInfo {
        keyframe_start,
        vp8: Some(header),
        size,
        temporal,
    })
}

/// Overwrites the counters of a payload descriptor that has them, in the width that they have.
pub(crate) fn rewrite(payload: &mut [u8], header: Vp8Header) {
    let [first, extension, rest @ ..] = payload else {
        return;
    };
    if *first & 0x80 == 0 {
        return;
    }
    let mut rest = rest;
    if *extension & 0x80 != 0 {
        match (header.picture_id, &mut *rest) {
            (Some((id, true)), [hi, lo, ..]) if *hi & 0x80 != 0 => {
                [*hi, *lo] = (id | 0x8000).to_be_bytes();
                rest = &mut rest[2..];
            }
            (Some((id, false)), [id7, ..]) if *id7 & 0x80 == 0 => {
                *id7 = (id & 0x7f) as u8;
                rest = &mut rest[1..];
            }
            _ => return,
        }
    }
    if *extension & 0x40 != 0
        && let (Some(index), Some(octet)) = (header.tl0_pic_idx, rest.first_mut())
    {
        *octet = index;
    }
}

/// The size in a keyframe's header, from its second octet on (RFC 6386, section 9.1): the upper two bits scale.
fn picture_size(rest: &[u8]) -> Option<(u32, u32)> {
    let [_, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = *rest else {
        return None;
    };
    let side = |lo, hi| u32::from(u16::from_le_bytes([lo, hi]) & 0x3fff);
    Some((side(w0, w1), side(h0, h1)))
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
        let mark = |id, switches_up| Some(TemporalMark { id, switches_up });
        for (what, payload, temporal) in [
            (
                "TID 0",
                &[0x90, 0xe0, 0x81, 0x02, 7, 0x00, 1][..],
                mark(0, false),
            ),
            ("TID 1", &[0x80, 0x20, 0x40, 1], mark(1, false)),
            ("TID 2, Y, KEYIDX", &[0x80, 0x30, 0xa7, 1], mark(2, true)),
            ("only KEYIDX", &[0x80, 0x10, 0xa7, 1], None),
            ("no extension", &[0x10, 1], None),
        ] {
            assert_eq!(inspect(payload).temporal, temporal, "{what}");
        }
        assert_eq!(inspect(&[0x90, 0x80]), PayloadInfo::default(), "cut short");
        let key = [
            0x10, 0x50, 0x01, 0x02, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x41,
        ];
        assert_eq!(inspect(&key).size, Some((640, 360)));
    }
    #[test]
    fn counters_are_overwritten_in_their_width() {
        let header = |id, long| Vp8Header {
            picture_id: Some((id, long)),
            tl0_pic_idx: Some(9),
        };
        for (before, header, after) in [
            (
                &[0x90, 0xc0, 0x81, 0x02, 7, 1][..],
                header(0x1234, true),
                &[0x90, 0xc0, 0x92, 0x34, 9, 1][..],
            ),
            (
                &[0x90, 0xc0, 0x01, 7, 1],
                header(0x34, false),
                &[0x90, 0xc0, 0x34, 9, 1],
            ),
            (&[0x90, 0x40, 7, 1], header(1, true), &[0x90, 0x40, 9, 1]),
            (&[0x10, 1, 2], header(1, true), &[0x10, 1, 2]),
            (&[0x90], header(1, true), &[0x90]),
        ] {
            let mut payload = before.to_vec();
            rewrite(&mut payload, header);
            assert_eq!(payload, after, "{before:x?}");
        }
    }
}
