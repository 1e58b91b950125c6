// SPDX-License-Identifier: MPL-2.0

//! What the engine counts: plain relaxed counters, read by the metrics page and the elements' `stats`.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

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
    /// Datagrams received, by UDP and by TCP.
    datagrams_in,
    /// Datagrams dropped because they belong to no session.
    datagrams_unknown,
    /// Of those: STUN requests that named no session.
    datagrams_unknown_checks,
    /// Of those: DTLS from an address that is no session's.
    datagrams_unknown_dtls,
    /// Of those: RTP and RTCP from an address that is no session's.
    datagrams_unknown_media,
    /// Datagrams dropped because their session did not understand them.
    datagrams_invalid,
    /// Of those: STUN that is no sound Binding message.
    stun_malformed,
    /// Of those: STUN requests without a name, or for another session.
    stun_unnamed,
    /// Of those: STUN whose integrity is wrong.
    stun_integrity,
    /// Of those: STUN answers to what was not asked, or from elsewhere.
    stun_unasked,
    /// Of those: checks of ours that the peer has refused.
    stun_refused,
    /// Records of DTLS dropped before they were read: no step of a handshake, and not sealed.
    dtls_records_dropped,
    /// Sessions ended because another one speaks from the same address and port, and is still there.
    sessions_address_in_use,
    /// Datagrams dropped because their session had used up what it may cost.
    datagrams_over_budget,
    /// What datagrams of viewers, and media of publishers, took: in nanoseconds at fixed prices.
    work_nanoseconds,
    /// Reports of viewers that spoke of packets that were not sent, or are forgotten.
    reports_beyond,
    /// Datagrams sent.
    datagrams_out,
    /// Datagrams that could not be sent to their destination.
    datagrams_dropped,
    /// Datagrams that were larger than the path to their viewer carries. They left in fragments, where that was possible.
    datagrams_too_large,
    /// Times that sending had to wait since the socket's send buffer was full. Nothing is lost by it.
    sends_blocked,
    /// Times that a queue of the network device was full. What it dropped is sent again.
    sends_refused,
    /// TCP connections of peers that were taken.
    tcp_connections,
    /// TCP connections that are over.
    tcp_connections_closed,
    /// TCP connections that were refused since there were too many.
    tcp_refused,
    /// TCP connections cut since they named no session in time, or others needed their place.
    tcp_cut_unknown,
    /// TCP connections cut since what they said were no datagrams of ICE.
    tcp_cut_garbage,
    /// TCP connections cut since they took nothing of what they were sent.
    tcp_cut_stalled,
    /// Datagrams on their way out that a TCP connection did not take in time.
    tcp_datagrams_dropped,
    /// RTP packets that were not sent to a viewer since the network had held them up for too long.
    packets_late,
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
    /// Offers refused because of max-sessions.
    offers_refused_sessions,
    /// Offers refused because of max-sessions-per-address.
    offers_refused_address,
    /// Packets of publishers dropped because of max-bitrate.
    publisher_packets_over_bitrate,
    /// Packets of publishers that are authentic and were dropped: malformed, or of no track that was agreed on.
    publisher_packets_unrouted,
    /// SSRCs of publishers that were forgotten, since they had used too many.
    publisher_ssrcs_forgotten,
    /// Publishers ended because they went on above max-bitrate.
    publishers_over_bitrate,
}

/// Datagrams, and the octets in them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// How many.
    pub datagrams: u64,
    /// UDP's payload.
    pub octets: u64,
}

/// One shard as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardInfo {
    /// Its sessions.
    pub sessions: usize,
    /// What the network takes of it.
    pub network: NetworkInfo,
    /// What has come.
    pub received: Carried,
    /// What has left, or was dropped on its way.
    pub sent: Carried,
    /// Its thread as the system numbers it, whose time is what the shard costs.
    pub thread: Option<u32>,
}

/// What a shard's thread has carried, which it alone writes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    received: [AtomicU64; 2],
    sent: [AtomicU64; 2],
    thread: AtomicU32,
}

impl Traffic {
    pub(crate) fn set_received(&self, now: Carried) {
        self.received[0].store(now.datagrams, Relaxed);
        self.received[1].store(now.octets, Relaxed);
    }

    pub(crate) fn add_sent(&self, more: Carried) {
        let add = |sum: &AtomicU64, more| sum.store(sum.load(Relaxed) + more, Relaxed);
        add(&self.sent[0], more.datagrams);
        add(&self.sent[1], more.octets);
    }

    /// The calling thread is the shard's.
    pub(crate) fn runs_here(&self) {
        let link = std::fs::read_link("/proc/thread-self").ok();
        let number = link.and_then(|link| link.file_name()?.to_str()?.parse().ok());
        self.thread.store(number.unwrap_or(0), Relaxed);
    }

    pub(crate) fn received(&self) -> Carried {
        carried(&self.received)
    }

    pub(crate) fn sent(&self) -> Carried {
        carried(&self.sent)
    }

    pub(crate) fn thread(&self) -> Option<u32> {
        Some(self.thread.load(Relaxed)).filter(|thread| *thread > 0)
    }
}

fn carried([datagrams, octets]: &[AtomicU64; 2]) -> Carried {
    Carried {
        datagrams: datagrams.load(Relaxed),
        octets: octets.load(Relaxed),
    }
}

/// What the network takes of one shard, kept by its thread.
#[derive(Debug, Default)]
pub(crate) struct Network {
    wanted: AtomicUsize,
    granted: AtomicUsize,
    send_buffer: AtomicUsize,
    segmentation: AtomicBool,
}

/// The same at one moment. Buffers are in octets, as `SO_SNDBUF` is set: the kernel counts twice as many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetworkInfo {
    /// The send buffer that was asked for.
    pub send_buffer_wanted: usize,
    /// What the kernel granted.
    pub send_buffer_granted: usize,
    /// What it is now: made smaller than the queue of a network device that dropped datagrams.
    pub send_buffer: usize,
    /// Whether many datagrams leave in one message (UDP segmentation offload).
    pub segmentation: bool,
}

impl Network {
    pub(crate) fn set(&self, info: NetworkInfo) {
        self.wanted.store(info.send_buffer_wanted, Relaxed);
        self.granted.store(info.send_buffer_granted, Relaxed);
        self.send_buffer.store(info.send_buffer, Relaxed);
        self.segmentation.store(info.segmentation, Relaxed);
    }

    pub(crate) fn info(&self) -> NetworkInfo {
        NetworkInfo {
            send_buffer_wanted: self.wanted.load(Relaxed),
            send_buffer_granted: self.granted.load(Relaxed),
            send_buffer: self.send_buffer.load(Relaxed),
            segmentation: self.segmentation.load(Relaxed),
        }
    }
}
