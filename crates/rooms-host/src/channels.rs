// SPDX-License-Identifier: MPL-2.0

//! Data channels, by the labels that clients know: what participants send comes on the connection on which they publish, and
//! what they are sent leaves on the other one, where we open the channels. By v1 there is one connection, and clients open them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sfu_engine::data::{
    ChannelConfig, ChannelId, DataCommand, DataEnd, DataObserver, Message, Reliability,
};
use sfu_rooms::Sid;

use crate::Input;
use crate::load::Load;

/// What clients open, and expect to be opened, in this order.
const LABELS: [&str; 3] = ["_reliable", "_lossy", "_data_track"];
/// Packets for a participant whose reliable channel is not open yet.
const EARLY: usize = 64;
/// Octets of them.
const EARLY_OCTETS: usize = 256 * 1_024;

/// The log has one of so many packets that were lost for want of room.
const LOST: u64 = 100;

/// What opens the channels to a participant.
pub(crate) fn open() -> impl Iterator<Item = DataCommand> {
    LABELS.iter().map(|label| {
        let is_reliable = *label == LABELS[0];
        DataCommand::Open(ChannelConfig {
            label: (*label).to_owned(),
            ordered: is_reliable,
            reliability: match is_reliable {
                true => Reliability::Reliable,
                false => Reliability::Retransmits(0),
            },
            ..ChannelConfig::default()
        })
    })
}

/// The way to a participant.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    reliable: Option<ChannelId>,
    lossy: Option<ChannelId>,
    early: Vec<Arc<[u8]>>,
}

impl Outgoing {
    /// A channel is open. What has waited for it.
    pub(crate) fn opened(&mut self, reliable: bool, channel: ChannelId) -> Vec<Arc<[u8]>> {
        if !reliable {
            self.lossy = Some(channel);
            return Vec::new();
        }
        self.reliable = Some(channel);
        std::mem::take(&mut self.early)
    }

    /// The channel for that, if it is open. Until it is some wait, where nothing is to be lost.
    pub(crate) fn channel(&mut self, reliable: bool, packet: &Arc<[u8]>) -> Option<ChannelId> {
        if !reliable {
            return self.lossy;
        }
        let waiting: usize = self.early.iter().map(|packet| packet.len()).sum();
        let has_room = self.early.len() < EARLY && waiting + packet.len() <= EARLY_OCTETS;
        if self.reliable.is_none() && has_room {
            self.early.push(packet.clone());
        }
        self.reliable
    }
}

/// Told of the channels of one session, on its shard's thread.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) participant: Sid,
    /// What the participant sends on it is taken.
    pub(crate) takes: bool,
    /// What it is sent leaves on it.
    pub(crate) gives: bool,
    pub(crate) inbox: Sender<Input>,
    /// Messages that the rooms' thread has not taken yet: of all clients, and of this participant.
    pub(crate) waiting: Load,
    pub(crate) own: Load,
    /// Full while a shard is behind with what was sent.
    pub(crate) late: Load,
    pub(crate) open: Mutex<Vec<(ChannelId, bool)>>,
    /// Packets for the participant that had no room.
    pub(crate) lost: AtomicU64,
}

impl Channels {
    fn lock(&self) -> MutexGuard<'_, Vec<(ChannelId, bool)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataObserver for Channels {
    fn opened(&self, channel: ChannelId, config: &ChannelConfig) {
        let reliable = match config.label.as_str() {
            "_reliable" => true,
            "_lossy" => false,
            // Data tracks are refused where clients ask for them.
            _ => return,
        };
        self.lock().push((channel, reliable));
        if self.gives {
            let participant = self.participant.clone();
            // After its end there is nobody to be told.
            let _ = self.inbox.send(Input::Opened {
                participant,
                reliable,
                channel,
            });
        }
    }

    fn message(&self, channel: ChannelId, message: &Message) -> bool {
        let known = self.lock().iter().find(|(id, _)| *id == channel).copied();
        let Some((_, reliable)) = known.filter(|_| self.takes && !message.text) else {
            return true;
        };
        if self.waiting.is_behind() || self.own.is_full() || self.late.is_full() {
            return false;
        }
        let octets = message.data.len();
        let _ = self.inbox.send(Input::Data {
            participant: self.participant.clone(),
            reliable,
            packet: message.data.clone(),
            waiting: [self.waiting.add(octets), self.own.add(octets)],
        });
        true
    }

    fn lost(&self, channel: ChannelId) {
        let lost = self.lost.fetch_add(1, Relaxed);
        // Of a slow network there may be many.
        if lost.is_multiple_of(LOST) {
            let participant = &self.participant;
            tracing::info!(%participant, channel = channel.0, lost = lost + 1, "too slow for what it is sent: data is lost");
        }
    }

    fn closed(&self, channel: ChannelId) {
        self.lock().retain(|(id, _)| *id != channel);
    }

    fn ended(&self, why: DataEnd) {
        self.lock().clear();
        tracing::info!(participant = %self.participant, %why, "no data channels any more");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn what_waits_for_a_channel_is_bounded_in_packets_and_octets() {
        for (octets, most) in [
            (1, EARLY),
            (100_000, EARLY_OCTETS / 100_000),
            (EARLY_OCTETS + 1, 0),
        ] {
            let mut outgoing = Outgoing::default();
            let packet: Arc<[u8]> = vec![0; octets].into();
            for _ in 0..1_000 {
                assert_eq!(outgoing.channel(true, &packet), None);
            }
            assert_eq!(outgoing.opened(true, ChannelId(1)).len(), most, "{octets}");
            assert_eq!(outgoing.channel(true, &packet), Some(ChannelId(1)));
        }
    }

    /// What it sends waits, and nobody else's.
    #[test]
    fn who_sends_more_than_is_taken_has_to_wait() {
        let (inbox, inputs) = channel();
        let (waiting, late) = (Load::default(), Load::default());
        let channels = |_| {
            let channels = Channels {
                participant: Sid::participant(),
                takes: true,
                gives: false,
                inbox: inbox.clone(),
                waiting: waiting.clone(),
                own: Load::default(),
                late: late.clone(),
                open: Mutex::default(),
                lost: AtomicU64::default(),
            };
            let config = ChannelConfig {
                label: LABELS[0].into(),
                ..ChannelConfig::default()
            };
            channels.opened(ChannelId(1), &config);
            channels
        };
        let message = |octets: usize| Message {
            text: false,
            data: vec![0; octets].into(),
        };
        let all: Vec<_> = (0..100).map(channels).collect();
        for (octets, least, most) in [(1, 64, 64), (200_000, 1, 2)] {
            for one in all.iter().take(5) {
                let taken = (0..1_000).take_while(|_| one.message(ChannelId(1), &message(octets)));
                let taken = taken.count();
                assert!((least..=most).contains(&taken), "{taken} of {octets}");
            }
            while inputs.try_recv().is_ok() {}
        }
        // All together no more than there is room for.
        let taken = |one: &Channels| {
            (0..99)
                .take_while(|_| one.message(ChannelId(1), &message(200_000)))
                .count()
        };
        let taken: usize = all.iter().map(taken).sum();
        assert!(taken * 200_000 <= 17 * 1_024 * 1_024, "{taken}");
        while inputs.try_recv().is_ok() {}
        assert!(all[99].message(ChannelId(1), &message(1)));
        let full = late.fill();
        assert!(!all[99].message(ChannelId(1), &message(1)));
        drop(full);
        assert!(all[99].message(ChannelId(1), &message(1)));
    }
}
