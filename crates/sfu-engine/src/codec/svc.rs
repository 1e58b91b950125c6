// SPDX-License-Identifier: MPL-2.0

//! What codecs whose spatial layers share an SSRC (SVC) say of a frame's place among them: VP9 in its payload descriptor
//! ([`super::vp9`]), AV1 in a header extension ([`super::dependency`]).

/// Spatial layers that are told apart. The modes of browsers have three at most.
pub(crate) const MOST: usize = 4;

/// A frame's place among the spatial layers of its picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spatial {
    pub(crate) id: u8,
    /// The packet is the first one of its picture.
    pub(crate) begins_picture: bool,
    /// The packet is the last one of its frame.
    pub(crate) ends_frame: bool,
    /// By spatial layer: who decodes up to that one needs the frame.
    pub(crate) is_needed: [bool; MOST],
    /// The highest layer that is sent from here on, where that is told.
    pub(crate) highest: Option<u8>,
}

/// The spatial layers that a keyframe begins, from the lowest up, and their sizes where they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Structure {
    pub(crate) count: usize,
    pub(crate) sizes: [Option<(u32, u32)>; MOST],
}

impl Structure {
    /// Of streams that say nothing of spatial layers.
    pub(crate) const ONE: Self = Self {
        count: 1,
        sizes: [None; MOST],
    };
}
