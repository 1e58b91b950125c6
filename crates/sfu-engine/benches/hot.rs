// SPDX-License-Identifier: MPL-2.0

//! The hot path without WebRTC: fan-out, rewriting, keyframe arbitration. `cargo bench -p sfu-engine`.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sfu_engine::keyframe::{KeyframeArbiter, Need};
use sfu_engine::packet::Packet;
use sfu_engine::queue::{ShardCommand, ShardQueue};
use sfu_engine::rewrite::{Rewriter, Source};
use sfu_engine::session::SessionShared;
use sfu_engine::shard::Shard;
use sfu_engine::stats::Counters;
use sfu_engine::stream::{Stream, Viewing};
use sfu_engine::temporal::{Limit, Temporal};
use sfu_engine::transport::lean::AgreedSlots;
use sfu_engine::transport::patch::{Fragment, PatchError};
use sfu_engine::transport::{
    Demand, Estimate, Outgoing, PatchOutcome, Slot, Taken, Transport, TransportEvent,
    TransportSink, ViewerTransport, Work,
};
use sfu_engine::{
    Codec, Feedback, LayerInfo, Preference, PublishOptions, Rid, RtpIn, SessionId, TrackKind,
};

const VIEWERS: usize = 100;

/// A viewer that takes everything and does nothing.
#[derive(Debug)]
struct Nobody {
    ufrag: String,
    connected: bool,
}

impl Transport for Nobody {
    fn local_ufrag(&self) -> &str {
        &self.ufrag
    }

    fn receive(&mut self, _: Instant, _: SocketAddr, _: SocketAddr, _: &[u8]) -> Taken {
        Taken::Work(Work::default())
    }

    fn drain(&mut self, now: Instant, sink: &mut dyn TransportSink) -> Instant {
        if !std::mem::replace(&mut self.connected, true) {
            sink.event(TransportEvent::Connected);
        }
        now + Duration::from_secs(1)
    }

    fn patch(&mut self, _: Instant, _: &Fragment) -> Result<PatchOutcome, PatchError> {
        Ok(PatchOutcome::Trickled)
    }

    fn close(&mut self) {}
}

impl ViewerTransport for Nobody {
    fn asks_for_keyframes(&self) -> bool {
        true
    }

    fn slot(&self, kind: TrackKind, place: usize) -> Option<Slot> {
        Some(Slot(2 * place as u16 + u16::from(kind == TrackKind::Audio)))
    }

    fn accepts(&self, _: Slot, _: Codec) -> bool {
        true
    }

    fn first_estimate(&self) -> Option<Estimate> {
        None
    }

    fn set_slots(&mut self, _: Instant, _: AgreedSlots) {}

    fn set_demand(&mut self, _: Instant, _: Demand) {}

    fn send(&mut self, _: Instant, packet: &Outgoing<'_>, _: &mut dyn TransportSink) {
        black_box(packet);
    }

    fn resend(&mut self, _: Instant, _: &Outgoing<'_>, _: &mut dyn TransportSink) -> bool {
        true
    }
}

#[derive(Debug)]
struct NoEncoder;

impl Feedback for NoEncoder {
    fn keyframe_request(&self, _: usize) {}
}

fn rtp(seq: u16, now: Instant) -> RtpIn {
    // A keyframe first, then slices.
    let nal = if seq == 0 { 0x67 } else { 0x41 };
    RtpIn {
        seq,
        timestamp: u32::from(seq) * 3_000,
        captured: now,
        marker: true,
        payload: vec![nal; 1_100].into(),
        red: None,
        layering: sfu_engine::Layering::default(),
    }
}

fn fan_out(c: &mut Criterion) {
    let now = Instant::now();
    let (queue, inbox) = ShardQueue::new(None);
    let mut shard = Shard::new(queue, Arc::new(Counters::default()), 64);
    let stream = Arc::new(Stream::new("bench".parse().expect("a name"), 1));
    let options = PublishOptions {
        keyframe_min_interval: Duration::from_millis(500),
        feedback: Arc::new(NoEncoder),
    };
    let lease = stream.start(options, false, now).expect("a free stream");
    let layer = LayerInfo {
        rid: Rid::from_index(0),
        width: None,
        height: None,
        target_bitrate: None,
    };
    stream.set_video(lease, Codec::H264, vec![layer]);
    for index in 0..VIEWERS {
        let id = SessionId::from_bits(index as u128 + 1);
        let session =
            SessionShared::new(id, stream.clone(), 0, "\"1\"".into(), Preference::default());
        shard.handle(
            now,
            ShardCommand::Subscribe {
                stream: Some(Viewing::new(stream.clone())),
                transport: Box::new(Nobody {
                    ufrag: format!("u{index}"),
                    connected: false,
                }),
                session: Arc::new(session),
            },
        );
    }
    let mut seq = 0u16;
    let mut group = c.benchmark_group("shard");
    group.throughput(Throughput::Elements(VIEWERS as u64));
    group.bench_function("one packet to 100 viewers", |b| {
        b.iter(|| {
            stream.push(now, lease, TrackKind::Video, 0, [rtp(seq, now)]);
            seq = seq.wrapping_add(1).max(1);
            while let Some(command) = inbox.try_recv() {
                shard.handle(now, command);
            }
            shard.outbox().clear();
        });
    });
    group.finish();
}

fn rewrite(c: &mut Criterion) {
    let now = Instant::now();
    let mut packet = Packet {
        seq: 70_000,
        timestamp: 0,
        captured: now,
        marker: true,
        keyframe_start: true,
        vp8: None,
        temporal: Temporal::default(),
        payload: vec![0x41; 1_100].into(),
        red: None,
        from_above: 0,
        descriptor: None,
    };
    let mut rewriter = Rewriter::new(90_000);
    let source = |layer| Source { epoch: 1, layer };
    rewriter.switch(source(0), &packet, None, Limit::ALL);
    c.bench_function("rewrite a packet", |b| {
        b.iter(|| {
            packet.seq += 1;
            packet.timestamp = packet.timestamp.wrapping_add(3_000);
            black_box(rewriter.rewrite(black_box(&packet), None))
        });
    });
    let mut layer = 0;
    c.bench_function("switch the layer and rewrite a packet", |b| {
        b.iter(|| {
            layer = 1 - layer;
            packet.seq += 1;
            packet.timestamp = packet.timestamp.wrapping_add(3_000);
            rewriter.switch(source(layer), &packet, None, Limit::ALL);
            black_box(rewriter.rewrite(black_box(&packet), None))
        });
    });
}

fn keyframes(c: &mut Criterion) {
    let mut arbiter = KeyframeArbiter::new(Duration::from_millis(500));
    let mut now = Instant::now();
    c.bench_function("ask the keyframe arbiter", |b| {
        b.iter(|| {
            now += Duration::from_micros(100);
            black_box(arbiter.request(now, Need::Start)) | black_box(arbiter.poll(now))
        });
    });
}

criterion_group!(hot, fan_out, rewrite, keyframes);
criterion_main!(hot);
