// SPDX-License-Identifier: MPL-2.0

//! The addresses that peers are told instead of the machine's own: those of a NAT in front. What is told and where datagrams
//! arrive are two things (RFC 8445, section 5.1.1): sockets stay bound to what they are bound to.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Engine, stun};

/// A name is looked up again for the first offer after this time.
const REFRESH: Duration = Duration::from_secs(60);
/// The first look-up is waited for so long. Offers that come before its end are told the other addresses.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses of a name that are told.
const ADDRESSES: usize = 4;

/// The port of a STUN server that names none (RFC 8489, section 8).
const STUN: u16 = 3_478;

/// An address to tell peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    /// Of this transport alone.
    by: Option<By>,
    host: Host,
    /// The first shard's port, as it is mapped; shard *i* is at this plus *i*. `None`: as it is bound.
    port: Option<u16>,
}

/// How media travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    /// Looked up now and then.
    Name(String),
    /// What a STUN server at this host and port says, asked now and then.
    Stun(String, u16),
}

impl Host {
    fn is_fixed(&self) -> bool {
        matches!(self, Self::Address(_))
    }

    /// The addresses that it stands for now. May take long.
    fn find(&self) -> Result<Vec<IpAddr>, NotAnnounced> {
        let found = match self {
            Self::Address(ip) => Ok(vec![*ip]),
            Self::Name(name) => resolve(name),
            Self::Stun(server, port) => stun::ask(server, *port),
        };
        found.map_err(|error| {
            tracing::warn!(host = %self, %error, "announce-address: no address was found");
            NotAnnounced {
                host: self.to_string(),
                why: error.to_string(),
            }
        })
    }
}

impl fmt::Display for Host {
    /// As it is written, without a port of ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
            Self::Stun(server, port) if server.contains(':') => write!(f, "stun:[{server}]:{port}"),
            Self::Stun(server, port) => write!(f, "stun:{server}:{port}"),
        }
    }
}

/// What peers are to be told of and has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnnounced {
    /// A name, or a STUN server with `stun:` before it.
    pub host: String,
    /// What came of looking it up.
    pub why: String,
}

impl FromStr for Announce {
    type Err = ();

    /// `ADDRESS`, `NAME`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NAME:PORT`, of one transport with `udp:` or `tcp:` before it;
    /// `stun:` and the same is a STUN server.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        if let Some(server) = text.strip_prefix("stun:") {
            let Self { host, port, .. } = Self::parse(server)?;
            let server = match host {
                Host::Address(ip) => ip.to_string(),
                Host::Name(name) => name,
                Host::Stun(..) => return Err(()),
            };
            return Ok(Self {
                by: None,
                host: Host::Stun(server, port.unwrap_or(STUN)),
                port: None,
            });
        }
        let prefixes = [("udp:", By::Udp), ("tcp:", By::Tcp)];
        for (prefix, by) in prefixes {
            if let Some(rest) = text.strip_prefix(prefix) {
                let by = Some(by);
                return Ok(Self {
                    by,
                    ..Self::parse(rest)?
                });
            }
        }
        Self::parse(text)
    }
}

impl Announce {
    fn parse(text: &str) -> Result<Self, ()> {
        let usable = |ip: IpAddr| (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip);
        if let Ok(address) = text.parse::<IpAddr>() {
            let host = Host::Address(usable(address).ok_or(())?);
            let (by, port) = (None, None);
            return Ok(Self { by, host, port });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let port = Some(address.port()).filter(|port| *port > 0);
            return Ok(Self {
                by: None,
                host: Host::Address(usable(address.ip()).ok_or(())?),
                port: Some(port.ok_or(())?),
            });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| ())?)),
            None => (text, None),
        };
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = name.len() <= 253
            && name.split('.').all(|l| (1..=63).contains(&l.len()))
            && name.chars().all(is_letter)
            // What looks like an address and is none is no name either.
            && name.chars().any(|c| c.is_ascii_alphabetic());
        let host = is_name.then(|| Host::Name(name.to_owned())).ok_or(())?;
        let is_port = port.is_none_or(|port| port > 0);
        let by = None;
        is_port.then_some(Self { by, host, port }).ok_or(())
    }
}

/// What is announced, with the addresses that names have now.
#[derive(Debug)]
pub(crate) struct Announced {
    all: Vec<Announce>,
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    /// Of each, in order.
    addresses: Vec<Vec<IpAddr>>,
    /// Those of which none is known yet, after a look.
    missing: Vec<NotAnnounced>,
    looked_up: Option<Instant>,
    under_way: bool,
}

impl Found {
    /// What has come of a look at each.
    fn take(&mut self, all: Vec<Result<Vec<IpAddr>, NotAnnounced>>) {
        self.under_way = false;
        self.missing.clear();
        for (known, found) in self.addresses.iter_mut().zip(all) {
            match found {
                Ok(addresses) => *known = addresses,
                // One that can't be looked up keeps what it had.
                Err(missing) if known.is_empty() => self.missing.push(missing),
                Err(_) => {}
            }
        }
    }
}

impl Engine {
    /// What [`EngineConfig::announce`](super::EngineConfig::announce) names and was not found when it was looked up last: peers are
    /// told the others, or the machine's own addresses where there are none.
    pub fn not_announced(&self) -> Vec<NotAnnounced> {
        self.announced.missing()
    }
}

impl Announced {
    pub(crate) fn new(all: Vec<Announce>) -> Self {
        let fixed = all.iter().map(|announce| match announce.host {
            Host::Address(ip) => vec![ip],
            _ => Vec::new(),
        });
        let found = Found {
            addresses: fixed.collect(),
            ..Found::default()
        };
        let this = Self {
            found: Arc::new(Mutex::new(found)),
            all,
        };
        this.look_up_for_a_while(Instant::now());
        this
    }

    /// The first shard's port of one that leaves no port for the last of so many shards.
    pub(crate) fn port_too_high(all: &[Announce], shards: usize) -> Option<u16> {
        let last = shards.saturating_sub(1);
        let mut ports = all.iter().filter_map(|a| a.port);
        ports.find(|first| usize::from(*first) + last > usize::from(u16::MAX))
    }

    /// The addresses of a shard that is bound to this port. None where nothing is told of this transport, or known yet.
    pub(crate) fn addresses(
        &self,
        now: Instant,
        by: By,
        shard: usize,
        bound: u16,
    ) -> Vec<SocketAddr> {
        self.look_up_for_a_while(now);
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = u16::try_from(shard).unwrap_or(u16::MAX);
        let mut told = Vec::new();
        for (announce, ips) in self.all.iter().zip(&found.addresses) {
            let port = announce
                .port
                .map_or(Some(bound), |first| first.checked_add(shard));
            if let Some(port) = port.filter(|_| announce.by.is_none_or(|b| b == by)) {
                told.extend(ips.iter().map(|ip| SocketAddr::new(*ip, port)));
            }
        }
        told.dedup();
        told
    }

    fn missing(&self) -> Vec<NotAnnounced> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.missing.clone()
    }

    /// Looks up what may have changed, where it is time, and waits for that a little. Who comes meanwhile is told what is known.
    fn look_up_for_a_while(&self, now: Instant) {
        let (done, wait) = sync_channel(1);
        let then = move || {
            let _ = done.try_send(());
        };
        if self.look_up(now, then) {
            let _ = wait.recv_timeout(PATIENCE);
        }
    }

    /// Looks up once more where it is time, on a thread of its own: that may take long. Returns whether it does.
    fn look_up(&self, now: Instant, then: impl FnOnce() + Send + 'static) -> bool {
        if self.all.iter().all(|a| a.host.is_fixed()) {
            return false;
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |at| now.saturating_duration_since(at) < REFRESH;
        if found.under_way || found.looked_up.is_some_and(is_recent) {
            return false;
        }
        found.under_way = true;
        found.looked_up = Some(now);
        let hosts: Vec<Host> = self.all.iter().map(|a| a.host.clone()).collect();
        let shared = self.found.clone();
        let spawned = std::thread::Builder::new()
            .name("sfu-names".into())
            .spawn(move || {
                let all: Vec<_> = hosts.iter().map(Host::find).collect();
                let mut found = shared.lock().unwrap_or_else(PoisonError::into_inner);
                found.take(all);
                drop(found);
                then();
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "announce-address: names can't be looked up");
            found.under_way = false;
            return false;
        }
        true
    }
}

fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = (name, 0).to_socket_addrs()?.map(|a| a.ip()).collect();
    found.dedup();
    found.truncate(ADDRESSES);
    match found.is_empty() {
        true => Err(io::ErrorKind::NotFound.into()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_ports_are_told_apart() {
        for (text, told) in [
            ("192.0.2.7", &["192.0.2.7:8190"][..]),
            (" 192.0.2.7:9000 ", &["192.0.2.7:9001"]),
            ("2001:db8::7", &["[2001:db8::7]:8190"]),
            ("[2001:db8::7]:9000", &["[2001:db8::7]:9001"]),
            // There is no such port: the shard can't be told so.
            ("192.0.2.7:65535", &[]),
        ] {
            let announced = Announced::new(vec![text.parse().unwrap()]);
            let told: Vec<SocketAddr> = told.iter().map(|t| t.parse().unwrap()).collect();
            assert_eq!(
                announced.addresses(Instant::now(), By::Udp, 1, 8_190),
                told,
                "{text}"
            );
        }
        for text in [
            "sfu.example.org",
            "sfu.example.org:9000",
            "localhost",
            "a-b_c:1",
        ] {
            let parsed: Announce = text.parse().unwrap();
            assert!(matches!(parsed.host, Host::Name(_)), "{text}");
        }
        let long = "a.".repeat(200);
        for text in [
            "",
            "here:",
            "here:x",
            "here:0",
            "here:70000",
            "192.0.2.7:0",
            "192.0.2",
            "192.0.2.7:1:2",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "a b",
            "a..b",
            "http://a",
            "[::1",
            "stun:",
            "stun:stun:a",
            "stun:0.0.0.0",
            "stun:a:0",
            "udp:",
            "tcp:a b",
            "udp:tcp:192.0.2.7",
            &long,
        ] {
            assert_eq!(text.parse::<Announce>(), Err(()), "{text:?}");
        }
    }

    #[test]
    fn transports_are_told_apart_and_stun_servers_parsed() {
        let all = [
            "udp:192.0.2.7:9000",
            "tcp:192.0.2.7:443",
            "tcp:2001:db8::7",
            "192.0.2.8",
        ];
        let all = all.iter().map(|t| t.parse().unwrap()).collect();
        let announced = Announced::new(all);
        let told = |by| {
            let all = announced.addresses(Instant::now(), by, 1, 8_190);
            all.iter().map(SocketAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(told(By::Udp), ["192.0.2.7:9001", "192.0.2.8:8190"]);
        assert_eq!(
            told(By::Tcp),
            ["192.0.2.7:444", "[2001:db8::7]:8190", "192.0.2.8:8190"]
        );
        for (text, server, port) in [
            ("stun:stun.example.org", "stun.example.org", STUN),
            ("stun:stun.example.org:19302", "stun.example.org", 19_302),
            ("stun:192.0.2.9:1", "192.0.2.9", 1),
            ("stun:2001:db8::9", "2001:db8::9", STUN),
            ("stun:[2001:db8::9]:1", "2001:db8::9", 1),
        ] {
            let parsed: Announce = text.parse().unwrap();
            assert_eq!(parsed.host, Host::Stun(server.into(), port), "{text}");
            assert_eq!((parsed.by, parsed.port), (None, None));
        }
    }

    #[test]
    fn each_shard_needs_a_port_of_its_own_to_be_told() {
        let all = |text: &str| vec!["192.0.2.7".parse().unwrap(), text.parse().unwrap()];
        for (text, shards, expected) in [
            ("192.0.2.7:65535", 1, None),
            ("192.0.2.7:65535", 2, Some(65_535)),
            ("sfu.example.org:65530", 6, None),
            ("sfu.example.org:65530", 7, Some(65_530)),
            ("192.0.2.7", 70_000, None),
        ] {
            let found = Announced::port_too_high(&all(text), shards);
            assert_eq!(found, expected, "{text} with {shards}");
        }
    }

    #[test]
    fn what_is_not_found_is_told_until_it_is() {
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let missing = |host: &str| NotAnnounced {
            host: host.into(),
            why: "nobody knows it".into(),
        };
        let mut found = Found {
            addresses: vec![vec![address], Vec::new(), Vec::new()],
            ..Found::default()
        };
        found.take(vec![
            Ok(vec![address]),
            Err(missing("a")),
            Err(missing("b")),
        ]);
        assert_eq!(found.missing, [missing("a"), missing("b")]);
        found.take(vec![
            Ok(vec![address]),
            Ok(vec![address]),
            Err(missing("b")),
        ]);
        assert_eq!(found.missing, [missing("b")]);
        // What was known is still told.
        found.take(vec![
            Ok(vec![address]),
            Err(missing("a")),
            Ok(vec![address]),
        ]);
        assert!(found.missing.is_empty());
        assert_eq!(found.addresses, vec![vec![address]; 3]);
        for (text, shown) in [
            ("sfu.example.org:9000", "sfu.example.org"),
            ("tcp:sfu.example.org", "sfu.example.org"),
            ("stun:stun.example.org", "stun:stun.example.org:3478"),
            ("stun:[2001:db8::9]:1", "stun:[2001:db8::9]:1"),
        ] {
            let parsed: Announce = text.parse().unwrap();
            assert_eq!(parsed.host.to_string(), shown);
        }
    }

    #[test]
    fn a_name_is_looked_up_and_again_after_a_minute() {
        let announced = Announced::new(vec!["localhost:7000".parse().unwrap()]);
        let now = Instant::now();
        let end = now + Duration::from_secs(20);
        while announced.addresses(now, By::Udp, 0, 1).is_empty() {
            assert!(Instant::now() < end, "localhost has an address");
            std::thread::sleep(Duration::from_millis(10));
        }
        let found = announced.addresses(now, By::Udp, 2, 1);
        assert!(
            found
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 7_002)
        );
        assert!(!announced.look_up(now, || ()));
        assert!(announced.look_up(now + REFRESH, || ()));
    }
}
