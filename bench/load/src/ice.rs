// SPDX-License-Identifier: MPL-2.0

//! The least of ICE (RFC 8445) that connects one socket to a server: checks each address of its SDP, keeps the first
//! that answers, and goes on asking it for consent (RFC 7675).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use is::stun::{StunMessage, TransId};
use is::{DefaultSha1HmacProvider, Sha1HmacProvider};

use crate::sdp::Credentials;

/// Between checks, until one is answered.
const CHECK: Duration = Duration::from_millis(100);
/// Between checks for consent.
const CONSENT: Duration = Duration::from_secs(4);
/// Checks that may be unanswered at a time.
const MAX_OPEN: usize = 64;
/// The priority of a host candidate that the server may learn from a check.
const PRIORITY: u32 = 1_862_270_975;

/// One viewer's side.
#[derive(Debug)]
pub struct Ice {
    local: Credentials,
    remote: Credentials,
    controlling: bool,
    tie_breaker: u64,
    candidates: Vec<SocketAddr>,
    open: Vec<(TransId, SocketAddr)>,
    selected: Option<SocketAddr>,
    next: Instant,
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    DefaultSha1HmacProvider.sha1_hmac(key, parts)
}

impl Ice {
    /// Begins to check the candidates.
    pub fn new(
        local: Credentials,
        remote: Credentials,
        controlling: bool,
        candidates: Vec<SocketAddr>,
        now: Instant,
    ) -> Self {
        let mut octets = [0; 8];
        // Chance decides only who leads where both think they do.
        let _ = getrandom::fill(&mut octets);
        Self {
            local,
            remote,
            controlling,
            tie_breaker: u64::from_ne_bytes(octets),
            candidates,
            open: Vec::new(),
            selected: None,
            next: now,
        }
    }

    /// The server's address, once it has answered.
    pub fn selected(&self) -> Option<SocketAddr> {
        self.selected
    }

    /// Sends checks that are due.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<(SocketAddr, Vec<u8>)>) -> Result<()> {
        if now < self.next {
            return Ok(());
        }
        match self.selected {
            Some(address) => {
                self.check(address, out)?;
                self.next = now + CONSENT;
            }
            None => {
                for address in self.candidates.clone() {
                    self.check(address, out)?;
                }
                self.next = now + CHECK;
            }
        }
        Ok(())
    }

    fn check(&mut self, to: SocketAddr, out: &mut Vec<(SocketAddr, Vec<u8>)>) -> Result<()> {
        let username = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        let id = TransId::new();
        let message = StunMessage::binding_request(
            &username,
            id,
            self.controlling,
            self.tie_breaker,
            PRIORITY,
            self.controlling,
        );
        out.push((to, encode(message, &self.remote.pwd)?));
        if self.open.len() >= MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((id, to));
        Ok(())
    }

    /// Takes a STUN message: an answer to a check, or the server's own check.
    pub fn receive(
        &mut self,
        from: SocketAddr,
        data: &[u8],
        out: &mut Vec<(SocketAddr, Vec<u8>)>,
    ) -> Result<()> {
        let message = StunMessage::parse(data).map_err(|e| anyhow!("no STUN message: {e:?}"))?;
        if message.is_successful_binding_response() {
            let id = message.trans_id();
            let found = self.open.iter().position(|(open, _)| *open == id);
            if let Some(at) = found
                && message.verify(self.remote.pwd.as_bytes(), hmac)
            {
                let (_, to) = self.open.remove(at);
                self.selected.get_or_insert(to);
            }
        } else if message.is_binding_request() && message.verify(self.local.pwd.as_bytes(), hmac) {
            let reply = StunMessage::binding_reply(message.trans_id(), from);
            out.push((from, encode(reply, &self.local.pwd)?));
            // An address that its SDP did not have.
            if self.selected.is_none() && !self.candidates.contains(&from) {
                self.candidates.push(from);
            }
        }
        Ok(())
    }
}

fn encode(message: StunMessage<'_>, password: &str) -> Result<Vec<u8>> {
    let mut buffer = [0; 512];
    let len = message
        .to_bytes(Some(password.as_bytes()), &mut buffer, hmac)
        .map_err(|e| anyhow!("STUN message could not be written: {e:?}"))?;
    Ok(buffer[..len].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_find_each_other() {
        let now = Instant::now();
        let (a, b) = (
            Credentials::random().unwrap(),
            Credentials::random().unwrap(),
        );
        let addresses: [SocketAddr; 2] = [
            "127.0.0.1:1".parse().unwrap(),
            "127.0.0.1:2".parse().unwrap(),
        ];
        let mut left = Ice::new(a.clone(), b.clone(), true, vec![addresses[1]], now);
        let mut right = Ice::new(b, a, false, vec![], now);
        let (mut to_right, mut to_left) = (Vec::new(), Vec::new());
        left.poll(now, &mut to_right).unwrap();
        assert_eq!(to_right.len(), 1);
        for (_, data) in to_right.drain(..) {
            right.receive(addresses[0], &data, &mut to_left).unwrap();
        }
        right.poll(now, &mut to_left).unwrap();
        for (_, data) in std::mem::take(&mut to_left) {
            left.receive(addresses[1], &data, &mut to_right).unwrap();
        }
        for (_, data) in to_right {
            right.receive(addresses[0], &data, &mut to_left).unwrap();
        }
        assert_eq!(left.selected(), Some(addresses[1]));
        assert_eq!(right.selected(), Some(addresses[0]));
    }
}
