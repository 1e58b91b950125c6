// SPDX-License-Identifier: MPL-2.0

//! The sessions by identifier. Each leaves by itself when its shard lets go of it, so that nobody looks through all.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::ids::SessionId;
use crate::session::{SessionObserver, SessionShared};

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Shards hold the sessions; those who look find them here.
    sessions: Mutex<HashMap<SessionId, Weak<SessionShared>>>,
    /// The sessions of each shard.
    loads: Box<[AtomicUsize]>,
    /// The shards of those sessions whose offers named an address.
    addresses: Mutex<HashMap<SocketAddr, Vec<usize>>>,
    /// All that there ever were.
    count: AtomicU64,
    pub(super) observer: OnceLock<Arc<dyn SessionObserver>>,
}

/// A session's place in the registry. Dropped with the session.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    id: SessionId,
    shard: usize,
    number: u64,
    /// What its offer named.
    addresses: Box<[SocketAddr]>,
}

impl Place {
    /// How many sessions there had been with this one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Who is told of it.
    pub(crate) fn observer(&self) -> Option<&dyn SessionObserver> {
        self.registry.observer.get().map(|observer| &**observer)
    }
}

impl Registry {
    pub(super) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            sessions: Mutex::default(),
            loads: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            count: AtomicU64::new(0),
            addresses: Mutex::default(),
            observer: OnceLock::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Weak<SessionShared>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<usize>>> {
        let addresses = self.addresses.lock();
        addresses.unwrap_or_else(PoisonError::into_inner)
    }

    /// The shards that have sessions at one of these addresses, as far as offers have named them. Media has no name in it, so
    /// that an address is one session's in each shard.
    pub(super) fn shards_at(&self, addresses: &[SocketAddr]) -> Vec<usize> {
        let known = self.addresses();
        let shards = addresses.iter().filter_map(|address| known.get(address));
        shards.flatten().copied().collect()
    }

    /// From now on the session is found and counted, for as long as somebody holds it. `addresses` are those that its offer
    /// named.
    pub(super) fn enter(
        self: &Arc<Self>,
        mut session: SessionShared,
        addresses: Box<[SocketAddr]>,
    ) -> Arc<SessionShared> {
        let (id, shard) = (session.id(), session.shard());
        if let Some(load) = self.loads.get(shard) {
            load.fetch_add(1, Relaxed);
        }
        for address in &addresses {
            self.addresses().entry(*address).or_default().push(shard);
        }
        session.take_place(Place {
            registry: self.clone(),
            id,
            shard,
            number: self.count.fetch_add(1, Relaxed) + 1,
            addresses,
        });
        let session = Arc::new(session);
        self.lock().insert(id, Arc::downgrade(&session));
        session
    }

    /// The session, while it goes on.
    pub(super) fn get(&self, id: SessionId) -> Option<Arc<SessionShared>> {
        // The lock is free again before the session can be dropped, which needs it.
        let session = self.lock().get(&id).cloned();
        session?.upgrade()
    }

    /// All that are found, in no order.
    pub(super) fn all(&self) -> Vec<Arc<SessionShared>> {
        let found: Vec<_> = self.lock().values().cloned().collect();
        found.iter().filter_map(Weak::upgrade).collect()
    }

    /// The session is not found any more, though its shard may not have ended it yet.
    pub(super) fn hide(&self, id: SessionId) {
        self.lock().remove(&id);
    }

    /// How many are found.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many sessions a shard has.
    pub(super) fn load(&self, shard: usize) -> usize {
        self.loads.get(shard).map_or(0, |load| load.load(Relaxed))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
        if let Some(load) = self.registry.loads.get(self.shard) {
            load.fetch_sub(1, Relaxed);
        }
        let mut known = self.registry.addresses();
        for address in &self.addresses {
            let Some(shards) = known.get_mut(address) else {
                continue;
            };
            if let Some(at) = shards.iter().position(|shard| *shard == self.shard) {
                shards.swap_remove(at);
            }
            if shards.is_empty() {
                known.remove(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Preference;
    use crate::stream::Stream;

    fn session(id: u128, shard: usize) -> SessionShared {
        let stream = Arc::new(Stream::new("test".parse().unwrap(), 1));
        let id = SessionId::from_bits(id);
        SessionShared::new(id, stream, shard, String::new(), Preference::default())
    }

    #[test]
    fn addresses_that_offers_named_are_known_as_long_as_the_sessions() {
        let registry = Registry::new(3);
        let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let at = |ports: &[u16]| {
            let addresses: Vec<_> = ports.iter().copied().map(address).collect();
            let mut shards = registry.shards_at(&addresses);
            shards.sort_unstable();
            shards
        };
        let enter = |id, shard, ports: &[u16]| {
            let addresses = ports.iter().copied().map(address).collect();
            registry.enter(session(id, shard), addresses)
        };
        let first = enter(1, 0, &[5, 6]);
        let second = enter(2, 2, &[6]);
        let third = enter(3, 2, &[6, 6]);
        assert_eq!(at(&[5]), [0]);
        assert_eq!(at(&[4, 6]), [0, 2, 2, 2]);
        drop(third);
        assert_eq!(at(&[6]), [0, 2]);
        drop(first);
        assert_eq!((at(&[5]), at(&[6])), (vec![], vec![2]));
        drop(second);
        assert!(registry.addresses().is_empty(), "nothing is left");
    }

    #[test]
    fn a_session_is_found_until_its_shard_lets_go_of_it() {
        let registry = Registry::new(2);
        let mut held: Vec<_> = (0..1_000)
            .map(|n| registry.enter(session(n, usize::from(n % 3 == 0)), Box::default()))
            .collect();
        assert_eq!(registry.len(), 1_000);
        assert_eq!((registry.load(0), registry.load(1)), (666, 334));
        let looked_at = registry.get(SessionId::from_bits(0)).unwrap();
        held.retain(|session| session.shard() == 0);
        assert_eq!((registry.load(0), registry.load(1)), (666, 1));
        drop(looked_at);
        assert!(registry.get(SessionId::from_bits(0)).is_none());
        registry.hide(SessionId::from_bits(1));
        assert!(registry.get(SessionId::from_bits(1)).is_none());
        assert_eq!(registry.load(0), 666, "its shard still has it");
        held.clear();
        assert_eq!(registry.len(), 0);
        assert_eq!((registry.load(0), registry.load(1)), (0, 0));
        assert_eq!(registry.load(7), 0, "no such shard");
    }
}
