// SPDX-License-Identifier: MPL-2.0

//! How much of ours may wait in the kernel, learnt from what it refuses, so that a burst leaves at the device's pace.
//!
//! The socket's send buffer is the bucket: the kernel gives room as the device takes datagrams, so that what may leave
//! needs no guess of a rate. It answers EAGAIN when the buffer is full, which costs nothing, and ENOBUFS when a queue
//! behind it was full: then that datagram was dropped there, is sent again after a moment, and the buffer is made smaller
//! than the queue. Slowly it is made larger again, as queues are shared with others. Called by [`super`] only.

use std::time::{Duration, Instant};

/// What the buffer becomes of what it was after a full queue. From 1 MiB to a queue of 256 KiB that is six times.
const SHRINK: (usize, usize) = (5, 8);
/// No buffer is smaller: the kernel counts twice as much, so that it holds one message of the largest size and one more.
const LEAST: usize = 32 * 1024;
/// Refusals within this, of which nothing was taken in between, are of one full queue.
const ONE_EVENT: Duration = Duration::from_millis(5);
/// After this long without a full queue there may be more room.
const GROW_AFTER: Duration = Duration::from_secs(30);
/// The part by which it grows.
const GROW: usize = 8;
/// The first wait after a full queue, and the longest: a queue of 256 KiB has half gone after 1 ms at 1 Gbit/s.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(16);
/// So long after the last refusal the network is taken to hold nobody up.
const RECENT: Duration = Duration::from_secs(5);

/// Why the kernel did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// EAGAIN: the socket's buffer is full. The kernel tells when it is not.
    BufferFull,
    /// ENOBUFS: a queue was full. Nobody tells when it is not.
    QueueFull,
}

/// A queue that has refused a message three times, 7 ms in all, and nothing before it, may be smaller than the message: the
/// datagrams of it are smaller.
const SPLIT_AFTER: u32 = 3;
/// And a datagram that it has refused for a quarter of a second may be one that it never takes: nobody waits for it any longer.
const DROP_AFTER: u32 = 16;

/// What is to be done with a message that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    /// Its datagrams are to leave one by one.
    Split,
    Drop,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Window {
    /// What the kernel granted at the start, and what it is now, in octets, as `SO_SNDBUF` is set.
    granted: usize,
    size: usize,
    state: State,
    wait: Duration,
    /// How often in a row a queue refused the very first message.
    futile: u32,
    last_full: Option<Instant>,
    last_refusal: Option<Instant>,
    grow_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Until the socket is writable.
    UntilWritable,
    Until(Instant),
}

impl Window {
    pub(super) fn new(granted: usize) -> Self {
        Self {
            granted,
            size: granted,
            state: State::Open,
            wait: FIRST_WAIT,
            futile: 0,
            last_full: None,
            last_refusal: None,
            grow_at: None,
        }
    }

    /// The buffer's size now, in octets.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Whether something may be sent now.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        match self.state {
            State::Open => true,
            State::UntilWritable => false,
            State::Until(at) => at <= now,
        }
    }

    /// When to look again, where nobody tells.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Until(at) => Some(at),
            _ => None,
        }
    }

    /// Whether the socket is to tell when it is writable.
    pub(super) fn waits_for_socket(&self) -> bool {
        self.state == State::UntilWritable
    }

    /// The socket is writable.
    pub(super) fn writable(&mut self) {
        if self.waits_for_socket() {
            self.state = State::Open;
        }
    }

    /// All that there was has left.
    pub(super) fn took(&mut self) {
        self.state = State::Open;
        self.futile = 0;
        self.wait = FIRST_WAIT;
    }

    /// The kernel refused. Returns the buffer's new size, where it is to be changed.
    pub(super) fn refused(&mut self, now: Instant, refusal: Refusal, sent: bool) -> Option<usize> {
        self.last_refusal = Some(now);
        if sent {
            self.wait = FIRST_WAIT;
            self.futile = 0;
        }
        if refusal == Refusal::BufferFull {
            self.state = State::UntilWritable;
            return None;
        }
        self.futile += 1;
        self.state = State::Until(now + self.wait);
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        self.grow_at = Some(now + GROW_AFTER);
        let same = |at| !sent && now.saturating_duration_since(at) < ONE_EVENT;
        if self.last_full.replace(now).is_some_and(same) {
            return None;
        }
        let size = (self.size * SHRINK.0 / SHRINK.1).max(LEAST.min(self.granted));
        self.resize(size)
    }

    /// What is to be done with the first message, which a queue has refused.
    pub(super) fn verdict(&self) -> Verdict {
        match self.futile {
            SPLIT_AFTER => Verdict::Split,
            n if n > DROP_AFTER => Verdict::Drop,
            _ => Verdict::Wait,
        }
    }

    /// The buffer's new size, where it is time for a larger one.
    pub(super) fn grow(&mut self, now: Instant) -> Option<usize> {
        if self.grow_at.is_none_or(|at| now < at) {
            return None;
        }
        let size = (self.size + self.size / GROW).min(self.granted);
        self.grow_at = (size < self.granted).then(|| now + GROW_AFTER);
        self.resize(size)
    }

    fn resize(&mut self, size: usize) -> Option<usize> {
        let before = std::mem::replace(&mut self.size, size);
        (before != size).then_some(size)
    }

    /// Whether the network has held us up lately.
    pub(super) fn is_tight(&self, now: Instant) -> bool {
        let recent = |at| now.saturating_duration_since(at) < RECENT;
        self.last_refusal.is_some_and(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_full_buffer_waits_for_the_socket_and_changes_nothing() {
        let now = Instant::now();
        let mut window = Window::new(2 << 20);
        assert_eq!(window.refused(now, Refusal::BufferFull, true), None);
        assert!(!window.is_open(now + MS * 1_000) && window.waits_for_socket());
        assert_eq!(window.poll_timeout(), None);
        window.writable();
        assert!(window.is_open(now));
        assert_eq!(window.grow(now + GROW_AFTER * 2), None);
    }

    #[test]
    fn the_buffer_becomes_smaller_than_the_queue_and_grows_back() {
        let mut now = Instant::now();
        let mut window = Window::new(1 << 20);
        let (queue, mut refusals) = (256 * 1024, 0);
        while window.size > queue / 3 {
            refusals += 1;
            let before = window.size;
            let size = window.refused(now, Refusal::QueueFull, true).unwrap();
            assert!(size < before && size == window.size);
            // The same queue: nothing is learnt twice from it.
            assert_eq!(window.refused(now + MS, Refusal::QueueFull, false), None);
            now += MS * 2;
            assert_eq!(window.refused(now, Refusal::BufferFull, true), None);
        }
        assert!(refusals <= 8, "{refusals}");
        for _ in 0..100 {
            now += ONE_EVENT;
            window.refused(now, Refusal::QueueFull, false);
            assert!(window.poll_timeout().unwrap() - now <= LONGEST_WAIT);
        }
        assert_eq!(window.size, LEAST);
        let mut steps = 0;
        while window.size < window.granted {
            assert_eq!(window.grow(now), None);
            now += GROW_AFTER;
            assert!(window.grow(now).is_some());
            steps += 1;
        }
        assert!((30..50).contains(&steps), "{steps}");
        now += GROW_AFTER * 2;
        assert_eq!(window.grow(now), None, "no more than was granted");
    }

    #[test]
    fn what_a_queue_never_takes_is_split_and_then_dropped() {
        let mut now = Instant::now();
        let mut window = Window::new(1 << 20);
        let mut verdicts = Vec::new();
        let begun = now;
        for _ in 0..DROP_AFTER + 3 {
            window.refused(now, Refusal::QueueFull, false);
            verdicts.push(window.verdict());
            now = window.poll_timeout().unwrap();
        }
        let split = verdicts.iter().position(|v| *v == Verdict::Split);
        assert_eq!(split, Some(2));
        let drop = verdicts.iter().position(|v| *v == Verdict::Drop).unwrap();
        assert!(verdicts[drop..].iter().all(|v| *v == Verdict::Drop));
        assert!(now - begun < MS * 400, "of use for no longer");
        window.refused(now, Refusal::QueueFull, true);
        assert_eq!(window.verdict(), Verdict::Wait, "something left");
    }

    #[test]
    fn waits_double_while_nothing_leaves() {
        let now = Instant::now();
        let mut window = Window::new(1 << 20);
        let waits: Vec<_> = (0..6)
            .map(|_| {
                window.refused(now, Refusal::QueueFull, false);
                window.poll_timeout().unwrap() - now
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 16].map(|n| MS * n));
        window.took();
        window.refused(now, Refusal::QueueFull, false);
        assert_eq!(window.poll_timeout(), Some(now + MS));
        assert!(window.is_tight(now + MS));
        assert!(!window.is_tight(now + RECENT));
    }
}
