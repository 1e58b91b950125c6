// SPDX-License-Identifier: MPL-2.0

//! A publisher's offer (WHIP, RFC 9725) is answered: taken whole, or refused with a reason (sections 4.4.2 and 4.4.3).

use std::net::SocketAddr;

use super::super::uplink::agreed::{Agreed, AgreedTracks, Extensions, Format, Media, Source};
use super::again::{Before, Restart};
use super::answer::Stream;
use super::choice::{Accepted, Chosen, Plan, Purpose};
use super::error::OfferError;
use super::extension::Extension;
use super::offer::Offer;
use super::session::{self, Origin};
use super::{LAYERS_IN_ALL, MEDIAS, SLOTS, TRACKS};
use crate::transport::TrackIn;

/// Of so many formats of an m-line the parameter sets are kept that the offer tells.
const TOLD: usize = 2;

/// What a peer may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// A stream: pictures, and sound in one language or several.
    Stream,
    /// Any tracks, and maybe data channels.
    Many { data: bool },
}

/// Answers an offer to publish. `fingerprint` is our certificate's.
pub(crate) fn answer_publisher(
    sdp: &str,
    published: Published,
    fingerprint: &str,
    addresses: &[SocketAddr],
) -> Result<(Agreed, Before, String), OfferError> {
    let (most, all, data) = match published {
        Published::Stream => (MEDIAS, false, false),
        Published::Many { data } => (SLOTS, true, data),
    };
    let offer = Offer::read(sdp, most)?;
    let plan = Plan::new(&offer, Purpose::Publish { all, data })?;
    check(&plan)?;
    let connection = session::agree(&offer, &plan, addresses)?;
    let before = Before::new(&offer, &plan, connection.clone(), Origin::new()?);
    let answer = session::write(&offer, &plan, before.ours(), fingerprint, Stream::NONE);
    let tracks = tracks(&offer, &plan);
    Ok((Agreed { connection, tracks }, before, answer))
}

/// Answers another offer of a peer that publishes any tracks. It may have none left.
pub(crate) fn answer_again(
    sdp: &str,
    data: bool,
    before: &mut Before,
    fingerprint: &str,
) -> Result<(AgreedTracks, Option<Restart>, String), OfferError> {
    let offer = Offer::read(sdp, SLOTS)?;
    let plan = Plan::again(&offer, Purpose::Publish { all: true, data })?;
    check(&plan)?;
    let restart = before.next(&offer, &plan)?;
    let answer = session::write(&offer, &plan, before.ours(), fingerprint, Stream::NONE);
    Ok((tracks(&offer, &plan), restart, answer))
}

/// How many there are first: what follows is then little.
pub(super) fn check(plan: &Plan<'_, '_>) -> Result<(), OfferError> {
    check_layers(plan)?;
    check_payload_types(plan)
}

/// The m-lines that are received, and data channels.
pub(super) fn tracks(offer: &Offer<'_>, plan: &Plan<'_, '_>) -> AgreedTracks {
    let lines = (0..).map(TrackIn).zip(&plan.lines);
    let lines = lines.filter_map(|(track, line)| Some((track, line.as_ref()?)));
    let carriers = lines.filter(|(_, line)| line.direction.receives());
    AgreedTracks {
        medias: carriers.map(|(track, line)| media(track, line)).collect(),
        data: session::data(offer, plan),
    }
}

/// One payload type may stand for two formats only where packets tell otherwise whose they are (RFC 9143, section 9.2).
fn check_payload_types(plan: &Plan<'_, '_>) -> Result<(), OfferError> {
    // One bit for each: of all m-lines so far, and of those whose packets nothing else tells.
    let (mut all, mut untold) = (0_u128, 0_u128);
    for line in plan.received() {
        let pts = line.formats.iter().flat_map(Chosen::payload_types);
        let own = pts.fold(0, |own, pt| own | 1_u128 << pt);
        let is_told = line.media.is_identified();
        let twice = own & if is_told { untold } else { all };
        if twice != 0 {
            let why = format!(
                "payload type {} stands for formats of two m-lines, and nothing tells their packets apart: \
                 use another one, or the header extension sdes:mid, or a=ssrc lines",
                twice.trailing_zeros()
            );
            return Err(OfferError::unacceptable(why));
        }
        all |= own;
        untold |= if is_told { 0 } else { own };
    }
    Ok(())
}

/// There are not too many, and layers are told apart by their names in each packet.
fn check_layers(plan: &Plan<'_, '_>) -> Result<(), OfferError> {
    if plan.received().count() > TRACKS {
        let why = format!("it sends more than {TRACKS} tracks");
        return Err(OfferError::unacceptable(why));
    }
    if plan
        .received()
        .map(|line| line.layers.len().max(1))
        .sum::<usize>()
        > LAYERS_IN_ALL
    {
        let why = format!("its tracks have more than {LAYERS_IN_ALL} layers in all");
        return Err(OfferError::unacceptable(why));
    }
    let is_told = |line: &Accepted<'_, '_>| line.extensions.id(Extension::Rid).is_some();
    let mut lines = plan.received();
    match lines.any(|line| line.layers.len() > 1 && !is_told(line)) {
        true => Err(OfferError::unacceptable(
            "its simulcast layers can't be told apart without the header extension sdes:rtp-stream-id",
        )),
        false => Ok(()),
    }
}

fn media(track: TrackIn, line: &Accepted<'_, '_>) -> Media {
    let id = |extension| line.extensions.id(extension);
    let formats = line.formats.iter().map(|chosen| Format {
        codec: chosen.codec,
        pt: chosen.format.pt,
        rtx: chosen.rtx.map(|rtx| rtx.pt),
        red: chosen.red.map(|red| red.pt),
        feedback: chosen.feedback,
    });
    let sources = line.media.sources.iter().filter(|s| !s.is_repair);
    let sources = sources.map(|source| Source {
        ssrc: source.ssrc,
        rtx: source.rtx,
        cname: source.cname.map(str::to_owned),
    });
    let layers = line.layers.iter().filter(|_| id(Extension::Rid).is_some());
    let told = line.formats.iter().filter_map(|chosen| {
        let sets = chosen.format.parameter_sets(chosen.codec);
        (!sets.is_empty()).then(|| (chosen.format.pt, sets.into()))
    });
    Media {
        track,
        mid: line.media.mid.unwrap_or_default().to_owned(),
        msid: line.media.msid.map(str::to_owned),
        language: line.media.language.and_then(|tag| tag.parse().ok()),
        kind: line.kind,
        formats: formats.collect(),
        sources: sources.collect(),
        rids: layers.map(|layer| layer.rid.to_owned()).collect(),
        sets: told.take(TOLD).collect(),
        extensions: Extensions {
            mid: id(Extension::Mid),
            rid: id(Extension::Rid),
            repaired_rid: id(Extension::RepairedRid),
            twcc: id(Extension::Twcc),
            abs_send_time: None,
            audio_level: id(Extension::AudioLevel),
            dependency: id(Extension::Dependency),
        },
    }
}
