// SPDX-License-Identifier: MPL-2.0

//! The addresses that peers are told instead of the machine's own: those of a NAT in front. What is told and where datagrams
//! arrive are two things (RFC 8445, section 5.1.1): sockets stay bound to what they are bound to.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A name is looked up again for the first offer after this time.
const REFRESH: Duration = Duration::from_secs(60);
/// The first look-up is waited for so long. Offers that come before its end are told the other addresses.
const PATIENCE: Duration = Duration::from_secs(1);
/// Addresses of a name that are told.
const ADDRESSES: usize = 4;

/// An address to tell peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    host: Host,
    /// The first shard's port, as it is mapped; shard *i* is at this plus *i*. `None`: as it is bound.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Address(IpAddr),
    Name(String),
}

impl FromStr for Announce {
    type Err = ();

    /// `ADDRESS`, `NAME`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `NAME:PORT`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let text = text.trim();
        let usable = |ip: IpAddr| (!ip.is_unspecified() && !ip.is_multicast()).then_some(ip);
        if let Ok(address) = text.parse::<IpAddr>() {
            let host = Host::Address(usable(address).ok_or(())?);
            return Ok(Self { host, port: None });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            let port = Some(address.port()).filter(|port| *port > 0);
            return Ok(Self {
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
        is_port.then_some(Self { host, port }).ok_or(())
    }
}

/// What is announced, with the addresses that names have now.
#[derive(Debug)]
pub(crate) struct Announced {
    all: Vec<Announce>,
    names: Arc<Mutex<Names>>,
}

#[derive(Debug, Default)]
struct Names {
    /// Of each that is a name, in order.
    addresses: Vec<Vec<IpAddr>>,
    looked_up: Option<Instant>,
    under_way: bool,
}

impl Announced {
    pub(crate) fn new(all: Vec<Announce>) -> Self {
        let this = Self {
            all,
            names: Arc::default(),
        };
        let (done, wait) = sync_channel(1);
        if this.look_up(Instant::now(), move || {
            let _ = done.try_send(());
        }) {
            let _ = wait.recv_timeout(PATIENCE);
        }
        this
    }

    /// The first shard's port of one that leaves no port for the last of so many shards.
    pub(crate) fn port_too_high(all: &[Announce], shards: usize) -> Option<u16> {
        let last = shards.saturating_sub(1);
        let mut ports = all.iter().filter_map(|a| a.port);
        ports.find(|first| usize::from(*first) + last > usize::from(u16::MAX))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The addresses of a shard that is bound to this port.
    pub(crate) fn addresses(&self, now: Instant, shard: usize, bound: u16) -> Vec<SocketAddr> {
        self.look_up(now, || ());
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = names.addresses.iter();
        let mut found = Vec::new();
        for Announce { host, port } in &self.all {
            let shard = u16::try_from(shard).unwrap_or(u16::MAX);
            let port = port.map_or(Some(bound), |first| first.checked_add(shard));
            let ips = match host {
                Host::Address(ip) => std::slice::from_ref(ip),
                Host::Name(_) => known.next().map_or(&[][..], Vec::as_slice),
            };
            found.extend(
                ips.iter()
                    .zip(port.into_iter().cycle())
                    .map(|(ip, port)| SocketAddr::new(*ip, port)),
            );
        }
        found.dedup();
        found
    }

    /// Looks names up once more where it is time, on a thread of its own: that may take long. Returns whether it does.
    fn look_up(&self, now: Instant, then: impl FnOnce() + Send + 'static) -> bool {
        let hosts = self.all.iter().filter_map(|a| match &a.host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        });
        let hosts: Vec<String> = hosts.collect();
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = names
            .looked_up
            .is_some_and(|at| now.saturating_duration_since(at) < REFRESH);
        if hosts.is_empty() || names.under_way || is_recent {
            return false;
        }
        names.under_way = true;
        names.looked_up = Some(now);
        let shared = self.names.clone();
        let spawned = std::thread::Builder::new()
            .name("sfu-names".into())
            .spawn(move || {
                let found: Vec<_> = hosts.iter().map(|name| resolve(name)).collect();
                let mut names = shared.lock().unwrap_or_else(PoisonError::into_inner);
                names.under_way = false;
                names.addresses.resize(found.len(), Vec::new());
                for (known, found) in names.addresses.iter_mut().zip(found) {
                    // One that can't be looked up keeps what it had.
                    if !found.is_empty() {
                        *known = found;
                    }
                }
                then();
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "announce-address: names can't be looked up");
            names.under_way = false;
            return false;
        }
        true
    }
}

fn resolve(name: &str) -> Vec<IpAddr> {
    match (name, 0).to_socket_addrs() {
        Ok(addresses) => {
            let mut found: Vec<IpAddr> = addresses.map(|a| a.ip()).collect();
            found.dedup();
            found.truncate(ADDRESSES);
            found
        }
        Err(error) => {
            tracing::warn!(name, %error, "announce-address: a name was not found");
            Vec::new()
        }
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
                announced.addresses(Instant::now(), 1, 8_190),
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
            &long,
        ] {
            assert_eq!(text.parse::<Announce>(), Err(()), "{text:?}");
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
    fn a_name_is_looked_up_and_again_after_a_minute() {
        let announced = Announced::new(vec!["localhost:7000".parse().unwrap()]);
        let now = Instant::now();
        let end = now + Duration::from_secs(20);
        while announced.addresses(now, 0, 1).is_empty() {
            assert!(Instant::now() < end, "localhost has an address");
            std::thread::sleep(Duration::from_millis(10));
        }
        let found = announced.addresses(now, 2, 1);
        assert!(
            found
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 7_002)
        );
        assert!(!announced.look_up(now, || ()));
        assert!(announced.look_up(now + REFRESH, || ()));
    }
}
