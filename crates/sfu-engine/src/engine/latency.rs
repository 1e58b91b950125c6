// SPDX-License-Identifier: MPL-2.0

//! What pages need to measure the true latency, and what they report of it.

use std::time::{Duration, Instant};

use thiserror::Error;

use super::Engine;
use crate::ids::SessionId;
use crate::latency::{LATENCY_MAX, MediaClock};

/// Why a report was not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LatencyRefused {
    /// The session never was, or is over.
    #[error("there is no such session; it may have ended")]
    Unknown,
    /// No picture is that late.
    #[error("a latency is at most {} ms", LATENCY_MAX.as_millis())]
    TooLong,
    /// A page reports every ten seconds, and no faster than once a second.
    #[error("too many reports; send one every 10 s")]
    TooOften,
}

impl Engine {
    /// What a viewer's page must know to tell how old its picture is.
    pub fn media_clock(&self, id: SessionId) -> Option<MediaClock> {
        let session = self.sessions.get(id)?;
        let now = Instant::now();
        Some(MediaClock {
            now: self.identity.wall_clock().at(now),
            video: session.video_timestamp(now),
        })
    }

    /// A viewer's page has measured how old its picture is.
    pub fn report_latency(&self, id: SessionId, latency: Duration) -> Result<(), LatencyRefused> {
        if latency > LATENCY_MAX {
            return Err(LatencyRefused::TooLong);
        }
        let session = self.sessions.get(id);
        let session = session.ok_or(LatencyRefused::Unknown)?;
        let now = Instant::now();
        if !session.report_latency(now, latency) {
            return Err(LatencyRefused::TooOften);
        }
        session.stream().latencies().report(now, latency);
        Ok(())
    }
}
