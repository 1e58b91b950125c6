// SPDX-License-Identifier: MPL-2.0

//! One WebRTC connection, by what it carries. Called by the shard through the interfaces in [`transport`](crate::transport).

pub mod data;
pub(crate) mod duplex;
pub(crate) mod sdp;
pub(crate) mod uplink;
