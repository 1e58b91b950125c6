// SPDX-License-Identifier: MPL-2.0

//! How many HTTP connections there may be, and how long each may let us wait.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

/// The largest head of a request, in octets; a browser's has one or two KiB.
pub(super) const HEAD_MAX: usize = 32 * 1024;
/// The largest number of header fields.
pub(super) const FIELDS_MAX: usize = 100;
/// The largest request body: an offer of a browser has about 8 KiB.
pub(super) const BODY_MAX: usize = 64 * 1024;

/// HTTP/2: requests of a connection at a time. A page has an event stream, a segment and a few more.
pub(super) const STREAMS_MAX: u32 = 32;
/// What of an answer may wait for its peer's window.
pub(super) const STREAM_SEND_MAX: usize = 8 * 1024;
/// Streams that break the rules, of one connection in all.
pub(super) const STREAM_ERRORS_MAX: usize = 100;
/// Requests that the peer gives up before they are answered, where that is most of them.
pub(super) const GIVEN_UP_MAX: u32 = 100;

/// From the first octet of a request, or the connection's begin, to the end of the head.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(10);
/// From there to the end of the body.
pub(super) const BODY_TIME: Duration = Duration::from_secs(15);
/// Between requests.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(60);
/// For a reader to take anything of what it is sent. Who is merely slow takes something.
pub(super) const STALL_TIME: Duration = Duration::from_secs(60);

/// Descriptors that are left to files, pipelines and media, at least; and a quarter of all.
const RESERVE: usize = 256;
/// More connections than this only cost memory: 16 KiB each while nothing is under way. Not tuned.
const MOST: usize = 8_192;
/// Of one address: a school's 500 viewers have an event stream and a page or two each.
const MOST_PER_ADDRESS: usize = 2_048;

/// Who reads a segment is done within seconds.
const FILES: usize = 2_048;

/// Peers that get no UDP through, each with a queue that may hold 256 KiB for a moment.
const MEDIA: usize = 4_096;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) connections: usize,
    pub(super) per_address: usize,
    /// Files that are being read at a time: half of the descriptors that are left to files, pipelines and media.
    pub(super) files: usize,
    /// TCP connections of peers' media: a quarter of those descriptors.
    pub(super) media: usize,
}

impl Limits {
    /// From the properties, of which 0 leaves it to what the process may open.
    pub(super) fn new(connections: u32, per_address: u32) -> Self {
        // `None` is no limit.
        let descriptors = getrlimit(Resource::Nofile).current;
        let descriptors = descriptors.map_or(usize::MAX, |n| n as usize);
        Self::of(descriptors, connections as usize, per_address as usize)
    }

    fn of(descriptors: usize, connections: usize, per_address: usize) -> Self {
        let or = |chosen: usize, derived: usize| if chosen == 0 { derived } else { chosen };
        let reserved = RESERVE.max(descriptors / 4);
        let free = descriptors.saturating_sub(reserved);
        let connections = or(connections, free.clamp(16, MOST));
        let share = (connections / 4 * 3).clamp(1, MOST_PER_ADDRESS);
        Self {
            connections,
            per_address: or(per_address, share),
            media: (reserved.min(descriptors) / 4).clamp(8, MEDIA),
            files: (reserved.min(descriptors) / 2).clamp(8, FILES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_left_for_files() {
        for (descriptors, chosen, chosen_per_address, connections, per_address, files, media) in [
            (1_024, 0, 0, 768, 576, 128, 64),
            (20_000, 0, 0, 8_192, 2_048, 2_048, 1_250),
            (usize::MAX, 0, 0, 8_192, 2_048, 2_048, 4_096),
            (64, 0, 0, 16, 12, 32, 16),
            (0, 0, 0, 16, 12, 8, 8),
            (1_024, 100, 0, 100, 75, 128, 64),
            (1_024, 0, 10, 768, 10, 128, 64),
            (1_024, 1, 0, 1, 1, 128, 64),
        ] {
            assert_eq!(
                Limits::of(descriptors, chosen, chosen_per_address),
                Limits {
                    connections,
                    per_address,
                    files,
                    media
                },
                "{descriptors}"
            );
        }
    }
}
