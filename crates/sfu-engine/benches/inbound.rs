// SPDX-License-Identifier: MPL-2.0

//! What the worst datagrams of 1,500 octets cost a shard, a row a kind: `cargo bench -p sfu-engine --bench inbound`.
//!
//! Prices in `src/transport/work.rs` are from here. Each row is the median of many: of a viewer that was sent 20 Mbit/s for
//! two seconds and has reported nothing of it, where what a kind costs depends on that.

// What only the simulation uses of its parts.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use crate::hostile::Hostile;
use crate::world::World;
use crate::worst::KINDS;

#[path = "../tests/simulation/device.rs"]
mod device;
#[path = "../tests/simulation/hostile.rs"]
mod hostile;
#[path = "../tests/simulation/keys.rs"]
mod keys;
#[path = "../tests/simulation/net.rs"]
mod net;
#[path = "../tests/simulation/peer.rs"]
mod peer;
#[path = "../tests/simulation/publisher.rs"]
mod publisher;
#[path = "../tests/simulation/restart.rs"]
mod restart;
#[path = "../tests/simulation/viewer.rs"]
mod viewer;
#[path = "../tests/simulation/world.rs"]
mod world;
#[path = "../tests/simulation/worst.rs"]
mod worst;

/// Worlds for each row that needs them fresh, and datagrams for each of the others.
const WORLDS: usize = 15;
const DATAGRAMS: usize = 2_000;

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}

fn row(name: &str, octets: usize, took: Duration, price: Option<Duration>) {
    let price = price.map_or("-".to_owned(), |p| format!("{:.1}", p.as_secs_f64() * 1e6));
    println!(
        "{name:<48} {octets:>6} {:>9.1} {price:>9}",
        took.as_secs_f64() * 1e6
    );
}

/// Each kind once in each of some fresh worlds.
fn reports() {
    for (name, kind) in KINDS {
        let mut took = Vec::new();
        let (mut price, mut octets) = (Duration::ZERO, 0);
        for _ in 0..WORLDS {
            let mut hostile = Hostile::new(0);
            let data = hostile.seal(kind(hostile.target())).expect("sealed");
            octets = data.len();
            let start = Instant::now();
            price = hostile.deliver(&data).price;
            took.push(start.elapsed());
        }
        row(name, octets, median(took), Some(price));
    }
}

/// What is not the viewer's own, and checks.
fn others() {
    let mut hostile = Hostile::new(0);
    let stranger = "203.0.113.9:9".parse().expect("an address");
    let viewer = hostile.world.viewers[0].0.address;
    let mut forged = hostile.seal(KINDS[0].1(hostile.target())).expect("sealed");
    forged[100] ^= 1;
    let viewer_check = worst::check(&mut hostile.world.viewers[0].0, false);
    for (name, source, data) in [
        ("a viewer's report, forged", viewer, forged),
        ("a viewer's check, forged", viewer, viewer_check.clone()),
        (
            "a record of DTLS in a viewer's name",
            viewer,
            vec![22; 1_500],
        ),
        (
            "a stranger's check in a viewer's name",
            stranger,
            viewer_check,
        ),
        ("a stranger's 362 attributes", stranger, worst::attributes()),
        ("a stranger's packet", stranger, vec![0x80; 1_500]),
    ] {
        let took = (0..DATAGRAMS).map(|_| {
            let start = Instant::now();
            hostile.deliver_from(source, &data);
            start.elapsed()
        });
        row(name, data.len(), median(took.collect()), None);
    }
    let mut price = Duration::ZERO;
    let took = (0..DATAGRAMS).map(|_| {
        hostile.world.now += Duration::from_millis(8);
        let data = worst::check(&mut hostile.world.viewers[0].0, true);
        let start = Instant::now();
        price = hostile.deliver_from(viewer, &data).price;
        let took = start.elapsed();
        hostile.world.shard.outbox().clear();
        took
    });
    let took = median(took.collect());
    row("a viewer's check, answered", 100, took, Some(price));
}

/// A publishing peer's, which are `str0m`'s to read.
fn publisher() {
    let (crypto, told) = keys::told();
    let mut world = World::with_peer_of(1, 3, crypto);
    let mut protect = told.lock().expect("not poisoned")[0].protect();
    let source = world.peers[0].0.address;
    let server = "192.0.2.1:8189".parse().expect("an address");
    let target = worst::Target {
        video: 1,
        newest: 9_000,
        unreported: 9_000,
        under_way: 4_096,
    };
    let mut forged = vec![0x80, 102];
    forged.resize(1_400, 7);
    let kinds = KINDS.iter().map(|(name, kind)| (*name, Some(kind)));
    for (name, kind) in kinds.chain([("media, forged", None)]) {
        let (mut took, mut octets) = (Vec::new(), 0);
        for _ in 0..200 {
            let data = match kind {
                Some(kind) => worst::sealed(&mut protect, kind(target)).expect("sealed"),
                None => forged.clone(),
            };
            octets = data.len();
            // As long as the budget needs for the dearest.
            world.run_for(Duration::from_millis(10));
            let start = Instant::now();
            world.shard.receive(world.now, source, server, &data);
            took.push(start.elapsed());
            world.shard.outbox().clear();
        }
        row(&format!("publisher: {name}"), octets, median(took), None);
    }
    let mut forged = KINDS[0].1(target);
    protect.rtcp(&mut forged, 0).expect("sealed");
    forged[100] ^= 1;
    let start = Instant::now();
    for _ in 0..DATAGRAMS {
        world.shard.receive(world.now, source, server, &forged);
    }
    let took = start.elapsed() / DATAGRAMS as u32;
    row("publisher: a report, forged", forged.len(), took, None);
    let over = world.counters.snapshot().datagrams_over_budget;
    assert_eq!(over, 0, "what is dropped is not measured");
}

/// What a packet of a publishing peer takes, from the datagram to the stream, with the reports that answer: no viewers.
fn media() {
    const PACKETS: usize = 3_000;
    let server = "192.0.2.1:8189".parse().expect("an address");
    let mut took = Vec::new();
    for seed in 0..WORLDS as u64 {
        let mut world = World::with_peer(seed, net::good(), 1);
        let (peer, mut at) = (&mut world.peers[0].0, world.now);
        let mut sent = Vec::new();
        while sent.len() < PACKETS {
            at = at.max(peer.next);
            peer.drain(at, |data| {
                if matches!(data, [128..=191, kind, ..] if !(192..=223).contains(kind)) {
                    sent.push((at, data.to_vec()));
                }
            });
        }
        let source = peer.address;
        let before = world.stream.info(world.now).packets_in;
        let start = Instant::now();
        for (at, data) in &sent {
            world.shard.receive(*at, source, server, data);
            if world.shard.poll_timeout().is_some_and(|due| due <= *at) {
                world.shard.handle_timeout(*at);
            }
            world.shard.outbox().clear();
        }
        took.push(start.elapsed() / PACKETS as u32);
        let came = world.stream.info(world.now).packets_in - before;
        assert!(came as usize > PACKETS * 9 / 10, "{came} packets came in");
    }
    row("publisher: media", 1_150, median(took), None);
}

fn main() {
    println!("{:<48} {:>6} {:>9} {:>9}", "", "octets", "µs", "price, µs");
    if std::env::args().any(|arg| arg == "media") {
        return media();
    }
    reports();
    others();
    publisher();
    media();
}
