// SPDX-License-Identifier: MPL-2.0

//! Peers of rooms: who publishes any tracks and makes more offers, and who is offered tracks as these come and go.
//!
//! What was agreed on is kept by whoever speaks with the peer ([`PublishingPeer`], [`InvitedPeer`]); the shard is told of what
//! comes of it. Nothing here waits for a shard.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use super::{Admitted, Engine, NAMED, PublishRefused, SessionError, SubscribeError, random_bits};
use crate::codec::{Codec, TrackKind};
use crate::driver::ShardThread;
use crate::ids::{SessionId, StreamName};
use crate::layers::{Preference, Why};
use crate::peer::data::DataObserver;
use crate::peer::sdp;
use crate::queue::ShardCommand;
use crate::session::{SessionObserver, SessionShared};
use crate::shard::{PeerFeedback, Publication, PublicationId};
use crate::stream::{PublishOptions, Stream};
use crate::transport::negotiate::{
    self, AnswerTaken, Answered, Negotiation, Offers, PublisherTrack,
};
use crate::transport::patch::{Fragment, PatchError};

/// Who speaks with the engine for a peer.
#[derive(Debug)]
pub struct Peer {
    /// What its sessions are listed as.
    pub listed: StreamName,
    /// Where it is: on this machine it is also offered the loopback address.
    pub address: Option<IpAddr>,
    /// Told when its session is up, and when it is over.
    pub observer: Arc<dyn SessionObserver>,
    /// Told of its data channels, if it may have some.
    pub data: Option<Arc<dyn DataObserver>>,
}

/// Tracks that are one stream: one of each kind at most.
#[derive(Debug)]
pub struct Grouped {
    /// Which publication of the peer's.
    pub id: PublicationId,
    /// Under which name it is published: the first that is free when it is new.
    pub names: Vec<StreamName>,
    /// The tracks.
    pub tracks: Vec<PublisherTrack>,
}

/// A peer that publishes any tracks.
#[derive(Debug)]
pub struct PublishingPeer {
    session: SessionId,
    shard: usize,
    negotiation: Negotiation,
    streams: Vec<(PublicationId, Arc<Stream>)>,
}

impl PublishingPeer {
    /// Its session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The stream that a publication feeds.
    pub fn stream(&self, id: PublicationId) -> Option<&Arc<Stream>> {
        let known = self.streams.iter().find(|(known, _)| *known == id);
        known.map(|(_, stream)| stream)
    }
}

/// A peer that is offered tracks.
#[derive(Debug)]
pub struct InvitedPeer {
    session: SessionId,
    shard: usize,
    peer: Peer,
    offers: Offers,
    /// Its place among the sessions, until it has answered.
    admitted: Option<Admitted>,
    stream: Arc<Stream>,
}

impl InvitedPeer {
    /// Its session, which begins with its first answer.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.admitted.is_none()
    }

    /// The codecs of pictures that it takes, on some m-line or on this one.
    pub fn pictures(&self, line: Option<usize>) -> Vec<Codec> {
        match line {
            None => self.offers.pictures(None),
            Some(line) => match self.offers.place(line) {
                Some(place) => self.offers.pictures(Some(place)),
                None => Vec::new(),
            },
        }
    }

    /// What it is offered next.
    pub fn offers(&mut self) -> &mut Offers {
        &mut self.offers
    }
}

/// What an m-line of a peer carries, as it is sent.
#[derive(Debug, Clone)]
pub struct Shown(Arc<SessionShared>);

impl Shown {
    /// The peer's network has no room for its pictures.
    pub fn is_starved(&self) -> bool {
        self.0.choice() == (false, Why::NoBandwidth)
    }

    /// How many layers below the best that the peer would have its pictures are, since its network carries no better ones.
    pub fn missing(&self, max_height: Option<u32>) -> usize {
        let (true, Why::Bandwidth) = self.0.choice() else {
            return 0;
        };
        let info = self.0.info();
        let limit = max_height.unwrap_or(u32::MAX);
        let look = self.0.stream().look(Instant::now());
        let wanted = look.layers.iter().filter(|layer| {
            let fits = layer.height.is_none_or(|height| height <= limit);
            layer.active && (fits || Some(&layer.rid) == info.target.as_ref())
        });
        let mut wanted = wanted.map(|layer| &layer.rid);
        wanted
            .position(|rid| Some(rid) == info.target.as_ref())
            .unwrap_or(0)
    }
}

impl Engine {
    /// Answers the first offer of a peer that publishes any tracks. `group` says which of them are one stream.
    pub fn publish_tracks(
        &self,
        peer: &Peer,
        offer: &str,
        group: &mut dyn FnMut(&[PublisherTrack]) -> Vec<Grouped>,
    ) -> Result<(PublishingPeer, Answered), PublishRefused> {
        let admitted = self.admit(peer.address)?;
        let (shard, addresses) = self.place(offer).ok_or(PublishRefused::Busy)?;
        let local = self.local_addresses(shard, peer.address);
        let data = peer.data.clone();
        let accepted =
            negotiate::accept_tracks(&self.identity, offer, &local, data, Instant::now());
        let (transport, negotiation, answered) =
            accepted.inspect_err(|_| self.counters.offers_refused.add(1))?;
        let session = SessionId::from_bits(random_bits().ok_or(PublishRefused::Busy)?);
        let mut publishing = PublishingPeer {
            session,
            shard: shard.index(),
            negotiation,
            streams: Vec::new(),
        };
        let streams = &mut publishing.streams;
        let publications = self.publications((session, shard), streams, group(&answered.tracks));
        let stream = Arc::new(Stream::new(peer.listed.clone(), 0));
        let shared = self.shared_of(peer, session, shard, stream);
        let shared = shared.admitted(admitted).publishing();
        let limits = self.limits();
        let command = ShardCommand::Publish {
            publications,
            transport: Box::new(transport),
            session: self.sessions.enter(shared, addresses),
            timeout: limits.publisher_timeout,
            max_bitrate: limits.publisher_max_bitrate,
        };
        let sent = shard.queue().send(command);
        sent.then_some((publishing, answered))
            .ok_or(PublishRefused::Busy)
    }

    /// Answers another offer of it. One that is refused changes nothing.
    pub fn republish(
        &self,
        peer: &mut PublishingPeer,
        offer: &str,
        group: &mut dyn FnMut(&[PublisherTrack]) -> Vec<Grouped>,
    ) -> Result<Answered, PublishRefused> {
        let shard = self.shards.get(peer.shard).ok_or(PublishRefused::Busy)?;
        let answer = peer.negotiation.answer(offer);
        let (changed, answered) = answer.inspect_err(|_| self.counters.offers_refused.add(1))?;
        let of = (peer.session, shard);
        let publications = self.publications(of, &mut peer.streams, group(&answered.tracks));
        let command = ShardCommand::Republish {
            session: peer.session,
            tracks: changed.tracks,
            publications,
        };
        if !shard.queue().send(command) {
            return Err(PublishRefused::Busy);
        }
        if let Some(fragment) = changed.restart {
            send_patch(shard, peer.session, fragment);
        }
        Ok(answered)
    }

    /// What a peer publishes from now on.
    pub(super) fn publications(
        &self,
        (session, shard): (SessionId, &ShardThread),
        streams: &mut Vec<(PublicationId, Arc<Stream>)>,
        grouped: Vec<Grouped>,
    ) -> Vec<Publication> {
        let before = std::mem::take(streams);
        let mut publications = Vec::with_capacity(grouped.len());
        for Grouped { id, names, tracks } in grouped {
            let known = before.iter().find(|(known, _)| *known == id);
            let (stream, claim) = match known {
                Some((_, stream)) => (stream.clone(), None),
                None => {
                    let options = || PublishOptions {
                        keyframe_min_interval: self.config.keyframe_min_interval,
                        feedback: Arc::new(PeerFeedback {
                            queue: shard.queue().clone(),
                            session,
                            publication: id,
                            input: "room",
                        }),
                    };
                    let mut claims = names.iter();
                    let claimed = claims.find_map(|name| self.router.claim(name, options(), false));
                    let Some((stream, claim)) = claimed else {
                        tracing::info!(?names, "not published: others have these names");
                        continue;
                    };
                    tracing::info!(stream = %stream.name(), session = ?session, "published by a peer");
                    (stream, Some(claim))
                }
            };
            streams.push((id, stream));
            publications.push(Publication::new(id, claim, &tracks));
        }
        publications
    }

    /// A peer is to be offered tracks. It takes a place among the sessions at once.
    pub fn invite(&self, peer: Peer) -> Result<InvitedPeer, SubscribeError> {
        let admitted = self.admit(peer.address)?;
        // It has named no address yet.
        let (shard, _) = self.place("").ok_or(SubscribeError::Busy)?;
        let local = self.local_addresses(shard, peer.address);
        Ok(InvitedPeer {
            session: SessionId::from_bits(random_bits().ok_or(SubscribeError::Busy)?),
            shard: shard.index(),
            offers: Offers::new(
                &self.identity,
                &local,
                self.config.playout_delay,
                peer.data.clone(),
            )?,
            admitted: Some(admitted),
            stream: Arc::new(Stream::new(peer.listed.clone(), 0)),
            peer,
        })
    }

    /// Takes its answer to the last offer. One that is refused changes nothing.
    pub fn answered(&self, peer: &mut InvitedPeer, answer: &str) -> Result<(), SubscribeError> {
        let shard = self.shards.get(peer.shard).ok_or(SubscribeError::Busy)?;
        let session = peer.session;
        let command = match peer.offers.answered(answer, Instant::now())? {
            AnswerTaken::Begun(transport) => {
                let admitted = peer.admitted.take().ok_or(SubscribeError::Busy)?;
                let shared = self.shared_of(&peer.peer, session, shard, peer.stream.clone());
                ShardCommand::Subscribe {
                    stream: None,
                    transport,
                    session: self
                        .sessions
                        .enter(shared.admitted(admitted), sdp::named(answer, NAMED)),
                }
            }
            AnswerTaken::Changed { slots, restart } => {
                if let Some(fragment) = restart {
                    send_patch(shard, session, fragment);
                }
                ShardCommand::Slots { session, slots }
            }
        };
        let sent = shard.queue().send(command);
        sent.then_some(()).ok_or(SubscribeError::Busy)
    }

    /// An m-line that the peer has taken carries this from now on, or nothing. Where there is no room for that ([`SessionError::Busy`])
    /// it carries what it did.
    pub fn carry(
        &self,
        peer: &InvitedPeer,
        line: usize,
        stream: Option<&Arc<Stream>>,
        preference: &Preference,
    ) -> Result<Option<Shown>, SessionError> {
        let place = peer.offers.place(line).ok_or(SessionError::Unknown)?;
        let of = (peer.session, peer.shard, &peer.stream);
        self.carry_at(of, place, stream, preference)
    }

    /// The same, of a place among what a session is sent.
    pub(super) fn carry_at(
        &self,
        (session, shard, own): (SessionId, usize, &Arc<Stream>),
        place: usize,
        stream: Option<&Arc<Stream>>,
        preference: &Preference,
    ) -> Result<Option<Shown>, SessionError> {
        let shard_of = self.shards.get(shard).ok_or(SessionError::Unknown)?;
        let of = stream.unwrap_or(own).clone();
        let tag = String::new();
        let figures = SessionShared::new(session, of, shard, tag, preference.clone());
        let figures = Arc::new(figures);
        let sent = shard_of.queue().send(ShardCommand::Watch {
            session,
            place,
            // One that is forgotten has ended meanwhile.
            stream: stream.and_then(|stream| self.router.add_viewer(stream)),
            figures: figures.clone(),
        });
        match sent {
            true => Ok(stream.map(|_| Shown(figures))),
            false => Err(SessionError::Busy),
        }
    }

    /// What a peer wants of what an m-line carries has changed.
    pub fn prefer(
        &self,
        peer: &InvitedPeer,
        line: usize,
        preference: Preference,
    ) -> Result<(), SessionError> {
        let place = peer.offers.place(line).ok_or(SessionError::Unknown)?;
        self.prefer_at((peer.session, peer.shard), place, preference)
    }

    /// The same, of a place among what a session is sent.
    pub(super) fn prefer_at(
        &self,
        (session, shard): (SessionId, usize),
        place: usize,
        preference: Preference,
    ) -> Result<(), SessionError> {
        let shard = self.shards.get(shard).ok_or(SessionError::Unknown)?;
        let sent = shard.queue().send(ShardCommand::SetPreference {
            session,
            place,
            preference,
        });
        sent.then_some(()).ok_or(SessionError::Busy)
    }

    /// A way to a peer (`candidate:…`, RFC 8839), which it has told after its offer or answer.
    pub fn trickle(&self, session: SessionId, candidate: &str) -> Result<(), PatchError> {
        let fragment = Fragment::parse(&format!("a={candidate}\r\n"))?;
        if let Ok((_, shard)) = self.find(session) {
            send_patch(shard, session, fragment);
        }
        Ok(())
    }

    pub(super) fn shared_of(
        &self,
        peer: &Peer,
        session: SessionId,
        shard: &ShardThread,
        stream: Arc<Stream>,
    ) -> SessionShared {
        let (tag, preference) = (self.next_etag(), Preference::default());
        SessionShared::new(session, stream, shard.index(), tag, preference)
            .from(peer.address)
            .telling(peer.observer.clone())
    }
}

/// What comes of it is seen on the connection.
pub(super) fn send_patch(shard: &ShardThread, session: SessionId, fragment: Fragment) {
    let (reply, _) = sync_channel(1);
    shard.queue().send(ShardCommand::Patch {
        session,
        fragment,
        reply,
    });
}

impl Grouped {
    /// Whether it has a track of this kind already.
    pub fn has(&self, kind: TrackKind) -> bool {
        self.tracks.iter().any(|track| track.codec.kind() == kind)
    }
}
