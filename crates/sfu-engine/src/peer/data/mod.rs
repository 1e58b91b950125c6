// SPDX-License-Identifier: MPL-2.0

//! Data channels (RFC 8831, RFC 8832) over a session's DTLS (RFC 8261), on the shard's thread. Called by
//! [`Connection`](crate::transport::lean::connection::Connection), for viewers and publishers alike.
//!
//! SCTP is `sctp-proto`'s ([`association`]). What is around it is ours: opening and closing ([`dcep`], [`channel`]), what waits to be
//! sent ([`outgoing`]), and the bounds of all that a peer can make grow ([`bounds`]). A panic in the library ends a session's channels,
//! not its media.

mod association;
mod bounds;
mod channel;
mod dcep;
mod outgoing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;

use crate::transport::work::{Allowance, DATA};
use association::Association;

/// The SCTP port that everybody uses, and that stands for one that is not told.
pub(crate) const PORT: u16 = 5_000;
/// The largest message that is taken, and sent.
pub(crate) const MESSAGE_MAX: u32 = 256 * 1024;
/// The largest message of a peer that does not say what it takes (RFC 8841, section 6.1).
const MESSAGE_UNTOLD: u32 = 64 * 1024;
/// Commands that may wait for SCTP.
const COMMANDS: usize = 64;

/// A channel of a session: its SCTP stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

/// What becomes of a message that is lost on the way (RFC 3758).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reliability {
    /// It is sent again until it is there.
    #[default]
    Reliable,
    /// It is sent again so many times at most.
    Retransmits(u16),
    /// It is given up after so many milliseconds.
    Lifetime(u16),
}

/// How a channel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Its name, which others may have, too.
    pub label: String,
    /// What is spoken on it.
    pub protocol: String,
    /// Messages come in their order.
    pub ordered: bool,
    /// What becomes of what is lost.
    pub reliability: Reliability,
    /// Agreed on beforehand under this number. `None`: the peer is told of it, and the number is ours to choose.
    pub negotiated: Option<ChannelId>,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            label: String::new(),
            protocol: String::new(),
            ordered: true,
            reliability: Reliability::Reliable,
            negotiated: None,
        }
    }
}

/// A message. To clone it is to share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// It is text, as its sender says, and not octets.
    pub text: bool,
    /// May be empty.
    pub data: Arc<[u8]>,
}

/// What a session is to do with its channels. What comes before SCTP is up waits for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataCommand {
    /// Open a channel.
    Open(ChannelConfig),
    /// Send a message. Where it can't be sent (no such channel, larger than the peer takes), it is dropped.
    Send {
        /// On which channel.
        channel: ChannelId,
        /// What.
        message: Message,
    },
    /// Close a channel, after what waits there has left.
    Close(ChannelId),
}

/// Why there are no channels any more. The session's media goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DataEnd {
    /// The peer has ended SCTP, or does not keep to it.
    #[error("the peer has ended its data channels")]
    ByPeer,
    /// It has opened more than there may be.
    #[error("the peer has opened too many data channels")]
    TooManyChannels,
    /// It has sent too many pieces of messages, of which none was whole.
    #[error("the peer has sent too many pieces that make no message")]
    TooManyPieces,
    /// The library failed at what it sent.
    #[error("what the peer has sent could not be handled")]
    Failed,
}

/// Who is told what comes by the channels of one session. Called on the shard's thread: must return at once.
pub trait DataObserver: Send + Sync + fmt::Debug {
    /// A channel is open: the peer's, or one of ours.
    fn opened(&self, channel: ChannelId, config: &ChannelConfig);
    /// A message has come. `false`: there is no room for it. On a reliable channel it is then given again a little later, and
    /// nothing else is read meanwhile, so that the peer has to wait; on another one it is lost.
    fn message(&self, channel: ChannelId, message: &Message) -> bool;
    /// A message was not sent on that, for too much waits there already: the peer's network is slow. On a reliable channel those before
    /// and after it are sent all the same.
    fn lost(&self, _channel: ChannelId) {}
    /// A channel is closed, by whomever.
    fn closed(&self, channel: ChannelId);
    /// There are no channels any more, and there will be none.
    fn ended(&self, why: DataEnd);
}

/// What offer and answer agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgreedData {
    /// The peer's SCTP port.
    port: u16,
    /// The largest message that it is sent.
    message_max: u32,
}

impl AgreedData {
    /// As the peer tells it. A size of 0 is any.
    pub(crate) fn new(port: Option<u16>, message_size: Option<u64>) -> Self {
        let size = match message_size {
            None => MESSAGE_UNTOLD,
            Some(0) => MESSAGE_MAX,
            Some(size) => u32::try_from(size).unwrap_or(MESSAGE_MAX).min(MESSAGE_MAX),
        };
        Self {
            port: port.filter(|port| *port != 0).unwrap_or(PORT),
            message_max: size,
        }
    }
}

/// See the module's description.
pub(crate) struct Data {
    observer: Arc<dyn DataObserver>,
    /// DTLS was begun by us.
    is_client: bool,
    agreed: Option<AgreedData>,
    state: State,
    allowance: Allowance,
}

enum State {
    /// For an agreement, and for DTLS.
    Waits(VecDeque<DataCommand>),
    Begun(Box<Association>),
    Over,
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data").finish_non_exhaustive()
    }
}

impl Data {
    pub(crate) fn new(
        now: Instant,
        observer: Arc<dyn DataObserver>,
        is_client: bool,
        agreed: Option<AgreedData>,
    ) -> Self {
        Self {
            observer,
            is_client,
            agreed,
            state: State::Waits(VecDeque::new()),
            allowance: Allowance::new(now, DATA),
        }
    }

    /// What was agreed on first holds.
    pub(crate) fn agree(&mut self, agreed: Option<AgreedData>) {
        self.agreed = self.agreed.or(agreed);
    }

    /// Whether the peer has had its share, so that nothing is read: it sends that again later.
    pub(crate) fn is_over_budget(&mut self, now: Instant) -> bool {
        self.allowance.is_spent(now)
    }

    pub(crate) fn command(&mut self, now: Instant, command: DataCommand) {
        match &mut self.state {
            State::Waits(commands) if commands.len() < COMMANDS => commands.push_back(command),
            State::Waits(_) | State::Over => {}
            State::Begun(_) => self.guard(|association, observer| {
                association.command(now, command, observer);
            }),
        }
    }

    /// An SCTP packet has come.
    pub(crate) fn receive(&mut self, now: Instant, packet: &[u8]) {
        self.begin(now);
        self.allowance.spend(bounds::price(packet));
        self.guard(|association, _| association.receive(now, packet));
    }

    /// Puts out what is due, tells what has come, and returns when to call again. DTLS is up.
    pub(crate) fn drain(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) -> Option<Instant> {
        self.begin(now);
        let mut due = None;
        self.guard(|association, observer| due = association.drain(now, observer, send));
        due
    }

    /// Begins, once that was agreed on. DTLS's client begins SCTP, too: nobody expects more.
    fn begin(&mut self, now: Instant) {
        if let (State::Waits(commands), Some(agreed)) = (&mut self.state, self.agreed) {
            let commands = std::mem::take(commands);
            let association = Association::new(agreed.port, agreed.message_max, self.is_client);
            self.state = State::Begun(Box::new(association));
            for command in commands {
                self.command(now, command);
            }
        }
    }

    /// Does something with the association. Where that ends, or the library panics at what the peer has sent, it is told.
    fn guard(&mut self, act: impl FnOnce(&mut Association, &dyn DataObserver)) {
        let State::Begun(association) = &mut self.state else {
            return;
        };
        let observer = &*self.observer;
        let done = catch_unwind(AssertUnwindSafe(|| act(association, observer)));
        let end = match done {
            Ok(()) => association.end(),
            Err(_) => Some(DataEnd::Failed),
        };
        if let Some(why) = end {
            tracing::debug!(%why, "a session's data channels have ended");
            self.state = State::Over;
            self.observer.ended(why);
        }
    }
}
