// SPDX-License-Identifier: MPL-2.0

//! Our own offers to a peer that is sent something, and its answers (RFC 9429, sections 5.2 and 5.8).
//!
//! An offer of ours is what we would answer to a peer that knows all that we know (`ideal`): so there is one way to write
//! m-lines, whoever offers, and an answer is read as an offer is. M-lines are only added; one whose track has gone is
//! inactive until another track of its kind uses it.

use std::net::SocketAddr;

use is::IceCreds;

use super::SLOTS;
use super::again::Restart;
use super::answer::{self, Local, Sent, Stream};
use super::choice::{Plan, Purpose};
use super::duplex::check_name;
use super::error::{OfferError, shown};
use super::ice::{Fingerprint, credentials, random, random_text};
use super::offer::Offer;
use super::session::{self, Origin};
use super::viewer::{self, NAME};
use crate::codec::{Codec, TrackKind};
use crate::transport::Slot;
use crate::transport::lean::agreed::{Agreed, AgreedSlots, pictures};

/// What a peer knows that knows all that we send. Payload types are Chromium's, where it has some.
struct Known {
    codec: Codec,
    /// Payload types, and what they are.
    types: &'static str,
    lines: &'static str,
}

const VIDEO: [Known; 5] = [
    Known {
        codec: Codec::Vp8,
        types: " 96 97",
        lines: "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n",
    },
    Known {
        codec: Codec::H264,
        types: " 102 103 104 105 106 107",
        lines: "a=rtpmap:102 H264/90000\r\n\
            a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
            a=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\n\
            a=rtpmap:104 H264/90000\r\n\
            a=fmtp:104 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=4d001f\r\n\
            a=rtpmap:105 rtx/90000\r\na=fmtp:105 apt=104\r\n\
            a=rtpmap:106 H264/90000\r\n\
            a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f\r\n\
            a=rtpmap:107 rtx/90000\r\na=fmtp:107 apt=106\r\n",
    },
    Known {
        codec: Codec::Vp9,
        types: " 98 99",
        lines: "a=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n",
    },
    Known {
        codec: Codec::Av1,
        types: " 45 46",
        lines: "a=rtpmap:45 AV1/90000\r\na=fmtp:45 level-idx=5;profile=0;tier=0\r\n\
            a=rtpmap:46 rtx/90000\r\na=fmtp:46 apt=45\r\n",
    },
    Known {
        codec: Codec::H265,
        types: " 49 50",
        lines: "a=rtpmap:49 H265/90000\r\na=fmtp:49 level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST\r\n\
            a=rtpmap:50 rtx/90000\r\na=fmtp:50 apt=49\r\n",
    },
];
const VIDEO_ALL: &str = "a=extmap:5 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension\r\n\
    a=rtcp-fb:* goog-remb\r\na=rtcp-fb:* transport-cc\r\na=rtcp-fb:* ccm fir\r\n\
    a=rtcp-fb:* nack\r\na=rtcp-fb:* nack pli\r\n";
const AUDIO: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n\
    a=rtcp-fb:* transport-cc\r\na=rtpmap:111 opus/48000/2\r\n\
    a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";
const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n";
/// Of each m-line of media.
const ALL: &str = "a=rtcp-mux\r\na=rtcp-rsize\r\n\
    a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
    a=extmap:2 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
    a=extmap:3 http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time\r\n\
    a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n";

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Offering {
    origin: Origin,
    /// Of our next offer.
    local: IceCreds,
    addresses: Vec<SocketAddr>,
    /// That of all our sources (CNAME).
    name: String,
    purpose: Purpose,
    /// One stream's picture is all that is offered, in this codec.
    only: Option<Codec>,
    /// Each m-line is a place of its own.
    by_slot: bool,
    lines: Vec<Line>,
    /// M-lines of our last offer.
    offered: usize,
    /// What was agreed on last.
    agreed: Option<Agreed>,
}

/// An m-line of ours. Its name is its place.
#[derive(Debug, Clone)]
struct Line {
    /// `None`: it is for data channels.
    kind: Option<TrackKind>,
    ssrc: u32,
    rtx: Option<u32>,
    /// What it carries: a stream's name and a track's. `None`: it is inactive.
    msid: Option<String>,
    /// It carried something in our last offer.
    told: bool,
    /// Among those that the peer has taken, since it did so.
    slot: Option<Slot>,
}

/// What comes of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Agreement {
    /// The first one: the connection may begin.
    New(Box<Agreed>),
    /// M-lines have been added, and maybe ICE begins anew.
    More(AgreedSlots, Option<Restart>),
}

impl Line {
    const DATA: Self = Self {
        kind: None,
        ssrc: 0,
        rtx: None,
        msid: None,
        told: false,
        slot: None,
    };

    fn name(&self) -> &'static str {
        self.kind.map_or("application", TrackKind::name)
    }
}

impl Offering {
    /// With `data` the first m-line is that of data channels.
    pub(crate) fn new(
        addresses: &[SocketAddr],
        delay: bool,
        data: bool,
    ) -> Result<Self, OfferError> {
        Ok(Self {
            origin: Origin::new()?,
            local: credentials()?,
            addresses: addresses.to_vec(),
            name: random_text::<NAME>()?.replace(['+', '/'], "x"),
            purpose: Purpose::Watch {
                delay,
                all: true,
                data,
            },
            only: None,
            by_slot: true,
            lines: data.then_some(Line::DATA).into_iter().collect(),
            offered: 0,
            agreed: None,
        })
    }

    /// To a viewer of one stream, of whose picture this is the codec: some answer with a single format, the first.
    pub(crate) fn of_stream(
        addresses: &[SocketAddr],
        delay: bool,
        video: Option<Codec>,
    ) -> Result<Self, OfferError> {
        Ok(Self {
            only: video,
            by_slot: false,
            ..Self::new(addresses, delay, false)?
        })
    }

    /// A track is to be sent: on an m-line that has none, or on a new one. Returns which. One that has lost its track since our
    /// last offer is not used before it was offered without: a peer tells its page of a track where an m-line begins to send, and
    /// of none that takes another one's place (RFC 9429, section 5.10).
    pub(crate) fn add(&mut self, kind: TrackKind, msid: &str) -> Result<usize, OfferError> {
        check_name(msid)?;
        let free = |line: &Line| line.kind == Some(kind) && line.msid.is_none() && !line.told;
        if let Some(at) = self.lines.iter().position(free) {
            // Under other SSRCs: Chromium takes its decoder's way to the page away with a track, and lays it again only
            // for an SSRC that is new. With the old one it decodes, and shows nothing.
            let (ssrc, rtx) = self.new_ssrcs(kind)?;
            let line = &mut self.lines[at];
            (line.ssrc, line.rtx, line.msid) = (ssrc, rtx, Some(msid.to_owned()));
            return Ok(at);
        }
        if self.lines.len() == SLOTS {
            let why = format!("it has {SLOTS} m-lines already");
            return Err(OfferError::unacceptable(why));
        }
        let (ssrc, rtx) = self.new_ssrcs(kind)?;
        self.lines.push(Line {
            kind: Some(kind),
            ssrc,
            rtx,
            msid: Some(msid.to_owned()),
            told: false,
            slot: None,
        });
        Ok(self.lines.len() - 1)
    }

    /// An m-line's track is gone.
    pub(crate) fn remove(&mut self, line: usize) {
        if let Some(line) = self.lines.get_mut(line) {
            line.msid = None;
        }
    }

    /// ICE begins anew with the next offer.
    pub(crate) fn restart_ice(&mut self) -> Result<(), OfferError> {
        self.local = credentials()?;
        Ok(())
    }

    fn new_ssrcs(&self, kind: TrackKind) -> Result<(u32, Option<u32>), OfferError> {
        let ssrc = self.new_ssrc(None)?;
        let rtx = match kind {
            TrackKind::Video => Some(self.new_ssrc(Some(ssrc))?),
            TrackKind::Audio => None,
        };
        Ok((ssrc, rtx))
    }

    fn new_ssrc(&self, other: Option<u32>) -> Result<u32, OfferError> {
        loop {
            let ssrc = u32::from_be_bytes(random()?);
            let mut known = self.lines.iter().flat_map(|l| [Some(l.ssrc), l.rtx]);
            if ssrc != 0 && Some(ssrc) != other && !known.any(|k| k == Some(ssrc)) {
                return Ok(ssrc);
            }
        }
    }

    /// The offer of a peer that knows all that we know, and wants all that we have.
    fn ideal(&self) -> String {
        let known = || {
            let wanted = |known: &&Known| self.only.is_none_or(|only| only == known.codec);
            VIDEO.iter().filter(wanted)
        };
        let mut video = "m=video 9 UDP/TLS/RTP/SAVPF".to_owned();
        video.extend(known().map(|known| known.types));
        video.push_str("\r\n");
        video.push_str(VIDEO_ALL);
        video.extend(known().map(|known| known.lines));
        let each = video.len() + ALL.len() + 32;
        let mut out = String::with_capacity(64 + self.lines.len() * (each + 5));
        out.push_str("v=0\r\na=extmap-allow-mixed\r\na=group:BUNDLE");
        for (mid, _) in self.lines.iter().enumerate() {
            out.extend([" ", &mid.to_string()]);
        }
        out.push_str("\r\n");
        for (mid, line) in self.lines.iter().enumerate() {
            let (section, all) = match line.kind {
                Some(TrackKind::Video) => (video.as_str(), ALL),
                Some(TrackKind::Audio) => (AUDIO, ALL),
                None => (DATA, ""),
            };
            let direction = match line.msid {
                Some(_) => "a=recvonly\r\n",
                None => "a=inactive\r\n",
            };
            out.extend([section, "a=mid:", &mid.to_string(), "\r\n", direction, all]);
        }
        out
    }

    /// Our next offer. `fingerprint` is our certificate's.
    pub(crate) fn offer(&mut self, fingerprint: &str) -> Result<String, OfferError> {
        let ideal = self.ideal();
        let offer = Offer::read(&ideal, SLOTS)?;
        let plan = Plan::again(&offer, self.purpose)?;
        let sent = self.lines.iter().map(|line| {
            let msid = line.msid.as_deref()?;
            Some(Sent {
                ssrc: line.ssrc,
                rtx: line.rtx,
                msid: Some(msid),
            })
        });
        let sent: Vec<_> = sent.collect();
        let candidates = session::candidates(&self.addresses);
        let ours = Local {
            origin: self.origin,
            credentials: &self.local,
            fingerprint,
            candidates: &candidates,
            // Who answers begins (RFC 8842, section 5.2), unless it has begun already.
            setup: "actpass",
        };
        let stream = Stream {
            name: &self.name,
            sent: &sent,
        };
        let text = answer::write(&offer, &plan, ours, stream);
        self.origin.version += 1;
        self.offered = self.lines.len();
        for line in &mut self.lines {
            line.told = line.msid.is_some();
        }
        Ok(text)
    }

    /// The peer's answer to our last offer. One that is refused changes nothing.
    pub(crate) fn answered(&mut self, sdp: &str) -> Result<Agreement, OfferError> {
        let answer = Offer::read(sdp, SLOTS)?;
        self.check(&answer)?;
        let plan = Plan::again(&answer, self.purpose)?;
        if plan.rejects_all() && self.agreed.is_none() {
            let why = "it takes none of the m-lines that it was offered";
            return Err(OfferError::unacceptable(why));
        }
        let mut agreed = match &self.agreed {
            None => session::agree(&answer, &plan, &self.addresses)?,
            Some(agreed) => agreed.clone(),
        };
        let restart = self.way(&plan, &mut agreed)?;
        let mut slots = self.lines.iter().filter_map(|l| l.slot).count() as u16;
        for (line, taken) in self.lines.iter_mut().zip(&plan.lines) {
            if line.slot.is_none() && taken.as_ref().is_some_and(|l| !l.formats.is_empty()) {
                line.slot = Some(Slot(slots));
                slots += 1;
            }
        }
        let mut formats = agreed.formats.clone();
        for (line, taken) in self.lines.iter().zip(&plan.lines) {
            let (Some(slot), Some(taken)) = (line.slot, taken) else {
                continue;
            };
            let sent = Sent {
                ssrc: line.ssrc,
                rtx: line.rtx,
                msid: None,
            };
            formats.retain(|known| known.slot != slot);
            formats.extend(viewer::formats(slot, taken, sent, &self.name));
        }
        formats.sort_by_key(|format| format.slot);
        agreed.asks_for_keyframes |= viewer::asks_for_keyframes(&plan);
        agreed.data = agreed.data.or(session::data(&answer, &plan));
        agreed.formats = formats;
        let is_new = self.agreed.is_none();
        self.agreed = Some(agreed.clone());
        Ok(match is_new {
            true => Agreement::New(Box::new(agreed)),
            false => Agreement::More(
                AgreedSlots {
                    formats: agreed.formats,
                    asks_for_keyframes: agreed.asks_for_keyframes,
                    data: agreed.data,
                },
                restart,
            ),
        })
    }

    /// Whether the answer's m-lines are those of our offer (RFC 3264, section 6).
    fn check(&self, answer: &Offer<'_>) -> Result<(), OfferError> {
        if answer.medias.len() != self.offered {
            let why = format!(
                "it has {} m-lines, and the offer has {} (RFC 3264, section 6)",
                answer.medias.len(),
                self.offered
            );
            return Err(OfferError::unacceptable(why));
        }
        for (at, (line, media)) in self.lines.iter().zip(&answer.medias).enumerate() {
            let mid = media.mid.unwrap_or_default();
            let is_same = media.name == line.name() && mid == at.to_string();
            let is_nameless = media.is_rejected() && mid.is_empty();
            if !is_same && !is_nameless {
                let why = format!(
                    "its {} m-line with a=mid {} stands where {} with {at} was offered",
                    shown(media.name),
                    shown(mid),
                    line.name()
                );
                return Err(OfferError::unacceptable(why));
            }
        }
        Ok(())
    }

    /// The way to the peer: new at first, then as it was, unless we have begun ICE anew.
    fn way(&self, plan: &Plan<'_, '_>, agreed: &mut Agreed) -> Result<Option<Restart>, OfferError> {
        if self.agreed.is_none() {
            agreed.local = self.local.clone();
            agreed.by_slot = self.by_slot;
            return Ok(None);
        }
        if plan.rejects_all() {
            return Ok(None);
        }
        let (remote, fingerprints, _) = plan.transport.agree()?;
        let known = |f: &Fingerprint| agreed.fingerprints.contains(f);
        if !fingerprints.iter().any(known) {
            return Err(OfferError::unacceptable(
                "its certificate is another one (a=fingerprint): begin another session with it",
            ));
        }
        let is_asked = self.local != agreed.local;
        match (is_asked, remote != agreed.remote) {
            (false, false) => Ok(None),
            (true, true) => {
                agreed.local = self.local.clone();
                agreed.remote = remote.clone();
                let local = self.local.clone();
                Ok(Some(Restart { remote, local }))
            }
            (true, false) => Err(OfferError::unacceptable(
                "the offer begins ICE anew, and the answer does not",
            )),
            (false, true) => Err(OfferError::unacceptable(
                "it begins ICE anew, and the offer does not",
            )),
        }
    }

    /// The name of an m-line.
    pub(crate) fn mid(&self, line: usize) -> String {
        line.to_string()
    }

    /// The codecs of pictures that the peer takes, on some m-line or on this one.
    pub(crate) fn pictures(&self, slot: Option<Slot>) -> Vec<Codec> {
        let agreed = self.agreed.as_ref();
        agreed.map_or_else(Vec::new, |agreed| pictures(&agreed.formats, slot))
    }

    /// The slot of an m-line that the peer has taken.
    pub(crate) fn slot(&self, line: usize) -> Option<Slot> {
        self.lines.get(line)?.slot
    }
}
