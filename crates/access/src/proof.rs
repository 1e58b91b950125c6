// SPDX-License-Identifier: MPL-2.0

//! By what somebody was let in, for as long as that holds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::Digest;
use crate::visitor::{Visitor, Want};
use crate::webhook::Asker;

/// What an answer rests on: asked again later it tells whether that still holds.
#[derive(Debug, Clone)]
pub struct Proof {
    pub(crate) address: Option<IpAddr>,
    pub(crate) local: bool,
    pub(crate) named: bool,
    pub(crate) shown: Option<Shown>,
}

#[derive(Clone)]
pub(crate) enum Shown {
    Key(Digest),
    Token {
        text: Arc<str>,
        until: SystemTime,
    },
    User {
        name: Arc<str>,
        /// What stands in the file for the password.
        secret: Arc<str>,
    },
    /// A webhook says so, until it has to be asked again.
    Asked {
        asker: Arc<Asker>,
        wants: Arc<[Want]>,
        until: SystemTime,
    },
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(_) => f.write_str("a key"),
            Self::Token { .. } => f.write_str("a token"),
            Self::User { name, .. } => write!(f, "user {name:?}"),
            Self::Asked { .. } => f.write_str("who the webhook lets in"),
        }
    }
}

impl std::fmt::Display for Proof {
    /// For the log: who it is, without what was shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.shown, self.local) {
            (Some(shown), _) => write!(f, "{shown:?}"),
            (None, true) => f.write_str("this machine"),
            (None, false) => f.write_str("anyone"),
        }
    }
}

impl Proof {
    /// Of who shows nothing that is needed.
    pub(crate) fn of(visitor: &Visitor<'_>, shown: Option<Shown>) -> Self {
        Self {
            address: visitor.address,
            local: visitor.local,
            named: visitor.named,
            shown,
        }
    }

    /// Whether it showed something that was needed.
    pub fn has_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// The name of the user who showed a password.
    pub fn user(&self) -> Option<&str> {
        match &self.shown {
            Some(Shown::User { name, .. }) => Some(name),
            _ => None,
        }
    }

    /// From when on it has to be asked again whether it holds, besides after changes.
    pub fn until(&self) -> Option<SystemTime> {
        match self.shown {
            Some(Shown::Token { until, .. } | Shown::Asked { until, .. }) => Some(until),
            _ => None,
        }
    }

    /// When it ends by itself, whatever happens.
    pub fn ends(&self) -> Option<SystemTime> {
        match self.shown {
            Some(Shown::Token { until, .. }) => Some(until),
            _ => None,
        }
    }
}
