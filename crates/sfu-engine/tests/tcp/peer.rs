// SPDX-License-Identifier: MPL-2.0

//! A `str0m` client over a real socket, UDP or TCP (RFC 4571), that watches or publishes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Instant;

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

enum Socket {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, unread: Vec<u8> },
}

/// The addresses of the answer's candidates of one transport.
pub(crate) fn candidates(answer: &str, by: By) -> Vec<SocketAddr> {
    let lines = answer
        .lines()
        .filter_map(|l| l.strip_prefix("a=candidate:"));
    let of = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let is_tcp = words[2].eq_ignore_ascii_case("tcp");
        assert_eq!(is_tcp, line.contains("tcptype passive"), "{line}");
        (is_tcp == (by == By::Tcp)).then(|| {
            let ip = words[4].parse().unwrap();
            SocketAddr::new(ip, words[5].parse().unwrap())
        })
    };
    lines.filter_map(of).collect()
}

pub(crate) struct Peer {
    rtc: Rtc,
    socket: Option<Socket>,
    local: SocketAddr,
    remote: SocketAddr,
    pending: Option<SdpPendingOffer>,
    video: Mid,
    pub(crate) connected: bool,
    /// Extended numbers of pictures' packets that came.
    pub(crate) numbers: BTreeSet<u64>,
    /// It still sends, and takes nothing.
    pub(crate) deaf: bool,
    seq: u64,
    start: Instant,
}

impl Peer {
    pub(crate) fn new(direction: Direction) -> (Self, String) {
        let now = Instant::now();
        let mut config = Rtc::builder().set_rtp_mode(true).clear_codecs();
        config.codec_config().enable_opus(true, false);
        config
            .codec_config()
            .add_h264(102.into(), Some(103.into()), true, 0x42_e0_1f);
        let mut rtc = config.build(now);
        let mut api = rtc.sdp_api();
        let video = api.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = api.apply().unwrap();
        let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let peer = Self {
            rtc,
            socket: None,
            local: nowhere,
            remote: nowhere,
            pending: Some(pending),
            video,
            connected: false,
            numbers: BTreeSet::new(),
            deaf: false,
            seq: 1_000,
            start: now,
        };
        (peer, offer.to_sdp_string())
    }

    /// Connects to the first address that the answer has of this transport.
    pub(crate) fn accept(&mut self, answer: &str, by: By) {
        self.remote = candidates(answer, by)[0];
        let (socket, local, candidate) = match by {
            By::Udp => {
                let socket = UdpSocket::bind((self.remote.ip(), 0)).unwrap();
                socket.set_nonblocking(true).unwrap();
                let local = socket.local_addr().unwrap();
                let candidate = Candidate::host(local, "udp");
                (Socket::Udp(socket), local, candidate)
            }
            By::Tcp => {
                let stream = TcpStream::connect(self.remote).unwrap();
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
                let local = stream.local_addr().unwrap();
                let candidate = Candidate::builder().tcp().host(local);
                let candidate = candidate.tcptype(TcpType::Active).build();
                let unread = Vec::new();
                (Socket::Tcp { stream, unread }, local, candidate)
            }
        };
        self.socket = Some(socket);
        self.local = local;
        self.rtc.add_local_candidate(candidate.unwrap()).unwrap();
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        let pending = self.pending.take().unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
    }

    /// Takes what has come, and sends what is due. `false`: its connection is over.
    pub(crate) fn turn(&mut self) -> bool {
        let now = Instant::now();
        let mut lives = true;
        for datagram in self.take(&mut lives) {
            let protocol = match &self.socket {
                Some(Socket::Udp(_)) => Protocol::Udp,
                _ => Protocol::Tcp,
            };
            let receive = Receive::new(protocol, self.remote, self.local, &datagram);
            if let Ok(receive) = receive {
                self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
                self.put_out();
            }
        }
        self.rtc.handle_input(Input::Timeout(now)).unwrap();
        self.put_out();
        lives
    }

    fn put_out(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => return,
                Output::Transmit(datagram) if datagram.destination == self.remote => {
                    self.send(&datagram.contents);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    self.numbers.insert(*packet.seq_no);
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, lives: &mut bool) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut buffer = [0; 65_536];
        match self.socket.as_mut().filter(|_| !self.deaf) {
            Some(Socket::Udp(socket)) => {
                while let Ok(length) = socket.recv(&mut buffer) {
                    found.push(buffer[..length].to_vec());
                }
            }
            Some(Socket::Tcp { stream, unread }) => {
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => {
                            *lives = false;
                            break;
                        }
                        Ok(length) => unread.extend(&buffer[..length]),
                        Err(error) => {
                            *lives &= error.kind() == ErrorKind::WouldBlock;
                            break;
                        }
                    }
                }
                while let Some(head) = unread.first_chunk::<2>() {
                    let length = usize::from(u16::from_be_bytes(*head));
                    if unread.len() < 2 + length {
                        break;
                    }
                    let frame: Vec<u8> = unread.drain(..2 + length).collect();
                    found.push(frame[2..].to_vec());
                }
            }
            None => {}
        }
        found
    }

    fn send(&mut self, data: &[u8]) {
        match &mut self.socket {
            Some(Socket::Udp(socket)) => {
                let _ = socket.send_to(data, self.remote);
            }
            Some(Socket::Tcp { stream, .. }) => {
                let mut frame = u16::try_from(data.len()).unwrap().to_be_bytes().to_vec();
                frame.extend(data);
                // In two parts, as networks cut them.
                let (head, tail) = frame.split_at(frame.len() / 2);
                let _ = stream.write_all(head).and_then(|()| stream.write_all(tail));
            }
            None => {}
        }
    }

    /// Sends one packet of a picture.
    pub(crate) fn publish(&mut self, payload: Vec<u8>) {
        let now = Instant::now();
        let pt = self.rtc.media(self.video).unwrap().remote_pts()[0];
        let timestamp = (now - self.start).as_micros() * 90 / 1_000;
        let write = RtpWrite::new(pt, self.seq.into(), timestamp as u32, now, payload);
        self.seq += 1;
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(self.video, None).unwrap();
        stream.write_rtp(write.marker(true).nackable(true));
    }
}
