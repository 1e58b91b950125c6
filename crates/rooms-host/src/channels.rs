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

/// What a channel is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Packets, of which none is lost, and all in order.
    Reliable,
    /// Packets that may be lost.
    Lossy,
    /// Datagrams of data tracks: nobody waits for them.
    DataTracks,
}

impl Lane {
    /// What clients open, and expect to be opened, in this order.
    const ALL: [Self; 3] = [Self::Reliable, Self::Lossy, Self::DataTracks];

    fn label(self) -> &'static str {
        match self {
            Self::Reliable => "_reliable",
            Self::Lossy => "_lossy",
            Self::DataTracks => "_data_track",
        }
    }

    fn of(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.label() == label)
    }
}

/// Packets for a participant whose reliable channel is not open yet.
const EARLY: usize = 64;
/// Octets of them.
const EARLY_OCTETS: usize = 256 * 1_024;

/// What opens the channels to a participant.
pub(crate) fn open() -> impl Iterator<Item = DataCommand> {
    Lane::ALL.into_iter().map(|lane| {
        let is_reliable = lane == Lane::Reliable;
        DataCommand::Open(ChannelConfig {
            label: lane.label().to_owned(),
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
    data_tracks: Option<ChannelId>,
    early: Vec<Arc<[u8]>>,
}

impl Outgoing {
    /// A channel is open. What has waited for it.
    pub(crate) fn opened(&mut self, lane: Lane, channel: ChannelId) -> Vec<Arc<[u8]>> {
        match lane {
            Lane::Lossy => self.lossy = Some(channel),
            Lane::DataTracks => self.data_tracks = Some(channel),
            Lane::Reliable => {
                self.reliable = Some(channel);
                return std::mem::take(&mut self.early);
            }
        }
        Vec::new()
    }

    /// The channel for that, if it is open. Until it is some wait, where nothing is to be lost.
    pub(crate) fn channel(&mut self, lane: Lane, packet: &Arc<[u8]>) -> Option<ChannelId> {
        match lane {
            Lane::Lossy => return self.lossy,
            Lane::DataTracks => return self.data_tracks,
            Lane::Reliable => {}
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
    pub(crate) open: Mutex<Vec<(ChannelId, Lane)>>,
    /// Packets for the participant that had no room.
    pub(crate) lost: AtomicU64,
}

impl Channels {
    pub(crate) fn new(
        (takes, gives): (bool, bool),
        participant: &Sid,
        inbox: &Sender<Input>,
        waiting: &Load,
        late: &Load,
    ) -> Self {
        Self {
            participant: participant.clone(),
            takes,
            gives,
            inbox: inbox.clone(),
            waiting: waiting.clone(),
            own: Load::default(),
            late: late.clone(),
            open: Mutex::default(),
            lost: AtomicU64::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ChannelId, Lane)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DataObserver for Channels {
    fn opened(&self, channel: ChannelId, config: &ChannelConfig) {
        let Some(lane) = Lane::of(&config.label) else {
            return;
        };
        self.lock().push((channel, lane));
        if self.gives {
            let participant = self.participant.clone();
            // After its end there is nobody to be told.
            let _ = self.inbox.send(Input::Opened {
                participant,
                lane,
                channel,
            });
        }
    }

    fn message(&self, channel: ChannelId, message: &Message) -> bool {
        let known = self.lock().iter().find(|(id, _)| *id == channel).copied();
        let Some((_, lane)) = known.filter(|_| self.takes && !message.text) else {
            return true;
        };
        let is_behind = self.waiting.is_behind() || self.own.is_full();
        match lane {
            // To wait would hold up what else this participant sends: it is lost.
            Lane::DataTracks if is_behind => return true,
            // What is late is none of its kind.
            Lane::DataTracks => {}
            Lane::Reliable | Lane::Lossy if is_behind || self.late.is_full() => return false,
            Lane::Reliable | Lane::Lossy => {}
        }
        let octets = message.data.len();
        let _ = self.inbox.send(Input::Data {
            participant: self.participant.clone(),
            lane,
            packet: message.data.clone(),
            waiting: [self.waiting.add(octets), self.own.add(octets)],
        });
        true
    }

    fn lost(&self, channel: ChannelId) {
        let lost = self.lost.fetch_add(1, Relaxed) + 1;
        // Of a slow network there may be thousands a second: the log has the first, the second, the fourth and so on.
        if lost.is_power_of_two() {
            let participant = &self.participant;
            tracing::info!(%participant, channel = channel.0, lost, "too slow for what it is sent: data is lost");
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
                assert_eq!(outgoing.channel(Lane::Reliable, &packet), None);
            }
            assert_eq!(
                outgoing.opened(Lane::Reliable, ChannelId(1)).len(),
                most,
                "{octets}"
            );
            assert_eq!(
                outgoing.channel(Lane::Reliable, &packet),
                Some(ChannelId(1))
            );
        }
    }

    #[test]
    fn datagrams_wait_for_no_channel() {
        let mut outgoing = Outgoing::default();
        let packet: Arc<[u8]> = vec![0; 12].into();
        assert_eq!(outgoing.channel(Lane::DataTracks, &packet), None);
        assert!(outgoing.opened(Lane::DataTracks, ChannelId(5)).is_empty());
        assert_eq!(
            outgoing.channel(Lane::DataTracks, &packet),
            Some(ChannelId(5))
        );
        assert_eq!(outgoing.channel(Lane::Lossy, &packet), None);
        assert!(outgoing.opened(Lane::Reliable, ChannelId(1)).is_empty());
    }

    #[test]
    fn channels_are_told_apart_by_their_labels() {
        for lane in Lane::ALL {
            assert_eq!(Lane::of(lane.label()), Some(lane));
        }
        assert_eq!(Lane::of("_data_tracks"), None);
        let unordered = open().filter(|command| match command {
            DataCommand::Open(config) => !config.ordered,
            _ => panic!("nothing else: {command:?}"),
        });
        assert_eq!(unordered.count(), 2);
    }

    /// A participant's channels, which it has opened: 1 for the first lane, and so on.
    fn channels(inbox: &Sender<Input>, waiting: &Load, late: &Load) -> Channels {
        let channels = Channels::new((true, false), &Sid::participant(), inbox, waiting, late);
        for (n, lane) in (1..).zip(Lane::ALL) {
            let config = ChannelConfig {
                label: lane.label().into(),
                ..ChannelConfig::default()
            };
            channels.opened(ChannelId(n), &config);
        }
        channels
    }

    fn message(octets: usize) -> Message {
        Message {
            text: false,
            data: vec![0; octets].into(),
        }
    }

    /// What is more of it is lost: nobody is held up, and there is room for other data again at once.
    #[test]
    fn who_sends_more_datagrams_than_are_taken_loses_them_and_does_not_wait() {
        let (inbox, inputs) = channel();
        let (waiting, late) = (Load::default(), Load::default());
        let one = channels(&inbox, &waiting, &late);
        for (octets, least, most) in [(12, 64, 64), (16_000, 16, 17)] {
            for _ in 0..1_000 {
                assert!(one.message(ChannelId(3), &message(octets)));
            }
            let taken = std::iter::from_fn(|| inputs.try_recv().ok()).count();
            assert!((least..=most).contains(&taken), "{taken} of {octets}");
            assert!(one.message(ChannelId(1), &message(1)));
            assert!(inputs.try_recv().is_ok());
        }
        // What waits for a shard is none of theirs.
        let full = late.fill();
        assert!(one.message(ChannelId(3), &message(12)));
        assert!(inputs.try_recv().is_ok());
        assert!(!one.message(ChannelId(2), &message(12)));
        drop(full);
        let full = waiting.fill();
        assert!(one.message(ChannelId(3), &message(12)));
        assert!(inputs.try_recv().is_err());
        drop(full);
    }

    /// What it sends waits, and nobody else's.
    #[test]
    fn who_sends_more_than_is_taken_has_to_wait() {
        let (inbox, inputs) = channel();
        let (waiting, late) = (Load::default(), Load::default());
        let all = (0..100).map(|_| channels(&inbox, &waiting, &late));
        let all: Vec<_> = all.collect();
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
