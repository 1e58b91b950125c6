// SPDX-License-Identifier: MPL-2.0

//! Handshakes over links that lose, and that overtake: with ourselves, and with another implementation, in both roles.

use std::env;

use sfu_impair::{Conditions, Link};

use super::*;

/// A handshake that takes longer has failed: a peer would have begun anew.
const PATIENCE: Duration = Duration::from_secs(60);
const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    /// What `str0m` has.
    Other,
}

struct Peer {
    end: End,
    /// When it wants to be called.
    due: Instant,
    link: Link,
    /// On its way to the other: when it arrives, and in which order it left.
    arriving: Vec<(Instant, usize, Vec<u8>)>,
    failed: bool,
}

impl Peer {
    fn new(kind: Kind, active: bool, now: Instant, conditions: Conditions, seed: u64) -> Self {
        let end = match kind {
            Kind::Ours => End::new(active, &certificate(), now),
            Kind::Other => End::other(active, now),
        };
        Self {
            end,
            due: now,
            link: Link::new(conditions, seed),
            arriving: Vec::new(),
            failed: false,
        }
    }

    fn drain(&mut self, now: Instant, sent: &mut usize) {
        let mut buffer = vec![0; 4_096];
        loop {
            match self.end.dtls.poll_output(&mut buffer) {
                DtlsOutput::Packet(data) => {
                    *sent += 1;
                    if let Some(at) = self.link.pass(now, data.len()) {
                        self.arriving.push((at, *sent, data.to_vec()));
                    }
                }
                DtlsOutput::KeyingMaterial(keys, _) => self.end.keys = Some(keys.to_vec()),
                DtlsOutput::CloseNotify => self.failed = true,
                DtlsOutput::Timeout(at) => {
                    self.due = at.max(now + MS);
                    return;
                }
                _ => {}
            }
        }
    }
}

impl End {
    fn other(active: bool, now: Instant) -> Self {
        let provider = str0m::crypto::from_feature_flags().dtls_provider;
        let certificate = provider.generate_certificate().expect("a certificate");
        let dtls = provider.new_dtls(&certificate, now, DtlsVersion::Dtls12, None);
        let mut dtls = dtls.expect("a session");
        dtls.set_active(active);
        dtls.handle_timeout(now).expect("no failure");
        Self {
            dtls,
            keys: None,
            data: Vec::new(),
            connected: false,
            over: false,
        }
    }
}

/// How long the handshake took for both, or what became of it.
fn handshake(
    client: Kind,
    server: Kind,
    conditions: Conditions,
    seed: u64,
) -> Result<Duration, String> {
    let begun = Instant::now();
    let mut now = begun;
    let mut ends = [
        Peer::new(client, true, now, conditions, seed * 2),
        Peer::new(server, false, now, conditions, seed * 2 + 1),
    ];
    let mut sent = 0;
    for _ in 0..100_000 {
        for peer in &mut ends {
            if peer.due <= now {
                let result = peer.end.dtls.handle_timeout(now);
                peer.failed |= result.is_err();
            }
            peer.drain(now, &mut sent);
        }
        if ends.iter().all(|p| p.end.keys.is_some()) {
            assert_eq!(ends[0].end.keys, ends[1].end.keys);
            return Ok(now - begun);
        }
        if now - begun > PATIENCE || ends.iter().any(|p| p.failed) {
            let state = ends.each_ref().map(|p| (p.end.keys.is_some(), p.failed));
            return Err(format!(
                "after {:?}: client and server: {state:?}",
                now - begun
            ));
        }
        let arrivals = ends
            .iter()
            .flat_map(|p| p.arriving.iter().map(|(at, ..)| *at));
        let due = ends.iter().map(|p| p.due);
        now = arrivals.chain(due).min().unwrap().max(now);
        for from in 0..2 {
            ends[from]
                .arriving
                .sort_by_key(|(at, order, _)| (*at, *order));
            while ends[from]
                .arriving
                .first()
                .is_some_and(|(at, ..)| *at <= now)
            {
                let (_, _, data) = ends[from].arriving.remove(0);
                let to = &mut ends[1 - from];
                let result = to.end.dtls.handle_packet(&data);
                if let Err(error) = result {
                    to.failed = true;
                    println!("seed {seed}: {from}: {error}");
                }
                to.drain(now, &mut sent);
            }
        }
    }
    Err("it never ends".into())
}

#[test]
fn handshakes_over_links_that_lose() {
    let number = |name: &str, default: u64| {
        let value = env::var(name).ok().and_then(|value| value.parse().ok());
        value.unwrap_or(default)
    };
    let (first, count) = (number("SFU_SEED", 0), number("SFU_HANDSHAKES", 100));
    for (client, server) in [
        (Kind::Ours, Kind::Ours),
        (Kind::Other, Kind::Ours),
        (Kind::Ours, Kind::Other),
    ] {
        if env::var("SFU_ONLY").is_ok_and(|only| only != format!("{client:?}{server:?}")) {
            continue;
        }
        for (loss, burst, reorder) in [
            (0.02, 1.0, 0.0),
            (0.02, 4.0, 0.01),
            (0.1, 1.0, 0.1),
            (0.1, 4.0, 0.0),
        ] {
            let conditions = Conditions {
                delay: 20 * MS,
                loss,
                burst,
                reorder,
                reorder_by: 15 * MS,
                ..Conditions::default()
            };
            let mut times = Vec::new();
            let mut failed = Vec::new();
            for seed in first..first + count {
                match handshake(client, server, conditions, seed) {
                    Ok(time) => times.push(time),
                    Err(why) => failed.push((seed, why)),
                }
            }
            times.sort();
            let of = |share: usize| times.get(times.len() * share / 1_000);
            let what =
                format!("{client:?} {server:?}, loss {loss}, burst {burst}, disorder {reorder}");
            println!(
                "{what}: {} of {count}; p50 {:?} p95 {:?} p99 {:?} max {:?}",
                times.len(),
                of(500),
                of(950),
                of(990),
                times.last()
            );
            // The other one sends each step five times at most: where a tenth is lost, one of a thousand fails.
            let most = if loss > 0.05 { count / 200 } else { 0 };
            assert!(failed.len() as u64 <= most, "{what}: {failed:?}");
        }
    }
}
