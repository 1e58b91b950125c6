// SPDX-License-Identifier: MPL-2.0

//! Which packets a pad gets: those of one layer, numbered without a break, each beginning at a keyframe.

use sfu_engine::packet::Packet;

/// What becomes of a packet that goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passed {
    /// Its sequence number.
    pub(super) seq: u16,
    /// It begins something new.
    pub(super) begins: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Feed {
    layer: Option<usize>,
    target: Option<usize>,
    /// The first packet's number as it came, and as it went.
    base: (u64, u64),
    next: u64,
}

impl Feed {
    /// The layer that goes out.
    pub(super) fn layer(&self) -> Option<usize> {
        self.layer
    }

    /// The layer that is to go out, and whose keyframe is waited for.
    pub(super) fn target(&self) -> Option<usize> {
        self.target
    }

    /// Begins with this layer at its next keyframe; until then the present one goes on. Returns whether that is news.
    pub(super) fn aim(&mut self, layer: usize) -> bool {
        let target = (self.layer != Some(layer)).then_some(layer);
        let news = target.is_some() && self.target != target;
        self.target = target;
        news
    }

    /// Something is missing, or everything is different: nothing goes out before a keyframe.
    pub(super) fn reset(&mut self) {
        self.layer = None;
        self.target = None;
    }

    /// Whether the packet goes out.
    pub(super) fn take(&mut self, layer: usize, packet: &Packet) -> Option<Passed> {
        let begins = self.target == Some(layer) && packet.begins_layer();
        if begins {
            self.layer = self.target.take();
            self.base = (packet.seq, self.next);
        }
        if self.layer != Some(layer) {
            return None;
        }
        // What is before the keyframe came too late.
        let seq = self.base.1 + packet.seq.checked_sub(self.base.0)?;
        self.next = self.next.max(seq + 1);
        Some(Passed {
            seq: seq as u16,
            begins,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use sfu_engine::temporal::Temporal;

    fn packet(seq: u64, keyframe_start: bool) -> Packet {
        Packet {
            seq,
            timestamp: 0,
            captured: Instant::now(),
            marker: true,
            keyframe_start,
            vp8: None,
            temporal: Temporal::default(),
            payload: [0; 4].into(),
            red: None,
            from_above: 0,
            descriptor: None,
        }
    }

    #[test]
    fn numbers_go_on_over_layers_and_publishers() {
        let mut feed = Feed::default();
        let take = |feed: &mut Feed, layer, seq, key| {
            let passed = feed.take(layer, &packet(seq, key));
            passed.map(|p| (p.seq, p.begins))
        };
        assert!(feed.aim(0));
        assert!(!feed.aim(0), "asked already");
        assert_eq!(take(&mut feed, 0, 70_000, false), None, "no keyframe yet");
        assert_eq!(take(&mut feed, 0, 70_001, true), Some((0, true)));
        assert_eq!(take(&mut feed, 0, 70_003, false), Some((2, false)));
        assert_eq!(take(&mut feed, 0, 70_002, false), Some((1, false)), "late");
        assert_eq!(take(&mut feed, 0, 70_000, false), None, "before the start");
        assert!(feed.aim(1));
        assert_eq!(take(&mut feed, 1, 9, false), None);
        assert_eq!(take(&mut feed, 0, 70_004, true), Some((3, false)));
        assert_eq!(take(&mut feed, 1, 10, true), Some((4, true)));
        assert_eq!(take(&mut feed, 0, 70_005, true), None, "the old layer");
        feed.reset();
        assert_eq!(take(&mut feed, 1, 11, true), None);
        assert!(feed.aim(1));
        assert_eq!(take(&mut feed, 1, 500, true), Some((5, true)));
    }
}
