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
mod route;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::agreed::{Agreed, AgreedTracks, Format};
use self::control::Control;
use self::packet::{Header, Numbers};
use self::receiver::{Came, Place, Receiver, Receivers};
use self::route::{Content, Route, Router};
use crate::codec::dependency::Descriptor;
use crate::codec::{self, Codec, TrackKind, red};
use crate::peer::data::{DataCommand, DataObserver};
use crate::srtp::{self, Protect, Role, Unprotect, UnprotectRtp};
use crate::transport::lean;
use crate::transport::lean::connection::Connection;
use crate::transport::lean::handshake::{Keys, Secured as Handshaken};
use crate::transport::negotiate::Identity;
use crate::transport::patch::{self, Fragment, PatchError};
use crate::transport::work::{Allowance, PUBLISHER_CONTROL};
use crate::transport::{
    Incoming, PatchOutcome, PublisherTransport, SenderClock, Taken, TrackIn, Transport,
    TransportEvent, TransportSink, Work,
};

/// The largest report that is read.
const REPORT_MAX: usize = 1_500;
/// What a retransmission begins with: the number that its packet had (RFC 4588, section 4).
const ORIGINAL: usize = 2;

/// See the module's description.
pub struct Uplink {
    agreed: lean::Agreed,
    connection: Connection,
    /// When the connection wants to be called; now, where something came for it.
    connection_due: Instant,
    secured: Option<Secured>,
    router: Router,
    numbers: Numbers,
    receivers: Receivers,
    reports_arrivals: bool,
    control: Control,
    control_due: Instant,
    /// What all but media may take, apart: who sends in the peer's name stops no media.
    allowance: Allowance,
    incoming: Vec<Incoming>,
    clocks: Vec<SenderClock>,
    events: Vec<TransportEvent>,
    /// The payload of the packet that was opened last, for its memory.
    plain: Vec<u8>,
    /// SSRCs that had to make room for others, as far as that was told.
    forgotten: u64,
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
        let reports_arrivals = agreed.tracks.reports_arrivals();
        let numbers = Numbers::new(&agreed.tracks.medias);
        let router = Router::new(agreed.tracks);
        let receivers = Receivers::new(router.lines());
        let (ssrc, cname) = name();
        let control = Control::new(now, ssrc, cname);
        Self {
            agreed: agreed.connection,
            connection,
            connection_due: now,
            secured: None,
            router,
            numbers,
            receivers,
            reports_arrivals,
            control_due: now,
            control,
            allowance: Allowance::new(now, PUBLISHER_CONTROL),
            incoming: Vec::new(),
            clocks: Vec::new(),
            events: Vec::new(),
            plain: Vec::new(),
            forgotten: 0,
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

    /// An SRTP packet. Once per packet: allocates nothing but the payload that all viewers share.
    fn receive_media(&mut self, now: Instant, data: &[u8]) -> Option<Work> {
        let secured = self.secured.as_mut()?;
        let header = Header::read(data)?;
        let mut plain = std::mem::take(&mut self.plain);
        let opened = secured.media.rtp(data, header.len, &mut plain);
        let work = opened.ok().map(|index| {
            self.heard(now);
            self.take(now, data, &header, index, &plain)
        });
        self.plain = plain;
        work
    }

    /// A packet that is authentic.
    fn take(
        &mut self,
        now: Instant,
        data: &[u8],
        header: &Header,
        index: u64,
        plain: &[u8],
    ) -> Work {
        let mut work = Work::MEDIA;
        let extensions = header.extensions(data, &self.numbers);
        if let Some(number) = extensions.twcc.filter(|_| self.reports_arrivals) {
            self.control.arrivals.came(now, number);
            self.control_due = self
                .control_due
                .min(self.control.arrivals.due().unwrap_or(now));
        }
        let taken = header.unpadded(plain).and_then(|payload| {
            let route = self.router.route(header.ssrc, header.pt, &extensions)?;
            let came = Came {
                ssrc: header.ssrc,
                index,
                timestamp: header.timestamp,
                is_first: route.is_first,
            };
            let packet = Packet {
                marker: header.marker,
                timestamp: header.timestamp,
                audio_level: extensions.audio_level,
                dependency: extensions.dependency,
                payload,
            };
            self.place(now, &route, came, &packet)
        });
        if taken.is_none() {
            work.note_dropped();
        }
        let forgotten = self.router.forgotten();
        if forgotten > self.forgotten {
            work.note_forgotten();
            self.forgotten = forgotten;
        }
        work
    }

    /// Puts a packet where it belongs. `None`: it belongs nowhere.
    fn place(
        &mut self,
        now: Instant,
        route: &Route,
        came: Came,
        packet: &Packet<'_>,
    ) -> Option<()> {
        let at = self.receivers.get_mut(route.line, route.layer)?;
        let incoming = &mut self.incoming;
        match route.content {
            Content::Media(format) => {
                let place = at.came(now, came, Some(format))?;
                if place.begins && at.kind == TrackKind::Video {
                    // What comes goes on without a gap, so that nobody misses what decodes it.
                    let info = codec::inspect(format.codec, packet.payload);
                    at.wants_keyframe |= !info.keyframe_start;
                }
                incoming.push(at.incoming(format, place, packet, packet.payload.into(), None));
            }
            Content::Redundant(format) => {
                let place = at.came(now, came, Some(format))?;
                let primary = red::primary(packet.payload, format.pt).unwrap_or_default();
                let red = (!primary.is_empty()).then(|| packet.payload.into());
                incoming.push(at.incoming(format, place, packet, primary.into(), red));
            }
            Content::Repair(format) => {
                // Probes are padding, or come again.
                let Some((number, payload)) = packet.payload.split_first_chunk::<ORIGINAL>() else {
                    return Some(());
                };
                let number = u16::from_be_bytes(*number);
                if let Some(place) = at.repaired(now, number) {
                    incoming.push(at.incoming(format, place, packet, payload.into(), None));
                }
            }
            Content::Unknown => {
                let place = at.came(now, came, None)?;
                let format = at.stream.as_ref()?.format;
                incoming.push(at.incoming(format, place, packet, Arc::default(), None));
            }
        }
        if at.wants_keyframe {
            self.control_due = now;
        } else if let Some(due) = at.stream.as_ref().and_then(|s| s.missing.due()) {
            self.control_due = due.min(self.control_due);
        }
        Some(())
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
        let work = Control::receive(now, compound, &mut self.receivers, &mut self.clocks);
        self.allowance.spend(work);
        self.heard(now);
        true
    }

    /// Sends what is due of our reports.
    fn send_reports(&mut self, now: Instant, sink: &mut dyn TransportSink) {
        let (Some(secured), Some(path)) = (&mut self.secured, self.connection.path()) else {
            self.control_due = now + Duration::from_secs(1);
            return;
        };
        let protect = &mut secured.protect;
        let mut send = |compound: &[u8]| {
            sink.compose(path.local, path.remote, &mut |buffer| {
                let start = buffer.len();
                buffer.extend_from_slice(compound);
                if let Err(error) = protect.rtcp(buffer, start) {
                    tracing::debug!(%error, "a report was not sealed");
                    buffer.truncate(start);
                }
            });
        };
        self.control
            .write(now, &mut self.receivers, &mut self.events, &mut send);
        self.control_due = self.control.due(&self.receivers);
    }
}

impl Receiver {
    fn incoming(
        &mut self,
        format: Format,
        place: Place,
        packet: &Packet<'_>,
        payload: Arc<[u8]>,
        red: Option<Arc<[u8]>>,
    ) -> Incoming {
        let descriptor = self.descriptor(format, packet);
        Incoming {
            track: self.track,
            layer: self.layer,
            codec: format.codec,
            source: self.stream.as_ref().map_or(0, |s| s.ssrc),
            seq: place.seq,
            is_late: place.is_late,
            timestamp: packet.timestamp,
            marker: packet.marker,
            audio_level: packet.audio_level,
            descriptor,
            payload,
            red,
        }
    }

    /// AV1 says nothing else of what its frames are predicted from.
    fn descriptor(&mut self, format: Format, packet: &Packet<'_>) -> Option<Arc<Descriptor>> {
        let descriptor = packet.dependency.filter(|_| format.codec == Codec::Av1)?;
        let reader = &mut self.stream.as_mut()?.dependencies;
        Descriptor::read(descriptor, reader).map(Arc::new)
    }
}

/// What of a packet goes on.
struct Packet<'a> {
    marker: bool,
    timestamp: u32,
    audio_level: Option<u8>,
    dependency: Option<&'a [u8]>,
    payload: &'a [u8],
}

/// Who we are in reports: an SSRC, and a name that nobody else has (RFC 7022).
fn name() -> (u32, String) {
    let mut random = [0; 16];
    // Without randomness it is a name that others have, too, which only who compares recordings would see.
    let _ = getrandom::fill(&mut random);
    let bits = u128::from_ne_bytes(random);
    ((bits as u32).max(1), format!("{:024x}", bits >> 32))
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
        for packet in self.incoming.drain(..) {
            sink.packet(packet);
        }
        for clock in self.clocks.drain(..) {
            sink.sender_clock(clock);
        }
        if self.control_due <= now {
            self.send_reports(now, sink);
        }
        for event in self.events.drain(..) {
            sink.event(event);
        }
        if (self.connection.is_over() || self.over) && !std::mem::replace(&mut self.over, true) {
            sink.event(TransportEvent::Closed);
        }
        self.connection_due.min(self.control_due)
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
        self.reports_arrivals
    }

    fn limit(&mut self, now: Instant, bits_per_second: u64) {
        self.control.limit = Some(bits_per_second);
        self.control_due = now;
    }

    fn request_keyframe(&mut self, now: Instant, track: TrackIn, layer: usize) {
        let mut receivers = self.receivers.iter_mut();
        let receiver = receivers.find(|r| (r.track, r.layer) == (track, layer));
        if let Some(receiver) = receiver {
            receiver.wants_keyframe = true;
            self.control_due = now;
        }
    }

    fn set_tracks(&mut self, now: Instant, tracks: AgreedTracks) {
        self.connection.agree_on_data(tracks.data);
        self.connection_due = now;
        self.reports_arrivals = tracks.reports_arrivals();
        self.numbers = Numbers::new(&tracks.medias);
        let before = self.router.change(tracks);
        self.receivers.change(self.router.lines(), &before);
    }
}
