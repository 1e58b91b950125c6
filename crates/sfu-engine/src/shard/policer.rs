// SPDX-License-Identifier: MPL-2.0

//! How much a publishing peer may send (`max-bitrate`): a token bucket over all its tracks. What has no room is dropped before
//! anything is decrypted, and only what was authentic takes room, so that nobody who writes the peer's address uses it up.
//!
//! It is also told to the peer as REMB (draft-alvestrand-rmcat-remb-03), which browsers obey beside arrival reports, so
//! that it meets those only who do not. Called by the session for each of the peer's packets; the time is an argument.

use std::time::{Duration, Instant};

/// What may come at once: keyframes of all layers leave a browser at up to 2.5 times its rate (libwebrtc's pacer).
const BURST: Duration = Duration::from_secs(1);
/// Who exceeds it for this long is ended. REMB is obeyed within a second or two. Not tuned.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing was dropped for this long: the peer keeps to it again.
const CALM: Duration = Duration::from_secs(3);
/// REMB may be lost, and holds until the next one.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// A browser that sends as much as it is told is not to be dropped for its headers: per mille of the limit.
const TOLD: u64 = 900;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Policer {
    bits_per_second: u64,
    /// Bits that may come now.
    room: f64,
    at: Instant,
    /// Since when, and when last, packets were dropped.
    over: Option<(Instant, Instant)>,
    told: Option<Instant>,
}

impl Policer {
    pub(super) fn new(now: Instant, bits_per_second: u64) -> Self {
        Self {
            bits_per_second,
            room: Self::most(bits_per_second),
            at: now,
            over: None,
            told: None,
        }
    }

    fn most(bits_per_second: u64) -> f64 {
        bits_per_second as f64 * BURST.as_secs_f64()
    }

    /// Whether a datagram with media may come in.
    pub(super) fn has_room(&mut self, now: Instant, octets: usize) -> bool {
        let span = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let rate = self.bits_per_second as f64;
        self.room = (self.room + rate * span).min(Self::most(self.bits_per_second));
        if octets as f64 * 8.0 <= self.room {
            return true;
        }
        let since = match self.over {
            Some((since, last)) if now.saturating_duration_since(last) < CALM => since,
            _ => now,
        };
        self.over = Some((since, now));
        false
    }

    /// A datagram with media came in, and is the peer's.
    pub(super) fn spend(&mut self, octets: usize) {
        self.room -= octets as f64 * 8.0;
    }

    /// Whether the peer has been over its limit for longer than can be forgiven.
    pub(super) fn is_exhausted(&self) -> bool {
        self.over
            .is_some_and(|(since, last)| last.saturating_duration_since(since) >= PATIENCE)
    }

    /// What the peer is told that it may send, in bit/s.
    pub(super) fn told(&self) -> u64 {
        self.bits_per_second / 1_000 * TOLD
    }

    /// The same, when it is time to tell it.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        let due = |at: Instant| now.saturating_duration_since(at) >= TELL_EVERY;
        if !self.told.is_none_or(due) {
            return None;
        }
        self.told = Some(now);
        Some(self.told())
    }
}

/// Whether a datagram is RTP, and no RTCP, STUN or DTLS (RFC 7983, and RFC 5761, section 4).
pub(super) fn is_rtp(datagram: &[u8]) -> bool {
    match datagram {
        [128..=191, kind, ..] => !(64..96).contains(&(kind & 0x7f)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIMIT: u64 = 8_000_000;

    fn takes(policer: &mut Policer, now: Instant, octets: usize) -> bool {
        let has_room = policer.has_room(now, octets);
        if has_room {
            policer.spend(octets);
        }
        has_room
    }

    #[test]
    fn what_is_not_authentic_takes_no_room() {
        let mut now = Instant::now();
        let mut policer = Policer::new(now, LIMIT);
        for _ in 0..60_000 {
            now += MS;
            for _ in 0..10 {
                assert!(policer.has_room(now, 1_500));
            }
            assert!(takes(&mut policer, now, 1_000));
        }
        assert!(!policer.is_exhausted());
    }

    /// A packet of 1,000 octets each `every`, for so many seconds: how many passed, how many did not, and whether that is
    /// too much.
    fn send(policer: &mut Policer, now: &mut Instant, every: Duration, seconds: u64) -> (u64, u64) {
        let end = *now + Duration::from_secs(seconds);
        let (mut passed, mut dropped) = (0, 0);
        while *now < end {
            *now += every;
            if takes(policer, *now, 1_000) {
                passed += 1;
            } else {
                dropped += 1;
            }
        }
        (passed, dropped)
    }

    #[test]
    fn what_is_below_the_limit_passes_and_so_do_bursts() {
        let mut now = Instant::now();
        let mut policer = Policer::new(now, LIMIT);
        assert_eq!(send(&mut policer, &mut now, MS, 60), (60_000, 0));
        now += BURST;
        // Half a second of three times the rate, each other second.
        for _ in 0..20 {
            let (_, dropped) = send(&mut policer, &mut now, MS / 3, 0);
            assert_eq!(dropped, 0);
            for _ in 0..1_000 {
                assert!(takes(&mut policer, now, 1_000));
            }
            now += BURST;
        }
        assert!(!policer.is_exhausted());
    }

    #[test]
    fn what_is_above_it_is_cut_to_it_and_ended_if_it_goes_on() {
        for factor in [2u32, 5, 100] {
            let mut now = Instant::now();
            let mut policer = Policer::new(now, LIMIT);
            let (passed, dropped) = send(&mut policer, &mut now, MS / factor, 5);
            assert!((5_900..6_100).contains(&passed), "{factor}: {passed}");
            assert!(dropped > 0 && !policer.is_exhausted(), "{factor}");
            send(&mut policer, &mut now, MS / factor, 8);
            assert!(policer.is_exhausted(), "{factor}");
        }
    }

    #[test]
    fn who_keeps_to_it_again_is_forgiven() {
        let mut now = Instant::now();
        let mut policer = Policer::new(now, LIMIT);
        for _ in 0..10 {
            let (_, dropped) = send(&mut policer, &mut now, MS / 2, 6);
            assert!(dropped > 0);
            now += CALM;
            assert!(!policer.is_exhausted());
        }
    }

    #[test]
    fn it_is_told_in_time_and_a_little_below() {
        let mut now = Instant::now();
        let mut policer = Policer::new(now, LIMIT);
        assert_eq!(policer.poll(now), Some(7_200_000));
        now += TELL_EVERY - MS;
        assert_eq!(policer.poll(now), None);
        now += MS;
        assert_eq!(policer.poll(now), Some(7_200_000));
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_no_room() {
        let now = Instant::now();
        let mut policer = Policer::new(now, 8_000);
        assert!(takes(&mut policer, now, 1_000));
        assert!(!takes(&mut policer, now, 1));
        assert!(!takes(&mut policer, now - MS * 900, 1));
        assert!(takes(&mut policer, now + MS * 2, 1));
    }

    #[test]
    fn only_media_counts() {
        for (datagram, expected) in [
            (&[128u8, 96, 0, 0][..], true),
            (&[144, 224], true),
            (&[128, 200], false),
            (&[128, 205], false),
            (&[0, 1], false),
            (&[22, 254], false),
            (&[128], false),
            (&[], false),
        ] {
            assert_eq!(is_rtp(datagram), expected, "{datagram:?}");
        }
    }
}
