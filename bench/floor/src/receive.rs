// SPDX-License-Identifier: MPL-2.0

//! The viewers: a socket each, one epoll. Only headers are looked at.

use std::io::{self, IoSliceMut};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use quinn_udp::{RecvMeta, UdpSocketState};
use serde_json::{Value, json};
use sfu_load::rtp::{self, Header};
use sfu_load::stats::Histogram;
use sfu_load::{clock, process};

use crate::{KEY, ReceiveArgs, timestamp};

/// As the load tool's.
const MESSAGES: usize = 4;
const MESSAGE_MAX: usize = 65_536;
const KERNEL_BUFFER: usize = 1 << 20;
const HELLO: Duration = Duration::from_millis(500);
/// What comes in the first moments does not count.
const WARM: Duration = Duration::from_secs(2);
const LATE: Duration = Duration::from_millis(50);

struct Viewer {
    socket: UdpSocket,
    state: UdpSocketState,
    /// The whole number of the newest packet.
    newest: Option<u64>,
    packets: u64,
    lost: u64,
}

#[derive(Default)]
struct Tally {
    delays: Histogram,
    keyframe_ends: Histogram,
    counts: bool,
}

/// See the module's description.
pub(crate) fn run(args: &ReceiveArgs) -> Result<Value> {
    process::raise_file_limit(args.viewers as u64 + 64)?;
    let mut poll = Poll::new().context("epoll")?;
    let mut viewers = Vec::new();
    for n in 0..args.viewers {
        viewers.push(Viewer::new(args, &poll, Token(n))?);
    }
    let mut buffers = vec![vec![0; MESSAGE_MAX]; MESSAGES];
    let mut events = Events::with_capacity(1_024);
    let mut tally = Tally::default();
    let (start, mut hello_at) = (Instant::now(), Instant::now());
    let (mut first, mut last): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let now = Instant::now();
        if first.is_none() && now >= hello_at {
            hello_at = now + HELLO;
            for viewer in &viewers {
                // A full buffer, or nobody there yet.
                let _ = viewer.socket.send_to(b"here", args.to);
            }
        }
        if last.is_some_and(|at| now - at > Duration::from_secs(1)) {
            break;
        }
        if first.is_none() && now - start > Duration::from_secs(30) {
            bail!("nothing came");
        }
        match poll.poll(&mut events, Some(HELLO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let now = Instant::now();
        tally.counts = first.is_some_and(|at| now - at > WARM);
        for event in &events {
            if viewers[event.token().0].read(&mut buffers, &mut tally) {
                first.get_or_insert(now);
                last = Some(now);
            }
        }
    }
    Ok(json!({
        "packets": viewers.iter().map(|v| v.packets).sum::<u64>(),
        "lost_packets": viewers.iter().map(|v| v.lost).sum::<u64>(),
        "forward_delay_ms_p50": tally.delays.percentile_ms(0.5),
        "forward_delay_ms_p99": tally.delays.percentile_ms(0.99),
        "packets_timed": tally.delays.count(),
        "packets_late": tally.delays.above(LATE),
        "keyframe_end_ms_p50": tally.keyframe_ends.percentile_ms(0.5),
        "keyframe_end_ms_p99": tally.keyframe_ends.percentile_ms(0.99),
        "keyframe_end_ms_max": tally.keyframe_ends.percentile_ms(1.0),
    }))
}

impl Viewer {
    fn new(args: &ReceiveArgs, poll: &Poll, token: Token) -> Result<Self> {
        let any = if args.to.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = std::net::UdpSocket::bind(any).context("UDP socket")?;
        let state = UdpSocketState::new((&socket).into()).context("socket options")?;
        // Where the kernel grants less, it is less.
        let _ = state.set_recv_buffer_size((&socket).into(), KERNEL_BUFFER);
        let mut socket = UdpSocket::from_std(socket);
        let readable = Interest::READABLE;
        let registered = poll.registry().register(&mut socket, token, readable);
        registered.context("epoll")?;
        Ok(Self {
            socket,
            state,
            newest: None,
            packets: 0,
            lost: 0,
        })
    }

    /// Reads all that there is. Returns whether there was something.
    fn read(&mut self, buffers: &mut [Vec<u8>], tally: &mut Tally) -> bool {
        let mut any = false;
        loop {
            let mut metas = [RecvMeta::default(); MESSAGES];
            let mut slices: Vec<_> = buffers.iter_mut().map(|b| IoSliceMut::new(b)).collect();
            let call = || {
                self.state
                    .recv((&self.socket).into(), &mut slices, &mut metas)
            };
            let count = match self.socket.try_io(call) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return any,
            };
            any |= count > 0;
            let now_ns = clock::now_ns();
            for (meta, buffer) in metas[..count].iter().zip(buffers.iter()) {
                for data in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    self.take(data, now_ns, tally);
                }
            }
            if count < MESSAGES {
                return any;
            }
        }
    }

    fn take(&mut self, data: &[u8], now_ns: u64, tally: &mut Tally) {
        let Some(header) = Header::parse(data, None) else {
            return;
        };
        self.packets += 1;
        let near = self.newest.unwrap_or(u64::from(header.seq));
        let seq = rtp::extend(header.seq, near);
        self.lost += seq.saturating_sub(near + 1);
        self.newest = Some(near.max(seq));
        if tally.counts {
            let ticks = timestamp(now_ns).wrapping_sub(header.timestamp);
            let delay = Duration::from_micros(u64::from(ticks) * 10);
            tally.delays.add(delay);
            if header.marker && header.payload_type == KEY {
                tally.keyframe_ends.add(delay);
            }
        }
    }
}
