// SPDX-License-Identifier: MPL-2.0

//! How many TCP connections a shard may have, in all and of one address.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::engine::AddressKey;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpLimits {
    pub(crate) connections: usize,
    pub(crate) per_address: usize,
}

impl TcpLimits {
    /// A shard's part of so many. A school has one address: so three quarters are for one, and never all.
    pub(crate) fn of(connections: usize, shards: usize) -> Self {
        let connections = connections.div_ceil(shards.max(1)).max(1);
        Self {
            connections,
            per_address: (connections.div_ceil(4) * 3).min(connections.saturating_sub(1).max(1)),
        }
    }
}

/// Who has which of them.
#[derive(Debug)]
pub(super) struct Places {
    limits: TcpLimits,
    taken: usize,
    by_address: HashMap<AddressKey, usize>,
}

impl Places {
    pub(super) fn new(limits: TcpLimits) -> Self {
        Self {
            limits,
            taken: 0,
            by_address: HashMap::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.taken >= self.limits.connections
    }

    /// `false`: there is none, or none for that address.
    pub(super) fn take(&mut self, ip: IpAddr) -> bool {
        let of_address = self.by_address.get(&ip.into()).copied().unwrap_or(0);
        if self.is_full() || of_address >= self.limits.per_address {
            return false;
        }
        self.taken += 1;
        self.by_address.insert(ip.into(), of_address + 1);
        true
    }

    pub(super) fn leave(&mut self, ip: IpAddr) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(count) = self.by_address.get_mut(&ip.into()) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&ip.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_never_has_all_places_and_gives_them_back() {
        for (connections, shards, expected) in [
            (1_000, 1, (1_000, 750)),
            (1_000, 4, (250, 189)),
            (10, 3, (4, 3)),
            (12, 4, (3, 2)),
            (0, 4, (1, 1)),
        ] {
            let limits = TcpLimits::of(connections, shards);
            assert_eq!((limits.connections, limits.per_address), expected);
        }
        let mut places = Places::new(TcpLimits::of(4, 1));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        // Of one /64.
        for text in ["2001:db8::1", "2001:db8::2", "2001:db8::3"] {
            assert!(places.take(ip(text)));
        }
        assert!(!places.take(ip("2001:db8::4")));
        assert!(places.take(ip("192.0.2.1")));
        assert!(places.is_full() && !places.take(ip("192.0.2.2")));
        for text in ["2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1"] {
            places.leave(ip(text));
        }
        assert!(places.by_address.is_empty() && places.taken == 0);
    }
}
