// SPDX-License-Identifier: MPL-2.0

//! Whose request it is, where proxies in front are trusted to say so: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

use super::connections::Connection;
use super::server::App;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of who asks, as far as that can be known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) Option<IpAddr>);

impl FromRequestParts<App> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        let connection = parts.extensions.get::<Arc<Connection>>();
        let peer = connection.map(|c| c.peer().ip());
        Ok(Self(peer.map(|p| app.proxies.client(p, &parts.headers))))
    }
}

/// The networks of the proxies that are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// From the property `trusted-proxies`: networks and addresses, separated by commas.
    pub(super) fn parse(list: &str) -> Result<Self, String> {
        let parts = list.split(',').map(str::trim).filter(|p| !p.is_empty());
        let networks = parts.map(|part| {
            sfu_access::network(part).ok_or_else(|| {
                format!(
                    "trusted-proxies: {part:?} is neither an address nor a network, such as 192.0.2.7, 10.0.0.0/8 or fd00::/8"
                )
            })
        });
        networks.collect::<Result<_, _>>().map(Self)
    }

    /// Whether this is a proxy's address.
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The last address on the way here that is no proxy's. Only what a trusted proxy added is believed; where that can't
    /// be read it is the proxy's own.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let has = |name| headers.contains_key(name);
        let forwarded = || self.last_untrusted(peer, hops(headers, header::FORWARDED, forwarded));
        let x_forwarded = || self.last_untrusted(peer, hops(headers, X_FORWARDED_FOR, listed));
        match (has(header::FORWARDED), has(X_FORWARDED_FOR)) {
            (false, false) => peer,
            (true, false) => forwarded(),
            (false, true) => x_forwarded(),
            (true, true) => {
                // A proxy adds to one of them and passes the other on as the client sent it: which one, nobody knows.
                let (one, other) = (forwarded(), x_forwarded());
                if one == other { one } else { peer }
            }
        }
    }

    fn last_untrusted(&self, peer: IpAddr, hops: Vec<Option<IpAddr>>) -> IpAddr {
        let mut last = peer;
        for hop in hops.into_iter().rev() {
            match hop {
                Some(address) if self.trusts(last) => last = address,
                _ => break,
            }
        }
        last
    }
}

/// All that a header says of who was on the way, the client first. What can't be read is `None`.
fn hops(
    headers: &HeaderMap,
    name: HeaderName,
    read: fn(&str) -> Option<IpAddr>,
) -> Vec<Option<IpAddr>> {
    let mut hops = Vec::new();
    for line in headers.get_all(name) {
        match line.to_str() {
            Ok(line) => {
                let elements = unquoted(line, ',').map(str::trim);
                hops.extend(elements.filter(|e| !e.is_empty()).map(read));
            }
            Err(_) => hops.push(None),
        }
    }
    hops
}

/// An element of `Forwarded`: `for=192.0.2.43;proto=https`.
fn forwarded(element: &str) -> Option<IpAddr> {
    let mut found = None;
    for pair in unquoted(element, ';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") {
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            // Each parameter at most once in an element (RFC 7239, section 4).
            if found.replace(listed(bare.unwrap_or(value))?).is_some() {
                return None;
            }
        }
    }
    found
}

/// An address with or without brackets and port.
fn listed(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|a| a.ip());
    address.or_else(with_port).map(|a: IpAddr| a.to_canonical())
}

/// The parts between separators that are not in quotes.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if escaped {
            escaped = false;
            return false;
        }
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => escaped = true,
            _ => {}
        }
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(peer: &str, lines: &[(&str, &str)]) -> String {
        let proxies =
            TrustedProxies::parse("10.0.0.0/8, 192.0.2.7,2001:db8:f::/48,::ffff:172.16.0.0/108");
        let proxies = proxies.unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_last_untrusted_address_is_the_clients() {
        let (f, x) = ("forwarded", "x-forwarded-for");
        for (peer, lines, expected) in [
            // Nobody is believed who is not trusted.
            ("198.51.100.1", &[(x, "203.0.113.5")][..], "198.51.100.1"),
            ("198.51.100.1", &[(f, "for=203.0.113.5")], "198.51.100.1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &[(x, "203.0.113.5")], "203.0.113.5"),
            ("::ffff:10.1.2.3", &[(x, "203.0.113.5")], "203.0.113.5"),
            ("192.0.2.7", &[(x, "203.0.113.5")], "203.0.113.5"),
            ("172.17.0.1", &[(x, "203.0.113.5")], "203.0.113.5"),
            ("192.0.2.8", &[(x, "203.0.113.5")], "192.0.2.8"),
            // What the client itself claimed is further left.
            ("10.1.2.3", &[(x, "1.1.1.1, 203.0.113.5")], "203.0.113.5"),
            (
                "10.1.2.3",
                &[(x, "1.1.1.1, 203.0.113.5, 10.9.9.9")],
                "203.0.113.5",
            ),
            (
                "10.1.2.3",
                &[(x, "1.1.1.1"), (x, "203.0.113.5")],
                "203.0.113.5",
            ),
            ("10.1.2.3", &[(x, "203.0.113.5,,")], "203.0.113.5"),
            ("10.1.2.3", &[(x, "10.7.7.7, 10.9.9.9")], "10.7.7.7"),
            ("10.1.2.3", &[(x, "203.0.113.5:4711")], "203.0.113.5"),
            ("10.1.2.3", &[(x, "2001:db8::5")], "2001:db8::5"),
            ("2001:db8:f::1", &[(x, "[2001:db8::5]:80")], "2001:db8::5"),
            ("10.1.2.3", &[(x, "[2001:db8::5]")], "2001:db8::5"),
            ("10.1.2.3", &[(x, "::ffff:203.0.113.5")], "203.0.113.5"),
            // Garbage ends it at the last one who is believed.
            ("10.1.2.3", &[(x, "unknown")], "10.1.2.3"),
            (
                "10.1.2.3",
                &[(x, "203.0.113.5, what, 10.9.9.9")],
                "10.9.9.9",
            ),
            ("10.1.2.3", &[(x, "ä")], "10.1.2.3"),
            ("10.1.2.3", &[(x, "")], "10.1.2.3"),
            ("10.1.2.3", &[(x, "203.0.113.5"), (x, "\u{fc}")], "10.1.2.3"),
            ("10.1.2.3", &[(f, "for=203.0.113.5")], "203.0.113.5"),
            (
                "10.1.2.3",
                &[(f, "For=\"203.0.113.5:80\";proto=http;by=10.0.0.1")],
                "203.0.113.5",
            ),
            (
                "10.1.2.3",
                &[(f, "for=1.1.1.1, for=203.0.113.5;by=10.0.0.1, for=10.0.0.9")],
                "203.0.113.5",
            ),
            (
                "10.1.2.3",
                &[(f, "for=\"[2001:db8::5]:4711\"")],
                "2001:db8::5",
            ),
            (
                "10.1.2.3",
                &[(f, "proto=https;for=203.0.113.5")],
                "203.0.113.5",
            ),
            (
                "10.1.2.3",
                &[(f, "for=1.1.1.1;host=\"a,for=2.2.2.2;\", for=203.0.113.5")],
                "203.0.113.5",
            ),
            ("10.1.2.3", &[(f, "for=_hidden")], "10.1.2.3"),
            ("10.1.2.3", &[(f, "for=unknown, for=10.9.9.9")], "10.9.9.9"),
            ("10.1.2.3", &[(f, "proto=https")], "10.1.2.3"),
            ("10.1.2.3", &[(f, "for=1.1.1.1;for=2.2.2.2")], "10.1.2.3"),
            ("10.1.2.3", &[(f, "for=\"1.1.1.1")], "10.1.2.3"),
            ("10.1.2.3", &[(f, "for")], "10.1.2.3"),
            // One of the two may be the client's own.
            (
                "10.1.2.3",
                &[(f, "for=1.1.1.1"), (x, "203.0.113.5")],
                "10.1.2.3",
            ),
            (
                "10.1.2.3",
                &[(f, "for=203.0.113.5"), (x, "203.0.113.5")],
                "203.0.113.5",
            ),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in [
            "x",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "example.org",
            "10.0.0.1 10.0.0.2",
        ] {
            let error = TrustedProxies::parse(wrong).unwrap_err();
            assert!(error.contains("trusted-proxies"), "{error}");
        }
        assert_eq!(TrustedProxies::parse(" , "), Ok(TrustedProxies::default()));
    }

    #[test]
    fn fuzz_what_proxies_say() {
        let samples = [
            "f203.0.113.5, 10.0.0.1",
            "rfor=203.0.113.5;proto=https;by=10.0.0.1, for=\"[2001:db8::1]:80\"",
            "rfor=\"_hid\\\"den\";host=\"a,b;c\"",
        ];
        let proxies = TrustedProxies::parse("10.0.0.0/8").unwrap();
        let peer: IpAddr = "10.1.2.3".parse().unwrap();
        sfu_fuzz::fuzz("what proxies say", &samples, |data| {
            let Some((kind, line)) = data.split_first() else {
                return;
            };
            let name = if kind & 4 == 0 {
                "forwarded"
            } else {
                "x-forwarded-for"
            };
            if let Ok(line) = HeaderValue::from_bytes(line) {
                let mut headers = HeaderMap::new();
                headers.append(name, line);
                let _ = proxies.client(peer, &headers);
            }
        });
    }

    proptest! {
        /// Whatever a client sends in front of what its proxy adds, it is the proxy's word that counts.
        #[test]
        fn a_client_cannot_choose_its_address(claim in "[ -~]{0,60}", quoted in any::<bool>()) {
            let claim = if quoted { claim } else { claim.replace('"', "") };
            for (name, added) in [("x-forwarded-for", "203.0.113.5"), ("forwarded", "for=203.0.113.5")] {
                // Proxies add a line, or to the line, whose quotes must be closed then.
                let lines = [(name, claim.as_str()), (name, added)];
                prop_assert_eq!(client("10.1.2.3", &lines), "203.0.113.5");
                if !claim.contains('"') {
                    let line = format!("{claim}, {added}");
                    prop_assert_eq!(client("10.1.2.3", &[(name, &line)]), "203.0.113.5");
                }
            }
        }
    }
}
