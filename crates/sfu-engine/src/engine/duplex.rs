// SPDX-License-Identifier: MPL-2.0

//! Peers of rooms that publish and are sent tracks over one connection, and make all offers (LiveKit's v1).
//!
//! What was agreed on is kept by whoever speaks with the peer ([`DuplexPeer`]); the shard is told of what comes of it.

use std::sync::Arc;
use std::time::Instant;

use super::peers::send_patch;
use super::{Engine, Grouped, Peer, PublishRefused, SessionError, Shown, random_bits};
use crate::codec::Codec;
use crate::ids::SessionId;
use crate::layers::Preference;
use crate::queue::ShardCommand;
use crate::shard::PublicationId;
use crate::stream::Stream;
use crate::transport::negotiate::{self, Carried, Conversed, DuplexNegotiation, PublisherTrack};

/// A peer that publishes and is sent tracks over one connection.
#[derive(Debug)]
pub struct DuplexPeer {
    session: SessionId,
    shard: usize,
    negotiation: DuplexNegotiation,
    streams: Vec<(PublicationId, Arc<Stream>)>,
    /// What it is listed as.
    stream: Arc<Stream>,
}

impl DuplexPeer {
    /// Its session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The codecs of pictures that it takes, on some m-line or on the one with this place.
    pub fn pictures(&self, place: Option<usize>) -> Vec<Codec> {
        self.negotiation.pictures(place)
    }

    /// The stream that a publication feeds.
    pub fn stream(&self, id: PublicationId) -> Option<&Arc<Stream>> {
        let known = self.streams.iter().find(|(known, _)| *known == id);
        known.map(|(_, stream)| stream)
    }
}

impl Engine {
    /// Answers the first offer of such a peer, which is to be sent `wanted`, as far as its m-lines go. `group` says which of the
    /// tracks that it publishes are one stream.
    pub fn converse(
        &self,
        peer: &Peer,
        offer: &str,
        wanted: &[Carried],
        group: &mut dyn FnMut(&[PublisherTrack]) -> Vec<Grouped>,
    ) -> Result<(DuplexPeer, Conversed), PublishRefused> {
        let admitted = self.admit(peer.address)?;
        let (shard, addresses) = self.place(offer).ok_or(PublishRefused::Busy)?;
        let local = self.local_addresses(shard, peer.address);
        let accepted = negotiate::accept_both(
            &self.identity,
            offer,
            wanted,
            &local,
            self.config.playout_delay,
            peer.data.clone(),
            Instant::now(),
        );
        let (transport, negotiation, answered) =
            accepted.inspect_err(|_| self.counters.offers_refused.add(1))?;
        let session = SessionId::from_bits(random_bits().ok_or(PublishRefused::Busy)?);
        let mut streams = Vec::new();
        let grouped = group(&answered.tracks);
        let publications = self.publications((session, shard), &mut streams, grouped);
        let stream = Arc::new(Stream::new(peer.listed.clone(), 0));
        let shared = self.shared_of(peer, session, shard, stream.clone());
        let limits = self.limits();
        let command = ShardCommand::Converse {
            publications,
            transport: Box::new(transport),
            session: self.sessions.enter(shared.admitted(admitted), addresses),
            timeout: limits.publisher_timeout,
            max_bitrate: limits.publisher_max_bitrate,
        };
        let peer = DuplexPeer {
            session,
            shard: shard.index(),
            negotiation,
            streams,
            stream,
        };
        let sent = shard.queue().send(command);
        sent.then_some((peer, answered)).ok_or(PublishRefused::Busy)
    }

    /// Answers another offer of it. One that is refused changes nothing.
    pub fn converse_again(
        &self,
        peer: &mut DuplexPeer,
        offer: &str,
        wanted: &[Carried],
        group: &mut dyn FnMut(&[PublisherTrack]) -> Vec<Grouped>,
    ) -> Result<Conversed, PublishRefused> {
        let shard = self.shards.get(peer.shard).ok_or(PublishRefused::Busy)?;
        let answer = peer.negotiation.answer(offer, wanted);
        let (changed, answered) = answer.inspect_err(|_| self.counters.offers_refused.add(1))?;
        let session = peer.session;
        let grouped = group(&answered.tracks);
        let publications = self.publications((session, shard), &mut peer.streams, grouped);
        let all_sent = shard.queue().send(ShardCommand::Republish {
            session,
            tracks: changed.tracks,
            publications,
        }) && shard.queue().send(ShardCommand::Slots {
            session,
            slots: changed.slots,
        });
        if !all_sent {
            return Err(PublishRefused::Busy);
        }
        if let Some(fragment) = changed.restart {
            send_patch(shard, session, fragment);
        }
        Ok(answered)
    }

    /// What is on one of its places ([`CarriedOn::place`](negotiate::CarriedOn::place)) from now on; nothing: it is free.
    pub fn carry_on(
        &self,
        peer: &DuplexPeer,
        place: usize,
        stream: Option<&Arc<Stream>>,
        preference: &Preference,
    ) -> Result<Option<Shown>, SessionError> {
        let of = (peer.session, peer.shard, &peer.stream);
        self.carry_at(of, place, stream, preference)
    }

    /// What it wants of what one of its places carries has changed.
    pub fn prefer_on(
        &self,
        peer: &DuplexPeer,
        place: usize,
        preference: Preference,
    ) -> Result<(), SessionError> {
        self.prefer_at((peer.session, peer.shard), place, preference)
    }
}
