// SPDX-License-Identifier: MPL-2.0

//! From which pages browsers may ask (Fetch standard, CORS): `Origin` is what a browser says of the page, and no page can
//! change it.

use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::names::{Host, only};
use crate::signaller::connections::Connection;

/// All that clients are known to send, and with a star what else there is.
const ALLOW_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, If-Match, If-None-Match, If-Modified-Since, Range, If-Range, Last-Event-ID, traceparent, \
     tracestate, baggage, *",
);
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static(
    "Location, ETag, Link, Accept-Patch, Accept-Post, Retry-After, WWW-Authenticate, Content-Length, Content-Range",
);
const DAY: HeaderValue = HeaderValue::from_static("86400");
const STAR: HeaderValue = HeaderValue::from_static("*");

/// Those of the property `allowed-origins`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    any: bool,
    /// In lower case, as browsers write them.
    named: Vec<String>,
}

/// Who may be asked by pages of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// All pages, unless `allowed-origins` says which: playing, and what needs a secret address.
    All,
    /// Ours, and those of `allowed-origins`.
    Ours,
}

/// Which page asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// None, or no browser; or one of ours.
    Ours,
    /// One that `allowed-origins` names.
    Named,
    /// Any other.
    Foreign,
}

impl Origins {
    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let mut origins = Self::default();
        for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            if part == "*" {
                origins.any = true;
                continue;
            }
            let name = part.trim_end_matches('/').to_ascii_lowercase();
            let host = name.split_once("://").and_then(|(scheme, host)| {
                let known = matches!(scheme, "http" | "https");
                known.then(|| Host::read(host))?
            });
            if host.is_none() {
                return Err(format!(
                    "allowed-origins: {part:?} is no origin such as https://www.example.org, and not *"
                ));
            }
            origins.named.push(name);
        }
        Ok(origins)
    }

    /// The page that a request comes from. `host` is what it calls us.
    pub(super) fn page(&self, parts: &Parts, host: Option<&Host>) -> Page {
        let headers = &parts.headers;
        if headers.contains_key(header::ORIGIN) {
            let origin = only(headers, &header::ORIGIN);
            let origin = origin.map(str::to_ascii_lowercase);
            // What was read by plain HTTP may be anybody's on the way.
            let has_tls = parts.extensions.get::<Arc<Connection>>();
            let has_tls = has_tls.is_some_and(|connection| connection.has_tls());
            return match origin {
                Some(origin)
                    if is_same(&origin, host) && !(has_tls && origin.starts_with("http:")) =>
                {
                    Page::Ours
                }
                Some(origin) if self.named.contains(&origin) => Page::Named,
                _ => Page::Foreign,
            };
        }
        // Without an Origin browsers still say whether another site's page asks; links and typed addresses may lead here.
        const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
        const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
        let navigates = parts.method == Method::GET && only(headers, &MODE) == Some("navigate");
        match headers.contains_key(&SITE) {
            true if !matches!(only(headers, &SITE), Some("same-origin" | "none")) && !navigates => {
                Page::Foreign
            }
            _ => Page::Ours,
        }
    }

    /// Whether that page may ask for this.
    pub(super) fn allow(&self, page: Page, share: Share) -> bool {
        match page {
            Page::Ours | Page::Named => true,
            Page::Foreign => self.any || (share == Share::All && self.named.is_empty()),
        }
    }

    /// Tells the browser so.
    pub(super) fn mark(
        &self,
        headers: &mut HeaderMap,
        page: Page,
        share: Share,
        origin: Option<HeaderValue>,
    ) {
        if !self.named.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if page == Page::Named
            && let Some(origin) = origin
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                HeaderValue::from_static("true"),
            );
        } else if self.allow(Page::Foreign, share) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, STAR);
        } else {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
    }

    /// What a browser that asks first is told besides (preflight). A star is no star for who sends cookies, so what he
    /// asks for is repeated.
    pub(super) fn preflight(
        headers: &mut HeaderMap,
        methods: &'static str,
        asked: Option<HeaderValue>,
        page: Page,
    ) {
        let fields = match asked {
            Some(asked) if page == Page::Named => asked,
            _ => ALLOW_HEADERS,
        };
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(methods),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, DAY);
    }

    /// Who may frame pages (`frame-ancestors` of Content-Security-Policy): those that only play anyone, as a video is
    /// put into a page.
    pub(super) fn ancestors(&self, share: Share) -> String {
        if self.allow(Page::Foreign, share) {
            return "*".to_owned();
        }
        let named = self.named.iter().map(|name| format!(" {name}"));
        format!("'self'{}", named.collect::<String>())
    }
}

/// Whether a page of that origin came from us. A proxy may have taken TLS off: the scheme only tells the port.
fn is_same(origin: &str, host: Option<&Host>) -> bool {
    let (Some((scheme, name)), Some(host)) = (origin.split_once("://"), host) else {
        return false;
    };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    Host::read(name).is_some_and(|of_page| {
        of_page.name == host.name && of_page.port.unwrap_or(default) == host.port.unwrap_or(default)
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn page(list: &str, host: &str, lines: &[(&str, &str)]) -> Page {
        let mut request = Request::builder().method("POST").uri("/whip/a");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Origins::parse(list)
            .unwrap()
            .page(&parts, Host::read(host).as_ref())
    }

    #[test]
    fn pages_are_told_apart_by_their_origin() {
        let (o, s, m) = ("origin", "sec-fetch-site", "sec-fetch-mode");
        let list = "https://a.example, http://b.example:81/";
        for (host, lines, expected) in [
            ("sfu:8080", &[][..], Page::Ours),
            ("sfu:8080", &[(o, "http://sfu:8080")], Page::Ours),
            ("SFU:8080", &[(o, "http://sfu:8080")], Page::Ours),
            ("sfu", &[(o, "http://sfu")], Page::Ours),
            ("sfu", &[(o, "https://sfu")], Page::Ours),
            ("sfu:443", &[(o, "https://sfu")], Page::Ours),
            ("sfu:80", &[(o, "https://sfu")], Page::Foreign),
            ("sfu:8080", &[(o, "http://sfu:8081")], Page::Foreign),
            ("sfu:8080", &[(o, "http://sfu")], Page::Foreign),
            ("sfu:8080", &[(o, "http://evil.example")], Page::Foreign),
            ("sfu:8080", &[(o, "null")], Page::Foreign),
            ("sfu:8080", &[(o, "")], Page::Foreign),
            ("sfu:8080", &[(o, "file://")], Page::Foreign),
            (
                "sfu:8080",
                &[(o, "http://sfu:8080.evil.example")],
                Page::Foreign,
            ),
            (
                "sfu:8080",
                &[(o, "http://sfu:8080@evil.example")],
                Page::Foreign,
            ),
            ("sfu:8080", &[(o, "ftp://sfu:8080")], Page::Foreign),
            (
                "sfu:8080",
                &[(o, "http://sfu:8080"), (o, "http://evil.example")],
                Page::Foreign,
            ),
            ("sfu:8080", &[(o, "https://a.example")], Page::Named),
            ("sfu:8080", &[(o, "https://A.example")], Page::Named),
            ("sfu:8080", &[(o, "http://b.example:81")], Page::Named),
            ("sfu:8080", &[(o, "http://a.example")], Page::Foreign),
            ("", &[(o, "http://sfu")], Page::Foreign),
            ("sfu:8080", &[(s, "same-origin")], Page::Ours),
            ("sfu:8080", &[(s, "none")], Page::Ours),
            ("sfu:8080", &[(s, "cross-site")], Page::Foreign),
            ("sfu:8080", &[(s, "same-site")], Page::Foreign),
            ("sfu:8080", &[(s, "")], Page::Foreign),
            // Only links lead here from elsewhere, and they are GETs.
            (
                "sfu:8080",
                &[(s, "cross-site"), (m, "navigate")],
                Page::Foreign,
            ),
        ] {
            assert_eq!(page(list, host, lines), expected, "{host} {lines:?}");
        }
    }

    #[test]
    fn lists_are_checked() {
        for wrong in [
            "a.example",
            "https://",
            "https://a/b",
            "javascript:x",
            "https://a b",
            "null",
        ] {
            let error = Origins::parse(wrong).unwrap_err();
            assert!(error.contains("allowed-origins"), "{error}");
        }
        for (list, share, ancestors) in [
            ("", Share::All, "*"),
            ("", Share::Ours, "'self'"),
            ("*", Share::Ours, "*"),
            ("https://a.example", Share::All, "'self' https://a.example"),
            ("https://a.example", Share::Ours, "'self' https://a.example"),
        ] {
            assert_eq!(
                Origins::parse(list).unwrap().ancestors(share),
                ancestors,
                "{list}"
            );
        }
    }
}
