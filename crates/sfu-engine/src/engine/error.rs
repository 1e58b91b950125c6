// SPDX-License-Identifier: MPL-2.0

//! Why the engine does not start, turns somebody away, or does not change a session: in sentences that say what to do.

use std::net::IpAddr;

use thiserror::Error;

use super::admission::Full;
use crate::ids::{Rid, StreamName};
use crate::transport::negotiate::OfferError;

/// Why the engine could not start.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A port could not be had.
    #[error(
        "UDP port {port} on {address} can't be used: {source}. Choose another udp-port, or stop what uses it"
    )]
    Bind {
        /// The address that was tried.
        address: IpAddr,
        /// The port that was tried.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// More shards than there are ports above the first one.
    #[error("{shards} shards don't fit above UDP port {port}: choose a lower udp-port")]
    Ports {
        /// The first port.
        port: u16,
        /// How many are wanted.
        shards: usize,
    },
    /// The same of the ports that are told.
    #[error(
        "announce-address: {shards} shards don't fit above port {port}: choose a lower one, or fewer shards"
    )]
    AnnouncedPorts {
        /// The first shard's port.
        port: u16,
        /// How many there are.
        shards: usize,
    },
    /// The certificate could not be made.
    #[error("{0}")]
    Certificate(OfferError),
    /// A thread or a socket could not be set up.
    #[error("a shard could not be started: {0}")]
    Thread(std::io::Error),
}

/// Why a viewer was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SubscribeError {
    /// Nobody publishes it.
    #[error("there is no stream {0:?}; the live ones are listed at /")]
    UnknownStream(StreamName),
    /// It is published but has sent nothing yet.
    #[error("stream {0:?} has not begun to send; try again in a second")]
    NotReady(StreamName),
    /// The stream has no such layer.
    #[error("stream {stream:?} has no layer {layer:?}; it has {}", list(.layers))]
    UnknownLayer {
        /// The stream.
        stream: StreamName,
        /// What was asked for.
        layer: Rid,
        /// What there is.
        layers: Vec<Rid>,
    },
    /// The offer is not one.
    #[error("{0}")]
    InvalidOffer(String),
    /// The offer asks for what is not done, or for too much.
    #[error("{0}")]
    UnacceptableOffer(String),
    /// Nothing in the offer can play the stream.
    #[error("{0}")]
    NoCommonCodec(String),
    /// The shards are behind, or stopping.
    #[error("the server is too busy to take another viewer; try again in a second")]
    Busy,
    /// There are as many sessions as there may be.
    #[error("{0}")]
    Full(#[from] Full),
}

/// Why a publishing peer was turned away.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishRefused {
    /// There is one publisher a stream.
    #[error(
        "stream {0:?} already has a publisher: choose another name, stop it, or take over with ?takeover=1 (possible where it came by WHIP, too)"
    )]
    InUse(StreamName),
    /// The offer is not one.
    #[error("{0}")]
    InvalidOffer(String),
    /// The offer asks for what is not done, or for too much.
    #[error("{0}")]
    UnacceptableOffer(String),
    /// Nothing in the offer can be forwarded.
    #[error("{0}")]
    NoCommonCodec(String),
    /// The shards are behind, or stopping.
    #[error("the server is too busy to take another publisher; try again in a second")]
    Busy,
    /// There are as many sessions as there may be.
    #[error("{0}")]
    Full(#[from] Full),
}

/// Why a session was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SessionError {
    /// It never was, or is over.
    #[error("there is no such session; it may have ended")]
    Unknown,
    /// The stream has no such layer.
    #[error("the stream has no layer {layer:?}; it has {}", list(.layers))]
    UnknownLayer {
        /// What was asked for.
        layer: Rid,
        /// What there is.
        layers: Vec<Rid>,
    },
    /// The SDP fragment is not one.
    #[error("{0}")]
    InvalidFragment(String),
    /// The shard is gone.
    #[error("the server is stopping")]
    Stopped,
    /// So much waits for the shard that there is no room.
    #[error("the server is behind; try again in a second")]
    Busy,
}

impl From<OfferError> for PublishRefused {
    fn from(error: OfferError) -> Self {
        match error {
            OfferError::Invalid(_) => Self::InvalidOffer(error.to_string()),
            OfferError::Unacceptable(_) => Self::UnacceptableOffer(error.to_string()),
            OfferError::NoCommonCodec(why) => Self::NoCommonCodec(why),
        }
    }
}

impl From<OfferError> for SubscribeError {
    fn from(error: OfferError) -> Self {
        match error {
            OfferError::Invalid(_) => Self::InvalidOffer(error.to_string()),
            OfferError::Unacceptable(_) => Self::UnacceptableOffer(error.to_string()),
            OfferError::NoCommonCodec(why) => Self::NoCommonCodec(why),
        }
    }
}

fn list(rids: &[Rid]) -> String {
    if rids.is_empty() {
        return "none".into();
    }
    let names: Vec<_> = rids.iter().map(Rid::as_str).collect();
    names.join(", ")
}
