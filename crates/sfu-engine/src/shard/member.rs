// SPDX-License-Identifier: MPL-2.0

//! A session in a shard: a viewer, a publisher, or both.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use super::both::Both;
use super::contact::Contact;
use super::downlink::Downlink;
use super::ingest::Ingest;
use super::intake::Intake;
use super::outbox::Outbox;
use super::{Attached, Fate};
use crate::session::SessionShared;
use crate::transport::patch::{Fragment, PatchError};
use crate::transport::{PatchOutcome, PublisherTransport, Taken, Transport};

/// See the module's description.
#[derive(Debug)]
pub(super) enum Member {
    Viewer(Box<Downlink>),
    Publisher(Box<Ingest>),
    Both(Box<Both>),
}

impl Member {
    /// What it is sent, where it is sent something.
    pub(super) fn viewer(&mut self) -> Option<&mut Downlink> {
        match self {
            Self::Viewer(viewer) => Some(viewer),
            Self::Both(both) => Some(&mut both.downlink),
            Self::Publisher(_) => None,
        }
    }

    /// What it publishes, where it may, and its session's way to it.
    pub(super) fn publisher(&mut self) -> Option<(&mut Intake, &mut dyn PublisherTransport)> {
        match self {
            Self::Viewer(_) => None,
            Self::Publisher(publisher) => Some(publisher.publisher()),
            Self::Both(both) => both.publisher(),
        }
    }

    pub(super) fn session(&self) -> &Arc<SessionShared> {
        match self {
            Self::Viewer(viewer) => viewer.session(),
            Self::Publisher(publisher) => publisher.session(),
            Self::Both(both) => both.downlink.session(),
        }
    }

    pub(super) fn contact(&self) -> &Contact {
        match self {
            Self::Viewer(viewer) => &viewer.contact,
            Self::Publisher(publisher) => &publisher.contact,
            Self::Both(both) => &both.downlink.contact,
        }
    }

    pub(super) fn contact_mut(&mut self) -> &mut Contact {
        match self {
            Self::Viewer(viewer) => &mut viewer.contact,
            Self::Publisher(publisher) => &mut publisher.contact,
            Self::Both(both) => &mut both.downlink.contact,
        }
    }

    pub(super) fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        let taken = match self {
            Self::Viewer(viewer) => viewer.receive(now, source, destination, data),
            Self::Publisher(publisher) => publisher.receive(now, source, destination, data),
            Self::Both(both) => both.receive(now, source, destination, data),
        };
        let contact = self.contact_mut();
        match taken {
            Taken::Work(work) => {
                contact.heard(now, source);
                contact.allowance.spend(work);
            }
            Taken::Unproven(work) => contact.allowance.spend(work),
            Taken::NotUnderstood | Taken::OverBudget => {}
        }
        taken
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, outbox: &mut Outbox) {
        if let Some(viewer) = self.viewer() {
            viewer.handle_timeout(now, outbox);
        }
    }

    pub(super) fn patch(
        &mut self,
        now: Instant,
        fragment: &Fragment,
    ) -> Result<PatchOutcome, PatchError> {
        self.transport_mut().patch(now, fragment)
    }

    /// Its session towards the peer.
    pub(super) fn transport_mut(&mut self) -> &mut dyn Transport {
        match self {
            Self::Viewer(viewer) => viewer.transport_mut(),
            Self::Publisher(publisher) => publisher.transport_mut(),
            Self::Both(both) => both.downlink.transport_mut(),
        }
    }

    pub(super) fn close(&mut self) {
        match self {
            Self::Viewer(viewer) => viewer.close(),
            Self::Publisher(publisher) => publisher.close(),
            Self::Both(both) => both.downlink.close(),
        }
    }

    /// Puts out what is due. What viewers want again is in the rings of the streams.
    pub(super) fn drain(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        streams: &Slab<Attached>,
    ) -> Fate {
        match self {
            Self::Viewer(viewer) => viewer.drain(now, outbox, streams, None),
            Self::Publisher(publisher) => publisher.drain(now, outbox),
            Self::Both(both) => both.drain(now, outbox, streams),
        }
    }
}
