// SPDX-License-Identifier: MPL-2.0

//! Viewers who are made an offer of one stream and answer it, where others make one: what `webrtcsrc` expects of who sends.
//!
//! Called by the signalling of GStreamer's own elements. Once it has answered it is a viewer as each other one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Admitted, Engine, NAMED, SubscribeError, random_bits};
use crate::ids::{SessionId, StreamName};
use crate::layers::Preference;
use crate::peer::sdp;
use crate::session::SessionShared;
use crate::stream::Stream;
use crate::transport::negotiate::{AnswerTaken, Offers};

/// A viewer that has not answered yet. It has a place among the sessions until it is dropped.
#[derive(Debug)]
pub struct OfferedViewer {
    session: SessionId,
    shard: usize,
    address: Option<IpAddr>,
    stream: Arc<Stream>,
    offers: Offers,
    offer: String,
    admitted: Admitted,
}

impl OfferedViewer {
    /// Its session, which begins with its answer.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What it is offered.
    pub fn offer(&self) -> &str {
        &self.offer
    }
}

impl Engine {
    /// An offer of what a stream has now, to somebody at `peer`.
    pub fn offer(
        &self,
        name: &StreamName,
        peer: Option<IpAddr>,
    ) -> Result<OfferedViewer, SubscribeError> {
        let unknown = || SubscribeError::UnknownStream(name.clone());
        let stream = self.router.find(name).ok_or_else(unknown)?;
        let codecs = stream.codecs();
        if codecs.video.is_none() && codecs.audio.is_none() {
            return Err(SubscribeError::NotReady(name.clone()));
        }
        let admitted = self.admit(peer)?;
        // It has named no address yet.
        let (shard, _) = self.place("").ok_or(SubscribeError::Busy)?;
        let local = self.local_addresses(shard, peer);
        let delay = self.config.playout_delay;
        let mut offers = Offers::of_stream(&self.identity, &local, delay, name, codecs)?;
        Ok(OfferedViewer {
            session: SessionId::from_bits(random_bits().ok_or(SubscribeError::Busy)?),
            shard: shard.index(),
            address: peer,
            stream,
            offer: offers.offer()?,
            offers,
            admitted,
        })
    }

    /// Takes its answer: the session begins.
    pub fn begin(
        &self,
        mut viewer: OfferedViewer,
        answer: &str,
    ) -> Result<SessionId, SubscribeError> {
        let shard = self.shards.get(viewer.shard).ok_or(SubscribeError::Busy)?;
        let taken = viewer.offers.answered(answer, Instant::now());
        let AnswerTaken::Begun(transport) =
            taken.inspect_err(|_| self.counters.offers_refused.add(1))?
        else {
            return Err(SubscribeError::Busy);
        };
        let (stream, id) = (viewer.stream, viewer.session);
        let (tag, preference) = (self.next_etag(), Preference::default());
        let session = SessionShared::new(id, stream.clone(), shard.index(), tag, preference);
        let session = session.admitted(viewer.admitted).from(viewer.address);
        let named = sdp::named(answer, NAMED);
        self.enter(shard, &stream, transport, (session, named))?;
        tracing::info!(stream = %stream.name(), session = ?id, "played by a peer that was made an offer");
        Ok(id)
    }
}
