// SPDX-License-Identifier: MPL-2.0

//! The HTTP connections that there are: how many, whose, what each is waiting for, and who makes room when they are full.
//!
//! Who lets us wait for a request makes room for newcomers: idle connections first, then those with half a head, then
//! those with half a body, and WebSockets in which nothing is under way, each time the one that has waited longest. So whoever opens connections and sends nothing takes
//! his own places. A WebSocket that makes room is told so, and has a moment more to say goodbye. Constant or logarithmic work for each change; nothing here is on a packet's way.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sfu_engine::AddressKey;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::limits::{self, Limits};
use super::requests::Requests;
use crate::properties::lock;

/// So many WebSockets that have made room may say goodbye at a time, beside all connections: others are cut.
const FAREWELLS: usize = 64;

/// What a connection is at. The first ones make room, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Phase {
    /// Between requests.
    Idle,
    /// The head of a request has begun, or the connection has.
    Head,
    /// The body of a request is to come.
    Body,
    /// A WebSocket is open, and nothing is under way in it.
    Open,
    /// We are to answer, or answer.
    Busy,
}

impl Phase {
    /// How long it may take. An answer may take as long as it is read; the kernel cuts who takes nothing of it.
    fn time(self) -> Option<Duration> {
        match self {
            Self::Idle => Some(limits::IDLE_TIME),
            Self::Head => Some(limits::HEAD_TIME),
            // Who reads the body answers before that.
            Self::Body => Some(limits::BODY_TIME * 2),
            // Who reads the WebSocket knows when its peer is gone.
            Self::Open | Self::Busy => None,
        }
    }
}

/// What happened to connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionCounts {
    /// Refused: all were busy.
    pub(super) refused_all: AtomicU64,
    /// Refused: all of that address were busy.
    pub(super) refused_address: AtomicU64,
    /// Ended to make room.
    pub(super) made_room: AtomicU64,
    /// Ended because they took too long.
    pub(super) timed_out: AtomicU64,
    /// TLS handshakes that came to nothing.
    pub(super) tls_failed: AtomicU64,
    /// Ended because the peer gave its requests up again and again.
    pub(super) given_up: AtomicU64,
}

impl ConnectionCounts {
    /// Name, description and value of each, for a metrics page.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        [
            (
                "connections_refused",
                "HTTP connections refused because all were busy (max-connections).",
                &self.refused_all,
            ),
            (
                "connections_refused_address",
                "HTTP connections refused because all of their address were busy (max-connections-per-address).",
                &self.refused_address,
            ),
            (
                "connections_made_room",
                "HTTP connections ended while they waited, to make room for others.",
                &self.made_room,
            ),
            (
                "connections_timed_out",
                "HTTP connections ended because a request did not come in its time.",
                &self.timed_out,
            ),
            (
                "connections_tls_failed",
                "TLS handshakes that came to nothing.",
                &self.tls_failed,
            ),
            (
                "connections_given_up",
                "HTTP/2 connections ended because their requests were given up again and again.",
                &self.given_up,
            ),
        ]
        .map(|(name, help, value)| (name, help, value.load(Relaxed)))
        .into_iter()
    }
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    All,
    Address,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    table: Mutex<Table>,
    pub(super) counts: ConnectionCounts,
    start: Instant,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: HashMap<u64, Entry>,
    by_address: HashMap<AddressKey, usize>,
    /// Requests under way beyond the first one of a connection (HTTP/2): each counts as a connection.
    more: usize,
    more_by_address: HashMap<AddressKey, usize>,
    /// Those that wait for something from the peer: what for, since which change, who.
    waiting: BTreeSet<(Phase, u64, u64)>,
    waiting_by_address: BTreeSet<(AddressKey, Phase, u64, u64)>,
    /// WebSockets that have made room and say goodbye.
    leaving: HashSet<u64>,
}

#[derive(Debug)]
struct Entry {
    /// `None` does not count for its address: a trusted proxy's.
    address: Option<AddressKey>,
    phase: Phase,
    since: u64,
    /// Its part of [`Table::more`].
    more: usize,
    task: Option<AbortHandle>,
    leave: Arc<Notify>,
}

/// One connection, as its task and its requests see it.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    peer: SocketAddr,
    connections: Arc<Connections>,
    phase: AtomicU8,
    /// In ms after the connections' start; 0 is none.
    deadline: AtomicU64,
    /// Whether it is encrypted, and HTTP/2.
    tls: AtomicBool,
    multiplexed: AtomicBool,
    /// Its peer has forfeited it.
    over: AtomicBool,
    requests: Mutex<Requests>,
    /// It has made room, and may say goodbye.
    leave: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            table: Mutex::default(),
            counts: ConnectionCounts::default(),
            start: Instant::now(),
        })
    }

    /// How many files may be read at a time.
    pub(super) fn files(&self) -> usize {
        self.limits.files
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.table).all.len()
    }

    /// A place for a connection, until it is dropped. `exempt`: it does not count for its address.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: SocketAddr,
        exempt: bool,
    ) -> Result<Arc<Connection>, NoRoom> {
        let address = (!exempt).then(|| AddressKey::from(peer.ip()));
        let mut table = lock(&self.table);
        if let Some(address) = address
            && table.of(address) >= self.limits.per_address
        {
            let Some(oldest) = table.oldest_of(address) else {
                self.counts.refused_address.fetch_add(1, Relaxed);
                return Err(NoRoom::Address);
            };
            self.cut(&mut table, oldest);
        }
        if table.all.len() + table.more >= self.limits.connections {
            let Some(oldest) = table.oldest() else {
                self.counts.refused_all.fetch_add(1, Relaxed);
                return Err(NoRoom::All);
            };
            self.cut(&mut table, oldest);
        }
        let leave = Arc::<Notify>::default();
        let id = table.insert(address, leave.clone());
        drop(table);
        let connection = Arc::new(Connection {
            id,
            peer,
            connections: self.clone(),
            phase: AtomicU8::new(Phase::Head as u8),
            deadline: AtomicU64::new(0),
            tls: AtomicBool::new(false),
            multiplexed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            requests: Mutex::default(),
            leave,
        });
        connection.set_deadline(Phase::Head.time());
        Ok(connection)
    }

    /// Ends the connection that has waited longest, if one waits: descriptors are needed.
    pub(super) fn make_room(&self) -> bool {
        let mut table = lock(&self.table);
        let oldest = table.oldest();
        if let Some(oldest) = oldest {
            // A goodbye would keep its descriptor.
            table.remove(oldest);
            self.counts.made_room.fetch_add(1, Relaxed);
        }
        oldest.is_some()
    }

    /// Ends all connections that wait for something from the peer, but for WebSockets, which say goodbye.
    pub(super) fn end_waiting(&self) {
        let mut table = lock(&self.table);
        while let Some(&(phase, _, oldest)) = table.waiting.first()
            && phase != Phase::Open
        {
            table.remove(oldest);
        }
    }

    fn cut(&self, table: &mut Table, id: u64) {
        table.make_leave(id);
        self.counts.made_room.fetch_add(1, Relaxed);
    }
}

impl Table {
    fn of(&self, address: AddressKey) -> usize {
        let of = |map: &HashMap<AddressKey, usize>| map.get(&address).copied().unwrap_or(0);
        of(&self.by_address) + of(&self.more_by_address)
    }

    /// One more request of a connection that has one under way. One that had to go has none.
    fn begin_more(&mut self, id: u64, limits: &Limits) -> Result<(), NoRoom> {
        let Some(address) = self.all.get(&id).map(|entry| entry.address) else {
            return Err(NoRoom::All);
        };
        if address.is_some_and(|address| self.of(address) >= limits.per_address) {
            return Err(NoRoom::Address);
        }
        if self.all.len() + self.more >= limits.connections {
            return Err(NoRoom::All);
        }
        self.more += 1;
        if let Some(address) = address {
            *self.more_by_address.entry(address).or_default() += 1;
        }
        if let Some(entry) = self.all.get_mut(&id) {
            entry.more += 1;
        }
        Ok(())
    }

    /// So many of them are over.
    fn end_more(&mut self, address: Option<AddressKey>, count: usize) {
        self.more -= count;
        if let Some(address) = address
            && let Some(of) = self.more_by_address.get_mut(&address)
        {
            *of -= count;
            if *of == 0 {
                self.more_by_address.remove(&address);
            }
        }
    }

    fn oldest(&self) -> Option<u64> {
        self.waiting.first().map(|(_, _, id)| *id)
    }

    fn oldest_of(&self, address: AddressKey) -> Option<u64> {
        let first = (address, Phase::Idle, 0, 0);
        let (of, _, _, id) = self.waiting_by_address.range(first..).next()?;
        (*of == address).then_some(*id)
    }

    fn insert(&mut self, address: Option<AddressKey>, leave: Arc<Notify>) -> u64 {
        self.next += 1;
        let id = self.next;
        let entry = Entry {
            address,
            phase: Phase::Busy,
            since: id,
            more: 0,
            task: None,
            leave,
        };
        self.all.insert(id, entry);
        if let Some(address) = address {
            *self.by_address.entry(address).or_default() += 1;
        }
        self.enter(id, Phase::Head);
        id
    }

    fn enter(&mut self, id: u64, phase: Phase) {
        self.next += 1;
        let since = self.next;
        let Some(entry) = self.all.get_mut(&id) else {
            return;
        };
        let (before, address) = ((entry.phase, entry.since), entry.address);
        (entry.phase, entry.since) = (phase, since);
        self.waiting.remove(&(before.0, before.1, id));
        if let Some(address) = address {
            let key = (address, before.0, before.1, id);
            self.waiting_by_address.remove(&key);
        }
        if phase != Phase::Busy {
            self.waiting.insert((phase, since, id));
            if let Some(address) = address {
                self.waiting_by_address.insert((address, phase, since, id));
            }
        }
    }

    /// Forgets a connection. Its task ends, at once or when its WebSocket has said goodbye.
    fn make_leave(&mut self, id: u64) {
        if self.leaving.len() < FAREWELLS
            && let Some(entry) = self.all.get_mut(&id)
            && entry.phase == Phase::Open
            && entry.task.take().is_some()
        {
            entry.leave.notify_one();
            self.leaving.insert(id);
        }
        self.remove(id);
    }

    /// Forgets a connection, and ends its task.
    fn remove(&mut self, id: u64) {
        self.enter(id, Phase::Busy);
        let Some(entry) = self.all.remove(&id) else {
            return;
        };
        self.end_more(entry.address, entry.more);
        if let Some(task) = entry.task {
            task.abort();
        }
        let Some(address) = entry.address else {
            return;
        };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Connection {
    /// The other end of it.
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The task to be ended when it has to make room. It may have to already.
    pub(super) fn set_task(&self, task: AbortHandle) {
        match lock(&self.connections.table).all.get_mut(&self.id) {
            Some(entry) => entry.task = Some(task),
            None => task.abort(),
        }
    }

    /// The handshake is over.
    pub(super) fn set_tls(&self, multiplexed: bool) {
        self.tls.store(true, Relaxed);
        self.multiplexed.store(multiplexed, Relaxed);
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.load(Relaxed)
    }

    /// Whether it is HTTP/2, which has many requests at a time.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.multiplexed.load(Relaxed)
    }

    /// Returns when it has made room for others, and is to say goodbye.
    pub(super) async fn is_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Whether it has to end.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// A request begins; its number. `None`: there are as many as there may be.
    pub(super) fn begin(&self, phase: Phase) -> Option<u64> {
        let mut requests = lock(&self.requests);
        if self.is_multiplexed() && requests.under_way() > 0 {
            let begun = lock(&self.connections.table).begin_more(self.id, &self.connections.limits);
            if let Err(why) = begun {
                let counts = &self.connections.counts;
                match why {
                    NoRoom::All => counts.refused_all.fetch_add(1, Relaxed),
                    NoRoom::Address => counts.refused_address.fetch_add(1, Relaxed),
                };
                return None;
            }
        }
        let number = requests.begin();
        drop(requests);
        self.enter(phase);
        Some(number)
    }

    /// A request is answered, or (not `answered`) given up. Nothing is to be waited for, unless another one has begun.
    pub(super) fn finish(&self, number: u64, answered: bool) {
        let mut requests = lock(&self.requests);
        if !requests.finish(number, answered) {
            return;
        }
        let (left, given_up) = (requests.under_way(), requests.is_given_up());
        let multiplexed = self.is_multiplexed();
        if left > 0 && multiplexed {
            let mut table = lock(&self.connections.table);
            // Without an entry all of them are forgotten already.
            let entry = table.all.get_mut(&self.id);
            let address = entry.map(|entry| {
                entry.more -= 1;
                entry.address
            });
            if let Some(address) = address {
                table.end_more(address, 1);
            }
        }
        drop(requests);
        if given_up && multiplexed && !self.over.swap(true, Relaxed) {
            self.connections.counts.given_up.fetch_add(1, Relaxed);
        }
        match left {
            0 => self.enter(Phase::Idle),
            // Whose body is to come has its own time.
            _ if multiplexed => self.enter(Phase::Busy),
            _ => {}
        }
    }

    /// The peer has taken what that request's answer gave last.
    pub(super) fn stream_takes(&self, number: u64) {
        lock(&self.requests).takes(number);
    }

    /// It is given more of it.
    pub(super) fn stream_waits(&self, number: u64) {
        lock(&self.requests).waits(number, Instant::now());
    }

    /// It is at this from now on.
    pub(super) fn enter(&self, phase: Phase) {
        if self.phase.swap(phase as u8, Relaxed) != phase as u8 {
            lock(&self.connections.table).enter(self.id, phase);
        }
        self.set_deadline(phase.time());
    }

    /// Octets came. Those of HTTP/2 may be anything: who sends no request goes on being idle.
    pub(super) fn received(&self) {
        if self.is_idle() && !self.is_multiplexed() {
            self.enter(Phase::Head);
        }
    }

    /// The peer took octets, or (`stuck`) takes none now. Until it has taken all it is not idle; the kernel cuts who takes
    /// nothing.
    pub(super) fn sent(&self, stuck: bool) {
        if self.is_idle() {
            self.set_deadline((!stuck).then_some(limits::IDLE_TIME));
        }
    }

    fn is_idle(&self) -> bool {
        self.phase.load(Relaxed) == Phase::Idle as u8
    }

    fn set_deadline(&self, time: Option<Duration>) {
        let deadline = time.map_or(0, |time| {
            let at = self.connections.start.elapsed() + time;
            u64::try_from(at.as_millis()).unwrap_or(u64::MAX).max(1)
        });
        self.deadline.store(deadline, Relaxed);
    }

    /// When it has taken too long: with what we wait for, or with taking what one of its answers gives.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadline = self.deadline.load(Relaxed);
        let deadline =
            (deadline > 0).then(|| self.connections.start + Duration::from_millis(deadline));
        if !self.is_multiplexed() {
            return deadline;
        }
        let stalled = lock(&self.requests).waits_since();
        let stalled = stalled.map(|since| since + limits::STALL_TIME);
        deadline.into_iter().chain(stalled).min()
    }

    /// It has taken too long.
    pub(super) fn count_timeout(&self) {
        let counts = &self.connections.counts;
        counts.timed_out.fetch_add(1, Relaxed);
    }

    /// It spoke no TLS, or none that we do.
    pub(super) fn count_failed_handshake(&self) {
        let counts = &self.connections.counts;
        counts.tls_failed.fetch_add(1, Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = lock(&self.connections.table);
        table.remove(self.id);
        table.leaving.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(host: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, host], 4711))
    }

    fn connections(connections: usize, per_address: usize) -> Arc<Connections> {
        Connections::new(Limits {
            connections,
            per_address,
            files: 8,
            media: 8,
        })
    }

    fn is_there(connection: &Connection) -> bool {
        let table = lock(&connection.connections.table);
        table.all.contains_key(&connection.id)
    }

    #[test]
    fn idle_ones_make_room_first_then_the_oldest_that_wait() {
        let all = connections(5, 5);
        let [open, body, head, idle, busy] =
            [1, 2, 3, 4, 5].map(|n| all.admit(peer(n), false).unwrap());
        open.enter(Phase::Open);
        body.enter(Phase::Body);
        idle.enter(Phase::Busy);
        idle.enter(Phase::Idle);
        busy.enter(Phase::Busy);
        let mut newcomers = Vec::new();
        for leaves in [&idle, &head, &body, &open] {
            assert!(is_there(leaves));
            newcomers.push(all.admit(peer(9), false).unwrap());
            newcomers.last().unwrap().enter(Phase::Busy);
            assert!(!is_there(leaves) && is_there(&busy));
        }
        assert_eq!(all.admit(peer(9), false).err(), Some(NoRoom::All));
        assert_eq!(all.count(), 5);
        assert!(!all.make_room());
    }

    #[tokio::test]
    async fn who_speaks_by_websocket_is_asked_to_leave_and_so_many_at_a_time() {
        let all = connections(1, 1_000);
        let mut gone = Vec::new();
        for number in 0..FAREWELLS + 2 {
            let task = tokio::spawn(std::future::pending::<()>());
            let connection = all.admit(peer(1), false).unwrap();
            connection.set_task(task.abort_handle());
            connection.enter(Phase::Open);
            gone.push((number, connection, task));
        }
        let (_, stays, _) = gone.pop().unwrap();
        assert!(is_there(&stays) && all.count() == 1);
        for (number, connection, task) in gone {
            if number < FAREWELLS {
                connection.is_to_leave().await;
                task.abort();
            }
            // Whom nobody asks is cut.
            assert!(task.await.unwrap_err().is_cancelled());
        }
        assert!(lock(&all.table).leaving.is_empty());
    }

    #[test]
    fn at_the_end_who_may_be_told_so_stays_a_moment() {
        let all = connections(9, 9);
        let phases = [
            Phase::Idle,
            Phase::Head,
            Phase::Body,
            Phase::Open,
            Phase::Busy,
        ];
        let each = phases.map(|phase| {
            let connection = all.admit(peer(1), false).unwrap();
            connection.enter(phase);
            connection
        });
        all.end_waiting();
        assert_eq!(
            each.map(|c| is_there(&c)),
            [false, false, false, true, true]
        );
    }

    #[test]
    fn an_address_makes_room_for_itself() {
        let all = connections(100, 2);
        let others: Vec<_> = (0..5).map(|n| all.admit(peer(n), false).unwrap()).collect();
        let one = all.admit(peer(9), false).unwrap();
        let two = all.admit(peer(9), false).unwrap();
        one.enter(Phase::Busy);
        let three = all.admit(peer(9), false).unwrap();
        assert!(is_there(&one) && !is_there(&two));
        three.enter(Phase::Busy);
        assert_eq!(all.admit(peer(9), false).err(), Some(NoRoom::Address));
        assert!(others.iter().all(|c| is_there(c)));
        // A proxy is many.
        let proxied: Result<Vec<_>, _> = (0..50).map(|_| all.admit(peer(9), true)).collect();
        assert!(proxied.is_ok());
    }

    #[test]
    fn each_phase_has_its_time() {
        let all = connections(4, 4);
        let connection = all.admit(peer(1), false).unwrap();
        let left = || {
            let left = connection
                .deadline()?
                .saturating_duration_since(Instant::now());
            Some((left.as_secs_f64()).round() as u64)
        };
        assert_eq!(left(), Some(10));
        connection.enter(Phase::Body);
        assert_eq!(left(), Some(30));
        connection.received();
        assert_eq!(left(), Some(30));
        connection.enter(Phase::Busy);
        assert_eq!(left(), None);
        connection.enter(Phase::Open);
        connection.received();
        assert_eq!(left(), None);
        connection.enter(Phase::Idle);
        assert_eq!(left(), Some(60));
        connection.sent(true);
        assert_eq!(left(), None);
        connection.sent(false);
        assert_eq!(left(), Some(60));
        connection.received();
        assert_eq!(left(), Some(10));
    }

    proptest! {
        /// Whatever happens: never more than the limits, newcomers get in while anybody waits, and nothing is left over.
        #[test]
        fn the_table_is_whole(steps in proptest::collection::vec((0u8..7, 0u8..3, any::<usize>()), 0..300)) {
            let all = connections(8, 5);
            let mut held: Vec<(u8, Arc<Connection>)> = Vec::new();
            for (step, host, pick) in steps {
                if step < 2 {
                    match all.admit(peer(host), false) {
                        Ok(connection) => held.push((host, connection)),
                        Err(no_room) => {
                            let busy = |(_, c): &&(u8, Arc<Connection>)| is_there(c) && c.phase.load(Relaxed) == Phase::Busy as u8;
                            let of = held.iter().filter(busy).filter(|(h, _)| *h == host || no_room == NoRoom::All).count();
                            prop_assert_eq!(of, if no_room == NoRoom::All { 8 } else { 5 });
                        }
                    }
                } else if !held.is_empty() {
                    let index = pick % held.len();
                    match step {
                        2 => held[index].1.enter(Phase::Busy),
                        3 => held[index].1.enter(Phase::Idle),
                        4 => held[index].1.received(),
                        5 => held[index].1.enter(Phase::Open),
                        _ => drop(held.remove(index)),
                    }
                }
                let table = lock(&all.table);
                prop_assert!(table.all.len() <= 8);
                prop_assert!(table.by_address.values().all(|n| *n <= 5));
                prop_assert_eq!(table.by_address.values().sum::<usize>(), table.all.len());
                let waiting = table.all.values().filter(|e| e.phase != Phase::Busy).count();
                prop_assert_eq!(table.waiting.len(), waiting);
                prop_assert_eq!(table.waiting_by_address.len(), waiting);
            }
            held.clear();
            let table = lock(&all.table);
            prop_assert!(table.all.is_empty() && table.by_address.is_empty());
            prop_assert!(table.waiting.is_empty() && table.waiting_by_address.is_empty());
        }
    }
}
