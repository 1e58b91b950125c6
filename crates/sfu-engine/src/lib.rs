// SPDX-License-Identifier: MPL-2.0

//! A selective forwarding engine: one publisher's packets go to very many WebRTC viewers, unchanged.
//!
//! It knows nothing of GStreamer. Its core is sans-IO: packets, events and the time go in; packets, events and the next
//! deadline come out, so that tests run hundreds of viewers over a lossy simulated network in seconds. Around it:
//!
//! - [`Router`]: streams by name, in which publishers and viewers meet.
//! - [`stream`]: a publisher's layers, their [`keyframe`] arbiters and [`gop`] caches.
//! - [`local`]: consumers of a stream inside this process.
//! - [`shard`]: the viewers of one thread; [`rewrite`] makes layers one stream; [`layers`] chooses one.
//! - [`rtcp`]: the reports of viewers, read, and ours, written.
//! - [`srtp`]: what viewers are sent and send, sealed and opened.
//! - [`transport`]: WebRTC towards one viewer, behind an interface.
//! - [`estimate`]: what the network towards one viewer carries.
//! - [`Engine`]: the shards on their threads and sockets.
//!
//! Logs through `tracing`, with `stream` and `session` as fields.

mod address;
mod arrival;
mod audio;
pub mod claim;
mod codec;
mod depth;
mod driver;
mod engine;
pub mod estimate;
mod fragment;
pub mod gop;
mod health;
mod held;
mod ids;
mod info;
mod interfaces;
pub mod keyframe;
mod latency;
mod layer;
pub mod layers;
pub mod local;
mod loss;
mod loudness;
pub mod packet;
mod peer;
mod price;
pub mod queue;
mod rate;
pub mod rewrite;
mod roster;
mod router;
pub mod rtcp;
pub mod session;
pub mod shard;
mod size;
mod snapshot;
mod spatial;
mod speech;
pub mod srtp;
pub mod stats;
pub mod stream;
pub mod temporal;
pub mod transport;

pub use peer::data;

pub use audio::{AudioChoice, AudioTrack};
pub use codec::dependency::{Descriptor, Reader as DescriptorReader};
pub use codec::{Codec, PayloadInfo, TemporalMark, TrackKind, Vp8Header, inspect};
pub use engine::{
    AddressKey, AdmissionLimits, Announce, DuplexPeer, Engine, EngineConfig, EngineError,
    EngineLimits, Full, Grouped, InvitedPeer, LatencyRefused, NotAnnounced, OfferedViewer, Patched,
    Peer, PublishRefused, PublishRequest, PublishingPeer, SEND_BUFFER, SessionError, Shown,
    SubscribeError, SubscribeRequest, Subscribed,
};
pub use health::TrackHealth;
pub use ids::{Language, NameError, RESERVED, Rid, SessionId, StreamName};
pub use info::{AudioStatus, LayerStatus, StreamInfo, StreamLook, VideoInfo};
pub use latency::{LATENCY_BUCKETS, LATENCY_MAX, LatencyInfo, MediaClock};
pub use layers::{LayerInfo, Preference, Why};
pub use local::{LocalSubscription, Received, Tracks};
pub use packet::{Layering, RtpIn};
pub use roster::{Publishing, Roster};
pub use router::{PublishError, Publisher, Router};
pub use session::{PathInfo, SessionInfo, SessionObserver};
pub use shard::PublicationId;
pub use size::{MAX_DATAGRAM, MAX_PAYLOAD, PAYLOADER_MTU};
pub use speech::Speech;
pub use stats::{Carried, CountersSnapshot, NetworkInfo, ShardInfo};
pub use stream::{Feedback, PublishOptions};
pub use transport::negotiate::PlayoutDelay;
