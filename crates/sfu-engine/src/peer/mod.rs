// SPDX-License-Identifier: MPL-2.0

//! One WebRTC connection, by what it carries. Called by the shard through the interfaces in [`transport`](crate::transport).

// Until publishers' sessions are its.
#[allow(dead_code)]
pub(crate) mod uplink;
