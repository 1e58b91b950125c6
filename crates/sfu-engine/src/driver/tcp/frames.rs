// SPDX-License-Identifier: MPL-2.0

//! Datagrams in a stream of octets: two octets of length, and the datagram (RFC 4571). Called by [`super`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The largest datagram that a peer may send: no more than by UDP.
pub(super) const FRAME_MAX: usize = 2_048;
const PREFIX: usize = 2;
/// What waits for one peer at most, in octets: a keyframe of a camera, twice.
const QUEUE_MAX: usize = 256 * 1024;
/// What waits for longer is dropped, as what a shard has to keep back for so long is.
const LATE: Duration = Duration::from_millis(400);

/// What came makes no sense: somebody speaks another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Garbage;

/// Takes a stream apart. Keeps no more than the beginning of one frame.
#[derive(Debug, Default)]
pub(super) struct Reader {
    partial: Vec<u8>,
}

impl Reader {
    /// Hands over each whole frame, until one is refused.
    pub(super) fn read(
        &mut self,
        mut data: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), Garbage>,
    ) -> Result<(), Garbage> {
        if !self.partial.is_empty() {
            while let Some(missing) = missing(&self.partial)?.filter(|n| *n > 0) {
                let Some((head, rest)) = data.split_at_checked(missing) else {
                    self.partial.extend_from_slice(data);
                    return Ok(());
                };
                self.partial.extend_from_slice(head);
                data = rest;
            }
            let mut partial = std::mem::take(&mut self.partial);
            // Empty frames carry nothing.
            if let Some(frame) = partial.get(PREFIX..).filter(|f| !f.is_empty()) {
                take(frame)?;
            }
            partial.clear();
            self.partial = partial;
        }
        while let Some(length) = length(data)? {
            let Some((frame, rest)) = data[PREFIX..].split_at_checked(length) else {
                break;
            };
            if !frame.is_empty() {
                take(frame)?;
            }
            data = rest;
        }
        // No memory is held between frames.
        match data.is_empty() {
            true => self.partial = Vec::new(),
            false => self.partial.extend_from_slice(data),
        }
        Ok(())
    }
}

/// The length that a frame's beginning tells, if it is there.
fn length(data: &[u8]) -> Result<Option<usize>, Garbage> {
    let Some(&[high, low]) = data.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    (length <= FRAME_MAX).then_some(Some(length)).ok_or(Garbage)
}

/// How many octets are still to come before more is known of it, or it is whole.
fn missing(partial: &[u8]) -> Result<Option<usize>, Garbage> {
    Ok(Some(match length(partial)? {
        None => PREFIX - partial.len(),
        Some(length) => PREFIX + length - partial.len(),
    }))
}

/// Puts a datagram behind what is there. `false`: it is too large for a frame.
pub(super) fn append(out: &mut Vec<u8>, datagram: &[u8]) -> bool {
    let Ok(length) = u16::try_from(datagram.len()) else {
        return false;
    };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(datagram);
    true
}

/// Frames that a peer has not taken yet. They are dropped whole or not at all.
#[derive(Debug, Default)]
pub(super) struct Queue {
    octets: VecDeque<u8>,
    /// What is left of each frame, and since when it waits. Of the first a part may have left.
    frames: VecDeque<(usize, Instant)>,
    /// The first frame has begun to leave, and must be ended.
    begun: bool,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.octets.len()
    }

    /// What is to leave next, in octets.
    pub(super) fn next(&self) -> &[u8] {
        self.octets.as_slices().0
    }

    /// So many octets have left.
    pub(super) fn left(&mut self, mut count: usize) {
        self.octets.drain(..count.min(self.octets.len()));
        while let Some((first, _)) = self.frames.front_mut() {
            if *first > count {
                *first -= count;
                self.begun |= count > 0;
                break;
            }
            count -= *first;
            self.frames.pop_front();
            self.begun = false;
        }
        if self.octets.is_empty() {
            // What a slow moment took is given back.
            *self = Self::default();
        }
    }

    /// Keeps frames, of which `gone` octets have left already. Returns how many there was no room for.
    pub(super) fn push(&mut self, now: Instant, frames: &[u8], gone: usize, room: usize) -> u64 {
        let mut dropped = 0;
        let (mut rest, mut at) = (frames, 0);
        while let Some(&[high, low]) = rest.first_chunk::<PREFIX>() {
            let whole = PREFIX + usize::from(u16::from_be_bytes([high, low]));
            let (frame, others) = rest.split_at(whole.min(rest.len()));
            rest = others;
            let skip = gone.saturating_sub(at).min(frame.len());
            at += frame.len();
            let left = &frame[skip..];
            if left.is_empty() {
                continue;
            }
            // What has begun must end.
            if skip == 0 && self.octets.len() + left.len() > QUEUE_MAX.min(room) {
                dropped += 1;
                continue;
            }
            self.begun |= skip > 0;
            self.octets.extend(left);
            self.frames.push_back((left.len(), now));
        }
        dropped
    }

    /// Drops frames that have waited for too long. Returns how many.
    pub(super) fn drop_late(&mut self, now: Instant) -> u64 {
        let keep = usize::from(self.begun);
        let is_late = |at: Instant| now.saturating_duration_since(at) > LATE;
        let mut dropped = 0;
        let mut octets = 0;
        while let Some((length, _)) = self.frames.get(keep).filter(|(_, at)| is_late(*at)) {
            octets += length;
            dropped += 1;
            self.frames.remove(keep);
        }
        if dropped > 0 {
            let from = self
                .frames
                .front()
                .filter(|_| self.begun)
                .map_or(0, |(n, _)| *n);
            self.octets.drain(from..from + octets);
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            assert!(append(&mut out, frame));
        }
        out
    }

    #[test]
    fn frames_of_all_sizes_and_what_is_none() {
        let largest = vec![7; FRAME_MAX];
        type Row = (&'static [u8], Result<&'static [&'static [u8]], Garbage>);
        let table: [Row; 8] = [
            (&[], Ok(&[])),
            (&[0], Ok(&[])),
            (&[0, 0], Ok(&[])),
            (&[0, 0, 0, 0, 0, 1, 9], Ok(&[&[9]])),
            (&[0, 1, 9, 0, 2, 8], Ok(&[&[9]])),
            (&[0, 1, 9, 0, 2, 8, 7], Ok(&[&[9], &[8, 7]])),
            (&[8, 1], Err(Garbage)),
            (b"GET / HTTP/1.1\r\n\r\n", Err(Garbage)),
        ];
        for (octets, expected) in table {
            for step in [1, 2, 3, 100] {
                let mut reader = Reader::default();
                let mut found: Vec<Vec<u8>> = Vec::new();
                let mut result = Ok(());
                for part in octets.chunks(step) {
                    result = result.and_then(|()| {
                        reader.read(part, |frame| {
                            found.push(frame.to_vec());
                            Ok(())
                        })
                    });
                }
                let result = result.map(|()| found.iter().map(Vec::as_slice).collect::<Vec<_>>());
                assert_eq!(result, expected.map(<[_]>::to_vec), "{octets:?} by {step}");
            }
        }
        let mut count = 0;
        let whole = framed(&[largest.clone(), largest]);
        let mut reader = Reader::default();
        for octet in &whole {
            let took = reader.read(std::slice::from_ref(octet), |frame| {
                count += usize::from(frame.len() == FRAME_MAX);
                Ok(())
            });
            assert_eq!(took, Ok(()));
            assert!(reader.partial.capacity() <= 2 * (FRAME_MAX + PREFIX));
        }
        assert_eq!((count, reader.partial.capacity()), (2, 0));
    }

    #[test]
    fn a_refused_frame_is_the_last() {
        let mut reader = Reader::default();
        let mut count = 0;
        let data = framed(&[vec![1], vec![2], vec![3]]);
        let result = reader.read(&data, |frame| {
            count += 1;
            (frame[0] < 2).then_some(()).ok_or(Garbage)
        });
        assert_eq!((result, count), (Err(Garbage), 2));
    }

    #[test]
    fn fuzz_frames() {
        let samples = [
            framed(&[vec![1; 20], vec![], vec![0x80; 1_200]]),
            vec![0, 20],
        ];
        sfu_fuzz::fuzz("frames of TCP", &samples, |data| {
            // In two parts, wherever it breaks.
            let (one, other) = data.split_at(data.len() / 3);
            let mut reader = Reader::default();
            let mut octets = 0;
            for part in [one, other] {
                let read = reader.read(part, |frame| {
                    octets += frame.len();
                    Ok(())
                });
                if read.is_err() {
                    break;
                }
                assert!(reader.partial.len() <= data.len());
            }
            assert!(octets <= data.len());
        });
    }

    proptest! {
        /// Whatever a peer takes when, and whatever is dropped: what it gets are whole frames in their order.
        #[test]
        fn what_arrives_are_whole_frames_in_order(
            steps in vec((0..4u8, vec(1..300usize, 0..6), 0..900usize, 0..300u64), 1..80),
            room in prop_oneof![Just(usize::MAX), 300..4_000usize],
        ) {
            let mut now = Instant::now();
            let mut queue = Queue::default();
            let mut wire = Vec::new();
            let (mut next, mut dropped) = (0u32, 0);
            for (kind, sizes, count, later) in steps {
                now += Duration::from_millis(later);
                match kind {
                    0 | 1 => {
                        let frames: Vec<Vec<u8>> = sizes.iter().map(|size| {
                            next += 1;
                            let mut frame = next.to_be_bytes().to_vec();
                            frame.resize(4 + size, next as u8);
                            frame
                        }).collect();
                        let data = framed(&frames);
                        // Something may leave at once, where nothing waits.
                        let gone = if queue.is_empty() { count.min(data.len()) } else { 0 };
                        wire.extend_from_slice(&data[..gone]);
                        dropped += queue.push(now, &data, gone, room);
                    }
                    2 => {
                        let count = count.min(queue.next().len());
                        wire.extend_from_slice(&queue.next()[..count]);
                        queue.left(count);
                    }
                    _ => dropped += queue.drop_late(now),
                }
                prop_assert!(queue.len() <= QUEUE_MAX.min(room.saturating_add(400)));
                prop_assert_eq!(queue.octets.len(), queue.frames.iter().map(|(n, _)| n).sum::<usize>());
            }
            while !queue.is_empty() {
                let count = queue.next().len();
                wire.extend_from_slice(queue.next());
                queue.left(count);
            }
            let mut last = 0;
            let mut arrived = 0;
            let mut reader = Reader::default();
            let read = reader.read(&wire, |frame| {
                let number = u32::from_be_bytes(*frame.first_chunk().ok_or(Garbage)?);
                let is_whole = frame[4..].iter().all(|octet| *octet == number as u8);
                let is_next = number > last;
                last = number;
                arrived += 1;
                (is_whole && is_next).then_some(()).ok_or(Garbage)
            });
            prop_assert_eq!(read, Ok(()));
            prop_assert_eq!(arrived + dropped, u64::from(next));
            prop_assert!(reader.partial.is_empty());
        }
    }
}
