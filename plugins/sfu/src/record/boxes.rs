// SPDX-License-Identifier: MPL-2.0

//! Boxes of a fragmented MP4 (ISO 14496-12): what is read of them to commit whole fragments, and to know where each
//! begins. Called by `file.rs`, which knows a recording's layout. Reads bytes that anyone may have written.

/// A box's header: its type, how long the header is, and how long all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: [u8; 4],
    pub(super) header: u64,
    pub(super) size: u64,
}

/// The longest header: with a size of 64 bits.
pub(super) const HEADER_MAX: usize = 16;

fn be32(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_be_bytes)
}

fn be64(data: &[u8], at: usize) -> Option<u64> {
    let bytes = data.get(at..at.checked_add(8)?)?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

impl Header {
    /// Reads the header at the beginning of `data`. `None` where it is not whole, or makes no sense.
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let kind = data.get(4..8)?.try_into().ok()?;
        let (header, size) = match be32(data, 0)? {
            1 => (16, be64(data, 8)?),
            size => (8, u64::from(size)),
        };
        (size >= header).then_some(Self { kind, header, size })
    }
}

/// The boxes that follow each other in `data`, by type and content. What is broken ends it.
fn children(data: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let header = Header::read(rest)?;
        let (start, end) = (usize::try_from(header.header).ok()?, header.size);
        let content = rest.get(start..usize::try_from(end).ok()?)?;
        rest = &rest[start + content.len()..];
        Some((header.kind, content))
    })
}

fn child<'a>(data: &'a [u8], kind: &[u8; 4]) -> Option<&'a [u8]> {
    children(data).find_map(|(k, content)| (&k == kind).then_some(content))
}

/// The track that fragments are dated by: the first one with pictures, else the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) track: u32,
    pub(super) timescale: u32,
    video: bool,
    /// Flags of samples whose fragment tells none (`trex`).
    flags: u32,
}

impl Reference {
    /// Looks for it in a `moov`'s content.
    pub(super) fn find(moov: &[u8]) -> Option<Self> {
        let tracks = children(moov).filter(|(kind, _)| kind == b"trak");
        let mut tracks = tracks.filter_map(|(_, trak)| Self::of(trak));
        let first = tracks.next()?;
        let found = match first.video {
            true => first,
            false => tracks.find(|t| t.video).unwrap_or(first),
        };
        let trex = child(moov, b"mvex").into_iter().flat_map(children);
        let trex = trex.filter(|(kind, _)| kind == b"trex");
        let mut flags = trex.filter(|(_, trex)| be32(trex, 4) == Some(found.track));
        let flags = flags.next().and_then(|(_, trex)| be32(trex, 20));
        Some(Self {
            flags: flags.unwrap_or_default(),
            ..found
        })
    }

    fn of(trak: &[u8]) -> Option<Self> {
        let tkhd = child(trak, b"tkhd")?;
        let mdia = child(trak, b"mdia")?;
        let mdhd = child(mdia, b"mdhd")?;
        // Version 1 has longer dates before the field.
        let late = |header: &[u8], at| {
            be32(
                header,
                if header.first() == Some(&1) {
                    at + 8
                } else {
                    at
                },
            )
        };
        let timescale = late(mdhd, 12).filter(|t| *t > 0)?;
        Some(Self {
            track: late(tkhd, 12)?,
            timescale,
            video: child(mdia, b"hdlr")?.get(8..12) == Some(b"vide"),
            flags: 0,
        })
    }
}

/// When a fragment's part of the reference track plays, in units of its timescale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u64,
    pub(super) end: u64,
    /// It begins with a keyframe.
    pub(super) key: bool,
}

const NON_SYNC: u32 = 0x1_0000;

impl Span {
    /// Reads a `moof`'s content. `None` where it has nothing of the track.
    pub(super) fn read(moof: &[u8], reference: &Reference) -> Option<Self> {
        let trafs = children(moof).filter(|(kind, _)| kind == b"traf");
        trafs
            .filter_map(|(_, traf)| Self::of(traf, reference))
            .next()
    }

    fn of(traf: &[u8], reference: &Reference) -> Option<Self> {
        let tfhd = child(traf, b"tfhd")?;
        if be32(tfhd, 4) != Some(reference.track) {
            return None;
        }
        let defaults = Defaults::read(tfhd, reference.flags)?;
        let tfdt = child(traf, b"tfdt")?;
        let start = match tfdt.first()? {
            0 => u64::from(be32(tfdt, 4)?),
            _ => be64(tfdt, 4)?,
        };
        let (mut length, mut first) = (0u64, None);
        for (kind, trun) in children(traf) {
            if &kind == b"trun" {
                let (duration, flags) = defaults.run(trun)?;
                length = length.saturating_add(duration);
                first = first.or(flags);
            }
        }
        Some(Self {
            start,
            end: start.saturating_add(length),
            key: first? & NON_SYNC == 0,
        })
    }
}

/// What samples of a fragment have that tell nothing of their own.
struct Defaults {
    duration: u32,
    flags: u32,
}

impl Defaults {
    fn read(tfhd: &[u8], flags: u32) -> Option<Self> {
        let present = be32(tfhd, 0)?;
        let mut defaults = Self { duration: 0, flags };
        let mut at = 8;
        for (bit, length) in [(0x1, 8), (0x2, 4), (0x8, 4), (0x10, 4), (0x20, 4)] {
            if present & bit == 0 {
                continue;
            }
            match bit {
                0x8 => defaults.duration = be32(tfhd, at)?,
                0x20 => defaults.flags = be32(tfhd, at)?,
                _ => {}
            }
            at += length;
        }
        Some(defaults)
    }

    /// A run's duration, and the flags of its first sample.
    fn run(&self, trun: &[u8]) -> Option<(u64, Option<u32>)> {
        let (present, count) = (be32(trun, 0)?, be32(trun, 4)?);
        let mut at = 8 + if present & 0x1 != 0 { 4 } else { 0 };
        let mut first = None;
        if present & 0x4 != 0 {
            first = Some(be32(trun, at)?);
            at += 4;
        }
        let fields = (present & 0xf00).count_ones() as usize * 4;
        let of_duration = if present & 0x100 != 0 { 4 } else { 0 };
        let of_flags = of_duration + if present & 0x200 != 0 { 4 } else { 0 };
        if first.is_none() && count > 0 {
            first = match present & 0x400 {
                0 => Some(self.flags),
                _ => Some(be32(trun, at + of_flags)?),
            };
        }
        if of_duration == 0 {
            let length = u64::from(self.duration) * u64::from(count);
            return Some((length, first));
        }
        let mut length = 0u64;
        for _ in 0..count {
            length += u64::from(be32(trun, at)?);
            at += fields;
        }
        Some((length, first))
    }
}

/// A part of the file that begins with a keyframe, as an index (`sidx`) lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) bytes: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

/// The bytes of an index over `parts` that fits into `room` bytes together with the empty box that fills the rest of
/// them. What would not fit is listed more coarsely.
pub(super) fn index(parts: &[Part], reference: &Reference, room: usize) -> Vec<u8> {
    let most = (room.saturating_sub(INDEX_HEADER + 8) / INDEX_ENTRY).max(1);
    let each = parts.len().div_ceil(most).max(1);
    let groups: Vec<_> = parts.chunks(each).filter_map(joined).collect();
    let size = INDEX_HEADER + groups.len() * INDEX_ENTRY;
    let mut sidx = Vec::with_capacity(room);
    sidx.extend((size as u32).to_be_bytes());
    sidx.extend(b"sidx");
    sidx.extend([1, 0, 0, 0]);
    sidx.extend(reference.track.to_be_bytes());
    sidx.extend(reference.timescale.to_be_bytes());
    sidx.extend(groups.first().map_or(0, |g| g.start).to_be_bytes());
    sidx.extend((room.saturating_sub(size) as u64).to_be_bytes());
    sidx.extend([0, 0]);
    sidx.extend((groups.len() as u16).to_be_bytes());
    for group in &groups {
        let length = u32::try_from(group.end - group.start).unwrap_or(u32::MAX);
        // A size has 31 bits; the highest one would say that an index is listed.
        let bytes = u32::try_from(group.bytes).unwrap_or(u32::MAX) & 0x7fff_ffff;
        sidx.extend(bytes.to_be_bytes());
        sidx.extend(length.to_be_bytes());
        // It begins with a keyframe that all that follows can do with (SAP type 1).
        sidx.extend(0x9000_0000u32.to_be_bytes());
    }
    sidx.extend(empty(room.saturating_sub(size)));
    sidx
}

const INDEX_HEADER: usize = 40;
const INDEX_ENTRY: usize = 12;

fn joined(parts: &[Part]) -> Option<Part> {
    let (first, last) = (parts.first()?, parts.last()?);
    Some(Part {
        bytes: parts.iter().map(|p| p.bytes).sum(),
        start: first.start,
        end: last.end.max(first.start),
    })
}

/// An empty box of this size, which is at least 8.
pub(super) fn empty(size: usize) -> Vec<u8> {
    let mut free = (size as u32).to_be_bytes().to_vec();
    free.extend(b"free");
    free.resize(size.max(8), 0);
    free
}

/// How long an index says that everything is, in ms.
pub(super) fn index_duration_ms(sidx: &[u8]) -> Option<u64> {
    let timescale = u64::from(be32(sidx, 8).filter(|t| *t > 0)?);
    let at = if sidx.first()? == &0 { 20 } else { 28 };
    let count = usize::from(u16::from_be_bytes(
        sidx.get(at + 2..at + 4)?.try_into().ok()?,
    ));
    let lengths = (0..count).map(|n| be32(sidx, at + 8 + n * INDEX_ENTRY).map(u64::from));
    let total: u64 = lengths.collect::<Option<Vec<_>>>()?.iter().sum();
    Some(total.saturating_mul(1_000) / timescale)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let mut made = ((content.len() + 8) as u32).to_be_bytes().to_vec();
        made.extend(kind);
        made.extend(content);
        made
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_be_bytes()).collect()
    }

    fn reference() -> Reference {
        Reference {
            track: 1,
            timescale: 90_000,
            video: true,
            flags: 0,
        }
    }

    #[test]
    fn spans_are_read_from_defaults_and_from_samples() {
        let moof = |tfhd: &[u32], trun: &[u32]| {
            let tfdt = made(b"tfdt", &words(&[0, 9_000]));
            let parts = [
                made(b"tfhd", &words(tfhd)),
                tfdt,
                made(b"trun", &words(trun)),
            ];
            made(b"traf", &parts.concat())
        };
        for (tfhd, trun, end, key) in [
            // Defaults for all.
            (
                &[0x28, 1, 3_000, NON_SYNC][..],
                &[0x1, 3, 0][..],
                18_000,
                false,
            ),
            // The first sample is a keyframe.
            (&[0x28, 1, 3_000, NON_SYNC], &[0x5, 2, 0, 0], 15_000, true),
            // Each sample has a duration, a size and flags.
            (
                &[0, 1],
                &[0x700, 2, 100, 7, 0, 200, 8, NON_SYNC],
                9_300,
                true,
            ),
        ] {
            let span = Span::read(&moof(tfhd, trun), &reference()).unwrap();
            assert_eq!((span.start, span.end, span.key), (9_000, end, key));
        }
        let other = moof(&[0, 2], &[0, 0]);
        assert_eq!(Span::read(&other, &reference()), None, "another track");
    }

    #[test]
    fn an_index_fits_its_room_and_keeps_the_sums() {
        let part = |n: u64| Part {
            bytes: 1_000,
            start: n * 90_000,
            end: (n + 1) * 90_000,
        };
        for (count, listed) in [(1u64, 1usize), (10, 10), (100, 50)] {
            let parts: Vec<_> = (0..count).map(part).collect();
            let room = INDEX_HEADER + 8 + 60 * INDEX_ENTRY;
            let bytes = index(&parts, &reference(), room);
            assert_eq!(bytes.len(), room);
            let header = Header::read(&bytes).unwrap();
            assert_eq!(header.size as usize, INDEX_HEADER + listed * INDEX_ENTRY);
            let content = &bytes[8..header.size as usize];
            assert_eq!(index_duration_ms(content), Some(count * 1_000));
            let rest = Header::read(&bytes[header.size as usize..]).unwrap();
            assert_eq!(
                (&rest.kind, rest.size),
                (b"free", room as u64 - header.size)
            );
        }
    }

    proptest! {
        #[test]
        fn no_byte_panics(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::read(&data);
            let _ = Reference::find(&data);
            let _ = index_duration_ms(&data);
            for kind in [b"traf", b"trun", b"tfhd"] {
                let _ = Span::read(&made(kind, &data), &reference());
            }
            let traf = [made(b"tfhd", &words(&[0, 1])), made(b"tfdt", &words(&[0, 0])), made(b"trun", &data)];
            let _ = Span::read(&made(b"traf", &traf.concat()), &reference());
        }
    }
}
