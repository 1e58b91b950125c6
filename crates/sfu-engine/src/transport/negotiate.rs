// SPDX-License-Identifier: MPL-2.0

//! A viewer's or publisher's offer becomes a session and an answer (WHEP, WHIP, RFC 8829).
//!
//! About a millisecond of CPU. Called on the caller's thread, not on a shard's, so that joins delay nobody's packets.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use sfu_dtls::OpenSslDtls;
use str0m::change::SdpOffer;
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::crypto::dtls::{DtlsProvider, SrtpProfile};
use str0m::format::{CodecConfig, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid, Pt};
use str0m::rtp::{Extension, ExtensionMap};
use str0m::{Candidate, Rtc};
use thiserror::Error;

use super::complaint::complaint;
use super::lean::{Agreed, LeanTransport};
use super::no_dtls::NoDtls;
use crate::codec::{Codec, TrackKind, VIDEO_CODECS};
use crate::ids::Rid;
use crate::peer::uplink::Uplink;
use crate::peer::uplink::agreed::Agreed as Receiving;

/// H.264 profiles that are accepted: constrained baseline, baseline, main, high.
const H264_PROFILES: [u32; 4] = [0x42_e0_1f, 0x42_00_1f, 0x4d_00_1f, 0x64_00_1f];

/// What secures media, the preferred first: those of [`crate::srtp::Profile`].
const SRTP_PROFILES: [SrtpProfile; 3] = [
    SrtpProfile::AEAD_AES_128_GCM,
    SrtpProfile::AEAD_AES_256_GCM,
    SrtpProfile::AES128_CM_SHA1_80,
];

/// The m-line and payload type under which a codec is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Negotiated {
    pub(crate) codec: Codec,
    pub(crate) mid: Mid,
    pub(crate) pt: Pt,
    /// The payload type of the same with redundancy (RED).
    pub(crate) red: Option<Pt>,
}

/// Why an offer was not answered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OfferError {
    /// It is not SDP, or not an offer that a viewer makes.
    #[error("the offer was not understood: {0}")]
    Invalid(String),
    /// Nothing in it can play the stream.
    #[error("{0}")]
    NoCommonCodec(String),
}

/// What all sessions of a process share: the crypto provider and one certificate.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<CryptoProvider>,
    /// The same without DTLS, for sessions that are thrown away once they have answered.
    negotiator: Arc<CryptoProvider>,
    certificate: DtlsCert,
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
        let provider = |dtls_provider: &'static dyn DtlsProvider| {
            Arc::new(CryptoProvider {
                dtls_provider,
                ..str0m::crypto::from_feature_flags()
            })
        };
        let negotiator = provider(&NoDtls);
        let provider = provider(&DTLS);
        let certificate = provider.dtls_provider.generate_certificate();
        let certificate = certificate.ok_or_else(|| {
            OfferError::Invalid("the server could not make its DTLS certificate".into())
        })?;
        Ok(Self {
            provider,
            negotiator,
            certificate,
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

/// What a publishing peer is going to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherTracks {
    /// The video codec that is offered first and the simulcast layers; one without a name where there is no simulcast.
    pub video: Option<(Codec, Vec<Option<Rid>>)>,
    /// The audio codec.
    pub audio: Option<Codec>,
}

/// Answers a publisher's offer (WHIP, RFC 9725) with a session that receives from it.
///
/// Of the video codecs only the one that the offer likes best is answered: the stream has one.
pub fn accept_publisher(
    identity: &Identity,
    offer: &str,
    local: &[SocketAddr],
    now: Instant,
) -> Result<(Uplink, String, PublisherTracks), OfferError> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        accept_publisher_inner(identity, offer, local, now)
    }));
    result.unwrap_or_else(|_| Err(OfferError::Invalid("it could not be processed".into())))
}

fn accept_publisher_inner(
    identity: &Identity,
    offer: &str,
    local: &[SocketAddr],
    now: Instant,
) -> Result<(Uplink, String, PublisherTracks), OfferError> {
    let preferred = preferred_video(offer);
    let codecs = StreamCodecs {
        // Where none is known to us, one that is not offered either keeps the others out.
        video: preferred.or(Some(Codec::H264)),
        audio: Some(Codec::Opus),
    };
    let mut extensions = ExtensionMap::empty();
    for (id, extension) in [
        (1, Extension::AudioLevel),
        (3, Extension::TransportSequenceNumber),
        (4, Extension::RtpMid),
        (10, Extension::RtpStreamId),
        (11, Extension::RepairedRtpStreamId),
    ] {
        extensions.set(id, extension);
    }
    let config = configure(identity, codecs)
        .set_crypto_provider(identity.negotiator.clone())
        .set_extension_map(extensions);
    let (_, answer) = answer(config, offer, local, now)?;
    let receiving = Receiving::read(offer, &answer, local)?;
    if receiving.medias.is_empty() {
        return Err(OfferError::Invalid(
            "it has no audio or video m-line that sends (a=sendonly)".into(),
        ));
    }
    let tracks = receiving.tracks()?;
    if tracks.video.is_none() && tracks.audio.is_none() {
        return Err(OfferError::NoCommonCodec(format!(
            "no common codec: the offer has video {} and audio {}; video can be H264, VP8, VP9, AV1 or H265, audio Opus",
            offered_codecs(offer, "video"),
            offered_codecs(offer, "audio"),
        )));
    }
    let transport = Uplink::new(now, identity, receiving)?;
    Ok((transport, answer, tracks))
}

/// The first codec that we know in the order of the offer's first video m-line.
fn preferred_video(offer: &str) -> Option<Codec> {
    let lines = || {
        let from_video = offer.lines().skip_while(|l| !l.starts_with("m=video "));
        from_video
            .enumerate()
            .take_while(|(n, l)| *n == 0 || !l.starts_with("m="))
            .map(|(_, l)| l)
    };
    let payload_types = lines().next()?.split_whitespace().skip(3);
    payload_types
        .filter_map(|pt| {
            let map = lines().find_map(|l| {
                l.strip_prefix("a=rtpmap:")?
                    .strip_prefix(pt)?
                    .strip_prefix(' ')
            })?;
            let name = map.split('/').next()?;
            VIDEO_CODECS
                .into_iter()
                .find(|c| c.name().eq_ignore_ascii_case(name))
        })
        .next()
}

/// Answers a viewer's offer with a session that sends to it from `local` addresses.
///
/// `str0m` negotiates; what was agreed on is then our own sender's.
pub fn accept(
    identity: &Identity,
    codecs: StreamCodecs,
    offer: &str,
    local: &[SocketAddr],
    delay: Option<PlayoutDelay>,
    now: Instant,
) -> Result<(LeanTransport, String), OfferError> {
    // A parser's panic is the offer's fault and must not become the server's.
    let result = catch_unwind(AssertUnwindSafe(|| {
        accept_inner(identity, codecs, offer, local, delay, now)
    }));
    result.unwrap_or_else(|_| Err(OfferError::Invalid("it could not be processed".into())))
}

fn accept_inner(
    identity: &Identity,
    codecs: StreamCodecs,
    offer: &str,
    local: &[SocketAddr],
    delay: Option<PlayoutDelay>,
    now: Instant,
) -> Result<(LeanTransport, String), OfferError> {
    let mut config = configure(identity, codecs).set_crypto_provider(identity.negotiator.clone());
    let extensions = config.extension_map();
    extensions.set(3, Extension::TransportSequenceNumber);
    extensions.set(5, Extension::AbsoluteCaptureTime);
    if delay.is_some() {
        extensions.set(6, Extension::PlayoutDelay);
    }
    let (rtc, answer) = answer(config, offer, local, now)?;
    let medias = answered_medias(&rtc, &answer);
    let negotiated = matched(&rtc, &medias);
    check(codecs, offer, &medias, &negotiated)?;
    let agreed = Agreed::read(offer, &answer, &negotiated, local)?;
    let transport = LeanTransport::new(now, identity, agreed, delay)?;
    Ok((transport, answer))
}

/// A session with the addresses at which it can be reached, and its answer.
fn answer(
    config: str0m::RtcConfig,
    offer: &str,
    local: &[SocketAddr],
    now: Instant,
) -> Result<(Rtc, String), OfferError> {
    let invalid = |error: &dyn std::fmt::Display| OfferError::Invalid(complaint(error));
    let parsed = SdpOffer::from_sdp_string(offer).map_err(|e| invalid(&e))?;
    let mut rtc = config.build(now);
    for &addr in local {
        match Candidate::host(addr, "udp") {
            Ok(candidate) => {
                rtc.add_local_candidate(candidate);
            }
            Err(error) => tracing::warn!(%addr, %error, "address is not announced"),
        }
    }
    let answer = rtc
        .sdp_api()
        .accept_offer(parsed)
        .map_err(|e| invalid(&e))?
        .to_sdp_string();
    Ok((rtc, answer))
}

fn configure(identity: &Identity, codecs: StreamCodecs) -> str0m::RtcConfig {
    let mut extensions = ExtensionMap::empty();
    extensions.set(4, Extension::RtpMid);
    let mut config = Rtc::builder()
        .set_crypto_provider(identity.provider.clone())
        .set_dtls_cert(identity.certificate.clone())
        .set_ice_lite(true)
        .set_rtp_mode(true)
        .set_extension_map(extensions)
        .clear_codecs();
    let codec_config = config.codec_config();
    // A track that comes later must find its m-line ready, so what is not known yet is answered for every codec.
    if codecs.audio.is_none_or(|c| c == Codec::Opus) {
        enable_opus(codec_config);
    }
    for codec in VIDEO_CODECS {
        if codecs.video.is_none_or(|c| c == codec) {
            enable_video(codec_config, codec);
        }
    }
    config
}

fn enable_video(config: &mut CodecConfig, codec: Codec) {
    match codec {
        Codec::H264 => enable_h264(config),
        Codec::Vp8 => config.enable_vp8(true),
        Codec::Vp9 => config.enable_vp9(true),
        Codec::Av1 => config.enable_av1(true),
        Codec::H265 => config.enable_h265(true),
        Codec::Opus => {}
    }
}

/// Every profile in packetization mode 1, as we send it, then in mode 0: `webrtcbin` does not name the mode, and
/// takes 1.
fn enable_h264(config: &mut CodecConfig) {
    for (mode, first_pt) in [(true, 114u8), (false, 35)] {
        for (n, profile) in (0u8..).zip(H264_PROFILES) {
            let pt = first_pt + 2 * n;
            config.add_h264(pt.into(), Some((pt + 1).into()), mode, profile);
        }
    }
}

/// Opus as RFC 7587 has it, then without its number of channels, as `webrtcbin` writes it.
fn enable_opus(config: &mut CodecConfig) {
    config.enable_opus(true, true);
    let format = FormatParams {
        min_p_time: Some(10),
        use_inband_fec: Some(true),
        ..FormatParams::default()
    };
    let pt = 110.into();
    config.add_config(
        pt,
        None,
        str0m::format::Codec::Opus,
        Frequency::FORTY_EIGHT_KHZ,
        None,
        format,
    );
}

#[derive(Debug, Clone, Copy)]
struct OfferedMedia {
    mid: Mid,
    kind: MediaKind,
    /// We may send on it.
    sending: bool,
}

/// The m-lines of the answer and what may be done with each.
fn answered_medias(rtc: &Rtc, answer: &str) -> Vec<OfferedMedia> {
    let mids = answer
        .lines()
        .filter_map(|line| line.strip_prefix("a=mid:"));
    mids.filter_map(|mid| {
        let media = rtc.media(mid.trim().into())?;
        let enabled = !media.stopped();
        let direction = media.direction();
        Some(OfferedMedia {
            mid: media.mid(),
            kind: media.kind(),
            sending: enabled && matches!(direction, Direction::SendOnly | Direction::SendRecv),
        })
    })
    .collect()
}

/// The payload type that the peer likes best, for each codec and its first usable m-line of that kind.
fn matched(rtc: &Rtc, medias: &[OfferedMedia]) -> Vec<Negotiated> {
    let mut negotiated: Vec<Negotiated> = Vec::new();
    for offered in medias.iter().filter(|m| m.sending) {
        let Some(media) = rtc.media(offered.mid) else {
            continue;
        };
        for pt in media.remote_pts() {
            let config = rtc.codec_config();
            let Some(params) = config.params().iter().find(|p| p.pt() == *pt) else {
                continue;
            };
            if let Some(codec) = known_codec(params.spec().codec)
                && negotiated.iter().all(|n| n.codec != codec)
            {
                let red = params.red();
                let (mid, pt) = (offered.mid, *pt);
                negotiated.push(Negotiated {
                    codec,
                    mid,
                    pt,
                    red,
                });
            }
        }
    }
    negotiated
}

fn known_codec(codec: str0m::format::Codec) -> Option<Codec> {
    match codec {
        str0m::format::Codec::H264 => Some(Codec::H264),
        str0m::format::Codec::Vp8 => Some(Codec::Vp8),
        str0m::format::Codec::Vp9 => Some(Codec::Vp9),
        str0m::format::Codec::Av1 => Some(Codec::Av1),
        str0m::format::Codec::H265 => Some(Codec::H265),
        str0m::format::Codec::Opus => Some(Codec::Opus),
        _ => None,
    }
}

/// Every track of the stream for which the viewer has an m-line must be playable, and at least one must be.
fn check(
    codecs: StreamCodecs,
    offer: &str,
    medias: &[OfferedMedia],
    negotiated: &[Negotiated],
) -> Result<(), OfferError> {
    let receiving = |kind| medias.iter().any(|m| m.kind == kind && m.sending);
    if !receiving(MediaKind::Video) && !receiving(MediaKind::Audio) {
        return Err(OfferError::Invalid(
            "it has no audio or video m-line that receives (a=recvonly)".into(),
        ));
    }
    let mut playable = 0;
    for (kind, name, codec) in [
        (MediaKind::Video, "video", codecs.video),
        (MediaKind::Audio, "audio", codecs.audio),
    ] {
        let (Some(codec), true) = (codec, receiving(kind)) else {
            continue;
        };
        if negotiated.iter().all(|n| n.codec != codec) {
            let offered = offered_codecs(offer, name);
            return Err(OfferError::NoCommonCodec(format!(
                "no common codec: the stream's {name} is {}, the offer has {offered}",
                codec.name(),
            )));
        }
        playable += 1;
    }
    if playable == 0 && (codecs.video.is_some() || codecs.audio.is_some()) {
        return Err(OfferError::NoCommonCodec(
            "no common track: the offer has no m-line for what the stream consists of".into(),
        ));
    }
    Ok(())
}

/// The encoding names of an SDP's m-lines of one kind, for an error message.
fn offered_codecs(sdp: &str, kind: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut inside = false;
    for line in sdp.lines() {
        if let Some(m_line) = line.strip_prefix("m=") {
            inside = m_line.starts_with(kind);
        } else if let (true, Some(map)) = (inside, line.strip_prefix("a=rtpmap:")) {
            let name = map.split([' ', '/']).nth(1).unwrap_or_default();
            let helper = [
                "rtx",
                "red",
                "ulpfec",
                "flexfec-03",
                "CN",
                "telephone-event",
            ];
            if !helper.contains(&name) && !names.contains(&name) && names.len() < 16 {
                names.push(name);
            }
        }
    }
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
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
