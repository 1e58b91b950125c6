// SPDX-License-Identifier: MPL-2.0

//! A viewer's session, our own: what is multiplied by the number of viewers is lean. Called by the shard through
//! [`ViewerTransport`].
//!
//! Offers and answers are [`sdp`](crate::peer::sdp)'s, ICE our own, DTLS OpenSSL's; all three are at work when a viewer joins. From then on there are
//! RTP packets ([`media`]), reports ([`control`]) and the estimate of the viewer's network
//! ([`estimate`](crate::estimate)).

pub(crate) mod agreed;
mod asked;
pub(crate) mod connection;
pub(crate) mod control;
pub(crate) mod handshake;
mod header;
pub(crate) mod ice;
mod leeway;
mod media;
mod pacer;
mod sealed;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::crypto::dtls::SrtpProfile;

use super::negotiate::{Identity, PlayoutDelay};
use super::patch::{self, Fragment, PatchError};
use super::{
    Demand, EVENTS, Estimate, Outgoing, PatchOutcome, Slot, Taken, Transport, TransportEvent,
    TransportSink, ViewerTransport, Work,
};
use crate::codec::{Codec, TrackKind};
use crate::estimate::{ArrivalEstimator, Estimator};
use crate::peer::data::{AgreedData, DataCommand, DataObserver};
use crate::srtp::{self, Profile, Protect, Role, Unprotect};
pub(crate) use agreed::Agreed;
pub use agreed::AgreedSlots;
use connection::{Connection, Path};
use handshake::{Keys, Secured as Handshaken};
use leeway::Leeway;
use media::{Left, Media};
use pacer::Pacer;

/// What a viewer's network is taken to carry before its reports say more, in bit/s. As `libwebrtc` begins: with 1 Mbit/s
/// viewers of 600 kbit/s lost a third of the frames of their first five seconds.
const FIRST_ESTIMATE: u64 = 300_000;
/// The same where there is no stream of retransmissions, and so no padding by which more could be found out.
const UNPROBED_ESTIMATE: u64 = 1_000_000;
/// The largest report that is read.
pub(crate) const REPORT_MAX: usize = 1_500;
/// A change of the estimate by less than this part is not told.
const NEGLIGIBLE: u64 = 50;

/// See the module's description.
pub struct LeanTransport {
    identity: Identity,
    agreed: Agreed,
    playout_delay: Option<PlayoutDelay>,
    /// Where the delay is to follow what is lost.
    leeway: Option<Leeway>,
    connection: Connection,
    /// When the connection wants to be called; now, where something came for it.
    connection_due: Instant,
    secured: Option<Secured>,
    estimator: ArrivalEstimator,
    told: Option<Estimate>,
    /// What its network is taken to carry at first, where the viewer reports arrivals, so that there are estimates.
    first: Option<Estimate>,
    demand: Demand,
    pacer: Pacer,
    report_due: Instant,
    /// The estimator has heard something since it was last asked.
    ask: bool,
    events: Vec<TransportEvent>,
    closing: bool,
    over: bool,
}

/// What there is once the keys are known.
struct Secured {
    media: Media,
    unprotect: Unprotect,
}

impl std::fmt::Debug for LeanTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeanTransport")
            .field("connection", &self.connection)
            .field("local_ufrag", &self.agreed.local.ufrag)
            .finish_non_exhaustive()
    }
}

impl LeanTransport {
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        agreed: Agreed,
        playout_delay: Option<PlayoutDelay>,
        data: Option<Arc<dyn DataObserver>>,
    ) -> Self {
        let connection = Connection::new(now, identity, &agreed, data);
        let first = first_estimate(&agreed.formats);
        Self {
            identity: identity.clone(),
            playout_delay,
            leeway: playout_delay
                .filter(PlayoutDelay::follows_loss)
                .map(|_| Leeway::new(now)),
            connection,
            connection_due: now,
            secured: None,
            estimator: estimator(now, first),
            told: None,
            first,
            demand: Demand {
                goal: FIRST_ESTIMATE,
                probe: false,
                spread: false,
            },
            pacer: Pacer::default(),
            report_due: now,
            ask: false,
            events: Vec::with_capacity(EVENTS),
            closing: false,
            over: false,
            agreed,
        }
    }

    /// The handshake is over: media may flow.
    fn secure(&mut self, now: Instant, keys: &Keys) {
        let role = match keys.is_client {
            true => Role::Client,
            false => Role::Server,
        };
        let session = profile(keys.profile)
            .ok_or("another SRTP profile than was offered".to_owned())
            .and_then(|p| srtp::session(p, &keys.material, role).map_err(|e| e.to_string()));
        match session {
            Ok((protect, unprotect)) => {
                let clock = self.identity.wall_clock();
                self.secured = Some(Secured {
                    media: Media::new(&self.agreed, protect, clock, self.playout_delay),
                    unprotect,
                });
                self.report_due = now + control::REPORT_EVERY;
                self.events.push(TransportEvent::Connected);
            }
            Err(error) => {
                tracing::debug!(%error, "session ended by an error");
                self.over = true;
            }
        }
    }

    /// An SRTCP packet.
    fn receive_report(&mut self, now: Instant, data: &[u8]) -> Option<Work> {
        let mut scratch = [0; REPORT_MAX];
        let compound = self.open_report(now, data, &mut scratch)?;
        self.take_report(now, compound)
    }

    /// An SRTCP packet, opened in `scratch`.
    pub(crate) fn open_report<'a>(
        &mut self,
        now: Instant,
        data: &[u8],
        scratch: &'a mut [u8; REPORT_MAX],
    ) -> Option<&'a [u8]> {
        let (Some(secured), Some(report)) = (&mut self.secured, scratch.get_mut(..data.len()))
        else {
            return None;
        };
        report.copy_from_slice(data);
        let opened = secured.unprotect.rtcp(report);
        let compound = opened
            .inspect_err(|error| tracing::trace!(%error, "a report was dropped"))
            .ok()?;
        self.heard(now);
        Some(compound)
    }

    /// The peer has said something with its keys.
    pub(crate) fn heard(&mut self, now: Instant) {
        if self.connection.heard(now) {
            self.connection_due = now;
        }
    }

    /// What a report says of what the peer gets.
    pub(crate) fn take_report(&mut self, now: Instant, compound: &[u8]) -> Option<Work> {
        let secured = self.secured.as_mut()?;
        let wall = self.identity.wall_clock().at(now);
        let estimator: &mut dyn Estimator = &mut self.estimator;
        let events = &mut self.events;
        let media = &mut secured.media;
        let work = control::receive(now, wall, compound, media, estimator, events);
        self.ask = true;
        self.give_leeway(now);
        Some(work)
    }

    /// Tells the viewer how long to keep pictures back, where what it has just reported changes that.
    fn give_leeway(&mut self, now: Instant) {
        let Some(leeway) = &mut self.leeway else {
            return;
        };
        for event in &self.events {
            match event {
                TransportEvent::Lost { .. } => leeway.lost(now),
                TransportEvent::Report { rtt: Some(rtt), .. } => leeway.rtt(*rtt),
                _ => {}
            }
        }
        self.tell_leeway(now);
    }

    fn tell_leeway(&mut self, now: Instant) {
        let (Some(secured), Some(leeway)) = (&mut self.secured, &mut self.leeway) else {
            return;
        };
        if let Some(delay) = leeway.poll(now) {
            tracing::debug!(
                ?delay,
                "what the viewer keeps back follows what is lost, and how late sound is"
            );
            secured.media.set_playout_delay(delay);
        }
    }

    /// Tells the shard of an estimate that has changed by more than a little.
    fn tell_estimate(&mut self, now: Instant) {
        let Some(estimate) = self.estimator.estimate(now) else {
            return;
        };
        let same = self.told.is_some_and(|told| {
            let change = told.bits_per_second.abs_diff(estimate.bits_per_second);
            (told.congested, told.guessed) == (estimate.congested, estimate.guessed)
                && change * NEGLIGIBLE <= told.bits_per_second
        });
        if !same {
            self.told = Some(estimate);
            self.events.push(TransportEvent::Estimate(estimate));
        }
    }

    fn rate(&self) -> u64 {
        let estimate = self.told.or(self.first);
        estimate.map_or(FIRST_ESTIMATE, |e| e.bits_per_second)
    }

    fn write(&mut self, now: Instant, packet: &Outgoing<'_>, sink: &mut dyn TransportSink) {
        let (Some(secured), Some(path)) = (&mut self.secured, self.connection.path()) else {
            return;
        };
        let left = secured.media.send(now, path, packet, sink);
        self.note(now, left);
    }

    fn note(&mut self, now: Instant, left: Option<Left>) {
        match left {
            Some(Left {
                number: Some(number),
                bytes,
            }) => self.estimator.sent(now, number, bytes),
            // Where others are numbered, only those are measured by.
            Some(Left { bytes, .. }) if self.first.is_none() => {
                self.estimator.sent_unnumbered(now, bytes);
            }
            _ => {}
        }
    }

    /// Sends what waits for its time.
    fn pace(&mut self, now: Instant, sink: &mut dyn TransportSink) {
        let rate = self.rate();
        while let Some(waiting) = self.pacer.pop(now, rate) {
            self.write(now, &waiting.outgoing(), sink);
        }
    }

    /// Asks the estimator what it knows, and sends as much padding as it asks for.
    fn consult(&mut self, now: Instant, sink: &mut dyn TransportSink) {
        self.ask = false;
        self.tell_estimate(now);
        let (Some(secured), Some(path)) = (&mut self.secured, self.connection.path()) else {
            return;
        };
        let order = self.estimator.probe(now);
        let mut bytes = 0;
        while bytes < order.bytes {
            let Some(left) = secured.media.pad(path, sink) else {
                break;
            };
            bytes += left.bytes;
            if let Some(number) = left.number {
                self.estimator.sent(now, number, left.bytes);
            }
        }
    }

    fn send_reports(&mut self, now: Instant, sink: &mut dyn TransportSink) {
        // Also while there is no way to the peer: it is asked for again later.
        self.report_due = now + control::REPORT_EVERY;
        let (Some(secured), Some(path)) = (&mut self.secured, self.connection.path()) else {
            return;
        };
        let clock = self.identity.wall_clock();
        sink.compose(path.local, path.remote, &mut |buffer| {
            let start = buffer.len();
            control::write_reports(buffer, now, &secured.media, clock);
            if buffer.len() > start
                && let Err(error) = secured.media.protect().rtcp(buffer, start)
            {
                tracing::debug!(%error, "a report was not sealed");
                buffer.truncate(start);
            }
        });
    }

    /// Lets ICE and DTLS put out what is due. The keys, once they are known.
    pub(crate) fn connect(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Option<Keys> {
        if self.connection_due > now && !std::mem::take(&mut self.closing) {
            return None;
        }
        self.connection_due = self.connection.drain(now, sink);
        match self.connection.take_secured()? {
            Handshaken::Media(keys) => {
                self.secure(now, &keys);
                Some(keys)
            }
            Handshaken::Data => {
                self.events.push(TransportEvent::Connected);
                None
            }
        }
    }

    /// Puts out what else is due, and returns when to call again.
    pub(crate) fn flush(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        if self.pacer.due().is_some_and(|at| at <= now) {
            self.pace(now, sink);
        }
        if self.secured.is_some() {
            if self.report_due <= now {
                self.send_reports(now, sink);
            }
            // Without a way to the peer nothing is probed.
            let due = self.ask || self.estimator.poll_timeout().is_some_and(|at| at <= now);
            if due && self.connection.path().is_some() {
                self.consult(now, sink);
            }
        }
        for event in self.events.drain(..) {
            sink.event(event);
        }
        if (self.connection.is_over() || self.over) && !std::mem::replace(&mut self.over, true) {
            sink.event(TransportEvent::Closed);
        }
        self.next(now)
    }

    /// What seals, and the way that it goes, once there are both: for what others have to say on the same connection.
    pub(crate) fn way(&mut self) -> Option<(&mut Protect, Path)> {
        let path = self.connection.path()?;
        Some((self.secured.as_mut()?.media.protect(), path))
    }

    /// Data channels were agreed on, if they were not before.
    pub(crate) fn agree_on_data(&mut self, now: Instant, data: Option<AgreedData>) {
        self.connection.agree_on_data(data);
        self.connection_due = now;
    }

    fn next(&self, now: Instant) -> Instant {
        let report = self.secured.as_ref().map(|_| self.report_due);
        let estimator = match (&self.secured, self.connection.path()) {
            (Some(_), Some(_)) => self.estimator.poll_timeout(),
            _ => None,
        };
        let due = [report, self.pacer.due(), estimator];
        let due = due.into_iter().flatten().min();
        due.unwrap_or(now + Duration::from_secs(1))
            .min(self.connection_due)
    }
}

impl Transport for LeanTransport {
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

    /// Told apart by the first octet (RFC 7983).
    fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) -> Taken {
        let work = match data.first() {
            Some(0..=3) => {
                let accepted = self.connection.stun(now, source, destination, data);
                accepted.then(|| {
                    self.connection_due = now;
                    Work::CHECK
                })
            }
            Some(20..=63) => {
                let Some(work) = self.connection.dtls(now, data) else {
                    return Taken::OverBudget;
                };
                self.connection_due = now;
                return Taken::Unproven(work);
            }
            Some(128..=191) => self.receive_report(now, data),
            _ => None,
        };
        work.map_or(Taken::NotUnderstood, Taken::Work)
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        self.connect(now, sink);
        self.flush(now, sink)
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

impl ViewerTransport for LeanTransport {
    fn slot(&self, kind: TrackKind, place: usize) -> Option<Slot> {
        let formats = self.agreed.formats.chunk_by(|a, b| a.slot == b.slot);
        let mut slots = formats.filter_map(|of_slot| of_slot.first());
        if self.agreed.by_slot {
            let at = slots.nth(place).filter(|f| f.codec.kind() == kind);
            return at.map(|f| f.slot);
        }
        let slots = slots.by_ref().filter(|f| f.codec.kind() == kind);
        slots.map(|f| f.slot).nth(place)
    }

    fn accepts(&self, slot: Slot, codec: Codec) -> bool {
        let mut formats = self.agreed.formats.iter();
        formats.any(|f| f.slot == slot && f.codec == codec)
    }

    fn takes_descriptors(&self, slot: Slot) -> bool {
        let mut formats = self.agreed.formats.iter();
        formats.any(|f| f.slot == slot && f.extensions.descriptor.is_some())
    }

    fn asks_for_keyframes(&self) -> bool {
        self.agreed.asks_for_keyframes
    }

    fn first_estimate(&self) -> Option<Estimate> {
        self.first
    }

    fn wait_for_sound(&mut self, now: Instant, lags: bool) {
        if let Some(leeway) = &mut self.leeway {
            leeway.wait_for_sound(lags);
            self.tell_leeway(now);
        }
    }

    fn set_slots(&mut self, now: Instant, slots: AgreedSlots) {
        if self.first.is_none() {
            self.first = first_estimate(&slots.formats);
            if self.first.is_some() {
                self.estimator = estimator(now, self.first);
            }
        }
        self.agreed.formats = slots.formats;
        self.agreed.asks_for_keyframes = slots.asks_for_keyframes;
        self.connection.agree_on_data(slots.data);
        self.connection_due = now;
        if let Some(secured) = &mut self.secured {
            secured.media.set_formats(&self.agreed.formats);
        }
    }

    fn set_demand(&mut self, now: Instant, demand: Demand) {
        self.demand = demand;
        self.estimator.set_demand(now, demand);
        self.ask |= demand.probe;
    }

    /// Once per packet and viewer.
    fn send(&mut self, now: Instant, packet: &Outgoing<'_>, sink: &mut dyn TransportSink) {
        let is_video = packet.codec.kind() == TrackKind::Video;
        if is_video && (self.demand.spread || !self.pacer.is_empty()) {
            self.pacer.push(now, packet);
        } else {
            self.write(now, packet, sink);
        }
    }

    fn lose(&mut self, now: Instant, packet: &Outgoing<'_>) {
        if let Some(secured) = &mut self.secured {
            let left = secured.media.lose(packet);
            self.note(now, left);
        }
    }

    fn resend(
        &mut self,
        now: Instant,
        packet: &Outgoing<'_>,
        sink: &mut dyn TransportSink,
    ) -> bool {
        let (Some(secured), Some(path)) = (&mut self.secured, self.connection.path()) else {
            return false;
        };
        let left = secured.media.resend(path, packet, sink);
        if left.is_some() {
            self.note(now, left);
            return true;
        }
        let Some(left) = secured.media.repeat(path, packet, sink) else {
            return false;
        };
        match left.number {
            Some(number) => self.estimator.sent_again(number),
            None => self.note(now, Some(left)),
        }
        true
    }
}

/// What a peer's network is taken to carry at first, where it tells when packets of pictures arrive.
fn first_estimate(formats: &[agreed::Format]) -> Option<Estimate> {
    let is_reported =
        |f: &&agreed::Format| f.codec.kind() == TrackKind::Video && f.extensions.twcc.is_some();
    let mut video = formats.iter().filter(is_reported).peekable();
    video.peek()?;
    let guessed = video.any(|f| f.rtx.is_some());
    Some(Estimate {
        bits_per_second: if guessed {
            FIRST_ESTIMATE
        } else {
            UNPROBED_ESTIMATE
        },
        congested: false,
        guessed,
    })
}

fn estimator(now: Instant, first: Option<Estimate>) -> ArrivalEstimator {
    let estimator = ArrivalEstimator::new(now, first.map(|first| first.bits_per_second));
    match first {
        Some(first) if !first.guessed => estimator.without_probes(),
        _ => estimator,
    }
}

pub(crate) fn profile(negotiated: SrtpProfile) -> Option<Profile> {
    match negotiated {
        SrtpProfile::AEAD_AES_128_GCM => Some(Profile::AeadAes128Gcm),
        SrtpProfile::AEAD_AES_256_GCM => Some(Profile::AeadAes256Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Profile::AesCm128HmacSha1_80),
        _ => None,
    }
}
