// SPDX-License-Identifier: MPL-2.0

//! Remembers which RTCP packets came: RFC 3711 section 3.3.2, a window of 64 for each sender.

/// Senders that are remembered. A viewer's reports come from as many as it has tracks, in practice from one to four.
pub(super) const SENDERS: usize = 16;
/// How far behind the newest a packet may come.
pub(super) const WINDOW: u32 = 64;

#[derive(Clone, Copy, Default)]
struct Sender {
    ssrc: u32,
    newest: u32,
    /// The newest is the lowest bit. Zero where nobody is remembered.
    seen: u64,
}

/// The senders, who wrote last first. The seventeenth takes the place of the one who was silent longest: only whoever has
/// the keys can be a sender, so the table cannot be flushed from outside, and a peer that goes through many SSRCs in a
/// long session keeps being heard.
#[derive(Default)]
pub(super) struct Replay {
    senders: [Sender; SENDERS],
}

impl Replay {
    fn find(&self, ssrc: u32) -> Option<usize> {
        self.senders
            .iter()
            .position(|sender| sender.seen != 0 && sender.ssrc == ssrc)
    }

    /// Whether a packet came before, or is too old to tell.
    pub(super) fn seen(&self, ssrc: u32, index: u32) -> bool {
        let Some(sender) = self.find(ssrc).map(|at| self.senders[at]) else {
            return false;
        };
        match sender.newest.checked_sub(index) {
            None => false,
            Some(age) => age >= WINDOW || sender.seen >> age & 1 == 1,
        }
    }

    /// Remembers a packet that was not [`seen`](Self::seen) and is authentic.
    pub(super) fn record(&mut self, ssrc: u32, index: u32) {
        let at = self.find(ssrc).unwrap_or_else(|| {
            self.senders[SENDERS - 1] = Sender {
                ssrc,
                newest: index,
                seen: 0,
            };
            SENDERS - 1
        });
        let sender = &mut self.senders[at];
        if let Some(age) = sender.newest.checked_sub(index) {
            sender.seen |= 1u64.checked_shl(age).unwrap_or(0);
        } else {
            let ahead = index - sender.newest;
            sender.seen = sender.seen.checked_shl(ahead).unwrap_or(0) | 1;
            sender.newest = index;
        }
        self.senders[..=at].rotate_right(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_index_passes_once_within_the_window() {
        let mut replay = Replay::default();
        for index in [0, 1, 5, 3, 70, 69, 7] {
            assert!(!replay.seen(1, index), "{index} is new");
            replay.record(1, index);
            assert!(replay.seen(1, index), "{index} came");
        }
        for old in 0..=6 {
            assert!(replay.seen(1, old), "{old} is behind the window");
        }
        assert!(!replay.seen(1, 8));
        assert!(!replay.seen(2, 70), "another sender counts for itself");
        replay.record(1, 0x7fff_ffff);
        assert!(replay.seen(1, 70));
        assert!(!replay.seen(1, 0x7fff_fffe));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_silent_longest() {
        let mut replay = Replay::default();
        for ssrc in 0..SENDERS as u32 {
            replay.record(ssrc, 9);
        }
        replay.record(0, 10);
        replay.record(99, 1);
        assert!(replay.seen(0, 9) && replay.seen(99, 1) && replay.seen(2, 9));
        assert!(!replay.seen(1, 9), "the longest silent made room");
    }
}
