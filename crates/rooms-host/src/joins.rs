// SPDX-License-Identifier: MPL-2.0

//! What joins take of the rooms' thread. Anybody may make up identities where guests are let in: so it is counted by address and of
//! all together, too, and who comes anew is refused where that has been too much. What an identity has taken is its debt by the next
//! connection as well ([`Share`](crate::share::Share)).

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sfu_engine::AddressKey;
use sfu_rooms::Refused;

/// The thread may be at work for joins in one part of so many, beyond what they may take at once. A join takes some 2 ms, 10 ms on a
/// busy machine or in a crowd; a school has one address. Estimates: nobody has measured a school.
const OF_ADDRESS: Bound = Bound {
    parts: 4,
    at_once: Duration::from_secs(2),
};
const OF_ALL: Bound = Bound {
    parts: 2,
    at_once: Duration::from_secs(4),
};
/// There is no look at fewer for those that are over.
const FEW: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Bound {
    parts: u32,
    at_once: Duration,
}

impl Bound {
    fn is_reached(self, now: Instant, even: Instant) -> bool {
        even > now + self.at_once * self.parts
    }
}

/// Until when what each has taken is made up for.
#[derive(Debug)]
struct Debts<K> {
    until: HashMap<K, Instant>,
    /// There were so many that are not over when it was looked last.
    kept: usize,
}

impl<K: Eq + Hash> Debts<K> {
    fn new() -> Self {
        Self {
            until: HashMap::new(),
            kept: 0,
        }
    }

    fn of(&self, who: &K, now: Instant) -> Instant {
        self.until.get(who).map_or(now, |until| now.max(*until))
    }

    fn set(&mut self, now: Instant, who: K, until: Instant) {
        if self.until.len() > 2 * self.kept.max(FEW) {
            self.until.retain(|_, until| *until > now);
            self.kept = self.until.len();
        }
        if until > now {
            self.until.insert(who, until);
        }
    }
}

/// A room, and an identity in it.
pub(crate) type Who = (String, String);

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Joins {
    identities: Debts<Who>,
    addresses: Debts<AddressKey>,
    all: Instant,
}

impl Joins {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            identities: Debts::new(),
            addresses: Debts::new(),
            all: now,
        }
    }

    /// Whether somebody may come from there now.
    pub(crate) fn may(&self, now: Instant, address: Option<IpAddr>) -> Result<(), Refused> {
        let of_address = address.map(|address| self.addresses.of(&address.into(), now));
        let refused = |status, reason: &str| Refused {
            status,
            reason: reason.into(),
        };
        if of_address.is_some_and(|even| OF_ADDRESS.is_reached(now, even)) {
            return Err(refused(
                429,
                "too many join from this address: try again later",
            ));
        }
        if OF_ALL.is_reached(now, self.all) {
            return Err(refused(503, "too many join: try again later"));
        }
        Ok(())
    }

    /// Somebody has come from there, which took so long.
    pub(crate) fn spend(&mut self, now: Instant, address: Option<IpAddr>, time: Duration) {
        self.all = self.all.max(now) + time * OF_ALL.parts;
        if let Some(address) = address.map(AddressKey::from) {
            let even = self.addresses.of(&address, now) + time * OF_ADDRESS.parts;
            self.addresses.set(now, address, even);
        }
    }

    /// Until when what an identity has taken by its last connection is made up for.
    pub(crate) fn debt(&self, now: Instant, who: &Who) -> Instant {
        self.identities.of(who, now)
    }

    /// That is its debt now.
    pub(crate) fn owe(&mut self, now: Instant, who: Who, until: Instant) {
        self.identities.set(now, who, until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(5);

    /// Joins of so long each as often as they are let in, for a minute. Returns how long the thread was at work for them.
    fn minute(joins: &mut Joins, began: Instant, address: impl Fn(u32) -> IpAddr) -> Duration {
        let (mut now, mut at_work, mut n) = (began, Duration::ZERO, 0);
        while now < began + Duration::from_secs(60) {
            n += 1;
            now += STEP;
            let from = Some(address(n));
            if joins.may(now, from).is_ok() {
                joins.spend(now, from, STEP);
                at_work += STEP;
            }
        }
        at_work
    }

    #[test]
    fn joins_of_one_address_and_of_all_have_a_part_of_the_time() {
        let began = Instant::now();
        let one = |_| IpAddr::from([192, 0, 2, 1]);
        let each = |n: u32| IpAddr::from(n.to_be_bytes());
        let mut joins = Joins::new(began);
        let of_one = minute(&mut joins, began, one);
        let most = Duration::from_secs(60) / 4 + Duration::from_secs(2);
        assert!(
            of_one <= most + STEP && of_one > most - STEP * 2,
            "{of_one:?}"
        );
        // Others come in beside it, and are held together.
        let now = began + Duration::from_secs(60);
        assert!(joins.may(now, Some(one(0))).is_err());
        assert!(joins.may(now, Some(each(1))).is_ok());
        assert!(joins.may(now, None).is_ok());
        let of_all = minute(&mut Joins::new(began), began, each);
        let most = Duration::from_secs(60) / 2 + Duration::from_secs(4);
        assert!(
            of_all <= most + STEP && of_all > most - STEP * 2,
            "{of_all:?}"
        );
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut now = Instant::now();
        let mut joins = Joins::new(now);
        for n in 0..50_000_u32 {
            let address = IpAddr::from(n.to_be_bytes());
            joins.spend(now, Some(address), STEP);
            let who = ("r".to_owned(), n.to_string());
            joins.owe(now, who.clone(), now + STEP);
            assert_eq!(joins.debt(now, &who), now + STEP);
            now += STEP;
        }
        assert!(joins.addresses.until.len() <= 2 * FEW + 1);
        assert!(joins.identities.until.len() <= 2 * FEW + 1);
    }
}
