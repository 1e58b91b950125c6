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

/// The thread may be at work for joins in some parts of so many, beyond what they may take at once. A join takes some 2 ms, 10 ms on
/// a busy machine or in a crowd; a school has one address. Estimates: nobody has measured a school.
const OF_ADDRESS: Bound = Bound {
    parts: 1,
    of: 4,
    at_once: Duration::from_secs(2),
};
/// Of all together, where an address has not made up for its own: two that take all that they may do not keep everybody else out.
const OF_ALL: Bound = Bound {
    parts: 1,
    of: 2,
    at_once: Duration::from_secs(4),
};
/// Of all together, whoever comes: there may be any number of addresses.
const CEILING: Bound = Bound {
    parts: 3,
    of: 4,
    at_once: Duration::from_secs(4),
};
/// There is no look at fewer for those that are over.
const FEW: usize = 1_024;

#[derive(Debug, Clone, Copy)]
struct Bound {
    parts: u32,
    of: u32,
    at_once: Duration,
}

impl Bound {
    /// In which time that is made up for.
    fn debt(self, time: Duration) -> Duration {
        time * self.of / self.parts
    }

    fn is_reached(self, now: Instant, even: Instant) -> bool {
        even > now + self.debt(self.at_once)
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
    /// Until when what all have taken is made up for, by [`OF_ALL`] and by [`CEILING`].
    all: Instant,
    whoever: Instant,
}

impl Joins {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            identities: Debts::new(),
            addresses: Debts::new(),
            all: now,
            whoever: now,
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
        // Of whom no address is known that may be anybody's.
        let has_debt = of_address.is_none_or(|even| even > now);
        let is_too_much =
            CEILING.is_reached(now, self.whoever) || has_debt && OF_ALL.is_reached(now, self.all);
        if is_too_much {
            return Err(refused(503, "too many join: try again later"));
        }
        Ok(())
    }

    /// Somebody has come from there, which took so long.
    pub(crate) fn spend(&mut self, now: Instant, address: Option<IpAddr>, time: Duration) {
        // Who is let in beyond that bound does not keep those out any longer whom it is for.
        if !OF_ALL.is_reached(now, self.all) {
            self.all = self.all.max(now) + OF_ALL.debt(time);
        }
        self.whoever = self.whoever.max(now) + CEILING.debt(time);
        if let Some(address) = address.map(AddressKey::from) {
            let even = self.addresses.of(&address, now) + OF_ADDRESS.debt(time);
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
        let most = Duration::from_secs(60) * 3 / 4 + Duration::from_secs(4);
        assert!(
            of_all <= most + STEP && of_all > most - STEP * 2,
            "{of_all:?}"
        );
        // Where nobody knows from where they come, they are as one that has a debt.
        let (mut joins, mut of_unknown) = (Joins::new(began), Duration::ZERO);
        let mut now = began;
        while now < began + Duration::from_secs(60) {
            now += STEP;
            if joins.may(now, None).is_ok() {
                joins.spend(now, None, STEP);
                of_unknown += STEP;
            }
        }
        let most = Duration::from_secs(60) / 2 + Duration::from_secs(4);
        assert!(
            of_unknown <= most + STEP && of_unknown > most - STEP * 2,
            "{of_unknown:?}"
        );
    }

    /// Two addresses from which is joined as often as they are let in, and somebody who comes now and then from elsewhere.
    #[test]
    fn two_addresses_keep_nobody_else_out() {
        let began = Instant::now();
        let mut joins = Joins::new(began);
        let address = |n: u32| Some(IpAddr::from(n.to_be_bytes()));
        let (mut now, mut of_two, mut refused) = (began, Duration::ZERO, 0);
        for n in 0..12_000_u32 {
            now += STEP;
            let from = address(n % 2);
            match joins.may(now, from) {
                Ok(()) => {
                    joins.spend(now, from, STEP);
                    of_two += STEP;
                }
                Err(_) => refused += 1,
            }
            if n % 200 == 0 {
                let from = address(2 + n / 200);
                assert_eq!(joins.may(now, from), Ok(()), "{n}");
                joins.spend(now, from, STEP);
            }
        }
        assert!(
            refused > 0 && of_two > Duration::from_secs(25),
            "{of_two:?}"
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
