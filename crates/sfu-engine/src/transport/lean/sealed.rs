// SPDX-License-Identifier: MPL-2.0

//! Datagrams of pictures as they left, for a peer that asks for what it misses (NACK) and takes no stream of
//! retransmissions (RFC 4588): it is sent the very same datagram again (RFC 4585, section 6.2.1). Filled and asked by
//! [`Media`](super::media::Media).
//!
//! Another seal under one number would give the session's keys away (RFC 3711, section 9.1), and what is under the seal
//! is not known any more: header extensions differ from packet to packet. So what left is kept to the last bit.

use std::cmp::Reverse;
use std::time::Instant;

use crate::depth::Depth;

/// Octets that are kept at first, and at most: a second of 4 Mbit/s. Beyond it is less than a second.
const LEAST: usize = 32 << 10;
const MOST: usize = 512 << 10;
/// What all m-lines of a session may keep together, as far as each has the least.
const OF_ALL: usize = 1 << 20;
/// There is a place for a number for so many octets. Where packets are smaller, fewer of them are kept.
const PER_PLACE: usize = 256;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    /// A power of two of them.
    octets: Vec<u8>,
    /// By number. A power of two of them, too.
    places: Vec<Place>,
    depth: Depth<LEAST, MOST>,
    /// Octets so far, and those that were left free before the ring's end; wraps.
    end: u32,
    /// What [`octets`](Self::octets) may become.
    most: usize,
}

/// Where a datagram is.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    seq: u32,
    /// What [`Sealed::end`] was before it.
    start: u32,
    /// 0 is an empty place.
    len: u16,
    number: Option<u16>,
}

/// A datagram as it left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    /// The transport-wide number in it.
    pub(super) number: Option<u16>,
    pub(super) datagram: &'a [u8],
}

impl Sealed {
    /// So many m-lines of the session keep something.
    pub(super) fn set_share(&mut self, count: usize) {
        let part = (OF_ALL / count.max(1)).max(1);
        self.most = (1 << part.ilog2()).clamp(LEAST, MOST);
    }

    /// A datagram leaves. Once per packet; allocates only where the rate has grown or fallen.
    pub(super) fn push(&mut self, now: Instant, seq: u64, kept: Kept<'_>) {
        let Ok(len @ 1..) = u16::try_from(kept.datagram.len()) else {
            return;
        };
        let room = self.octets.len();
        let wanted = self.depth.add(now, len.into(), room).unwrap_or(room);
        if wanted.min(self.most) != room {
            self.resize(wanted.min(self.most));
        }
        self.put(seq as u32, kept.number, kept.datagram);
    }

    fn put(&mut self, seq: u32, number: Option<u16>, datagram: &[u8]) {
        let (room, len) = (self.octets.len(), datagram.len());
        let mut at = self.at(self.end);
        if at + len > room {
            self.end = self.end.wrapping_add((room - at) as u32);
            at = 0;
        }
        let place = self.place(seq);
        let (Some(octets), Some(place)) = (
            self.octets.get_mut(at..at + len),
            self.places.get_mut(place),
        ) else {
            return;
        };
        octets.copy_from_slice(datagram);
        *place = Place {
            seq,
            start: self.end,
            len: len as u16,
            number,
        };
        self.end = self.end.wrapping_add(len as u32);
    }

    /// The newest datagram that left under this number, if it is still there.
    pub(super) fn get(&self, seq: u64) -> Option<Kept<'_>> {
        let place = self.places.get(self.place(seq as u32))?;
        let found = place.seq == seq as u32 && self.holds(place);
        let at = self.at(place.start);
        let datagram = self.octets.get(at..at + usize::from(place.len));
        Some(Kept {
            number: place.number,
            datagram: datagram.filter(|_| found)?,
        })
    }

    /// What it leads to was not overwritten.
    fn holds(&self, place: &Place) -> bool {
        place.len > 0 && self.end.wrapping_sub(place.start) as usize <= self.octets.len()
    }

    fn at(&self, octet: u32) -> usize {
        octet as usize & self.octets.len().saturating_sub(1)
    }

    fn place(&self, seq: u32) -> usize {
        seq as usize & self.places.len().saturating_sub(1)
    }

    fn resize(&mut self, room: usize) {
        let after = Self {
            octets: vec![0; room],
            places: vec![Place::default(); room / PER_PLACE],
            depth: std::mem::take(&mut self.depth),
            end: 0,
            most: self.most,
        };
        let before = std::mem::replace(self, after);
        let mut places: Vec<_> = before.places.iter().filter(|p| before.holds(p)).collect();
        places.sort_unstable_by_key(|p| Reverse(before.end.wrapping_sub(p.start)));
        for place in places {
            if let Some(kept) = before.get(place.seq.into()) {
                self.put(place.seq, kept.number, kept.datagram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const FRAME: Duration = Duration::from_millis(33);

    fn one_of(count: usize) -> Sealed {
        let mut sealed = Sealed::default();
        sealed.set_share(count);
        sealed
    }

    fn datagram(seq: u64, len: usize) -> Vec<u8> {
        let mut octets = vec![seq as u8; len];
        for (octet, other) in octets.iter_mut().zip(seq.to_be_bytes()) {
            *octet = other;
        }
        octets
    }

    /// Sends such packets, so many a frame. Returns what is kept, and all that left: when, number and length.
    fn run(
        sealed: &mut Sealed,
        frames: &[(usize, usize)],
    ) -> (Instant, Vec<(Instant, u64, usize)>) {
        let (mut now, mut left) = (Instant::now(), Vec::new());
        let mut seq = 65_000;
        for (packets, len) in frames {
            now += FRAME;
            for _ in 0..*packets {
                let kept = Kept {
                    number: Some(seq as u16),
                    datagram: &datagram(seq, *len),
                };
                sealed.push(now, seq, kept);
                left.push((now, seq, *len));
                seq += 1;
            }
        }
        (now, left)
    }

    fn check(sealed: &Sealed, seq: u64, len: usize) -> bool {
        sealed.get(seq).is_some_and(|kept| {
            assert_eq!(kept.datagram, datagram(seq, len), "{seq}");
            assert_eq!(kept.number, Some(seq as u16));
            true
        })
    }

    #[test]
    fn the_last_second_is_kept_at_any_rate_up_to_the_most() {
        // 270 kbit/s, 1.1, 2.4 and 3.9 Mbit/s, and 12.
        for (packets, room) in [(1, 64), (4, 256), (9, 512), (13, 512), (45, 512)] {
            let mut sealed = one_of(1);
            let (now, left) = run(&mut sealed, &vec![(packets, 1_150); 300]);
            assert_eq!(sealed.octets.len(), room << 10, "{packets} packets a frame");
            let young = left.iter().rev().take_while(|(at, ..)| {
                now.duration_since(*at) < Duration::from_secs(1) && packets < 45
            });
            let mut count = 0;
            for (_, seq, len) in young {
                assert!(check(&sealed, *seq, *len), "{seq} of {packets} a frame");
                count += 1;
            }
            assert!(count >= 30 * packets || packets == 45);
            assert!(sealed.get(65_000 - 1).is_none(), "never left");
            assert!(sealed.get(65_000 + left.len() as u64).is_none(), "not yet");
        }
    }

    #[test]
    fn many_m_lines_share_the_room() {
        for (count, most) in [
            (1, 512),
            (2, 512),
            (3, 256),
            (9, 64),
            (64, 32),
            (usize::MAX, 32),
        ] {
            let mut sealed = one_of(count);
            run(&mut sealed, &vec![(100, 1_150); 100]);
            assert_eq!(sealed.octets.len(), most << 10, "{count}");
            let places = sealed.places.len() * size_of::<Place>();
            assert!(places <= sealed.octets.len() / 16, "{places}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_left_and_memory_is_bounded(
            frames in proptest::collection::vec((0usize..60, 1usize..1_500), 1..150),
            count in 1usize..12,
        ) {
            let mut sealed = one_of(count);
            let (_, left) = run(&mut sealed, &frames);
            let mut octets = 0;
            for (age, (_, seq, len)) in left.iter().rev().enumerate() {
                octets += len;
                let found = check(&sealed, *seq, *len);
                // Some are left free at the ring's end.
                prop_assert!(found || octets + 1_500 > LEAST || age >= LEAST / PER_PLACE, "{seq}");
            }
            prop_assert!(sealed.octets.len() <= MOST.min((OF_ALL / count).max(LEAST)));
        }
    }
}
