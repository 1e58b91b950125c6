// SPDX-License-Identifier: MPL-2.0

//! What the server is called. A name that is none of ours is what a page uses that lets its own name lead to our address
//! (DNS rebinding): then the address of who asks says nothing, since the page is not his.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Version, header};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The names that we go by besides addresses and `localhost`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// The property `server-names`: all others are refused where there are some.
    given: Vec<String>,
    /// The machine's own, and those that are announced for media.
    known: Vec<String>,
}

/// What a request calls us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// In lower case, without port.
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
}

impl Names {
    pub(crate) fn new(given: &str, announced: &str) -> Result<Self, String> {
        let parts = |list: &str| -> Vec<String> {
            let parts = list.split(',').map(str::trim);
            let parts = parts.filter(|part| !part.is_empty());
            parts.map(str::to_ascii_lowercase).collect()
        };
        let given = parts(given);
        if let Some(wrong) = given
            .iter()
            .find(|name| Host::read(name).is_none_or(|h| h.name != **name))
        {
            return Err(format!(
                "server-names: {wrong:?} is no name such as sfu.example.org (without a port)"
            ));
        }
        let mut known: Vec<String> = parts(announced)
            .iter()
            .filter_map(|part| Some(Host::read(part)?.name))
            .collect();
        let machine = rustix::system::uname();
        if let Ok(machine) = machine.nodename().to_str() {
            let machine = machine.to_ascii_lowercase();
            known.push(format!("{machine}.local"));
            known.push(machine);
        }
        Ok(Self { given, known })
    }

    /// Whether this is us. An address always is: no page can make it lead elsewhere.
    pub(super) fn is_ours(&self, host: &Host) -> bool {
        let name = &host.name;
        host.is_local()
            || host.address().is_some()
            || self.given.contains(name)
            || self.known.contains(name)
    }

    /// Whether somebody who calls us so is answered at all.
    pub(super) fn is_answered(&self, host: Option<&Host>) -> bool {
        self.given.is_empty() || host.is_some_and(|host| self.is_ours(host))
    }
}

impl Host {
    /// The one that a request is for. `None` where it names none, or more than one.
    pub(crate) fn of(parts: &Parts, by_proxy: bool) -> Option<Self> {
        let only = |name: HeaderName| only(&parts.headers, &name);
        if by_proxy && let Some(forwarded) = only(X_FORWARDED_HOST) {
            // The last proxy's word.
            return Self::read(forwarded.rsplit(',').next()?.trim());
        }
        let authority = parts.uri.authority();
        let authority = authority.map(|authority| Self::read(authority.as_str()));
        // HTTP/2 has `:authority`, and both only from clumsy gateways (RFC 9113, section 8.3.1).
        if parts.version == Version::HTTP_2 && !parts.headers.contains_key(header::HOST) {
            return authority?;
        }
        let host = Self::read(only(header::HOST)?)?;
        match authority {
            Some(named) => named.filter(|named| *named == host),
            None => Some(host),
        }
    }

    /// What is wrong with a request's `Host` (RFC 9112, section 3.2): HTTP/1.1 has it, and nobody has it twice.
    pub(crate) fn fault(version: Version, headers: &HeaderMap) -> Option<&'static str> {
        let mut lines = headers.get_all(header::HOST).iter();
        let Some(line) = lines.next() else {
            let is_missing = version == Version::HTTP_11;
            return is_missing.then_some("this request has no Host, which HTTP/1.1 needs");
        };
        if lines.next().is_some() {
            return Some("this request has more than one Host");
        }
        // As RFC 3986, section 3.2.2, has them; an empty one is allowed.
        let may_be = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(b);
        let is_host = line.as_bytes().iter().all(may_be);
        (!is_host).then_some("the Host of this request is neither a name nor an address")
    }

    /// `NAME`, `NAME:PORT`, `[V6]:PORT`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                (
                    address,
                    rest.strip_prefix(':').or(rest.is_empty().then_some("")),
                )
            }
            None => match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, Some("")),
            },
        };
        let port = match port? {
            "" => None,
            port => Some(port.parse().ok().filter(|_| !port.starts_with('+'))?),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            return None;
        }
        // A name may end with a dot, which means the same.
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Some(Self { name, port })
    }

    fn address(&self) -> Option<IpAddr> {
        self.name.parse().ok()
    }

    /// Whether only this machine is called so.
    pub(crate) fn is_local(&self) -> bool {
        let is_loopback = |a: IpAddr| a.to_canonical().is_loopback();
        self.name == "localhost"
            || self.name.ends_with(".localhost")
            || self.address().is_some_and(is_loopback)
    }
}

/// A header's value, where it is there once and is text.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?.to_str().ok()?;
    lines.next().is_none().then_some(line)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        let names = Names::new("sfu.example.org", "media.example.org:9000, 192.0.2.7").unwrap();
        for (text, ours, local) in [
            ("localhost", true, true),
            ("LOCALHOST:8080", true, true),
            ("localhost.", true, true),
            ("a.localhost", true, true),
            ("127.0.0.1:8080", true, true),
            ("127.1.2.3", true, true),
            ("[::1]:8080", true, true),
            ("[::ffff:127.0.0.1]", true, true),
            ("192.0.2.1", true, false),
            ("[2001:db8::1]", true, false),
            ("sfu.example.org", true, false),
            ("SFU.example.org:443", true, false),
            ("media.example.org", true, false),
            ("evil.example.org", false, false),
            ("localhost.evil.example.org", false, false),
            ("evil-localhost", false, false),
            ("127.0.0.1.evil.example.org", false, false),
            ("127.0.0.1.nip.io", false, false),
            // Browsers read these as addresses before they send them; nobody else needs them.
            ("127.1", false, false),
            ("0x7f000001", false, false),
            ("2130706433", false, false),
        ] {
            let host = Host::read(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (names.is_ours(&host), host.is_local()),
                (ours, local),
                "{text}"
            );
            assert_eq!(names.is_answered(Some(&host)), ours, "{text}");
            assert!(Names::default().is_answered(Some(&host)), "{text}");
        }
        for wrong in [
            "", ":80", "a:b", "a:99999", "[::1", "[a]", "a b", "ä", "[::1]x", "a:+1", "a@b", "a/b",
        ] {
            assert_eq!(Host::read(wrong), None, "{wrong}");
        }
        for wrong in ["a:80", "a b", "http://a"] {
            assert!(Names::new(wrong, "").unwrap_err().contains("server-names"));
        }
        assert!(!names.is_answered(None));
    }

    #[test]
    fn http_1_1_has_one_host() {
        const OLD: Version = Version::HTTP_10;
        const NOW: Version = Version::HTTP_11;
        const H2: Version = Version::HTTP_2;
        for (version, lines, fault) in [
            (OLD, &[""; 0][..], None),
            (NOW, &[], Some("no Host")),
            // It has `:authority`.
            (H2, &[], None),
            (NOW, &[""], None),
            (NOW, &["localhost"], None),
            (NOW, &["sfu_1.example.org:8080"], None),
            (NOW, &["[2001:db8::1]:8080"], None),
            (OLD, &["a", "b"], Some("more than one")),
            (NOW, &["a", "b"], Some("more than one")),
            (NOW, &["a", "a"], Some("more than one")),
            (NOW, &["a", ""], Some("more than one")),
            (H2, &["a", "a"], Some("more than one")),
            (OLD, &["a b"], Some("neither")),
            (NOW, &["a b"], Some("neither")),
            (NOW, &["a, b"], Some("neither")),
            (NOW, &["a/b"], Some("neither")),
            (NOW, &["u@a"], Some("neither")),
            (NOW, &["ä"], Some("neither")),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
                headers.append(header::HOST, line);
            }
            let told = Host::fault(version, &headers);
            let as_expected = match (told, fault) {
                (Some(told), Some(fault)) => told.contains(fault),
                (told, fault) => told == fault,
            };
            assert!(as_expected, "{version:?} {lines:?}: {told:?}");
        }
    }

    #[test]
    fn fuzz_hosts() {
        let samples = [
            "localhost:8080",
            "[::ffff:127.0.0.1]:80",
            "sfu.example.org.",
            "127.1.2.3",
        ];
        let names = Names::new("sfu.example.org", "").unwrap();
        sfu_fuzz::fuzz("hosts", &samples, |data| {
            if let Some(host) = Host::read(&String::from_utf8_lossy(data)) {
                let _ = (host.is_local(), names.is_ours(&host));
            }
        });
    }
}
