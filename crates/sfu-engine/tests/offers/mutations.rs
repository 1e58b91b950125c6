// SPDX-License-Identifier: MPL-2.0

//! Offers changed at random: lines left out, doubled, moved, garbled, mixed with those of others. None may panic, and what
//! is answered is whole.

use std::env;

use sfu_impair::Rng;

use crate::rows::ROWS;
use crate::{KINDS, answer, answered, clients, offer};

fn number(name: &str, default: u64) -> u64 {
    let set = env::var(name).ok().and_then(|value| value.parse().ok());
    set.unwrap_or(default)
}

/// Pieces that mean something, wherever they stand.
const PIECES: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    "=",
    ":",
    " ",
    ";",
    "/",
    ",",
    "~",
    "*",
    "0",
    "-1",
    "65536",
    "4294967296",
    "\u{0}",
    "\u{feff}",
    "é",
    "a=",
    "m=",
    "m=video 9 UDP/TLS/RTP/SAVPF 96",
    "a=mid:",
    "a=bundle-only",
    "a=inactive",
    "a=group:BUNDLE",
    "BUNDLE",
    "a=simulcast:send ",
    "a=rid:",
    "send",
    "recv",
    "apt=",
    "nack",
    "sha-512",
    "a=setup:passive",
    "a=extmap-allow-mixed",
];

fn mutate(random: &mut Rng, lines: &mut Vec<String>, others: &[String]) {
    for _ in 0..=random.below(6) {
        let at = random.below(lines.len());
        match random.below(9) {
            0 if !lines.is_empty() => drop(lines.remove(at)),
            1 if !lines.is_empty() => lines.insert(at, lines[at].clone()),
            2 if !lines.is_empty() => {
                let other = random.below(lines.len());
                lines.swap(at, other);
            }
            3 if !lines.is_empty() => garble(random, &mut lines[at]),
            4 => lines.truncate(at),
            5 => drop(lines.drain(..at)),
            6 => lines.extend(lines[at..].to_vec()),
            7 => {
                let other = &others[random.below(others.len())];
                let other: Vec<_> = other.split_inclusive('\n').map(str::to_owned).collect();
                let (from, count) = (random.below(other.len()), 1 + random.below(8));
                let taken = other.into_iter().skip(from).take(count);
                lines.splice(at..at, taken);
            }
            _ => lines.insert(at, PIECES[random.below(PIECES.len())].to_owned()),
        }
    }
}

fn garble(random: &mut Rng, line: &mut String) {
    let boundaries: Vec<_> = line.char_indices().map(|(at, _)| at).collect();
    let at = boundaries
        .get(random.below(boundaries.len()))
        .copied()
        .unwrap_or(0);
    match random.below(4) {
        0 => line.truncate(at),
        1 => line.insert_str(at, PIECES[random.below(PIECES.len())]),
        2 => *line = line.repeat(1 + random.below(4)),
        _ => drop(line.drain(..at)),
    }
}

/// Prints, when dropped by a panic, what caused it.
struct Shown<'a>(u64, u64, &'a str);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("SFU_SEED={} in iteration {}:\n{}", self.0, self.1, self.2);
        }
    }
}

#[test]
fn no_offer_panics_and_what_is_answered_is_whole() {
    let seed = number("SFU_SEED", 1);
    let mut random = Rng::new(seed);
    let mut offers: Vec<String> = clients::texts()
        .map(|text| text.replace('\n', "\r\n"))
        .collect();
    for kind in KINDS {
        offers.extend(ROWS.iter().map(|(.., changes)| offer(*kind, changes)));
    }
    let (mut taken, mut refused) = (0, 0);
    for iteration in 0..number("SFU_FUZZ_ITERATIONS", 20_000) {
        let from = &offers[random.below(offers.len())];
        let mut lines: Vec<_> = from.split_inclusive('\n').map(str::to_owned).collect();
        mutate(&mut random, &mut lines, &offers);
        let changed = lines.concat();
        let _shown = Shown(seed, iteration, &changed);
        match answer(KINDS[random.below(KINDS.len())], &changed) {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{taken} taken, {refused} refused");
    assert!(taken > 0 && refused > 0);
}

#[test]
fn fuzz_offers() {
    let mut offers: Vec<String> = clients::texts()
        .map(|text| text.replace('\n', "\r\n"))
        .collect();
    for kind in KINDS {
        offers.extend(ROWS.iter().map(|(.., changes)| offer(*kind, changes)));
    }
    sfu_fuzz::fuzz("offers", &offers, |data| {
        let offer = String::from_utf8_lossy(data);
        for kind in KINDS {
            // What must hold of an answer is another test's, which reads offers as we do.
            let _ = answered(*kind, &offer);
        }
    });
}
