// SPDX-License-Identifier: MPL-2.0

//! A session both ways in a shard: what the peer is sent ([`Downlink`]), and what it publishes ([`Intake`]), over one connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::contact::Contact;
use super::downlink::Downlink;
use super::intake::Intake;
use super::outbox::Outbox;
use super::{Attached, Fate};
use crate::session::SessionShared;
use crate::shard::Publication;
use crate::transport::work::{PUBLISHER, Work};
use crate::transport::{PublisherTransport, Taken, ViewerTransport};

/// See the module's description.
#[derive(Debug)]
pub(super) struct Both {
    pub(super) downlink: Downlink,
    intake: Intake,
}

impl Both {
    /// `None`: nothing can be published over that.
    pub(super) fn new(
        now: Instant,
        publications: Vec<Publication>,
        mut transport: Box<dyn ViewerTransport>,
        session: Arc<SessionShared>,
        timeout: Duration,
    ) -> Option<Self> {
        let intake = Intake::new(now, publications, transport.publisher()?);
        let mut downlink = Downlink::new(now, transport, session);
        downlink.contact = Contact::new(now, timeout, PUBLISHER);
        Some(Self { downlink, intake })
    }

    /// What it publishes, and its session's way to it.
    pub(super) fn publisher(&mut self) -> Option<(&mut Intake, &mut dyn PublisherTransport)> {
        Some((&mut self.intake, self.downlink.publisher()?))
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        if !self.intake.has_room(now, data) {
            return Taken::Unproven(Work::default());
        }
        let taken = self.downlink.receive(now, source, destination, data);
        if matches!(taken, Taken::Work(_)) {
            self.intake.took(data);
        }
        taken
    }

    /// Puts out what is due, and hands what came in to the streams.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        streams: &Slab<Attached>,
    ) -> Fate {
        let session = self.downlink.session().clone();
        let is_exhausted = match self.publisher() {
            Some((intake, transport)) => intake.is_exhausted(&session, transport),
            None => false,
        };
        let gathered = Some(&mut self.intake.gathered);
        let fate = self.downlink.drain(now, outbox, streams, gathered);
        self.intake.take_in(now, &session);
        if let Some((intake, transport)) = self.publisher() {
            intake.tell_limit(now, transport);
        }
        match is_exhausted {
            true => Fate::Over,
            false => fate,
        }
    }
}
