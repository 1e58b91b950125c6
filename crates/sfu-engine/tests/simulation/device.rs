// SPDX-License-Identifier: MPL-2.0

//! The server's own network device: takes what its buffer has room for, and refuses the rest, as the kernel does.

use std::time::{Duration, Instant};

/// What its buffer holds, in octets.
const BUFFER: f64 = 32_000.0;

/// See the module's description.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    /// Octets a second.
    rate: f64,
    free: f64,
    at: Instant,
    /// It has refused something, and takes nothing before half of its buffer is free.
    refuses: bool,
    /// How often it refused.
    pub(crate) refusals: u64,
}

impl Device {
    /// A device of this rate, in bit/s.
    pub(crate) fn new(now: Instant, rate: u64) -> Self {
        Self {
            rate: rate as f64 / 8.0,
            free: BUFFER,
            at: now,
            refuses: false,
            refusals: 0,
        }
    }

    /// Whether it takes a datagram.
    pub(crate) fn takes(&mut self, now: Instant, octets: usize) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.free = (self.free + since * self.rate).min(BUFFER);
        self.at = self.at.max(now);
        let wanted = octets as f64;
        if self.refuses && self.free < BUFFER / 2.0 || self.free < wanted {
            self.refusals += u64::from(!self.refuses);
            self.refuses = true;
            return false;
        }
        self.refuses = false;
        self.free -= wanted;
        true
    }

    /// When it takes something again.
    pub(crate) fn next(&self) -> Option<Instant> {
        let missing = (BUFFER / 2.0 - self.free).max(0.0) / self.rate;
        self.refuses
            .then(|| self.at + Duration::from_secs_f64(missing) + Duration::from_micros(1))
    }
}
