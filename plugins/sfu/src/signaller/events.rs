// SPDX-License-Identifier: MPL-2.0

//! What a viewer's session tells its page (WHEP core extensions, server-sent events): `active`, `inactive`, `layers` and
//! `viewercount` as that draft has them, `reconnect` from a server that drains, `status`: which layer it gets, and why, and as the last one `end`, with a reason
//! (`session-ended`, `server-stopped`).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use sfu_engine::{SessionId, SessionInfo, StreamLook, Why};

use super::api::{audio_json, layer_json};
use super::server::{App, Refusal};

/// How often the session is looked at; only changes are told.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A page has one, and another one while the first breaks off. They stay for as long as the session, so that they must not be
/// all the connections that there may be.
const LISTENERS: usize = 4;

/// Those of the draft that there are.
const OF_THE_DRAFT: [&str; 5] = ["active", "inactive", "layers", "reconnect", "viewercount"];

/// The parameters of `GET /session/{id}/sse`.
#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    /// Those of the draft that are told; else all.
    events: Option<String>,
}

/// `POST /session/{id}/sse`: which of the draft's events are told stands in the address; without a list all are.
pub(super) async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let id = find(&app, &id)?.id;
    let mut location = format!("/session/{id}/sse");
    if !body.is_empty() {
        let named: Vec<String> = serde_json::from_slice(&body).map_err(|_| {
            let message = r#"send a JSON list of events, such as ["active", "layers"], or nothing"#;
            Refusal::new(StatusCode::BAD_REQUEST, message)
        })?;
        let known = OF_THE_DRAFT
            .into_iter()
            .filter(|event| named.iter().any(|n| n == event));
        location += &format!("?events={}", known.collect::<Vec<_>>().join(","));
    }
    let location = [(header::LOCATION, location)];
    Ok((StatusCode::CREATED, location).into_response())
}

/// `GET /session/{id}/sse`
pub(super) async fn events(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<EventsQuery>,
) -> Result<impl IntoResponse, Refusal> {
    let id = find(&app, &id)?.id;
    let Some(listener) = app.listeners.enter(id) else {
        let message =
            format!("this session has {LISTENERS} event streams already: close one of them first");
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message);
        return Err(refusal.with(header::RETRY_AFTER, "5"));
    };
    let watcher = Watcher {
        _listener: listener,
        app,
        id,
        was_active: false,
        left_out: query.events.map_or_else(Vec::new, |events| {
            let is_left_out = |event: &&str| !events.split(',').any(|named| named == *event);
            OF_THE_DRAFT.into_iter().filter(is_left_out).collect()
        }),
        seen: None,
        told: Vec::new(),
        waiting: Vec::new(),
        over: false,
    };
    let stream = futures_util::stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    });
    // nginx would keep events back until it has a buffer full of them.
    let headers = [("X-Accel-Buffering", "no")];
    Ok((headers, Sse::new(stream).keep_alive(KeepAlive::default())))
}

fn find(app: &App, id: &str) -> Result<SessionInfo, Refusal> {
    let session = id.parse().ok().and_then(|id| app.engine.session(id));
    session.ok_or_else(|| {
        let message = "there is no such session; it may have ended";
        Refusal::new(StatusCode::NOT_FOUND, message)
    })
}

/// How many event streams there are, by session.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<HashMap<SessionId, usize>>);

/// One of them. Its end gives the place back.
struct Listener {
    all: Arc<Listeners>,
    id: SessionId,
}

impl Listeners {
    /// One more of this session, unless it has as many as it may.
    fn enter(self: &Arc<Self>, id: SessionId) -> Option<Listener> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(id).or_default();
        if *count >= LISTENERS {
            return None;
        }
        *count += 1;
        let all = self.clone();
        Some(Listener { all, id })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

/// Looks at a session and tells what is new.
struct Watcher {
    _listener: Listener,
    app: App,
    id: SessionId,
    /// It has played.
    was_active: bool,
    /// Events that nobody asked for.
    left_out: Vec<&'static str>,
    /// What the last look found, as far as it is told.
    seen: Option<(SessionInfo, StreamLook)>,
    /// Each event's last content.
    told: Vec<(&'static str, Value)>,
    waiting: Vec<Event>,
    /// The last event was told.
    over: bool,
}

impl Watcher {
    /// The next event; `None` after the one that tells of the session's or the server's end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if self.look().is_none() {
                return Some(self.end("session-ended"));
            }
            if self.app.drain.is_on() {
                self.reconnect();
            }
            if !self.waiting.is_empty() {
                continue;
            }
            let mut stopping = self.app.stopping.clone();
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return Some(self.end("server-stopped")),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    fn end(&mut self, reason: &str) -> Event {
        self.over = true;
        let content = json!({ "reason": reason });
        Event::default().event("end").data(content.to_string())
    }

    /// The server is about to end: the viewer is told to go elsewhere, or to come again, which leads it elsewhere.
    fn reconnect(&mut self) {
        let Some((session, _)) = &self.seen else {
            return;
        };
        let path = format!("/whep/{}", session.stream);
        let content = match self.app.drain.elsewhere(&path) {
            Some(url) => json!({ "url": url }),
            None => json!({}),
        };
        self.tell("reconnect", content);
    }

    /// Once for each viewer's page in each [`LOOK_EVERY`]: where nothing is new, nothing is written.
    fn look(&mut self) -> Option<()> {
        let (session, stream) = self.app.engine.look(self.id)?;
        let seen = (rounded(session), rounded_stream(stream));
        if self.seen.as_ref() == Some(&seen) {
            return Some(());
        }
        let (session, stream) = &seen;
        let live = stream.live;
        self.tell("status", status(session, live));
        self.tell("viewercount", json!({ "viewercount": stream.viewers }));
        self.tell("layers", layers(stream));
        let audio = json!({ "tracks": audio_json(stream.audio.iter()) });
        self.tell("audio", audio);
        let plays = live && session.why != Why::NoCommonCodec;
        let event = if plays { "active" } else { "inactive" };
        self.was_active |= plays;
        // "MUST NOT send an initial inactive event" (draft-ietf-wish-whep-03, section 4.9.1.2).
        if self.was_active && self.tell(event, json!({})) {
            self.told
                .retain(|(name, _)| *name == event || !matches!(*name, "active" | "inactive"));
        }
        self.seen = Some(seen);
        Some(())
    }

    /// Queues an event unless it was told already. What is queued last goes first.
    fn tell(&mut self, name: &'static str, content: Value) -> bool {
        if self.left_out.contains(&name) {
            return false;
        }
        let event = Event::default().event(name).data(content.to_string());
        match self.told.iter_mut().find(|(n, _)| *n == name) {
            Some((_, before)) if *before == content => return false,
            Some((_, before)) => *before = content,
            None => self.told.push((name, content)),
        }
        self.waiting.push(event);
        true
    }
}

/// What is told of a session. Figures are rounded, so that only real changes are, and what is not told is left out.
fn rounded(session: SessionInfo) -> SessionInfo {
    let step = 10_000;
    SessionInfo {
        estimate: session.estimate.map(|e| e / step * step),
        loss: session.loss.map(|l| (l * 1_000.0).round() / 1_000.0),
        rtt: session
            .rtt
            .map(|rtt| Duration::from_millis(rtt.as_millis() as u64)),
        packets_sent: 0,
        bytes_sent: 0,
        retransmitted: 0,
        keyframe_requests: 0,
        too_large: 0,
        latency: None,
        ..session
    }
}

/// The same of its stream.
fn rounded_stream(mut stream: StreamLook) -> StreamLook {
    let step = 100_000;
    for layer in &mut stream.layers {
        layer.bitrate = layer.bitrate.map(|b| b / step * step);
    }
    stream
}

/// What the page shows of the session.
fn status(session: &SessionInfo, live: bool) -> Value {
    json!({
        "live": live,
        "layer": layer_json(session),
        "estimate": session.estimate,
        "loss": session.loss,
        "rtt_ms": session.rtt.map(|rtt| rtt.as_millis() as u64),
    })
}

/// The event `layers` of the draft: one media, whose layers are encodings.
fn layers(stream: &StreamLook) -> Value {
    let layers = || stream.layers.iter().enumerate();
    let figures = |(index, layer): (usize, &sfu_engine::LayerStatus)| {
        json!({
            "id": layer.rid.as_str(),
            "encodingId": layer.rid.as_str(),
            "simulcastIdx": index,
            "bitrate": layer.bitrate,
            "width": layer.width,
            "height": layer.height,
            "temporalLayers": layer.temporal_layers,
        })
    };
    let of = |active: bool| -> Vec<Value> {
        layers()
            .filter(|(_, l)| l.active == active)
            .map(figures)
            .collect()
    };
    json!({ "medias": { "0": {
        "active": of(true),
        "inactive": of(false),
        "layers": layers().map(figures).collect::<Vec<_>>(),
    } } })
}
