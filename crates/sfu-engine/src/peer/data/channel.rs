// SPDX-License-Identifier: MPL-2.0

//! One channel of a session, from its opening to its end (RFC 8832, section 6).

use sctp_proto::{ReliabilityType, Stream};

use super::outgoing::Outgoing;
use super::{ChannelConfig, ChannelId, Reliability};

/// Where a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The peer's, which has said nothing of it yet.
    Unknown,
    /// Ours, and the peer has said nothing to it yet.
    Offered,
    Open,
    /// What waits is still sent.
    Closing,
    /// Its number is not free yet.
    Closed,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: u16,
    /// None as long as it is unknown.
    pub(super) config: ChannelConfig,
    pub(super) state: State,
    pub(super) outgoing: Outgoing,
    /// It was told that it is open.
    pub(super) is_told: bool,
}

impl Channel {
    pub(super) fn new(id: u16, state: State, config: ChannelConfig) -> Self {
        Self {
            id,
            config,
            state,
            outgoing: Outgoing::default(),
            is_told: false,
        }
    }

    pub(super) fn id(&self) -> ChannelId {
        ChannelId(self.id)
    }

    pub(super) fn is_reliable(&self) -> bool {
        self.config.reliability == Reliability::Reliable
    }

    /// How messages leave from now on. What says of the channel itself has left before, and is reliable.
    pub(super) fn configure(&self, stream: &mut Stream<'_>) -> Result<(), sctp_proto::Error> {
        let (kind, most) = match self.config.reliability {
            Reliability::Reliable => (ReliabilityType::Reliable, 0),
            Reliability::Retransmits(times) => (ReliabilityType::Rexmit, times),
            Reliability::Lifetime(millis) => (ReliabilityType::Timed, millis),
        };
        stream.set_reliability_params(!self.config.ordered, kind, most.into())
    }
}
