// SPDX-License-Identifier: MPL-2.0

//! A session's later fragments: candidates, or an ICE restart (RFC 8840). Called by the session's transport.

use std::time::Instant;

use is::IceCreds;
use thiserror::Error;

use super::PatchOutcome;
use super::lean::Agreed;
use super::lean::connection::Connection;
use crate::peer::sdp::{self, CANDIDATES};

/// Why a fragment was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatchError {
    /// It is not a trickle ICE fragment.
    #[error("the fragment was not understood: {0}")]
    Invalid(String),
}

/// Applies a fragment to a session: new candidates, or with new credentials an ICE restart.
pub(crate) fn patch(
    now: Instant,
    connection: &mut Connection,
    agreed: &mut Agreed,
    fragment: &str,
) -> Result<PatchOutcome, PatchError> {
    let restart = new_credentials(fragment, &agreed.remote.ufrag)?;
    let left = CANDIDATES.saturating_sub(agreed.heard);
    let Some((count, candidates)) = sdp::candidates(fragment, left) else {
        let why = format!("a session may have {CANDIDATES} candidates, and this is more");
        return Err(PatchError::Invalid(why));
    };
    agreed.heard += count;
    if let Some((ufrag, pass)) = &restart {
        let (ufrag, pass) = (ufrag.clone(), pass.clone());
        let remote = IceCreds { ufrag, pass };
        agreed.local = sdp::credentials().map_err(|e| PatchError::Invalid(e.to_string()))?;
        connection.restart(agreed.local.clone(), remote.clone());
        agreed.remote = remote;
    }
    for candidate in candidates {
        connection.add_remote(now, &candidate);
    }
    if restart.is_none() {
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

/// User fragment and password of a fragment that restarts ICE: those that are not `known`.
fn new_credentials(fragment: &str, known: &str) -> Result<Option<(String, String)>, PatchError> {
    let Some(ufrag) = value(fragment, "a=ice-ufrag:").filter(|ufrag| ufrag != known) else {
        return Ok(None);
    };
    let pwd = value(fragment, "a=ice-pwd:");
    let pwd = pwd.ok_or_else(|| PatchError::Invalid("it has no a=ice-pwd line".into()))?;
    Ok(Some((ufrag, pwd)))
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
