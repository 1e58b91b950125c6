// SPDX-License-Identifier: MPL-2.0

//! A publisher's offer (WHIP, RFC 9725) is answered: taken whole, or refused with a reason (sections 4.4.2 and 4.4.3).

use std::net::SocketAddr;

use super::super::uplink::agreed::{Agreed, Extensions, Format, Media, Source};
use super::choice::{Accepted, Chosen, Plan, Purpose};
use super::error::OfferError;
use super::extension::Extension;
use super::offer::Offer;
use super::{MEDIAS, session};

/// Answers an offer to publish. `fingerprint` is our certificate's.
pub(crate) fn answer_publisher(
    sdp: &str,
    fingerprint: &str,
    addresses: &[SocketAddr],
) -> Result<(Agreed, String), OfferError> {
    let offer = Offer::read(sdp, MEDIAS)?;
    let plan = Plan::new(&offer, Purpose::Publish)?;
    check_payload_types(&plan)?;
    check_layers(&plan)?;
    let (connection, answer) = session::answer(&offer, &plan, fingerprint, addresses, ("", &[]))?;
    let medias = plan.carriers().map(media).collect();
    Ok((Agreed { connection, medias }, answer))
}

/// One payload type may stand for two codecs only where packets tell otherwise whose they are (RFC 9143, section 9.2).
fn check_payload_types(plan: &Plan<'_, '_>) -> Result<(), OfferError> {
    let lines: Vec<_> = plan.carriers().collect();
    for (n, line) in lines.iter().enumerate() {
        for other in &lines[n + 1..] {
            let mut pts = line.formats.iter().flat_map(Chosen::payload_types);
            let twice = pts.find(|pt| other.has(*pt));
            let told = line.media.is_identified() && other.media.is_identified();
            if let Some(pt) = twice.filter(|_| !told) {
                let why = format!(
                    "payload type {pt} stands for two codecs, and nothing tells their packets apart: \
                     use another one, or the header extension sdes:mid, or a=ssrc lines"
                );
                return Err(OfferError::unacceptable(why));
            }
        }
    }
    Ok(())
}

/// Layers are told apart by their names in each packet.
fn check_layers(plan: &Plan<'_, '_>) -> Result<(), OfferError> {
    let is_told = |line: &Accepted<'_, '_>| line.extensions.id(Extension::Rid).is_some();
    let mut lines = plan.carriers();
    match lines.any(|line| line.layers.len() > 1 && !is_told(line)) {
        true => Err(OfferError::unacceptable(
            "its simulcast layers can't be told apart without the header extension sdes:rtp-stream-id",
        )),
        false => Ok(()),
    }
}

fn media(line: &Accepted<'_, '_>) -> Media {
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
    Media {
        mid: line.media.mid.unwrap_or_default().to_owned(),
        kind: line.kind,
        formats: formats.collect(),
        sources: sources.collect(),
        rids: layers.map(|layer| layer.rid.to_owned()).collect(),
        extensions: Extensions {
            mid: id(Extension::Mid),
            rid: id(Extension::Rid),
            repaired_rid: id(Extension::RepairedRid),
            twcc: id(Extension::Twcc),
            abs_send_time: None,
            audio_level: id(Extension::AudioLevel),
        },
    }
}
