// SPDX-License-Identifier: MPL-2.0
//! What the application is told of publishers who are turned away: not every encoder shows why.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::imp::lock;

/// For so long nothing more is told of a kind: strangers may come without end.
const PAUSE: Duration = Duration::from_secs(10);

/// A reason is shown up to here, in characters: a token may say what is wrong with it.
const LONGEST: usize = 200;

/// Why a publisher is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// By its app or key, or by the rules of access.
    Permission,
    /// Someone else publishes.
    Taken,
    /// It sends what can't be taken.
    Media,
    /// It goes on sending what is broken.
    Broken,
}

/// When the last one of each kind was told of.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<(Refusal, Instant)>>);

impl Told {
    /// A warning, unless one of its kind was told of just before.
    pub(super) fn now(
        &self,
        refusal: Refusal,
        from: &str,
        why: &str,
        now: Instant,
    ) -> Option<String> {
        let mut told = lock(&self.0);
        told.retain(|(_, then)| now.saturating_duration_since(*then) < PAUSE);
        if told.iter().any(|(other, _)| *other == refusal) {
            return None;
        }
        told.push((refusal, now));
        let todo = match refusal {
            Refusal::Permission => {
                " It publishes to rtmp://HOST:PORT/APP/KEY: the properties app and stream-key, or access, say who may."
            }
            Refusal::Taken => " Each encoder needs a rtmpserversrc of its own.",
            Refusal::Media | Refusal::Broken => "",
        };
        let printable = |c: char| if c.is_control() { '?' } else { c };
        let why: String = why.chars().take(LONGEST).map(printable).collect();
        let why = why.trim_end_matches('.');
        let pause = PAUSE.as_secs();
        Some(format!(
            "The RTMP publisher {from} is refused: {why}.{todo} Others that are refused for such a reason within {pause} s are in \
             the log alone (GST_DEBUG=rtmpserversrc:4)."
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_of_once_in_a_while() {
        let (told, began) = (Told::default(), Instant::now());
        let kinds = [
            Refusal::Permission,
            Refusal::Taken,
            Refusal::Media,
            Refusal::Broken,
        ];
        let at = |seconds| began + Duration::from_secs(seconds);
        for (seconds, is_told) in [(0, true), (0, false), (9, false), (10, true), (19, false)] {
            for kind in kinds {
                let warning = told.now(kind, "192.0.2.1:9", "Someone is there.", at(seconds));
                assert_eq!(warning.is_some(), is_told, "{kind:?} after {seconds} s");
                let starts = "The RTMP publisher 192.0.2.1:9 is refused: Someone is there.";
                assert!(warning.is_none_or(|warning| warning.starts_with(starts)));
            }
        }
    }
}
