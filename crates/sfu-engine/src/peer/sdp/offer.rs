// SPDX-License-Identifier: MPL-2.0

//! An offer as it was read (RFC 8866): the session's part and the m-lines, by reference to the text.

use std::collections::HashSet;

use super::CANDIDATES;
use super::error::{OfferError, shown};
use super::lines::{Line, lines};
use super::media::{Media, Session};

/// BUNDLE groups that are looked at.
const GROUPS: usize = 8;

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(super) struct Offer<'a> {
    /// The names of the m-lines that share a transport, for each group (RFC 9143).
    pub(super) groups: Vec<Vec<&'a str>>,
    pub(super) medias: Vec<Media<'a>>,
    /// The peer leaves the checks to us (RFC 8445, section 2.5).
    pub(super) is_lite: bool,
    /// Where it is then to be checked.
    pub(super) candidates: Vec<&'a str>,
    pub(super) mixed: bool,
}

impl<'a> Offer<'a> {
    /// Reads an offer of no more than so many m-lines: each line once.
    pub(super) fn read(sdp: &'a str, most: usize) -> Result<Self, OfferError> {
        let mut session = Session::default();
        let mut offer = Self::default();
        for line in lines(sdp) {
            if line.letter == b'm' {
                if offer.medias.len() == most {
                    let why = format!("it has more than {most} m-lines");
                    return Err(OfferError::unacceptable(why));
                }
                offer.medias.push(Media::new(line.value)?);
            } else if let Some((name, value)) = Line::attribute(line) {
                if name == "candidate" && offer.candidates.len() < CANDIDATES {
                    offer.candidates.push(value);
                }
                match offer.medias.last_mut() {
                    Some(media) => media.read(name, value)?,
                    None if name == "group" => offer.read_group(value, most),
                    None => session.read(name, value)?,
                }
            }
        }
        if offer.medias.is_empty() {
            return Err(OfferError::invalid("it has no m-line: send an SDP offer"));
        }
        for media in &mut offer.medias {
            media.finish(&session);
        }
        offer.is_lite = session.is_lite;
        offer.mixed = session.mixed;
        offer.check_names()?;
        Ok(offer)
    }

    /// `BUNDLE 0 1`. Other semantics (`LS`) change nothing here. Names far beyond those that there may be are of no use.
    fn read_group(&mut self, value: &'a str, most: usize) {
        let mut words = value.split_ascii_whitespace();
        if words.next() == Some("BUNDLE") && self.groups.len() < GROUPS {
            self.groups.push(words.take(4 * most).collect());
        }
    }

    /// Each m-line has a name of its own.
    fn check_names(&self) -> Result<(), OfferError> {
        let mut seen = HashSet::new();
        let mut named = self.medias.iter().filter_map(|m| m.mid);
        match named.find(|mid| !seen.insert(*mid)) {
            Some(twice) => {
                let why = format!("two of its m-lines have the name (a=mid) {}", shown(twice));
                Err(OfferError::invalid(why))
            }
            None => Ok(()),
        }
    }

    /// The group that an m-line is in.
    pub(super) fn group_of(&self, media: &Media<'_>) -> Option<&[&'a str]> {
        let mid = media.mid?;
        let group = self.groups.iter().find(|group| group.contains(&mid))?;
        Some(group)
    }
}
