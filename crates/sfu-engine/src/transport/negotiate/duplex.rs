// SPDX-License-Identifier: MPL-2.0

//! Who publishes and is sent tracks over one connection: its offers become a session, changes of that, and answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Carried, CarriedOn, Identity, OfferError, PlayoutDelay, PublisherTrack, slot_at};
use crate::codec::Codec;
use crate::peer::data::DataObserver;
use crate::peer::duplex::Duplex;
use crate::peer::sdp::Conversation;
use crate::transport::AgreedTracks;
use crate::transport::lean::AgreedSlots;
use crate::transport::patch::Fragment;

/// What has been agreed on with such a peer. Kept by whoever speaks with it: its later offers are answered there, and the shard
/// is told of what comes of them.
#[derive(Debug, Clone)]
pub struct DuplexNegotiation {
    fingerprint: Arc<str>,
    conversation: Conversation,
}

/// An offer was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversed {
    /// The answer.
    pub sdp: String,
    /// All that the peer sends from now on.
    pub tracks: Vec<PublisherTrack>,
    /// For each track that it is to be sent its m-line. `None`: the offer has none for it.
    pub carried: Vec<Option<CarriedOn>>,
    /// M-lines for sounds, and for pictures, on which more could be put.
    pub free: [usize; 2],
}

/// What the shard is to be told of a later offer.
#[derive(Debug, Clone)]
pub struct ChangedBoth {
    /// For [`ShardCommand::Republish`](crate::queue::ShardCommand::Republish).
    pub tracks: AgreedTracks,
    /// For [`ShardCommand::Slots`](crate::queue::ShardCommand::Slots).
    pub slots: AgreedSlots,
    /// ICE begins anew: for [`ShardCommand::Patch`](crate::queue::ShardCommand::Patch).
    pub restart: Option<Fragment>,
}

/// Answers the first offer of a peer that publishes, and is to be sent `wanted`, as far as its m-lines go. With somebody who is told
/// of data channels, it may have these, too.
pub fn accept_both(
    identity: &Identity,
    offer: &str,
    wanted: &[Carried],
    local: &[SocketAddr],
    delay: Option<PlayoutDelay>,
    data: Option<Arc<dyn DataObserver>>,
    now: Instant,
) -> Result<(Duplex, DuplexNegotiation, Conversed), OfferError> {
    let fingerprint = identity.fingerprint.clone();
    let takes = (delay.is_some(), data.is_some());
    let (agreed, conversation, conversed) =
        Conversation::begin(offer, takes, wanted, &fingerprint, local)?;
    let answered = Conversed {
        sdp: conversed.answer,
        tracks: conversed.tracks.publisher()?,
        carried: conversed.carried,
        free: conversed.free,
    };
    let duplex = Duplex::new(now, identity, agreed, conversed.tracks, delay, data);
    let negotiation = DuplexNegotiation {
        fingerprint,
        conversation,
    };
    Ok((duplex, negotiation, answered))
}

impl DuplexNegotiation {
    /// The codecs of pictures that the peer takes, on some m-line or on the one with this place.
    pub fn pictures(&self, place: Option<usize>) -> Vec<Codec> {
        self.conversation.pictures(place.map(slot_at))
    }

    /// Answers another offer on the same connection. One that is refused changes nothing.
    pub fn answer(
        &mut self,
        offer: &str,
        wanted: &[Carried],
    ) -> Result<(ChangedBoth, Conversed), OfferError> {
        let mut conversation = self.conversation.clone();
        let conversed = conversation.again(offer, wanted, &self.fingerprint)?;
        let answered = Conversed {
            sdp: conversed.answer,
            tracks: conversed.tracks.publisher()?,
            carried: conversed.carried,
            free: conversed.free,
        };
        self.conversation = conversation;
        let changed = ChangedBoth {
            tracks: conversed.tracks,
            slots: conversed.slots,
            restart: conversed.restart.map(Fragment::restarting),
        };
        Ok((changed, answered))
    }
}
