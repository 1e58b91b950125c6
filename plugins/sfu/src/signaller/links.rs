// SPDX-License-Identifier: MPL-2.0

//! `Link` headers: ICE servers (RFC 9725, section 4.6) and the extensions of a viewer's session (WHEP core extensions).

use axum::http::{HeaderMap, HeaderValue, header};
use sfu_engine::SessionId;

use super::turn::IceServer;

/// Those of the property `ice-servers`, or what is wrong with it.
pub(super) fn ice_servers(list: &str) -> Result<Vec<IceServer>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(|server| {
            ice_server(server).ok_or_else(|| {
                format!(
                    "ice-servers: {server:?} is none: write stun:HOST[:PORT] or turn:USER:PASSWORD@HOST[:PORT]"
                )
            })
        })
        .collect()
}

fn ice_server(server: &str) -> Option<IceServer> {
    let (scheme, rest) = server.split_once(':')?;
    let plain = |text: &str| {
        let allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\".contains(c);
        !text.is_empty() && text.chars().all(allowed)
    };
    match (scheme, rest.rsplit_once('@')) {
        ("stun" | "stuns", None) if plain(rest) => Some(IceServer {
            url: format!("{scheme}:{rest}"),
            user: String::new(),
            credential: String::new(),
        }),
        ("turn" | "turns", Some((credentials, address))) if plain(address) => {
            let (user, password) = credentials.split_once(':')?;
            if !plain(user) || !plain(password) {
                return None;
            }
            Some(IceServer {
                url: format!("{scheme}:{address}"),
                user: user.to_owned(),
                credential: password.to_owned(),
            })
        }
        _ => None,
    }
}

/// The `Link` header of one.
pub(super) fn of(server: &IceServer) -> Option<HeaderValue> {
    let IceServer {
        url,
        user,
        credential,
    } = server;
    let link = match user.is_empty() {
        true => format!("<{url}>; rel=\"ice-server\""),
        false => format!(
            "<{url}>; rel=\"ice-server\"; username=\"{user}\"; credential=\"{credential}\"; \
             credential-type=\"password\""
        ),
    };
    HeaderValue::try_from(link).ok()
}

/// Where a viewer's session takes its wishes and tells its events.
pub(super) fn extensions(headers: &mut HeaderMap, session: SessionId) {
    for (path, name, more) in [
        (
            "sse",
            "server-sent-events",
            "; events=\"active,inactive,layers,reconnect,viewercount\"",
        ),
        ("layer", "layer", ""),
    ] {
        let link = format!(
            "</session/{session}/{path}>; rel=\"urn:ietf:params:whep:ext:core:{name}\"{more}"
        );
        if let Ok(value) = HeaderValue::try_from(link) {
            headers.append(header::LINK, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ice_servers_become_links() {
        let links =
            ice_servers("stun:a.example:3478, turn:me:s3cret@b.example?transport=tcp,").unwrap();
        let links: Vec<_> = links.iter().map(|l| of(l).unwrap()).collect();
        assert_eq!(
            links,
            [
                "<stun:a.example:3478>; rel=\"ice-server\"",
                "<turn:b.example?transport=tcp>; rel=\"ice-server\"; username=\"me\"; credential=\"s3cret\"; \
                 credential-type=\"password\"",
            ]
        );
        for wrong in [
            "a.example",
            "http:a",
            "turn:b.example",
            "stun:a\"b",
            "turn:u@h",
            "stun:",
        ] {
            assert!(
                ice_servers(wrong).unwrap_err().contains("stun:HOST"),
                "{wrong}"
            );
        }
    }
}
