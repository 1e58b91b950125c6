// SPDX-License-Identifier: MPL-2.0

//! Whether a stream's sound comes later than the picture that belongs to it, so that viewers have to keep the picture back.

use std::time::Duration;

use crate::codec::TrackKind;

/// Sound that is later than this is heard to be late (ITU-R BT.1359: 125 ms), and what it comes down to is forgiven.
const LATE: Duration = Duration::from_millis(100);
const FORGIVEN: Duration = Duration::from_millis(60);
/// Batches over which ages are smoothed: half a second or so.
const SMOOTH: u32 = 16;

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// How long ago what comes was captured, smoothed.
    picture: Option<Duration>,
    sound: Option<Duration>,
    lags: bool,
}

impl Lag {
    /// Media comes that was captured so long ago. Returns whether the answer has changed.
    pub(super) fn add(&mut self, kind: TrackKind, age: Duration) -> bool {
        let known = match kind {
            TrackKind::Video => &mut self.picture,
            TrackKind::Audio => &mut self.sound,
        };
        *known = Some(known.map_or(age, |known| (known * (SMOOTH - 1) + age) / SMOOTH));
        let (Some(picture), Some(sound)) = (self.picture, self.sound) else {
            return false;
        };
        let bound = if self.lags { FORGIVEN } else { LATE };
        let lags = sound > picture + bound;
        std::mem::replace(&mut self.lags, lags) != lags
    }

    pub(super) fn lags(&self) -> bool {
        self.lags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A second of both.
    fn second(lag: &mut Lag, picture: Duration, sound: Duration) -> usize {
        let mut changes = 0;
        for n in 0..30 {
            changes += usize::from(lag.add(TrackKind::Video, picture));
            // One is held up by a scheduler now and then.
            let sound = if n % 10 == 5 { sound + 80 * MS } else { sound };
            changes += usize::from(lag.add(TrackKind::Audio, sound));
        }
        changes
    }

    #[test]
    fn sound_that_is_heard_to_be_late_lags() {
        let mut lag = Lag::default();
        assert_eq!(second(&mut lag, 30 * MS, 50 * MS), 0);
        assert!(!lag.lags());
        assert_eq!(second(&mut lag, 30 * MS, 630 * MS), 1);
        assert!(lag.lags());
        // What it is not forgiven for.
        assert_eq!(second(&mut lag, 30 * MS, 130 * MS), 0);
        second(&mut lag, 30 * MS, 50 * MS);
        second(&mut lag, 30 * MS, 50 * MS);
        assert!(!lag.lags());
    }

    #[test]
    fn sound_alone_and_pictures_that_are_late_lag_behind_nothing() {
        let mut lag = Lag::default();
        for _ in 0..100 {
            assert!(!lag.add(TrackKind::Audio, 900 * MS));
        }
        assert_eq!(second(&mut lag, 900 * MS, 20 * MS), 0);
        assert!(!lag.lags());
    }
}
