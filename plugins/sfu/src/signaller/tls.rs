// SPDX-License-Identifier: MPL-2.0

//! TLS on the HTTP port: handshakes, certificates that are read again, and plain HTTP that is led to HTTPS.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sfu_tls::Certificates;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::CAT;
use super::acme::CHALLENGES;
use super::connections::Connection;
use super::door::Host;
use super::http::{self, Watched};
use super::server::{App, Refusal};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first octet of a TLS record with a handshake (RFC 8446, section 5.1), which no HTTP request begins with.
const HANDSHAKE: u8 = 22;
const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// See the module's description.
pub(super) struct Tls {
    certificates: Arc<Certificates>,
    acceptor: TlsAcceptor,
    ports: Ports,
}

/// Where it is spoken, and where plain HTTP alone is.
#[derive(Debug, Clone, Copy)]
struct Ports {
    tls: u16,
    plain: Option<u16>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.certificates)
    }
}

impl Tls {
    pub(super) fn new(
        certificates: Arc<Certificates>,
        listener: &TcpListener,
        plain: Option<&TcpListener>,
    ) -> Result<Arc<Self>, String> {
        let server = certificates.server(&[b"h2", b"http/1.1"]);
        let port = |of: &TcpListener| of.local_addr().map_err(|e| e.to_string());
        Ok(Arc::new(Self {
            acceptor: server.map_err(|e| e.to_string())?.into(),
            certificates,
            ports: Ports {
                tls: port(listener)?.port(),
                plain: plain.map(port).transpose()?.map(|a| a.port()),
            },
        }))
    }

    pub(super) async fn accept(&self, io: Watched) -> io::Result<TlsStream<Watched>> {
        self.acceptor.accept(io).await
    }

    /// Reads the files again when they change, until the server stops.
    pub(super) async fn watch(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = http::stopped(&mut stopping) => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let certificates = self.certificates.clone();
            let look = move || match certificates.refresh() {
                Some(Ok(())) => gst::info!(CAT, "the certificate was read again"),
                Some(Err(error)) => gst::warning!(CAT, "the certificate stays as it is: {error}"),
                None => {}
            };
            let _ = tokio::task::spawn_blocking(look).await;
        }
    }
}

impl Ports {
    /// Where who came by plain HTTP finds us. A name without a port, or with another one than ours, was led here by
    /// somebody who maps ports: then HTTPS has its own.
    fn of(self, host: &Host) -> u16 {
        let came_to = host.port.unwrap_or(HTTP);
        match self.plain {
            // Straight to the port beside.
            Some(plain) if plain == came_to => self.tls,
            // Plain HTTP on the port of HTTPS.
            _ => host.port.unwrap_or(HTTPS),
        }
    }

    fn location(self, host: &Host, path: &str) -> String {
        let name = match host.name.contains(':') {
            true => format!("[{}]", host.name),
            false => host.name.clone(),
        };
        match self.of(host) {
            HTTPS => format!("https://{name}{path}"),
            port => format!("https://{name}:{port}{path}"),
        }
    }
}

/// Whether it begins as TLS does. Waits for the first octet, as long as the connection may.
pub(super) async fn is_handshake(stream: &TcpStream) -> bool {
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0] == HANDSHAKE
}

/// Where there is TLS, plain HTTP is for this machine and for proxies that have taken TLS off; all others are led to HTTPS.
pub(super) async fn lead(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(tls) = &app.tls else {
        return next.run(request).await;
    };
    let (parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Arc<Connection>>();
    let peer = connection.map(|c| c.peer().ip().to_canonical());
    let by_proxy = peer.is_some_and(|peer| app.proxies.trusts(peer));
    let host = Host::of(&parts, by_proxy);
    let is_local =
        peer.is_some_and(|p| p.is_loopback()) && host.as_ref().is_some_and(Host::is_local);
    let stays = connection.is_some_and(|c| c.has_tls())
        || by_proxy
        || is_local
        // Browsers that ask first follow nobody, and who calls us what we are not is told so.
        || parts.method == Method::OPTIONS
        // An ACME server asks whether we are who the certificate is to be for.
        || parts.uri.path().starts_with(CHALLENGES)
        || !app.door.is_called(host.as_ref());
    if stays {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let location = host.map(|host| tls.ports.location(&host, path));
    let Some(location) = location.and_then(|l| HeaderValue::try_from(l).ok()) else {
        let message = "this server is asked by HTTPS";
        return Refusal::new(StatusCode::UPGRADE_REQUIRED, message).into_response();
    };
    // RFC 9110, section 15.4.9: the method and the body stay what they are, so that WHIP and WHEP follow.
    let mut response = StatusCode::PERMANENT_REDIRECT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_led_to_where_https_is() {
        for (tls, plain, host, location) in [
            (443, Some(80), "a.example", "https://a.example/x?y=1"),
            (443, Some(80), "a.example:80", "https://a.example/x?y=1"),
            (8443, Some(80), "a.example", "https://a.example:8443/x?y=1"),
            (
                8443,
                Some(8080),
                "a.example:8080",
                "https://a.example:8443/x?y=1",
            ),
            (8443, Some(8080), "a.example", "https://a.example/x?y=1"),
            (8443, None, "a.example:8443", "https://a.example:8443/x?y=1"),
            (
                8443,
                Some(80),
                "a.example:8443",
                "https://a.example:8443/x?y=1",
            ),
            (8443, None, "a.example", "https://a.example/x?y=1"),
            (
                8443,
                None,
                "[2001:db8::1]:8443",
                "https://[2001:db8::1]:8443/x?y=1",
            ),
            (
                443,
                Some(80),
                "[2001:db8::1]",
                "https://[2001:db8::1]/x?y=1",
            ),
        ] {
            let host = Host::read(host).unwrap();
            let ports = Ports { tls, plain };
            assert_eq!(
                ports.location(&host, "/x?y=1"),
                location,
                "{ports:?} {host:?}"
            );
        }
    }
}
