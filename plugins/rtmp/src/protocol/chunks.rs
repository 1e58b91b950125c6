// SPDX-License-Identifier: MPL-2.0
//! Puts messages together from chunks (RTMP 1.0, 5.3), for `session.rs`.
//!
//! Of our own, because neither of the crates at hand reads what encoders send: `rml_rtmp` takes messages only one
//! after the other, and of any length; `scuffle-rtmp` forgets the delta of a message that begins with a type 3 chunk, so
//! that sound that FFmpeg sends falls behind.

use std::collections::HashMap;

use bytes::{Buf, Bytes, BytesMut};

use super::Misuse;

/// The longest message, all that is held of unfinished ones, and all that a client may begin and give up.
pub(crate) const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Encoders use about five.
const MAX_CHUNK_STREAMS: usize = 64;
const FIRST_CHUNK_SIZE: usize = 128;
const EXTENDED: u32 = 0x00ff_ffff;

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) timestamp: u32,
    pub(crate) data: Bytes,
}

/// What is known of a chunk stream.
#[derive(Debug, Default, Clone, Copy)]
struct Header {
    timestamp: u32,
    /// The timestamp or delta as it was sent last: a type 3 chunk that begins a message means it again.
    field: u32,
    extended: bool,
    length: usize,
    kind: u8,
    stream: u32,
}

#[derive(Debug, Default)]
struct ChunkStream {
    header: Header,
    partial: BytesMut,
}

#[derive(Debug)]
pub(super) struct ChunkReader {
    input: BytesMut,
    streams: HashMap<u32, ChunkStream>,
    chunk_size: usize,
    /// The chunk stream whose chunk comes in, and how much of the chunk is missing.
    current: Option<(u32, usize)>,
    /// Bytes of unfinished messages.
    held: usize,
    /// Bytes of messages that were begun and given up.
    given_up: usize,
}

impl Default for ChunkReader {
    fn default() -> Self {
        Self {
            input: BytesMut::new(),
            streams: HashMap::new(),
            chunk_size: FIRST_CHUNK_SIZE,
            current: None,
            held: 0,
            given_up: 0,
        }
    }
}

/// Reads a big-endian number of up to four bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}

impl ChunkReader {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    pub(super) fn set_chunk_size(&mut self, size: u32) -> Result<(), Misuse> {
        match usize::try_from(size) {
            Ok(chunk_size) if (1..=0x7fff_ffff).contains(&chunk_size) => {
                self.chunk_size = chunk_size;
                Ok(())
            }
            _ => Err(Misuse::ChunkSize(size)),
        }
    }

    /// Forgets an unfinished message. Who gives up one after the other could go on for ever.
    pub(super) fn abort(&mut self, id: u32) -> Result<(), Misuse> {
        if let Some(stream) = self.streams.get_mut(&id) {
            self.held -= stream.partial.len();
            self.given_up += stream.partial.len();
            stream.partial.clear();
        }
        if self.given_up > MAX_MESSAGE {
            return Err(Misuse::GivenUp(MAX_MESSAGE));
        }
        Ok(())
    }

    /// The next whole message, or none until more is fed.
    pub(super) fn next(&mut self) -> Result<Option<Message>, Misuse> {
        loop {
            let (id, missing) = match self.current {
                Some(current) => current,
                None => match self.read_header()? {
                    Some(current) => current,
                    None => return Ok(None),
                },
            };
            let Some(stream) = self.streams.get_mut(&id) else {
                return Err(Misuse::NoHeader(id));
            };
            let taken = missing.min(self.input.len());
            if self.held + taken > MAX_MESSAGE {
                return Err(Misuse::TooLong(self.held + taken, MAX_MESSAGE));
            }
            stream.partial.extend_from_slice(&self.input[..taken]);
            self.input.advance(taken);
            self.held += taken;
            if taken < missing {
                self.current = Some((id, missing - taken));
                return Ok(None);
            }
            self.current = None;
            if stream.partial.len() >= stream.header.length {
                let data = stream.partial.split().freeze();
                self.held -= data.len();
                return Ok(Some(Message {
                    kind: stream.header.kind,
                    stream: stream.header.stream,
                    timestamp: stream.header.timestamp,
                    data,
                }));
            }
        }
    }

    /// Takes a chunk's header from the input, if all of it is there.
    fn read_header(&mut self) -> Result<Option<(u32, usize)>, Misuse> {
        let input = &self.input[..];
        let Some(first) = input.first() else {
            return Ok(None);
        };
        let (id, mut at) = match (first & 0x3f, input.len()) {
            (0, 2..) => (64 + u32::from(input[1]), 2),
            (1, 3..) => (64 + u32::from(input[1]) + 256 * u32::from(input[2]), 3),
            (0 | 1, _) => return Ok(None),
            (id, _) => (u32::from(id), 1),
        };
        let format = first >> 6;
        let known = self.streams.get(&id);
        let started = known.is_some_and(|stream| !stream.partial.is_empty());
        let mut header = match known {
            Some(stream) => stream.header,
            // Cameras begin with type 1, and librtmp pings so. All that it leaves out is the message stream, which is 0 then.
            None if format <= 1 => Header::default(),
            None => return Err(Misuse::NoHeader(id)),
        };
        let size = [11, 7, 3, 0][usize::from(format)];
        let Some(fields) = input.get(at..at + size) else {
            return Ok(None);
        };
        at += size;
        if size >= 3 {
            header.field = number(&fields[..3]);
            header.extended = header.field == EXTENDED;
        }
        if size >= 7 {
            header.length = number(&fields[3..6]) as usize;
            header.kind = fields[6];
        }
        if size >= 11 {
            header.stream = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
        }
        if header.extended {
            let sent = &input[at..input.len().min(at + 4)];
            // Some senders don't repeat it within a message.
            let expected = header.field.to_be_bytes();
            if format < 3 || !started || expected.starts_with(sent) {
                let Ok(extended) = <[u8; 4]>::try_from(sent) else {
                    return Ok(None);
                };
                header.field = u32::from_be_bytes(extended);
                at += 4;
            }
        }
        self.begin_chunk(id, header, format, started)?;
        self.input.advance(at);
        Ok(self.current)
    }

    fn begin_chunk(
        &mut self,
        id: u32,
        mut header: Header,
        format: u8,
        started: bool,
    ) -> Result<(), Misuse> {
        if header.length > MAX_MESSAGE {
            return Err(Misuse::TooLong(header.length, MAX_MESSAGE));
        }
        if self.streams.len() >= MAX_CHUNK_STREAMS && !self.streams.contains_key(&id) {
            return Err(Misuse::ChunkStreams(MAX_CHUNK_STREAMS));
        }
        let going_on = started && format == 3;
        if !going_on {
            header.timestamp = match format {
                0 => header.field,
                _ => header.timestamp.wrapping_add(header.field),
            };
            // Whoever begins anew has given up what it had begun.
            self.abort(id)?;
        }
        let stream = self.streams.entry(id).or_default();
        stream.header = header;
        let missing = header.length.saturating_sub(stream.partial.len());
        self.current = Some((id, missing.min(self.chunk_size)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(reader: &mut ChunkReader, bytes: &[u8]) -> Vec<Message> {
        reader.feed(bytes);
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn full(id: u8, timestamp: u32, length: usize, kind: u8) -> Vec<u8> {
        let mut bytes = vec![id];
        bytes.extend_from_slice(&timestamp.min(EXTENDED).to_be_bytes()[1..]);
        bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes()[1..]);
        bytes.push(kind);
        bytes.extend_from_slice(&1u32.to_le_bytes());
        if timestamp >= EXTENDED {
            bytes.extend_from_slice(&timestamp.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn a_message_that_begins_with_a_type_3_chunk_adds_the_delta_again() {
        let mut reader = ChunkReader::default();
        let mut bytes = full(4, 1_000, 2, 8);
        bytes.extend_from_slice(&[1, 2]);
        // Type 2, a delta of 23, then twice the same by type 3.
        bytes.extend_from_slice(&[0x84, 0, 0, 23, 3, 4, 0xc4, 5, 6, 0xc4, 7, 8]);
        let times: Vec<_> = read(&mut reader, &bytes)
            .iter()
            .map(|message| message.timestamp)
            .collect();
        assert_eq!(times, [1_000, 1_023, 1_046, 1_069]);
    }

    #[test]
    fn a_chunk_stream_may_begin_with_type_1_and_with_no_shorter_one() {
        let mut reader = ChunkReader::default();
        // An event of 6 octets, as librtmp answers a ping.
        let mut bytes = vec![0x42, 0, 0, 40, 0, 0, 6, 4];
        bytes.extend_from_slice(&[0, 7, 0, 0, 0, 1]);
        // Sound, and more of it by type 3.
        bytes.extend_from_slice(&[0x44, 0, 0, 23, 0, 0, 2, 8, 1, 2, 0xc4, 3, 4]);
        let messages = read(&mut reader, &bytes);
        let seen: Vec<_> = messages
            .iter()
            .map(|message| (message.kind, message.timestamp, message.data.len()))
            .collect();
        assert_eq!(seen, [(4, 40, 6), (8, 23, 2), (8, 46, 2)]);
        for first in [0x85, 0xc5] {
            let mut reader = ChunkReader::default();
            reader.feed(&[first, 0, 0, 23, 1, 2]);
            assert!(matches!(reader.next(), Err(Misuse::NoHeader(5))));
        }
    }

    #[test]
    fn messages_of_two_chunk_streams_may_alternate() {
        let mut reader = ChunkReader::default();
        let mut bytes = full(6, 40, 200, 9);
        bytes.extend_from_slice(&[9; 128]);
        bytes.extend(full(4, 41, 3, 8));
        bytes.extend_from_slice(&[8; 3]);
        bytes.push(0xc6);
        bytes.extend_from_slice(&[9; 72]);
        let messages = read(&mut reader, &bytes);
        assert_eq!(messages.len(), 2);
        assert_eq!((messages[0].kind, &messages[0].data[..]), (8, &[8; 3][..]));
        assert_eq!((messages[1].kind, messages[1].timestamp), (9, 40));
        assert_eq!(&messages[1].data[..], &[9; 200][..]);
        assert_eq!(reader.held, 0);
    }

    #[test]
    fn timestamps_of_more_than_four_hours_are_whole() {
        for repeated in [true, false] {
            let mut reader = ChunkReader::default();
            let late = 0x0123_4567;
            let mut bytes = full(6, late, 130, 9);
            bytes.extend_from_slice(&[9; 128]);
            bytes.push(0xc6);
            if repeated {
                bytes.extend_from_slice(&late.to_be_bytes());
            }
            bytes.extend_from_slice(&[9; 2]);
            let messages = read(&mut reader, &bytes);
            assert_eq!(messages.len(), 1, "repeated: {repeated}");
            assert_eq!(messages[0].timestamp, late);
            assert_eq!(&messages[0].data[..], &[9; 130][..]);
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_header() {
        let mut reader = ChunkReader::default();
        reader.feed(&full(6, 0, MAX_MESSAGE + 1, 9));
        assert!(matches!(reader.next(), Err(Misuse::TooLong(..))));
    }

    #[test]
    fn unfinished_messages_together_are_bounded() {
        let mut reader = ChunkReader::default();
        reader.set_chunk_size(1 << 20).unwrap();
        let mut fed = 0;
        let error = (2..60).find_map(|id| {
            reader.feed(&full(id, 0, MAX_MESSAGE, 9));
            reader.feed(&vec![0; 1 << 20]);
            fed += 1;
            reader.next().err()
        });
        assert!(matches!(error, Some(Misuse::TooLong(..))), "{error:?}");
        assert_eq!(fed, 5);
    }

    #[test]
    fn a_message_that_is_begun_again_and_again_is_not_taken_for_ever() {
        let mut reader = ChunkReader::default();
        let mut begun = full(6, 0, 1_000_000, 9);
        begun.extend_from_slice(&[0; FIRST_CHUNK_SIZE]);
        let mut taken = 0;
        let misuse = loop {
            reader.feed(&begun);
            taken += FIRST_CHUNK_SIZE;
            match reader.next() {
                Ok(message) => assert_eq!(message, None),
                Err(misuse) => break misuse,
            }
        };
        assert!(matches!(misuse, Misuse::GivenUp(_)), "{misuse}");
        assert!(taken <= MAX_MESSAGE + 2 * FIRST_CHUNK_SIZE, "{taken}");
    }

    #[test]
    fn fuzz_chunks() {
        let one = [full(3, 0, 5, 20), b"hello".to_vec()].concat();
        let long = [
            full(4, EXTENDED + 7, 200, 9),
            vec![7; 128],
            vec![0xc4, 0, 0xff, 0xff, 0xff],
            vec![7; 72],
        ]
        .concat();
        sfu_fuzz::fuzz("chunks", &[one, long], |data| {
            let mut reader = ChunkReader::default();
            reader.feed(data);
            let mut octets = 0;
            while let Ok(Some(message)) = reader.next() {
                octets += message.data.len();
            }
            assert!(octets <= data.len());
        });
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, size in 0u32..300) {
            let mut reader = ChunkReader::default();
            let _ = reader.set_chunk_size(size);
            for part in bytes.chunks(7) {
                reader.feed(part);
                while let Ok(Some(_)) = reader.next() {}
            }
        }
    }
}
