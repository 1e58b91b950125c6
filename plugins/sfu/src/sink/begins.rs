// SPDX-License-Identifier: MPL-2.0

//! Video that comes encoded and begins between keyframes: whoever encodes it is asked for one at once, and again until one has
//! come.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::properties::lock;

/// A parser keeps what it has no parameter sets for: then no frame comes out of it that could be looked at.
const WITHOUT: Duration = Duration::from_millis(200);
const AGAIN: Duration = Duration::from_secs(1);

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Begins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    seen: bool,
    first: Option<Instant>,
    asked: Option<Instant>,
}

impl Begins {
    /// The next run.
    pub(super) fn reset(&self) {
        *lock(&self.0) = State::default();
    }

    /// A keyframe has come.
    pub(super) fn keyframe(&self) {
        lock(&self.0).seen = true;
    }

    /// A frame comes, or a part of one. Returns whether a keyframe is to be asked for.
    fn frame(&self, now: Instant, delta: bool) -> bool {
        let mut state = lock(&self.0);
        if state.seen {
            return false;
        }
        let first = *state.first.get_or_insert(now);
        let lacks = delta || now.saturating_duration_since(first) >= WITHOUT;
        let asked = state.asked;
        let due = asked.is_none_or(|asked| now.saturating_duration_since(asked) >= AGAIN);
        if lacks && due {
            state.asked = Some(now);
        }
        lacks && due
    }

    /// Looks at what comes to a pad, and asks its upstream.
    pub(super) fn look(&self, pad: &gst::Pad, buffer: &gst::BufferRef) {
        let delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        if self.frame(Instant::now(), delta) {
            let event = gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true);
            pad.push_event(event.build());
        }
    }

    /// Looks for keyframes among what leaves a pad.
    pub(super) fn watch(self: &std::sync::Arc<Self>, pad: &gst::Pad) {
        let begins = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let delta = gst::BufferFlags::DELTA_UNIT;
            match info.buffer() {
                Some(buffer) if !buffer.flags().contains(delta) => {
                    begins.keyframe();
                    gst::PadProbeReturn::Remove
                }
                _ => gst::PadProbeReturn::Ok,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a keyframe is asked for, in ms, of frames each 40 ms of which this many are told to need others.
    fn asked(begins: &Begins, frames: std::ops::Range<u64>, delta: bool) -> Vec<u64> {
        let start = Instant::now();
        let times = frames.map(|n| n * 40);
        let at = |ms: &u64| begins.frame(start + Duration::from_millis(*ms), delta);
        times.filter(at).collect()
    }

    #[test]
    fn what_begins_between_keyframes_asks_at_once_and_again() {
        let begins = Begins::default();
        assert_eq!(asked(&begins, 0..60, true), [0, 1_000, 2_000]);
        begins.keyframe();
        assert!(asked(&begins, 0..60, true).is_empty());
        begins.reset();
        assert_eq!(asked(&begins, 0..10, true), [0]);
        // Where frames don't say what they are.
        begins.reset();
        assert_eq!(asked(&begins, 0..10, false), [200]);
    }
}
