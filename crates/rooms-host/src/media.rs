// SPDX-License-Identifier: MPL-2.0

//! What rooms want of the media ([`Command`]), done by the engine; and what became of it ([`Negotiated`]).

mod again;
mod delivery;
mod duplex;
mod published;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Instant;

use sfu_engine::stream::Stream;
use sfu_engine::{
    DuplexPeer, Engine, InvitedPeer, Peer, Preference, PublicationId, Publishing, PublishingPeer,
    SessionError, SessionId, SessionObserver, Shown, TrackKind,
};
use sfu_rooms::proto::SessionDescription;
use sfu_rooms::{
    Command, Expected, Measured, Negotiated, Path, Section, Sid, Sound, StreamTrack, Wish,
};

use crate::Input;
use crate::channels::{self, Channels, Lane, Outgoing};
use crate::late::Late;
use crate::load::Load;
use crate::names::Names;
use crate::preferred::prefer;
use crate::publications::{Publications, kind};
use crate::redundancy::without_red;
use again::Again;
use delivery::Budget;
use duplex::Way;
use published::{Published, shown};

/// See the module's description.
pub(crate) struct Media {
    engine: Arc<Engine>,
    observer: Arc<dyn SessionObserver>,
    inbox: Sender<Input>,
    waiting: Load,
    late: Late,
    again: Again,
    parties: HashMap<Sid, Party>,
    /// Whose session it is, and whether on it it publishes.
    sessions: HashMap<SessionId, (Sid, bool)>,
    /// Streams that are participants.
    ingresses: HashMap<Sid, Ingress>,
    /// All that is published.
    tracks: HashMap<Sid, Published>,
}

/// A stream that is a participant.
struct Ingress {
    room: String,
    tracks: Vec<Sid>,
}

/// A participant.
struct Party {
    room: String,
    identity: String,
    names: Names,
    address: Option<IpAddr>,
    publishing: Option<PublishingPeer>,
    publications: Publications,
    invited: Option<InvitedPeer>,
    /// Of who has one connection for both.
    duplex: Option<DuplexPeer>,
    /// What it is offered.
    lines: HashMap<Sid, Line>,
    /// Places that are to carry nothing any more, as soon as there is room to say so.
    silent: Vec<usize>,
    wishes: HashMap<Sid, Wish>,
    /// Data for it.
    outgoing: Outgoing,
    /// For the data that it sends.
    budget: Budget,
}

impl Party {
    /// The stream that one of its publications feeds.
    fn stream(&self, publication: PublicationId) -> Option<&Arc<Stream>> {
        match &self.duplex {
            Some(peer) => peer.stream(publication),
            None => self.publishing.as_ref()?.stream(publication),
        }
    }

    /// The session on which it is sent something.
    fn to(&self) -> Option<SessionId> {
        match &self.duplex {
            Some(peer) => Some(peer.session()),
            None => self.invited.as_ref().map(InvitedPeer::session),
        }
    }
}

/// An m-line of an offer.
#[derive(Debug)]
struct Line {
    /// Among those of our offers, or the place that it has on the only connection.
    number: usize,
    /// The peer has taken it, and it carries the track.
    carries: bool,
    /// The track, as it is sent now.
    shown: Option<Shown>,
    /// What was last seen of that.
    starved: bool,
    /// Of the track's streams, one in each of its codecs, the one that is sent.
    sent: Weak<Stream>,
}

impl Line {
    fn new(number: usize) -> Self {
        Self {
            number,
            carries: false,
            shown: None,
            starved: false,
            sent: Weak::new(),
        }
    }
}

impl Media {
    pub(crate) fn new(
        engine: Arc<Engine>,
        observer: Arc<dyn SessionObserver>,
        inbox: Sender<Input>,
        waiting: Load,
    ) -> Self {
        Self {
            engine,
            observer,
            inbox,
            waiting,
            late: Late::default(),
            again: Again::default(),
            parties: HashMap::new(),
            sessions: HashMap::new(),
            ingresses: HashMap::new(),
            tracks: HashMap::new(),
        }
    }

    /// A stream is a participant, with these tracks.
    pub(crate) fn ingest<'a>(
        &mut self,
        sid: &Sid,
        room: &str,
        stream: &Arc<Stream>,
        tracks: impl Iterator<Item = (Sid, &'a StreamTrack)>,
    ) {
        self.forget_ingress(sid);
        let mut sids = Vec::new();
        for (track, of) in tracks {
            let published = Published {
                stream: stream.clone(),
                kind: kind(of.kind),
                codec: None,
                further: Vec::new(),
                sizes: of.sizes.clone(),
            };
            self.tracks.insert(track.clone(), published);
            sids.push(track);
        }
        let publishing = Publishing {
            identity: stream.name().to_string(),
            streams: vec![stream.name().clone()],
        };
        let roster = self.engine.router().roster();
        roster.set(room, sid.as_str(), publishing);
        let ingress = Ingress {
            room: room.to_owned(),
            tracks: sids,
        };
        self.ingresses.insert(sid.clone(), ingress);
    }

    fn forget_ingress(&mut self, sid: &Sid) {
        if let Some(ingress) = self.ingresses.remove(sid) {
            for track in &ingress.tracks {
                self.tracks.remove(track);
            }
            let roster = self.engine.router().roster();
            roster.remove(&ingress.room, sid.as_str());
        }
    }

    /// Somebody has come.
    pub(crate) fn enter(
        &mut self,
        now: Instant,
        sid: &Sid,
        room: &str,
        identity: &str,
        address: Option<IpAddr>,
    ) {
        let Some(names) = Names::new(room, identity, sid) else {
            return;
        };
        self.parties.entry(sid.clone()).or_insert_with(|| Party {
            room: room.to_owned(),
            identity: identity.to_owned(),
            names,
            address,
            publishing: None,
            publications: Publications::default(),
            invited: None,
            duplex: None,
            lines: HashMap::new(),
            silent: Vec::new(),
            wishes: HashMap::new(),
            outgoing: Outgoing::default(),
            budget: Budget::new(now),
        });
    }

    /// Does that. What became of it, where somebody waits for it.
    pub(crate) fn obey(&mut self, command: Command) -> Option<(Sid, Negotiated)> {
        match command {
            Command::Answer {
                participant,
                offer,
                expected,
            } => {
                let sdp = without_red(&offer.sdp, &expected);
                let outcome = self.answer(&participant, &sdp, &expected)?;
                Some((participant, outcome))
            }
            Command::Converse {
                participant,
                offer,
                expected,
                wanted,
            } => {
                let sdp = without_red(&offer.sdp, &expected);
                let outcome = self.converse(&participant, &sdp, &expected, &wanted)?;
                Some((participant, outcome))
            }
            Command::Offer {
                participant,
                sections,
                restart_ice,
            } => {
                let outcome = self.offer(&participant, &sections, restart_ice)?;
                Some((participant, outcome))
            }
            Command::Accept {
                participant,
                answer,
            } => {
                let outcome = self.accept(&participant, &answer)?;
                Some((participant, outcome))
            }
            Command::Trickle {
                participant,
                publisher,
                candidate,
            } => {
                self.trickle(&participant, publisher, &candidate);
                None
            }
            Command::Show {
                participant,
                track,
                wish,
            } => {
                self.show(&participant, &track, wish);
                None
            }
            Command::Stop { participant, track } => {
                self.stop(&participant, &track);
                None
            }
            Command::Data {
                participant,
                reliable,
                packet,
            } => {
                let lane = match reliable {
                    true => Lane::Reliable,
                    false => Lane::Lossy,
                };
                self.send(&participant, lane, &packet);
                None
            }
            Command::Datagram {
                participant,
                packet,
            } => {
                self.send(&participant, Lane::DataTracks, &packet);
                None
            }
            Command::End { participant } => {
                self.end(&participant);
                None
            }
        }
    }

    fn answer(&mut self, sid: &Sid, offer: &str, expected: &[Expected]) -> Option<Negotiated> {
        let offer = &prefer(offer, expected);
        let party = self.parties.get_mut(sid)?;
        let Party {
            names,
            publications,
            publishing,
            ..
        } = party;
        let before = publications.sids();
        let mut found = Vec::new();
        let mut group = |tracks: &[_]| {
            let (all, grouped) = publications.group(names, tracks, expected);
            found = all;
            grouped
        };
        let answered = match publishing {
            Some(peer) => self.engine.republish(peer, offer, &mut group),
            None => {
                let peer = Peer {
                    listed: names.publisher.clone(),
                    address: party.address,
                    observer: self.observer.clone(),
                    data: Some(Arc::new(Channels::new(
                        (true, false),
                        sid,
                        &self.inbox,
                        &self.waiting,
                        self.late.load(),
                    ))),
                };
                let begun = self.engine.publish_tracks(&peer, offer, &mut group);
                begun.map(|(peer, answered)| {
                    self.sessions.insert(peer.session(), (sid.clone(), true));
                    *publishing = Some(peer);
                    answered
                })
            }
        };
        let answered = match answered {
            Ok(answered) => answered,
            Err(why) => return Some(Negotiated::Refused(why.to_string())),
        };
        self.published(sid, &before, expected);
        Some(Negotiated::Answered {
            sdp: answered.sdp,
            tracks: found,
        })
    }

    fn offer(&mut self, sid: &Sid, sections: &[Section], restart: bool) -> Option<Negotiated> {
        let party = self.parties.get_mut(sid)?;
        let peer = Peer {
            listed: party.names.listener.clone(),
            address: party.address,
            observer: self.observer.clone(),
            data: Some(Arc::new(Channels::new(
                (false, true),
                sid,
                &self.inbox,
                &self.waiting,
                self.late.load(),
            ))),
        };
        let offered = offer(&self.engine, peer, party, sections, restart);
        if !party.silent.is_empty() {
            self.again.carrying.insert(sid.clone());
        }
        match offered {
            Ok((sdp, mids)) => Some(Negotiated::Offered { sdp, mids }),
            Err(why) => Some(Negotiated::Refused(why)),
        }
    }

    /// Returns what came of an answer, or why it can't be taken.
    fn accept(&mut self, sid: &Sid, answer: &SessionDescription) -> Option<Negotiated> {
        let party = self.parties.get_mut(sid)?;
        let peer = party.invited.as_mut()?;
        let is_first = !peer.has_begun();
        if let Err(why) = self.engine.answered(peer, &answer.sdp) {
            return Some(Negotiated::Refused(why.to_string()));
        }
        if is_first {
            for command in channels::open() {
                let _ = self.engine.data(peer.session(), command);
            }
        }
        self.sessions.insert(peer.session(), (sid.clone(), false));
        let shows = shown(&peer.pictures(None));
        self.carry(sid);
        Some(Negotiated::Accepted { shows })
    }

    /// What a participant's m-lines are for is on them from now on.
    fn carry(&mut self, sid: &Sid) {
        let Some(party) = self.parties.get_mut(sid) else {
            return;
        };
        let way = Way::of(party.invited.as_ref(), party.duplex.as_ref());
        for (track, line) in &mut party.lines {
            let Some(published) = self.tracks.get(track).filter(|_| !line.carries) else {
                continue;
            };
            let wish = party.wishes.get(track).copied().unwrap_or_default();
            let preference = published.preference(wish);
            let chosen = published.stream_for(|| way.pictures(line.number));
            let stream = preference.as_ref().map(|_| chosen);
            let preference = preference.clone().unwrap_or_default();
            match way.carry(&self.engine, line.number, stream, &preference) {
                Ok(shown) => {
                    (line.shown, line.carries) = (shown, true);
                    line.sent = Arc::downgrade(chosen);
                }
                Err(SessionError::Busy) => {
                    // The others would find no room there either.
                    self.again.carrying.insert(sid.clone());
                    break;
                }
                // One that was offered and not answered: it is when it is.
                Err(_) => {}
            }
        }
    }

    fn trickle(&mut self, sid: &Sid, publisher: bool, candidate: &str) {
        let Some(party) = self.parties.get(sid) else {
            return;
        };
        let invited = party.invited.as_ref().filter(|peer| peer.has_begun());
        let session = match (&party.duplex, publisher) {
            (Some(peer), _) => Some(peer.session()),
            (None, true) => party.publishing.as_ref().map(PublishingPeer::session),
            (None, false) => invited.map(InvitedPeer::session),
        };
        let init: Option<serde_json::Value> = serde_json::from_str(candidate).ok();
        let line = init.as_ref().and_then(|init| init["candidate"].as_str());
        // The end of them is an empty one.
        let line =
            line.filter(|line| line.starts_with("candidate:") && !line.contains(['\r', '\n']));
        if let Some((session, line)) = session.zip(line)
            && let Err(error) = self.engine.trickle(session, line)
        {
            tracing::debug!(participant = %sid, %error, "a candidate is not taken");
        }
    }

    /// What a participant does not get any more stops before its m-line is given up.
    fn stop(&mut self, sid: &Sid, track: &Sid) {
        let Some(party) = self.parties.get_mut(sid) else {
            return;
        };
        if party.lines.contains_key(track) {
            let shown = false;
            self.show(
                sid,
                track,
                Wish {
                    shown,
                    ..Wish::default()
                },
            );
        } else {
            party.wishes.remove(track);
        }
    }

    fn show(&mut self, sid: &Sid, track: &Sid, wish: Wish) {
        let Some(party) = self.parties.get_mut(sid) else {
            return;
        };
        let before = party.wishes.insert(track.clone(), wish).unwrap_or_default();
        let line = party.lines.get_mut(track).filter(|line| line.carries);
        let published = self.tracks.get(track);
        let Some((line, published)) = line.zip(published) else {
            return;
        };
        let way = Way::of(party.invited.as_ref(), party.duplex.as_ref());
        let done = match (before.shown, published.preference(wish)) {
            (true, Some(preference)) => way.prefer(&self.engine, line.number, preference),
            (false, Some(preference)) => {
                let stream = published.stream_for(|| way.pictures(line.number));
                let shown = way.carry(&self.engine, line.number, Some(stream), &preference);
                line.sent = Arc::downgrade(stream);
                shown.map(|shown| line.shown = shown)
            }
            (_, None) => {
                let preference = Preference::default();
                let shown = way.carry(&self.engine, line.number, None, &preference);
                shown.map(|shown| line.shown = shown)
            }
        };
        if done == Err(SessionError::Busy) {
            // It does not carry what it should.
            line.carries = false;
            self.again.carrying.insert(sid.clone());
        }
    }

    fn end(&mut self, sid: &Sid) {
        self.forget_ingress(sid);
        let Some(party) = self.parties.remove(sid) else {
            return;
        };
        let roster = self.engine.router().roster();
        roster.remove(&party.room, sid.as_str());
        let invited = party.invited.as_ref().map(InvitedPeer::session);
        let publishing = party.publishing.as_ref().map(PublishingPeer::session);
        let duplex = party.duplex.as_ref().map(DuplexPeer::session);
        for session in [invited, publishing, duplex].into_iter().flatten() {
            self.sessions.remove(&session);
            self.close(session);
        }
        for (track, ..) in party.publications.all() {
            self.tracks.remove(track);
        }
    }

    /// Whose session that is, and whether on it it publishes.
    pub(crate) fn of_session(&self, session: SessionId) -> Option<(Sid, bool)> {
        self.sessions.get(&session).cloned()
    }

    /// Who is heard.
    pub(crate) fn sounds(&self, now: Instant) -> Vec<(Sid, Sound)> {
        let mut heard = Vec::new();
        let people = self.parties.iter();
        let people = people.map(|(sid, party)| {
            let tracks = party.publications.all().map(|(track, ..)| track);
            (sid, tracks.collect::<Vec<_>>())
        });
        let ingresses = self.ingresses.iter();
        let ingresses = ingresses.map(|(sid, ingress)| (sid, ingress.tracks.iter().collect()));
        for (sid, tracks) in people.chain(ingresses) {
            let tracks = tracks.into_iter().filter_map(|sid| self.tracks.get(sid));
            let sounds = tracks.filter(|track| track.kind == TrackKind::Audio);
            let all = sounds.map(|track| {
                let speech = track.stream.speech(now);
                Sound {
                    speech: if speech.active { speech.level } else { 0.0 },
                    loud: track.stream.is_loud(now),
                }
            });
            let loudest = all.reduce(|a, b| Sound {
                speech: a.speech.max(b.speech),
                loud: a.loud || b.loud,
            });
            let loudest = loudest.filter(|sound| *sound != Sound::default());
            heard.extend(loudest.map(|sound| (sid.clone(), sound)));
        }
        heard
    }

    /// Who has, or has no more, too little room on its network for a track: participant and track.
    pub(crate) fn starvations(&mut self) -> Vec<(Sid, Sid, bool)> {
        let mut changed = Vec::new();
        for (sid, party) in &mut self.parties {
            for (track, line) in &mut party.lines {
                let starved = line.shown.as_ref().is_some_and(Shown::is_starved);
                if std::mem::replace(&mut line.starved, starved) != starved {
                    changed.push((sid.clone(), track.clone(), starved));
                }
            }
        }
        changed
    }

    /// How each participant's connections do.
    pub(crate) fn measure(&self, now: Instant) -> Vec<(Sid, Measured)> {
        let parties = self.parties.iter();
        let each = parties.map(|(sid, party)| (sid.clone(), self.measured(now, party)));
        each.collect()
    }

    fn measured(&self, now: Instant, party: &Party) -> Measured {
        let path = |session: SessionId| {
            let info = self.engine.session(session).filter(|info| info.connected)?;
            Some(Path {
                loss: info.loss.unwrap_or(0.0),
                round_trip: info.rtt,
                ..Path::default()
            })
        };
        let up = party.publishing.as_ref().map(PublishingPeer::session);
        let up = match &party.duplex {
            Some(peer) => self.sent_over(peer.session(), party),
            None => up.and_then(path),
        };
        let down = party.to().and_then(path).map(|path| {
            let missing = party.lines.iter().map(|(track, line)| {
                let published = self.tracks.get(track);
                let wish = party.wishes.get(track).copied().unwrap_or_default();
                let most = published.and_then(|p| p.preference(wish)?.max_height);
                line.shown.as_ref().map_or(0, |shown| shown.missing(most))
            });
            Path {
                missing: missing.max().unwrap_or(0),
                starved: party.lines.values().any(|line| line.starved),
                ..path
            }
        });
        let pictures = party.publications.all();
        let pictures = pictures.filter(|(_, kind, _)| *kind == TrackKind::Video);
        let layers = pictures.filter_map(|(track, ..)| {
            let stream = &self.tracks.get(track)?.stream;
            Some((track.clone(), stream.active_layers(now)))
        });
        Measured {
            up,
            down,
            layers: layers.collect(),
        }
    }

    /// How what a participant publishes over its only connection does.
    fn sent_over(&self, session: SessionId, party: &Party) -> Option<Path> {
        let info = self.engine.session(session).filter(|info| info.connected)?;
        party.publications.all().next()?;
        Some(Path {
            loss: info.ingress_loss.unwrap_or(0.0),
            round_trip: info.rtt,
            ..Path::default()
        })
    }

    /// Whether there is any sound to listen to.
    pub(crate) fn has_sound(&self) -> bool {
        let mut tracks = self.tracks.values();
        tracks.any(|track| track.kind == TrackKind::Audio)
    }

    /// Whether there is anybody.
    pub(crate) fn has_parties(&self) -> bool {
        !self.parties.is_empty()
    }
}

impl Drop for Media {
    fn drop(&mut self) {
        let roster = self.engine.router().roster();
        for (sid, party) in &self.parties {
            roster.remove(&party.room, sid.as_str());
        }
        for (sid, ingress) in &self.ingresses {
            roster.remove(&ingress.room, sid.as_str());
        }
    }
}

/// The next offer to a participant, and the m-lines' names in the order of the sections.
fn offer(
    engine: &Engine,
    invited: Peer,
    party: &mut Party,
    sections: &[Section],
    restart: bool,
) -> Result<(String, Vec<String>), String> {
    let peer = match &mut party.invited {
        Some(peer) => peer,
        none => none.insert(engine.invite(invited).map_err(|why| why.to_string())?),
    };
    let is_offered = |track: &Sid| {
        let mut tracks = sections.iter().filter_map(|s| s.track.as_ref());
        tracks.any(|(offered, _)| offered == track)
    };
    let gone: Vec<_> = party
        .lines
        .keys()
        .filter(|t| !is_offered(t))
        .cloned()
        .collect();
    for track in gone {
        party.wishes.remove(&track);
        if let Some(line) = party.lines.remove(&track) {
            let stopped = engine.carry(peer, line.number, None, &Preference::default());
            let waits = matches!(stopped, Err(SessionError::Busy));
            party.silent.extend(waits.then_some(line.number));
            peer.offers().remove(line.number);
        }
    }
    if restart && peer.has_begun() {
        peer.offers().restart_ice().map_err(|why| why.to_string())?;
    }
    let mut mids = Vec::with_capacity(sections.len());
    for section in sections {
        let Some((track, publisher)) = &section.track else {
            mids.push(String::new());
            continue;
        };
        let number = match party.lines.get(track) {
            Some(line) => line.number,
            None => {
                let kind = kind(section.kind);
                let msid = format!("{publisher}|{track} {track}");
                let number = peer.offers().add(kind, &msid);
                let number = number.map_err(|why| why.to_string())?;
                party.lines.insert(track.clone(), Line::new(number));
                number
            }
        };
        mids.push(peer.offers().mid(number));
    }
    let sdp = peer.offers().offer().map_err(|why| why.to_string())?;
    Ok((sdp, mids))
}
