// SPDX-License-Identifier: MPL-2.0

//! RTCP with a publisher: its sender reports tell which moment each timestamp stands for; ours tell it what is missing,
//! what is needed, and how its packets arrive.
//!
//! Each datagram is a compound of its own that begins with a report and a name (RFC 3550, section 6.1): reduced sizes
//! (RFC 5506) are not agreed on.

use std::time::{Duration, Instant, SystemTime};

use super::arrivals::Arrivals;
use super::receiver::{Receiver, Receivers};
use crate::codec::TrackKind;
use crate::peer::sdp::LAYERS_IN_ALL;
use crate::rtcp::{self, Reporter, Rtcp};
use crate::transport::{SenderClock, TransportEvent, Work};

/// Between two receiver reports.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Octets of a compound after which another one begins, so that none is larger than a path carries.
const COMPOUND: usize = 900;
/// Streams that one report is on.
const BLOCKS: usize = 31;
/// Numbers that are asked for in one packet.
const NACK: usize = 64;
/// Sender reports that are heeded in one datagram: a peer has one for each layer and each sound.
const SENDER_REPORTS: usize = LAYERS_IN_ALL;
/// NTP counts from 1900, the system from 1970.
const UNIX_IN_NTP: i64 = 2_208_988_800;

/// What the peer is told, and when.
#[derive(Debug)]
pub(super) struct Control {
    /// Who we are in it.
    ssrc: u32,
    cname: String,
    report_due: Instant,
    pub(super) arrivals: Arrivals,
    /// What the peer is to be told that it may send, in bit/s.
    pub(super) limit: Option<u64>,
    /// Kept for their memory.
    lost: Vec<u16>,
    ssrcs: Vec<u32>,
}

impl Control {
    pub(super) fn new(now: Instant, ssrc: u32, cname: String) -> Self {
        Self {
            ssrc,
            cname,
            report_due: now + REPORT_EVERY,
            arrivals: Arrivals::new(now),
            limit: None,
            lost: Vec::new(),
            ssrcs: Vec::new(),
        }
    }

    /// A compound packet of the peer. Returns what it took.
    pub(super) fn receive(
        now: Instant,
        compound: &[u8],
        receivers: &mut Receivers,
        clocks: &mut Vec<SenderClock>,
    ) -> Work {
        let mut work = Work::REPORT;
        work.add(Work::OCTET.times(compound.len()));
        let mut heeded = 0;
        for packet in rtcp::packets(compound) {
            work.add(Work::PART);
            match packet {
                Ok(Rtcp::SenderReport { info, .. }) if heeded < SENDER_REPORTS => {
                    heeded += 1;
                    let mut all = receivers.iter_mut();
                    let found = all.find_map(|r| {
                        let (track, layer) = (r.track, r.layer);
                        let stream = r.stream.as_mut().filter(|s| s.ssrc == info.ssrc)?;
                        Some((track, layer, stream))
                    });
                    if let Some((track, layer, stream)) = found {
                        stream.told(now, &info);
                        clocks.push(SenderClock {
                            track,
                            layer,
                            source: info.ssrc,
                            timestamp: info.rtp_time,
                            ntp: system_time(info.ntp_time),
                        });
                    }
                }
                Ok(Rtcp::Bye { sources }) if heeded < SENDER_REPORTS => {
                    for source in sources {
                        heeded += 1;
                        receivers.iter_mut().for_each(|r| r.ended(source));
                    }
                }
                _ => {}
            }
        }
        work
    }

    /// When to [`write`](Self::write).
    pub(super) fn due(&self, receivers: &Receivers) -> Instant {
        let missing = receivers
            .iter()
            .filter_map(|r| r.stream.as_ref()?.missing.due());
        missing
            .chain(self.arrivals.due())
            .fold(self.report_due, Instant::min)
    }

    /// Writes what is due, a compound each. `begin` is called where a datagram begins, and with what it is to hold.
    pub(super) fn write(
        &mut self,
        now: Instant,
        receivers: &mut Receivers,
        events: &mut Vec<TransportEvent>,
        send: &mut dyn FnMut(&[u8]),
    ) {
        let mut compound = Vec::new();
        if self.report_due <= now {
            self.report_due = now + REPORT_EVERY;
            self.report(now, receivers, events, &mut compound);
        }
        for receiver in receivers.iter_mut() {
            self.ask(now, receiver, &mut compound);
            if compound.len() > COMPOUND {
                send(&compound);
                compound.clear();
            }
        }
        self.tell_limit(receivers, &mut compound);
        if !compound.is_empty() {
            send(&compound);
        }
        if self.arrivals.due().is_some_and(|due| due <= now) {
            compound.clear();
            self.begin(&mut compound);
            let media = receivers.iter().find_map(|r| r.stream.as_ref());
            let media = media.map_or(0, |s| s.ssrc);
            self.arrivals.report(now, &mut compound, self.ssrc, media);
            send(&compound);
        }
    }

    /// What each compound begins with, unless it has begun.
    fn begin(&self, compound: &mut Vec<u8>) {
        if compound.is_empty() {
            rtcp::write_receiver_report(compound, self.reporter(), &[]);
        }
    }

    fn reporter(&self) -> Reporter<'_> {
        Reporter {
            ssrc: self.ssrc,
            cname: &self.cname,
        }
    }

    fn report(
        &self,
        now: Instant,
        receivers: &mut Receivers,
        events: &mut Vec<TransportEvent>,
        compound: &mut Vec<u8>,
    ) {
        let mut blocks = Vec::new();
        let (mut expected, mut lost) = (0, 0);
        let (mut expected_pictures, mut lost_pictures) = (0, 0);
        for receiver in receivers.iter_mut() {
            let Some(stream) = &mut receiver.stream else {
                continue;
            };
            let (block, expected_now, lost_now) = stream.report(now);
            blocks.push(block);
            expected += expected_now;
            lost += lost_now;
            if receiver.kind == TrackKind::Video {
                expected_pictures += expected_now;
                lost_pictures += lost_now;
            }
        }
        if blocks.is_empty() {
            return;
        }
        for blocks in blocks.chunks(BLOCKS) {
            rtcp::write_receiver_report(compound, self.reporter(), blocks);
        }
        if expected > 0 {
            let share = |lost, expected| lost as f32 / expected as f32;
            events.push(TransportEvent::IngressLoss {
                pictures: (expected_pictures > 0).then(|| share(lost_pictures, expected_pictures)),
                all: share(lost, expected),
            });
        }
    }

    /// Asks for what is missing, and for a keyframe, as was agreed on.
    fn ask(&mut self, now: Instant, receiver: &mut Receiver, compound: &mut Vec<u8>) {
        let Some((ssrc, agreed)) = receiver.feedback() else {
            return;
        };
        if let Some(stream) = &mut receiver.stream
            && stream.missing.due().is_some_and(|due| due <= now)
        {
            self.lost.clear();
            stream.missing.ask(now, NACK, &mut self.lost);
            if !self.lost.is_empty() {
                self.begin(compound);
                rtcp::write_nack(compound, self.ssrc, ssrc, &self.lost, NACK);
            }
        }
        if !std::mem::take(&mut receiver.wants_keyframe) {
            return;
        }
        if agreed.pli {
            self.begin(compound);
            rtcp::write_pli(compound, self.ssrc, ssrc);
        } else if agreed.fir {
            self.begin(compound);
            rtcp::write_fir(compound, self.ssrc, ssrc, receiver.commands);
            receiver.commands = receiver.commands.wrapping_add(1);
        }
    }

    fn tell_limit(&mut self, receivers: &Receivers, compound: &mut Vec<u8>) {
        let Some(limit) = self.limit else {
            return;
        };
        self.ssrcs.clear();
        let takes = receivers
            .iter()
            .filter_map(Receiver::feedback)
            .filter(|(_, agreed)| agreed.remb);
        self.ssrcs.extend(takes.map(|(ssrc, _)| ssrc));
        if self.ssrcs.is_empty() {
            return;
        }
        self.limit = None;
        self.begin(compound);
        rtcp::write_remb(compound, self.ssrc, limit, &self.ssrcs);
    }
}

/// The moment of an NTP time, which only other times of the same clock are compared with.
fn system_time(ntp: u64) -> SystemTime {
    let seconds = (ntp >> 32) as i64 - UNIX_IN_NTP;
    let nanos = ((ntp & 0xffff_ffff) * 1_000_000_000) >> 32;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = match seconds >= 0 {
        true => SystemTime::UNIX_EPOCH.checked_add(whole),
        false => SystemTime::UNIX_EPOCH.checked_sub(whole),
    };
    base.unwrap_or(SystemTime::UNIX_EPOCH) + Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_any_clock_are_read_a_fraction_and_all() {
        for (ntp, expected) in [
            (2_208_988_800u64 << 32, 0.0),
            (2_208_988_801 << 32 | 1 << 31, 1.5),
            (2_208_988_799 << 32 | 1 << 31, -0.5),
            (0, -2_208_988_800.0),
            (u64::MAX, 2_085_978_496.0),
        ] {
            let time = system_time(ntp);
            let since = match time.duration_since(SystemTime::UNIX_EPOCH) {
                Ok(later) => later.as_secs_f64(),
                Err(earlier) => -earlier.duration().as_secs_f64(),
            };
            assert!((since - expected).abs() < 0.001, "{ntp:x}: {since}");
        }
    }
}
