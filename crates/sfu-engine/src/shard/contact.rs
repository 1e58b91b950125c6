// SPDX-License-Identifier: MPL-2.0

//! Whether a peer is still there, from which addresses it speaks, how its checks name it, and what it may cost. Every
//! session has one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::transport::work::{Allowance, Limit};

/// A viewer from which nothing comes for this long is gone. Browsers send consent checks every 5 s (RFC 7675) and
/// reports every second.
pub(super) const VIEWER_SILENCE: Duration = Duration::from_secs(20);
/// A peer that has not connected by then never will.
const CONNECT: Duration = Duration::from_secs(20);
/// Addresses of a peer that are known at a time, as many as its pairs; one after the other there may be any number.
const MAX_ADDRESSES: usize = 16;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Contact {
    since: Instant,
    silence: Duration,
    last_heard: Instant,
    connected: bool,
    /// That which was heard last is the last.
    addresses: Vec<SocketAddr>,
    /// Its user fragment, and the one before the last ICE restart: checks under that may still be on their way.
    ufrags: [Option<String>; 2],
    /// What its datagrams may cost.
    pub(super) allowance: Allowance,
}

impl Contact {
    /// A peer that is gone when nothing comes from it for `silence`.
    pub(super) fn new(now: Instant, silence: Duration, limit: Limit) -> Self {
        Self {
            since: now,
            silence,
            last_heard: now,
            connected: false,
            addresses: Vec::new(),
            ufrags: [None, None],
            allowance: Allowance::new(now, limit),
        }
    }

    /// Something authentic came.
    pub(super) fn heard(&mut self, now: Instant, source: SocketAddr) {
        self.last_heard = now;
        if self.addresses.last() == Some(&source) {
            return;
        }
        if let Some(at) = self.addresses.iter().position(|known| *known == source) {
            let from_there_on = self.addresses.get_mut(at..);
            from_there_on.unwrap_or_default().rotate_left(1);
        }
    }

    /// When the session began.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn set_connected(&mut self) {
        self.connected = true;
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// When the peer counts as gone unless something comes from it.
    pub(super) fn gone_at(&self) -> Instant {
        if self.connected {
            self.last_heard + self.silence
        } else {
            self.since + CONNECT
        }
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The user fragments under which its checks may come.
    pub(super) fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.ufrags.iter().flatten().map(String::as_str)
    }

    /// Its checks come under this user fragment from now on. Returns the one that is known no more.
    pub(super) fn rename(&mut self, ufrag: String) -> Option<String> {
        let [now, before] = &mut self.ufrags;
        std::mem::replace(before, now.replace(ufrag))
    }

    /// Notes an address that the peer sends from. Returns the one that is forgotten for it.
    pub(super) fn remember(&mut self, address: SocketAddr) -> Option<SocketAddr> {
        if self.addresses.contains(&address) {
            return None;
        }
        let is_full = self.addresses.len() >= MAX_ADDRESSES;
        let forgotten = is_full.then(|| self.addresses.remove(0));
        self.addresses.push(address);
        forgotten
    }
}
