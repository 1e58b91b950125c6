// SPDX-License-Identifier: MPL-2.0

//! What a publisher's offer and our answer agree on, as far as a receiver needs it (RFC 8829, RFC 3264).
//!
//! The seam between [`sdp`](crate::peer::sdp), which fills it, and the receive path: [`Agreed`] is all that the
//! [`uplink`](super) knows of an offer.

use crate::codec::{Codec, TrackKind, sets};
use crate::ids::{Language, NameError, Rid};
use crate::peer::data::AgreedData;
use crate::transport::TrackIn;
use crate::transport::lean;
use crate::transport::negotiate::{OfferError, PublisherTrack};

/// See the module's description.
#[derive(Debug, Clone)]
pub(crate) struct Agreed {
    /// How the peers find and know each other: candidates, ICE credentials, fingerprint, DTLS role. It has no formats.
    pub(crate) connection: lean::Agreed,
    pub(crate) tracks: AgreedTracks,
}

/// What the peer sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgreedTracks {
    /// The m-lines that are received, in the offer's order.
    pub(crate) medias: Vec<Media>,
    /// Data channels, both ways, where there are to be some.
    pub(crate) data: Option<AgreedData>,
}

/// An m-line that is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    /// Its place among all m-lines.
    pub(crate) track: TrackIn,
    /// Its name, of any length.
    pub(crate) mid: String,
    /// What the peer calls it: its stream's name, and its own.
    pub(crate) msid: Option<String>,
    /// What is spoken, where the offer says it.
    pub(crate) language: Option<Language>,
    pub(crate) kind: TrackKind,
    /// In the order of the answer.
    pub(crate) formats: Vec<Format>,
    /// What the offer says of SSRCs (RFC 5576). May be empty, and wrong.
    pub(crate) sources: Vec<Source>,
    /// Simulcast layers that were agreed on (RFC 8851, RFC 8853), as the offer lists them. Empty where there are none.
    pub(crate) rids: Vec<String>,
    /// Parameter sets that the offer tells, by payload type: encoders that tell them may send none with their pictures.
    pub(crate) sets: Vec<(u8, sets::Told)>,
    pub(crate) extensions: Extensions,
}

/// A codec that may come, and under which payload types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codec: Codec,
    pub(crate) pt: u8,
    /// Its retransmissions (RFC 4588).
    pub(crate) rtx: Option<u8>,
    /// The same with redundancy (RED, RFC 2198).
    pub(crate) red: Option<u8>,
    pub(crate) feedback: Feedback,
}

/// The feedback that both sides named for a format (RFC 4585, section 4.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Feedback {
    pub(crate) nack: bool,
    pub(crate) pli: bool,
    pub(crate) fir: bool,
    /// `transport-cc`.
    pub(crate) twcc: bool,
    /// `goog-remb`.
    pub(crate) remb: bool,
}

/// A stream that the offer names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) ssrc: u32,
    /// Its retransmissions' (`a=ssrc-group:FID`).
    pub(crate) rtx: Option<u32>,
    pub(crate) cname: Option<String>,
}

/// The header extensions of an m-line, by their number: 1 to 14, or to 255 with headers of two octets (RFC 8285).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Extensions {
    /// The m-line's name (RFC 9143).
    pub(crate) mid: Option<u8>,
    /// The layer's name (RFC 8852), and that of the layer that is repaired.
    pub(crate) rid: Option<u8>,
    pub(crate) repaired_rid: Option<u8>,
    /// The transport-wide number by which arrivals are reported.
    pub(crate) twcc: Option<u8>,
    pub(crate) abs_send_time: Option<u8>,
    /// How loud it is (RFC 6464).
    pub(crate) audio_level: Option<u8>,
    /// What of its layers a frame is needed by (the dependency descriptor).
    pub(crate) dependency: Option<u8>,
}

impl AgreedTracks {
    /// What is going to come.
    pub(crate) fn publisher(&self) -> Result<Vec<PublisherTrack>, OfferError> {
        let tracks = self.medias.iter().filter_map(|media| {
            let codec = media.formats.first()?.codec;
            Some(media.layers().map(|rids| PublisherTrack {
                track: media.track,
                mid: media.mid.clone(),
                msid: media.msid.clone(),
                language: media.language.clone(),
                codec,
                rids,
            }))
        });
        let tracks: Result<_, NameError> = tracks.collect();
        tracks.map_err(|e| OfferError::Invalid(e.to_string()))
    }

    /// Whether arrivals are reported (TWCC).
    pub(crate) fn reports_arrivals(&self) -> bool {
        let is_told =
            |m: &Media| m.extensions.twcc.is_some() && m.formats.iter().any(|f| f.feedback.twcc);
        self.medias.iter().any(is_told)
    }
}

impl Media {
    /// The names of its layers; one without a name where there is no simulcast.
    fn layers(&self) -> Result<Vec<Option<Rid>>, NameError> {
        match self.rids.is_empty() {
            true => Ok(vec![None]),
            false => self.rids.iter().map(|rid| rid.parse().map(Some)).collect(),
        }
    }

    /// What is remembered of one that the peer does not send on any more.
    pub(super) fn stopped(&self) -> Self {
        Self {
            formats: Vec::new(),
            sources: Vec::new(),
            ..self.clone()
        }
    }

    /// What the offer tells of what comes under a payload type.
    pub(super) fn sets_of(&self, pt: u8) -> Option<sets::Told> {
        let told = self.sets.iter().find(|(of, _)| *of == pt);
        told.map(|(_, sets)| sets.clone())
    }

    pub(super) fn is_received(&self) -> bool {
        !self.formats.is_empty()
    }

    /// After another offer it is what it was before: what is known of its SSRCs holds.
    pub(super) fn continues(&self, before: &Self) -> bool {
        let of = |media: &Self| (media.track, media.kind);
        of(self) == of(before) && self.mid == before.mid && self.rids == before.rids
    }
}

impl Feedback {
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            nack: self.nack && other.nack,
            pli: self.pli && other.pli,
            fir: self.fir && other.fir,
            twcc: self.twcc && other.twcc,
            remb: self.remb && other.remb,
        }
    }
}
