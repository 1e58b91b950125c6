// SPDX-License-Identifier: MPL-2.0

//! A session both ways: the peer publishes and is sent tracks over one connection, with one ICE agent, one DTLS and one pair of SRTP
//! keys. Called by the shard through [`ViewerTransport`] and [`PublisherTransport`].
//!
//! A viewer's session ([`LeanTransport`]) has the connection, and what is sent; beside it is what a publisher's has
//! ([`Reception`]). Both write their reports by one count of SRTCP's numbers, and both read each report of the peer's, which is
//! opened once: it says what the peer got, and what it sends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::codec::{Codec, TrackKind};
use crate::peer::data::{DataCommand, DataObserver};
use crate::peer::uplink::Reception;
use crate::srtp::{self, Role, UnprotectRtp};
use crate::transport::lean::handshake::Keys;
use crate::transport::lean::{self, AgreedSlots, LeanTransport, REPORT_MAX};
use crate::transport::negotiate::{Identity, PlayoutDelay};
use crate::transport::patch::{Fragment, PatchError};
use crate::transport::work::{Allowance, DUPLEX_CONTROL};
use crate::transport::{
    AgreedTracks, Demand, Estimate, Outgoing, PatchOutcome, PublisherTransport, Slot, Taken,
    TrackIn, Transport, TransportSink, ViewerTransport, Work,
};

/// See the module's description.
pub struct Duplex {
    down: LeanTransport,
    up: Reception,
    /// What opens the peer's media, once the keys are known.
    rtp: Option<UnprotectRtp>,
    /// What all but media may take, apart: who sends in the peer's name stops no media.
    allowance: Allowance,
}

impl std::fmt::Debug for Duplex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Duplex").field(&self.down).finish()
    }
}

impl Duplex {
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        agreed: lean::Agreed,
        tracks: AgreedTracks,
        delay: Option<PlayoutDelay>,
        data: Option<Arc<dyn DataObserver>>,
    ) -> Self {
        Self {
            down: LeanTransport::new(now, identity, agreed, delay, data),
            up: Reception::new(now, tracks),
            rtp: None,
            allowance: Allowance::new(now, DUPLEX_CONTROL),
        }
    }

    /// The handshake is over: the peer's media may come.
    fn secure(&mut self, keys: &Keys) {
        let role = match keys.is_client {
            true => Role::Client,
            false => Role::Server,
        };
        // A profile or keys that are of no use have ended the session already.
        let profile = lean::profile(keys.profile);
        self.rtp = profile.and_then(|p| srtp::receiver(p, &keys.material, role).ok());
    }

    /// An SRTP packet.
    fn receive_media(&mut self, now: Instant, data: &[u8]) -> Option<Work> {
        let work = self.up.media(now, self.rtp.as_mut()?, data)?;
        self.down.heard(now);
        Some(work)
    }

    /// An SRTCP packet: what of it is about what the peer gets, and what about what it sends.
    fn receive_report(&mut self, now: Instant, data: &[u8]) -> Option<Work> {
        let mut scratch = [0; REPORT_MAX];
        let compound = self.down.open_report(now, data, &mut scratch)?;
        let mut work = self.down.take_report(now, compound)?;
        work.add(self.up.report(now, compound));
        Some(work)
    }

    /// Takes it from what all but media may take: of media's own nothing is taken for it.
    fn pay(&mut self, work: Work) -> Work {
        self.allowance.spend(work);
        work.paid()
    }
}

impl Transport for Duplex {
    fn local_ufrag(&self) -> &str {
        self.down.local_ufrag()
    }

    fn set_tag(&mut self, tag: u32) {
        self.down.set_tag(tag);
    }

    fn ask(&mut self, now: Instant, remote: SocketAddr) {
        self.down.ask(now, remote);
    }

    fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.down.path()
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
        if matches!(data, [128..=191, ..]) && !is_report {
            let work = self.receive_media(now, data);
            return work.map_or(Taken::NotUnderstood, Taken::Work);
        }
        if self.allowance.is_spent(now) {
            return Taken::OverBudget;
        }
        let taken = match is_report {
            true => {
                let work = self.receive_report(now, data);
                work.map_or(Taken::NotUnderstood, Taken::Work)
            }
            false => self.down.receive(now, source, destination, data),
        };
        match taken {
            Taken::Work(work) => Taken::Work(self.pay(work)),
            Taken::Unproven(work) => Taken::Unproven(self.pay(work)),
            other => other,
        }
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        if let Some(keys) = self.down.connect(now, sink) {
            self.secure(&keys);
        }
        self.up.hand_over(sink);
        if self.up.due() <= now {
            self.up.write(now, self.down.way(), sink);
        }
        for event in self.up.events() {
            sink.event(event);
        }
        self.down.flush(now, sink).min(self.up.due())
    }

    fn patch(&mut self, now: Instant, fragment: &Fragment) -> Result<PatchOutcome, PatchError> {
        self.down.patch(now, fragment)
    }

    fn data(&mut self, now: Instant, command: DataCommand) {
        self.down.data(now, command);
    }

    fn close(&mut self) {
        self.down.close();
    }
}

impl ViewerTransport for Duplex {
    fn slot(&self, kind: TrackKind, place: usize) -> Option<Slot> {
        self.down.slot(kind, place)
    }

    fn accepts(&self, slot: Slot, codec: Codec) -> bool {
        self.down.accepts(slot, codec)
    }

    fn takes_descriptors(&self, slot: Slot) -> bool {
        self.down.takes_descriptors(slot)
    }

    fn asks_for_keyframes(&self) -> bool {
        self.down.asks_for_keyframes()
    }

    fn first_estimate(&self) -> Option<Estimate> {
        self.down.first_estimate()
    }

    fn set_slots(&mut self, now: Instant, slots: AgreedSlots) {
        self.down.set_slots(now, slots);
    }

    fn set_demand(&mut self, now: Instant, demand: Demand) {
        self.down.set_demand(now, demand);
    }

    fn wait_for_sound(&mut self, now: Instant, lags: bool) {
        self.down.wait_for_sound(now, lags);
    }

    fn send(&mut self, now: Instant, packet: &Outgoing<'_>, sink: &mut dyn TransportSink) {
        self.down.send(now, packet, sink);
    }

    fn lose(&mut self, now: Instant, packet: &Outgoing<'_>) {
        self.down.lose(now, packet);
    }

    fn resend(
        &mut self,
        now: Instant,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> bool {
        self.down.resend(now, packet, sink)
    }

    fn publisher(&mut self) -> Option<&mut dyn PublisherTransport> {
        Some(self)
    }
}

impl PublisherTransport for Duplex {
    fn reports_arrivals(&self) -> bool {
        self.up.reports_arrivals()
    }

    fn limit(&mut self, now: Instant, bits_per_second: u64) {
        self.up.limit(now, bits_per_second);
    }

    fn request_keyframe(&mut self, now: Instant, track: TrackIn, layer: usize) {
        self.up.request_keyframe(now, track, layer);
    }

    fn set_tracks(&mut self, now: Instant, tracks: AgreedTracks) {
        self.down.agree_on_data(now, tracks.data);
        self.up.set_tracks(tracks);
    }
}
