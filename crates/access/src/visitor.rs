// SPDX-License-Identifier: MPL-2.0

//! Who asks, for what, and what it is told.

use std::net::IpAddr;
use std::time::Duration;

use crate::digest::DigestAnswer;
use crate::proof::Proof;
use crate::token::TokenError;
use crate::{Action, password, webhook};

/// Who asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Visitor<'a> {
    /// The address that it is believed to have.
    pub address: Option<IpAddr>,
    /// It is on this machine, and no page of elsewhere and no proxy stands behind it.
    pub local: bool,
    /// It used a name of ours, so that its address is what counts and not that of a browser that was led here.
    pub named: bool,
    /// What it showed.
    pub credential: Option<Credential<'a>>,
    /// By which it came, as MediaMTX calls it: `webrtc`, `hls`, `rtmp`, `rtsp`, `srt`.
    pub protocol: &'static str,
}

/// What somebody shows.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A token or a key: `Authorization: Bearer`, `?token=`, an RTMP key.
    Bearer(&'a str),
    /// A user's name and password, or any name, and a token or key.
    Basic {
        /// The name.
        user: &'a str,
        /// The password.
        password: &'a str,
    },
    /// RTSP's Digest, to a nonce that is known to be ours: for users with an HA1.
    Digest(DigestAnswer<'a>),
}

impl std::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bearer(_) => "Bearer …",
            Self::Basic { .. } => "Basic …",
            Self::Digest(_) => "Digest …",
        })
    }
}

/// For what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// What is to be done.
    pub action: Action,
    /// With which stream, unless it is about the server.
    pub stream: Option<String>,
}

/// The answer.
#[derive(Debug)]
pub enum Outcome {
    /// It may.
    Allowed(Proof),
    /// It may not.
    Refused(Refused),
    /// A password must be hashed, or another server asked, first ([`Access::hash`]): ask again afterwards.
    Hash(Job),
}

/// Work that takes a while, on threads of its own.
#[derive(Debug)]
pub struct Job(pub(crate) Work);

#[derive(Debug)]
pub(crate) enum Work {
    Hash(password::Job),
    Ask(webhook::Job),
}

/// What can be shown to be let in, so that nobody is asked for what would be no use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways {
    /// A token or a key.
    pub tokens: bool,
    /// A name and a password.
    pub passwords: bool,
    /// There is a secret that tokens of our own are made with.
    pub ours: bool,
}

impl Ways {
    /// What who showed nothing is told to do.
    pub fn advice(self) -> String {
        let what = match (self.tokens, self.passwords) {
            (true, true) => "needs a token, a key or a password",
            (true, false) => "needs a token or key",
            (false, true) => "needs a name and a password",
            (false, false) => {
                return "is not for everybody here, and no access file names a token, key or user that it could be for \
                        (docs/access.md)"
                    .to_owned();
            }
        };
        let mut how = Vec::new();
        if self.tokens {
            how.push("a token or key as Authorization: Bearer …, or as ?token=…");
        }
        if self.passwords {
            how.push("a name and password as Authorization: Basic …");
        }
        let made = if self.ours {
            "; ./sfu token makes one"
        } else {
            ""
        };
        format!("{what} here: send {}{made}", how.join(", "))
    }
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing was shown.
    #[error("this needs a token, a key or a password")]
    Nothing,
    /// A token that is not taken.
    #[error("{0}")]
    Token(#[from] TokenError),
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// Neither a key nor a password.
    #[error("that is none of this server's keys, tokens or passwords")]
    Unknown,
    /// Known, and not for this.
    #[error("who shows this may do other things, but not this one")]
    NotThis,
    /// Wrong passwords came from there.
    #[error("too many wrong passwords came from this address")]
    Later(Duration),
    /// Too many passwords wait to be looked at.
    #[error("too many passwords wait to be looked at")]
    Busy,
    /// Who decides does not answer.
    #[error("the server that decides about this does not answer, or neither yes nor no")]
    Silent,
}
