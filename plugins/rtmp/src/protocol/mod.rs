// SPDX-License-Identifier: MPL-2.0
//! RTMP without I/O: bytes go in, events and bytes come out (Adobe's RTMP 1.0, FLV 10.1, Enhanced RTMP v2).
//!
//! Everything here is fed by strangers: nothing panics, and what is held for a client is bounded.

mod amf0;
pub(crate) mod choice;
mod chunks;
pub(crate) mod flv;
mod parameters;
pub(crate) mod pictures;
pub(crate) mod session;
pub(crate) mod timeline;
pub(crate) mod units;

/// What a client did that it is cut for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("the handshake is not RTMP's: {0}")]
    Handshake(String),
    #[error("a message of {0} bytes is longer than the allowed {1}")]
    TooLong(usize, usize),
    #[error("more than {0} bytes of messages were begun and given up")]
    GivenUp(usize),
    #[error("more than {0} chunk streams")]
    ChunkStreams(usize),
    #[error("chunk stream {0} goes on without having begun")]
    NoHeader(u32),
    #[error("a chunk size of {0}")]
    ChunkSize(u32),
    #[error("a control message is cut short")]
    Control,
    #[error("a command cannot be read: {0}")]
    Command(String),
    #[error("more than {0} commands")]
    Commands(u32),
    #[error("media comes before `publish` was accepted")]
    Unpublished,
    #[error("an answer cannot be written: {0}")]
    Answer(String),
    #[error("a media tag is cut short or contradicts itself: {0}")]
    Tag(&'static str),
    #[error("{0} messages in a row can't be used, the last one because {1}")]
    Unusable(u32, String),
    #[error("its pictures are larger than the allowed 4096x2304")]
    TooLarge,
    #[error("{0} can't be taken: send H.264 (or HEVC, AV1) and AAC (or Opus, MP3)")]
    Codec(String),
    #[error("nothing that is linked here takes {0}")]
    Unwanted(&'static str),
}
