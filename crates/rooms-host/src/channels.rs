// SPDX-License-Identifier: MPL-2.0

//! Data channels, by the labels that clients know: what participants send comes on the connection on which they publish, and
//! what they are sent leaves on the other one, where we open the channels.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sfu_engine::data::{
    ChannelConfig, ChannelId, DataCommand, DataEnd, DataObserver, Message, Reliability,
};
use sfu_rooms::Sid;

use crate::{Input, WAITING};

/// What clients open, and expect to be opened, in this order.
const LABELS: [&str; 3] = ["_reliable", "_lossy", "_data_track"];
/// Packets for a participant whose reliable channel is not open yet.
const EARLY: usize = 64;

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
        if self.reliable.is_none() && self.early.len() < EARLY {
            self.early.push(packet.clone());
        }
        self.reliable
    }
}

/// Told of the channels of one session, on its shard's thread.
#[derive(Debug)]
pub(crate) struct Channels {
    pub(crate) participant: Sid,
    /// It is the session on which the participant publishes.
    pub(crate) publisher: bool,
    pub(crate) inbox: Sender<Input>,
    /// Messages of all clients that the rooms' thread has not taken yet.
    pub(crate) waiting: Arc<AtomicUsize>,
    pub(crate) open: Mutex<Vec<(ChannelId, bool)>>,
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
        if !self.publisher {
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
        let Some((_, reliable)) = known.filter(|_| self.publisher && !message.text) else {
            return true;
        };
        if self.waiting.load(Relaxed) >= WAITING {
            return false;
        }
        self.waiting.fetch_add(1, Relaxed);
        let _ = self.inbox.send(Input::Data {
            participant: self.participant.clone(),
            reliable,
            packet: message.data.clone(),
        });
        true
    }

    fn closed(&self, channel: ChannelId) {
        self.lock().retain(|(id, _)| *id != channel);
    }

    fn ended(&self, why: DataEnd) {
        self.lock().clear();
        tracing::info!(participant = %self.participant, %why, "no data channels any more");
    }
}
