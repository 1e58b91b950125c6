// SPDX-License-Identifier: MPL-2.0

//! What must hold of any bytes that a viewer or publisher sends. The targets in `fuzz` check the same.

use sfu_engine::rtcp::{Numbers, Rtcp, TwccReport, packets};
use sfu_engine::srtp::{Unprotect, UnprotectError};
use sfu_engine::{Codec, inspect};

const CODECS: [Codec; 5] = [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H265];

/// Reads the payload of a publisher's packet. The first byte decides on the codec.
pub(crate) fn payload(data: &[u8]) {
    let Some((choice, payload)) = data.split_first() else {
        return;
    };
    let codec = CODECS[usize::from(*choice) % CODECS.len()];
    let info = inspect(codec, payload);
    assert!(info.size.is_none() || info.keyframe_start);
    assert!(info.temporal.is_none_or(|mark| mark.id < 8));
}

/// Reads all of a compound packet.
pub(crate) fn rtcp(data: &[u8]) {
    let mut count = 0;
    for packet in packets(data) {
        count += 1;
        match packet {
            Ok(Rtcp::ReceiverReport { blocks } | Rtcp::SenderReport { blocks, .. }) => {
                assert!(blocks.count() <= data.len() / 24);
            }
            Ok(Rtcp::Nack { lost, .. }) => {
                // Four bytes speak of 17.
                assert!(lost.count() <= data.len() / 4 * 17);
            }
            Ok(Rtcp::Fir { entries }) => assert!(entries.count() <= data.len() / 8),
            Ok(Rtcp::Twcc(report)) => twcc(&report, data.len()),
            Ok(_) | Err(_) => {}
        }
    }
    assert!(count <= data.len().div_ceil(4), "each takes four bytes");
}

fn twcc(report: &TwccReport<'_>, len: usize) {
    let (mut all, mut arrived) = (0, 0);
    let mut before = None;
    // As many as a viewer's record holds, from before the first of which the report speaks.
    let sent = Numbers {
        first: report.base_sequence().wrapping_sub(1_000),
        count: 4_096,
    };
    for (sequence, time) in report.packets(sent) {
        let offset = sequence.wrapping_sub(report.base_sequence());
        assert!(offset < report.status_count());
        assert!(before.is_none_or(|before| before < offset), "in order");
        before = Some(offset);
        all += 1;
        arrived += usize::from(time.is_some());
    }
    assert!(all <= usize::from(report.status_count().min(4_096)));
    assert!(all <= len / 2 * 0x1fff, "two bytes speak of a run at most");
    assert!(arrived <= len, "each takes a byte");
}

/// Opens a packet, and reads what was opened.
pub(crate) fn srtcp(unprotect: &mut Unprotect, data: &mut [u8]) -> Result<usize, UnprotectError> {
    let len = data.len();
    let plain = unprotect.rtcp(data)?;
    assert_eq!(plain.len() + unprotect.profile().rtcp_overhead(), len);
    rtcp(plain);
    Ok(plain.len())
}
