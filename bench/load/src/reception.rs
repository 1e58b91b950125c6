// SPDX-License-Identifier: MPL-2.0

//! One incoming RTP stream: puts packets in order, finds gaps, asks for them (NACK, RFC 4585), and reports (RFC 3550).
//! Called by [`crate::viewer`] for each packet; allocates nothing for one that comes in order.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};

use crate::frames::{Frames, Piece};

/// Packets that may wait for an earlier one.
const RING: usize = 512;
/// A gap is given up for lost after this.
const DEADLINE: Duration = Duration::from_millis(1_000);
/// A gap may be disorder: the first request waits a little.
const FIRST_NACK: Duration = Duration::from_millis(10);
const NEXT_NACK: Duration = Duration::from_millis(80);
const MAX_NACKS: u8 = 10;
/// Between two requests for a keyframe.
const PLI_INTERVAL: Duration = Duration::from_millis(1_000);

#[derive(Debug, Clone, Copy)]
struct Missing {
    seq: u64,
    since: Instant,
    next_nack: Instant,
    nacks: u8,
}

/// What a viewer counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that came, without retransmissions.
    pub packets: u64,
    /// Packets that did not come in their turn.
    pub lost: u64,
    /// Of these, those that came later.
    pub repaired: u64,
    /// Of these, those that never came.
    pub unrepaired: u64,
    pub nacks: u64,
    pub plis: u64,
}

/// See the module's description.
#[derive(Debug)]
pub struct Reception {
    pub ssrc: u32,
    pub counts: Counts,
    pub frames: Frames,
    ring: Box<[Option<(u64, Piece)>]>,
    /// The next number in order.
    next: u64,
    highest: u64,
    first: u64,
    missing: Vec<Missing>,
    /// For reports.
    clock_rate: u32,
    transit: Option<i64>,
    jitter: f64,
    reported: (u64, u64),
    sender_report: Option<(u32, Instant)>,
    pli_at: Option<Instant>,
}

impl Reception {
    /// A stream that begins with this packet.
    pub fn new(ssrc: u32, seq: u16, clock_rate: u32) -> Self {
        // One round ahead, so that nothing earlier is below zero.
        let first = u64::from(seq) + 65_536;
        Self {
            ssrc,
            counts: Counts::default(),
            frames: Frames::default(),
            ring: vec![None; RING].into(),
            next: first,
            highest: first - 1,
            first,
            missing: Vec::new(),
            clock_rate,
            transit: None,
            jitter: 0.0,
            reported: (0, 0),
            sender_report: None,
            pli_at: None,
        }
    }

    /// The whole number of a packet with this one.
    pub fn extend(&self, seq: u16) -> u64 {
        crate::rtp::extend(seq, self.highest)
    }

    /// Takes a packet. Returns whether it completed a frame that can be shown.
    pub fn take(
        &mut self,
        seq: u64,
        piece: Piece,
        retransmitted: bool,
        now: Instant,
        now_ns: u64,
    ) -> bool {
        if !retransmitted {
            self.counts.packets += 1;
            self.note_jitter(piece.timestamp, now_ns);
        }
        if seq < self.next {
            return false;
        }
        if seq > self.highest {
            self.note_gap(seq, now);
            self.highest = seq;
        } else if let Some(at) = self.missing.iter().position(|m| m.seq == seq) {
            self.missing.remove(at);
            self.counts.repaired += 1;
        } else {
            return false;
        }
        self.ring[seq as usize % RING] = Some((seq, piece));
        self.advance()
    }

    fn note_gap(&mut self, seq: u64, now: Instant) {
        let gap = seq - self.highest - 1;
        self.counts.lost += gap;
        if seq - self.next >= RING as u64 {
            // So far ahead that nothing before it can be kept.
            self.counts.unrepaired += gap + self.missing.len() as u64;
            self.missing.clear();
            self.next = seq;
            self.frames.interrupt();
            return;
        }
        for seq in self.highest + 1..seq {
            self.missing.push(Missing {
                seq,
                since: now,
                next_nack: now + FIRST_NACK,
                nacks: 0,
            });
        }
    }

    fn advance(&mut self) -> bool {
        let mut shown = false;
        while let Some((seq, piece)) = &self.ring[self.next as usize % RING]
            && *seq == self.next
        {
            shown |= self.frames.take(piece);
            self.next += 1;
        }
        shown
    }

    fn note_jitter(&mut self, timestamp: u32, now_ns: u64) {
        let arrival = (u128::from(now_ns) * u128::from(self.clock_rate) / 1_000_000_000) as i64;
        let transit = i64::from((arrival as u32).wrapping_sub(timestamp) as i32);
        if let Some(last) = self.transit {
            let difference = i64::from((transit as i32).wrapping_sub(last as i32)).abs();
            self.jitter += (difference as f64 - self.jitter) / 16.0;
        }
        self.transit = Some(transit);
    }

    /// Requests for what is missing and due, and gives up what is too old.
    pub fn poll(
        &mut self,
        our_ssrc: u32,
        nack: bool,
        now: Instant,
        out: &mut Vec<Box<dyn rtc_rtcp::Packet>>,
    ) {
        if self.missing.is_empty() {
            return;
        }
        let expired = self
            .missing
            .iter()
            .take_while(|m| now - m.since > DEADLINE)
            .count();
        let last = self.missing.drain(..expired).next_back();
        if let Some(last) = last {
            self.counts.unrepaired += expired as u64;
            self.frames.interrupt();
            self.next = last.seq + 1;
            self.advance();
        }
        let mut wanted = Vec::new();
        for missing in &mut self.missing {
            if nack && missing.next_nack <= now && missing.nacks < MAX_NACKS {
                missing.nacks += 1;
                missing.next_nack = now + NEXT_NACK;
                wanted.push(missing.seq as u16);
            }
        }
        if !wanted.is_empty() {
            self.counts.nacks += 1;
            out.push(Box::new(TransportLayerNack {
                sender_ssrc: our_ssrc,
                media_ssrc: self.ssrc,
                nacks: nack_pairs_from_sequence_numbers(&wanted),
            }));
        }
    }

    /// A request for a keyframe, where one is needed and not asked for of late.
    pub fn picture_loss(
        &mut self,
        our_ssrc: u32,
        now: Instant,
    ) -> Option<Box<dyn rtc_rtcp::Packet>> {
        if !self.frames.wants_keyframe() {
            self.pli_at = None;
            return None;
        }
        // At first the keyframe may be under way.
        let at = *self.pli_at.get_or_insert(if self.frames.whole > 0 {
            now
        } else {
            now + PLI_INTERVAL / 2
        });
        if now < at {
            return None;
        }
        self.pli_at = Some(now + PLI_INTERVAL);
        self.counts.plis += 1;
        Some(Box::new(PictureLossIndication {
            sender_ssrc: our_ssrc,
            media_ssrc: self.ssrc,
        }))
    }

    /// Notes a sender's report, by the middle of its NTP time.
    pub fn sender_report(&mut self, ntp: u64, now: Instant) {
        self.sender_report = Some(((ntp >> 16) as u32, now));
    }

    /// A receiver report since the last one.
    pub fn report(&mut self, our_ssrc: u32, now: Instant) -> ReceiverReport {
        let expected = self.highest + 1 - self.first;
        let received = self.counts.packets;
        let (expected_before, received_before) = self.reported;
        let new = (expected - expected_before.min(expected)) as i64;
        let lost = new - (received - received_before) as i64;
        self.reported = (expected, received);
        let fraction = if new > 0 {
            (lost.max(0) * 256 / new).min(255)
        } else {
            0
        };
        let delay = self
            .sender_report
            .map_or(0, |(_, at)| ((now - at).as_secs_f64() * 65_536.0) as u32);
        ReceiverReport {
            ssrc: our_ssrc,
            reports: vec![ReceptionReport {
                ssrc: self.ssrc,
                fraction_lost: fraction as u8,
                total_lost: expected.saturating_sub(received).min(0x7f_ffff) as u32,
                last_sequence_number: (self.highest - 65_536) as u32,
                jitter: self.jitter as u32,
                last_sender_report: self.sender_report.map_or(0, |(middle, _)| middle),
                delay,
            }],
            profile_extensions: Bytes::new(),
        }
    }

    /// Packets that are missing at the end and were not given time to come.
    pub fn still_missing(&self) -> usize {
        self.missing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(timestamp: u32) -> Piece {
        Piece {
            timestamp,
            marker: true,
            begins_key: true,
            has_pps: true,
            has_idr: true,
            ..Piece::default()
        }
    }

    fn delta(timestamp: u32) -> Piece {
        Piece {
            timestamp,
            marker: true,
            ..Piece::default()
        }
    }

    #[test]
    fn a_gap_is_asked_for_and_repaired() {
        let start = Instant::now();
        let mut reception = Reception::new(7, 65_534, 90_000);
        let first = reception.extend(65_534);
        assert!(reception.take(first, key(1), false, start, 0));
        assert!(!reception.take(reception.extend(0), delta(3), false, start, 0));
        let mut out = Vec::new();
        reception.poll(1, true, start, &mut out);
        assert!(out.is_empty(), "it may only be disorder");
        reception.poll(1, true, start + FIRST_NACK, &mut out);
        let nack = out[0]
            .as_any()
            .downcast_ref::<TransportLayerNack>()
            .unwrap();
        assert_eq!(nack.nacks[0].packet_id, 65_535);
        assert!(reception.take(first + 1, delta(2), true, start, 0));
        assert_eq!((reception.counts.lost, reception.counts.repaired), (1, 1));
        assert_eq!(reception.frames.whole, 3);
        let report = reception.report(1, start);
        assert_eq!(
            (
                report.reports[0].total_lost,
                report.reports[0].last_sequence_number
            ),
            (1, 65_536)
        );
    }

    #[test]
    fn a_gap_that_stays_costs_the_picture_until_a_keyframe() {
        let start = Instant::now();
        let mut reception = Reception::new(7, 10, 90_000);
        let first = reception.extend(10);
        reception.take(first, key(1), false, start, 0);
        reception.take(first + 2, delta(3), false, start, 0);
        assert!(reception.picture_loss(1, start).is_none());
        let late = start + DEADLINE + Duration::from_millis(1);
        reception.poll(1, true, late, &mut Vec::new());
        assert_eq!(reception.counts.unrepaired, 1);
        assert!(reception.picture_loss(1, late).is_some());
        assert!(reception.picture_loss(1, late).is_none(), "not twice");
        assert!(!reception.take(first + 3, delta(4), false, late, 0));
        assert!(reception.take(first + 4, key(5), false, late, 0));
        assert!(
            reception.take(first + 9_000, key(6), false, late, 0),
            "a jump begins anew"
        );
        assert_eq!(reception.counts.unrepaired, 1 + 8_995);
    }
}
