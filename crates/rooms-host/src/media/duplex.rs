// SPDX-License-Identifier: MPL-2.0

//! Who has one connection for what it publishes and what it gets (v1): part of [`Media`].

use std::sync::Arc;

use sfu_engine::stream::Stream;
use sfu_engine::transport::negotiate::Carried;
use sfu_engine::{Codec, DuplexPeer, Engine, InvitedPeer, Peer, Preference, SessionError, Shown};
use sfu_rooms::{Expected, Negotiated, Section, Sid};

use super::published::shown;
use super::{Line, Media, Party};
use crate::channels::Channels;
use crate::preferred::prefer;
use crate::publications::kind;

/// By which connection a participant is sent something.
#[derive(Clone, Copy)]
pub(super) enum Way<'a> {
    /// The one that we offer.
    Invited(&'a InvitedPeer),
    /// The only one.
    Duplex(&'a DuplexPeer),
    /// None so far.
    None,
}

impl<'a> Way<'a> {
    pub(super) fn of(invited: Option<&'a InvitedPeer>, duplex: Option<&'a DuplexPeer>) -> Self {
        match (duplex, invited) {
            (Some(peer), _) => Self::Duplex(peer),
            (None, Some(peer)) => Self::Invited(peer),
            (None, None) => Self::None,
        }
    }

    /// An m-line carries this from now on, or nothing.
    pub(super) fn carry(
        self,
        engine: &Engine,
        line: usize,
        stream: Option<&Arc<Stream>>,
        preference: &Preference,
    ) -> Result<Option<Shown>, SessionError> {
        match self {
            Self::Invited(peer) => engine.carry(peer, line, stream, preference),
            Self::Duplex(peer) => engine.carry_on(peer, line, stream, preference),
            Self::None => Ok(None),
        }
    }

    /// The codecs of pictures that the participant takes on an m-line.
    pub(super) fn pictures(self, line: usize) -> Vec<Codec> {
        match self {
            Self::Invited(peer) => peer.pictures(Some(line)),
            Self::Duplex(peer) => peer.pictures(Some(line)),
            Self::None => Vec::new(),
        }
    }

    /// What the participant wants of what an m-line carries has changed.
    pub(super) fn prefer(
        self,
        engine: &Engine,
        line: usize,
        preference: Preference,
    ) -> Result<(), SessionError> {
        match self {
            Self::Invited(peer) => engine.prefer(peer, line, preference),
            Self::Duplex(peer) => engine.prefer_on(peer, line, preference),
            Self::None => Ok(()),
        }
    }
}

impl Media {
    /// Answers an offer on a participant's only connection: what it publishes, and what it gets.
    pub(super) fn converse(
        &mut self,
        sid: &Sid,
        offer: &str,
        expected: &[Expected],
        wanted: &[Section],
    ) -> Option<Negotiated> {
        self.give_up(sid, wanted);
        let offer = &prefer(offer, expected);
        let party = self.parties.get_mut(sid)?;
        let wanted = wanted
            .iter()
            .filter_map(|s| Some((s.kind, s.track.as_ref()?)));
        let wanted: Vec<_> = wanted.collect();
        let carried = wanted.iter().map(|(of, (track, publisher))| Carried {
            kind: kind(*of),
            msid: format!("{publisher}|{track} {track}"),
        });
        let carried: Vec<_> = carried.collect();
        let before = party.publications.sids();
        let (names, publications) = (&party.names, &mut party.publications);
        let mut found = Vec::new();
        let mut group = |tracks: &[_]| {
            let (all, grouped) = publications.group(names, tracks, expected);
            found = all;
            grouped
        };
        let answered = match &mut party.duplex {
            Some(peer) => self
                .engine
                .converse_again(peer, offer, &carried, &mut group),
            none => {
                let (both, late) = ((true, true), self.late.load());
                let data = Channels::new(both, sid, &self.inbox, &self.waiting, late);
                let peer = Peer {
                    // As the session on which others get something, which it is, too.
                    listed: names.listener.clone(),
                    address: party.address,
                    observer: self.observer.clone(),
                    data: Some(Arc::new(data)),
                };
                let begun = self.engine.converse(&peer, offer, &carried, &mut group);
                begun.map(|(peer, answered)| {
                    self.sessions.insert(peer.session(), (sid.clone(), false));
                    *none = Some(peer);
                    answered
                })
            }
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(why) => return Some(Negotiated::Refused(why.to_string())),
        };
        let mut mids = Vec::with_capacity(wanted.len());
        let mut silent = Vec::new();
        for ((_, (track, _)), on) in wanted.iter().zip(answered.carried) {
            silent.extend(party.put(track, on.as_ref().map(|on| on.place)));
            mids.push(on.map(|on| on.mid));
        }
        self.published(sid, &before, expected);
        for place in silent {
            self.silence(sid, place);
        }
        self.carry(sid);
        let peer = self.parties.get(sid)?.duplex.as_ref()?;
        Some(Negotiated::Conversed {
            sdp: answered.sdp,
            tracks: found,
            mids,
            free: answered.free,
            shows: shown(&peer.pictures(None)),
        })
    }

    /// What a participant does not want any more is on none of its m-lines.
    fn give_up(&mut self, sid: &Sid, wanted: &[Section]) {
        let Some(party) = self.parties.get_mut(sid) else {
            return;
        };
        let is_gone = |track: &Sid, _: &mut Line| {
            let mut tracks = wanted.iter().filter_map(|s| s.track.as_ref());
            tracks.all(|(wanted, _)| wanted != track)
        };
        let gone: Vec<_> = party.lines.extract_if(is_gone).collect();
        for (track, line) in gone {
            if let Some(party) = self.parties.get_mut(sid) {
                party.wishes.remove(&track);
            }
            self.silence(sid, line.number);
        }
    }
}

impl Party {
    /// A track is on an m-line with this place, or on none. Returns the place that it had, where that is another one.
    fn put(&mut self, track: &Sid, place: Option<usize>) -> Option<usize> {
        let known = self.lines.get(track).map(|line| line.number);
        if known == place {
            return None;
        }
        self.lines.remove(track);
        if let Some(number) = place {
            self.lines.insert(track.clone(), Line::new(number));
        }
        known
    }
}
