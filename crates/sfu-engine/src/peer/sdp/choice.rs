// SPDX-License-Identifier: MPL-2.0

//! Which m-lines and formats of an offer are taken, and over which transport (RFC 3264, section 6; RFC 9143).
//!
//! One transport a session: m-lines share it by BUNDLE, or by having the same credentials.

use super::super::uplink::agreed::Feedback;
use super::error::{OfferError, shown};
use super::extension::{Extension, Extensions, ONE_OCTET};
use super::format::{Encoding, Format};
use super::ice::Transport;
use super::media::{Direction, Media};
use super::offer::Offer;
use super::simulcast::Layer;
use crate::codec::{Codec, TrackKind};

/// What the peer is here for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It receives (WHEP).
    Watch {
        /// It may be told how long to keep pictures back.
        delay: bool,
        /// All m-lines that receive carry something, not the first of its kind alone.
        all: bool,
        /// Data channels are taken.
        data: bool,
    },
    /// It sends (WHIP).
    Publish {
        /// Any number of tracks, not one of each kind.
        all: bool,
        /// Data channels are taken.
        data: bool,
    },
    /// It sends any tracks, and on other m-lines receives.
    Both {
        /// It may be told how long to keep pictures back.
        delay: bool,
        /// Data channels are taken.
        data: bool,
    },
}

/// A codec of an m-line under one payload type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen<'o, 'a> {
    pub(super) codec: Codec,
    pub(super) format: &'o Format<'a>,
    pub(super) rtx: Option<&'o Format<'a>>,
    pub(super) red: Option<&'o Format<'a>>,
    /// What both sides know of.
    pub(super) feedback: Feedback,
}

/// An m-line that is taken.
#[derive(Debug, Clone)]
pub(super) struct Accepted<'o, 'a> {
    pub(super) media: &'o Media<'a>,
    pub(super) kind: TrackKind,
    /// As the answer has it.
    pub(super) direction: Direction,
    /// In the offer's order.
    pub(super) formats: Vec<Chosen<'o, 'a>>,
    pub(super) extensions: Extensions,
    pub(super) layers: Vec<Layer<'a>>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Plan<'o, 'a> {
    /// For each m-line of the offer; `None` carries no media, and is rejected unless it is that of `data`.
    pub(super) lines: Vec<Option<Accepted<'o, 'a>>>,
    /// The m-line of data channels, by its place.
    pub(super) data: Option<usize>,
    /// The names in the answer's BUNDLE group, if the offer has that.
    pub(super) group: Option<Vec<&'a str>>,
    /// That of the m-line that stands for all.
    pub(super) transport: &'o Transport<'a>,
    pub(super) mixed: bool,
}

impl Purpose {
    fn is_wanted(self, direction: Direction) -> bool {
        match self {
            Self::Watch { .. } => direction.receives(),
            Self::Publish { .. } => direction.sends(),
            Self::Both { .. } => direction != Direction::Inactive,
        }
    }

    fn publishes(self) -> bool {
        matches!(self, Self::Publish { .. } | Self::Both { .. })
    }

    fn takes_all(self) -> bool {
        match self {
            Self::Watch { all, .. } | Self::Publish { all, .. } => all,
            Self::Both { .. } => true,
        }
    }

    fn takes_data(self) -> bool {
        let (Self::Watch { data, .. } | Self::Publish { data, .. } | Self::Both { data, .. }) =
            self;
        data
    }

    /// What one m-line is for: where the peer sends, that is received, and nothing is sent on it. One on which nothing goes for now
    /// keeps the extensions of both: some peers offer again only what was answered last.
    fn on(self, media: &Media<'_>) -> Self {
        match self {
            Self::Both { .. } if media.direction() == Direction::Inactive => self,
            Self::Both { data, .. } if media.direction().sends() => {
                Self::Publish { all: true, data }
            }
            Self::Both { delay, data } => Self::Watch {
                delay,
                all: true,
                data,
            },
            one => one,
        }
    }

    /// The m-line carries media, as far as the offer says.
    fn uses(self, media: &Media<'_>) -> bool {
        !media.is_rejected() && self.is_wanted(media.direction())
    }

    /// Those of an m-line that is for `one`. Chromium offers on new m-lines what was answered on others of their kind, and so
    /// could send no layers where it has only received so far.
    fn extensions_on(self, one: Self) -> &'static [Extension] {
        match (self, one) {
            (Self::Both { .. }, Self::Watch { .. }) => self.extensions(),
            _ => one.extensions(),
        }
    }

    fn extensions(self) -> &'static [Extension] {
        match self {
            Self::Watch { delay: true, .. } => &[
                Extension::Mid,
                Extension::Twcc,
                Extension::CaptureTime,
                Extension::Dependency,
                Extension::PlayoutDelay,
            ],
            Self::Watch { delay: false, .. } => &[
                Extension::Mid,
                Extension::Twcc,
                Extension::CaptureTime,
                Extension::Dependency,
            ],
            Self::Publish { .. } => &[
                Extension::Mid,
                Extension::Rid,
                Extension::RepairedRid,
                Extension::Twcc,
                Extension::AudioLevel,
                Extension::Dependency,
            ],
            Self::Both { delay, .. } => {
                const ALL: [Extension; 8] = [
                    Extension::Mid,
                    Extension::Rid,
                    Extension::RepairedRid,
                    Extension::Twcc,
                    Extension::AudioLevel,
                    Extension::CaptureTime,
                    Extension::Dependency,
                    Extension::PlayoutDelay,
                ];
                if delay { &ALL } else { &ALL[..7] }
            }
        }
    }
}

impl<'o, 'a> Plan<'o, 'a> {
    pub(super) fn new(offer: &'o Offer<'a>, purpose: Purpose) -> Result<Self, OfferError> {
        let carriers = carriers(offer, purpose)?;
        let main = main(&carriers).or_else(|| data(offer, purpose).map(|(_, media)| media));
        let main = main.ok_or_else(|| nothing(offer, purpose))?;
        Self::of(offer, purpose, &carriers, main)
    }

    /// Of a later offer on a connection, in which nothing need be carried.
    pub(super) fn again(offer: &'o Offer<'a>, purpose: Purpose) -> Result<Self, OfferError> {
        let carriers = carriers(offer, purpose)?;
        let mut medias = offer.medias.iter();
        let is_kept = |m: &&Media<'_>| !m.is_rejected() && m.has_known_codec();
        let kept = medias.find(is_kept);
        let kept = kept.or_else(|| data(offer, purpose).map(|(_, media)| media));
        let kept = kept.or(offer.medias.first());
        let main = main(&carriers)
            .or(kept)
            .ok_or_else(|| nothing(offer, purpose))?;
        Self::of(offer, purpose, &carriers, main)
    }

    fn of(
        offer: &'o Offer<'a>,
        purpose: Purpose,
        carriers: &[&'o Media<'a>],
        main: &'o Media<'a>,
    ) -> Result<Self, OfferError> {
        let group = offer.group_of(main);
        let transport = tagged(offer, group).unwrap_or(main);
        let shares = |media: &Media<'a>| {
            let in_group = media
                .mid
                .zip(group)
                .is_some_and(|(mid, g)| g.contains(&mid));
            in_group || std::ptr::eq(media, main) || media.transport.is_same(&transport.transport)
        };
        let mut lines = Vec::with_capacity(offer.medias.len());
        for media in &offer.medias {
            let carries = carriers.iter().any(|c| std::ptr::eq(*c, media));
            if carries && !shares(media) && purpose.publishes() {
                let why = "its m-lines do not share one transport: \
                           offer all in one a=group:BUNDLE (RFC 9725, section 4.4.1)";
                return Err(OfferError::unacceptable(why));
            }
            let takes = !media.is_rejected() && media.has_known_codec() && shares(media);
            let accepted = takes.then(|| Accepted::new(media, carries, purpose));
            lines.push(accepted.transpose()?.flatten());
        }
        let data = data(offer, purpose).filter(|(_, media)| shares(media));
        let names = |group: &[&'a str]| {
            let accepted = lines.iter().flatten().filter_map(|line| line.media.mid);
            let data = data.and_then(|(_, media)| media.mid);
            let accepted: Vec<_> = accepted.chain(data).collect();
            let kept = group.iter().filter(|mid| accepted.contains(mid));
            kept.copied().collect()
        };
        Ok(Self {
            group: group.map(names),
            data: data.map(|(at, _)| at),
            lines,
            transport: &transport.transport,
            mixed: offer.mixed,
        })
    }

    /// Whether an m-line is rejected.
    pub(super) fn rejects(&self, at: usize) -> bool {
        self.data != Some(at) && self.lines.get(at).is_none_or(Option::is_none)
    }

    /// Whether all of them are.
    pub(super) fn rejects_all(&self) -> bool {
        self.data.is_none() && self.lines.iter().all(Option::is_none)
    }

    /// The m-lines that carry media.
    pub(super) fn carriers(&self) -> impl Iterator<Item = &Accepted<'o, 'a>> {
        let accepted = self.lines.iter().flatten();
        accepted.filter(|line| line.direction != Direction::Inactive)
    }

    /// Those on which the peer sends.
    pub(super) fn received(&self) -> impl Iterator<Item = &Accepted<'o, 'a>> {
        let accepted = self.lines.iter().flatten();
        accepted.filter(|line| line.direction.receives())
    }
}

/// The one whose transport counts: a picture without sound is worth more than the other way round.
fn main<'o, 'a>(carriers: &[&'o Media<'a>]) -> Option<&'o Media<'a>> {
    let is_video = |m: &&&Media<'_>| m.kind() == Some(TrackKind::Video);
    let main = carriers.iter().find(is_video).or(carriers.first());
    main.copied()
}

/// The m-line of data channels, of which there is one (RFC 8841, section 10.1), and its place.
fn data<'o, 'a>(offer: &'o Offer<'a>, purpose: Purpose) -> Option<(usize, &'o Media<'a>)> {
    let mut medias = offer.medias.iter().enumerate();
    let found = medias.find(|(_, media)| media.is_data() && !media.is_rejected());
    found.filter(|_| purpose.takes_data())
}

/// The m-lines that are to carry media: the first of its kind that can, or all. The publisher of a stream has no others, but
/// that it may have audio in several languages.
fn carriers<'o, 'a>(
    offer: &'o Offer<'a>,
    purpose: Purpose,
) -> Result<Vec<&'o Media<'a>>, OfferError> {
    let mut carriers: Vec<&'o Media<'a>> = Vec::new();
    for media in offer.medias.iter().filter(|m| purpose.uses(m)) {
        let is_media = matches!(media.name, "audio" | "video");
        if matches!(purpose, Purpose::Publish { all: false, .. }) && is_media {
            check_published(media, &carriers)?;
        }
        let is_first = carriers.iter().all(|c| c.kind() != media.kind());
        let may_be_more =
            purpose.takes_all() || (purpose.publishes() && media.kind() == Some(TrackKind::Audio));
        if media.has_known_codec() && (is_first || may_be_more) {
            carriers.push(media);
        }
    }
    Ok(carriers)
}

/// The publisher of a stream is taken whole or refused (RFC 9725, sections 4.4.2 and 4.4.3).
fn check_published(media: &Media<'_>, before: &[&Media<'_>]) -> Result<(), OfferError> {
    let name = media.name;
    let Some(kind) = media.kind() else {
        let why = format!(
            "its {name} is offered over {}: offer UDP/TLS/RTP/SAVPF",
            shown(media.protocol)
        );
        return Err(OfferError::unacceptable(why));
    };
    if !media.has_known_codec() {
        return Err(OfferError::NoCommonCodec(format!(
            "no common codec: the offer's {name} is {}; video can be H264 (baseline, main or high), VP8, VP9, AV1 or \
             H265, audio Opus",
            offered_codecs(media)
        )));
    }
    if kind == TrackKind::Video && before.iter().any(|m| m.kind() == Some(kind)) {
        let why =
            "it sends two tracks of video: a stream has one; publish the other under another name";
        return Err(OfferError::unacceptable(why));
    }
    Ok(())
}

/// Why there is nothing to carry media.
fn nothing(offer: &Offer<'_>, purpose: Purpose) -> OfferError {
    let is_offered = |m: &&Media<'_>| purpose.uses(m) && matches!(m.name, "audio" | "video");
    let offered: Vec<_> = offer.medias.iter().filter(is_offered).collect();
    if offered.is_empty() {
        return OfferError::invalid(match purpose {
            Purpose::Watch { .. } => "it has no audio or video m-line that receives (a=recvonly)",
            Purpose::Publish { .. } => "it has no audio or video m-line that sends (a=sendonly)",
            Purpose::Both { .. } => "it has no audio or video m-line that sends or receives",
        });
    }
    let all = offered
        .iter()
        .map(|m| format!("{} {}", m.name, offered_codecs(m)));
    let all: Vec<_> = all.collect();
    OfferError::NoCommonCodec(format!(
        "no common codec: the offer has {}",
        all.join(" and ")
    ))
}

/// The m-line whose transport is that of its whole group: the first in the group's order that has one and is not given up
/// (RFC 9143, section 7.3.2).
fn tagged<'o, 'a>(offer: &'o Offer<'a>, group: Option<&[&'a str]>) -> Option<&'o Media<'a>> {
    group?.iter().find_map(|mid| {
        let media = offer.medias.iter().find(|m| m.mid == Some(mid))?;
        let usable = !media.is_rejected() && media.transport.fragment.is_some();
        usable.then_some(media)
    })
}

impl<'o, 'a> Accepted<'o, 'a> {
    fn new(
        media: &'o Media<'a>,
        carries: bool,
        connection: Purpose,
    ) -> Result<Option<Self>, OfferError> {
        let Some(kind) = media.kind() else {
            return Ok(None);
        };
        let purpose = connection.on(media);
        let direction = match (carries, purpose) {
            (false, _) => Direction::Inactive,
            (true, Purpose::Watch { .. }) => Direction::SendOnly,
            (true, Purpose::Publish { .. } | Purpose::Both { .. }) => Direction::RecvOnly,
        };
        // What is sent has short headers but for that one. What comes may have long ones alone (RFC 8285, section 4.2).
        let highest = |extension| match purpose {
            Purpose::Publish { .. } | Purpose::Both { .. } => u8::MAX,
            Purpose::Watch { .. } if extension == Extension::Dependency => u8::MAX,
            _ => ONE_OCTET,
        };
        let mut extensions = media
            .extensions
            .only(connection.extensions_on(purpose), highest);
        extensions.retain(|mapped| mapped.direction.is_none_or(|d| purpose.is_wanted(d)));
        let formats = chosen(media, kind, extensions.id(Extension::Twcc).is_some());
        let is_av1 = |chosen: &Chosen<'_, '_>| chosen.codec == Codec::Av1;
        let is_described = match purpose {
            // Of AV1 there is nothing else; with it Chromium leaves temporal layers out of VP8's own descriptor.
            Purpose::Publish { .. } => formats.first().is_some_and(is_av1),
            Purpose::Both { .. } => formats.iter().any(is_av1), // AV1 may come at any time, and keyframes have a long one.
            Purpose::Watch { .. } => media.mixed && formats.iter().any(is_av1),
        };
        if !is_described {
            extensions.remove(Extension::Dependency);
        }
        let mut layers = match purpose {
            Purpose::Publish { .. } if carries && kind == TrackKind::Video => {
                media.simulcast.layers()?
            }
            _ => Vec::new(),
        };
        if purpose.takes_all() {
            // A room tells its clients otherwise which layers are wanted, maybe after this offer was made.
            layers.iter_mut().for_each(|layer| layer.is_paused = false);
        }
        Ok(Some(Self {
            media,
            kind,
            direction,
            formats,
            extensions,
            layers,
        }))
    }

    /// Whether a payload type stands in the answer.
    pub(super) fn has(&self, pt: u8) -> bool {
        let mut all = self.formats.iter().flat_map(Chosen::payload_types);
        all.any(|taken| taken == pt)
    }
}

impl Chosen<'_, '_> {
    /// Its own, and those that repeat it.
    pub(super) fn payload_types(&self) -> impl Iterator<Item = u8> {
        let all = [Some(self.format), self.red, self.rtx];
        all.into_iter().flatten().map(|f| f.pt)
    }
}

/// All codecs of an m-line that we know.
fn chosen<'o, 'a>(media: &'o Media<'a>, kind: TrackKind, twcc: bool) -> Vec<Chosen<'o, 'a>> {
    let ours = Feedback {
        nack: kind == TrackKind::Video,
        pli: kind == TrackKind::Video,
        fir: kind == TrackKind::Video,
        twcc,
        remb: kind == TrackKind::Video,
    };
    let all = media.formats.iter().filter_map(|format| {
        let Encoding::Known(codec) = format.encoding else {
            return None;
        };
        let repeating = |encoding| media.formats.repeating(format.pt, encoding);
        Some(Chosen {
            codec,
            format,
            rtx: repeating(Encoding::Rtx).filter(|_| kind == TrackKind::Video),
            red: repeating(Encoding::Red).filter(|_| kind == TrackKind::Audio),
            feedback: format.feedback.and(ours),
        })
    });
    all.filter(|chosen| chosen.codec.kind() == kind).collect()
}

/// The encodings of an m-line, for a sentence.
pub(super) fn offered_codecs(media: &Media<'_>) -> String {
    const MOST: usize = 16;
    /// Octets of all of them, but for the last.
    const LONGEST: usize = 160;
    let mut names: Vec<String> = Vec::new();
    for name in media.formats.iter().filter_map(Format::named) {
        let octets: usize = names.iter().map(String::len).sum();
        if !names.contains(&name) && names.len() < MOST && octets < LONGEST {
            names.push(name);
        }
    }
    match names.is_empty() {
        true => "none".into(),
        false => names.join(", "),
    }
}
