// SPDX-License-Identifier: MPL-2.0

//! What viewers' and publishers' answers have in common: our credentials and addresses, and the text.

use std::net::SocketAddr;

use is::{Candidate, Protocol};
use str0m::net::TcpType;

use super::answer::{self, Local, Sent, Stream};
use super::candidate;
use super::choice::Plan;
use super::error::OfferError;
use super::ice::credentials;
use super::offer::Offer;
use crate::address;
use crate::transport::lean::agreed::Agreed;

/// Answers an offer as it was planned. What comes of it has no formats yet.
pub(super) fn answer(
    offer: &Offer<'_>,
    plan: &Plan<'_, '_>,
    fingerprint: &str,
    addresses: &[SocketAddr],
    stream: (&str, &[Option<Sent>]),
) -> Result<(Agreed, String), OfferError> {
    let (remote, fingerprints, is_client) = plan.transport.agree()?;
    let local = credentials()?;
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
    let candidates: Vec<_> = candidates.collect();
    let ours = Local {
        credentials: &local,
        fingerprint,
        candidates: &candidates,
        is_client,
    };
    let (name, sent) = stream;
    let answer = answer::write(offer, plan, ours, Stream { name, sent })?;
    let remote_candidates = match offer.is_lite {
        true => {
            let candidates = offer.candidates.iter().filter_map(|c| candidate::parse(c));
            let candidates = candidates.filter(|c| c.proto() == Protocol::Udp);
            candidates.map(|c| c.addr()).collect()
        }
        false => Vec::new(),
    };
    let mid = plan.lines.iter().flatten().find_map(|l| l.media.mid);
    let agreed = Agreed {
        local,
        remote,
        candidates,
        peer_is_lite: offer.is_lite,
        remote_candidates,
        mid: mid.unwrap_or_default().to_owned(),
        fingerprints,
        heard: 0,
        is_client,
        formats: Vec::new(),
        asks_for_keyframes: false,
    };
    Ok((agreed, answer))
}
