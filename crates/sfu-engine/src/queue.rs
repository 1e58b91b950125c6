// SPDX-License-Identifier: MPL-2.0

//! The way into a shard: a bounded queue of commands and media, with a wake-up for the thread that sleeps on sockets.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::ids::SessionId;
use crate::layers::Preference;
use crate::packet::Batch;
use crate::peer::data::DataCommand;
use crate::session::SessionShared;
use crate::shard::{Publication, PublicationId};
use crate::stream::Viewing;
use crate::transport::lean::AgreedSlots;
use crate::transport::patch::{Fragment, PatchError};
use crate::transport::{AgreedTracks, PatchOutcome, PublisherTransport, ViewerTransport};

/// Frames and commands that may wait for a shard. A shard that is so far behind drops media: late video is no video.
const CAPACITY: usize = 8_192;
/// Octets of messages for data channels that may wait for it: 64 of the largest. One that goes to many is there once.
const DATA: usize = 16 * 1024 * 1024;
/// So many of them, so that there is always room for media and commands.
const MESSAGES: usize = CAPACITY / 2;

/// What a shard is told.
pub enum ShardCommand {
    /// Packets of a stream.
    Media {
        /// [`Stream`](crate::stream::Stream)'s key.
        stream: u64,
        /// One frame, shared by all shards.
        batch: Arc<Batch>,
    },
    /// A viewer joins.
    Subscribe {
        /// What it watches in the first place, if that is known.
        stream: Option<Viewing>,
        /// Its session.
        transport: Box<dyn ViewerTransport>,
        /// What others may see of the session.
        session: Arc<SessionShared>,
    },
    /// What a viewer's m-lines carry changes.
    Watch {
        /// Whose.
        session: SessionId,
        /// Which m-lines: by their place among those of their kind, or, where the offers are ours, which one.
        place: usize,
        /// What they carry from now on.
        stream: Option<Viewing>,
        /// What others may see of it, and what the viewer wants of it.
        figures: Arc<SessionShared>,
    },
    /// A viewer has answered another offer of ours.
    Slots {
        /// Who.
        session: SessionId,
        /// The m-lines that it has now.
        slots: AgreedSlots,
    },
    /// A publisher comes.
    Publish {
        /// What it publishes: one stream (WHIP), or several.
        publications: Vec<Publication>,
        /// Its session's way to it.
        transport: Box<dyn PublisherTransport>,
        /// What others may see of the session; knows the stream.
        session: Arc<SessionShared>,
        /// It is gone when nothing comes from it for this long.
        timeout: Duration,
        /// What it may send in all, in bit/s; `None` is no limit.
        max_bitrate: Option<u64>,
    },
    /// Somebody comes who publishes and watches over one connection.
    Converse {
        /// What it publishes.
        publications: Vec<Publication>,
        /// Its session, which has a [`publisher`](ViewerTransport::publisher).
        transport: Box<dyn ViewerTransport>,
        /// What others may see of the session.
        session: Arc<SessionShared>,
        /// It is gone when nothing comes from it for this long.
        timeout: Duration,
        /// What it may send in all, in bit/s; `None` is no limit.
        max_bitrate: Option<u64>,
    },
    /// A publisher has made another offer.
    Republish {
        /// Whose.
        session: SessionId,
        /// The m-lines that it sends on from now on.
        tracks: AgreedTracks,
        /// All that it publishes from now on.
        publications: Vec<Publication>,
    },
    /// A publisher's keyframe is needed.
    AskPublisher {
        /// Whose.
        session: SessionId,
        /// Of what it publishes.
        publication: PublicationId,
        /// Of which layer, by index.
        layer: usize,
    },
    /// A viewer wants something else.
    SetPreference {
        /// Whose.
        session: SessionId,
        /// Of which m-lines, by their place among those of their kind.
        place: usize,
        /// What.
        preference: Preference,
    },
    /// Something is to be done with a session's data channels.
    Data {
        /// Whose.
        session: SessionId,
        /// What.
        command: DataCommand,
    },
    /// Trickle ICE or ICE restart.
    Patch {
        /// Whose.
        session: SessionId,
        /// The SDP fragment, read.
        fragment: Fragment,
        /// Gets the outcome; `None` is an unknown session.
        reply: SyncSender<Option<Result<PatchOutcome, PatchError>>>,
    },
    /// A viewer or publisher leaves.
    Close {
        /// Whose.
        session: SessionId,
    },
    /// The shard ends all sessions and its thread.
    Stop,
}

impl std::fmt::Debug for ShardCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Media { .. } => "Media",
            Self::Subscribe { .. } => "Subscribe",
            Self::Watch { .. } => "Watch",
            Self::Slots { .. } => "Slots",
            Self::Publish { .. } => "Publish",
            Self::Converse { .. } => "Converse",
            Self::Republish { .. } => "Republish",
            Self::AskPublisher { .. } => "AskPublisher",
            Self::SetPreference { .. } => "SetPreference",
            Self::Data { .. } => "Data",
            Self::Patch { .. } => "Patch",
            Self::Close { .. } => "Close",
            Self::Stop => "Stop",
        })
    }
}

/// Wakes the shard's thread out of its sleep on sockets.
pub trait Wake: Send + Sync {
    /// Makes a sleep under way, or the next one, end at once.
    fn wake(&self);
}

/// The sending half.
#[derive(Clone)]
pub struct ShardQueue {
    sender: SyncSender<(ShardCommand, Charge)>,
    shared: Arc<Shared>,
}

/// What a command adds to the messages that wait, and to their octets.
#[derive(Debug, Clone, Copy, Default)]
struct Charge {
    messages: usize,
    octets: usize,
}

struct Shared {
    wake: Option<Box<dyn Wake>>,
    /// The thread sleeps or is about to: whoever clears this must wake it.
    asleep: AtomicBool,
    dropped: AtomicU64,
    /// Messages for data channels that wait, and their octets.
    messages: AtomicUsize,
    octets: AtomicUsize,
    /// The message that came last, which the next command may have, too. To know its place is enough, as long as that is not free.
    last: Mutex<Option<Weak<[u8]>>>,
}

impl std::fmt::Debug for ShardQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShardQueue").finish_non_exhaustive()
    }
}

impl ShardQueue {
    /// A queue and its receiving half. Without a wake-up (simulations) the receiver must be drained by hand.
    pub fn new(wake: Option<Box<dyn Wake>>) -> (Self, ShardInbox) {
        let (sender, receiver) = sync_channel(CAPACITY);
        let shared = Arc::new(Shared {
            wake,
            asleep: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            messages: AtomicUsize::new(0),
            octets: AtomicUsize::new(0),
            last: Mutex::default(),
        });
        let inbox = ShardInbox {
            receiver,
            shared: shared.clone(),
        };
        (Self { sender, shared }, inbox)
    }

    /// Hands over media. Never waits: a full queue drops it and counts. `false`: the shard is gone.
    pub(crate) fn send_media(&self, command: ShardCommand) -> bool {
        match self.sender.try_send((command, Charge::default())) {
            Ok(()) => self.wake(),
            Err(TrySendError::Full(_)) => {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => return false,
        }
        true
    }

    /// Hands over a command. `false`: the shard is gone or hopelessly behind.
    pub fn send(&self, command: ShardCommand) -> bool {
        let Some(charge) = self.charge(&command) else {
            return false;
        };
        let sent = self.sender.try_send((command, charge)).is_ok();
        if !sent {
            self.shared.take(charge);
        }
        self.wake();
        sent
    }

    /// What a command makes wait, which it does from now on. `None`: there is no room for it.
    fn charge(&self, command: &ShardCommand) -> Option<Charge> {
        let ShardCommand::Data {
            command: DataCommand::Send { message, .. },
            ..
        } = command
        else {
            return Some(Charge::default());
        };
        let last = &self.shared.last;
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let place = |data: *const [u8]| data.cast::<u8>();
        let here = place(Arc::as_ptr(&message.data));
        let is_known = last.as_ref().is_some_and(|l| place(l.as_ptr()) == here);
        let charge = Charge {
            messages: 1,
            octets: if is_known { 0 } else { message.data.len() },
        };
        if !self.shared.add(charge) {
            self.shared.take(charge);
            return None;
        }
        *last = Some(Arc::downgrade(&message.data));
        Some(charge)
    }

    pub(crate) fn same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Frames that found the queue full.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        if self.shared.asleep.swap(false, Ordering::AcqRel)
            && let Some(wake) = &self.shared.wake
        {
            wake.wake();
        }
    }
}

impl Shared {
    /// Returns whether there was room for it.
    fn add(&self, charge: Charge) -> bool {
        let Charge { messages, octets } = charge;
        let messages = messages + self.messages.fetch_add(messages, Ordering::Relaxed);
        let octets = octets + self.octets.fetch_add(octets, Ordering::Relaxed);
        messages <= MESSAGES && octets <= DATA
    }

    fn take(&self, charge: Charge) {
        self.messages.fetch_sub(charge.messages, Ordering::Relaxed);
        self.octets.fetch_sub(charge.octets, Ordering::Relaxed);
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct ShardInbox {
    receiver: Receiver<(ShardCommand, Charge)>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl ShardInbox {
    /// The next command, if there is one.
    pub fn try_recv(&self) -> Option<ShardCommand> {
        let (command, charge) = self.receiver.try_recv().ok()?;
        self.shared.take(charge);
        Some(command)
    }

    /// Announces that the thread is going to sleep. Look into the queue once more after this.
    pub(crate) fn set_asleep(&self, asleep: bool) {
        self.shared.asleep.store(asleep, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::data::{ChannelId, MESSAGE_MAX, Message};

    fn say(queue: &ShardQueue, data: &Arc<[u8]>) -> bool {
        let message = Message {
            text: false,
            data: data.clone(),
        };
        queue.send(ShardCommand::Data {
            session: SessionId::from_bits(1),
            command: DataCommand::Send {
                channel: ChannelId(0),
                message,
            },
        })
    }

    #[test]
    fn messages_that_wait_are_bounded_by_their_octets_and_nothing_else_is() {
        let (queue, inbox) = ShardQueue::new(None);
        let one = || -> Arc<[u8]> { vec![0; MESSAGE_MAX as usize].into() };
        let most = DATA / MESSAGE_MAX as usize;
        for round in 0..3 {
            let taken = (0..3 * most).filter(|_| say(&queue, &one())).count();
            assert_eq!(taken, most, "round {round}");
            let close = ShardCommand::Close {
                session: SessionId::from_bits(1),
            };
            assert!(queue.send(close), "what is no message has room");
            let left = std::iter::from_fn(|| inbox.try_recv()).count();
            assert_eq!(left, most + 1);
        }
        // One for many is there once; the next one is another, even where the first one lay.
        for _ in 0..most {
            let shared = one();
            for _ in 0..MESSAGES / most {
                assert!(say(&queue, &shared));
            }
        }
        assert_eq!(std::iter::from_fn(|| inbox.try_recv()).count(), MESSAGES);
        let all: Vec<_> = (0..most).map(|_| one()).collect();
        let taken = all
            .iter()
            .filter(|data| say(&queue, data) && say(&queue, data));
        assert_eq!(taken.count(), most);
        assert!(!say(&queue, &one()));
        while inbox.try_recv().is_some() {}
        // Small ones leave room for others.
        let small: Vec<Arc<[u8]>> = (0..2 * CAPACITY).map(|_| vec![0; 9].into()).collect();
        let taken = small.iter().filter(|data| say(&queue, data)).count();
        assert_eq!(taken, MESSAGES);
        let others = (0..CAPACITY).take_while(|_| queue.send(ShardCommand::Stop));
        assert_eq!(others.count(), CAPACITY - MESSAGES);
        assert!(!say(&queue, &small[0]));
        while inbox.try_recv().is_some() {}
        let left = [&queue.shared.messages, &queue.shared.octets];
        assert_eq!(left.map(|left| left.load(Ordering::Relaxed)), [0, 0]);
    }
}
