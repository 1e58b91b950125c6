// SPDX-License-Identifier: MPL-2.0

//! What a peer publishes, without the connection that it comes over: of a session that only publishes ([`Uplink`](super::Uplink)), and
//! of one that is sent something, too ([`Duplex`](crate::peer::duplex::Duplex)).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::agreed::{AgreedTracks, Format};
use super::control::Control;
use super::packet::{Header, Numbers};
use super::receiver::{Came, Place, Receiver, Receivers};
use super::route::{Content, Route, Router};
use crate::codec::dependency::Descriptor;
use crate::codec::{self, Codec, TrackKind, red};
use crate::srtp::{Protect, UnprotectRtp};
use crate::transport::lean::connection::Path;
use crate::transport::{Incoming, SenderClock, TrackIn, TransportEvent, TransportSink, Work};

/// What a retransmission begins with: the number that its packet had (RFC 4588, section 4).
const ORIGINAL: usize = 2;

/// See the module's description.
pub(crate) struct Reception {
    router: Router,
    numbers: Numbers,
    receivers: Receivers,
    reports_arrivals: bool,
    control: Control,
    /// When there is something to tell the peer.
    due: Instant,
    incoming: Vec<Incoming>,
    clocks: Vec<SenderClock>,
    events: Vec<TransportEvent>,
    /// The payload of the packet that was opened last, for its memory.
    plain: Vec<u8>,
    /// SSRCs that had to make room for others, as far as that was told.
    forgotten: u64,
}

impl Reception {
    pub(crate) fn new(now: Instant, tracks: AgreedTracks) -> Self {
        let reports_arrivals = tracks.reports_arrivals();
        let numbers = Numbers::new(&tracks.medias);
        let router = Router::new(tracks);
        let receivers = Receivers::new(router.lines());
        let (ssrc, cname) = name();
        Self {
            router,
            numbers,
            receivers,
            reports_arrivals,
            control: Control::new(now, ssrc, cname),
            due: now,
            incoming: Vec::new(),
            clocks: Vec::new(),
            events: Vec::new(),
            plain: Vec::new(),
            forgotten: 0,
        }
    }

    /// Whether the peer gets arrival reports (TWCC).
    pub(crate) fn reports_arrivals(&self) -> bool {
        self.reports_arrivals
    }

    /// The peer sends these from now on.
    pub(crate) fn set_tracks(&mut self, tracks: AgreedTracks) {
        self.reports_arrivals = tracks.reports_arrivals();
        self.numbers = Numbers::new(&tracks.medias);
        let before = self.router.change(tracks);
        self.receivers.change(self.router.lines(), &before);
    }

    /// Tells the peer how much it may send, in bit/s (REMB).
    pub(crate) fn limit(&mut self, now: Instant, bits_per_second: u64) {
        self.control.limit = Some(bits_per_second);
        self.due = now;
    }

    /// Asks the peer for a keyframe of a track's layer.
    pub(crate) fn request_keyframe(&mut self, now: Instant, track: TrackIn, layer: usize) {
        let mut receivers = self.receivers.iter_mut();
        let receiver = receivers.find(|r| (r.track, r.layer) == (track, layer));
        if let Some(receiver) = receiver {
            receiver.wants_keyframe = true;
            self.due = now;
        }
    }

    /// An SRTP packet. `None`: it is not authentic. Once per packet: allocates nothing but the payload that all viewers share.
    pub(crate) fn media(
        &mut self,
        now: Instant,
        rtp: &mut UnprotectRtp,
        data: &[u8],
    ) -> Option<Work> {
        let header = Header::read(data)?;
        let mut plain = std::mem::take(&mut self.plain);
        let opened = rtp.rtp(data, header.len, &mut plain);
        let work = opened
            .ok()
            .map(|index| self.take(now, data, &header, index, &plain));
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
            let due = self.control.arrivals.due().unwrap_or(now);
            self.due = self.due.min(due);
        }
        // Of what can't be read the number is used up, or it would be asked for again.
        let payload = header.unpadded(plain);
        let is_read = payload.is_some();
        let payload = payload.unwrap_or_default();
        let taken = (|| {
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
        })();
        if taken.is_none() || !is_read {
            work.note_dropped();
        }
        let forgotten = self.router.forgotten();
        if forgotten > self.forgotten {
            work.note_forgotten();
            self.forgotten = forgotten;
        }
        work
    }

    /// Puts a packet where it belongs. `None`: it belongs nowhere, or can't be read.
    fn place(
        &mut self,
        now: Instant,
        route: &Route,
        came: Came,
        packet: &Packet<'_>,
    ) -> Option<()> {
        let at = self.receivers.get_mut(route.line, route.layer)?;
        let incoming = &mut self.incoming;
        let mut is_read = true;
        match route.content {
            Content::Media(format) => {
                let place = at.came(now, came, Some(format))?;
                if place.begins && at.kind == TrackKind::Video {
                    // What comes goes on without a gap, so that nobody misses what decodes it.
                    let info = codec::inspect(format.codec, packet.payload);
                    at.wants_keyframe |= !info.keyframe_start;
                }
                let mut media = at.incoming(format, place, packet, packet.payload.into(), None);
                if place.begins {
                    let line = self.router.lines().get(route.line);
                    media.sets = line.and_then(|line| line.sets_of(format.pt));
                }
                incoming.push(media);
            }
            Content::Redundant(format) => {
                let place = at.came(now, came, Some(format))?;
                // Of what can't be read (it may be encrypted end to end) the number is used up, and nobody hears anything.
                let primary = red::primary(packet.payload, format.pt);
                is_read = primary.is_some() || packet.payload.is_empty();
                let red = primary.is_some().then(|| packet.payload.into());
                let primary = primary.unwrap_or_default();
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
            self.due = now;
        } else if let Some(due) = at.stream.as_ref().and_then(|s| s.missing.due()) {
            self.due = due.min(self.due);
        }
        is_read.then_some(())
    }

    /// A compound packet of the peer's reports, opened. Returns what it took.
    pub(crate) fn report(&mut self, now: Instant, compound: &[u8]) -> Work {
        Control::receive(now, compound, &mut self.receivers, &mut self.clocks)
    }

    /// Hands over what came.
    pub(crate) fn hand_over(&mut self, sink: &mut dyn TransportSink) {
        for packet in self.incoming.drain(..) {
            sink.packet(packet);
        }
        for clock in self.clocks.drain(..) {
            sink.sender_clock(clock);
        }
    }

    /// When to [`write`](Self::write).
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Sends what is due of our reports, where there are keys and a way to the peer.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        way: Option<(&mut Protect, Path)>,
        sink: &mut dyn TransportSink,
    ) {
        let Some((protect, path)) = way else {
            self.due = now + Duration::from_secs(1);
            return;
        };
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
        self.due = self.control.due(&self.receivers);
    }

    /// What is to be told.
    pub(crate) fn events(&mut self) -> impl Iterator<Item = TransportEvent> {
        self.events.drain(..)
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
            sets: None,
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
