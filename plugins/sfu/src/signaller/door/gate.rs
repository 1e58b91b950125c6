// SPDX-License-Identifier: MPL-2.0

//! What stands before each handler. In this order: is it us who is asked, may that page ask, may whoever it is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::RequestExt;
use axum::extract::{Path, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sfu_access::{Action, Outcome, Refused, Visitor, Want, Ways};

use super::credential::Shown;
use super::names::Host;
use super::origins::{Origins, Page, Share};
use super::{Pass, want};
use crate::signaller::CAT;
use crate::signaller::connections::Connection;
use crate::signaller::hls;
use crate::signaller::routes::Route;
use crate::signaller::server::{App, Refusal};
use crate::signaller::sessions::{self, PublishQuery};

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::signaller) enum Rule {
    /// Everyone: pages, which are the same for all and hold nothing, and whether the server runs.
    Open,
    /// A page that other sites may frame: it plays a stream.
    Player,
    /// Who knows the session's address, which is secret.
    Session,
    /// Who may play the stream that the path names.
    Watch,
    /// Who may publish it, and take it over where the query says so.
    Publish,
    /// Who may play it: a file of HLS, or has a segment's token; the page is for everyone.
    Hls,
    /// Who may play it: what is told of it.
    Stream,
    /// Everyone is told of the streams that he may play.
    Streams,
    /// Who may play the stream that the query names; without one everyone.
    Health,
    /// Who may see recordings of any stream is told of those.
    Recordings,
    /// Who may see recordings of the stream that the file is of.
    Recording,
    /// Who may read metrics.
    Metrics,
    /// Who has a token that one of the rooms' own keys has signed: its handler looks.
    Room,
    /// Everyone speaks: what may be published and played is looked at as it is asked for.
    Peers,
    /// Who may play the stream of the room's name: he looks on and listens. Who may publish it takes part.
    Enter,
    /// Who may see and change everything.
    Api,
}

impl Rule {
    pub(super) fn share(self) -> Share {
        match self {
            Self::Player | Self::Session | Self::Watch | Self::Hls | Self::Room => Share::All,
            _ => Share::Ours,
        }
    }

    /// Pages that lead here hand nothing over, and can't read what they get.
    fn is_for_any_page(self) -> bool {
        matches!(self, Self::Open | Self::Player | Self::Health)
    }
}

/// What a request needs.
enum Needs {
    All(Vec<Want>),
    /// All of the first ones, or else the others: it does as much as it may.
    Most(Vec<Want>, Vec<Want>),
    /// One of any stream.
    Any(Action),
    /// What it may do is looked up part by part.
    Parts,
}

/// See the module's description.
pub(in crate::signaller) async fn gate(
    State((app, route)): State<(App, &'static Route)>,
    mut request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let share = route.rule.share();
    let (parts, body) = request.into_parts();
    let came = Came::of(&app, route, &parts);
    let origin = parts.headers.get(header::ORIGIN).cloned();
    let page = came.page;
    let mut response = if !app.door.names.is_answered(came.host.as_ref()) {
        app.measures.refused("host");
        let message =
            "this server does not go by that name: server-names of sfusignaller tells its names";
        Refusal::new(StatusCode::MISDIRECTED_REQUEST, message).into_response()
    } else if parts.method == Method::OPTIONS {
        options(&app, route, &parts, &came).await
    } else if !app.door.origins.allow(page, share) && !route.rule.is_for_any_page() {
        app.measures.refused("origin");
        let message = "a page of another site may not ask for this: allowed-origins of sfusignaller names those that may";
        Refusal::new(StatusCode::FORBIDDEN, message).into_response()
    } else if let Some(elsewhere) = app.drain.turn_away(route.rule, &parts.method, &parts.uri) {
        app.measures.refused("draining");
        elsewhere
    } else {
        request = Request::from_parts(parts, body);
        match admit(&app, route, &mut request, &came).await {
            Ok(pass) => {
                request.extensions_mut().insert(pass);
                next.run(request).await
            }
            Err(refusal) => {
                let response = refusal.into_response();
                app.measures.refused(reason(response.status(), &came));
                response
            }
        }
    };
    app.door
        .origins
        .mark(response.headers_mut(), page, share, origin);
    if response
        .headers()
        .contains_key(header::CONTENT_SECURITY_POLICY)
    {
        frame(&app, response.headers_mut(), share);
    }
    app.measures.answered(route.path, began.elapsed());
    response
}

/// For what is counted.
fn reason(status: StatusCode, came: &Came) -> &'static str {
    match (status, came.shown.credential()) {
        (StatusCode::UNAUTHORIZED, None) => "nothing",
        (StatusCode::UNAUTHORIZED, Some(_)) => "credential",
        (StatusCode::FORBIDDEN, _) => "permission",
        _ => "later",
    }
}

/// Where a request comes from.
struct Came {
    host: Option<Host>,
    page: Page,
    local: bool,
    shown: Shown,
    address: Option<std::net::IpAddr>,
    /// As a webhook is told it.
    protocol: &'static str,
}

impl Came {
    fn of(app: &App, route: &Route, parts: &Parts) -> Self {
        let connection = parts.extensions.get::<Arc<Connection>>();
        let peer = connection.map(|c| c.peer().ip().to_canonical());
        let by_proxy = peer.is_some_and(|peer| app.proxies.trusts(peer));
        let host = Host::of(parts, by_proxy);
        let page = app.door.origins.page(parts, host.as_ref());
        let local = peer.is_some_and(|peer| peer.is_loopback())
            && !by_proxy
            && !is_handed_on(parts)
            && host.as_ref().is_some_and(Host::is_local)
            && page == Page::Ours;
        Self {
            page,
            local,
            shown: Shown::of(&parts.headers, &parts.uri),
            address: peer.map(|peer| app.proxies.client(peer, &parts.headers)),
            protocol: match route.rule {
                Rule::Hls => "hls",
                _ => "webrtc",
            },
            host,
        }
    }

    fn visitor(&self, app: &App) -> Visitor<'_> {
        let host = self.host.as_ref();
        Visitor {
            address: self.address,
            local: self.local,
            // The rights of an address are its own, not those of a page that it happens to look at.
            named: host.is_some_and(|host| app.door.names.is_ours(host))
                && self.page != Page::Foreign,
            credential: self.shown.credential(),
            protocol: self.protocol,
        }
    }
}

/// Whether a proxy says that it stands before somebody: then nobody is on this machine. nginx with nothing but `proxy_pass` says
/// so only by HTTP/1.0, which browsers, `curl` and Prometheus left behind.
fn is_handed_on(parts: &Parts) -> bool {
    let says_so = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "via" | "x-real-ip")
    };
    parts.version < Version::HTTP_11 || parts.headers.keys().any(says_so)
}

async fn admit(
    app: &App,
    route: &Route,
    request: &mut Request,
    came: &Came,
) -> Result<Pass, Refusal> {
    if matches!(route.rule, Rule::Recording) && !app.door.access.asks() {
        // Who may see none has no file opened to learn whose it is. A server is asked of single streams alone.
        meet(app, route, came, Needs::Any(Action::Record)).await?;
    }
    let needs = needs(app, route, request, &came.shown).await;
    meet(app, route, came, needs).await
}

/// Lets in whom the needs are met of.
async fn meet(app: &App, route: &Route, came: &Came, needs: Needs) -> Result<Pass, Refusal> {
    let what = what(&needs);
    let refuse = |why: Refused| {
        gst::debug!(CAT, "{} is refused: {why}", route.path);
        refusal(why, &what, app.door.access.ways())
    };
    let token = came.shown.token.as_deref().map(Arc::from);
    let door = &app.door;
    // More than once: a password may have to be hashed, and a server asked.
    for _ in 0..3 {
        let visitor = came.visitor(app);
        let now = SystemTime::now();
        let outcome = match &needs {
            Needs::All(wants) => door.access.check(&visitor, wants, now),
            Needs::Most(most, least) => door.access.check_most(&visitor, most, least, now),
            Needs::Any(_) | Needs::Parts => door.access.recognized(&visitor, now),
        };
        match outcome {
            Outcome::Refused(why) => return Err(refuse(why)),
            Outcome::Hash(job) => {
                let (done, hashed) = tokio::sync::oneshot::channel();
                door.access
                    .hash(job, move || done.send(()).unwrap_or_default())
                    .map_err(refuse)?;
                let _ = hashed.await;
            }
            Outcome::Allowed(proof) => {
                if let Needs::Any(action) = needs
                    && !door.access.rights(&proof, now).has(action)
                {
                    let good = match visitor.credential {
                        None => Refused::Nothing,
                        Some(_) => Refused::NotThis,
                    };
                    return Err(refuse(door.access.unknown(&visitor, now).unwrap_or(good)));
                }
                let wants = match needs {
                    Needs::All(wants) | Needs::Most(_, wants) => wants,
                    Needs::Any(_) | Needs::Parts => Vec::new(),
                };
                return Ok(Pass {
                    // One that nobody needs is handed on to nobody.
                    token: token.filter(|_| proof.has_shown()),
                    proof,
                    wants: wants.into(),
                });
            }
        }
    }
    Err(refuse(Refused::Busy))
}

/// What a route asks of a request.
async fn needs(app: &App, route: &Route, request: &mut Request, shown: &Shown) -> Needs {
    // As the handler reads it; what it can't read it refuses itself.
    let path = request.extract_parts::<Path<String>>().await;
    let path = path.map(|Path(path)| path).unwrap_or_default();
    let play = |stream: &str| Needs::All(vec![want(Action::Play, stream)]);
    let server = |action| {
        Needs::All(vec![Want {
            action,
            stream: None,
        }])
    };
    match route.rule {
        Rule::Open | Rule::Player | Rule::Session | Rule::Room => Needs::All(Vec::new()),
        Rule::Watch | Rule::Stream => play(&path),
        Rule::Enter => enters(&path),
        Rule::Publish => {
            let mut wants = vec![want(Action::Publish, &path)];
            let query = Query::<PublishQuery>::try_from_uri(request.uri());
            if query.is_ok_and(|Query(query)| query.is_takeover()) {
                wants.push(want(Action::Takeover, &path));
            }
            Needs::All(wants)
        }
        Rule::Hls => match hls::stream_of(&path) {
            None => Needs::All(Vec::new()),
            Some((stream, file)) => {
                let is_good = |token: &str| {
                    let stream = stream.as_str();
                    app.door
                        .access
                        .is_segment_token(stream, token, SystemTime::now())
                };
                let is_segment = file.ends_with(".ts");
                match is_segment && shown.token.as_deref().is_some_and(is_good) {
                    true => Needs::All(Vec::new()),
                    false => play(stream.as_str()),
                }
            }
        },
        Rule::Streams | Rule::Peers => Needs::Parts,
        Rule::Health => {
            let query = Query::<crate::signaller::api::HealthQuery>::try_from_uri(request.uri());
            let stream = query.ok().and_then(|Query(query)| query.stream);
            stream.map_or_else(|| Needs::All(Vec::new()), |stream| play(&stream))
        }
        Rule::Recordings => Needs::Any(Action::Record),
        Rule::Recording => {
            // What is none is of no stream: only who may see all of them is told so.
            let stream = crate::signaller::recordings::stream_of(app, &path).await;
            Needs::All(vec![Want {
                action: Action::Record,
                stream,
            }])
        }
        Rule::Metrics => server(Action::Metrics),
        Rule::Api => server(Action::Api),
    }
}

/// Where everybody may look on, what a token is for has to be looked at all the same.
fn enters(room: &str) -> Needs {
    let least = want(Action::Play, room);
    let most = vec![least.clone(), want(Action::Publish, room)];
    Needs::Most(most, vec![least])
}

/// A name that is none is not repeated.
fn named(stream: Option<&str>) -> &str {
    let stream = stream.filter(|name| name.parse::<sfu_engine::StreamName>().is_ok());
    stream.unwrap_or("streams")
}

/// For the sentence that refuses.
fn what(needs: &Needs) -> String {
    let (action, stream) = match needs {
        Needs::All(wants) => match wants.last() {
            Some(want) => (want.action, want.stream.as_deref()),
            None => return "this".to_owned(),
        },
        Needs::Most(most, _) => match most.first() {
            Some(want) => return format!("entering {}", named(want.stream.as_deref())),
            None => return "this".to_owned(),
        },
        Needs::Any(action) => (*action, None),
        Needs::Parts => return "this".to_owned(),
    };
    let stream = named(stream);
    match action {
        Action::Publish => format!("publishing {stream}"),
        Action::Play => format!("playing {stream}"),
        Action::Takeover => format!("taking over {stream}"),
        Action::Record => format!("seeing recordings of {stream}"),
        Action::Api => "the API".to_owned(),
        Action::Metrics => "reading metrics".to_owned(),
    }
}

/// The answer to who may not.
pub(super) fn refusal(why: Refused, what: &str, ways: Ways) -> Refusal {
    let (status, message) = match why {
        Refused::Nothing => (
            StatusCode::UNAUTHORIZED,
            format!("{what} {}", ways.advice()),
        ),
        Refused::Token(_) | Refused::Revoked | Refused::Unknown => {
            (StatusCode::UNAUTHORIZED, format!("{what}: {why}"))
        }
        Refused::NotThis => (StatusCode::FORBIDDEN, format!("{what}: {why}")),
        Refused::Later(_) => (StatusCode::TOO_MANY_REQUESTS, format!("{what}: {why}")),
        Refused::Busy | Refused::Silent => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{what}: {why}"))
        }
    };
    let refusal = Refusal::new(status, message);
    match why {
        Refused::Later(after) => refusal.with(header::RETRY_AFTER, seconds(after)),
        Refused::Busy | Refused::Silent => refusal.with(header::RETRY_AFTER, "1"),
        Refused::NotThis => refusal,
        Refused::Nothing | Refused::Token(_) | Refused::Revoked | Refused::Unknown => {
            challenged(refusal, ways)
        }
    }
}

/// A field for each scheme: FFmpeg and others look for theirs at its beginning alone. Where Basic is named browsers ask for a
/// name and a password.
fn challenged(refusal: Refusal, ways: Ways) -> Refusal {
    let refusal = refusal.with(header::WWW_AUTHENTICATE, r#"Bearer realm="sfu""#);
    match ways.passwords {
        true => refusal.with(
            header::WWW_AUTHENTICATE,
            r#"Basic realm="sfu", charset="UTF-8""#,
        ),
        false => refusal,
    }
}

/// Of the pauses that there are.
fn seconds(pause: Duration) -> &'static str {
    match pause.as_secs() {
        0..2 => "2",
        2..8 => "8",
        8..30 => "30",
        _ => "60",
    }
}

/// `OPTIONS`, also what browsers ask before they send anything from another page (CORS): it needs no token, and does
/// nothing.
async fn options(app: &App, route: &Route, parts: &Parts, came: &Came) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(route.methods));
    let asked = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if app.door.origins.allow(came.page, route.rule.share()) {
        Origins::preflight(headers, route.methods, asked.cloned(), came.page);
    }
    if matches!(route.rule, Rule::Watch | Rule::Publish) {
        let accept = HeaderName::from_static("accept-post");
        headers.insert(accept, HeaderValue::from_static(sessions::SDP));
        // TURN servers come with a password.
        let mut request = Request::from_parts(parts.clone(), axum::body::Body::empty());
        if !app.ice_servers.is_empty()
            && app.door.origins.allow(came.page, route.rule.share())
            && let Ok(pass) = admit(app, route, &mut request, came).await
        {
            // The session is to come.
            let mut name = [0; 4];
            let _ = aws_lc_rs::rand::fill(&mut name);
            let name = format!("{:08x}", u32::from_be_bytes(name));
            let (until, now) = (pass.proof.ends(), SystemTime::now());
            app.ice_servers.append(headers, &name, until, now);
        }
    }
    response
}

/// Who may put a page of ours into one of theirs.
fn frame(app: &App, headers: &mut HeaderMap, share: Share) {
    let ancestors = app.door.origins.ancestors(share);
    let policy = headers
        .get(header::CONTENT_SECURITY_POLICY)
        .and_then(|p| p.to_str().ok());
    let policy = policy.map(|policy| format!("{policy}; frame-ancestors {ancestors}"));
    if let Some(policy) = policy.and_then(|p| HeaderValue::try_from(p).ok()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}
