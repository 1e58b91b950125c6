// SPDX-License-Identifier: MPL-2.0
#![doc = "Gives a parser what a stranger may send: real inputs, changed at random, by stable Rust inside of tests.\n\n\
Tests whose names begin with `fuzz_` call [`fuzz`]. Each lasts for a second, or for `SFU_FUZZ_SECONDS` (`./sfu soak fuzz`). The seed is \
another one each time and printed; `SFU_SEED` is for having it again."]

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use sfu_impair::Rng;

/// What a parser may take of the processor for one input. Not tuned: hundreds of times what the slowest takes, so that a busy
/// machine fails none, and what grows with the square of an input does.
const LONGEST: Duration = Duration::from_millis(200);
/// The longest input, which is a body's, too.
const LARGEST: usize = 64 * 1024;
/// Numbers at which lengths and counts go wrong.
const EDGES: [u64; 9] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    u64::MAX,
];

/// What separates the parts of texts.
const SEPARATORS: &[u8] = b"\r\n :;,=/?&%\"\\@[]{}*.-\0";

/// Changes these samples at random, for as long as it is to last, and gives each to `read`. Returns how many there were.
///
/// # Panics
///
/// Where `read` does, or takes too long. The seed and the input are printed.
pub fn fuzz<S: AsRef<[u8]>>(name: &str, samples: &[S], mut read: impl FnMut(&[u8])) -> u64 {
    let seed = number("SFU_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(1, |now| now.as_nanos() as u64)
    });
    let seconds = number("SFU_FUZZ_SECONDS").unwrap_or(1);
    println!("fuzz {name}: SFU_SEED={seed}, {seconds} s");
    let samples: Vec<&[u8]> = samples.iter().map(AsRef::as_ref).collect();
    assert!(!samples.is_empty(), "{name} has no samples");
    for sample in &samples {
        give(name, seed, sample, &mut read);
    }
    let mut random = Rng::new(seed);
    let (end, mut inputs) = (Instant::now() + Duration::from_secs(seconds), 0);
    while inputs % 64 != 0 || Instant::now() < end {
        let mut data = samples[random.below(samples.len())].to_vec();
        for _ in 0..=random.below(4) {
            change(&mut random, &mut data, &samples);
        }
        data.truncate(LARGEST);
        give(name, seed, &data, &mut read);
        inputs += 1;
    }
    println!("fuzz {name}: {inputs} inputs");
    inputs
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The processor's time that this thread has had: a busy machine takes longer, but not more of it.
fn worked() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

fn give(name: &str, seed: u64, data: &[u8], read: &mut impl FnMut(&[u8])) {
    let began = worked();
    let done = catch_unwind(AssertUnwindSafe(|| read(data)));
    let took = worked().saturating_sub(began);
    if done.is_err() || took > LONGEST {
        let mut hex = String::new();
        for octet in data {
            let _ = write!(hex, "{octet:02x}");
        }
        eprintln!(
            "fuzz {name}: SFU_SEED={seed}: {hex}\n{}",
            String::from_utf8_lossy(data)
        );
    }
    if let Err(panic) = done {
        resume_unwind(panic);
    }
    assert!(
        took <= LONGEST,
        "{name} takes {took:?} for {} octets",
        data.len()
    );
}

/// One change.
fn change(random: &mut Rng, data: &mut Vec<u8>, samples: &[&[u8]]) {
    let at = random.below(data.len() + 1);
    let rest = data.len() - at;
    match random.below(12) {
        0 if rest > 0 => data[at] ^= 1 << random.below(8),
        1 if rest > 0 => data[at] = random.next_u64() as u8,
        2 if rest > 0 => data[at] = data[at].wrapping_add(1),
        3 => {
            // A length or a count, of one, two or four octets.
            let width = [1, 2, 4][random.below(3)].min(rest);
            let edge = EDGES[random.below(EDGES.len())].to_be_bytes();
            data[at..at + width].copy_from_slice(&edge[8 - width..]);
        }
        4 => data.truncate(at),
        5 => drop(data.drain(at..at + random.below(rest.min(32) + 1))),
        6 => {
            let octets = random.next_u64().to_be_bytes();
            data.splice(at..at, octets[..1 + random.below(8)].iter().copied());
        }
        // The end of another one.
        7 => {
            let other = samples[random.below(samples.len())];
            data.truncate(at);
            data.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
        // A part again, now and then very often.
        8 => {
            let part = data[at..at + random.below(rest.min(64) + 1)].to_vec();
            let times = if random.chance(0.05) {
                500
            } else {
                1 + random.below(4)
            };
            data.splice(at..at, part.repeat(times));
        }
        // A number in a text.
        9 => {
            let digits = |c: &u8| c.is_ascii_digit();
            if let Some(from) = data[at..].iter().position(digits).map(|n| n + at) {
                let len = data[from..].iter().take_while(|c| digits(c)).count();
                let edge = EDGES[random.below(EDGES.len())].to_string();
                data.splice(from..from + len, edge.bytes());
            }
        }
        10 => data.insert(at, SEPARATORS[random.below(SEPARATORS.len())]),
        _ => {
            // Two lines change places, or what is not a text is turned round.
            let mut lines: Vec<&[u8]> = data.split(|c| *c == b'\n').collect();
            let (one, other) = (random.below(lines.len()), random.below(lines.len()));
            lines.swap(one, other);
            *data = lines.join(&b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_differ_and_faults_are_found() {
        let mut seen = std::collections::HashSet::new();
        let inputs = fuzz("itself", &["a=1\r\nb=22\r\n"], |data| {
            seen.insert(data.to_vec());
        });
        assert!(
            inputs > 1_000 && seen.len() > 500,
            "{inputs} inputs, {} different",
            seen.len()
        );
        let found = catch_unwind(|| {
            fuzz("a fault", &[[2, 7, 7]], |data| {
                let len = data.first().copied().map_or(0, usize::from);
                let _ = data.get(1..).map(|rest| &rest[..len]);
            })
        });
        assert!(found.is_err(), "a length that is too long");
        let slow = catch_unwind(|| {
            fuzz("a slow one", &["x"], |data| {
                let began = worked();
                while data.len() > 3 && worked() - began < LONGEST + Duration::from_millis(10) {}
            })
        });
        assert!(slow.is_err(), "one that takes long");
    }
}
