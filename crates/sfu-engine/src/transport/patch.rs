// SPDX-License-Identifier: MPL-2.0

//! A session's later fragments: candidates, or an ICE restart (RFC 8840). Read on the caller's thread, and applied by the
//! session's transport on its shard's.

use std::ops::RangeInclusive;
use std::time::Instant;

use is::{Candidate, IceCreds};
use thiserror::Error;

use super::PatchOutcome;
use super::lean::Agreed;
use super::lean::connection::Connection;
use crate::peer::sdp::{self, CANDIDATES, Restart};

/// How long a user fragment and a password are (RFC 8839, section 5.4).
const UFRAG: RangeInclusive<usize> = 4..=256;
const PWD: RangeInclusive<usize> = 22..=256;

/// Why a fragment was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// It is not a trickle ICE fragment.
    #[error("the fragment was not understood: {0}")]
    Invalid(String),
}

/// What a fragment says.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// The peer's credentials, where there are any: if they are new ones, ICE is to be restarted.
    remote: Option<(String, Option<String>)>,
    /// Ours for that case.
    local: Option<IceCreds>,
    candidates: Vec<Candidate>,
    /// Lines of candidates, whatever was in them.
    count: usize,
}

impl Fragment {
    /// Reads one. Not on a shard's thread: it may be long.
    pub fn parse(text: &str) -> Result<Self, PatchError> {
        let is_line = |line: &str| {
            let line = line.as_bytes();
            line.is_empty() || (line.len() > 1 && line[0].is_ascii_lowercase() && line[1] == b'=')
        };
        if text.trim().is_empty() || !text.lines().map(str::trim_end).all(is_line) {
            let why = "its lines are not those of an SDP";
            return Err(PatchError::Invalid(why.to_owned()));
        }
        let (count, candidates) = sdp::candidates(text, CANDIDATES).ok_or_else(too_many)?;
        let remote = value(text, "a=ice-ufrag:").map(|ufrag| (ufrag, value(text, "a=ice-pwd:")));
        let local = match &remote {
            Some(_) => Some(sdp::credentials().map_err(|e| PatchError::Invalid(e.to_string()))?),
            None => None,
        };
        Ok(Self {
            remote,
            local,
            candidates,
            count,
        })
    }

    /// What a later offer that begins ICE anew comes to.
    pub(crate) fn restarting(restart: Restart) -> Self {
        let IceCreds { ufrag, pass } = restart.remote;
        Self {
            remote: Some((ufrag, Some(pass))),
            local: Some(restart.local),
            candidates: Vec::new(),
            count: 0,
        }
    }

    /// The peer's credentials if they are not those that are known, and ours.
    fn restart(&self, known: &str) -> Result<Option<(IceCreds, IceCreds)>, PatchError> {
        let Some(((ufrag, pwd), local)) = self.remote.as_ref().zip(self.local.as_ref()) else {
            return Ok(None);
        };
        if ufrag == known {
            return Ok(None);
        }
        let pwd = pwd.clone();
        let pass = pwd.ok_or_else(|| PatchError::Invalid("it has no a=ice-pwd line".into()))?;
        for (name, value, lengths) in [("ufrag", ufrag, UFRAG), ("pwd", &pass, PWD)] {
            // Others than ICE's own characters are sent by some, and do no harm.
            let is_sound = value.bytes().all(|b| b.is_ascii_graphic());
            if !lengths.contains(&value.len()) || !is_sound {
                return Err(PatchError::Invalid(format!("its a=ice-{name} can be none")));
            }
        }
        let ufrag = ufrag.clone();
        Ok(Some((IceCreds { ufrag, pass }, local.clone())))
    }
}

fn too_many() -> PatchError {
    let why = format!("a session may have {CANDIDATES} candidates, and this is more");
    PatchError::Invalid(why)
}

/// Applies a fragment to a session: new candidates, or with new credentials an ICE restart.
pub(crate) fn patch(
    now: Instant,
    connection: &mut Connection,
    agreed: &mut Agreed,
    fragment: &Fragment,
) -> Result<PatchOutcome, PatchError> {
    let restart = fragment.restart(&agreed.remote.ufrag)?;
    let restarts = restart.is_some();
    // Those of before a restart are forgotten with it.
    let heard = if restarts { 0 } else { agreed.heard };
    if heard + fragment.count > CANDIDATES {
        return Err(too_many());
    }
    agreed.heard = heard + fragment.count;
    if let Some((remote, local)) = restart {
        agreed.local = local;
        connection.restart(agreed.local.clone(), remote.clone());
        agreed.remote = remote;
    }
    for candidate in &fragment.candidates {
        connection.add_remote(now, candidate);
    }
    if !restarts {
        return Ok(PatchOutcome::Trickled);
    }
    Ok(PatchOutcome::Restarted {
        fragment: answer_fragment(agreed),
        local_ufrag: agreed.local.ufrag.clone(),
    })
}

fn value(sdp: &str, key: &str) -> Option<String> {
    sdp.lines()
        .find_map(|line| line.strip_prefix(key).map(|v| v.trim().to_owned()))
}

/// A trickle ICE fragment (RFC 8840, section 9) with our new credentials and our addresses.
fn answer_fragment(agreed: &Agreed) -> String {
    let IceCreds { ufrag, pass } = &agreed.local;
    let mid = &agreed.mid;
    // Of two lite agents none would check.
    let lite = match agreed.peer_is_lite {
        true => "",
        false => "a=ice-lite\r\n",
    };
    let mut out = format!(
        "{lite}m=audio 9 RTP/AVP 0\r\na=mid:{mid}\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pass}\r\n"
    );
    for candidate in &agreed.candidates {
        out.push_str(&format!("a={}\r\n", candidate.to_sdp_string()));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_read_whole_and_bounded() {
        let line = "a=candidate:1 1 udp 2113937151 192.0.2.5 50000 typ host\r\n";
        let head = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n";
        for (count, is_taken) in [
            (0, true),
            (1, true),
            (CANDIDATES, true),
            (CANDIDATES + 1, false),
        ] {
            let parsed = Fragment::parse(&format!("{head}{}", line.repeat(count)));
            assert_eq!(parsed.is_ok(), is_taken, "{count}");
            let Ok(fragment) = parsed else {
                continue;
            };
            assert_eq!((fragment.count, fragment.candidates.len()), (count, count));
            // Those that are known already change nothing.
            assert_eq!(fragment.restart("abcd").map(|r| r.is_some()), Ok(false));
            assert_eq!(fragment.restart("efgh").map(|r| r.is_some()), Ok(true));
        }
        for nonsense in [
            "",
            "\r\n",
            "nonsense",
            "a=mid:0\r\nnonsense\r\n",
            "{}",
            "A=b\r\n",
            "a\r\n",
        ] {
            assert!(Fragment::parse(nonsense).is_err(), "{nonsense:?}");
        }
        let long = "x".repeat(257);
        for (ufrag, pwd) in [
            ("abc", 22),
            ("abcd", 21),
            ("abcd", 257),
            (long.as_str(), 22),
            ("ab d", 22),
        ] {
            let pwd = "x".repeat(pwd);
            let fragment = Fragment::parse(&format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n"));
            assert!(fragment.unwrap().restart("efgh").is_err(), "{ufrag} {pwd}");
        }
        let lacks = Fragment::parse("a=ice-ufrag:abcd\r\n").unwrap();
        assert!(lacks.restart("efgh").is_err() && lacks.restart("abcd").is_ok());
    }

    #[test]
    fn fuzz_fragments() {
        let line = "a=candidate:1 1 udp 2113937151 192.0.2.5 50000 typ host\r\n";
        let head = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n";
        let tcp = "a=candidate:2 1 tcp 15 2001:db8::1 9 typ srflx raddr 192.0.2.1 rport 7 tcptype active\r\na=end-of-candidates\r\n";
        let samples = [
            format!("{head}{line}"),
            format!("{head}{tcp}"),
            line.repeat(30),
        ];
        sfu_fuzz::fuzz("fragments", &samples, |data| {
            let Ok(fragment) = Fragment::parse(&String::from_utf8_lossy(data)) else {
                return;
            };
            assert!(fragment.candidates.len() <= fragment.count.min(CANDIDATES));
            let _ = fragment.restart("abcd");
        });
    }
}
