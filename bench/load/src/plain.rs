// SPDX-License-Identifier: MPL-2.0

//! The test stream as plain RTP to a UDP port: `sfu-load rtp`.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::args::RtpArgs;
use crate::clock;
use crate::generator::{self, FPS, TICKS};
use crate::rtp;

/// Sends until it is told to end.
pub fn run(args: &RtpArgs) -> Result<()> {
    let any: SocketAddr = if args.to.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(any).context("UDP socket")?;
    socket
        .connect(args.to)
        .with_context(|| format!("no route to {}", args.to))?;
    let mut layers = generator::layers(&args.stream);
    let mut sent: Vec<u16> = vec![0; layers.len()];
    let keys = args.stream.keyframe_interval.as_secs_f64() * f64::from(FPS);
    let keys = (keys as u64).max(1);
    let start = Instant::now();
    let mut packet = Vec::new();
    for frame in 0u64.. {
        let due = start + Duration::from_secs(frame) / FPS;
        if args.duration.is_some_and(|limit| due - start >= limit) {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        for (n, layer) in layers.iter_mut().enumerate() {
            let mut payloads = layer.frame(frame % keys == 0);
            let last = payloads.len() - 1;
            for (at, payload) in payloads.iter_mut().enumerate() {
                payload.stamp(clock::now_ns());
                packet.clear();
                let timestamp = (frame as u32).wrapping_mul(TICKS);
                let ssrc = 0x5f00_0001 + n as u32;
                rtp::write(
                    args.payload_type,
                    at == last,
                    sent[n],
                    timestamp,
                    ssrc,
                    &mut packet,
                );
                packet.extend_from_slice(&payload.data);
                sent[n] = sent[n].wrapping_add(1);
                // Nobody may be listening yet.
                let _ = socket.send(&packet);
            }
        }
    }
    Ok(())
}
