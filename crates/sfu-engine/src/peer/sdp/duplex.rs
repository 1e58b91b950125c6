// SPDX-License-Identifier: MPL-2.0

//! Offers of a peer that publishes and is sent tracks over one connection, and our answers (RFC 9429, section 5.3): it always
//! offers. On m-lines on which it sends it is received; tracks are put on those on which it only receives.
//!
//! A track stays on its m-line; one whose track has gone is inactive until another one of its kind uses it, which is not before the
//! next answer: a peer tells its page of a track where an m-line begins to send, and of none that takes another one's place (RFC
//! 9429, section 5.10). An m-line that never had any is answered without a name, as LiveKit's server does. What finds no m-line waits
//! for an offer that has more of them.

use std::net::SocketAddr;

use super::SLOTS;
use super::again::{Before, Restart};
use super::answer::{Sent, Stream};
use super::choice::{Accepted, Plan, Purpose};
use super::error::{OfferError, shown};
use super::ice::{random, random_text};
use super::media::Direction;
use super::offer::Offer;
use super::publisher;
use super::session::{self, Origin};
use super::viewer::{self, NAME};
use crate::codec::{Codec, TrackKind};
use crate::peer::uplink::agreed::AgreedTracks;
use crate::transport::Slot;
use crate::transport::lean::agreed::{Agreed, AgreedSlots, Format, pictures};

/// The longest name of a stream and track that is told.
const MSID: usize = 256;

/// A track that the peer is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// What it is.
    pub kind: TrackKind,
    /// The names of a stream and a track by which the peer knows it (`a=msid`): no two tracks have the same.
    pub msid: String,
}

/// Where a track is carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedOn {
    /// The m-line's name.
    pub mid: String,
    /// The place by which the shard knows it ([`ShardCommand::Watch`](crate::queue::ShardCommand::Watch)).
    pub place: usize,
}

/// What has been agreed on so far.
#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    before: Before,
    purpose: Purpose,
    /// That of all our sources (CNAME).
    name: String,
    /// Of each m-line of the last offer.
    lines: Vec<Line>,
    /// Those that ever carried something.
    slots: u16,
    formats: Vec<Format>,
    asks_for_keyframes: bool,
}

/// An m-line, as something that tracks are put on.
#[derive(Debug, Clone, Default)]
struct Line {
    kind: Option<TrackKind>,
    /// What it carries.
    msid: Option<String>,
    ssrc: u32,
    rtx: Option<u32>,
    /// It has lost its track in this answer: no other one takes it in the same.
    rests: bool,
    /// Among those that have carried something.
    slot: Option<Slot>,
}

/// What comes of an offer.
#[derive(Debug, Clone)]
pub(crate) struct Conversed {
    pub(crate) answer: String,
    /// What the peer sends.
    pub(crate) tracks: AgreedTracks,
    /// What it may be sent.
    pub(crate) slots: AgreedSlots,
    pub(crate) restart: Option<Restart>,
    /// For each track that it is to be sent its m-line. `None`: there is none for it.
    pub(crate) carried: Vec<Option<CarriedOn>>,
    /// M-lines for sounds, and for pictures, on which more could be put.
    pub(crate) free: [usize; 2],
}

impl Conversation {
    /// Answers the first offer. `fingerprint` is our certificate's.
    pub(crate) fn begin(
        sdp: &str,
        (delay, data): (bool, bool),
        wanted: &[Carried],
        fingerprint: &str,
        addresses: &[SocketAddr],
    ) -> Result<(Agreed, Self, Conversed), OfferError> {
        let purpose = Purpose::Both { delay, data };
        let offer = Offer::read(sdp, SLOTS)?;
        let mut plan = Plan::new(&offer, purpose)?;
        publisher::check(&plan)?;
        let mut connection = session::agree(&offer, &plan, addresses)?;
        connection.by_slot = true;
        let mut conversation = Self {
            before: Before::new(&offer, &plan, connection.clone(), Origin::new()?),
            purpose,
            name: random_text::<NAME>()?.replace(['+', '/'], "x"),
            lines: Vec::new(),
            slots: 0,
            formats: Vec::new(),
            asks_for_keyframes: false,
        };
        let conversed = conversation.conclude(&offer, &mut plan, (wanted, false), fingerprint)?;
        let agreed = Agreed {
            formats: conversed.slots.formats.clone(),
            asks_for_keyframes: conversed.slots.asks_for_keyframes,
            ..connection
        };
        Ok((agreed, conversation, conversed))
    }

    /// Answers another offer. Where it is refused, this is of no use any more.
    pub(crate) fn again(
        &mut self,
        sdp: &str,
        wanted: &[Carried],
        fingerprint: &str,
    ) -> Result<Conversed, OfferError> {
        let offer = Offer::read(sdp, SLOTS)?;
        let mut plan = Plan::again(&offer, self.purpose)?;
        publisher::check(&plan)?;
        let restart = self.before.next(&offer, &plan)?;
        let all = (wanted, restart.is_some());
        Ok(Conversed {
            restart,
            ..self.conclude(&offer, &mut plan, all, fingerprint)?
        })
    }

    fn conclude(
        &mut self,
        offer: &Offer<'_>,
        plan: &mut Plan<'_, '_>,
        (wanted, restarts): (&[Carried], bool),
        fingerprint: &str,
    ) -> Result<Conversed, OfferError> {
        self.lines.resize(plan.lines.len(), Line::default());
        self.assign(plan, wanted, restarts)?;
        let free = [TrackKind::Audio, TrackKind::Video].map(|kind| self.free(plan, kind));
        self.rest(plan);
        self.agree(plan);
        let sent = self.lines.iter().map(|line| {
            let msid = line.msid.as_deref()?;
            Some(Sent {
                ssrc: line.ssrc,
                rtx: line.rtx,
                msid: Some(msid),
            })
        });
        let sent: Vec<_> = sent.collect();
        let stream = Stream {
            name: &self.name,
            sent: &sent,
        };
        let answer = session::write(offer, plan, self.before.ours(), fingerprint, stream);
        let tracks = publisher::tracks(offer, plan);
        let carried = wanted.iter().map(|track| {
            let is_it = |line: &Line| line.msid.as_ref() == Some(&track.msid);
            let at = self.lines.iter().position(is_it)?;
            Some(CarriedOn {
                mid: offer.medias.get(at)?.mid.unwrap_or_default().to_owned(),
                place: self.lines.get(at)?.slot?.0.into(),
            })
        });
        Ok(Conversed {
            answer,
            slots: AgreedSlots {
                formats: self.formats.clone(),
                asks_for_keyframes: self.asks_for_keyframes,
                data: tracks.data,
            },
            tracks,
            restart: None,
            carried: carried.collect(),
            free,
        })
    }

    /// Puts tracks on m-lines: each where it was, and others where there is none.
    fn assign(
        &mut self,
        plan: &Plan<'_, '_>,
        wanted: &[Carried],
        restarts: bool,
    ) -> Result<(), OfferError> {
        for track in wanted {
            check_name(&track.msid)?;
        }
        for (line, taken) in self.lines.iter_mut().zip(&plan.lines) {
            let kind = taken.as_ref().map(|taken| taken.kind);
            if kind.is_some() && line.kind != kind {
                // It is new, or was given up and is another one now.
                *line = Line {
                    kind,
                    ..Line::default()
                };
            }
            let fits = |track: &&Carried| is_for(taken.as_ref(), track.kind);
            let mut fitting = wanted.iter().filter(fits);
            let lost = line
                .msid
                .take_if(|msid| !fitting.any(|track| track.msid == *msid));
            // Whether the answer of before was read is not known where the way is found anew.
            line.rests = lost.is_some() || (restarts && line.rests);
        }
        for track in wanted {
            let is_it = |line: &Line| line.msid.as_ref() == Some(&track.msid);
            if self.lines.iter().any(is_it) {
                continue;
            }
            let mut lines = self.lines.iter().zip(&plan.lines);
            let is_free = |(line, taken): (&Line, &Option<_>)| {
                !line.rests && self.can_take(line) && is_for(taken.as_ref(), track.kind)
            };
            let Some(at) = lines.position(is_free) else {
                continue;
            };
            // Others than before: Chromium shows nothing of an SSRC that was gone.
            let ssrc = self.new_ssrc()?;
            let line = &mut self.lines[at];
            (line.ssrc, line.rtx) = (ssrc, None);
            line.msid = Some(track.msid.clone());
            if track.kind == TrackKind::Video {
                self.lines[at].rtx = Some(self.new_ssrc()?);
            }
            if self.lines[at].slot.is_none() {
                self.lines[at].slot = Some(Slot(self.slots));
                self.slots += 1;
            }
        }
        Ok(())
    }

    /// The codecs of pictures that the peer takes, on some m-line or on this one.
    pub(crate) fn pictures(&self, slot: Option<Slot>) -> Vec<Codec> {
        pictures(&self.formats, slot)
    }

    /// Whether an m-line carries nothing, and there is a place for what it is to carry.
    fn can_take(&self, line: &Line) -> bool {
        line.msid.is_none() && (line.slot.is_some() || usize::from(self.slots) < SLOTS)
    }

    /// M-lines that the next offer's tracks can be put on.
    fn free(&self, plan: &Plan<'_, '_>, kind: TrackKind) -> usize {
        let both = self.lines.iter().zip(&plan.lines);
        let free = both.filter(|(line, taken)| self.can_take(line) && is_for(taken.as_ref(), kind));
        free.count()
    }

    /// M-lines that carry nothing any more are inactive.
    fn rest(&self, plan: &mut Plan<'_, '_>) {
        for (line, taken) in self.lines.iter().zip(&mut plan.lines) {
            if let Some(taken) = taken.as_mut().filter(|t| t.direction.sends())
                && line.msid.is_none()
                && line.slot.is_some()
            {
                taken.direction = Direction::Inactive;
            }
        }
    }

    /// What may be sent on the m-lines that carry something.
    fn agree(&mut self, plan: &Plan<'_, '_>) {
        for (line, taken) in self.lines.iter().zip(&plan.lines) {
            let (Some(_), Some(slot), Some(taken)) = (&line.msid, line.slot, taken) else {
                continue;
            };
            let sent = Sent {
                ssrc: line.ssrc,
                rtx: line.rtx,
                msid: None,
            };
            let formats = viewer::formats(slot, taken, sent, &self.name);
            self.formats.retain(|known| known.slot != slot);
            self.formats.extend(formats);
        }
        self.formats.sort_by_key(|format| format.slot);
        self.asks_for_keyframes |= viewer::asks_for_keyframes(plan);
    }

    fn new_ssrc(&self) -> Result<u32, OfferError> {
        loop {
            let ssrc = u32::from_be_bytes(random()?);
            let mut known = self.lines.iter().flat_map(|l| [Some(l.ssrc), l.rtx]);
            if ssrc != 0 && !known.any(|k| k == Some(ssrc)) {
                return Ok(ssrc);
            }
        }
    }
}

/// Whether a track of this kind can be put on an m-line.
fn is_for(taken: Option<&Accepted<'_, '_>>, kind: TrackKind) -> bool {
    taken
        .is_some_and(|line| line.kind == kind && line.direction.sends() && !line.formats.is_empty())
}

/// Two names without blanks.
pub(super) fn check_name(msid: &str) -> Result<(), OfferError> {
    let is_name = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_graphic());
    let is_told = msid.len() <= MSID && msid.split(' ').all(is_name);
    match is_told && msid.split(' ').count() == 2 {
        true => Ok(()),
        false => {
            let why = format!("{} is no a=msid: two names", shown(msid));
            Err(OfferError::invalid(why))
        }
    }
}
