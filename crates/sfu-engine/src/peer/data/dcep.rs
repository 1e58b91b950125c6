// SPDX-License-Identifier: MPL-2.0

//! The messages by which channels are opened (RFC 8832).

use super::{ChannelConfig, Reliability};

/// Message types (section 8.2.1).
const ACK: u8 = 0x02;
const OPEN: u8 = 0x03;
/// Of a channel type (section 5.1): the order of messages counts for nothing.
const UNORDERED: u8 = 0x80;
/// What stands before the label.
const HEADER: usize = 12;
/// "Normal" (RFC 8831, section 6.4).
const PRIORITY: u16 = 256;
/// Octets of a label and a protocol together that are taken. They are kept, and each peer may have many.
const NAMES: usize = 1_024;

/// What the peer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dcep {
    Open(ChannelConfig),
    Ack,
}

/// Reads a message. `None`: it is none that there is, or its names are too long, or no UTF-8.
pub(super) fn read(message: &[u8]) -> Option<Dcep> {
    match message {
        [ACK] => Some(Dcep::Ack),
        [OPEN, kind, _, _, parameter @ ..] => {
            let (parameter, rest) = parameter.split_first_chunk::<4>()?;
            let (label, rest) = rest.split_first_chunk::<2>()?;
            let (protocol, rest) = rest.split_first_chunk::<2>()?;
            let label = usize::from(u16::from_be_bytes(*label));
            let protocol = usize::from(u16::from_be_bytes(*protocol));
            if label + protocol > NAMES {
                return None;
            }
            let (label, rest) = rest.split_at_checked(label)?;
            let (protocol, _) = rest.split_at_checked(protocol)?;
            // Neither is longer than two octets in any browser.
            let most = u16::try_from(u32::from_be_bytes(*parameter)).unwrap_or(u16::MAX);
            Some(Dcep::Open(ChannelConfig {
                label: str::from_utf8(label).ok()?.to_owned(),
                protocol: str::from_utf8(protocol).ok()?.to_owned(),
                ordered: kind & UNORDERED == 0,
                reliability: match kind & !UNORDERED {
                    0 => Reliability::Reliable,
                    1 => Reliability::Retransmits(most),
                    2 => Reliability::Lifetime(most),
                    _ => return None,
                },
                negotiated: None,
            }))
        }
        _ => None,
    }
}

/// What acknowledges a channel.
pub(super) const ACKNOWLEDGED: [u8; 1] = [ACK];

/// What opens a channel. `None`: its names are too long.
pub(super) fn open(config: &ChannelConfig) -> Option<Vec<u8>> {
    let (kind, parameter) = match config.reliability {
        Reliability::Reliable => (0, 0),
        Reliability::Retransmits(times) => (1, times),
        Reliability::Lifetime(millis) => (2, millis),
    };
    let (label, protocol) = (config.label.as_bytes(), config.protocol.as_bytes());
    if label.len() + protocol.len() > NAMES {
        return None;
    }
    let length = |name: &[u8]| u16::try_from(name.len()).map(u16::to_be_bytes).ok();
    let mut message = Vec::with_capacity(HEADER + label.len() + protocol.len());
    message.extend([OPEN, kind | if config.ordered { 0 } else { UNORDERED }]);
    message.extend(PRIORITY.to_be_bytes());
    message.extend(u32::from(parameter).to_be_bytes());
    message.extend(length(label)?);
    message.extend(length(protocol)?);
    message.extend(label);
    message.extend(protocol);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(label: &str, ordered: bool, reliability: Reliability) -> ChannelConfig {
        ChannelConfig {
            label: label.into(),
            protocol: "p".into(),
            ordered,
            reliability,
            negotiated: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for reliability in [
            Reliability::Reliable,
            Reliability::Retransmits(0),
            Reliability::Retransmits(u16::MAX),
            Reliability::Lifetime(1_500),
        ] {
            for ordered in [true, false] {
                for label in ["", "_lossy", "größer", &"x".repeat(NAMES - 1)] {
                    let config = config(label, ordered, reliability);
                    let written = open(&config).unwrap();
                    assert_eq!(read(&written), Some(Dcep::Open(config.clone())));
                    for length in 0..written.len().min(40) {
                        assert_eq!(read(&written[..length]), None, "{length}");
                    }
                }
            }
        }
        assert_eq!(read(&ACKNOWLEDGED), Some(Dcep::Ack));
        assert_eq!(
            open(&config(&"x".repeat(NAMES), true, Reliability::Reliable)),
            None
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        let good = open(&config("label", true, Reliability::Reliable)).unwrap();
        let with = |at: usize, octet: u8| {
            let mut message = good.clone();
            message[at] = octet;
            message
        };
        for wrong in [
            vec![],
            vec![2, 0],
            vec![4],
            with(0, 9),
            with(1, 3),
            with(1, 0x83),
            // Longer than there is, or than is kept.
            with(9, 200),
            with(8, 200),
            with(12, 0xff),
        ] {
            assert_eq!(read(&wrong), None, "{wrong:?}");
        }
    }
}
