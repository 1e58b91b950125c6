// SPDX-License-Identifier: MPL-2.0

//! One viewer: ICE, then DTLS, then media, without I/O. Called by [`crate::swarm`] with datagrams and the time.
//!
//! RTP headers are in the clear, so that sequence numbers, timestamps and markers are checked without decryption. Payloads
//! are decrypted while a keyframe is waited for, always by viewers of the sample, and where they are retransmissions.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rtc_rtcp::Packet;

use crate::dtls::{Certificate, Dtls, Step};
use crate::frames::Piece;
use crate::generator;
use crate::ice::Ice;
use crate::reception::{Counts, Reception};
use crate::rtp::{self, Header};
use crate::sdp::{Codec, Credentials, Remote, Setup};
use crate::srtp::Srtp;
use crate::stats::Histogram;

const REPORT: Duration = Duration::from_secs(1);
const FEEDBACK: Duration = Duration::from_millis(100);
/// One packet in this many is decrypted by every viewer, so that rollovers of the sequence number are not missed.
const ROLLOVER_WATCH: u64 = 4_096;
/// Every viewer looks this often when a frame was sent. What a joiner is sent first says little: its timestamps are closer
/// together than they were.
const SENT_WATCH: Duration = Duration::from_secs(1);
/// A viewer shows a picture if a frame was whole this short a time ago.
const SHOWING: Duration = Duration::from_secs(2);

/// Datagrams to send.
pub type Out = Vec<(SocketAddr, Vec<u8>)>;

/// What a viewer begins with: the outcome of its signalling.
#[derive(Debug)]
pub struct Start {
    pub index: usize,
    pub local: Credentials,
    pub remote: Remote,
    /// The SDP of ours was the offer.
    pub offered: bool,
    pub certificate: Certificate,
    /// Decrypts everything.
    pub sampled: bool,
    /// Leaves when it has a picture.
    pub passing: bool,
    /// When it asked to join.
    pub asked_at: Instant,
}

/// What all viewers of a thread measure together.
#[derive(Debug, Default)]
pub struct Tally {
    /// Delays count now.
    pub steady: bool,
    /// Of viewers that decrypt: from the generator's send call to the packet's arrival.
    pub delays: Histogram,
    pub audio_delays: Histogram,
    /// Of all viewers: from a keyframe's first packet at the generator until all of it is here, repaired or not.
    pub keyframe_ends: Histogram,
}

/// See the module's description.
#[derive(Debug)]
pub struct Viewer {
    pub sampled: bool,
    ssrc: u32,
    ice: Ice,
    dtls: Dtls,
    srtp: Option<Box<Srtp>>,
    /// By payload type.
    codecs: [Codec; 128],
    nack: bool,
    pli: bool,
    twcc_extension: Option<u8>,
    twcc: crate::twcc::Recorder,
    video: Option<(Codec, Reception)>,
    audio: Option<Reception>,
    /// A timestamp of the video, and when the generator sent that frame.
    sent: Option<(u32, u64)>,
    /// When to look for the next one.
    sent_due: Instant,
    /// Of streams that were replaced.
    earlier: Counts,
    retransmissions: u64,
    undecryptable: u64,
    asked_at: Instant,
    join: Option<Duration>,
    shown_at: Option<Instant>,
    report_at: Instant,
    feedback_at: Instant,
    failed: Option<String>,
}

/// What became of a viewer.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    pub connected: bool,
    /// A picture was shown, and shows.
    pub picture: bool,
    pub join: Option<Duration>,
    pub counts: Counts,
    pub missing: u64,
    pub audio_packets: u64,
    pub audio_lost: u64,
    pub retransmissions: u64,
    pub undecryptable: u64,
    pub whole_frames: u64,
    pub broken_frames: u64,
    pub failed: Option<String>,
}

impl Viewer {
    /// A viewer whose signalling is done.
    pub fn new(start: Start, now: Instant) -> Result<Self> {
        let remote = start.remote;
        let client = match remote.setup {
            Setup::Passive | Setup::ActPass => true,
            Setup::Active => false,
        };
        let mut codecs = [Codec::Other; 128];
        let (mut nack, mut pli, mut twcc) = (false, false, false);
        for payload in remote.payloads() {
            if let Some(codec) = codecs.get_mut(usize::from(payload.number)) {
                *codec = payload.codec;
            }
            nack |= payload.nack;
            pli |= payload.pli;
            twcc |= payload.twcc;
        }
        if codecs
            .iter()
            .all(|c| !matches!(c, Codec::H264 | Codec::Vp8))
        {
            bail!("the server's SDP has no video in H.264 or VP8");
        }
        let dtls = Dtls::new(&start.certificate, client, remote.fingerprint, now)?;
        let controlling = start.offered || remote.ice_lite;
        // Viewers' reports are spread over the second.
        let phase = REPORT.mul_f64(start.index as f64 * 0.618 % 1.0);
        Ok(Self {
            sampled: start.sampled,
            ssrc: start.index as u32 + 1,
            ice: Ice::new(
                start.local,
                remote.credentials,
                controlling,
                remote.candidates,
                now,
            ),
            dtls,
            srtp: None,
            codecs,
            nack,
            pli,
            twcc_extension: remote.twcc_extension.filter(|_| twcc),
            twcc: crate::twcc::Recorder::default(),
            video: None,
            audio: None,
            sent: None,
            sent_due: now,
            earlier: Counts::default(),
            retransmissions: 0,
            undecryptable: 0,
            asked_at: start.asked_at,
            join: None,
            shown_at: None,
            report_at: now + phase,
            feedback_at: now + phase / 10,
            failed: None,
        })
    }

    /// Takes a datagram.
    pub fn receive(
        &mut self,
        now: Instant,
        now_ns: u64,
        from: SocketAddr,
        data: &[u8],
        tally: &mut Tally,
        out: &mut Out,
    ) {
        let result = match data.first() {
            Some(128..=191) if rtp::is_rtcp(data) => {
                self.on_rtcp(now, data);
                Ok(())
            }
            Some(128..=191) => {
                self.on_rtp(now, now_ns, data, tally);
                Ok(())
            }
            // What is no STUN message may come from anywhere.
            Some(0..=3) => self.ice.receive(from, data, out),
            Some(20..=63) => self.dtls.receive(data).map(|step| self.on_step(step, out)),
            _ => Ok(()),
        };
        if let Err(error) = result {
            self.failed.get_or_insert_with(|| format!("{error:#}"));
        }
    }

    /// Does what is due. To be called every few milliseconds.
    pub fn poll(&mut self, now: Instant, out: &mut Out) {
        if self.failed.is_some() {
            return;
        }
        if let Err(error) = self.try_poll(now, out) {
            self.failed = Some(format!("{error:#}"));
        }
    }

    /// Takes the next step towards the server at once. Costs nothing once there is media.
    pub fn hurry(&mut self, now: Instant, out: &mut Out) {
        if self.srtp.is_none() {
            self.poll(now, out);
        }
    }

    fn try_poll(&mut self, now: Instant, out: &mut Out) -> Result<()> {
        self.ice.poll(now, out)?;
        let Some(server) = self.ice.selected() else {
            return Ok(());
        };
        if self.srtp.is_none() {
            let step = self.dtls.poll(now)?;
            self.on_step(step, out);
            return Ok(());
        }
        let mut packets: Vec<Box<dyn Packet>> = Vec::new();
        if now >= self.report_at {
            self.report_at = now + REPORT;
            let receptions = self.video.iter_mut().map(|(_, r)| r).chain(&mut self.audio);
            for reception in receptions {
                packets.push(Box::new(reception.report(self.ssrc, now)));
            }
        }
        if let Some((_, video)) = &mut self.video {
            video.poll(self.ssrc, self.nack, now, &mut packets);
            if self.pli
                && let Some(request) = video.picture_loss(self.ssrc, now)
            {
                packets.push(request);
            }
        }
        if !packets.is_empty() {
            let plain = rtc_rtcp::packet::marshal(&packets)?;
            self.send_rtcp(server, &plain, out)?;
        }
        if self.twcc_extension.is_some() && now >= self.feedback_at {
            self.feedback_at = now + FEEDBACK;
            let media = self.video.as_ref().map_or(0, |(_, video)| video.ssrc);
            if let Some(feedback) = self.twcc.feedback(self.ssrc, media) {
                self.send_rtcp(server, &feedback, out)?;
            }
        }
        Ok(())
    }

    fn send_rtcp(&mut self, server: SocketAddr, plain: &[u8], out: &mut Out) -> Result<()> {
        if let Some(srtp) = &mut self.srtp {
            let secret = srtp.outbound.encrypt_rtcp(plain)?;
            out.push((server, secret.to_vec()));
        }
        Ok(())
    }

    fn on_step(&mut self, step: Step, out: &mut Out) {
        if let Some(server) = self.ice.selected() {
            out.extend(step.send.into_iter().map(|data| (server, data)));
        }
        if step.srtp.is_some() {
            self.srtp = step.srtp;
        }
        if step.closed {
            self.failed
                .get_or_insert_with(|| "the server closed the session".to_owned());
        }
    }

    fn on_rtcp(&mut self, now: Instant, data: &[u8]) {
        let Some(srtp) = &mut self.srtp else {
            return;
        };
        let Ok(plain) = srtp.inbound.decrypt_rtcp(data) else {
            self.undecryptable += 1;
            return;
        };
        // A sender report, which only ever comes first.
        if let Some(report) = plain.first_chunk::<16>()
            && report[1] == 200
        {
            let [_, _, _, _, s0, s1, s2, s3, ntp @ ..] = *report;
            let ssrc = u32::from_be_bytes([s0, s1, s2, s3]);
            let receptions = self.video.iter_mut().map(|(_, r)| r).chain(&mut self.audio);
            for reception in receptions.filter(|r| r.ssrc == ssrc) {
                reception.sender_report(u64::from_be_bytes(ntp), now);
            }
        }
    }

    /// Once for each packet.
    fn on_rtp(&mut self, now: Instant, now_ns: u64, data: &[u8], tally: &mut Tally) {
        let Some(header) = Header::parse(data, self.twcc_extension) else {
            return;
        };
        if let Some(seq) = header.twcc {
            self.twcc.record(seq, now_ns);
        }
        match self.codecs[usize::from(header.payload_type)] {
            codec @ (Codec::H264 | Codec::Vp8) => {
                self.on_video(codec, &header, now, now_ns, data, tally);
            }
            Codec::Rtx => {
                self.on_retransmission(&header, now, now_ns, data);
                self.note_keyframe(now_ns, tally);
            }
            Codec::Opus => self.on_audio(&header, now, now_ns, data, tally),
            Codec::Other => {}
        }
    }

    fn on_audio(
        &mut self,
        header: &Header,
        now: Instant,
        now_ns: u64,
        data: &[u8],
        tally: &mut Tally,
    ) {
        let reception = self
            .audio
            .get_or_insert_with(|| Reception::new(header.ssrc, header.seq, 48_000));
        let seq = reception.extend(header.seq);
        reception.take(seq, Piece::default(), false, now, now_ns);
        if let Some(srtp) = &mut self.srtp
            && (self.sampled || seq.is_multiple_of(ROLLOVER_WATCH))
            && let Ok(plain) = srtp.inbound.decrypt_rtp(data)
            && tally.steady
            && let Some(sent) = generator::sent_at(rtp::payload(header, &plain))
        {
            let delay = Duration::from_nanos(now_ns.saturating_sub(sent));
            tally.audio_delays.add(delay);
        }
    }

    /// Counts how late a keyframe's end is, where one was.
    fn note_keyframe(&mut self, now_ns: u64, tally: &mut Tally) {
        let Some((_, video)) = &mut self.video else {
            return;
        };
        let (Some(ended), Some((timestamp, sent))) = (video.frames.key_ended.take(), self.sent)
        else {
            return;
        };
        if tally.steady {
            // Frames follow each other by the generator's clock, which is the timestamps'.
            let ticks = i64::from(ended.wrapping_sub(timestamp) as i32);
            let sent = sent.saturating_add_signed(ticks * 100_000 / 9);
            let delay = Duration::from_nanos(now_ns.saturating_sub(sent));
            tally.keyframe_ends.add(delay);
        }
    }

    fn on_video(
        &mut self,
        codec: Codec,
        header: &Header,
        now: Instant,
        now_ns: u64,
        data: &[u8],
        tally: &mut Tally,
    ) {
        let Some(srtp) = &mut self.srtp else {
            return;
        };
        if let Some((_, old)) = self.video.take_if(|(_, video)| video.ssrc != header.ssrc) {
            self.earlier = sum(self.earlier, old.counts);
        }
        let (_, video) = self
            .video
            .get_or_insert_with(|| (codec, Reception::new(header.ssrc, header.seq, 90_000)));
        let seq = video.extend(header.seq);
        let mut piece = Piece {
            timestamp: header.timestamp,
            marker: header.marker,
            ..Piece::default()
        };
        let due = now >= self.sent_due;
        if self.sampled
            || due
            || video.frames.wants_keyframe()
            || seq.is_multiple_of(ROLLOVER_WATCH)
        {
            match srtp.inbound.decrypt_rtp(data) {
                Ok(plain) => {
                    let payload = rtp::payload(header, &plain);
                    piece.look(codec, payload);
                    if let Some(sent) = generator::sent_at(payload) {
                        note_sent(&mut self.sent, header.timestamp, sent);
                        self.sent_due = now + SENT_WATCH;
                        if self.sampled && tally.steady {
                            let delay = Duration::from_nanos(now_ns.saturating_sub(sent));
                            tally.delays.add(delay);
                        }
                    }
                }
                Err(_) => {
                    self.undecryptable += 1;
                    return;
                }
            }
        }
        if video.take(seq, piece, false, now, now_ns) {
            self.on_frame(now);
            self.note_keyframe(now_ns, tally);
        }
    }

    /// RFC 4588: the payload begins with the original sequence number.
    fn on_retransmission(&mut self, header: &Header, now: Instant, now_ns: u64, data: &[u8]) {
        let Some(srtp) = &mut self.srtp else {
            return;
        };
        let Ok(plain) = srtp.inbound.decrypt_rtp(data) else {
            self.undecryptable += 1;
            return;
        };
        let payload = rtp::payload(header, &plain);
        // Probes are padding only.
        let (Some((hi, lo, rest)), Some((codec, video))) = (
            payload
                .split_at_checked(2)
                .map(|(seq, rest)| (seq[0], seq[1], rest)),
            &mut self.video,
        ) else {
            return;
        };
        self.retransmissions += 1;
        let seq = video.extend(u16::from_be_bytes([hi, lo]));
        let mut piece = Piece {
            timestamp: header.timestamp,
            marker: header.marker,
            ..Piece::default()
        };
        piece.look(*codec, rest);
        if video.take(seq, piece, true, now, now_ns) {
            self.on_frame(now);
        }
    }

    fn on_frame(&mut self, now: Instant) {
        self.shown_at = Some(now);
        self.join.get_or_insert(now - self.asked_at);
    }

    /// Says good-bye to the server.
    pub fn close(&mut self, out: &mut Out) {
        if self.srtp.is_some()
            && let Ok(step) = self.dtls.close()
        {
            self.on_step(step, out);
        }
    }

    /// From the request to the first picture, or why there will be none, once that is known.
    pub fn passed(&self) -> Option<Result<Duration, String>> {
        match (self.join, &self.failed) {
            (Some(join), _) => Some(Ok(join)),
            (None, Some(why)) => Some(Err(why.clone())),
            (None, None) => None,
        }
    }

    /// What it has of a picture.
    pub fn how_far(&self) -> String {
        match (&self.ice.selected(), &self.srtp, &self.video) {
            (None, ..) => "no answer to its checks".to_owned(),
            (_, None, _) => "no end of its handshake".to_owned(),
            (_, _, None) => "no packets".to_owned(),
            (_, _, Some((_, video))) => {
                let (packets, missing) = (video.counts.packets, video.still_missing());
                format!("{packets} packets, {missing} missing")
            }
        }
    }

    /// What became of it so far.
    pub fn summary(&self, now: Instant) -> Summary {
        let video = self.video.as_ref().map(|(_, video)| video);
        Summary {
            connected: self.srtp.is_some(),
            picture: self.shown_at.is_some_and(|at| now - at < SHOWING),
            join: self.join,
            counts: video.map_or(self.earlier, |v| sum(self.earlier, v.counts)),
            missing: video.map_or(0, |v| v.still_missing() as u64),
            audio_packets: self.audio.as_ref().map_or(0, |a| a.counts.packets),
            audio_lost: self
                .audio
                .as_ref()
                .map_or(0, |a| a.counts.lost - a.counts.repaired),
            retransmissions: self.retransmissions,
            undecryptable: self.undecryptable,
            whole_frames: video.map_or(0, |v| v.frames.whole),
            broken_frames: video.map_or(0, |v| v.frames.broken),
            failed: self.failed.clone(),
        }
    }
}

/// Keeps when a frame was sent, by the first of its packets that is seen; of two frames the later one, so that clocks
/// that drift do not matter.
fn note_sent(known: &mut Option<(u32, u64)>, timestamp: u32, sent: u64) {
    match known {
        Some((frame, _)) if timestamp.wrapping_sub(*frame) as i32 <= 0 => {}
        _ => *known = Some((timestamp, sent)),
    }
}

/// Counts of two streams together.
pub fn sum(a: Counts, b: Counts) -> Counts {
    Counts {
        packets: a.packets + b.packets,
        lost: a.lost + b.lost,
        repaired: a.repaired + b.repaired,
        unrepaired: a.unrepaired + b.unrepaired,
        nacks: a.nacks + b.nacks,
        plis: a.plis + b.plis,
    }
}
