// SPDX-License-Identifier: MPL-2.0

//! One m-line of an offer with all that belongs to it (RFC 8866, section 5.14).

use super::error::{OfferError, shown};
use super::extension::{Extension, Extensions};
use super::format::{Encoding, Formats};
use super::ice::Transport;
use super::lines::word;
use super::simulcast::Simulcast;
use super::{CANDIDATES, FORMATS, SOURCES};
use crate::codec::TrackKind;

/// The longest name of an m-line that is taken: it is kept as long as the session is. Clients write numbers or UUIDs.
const LONGEST_MID: usize = 64;
/// The same of what an m-line is of (`video`, `application`).
const LONGEST_NAME: usize = 32;
/// The longest names of a stream and a track that are kept: 64 characters each (RFC 8830, section 2), and a space.
const LONGEST_MSID: usize = 129;
/// The longest name of a source that is kept.
const LONGEST_CNAME: usize = 64;

/// Who sends, as the offerer sees it (RFC 8866, section 6.7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Direction {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

impl Direction {
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "sendrecv" => Self::SendRecv,
            "sendonly" => Self::SendOnly,
            "recvonly" => Self::RecvOnly,
            "inactive" => Self::Inactive,
            _ => return None,
        })
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    pub(super) fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// As the other side sees it.
    pub(super) fn mirrored(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            same => same,
        }
    }
}

/// A stream that the offer names (RFC 5576).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source<'a> {
    pub(super) ssrc: u32,
    pub(super) cname: Option<&'a str>,
    /// Its retransmissions' SSRC.
    pub(super) rtx: Option<u32>,
    /// It is another one's repair.
    pub(super) is_repair: bool,
}

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(super) struct Media<'a> {
    /// `video`, `audio`, or what else.
    pub(super) name: &'a str,
    pub(super) port: u16,
    pub(super) protocol: &'a str,
    /// Payload types, or what the protocol has instead.
    pub(super) words: &'a str,
    pub(super) mid: Option<&'a str>,
    /// Its stream's name and its own (RFC 8830).
    pub(super) msid: Option<&'a str>,
    /// What is spoken (`a=lang`, RFC 8866, section 6.12): the first of several.
    pub(super) language: Option<&'a str>,
    direction: Option<Direction>,
    pub(super) transport: Transport<'a>,
    pub(super) formats: Formats<'a>,
    pub(super) extensions: Extensions,
    pub(super) simulcast: Simulcast<'a>,
    pub(super) sources: Vec<Source<'a>>,
    pub(super) is_bundle_only: bool,
    pub(super) reduced_rtcp: bool,
    /// Headers of one and two octets may be mixed (RFC 8285, section 6).
    pub(super) mixed: bool,
    /// The peer's SCTP port, where it says one (RFC 8841, section 5).
    pub(super) sctp_port: Option<u16>,
    /// The largest message that the peer takes, where it says so (section 6). 0: any.
    pub(super) message_size: Option<u64>,
    candidates: usize,
}

impl<'a> Media<'a> {
    /// Of what follows `m=`: `video 9 UDP/TLS/RTP/SAVPF 96 97`.
    pub(super) fn new(value: &'a str) -> Result<Self, OfferError> {
        let (name, rest) = word(value);
        let (port, rest) = word(rest);
        let (protocol, words) = word(rest);
        // `PORT/COUNT` is of hierarchical codings, which nobody has.
        let port = port.split('/').next().and_then(|port| port.parse().ok());
        let (Some(port), false) = (port, protocol.is_empty()) else {
            let why = format!("its line {} is no m-line", shown(&format!("m={value}")));
            return Err(OfferError::invalid(why));
        };
        if name.len() > LONGEST_NAME {
            let why = format!("an m-line is of what has more than {LONGEST_NAME} characters (m=)");
            return Err(OfferError::unacceptable(why));
        }
        if words.split_ascii_whitespace().nth(FORMATS).is_some() {
            let why = format!("an m-line has more than {FORMATS} payload types");
            return Err(OfferError::unacceptable(why));
        }
        let is_media = matches!(name, "audio" | "video");
        Ok(Self {
            name,
            port,
            protocol,
            words,
            formats: Formats::new(if is_media { words } else { "" }),
            ..Self::default()
        })
    }

    /// Takes an attribute in.
    pub(super) fn read(&mut self, name: &'a str, value: &'a str) -> Result<(), OfferError> {
        match name {
            "mid" => self.mid = self.mid.or(Some(value).filter(|mid| !mid.is_empty())),
            "msid" => {
                let msid = Some(value).filter(|v| v.len() <= LONGEST_MSID);
                self.msid = self.msid.or(msid);
            }
            "lang" => self.language = self.language.or(Some(value.trim())),
            "extmap" => self.extensions.read(value),
            "extmap-allow-mixed" => self.mixed = true,
            "bundle-only" => self.is_bundle_only = true,
            "rtcp-rsize" => self.reduced_rtcp = true,
            "sctp-port" => self.sctp_port = self.sctp_port.or(value.parse().ok()),
            "max-message-size" => self.message_size = self.message_size.or(value.parse().ok()),
            "ssrc" => self.read_source(value)?,
            "ssrc-group" => self.read_group(value),
            "candidate" => {
                self.candidates += 1;
                if self.candidates > CANDIDATES {
                    let why = format!("an m-line has more than {CANDIDATES} candidates");
                    return Err(OfferError::unacceptable(why));
                }
            }
            _ => {
                if let Some(direction) = Direction::parse(name) {
                    self.direction = self.direction.or(Some(direction));
                    return Ok(());
                }
                let _ = self.formats.read(name, value)
                    || self.transport.read(name, value)
                    || self.simulcast.read(name, value);
            }
        }
        if self.mid.is_some_and(|mid| mid.len() > LONGEST_MID) {
            let why = format!("an m-line's name (a=mid) has more than {LONGEST_MID} characters");
            return Err(OfferError::unacceptable(why));
        }
        Ok(())
    }

    /// `SSRC attribute:value`.
    fn read_source(&mut self, value: &'a str) -> Result<(), OfferError> {
        let (ssrc, attribute) = word(value);
        let Ok(ssrc) = ssrc.parse() else {
            return Ok(());
        };
        let cname = attribute.strip_prefix("cname:").map(str::trim);
        let cname = cname.filter(|cname| cname.len() <= LONGEST_CNAME);
        if let Some(known) = self.sources.iter_mut().rfind(|s| s.ssrc == ssrc) {
            known.cname = known.cname.or(cname);
            return Ok(());
        }
        if self.sources.len() == SOURCES {
            let why = format!("an m-line has more than {SOURCES} sources (a=ssrc)");
            return Err(OfferError::unacceptable(why));
        }
        self.sources.push(Source {
            ssrc,
            cname,
            rtx: None,
            is_repair: false,
        });
        Ok(())
    }

    /// `FID 1 2`: the second is the first one's retransmissions. Other groups are of no use here.
    fn read_group(&mut self, value: &str) {
        let mut words = value.split_ascii_whitespace();
        let semantics = words.next().unwrap_or_default();
        let (Some(Ok(first)), Some(Ok(second))) = (
            words.next().map(str::parse::<u32>),
            words.next().map(str::parse::<u32>),
        ) else {
            return;
        };
        for source in &mut self.sources {
            if source.ssrc == first && semantics == "FID" {
                source.rtx = source.rtx.or(Some(second));
            }
            source.is_repair |=
                source.ssrc == second && matches!(semantics, "FID" | "FEC-FR" | "FEC");
        }
    }

    /// All has been read: what is not said here is as it is for the session.
    pub(super) fn finish(&mut self, session: &Session<'a>) {
        self.direction = self.direction.or(session.direction);
        self.transport.inherit(&session.transport);
        self.extensions.inherit(&session.extensions);
        self.mixed |= session.mixed;
        self.language = self.language.or(session.language);
        self.formats.finish();
    }

    /// Without a word both sides send.
    pub(super) fn direction(&self) -> Direction {
        self.direction.unwrap_or_default()
    }

    /// What it carries, if that is something that we know over something that we speak: SRTP with keys from DTLS, however
    /// that is written (RFC 9429, section 5.1.2).
    pub(super) fn kind(&self) -> Option<TrackKind> {
        let profile = ["UDP/TLS/", "TCP/TLS/", "TCP/DTLS/", "UDP/DTLS/"]
            .into_iter()
            .find_map(|transport| self.protocol.strip_prefix(transport));
        let profile = profile.unwrap_or(self.protocol);
        if !matches!(profile, "RTP/SAVPF" | "RTP/SAVP" | "RTP/AVPF" | "RTP/AVP") {
            return None;
        }
        match self.name {
            "audio" => Some(TrackKind::Audio),
            "video" => Some(TrackKind::Video),
            _ => None,
        }
    }

    /// Whether it is for data channels (RFC 8841), over the DTLS of the others. Datagrams are the same by TCP.
    pub(super) fn is_data(&self) -> bool {
        let mut words = self.words.split_ascii_whitespace();
        self.name == "application"
            && matches!(self.protocol, "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP")
            && words.next() == Some("webrtc-datachannel")
    }

    /// Whether the offer itself has given it up.
    pub(super) fn is_rejected(&self) -> bool {
        self.port == 0 && !self.is_bundle_only
    }

    /// Whether there is a codec in it that we forward.
    pub(super) fn has_known_codec(&self) -> bool {
        let kind = self.kind();
        let mut formats = self.formats.iter();
        formats.any(|f| matches!(f.encoding, Encoding::Known(c) if Some(c.kind()) == kind))
    }

    /// Packets can be told from those of other m-lines by more than their payload type.
    pub(super) fn is_identified(&self) -> bool {
        self.mid.is_some() && self.extensions.id(Extension::Mid).is_some()
            || !self.sources.is_empty()
    }
}

/// What stands before the first m-line.
#[derive(Debug, Clone, Default)]
pub(super) struct Session<'a> {
    pub(super) transport: Transport<'a>,
    direction: Option<Direction>,
    extensions: Extensions,
    language: Option<&'a str>,
    pub(super) mixed: bool,
    pub(super) is_lite: bool,
    candidates: usize,
}

impl<'a> Session<'a> {
    /// Takes an attribute in.
    pub(super) fn read(&mut self, name: &'a str, value: &'a str) -> Result<(), OfferError> {
        match name {
            "lang" => self.language = self.language.or(Some(value.trim())),
            "extmap" => self.extensions.read(value),
            "extmap-allow-mixed" => self.mixed = true,
            "ice-lite" => self.is_lite = true,
            "candidate" => {
                self.candidates += 1;
                if self.candidates > CANDIDATES {
                    let why = format!("it has more than {CANDIDATES} candidates");
                    return Err(OfferError::unacceptable(why));
                }
            }
            _ => {
                if let Some(direction) = Direction::parse(name) {
                    self.direction = self.direction.or(Some(direction));
                } else {
                    self.transport.read(name, value);
                }
            }
        }
        Ok(())
    }
}
