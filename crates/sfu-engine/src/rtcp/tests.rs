// SPDX-License-Identifier: MPL-2.0

//! What `rtc-rtcp` writes is read alike, what is written is read by `rtc-rtcp`, and hostile input ends.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use rtc_rtcp::Packet;
use rtc_rtcp::goodbye::Goodbye;
use rtc_rtcp::packet::{marshal, unmarshal};
use rtc_rtcp::payload_feedbacks::full_intra_request::{self, FullIntraRequest};
use rtc_rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc_rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc_rtcp::receiver_report::ReceiverReport;
use rtc_rtcp::reception_report::ReceptionReport;
use rtc_rtcp::sender_report;
use rtc_rtcp::source_description::{SdesType, SourceDescription};
use rtc_rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk,
    SymbolSizeTypeTcc, SymbolTypeTcc, TransportLayerCc,
};
use rtc_rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};

use super::*;

fn bytes(packets: &[Box<dyn Packet>]) -> Vec<u8> {
    marshal(packets).expect("written").to_vec()
}

fn one(data: &[u8]) -> Rtcp<'_> {
    let mut all = packets(data);
    let packet = all.next().expect("a packet").expect("read");
    assert!(all.next().is_none());
    packet
}

fn twcc(data: &[u8]) -> TwccReport<'_> {
    match one(data) {
        Rtcp::Twcc(report) => report,
        other => panic!("{other:?}"),
    }
}

/// All that a report speaks of, as if all of it had been sent.
fn all<'a>(report: &TwccReport<'a>) -> TwccPackets<'a> {
    report.packets(Numbers {
        first: report.base_sequence(),
        count: report.status_count(),
    })
}

/// A report on 8 packets from 0xfffc, made by hand: a run, and a vector of two bits.
const TWCC_EXAMPLE: &[u8] = &[
    0xaf,
    205,
    0,
    7,
    0,
    0,
    0,
    1,
    0,
    0,
    0,
    2,
    0xff,
    0xfc,
    0,
    8, // base, count
    0,
    0,
    2,
    9, // 2 × 64 ms, number 9
    0x20,
    3, // three, small
    0xc0 | 0b00_1001,
    0b1101_0000, // lost, large, small, no time, small
    4,
    0,
    1, // the run
    0xff,
    0xff,
    2,
    3, // -250 µs, 500, 750
    1, // padding
];

#[test]
fn a_report_of_transport_wide_feedback_is_read() {
    let report = twcc(TWCC_EXAMPLE);
    assert_eq!(report.base_sequence(), 0xfffc);
    assert_eq!(report.status_count(), 8);
    assert_eq!((report.reference_time(), report.feedback_count()), (2, 9));
    let expected = [
        (0xfffc, Some(129_000)),
        (0xfffd, Some(129_000)),
        (0xfffe, Some(129_250)),
        (0xffff, None),
        (0, Some(129_000)),
        (1, Some(129_500)),
        // The third says that it came, not when.
        (3, Some(130_250)),
    ];
    assert_eq!(all(&report).collect::<Vec<_>>(), expected);
}

#[test]
fn statuses_without_times_end_the_report() {
    let mut data = TWCC_EXAMPLE.to_vec();
    // Without padding there is one time too many; with seven bytes of it, the run's second is missing.
    *data.last_mut().expect("bytes") = 7;
    let arrived: Vec<_> = all(&twcc(&data)).collect();
    assert_eq!(arrived, [(0xfffc, Some(129_000))]);
    let mut report = all(&twcc(&data));
    assert_eq!(report.by_ref().count(), 1);
    assert_eq!(report.next(), None);
}

#[test]
fn a_count_beyond_the_chunks_is_refused() {
    let mut data = TWCC_EXAMPLE.to_vec();
    data[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let read: Vec<_> = packets(&data).map(Result::err).collect();
    assert_eq!(read, [Some(RtcpError::Malformed(TRANSPORT_FEEDBACK))]);
}

#[test]
fn of_the_largest_count_the_newest_are_read() {
    // Nine full runs of 8,191 lost packets, of which the last is not needed in full; and one chunk that isn't at all.
    let mut data = vec![
        0x8f, 205, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0xff, 0xff, 0, 0, 0, 0,
    ];
    for _ in 0..10 {
        data.extend([0x1f, 0xff]);
    }
    let mut all = all(&twcc(&data));
    // What was sent are half of all numbers at most.
    let last = twcc(&data).base_sequence().wrapping_add(Numbers::MOST - 1);
    assert_eq!(all.clone().last(), Some((last, None)));
    assert_eq!(all.by_ref().count(), usize::from(TwccReport::AT_ONCE));
    assert_eq!(all.next(), None);
}

#[test]
fn a_malformed_packet_does_not_hide_the_next() {
    let pli: Box<dyn Packet> = Box::new(PictureLossIndication {
        sender_ssrc: 1,
        media_ssrc: 2,
    });
    // A receiver report that announces one block and has none.
    let mut data = vec![0x81, 201, 0, 1, 0, 0, 0, 1];
    data.extend(bytes(&[pli]));
    let mut all = packets(&data);
    assert_eq!(
        all.next().and_then(Result::err),
        Some(RtcpError::Malformed(201))
    );
    assert!(matches!(all.next(), Some(Ok(Rtcp::Pli { media_ssrc: 2 }))));
    assert!(all.next().is_none());
}

#[test]
fn each_malformed_packet_is_told() {
    use RtcpError::{Malformed, Truncated, Version};
    for (data, expected) in [
        (&[0x80, 201, 0][..], Truncated),
        (&[0x80, 201, 0, 1, 0, 0, 0], Truncated),
        (&[0x40, 201, 0, 0], Version),
        (&[0x80, 200, 0, 1, 0, 0, 0, 1], Malformed(200)),
        (&[0x80, 201, 0, 0], Malformed(201)),
        (&[0x82, 203, 0, 1, 0, 0, 0, 1], Malformed(203)),
        (&[0x81, 205, 0, 1, 0, 0, 0, 1], Malformed(205)),
        (&[0x8f, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1], Malformed(205)),
        (&[0x81, 206, 0, 1, 0, 0, 0, 1], Malformed(206)),
        (&[0x84, 206, 0, 1, 0, 0, 0, 1], Malformed(206)),
        // Padding of nothing, and of more than there is.
        (&[0xa1, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0], Malformed(206)),
        (&[0xa1, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9], Malformed(206)),
        (&[0xa0, 204, 0, 0], Malformed(204)),
    ] {
        let errors: Vec<_> = packets(data).map(Result::err).collect();
        assert_eq!(errors, [Some(expected)], "{data:x?}");
    }
    assert!(packets(&[]).next().is_none());
}

#[test]
fn what_is_not_known_is_named_by_its_type() {
    for data in [
        &[0x80, 207, 0, 1, 0, 0, 0, 1][..],
        &[0x81, 202, 0, 1, 0, 0, 0, 1],
        &[0x85, 205, 0, 1, 0, 0, 0, 1],
        &[
            0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'A', b'B', b'C', b'D',
        ],
    ] {
        assert!(matches!(one(data), Rtcp::Other(kind) if kind == data[1]));
    }
}

#[test]
fn a_bitrate_beyond_64_bits_is_the_greatest() {
    let mut data = b"\x8f\xce\x00\x05\0\0\0\x01\0\0\0\0REMB\x01\xff\xff\xff\0\0\0\x02".to_vec();
    assert!(matches!(one(&data), Rtcp::Remb { bitrate: u64::MAX }));
    // 46 bits of exponent and 18 of mantissa just fit.
    data[17] = 46 << 2 | 3;
    let expected = 0x3_ffff << 46;
    assert!(matches!(one(&data), Rtcp::Remb { bitrate } if bitrate == expected));
    data[16] = 2;
    assert!(packets(&data).next().is_some_and(|packet| packet.is_err()));
}

fn report(block: &ReportBlock) -> ReceptionReport {
    ReceptionReport {
        ssrc: block.ssrc,
        fraction_lost: block.fraction_lost,
        total_lost: block.cumulative_lost as u32 & 0xff_ffff,
        last_sequence_number: block.highest_sequence,
        jitter: block.jitter,
        last_sender_report: block.last_sender_report,
        delay: block.delay,
    }
}

fn blocks() -> impl Strategy<Value = Vec<ReportBlock>> {
    let words = any::<(u32, u8, u32, u32, u32, u32)>();
    let block =
        (words, -0x80_0000..0x80_0000i32).prop_map(|(words, cumulative_lost)| ReportBlock {
            ssrc: words.0,
            fraction_lost: words.1,
            cumulative_lost,
            highest_sequence: words.2,
            jitter: words.3,
            last_sender_report: words.4,
            delay: words.5,
        });
    vec(block, 0..31)
}

/// A way to write down some packets: the seed decides between the kinds of chunk that can hold them.
fn chunks(deltas: &[Option<i16>], mut seed: u64) -> Vec<PacketStatusChunk> {
    let symbols: Vec<_> = deltas.iter().map(|delta| symbol(*delta)).collect();
    let mut rest = &symbols[..];
    let mut chunks = Vec::new();
    while let [first, ..] = rest {
        seed = seed.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let run = rest.iter().take_while(|symbol| *symbol == first).count();
        let small = rest
            .iter()
            .take(14)
            .all(|symbol| *symbol != SymbolTypeTcc::PacketReceivedLargeDelta);
        let (chunk, len) = match seed % 3 {
            0 => (None, run.min(0x1fff)),
            1 if small => (Some(SymbolSizeTypeTcc::OneBit), 14),
            _ => (Some(SymbolSizeTypeTcc::TwoBit), 7),
        };
        let (these, after) = rest.split_at(len.min(rest.len()));
        rest = after;
        chunks.push(match chunk {
            None => PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                packet_status_symbol: *first,
                run_length: these.len() as u16,
            }),
            Some(symbol_size) => PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                symbol_size,
                symbol_list: these.to_vec(),
            }),
        });
    }
    chunks
}

fn symbol(delta: Option<i16>) -> SymbolTypeTcc {
    match delta {
        None => SymbolTypeTcc::PacketNotReceived,
        Some(0..=255) => SymbolTypeTcc::PacketReceivedSmallDelta,
        Some(_) => SymbolTypeTcc::PacketReceivedLargeDelta,
    }
}

fn deltas() -> impl Strategy<Value = Vec<Option<i16>>> {
    let delta = prop_oneof![
        4 => (0..=255i16).prop_map(Some),
        1 => any::<i16>().prop_map(Some),
        2 => Just(None),
    ];
    let runs = vec((delta.clone(), 1..60usize), 1..20)
        .prop_map(|runs| runs.into_iter().flat_map(|(d, n)| vec![d; n]).collect());
    prop_oneof![vec(delta, 1..300), runs]
}

/// Of how many packets a chunk speaks.
fn len(chunk: u16) -> u16 {
    match chunk >> 14 {
        0 | 1 => chunk & 0x1fff,
        2 => 14,
        _ => 7,
    }
}

proptest! {
    #[test]
    fn reports_are_read(blocks in blocks(), sender: bool, ssrc: u32) {
        let reports = blocks.iter().map(report).collect();
        let packet: Box<dyn Packet> = if sender {
            Box::new(sender_report::SenderReport { ssrc, reports, ..Default::default() })
        } else {
            Box::new(ReceiverReport { ssrc, reports, profile_extensions: Bytes::new() })
        };
        let data = bytes(&[packet]);
        let (Rtcp::ReceiverReport { blocks: read } | Rtcp::SenderReport { blocks: read, .. }) = one(&data) else {
            panic!("another packet");
        };
        prop_assert_eq!(read.len(), blocks.len());
        prop_assert_eq!(read.collect::<Vec<_>>(), blocks);
    }

    #[test]
    fn nacks_are_read(mut lost in vec(any::<u16>(), 1..100), ssrc: u32) {
        lost.sort_unstable();
        lost.dedup();
        let nacks = nack_pairs_from_sequence_numbers(&lost);
        let data = bytes(&[Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks })]);
        let Rtcp::Nack { media_ssrc, lost: read } = one(&data) else {
            panic!("another packet");
        };
        prop_assert_eq!(media_ssrc, ssrc);
        prop_assert_eq!(read.collect::<Vec<_>>(), lost);
    }

    #[test]
    fn nacks_across_the_wrap_are_read(first: u16, following: u16) {
        let mut data = vec![0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2];
        data.extend(first.to_be_bytes());
        data.extend(following.to_be_bytes());
        let expected: Vec<_> = std::iter::once(first)
            .chain((0..16).filter(|bit| following >> bit & 1 == 1).map(|bit| first.wrapping_add(bit + 1)))
            .collect();
        let Rtcp::Nack { lost, .. } = one(&data) else {
            panic!("another packet");
        };
        prop_assert_eq!(lost.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn keyframe_requests_are_read(entries in vec(any::<(u32, u8)>(), 1..20), ssrc: u32) {
        let fir = entries
            .iter()
            .map(|&(ssrc, sequence_number)| full_intra_request::FirEntry { ssrc, sequence_number })
            .collect();
        let data = bytes(&[
            Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: ssrc }),
            Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir }),
            Box::new(Goodbye { sources: vec![1, 2], reason: Bytes::from_static(b"over") }),
        ]);
        let all: Vec<_> = packets(&data).map(|packet| packet.expect("read")).collect();
        let [Rtcp::Pli { media_ssrc }, Rtcp::Fir { entries: read }, Rtcp::Bye { .. }] = &all[..] else {
            panic!("other packets: {all:?}");
        };
        prop_assert_eq!(*media_ssrc, ssrc);
        let read: Vec<_> = read.clone().map(|entry| (entry.ssrc, entry.sequence)).collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn bitrates_are_read(bitrate in 0..1u64 << 40, ssrcs in vec(any::<u32>(), 0..10)) {
        let data = bytes(&[Box::new(ReceiverEstimatedMaximumBitrate {
            sender_ssrc: 1,
            bitrate: bitrate as f32,
            ssrcs,
        })]);
        let Rtcp::Remb { bitrate: read } = one(&data) else {
            panic!("another packet");
        };
        let off = read.abs_diff(bitrate);
        prop_assert!(off <= bitrate >> 16, "{read}, not {bitrate}");
    }

    #[test]
    fn transport_wide_feedback_is_read(
        deltas in deltas(),
        base: u16,
        reference in 0..1u32 << 24,
        number: u8,
        seed: u64,
    ) {
        let recv_deltas = deltas.iter().flatten().map(|delta| RecvDelta {
            type_tcc_packet: symbol(Some(*delta)),
            delta: i64::from(*delta) * 250,
        }).collect();
        let data = bytes(&[Box::new(TransportLayerCc {
            sender_ssrc: 1,
            media_ssrc: 2,
            base_sequence_number: base,
            packet_status_count: deltas.len() as u16,
            reference_time: reference,
            fb_pkt_count: number,
            packet_chunks: chunks(&deltas, seed),
            recv_deltas,
        })]);
        let report = twcc(&data);
        prop_assert_eq!(report.base_sequence(), base);
        prop_assert_eq!(usize::from(report.status_count()), deltas.len());
        prop_assert_eq!(report.reference_time(), reference);
        prop_assert_eq!(report.feedback_count(), number);
        let mut time = i64::from(reference) * 64_000;
        let expected: Vec<_> = deltas.iter().enumerate().map(|(at, delta)| {
            let arrival = delta.map(|delta| {
                time += i64::from(delta) * 250;
                time
            });
            (base.wrapping_add(at as u16), arrival)
        }).collect();
        prop_assert_eq!(all(&report).collect::<Vec<_>>(), expected);
    }

    /// Whatever was sent, what is read of a report is what it says of that, and nothing is walked that was not sent.
    #[test]
    fn of_a_report_only_what_was_sent_is_read(
        chunks in vec(any::<u16>(), 1..60),
        deltas in vec(any::<u8>(), 0..400),
        base: u16,
        skipped in -3_000..3_000i16,
        count in 0..5_000u16,
    ) {
        let spoken: u32 = chunks.iter().map(|c| u32::from(len(*c))).sum();
        let mut data = vec![0x8f, 205, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2];
        data.extend(base.to_be_bytes());
        data.extend((spoken.min(u32::from(TwccReport::AT_ONCE)) as u16).to_be_bytes());
        data.extend([0, 0, 9, 1]);
        data.extend(chunks.iter().flat_map(|c| c.to_be_bytes()));
        data.extend(&deltas);
        data.resize(data.len().next_multiple_of(4), 0);
        let words = (data.len() / 4 - 1) as u16;
        data[2..4].copy_from_slice(&words.to_be_bytes());
        let report = twcc(&data);
        let sent = Numbers { first: base.wrapping_add_signed(skipped), count };
        let read: Vec<_> = report.packets(sent).collect();
        let is_sent = |seq: u16| seq.wrapping_sub(sent.first) < sent.count;
        let expected: Vec<_> = all(&report).filter(|(seq, _)| is_sent(*seq)).collect();
        prop_assert_eq!(&read, &expected);
        let inside = (0..report.status_count()).all(|n| is_sent(base.wrapping_add(n)));
        prop_assert_eq!(report.is_beyond(sent), !inside);
    }

    #[test]
    fn what_is_written_is_read_by_others(
        ssrc: u32,
        ntp_time: u64,
        rtp_time: u32,
        packets: u32,
        octets: u32,
        cname in "\\PC{1,80}",
        sources in vec(any::<u32>(), 1..32),
    ) {
        let mut data = Vec::new();
        let written = SenderReport { ssrc, ntp_time, rtp_time, packets, octets };
        write_sender_report(&mut data, &written, &cname);
        write_bye(&mut data, &sources);
        let all = unmarshal(&mut &data[..]).expect("read");
        let [report, description, bye] = &all[..] else {
            panic!("{} packets", all.len());
        };
        let report = report.as_any().downcast_ref::<sender_report::SenderReport>();
        let report = report.expect("a report");
        prop_assert_eq!((report.ssrc, report.ntp_time, report.rtp_time), (ssrc, ntp_time, rtp_time));
        prop_assert_eq!((report.packet_count, report.octet_count), (packets, octets));
        prop_assert!(report.reports.is_empty());
        let description = description.as_any().downcast_ref::<SourceDescription>();
        let chunk = &description.expect("a description").chunks[0];
        prop_assert_eq!(chunk.source, ssrc);
        prop_assert_eq!(chunk.items[0].sdes_type, SdesType::SdesCname);
        prop_assert_eq!(&chunk.items[0].text[..], &cname.as_bytes()[..cname.floor_char_boundary(255)]);
        let bye = bye.as_any().downcast_ref::<Goodbye>().expect("a goodbye");
        prop_assert_eq!(&bye.sources, &sources);
    }

    #[test]
    fn receiver_reports_that_are_written_are_read(
        ssrc: u32,
        cname in "\\PC{1,80}",
        blocks in vec(any::<(u32, u8, u32, u32)>(), 0..40),
    ) {
        let blocks: Vec<_> = blocks.iter().map(|&(ssrc, lost, highest, delay)| ReportBlock {
            ssrc,
            fraction_lost: lost,
            cumulative_lost: i32::from(lost) - 100,
            highest_sequence: highest,
            jitter: highest ^ 7,
            last_sender_report: delay ^ 9,
            delay,
        }).collect();
        let mut data = Vec::new();
        write_receiver_report(&mut data, Reporter { ssrc, cname: &cname }, &blocks);
        let all = unmarshal(&mut &data[..]).expect("read by others");
        prop_assert_eq!(all.len(), 2);
        let Some(Ok(Rtcp::ReceiverReport { blocks: read })) = packets(&data).next() else {
            panic!("another packet");
        };
        prop_assert_eq!(read.collect::<Vec<_>>(), &blocks[..blocks.len().min(31)]);
    }

    #[test]
    fn nacks_that_are_written_are_read(first: u16, steps in vec(1..40u16, 1..200), entries in 1..100usize) {
        let lost: Vec<_> = steps.iter().scan(first, |seq, step| {
            *seq = seq.wrapping_add(*step);
            Some(*seq)
        }).collect();
        let mut data = Vec::new();
        let taken = write_nack(&mut data, 1, 2, &lost, entries);
        prop_assert!(taken >= entries.min(lost.len()) && data.len() <= 12 + 4 * entries);
        let Rtcp::Nack { media_ssrc: 2, lost: read } = one(&data) else {
            panic!("another packet");
        };
        prop_assert_eq!(read.collect::<Vec<_>>(), &lost[..taken]);
        unmarshal(&mut &data[..]).expect("read by others");
    }

    #[test]
    fn requests_that_are_written_are_read(media: u32, number: u8, bitrate: u64, ssrcs in vec(any::<u32>(), 0..9)) {
        let mut data = Vec::new();
        write_pli(&mut data, 1, media);
        write_fir(&mut data, 1, media, number);
        write_remb(&mut data, 1, bitrate, &ssrcs);
        let all: Vec<_> = packets(&data).map(|packet| packet.expect("read")).collect();
        let [Rtcp::Pli { media_ssrc }, Rtcp::Fir { entries }, Rtcp::Remb { bitrate: read }] = &all[..] else {
            panic!("other packets: {all:?}");
        };
        prop_assert_eq!(*media_ssrc, media);
        let entries: Vec<_> = entries.clone().collect();
        prop_assert_eq!(entries, [FirEntry { ssrc: media, sequence: number }]);
        prop_assert!(*read <= bitrate && bitrate - read <= bitrate >> 17, "{read}, not {bitrate}");
        prop_assert_eq!(unmarshal(&mut &data[..]).expect("read by others").len(), 3);
    }

    /// Times may be a quarter of a millisecond off, never more, however long the report.
    #[test]
    fn transport_wide_feedback_that_is_written_is_read(
        steps in vec(prop_oneof![
            4 => (0..70_000i64).prop_map(Some),
            1 => (-300_000..8_000_000i64).prop_map(Some),
            2 => Just(None),
        ], 1..500),
        runs in vec(1..40usize, 1..500),
        base: u16,
    ) {
        let mut time = 500_000_000;
        let steps = steps.iter().zip(&runs).flat_map(|(step, run)| vec![*step; *run]);
        let arrivals: Vec<_> = steps.map(|step| {
            time += step?;
            Some(time)
        }).collect();
        let mut data = Vec::new();
        let mut writer = TwccWriter::default();
        let count = writer.write(&mut data, 1, 2, base, arrivals.iter().copied());
        prop_assert_eq!(count, arrivals.len().min(TwccWriter::AT_ONCE), "all steps can be told");
        prop_assert!(data.len() < 1_000, "{} octets", data.len());
        let report = twcc(&data);
        let read: Vec<_> = all(&report).collect();
        prop_assert_eq!(read.len(), count);
        for (at, ((seq, told), arrival)) in read.into_iter().zip(&arrivals).enumerate() {
            prop_assert_eq!(seq, base.wrapping_add(at as u16));
            prop_assert_eq!(told.is_some(), arrival.is_some());
            let off = arrival.unwrap_or(0) - told.unwrap_or(0);
            prop_assert!((0..250).contains(&off), "{off} µs");
        }
        unmarshal(&mut &data[..]).expect("read by others");
    }

    #[test]
    fn no_input_panics(data: Vec<u8>, kind in 199..208u8, first in 0x80..=0xbfu8, words in 0..8u16) {
        let mut framed = vec![first, kind];
        framed.extend(words.to_be_bytes());
        framed.extend_from_slice(&data);
        for data in [data, framed] {
            for packet in packets(&data).flatten() {
                match packet {
                    Rtcp::ReceiverReport { blocks } | Rtcp::SenderReport { blocks, .. } => {
                        assert!(blocks.count() <= data.len());
                    }
                    Rtcp::Bye { sources } => assert!(sources.count() <= data.len()),
                    Rtcp::Nack { lost, .. } => assert!(lost.count() <= data.len() * 17 / 4),
                    Rtcp::Fir { entries } => drop(entries.count()),
                    Rtcp::Twcc(report) => {
                        assert!(all(&report).count() <= report.status_count().into());
                    }
                    _ => {}
                }
            }
        }
    }
}
