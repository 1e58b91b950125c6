// SPDX-License-Identifier: MPL-2.0

//! Where a push goes. The stream key is part of the address, so that nothing shows more of it than the service's name.

use std::fmt;

use glib::prelude::*;

/// The longest one. Services' keys have some hundred octets.
const LONGEST: usize = 2_048;
/// What a service says of a failure is kept up to here.
const REASON: usize = 300;
/// Shorter parts of an address are words, such as `live`.
const SECRET: usize = 5;

/// See the module's description.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    whole: String,
    /// The service, as `rtmps://live.example:443`.
    service: String,
    /// What may be repeated nowhere, the longest first.
    secrets: Vec<String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)
    }
}

impl Address {
    /// `rtmp://HOST[:PORT]/APPLICATION/KEY`, or `rtmps`. The error is a sentence without any of it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "url is where the push goes: rtmp://HOST/APPLICATION/KEY or rtmps://HOST/APPLICATION/KEY";
        if text.len() > LONGEST {
            return Err("url is longer than 2,048 octets");
        }
        let is_shown = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '<' | '>');
        if !text.chars().all(is_shown) {
            return Err("url has characters that no address has; write them percent-encoded");
        }
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "rtmp" | "rtmps") {
            return Err(FORM);
        }
        let (authority, path) = rest.split_once('/').ok_or(FORM)?;
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (user, host),
            None => ("", authority),
        };
        let (application, key) = path.split_once('/').ok_or(FORM)?;
        if !is_host(host) || application.is_empty() || key.is_empty() {
            return Err(FORM);
        }
        let address = Self {
            whole: text.to_owned(),
            service: format!("{scheme}://{host}"),
            secrets: secrets(user, path),
        };
        let sink = gst::ElementFactory::make("rtmp2sink").build();
        let sink = sink.map_err(|_| "rtmp2sink is missing: install gstreamer1.0-plugins-bad")?;
        if address.give_to(&sink) {
            Ok(address)
        } else {
            Err(FORM)
        }
    }

    /// Tells a sink. Its own error would repeat the address.
    pub(super) fn give_to(&self, sink: &gst::Element) -> bool {
        let handler = sink.dynamic_cast_ref::<gst::URIHandler>();
        handler.is_some_and(|handler| {
            gst::prelude::URIHandlerExt::set_uri(handler, &self.whole).is_ok()
        })
    }

    /// What may be shown of it.
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    /// What a service or an element says, without anything that is secret, and short.
    pub(super) fn without_secrets(&self, said: &str) -> String {
        let mut said = said.to_owned();
        for secret in &self.secrets {
            said = said.replace(secret, "…");
        }
        said.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(REASON)
            .collect()
    }
}

/// A name or an address with or without a port. GStreamer's parser takes what is none for the host `localhost`.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) => (name, port),
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    let has_port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    !name.is_empty() && name.chars().all(is_part) && has_port
}

/// Whatever in it may be a key, as it is written and as it is meant.
fn secrets(user: &str, path: &str) -> Vec<String> {
    let separators = ['/', '?', '&', '=', ';', ':'];
    let segments = path.split('/').skip(1);
    let parts = path.split(separators).skip(1).chain(user.split(':'));
    let all = segments.chain(parts).chain([path, user]);
    let mut all: Vec<String> = all.map(str::to_owned).collect();
    let decoded = all.iter().filter_map(|part| {
        let decoded = glib::Uri::unescape_string(part, None)?;
        Some(decoded.to_string())
    });
    let decoded: Vec<_> = decoded.collect();
    all.extend(decoded);
    all.retain(|part| part.len() >= SECRET);
    all.sort_by_key(|part| std::cmp::Reverse(part.len()));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_services_are_taken_and_others_are_refused_without_being_repeated() {
        gst::init().unwrap();
        for (given, service) in [
            (
                "rtmp://a.rtmp.youtube.com/live2/abcd-efgh-1234",
                Some("rtmp://a.rtmp.youtube.com"),
            ),
            (
                "rtmps://live-api-s.facebook.com:443/rtmp/FB-1?s_bl=1&a=Ab%2Fc",
                Some("rtmps://live-api-s.facebook.com:443"),
            ),
            (
                "RTMP://[::1]:1935/live/key-of-five",
                Some("rtmp://[::1]:1935"),
            ),
            (
                "rtmp://ann:pass-word@h.example/app/instance/key",
                Some("rtmp://h.example"),
            ),
            (
                "rtmp://h.example/app/?key-in-a-query",
                Some("rtmp://h.example"),
            ),
            ("http://h.example/app/key-word", None),
            ("rtmpt://h.example/app/key-word", None),
            ("rtmp://h.example/key-word", None),
            ("rtmp://h.example//key-word", None),
            ("rtmp://h.example/app/", None),
            ("rtmp:///app/key-word", None),
            ("rtmp://h.example:0/app/key-word", None),
            ("rtmp://h.example:port/app/key-word", None),
            ("rtmp://h.example:99999/app/key-word", None),
            ("rtmp://[::1/app/key-word", None),
            ("rtmp://h ost/app/key-word", None),
            ("rtmp://host/app/key-word live=1", None),
            ("rtmp://host/app/key-word\" ! filesink location=\"x", None),
            ("rtmp://host/app/key-word\u{0}", None),
            ("rtmp://höst/app/key-word", None),
            ("file:///etc/passwd/key-word", None),
            ("", None),
        ] {
            let address = Address::parse(given);
            let told = address.as_ref().map(Address::service);
            assert_eq!(told.ok(), service, "{given:?}");
            match &address {
                Ok(address) => assert_eq!(format!("{address:?}"), address.service),
                Err(said) => assert!(!said.contains("key-word"), "{said}"),
            }
        }
        assert!(Address::parse(&format!("rtmp://h/app/{}", "k".repeat(LONGEST))).is_err());
    }

    #[test]
    fn no_part_of_a_key_is_repeated() {
        gst::init().unwrap();
        let address = "rtmp://ann:pass-word@h.example/app/inst-7/key%2Done?token=tok-en-2&x=1";
        let address = Address::parse(address).unwrap();
        let secrets = ["pass-word", "inst-7", "key%2Done", "key-one", "tok-en-2"];
        for secret in secrets {
            for said in [
                format!("publish of '{secret}' was refused"),
                format!("/app/inst-7/key%2Done?token=tok-en-2&x=1 {secret}"),
                secret.repeat(3),
            ] {
                let told = address.without_secrets(&said);
                for secret in secrets {
                    assert!(!told.contains(secret), "{said}: {told}");
                }
            }
        }
        assert_eq!(
            address.without_secrets("Connection\nrefused"),
            "Connection refused"
        );
        assert_eq!(
            address.without_secrets(&"ü".repeat(1_000)).chars().count(),
            REASON
        );
    }
}
