// SPDX-License-Identifier: MPL-2.0

//! What the rest of the process may see of a viewer's session while its shard runs it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::address;
use crate::engine::{Admitted, Place};
use crate::ids::{Rid, SessionId, StreamName};
use crate::layers::{Preference, Rung, Why};
use crate::stream::Stream;
use crate::temporal::{AtomicLimit, Limit};

/// "None" in [`SessionShared::current`], [`SessionShared::target`] and [`SessionShared::audio`].
const NONE: usize = usize::MAX;

/// Reports of latency that come faster count no more than one in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Who is told when sessions have connected and when they have ended. Called on the shards' threads: must return at once.
pub trait SessionObserver: Send + Sync + std::fmt::Debug {
    /// ICE and DTLS are up for the first time.
    fn connected(&self, session: &SessionInfo);
    /// It has ended, connected or not, with its last figures.
    fn ended(&self, session: &SessionInfo);
}

/// Figures of one session, written by its shard with plain stores, once a frame.
#[derive(Debug)]
pub struct SessionShared {
    id: SessionId,
    stream: Arc<Stream>,
    shard: usize,
    etag: Mutex<String>,
    preference: Mutex<Preference>,
    target: AtomicUsize,
    current: AtomicUsize,
    why: AtomicU8,
    audio: AtomicUsize,
    /// The temporal layers that it is to get, and gets, of `target` and `current`.
    target_limit: AtomicLimit,
    current_limit: AtomicLimit,
    estimate: AtomicU64,
    loss: AtomicU32,
    /// Of what the peer sends.
    ingress_loss: AtomicU32,
    connected: AtomicBool,
    packets_sent: AtomicU64,
    bytes_sent: AtomicU64,
    retransmitted: AtomicU64,
    keyframe_requests: AtomicU64,
    rtt_micros: AtomicU64,
    born: Instant,
    /// It sends, and does not watch.
    publishes: bool,
    /// Where its offer came from.
    peer: Option<IpAddr>,
    /// Our address and the peer's, between which media goes.
    path: Mutex<Option<(SocketAddr, SocketAddr)>>,
    /// Ticks of 90 kHz between `born` and the moment that has timestamp 0, over the wrap.
    video_clock: AtomicU64,
    latency_micros: AtomicU64,
    /// Datagrams that were too large for the way to the viewer, what it carries, and that it was lately.
    too_large: AtomicU64,
    path_mtu: AtomicU32,
    is_too_narrow: AtomicBool,
    reported_at: Mutex<Option<Instant>>,
    /// Where the engine finds it. Given up with the session.
    place: Option<Place>,
    /// One of those that there may be. Given back with the session.
    admitted: Option<Admitted>,
    /// Who is told of this session alone.
    told: Option<Arc<dyn SessionObserver>>,
}

/// A snapshot of one session.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionInfo {
    /// Whose.
    pub id: SessionId,
    /// What it watches.
    pub stream: StreamName,
    /// Changes with the ICE credentials (WHEP's entity tag, with its quotes).
    pub etag: String,
    /// What the viewer asked for.
    pub preference: Preference,
    /// The layer that it is to get; `None` is no video.
    pub target: Option<Rid>,
    /// The layer that it gets. It follows `target` at a keyframe.
    pub current: Option<Rid>,
    /// The temporal layers that it is to get of `target`.
    pub target_limit: Limit,
    /// The temporal layers that it gets of `current`.
    pub current_limit: Limit,
    /// Why it gets no better one.
    pub why: Why,
    /// The number of the audio track that it gets.
    pub audio: Option<usize>,
    /// What its network carries, in bit/s, where that is known.
    pub estimate: Option<u64>,
    /// The share of packets that its last report counts as lost, 0 to 1; of who only publishes `ingress_loss`.
    pub loss: Option<f32>,
    /// The share of the packets that it sends which was lost lately, where it publishes.
    pub ingress_loss: Option<f32>,
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
    /// From capture to screen, as the viewer's page last reported it.
    pub latency: Option<Duration>,
    /// Datagrams that were larger than the way to the viewer carries.
    pub too_large: u64,
    /// Octets that it carries with the headers of IP and UDP, known since there was one that it did not.
    pub path_mtu: Option<u32>,
    /// Counts the sessions of the engine: a name that nobody can do anything with.
    pub number: u64,
    /// It sends, and does not watch.
    pub publishes: bool,
    /// When it was set up.
    pub since: Instant,
    /// The shard that runs it.
    pub shard: usize,
    /// Where its offer came from.
    pub peer: Option<IpAddr>,
    /// Between which addresses media goes.
    pub path: Option<PathInfo>,
}

/// The pair that ICE chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathInfo {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// By TCP.
    pub tcp: bool,
}

impl PathInfo {
    fn of((local, remote): (SocketAddr, SocketAddr)) -> Self {
        Self {
            local: address::plain(&local),
            remote: address::plain(&remote),
            tcp: address::is_tcp(&remote),
        }
    }
}

impl SessionShared {
    /// A session that has not begun.
    pub fn new(
        id: SessionId,
        stream: Arc<Stream>,
        shard: usize,
        etag: String,
        preference: Preference,
    ) -> Self {
        Self {
            id,
            stream,
            shard,
            etag: Mutex::new(etag),
            preference: Mutex::new(preference),
            target: AtomicUsize::new(NONE),
            current: AtomicUsize::new(NONE),
            why: AtomicU8::new(0),
            audio: AtomicUsize::new(NONE),
            target_limit: AtomicLimit::default(),
            current_limit: AtomicLimit::default(),
            estimate: AtomicU64::new(u64::MAX),
            loss: AtomicU32::new(f32::NAN.to_bits()),
            ingress_loss: AtomicU32::new(f32::NAN.to_bits()),
            connected: AtomicBool::new(false),
            packets_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            retransmitted: AtomicU64::new(0),
            keyframe_requests: AtomicU64::new(0),
            rtt_micros: AtomicU64::new(u64::MAX),
            born: Instant::now(),
            publishes: false,
            peer: None,
            path: Mutex::default(),
            video_clock: AtomicU64::new(u64::MAX),
            latency_micros: AtomicU64::new(u64::MAX),
            too_large: AtomicU64::new(0),
            path_mtu: AtomicU32::new(0),
            is_too_narrow: AtomicBool::new(false),
            reported_at: Mutex::default(),
            place: None,
            admitted: None,
            told: None,
        }
    }

    pub(crate) fn take_place(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// It is one of those that there may be.
    pub(crate) fn admitted(mut self, admitted: Admitted) -> Self {
        self.admitted = Some(admitted);
        self
    }

    /// Its offer came from there.
    pub(crate) fn from(mut self, peer: Option<IpAddr>) -> Self {
        self.peer = peer;
        self
    }

    /// That one is told of it, too.
    pub(crate) fn telling(mut self, observer: Arc<dyn SessionObserver>) -> Self {
        self.told = Some(observer);
        self
    }

    /// It sends, and does not watch.
    pub(crate) fn publishing(mut self) -> Self {
        self.publishes = true;
        self
    }

    /// Media goes there now. Not on a packet's way.
    pub(crate) fn set_path(&self, path: Option<(SocketAddr, SocketAddr)>) {
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = path;
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

    pub(crate) fn set_preference(&self, preference: Preference) {
        *self.lock_preference() = preference;
    }

    pub(crate) fn preference(&self) -> Preference {
        self.lock_preference().clone()
    }

    fn lock_preference(&self) -> MutexGuard<'_, Preference> {
        self.preference
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_choice(&self, target: Option<Rung>, why: Why) {
        let layer = target.map_or(NONE, |rung| rung.layer);
        self.target.store(layer, Relaxed);
        let limit = target.map_or(Limit::ALL, |rung| rung.limit);
        self.target_limit.store(limit);
        self.why.store(why as u8, Relaxed);
    }

    /// Whether it is to get pictures, and why no better ones.
    pub(crate) fn choice(&self) -> (bool, Why) {
        (self.target.load(Relaxed) != NONE, self.why())
    }

    pub(crate) fn set_estimate(&self, bits_per_second: u64) {
        self.estimate.store(bits_per_second, Relaxed);
    }

    pub(crate) fn set_current(&self, layer: Option<usize>) {
        self.current.store(layer.unwrap_or(NONE), Relaxed);
    }

    pub(crate) fn set_audio(&self, number: usize) {
        self.audio.store(number, Relaxed);
    }

    pub(crate) fn set_current_limit(&self, limit: Limit) {
        self.current_limit.store(limit);
    }

    pub(crate) fn set_connected(&self) {
        let is_first = !self.connected.swap(true, Relaxed);
        if is_first {
            for observer in self.observers() {
                observer.connected(&self.info());
            }
        }
        if let Some(admitted) = &self.admitted {
            admitted.set_connected();
        }
    }

    pub(crate) fn set_sent(&self, packets: u64, bytes: u64) {
        self.packets_sent.store(packets, Relaxed);
        self.bytes_sent.store(bytes, Relaxed);
    }

    pub(crate) fn count_keyframe_request(&self) {
        self.keyframe_requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn set_report(&self, retransmitted: u64, rtt: Option<Duration>, loss: Option<f32>) {
        self.retransmitted.store(retransmitted, Relaxed);
        if let Some(loss) = loss {
            self.loss.store(loss.to_bits(), Relaxed);
        }
        if let Some(rtt) = rtt {
            self.rtt_micros.store(rtt.as_micros() as u64, Relaxed);
        }
    }

    /// So much of what the peer sends was lost lately.
    pub(crate) fn set_ingress_loss(&self, loss: f32) {
        self.ingress_loss.store(loss.to_bits(), Relaxed);
    }

    /// So many datagrams were too large for the way to the viewer.
    pub(crate) fn add_too_large(&self, datagrams: u64, mtu: Option<u32>) {
        self.too_large.fetch_add(datagrams, Relaxed);
        if let Some(mtu) = mtu {
            self.path_mtu.store(mtu, Relaxed);
        }
        self.is_too_narrow.store(true, Relaxed);
    }

    /// The way to the viewer has carried all for a while.
    pub(crate) fn carries_all(&self) {
        self.is_too_narrow.store(false, Relaxed);
    }

    fn why(&self) -> Why {
        let has_video = self.target.load(Relaxed) != NONE;
        if has_video && self.is_too_narrow.load(Relaxed) {
            return Why::PacketTooLarge;
        }
        Why::ALL[usize::from(self.why.load(Relaxed)) % Why::ALL.len()]
    }

    /// The viewer's pictures with this timestamp were captured at this moment.
    pub(crate) fn set_video_clock(&self, timestamp: u32, captured: Instant) {
        let zero = self.ticks(captured).wrapping_sub(timestamp);
        self.video_clock.store(zero.into(), Relaxed);
    }

    /// The timestamp that a picture captured at this moment has for the viewer.
    pub fn video_timestamp(&self, captured: Instant) -> Option<u32> {
        let zero = u32::try_from(self.video_clock.load(Relaxed)).ok()?;
        Some(self.ticks(captured).wrapping_sub(zero))
    }

    /// 90 kHz since the session began, or until then; wraps.
    fn ticks(&self, at: Instant) -> u32 {
        let ticks = |span: Duration| (span.as_micros() as u64 * 9 / 100) as u32;
        match at.checked_duration_since(self.born) {
            Some(later) => ticks(later),
            None => ticks(self.born - at).wrapping_neg(),
        }
    }

    /// The viewer's page has measured. `false`: it did so a moment ago already.
    pub(crate) fn report_latency(&self, now: Instant, latency: Duration) -> bool {
        let mut reported = self
            .reported_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if reported.is_some_and(|at| now.saturating_duration_since(at) < REPORT_INTERVAL) {
            return false;
        }
        *reported = Some(now);
        self.latency_micros
            .store(latency.as_micros() as u64, Relaxed);
        true
    }

    /// Who is told of it.
    fn observers(&self) -> impl Iterator<Item = &dyn SessionObserver> {
        let all = self.place.as_ref().and_then(Place::observer);
        all.into_iter().chain(self.told.as_deref())
    }

    /// The figures as they are now.
    pub fn info(&self) -> SessionInfo {
        let snapshot = self.stream.snapshot();
        let path = *self.path.lock().unwrap_or_else(PoisonError::into_inner);
        let rtt = self.rtt_micros.load(Relaxed);
        let latency = self.latency_micros.load(Relaxed);
        let estimate = self.estimate.load(Relaxed);
        let share = |loss: &AtomicU32| {
            let loss = f32::from_bits(loss.load(Relaxed));
            (!loss.is_nan()).then_some(loss)
        };
        let (loss, ingress_loss) = (share(&self.loss), share(&self.ingress_loss));
        let rid = |index: &AtomicUsize| snapshot.rid(index.load(Relaxed));
        SessionInfo {
            id: self.id,
            stream: self.stream.name().clone(),
            etag: self
                .etag
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            preference: self.preference(),
            target: rid(&self.target),
            current: rid(&self.current),
            target_limit: self.target_limit.load(),
            current_limit: self.current_limit.load(),
            why: self.why(),
            audio: Some(self.audio.load(Relaxed)).filter(|number| *number != NONE),
            estimate: (estimate != u64::MAX).then_some(estimate),
            loss: if self.publishes { ingress_loss } else { loss },
            ingress_loss,
            connected: self.connected.load(Relaxed),
            packets_sent: self.packets_sent.load(Relaxed),
            bytes_sent: self.bytes_sent.load(Relaxed),
            retransmitted: self.retransmitted.load(Relaxed),
            keyframe_requests: self.keyframe_requests.load(Relaxed),
            rtt: (rtt != u64::MAX).then(|| Duration::from_micros(rtt)),
            latency: (latency != u64::MAX).then(|| Duration::from_micros(latency)),
            too_large: self.too_large.load(Relaxed),
            path_mtu: Some(self.path_mtu.load(Relaxed)).filter(|mtu| *mtu > 0),
            number: self.place.as_ref().map_or(0, Place::number),
            publishes: self.publishes,
            since: self.born,
            shard: self.shard,
            peer: self.peer,
            path: path.map(PathInfo::of),
        }
    }
}

impl Drop for SessionShared {
    fn drop(&mut self) {
        for observer in self.observers() {
            observer.ended(&self.info());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionShared {
        let stream = Arc::new(Stream::new("test".parse().unwrap(), 1));
        let id = SessionId::from_bits(1);
        SessionShared::new(id, stream, 0, String::new(), Preference::default())
    }

    #[test]
    fn timestamps_are_known_of_moments_before_and_after() {
        let session = session();
        assert_eq!(session.video_timestamp(session.born), None);
        let ms = Duration::from_millis;
        for captured in [session.born - ms(70), session.born + ms(100_000_000)] {
            session.set_video_clock(u32::MAX - 89, captured);
            assert_eq!(session.video_timestamp(captured), Some(u32::MAX - 89));
            assert_eq!(session.video_timestamp(captured + ms(2)), Some(90));
            let before = session.video_timestamp(captured - ms(1));
            assert_eq!(before, Some(u32::MAX - 179));
        }
    }

    #[test]
    fn reports_that_come_too_fast_are_not_taken() {
        let session = session();
        let (now, latency) = (Instant::now(), Duration::from_millis(80));
        assert!(session.report_latency(now, latency));
        assert!(!session.report_latency(now + REPORT_INTERVAL / 2, latency * 2));
        assert_eq!(session.info().latency, Some(latency));
        assert!(session.report_latency(now + REPORT_INTERVAL, latency * 2));
    }
}
