// SPDX-License-Identifier: MPL-2.0

//! The sender: 64 viewers' frames are written and sealed, and leave by one `sendmmsg` for each run of equal datagrams.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrStorage, sendmmsg};
use quinn_udp::UdpSocketState;
use serde_json::{Value, json};
use sfu_engine::srtp::{Profile, Protect};
use sfu_load::generator::{self, FPS, Layer, Payload};
use sfu_load::{clock, process};

use crate::{DELTA, KEY, SendArgs, timestamp};

/// As the engine's.
const BATCH: usize = 64;
const KERNEL_BUFFER: usize = 4 * 1024 * 1024;
/// What the kernel takes in one message.
const SEGMENTS: usize = 64;
const MESSAGE: usize = 65_000;
/// Header, and one extension of two octets: the transport-wide number.
const HEADER: usize = 20;
const WARM: Duration = Duration::from_secs(2);
const ALL_WITHIN: Duration = Duration::from_secs(20);

struct Viewer {
    address: SockaddrStorage,
    keys: Protect,
    seq: u16,
    roc: u32,
    /// The frame's sealed datagrams.
    data: Vec<u8>,
}

/// Datagrams of one size, of which the last may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    from: usize,
    to: usize,
    segment: usize,
}

/// See the module's description.
pub(crate) fn run(args: &SendArgs) -> Result<Value> {
    let socket = UdpSocket::bind(args.listen).context("UDP socket")?;
    let state = UdpSocketState::new((&socket).into()).context("socket options")?;
    // Where the kernel grants less, it is less.
    let _ = state.set_send_buffer_size((&socket).into(), KERNEL_BUFFER);
    let mut viewers = gather(&socket, args.viewers)?;
    let layer = &mut generator::layers(&args.stream)[0];
    let every = (args.stream.keyframe_interval.as_secs_f64() * f64::from(FPS)) as u64;
    let mut sender = Sender {
        socket,
        headers: MultiHeaders::preallocate(BATCH, Some(cmsg_space!(u16))),
        number: 0,
    };
    let start = Instant::now();
    let (mut began, mut packets) = (None, 0u64);
    for frame in 0u64.. {
        let due = start + Duration::from_secs(frame) / FPS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if began.is_none() && start.elapsed() >= WARM {
            began = Some((Instant::now(), process::usage(std::process::id())?));
            packets = 0;
        }
        if start.elapsed() >= WARM + args.duration {
            break;
        }
        packets += sender.frame(layer, frame.is_multiple_of(every.max(1)), &mut viewers)?;
    }
    let Some((at, began)) = began else {
        bail!("--duration is too short");
    };
    let end = process::usage(std::process::id())?;
    let (seconds, packets) = (at.elapsed().as_secs_f64(), packets as f64);
    let all = end.since(&began);
    Ok(json!({
        "viewers": args.viewers,
        "packets_per_second": packets / seconds,
        "cpu_us_per_packet": all.as_secs_f64() * 1e6 / packets,
        "cpu_percent": all.as_secs_f64() / seconds * 100.0,
    }))
}

/// Waits until so many viewers have said that they are there.
fn gather(socket: &UdpSocket, count: usize) -> Result<Vec<Viewer>> {
    let until = Instant::now() + ALL_WITHIN;
    let mut known: Vec<SocketAddr> = Vec::new();
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    while known.len() < count {
        if Instant::now() > until {
            bail!("{} of {count} viewers came", known.len());
        }
        if let Ok((_, address)) = socket.recv_from(&mut [0; 64])
            && !known.contains(&address)
        {
            known.push(address);
        }
    }
    let keys = (0..=u8::MAX).cycle();
    let viewers = known.into_iter().zip(keys).map(|(address, n)| {
        Ok(Viewer {
            address: address.into(),
            keys: Protect::new(Profile::AeadAes128Gcm, &[n; 16], &[n; 12])?,
            seq: 0,
            roc: 0,
            data: Vec::with_capacity(MESSAGE * 2),
        })
    });
    viewers.collect()
}

struct Sender {
    socket: UdpSocket,
    headers: MultiHeaders<SockaddrStorage>,
    number: u16,
}

impl Sender {
    /// Sends a frame to all. Returns how many packets it was.
    fn frame(&mut self, layer: &mut Layer, key: bool, viewers: &mut [Viewer]) -> Result<u64> {
        let payloads = layer.frame(key);
        let at = timestamp(clock::now_ns());
        let pt = if key { KEY } else { DELTA };
        let runs = runs(&payloads);
        for batch in viewers.chunks_mut(BATCH) {
            for viewer in batch.iter_mut() {
                viewer.data.clear();
                for (n, payload) in payloads.iter().enumerate() {
                    self.number = self.number.wrapping_add(1);
                    let last = n + 1 == payloads.len();
                    viewer.write(pt, last, at, self.number, payload)?;
                }
            }
            for run in &runs {
                self.send(batch, *run)?;
            }
        }
        Ok(payloads.len() as u64 * viewers.len() as u64)
    }

    fn send(&mut self, batch: &[Viewer], run: Run) -> Result<()> {
        let slices: Vec<_> = batch
            .iter()
            .map(|v| [IoSlice::new(&v.data[run.from..run.to])])
            .collect();
        let addresses: Vec<_> = batch.iter().map(|v| Some(v.address)).collect();
        let segment = run.segment as u16;
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let fd = self.socket.as_raw_fd();
        let mut from = 0;
        while from < batch.len() {
            let (slices, addresses) = (&slices[from..], &addresses[from..]);
            let headers = &mut self.headers;
            let sent = sendmmsg(fd, headers, slices, addresses, control, MsgFlags::empty());
            from += sent.context("sendmmsg")?.count().max(1);
        }
        Ok(())
    }
}

impl Viewer {
    fn write(&mut self, pt: u8, last: bool, at: u32, number: u16, payload: &Payload) -> Result<()> {
        let start = self.data.len();
        self.data.extend([0x90, pt | u8::from(last) << 7]);
        self.data.extend(self.seq.to_be_bytes());
        self.data.extend(at.to_be_bytes());
        self.data.extend([0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x31]);
        self.data.extend(number.to_be_bytes());
        self.data.push(0);
        self.data.extend_from_slice(&payload.data);
        self.keys.rtp(&mut self.data, start, HEADER, self.roc)?;
        self.seq = self.seq.wrapping_add(1);
        self.roc += u32::from(self.seq == 0);
        Ok(())
    }
}

/// How a frame's datagrams go into messages.
fn runs(payloads: &[Payload]) -> Vec<Run> {
    let overhead = HEADER + Profile::AeadAes128Gcm.rtp_overhead();
    let mut runs: Vec<Run> = Vec::new();
    let mut open = false;
    let mut from = 0;
    for payload in payloads {
        let size = payload.data.len() + overhead;
        match runs.last_mut() {
            Some(run)
                if open
                    && size <= run.segment
                    && run.to - run.from + size <= MESSAGE
                    && (run.to - run.from) / run.segment < SEGMENTS =>
            {
                run.to += size;
                open = size == run.segment;
            }
            _ => {
                runs.push(Run {
                    from,
                    to: from + size,
                    segment: size,
                });
                open = true;
            }
        }
        from += size;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use sfu_load::args::StreamArgs;

    #[test]
    fn runs_hold_every_datagram_once_and_only_their_last_is_shorter() {
        let stream = StreamArgs {
            sound_only: false,
            layers: 1,
            bitrate: 20_000_000,
            keyframe_interval: Duration::from_secs(2),
            audio: false,
        };
        let layer = &mut generator::layers(&stream)[0];
        for key in [true, false, false] {
            let payloads = layer.frame(key);
            let overhead = HEADER + Profile::AeadAes128Gcm.rtp_overhead();
            let sizes: Vec<_> = payloads.iter().map(|p| p.data.len() + overhead).collect();
            let mut cut = Vec::new();
            for run in runs(&payloads) {
                assert!(run.to - run.from <= MESSAGE);
                let mut rest = run.to - run.from;
                while rest > 0 {
                    cut.push(rest.min(run.segment));
                    rest -= rest.min(run.segment);
                }
            }
            assert_eq!(cut, sizes);
        }
    }
}
