// SPDX-License-Identifier: MPL-2.0

//! A shard: the viewers that one thread serves over one UDP socket, without the thread and the socket.
//!
//! Sans-IO: commands, datagrams and the time go in; datagrams and the next deadline come out. A packet enters a shard
//! once and fans out inside it. The driver ([`crate::driver`]) owns the thread; simulations call it directly.

mod backlog;
mod both;
mod budget;
mod contact;
mod downlink;
mod fanout;
mod handover;
mod history;
mod ingest;
mod intake;
mod member;
mod outbox;
mod outgoing;
mod policer;
mod published;
mod remb;
mod ring;
mod seats;
#[cfg(test)]
mod tests;
mod timeline;
mod timers;
mod username;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

pub use ingest::PeerFeedback;
pub use outbox::{Datagrams, Outbox, Progress};
pub use published::{Publication, PublicationId};

use crate::ids::SessionId;
use crate::queue::{ShardCommand, ShardQueue};
use crate::session::SessionShared;
use crate::stats::{Carried, Counters};
use crate::stream::Viewing;
use crate::transport::patch::{Fragment, PatchError};
use crate::transport::{PatchOutcome, PublisherTransport, Taken, ViewerTransport};
use both::Both;
use downlink::Downlink;
use fanout::Waiting;
use ingest::Ingest;
use intake::Intake;
use member::Member;
use seats::{Attached, Seat, Viewer};
use timers::Timers;
use username::Stun;

/// Sends what the network takes of what is to be sent, and leaves the rest. Returns the time afterwards.
pub type Send<'a> = dyn FnMut(&mut Outbox) -> Instant + 'a;

/// Sessions that one call ends, of those that time out together: 1.5 ms (4,000 took 94 ms), and media has its turn between.
const ENDED_A_TURN: usize = 64;

/// What belongs to nobody is told once in this time.
const COMPLAINT: Duration = Duration::from_secs(1);

/// Datagrams to one viewer that its path does not carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TooLarge {
    /// How many there were.
    pub datagrams: u64,
    /// Octets that the path carries, with the headers of IP and UDP, where that is known.
    pub mtu: Option<u32>,
}

/// What becomes of a session after it was drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It goes on, and wants to be called at this time.
    Lives(Instant),
    /// It is over.
    Over,
}

/// See the module's description.
#[derive(Debug)]
pub struct Shard {
    /// Our own queue, to be attached to streams.
    queue: ShardQueue,
    counters: Arc<Counters>,
    members: Slab<Member>,
    streams: Slab<Attached>,
    by_key: HashMap<u64, usize>,
    by_session: HashMap<SessionId, usize>,
    by_address: HashMap<SocketAddr, usize>,
    by_ufrag: HashMap<String, usize>,
    timers: Timers,
    /// When keyframe requests that streams hold back are due.
    keyframe_timers: Timers,
    outbox: Outbox,
    /// Frames that not all viewers have yet, since the network does not take as much at once.
    waiting: Waiting,
    stopped: bool,
    /// Sessions to be ended at the end of the call that found them over.
    over: Vec<usize>,
    /// When it was last told what belongs to nobody.
    complained: Option<Instant>,
    received: Carried,
}

impl Shard {
    /// A shard without viewers. `queue` is the way into it, `max_segments` how many datagrams go into one send.
    pub fn new(queue: ShardQueue, counters: Arc<Counters>, max_segments: usize) -> Self {
        Self {
            queue,
            counters,
            members: Slab::new(),
            streams: Slab::new(),
            by_key: HashMap::new(),
            by_session: HashMap::new(),
            by_address: HashMap::new(),
            by_ufrag: HashMap::new(),
            timers: Timers::default(),
            keyframe_timers: Timers::default(),
            outbox: Outbox::new(max_segments),
            waiting: Waiting::default(),
            stopped: false,
            over: Vec::new(),
            complained: None,
            received: Carried::default(),
        }
    }

    /// Whether [`ShardCommand::Stop`] came.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// What has come so far.
    pub(crate) fn received(&self) -> Carried {
        self.received
    }

    /// Viewers in this shard.
    pub fn viewers(&self) -> usize {
        self.streams.iter().map(|(_, a)| a.viewers.len()).sum()
    }

    /// What is to be sent. Empty it after each call of the other methods.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Obeys a command.
    pub fn handle(&mut self, now: Instant, command: ShardCommand) {
        self.handle_sending(now, command, &mut |_| now);
    }

    /// Obeys a command, and hands over what is to be sent whenever that has become much: a keyframe for all viewers at
    /// once would be tens of megabytes, and late.
    pub fn handle_sending(&mut self, now: Instant, command: ShardCommand, send: &mut Send<'_>) {
        match command {
            ShardCommand::Media { stream, batch } => self.forward(now, stream, batch, send),
            ShardCommand::Subscribe {
                stream,
                transport,
                session,
            } => self.subscribe(now, stream, transport, session),
            ShardCommand::Watch {
                session,
                place,
                stream,
                figures,
            } => self.watch(now, session, place, stream, figures),
            ShardCommand::Slots { session, slots } => {
                if let Some(&index) = self.by_session.get(&session) {
                    self.visit(now, index, |member, _| {
                        if let Some(viewer) = member.viewer() {
                            viewer.set_slots(now, slots);
                        }
                        true
                    });
                }
            }
            ShardCommand::Publish {
                publications,
                transport,
                session,
                timeout,
                max_bitrate,
            } => {
                let ufrag = transport.local_ufrag().to_owned();
                let id = session.id();
                let ingest = Ingest::new(now, publications, transport, session, timeout);
                let member = Member::Publisher(Box::new(ingest));
                self.admit_publisher(now, id, ufrag, member, max_bitrate);
            }
            ShardCommand::Converse {
                publications,
                transport,
                session,
                timeout,
                max_bitrate,
            } => {
                let ufrag = transport.local_ufrag().to_owned();
                let id = session.id();
                let both = Both::new(now, publications, transport, session, timeout);
                if let Some(both) = both {
                    let member = Member::Both(Box::new(both));
                    self.admit_publisher(now, id, ufrag, member, max_bitrate);
                }
            }
            ShardCommand::Republish {
                session,
                tracks,
                publications,
            } => self.visit_publisher(now, session, |intake, transport| {
                intake.change(now, transport, tracks, publications);
            }),
            ShardCommand::AskPublisher {
                session,
                publication,
                layer,
            } => self.visit_publisher(now, session, |intake, transport| {
                intake.request_keyframe(now, transport, publication, layer);
            }),
            ShardCommand::SetPreference {
                session,
                place,
                preference,
            } => {
                if let Some(&index) = self.by_session.get(&session) {
                    self.visit(now, index, |member, _| {
                        if let Some(viewer) = member.viewer() {
                            viewer.set_preference(now, place, preference);
                        }
                        true
                    });
                }
            }
            ShardCommand::Data { session, command } => {
                if let Some(&index) = self.by_session.get(&session) {
                    self.visit(now, index, |member, _| {
                        member.transport_mut().data(now, command);
                        true
                    });
                }
            }
            ShardCommand::Patch {
                session,
                fragment,
                reply,
            } => {
                let outcome = self.patch(now, session, &fragment);
                // The asker may have given up waiting: then nobody wants the answer.
                let _ = reply.try_send(outcome);
            }
            ShardCommand::Close { session } => {
                if let Some(&index) = self.by_session.get(&session) {
                    self.end(now, index);
                }
            }
            ShardCommand::Stop => {
                // Media that waits is of no use any more, and goodbyes would wait behind it.
                self.outbox.clear();
                let all: Vec<usize> = self.members.iter().map(|(index, _)| index).collect();
                for index in all {
                    self.end(now, index);
                }
                self.stopped = true;
            }
        }
        self.bury();
    }

    /// Takes in a datagram from the socket.
    pub fn receive(
        &mut self,
        now: Instant,
        source: SocketAddr,
        destination: SocketAddr,
        data: &[u8],
    ) {
        self.counters.datagrams_in.add(1);
        self.received.datagrams += 1;
        self.received.octets += data.len() as u64;
        let stun = username::read(data);
        let Some(index) = self.find(source, stun) else {
            self.belongs_to_nobody(now, source, stun, data);
            return;
        };
        let spent = |m: &mut Member| m.contact_mut().allowance.is_spent(now);
        if self.members.get_mut(index).is_some_and(spent) {
            self.counters.datagrams_over_budget.add(1);
            return;
        }
        let mut taken = Taken::NotUnderstood;
        self.visit(now, index, |member, _| {
            taken = member.receive(now, source, destination, data);
            matches!(taken, Taken::Work(_) | Taken::Unproven(_))
        });
        match taken {
            Taken::NotUnderstood => self.counters.datagrams_invalid.add(1),
            Taken::OverBudget => self.counters.datagrams_over_budget.add(1),
            Taken::Work(work) => {
                self.counters.work_nanoseconds.add(work.nanos());
                self.counters.reports_beyond.add(work.beyond().into());
                let (dropped, forgotten) = (work.dropped().into(), work.forgotten().into());
                self.counters.publisher_packets_unrouted.add(dropped);
                self.counters.publisher_ssrcs_forgotten.add(forgotten);
                match stun {
                    Stun::Answer(_) => self.prove(now, index, source),
                    _ if !self.by_address.contains_key(&source) => {
                        self.remember_address(index, source);
                    }
                    _ => {}
                }
            }
            Taken::Unproven(work) => self.counters.work_nanoseconds.add(work.nanos()),
        }
        self.bury();
    }

    /// Counts what belongs to no session, and says so once a second.
    fn belongs_to_nobody(&mut self, now: Instant, source: SocketAddr, stun: Stun<'_>, data: &[u8]) {
        self.counters.datagrams_unknown.add(1);
        let (counter, reason) = match (stun, data.first()) {
            (Stun::For(_), _) => {
                let counter = &self.counters.datagrams_unknown_checks;
                (
                    Some(counter),
                    "its user fragment is no session's: that is over, or another shard's",
                )
            }
            (Stun::Other, Some(20..=63)) => {
                let counter = &self.counters.datagrams_unknown_dtls;
                (
                    Some(counter),
                    "DTLS from an address whose checks have not come",
                )
            }
            (Stun::Other, Some(128..=191)) => {
                let counter = &self.counters.datagrams_unknown_media;
                (
                    Some(counter),
                    "media from an address whose checks have not come",
                )
            }
            (Stun::Other, _) => (None, "no STUN, DTLS, RTP or RTCP"),
            _ => (
                None,
                "STUN that is broken, names nobody or was not asked for",
            ),
        };
        if let Some(counter) = counter {
            counter.add(1);
        }
        let is_recent = |at| now.saturating_duration_since(at) < COMPLAINT;
        if !self.complained.is_some_and(is_recent) {
            self.complained = Some(now);
            tracing::debug!(%source, reason, "a datagram was dropped: it belongs to no session");
        }
    }

    /// Whether an address is a session's.
    pub(crate) fn knows(&self, address: &SocketAddr) -> bool {
        self.by_address.contains_key(address)
    }

    /// Datagrams to somebody were too large: the viewer is told why it has no picture, or one that is worse.
    pub fn send_failed(&mut self, now: Instant, destination: SocketAddr, failure: TooLarge) {
        self.counters.datagrams_too_large.add(failure.datagrams);
        let Some(&index) = self.by_address.get(&destination) else {
            return;
        };
        self.visit(now, index, |member, _| {
            if let Some(viewer) = member.viewer() {
                viewer.send_failed(now, failure);
            }
            true
        });
        self.bury();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout_sending(now, &mut |_| now);
    }

    /// The same as [`handle_sending`](Self::handle_sending) for what is due.
    ///
    /// What is due waits while the network holds us up: it would only add to what waits.
    pub fn handle_timeout_sending(&mut self, mut now: Instant, send: &mut Send<'_>) {
        while self.over.len() < ENDED_A_TURN {
            if self.outbox.is_full() {
                now = send(&mut self.outbox);
                if self.outbox.is_full() {
                    break;
                }
            }
            let Some(index) = self.timers.pop_due(now) else {
                break;
            };
            self.visit(now, index, |member, outbox| {
                member.handle_timeout(now, outbox);
                true
            });
        }
        for _ in 0..self.streams.len() {
            let Some(attached) = self.keyframe_timers.pop_due(now) else {
                break;
            };
            self.poll_keyframes(now, attached);
        }
        self.bury();
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let due = [self.keyframe_timers.next(), self.timers.next()];
        due.into_iter().flatten().min()
    }

    fn subscribe(
        &mut self,
        now: Instant,
        stream: Option<Viewing>,
        transport: Box<dyn ViewerTransport>,
        session: Arc<SessionShared>,
    ) {
        let id = session.id();
        let ufrag = transport.local_ufrag().to_owned();
        let downlink = Downlink::new(now, transport, session.clone());
        let index = self.admit(now, id, ufrag, Member::Viewer(Box::new(downlink)));
        if let Some(stream) = stream {
            self.seat(now, index, 0, stream, session);
        }
    }

    /// Who publishes may send no more than this, in bit/s.
    fn admit_publisher(
        &mut self,
        now: Instant,
        id: SessionId,
        ufrag: String,
        mut member: Member,
        max_bitrate: Option<u64>,
    ) {
        if let (Some((intake, _)), Some(max_bitrate)) = (member.publisher(), max_bitrate) {
            intake.limit(now, max_bitrate, self.counters.clone());
        }
        self.admit(now, id, ufrag, member);
    }

    fn admit(&mut self, now: Instant, id: SessionId, ufrag: String, member: Member) -> usize {
        let index = self.members.insert(member);
        if let (Some(member), Ok(tag)) = (self.members.get_mut(index), u32::try_from(index)) {
            member.transport_mut().set_tag(tag);
        }
        self.by_session.insert(id, index);
        self.name(index, ufrag);
        self.counters.sessions_opened.add(1);
        self.visit(now, index, |_, _| true);
        index
    }

    /// From now on checks under this user fragment are a session's, and those under the one before it.
    fn name(&mut self, index: usize, ufrag: String) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let forgotten = member.contact_mut().rename(ufrag.clone());
        if let Some(ufrag) = forgotten {
            remove_own(&mut self.by_ufrag, &ufrag, index);
        }
        self.by_ufrag.insert(ufrag, index);
    }

    fn patch(
        &mut self,
        now: Instant,
        session: SessionId,
        fragment: &Fragment,
    ) -> Option<Result<PatchOutcome, PatchError>> {
        let index = *self.by_session.get(&session)?;
        let mut outcome = Err(PatchError::Invalid("it could not be processed".into()));
        self.visit(now, index, |member, _| {
            outcome = member.patch(now, fragment);
            true
        });
        if let Ok(PatchOutcome::Restarted { local_ufrag, .. }) = &outcome {
            self.name(index, local_ufrag.clone());
        }
        Some(outcome)
    }

    /// Whose datagram it is: by its name where it is STUN, else by its source address.
    fn find(&self, source: SocketAddr, stun: Stun<'_>) -> Option<usize> {
        let known = || self.by_address.get(&source).copied();
        match stun {
            Stun::Other | Stun::Nameless => known(),
            Stun::Broken => None,
            Stun::For(ufrag) => self.by_ufrag.get(ufrag).copied().or_else(known),
            Stun::Answer(tag) => usize::try_from(tag)
                .ok()
                .filter(|t| self.members.contains(*t)),
        }
    }

    fn remember_address(&mut self, index: usize, source: SocketAddr) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let forgotten = member.contact_mut().remember(source);
        self.by_address.insert(source, index);
        if let Some(address) = forgotten {
            remove_own(&mut self.by_address, &address, index);
        }
    }

    /// A session's own check was answered from an address: who is there has its password, and is no forger.
    ///
    /// Records and media have no name in them, so that an address is one session's. Most often the one before is dead, and
    /// the peer has joined anew; so the newer gets it at once, and the older is asked. If it answers, both are on one socket:
    /// then the older keeps it, and the newer is told to go.
    fn prove(&mut self, now: Instant, index: usize, source: SocketAddr) {
        if let Some(member) = self.members.get_mut(index) {
            let path = member.transport_mut().path();
            member.session().set_path(path);
        }
        let owner = self.by_address.get(&source).copied();
        let since = |index: usize| self.members.get(index).map(|m| m.contact().since());
        match owner.filter(|owner| *owner != index) {
            Some(owner) if since(owner) > since(index) => {
                tracing::info!(%source, "a session ended: another one speaks from its address, and is still there");
                self.counters.sessions_address_in_use.add(1);
                self.remember_address(index, source);
                self.end(now, owner);
            }
            Some(owner) => {
                self.remember_address(index, source);
                self.visit(now, owner, |member, _| {
                    member.transport_mut().ask(now, source);
                    true
                });
            }
            None => self.remember_address(index, source),
        }
    }

    /// Does something with a session and, where that returns `true`, lets it put out what is due.
    ///
    /// A panic in one session ends that session, not the shard with everybody else's.
    fn visit(
        &mut self,
        now: Instant,
        index: usize,
        act: impl FnOnce(&mut Member, &mut Outbox) -> bool,
    ) {
        let Some(member) = self.members.get_mut(index) else {
            return;
        };
        let (outbox, streams) = (&mut self.outbox, &self.streams);
        let fate = catch_unwind(AssertUnwindSafe(|| {
            act(member, outbox).then(|| member.drain(now, outbox, streams))
        }));
        match fate {
            Ok(Some(Fate::Lives(at))) => self.timers.set(index, at),
            Ok(Some(Fate::Over)) => self.over.push(index),
            Ok(None) => return,
            Err(_) => {
                self.counters.sessions_failed.add(1);
                self.over.push(index);
            }
        }
        let Some(viewer) = member.viewer() else {
            return;
        };
        let counted = viewer.take_counts();
        self.counters.packets_out.add(counted.packets);
        self.counters.packets_late.add(counted.late);
        if counted.keyframe_requests > 0 {
            self.counters
                .keyframe_requests
                .add(counted.keyframe_requests);
        }
        if counted.keyframes_asked > 0 {
            self.poll_keyframes_of(now, index);
        }
    }

    /// Does something with a session that publishes.
    fn visit_publisher(
        &mut self,
        now: Instant,
        session: SessionId,
        act: impl FnOnce(&mut Intake, &mut dyn PublisherTransport),
    ) {
        if let Some(&index) = self.by_session.get(&session) {
            self.visit(now, index, |member, _| {
                if let Some((intake, transport)) = member.publisher() {
                    act(intake, transport);
                }
                true
            });
        }
    }

    /// Ends a session that the viewer or the server closes: tells the peer, then forgets it.
    fn end(&mut self, now: Instant, index: usize) {
        self.visit(now, index, |member, _| {
            member.close();
            true
        });
        self.over.push(index);
    }

    fn bury(&mut self) {
        while let Some(index) = self.over.pop() {
            self.unseat_all(index);
            let Some(member) = self.members.try_remove(index) else {
                continue;
            };
            self.by_session.remove(&member.session().id());
            for address in member.contact().addresses() {
                remove_own(&mut self.by_address, address, index);
            }
            for ufrag in member.contact().ufrags() {
                remove_own(&mut self.by_ufrag, ufrag, index);
            }
            self.timers.remove(index);
            self.counters.sessions_closed.add(1);
        }
    }
}

/// Forgets whose a name or an address is, unless it has become another session's.
fn remove_own<K, Q>(owners: &mut HashMap<K, usize>, key: &Q, index: usize)
where
    K: std::borrow::Borrow<Q> + std::hash::Hash + Eq,
    Q: std::hash::Hash + Eq + ?Sized,
{
    if owners.get(key) == Some(&index) {
        owners.remove(key);
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        for (_, attached) in &self.streams {
            attached.stream.detach(&self.queue);
        }
    }
}
