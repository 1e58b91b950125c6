// SPDX-License-Identifier: MPL-2.0

//! What viewers' and publishers' answers have in common: our credentials and addresses, and the text.

use std::net::SocketAddr;

use is::{Candidate, Protocol};
use str0m::net::TcpType;

use super::answer::{self, Local, Stream};
use super::candidate;
use super::choice::Plan;
use super::error::OfferError;
use super::ice::{credentials, random};
use super::offer::Offer;
use crate::address;
use crate::peer::data::AgreedData;
use crate::transport::lean::agreed::Agreed;

/// Which session a text describes, and how often it was described before (RFC 8866, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) id: u64,
    pub(super) version: u64,
}

impl Origin {
    pub(super) fn new() -> Result<Self, OfferError> {
        let id = u64::from_be_bytes(random()?) >> 2;
        Ok(Self { id, version: 1 })
    }
}

/// What an offer and we agree on, as it was planned. It has no formats yet.
pub(super) fn agree(
    offer: &Offer<'_>,
    plan: &Plan<'_, '_>,
    addresses: &[SocketAddr],
) -> Result<Agreed, OfferError> {
    let (remote, fingerprints, is_client) = plan.transport.agree()?;
    let remote_candidates = match offer.is_lite {
        true => {
            let candidates = offer.candidates.iter().filter_map(|c| candidate::parse(c));
            let candidates = candidates.filter(|c| c.proto() == Protocol::Udp);
            candidates.map(|c| c.addr()).collect()
        }
        false => Vec::new(),
    };
    let mid = plan.lines.iter().flatten().find_map(|l| l.media.mid);
    let mid = mid.or(plan.data.and_then(|at| offer.medias.get(at)?.mid));
    Ok(Agreed {
        local: credentials()?,
        remote,
        candidates: candidates(addresses),
        peer_is_lite: offer.is_lite,
        remote_candidates,
        mid: mid.unwrap_or_default().to_owned(),
        fingerprints,
        heard: 0,
        is_client,
        formats: Vec::new(),
        asks_for_keyframes: false,
        by_slot: false,
        data: data(offer, plan),
    })
}

/// What the peer says of data channels, where they are taken.
pub(super) fn data(offer: &Offer<'_>, plan: &Plan<'_, '_>) -> Option<AgreedData> {
    let media = offer.medias.get(plan.data?)?;
    Some(AgreedData::new(media.sctp_port, media.message_size))
}

/// Our addresses as candidates.
pub(super) fn candidates(addresses: &[SocketAddr]) -> Vec<Candidate> {
    let candidates = addresses.iter().filter_map(|addr| {
        let candidate = match address::is_tcp(addr) {
            // RFC 6544: we listen, the peer connects.
            true => Candidate::builder()
                .tcp()
                .host(address::plain(addr))
                .tcptype(TcpType::Passive)
                .build(),
            false => Candidate::host(*addr, "udp"),
        };
        let told = |error: &_| tracing::warn!(%addr, %error, "address is not announced");
        candidate.inspect_err(told).ok()
    });
    candidates.collect()
}

/// The answer's text.
pub(super) fn write(
    offer: &Offer<'_>,
    plan: &Plan<'_, '_>,
    (agreed, origin): (&Agreed, Origin),
    fingerprint: &str,
    stream: Stream<'_>,
) -> String {
    let ours = Local {
        origin,
        credentials: &agreed.local,
        fingerprint,
        candidates: &agreed.candidates,
        setup: match agreed.is_client {
            true => "active",
            false => "passive",
        },
    };
    answer::write(offer, plan, ours, stream)
}
