// SPDX-License-Identifier: MPL-2.0

//! What an address stands for: a UDP port, or a TCP connection (RFC 6544).
//!
//! Sessions know paths as pairs of [`SocketAddr`], and send what they have to say to one. A connection gets an address of its own: that of the
//! peer, in its IPv6 form, with a mark in the flow label, which no address has that came over UDP or was read from a
//! candidate. So nobody can name a connection but the driver that has it.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Beyond the flow label's twenty bits.
const TCP: u32 = 1 << 31;

/// Which connection of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionId {
    /// Its place, which another one gets after it.
    pub(crate) slot: u32,
    /// Which of those that had the place.
    pub(crate) serial: u32,
}

/// The same address and port by TCP.
pub(crate) fn tcp(address: SocketAddr) -> SocketAddr {
    of_connection(address, ConnectionId { slot: 0, serial: 0 })
}

/// What a connection's peer is called.
pub(crate) fn of_connection(peer: SocketAddr, id: ConnectionId) -> SocketAddr {
    let ip = match peer.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    SocketAddrV6::new(ip, peer.port(), TCP | id.slot, id.serial).into()
}

/// Whether it is by TCP. Once a send.
pub(crate) fn is_tcp(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.flowinfo() & TCP != 0)
}

/// Which connection it is, if one.
pub(crate) fn connection(address: &SocketAddr) -> Option<ConnectionId> {
    match address {
        SocketAddr::V6(v6) if v6.flowinfo() & TCP != 0 => Some(ConnectionId {
            slot: v6.flowinfo() & !TCP,
            serial: v6.scope_id(),
        }),
        _ => None,
    }
}

/// Address and port without all that.
pub(crate) fn plain(address: &SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_apart_and_from_udp() {
        for text in ["192.0.2.7:9000", "[2001:db8::7]:9000"] {
            let peer: SocketAddr = text.parse().unwrap();
            assert!(!is_tcp(&peer) && connection(&peer).is_none());
            let mut seen = vec![peer];
            for (slot, serial) in [(0, 0), (1, 0), (0, 1), ((1 << 31) - 1, u32::MAX)] {
                let id = ConnectionId { slot, serial };
                let address = of_connection(peer, id);
                assert!(is_tcp(&address) && connection(&address) == Some(id));
                assert_eq!(plain(&address), peer);
                assert!(!seen.contains(&address));
                seen.push(address);
            }
        }
    }

    #[test]
    fn no_text_names_a_connection() {
        for text in [
            "[2001:db8::7%1]:1",
            "[::ffff:192.0.2.7]:1",
            "[fe80::1%4294967295]:1",
        ] {
            let parsed = text.parse::<SocketAddr>();
            assert!(parsed.is_ok_and(|a| !is_tcp(&a)), "{text}");
        }
    }
}
