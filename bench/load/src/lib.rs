// SPDX-License-Identifier: MPL-2.0

//! The load tool: plays many WHEP viewers and a WHIP publisher, or participants of a room, and measures what arrives.
//!
//! Viewers are lean on purpose: ICE, DTLS, SRTP and RTCP are real, but there is no jitter buffer and no decoder, and most
//! viewers leave payloads encrypted (see [`viewer`]).

pub mod args;
pub mod clock;
pub mod dtls;
pub mod frames;
pub mod generator;
pub mod h264;
pub mod ice;
pub mod janus;
pub mod join;
pub mod joins;
pub mod plain;
pub mod process;
pub mod proxy;
pub mod publish;
pub mod reception;
pub mod report;
pub mod room;
pub mod rtp;
pub mod run;
pub mod sdp;
pub mod srtp;
pub mod stats;
pub mod swarm;
pub mod twcc;
pub mod viewer;
