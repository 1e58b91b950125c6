// SPDX-License-Identifier: MPL-2.0

//! A viewer's or publisher's offer becomes a session and an answer (WHEP, WHIP, RFC 9429).
//!
//! Called on the caller's thread, not on a shard's, so that joins delay nobody's packets.

mod duplex;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use sfu_dtls::OpenSslDtls;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::dtls::SrtpProfile;

use super::lean::{AgreedSlots, LeanTransport};
use super::patch::Fragment;
use super::{AgreedTracks, Slot, TrackIn};
use crate::codec::{Codec, TrackKind};
use crate::ids::{Language, Rid, StreamName};
use crate::peer::data::DataObserver;
use crate::peer::sdp::{self, Agreement, Before, Offering, Published, Wanted};
pub use crate::peer::sdp::{Carried, CarriedOn, OfferError};
use crate::peer::uplink::Uplink;
pub use duplex::{ChangedBoth, Conversed, DuplexNegotiation, accept_both};

/// What secures media, the preferred first: those of [`crate::srtp::Profile`].
const SRTP_PROFILES: [SrtpProfile; 3] = [
    SrtpProfile::AEAD_AES_128_GCM,
    SrtpProfile::AEAD_AES_256_GCM,
    SrtpProfile::AES128_CM_SHA1_80,
];

/// What all sessions of a process share: the crypto provider and one certificate.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    certificate: Arc<DtlsCert>,
    /// Of the certificate, as it stands in SDP.
    fingerprint: Arc<str>,
    clock: WallClock,
}

/// One moment on the machine's two clocks: that which only goes on, and that which all peers share.
#[derive(Debug, Clone, Copy)]
pub struct WallClock(Instant, SystemTime);

impl WallClock {
    pub(super) fn new(moment: Instant, wall: SystemTime) -> Self {
        Self(moment, wall)
    }

    /// A moment on the clock that all peers share.
    pub fn at(self, moment: Instant) -> SystemTime {
        match moment.checked_duration_since(self.0) {
            Some(later) => self.1 + later,
            None => self.1 - self.0.saturating_duration_since(moment),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    pub(super) fn certificate(&self) -> &DtlsCert {
        &self.certificate
    }

    /// The clock of the sessions' sender reports. It does not follow when the system's is set.
    pub fn wall_clock(&self) -> WallClock {
        self.clock
    }

    /// Makes a certificate: once a process, since each costs a key pair.
    pub fn generate() -> Result<Self, OfferError> {
        static DTLS: OpenSslDtls = OpenSslDtls::new(&SRTP_PROFILES);
        let provider = Arc::new(CryptoProvider {
            dtls_provider: &DTLS,
            ..str0m::crypto::from_feature_flags()
        });
        let certificate = provider.dtls_provider.generate_certificate();
        let certificate = certificate.ok_or_else(|| {
            OfferError::Invalid("the server could not make its DTLS certificate".into())
        })?;
        let hash = provider.sha256_provider.sha256(&certificate.certificate);
        let octets: Vec<_> = hash.iter().map(|octet| format!("{octet:02X}")).collect();
        Ok(Self {
            provider,
            certificate: certificate.into(),
            fingerprint: format!("sha-256 {}", octets.join(":")).into(),
            clock: WallClock::new(Instant::now(), SystemTime::now()),
        })
    }
}

/// What a stream has to offer to a viewer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamCodecs {
    /// The video codec, if it is known that there is one.
    pub video: Option<Codec>,
    /// The audio codec, if it is known that there is one.
    pub audio: Option<Codec>,
}

/// How long a viewer may keep pictures back to show them evenly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlayoutDelay {
    min: u16,
    max: u16,
    follows_loss: bool,
}

impl PlayoutDelay {
    /// None, but where packets are lost as long as it takes to send them again: 60 ms and two round trips, 250 ms at most.
    pub const AUTO: Self = Self {
        min: 0,
        max: 0,
        follows_loss: true,
    };

    /// Whether it follows what is lost.
    pub(super) fn follows_loss(&self) -> bool {
        self.follows_loss
    }

    /// Of these milliseconds, which are told in steps of ten. `None` where they are too long, or the wrong way round.
    pub fn from_millis(min: u32, max: u32) -> Option<Self> {
        let step = |ms: u32| u16::try_from(ms / 10).ok().filter(|n| *n < 1 << 12);
        let (min, max) = (step(min)?, step(max)?);
        (min <= max).then_some(Self {
            min,
            max,
            follows_loss: false,
        })
    }

    /// As the header extension has it: twelve bits each.
    pub(super) fn octets(self) -> [u8; 3] {
        let both = u32::from(self.min) << 12 | u32::from(self.max);
        let [_, octets @ ..] = both.to_be_bytes();
        octets
    }
}

/// A track that a publishing peer is going to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherTrack {
    /// Its m-line.
    pub track: TrackIn,
    /// The m-line's name.
    pub mid: String,
    /// What the peer calls it (`a=msid`): its stream's name, and its own.
    pub msid: Option<String>,
    /// What is spoken, where the peer says it (`a=lang`).
    pub language: Option<Language>,
    /// The codec that is offered first.
    pub codec: Codec,
    /// The simulcast layers; one without a name where there is no simulcast.
    pub rids: Vec<Option<Rid>>,
}

/// Answers a publisher's offer (WHIP, RFC 9725) with a session that receives a stream from it: pictures, and sound in one
/// language or several.
pub fn accept_publisher(
    identity: &Identity,
    offer: &str,
    local: &[SocketAddr],
    now: Instant,
) -> Result<(Uplink, String, Vec<PublisherTrack>), OfferError> {
    let (published, fingerprint) = (Published::Stream, &identity.fingerprint);
    let (agreed, _, answer) = sdp::answer_publisher(offer, published, fingerprint, local)?;
    let tracks = agreed.tracks.publisher()?;
    let uplink = Uplink::new(now, identity, agreed, None);
    Ok((uplink, answer, tracks))
}

/// Answers the offer of a peer that publishes any tracks (sounds, cameras, screens) with a session that receives them, and with
/// what answers its later offers. With somebody who is told of data channels, the peer may have these, too, or at first these
/// alone.
pub fn accept_tracks(
    identity: &Identity,
    offer: &str,
    local: &[SocketAddr],
    data: Option<Arc<dyn DataObserver>>,
    now: Instant,
) -> Result<(Uplink, Negotiation, Answered), OfferError> {
    let takes_data = data.is_some();
    let (published, fingerprint) = (
        Published::Many { data: takes_data },
        identity.fingerprint.clone(),
    );
    let (agreed, before, answer) = sdp::answer_publisher(offer, published, &fingerprint, local)?;
    let answered = Answered {
        sdp: answer,
        tracks: agreed.tracks.publisher()?,
    };
    let negotiation = Negotiation {
        fingerprint,
        before,
        takes_data,
    };
    let uplink = Uplink::new(now, identity, agreed, data);
    Ok((uplink, negotiation, answered))
}

/// An offer was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub sdp: String,
    /// All that the peer sends from now on.
    pub tracks: Vec<PublisherTrack>,
}

/// What has been agreed on with a peer that publishes any tracks. Kept by whoever speaks with it: its later offers are
/// answered there, and the shard is told of what comes of them.
#[derive(Debug, Clone)]
pub struct Negotiation {
    fingerprint: Arc<str>,
    before: Before,
    /// Data channels are taken.
    takes_data: bool,
}

/// What the shard is to be told of a later offer.
#[derive(Debug, Clone)]
pub struct Changed {
    /// For [`ShardCommand::Republish`](crate::queue::ShardCommand::Republish).
    pub tracks: AgreedTracks,
    /// ICE begins anew: for [`ShardCommand::Patch`](crate::queue::ShardCommand::Patch).
    pub restart: Option<Fragment>,
}

impl Negotiation {
    /// Answers another offer on the same connection: tracks may have been added, removed, and their m-lines used again. An
    /// offer that is refused changes nothing.
    pub fn answer(&mut self, offer: &str) -> Result<(Changed, Answered), OfferError> {
        let mut before = self.before.clone();
        let fingerprint = &self.fingerprint;
        let (tracks, restart, answer) =
            sdp::answer_again(offer, self.takes_data, &mut before, fingerprint)?;
        let answered = Answered {
            sdp: answer,
            tracks: tracks.publisher()?,
        };
        self.before = before;
        let restart = restart.map(Fragment::restarting);
        Ok((Changed { tracks, restart }, answered))
    }
}

/// Our offers to a peer that is sent tracks as they come and go: kept by whoever speaks with it, and the shard is told of what
/// comes of its answers. An m-line is named by its number, and is only ever added.
#[derive(Debug, Clone)]
pub struct Offers {
    identity: Identity,
    offering: Offering,
    delay: Option<PlayoutDelay>,
    /// Who is told of data channels, until the session begins.
    data: Option<Arc<dyn DataObserver>>,
}

/// An answer to an offer of ours was taken.
#[derive(Debug)]
pub enum AnswerTaken {
    /// The first one: the session begins.
    Begun(Box<LeanTransport>),
    /// For a session that there is.
    Changed {
        /// For [`ShardCommand::Slots`](crate::queue::ShardCommand::Slots).
        slots: AgreedSlots,
        /// ICE begins anew: for [`ShardCommand::Patch`](crate::queue::ShardCommand::Patch).
        restart: Option<Fragment>,
    },
}

impl Offers {
    /// To a peer that reaches us at `local` addresses. With somebody who is told of data channels, the first m-line is for these,
    /// and may be the only one at first.
    pub fn new(
        identity: &Identity,
        local: &[SocketAddr],
        delay: Option<PlayoutDelay>,
        data: Option<Arc<dyn DataObserver>>,
    ) -> Result<Self, OfferError> {
        Ok(Self {
            identity: identity.clone(),
            offering: Offering::new(local, delay.is_some(), data.is_some())?,
            delay,
            data,
        })
    }

    /// To a viewer of one stream: its tracks are all that it is ever offered, in the codecs that they have now.
    pub fn of_stream(
        identity: &Identity,
        local: &[SocketAddr],
        delay: Option<PlayoutDelay>,
        name: &StreamName,
        codecs: StreamCodecs,
    ) -> Result<Self, OfferError> {
        let mut offering = Offering::of_stream(local, delay.is_some(), codecs.video)?;
        // Their names are any without blanks; a stream's name may be longer than one may be.
        let stream = name.as_str().get(..64).unwrap_or(name.as_str());
        for kind in [TrackKind::Video, TrackKind::Audio] {
            if codecs.of(kind).is_some() {
                // Browsers take no two tracks of one name.
                offering.add(kind, &format!("{stream} {}", kind.name()))?;
            }
        }
        Ok(Self {
            identity: identity.clone(),
            offering,
            delay,
            data: None,
        })
    }

    /// A track is to be sent, which the peer knows by these names of a stream and a track (`a=msid`). Returns its m-line: one
    /// that is free, or a new one.
    pub fn add(&mut self, kind: TrackKind, msid: &str) -> Result<usize, OfferError> {
        self.offering.add(kind, msid)
    }

    /// An m-line carries nothing any more.
    pub fn remove(&mut self, line: usize) {
        self.offering.remove(line);
    }

    /// ICE begins anew with the next offer.
    pub fn restart_ice(&mut self) -> Result<(), OfferError> {
        self.offering.restart_ice()
    }

    /// The next offer.
    pub fn offer(&mut self) -> Result<String, OfferError> {
        self.offering.offer(&self.identity.fingerprint)
    }

    /// Takes the answer to the last offer. One that is refused changes nothing.
    pub fn answered(&mut self, answer: &str, now: Instant) -> Result<AnswerTaken, OfferError> {
        let mut next = self.offering.clone();
        let agreement = next.answered(answer)?;
        self.offering = next;
        Ok(match agreement {
            Agreement::New(agreed) => {
                let data = self.data.take();
                let transport = LeanTransport::new(now, &self.identity, *agreed, self.delay, data);
                AnswerTaken::Begun(Box::new(transport))
            }
            Agreement::More(slots, restart) => AnswerTaken::Changed {
                slots,
                restart: restart.map(Fragment::restarting),
            },
        })
    }

    /// The codecs of pictures that the peer takes, on some m-line or on the one with this place.
    pub fn pictures(&self, place: Option<usize>) -> Vec<Codec> {
        self.offering.pictures(place.map(slot_at))
    }

    /// The name of an m-line.
    pub fn mid(&self, line: usize) -> String {
        self.offering.mid(line)
    }

    /// The place by which the shard knows an m-line ([`ShardCommand::Watch`](crate::queue::ShardCommand::Watch)), once the
    /// peer has taken it.
    pub fn place(&self, line: usize) -> Option<usize> {
        Some(self.offering.slot(line)?.0.into())
    }
}

/// By which a shard knows an m-line, as the SDP's side does.
fn slot_at(place: usize) -> Slot {
    Slot(u16::try_from(place).unwrap_or(u16::MAX))
}

/// Answers a viewer's offer with a session that sends to it from `local` addresses.
pub fn accept(
    identity: &Identity,
    codecs: StreamCodecs,
    offer: &str,
    local: &[SocketAddr],
    delay: Option<PlayoutDelay>,
    now: Instant,
) -> Result<(LeanTransport, String), OfferError> {
    answer(identity, Wanted::Stream(codecs), offer, local, delay, now)
}

/// Answers the offer of a peer that is to be sent many streams, on all of its m-lines that receive.
pub fn accept_many(
    identity: &Identity,
    offer: &str,
    local: &[SocketAddr],
    delay: Option<PlayoutDelay>,
    now: Instant,
) -> Result<(LeanTransport, String), OfferError> {
    answer(identity, Wanted::Many, offer, local, delay, now)
}

fn answer(
    identity: &Identity,
    wanted: Wanted,
    offer: &str,
    local: &[SocketAddr],
    delay: Option<PlayoutDelay>,
    now: Instant,
) -> Result<(LeanTransport, String), OfferError> {
    let told = delay.is_some();
    let (agreed, answer) = sdp::answer_viewer(offer, wanted, &identity.fingerprint, local, told)?;
    let transport = LeanTransport::new(now, identity, agreed, delay, None);
    Ok((transport, answer))
}

impl StreamCodecs {
    /// The codec of one kind of track.
    pub fn of(&self, kind: TrackKind) -> Option<Codec> {
        match kind {
            TrackKind::Video => self.video,
            TrackKind::Audio => self.audio,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playout_delays_are_told_in_steps_of_ten_milliseconds() {
        for (min, max, octets) in [
            (0, 0, [0, 0, 0]),
            (100, 2_000, [0x00, 0xa0, 0xc8]),
            (40_950, 40_959, [0xff, 0xff, 0xff]),
        ] {
            let delay = PlayoutDelay::from_millis(min, max).unwrap();
            assert_eq!(delay.octets(), octets, "{min}/{max}");
        }
        assert_eq!(PlayoutDelay::from_millis(20, 10), None);
        assert_eq!(PlayoutDelay::from_millis(0, 40_960), None);
    }
}
