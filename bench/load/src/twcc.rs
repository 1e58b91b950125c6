// SPDX-License-Identifier: MPL-2.0

//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01), written directly:
//! a thousand viewers write ten a second each.

use crate::rtp::extend;

/// The unit of arrival times.
const UNIT_NS: u64 = 250_000;
/// The unit of the reference time.
const REFERENCE_NS: u64 = 64_000_000;
/// Packets that one feedback tells of at most.
const MAX_PACKETS: u64 = 1_000;

/// What has arrived since the last feedback.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Extended numbers with their arrival times, as they came.
    arrived: Vec<(u64, u64)>,
    highest: Option<u64>,
    /// The first number that no feedback told of.
    next: u64,
    count: u8,
}

impl Recorder {
    /// Notes an arrival.
    pub fn record(&mut self, seq: u16, now_ns: u64) {
        let seq = match self.highest {
            Some(highest) => extend(seq, highest),
            None => {
                let first = u64::from(seq) + 65_536;
                self.next = first;
                first
            }
        };
        self.highest = self.highest.max(Some(seq));
        self.arrived.push((seq, now_ns));
    }

    /// Writes a feedback packet, if anything came.
    pub fn feedback(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Option<Vec<u8>> {
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.sort_unstable();
        arrived.dedup_by_key(|(seq, _)| *seq);
        let (first, _) = *arrived.first()?;
        let (last, _) = *arrived.last()?;
        // What came late is told once more; numbers that are missing before it are not.
        let base = first.min(self.next).max(last.saturating_sub(MAX_PACKETS));
        arrived.retain(|(seq, _)| *seq >= base);
        let earliest = arrived.iter().map(|(_, at)| *at).min()?;
        let reference = earliest / REFERENCE_NS;
        let (statuses, deltas) = statuses(&arrived, base, reference * (REFERENCE_NS / UNIT_NS));
        let mut packet = Vec::with_capacity(64);
        packet.extend([0x8f, 205, 0, 0]);
        packet.extend(sender_ssrc.to_be_bytes());
        packet.extend(media_ssrc.to_be_bytes());
        packet.extend((base as u16).to_be_bytes());
        packet.extend((statuses.len() as u16).to_be_bytes());
        packet.extend(&(reference as u32).to_be_bytes()[1..]);
        packet.push(self.count);
        write_chunks(&statuses, &mut packet);
        packet.extend(deltas);
        finish(&mut packet);
        self.count = self.count.wrapping_add(1);
        self.next = last + 1;
        arrived.clear();
        self.arrived = arrived;
        Some(packet)
    }
}

/// The status of each number from `base` on (0 missing, 1 small delta, 2 large delta), and the deltas.
fn statuses(arrived: &[(u64, u64)], base: u64, mut clock: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut statuses, mut deltas) = (Vec::with_capacity(64), Vec::with_capacity(64));
    for (seq, at) in arrived {
        statuses.resize((seq - base) as usize, 0);
        let units = at / UNIT_NS;
        let delta = units as i64 - clock as i64;
        if let Ok(small) = u8::try_from(delta) {
            statuses.push(1);
            deltas.push(small);
        } else {
            let large = delta.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
            statuses.push(2);
            deltas.extend(large.to_be_bytes());
        }
        clock = units;
    }
    (statuses, deltas)
}

fn write_chunks(mut statuses: &[u8], packet: &mut Vec<u8>) {
    while let Some(&first) = statuses.first() {
        let run = statuses
            .iter()
            .take(0x1fff)
            .take_while(|s| **s == first)
            .count();
        let chunk = if run >= 7 || run == statuses.len() {
            statuses = &statuses[run..];
            u16::from(first) << 13 | run as u16
        } else {
            let taken = statuses.len().min(7);
            let mut bits = 0;
            for (n, status) in statuses[..taken].iter().enumerate() {
                bits |= u16::from(*status) << (12 - 2 * n);
            }
            statuses = &statuses[taken..];
            0xc000 | bits
        };
        packet.extend(chunk.to_be_bytes());
    }
}

/// Pads to whole words, and writes the length.
fn finish(packet: &mut Vec<u8>) {
    let padding = (4 - packet.len() % 4) % 4;
    if padding > 0 {
        packet.extend(std::iter::repeat_n(0, padding - 1));
        packet.push(padding as u8);
        packet[0] |= 0x20;
    }
    let words = (packet.len() / 4 - 1) as u16;
    packet[2..4].copy_from_slice(&words.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use rtc_rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;

    use super::*;

    fn read(packet: &[u8]) -> TransportLayerCc {
        let packets = rtc_rtcp::packet::unmarshal(&mut &packet[..]).unwrap();
        packets[0]
            .as_any()
            .downcast_ref::<TransportLayerCc>()
            .unwrap()
            .clone()
    }

    #[test]
    fn another_implementation_reads_the_same_arrivals() {
        let mut recorder = Recorder::default();
        let start = 640_000_000;
        for (seq, ms) in [(65_534u16, 1), (65_535, 1), (1, 3), (2, 103), (0, 104)] {
            recorder.record(seq, start + ms * 1_000_000);
        }
        let feedback = read(&recorder.feedback(1, 2).unwrap());
        assert_eq!(
            (feedback.base_sequence_number, feedback.packet_status_count),
            (65_534, 5)
        );
        assert_eq!(feedback.reference_time, 10);
        let deltas: Vec<_> = feedback.recv_deltas.iter().map(|d| d.delta).collect();
        assert_eq!(deltas, [1_000, 0, 103_000, -101_000, 100_000]);
        assert!(recorder.feedback(1, 2).is_none());
        for seq in (3..40).filter(|s| *s != 10) {
            recorder.record(seq, start + 200_000_000);
        }
        let feedback = read(&recorder.feedback(1, 2).unwrap());
        assert_eq!(
            (feedback.base_sequence_number, feedback.packet_status_count),
            (3, 37)
        );
        assert_eq!(feedback.recv_deltas.len(), 36);
        assert_eq!(feedback.fb_pkt_count, 1);
    }

    #[test]
    fn a_number_lost_between_two_feedbacks_is_told() {
        let mut recorder = Recorder::default();
        recorder.record(10, 1_000_000);
        recorder.feedback(1, 2).unwrap();
        recorder.record(12, 2_000_000);
        let feedback = read(&recorder.feedback(1, 2).unwrap());
        assert_eq!(
            (feedback.base_sequence_number, feedback.packet_status_count),
            (11, 2)
        );
        assert_eq!(feedback.recv_deltas.len(), 1);
    }
}
