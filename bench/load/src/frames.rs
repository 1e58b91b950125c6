// SPDX-License-Identifier: MPL-2.0

//! Checks that packets in order make whole frames that a decoder could take: first a keyframe with its parameter sets,
//! then frame after frame without a hole. Called by [`crate::reception`].

use crate::h264;
use crate::sdp::Codec;

/// What is known of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Piece {
    pub timestamp: u32,
    pub marker: bool,
    /// A keyframe begins: a sequence parameter set, or a VP8 key picture.
    pub begins_key: bool,
    pub has_pps: bool,
    pub has_idr: bool,
    /// Nothing but padding.
    pub empty: bool,
    /// The payload breaks its format.
    pub broken: bool,
}

impl Piece {
    /// Adds what a decrypted payload tells.
    pub fn look(&mut self, codec: Codec, payload: &[u8]) {
        self.empty = payload.is_empty();
        if self.empty {
            return;
        }
        match codec {
            Codec::H264 => match h264::inspect(payload) {
                Some(holds) => {
                    self.begins_key = holds.sps;
                    self.has_pps = holds.pps;
                    self.has_idr = holds.idr;
                }
                None => self.broken = true,
            },
            Codec::Vp8 => {
                let key = vp8_begins_key(payload);
                self.broken = key.is_none();
                let key = key.unwrap_or_default();
                (self.begins_key, self.has_pps, self.has_idr) = (key, key, key);
            }
            _ => {}
        }
    }
}

/// Whether a VP8 payload (RFC 7741) begins a key picture.
fn vp8_begins_key(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let mut len = 1;
    if first & 0x80 != 0 {
        let extensions = *payload.get(1)?;
        len += 1;
        if extensions & 0x80 != 0 {
            len += if payload.get(len)? & 0x80 != 0 { 2 } else { 1 };
        }
        len += usize::from(extensions & 0x40 != 0) + usize::from(extensions & 0x30 != 0);
    }
    let begins = first & 0x10 != 0 && first & 0x0f == 0;
    Some(begins && payload.get(len)? & 1 == 0)
}

/// The frame that is being put together.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    timestamp: u32,
    key: bool,
    pps: bool,
    idr: bool,
    broken: bool,
    packets: u32,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Frames {
    open: Option<Open>,
    /// A keyframe has been whole, and nothing was missing since.
    playing: bool,
    /// The size of the first keyframe: what has half as many packets is one, too, where nobody looks into it.
    key_packets: Option<u32>,
    /// The timestamp of a keyframe that was whole of late, for who wants to know.
    pub key_ended: Option<u32>,
    pub whole: u64,
    /// Frames that ended without a marker, or broke their format.
    pub broken: u64,
}

impl Frames {
    /// Whether a keyframe is waited for: payloads must be looked into.
    pub fn wants_keyframe(&self) -> bool {
        !self.playing
    }

    /// Something is missing for good: only a keyframe helps.
    pub fn interrupt(&mut self) {
        self.playing = false;
        self.open = None;
    }

    /// Takes the next packet in order. Returns whether it completed a frame that can be shown.
    pub fn take(&mut self, piece: &Piece) -> bool {
        if piece.empty {
            return false;
        }
        if self
            .open
            .is_some_and(|open| open.timestamp != piece.timestamp)
        {
            self.broken += u64::from(self.playing);
            self.open = None;
        }
        let open = self.open.get_or_insert(Open {
            timestamp: piece.timestamp,
            key: piece.begins_key,
            ..Open::default()
        });
        open.packets += 1;
        open.pps |= piece.has_pps;
        open.idr |= piece.has_idr;
        open.broken |= piece.broken;
        if !piece.marker {
            return false;
        }
        let Some(frame) = self.open.take() else {
            return false;
        };
        if frame.broken {
            self.broken += 1;
            return false;
        }
        let key = frame.key && frame.pps && frame.idr;
        self.playing |= key;
        if key {
            self.key_packets.get_or_insert(frame.packets);
        }
        let large = self
            .key_packets
            .is_some_and(|k| frame.packets * 2 > k.max(4));
        if key || self.playing && large {
            self.key_ended = Some(frame.timestamp);
        }
        self.whole += u64::from(self.playing);
        self.playing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(timestamp: u32, marker: bool, payload: &[u8]) -> Piece {
        let mut piece = Piece {
            timestamp,
            marker,
            ..Piece::default()
        };
        piece.look(Codec::H264, payload);
        piece
    }

    #[test]
    fn a_picture_needs_a_whole_keyframe_first() {
        let mut frames = Frames::default();
        assert!(!frames.take(&piece(1, true, &[0x61, 1])), "no keyframe");
        assert!(
            !frames.take(&piece(2, true, &[0x65, 1])),
            "no parameter sets"
        );
        let stap = [24, 0, 2, 0x67, 1, 0, 2, 0x68, 1];
        assert!(!frames.take(&piece(3, false, &stap)));
        assert!(frames.take(&piece(3, true, &[0x65, 1])));
        assert!(!frames.wants_keyframe());
        assert!(!frames.take(&piece(4, false, &[0x61, 1])), "without an end");
        assert!(frames.take(&piece(5, true, &[0x61, 1])));
        assert_eq!((frames.whole, frames.broken), (2, 1));
        assert!(!frames.take(&piece(5, false, &[])), "padding");
        assert_eq!(frames.key_ended, Some(3), "others are too small");
        frames.interrupt();
        assert!(!frames.take(&piece(6, true, &[0x61, 1])));
    }

    #[test]
    fn vp8_key_pictures() {
        assert_eq!(vp8_begins_key(&[0x10, 0x00]), Some(true));
        assert_eq!(vp8_begins_key(&[0x10, 0x01]), Some(false));
        assert_eq!(
            vp8_begins_key(&[0x90, 0xe0, 0x81, 2, 3, 4, 0x00]),
            Some(true)
        );
        assert_eq!(vp8_begins_key(&[0x00, 0x00]), Some(false));
        assert_eq!(vp8_begins_key(&[0x90]), None);
    }
}
