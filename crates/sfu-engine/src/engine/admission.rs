// SPDX-License-Identifier: MPL-2.0

//! Who may have a session: as many in all, and as many that have not connected yet from one address.
//!
//! Asked by the engine before an offer is read, so that a refusal costs next to nothing. Constant work each time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

/// Whom an address belongs to, as far as that shows: IPv6 networks are given out by /64 and wider (RFC 6177).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressKey(IpAddr);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & !u128::from(u64::MAX);
                Ipv6Addr::from_bits(network).into()
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// How many sessions there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Of viewers and publishers, connected or not.
    pub sessions: usize,
    /// Of one address, that have not connected yet. Connected ones don't count: a school has one address.
    pub unconnected_per_address: usize,
}

impl Default for AdmissionLimits {
    /// An unconnected session holds 24 kB (40,000 held 957 MB) for at most 20 s: 240 MB in all and 48 MB for an address.
    /// 2,000 of one address are 600 joins a second that take three seconds each.
    fn default() -> Self {
        Self {
            sessions: 10_000,
            unconnected_per_address: 2_000,
        }
    }
}

/// Which limit an offer met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Full {
    /// [`AdmissionLimits::sessions`].
    #[error(
        "the server has as many sessions as it may have (max-sessions); try again in some seconds"
    )]
    Sessions,
    /// [`AdmissionLimits::unconnected_per_address`].
    #[error(
        "too many sessions of your address have not connected yet (max-sessions-per-address); try again in some seconds"
    )]
    Address,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Admission {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    limits: AdmissionLimits,
    sessions: usize,
    /// Addresses without unconnected sessions are not in it, so that it is never larger than their number.
    unconnected: HashMap<AddressKey, usize>,
}

impl Admission {
    pub(crate) fn new(limits: AdmissionLimits) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                limits,
                ..Counts::default()
            }),
        })
    }

    /// Others hold from now on. Who has a place keeps it.
    pub(crate) fn set_limits(&self, limits: AdmissionLimits) {
        self.lock().limits = limits;
    }

    /// A place for a session, which is given back when it is dropped. Who is in this process has no address.
    pub(crate) fn admit(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Admitted, Full> {
        let address = address.map(AddressKey::from);
        let mut counts = self.lock();
        let limits = counts.limits;
        if counts.sessions >= limits.sessions {
            return Err(Full::Sessions);
        }
        if let Some(address) = address {
            let unconnected = counts.unconnected.entry(address).or_default();
            if *unconnected >= limits.unconnected_per_address {
                return Err(Full::Address);
            }
            *unconnected += 1;
        }
        counts.sessions += 1;
        Ok(Admitted {
            admission: self.clone(),
            address,
            connected: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn forget_unconnected(&mut self, address: AddressKey) {
        if let Entry::Occupied(mut entry) = self.unconnected.entry(address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// A session's place among those that there may be.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    address: Option<AddressKey>,
    connected: AtomicBool,
}

impl Admitted {
    /// The session does not count for its address any more.
    pub(crate) fn set_connected(&self) {
        if let Some(address) = self.address
            && !self.connected.swap(true, Relaxed)
        {
            self.admission.lock().forget_unconnected(address);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.set_connected();
        self.admission.lock().sessions -= 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    fn admission(sessions: usize, unconnected_per_address: usize) -> Arc<Admission> {
        Admission::new(AdmissionLimits {
            sessions,
            unconnected_per_address,
        })
    }

    #[test]
    fn addresses_count_by_who_has_them() {
        let of = |text: &str| AddressKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn an_address_waits_for_its_own_and_no_other_does() {
        let admission = admission(100, 2);
        let one = admission.admit(ip("192.0.2.1")).unwrap();
        let _two = admission.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(Full::Address));
        let _other = admission.admit(ip("192.0.2.2")).unwrap();
        let _inside = [admission.admit(None), admission.admit(None)];
        one.set_connected();
        one.set_connected();
        let _three = admission.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(Full::Address));
        drop(one);
        assert_eq!(admission.admit(ip("192.0.2.1")).err(), Some(Full::Address));
    }

    #[test]
    fn limits_change_and_who_has_a_place_keeps_it() {
        let admission = admission(1, 1);
        let one = admission.admit(ip("192.0.2.1")).unwrap();
        assert_eq!(admission.admit(ip("192.0.2.2")).err(), Some(Full::Sessions));
        let more = AdmissionLimits {
            sessions: 2,
            unconnected_per_address: 2,
        };
        admission.set_limits(more);
        let two = admission.admit(ip("192.0.2.1")).unwrap();
        admission.set_limits(AdmissionLimits {
            sessions: 1,
            ..more
        });
        drop(two);
        assert_eq!(admission.admit(ip("192.0.2.2")).err(), Some(Full::Sessions));
        drop(one);
        assert!(admission.admit(ip("192.0.2.2")).is_ok());
    }

    #[test]
    fn five_hundred_viewers_of_one_school_come_at_once() {
        let admission = Admission::new(AdmissionLimits::default());
        let school: Result<Vec<_>, _> =
            (0..500).map(|_| admission.admit(ip("192.0.2.1"))).collect();
        assert!(school.is_ok());
    }

    proptest! {
        /// Whatever comes, connects and goes: no more than the limits, and nothing is left when all have gone.
        #[test]
        fn counts_are_of_those_who_are_there(steps in proptest::collection::vec((0u8..4, 0u8..3, any::<usize>()), 0..200)) {
            let admission = admission(10, 3);
            let mut places: Vec<(u8, bool, Admitted)> = Vec::new();
            for (step, host, pick) in steps {
                if step < 2 {
                    let unconnected = places.iter().filter(|(h, connected, _)| *h == host && !connected).count();
                    let expected = if places.len() >= 10 {
                        Some(Full::Sessions)
                    } else {
                        (unconnected >= 3).then_some(Full::Address)
                    };
                    match admission.admit(ip(&format!("192.0.2.{host}"))) {
                        Ok(place) => {
                            prop_assert_eq!(expected, None);
                            places.push((host, false, place));
                        }
                        Err(full) => prop_assert_eq!(expected, Some(full)),
                    }
                } else if !places.is_empty() {
                    let index = pick % places.len();
                    if step == 2 {
                        places[index].1 = true;
                        places[index].2.set_connected();
                    } else {
                        places.remove(index);
                    }
                }
            }
            places.clear();
            let counts = admission.lock();
            prop_assert!(counts.sessions == 0 && counts.unconnected.is_empty());
        }
    }
}
