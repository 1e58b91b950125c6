// SPDX-License-Identifier: MPL-2.0

//! A data track: what others are told of it, and how its datagrams begin.
//!
//! The header of a datagram has 12 octets, in network byte order: three bits of version, two that mark the first and the last datagram
//! of a frame, one for extensions, ten reserved; 16 bits each of handle, sequence number and frame number; 32 of timestamp. The handle
//! alone is the server's affair: a publisher has one for each of its tracks, and subscribers know the same track by another one.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use livekit_protocol::data_track_frame_encoding::Value as FrameEncoding;
use livekit_protocol::data_track_schema_encoding::Value as SchemaEncoding;
use livekit_protocol::request_response::Reason;
use livekit_protocol::{DataTrackInfo, PublishDataTrackRequest};

use crate::sid::Sid;

const HEADER: usize = 12;
const HANDLE: Range<usize> = 2..4;
/// The only version there is, in the first octet's upper three bits.
const VERSION: u8 = 0;
/// Octets of the name of an encoding that is none of the well-known ones: LiveKit's own.
const ENCODING: usize = 32;

/// Why something is refused, for the client's program and for who reads.
pub(super) type Refusal = (Reason, &'static str);

/// See the module's description.
#[derive(Debug)]
pub(super) struct DataTrack {
    pub(super) sid: Sid,
    info: DataTrackInfo,
    texts: usize,
    /// What its subscribers know it by: one for all, so that a datagram is written once.
    pub(super) handle: u16,
    pub(super) subscribers: BTreeSet<Sid>,
}

impl DataTrack {
    pub(super) fn new(request: PublishDataTrackRequest, handle: u16) -> Self {
        let (sid, texts) = (Sid::data_track(), texts(&request));
        let info = DataTrackInfo {
            pub_handle: request.pub_handle,
            sid: String::from(&sid),
            name: request.name,
            encryption: request.encryption,
            frame_encoding: request.frame_encoding,
            schema: request.schema,
        };
        Self {
            sid,
            info,
            texts,
            handle,
            subscribers: BTreeSet::new(),
        }
    }

    pub(super) fn info(&self) -> &DataTrackInfo {
        &self.info
    }

    /// Octets of what its publisher has named.
    pub(super) fn texts(&self) -> usize {
        self.texts
    }
}

/// What a request names, in octets.
pub(super) fn texts(request: &PublishDataTrackRequest) -> usize {
    let schema = request.schema.as_ref().map_or(0, |s| s.name.len());
    let [frames, encoding] = customs(request).map(|custom| custom.map_or(0, str::len));
    request.name.len() + schema + frames + encoding
}

/// The names of encodings that are none of the well-known ones: of frames, and of the schema.
fn customs(request: &PublishDataTrackRequest) -> [Option<&str>; 2] {
    let frames = request.frame_encoding.as_ref();
    let frames = frames.and_then(|encoding| match encoding.value.as_ref()? {
        FrameEncoding::Custom(name) => Some(name.as_str()),
        FrameEncoding::WellKnown(_) => None,
    });
    let schema = request.schema.as_ref().and_then(|s| s.encoding.as_ref());
    let schema = schema.and_then(|encoding| match encoding.value.as_ref()? {
        SchemaEncoding::Custom(name) => Some(name.as_str()),
        SchemaEncoding::WellKnown(_) => None,
    });
    [frames, schema]
}

/// Whether a request is one, whoever makes it.
pub(super) fn check(request: &PublishDataTrackRequest, longest: usize) -> Result<(), Refusal> {
    let is_name = |text: &str, most: usize| (1..=most).contains(&text.len());
    if request.pub_handle == 0 || request.pub_handle > u16::MAX.into() {
        return Err((Reason::InvalidHandle, "a handle is from 1 to 65535"));
    }
    if !is_name(&request.name, longest) {
        return Err((Reason::InvalidName, "a name has 1 to 256 octets"));
    }
    let schema = request.schema.as_ref();
    if schema.is_some_and(|schema| !is_name(&schema.name, longest)) {
        let why = "a schema's name has 1 to 256 octets";
        return Err((Reason::InvalidRequest, why));
    }
    let mut customs = customs(request).into_iter().flatten();
    if customs.any(|name| !is_name(name, ENCODING)) {
        let why = "an encoding's name has 1 to 32 octets";
        return Err((Reason::InvalidRequest, why));
    }
    Ok(())
}

/// By which of its publisher's handles a datagram goes. `None`: it is no datagram of a track.
pub(super) fn handle_of(datagram: &[u8]) -> Option<u16> {
    let header: &[u8; HEADER] = datagram.first_chunk()?;
    let is_known = header[0] >> 5 == VERSION;
    let octets = header.get(HANDLE)?.try_into().ok()?;
    is_known.then(|| u16::from_be_bytes(octets))
}

/// The same datagram by another handle.
pub(super) fn by_handle(datagram: &[u8], handle: u16) -> Arc<[u8]> {
    let mut copy: Arc<[u8]> = datagram.into();
    let octets = Arc::get_mut(&mut copy).and_then(|copy| copy.get_mut(HANDLE));
    if let Some(octets) = octets {
        octets.copy_from_slice(&handle.to_be_bytes());
    }
    copy
}

/// What subscribers know a room's data tracks by.
#[derive(Debug, Default)]
pub(super) struct Handles {
    taken: HashSet<u16>,
    last: u16,
}

impl Handles {
    /// One that no track has. One that was given back comes again after all others: datagrams by it may still be on their way.
    pub(super) fn take(&mut self) -> Option<u16> {
        for _ in 0..u16::MAX {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if self.taken.insert(self.last) {
                return Some(self.last);
            }
        }
        None
    }

    pub(super) fn give_back(&mut self, handle: u16) {
        self.taken.remove(&handle);
    }
}

#[cfg(test)]
mod tests {
    use livekit_protocol::{
        DataTrackFrameEncoding, DataTrackSchemaEncoding, DataTrackSchemaId,
        data_track_frame_encoding::WellKnownFrameEncoding,
    };

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_handle_of_a_datagram_is_changed() {
        // As livekit-client 2.23 writes it: the only one of its frame, with extensions.
        let mut datagram = vec![0b0001_1100, 0, 0x12, 0x34, 0, 7, 0, 9, 1, 2, 3, 4];
        datagram.extend([0, 2, 2, 7, 0, 0, 0, 0, 0, 0, 0, 5, 0xFF]);
        assert_eq!(handle_of(&datagram), Some(0x1234));
        let forwarded = by_handle(&datagram, 0xABCD);
        assert_eq!(handle_of(&forwarded), Some(0xABCD));
        assert_eq!(
            (&forwarded[..2], &forwarded[4..]),
            (&datagram[..2], &datagram[4..])
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_its_handle_alone_is_changed(
            datagram in proptest::collection::vec(any::<u8>(), 0..40),
            handle: u16,
        ) {
            let forwarded = by_handle(&datagram, handle);
            prop_assert_eq!(forwarded.len(), datagram.len());
            let mut changed = forwarded.iter().zip(&datagram).enumerate();
            prop_assert!(changed.all(|(n, (one, other))| one == other || HANDLE.contains(&n)));
            let known = handle_of(&datagram).map(|_| handle);
            prop_assert_eq!(handle_of(&forwarded), known);
        }
    }

    #[test]
    fn what_has_no_header_that_is_known_goes_by_no_handle() {
        for length in 0..HEADER {
            assert_eq!(handle_of(&vec![0; length]), None, "{length}");
            assert_eq!(by_handle(&vec![0; length], 1).len(), length);
        }
        for version in 1..8 {
            let mut datagram = [0; HEADER];
            datagram[0] = version << 5;
            assert_eq!(handle_of(&datagram), None, "{version}");
        }
    }

    #[test]
    fn a_handle_is_one_tracks_and_comes_again_late() {
        let mut handles = Handles::default();
        let first = handles.take().unwrap();
        handles.give_back(first);
        let all: HashSet<_> = (1..u16::MAX).map(|_| handles.take().unwrap()).collect();
        assert_eq!(all.len(), usize::from(u16::MAX) - 1);
        assert!(!all.contains(&first) && !all.contains(&0));
        assert_eq!(handles.take(), Some(first));
        assert_eq!(handles.take(), None);
        handles.give_back(77);
        assert_eq!(handles.take(), Some(77));
    }

    #[test]
    fn requests_that_are_none_are_told_apart() {
        let long = |octets: usize| "x".repeat(octets);
        let good = PublishDataTrackRequest {
            pub_handle: 65_535,
            name: long(256),
            ..PublishDataTrackRequest::default()
        };
        let by_handle = |pub_handle: u32| PublishDataTrackRequest {
            pub_handle,
            ..good.clone()
        };
        let by_name = |octets: usize| PublishDataTrackRequest {
            name: long(octets),
            ..good.clone()
        };
        let by_value = |value: FrameEncoding| PublishDataTrackRequest {
            frame_encoding: Some(DataTrackFrameEncoding { value: Some(value) }),
            ..good.clone()
        };
        let by_encoding = |octets: usize| by_value(FrameEncoding::Custom(long(octets)));
        let by_schema = |name: usize, encoding: usize| PublishDataTrackRequest {
            schema: Some(DataTrackSchemaId {
                name: long(name),
                encoding: Some(DataTrackSchemaEncoding {
                    value: Some(SchemaEncoding::Custom(long(encoding))),
                }),
            }),
            ..good.clone()
        };
        let json = by_value(FrameEncoding::WellKnown(
            WellKnownFrameEncoding::Json.into(),
        ));
        for (request, refused) in [
            (good.clone(), None),
            (by_handle(0), Some(Reason::InvalidHandle)),
            (by_handle(65_536), Some(Reason::InvalidHandle)),
            (by_name(0), Some(Reason::InvalidName)),
            (by_name(257), Some(Reason::InvalidName)),
            (json, None),
            (by_encoding(32), None),
            (by_encoding(0), Some(Reason::InvalidRequest)),
            (by_encoding(33), Some(Reason::InvalidRequest)),
            (by_schema(256, 32), None),
            (by_schema(0, 32), Some(Reason::InvalidRequest)),
            (by_schema(257, 32), Some(Reason::InvalidRequest)),
            (by_schema(256, 33), Some(Reason::InvalidRequest)),
        ] {
            let found = check(&request, 256).err().map(|(reason, _)| reason);
            assert_eq!(found, refused, "{request:?}");
            let track = DataTrack::new(request, 1);
            assert!(track.texts() >= track.info().name.len());
        }
        assert_eq!(texts(&by_schema(256, 32)), 256 + 256 + 32);
    }
}
