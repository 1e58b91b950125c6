// SPDX-License-Identifier: MPL-2.0

//! RTCP with a viewer: its reports become events and estimates, ours tell it which moment each timestamp stands for.

use std::time::{Duration, Instant, SystemTime};

use super::super::TransportEvent;
use super::super::negotiate::WallClock;
use super::media::Media;
use crate::codec::TrackKind;
use crate::estimate::Estimator;
use crate::rtcp::{self, ReportBlock, Rtcp, SenderReport};

/// Between two sender reports of a stream.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);
/// NTP counts from 1900, the system from 1970.
const UNIX_IN_NTP: u64 = 2_208_988_800;
/// A round trip that is longer is a mistake in the report.
const LONGEST_TRIP: Duration = Duration::from_secs(60);

/// A compound packet of the viewer. Events are appended to `events`.
pub(super) fn receive(
    now: Instant,
    wall: SystemTime,
    compound: &[u8],
    media: &mut Media,
    estimator: &mut dyn Estimator,
    events: &mut Vec<TransportEvent>,
) {
    for packet in rtcp::packets(compound).flatten() {
        match packet {
            Rtcp::ReceiverReport { blocks } => {
                for block in blocks {
                    report(now, wall, &block, media, estimator, events);
                }
            }
            Rtcp::Nack { media_ssrc, lost } => {
                let Some(track) = media.track(media_ssrc) else {
                    continue;
                };
                let (kind, newest) = (track.kind, track.newest);
                events.extend(lost.map(|seq| TransportEvent::Lost {
                    kind,
                    seq: extended(newest, seq),
                }));
            }
            Rtcp::Pli { media_ssrc } if media.track(media_ssrc).is_some() => {
                events.push(TransportEvent::KeyframeRequest);
            }
            Rtcp::Fir { entries } => {
                let ours = entries.filter(|entry| media.track(entry.ssrc).is_some());
                events.extend(ours.take(1).map(|_| TransportEvent::KeyframeRequest));
            }
            Rtcp::Remb { bitrate } => estimator.remb(now, bitrate),
            Rtcp::Twcc(report) => estimator.report(now, &mut report.packets()),
            _ => {}
        }
    }
}

/// The viewer has received a stream of ours.
fn report(
    now: Instant,
    wall: SystemTime,
    block: &ReportBlock,
    media: &mut Media,
    estimator: &mut dyn Estimator,
    events: &mut Vec<TransportEvent>,
) {
    let Some(track) = media.track(block.ssrc) else {
        return;
    };
    track.is_new = false;
    if track.kind != TrackKind::Video || track.ssrc != block.ssrc {
        return;
    }
    let retransmitted = track.sent_again.packets.into();
    let rtt = round_trip(wall, block);
    let loss = f32::from(block.fraction_lost) / 256.0;
    estimator.receiver_report(now, loss, rtt);
    events.push(TransportEvent::Report {
        rtt,
        loss: Some(loss),
        retransmitted,
    });
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
pub(super) fn ntp(time: SystemTime) -> u64 {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let fraction = (u64::from(since.subsec_nanos()) << 32) / 1_000_000_000;
    (since.as_secs() + UNIX_IN_NTP) << 32 | fraction
}

/// The extended number nearest to the newest one.
fn extended(newest: u64, seq: u16) -> u64 {
    let step = seq.wrapping_sub(newest as u16) as i16;
    newest.saturating_add_signed(i64::from(step))
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

    #[test]
    fn numbers_are_extended_over_wraps() {
        assert_eq!(extended(65_540, 65_530), 65_530);
        assert_eq!(extended(65_540, 4), 65_540);
        assert_eq!(extended(70_000, 4_463), 69_999);
        assert_eq!(extended(3, 65_535), 0, "from before the first");
    }
}
