// SPDX-License-Identifier: MPL-2.0

//! Reads the VP9 payload descriptor (RFC 9628, section 4.2). Called by [`super::inspect`].

use super::svc::{MOST, Spatial, Structure};
use super::{PayloadInfo, TemporalMark};

const PICTURE_ID: u8 = 0x80;
const INTER: u8 = 0x40;
const LAYERS: u8 = 0x20;
const FLEXIBLE: u8 = 0x10;
const BEGINS: u8 = 0x08;
const ENDS: u8 = 0x04;
const STRUCTURE: u8 = 0x02;
const NOT_NEEDED_ABOVE: u8 = 0x01;
/// Of the octet that tells layers.
const SWITCHES_UP: u8 = 0x10;

#[derive(Debug, Clone, Copy)]
struct Descriptor<'a> {
    flags: u8,
    /// Temporal layer, switching up, spatial layer, and its dependency.
    layers: Option<u8>,
    /// Behind the parts that each packet has.
    rest: &'a [u8],
}

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    let Some(descriptor) = Descriptor::read(payload) else {
        return PayloadInfo::default();
    };
    let structure = descriptor.structure();
    let size = structure.and_then(|s| s.sizes[..s.count].last().copied().flatten());
    let temporal = descriptor.layers.map(|layers| TemporalMark {
        id: layers >> 5,
        switches_up: layers & SWITCHES_UP != 0,
    });
    PayloadInfo {
        keyframe_start: descriptor.begins_keyframe(),
        size,
        temporal,
        ..PayloadInfo::default()
    }
}

/// Where a packet is among spatial layers, and those that begin with it. `None`: it does not say so.
pub(crate) fn spatial(payload: &[u8]) -> Option<(Spatial, Option<Structure>)> {
    let descriptor = Descriptor::read(payload)?;
    let id = descriptor.spatial();
    descriptor.layers?;
    let is_needed_above = descriptor.flags & NOT_NEEDED_ABOVE == 0;
    let spatial = Spatial {
        id,
        begins_picture: descriptor.flags & BEGINS != 0 && id == 0,
        ends_frame: descriptor.flags & ENDS != 0,
        is_needed: std::array::from_fn(|layer| {
            layer == usize::from(id) || layer > usize::from(id) && is_needed_above
        }),
        highest: None,
    };
    Some((spatial, descriptor.structure()))
}

impl<'a> Descriptor<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        let (&flags, mut rest) = payload.split_first()?;
        let mut next = || {
            let (&octet, behind) = rest.split_first()?;
            rest = behind;
            Some(octet)
        };
        if flags & PICTURE_ID != 0 && next()? & 0x80 != 0 {
            next()?;
        }
        let mut layers = None;
        if flags & LAYERS != 0 {
            layers = Some(next()?);
            if flags & FLEXIBLE == 0 {
                next()?;
            }
        }
        Some(Self {
            flags,
            layers,
            rest,
        })
    }

    fn spatial(self) -> u8 {
        self.layers.map_or(0, |layers| layers >> 1 & 0x07)
    }

    fn begins_keyframe(self) -> bool {
        self.flags & INTER == 0 && self.flags & BEGINS != 0 && self.spatial() == 0
    }

    /// The scalability structure of a keyframe, where it has one.
    fn structure(self) -> Option<Structure> {
        if !self.begins_keyframe() || self.flags & STRUCTURE == 0 {
            return None;
        }
        let (&structure, mut rest) = self.rest.split_first()?;
        let count = usize::from(structure >> 5) + 1;
        let mut all = Structure {
            count,
            sizes: [None; MOST],
        };
        if count > MOST {
            return None;
        }
        for size in all.sizes[..count]
            .iter_mut()
            .filter(|_| structure & 0x10 != 0)
        {
            let (sides, behind) = rest.split_first_chunk::<4>()?;
            let [a, b, c, d] = *sides;
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            *size = Some((side(a, b), side(c, d)));
            rest = behind;
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn layers_are_read() {
        let (key, structure) = spatial(&[
            0xaa, 0x05, 0x00, 0x00, 0x30, 0x01, 0x40, 0x00, 0xb4, 0x02, 0x80, 0x01, 0x68,
        ])
        .unwrap();
        let expected = Spatial {
            id: 0,
            begins_picture: true,
            ends_frame: false,
            is_needed: [true; MOST],
            highest: None,
        };
        assert_eq!(key, expected);
        let structure = structure.unwrap();
        assert_eq!(structure.count, 2);
        assert_eq!(structure.sizes[..2], [Some((320, 180)), Some((640, 360))]);
        for (what, payload, id, ends_frame, is_needed_above, temporal) in [
            (
                "non-flexible",
                &[0xed, 0x85, 1, 0x34, 9][..],
                2,
                true,
                false,
                (1, true),
            ),
            (
                "flexible",
                &[0xf8, 0x05, 0x42, 0x02],
                1,
                false,
                true,
                (2, false),
            ),
        ] {
            let (spatial, structure) = spatial(payload).unwrap();
            assert_eq!(structure, None, "{what}");
            assert!(!spatial.begins_picture, "{what}");
            assert_eq!((spatial.id, spatial.ends_frame), (id, ends_frame), "{what}");
            let needed = [0, 1, 2, 3].map(|l| l == id || l > id && is_needed_above);
            assert_eq!(spatial.is_needed, needed, "{what}");
            let mark = inspect(payload).temporal.unwrap();
            assert_eq!((mark.id, mark.switches_up), temporal, "{what}");
        }
        assert_eq!(spatial(&[0x8c, 5]), None, "no layers");
        assert_eq!(spatial(&[0xed, 0x85, 1]), None, "cut short");
    }
}
