// SPDX-License-Identifier: MPL-2.0
#![doc = "Rooms of many parties, by LiveKit's client protocol: who is there, who publishes what, who gets what.\n\n\
Sans-IO: knows no sockets, media or threads, and reads no clock. What clients say and what became of negotiations goes in \
([`Rooms::join`], [`Rooms::receive`], [`Rooms::negotiated`]); what is to be sent and what the media is to do comes out ([`Output`])."]
// What older clients still read and write.
#![allow(deprecated)]

mod claims;
mod hello;
mod limits;
mod media;
mod room;
mod rooms;
mod service;
mod sid;
pub mod wire;

pub use claims::{Keys, KeysError, Permit, Refused};
pub use hello::{First, Hello};
pub use limits::Limits;
pub use media::{
    Command, Expected, Found, Measured, Negotiated, Path, Section, Sound, StreamTrack, Wish,
};
pub use rooms::{Config, Connection, Output, Rooms};
pub use service::{Call, Fault, Form};
pub use sid::Sid;

pub use livekit_protocol as proto;
pub use livekit_token::VideoGrants;
