// SPDX-License-Identifier: MPL-2.0

//! Why a session drops a STUN message, counted for the whole process. Called by the connection.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// See the module's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is no sound Binding message, and why.
    Malformed(&'static str),
    Indication,
    Nameless,
    OtherSession,
    Integrity,
    Unasked,
    Elsewhere,
    Refused,
}

/// What metrics are made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) malformed: u64,
    pub(crate) unnamed: u64,
    pub(crate) integrity: u64,
    pub(crate) unasked: u64,
    pub(crate) refused: u64,
}

static COUNTS: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

impl Dropped {
    pub(crate) fn count(self) {
        let at = match self {
            Self::Malformed(_) | Self::Indication => 0,
            Self::Nameless | Self::OtherSession => 1,
            Self::Integrity => 2,
            Self::Unasked | Self::Elsewhere => 3,
            Self::Refused => 4,
        };
        if let Some(count) = COUNTS.get(at) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Malformed(why) => why,
            Self::Indication => "an indication, which nobody has signed",
            Self::Nameless => "a request without USERNAME",
            Self::OtherSession => "a request for another session",
            Self::Integrity => "its integrity is wrong: another password",
            Self::Unasked => "an answer to what was not asked",
            Self::Elsewhere => "an answer from another address than was asked",
            Self::Refused => "a check was refused",
        }
    }
}

/// What was dropped since the process began.
pub(crate) fn counts() -> Counts {
    let [malformed, unnamed, integrity, unasked, refused] =
        COUNTS.each_ref().map(|count| count.load(Relaxed));
    Counts {
        malformed,
        unnamed,
        integrity,
        unasked,
        refused,
    }
}
