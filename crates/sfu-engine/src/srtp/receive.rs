// SPDX-License-Identifier: MPL-2.0

//! The receiving side of a session, for RTP. Called for each packet of a publisher.

use std::fmt;

use super::kdf::{self, Kdf};
use super::{Cipher, KeyError, Profile, RTP_HEADER, UnprotectError, u16_at, u32_at};

/// Senders that are remembered: three layers, their retransmissions and sound are seven. A publisher that goes through more
/// loses the one that was silent longest.
const SENDERS: usize = 64;
/// How far behind the newest a packet may come (RFC 3711, section 3.3.2, wants 64): what is sent again comes under its old
/// number where there is no RTX, a second later at the most. At 10 Mbit/s that is about 1,000 packets.
const WINDOW: u64 = 1_024;
const WORDS: usize = (WINDOW / 64) as usize;
/// Below this a first packet may come after a wrap that nobody saw: what came before was lost.
const AFTER_WRAP: u16 = 4_096;

/// One sender, and which of its packets came.
struct Sender {
    ssrc: u32,
    /// Extended by the rollover counter.
    newest: u64,
    /// A bit an index, by its lowest ten bits.
    seen: [u64; WORDS],
    /// When it was heard last, in packets of the session.
    heard: u64,
}

impl Sender {
    fn new(ssrc: u32, index: u64) -> Self {
        let mut sender = Self {
            ssrc,
            newest: index,
            seen: [0; WORDS],
            heard: 0,
        };
        sender.mark(index);
        sender
    }

    /// The index that is nearest to the newest (RFC 3711, section 3.3.1).
    fn index(&self, sequence: u16) -> u64 {
        let step = sequence.wrapping_sub(self.newest as u16).cast_signed();
        let index = self.newest.checked_add_signed(step.into());
        // What would be from before the first turn is far ahead in it.
        index.unwrap_or(sequence.into())
    }

    fn has(&self, index: u64) -> bool {
        let is_old = self.newest.saturating_sub(index) >= WINDOW;
        let at = (index % WINDOW) as usize;
        index <= self.newest && (is_old || self.seen[at / 64] >> (at % 64) & 1 == 1)
    }

    fn mark(&mut self, index: u64) {
        let at = (index % WINDOW) as usize;
        self.seen[at / 64] |= 1 << (at % 64);
    }

    /// Remembers a packet that was not there and is authentic.
    fn record(&mut self, index: u64) {
        if index > self.newest {
            if index - self.newest >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for passed in self.newest + 1..index {
                    let at = (passed % WINDOW) as usize;
                    self.seen[at / 64] &= !(1 << (at % 64));
                }
            }
            self.newest = index;
        }
        self.mark(index);
    }
}

/// Opens what comes in: one for each session, for all of the peer's SSRCs.
pub struct UnprotectRtp {
    profile: Profile,
    cipher: Cipher,
    senders: Vec<Sender>,
    packets: u64,
    forgotten: u64,
}

impl UnprotectRtp {
    /// With the master key and salt of this direction. [`receiver`](super::receiver) finds both.
    pub fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Result<Self, KeyError> {
        let kdf = Kdf::new(profile, key, salt)?;
        Ok(Self {
            profile,
            cipher: Cipher::new(profile, &kdf, kdf::RTP)?,
            senders: Vec::new(),
            packets: 0,
            forgotten: 0,
        })
    }

    /// Opens a packet with a header of so many octets: its payload becomes all of `plain`. Returns the packet's index: the
    /// sequence number, extended by the rollover counter.
    ///
    /// What is not authentic is not remembered, and what is then in `plain` is worth nothing. Once per packet that comes
    /// in: allocates nothing where `plain` has room, locks nothing.
    pub fn rtp(
        &mut self,
        data: &[u8],
        header_len: usize,
        plain: &mut Vec<u8>,
    ) -> Result<u64, UnprotectError> {
        let text_len = data
            .len()
            .checked_sub(header_len + self.profile.tag_len())
            .filter(|_| header_len >= RTP_HEADER)
            .ok_or(UnprotectError::Truncated)?;
        plain.resize(text_len, 0);
        let (ssrc, sequence) = (u32_at(data, 8), u16_at(data, 2));
        self.packets += 1;
        if let Some(sender) = self.senders.iter_mut().find(|s| s.ssrc == ssrc) {
            let index = sender.index(sequence);
            if sender.has(index) {
                return Err(UnprotectError::Replayed);
            }
            self.cipher.open_rtp(data, header_len, index, plain)?;
            sender.record(index);
            sender.heard = self.packets;
            return Ok(index);
        }
        let index = self.first(data, header_len, sequence, plain)?;
        self.learn(ssrc, index);
        Ok(index)
    }

    /// Opens the first packet of a sender, whose rollover counter is not known: zero, unless it has just wrapped.
    fn first(
        &self,
        data: &[u8],
        header_len: usize,
        sequence: u16,
        plain: &mut [u8],
    ) -> Result<u64, UnprotectError> {
        let index = u64::from(sequence);
        let opened = self.cipher.open_rtp(data, header_len, index, plain);
        if opened.is_err() && sequence < AFTER_WRAP {
            let index = 1 << 16 | index;
            self.cipher.open_rtp(data, header_len, index, plain)?;
            return Ok(index);
        }
        opened.map(|()| index)
    }

    fn learn(&mut self, ssrc: u32, index: u64) {
        let sender = Sender {
            heard: self.packets,
            ..Sender::new(ssrc, index)
        };
        if self.senders.len() < SENDERS {
            self.senders.push(sender);
        } else if let Some(silent) = self.senders.iter_mut().min_by_key(|s| s.heard) {
            *silent = sender;
            self.forgotten += 1;
        }
    }

    /// How many senders had to make room for others.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

impl fmt::Debug for UnprotectRtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnprotectRtp")
            .field("profile", &self.profile)
            .field("senders", &self.senders.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::srtp::{Protect, Role, receiver, session};

    fn pair(profile: Profile) -> (Protect, UnprotectRtp) {
        let keys: Vec<u8> = (0..profile.exporter_len())
            .map(|i| i as u8 ^ 0xa5)
            .collect();
        let (protect, _) = session(profile, &keys, Role::Client).expect("keys fit");
        let unprotect = receiver(profile, &keys, Role::Server).expect("keys fit");
        (protect, unprotect)
    }

    fn sealed(protect: &mut Protect, ssrc: u32, index: u64, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&(index as u16).to_be_bytes());
        packet.extend_from_slice(&7u32.to_be_bytes());
        packet.extend_from_slice(&ssrc.to_be_bytes());
        packet.extend_from_slice(payload);
        let roc = (index >> 16) as u32;
        protect.rtp(&mut packet, 0, 12, roc).expect("sealed");
        packet
    }

    #[test]
    fn what_was_sealed_is_opened_once_over_wraps_and_reordering() {
        for profile in Profile::ALL {
            let (mut protect, mut unprotect) = pair(profile);
            let mut plain = Vec::new();
            let order = [
                65_530, 65_534, 65_533, 65_537, 65_535, 65_536, 65_531, 98_000, 130_000, 140_000,
            ];
            for index in order {
                let data = sealed(&mut protect, 1, index, &index.to_be_bytes());
                assert_eq!(
                    unprotect.rtp(&data, 12, &mut plain),
                    Ok(index),
                    "{profile:?}"
                );
                assert_eq!(plain, index.to_be_bytes());
                let again = unprotect.rtp(&data, 12, &mut plain);
                assert_eq!(again, Err(UnprotectError::Replayed));
            }
            let old = sealed(&mut protect, 1, 140_000 - WINDOW, b"old");
            assert_eq!(
                unprotect.rtp(&old, 12, &mut plain),
                Err(UnprotectError::Replayed)
            );
            let kept = sealed(&mut protect, 1, 140_001 - WINDOW, b"kept");
            assert_eq!(unprotect.rtp(&kept, 12, &mut plain), Ok(140_001 - WINDOW));
        }
    }

    #[test]
    fn a_sender_whose_first_turn_was_lost_is_understood() {
        let (mut protect, mut unprotect) = pair(Profile::AeadAes128Gcm);
        let mut plain = Vec::new();
        for index in [1 << 16 | 5, 1 << 16 | 6, 65_535] {
            let data = sealed(&mut protect, 9, index, b"x");
            assert_eq!(unprotect.rtp(&data, 12, &mut plain), Ok(index));
        }
    }

    #[test]
    fn what_is_forged_changes_nothing() {
        for profile in Profile::ALL {
            let (mut protect, mut unprotect) = pair(profile);
            let mut plain = Vec::new();
            let first = sealed(&mut protect, 1, 100, b"payload");
            assert_eq!(unprotect.rtp(&first, 12, &mut plain), Ok(100));
            for ssrc in [1, 2] {
                let good = sealed(&mut protect, ssrc, 101, b"payload");
                for at in 0..good.len() {
                    let mut bad = good.clone();
                    bad[at] ^= 1;
                    assert!(unprotect.rtp(&bad, 12, &mut plain).is_err(), "octet {at}");
                }
                assert_eq!(unprotect.senders.len(), 1, "nobody is learnt");
                assert_eq!(unprotect.rtp(&good, 12, &mut plain), Ok(101));
            }
        }
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_was_silent_longest() {
        let (mut protect, mut unprotect) = pair(Profile::AeadAes128Gcm);
        let mut plain = Vec::new();
        for ssrc in 0..500 {
            for ssrc in [ssrc, 0] {
                let index = 10 + u64::from(ssrc == 0) * unprotect.packets;
                let data = sealed(&mut protect, ssrc, index, b"x");
                unprotect.rtp(&data, 12, &mut plain).expect("authentic");
            }
        }
        assert_eq!(unprotect.senders.len(), SENDERS);
        assert!(
            unprotect.senders.iter().any(|s| s.ssrc == 0),
            "the busiest stays"
        );
        assert_eq!(unprotect.forgotten(), 500 - SENDERS as u64);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(data: Vec<u8>, header in 0usize..40) {
            for profile in Profile::ALL {
                let (_, mut unprotect) = pair(profile);
                prop_assert!(unprotect.rtp(&data, header, &mut Vec::new()).is_err());
            }
        }
    }
}
