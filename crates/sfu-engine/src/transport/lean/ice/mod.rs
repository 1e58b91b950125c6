// SPDX-License-Identifier: MPL-2.0

//! Which way to a peer is used: what a server needs of ICE (RFC 8445), with consent (RFC 7675). Called by the connection.
//!
//! We tell peers that we are lite, so that they control and check, and we need not know their candidates. But nothing but STUN
//! goes where our own check was not answered: whoever knows a session's password can write any address into a datagram.
//! Browsers, libnice, Pion, aioice and `str0m` answer the checks of a lite peer like those of any other. A peer that is itself
//! lite never checks: then we control.
//!
//! Each message costs the same whatever came before it: there are at most [`PAIRS`] pairs, of which the oldest makes room.

mod dropped;
mod stun;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use is::IceCreds;

pub(crate) use dropped::{Dropped, counts as dropped_counts};
use stun::{Class, Id, Message, Role, Writer};

/// Pairs of addresses that a session knows.
pub(super) const PAIRS: usize = 16;
/// Candidates that a session takes in all.
const REMOTES: usize = 30;
/// Without an answer for so long nothing is sent any more (RFC 7675, section 5.1).
const CONSENT: Duration = Duration::from_secs(30);
/// Consent is asked for this often, give or take a fifth.
const RENEW: Duration = Duration::from_secs(5);
/// A check of a way that may be new to us is sent again after this time, and after twice that.
const AGAIN: Duration = Duration::from_millis(250);
/// How often a check is sent: what a forged request brings its victim, beside one answer.
const SENDS: u8 = 4;
/// An answer that is younger is not asked for again because of a request.
const FRESH: Duration = Duration::from_secs(4);
/// A way that answers nothing for so long gives way to another that does.
const SILENT: Duration = Duration::from_secs(12);
/// The same where the peer has been heard from somewhere else.
const DOUBT: Duration = Duration::from_millis(1_500);
/// The priority that our checks tell: peer-reflexive, of the first component.
const PRIORITY: u32 = 110 << 24 | 65_535 << 8 | 255;

/// The addresses between which datagrams travel. The local one is where they arrive, whatever address was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

#[derive(Debug)]
struct Pair {
    path: Path,
    /// Our credentials under which the peer knows it.
    generation: u32,
    /// The peer speaks under its credentials before the last restart. In the middle of one each side may have changed alone.
    theirs_before: bool,
    /// The peer's last authentic message.
    heard: Instant,
    /// Its last answer.
    answered: Option<Instant>,
    /// The number of its nomination; 0 is none.
    nomination: u32,
    /// Our checks that may still be answered, the newest first.
    open: [Option<[u8; 8]>; 2],
    sends: u8,
    due: Option<Instant>,
    /// Our check nominates it.
    nominating: bool,
    /// When the peer was first heard from somewhere else, and this one asked because of it.
    doubted: Option<Instant>,
}

impl Pair {
    fn is_valid(&self, now: Instant) -> bool {
        self.answered.is_some_and(|at| now < at + CONSENT)
    }

    /// It answers, as far as is known.
    fn is_lively(&self, now: Instant) -> bool {
        let has_answered = |at: Instant| self.answered.is_some_and(|answered| answered >= at);
        let is_doubted = |at: Instant| now >= at + DOUBT && !has_answered(at);
        self.answered.is_some_and(|at| now < at + SILENT) && !self.doubted.is_some_and(is_doubted)
    }
}

#[derive(Debug)]
struct Credentials {
    local: IceCreds,
    remote: IceCreds,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Agent {
    /// By which the shard knows whose an answer is.
    tag: u32,
    tie: u64,
    controlling: bool,
    credentials: Credentials,
    /// Those before the last restart: the way that they found is used until there is a newer one.
    before: Option<Credentials>,
    generation: u32,
    pairs: Vec<Pair>,
    remotes: usize,
    selected: Option<Path>,
    nominations: u32,
    /// Checks so far, which spreads them in time.
    checks: u32,
    out: Vec<(Path, Vec<u8>)>,
    /// What the next message is written into: asking for consent again allocates nothing.
    spare: Vec<u8>,
}

impl Agent {
    pub(super) fn new(local: IceCreds, remote: IceCreds, peer_is_lite: bool) -> Self {
        Self {
            tag: 0,
            tie: u64::from_be_bytes(random()),
            controlling: peer_is_lite,
            credentials: Credentials { local, remote },
            before: None,
            generation: 0,
            pairs: Vec::new(),
            remotes: 0,
            selected: None,
            nominations: 0,
            checks: 0,
            out: Vec::new(),
            spare: Vec::new(),
        }
    }

    pub(super) fn set_tag(&mut self, tag: u32) {
        self.tag = tag;
    }

    /// Where everything but STUN goes.
    pub(super) fn path(&self) -> Option<Path> {
        self.selected
    }

    /// A message came. An error says why it was dropped; nothing has changed then.
    pub(super) fn receive(&mut self, now: Instant, path: Path, data: &[u8]) -> Result<(), Dropped> {
        let message = Message::read(data).map_err(Dropped::Malformed)?;
        match message.class {
            Class::Request => self.request(now, path, &message),
            Class::Success | Class::Failure => self.answer(now, path, &message),
            Class::Indication => Err(Dropped::Indication),
        }
    }

    fn request(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Result<(), Dropped> {
        let ufrag = message.ufrag.ok_or(Dropped::Nameless)?;
        let is_of = |c: &Credentials| c.local.ufrag == ufrag;
        let (credentials, generation) = match &self.before {
            _ if is_of(&self.credentials) => (&self.credentials, self.generation),
            Some(before) if is_of(before) => (before, self.generation.wrapping_sub(1)),
            _ => return Err(Dropped::OtherSession),
        };
        let password = credentials.local.pass.clone();
        if !message.is_authentic(&password) {
            return Err(Dropped::Integrity);
        }
        if message.unknown().next().is_some() {
            let refusal = self
                .writer(Class::Failure, &message.id)
                .error(420, "Unknown Attribute")
                .unknown(message.unknown());
            self.out.push((path, refusal.finish(&password)));
            return Ok(());
        }
        if self.is_conflict(message) {
            let refusal = self.writer(Class::Failure, &message.id);
            let refusal = refusal.error(487, "Role Conflict");
            self.out.push((path, refusal.finish(&password)));
            return Ok(());
        }
        let answer = self.writer(Class::Success, &message.id);
        let answer = answer.mapped(path.remote);
        self.out.push((path, answer.finish(&password)));
        let is_known = self.pairs.iter().any(|p| p.path.remote == path.remote);
        let index = self.pair(now, path, generation);
        if !is_known {
            // A NAT may have given the peer another port, and not every peer nominates once more.
            self.doubt(now);
        }
        let is_current = generation == self.generation;
        let Some(pair) = self.pairs.get_mut(index) else {
            return Ok(());
        };
        pair.heard = now;
        pair.generation = generation;
        let before = self.before.as_ref();
        let before = before.is_some_and(|c| c.remote.ufrag == message.theirs);
        pair.theirs_before = before && self.credentials.remote.ufrag != message.theirs;
        if message.use_candidate && is_current && !self.controlling {
            // The newest wins (RFC 8445, section 8.1.1: a later one replaces it).
            self.nominations += 1;
            pair.nomination = self.nominations;
        }
        let is_asked = pair.due.is_some() && pair.sends > 0;
        let is_fresh = pair.answered.is_some_and(|at| now < at + FRESH);
        if !is_asked && !is_fresh {
            self.begin_check(now, index);
        }
        self.select(now);
        Ok(())
    }

    fn writer(&mut self, class: Class, id: &Id) -> Writer {
        Writer::new(std::mem::take(&mut self.spare), class, id)
    }

    /// Both sides may believe that they control, or that they don't (RFC 8445, section 7.3.1.1).
    fn is_conflict(&mut self, message: &Message<'_>) -> bool {
        match (message.role, self.controlling) {
            // Who speaks to a lite agent controls.
            (Some(Role::Controlled(_)), false) => true,
            (Some(Role::Controlling(theirs)), true) => {
                self.controlling = self.tie >= theirs;
                self.controlling
            }
            _ => false,
        }
    }

    fn answer(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Result<(), Dropped> {
        let number = message
            .id
            .get(4..)
            .and_then(|n| <[u8; 8]>::try_from(n).ok());
        let asked = |pair: &Pair| number.is_some() && pair.open.contains(&number);
        let index = self.pairs.iter().position(asked);
        let index = index.ok_or(Dropped::Unasked)?;
        let is_theirs = |c: &Credentials| message.is_authentic(&c.remote.pass);
        if !is_theirs(&self.credentials) && !self.before.as_ref().is_some_and(is_theirs) {
            return Err(Dropped::Integrity);
        }
        let pair = self.pairs.get_mut(index).ok_or(Dropped::Unasked)?;
        if pair.path.remote != path.remote {
            return Err(Dropped::Elsewhere);
        }
        if message.class == Class::Failure {
            return Err(Dropped::Refused);
        }
        // The other one may be on its way back, too.
        for open in pair.open.iter_mut().filter(|open| **open == number) {
            *open = None;
        }
        pair.answered = Some(now);
        pair.heard = now;
        pair.path.local = path.local;
        pair.sends = 0;
        pair.due = None;
        if std::mem::take(&mut pair.nominating) {
            self.nominations += 1;
            pair.nomination = self.nominations;
        } else if self.controlling && self.selected.is_none() {
            pair.nominating = true;
            self.begin_check(now, index);
        }
        self.select(now);
        Ok(())
    }

    /// The newest nomination of a way that answers; without one the first such way. One that has fallen silent is kept as long
    /// as there is consent, and no other.
    fn select(&mut self, now: Instant) {
        let lively = self.pairs.iter().filter(|p| p.is_lively(now));
        let newest = lively.max_by_key(|p| (p.nomination, Some(p.path) == self.selected));
        let mut current = self.pairs.iter();
        let current = current.find(|p| Some(p.path) == self.selected && p.is_valid(now));
        let chosen = newest.or(current);
        let chosen = chosen.map(|pair| pair.path);
        if chosen != self.selected {
            tracing::debug!(from = ?self.selected, to = ?chosen, "another way to a peer");
            self.selected = chosen;
        }
        self.schedule(now);
    }

    /// The selected way is asked for consent now and then.
    fn schedule(&mut self, now: Instant) {
        let selected = self.selected;
        let Some(pair) = self.pairs.iter_mut().find(|p| Some(p.path) == selected) else {
            return;
        };
        if pair.due.is_none() {
            // The moments of many sessions must not fall together; who knows them gains nothing.
            let mixed = (u32::from(pair.path.remote.port()) ^ self.checks.rotate_left(16))
                .wrapping_mul(0x9e37_79b9);
            let spread = RENEW.mul_f64(0.8 + 0.4 * f64::from(mixed >> 16) / 65_536.0);
            pair.due = Some(pair.answered.unwrap_or(now).max(now) + spread);
            pair.sends = 0;
        }
    }

    /// The pair of these addresses. A new one takes the place of the one that was silent for longest.
    fn pair(&mut self, now: Instant, path: Path, generation: u32) -> usize {
        let of = |pair: &Pair| {
            pair.path.remote == path.remote
                && (pair.path.local == path.local || pair.path.local.ip().is_unspecified())
        };
        if let Some(index) = self.pairs.iter().position(of) {
            return index;
        }
        if self.pairs.len() >= PAIRS {
            let unused = self.pairs.iter().enumerate();
            let unused = unused.filter(|(_, pair)| Some(pair.path) != self.selected);
            if let Some((oldest, _)) = unused.min_by_key(|(_, pair)| pair.heard) {
                self.pairs.swap_remove(oldest);
            }
        }
        self.pairs.push(Pair {
            path,
            generation,
            theirs_before: false,
            heard: now,
            answered: None,
            nomination: 0,
            open: [None; 2],
            sends: 0,
            due: None,
            nominating: false,
            doubted: None,
        });
        self.pairs.len() - 1
    }

    fn begin_check(&mut self, now: Instant, index: usize) {
        if let Some(pair) = self.pairs.get_mut(index) {
            pair.open = [Some(random()), pair.open[0]];
            pair.sends = 0;
            self.send_check(index);
            if let Some(pair) = self.pairs.get_mut(index) {
                pair.sends = 1;
                pair.due = Some(now + AGAIN);
            }
        }
    }

    fn send_check(&mut self, index: usize) {
        self.checks = self.checks.wrapping_add(1);
        let Some(pair) = self.pairs.get(index) else {
            return;
        };
        let Some(number) = pair.open[0] else {
            return;
        };
        let of = |is_before: bool| match &self.before {
            Some(before) if is_before => before,
            _ => &self.credentials,
        };
        let local = &of(pair.generation != self.generation).local;
        let remote = &of(pair.theirs_before).remote;
        let mut id: Id = [0; 12];
        id[..4].copy_from_slice(&self.tag.to_be_bytes());
        id[4..].copy_from_slice(&number);
        let mut check = Writer::new(std::mem::take(&mut self.spare), Class::Request, &id)
            .username(&remote.ufrag, &local.ufrag)
            .priority(PRIORITY);
        if pair.nominating {
            check = check.use_candidate();
        }
        let check = check.role(match self.controlling {
            true => Role::Controlling(self.tie),
            false => Role::Controlled(self.tie),
        });
        self.out.push((pair.path, check.finish(&remote.pass)));
    }

    /// The peer speaks from somewhere new: is it still where it was? Asked once in [`FRESH`], whatever comes.
    fn doubt(&mut self, now: Instant) {
        let selected = self.selected;
        let may_ask = |pair: &Pair| pair.doubted.is_none_or(|at| now >= at + FRESH);
        let asked = |pair: &Pair| Some(pair.path) == selected && may_ask(pair);
        if let Some(index) = self.pairs.iter().position(asked) {
            self.pairs[index].doubted = Some(now);
            self.begin_check(now, index);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.pairs.len() {
            let Some(pair) = self.pairs.get_mut(index) else {
                break;
            };
            if pair.due.is_none_or(|at| at > now) {
                continue;
            }
            let is_selected = Some(pair.path) == self.selected;
            match pair.sends {
                0 if is_selected => {
                    // Consent: another question each time, which is not repeated (RFC 7675, section 5.1).
                    pair.open = [Some(random()), pair.open[0]];
                    pair.due = None;
                    self.send_check(index);
                }
                1..SENDS => {
                    pair.due = Some(now + AGAIN * (1 << pair.sends));
                    pair.sends += 1;
                    self.send_check(index);
                }
                _ => {
                    pair.due = None;
                    pair.sends = 0;
                }
            }
        }
        self.select(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.pairs.iter().filter_map(|pair| pair.due);
        let selected = self.pairs.iter().find(|p| Some(p.path) == self.selected);
        let until = selected
            .and_then(|pair| pair.answered)
            .map(|at| at + CONSENT);
        due.chain(until).min()
    }

    /// What is to be sent.
    pub(super) fn poll_transmit(&mut self) -> Option<(Path, Vec<u8>)> {
        // Their order does not matter to anybody but readers of traces.
        (!self.out.is_empty()).then(|| self.out.remove(0))
    }

    /// Takes back what a message was written into.
    pub(super) fn reuse(&mut self, data: Vec<u8>) {
        self.spare = data;
    }

    /// Asks at once whether the peer is still at an address; without one, at the one that is used.
    pub(super) fn ask(&mut self, now: Instant, remote: Option<SocketAddr>) {
        let remote = remote.or(self.selected.map(|path| path.remote));
        let asked = |pair: &Pair| Some(pair.path.remote) == remote;
        if let Some(index) = self.pairs.iter().position(asked) {
            self.begin_check(now, index);
        }
    }

    /// A candidate of the peer. Only one that never checks has to be checked.
    pub(super) fn add_remote(&mut self, now: Instant, remote: SocketAddr) {
        self.remotes += 1;
        if !self.controlling || self.remotes > REMOTES || self.pairs.len() >= PAIRS {
            return;
        }
        let any = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // The kernel knows from where; the answer tells.
        let local = SocketAddr::new(any, 0);
        let index = self.pair(now, Path { local, remote }, self.generation);
        self.begin_check(now, index);
    }

    /// New credentials on both sides. The way that is used remains until another one is nominated.
    pub(super) fn restart(&mut self, local: IceCreds, remote: IceCreds) {
        let credentials = Credentials { local, remote };
        self.before = Some(std::mem::replace(&mut self.credentials, credentials));
        self.generation = self.generation.wrapping_add(1);
        for pair in &mut self.pairs {
            pair.theirs_before = true;
        }
        self.remotes = 0;
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut octets = [0; N];
    // Without randomness there are no keys either.
    getrandom::fill(&mut octets).expect("the system has a source of randomness");
    octets
}
