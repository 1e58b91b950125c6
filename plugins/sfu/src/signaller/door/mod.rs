// SPDX-License-Identifier: MPL-2.0

//! The front door: every request passes here before its handler, and is let in by the rule that its route names.

mod credential;
mod gate;
#[cfg(test)]
mod matrix;
mod names;
mod origins;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;

use axum::http::request::Parts;
use sfu_access::{Access, Action, Proof, Refused, Rights, Want, Ways};
use sfu_engine::StreamName;

pub(super) use gate::{Rule, gate};
pub(super) use names::{Host, Names};
pub(super) use origins::Origins;
use sessions::Held;
pub(super) use sessions::watch;

use super::server::App;

/// Who decides, and by what.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) access: Access,
    origins: Origins,
    names: Names,
    held: Held,
    /// Whether there are rules in a file, and so tokens and changes.
    has_file: bool,
}

/// The environment's, for all elements that are told of no other.
const ACCESS_FILE: &str = "GST_SFU_ACCESS";

fn named_by_environment() -> Option<PathBuf> {
    let file = std::env::var_os(ACCESS_FILE).filter(|file| !file.is_empty());
    file.map(PathBuf::from)
}

impl Door {
    /// By the file of the property `access`, or of the environment, or without one.
    pub(super) fn open(file: &str, origins: Origins, names: Names) -> Result<Self, String> {
        let named = (!file.is_empty()).then(|| PathBuf::from(file));
        let file = named.or_else(named_by_environment);
        let access = Access::open(file.as_deref()).map_err(|e| format!("access: {e}"))?;
        Ok(Self {
            access,
            origins,
            names,
            held: Held::default(),
            has_file: file.is_some(),
        })
    }

    /// Who showed a password for a session.
    pub(super) fn user_of(&self, session: sfu_engine::SessionId) -> Option<String> {
        self.held.user_of(session)
    }

    /// Whether somebody who calls us so is answered at all.
    pub(super) fn is_called(&self, host: Option<&Host>) -> bool {
        self.names.is_answered(host)
    }

    /// One line for the log.
    pub(super) fn summary(&self) -> String {
        let by = if self.has_file {
            ""
        } else {
            " (no access file)"
        };
        format!("access{by}: {}", self.access.summary())
    }
}

/// Who was let in, and for what.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub(super) proof: Proof,
    wants: Arc<[Want]>,
    /// Its token was in the address.
    pub(super) token: Option<Arc<str>>,
}

impl Pass {
    /// The same for something else that it may do.
    pub(super) fn with(&self, want: Want) -> Self {
        Self {
            wants: [want].into(),
            ..self.clone()
        }
    }

    /// Whether what was shown is good for nothing any more. `seen`: by which rules that was looked at, since reading tokens again
    /// takes a while.
    pub(super) fn is_over(&self, app: &App, seen: &mut u64) -> bool {
        let now = std::time::SystemTime::now();
        let access = &app.door.access;
        let generation = access.generation();
        let changed = std::mem::replace(seen, generation) != generation;
        let expired = self.proof.until().is_some_and(|until| until <= now);
        (changed || expired) && access.still_knows(&self.proof, now).is_err()
    }

    /// What else it may do.
    pub(super) fn rights(&self, app: &App) -> Rights {
        app.door
            .access
            .rights(&self.proof, std::time::SystemTime::now())
    }
}

/// With a stream.
pub(super) fn want(action: Action, stream: &str) -> Want {
    let stream = Some(stream.to_owned());
    Want { action, stream }
}

/// Whether it may be played.
pub(super) fn may_play(rights: &Rights, stream: &StreamName) -> bool {
    rights.may(&[want(Action::Play, stream.as_str())]).is_ok()
}

/// A handler's part of the gate's work.
impl axum::extract::FromRequestParts<App> for Pass {
    type Rejection = super::server::Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Self::Rejection> {
        // A route without the gate lets nobody in.
        let pass = parts.extensions.get::<Self>().cloned();
        pass.ok_or_else(|| gate::refusal(Refused::Nothing, "this", Ways::default()))
    }
}
