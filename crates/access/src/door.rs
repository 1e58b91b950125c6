// SPDX-License-Identifier: MPL-2.0

//! What RTMP, RTSP and SRT have in common where [`Access`] decides: which file holds, what addresses carry, and that who was
//! let in is looked at again.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::{Access, Action, ConfigError, Credential, Outcome, Proof, Refused, Visitor, Want};

/// How often the rules and the time are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A way in or out that is not HTTP.
#[derive(Debug)]
pub struct Door {
    access: Access,
    /// Where it is told what is wrong with rules that have changed.
    warn: fn(&str),
    /// When the files were looked at last, by whomever.
    looked: Mutex<Instant>,
}

/// By what somebody was let in, and when that was looked at last.
#[derive(Debug)]
pub struct Pass {
    proof: Proof,
    wants: [Want; 1],
    looked: Instant,
}

/// What is known of who comes without waiting for anything.
#[derive(Debug)]
pub enum Knock {
    /// Come in.
    Allowed(Pass),
    /// Not this one.
    Refused(Refused),
    /// That takes a while: [`Door::admit`], on a thread that may wait.
    Wait,
}

impl Door {
    /// By the rules of the file that a property names, or else of the one that is for the whole process (`GST_SFU_ACCESS`), or
    /// else those that hold without one.
    pub fn open(named: &str, warn: fn(&str)) -> Result<Self, ConfigError> {
        let named = Some(named).filter(|file| !file.is_empty());
        let of_environment = std::env::var_os("GST_SFU_ACCESS").filter(|file| !file.is_empty());
        let file = named
            .map(PathBuf::from)
            .or(of_environment.map(PathBuf::from));
        let access = Access::open(file.as_deref())?;
        let looked = Mutex::new(Instant::now());
        Ok(Self {
            access,
            warn,
            looked,
        })
    }

    /// One line that tells what holds.
    pub fn summary(&self) -> String {
        self.access.summary()
    }

    /// Whether players may be asked for Digest: all that anybody can show is a password of which there is what that needs.
    pub fn is_digest_enough(&self) -> bool {
        self.access.is_digest_enough()
    }

    /// Whether somebody may do that with a stream. Waits where a password must be hashed, or another server asked.
    pub fn admit(
        &self,
        visitor: &Visitor<'_>,
        action: Action,
        stream: &str,
    ) -> Result<Pass, Refused> {
        // Where nobody is let in yet nobody else looks.
        self.look();
        let wants = wants(action, stream);
        let proof = self.access.check_and_wait(visitor, &wants)?;
        Ok(Pass::new(proof, wants))
    }

    /// The same for threads that must not wait.
    pub fn knock(&self, visitor: &Visitor<'_>, action: Action, stream: &str) -> Knock {
        if self.is_old() {
            return Knock::Wait;
        }
        let wants = wants(action, stream);
        match self.access.check(visitor, &wants, SystemTime::now()) {
            Outcome::Allowed(proof) => Knock::Allowed(Pass::new(proof, wants)),
            Outcome::Refused(why) => Knock::Refused(why),
            Outcome::Hash(_) => Knock::Wait,
        }
    }

    /// Reads the rules again if they have changed.
    fn look(&self) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if looked.elapsed() < LOOK_EVERY {
            return;
        }
        *looked = Instant::now();
        if let Some(Err(error)) = self.access.refresh() {
            (self.warn)(&format!("The rules stay as they are: {error}"));
        }
        if let Some(complaint) = self.access.complaint() {
            (self.warn)(&complaint);
        }
    }

    /// Whether the rules have changed, for threads that media waits for: none of it is read, and nobody is waited for.
    fn is_old(&self) -> bool {
        let Ok(mut looked) = self.looked.try_lock() else {
            return false;
        };
        if looked.elapsed() < LOOK_EVERY {
            return false;
        }
        let is_old = self.access.has_changed();
        if !is_old {
            *looked = Instant::now();
        }
        is_old
    }

    /// Whether that still holds. Looks at the rules and the clock once in a while.
    pub fn still(&self, pass: &mut Pass) -> Result<(), Refused> {
        if pass.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        pass.looked = Instant::now();
        self.look();
        self.access
            .still(&pass.proof, &pass.wants, SystemTime::now())
    }
}

impl Pass {
    fn new(proof: Proof, wants: [Want; 1]) -> Self {
        Self {
            proof,
            wants,
            looked: Instant::now(),
        }
    }

    /// For which stream.
    pub fn stream(&self) -> &str {
        self.wants[0].stream.as_deref().unwrap_or_default()
    }
}

fn wants(action: Action, stream: &str) -> [Want; 1] {
    [Want {
        action,
        stream: Some(stream.to_owned()),
    }]
}

/// What an address shows behind its `?`: `token=…`, or `user=…&pass=…`.
pub fn credential_of_query(query: &str) -> Option<Credential<'_>> {
    let field = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
    };
    match (field("token"), field("user"), field("pass")) {
        (Some(token), ..) => Some(Credential::Bearer(token)),
        (None, Some(user), Some(password)) => Some(Credential::Basic { user, password }),
        _ => None,
    }
}
