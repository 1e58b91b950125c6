// SPDX-License-Identifier: MPL-2.0

//! Other servers that are asked by HTTP: who decides (webhooks), whose keys sign tokens (JWKS), and who wants to know of events. By HTTPS, or on this
//! machine; in their time, without being led elsewhere, and with answers up to a size.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::tls::{RootCerts, TlsConfig};

/// From the name's look-up to the end of the answer.
pub(crate) const TIME: Duration = Duration::from_secs(3);
/// An identity provider's keys have some KiB.
const ANSWER_MAX: u64 = 256 * 1024;
/// Who asks for more connections opens them anew.
const KEPT: usize = 8;

/// Where such a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address(pub(crate) String);

impl Address {
    /// Whether the word of a rule is one, and not a file.
    pub(crate) fn is_one(word: &str) -> bool {
        word.starts_with("http://") || word.starts_with("https://")
    }

    /// For the log: what its query has may be a key.
    pub(crate) fn shown(&self) -> &str {
        self.0.split(['?', '#']).next().unwrap_or_default()
    }

    pub(crate) fn new(word: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("{word:?}: {what}"));
        let Ok(uri) = word.parse::<ureq::http::Uri>() else {
            return wrong("it is no address such as https://auth.example.org/sfu");
        };
        let host = uri.host().unwrap_or_default();
        let local = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let is_local = host == "localhost" || local.is_ok_and(|address| address.is_loopback());
        match uri.scheme_str() {
            _ if host.is_empty() || word.contains('@') => wrong("it needs a host, and no password"),
            Some("https") => Ok(Self(word.to_owned())),
            Some("http") if is_local => Ok(Self(word.to_owned())),
            _ => wrong(
                "what passes there must not be read by others: https://, or http:// on this machine",
            ),
        }
    }
}

/// Who asks other servers. It waits, so not on a thread that others need.
#[derive(Debug, Clone)]
pub struct Client(Agent);

impl Client {
    /// Each question may take so long, from the name's look-up to the end of the answer.
    pub fn new(time: Duration) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            // Those of the system.
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(time))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_idle_connections(KEPT)
            .max_response_header_size(16 * 1024)
            .proxy(None)
            .user_agent(concat!("gst-sfu/", env!("CARGO_PKG_VERSION")))
            .build();
        Self(config.new_agent())
    }

    /// What is there.
    pub(crate) fn get(&self, address: &Address) -> Result<Vec<u8>, String> {
        let called = self.0.get(&address.0).call();
        let mut response = called.map_err(told)?;
        if response.status() != 200 {
            return Err(format!("it answers {}", response.status()));
        }
        let mut octets = Vec::new();
        let body = response.body_mut().as_reader();
        let mut body = body.take(ANSWER_MAX + 1);
        body.read_to_end(&mut octets).map_err(|e| e.to_string())?;
        match octets.len() as u64 > ANSWER_MAX {
            true => Err("it answers with more than 256 KiB".into()),
            false => Ok(octets),
        }
    }

    /// The status of the answer to that body, of which nothing more is read. What is wrong is told without the address,
    /// which may hold a key.
    pub fn post(&self, url: &str, fields: &[(&str, &str)], body: &str) -> Result<u16, String> {
        let mut request = self.0.post(url);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.send(body).map_err(told)?;
        Ok(response.status().as_u16())
    }
}

/// Without the address.
fn told(error: ureq::Error) -> String {
    match error {
        ureq::Error::BadUri(_) => "its address is none".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_where_nobody_reads_along() {
        for good in [
            "https://auth.example.org/sfu",
            "https://192.0.2.1:8443/x?y=1",
            "http://localhost:3000/auth",
            "http://127.0.0.1/",
            "http://[::1]:3000/",
        ] {
            assert!(Address::new(good).is_ok(), "{good}");
            assert!(Address::is_one(good));
        }
        for wrong in [
            "http://auth.example.org/",
            "http://192.0.2.1/",
            "http://localhost.example.org/",
            "https://",
            "https://a b/",
            "https://user:password@auth.example.org/",
            "ftp://auth.example.org/",
        ] {
            assert!(Address::new(wrong).is_err(), "{wrong}");
        }
        assert!(!Address::is_one("keys.json"));
        for query in ["", "?key=hidden", "#hidden", "?a#hidden"] {
            let address = Address::new(&format!("https://auth.example.org:8443/a/b{query}"));
            let shown = address.unwrap().shown().to_owned();
            assert_eq!(shown, "https://auth.example.org:8443/a/b");
        }
    }
}
