// SPDX-License-Identifier: MPL-2.0

//! What sessions that come and go, rename themselves and fall silent leave behind, and how much one call does for them.

use std::collections::BTreeSet;

use super::*;
use crate::layers::Preference;
use crate::stream::Stream;
use crate::transport::lean::AgreedSlots;
use crate::transport::{Demand, Estimate, Outgoing, Slot, Taken, Transport, TransportSink, Work};
use crate::{Codec, StreamName, TrackKind};
use std::time::Duration;

/// A viewer that never says anything.
#[derive(Debug, Default)]
struct Silent {
    ufrag: String,
    restarts: usize,
    /// How often it was to ask whether its peer is still there.
    asked: Arc<std::sync::atomic::AtomicUsize>,
}

impl Transport for Silent {
    fn local_ufrag(&self) -> &str {
        &self.ufrag
    }

    fn ask(&mut self, _: Instant, _: SocketAddr) {
        self.asked
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn receive(&mut self, _: Instant, _: SocketAddr, _: SocketAddr, _: &[u8]) -> Taken {
        Taken::Work(Work::default())
    }

    fn drain(&mut self, now: Instant, _: &mut dyn TransportSink) -> Instant {
        now + Duration::from_secs(1)
    }

    fn patch(&mut self, _: Instant, _: &Fragment) -> Result<PatchOutcome, PatchError> {
        self.restarts += 1;
        Ok(PatchOutcome::Restarted {
            fragment: String::new(),
            local_ufrag: format!("{}-{}", self.ufrag, self.restarts),
        })
    }

    fn close(&mut self) {}
}

impl ViewerTransport for Silent {
    fn slot(&self, kind: TrackKind, place: usize) -> Option<Slot> {
        Some(Slot(2 * place as u16 + u16::from(kind == TrackKind::Audio)))
    }

    fn accepts(&self, _: Slot, _: Codec) -> bool {
        true
    }

    fn asks_for_keyframes(&self) -> bool {
        true
    }

    fn first_estimate(&self) -> Option<Estimate> {
        None
    }

    fn set_slots(&mut self, _: Instant, _: AgreedSlots) {}

    fn set_demand(&mut self, _: Instant, _: Demand) {}

    fn send(&mut self, _: Instant, _: &Outgoing<'_>, _: &mut dyn TransportSink) {}

    fn resend(&mut self, _: Instant, _: &Outgoing<'_>, _: &mut dyn TransportSink) -> bool {
        true
    }
}

fn shard() -> Shard {
    let (queue, _) = ShardQueue::new(None);
    Shard::new(queue, Arc::default(), 64)
}

fn stream(name: &str, key: u64) -> Arc<Stream> {
    let name: StreamName = name.parse().unwrap();
    Arc::new(Stream::new(name, key))
}

fn join(shard: &mut Shard, now: Instant, stream: &Arc<Stream>, id: usize) -> SessionId {
    let session = SessionId::from_bits(id as u128);
    let none = Preference::default();
    let command = ShardCommand::Subscribe {
        stream: Some(Viewing::new(stream.clone())),
        transport: Box::new(Silent {
            ufrag: format!("viewer{id}"),
            restarts: 0,
            asked: Arc::default(),
        }),
        session: Arc::new(SessionShared::new(
            session,
            stream.clone(),
            0,
            String::new(),
            none,
        )),
    };
    shard.handle(now, command);
    session
}

fn assert_nothing_is_left(shard: &mut Shard, streams: &[Arc<Stream>]) {
    assert!(shard.members.is_empty() && shard.streams.is_empty() && shard.over.is_empty());
    assert!(shard.by_session.is_empty() && shard.by_key.is_empty());
    assert!(shard.by_address.is_empty() && shard.by_ufrag.is_empty());
    assert_eq!(shard.poll_timeout(), None);
    assert!(streams.iter().all(|s| s.viewers() == 0));
}

/// Each viewer knows its place, and each place its viewer.
fn assert_seats_are_right(shard: &mut Shard) {
    let mut seated = 0;
    let Shard {
        streams, members, ..
    } = shard;
    for (index, attached) in &*streams {
        for (place, &viewer) in attached.viewers.iter().enumerate() {
            let Some(member) = members.get_mut(viewer.member).and_then(Member::viewer) else {
                panic!("a publisher among the viewers");
            };
            let watch = member.forwarder(viewer.forwarder).unwrap().watch.as_ref();
            let seat = watch.unwrap().seat;
            assert_eq!((seat.attached, seat.place), (index, place));
            seated += 1;
        }
    }
    let mut watching = 0;
    for (_, member) in members {
        let Some(viewer) = member.viewer() else {
            continue;
        };
        for place in 0.. {
            let Some(forwarder) = viewer.forwarder(place) else {
                break;
            };
            watching += usize::from(forwarder.watch.is_some());
        }
    }
    assert_eq!(seated, watching);
}

#[test]
fn viewers_that_time_out_together_leave_a_few_at_a_time() {
    let (mut shard, now) = (shard(), Instant::now());
    let streams = [stream("a", 1), stream("b", 2)];
    for id in 0..4_000 {
        let source = SocketAddr::from(([10, 0, (id >> 8) as u8, id as u8], 5_000));
        join(&mut shard, now, &streams[id % 2], id);
        shard.remember_address(id, source);
    }
    let later = now + Duration::from_secs(60);
    let mut calls = 0;
    while shard.viewers() > 0 {
        let before = shard.viewers();
        assert!(shard.poll_timeout().is_some_and(|at| at <= later));
        shard.handle_timeout(later);
        let ended = before - shard.viewers();
        assert!((1..=ENDED_A_TURN).contains(&ended), "{ended} in one call");
        if calls % 8 == 0 {
            assert_seats_are_right(&mut shard);
        }
        calls += 1;
    }
    assert!(calls >= 4_000 / ENDED_A_TURN);
    assert_nothing_is_left(&mut shard, &streams);
}

#[test]
fn whoever_leaves_leaves_nothing() {
    let (mut shard, now) = (shard(), Instant::now());
    let streams: Vec<_> = (0..5).map(|n| stream(&format!("s{n}"), n)).collect();
    let mut here = Vec::new();
    let mut random = 1u64;
    for id in 0..3_000 {
        here.push(join(&mut shard, now, &streams[id % 5], id));
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        if here.len() > 40 {
            let session = here.swap_remove((random >> 33) as usize % here.len());
            shard.handle(now, ShardCommand::Close { session });
        }
        assert!(shard.by_ufrag.len() == here.len() && shard.viewers() == here.len());
    }
    assert_seats_are_right(&mut shard);
    for session in here {
        shard.handle(now, ShardCommand::Close { session });
    }
    assert_nothing_is_left(&mut shard, &streams);
}

#[test]
fn forwarders_that_change_their_streams_leave_no_seat() {
    let (mut shard, now) = (shard(), Instant::now());
    let streams: Vec<_> = (0..3).map(|n| stream(&format!("s{n}"), n)).collect();
    let mut here = Vec::new();
    let mut random = 1u64;
    let mut draw = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for id in 0..5_000 {
        if here.len() < 2 || draw(10) == 0 {
            here.push(join(&mut shard, now, &streams[draw(3)], id));
        } else if draw(12) == 0 {
            let session = here.swap_remove(draw(here.len()));
            shard.handle(now, ShardCommand::Close { session });
        }
        let stream = streams.get(draw(4)).cloned();
        let session = here[draw(here.len())];
        let of = stream.clone().unwrap_or_else(|| streams[0].clone());
        let figures = SessionShared::new(session, of, 0, String::new(), Preference::default());
        let command = ShardCommand::Watch {
            session,
            place: draw(4),
            stream: stream.map(Viewing::new),
            figures: Arc::new(figures),
        };
        shard.handle(now, command);
        assert_seats_are_right(&mut shard);
    }
    for session in here {
        shard.handle(now, ShardCommand::Close { session });
    }
    assert_nothing_is_left(&mut shard, &streams);
}

#[test]
fn ice_restarts_leave_two_names_at_most() {
    let (mut shard, now) = (shard(), Instant::now());
    let stream = stream("a", 1);
    let session = join(&mut shard, now, &stream, 7);
    join(&mut shard, now, &stream, 8);
    for n in 1..=10_000 {
        let (reply, _answer) = std::sync::mpsc::sync_channel(1);
        let fragment = Fragment::parse("a=mid:0\r\n").unwrap();
        let command = ShardCommand::Patch {
            session,
            fragment,
            reply,
        };
        shard.handle(now, command);
        assert_eq!(shard.by_ufrag.len(), 3, "two of it, one of the other");
        let before = match n {
            1 => "viewer7".to_owned(),
            n => format!("viewer7-{}", n - 1),
        };
        for known in [format!("viewer7-{n}"), before] {
            assert!(shard.by_ufrag.contains_key(&known), "{known}");
        }
    }
    shard.handle(now, ShardCommand::Close { session });
    assert_eq!(shard.by_ufrag.len(), 1);
}

#[test]
fn an_address_that_another_session_has_now_stays_its() {
    let (mut shard, now) = (shard(), Instant::now());
    let stream = stream("a", 1);
    let source: SocketAddr = "10.0.0.1:5000".parse().unwrap();
    let first = join(&mut shard, now, &stream, 1);
    shard.remember_address(0, source);
    join(&mut shard, now, &stream, 2);
    // The first one has been silent, and the second joined from there.
    shard.by_address.remove(&source);
    shard.remember_address(1, source);
    shard.handle(now, ShardCommand::Close { session: first });
    assert_eq!(shard.by_address.get(&source), Some(&1));
}

#[test]
fn each_viewer_is_first_in_its_turn() {
    let kinds = [
        (TrackKind::Audio, 0),
        (TrackKind::Video, 0),
        (TrackKind::Video, 2),
    ];
    for count in 1..200 {
        let (mut shard, now, stream) = (shard(), Instant::now(), stream("a", 1));
        for id in 0..count {
            join(&mut shard, now, &stream, id);
        }
        let (_, attached) = shard.streams.iter_mut().next().unwrap();
        let mut firsts = [const { BTreeSet::new() }; 3];
        for _ in 0..2 * count {
            for ((kind, layer), firsts) in kinds.iter().zip(&mut firsts) {
                firsts.insert(attached.begin_round(*kind, *layer).1);
            }
        }
        assert!(
            firsts.iter().all(|f| f.len() == count),
            "{count} viewers: {firsts:?}"
        );
    }
}

#[test]
fn a_viewer_that_never_got_to_a_shard_is_counted_out() {
    let stream = stream("a", 1);
    let (queue, inbox) = ShardQueue::new(None);
    let session = SessionShared::new(
        SessionId::from_bits(1),
        stream.clone(),
        0,
        String::new(),
        Preference::default(),
    );
    let transport = Silent {
        ufrag: "viewer".into(),
        restarts: 0,
        asked: Arc::default(),
    };
    assert!(queue.send(ShardCommand::Subscribe {
        stream: Some(Viewing::new(stream.clone())),
        transport: Box::new(transport),
        session: Arc::new(session),
    }));
    assert_eq!(stream.viewers(), 1);
    drop(inbox);
    drop(queue);
    assert_eq!(stream.viewers(), 0);
}

/// An answer to a check of the session of this place.
fn answer_to(tag: u32) -> Vec<u8> {
    let mut data = vec![1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    data.extend(tag.to_be_bytes());
    data.extend([0; 8]);
    data
}

#[test]
fn an_address_is_the_newer_session_s_unless_the_older_is_still_there() {
    let (mut shard, now) = (shard(), Instant::now());
    let stream = stream("a", 1);
    let source: SocketAddr = "10.0.0.1:5000".parse().unwrap();
    let local: SocketAddr = "192.0.2.1:8189".parse().unwrap();
    for id in 1..=3 {
        join(
            &mut shard,
            now + Duration::from_secs(id as u64),
            &stream,
            id,
        );
    }
    let now = now + Duration::from_secs(5);
    for (tag, owner) in [(0, 0), (0, 0), (1, 1), (1, 1)] {
        shard.receive(now, source, local, &answer_to(tag));
        assert_eq!(shard.by_address.get(&source), Some(&owner));
        assert_eq!(shard.members.len(), 3);
    }
    // A request takes nothing away: anybody with a password may write any address into it.
    let mut request = vec![0, 1, 0, 16, 0x21, 0x12, 0xa4, 0x42];
    request.extend([0; 12]);
    request.extend([0, 6, 0, 9]);
    request.extend(b"viewer3:x\0\0\0");
    shard.receive(now, source, local, &request);
    assert_eq!(shard.by_address.get(&source), Some(&1));
    // The first one is on the same socket.
    shard.receive(now, source, local, &answer_to(0));
    assert_eq!(shard.by_address.get(&source), Some(&0));
    assert_eq!(shard.members.len(), 2);
    assert_eq!(shard.counters.snapshot().sessions_address_in_use, 1);
    // Nobody's answer.
    shard.receive(now, source, local, &answer_to(77));
    assert_eq!(shard.counters.snapshot().datagrams_unknown, 1);
}

#[test]
fn any_number_of_addresses_one_after_the_other() {
    let (mut shard, now) = (shard(), Instant::now());
    let stream = stream("a", 1);
    let local: SocketAddr = "192.0.2.1:8189".parse().unwrap();
    join(&mut shard, now, &stream, 1);
    let first: SocketAddr = "10.0.0.1:999".parse().unwrap();
    shard.receive(now, first, local, &answer_to(0));
    for n in 0..20_000u32 {
        let [a, b, ..] = n.to_le_bytes();
        let now = now + Duration::from_millis(u64::from(n));
        let source = SocketAddr::from(([10, 1, a, b], 5_000));
        shard.receive(now, source, local, &answer_to(0));
        assert_eq!(shard.by_address.get(&source), Some(&0));
        // Where it is heard all the time is not forgotten.
        shard.receive(now, first, local, &[200]);
        assert_eq!(shard.by_address.get(&first), Some(&0));
        assert!(shard.by_address.len() <= 16);
    }
}

#[test]
fn what_belongs_to_nobody_is_counted_by_what_it_is() {
    let (mut shard, now) = (shard(), Instant::now());
    let check = |name: &[u8]| {
        let mut data = vec![0, 1, 0, 4 + name.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        data.extend([9; 12]);
        data.extend([0, 6, 0, name.len() as u8]);
        data.extend(name);
        data
    };
    let source = "192.0.2.9:4000".parse().unwrap();
    let ours = "192.0.2.1:8189".parse().unwrap();
    for (data, [checks, dtls, media]) in [
        (check(b"nobody:m"), [1, 0, 0]),
        (check(b"nobodys"), [0, 0, 0]),
        (vec![22; 40], [0, 1, 0]),
        (vec![0x80; 40], [0, 0, 1]),
        (vec![0x50; 40], [0, 0, 0]),
        (Vec::new(), [0, 0, 0]),
    ] {
        let before = shard.counters.snapshot();
        shard.receive(now, source, ours, &data);
        let after = shard.counters.snapshot();
        let counted = [
            after.datagrams_unknown_checks - before.datagrams_unknown_checks,
            after.datagrams_unknown_dtls - before.datagrams_unknown_dtls,
            after.datagrams_unknown_media - before.datagrams_unknown_media,
        ];
        assert_eq!(counted, [checks, dtls, media], "{data:?}");
        assert_eq!(after.datagrams_unknown, before.datagrams_unknown + 1);
    }
}
