// SPDX-License-Identifier: MPL-2.0

//! Which of the machine's addresses a viewer can be told. Called once for each viewer who joins.

use std::net::IpAddr;

/// The addresses that a socket bound to `bound` really listens on.
///
/// A viewer on another machine gets no loopback address, and where there are others neither does one on this machine
/// unless it came over loopback: then its browser may be shut in there.
pub(crate) fn reachable(bound: IpAddr, peer: Option<IpAddr>) -> Vec<IpAddr> {
    if !bound.is_unspecified() {
        return vec![bound];
    }
    let all: Vec<IpAddr> = match if_addrs::get_if_addrs() {
        Ok(interfaces) => interfaces.iter().map(if_addrs::Interface::ip).collect(),
        Err(error) => {
            tracing::warn!(%error, "the machine's addresses could not be listed: set announce-address");
            Vec::new()
        }
    };
    select(&all, bound, peer)
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
}
