// SPDX-License-Identifier: MPL-2.0

//! What the engine counts: plain relaxed counters, read by the metrics page and the elements' `stats`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)*) => {
        /// The counters of one engine, shared by its shards.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub(crate) $name: Counter,)*
        }

        /// The counters' values at one moment.
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
        pub struct CountersSnapshot {
            $($(#[doc = $help])+ pub $name: u64,)*
        }

        impl Counters {
            /// The values now.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.get(),)* }
            }
        }

        impl CountersSnapshot {
            /// Name, description and value of each counter, for a metrics page.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($help),+).trim_ascii(), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Datagrams received on the UDP ports.
    datagrams_in,
    /// Datagrams dropped because they belong to no session.
    datagrams_unknown,
    /// Datagrams dropped because their session did not understand them.
    datagrams_invalid,
    /// Datagrams sent.
    datagrams_out,
    /// Datagrams that the socket did not take.
    datagrams_dropped,
    /// Datagrams that were larger than the path to their viewer carries. They left in fragments, where that was possible.
    datagrams_too_large,
    /// RTP packets forwarded to viewers, without retransmissions.
    packets_out,
    /// Keyframes that viewers needed: PLI, FIR and joins.
    keyframe_requests,
    /// Frames that a shard had no room for.
    frames_dropped,
    /// Sessions opened.
    sessions_opened,
    /// Sessions closed.
    sessions_closed,
    /// Sessions ended by an internal error.
    sessions_failed,
    /// Offers refused.
    offers_refused,
}
