// SPDX-License-Identifier: MPL-2.0

//! What a peer publishes, on any number of tracks: its RTP is opened, told apart and put in order; what is missing is asked for
//! again. Called by the shard through [`PublisherTransport`].
//!
//! ICE and DTLS are those of viewers ([`Connection`]). A packet goes through four steps: its header is read ([`packet`]),
//! it is opened ([`UnprotectRtp`]), its track and layer found ([`route`]), and its number made one of that layer ([`receiver`]).
//! Reports, arrivals and the clock are the peer's, whatever its tracks are.
//! **Nothing is learnt from what is not authentic**: no SSRC, no layer, no address, no arrival.

pub(crate) mod agreed;
mod arrivals;
mod control;
mod nack;
mod packet;
mod receiver;
mod reception;
mod route;

pub(crate) use reception::Reception;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use self::agreed::{Agreed, AgreedTracks};
use crate::peer::data::{DataCommand, DataObserver};
use crate::srtp::{self, Protect, Role, Unprotect, UnprotectRtp};
use crate::transport::lean;
use crate::transport::lean::connection::Connection;
use crate::transport::lean::handshake::{Keys, Secured as Handshaken};
use crate::transport::negotiate::Identity;
use crate::transport::patch::{self, Fragment, PatchError};
use crate::transport::work::{Allowance, PUBLISHER_CONTROL};
use crate::transport::{
    PatchOutcome, PublisherTransport, Taken, TrackIn, Transport, TransportEvent, TransportSink,
    Work,
};

/// The largest report that is read.
const REPORT_MAX: usize = 1_500;

/// See the module's description.
pub struct Uplink {
    agreed: lean::Agreed,
    connection: Connection,
    /// When the connection wants to be called; now, where something came for it.
    connection_due: Instant,
    secured: Option<Secured>,
    reception: Reception,
    /// What all but media may take, apart: who sends in the peer's name stops no media.
    allowance: Allowance,
    events: Vec<TransportEvent>,
    closing: bool,
    over: bool,
}

/// What there is once the keys are known.
struct Secured {
    protect: Protect,
    unprotect: Unprotect,
    media: UnprotectRtp,
}

impl std::fmt::Debug for Uplink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplink")
            .field("connection", &self.connection)
            .field("local_ufrag", &self.agreed.local.ufrag)
            .finish_non_exhaustive()
    }
}

impl Uplink {
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        agreed: Agreed,
        data: Option<Arc<dyn DataObserver>>,
    ) -> Self {
        let connection = Connection::new(now, identity, &agreed.connection, data);
        Self {
            agreed: agreed.connection,
            connection,
            connection_due: now,
            secured: None,
            reception: Reception::new(now, agreed.tracks),
            allowance: Allowance::new(now, PUBLISHER_CONTROL),
            events: Vec::new(),
            closing: false,
            over: false,
        }
    }

    /// The handshake is over: media may come.
    fn secure(&mut self, keys: &Keys) {
        let role = match keys.is_client {
            true => Role::Client,
            false => Role::Server,
        };
        let secured = lean::profile(keys.profile)
            .ok_or("another SRTP profile than was offered".to_owned())
            .and_then(|profile| {
                let (protect, unprotect) =
                    srtp::session(profile, &keys.material, role).map_err(|e| e.to_string())?;
                let media = srtp::receiver(profile, &keys.material, role);
                Ok(Secured {
                    protect,
                    unprotect,
                    media: media.map_err(|e| e.to_string())?,
                })
            });
        match secured {
            Ok(secured) => {
                self.secured = Some(secured);
                self.events.push(TransportEvent::Connected);
            }
            Err(error) => {
                tracing::debug!(%error, "session ended by an error");
                self.over = true;
            }
        }
    }

    /// The peer has said something with its keys.
    fn heard(&mut self, now: Instant) {
        if self.connection.heard(now) {
            self.connection_due = now;
        }
    }

    /// An SRTP packet.
    fn receive_media(&mut self, now: Instant, data: &[u8]) -> Option<Work> {
        let secured = self.secured.as_mut()?;
        let work = self.reception.media(now, &mut secured.media, data)?;
        self.heard(now);
        Some(work)
    }

    /// An SRTCP packet.
    fn receive_report(&mut self, now: Instant, data: &[u8]) -> bool {
        let mut scratch = [0; REPORT_MAX];
        let (Some(secured), Some(report)) = (&mut self.secured, scratch.get_mut(..data.len()))
        else {
            return false;
        };
        report.copy_from_slice(data);
        let Ok(compound) = secured.unprotect.rtcp(report) else {
            return false;
        };
        let work = self.reception.report(now, compound);
        self.allowance.spend(work);
        self.heard(now);
        true
    }
}

impl Transport for Uplink {
    fn local_ufrag(&self) -> &str {
        &self.agreed.local.ufrag
    }

    fn set_tag(&mut self, tag: u32) {
        self.connection.set_tag(tag);
    }

    fn ask(&mut self, now: Instant, remote: SocketAddr) {
        self.connection.ask(now, remote);
        self.connection_due = now;
    }

    fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        let path = self.connection.path()?;
        Some((path.local, path.remote))
    }

    /// Told apart by the first octets (RFC 7983; RFC 5761, section 4).
    fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        let is_report = matches!(data, [128..=191, 192..=223, ..]);
        if let [128..=191, ..] = data
            && !is_report
        {
            let work = self.receive_media(now, data);
            return work.map_or(Taken::NotUnderstood, Taken::Work);
        }
        if self.allowance.is_spent(now) {
            return Taken::OverBudget;
        }
        let is_taken = match data.first() {
            _ if is_report => self.receive_report(now, data),
            Some(0..=3) => {
                let accepted = self.connection.stun(now, source, destination, data);
                if accepted {
                    self.allowance.spend(Work::CHECK);
                    self.connection_due = now;
                }
                accepted
            }
            Some(20..=63) => {
                let Some(work) = self.connection.dtls(now, data) else {
                    return Taken::OverBudget;
                };
                self.connection_due = now;
                self.allowance.spend(work);
                return Taken::Unproven(Work::default());
            }
            _ => false,
        };
        match is_taken {
            true => Taken::Work(Work::default()),
            false => Taken::NotUnderstood,
        }
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        if self.connection_due <= now || std::mem::take(&mut self.closing) {
            self.connection_due = self.connection.drain(now, sink);
            match self.connection.take_secured() {
                Some(Handshaken::Media(keys)) => self.secure(&keys),
                Some(Handshaken::Data) => self.events.push(TransportEvent::Connected),
                None => {}
            }
        }
        self.reception.hand_over(sink);
        if self.reception.due() <= now {
            let way = self.secured.as_mut().map(|secured| &mut secured.protect);
            self.reception
                .write(now, way.zip(self.connection.path()), sink);
        }
        self.events.extend(self.reception.events());
        for event in self.events.drain(..) {
            sink.event(event);
        }
        if (self.connection.is_over() || self.over) && !std::mem::replace(&mut self.over, true) {
            sink.event(TransportEvent::Closed);
        }
        self.connection_due.min(self.reception.due())
    }

    fn patch(&mut self, now: Instant, fragment: &Fragment) -> Result<PatchOutcome, PatchError> {
        self.connection_due = now;
        patch::patch(now, &mut self.connection, &mut self.agreed, fragment)
    }

    fn data(&mut self, now: Instant, command: DataCommand) {
        self.connection.command(now, command);
        self.connection_due = now;
    }

    fn close(&mut self) {
        self.connection.close();
        self.closing = true;
    }
}

impl PublisherTransport for Uplink {
    fn reports_arrivals(&self) -> bool {
        self.reception.reports_arrivals()
    }

    fn limit(&mut self, now: Instant, bits_per_second: u64) {
        self.reception.limit(now, bits_per_second);
    }

    fn request_keyframe(&mut self, now: Instant, track: TrackIn, layer: usize) {
        self.reception.request_keyframe(now, track, layer);
    }

    fn set_tracks(&mut self, now: Instant, tracks: AgreedTracks) {
        self.connection.agree_on_data(tracks.data);
        self.connection_due = now;
        self.reception.set_tracks(tracks);
    }
}
