// SPDX-License-Identifier: MPL-2.0

//! A viewer's offer (WHEP, draft-ietf-wish-whep) is answered.

use std::net::SocketAddr;

use super::answer::{Sent, Stream};
use super::choice::{Accepted, Chosen, Plan, Purpose, offered_codecs};
use super::error::OfferError;
use super::extension::Extension;
use super::ice::{random, random_text};
use super::media::Media;
use super::offer::Offer;
use super::session::{self, Origin};
use super::{MEDIAS, SLOTS};
use crate::codec::{Codec, TrackKind};
use crate::transport::Slot;
use crate::transport::lean::agreed::{Agreed, Extensions, Format, Numbers};
use crate::transport::negotiate::StreamCodecs;

/// The longest name of an m-line that packets carry (RFC 8285, section 4.2).
const MID: usize = 16;
/// Characters of a stream's name, of six random bits each (RFC 7022, section 4.2).
pub(super) const NAME: usize = 20;

/// What a peer is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// A stream of these codecs, on the first m-line of each kind.
    Stream(StreamCodecs),
    /// Streams that come and go, on all of its m-lines.
    Many,
}

/// Answers an offer to be sent something. `fingerprint` is our certificate's.
pub(crate) fn answer_viewer(
    sdp: &str,
    wanted: Wanted,
    fingerprint: &str,
    addresses: &[SocketAddr],
    delay: bool,
) -> Result<(Agreed, String), OfferError> {
    let (most, all) = match wanted {
        Wanted::Stream(_) => (MEDIAS, false),
        Wanted::Many => (SLOTS, true),
    };
    let offer = Offer::read(sdp, most)?;
    let purpose = Purpose::Watch {
        delay,
        all,
        data: false,
    };
    let plan = Plan::new(&offer, purpose)?;
    if let Wanted::Stream(codecs) = wanted {
        check(codecs, &offer, &plan)?;
    }
    let mut sent = Vec::with_capacity(plan.lines.len());
    for line in &plan.lines {
        sent.push(match line {
            Some(line) if line.direction.sends() => Some(sources(line, &sent)?),
            _ => None,
        });
    }
    let name = random_text::<NAME>()?.replace(['+', '/'], "x");
    let mut agreed = session::agree(&offer, &plan, addresses)?;
    let stream = Stream {
        name: &name,
        sent: &sent,
    };
    let ours = (&agreed, Origin::new()?);
    let answer = session::write(&offer, &plan, ours, fingerprint, stream);
    let sending = plan.lines.iter().zip(&sent);
    let sending = sending.filter_map(|(line, sent)| Some((line.as_ref()?, (*sent)?)));
    let slots = (0..).map(Slot).zip(sending);
    let formats = slots.flat_map(|(slot, (line, sent))| formats(slot, line, sent, &name));
    agreed.formats = formats.collect();
    agreed.asks_for_keyframes = asks_for_keyframes(&plan);
    Ok((agreed, answer))
}

/// The peer sends PLI or FIR when it can't decode.
pub(super) fn asks_for_keyframes(plan: &Plan<'_, '_>) -> bool {
    let sent = plan.carriers().filter(|l| l.direction.sends());
    let mut video = sent.filter(|l| l.kind == TrackKind::Video);
    let asks = |chosen: &Chosen<'_, '_>| chosen.feedback.pli || chosen.feedback.fir;
    video.any(|line| line.formats.iter().any(asks))
}

/// SSRCs that no other m-line has.
fn sources(
    line: &Accepted<'_, '_>,
    taken: &[Option<Sent<'_>>],
) -> Result<Sent<'static>, OfferError> {
    let mut all: Vec<u32> = taken
        .iter()
        .flatten()
        .flat_map(|s| [Some(s.ssrc), s.rtx])
        .flatten()
        .collect();
    let mut next = || loop {
        let ssrc = u32::from_be_bytes(random()?);
        if ssrc != 0 && !all.contains(&ssrc) {
            all.push(ssrc);
            return Ok::<_, OfferError>(ssrc);
        }
    };
    let ssrc = next()?;
    let has_rtx = line.formats.iter().any(|chosen| chosen.rtx.is_some());
    let rtx = if has_rtx { Some(next()?) } else { None };
    let msid = None;
    Ok(Sent { ssrc, rtx, msid })
}

/// What may be sent on an m-line: each codec under the payload type that fits it best.
pub(super) fn formats(
    slot: Slot,
    line: &Accepted<'_, '_>,
    sent: Sent<'_>,
    cname: &str,
) -> Vec<Format> {
    let mut formats: Vec<Format> = Vec::new();
    let extension = |extension| line.extensions.id(extension);
    let mid = line.media.mid.filter(|mid| mid.len() <= MID);
    let fragmented = is_fragmented(line);
    for chosen in preferred(line) {
        let known = formats.iter_mut().find(|f| f.codec == chosen.codec);
        let numbers = numbers(chosen);
        if let Some(known) = known {
            let is_new = |n: &Numbers| known.profiles.iter().all(|k| k.profile != n.profile);
            let fits = !fragmented || chosen.format.takes_fragments();
            let numbers = numbers.filter(|n| fits && is_new(n));
            known.profiles.extend(numbers);
            continue;
        }
        formats.push(Format {
            slot,
            codec: chosen.codec,
            pt: chosen.format.pt,
            red: chosen.red.map(|red| red.pt),
            rtx: chosen.rtx.map(|rtx| rtx.pt),
            nack: chosen.feedback.nack,
            profiles: numbers.into_iter().collect(),
            mid: mid.unwrap_or_default().to_owned(),
            ssrc: sent.ssrc,
            rtx_ssrc: sent.rtx,
            cname: cname.to_owned(),
            extensions: Extensions {
                mid: extension(Extension::Mid).filter(|_| mid.is_some()),
                // Numbers that nobody reports on would be taken for a network that lets nothing through.
                twcc: extension(Extension::Twcc).filter(|_| chosen.feedback.twcc),
                playout_delay: extension(Extension::PlayoutDelay),
                capture_time: extension(Extension::CaptureTime),
                descriptor: extension(Extension::Dependency),
            },
        });
    }
    formats
}

/// Of H.264.
fn numbers(chosen: &Chosen<'_, '_>) -> Option<Numbers> {
    let profile = chosen
        .format
        .profile()
        .filter(|_| chosen.codec == Codec::H264)?;
    Some(Numbers {
        profile,
        pt: chosen.format.pt,
        rtx: chosen.rtx.map(|rtx| rtx.pt),
    })
}

/// Some H.264 of the m-line takes fragments: then none leaves without, whatever its profile.
fn is_fragmented(line: &Accepted<'_, '_>) -> bool {
    let mut h264 = line.formats.iter().filter(|c| c.codec == Codec::H264);
    h264.any(|chosen| chosen.format.takes_fragments())
}

/// In the offer's order, but H.264 that takes fragments, as they are sent, before that which does not say so.
fn preferred<'l, 'o, 'a>(line: &'l Accepted<'o, 'a>) -> impl Iterator<Item = &'l Chosen<'o, 'a>> {
    let fits = |c: &&Chosen<'_, '_>| c.codec != Codec::H264 || c.format.takes_fragments();
    let first = line.formats.iter().filter(fits);
    first.chain(line.formats.iter().filter(move |c| !fits(c)))
}

/// Every track of the stream for which the viewer has an m-line must be playable, and at least one must be.
fn check(codecs: StreamCodecs, offer: &Offer<'_>, plan: &Plan<'_, '_>) -> Result<(), OfferError> {
    let mut playable = 0;
    for (name, codec) in [("video", codecs.video), ("audio", codecs.audio)] {
        let Some(codec) = codec else {
            continue;
        };
        let is_wanted =
            |m: &&Media<'_>| m.name == name && !m.is_rejected() && m.direction().receives();
        let Some(wanted) = offer.medias.iter().find(is_wanted) else {
            continue;
        };
        let mut carriers = plan.carriers();
        let carrier = carriers.find(|line| line.kind == codec.kind());
        let has = |line: &Accepted<'_, '_>| line.formats.iter().any(|c| c.codec == codec);
        match carrier {
            Some(line) if has(line) => playable += 1,
            // On a transport of its own, which no session has: the answer rejects it.
            None if wanted.has_known_codec() => {}
            _ => {
                return Err(OfferError::NoCommonCodec(format!(
                    "no common codec: the stream's {name} is {}, the offer has {}",
                    codec.name(),
                    offered_codecs(wanted)
                )));
            }
        }
    }
    if playable == 0 && (codecs.video.is_some() || codecs.audio.is_some()) {
        return Err(OfferError::NoCommonCodec(
            "no common track: the offer has no m-line for what the stream consists of".into(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::profile::H264Profile::{self, *};

    /// What H.264 may leave under: as `rtpmap`s, profile and mode of an offer with RTX.
    fn agreed(offered: &[(u8, &str)]) -> Vec<(H264Profile, u8, Option<u8>)> {
        let pts: Vec<_> = offered
            .iter()
            .map(|(pt, _)| format!("{pt} {}", pt + 1))
            .collect();
        let mut offer = format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:{0}{0}\r\n\
             a=setup:actpass\r\na=fingerprint:sha-256 {1}00\r\nm=video 9 UDP/TLS/RTP/SAVPF {2}\r\na=recvonly\r\n\
             a=rtcp-mux\r\n",
            "0123456789ab",
            "00:".repeat(31),
            pts.join(" ")
        );
        for (pt, parameters) in offered {
            offer += &format!(
                "a=rtpmap:{pt} H264/90000\r\na=fmtp:{pt} {parameters}\r\na=rtpmap:{0} rtx/90000\r\na=fmtp:{0} apt={pt}\r\n",
                pt + 1
            );
        }
        let codecs = StreamCodecs {
            video: Some(Codec::H264),
            audio: None,
        };
        let (agreed, _) =
            answer_viewer(&offer, Wanted::Stream(codecs), "sha-256 00", &[], false).unwrap();
        let [format] = &agreed.formats[..] else {
            panic!("{:?}", agreed.formats);
        };
        let first = &format.profiles[0];
        assert_eq!((format.pt, format.rtx), (first.pt, first.rtx));
        let all = format.profiles.iter().map(|n| (n.profile, n.pt, n.rtx));
        all.collect()
    }

    #[test]
    fn payload_types_of_h264_are_told_apart_by_profile_and_mode() {
        const WHOLE: &str = "packetization-mode=0;profile-level-id=42e01f";
        const FRAGMENTS: &str = "packetization-mode=1;profile-level-id=42e01f";
        const HIGH: &str = "profile-level-id=64001f;packetization-mode=1";
        for (offered, expected) in [
            (
                &[(96, WHOLE)][..],
                &[(ConstrainedBaseline, 96, Some(97))][..],
            ),
            // Fragments are what is sent, whatever comes first.
            (
                &[(96, WHOLE), (98, FRAGMENTS)],
                &[(ConstrainedBaseline, 98, Some(99))],
            ),
            (
                &[
                    (96, WHOLE),
                    (98, FRAGMENTS),
                    (100, HIGH),
                    (102, "profile-level-id=640028;packetization-mode=1"),
                ],
                &[(ConstrainedBaseline, 98, Some(99)), (High, 100, Some(101))],
            ),
            // None is chosen that takes no fragments, where another does.
            (&[(96, WHOLE), (98, HIGH)], &[(High, 98, Some(99))]),
            (
                &[(96, WHOLE), (98, "profile-level-id=64001f")],
                &[(ConstrainedBaseline, 96, Some(97)), (High, 98, Some(99))],
            ),
        ] {
            assert_eq!(agreed(offered), expected, "{offered:?}");
        }
    }
}
