// SPDX-License-Identifier: MPL-2.0

//! What the end-to-end tests share: the server under test, browsers, the NDI sender, publishers, and network namespaces.

pub mod access;
pub mod browser;
pub mod hls;
pub mod load;
pub mod lossy;
pub mod ndi;
pub mod netns;
pub mod publisher;
pub mod rtmp;
pub mod server;
