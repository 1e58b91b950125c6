// SPDX-License-Identifier: MPL-2.0

//! What a publisher that has asked and has sent nothing yet has of a stream: who never connects takes nothing away.
//!
//! Made by [`Stream::claim`](crate::stream::Stream::claim), held by the publisher's session ([`shard`](crate::shard)).

use std::sync::Arc;
use std::time::Instant;

use crate::stream::{Lease, PublishOptions, Stream};

/// See the module's description. Dropping it gives the stream up.
#[derive(Debug)]
pub struct Claim {
    pub(crate) stream: Arc<Stream>,
    pub(crate) right: Right,
}

#[derive(Debug)]
pub(crate) enum Right {
    /// Nobody else had it. Until media comes anybody may take it.
    Held(Lease),
    /// Somebody else has it, who would make room.
    Wanted {
        /// How the publisher wants to be treated.
        options: PublishOptions,
        /// It steps in whoever is there.
        takeover: bool,
    },
}

impl Claim {
    /// The lease, where it is held.
    pub(crate) fn lease(&self) -> Option<Lease> {
        match self.right {
            Right::Held(lease) => Some(lease),
            Right::Wanted { .. } => None,
        }
    }

    /// Another one has it: who wanted it is told.
    pub(crate) fn refuse(&self) {
        if let Right::Wanted { options, .. } = &self.right {
            options.feedback.replaced();
        }
    }

    /// Media has come: the stream is taken, unless somebody has it who stays.
    pub(crate) fn begin(&mut self, now: Instant) -> Option<Lease> {
        if let Right::Wanted { options, takeover } = &self.right {
            let lease = self.stream.start(options.clone(), *takeover, now)?;
            self.right = Right::Held(lease);
            self.stream.unclaim();
        }
        self.lease()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        match &self.right {
            Right::Held(lease) => self.stream.stop(*lease),
            Right::Wanted { .. } => self.stream.unclaim(),
        }
    }
}
