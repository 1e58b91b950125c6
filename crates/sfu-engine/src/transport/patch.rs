// SPDX-License-Identifier: MPL-2.0

//! A session's later fragments: candidates, or an ICE restart (RFC 8840). Called by the session's transport.

use str0m::change::{SdpAnswer, SdpOffer};
use str0m::{Candidate, Rtc};
use thiserror::Error;

use super::PatchOutcome;
use super::complaint::complaint;

/// Why a fragment was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// It is not a trickle ICE fragment.
    #[error("the fragment was not understood: {0}")]
    Invalid(String),
}

/// Applies a publisher's fragment to its session: new candidates, or with new credentials an ICE restart.
///
/// A restart is the first offer once more with the new credentials, so that the one negotiation serves both.
pub(super) fn patch(
    rtc: &mut Rtc,
    offer: &mut String,
    fragment: &str,
) -> Result<PatchOutcome, PatchError> {
    let invalid = |e: &dyn std::fmt::Display| PatchError::Invalid(complaint(e));
    let known = value(offer, "a=ice-ufrag:").unwrap_or_default();
    let Some((ufrag, pwd)) = new_credentials(fragment, &known)? else {
        add_candidates(rtc, fragment)?;
        return Ok(PatchOutcome::Trickled);
    };
    let renewed = with_credentials(offer, &ufrag, &pwd);
    let parsed = SdpOffer::from_sdp_string(&renewed).map_err(|e| invalid(&e))?;
    let answer = rtc.sdp_api().accept_offer(parsed);
    let answer = answer.map_err(|e| invalid(&e))?;
    *offer = renewed;
    add_candidates(rtc, fragment)?;
    Ok(PatchOutcome::Restarted {
        fragment: answer_fragment(&answer),
        local_ufrag: rtc.direct_api().local_ice_credentials().ufrag,
    })
}

fn value(sdp: &str, key: &str) -> Option<String> {
    sdp.lines()
        .find_map(|line| line.strip_prefix(key).map(|v| v.trim().to_owned()))
}

/// User fragment and password of a fragment that restarts ICE: those that are not `known`.
pub(super) fn new_credentials(
    fragment: &str,
    known: &str,
) -> Result<Option<(String, String)>, PatchError> {
    let Some(ufrag) = value(fragment, "a=ice-ufrag:").filter(|ufrag| ufrag != known) else {
        return Ok(None);
    };
    let pwd = value(fragment, "a=ice-pwd:");
    let pwd = pwd.ok_or_else(|| PatchError::Invalid("it has no a=ice-pwd line".into()))?;
    Ok(Some((ufrag, pwd)))
}

fn with_credentials(offer: &str, ufrag: &str, pwd: &str) -> String {
    let mut out = String::with_capacity(offer.len() + 64);
    for line in offer.lines() {
        if line.starts_with("a=ice-ufrag:") {
            out.push_str(&format!("a=ice-ufrag:{ufrag}"));
        } else if line.starts_with("a=ice-pwd:") {
            out.push_str(&format!("a=ice-pwd:{pwd}"));
        } else if line.starts_with("a=candidate:") {
            continue;
        } else {
            out.push_str(line.trim_end());
        }
        out.push_str("\r\n");
    }
    out
}

/// The lines of an answer that make up a trickle ICE fragment (RFC 8840, section 9).
fn answer_fragment(answer: &SdpAnswer) -> String {
    let sdp = answer.to_sdp_string();
    let mut out = String::from("a=ice-lite\r\n");
    let mut media_seen = false;
    let mut seen: Vec<&str> = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            if media_seen {
                break;
            }
            media_seen = true;
            out.push_str("m=audio 9 RTP/AVP 0\r\n");
            continue;
        }
        let wanted = ["a=mid:", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:"];
        if wanted.iter().any(|w| line.starts_with(w)) && !seen.contains(&line) {
            seen.push(line);
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out
}

fn add_candidates(rtc: &mut Rtc, fragment: &str) -> Result<(), PatchError> {
    for candidate in candidates(fragment)? {
        rtc.add_remote_candidate(candidate);
    }
    Ok(())
}

/// The candidates of a fragment. Those that are no plain addresses (mDNS names) are passed over: the peer's checks reveal
/// its address anyway.
pub(super) fn candidates(fragment: &str) -> Result<Vec<Candidate>, PatchError> {
    const MAX: usize = 32;
    let lines = || fragment.lines().filter(|l| l.starts_with("a=candidate:"));
    if lines().count() > MAX {
        let why = format!("it has more than {MAX} candidates");
        return Err(PatchError::Invalid(why));
    }
    let parsed = lines().filter_map(|line| {
        let line = line.trim_start_matches("a=").trim();
        let candidate = Candidate::from_sdp_string(line);
        let passed = |error: &_| tracing::debug!(%error, "candidate passed over");
        candidate.inspect_err(passed).ok()
    });
    Ok(parsed.collect())
}
