// SPDX-License-Identifier: MPL-2.0

//! RTCP with a viewer: its reports become events and estimates, ours tell it which moment each timestamp stands for.

use std::time::{Duration, Instant, SystemTime};

use super::super::TransportEvent;
use super::super::negotiate::WallClock;
use super::super::work::Work;
use super::asked::Answer;
use super::media::Media;
use crate::codec::TrackKind;
use crate::estimate::Estimator;
use crate::rtcp::{self, FirEntries, LostPackets, ReportBlock, ReportBlocks, Rtcp, SenderReport};

/// Between two sender reports of a stream.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// NTP counts from 1900, the system from 1970.
const UNIX_IN_NTP: u64 = 2_208_988_800;
/// A round trip that is longer is a mistake in the report.
const LONGEST_TRIP: Duration = Duration::from_secs(60);

/// Numbers of one datagram that are looked up: far more than the budget for packets that are sent again has room for at
/// once. libwebrtc keeps a list of 1,000 that are missing (`kMaxNackPackets`), and asks for the others again.
const LOST_AT_ONCE: usize = 400;

/// What a viewer's datagram says in all, however often it says so.
#[derive(Debug, Default)]
struct Heard {
    work: Work,
    /// The last block about pictures that were sent for the first time, and what all of these count as lost.
    block: Option<ReportBlock>,
    blocks: u32,
    fractions_lost: u32,
    remb: Option<u64>,
    wants_keyframe: bool,
    lost: usize,
}

/// A compound packet of the viewer. Events are appended to `events`. Returns what it took.
///
/// Bounded by the octets, by what was sent and not yet spoken of, and by [`LOST_AT_ONCE`]: no lock is taken, and nothing
/// concluded, once per packet of the compound.
pub(super) fn receive(
    now: Instant,
    wall: SystemTime,
    compound: &[u8],
    media: &mut Media,
    estimator: &mut dyn Estimator,
    events: &mut Vec<TransportEvent>,
) -> Work {
    let mut heard = Heard {
        work: Work::REPORT,
        ..Heard::default()
    };
    heard.work.add(Work::OCTET.times(compound.len()));
    for packet in rtcp::packets(compound) {
        heard.work.add(Work::PART);
        match packet {
            Ok(Rtcp::ReceiverReport { blocks } | Rtcp::SenderReport { blocks, .. }) => {
                heard.blocks(blocks, media);
            }
            Ok(Rtcp::Nack { media_ssrc, lost }) => heard.nack(now, media_ssrc, lost, media, events),
            Ok(Rtcp::Pli { media_ssrc }) => {
                let track = media.track(media_ssrc);
                if let Some(track) = track.filter(|t| t.kind == TrackKind::Video) {
                    track.wants_keyframe = true;
                    heard.wants_keyframe = true;
                }
            }
            Ok(Rtcp::Fir { entries }) => heard.fir(entries, media),
            Ok(Rtcp::Remb { bitrate }) => heard.remb = Some(bitrate),
            _ => {}
        }
    }
    heard.arrivals(now, compound, estimator);
    heard.conclude(now, wall, media, estimator, events)
}

impl Heard {
    /// The viewer has received streams of ours.
    fn blocks(&mut self, blocks: ReportBlocks<'_>, media: &mut Media) {
        self.work.add(Work::PART.times(blocks.len()));
        for block in blocks {
            let Some(track) = media.track(block.ssrc) else {
                continue;
            };
            track.is_new = false;
            if track.kind == TrackKind::Video && track.ssrc == block.ssrc {
                self.block = Some(block);
                self.blocks += 1;
                self.fractions_lost += u32::from(block.fraction_lost);
            }
        }
    }

    /// Only video is sent again.
    fn nack(
        &mut self,
        now: Instant,
        media_ssrc: u32,
        lost: LostPackets<'_>,
        media: &mut Media,
        events: &mut Vec<TransportEvent>,
    ) {
        let Some(track) = media.track(media_ssrc) else {
            return;
        };
        let (slot, newest, has_sent) = (track.slot, track.newest, track.sent.packets > 0);
        let Some(asked) = track.asked.as_mut().filter(|_| has_sent) else {
            return;
        };
        asked.begin(now);
        let (mut numbers, before) = (0, self.lost);
        let mut unknown = false;
        for seq in lost {
            if self.lost == LOST_AT_ONCE {
                break;
            }
            numbers += 1;
            match asked.hear(newest, seq) {
                Answer::New(seq) => {
                    self.lost += 1;
                    events.push(TransportEvent::Lost { slot, seq });
                }
                Answer::Unknown => unknown = true,
                Answer::Repeated => {}
            }
        }
        if unknown {
            self.work.note_beyond();
        }
        self.work.add(Work::NUMBER.times(numbers));
        self.work.add(Work::LOST.times(self.lost - before));
    }

    /// A command of the same number is the last one, repeated (RFC 5104, section 4.3.1.1).
    fn fir(&mut self, entries: FirEntries<'_>, media: &mut Media) {
        for entry in entries {
            self.work.add(Work::PART);
            let track = media.track(entry.ssrc);
            if let Some(track) = track.filter(|t| t.kind == TrackKind::Video) {
                let last = track.commanded.replace(entry.sequence);
                if last != Some(entry.sequence) {
                    track.wants_keyframe = true;
                    self.wants_keyframe = true;
                }
            }
        }
    }

    /// All that the datagram says of arrivals, in one: what follows from them is concluded once.
    fn arrivals(&mut self, now: Instant, compound: &[u8], estimator: &mut dyn Estimator) {
        let sent = estimator.known();
        let room = self.work.room_for(Work::ENTRY);
        let mut reports = 0;
        let work = &mut self.work;
        let mut packets = rtcp::packets(compound)
            .filter_map(|packet| match packet {
                Ok(Rtcp::Twcc(report)) => Some(report),
                _ => None,
            })
            .inspect(|report| {
                reports += 1;
                if report.is_beyond(sent) {
                    work.note_beyond();
                }
            })
            .flat_map(|report| report.packets(sent))
            .take(room);
        let taken = estimator.report(now, &mut packets);
        self.work.add(Work::PART.times(reports));
        self.work.add(Work::ENTRY.times(taken));
    }

    fn conclude(
        mut self,
        now: Instant,
        wall: SystemTime,
        media: &mut Media,
        estimator: &mut dyn Estimator,
        events: &mut Vec<TransportEvent>,
    ) -> Work {
        if let Some(bitrate) = self.remb {
            estimator.remb(now, bitrate);
        }
        if let Some(block) = self.block {
            let rtt = round_trip(wall, &block);
            let loss = self.fractions_lost as f32 / self.blocks.max(1) as f32 / 256.0;
            estimator.receiver_report(now, loss, rtt);
            let again = media.tracks.iter();
            let again = again.map(|track| u64::from(track.sent_again.packets));
            events.push(TransportEvent::Report {
                rtt,
                loss: Some(loss),
                retransmitted: again.sum(),
            });
        }
        if self.wants_keyframe {
            self.work.add(Work::KEYFRAME);
            for track in &mut media.tracks {
                if std::mem::take(&mut track.wants_keyframe) {
                    events.push(TransportEvent::KeyframeRequest(track.slot));
                }
            }
        }
        self.work
    }
}

/// RFC 3550, section 6.4.1: now, less the time of the report that it answers, less the time that it took to answer.
fn round_trip(wall: SystemTime, block: &ReportBlock) -> Option<Duration> {
    if block.last_sender_report == 0 {
        return None;
    }
    let middle = (ntp(wall) >> 16) as u32;
    let units = middle
        .wrapping_sub(block.last_sender_report)
        .wrapping_sub(block.delay);
    // Clocks are read a little apart: what seems to be before its cause took no time.
    let units = if (units as i32) < 0 { 0 } else { units };
    let trip = Duration::from_secs_f64(f64::from(units) / 65_536.0);
    (trip < LONGEST_TRIP).then_some(trip)
}

/// Appends the sender reports of all streams that have begun.
pub(super) fn write_reports(buffer: &mut Vec<u8>, now: Instant, media: &Media, clock: WallClock) {
    for track in &media.tracks {
        let Some((timestamp, captured)) = track.sent.last else {
            continue;
        };
        // The report's two times are the same moment: now.
        let since = now.saturating_duration_since(captured).as_secs_f64();
        let again = track.rtx_ssrc.map(|ssrc| (ssrc, track.sent_again));
        for (ssrc, sent) in [Some((track.ssrc, track.sent)), again]
            .into_iter()
            .flatten()
        {
            let report = SenderReport {
                ssrc,
                ntp_time: ntp(clock.at(now)),
                rtp_time: timestamp.wrapping_add((since * f64::from(track.clock_rate())) as u32),
                packets: sent.packets,
                octets: sent.octets,
            };
            rtcp::write_sender_report(buffer, &report, &track.cname);
        }
    }
}

/// Seconds since 1900 in the upper half, their fraction in the lower (RFC 5905).
pub(crate) fn ntp(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs() + UNIX_IN_NTP) << 32 | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_round_trip_is_what_remains_of_the_time_since_the_report() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_250);
        let block = |sent: SystemTime, delay: u32| ReportBlock {
            ssrc: 1,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence: 0,
            jitter: 0,
            last_sender_report: (ntp(sent) >> 16) as u32,
            delay,
        };
        let sent = wall - Duration::from_millis(350);
        let trip = round_trip(wall, &block(sent, 65_536 / 4)).unwrap();
        assert!((99..=101).contains(&trip.as_millis()), "{trip:?}");
        let early = round_trip(wall, &block(wall, 10)).unwrap();
        assert_eq!(early, Duration::ZERO);
        let unknown = ReportBlock {
            last_sender_report: 0,
            ..block(sent, 0)
        };
        assert_eq!(round_trip(wall, &unknown), None);
    }
}
