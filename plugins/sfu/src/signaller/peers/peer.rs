// SPDX-License-Identifier: MPL-2.0

//! One connection of GStreamer's signalling: what its peer says, and what becomes of it. Called by the WebSocket's task.
//!
//! Who may do what is asked for at each message, by the rights of who opened the connection: publishing a stream as WHIP
//! asks, playing one as WHEP does. What nobody may see does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gst_plugin_webrtc_signalling_protocol as p;
use serde_json::{Value, json};
use sfu_access::{Action, Want};
use sfu_engine::{
    OfferedViewer, Preference, PublishRequest, SessionError, SessionId, StreamName,
    SubscribeRequest,
};
use tokio::runtime::Handle;

use super::super::door::{Pass, may_play, want};
use super::super::server::App;
use super::live::{self, Names};

/// What this server is called where it is somebody's consumer.
const CONSUMER: &str = "gst-sfu";
/// Sessions of one connection, begun or not. A page that shows a wall of streams has that many.
const SESSIONS: usize = 32;
/// An offer or answer that does not come for so long will not: encoders look for what they can do before they offer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Candidates that come before the answer.
const EARLY: usize = 30;
/// Octets of one: browsers' have some 150.
const CANDIDATE: usize = 512;
/// Streams that are listed at most.
const LISTED: usize = 1_000;
/// A session that a shard which is far behind has no room to end is ended later: it is tried so often, so many times.
const AGAIN: Duration = Duration::from_millis(100);
const TRIES: u32 = 100;

/// See the module's description.
pub(super) struct Peer {
    app: App,
    address: Option<IpAddr>,
    pass: Pass,
    /// The stream that the address names.
    named: Option<String>,
    id: String,
    /// What it sends, if it is a producer.
    producing: Option<StreamName>,
    /// It is told of producers that come and go.
    listening: Option<Told>,
    sessions: BTreeMap<String, Session>,
    told: Vec<p::OutgoingMessage>,
    /// The rules that its pass was looked at by.
    seen: u64,
    over: Option<(u16, &'static str)>,
}

/// Which producers somebody was told of, and of which streams they were chosen.
#[derive(Default)]
struct Told {
    of: Names,
    producers: BTreeSet<StreamName>,
}

struct Session {
    since: Instant,
    state: State,
}

enum State {
    /// A producer was asked for an offer.
    Asked(StreamName),
    /// A consumer was made one.
    Offered(Box<OfferedViewer>, StreamName, Vec<String>),
    Begun(SessionId, Does),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Publish,
    Play,
}

type Heard = Result<(), String>;

impl Peer {
    pub(super) fn new(
        app: App,
        address: Option<IpAddr>,
        pass: Pass,
        named: Option<String>,
    ) -> Self {
        let id = random_id();
        let welcome = p::OutgoingMessage::Welcome {
            peer_id: id.clone(),
        };
        Self {
            app,
            address,
            pass,
            named,
            id,
            producing: None,
            listening: None,
            sessions: BTreeMap::new(),
            told: vec![welcome],
            seen: 0,
            over: None,
        }
    }

    /// What it is to be told now.
    pub(super) fn told(&mut self) -> Vec<p::OutgoingMessage> {
        std::mem::take(&mut self.told)
    }

    /// Whether there is no more to be said: by which code, and why.
    pub(super) fn goodbye(&self) -> Option<(u16, &'static str)> {
        self.over
    }

    /// Whether its connection should not make room for others.
    pub(super) fn is_in_use(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(super) fn refuse(&mut self, details: String) {
        self.told.push(p::OutgoingMessage::Error { details });
    }

    pub(super) async fn hear(&mut self, message: p::IncomingMessage) {
        let heard = match message {
            p::IncomingMessage::NewPeer => Ok(()),
            p::IncomingMessage::SetPeerStatus(status) => self.set_status(&status).await,
            p::IncomingMessage::List => {
                let producers = self.producers().await.producers;
                let peer = |name: &StreamName| p::Peer {
                    id: name.to_string(),
                    meta: Some(meta(name)),
                };
                let producers = producers.iter().map(peer).collect();
                self.told.push(p::OutgoingMessage::List { producers });
                Ok(())
            }
            p::IncomingMessage::ListConsumers => {
                let consumers = Vec::new();
                self.told
                    .push(p::OutgoingMessage::ListConsumers { consumers });
                Ok(())
            }
            p::IncomingMessage::StartSession(start) => self.start(start).await,
            p::IncomingMessage::EndSession(end) => {
                self.end(&end.session_id);
                Ok(())
            }
            p::IncomingMessage::Peer(said) => self.message(said).await,
        };
        if let Err(details) = heard {
            self.refuse(details);
        }
    }

    /// The live streams that it may play.
    async fn producers(&self) -> Told {
        let of = live::names(&self.app).await;
        let rights = self.pass.rights(&self.app);
        let shown = of.iter().filter(|name| may_play(&rights, name));
        let producers = shown.take(LISTED).cloned().collect();
        Told { of, producers }
    }

    fn may(&self, action: Action, stream: &StreamName) -> Result<Want, String> {
        let want = want(action, stream.as_str());
        let rights = self.pass.rights(&self.app);
        match rights.may(std::slice::from_ref(&want)) {
            Ok(()) => Ok(want),
            Err(why) => {
                self.app.measures.refused("permission");
                let what = match action {
                    Action::Publish => "publishing",
                    _ => "playing",
                };
                Err(format!(
                    "{what} {stream}: {why}; a token goes into signaller::headers as authorization"
                ))
            }
        }
    }

    async fn set_status(&mut self, status: &p::PeerStatus) -> Heard {
        if status.producing() && status.consuming() {
            return Err("a peer is a producer or a consumer, not both".into());
        }
        let stream = match status.producing() {
            true => Some(self.stream_of(status.meta.as_ref())?),
            false => None,
        };
        if let Some(stream) = &stream {
            self.may(Action::Publish, stream)?;
        }
        self.listening = match (status.listening(), self.listening.take()) {
            (false, _) => None,
            (true, Some(told)) => Some(told),
            (true, None) => Some(self.producers().await),
        };
        if status.listening() {
            // Who listens hears of himself, too: `gstwebrtc-api` says nothing before that.
            let told = p::PeerStatus {
                peer_id: Some(self.id.clone()),
                ..status.clone()
            };
            self.told.push(p::OutgoingMessage::PeerStatusChanged(told));
        }
        if self.producing == stream {
            return Ok(());
        }
        self.stop_producing();
        let Some(stream) = stream else {
            return Ok(());
        };
        let session_id = self.add(State::Asked(stream.clone()))?;
        self.producing = Some(stream);
        self.told.push(p::OutgoingMessage::StartSession {
            peer_id: CONSUMER.to_owned(),
            session_id,
            offer: None,
        });
        Ok(())
    }

    /// As the address has it, or else what it says of itself.
    fn stream_of(&self, meta: Option<&Value>) -> Result<StreamName, String> {
        let says = |key: &str| meta?.get(key)?.as_str();
        let name = self.named.as_deref().or(says("name"));
        let name = name.or(says("display-name")).ok_or(
            "a producer says which stream it sends: by meta=\"meta,name=cam1\", or by the address ws://…/gst-webrtc/cam1",
        )?;
        name.parse().map_err(|e| format!("the stream's name: {e}"))
    }

    fn stop_producing(&mut self) {
        self.producing = None;
        let publishes = |session: &Session| {
            matches!(
                session.state,
                State::Asked(_) | State::Begun(_, Does::Publish)
            )
        };
        let sessions = self.sessions.iter();
        let ids: Vec<_> = sessions
            .filter(|(_, session)| publishes(session))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.end(&id);
            self.tell_end(id);
        }
    }

    fn add(&mut self, state: State) -> Result<String, String> {
        if self.sessions.len() >= SESSIONS {
            return Err(format!("this connection has {SESSIONS} sessions already"));
        }
        let id = random_id();
        let since = Instant::now();
        self.sessions.insert(id.clone(), Session { since, state });
        Ok(id)
    }

    /// It wants to play.
    async fn start(&mut self, start: p::StartSessionMessage) -> Heard {
        // What may not be seen does not exist.
        let unknown = || format!("Peer with ID '{}' not found", start.peer_id);
        let stream: StreamName = start.peer_id.parse().map_err(|_| unknown())?;
        let want = self.may(Action::Play, &stream)?;
        if self.sessions.len() >= SESSIONS {
            return Err(format!("this connection has {SESSIONS} sessions already"));
        }
        let (engine, address) = (self.app.engine.clone(), self.address);
        let of = stream.clone();
        let (session_id, sdp) = if let Some(offer) = start.offer {
            let answered = self.app.offers.run(move || {
                engine.subscribe(&SubscribeRequest {
                    stream: &of,
                    offer: &offer,
                    preference: Preference::default(),
                    peer: address,
                })
            });
            let answered = answered.await.map_err(|_| "the server failed")?;
            let answered = answered.map_err(|e| e.to_string())?;
            self.hold(answered.session, want);
            let id = self.add(State::Begun(answered.session, Does::Play))?;
            (
                id,
                p::SdpMessage::Answer {
                    sdp: answered.answer,
                },
            )
        } else {
            let offered = self.app.offers.run(move || engine.offer(&of, address));
            let offered = offered.await.map_err(|_| "the server failed")?;
            let offered = offered.map_err(|e| e.to_string())?;
            let sdp = offered.offer().to_owned();
            let state = State::Offered(Box::new(offered), stream, Vec::new());
            (self.add(state)?, p::SdpMessage::Offer { sdp })
        };
        self.told.push(p::OutgoingMessage::SessionStarted {
            peer_id: start.peer_id,
            session_id: session_id.clone(),
        });
        self.say(session_id, sdp);
        Ok(())
    }

    fn say(&mut self, session_id: String, sdp: p::SdpMessage) {
        self.told.push(p::OutgoingMessage::Peer(p::PeerMessage {
            session_id,
            peer_message: p::PeerMessageInner::Sdp(sdp),
        }));
    }

    async fn message(&mut self, said: p::PeerMessage) -> Heard {
        let id = said.session_id;
        // One that has ended meanwhile is nothing new.
        let Some(session) = self.sessions.remove(&id) else {
            return Ok(());
        };
        let Session { since, state } = session;
        let (state, heard) = match (said.peer_message, state) {
            (p::PeerMessageInner::Sdp(p::SdpMessage::Offer { sdp }), State::Asked(stream)) => {
                match self.publish(&id, &stream, sdp).await {
                    Ok(session) => (Some(State::Begun(session, Does::Publish)), Ok(())),
                    Err(why) => (None, Err(why)),
                }
            }
            (
                p::PeerMessageInner::Sdp(p::SdpMessage::Answer { sdp }),
                State::Offered(viewer, stream, early),
            ) => match self.play(*viewer, &stream, sdp, &early).await {
                Ok(session) => (Some(State::Begun(session, Does::Play)), Ok(())),
                Err(why) => (None, Err(why)),
            },
            (p::PeerMessageInner::Sdp(_), state) => {
                let why = "that is neither the offer nor the answer that was asked for";
                (Some(state), Err(why.to_owned()))
            }
            (p::PeerMessageInner::Ice { candidate, .. }, state) => {
                (Some(self.candidate(&candidate, state)), Ok(()))
            }
        };
        match state {
            Some(state) => {
                self.sessions.insert(id, Session { since, state });
            }
            None => self.tell_end(id),
        }
        heard
    }

    /// A producer's offer.
    async fn publish(
        &mut self,
        id: &str,
        stream: &StreamName,
        offer: String,
    ) -> Result<SessionId, String> {
        let want = self.may(Action::Publish, stream)?;
        let (engine, address, stream) = (self.app.engine.clone(), self.address, stream.clone());
        let answered = self.app.offers.run(move || {
            engine.publish(&PublishRequest {
                stream: &stream,
                offer: &offer,
                takeover: false,
                peer: address,
            })
        });
        let answered = answered.await.map_err(|_| "the server failed")?;
        let answered = answered.map_err(|e| {
            self.producing = None;
            e.to_string()
        })?;
        self.hold(answered.session, want);
        let sdp = answered.answer;
        self.say(id.to_owned(), p::SdpMessage::Answer { sdp });
        Ok(answered.session)
    }

    /// A consumer's answer.
    async fn play(
        &mut self,
        viewer: OfferedViewer,
        stream: &StreamName,
        answer: String,
        early: &[String],
    ) -> Result<SessionId, String> {
        let want = self.may(Action::Play, stream)?;
        let engine = self.app.engine.clone();
        let begun = self.app.offers.run(move || engine.begin(viewer, &answer));
        let begun = begun.await.map_err(|_| "the server failed")?;
        let session = begun.map_err(|e| e.to_string())?;
        self.hold(session, want);
        for candidate in early {
            self.trickle(session, candidate);
        }
        Ok(session)
    }

    fn hold(&self, session: SessionId, want: Want) {
        self.app.door.hold(session, self.pass.with(want));
    }

    /// Our addresses are checked by the peer, whatever its own are: a candidate that can't be read is left out.
    fn candidate(&mut self, candidate: &str, mut state: State) -> State {
        let Some(candidate) = one_line(candidate) else {
            return state;
        };
        match &mut state {
            State::Begun(session, _) => self.trickle(*session, candidate),
            State::Offered(_, _, early) if early.len() < EARLY => early.push(candidate.to_owned()),
            State::Offered(..) | State::Asked(_) => {}
        }
        state
    }

    fn trickle(&self, session: SessionId, candidate: &str) {
        let _ = self.app.engine.trickle(session, candidate);
    }

    /// The peer has ended it.
    fn end(&mut self, id: &str) {
        if let Some(session) = self.sessions.remove(id)
            && let State::Begun(session, _) = session.state
        {
            self.close(session);
        }
    }

    /// Now or later: this connection may be gone by then.
    fn close(&self, session: SessionId) {
        // One that has ended already is what is wanted.
        if self.app.engine.close(session) != Err(SessionError::Busy) {
            return;
        }
        gst::debug!(super::CAT, "a shard is far behind: a session ends later");
        let engine = Arc::downgrade(&self.app.engine);
        let again = async move {
            for _ in 0..TRIES {
                tokio::time::sleep(AGAIN).await;
                let closed = engine.upgrade().map(|engine| engine.close(session));
                if closed != Some(Err(SessionError::Busy)) {
                    return;
                }
            }
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(again);
        }
    }

    fn tell_end(&mut self, session_id: String) {
        let end = p::EndSessionMessage { session_id };
        self.told.push(p::OutgoingMessage::EndSession(end));
    }

    /// Looks what has ended, and what has come and gone.
    pub(super) async fn look(&mut self) {
        let engine = &self.app.engine;
        let is_over = |session: &Session| match session.state {
            State::Begun(id, _) => engine.session(id).is_none(),
            State::Asked(_) | State::Offered(..) => session.since.elapsed() > PATIENCE,
        };
        let over: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_over(session))
            .map(|(id, session)| {
                let plays = matches!(
                    session.state,
                    State::Offered(..) | State::Begun(_, Does::Play)
                );
                (id.clone(), plays)
            })
            .collect();
        for (id, plays) in over {
            self.sessions.remove(&id);
            self.tell_end(id);
            if !plays {
                // A producer without a consumer would wait for ever.
                self.refuse("the session has ended: nothing came, or it was ended here".into());
                self.over = Some((1000, ""));
            }
        }
        if self.sessions.is_empty() {
            self.look_at_door();
        }
        self.look_at_producers().await;
    }

    /// Whether it may come in yet. What it has under way ends by itself.
    fn look_at_door(&mut self) {
        if self.app.drain.is_on() {
            self.over = Some((1001, "the server is about to end"));
        } else if self.pass.is_over(&self.app, &mut self.seen) {
            self.over = Some((1008, "what it was let in by is not good any more"));
        }
    }

    async fn look_at_producers(&mut self) {
        let Some(before) = self.listening.take() else {
            return;
        };
        if Arc::ptr_eq(&before.of, &live::names(&self.app).await) {
            self.listening = Some(before);
            return;
        }
        let now = self.producers().await;
        let changed = |name: &StreamName, roles| {
            p::OutgoingMessage::PeerStatusChanged(p::PeerStatus {
                roles,
                meta: Some(meta(name)),
                peer_id: Some(name.to_string()),
            })
        };
        let gone = before.producers.difference(&now.producers);
        let gone = gone.map(|name| changed(name, Vec::new()));
        let come = now.producers.difference(&before.producers);
        let come = come.map(|name| changed(name, vec![p::PeerRole::Producer]));
        self.told.extend(gone.chain(come));
        self.listening = Some(now);
    }
}

/// What is told of a stream's producer.
fn meta(name: &StreamName) -> Value {
    json!({ "name": name.as_str(), "display-name": name.as_str() })
}

impl Drop for Peer {
    fn drop(&mut self) {
        for id in self.sessions.keys().cloned().collect::<Vec<_>>() {
            self.end(&id);
        }
        gst::debug!(super::CAT, "peer {} is gone", self.id);
    }
}

/// A name that nobody guesses. Without random numbers there is none that serves.
fn random_id() -> String {
    let mut octets = [0; 16];
    // It opens nothing: who knows it is on the connection anyhow.
    let _ = aws_lc_rs::rand::fill(&mut octets);
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// A candidate, and nothing beside it: what follows a line's end would be other lines of the fragment that it becomes. The end of
/// them is an empty one.
fn one_line(candidate: &str) -> Option<&str> {
    let candidate = candidate.trim();
    let is_one = !candidate.is_empty() && !candidate.contains(['\r', '\n']);
    (is_one && candidate.len() <= CANDIDATE).then_some(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_one_line_and_no_more_than_a_candidate_takes() {
        let good = "candidate:1 1 UDP 2122260223 192.0.2.1 50000 typ host";
        assert_eq!(one_line(good), Some(good));
        assert_eq!(one_line(&format!(" {good}\r\n")), Some(good));
        let long = "x".repeat(CANDIDATE + 1);
        let more = format!("{good}\r\na=ice-ufrag:abcd\r\na=ice-pwd:{long}");
        for bad in [
            "",
            "\r\n",
            &long,
            &more,
            &format!("{good}\na=mid:0"),
            &format!("{good}\ra"),
        ] {
            assert_eq!(one_line(bad), None, "{bad:?}");
        }
    }
}
