// SPDX-License-Identifier: MPL-2.0

//! A peer's candidates (RFC 8839, section 5.1).

use std::net::SocketAddr;

use is::{Candidate, CandidateKind, Protocol};

use super::CANDIDATES;
use super::lines::lines;

/// A line that is longer can't be one.
const LONGEST: usize = 1_024;

/// The candidates of a fragment, and how many lines there were; `None` where these are more than `most`.
///
/// Those that are no plain addresses (mDNS names, zones), and what is none, are passed over: the peer's checks reveal its
/// address anyway.
pub(crate) fn candidates(fragment: &str, most: usize) -> Option<(usize, Vec<Candidate>)> {
    let attributes = lines(fragment).filter_map(super::lines::Line::attribute);
    let values = attributes.filter(|(name, _)| *name == "candidate");
    let mut found = Vec::new();
    let mut count = 0;
    for (_, value) in values {
        if count == most {
            return None;
        }
        count += 1;
        found.extend(parse(value));
    }
    Some((count, found))
}

/// The addresses of their own that an offer names, for UDP: those of its first `most` candidates that are any.
pub(crate) fn named(offer: &str, most: usize) -> Box<[SocketAddr]> {
    let attributes = lines(offer).filter_map(super::lines::Line::attribute);
    let values = attributes.filter(|(name, _)| *name == "candidate");
    let found = values
        .take(CANDIDATES)
        .filter_map(|(_, value)| parse(value));
    let own = found.filter(|c| c.kind() == CandidateKind::Host && c.proto() == Protocol::Udp);
    let mut addresses: Vec<_> = own.map(|candidate| candidate.addr()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(most);
    addresses.into()
}

pub(super) fn parse(value: &str) -> Option<Candidate> {
    if value.len() > LONGEST || !value.is_ascii() {
        return None;
    }
    let parsed = Candidate::from_sdp_string(&format!("candidate:{value}"));
    let passed = |error: &_| tracing::debug!(%error, "candidate passed over");
    parsed.inspect_err(passed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_is_passed_over() {
        for (value, is_one) in [
            ("1 1 udp 2113937151 192.0.2.5 50000 typ host", true),
            (
                "1 1 UDP 2113937151 192.0.2.5 50000 typ host generation 0 ufrag abcd network-id 1",
                true,
            ),
            ("1 1 udp 2113937151 2001:db8::1 50000 typ host", true),
            (
                "1 1 udp 1677729535 192.0.2.5 50000 typ srflx raddr 10.0.0.1 rport 1",
                true,
            ),
            (
                "1 1 tcp 1518280447 192.0.2.5 9 typ host tcptype active",
                true,
            ),
            (
                "1 1 udp 2113937151 0b5e2a3c-7d0f-4a4f-9d9f-1f2d3c4b5a69.local 50000 typ host",
                false,
            ),
            ("1 1 udp 2113937151 fe80::1%eth0 50000 typ host", false),
            ("1 1 udp 2113937151 example.com 50000 typ host", false),
            ("1 1 udp x 192.0.2.5 50000 typ host", false),
            ("", false),
            ("1 1 udp 2113937151 192.0.2.5 500000 typ host", false),
        ] {
            let found = candidates(
                &format!("a=candidate:{value}\r\na=end-of-candidates\r\n"),
                1,
            );
            let found = found.map(|(count, found)| (count, found.len()));
            assert_eq!(found, Some((1, usize::from(is_one))), "{value}");
        }
    }

    #[test]
    fn an_offer_names_addresses_of_its_own() {
        let line = |rest: &str| format!("a=candidate:1 1 {rest}\r\n");
        let offer = [
            line("udp 1 192.0.2.5 50000 typ host"),
            line("udp 1 192.0.2.5 50000 typ host generation 0"),
            line("udp 1 198.51.100.1 4 typ srflx raddr 10.0.0.1 rport 1"),
            line("tcp 1 192.0.2.5 9 typ host tcptype active"),
            line("udp 1 0b5e2a3c-7d0f-4a4f-9d9f-1f2d3c4b5a69.local 50000 typ host"),
            line("udp 1 2001:db8::1 50000 typ host"),
        ]
        .concat();
        let all: [SocketAddr; 2] =
            ["192.0.2.5:50000", "[2001:db8::1]:50000"].map(|address| address.parse().unwrap());
        assert_eq!(*named(&offer, 4), all);
        assert_eq!(*named(&offer, 1), all[..1]);
        let many: String = (1..100)
            .map(|n| line(&format!("udp 1 192.0.2.5 {n} typ host")))
            .collect();
        assert_eq!(named(&many, 4).len(), 4);
        assert!(named("v=0\r\n", 4).is_empty());
    }

    #[test]
    fn too_many_are_refused_whatever_they_are() {
        let line = "a=candidate:garbage\r\n";
        assert_eq!(candidates(&line.repeat(30), 30), Some((30, Vec::new())));
        assert_eq!(candidates(&line.repeat(31), 30), None);
    }
}
