// SPDX-License-Identifier: MPL-2.0

//! An agent against peers of many kinds, and against whoever writes in their name.

use std::collections::HashSet;

use super::stun::Class;
use super::*;

const OURS: (&str, &str) = ("ours", "our-password-of-22-letters");
const THEIRS: (&str, &str) = ("theirs", "their-password-of-22-letters");

fn creds((ufrag, pass): (&str, &str)) -> IceCreds {
    IceCreds {
        ufrag: ufrag.into(),
        pass: pass.into(),
    }
}

fn remote(n: u32) -> SocketAddr {
    let [_, a, b, c] = (n / 50_000).to_be_bytes();
    SocketAddr::from(([10, a, b, c], (n % 50_000) as u16 + 1_000))
}

struct Peer {
    agent: Agent,
    now: Instant,
    /// The addresses that answer.
    there: HashSet<SocketAddr>,
    /// Messages to each address.
    sent: Vec<(SocketAddr, Vec<u8>)>,
}

impl Peer {
    fn new(is_lite: bool) -> Self {
        Self {
            agent: Agent::new(creds(OURS), creds(THEIRS), is_lite),
            now: Instant::now(),
            there: HashSet::new(),
            sent: Vec::new(),
        }
    }

    fn path(from: SocketAddr) -> Path {
        Path {
            local: "192.0.2.1:8189".parse().unwrap(),
            remote: from,
        }
    }

    fn receive(&mut self, from: SocketAddr, data: &[u8]) -> Result<(), &'static str> {
        let result = self.agent.receive(self.now, Self::path(from), data);
        self.answer();
        result.map_err(Dropped::as_str)
    }

    /// Who is there answers checks.
    fn answer(&mut self) {
        while let Some((path, data)) = self.agent.poll_transmit() {
            self.sent.push((path.remote, data.clone()));
            let message = Message::read(&data).expect("a message");
            if message.class != Class::Request || !self.there.contains(&path.remote) {
                continue;
            }
            let ours = Self::path(path.remote).local;
            let answer = Writer::new(Vec::new(), Class::Success, &message.id).mapped(ours);
            let answer = answer.finish(THEIRS.1);
            let result = self
                .agent
                .receive(self.now, Self::path(path.remote), &answer);
            assert_eq!(result, Ok(()));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now, "no time passes");
            self.now = at;
            self.agent.handle_timeout(at);
            self.answer();
        }
        self.now = end;
    }

    fn nominate(&mut self, from: SocketAddr) {
        let check = request().use_candidate().finish(OURS.1);
        assert_eq!(self.receive(from, &check), Ok(()));
    }

    fn remote(&self) -> Option<SocketAddr> {
        self.agent.path().map(|path| path.remote)
    }
}

fn request() -> Writer {
    Writer::new(Vec::new(), Class::Request, &[9; 12])
        .username(OURS.0, THEIRS.0)
        .priority(7)
        .role(Role::Controlling(1))
}

/// Answers of the kinds that there are.
fn codes(sent: &[(SocketAddr, Vec<u8>)]) -> Vec<(Class, Option<u16>)> {
    let read = |data: &Vec<u8>| Message::read(data).map(|m| (m.class, m.error)).unwrap();
    sent.iter().map(|(_, data)| read(data)).collect()
}

#[test]
fn forged_messages_change_nothing_and_bring_no_answer() {
    let bare = |class| Writer::new(Vec::new(), class, &[9; 12]);
    let mut cut = request().finish(OURS.1);
    cut.truncate(60);
    for (name, data) in [
        (
            "another password",
            request().use_candidate().finish("guessed"),
        ),
        ("the peer's password", request().finish(THEIRS.1)),
        (
            "another session",
            bare(Class::Request).username("else", "x").finish(OURS.1),
        ),
        ("no name", bare(Class::Request).finish(OURS.1)),
        ("an indication", bare(Class::Indication).finish(OURS.1)),
        (
            "an answer",
            bare(Class::Success).mapped(remote(1)).finish(THEIRS.1),
        ),
        (
            "a refusal",
            bare(Class::Failure).error(487, "").finish(THEIRS.1),
        ),
        ("half a message", cut),
        ("nothing", Vec::new()),
        ("no STUN", vec![0; 40]),
    ] {
        let mut peer = Peer::new(false);
        peer.there.insert(remote(1));
        peer.nominate(remote(1));
        peer.sent.clear();
        for from in [remote(1), remote(2)] {
            assert!(peer.receive(from, &data).is_err(), "{name}");
            assert!(peer.sent.is_empty(), "{name}: an answer");
            assert_eq!(peer.remote(), Some(remote(1)), "{name}");
            assert_eq!(peer.agent.pairs.len(), 1, "{name}");
        }
    }
}

#[test]
fn a_victim_is_sent_an_answer_and_four_checks() {
    let mut peer = Peer::new(false);
    peer.there.insert(remote(1));
    peer.nominate(remote(1));
    peer.nominate(remote(2));
    peer.run(Duration::from_secs(300));
    let victim = peer.sent.iter().filter(|(to, _)| *to == remote(2));
    assert_eq!(victim.count(), 1 + usize::from(SENDS));
    assert_eq!(peer.remote(), Some(remote(1)));
    // Nor does an answer from elsewhere bring it more.
    peer.nominate(remote(2));
    let (_, check) = peer.sent.last().unwrap();
    let id = Message::read(check).unwrap().id;
    let answer = Writer::new(Vec::new(), Class::Success, &id)
        .mapped(remote(9))
        .finish(THEIRS.1);
    assert!(peer.receive(remote(1), &answer).is_err());
    assert_eq!(peer.remote(), Some(remote(1)));
}

#[test]
fn consent_is_renewed_and_ends_after_half_a_minute() {
    let mut peer = Peer::new(false);
    peer.there.insert(remote(1));
    peer.nominate(remote(1));
    peer.sent.clear();
    peer.run(Duration::from_secs(600));
    assert_eq!(peer.remote(), Some(remote(1)));
    assert!(
        (100..=150).contains(&peer.sent.len()),
        "{}",
        peer.sent.len()
    );
    let ids: HashSet<_> = peer
        .sent
        .iter()
        .map(|(_, data)| data[8..20].to_vec())
        .collect();
    assert_eq!(ids.len(), peer.sent.len(), "each is a question of its own");
    peer.there.clear();
    peer.run(Duration::from_secs(23));
    assert!(peer.remote().is_some());
    // Requests are no consent.
    peer.nominate(remote(1));
    peer.run(Duration::from_secs(8));
    assert_eq!(peer.remote(), None);
    peer.there.insert(remote(1));
    peer.nominate(remote(1));
    assert_eq!(peer.remote(), Some(remote(1)), "it is back");
}

#[test]
fn the_newest_nomination_wins_at_any_address() {
    let mut peer = Peer::new(false);
    for n in 0..1_000 {
        peer.there.insert(remote(n));
        peer.nominate(remote(n));
        assert_eq!(peer.remote(), Some(remote(n)));
        peer.run(Duration::from_millis(100));
        assert_eq!(peer.remote(), Some(remote(n)));
        assert!(peer.agent.pairs.len() <= PAIRS);
    }
    // Back to one that is known: it is asked again, or was a moment ago.
    peer.nominate(remote(990));
    assert_eq!(peer.remote(), Some(remote(990)));
}

#[test]
fn a_way_that_falls_silent_gives_way_to_one_that_answers() {
    let mut peer = Peer::new(false);
    peer.there.extend([remote(1), remote(2)]);
    peer.nominate(remote(1));
    peer.there.remove(&remote(1));
    for _ in 0..10 {
        peer.run(Duration::from_secs(2));
        let _ = peer.receive(remote(2), &request().finish(OURS.1));
    }
    assert_eq!(peer.remote(), Some(remote(2)));
}

#[test]
fn twenty_thousand_ports_cost_each_the_same() {
    let mut peer = Peer::new(false);
    peer.there.insert(remote(0));
    peer.nominate(remote(0));
    for n in 1..=20_000 {
        peer.sent.clear();
        let _ = peer.receive(remote(n), &request().finish(OURS.1));
        // An answer and a check; and the first brings one question to who was here before.
        let most = if n == 1 { 3 } else { 2 };
        assert!(peer.sent.len() <= most && peer.agent.pairs.len() <= PAIRS);
    }
    assert_eq!(peer.remote(), Some(remote(0)));
    peer.sent.clear();
    peer.run(Duration::from_secs(60));
    let most = PAIRS * usize::from(SENDS) + 16;
    assert!(peer.sent.len() <= most, "{}", peer.sent.len());
    assert!(peer.agent.out.is_empty());
}

#[test]
fn a_peer_that_is_lite_is_checked_and_nominated() {
    let mut peer = Peer::new(true);
    for n in 1..100 {
        peer.agent.add_remote(peer.now, remote(n));
    }
    assert!(peer.agent.pairs.len() <= PAIRS);
    peer.answer();
    assert_eq!(peer.remote(), None);
    peer.there.insert(remote(3));
    peer.run(Duration::from_secs(1));
    assert_eq!(peer.remote(), Some(remote(3)));
    let nominated = peer
        .sent
        .iter()
        .filter(|(_, data)| Message::read(data).unwrap().use_candidate);
    assert!(nominated.clone().count() >= 1 && nominated.clone().all(|(to, _)| *to == remote(3)));
    assert_eq!(
        peer.agent.path(),
        Some(Peer::path(remote(3))),
        "where it arrives"
    );
}

#[test]
fn bare_requests_are_answered_and_what_is_not_understood_is_told() {
    let bare = || Writer::new(Vec::new(), Class::Request, &[9; 12]).username(OURS.0, THEIRS.0);
    let success = (Class::Success, None);
    for (name, data, expected) in [
        ("no priority, no role", bare().finish(OURS.1), success),
        ("no USE-CANDIDATE", request().finish(OURS.1), success),
        (
            "it controls not",
            bare().role(Role::Controlled(9)).finish(OURS.1),
            (Class::Failure, Some(487)),
        ),
        (
            "something new",
            bare().attribute(0x7abc, &[1, 2, 3]).finish(OURS.1),
            (Class::Failure, Some(420)),
        ),
        (
            "something new that may be passed over",
            bare().attribute(0x9abc, &[1]).finish(OURS.1),
            success,
        ),
    ] {
        let mut peer = Peer::new(false);
        peer.there.insert(remote(1));
        assert_eq!(peer.receive(remote(1), &data), Ok(()), "{name}");
        assert_eq!(codes(&peer.sent)[0], expected, "{name}");
        let is_used = expected == success;
        assert_eq!(
            peer.remote().is_some(),
            is_used,
            "{name}: without a nomination the first way"
        );
    }
}

#[test]
fn a_restart_keeps_the_way_until_there_is_another() {
    let mut peer = Peer::new(false);
    peer.there.insert(remote(1));
    peer.nominate(remote(1));
    peer.agent.restart(
        creds(("new", "a-new-password-of-22-letters")),
        creds(THEIRS),
    );
    peer.run(Duration::from_secs(60));
    assert_eq!(peer.remote(), Some(remote(1)), "by the old credentials");
    peer.there.insert(remote(2));
    let old = request().use_candidate().finish(OURS.1);
    let _ = peer.receive(remote(2), &old);
    assert_eq!(peer.remote(), Some(remote(1)), "an old nomination");
    let check = Writer::new(Vec::new(), Class::Request, &[9; 12])
        .username("new", THEIRS.0)
        .use_candidate();
    let _ = peer.receive(remote(2), &check.finish("a-new-password-of-22-letters"));
    assert_eq!(peer.remote(), Some(remote(2)));
}

#[test]
fn a_nat_that_gives_another_port_is_followed_whether_or_not_the_peer_nominates_again() {
    for nominates in [true, false] {
        let mut peer = Peer::new(false);
        peer.there.insert(remote(1));
        peer.nominate(remote(1));
        for port in 2..40 {
            peer.run(Duration::from_secs(7));
            assert_eq!(peer.remote(), Some(remote(port - 1)));
            peer.there = HashSet::from([remote(port)]);
            let check = match nominates {
                true => request().use_candidate(),
                false => request(),
            };
            assert_eq!(peer.receive(remote(port), &check.finish(OURS.1)), Ok(()));
            peer.run(Duration::from_secs(2));
            assert_eq!(peer.remote(), Some(remote(port)), "nominates: {nominates}");
        }
    }
}

#[test]
fn a_second_way_takes_nothing_from_the_first_that_answers() {
    let mut peer = Peer::new(false);
    peer.there = (1..40).map(remote).collect();
    peer.nominate(remote(1));
    for other in 2..40 {
        let check = request().finish(OURS.1);
        assert_eq!(peer.receive(remote(other), &check), Ok(()));
        peer.run(Duration::from_millis(700));
        assert_eq!(peer.remote(), Some(remote(1)), "after way {other}");
    }
}
