// SPDX-License-Identifier: MPL-2.0

//! What a request shows: `Authorization: Bearer` (RFC 6750) or `Basic` (RFC 7617), or `?token=`.

use std::collections::HashMap;

use axum::extract::Query;
use axum::http::{HeaderMap, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sfu_access::Credential;

/// As it came.
#[derive(Default)]
pub(super) struct Shown {
    header: Option<Header>,
    /// `?token=`
    pub(super) token: Option<String>,
}

enum Header {
    Bearer(String),
    Basic(String, String),
}

impl Shown {
    pub(super) fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        Self {
            header: header(headers),
            token: token(uri),
        }
    }

    /// The one in the address first: a proxy before us may add its own.
    pub(super) fn credential(&self) -> Option<Credential<'_>> {
        let token = self.token.as_deref().map(Credential::Bearer);
        token.or(self.header.as_ref().map(|header| match header {
            Header::Bearer(token) => Credential::Bearer(token),
            Header::Basic(user, password) => Credential::Basic { user, password },
        }))
    }
}

fn header(headers: &HeaderMap) -> Option<Header> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let line = lines.next()?.to_str().ok()?;
    if lines.next().is_some() {
        return None;
    }
    let (scheme, value) = line.trim().split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return (!value.is_empty()).then(|| Header::Bearer(value.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Header::Basic(user.to_owned(), password.to_owned()))
}

fn token(uri: &Uri) -> Option<String> {
    uri.query().filter(|query| query.contains("token="))?;
    let Query(mut query) = Query::<HashMap<String, String>>::try_from_uri(uri).ok()?;
    query.remove("token").filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn latin1(text: &str) -> Vec<u8> {
        text.chars().map(|c| c as u8).collect()
    }

    fn shown(lines: &[&str], uri: &str) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::AUTHORIZATION, latin1(line).try_into().unwrap());
        }
        let shown = Shown::of(&headers, &uri.parse().unwrap());
        match shown.credential() {
            None => "-".to_owned(),
            Some(Credential::Bearer(token)) => format!("B {token}"),
            Some(Credential::Basic { user, password }) => format!("U {user} {password}"),
            Some(Credential::Digest(_)) => unreachable!("HTTP has none"),
        }
    }

    #[test]
    fn credentials_are_read_as_the_rfcs_say() {
        for (lines, uri, expected) in [
            (&[][..], "/", "-"),
            (&["Bearer abc"][..], "/", "B abc"),
            (&["bearer  abc "], "/", "B abc"),
            (&["Bearer"], "/", "-"),
            (&["Bearer "], "/", "-"),
            (&["abc"], "/", "-"),
            (&["Digest abc"], "/", "-"),
            (&["Basic YW5uOnNlY3JldA=="], "/", "U ann secret"),
            (&["basic YW5uOmE6Yg=="], "/", "U ann a:b"),
            (&["Basic YW5u"], "/", "-"),
            (&["Basic !"], "/", "-"),
            (&["Basic //79"], "/", "-"),
            (&["Bearer ÿ"], "/", "-"),
            // Which of them would it be?
            (&["Bearer a", "Bearer b"], "/", "-"),
            (&[], "/?token=abc", "B abc"),
            (&[], "/?x=1&token=a%2Bb%20c", "B a+b c"),
            (&[], "/?token=", "-"),
            (&[], "/?mytoken=abc", "-"),
            (&["Basic YW5uOnNlY3JldA=="], "/?token=abc", "B abc"),
            (&["Bearer abc"], "/?token=", "B abc"),
        ] {
            assert_eq!(shown(lines, uri), expected, "{lines:?} {uri}");
        }
    }

    #[test]
    fn fuzz_credentials() {
        let samples = [
            "Bearer abc\n/?token=abc",
            "Basic YW5uOnNlY3JldA==\n/whep/a?x=1&token=a%2Bb%20c",
            "Digest username=\"a\", uri=\"/\"\n/",
        ];
        sfu_fuzz::fuzz("credentials", &samples, |data| {
            let (line, uri) = data.split_at(data.iter().position(|c| *c == b'\n').unwrap_or(0));
            let uri = String::from_utf8_lossy(uri);
            let (Ok(line), Ok(uri)) = (line.try_into(), uri.trim().parse::<Uri>()) else {
                return;
            };
            let mut headers = HeaderMap::new();
            headers.append(header::AUTHORIZATION, line);
            let _ = Shown::of(&headers, &uri).credential();
        });
    }

    proptest! {
        #[test]
        fn no_text_panics(line in "[ -~]{0,80}", query in "[!-~&&[^#<>\"`]]{0,80}") {
            if let Ok(uri) = format!("/?{query}").parse::<Uri>() {
                let mut headers = HeaderMap::new();
                headers.append(header::AUTHORIZATION, line.parse().unwrap());
                let _ = Shown::of(&headers, &uri).credential();
            }
        }
    }
}
