// SPDX-License-Identifier: MPL-2.0

//! A viewer's offer (WHEP, draft-ietf-wish-whep) is answered.

use std::net::SocketAddr;

use super::answer::Sent;
use super::choice::{Accepted, Chosen, Plan, Purpose, offered_codecs};
use super::error::OfferError;
use super::extension::Extension;
use super::ice::{random, random_text};
use super::media::Media;
use super::offer::Offer;
use super::session;
use crate::codec::{Codec, TrackKind};
use crate::transport::lean::agreed::{Agreed, Extensions, Format};
use crate::transport::negotiate::StreamCodecs;

/// The longest name of an m-line that packets carry (RFC 8285, section 4.2).
const MID: usize = 16;
/// Characters of a stream's name, of six random bits each (RFC 7022, section 4.2).
const NAME: usize = 20;

/// Answers an offer to watch a stream of these codecs. `fingerprint` is our certificate's.
pub(crate) fn answer_viewer(
    sdp: &str,
    codecs: StreamCodecs,
    fingerprint: &str,
    addresses: &[SocketAddr],
    delay: bool,
) -> Result<(Agreed, String), OfferError> {
    let offer = Offer::read(sdp)?;
    let plan = Plan::new(&offer, Purpose::Watch { delay })?;
    check(codecs, &offer, &plan)?;
    let mut sent = Vec::with_capacity(plan.lines.len());
    for line in &plan.lines {
        sent.push(match line {
            Some(line) if line.direction.sends() => Some(sources(line, &sent)?),
            _ => None,
        });
    }
    let name = random_text::<NAME>()?.replace(['+', '/'], "x");
    let stream = (&*name, &*sent);
    let (mut agreed, answer) = session::answer(&offer, &plan, fingerprint, addresses, stream)?;
    let sending = plan.lines.iter().zip(&sent);
    let sending = sending.filter_map(|(line, sent)| Some((line.as_ref()?, (*sent)?)));
    let formats = sending.flat_map(|(line, sent)| formats(line, sent, &name));
    let mut video = plan.carriers().filter(|l| l.kind == TrackKind::Video);
    let asks = |chosen: &Chosen<'_, '_>| chosen.feedback.pli || chosen.feedback.fir;
    agreed.formats = formats.collect();
    agreed.asks_for_keyframes = video.any(|line| line.formats.iter().any(asks));
    Ok((agreed, answer))
}

/// SSRCs that no other m-line has.
fn sources(line: &Accepted<'_, '_>, taken: &[Option<Sent>]) -> Result<Sent, OfferError> {
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
    Ok(Sent { ssrc, rtx })
}

/// What may be sent on an m-line: each codec under the payload type that fits it best.
fn formats(line: &Accepted<'_, '_>, sent: Sent, cname: &str) -> Vec<Format> {
    let mut formats: Vec<Format> = Vec::new();
    let extension = |extension| line.extensions.id(extension);
    let mid = line.media.mid.filter(|mid| mid.len() <= MID);
    for chosen in preferred(line) {
        if formats.iter().any(|f| f.codec == chosen.codec) {
            continue;
        }
        formats.push(Format {
            codec: chosen.codec,
            pt: chosen.format.pt,
            red: chosen.red.map(|red| red.pt),
            rtx: chosen.rtx.map(|rtx| rtx.pt),
            mid: mid.unwrap_or_default().to_owned(),
            ssrc: sent.ssrc,
            rtx_ssrc: sent.rtx,
            cname: cname.to_owned(),
            extensions: Extensions {
                mid: extension(Extension::Mid).filter(|_| mid.is_some()),
                twcc: extension(Extension::Twcc),
                playout_delay: extension(Extension::PlayoutDelay),
                capture_time: extension(Extension::CaptureTime),
            },
        });
    }
    formats
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
