// SPDX-License-Identifier: MPL-2.0

//! Signalling of a viewer, on a thread of its own: an offer goes to a WHEP endpoint, an answer and a session come back.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dtls::Certificate;
use crate::janus::{self, Janus};
use crate::joins::LEAVERS;
use crate::run::SIGNALLERS;
use crate::sdp::{self, Credentials, Remote};
use crate::viewer::Start;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Connections that are kept for the next request: as many as there are requests at a time.
const REQUESTS: usize = SIGNALLERS + LEAVERS;
/// A server that says "not yet" (404, 409 or 503 with Retry-After) is asked again for this long.
const PATIENCE: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(250);

/// Where viewers join.
#[derive(Debug, Clone)]
pub enum Target {
    Whep { url: String, streams: u16 },
    Janus { url: String, mountpoint: u64 },
}

/// A session at the server, to be ended.
#[derive(Debug)]
pub enum Session {
    Whep(Option<String>),
    Janus(Janus),
}

/// A viewer that can begin.
#[derive(Debug)]
pub struct Joined {
    pub start: Start,
    pub socket: UdpSocket,
    pub session: Session,
}

/// What all joins of a run share.
#[derive(Debug, Clone)]
pub struct Joiner {
    pub target: Target,
    pub certificate: Certificate,
    /// Viewers want audio too.
    audio: bool,
    agent: ureq::Agent,
    /// Our address towards the server.
    local: IpAddr,
}

/// An HTTP client that hands over refusals as they are.
pub fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_idle_connections(REQUESTS)
        .max_idle_connections_per_host(REQUESTS)
        .timeout_global(Some(TIMEOUT))
        .build();
    config.into()
}

/// The address of a URL's server.
pub fn server_address(url: &str) -> Result<SocketAddr> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url}: only http:// can be used"))?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let with_port = if authority
        .rsplit_once(':')
        .is_some_and(|(_, p)| p.parse::<u16>().is_ok())
    {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let addresses = with_port.to_socket_addrs();
    let addresses = addresses.with_context(|| format!("{authority}: no such host"))?;
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let first = addresses.first().copied();
    first.with_context(|| format!("{authority}: no address"))
}

/// Our own address towards another one.
pub fn local_address(server: SocketAddr) -> Result<IpAddr> {
    let any: SocketAddr = if server.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).context("UDP socket")?;
    socket
        .connect(server)
        .with_context(|| format!("no route to {server}"))?;
    Ok(socket.local_addr().context("UDP socket")?.ip())
}

/// Posts an offer (WHEP or WHIP). Returns the answer and the session's URL.
pub fn post_offer(agent: &ureq::Agent, url: &str, offer: &str) -> Result<(String, Option<String>)> {
    let until = Instant::now() + PATIENCE;
    loop {
        let response = agent
            .post(url)
            .header("content-type", "application/sdp")
            .send(offer);
        let mut response = response.with_context(|| format!("POST {url}"))?;
        let status = response.status().as_u16();
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|v| v.to_str().ok())
                .map(str::to_owned)
        };
        let (location, retry) = (header("location"), header("retry-after").is_some());
        let body = response.body_mut().read_to_string();
        let body = body.with_context(|| format!("POST {url}"))?;
        match status {
            200 | 201 => return Ok((body, location.map(|l| resolve(url, &l)))),
            404 | 409 | 503 if retry && Instant::now() < until => std::thread::sleep(RETRY),
            _ => bail!("POST {url}: {status} {}", body.trim()),
        }
    }
}

/// The URL of a viewer's or publisher's stream, where there are several.
pub fn stream_url(url: &str, streams: u16, index: usize) -> String {
    match streams {
        0 | 1 => url.to_owned(),
        _ => format!("{url}-{}", index % usize::from(streams) + 1),
    }
}

/// A session's URL may be relative to the endpoint's.
fn resolve(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let path = base.find("://").map_or(0, |at| at + 3);
    let origin = base[path..].find('/').map_or(base, |at| &base[..path + at]);
    if location.starts_with('/') {
        return format!("{origin}{location}");
    }
    let folder = base
        .rfind('/')
        .filter(|at| *at >= path)
        .map_or(base, |at| &base[..at]);
    format!("{folder}/{location}")
}

impl Joiner {
    /// Finds the way to the server.
    pub fn new(target: Target, audio: bool) -> Result<Self> {
        let url = match &target {
            Target::Whep { url, .. } | Target::Janus { url, .. } => url,
        };
        let local = local_address(server_address(url)?)?;
        Ok(Self {
            target,
            certificate: Certificate::generate()?,
            audio,
            agent: agent(),
            local,
        })
    }

    /// Asks the server for a session.
    pub fn join(&self, index: usize, sampled: bool, passing: bool) -> Result<Joined> {
        let asked_at = Instant::now();
        let socket = UdpSocket::bind((self.local, 0)).context("UDP socket")?;
        let address = socket.local_addr().context("UDP socket")?;
        let local = Credentials::random()?;
        let fingerprint = self.certificate.fingerprint();
        let (mut remote, session, offered) = match &self.target {
            Target::Whep { url, streams } => {
                let url = &stream_url(url, *streams, index);
                let offer = sdp::offer(&local, &fingerprint, address, self.audio);
                let (answer, session) = post_offer(&self.agent, url, &offer)?;
                (Remote::parse(&answer)?, Session::Whep(session), true)
            }
            Target::Janus { url, mountpoint } => {
                let (janus, offer) = Janus::watch(&self.agent, url, *mountpoint)?;
                let remote = Remote::parse(&offer)?;
                let answer = sdp::answer(&remote, &local, &fingerprint, address);
                janus.start(&self.agent, &answer)?;
                (remote, Session::Janus(janus), false)
            }
        };
        // Of the server's addresses only those of our socket's family can be reached, the nearest first.
        remote
            .candidates
            .retain(|c| c.is_ipv4() == address.is_ipv4());
        remote.candidates.sort_by_key(|c| c.ip() != address.ip());
        Ok(Joined {
            start: Start {
                index,
                local,
                remote,
                offered,
                certificate: self.certificate.clone(),
                sampled,
                passing,
                asked_at,
            },
            socket,
            session,
        })
    }

    /// Keeps a session that needs it.
    pub fn keep_alive(&self, session: &Session) {
        if let Session::Janus(janus) = session {
            janus.keep_alive(&self.agent);
        }
    }

    /// Ends a session. What fails here does not matter any more.
    pub fn leave(&self, session: &Session) {
        match session {
            Session::Whep(Some(url)) => {
                let _ = self.agent.delete(url).call();
            }
            Session::Whep(None) => {}
            Session::Janus(janus) => janus.destroy(&self.agent),
        }
    }
}

/// How often [`Joiner::keep_alive`] is to be called.
pub const KEEP_ALIVE: Duration = janus::KEEP_ALIVE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_urls_are_resolved() {
        let base = "http://h:8080/whep/a";
        assert_eq!(resolve(base, "/session/1"), "http://h:8080/session/1");
        assert_eq!(resolve(base, "http://x/1"), "http://x/1");
        assert_eq!(resolve(base, "s1"), "http://h:8080/whep/s1");
        assert_eq!(resolve("http://h", "/s"), "http://h/s");
    }

    #[test]
    fn viewers_are_spread_over_streams() {
        let of = |streams, index| stream_url("http://h/whep/a", streams, index);
        assert_eq!(of(1, 7), "http://h/whep/a");
        assert_eq!([of(3, 0), of(3, 3)], ["http://h/whep/a-1"; 2]);
        assert_eq!(of(3, 5), "http://h/whep/a-3");
    }

    #[test]
    fn servers_are_found_by_their_urls() {
        let address = |url| server_address(url).map(|a| a.to_string()).ok();
        assert_eq!(
            address("http://127.0.0.1:8080/whep/a"),
            Some("127.0.0.1:8080".into())
        );
        assert_eq!(address("http://127.0.0.1?x"), Some("127.0.0.1:80".into()));
        assert_eq!(address("https://127.0.0.1/"), None);
        assert_eq!(address("whep"), None);
    }
}
