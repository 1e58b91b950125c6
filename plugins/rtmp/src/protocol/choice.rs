// SPDX-License-Identifier: MPL-2.0
//! Which of several audio tracks goes on, for `rtmpserversrc/feed.rs`: the first (Enhanced RTMP v2 recommends track 0 as the
//! default), or, where nothing can be done with that, another one.

use super::flv::AudioFormat;

/// One publisher's. What was chosen stays, as long as it can be used.
#[derive(Debug, Default)]
pub(crate) struct Choice {
    chosen: u8,
    /// The chosen one can't be used, and no other one has come.
    refused: bool,
    /// Another one whose header has come: the first by its number.
    other: Option<(u8, AudioFormat)>,
}

impl Choice {
    pub(crate) fn chosen(&self) -> u8 {
        self.chosen
    }

    /// The header of a track that is not the chosen one. Returns whether it is from now on.
    pub(crate) fn offer(&mut self, track: u8, format: AudioFormat) -> bool {
        if self.refused {
            self.choose(track);
            return true;
        }
        if self.other.as_ref().is_none_or(|(other, _)| track <= *other) {
            self.other = Some((track, format));
        }
        false
    }

    /// Nothing can be done with the chosen one. Returns what another one is by, which is chosen now.
    pub(crate) fn refuse(&mut self) -> Option<AudioFormat> {
        self.refused = true;
        let (track, format) = self.other.take()?;
        self.choose(track);
        Some(format)
    }

    /// The chosen one can be used.
    pub(crate) fn accept(&mut self) {
        self.refused = false;
    }

    fn choose(&mut self, track: u8) {
        self.chosen = track;
        self.refused = false;
        self.other = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPUS: AudioFormat = AudioFormat::Opus { channels: 2 };
    const MONO: AudioFormat = AudioFormat::Opus { channels: 1 };

    #[test]
    fn another_track_is_chosen_when_the_first_is_refused_and_stays() {
        // Its header comes after that.
        let mut choice = Choice::default();
        assert_eq!(choice.refuse(), None);
        assert!(choice.offer(2, OPUS));
        assert!(!choice.offer(1, MONO));
        assert_eq!(choice.chosen(), 2);
        // Before, in any order.
        for order in [[(1, MONO), (2, OPUS)], [(2, OPUS), (1, MONO)]] {
            let mut choice = Choice::default();
            for (track, format) in order {
                assert!(!choice.offer(track, format));
            }
            assert_eq!((choice.refuse(), choice.chosen()), (Some(MONO), 1));
        }
        // The last one that it had.
        let mut choice = Choice::default();
        assert!(!choice.offer(1, MONO) && !choice.offer(1, OPUS));
        assert_eq!(choice.refuse(), Some(OPUS));
    }

    #[test]
    fn the_first_goes_on_once_it_can_be_used() {
        let mut choice = Choice::default();
        assert_eq!(choice.refuse(), None);
        choice.accept();
        assert!(!choice.offer(1, OPUS));
        assert_eq!(choice.chosen(), 0);
    }
}
