// SPDX-License-Identifier: MPL-2.0

//! What the rest of the process may see of a viewer's session while its shard runs it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::ids::{Rid, SessionId, StreamName};
use crate::stream::Stream;

/// "No layer" in [`SessionShared::current`], and "unknown" in the round trip time.
const NONE: usize = usize::MAX;

/// Figures of one session, written by its shard with plain stores, once a frame.
#[derive(Debug)]
pub struct SessionShared {
    id: SessionId,
    stream: Arc<Stream>,
    shard: usize,
    etag: Mutex<String>,
    wanted: Mutex<Option<Rid>>,
    current: AtomicUsize,
    connected: AtomicBool,
    packets_sent: AtomicU64,
    bytes_sent: AtomicU64,
    retransmitted: AtomicU64,
    keyframe_requests: AtomicU64,
    rtt_micros: AtomicU64,
}

/// A snapshot of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Whose.
    pub id: SessionId,
    /// What it watches.
    pub stream: StreamName,
    /// Changes with the ICE credentials (WHEP's entity tag, with its quotes).
    pub etag: String,
    /// The layer that the viewer asked for; `None` is automatic.
    pub wanted: Option<Rid>,
    /// The layer that it gets.
    pub current: Option<Rid>,
    /// ICE and DTLS are up.
    pub connected: bool,
    /// Media packets, without retransmissions.
    pub packets_sent: u64,
    /// Their RTP payload.
    pub bytes_sent: u64,
    /// Retransmitted video packets.
    pub retransmitted: u64,
    /// Keyframe requests (PLI and FIR) that the viewer sent.
    pub keyframe_requests: u64,
    /// Round trip time from the viewer's reports.
    pub rtt: Option<Duration>,
}

impl SessionShared {
    /// A session that has not begun.
    pub fn new(
        id: SessionId,
        stream: Arc<Stream>,
        shard: usize,
        etag: String,
        wanted: Option<Rid>,
    ) -> Self {
        Self {
            id,
            stream,
            shard,
            etag: Mutex::new(etag),
            wanted: Mutex::new(wanted),
            current: AtomicUsize::new(NONE),
            connected: AtomicBool::new(false),
            packets_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            retransmitted: AtomicU64::new(0),
            keyframe_requests: AtomicU64::new(0),
            rtt_micros: AtomicU64::new(u64::MAX),
        }
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard
    }

    pub(crate) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    pub(crate) fn set_etag(&self, etag: String) {
        *self.etag.lock().unwrap_or_else(PoisonError::into_inner) = etag;
    }

    pub(crate) fn set_wanted(&self, layer: Option<Rid>) {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = layer;
    }

    pub(crate) fn wanted(&self) -> Option<Rid> {
        self.wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_current(&self, layer: Option<usize>) {
        self.current.store(layer.unwrap_or(NONE), Relaxed);
    }

    pub(crate) fn set_connected(&self) {
        self.connected.store(true, Relaxed);
    }

    pub(crate) fn set_sent(&self, packets: u64, bytes: u64) {
        self.packets_sent.store(packets, Relaxed);
        self.bytes_sent.store(bytes, Relaxed);
    }

    pub(crate) fn count_keyframe_request(&self) {
        self.keyframe_requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_report(&self, retransmitted: u64, rtt: Option<Duration>) {
        self.retransmitted.store(retransmitted, Relaxed);
        if let Some(rtt) = rtt {
            self.rtt_micros.store(rtt.as_micros() as u64, Relaxed);
        }
    }

    /// The figures as they are now.
    pub fn info(&self) -> SessionInfo {
        let rids = self.stream.rids();
        let rtt = self.rtt_micros.load(Relaxed);
        SessionInfo {
            id: self.id,
            stream: self.stream.name().clone(),
            etag: self
                .etag
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            wanted: self.wanted(),
            current: rids.get(self.current.load(Relaxed)).cloned(),
            connected: self.connected.load(Relaxed),
            packets_sent: self.packets_sent.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            retransmitted: self.retransmitted.load(Relaxed),
            keyframe_requests: self.keyframe_requests.load(Relaxed),
            rtt: (rtt != u64::MAX).then(|| Duration::from_micros(rtt)),
        }
    }
}
