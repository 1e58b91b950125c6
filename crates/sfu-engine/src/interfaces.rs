// SPDX-License-Identifier: MPL-2.0

//! Which of the machine's addresses a viewer can be told. Called once for each viewer who joins.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The machine is asked no more often: each time costs a netlink socket and some system calls.
const KEPT: Duration = Duration::from_secs(1);

/// The machine's addresses, as they were a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Interfaces(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    at: Option<Instant>,
    addresses: Vec<IpAddr>,
}

impl Interfaces {
    /// The addresses that a socket bound to `bound` really listens on.
    ///
    /// A viewer on another machine gets no loopback address, and where there are others neither does one on this machine
    /// unless it came over loopback: then its browser may be shut in there.
    pub(crate) fn reachable(
        &self,
        now: Instant,
        bound: IpAddr,
        peer: Option<IpAddr>,
    ) -> Vec<IpAddr> {
        if !bound.is_unspecified() {
            return vec![bound];
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.renew(now, || {
            let interfaces = if_addrs::get_if_addrs()?;
            Ok(interfaces.iter().map(if_addrs::Interface::ip).collect())
        });
        select(&known.addresses, bound, peer)
    }
}

impl Known {
    /// Where asking fails (there are no descriptors left), what was known before stays.
    fn renew(&mut self, now: Instant, ask: impl FnOnce() -> std::io::Result<Vec<IpAddr>>) {
        let is_new = |at: Instant| now.saturating_duration_since(at) < KEPT;
        if self.at.is_some_and(is_new) {
            return;
        }
        self.at = Some(now);
        match ask() {
            Ok(addresses) => self.addresses = addresses,
            Err(error) => tracing::warn!(
                %error,
                known = self.addresses.len(),
                "the machine's addresses could not be listed: set announce-address"
            ),
        }
    }
}

fn select(all: &[IpAddr], bound: IpAddr, peer: Option<IpAddr>) -> Vec<IpAddr> {
    // A socket bound to :: takes both families.
    let family = |ip: &IpAddr| bound.is_ipv6() || ip.is_ipv4();
    let local_only = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let usable = all
        .iter()
        .copied()
        .filter(|ip| family(ip) && !local_only(ip));
    let (loopback, mut outside): (Vec<_>, Vec<_>) = usable.partition(IpAddr::is_loopback);
    if outside.is_empty() || peer.is_some_and(|p| p.to_canonical().is_loopback()) {
        outside.extend(loopback);
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn only_what_is_listened_on_is_told() {
        let all = ips(&[
            "127.0.0.1",
            "192.0.2.7",
            "::1",
            "2001:db8::7",
            "fe80::1",
            "169.254.3.4",
        ]);
        for (bound, peer, expected) in [
            ("0.0.0.0", None, &["192.0.2.7"][..]),
            ("0.0.0.0", Some("198.51.100.1"), &["192.0.2.7"]),
            ("0.0.0.0", Some("127.0.0.1"), &["192.0.2.7", "127.0.0.1"]),
            (
                "::",
                Some("::ffff:127.0.0.1"),
                &["192.0.2.7", "2001:db8::7", "127.0.0.1", "::1"],
            ),
        ] {
            let peer = peer.map(|p| p.parse().unwrap());
            let bound = bound.parse().unwrap();
            assert_eq!(select(&all, bound, peer), ips(expected), "{bound} {peer:?}");
        }
        let offline = ips(&["127.0.0.1"]);
        assert_eq!(select(&offline, "0.0.0.0".parse().unwrap(), None), offline);
    }

    #[test]
    fn the_machine_is_asked_once_a_second_and_what_was_known_outlives_a_failure() {
        let mut known = Known::default();
        let start = Instant::now();
        let mut asked = 0;
        for n in 0..10_000u32 {
            known.renew(start + KEPT * n / 1_000, || {
                asked += 1;
                match n < 5_000 {
                    true => Ok(ips(&["192.0.2.7"])),
                    false => Err(std::io::Error::other("no descriptors")),
                }
            });
            assert_eq!(known.addresses, ips(&["192.0.2.7"]), "{n}");
        }
        assert_eq!(asked, 10);
    }
}
