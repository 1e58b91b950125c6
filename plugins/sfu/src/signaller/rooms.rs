// SPDX-License-Identifier: MPL-2.0

//! Rooms by LiveKit's client protocol: `/rtc` (v0) and `/rtc/v1` are its WebSockets, `/rtc/validate` and `/rtc/v1/validate` tell a
//! browser, which can't see why a WebSocket was refused, what it would have been told.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sfu_engine::{Engine, NameError, StreamName};
use sfu_rooms::proto::{Codec, IceServer};
use sfu_rooms::wire::Frame;
use sfu_rooms::{Config, Connection, Hello, Keys, Permit, Refused};
use sfu_rooms_host::{Host, ToClient};
use tokio::sync::{mpsc, oneshot};

use super::CAT;
use super::address::Client;
use super::server::{App, Refusal};
use super::tell::RoomWebhooks;
use super::turn::IceServers;
use super::websocket::{Message, Socket, Upgrade};

/// What a client is told may wait for it: who has more of it waiting comes back by another connection, and is told anew.
const WAITING: usize = 512;
/// Octets of it, where it is not one message alone. Who joins is told of all participants, which is 2 MiB of metadata at most, and
/// of more before it has read that.
const WAITING_OCTETS: usize = 8 * 1024 * 1024;
/// An empty room is kept so long, for who comes back.
const EMPTY: Duration = Duration::from_secs(20);
/// Between two looks whether the rooms' thread has caught up.
const CATCH_UP: Duration = Duration::from_millis(10);
/// A file that holds more than keys is none.
const KEYS_MAX: u64 = 64 * 1024;
/// What can be published.
const CODECS: [&str; 6] = [
    "audio/opus",
    "audio/red",
    "video/VP8",
    "video/H264",
    "video/VP9",
    "video/AV1",
];

type Asked = Vec<(String, String)>;

/// By the properties `api-keys` and `api-keys-file`. `None`: there are no rooms.
pub(super) fn keys(keys: &str, file: &str) -> Result<Option<Keys>, String> {
    let mut all = keys.to_owned();
    if !file.is_empty() {
        let read =
            read_keys(Path::new(file)).map_err(|why| format!("api-keys-file: {file}: {why}"))?;
        all.push(',');
        all.push_str(&read);
    }
    let keys: Keys = all.parse().map_err(|why| format!("api-keys: {why}"))?;
    Ok((!keys.is_empty()).then_some(keys))
}

/// By the property `room-streams`: `ROOM=STREAM`, several with commas between; without `ROOM=` it is the room before.
pub(super) fn streams(text: &str) -> Result<Vec<(String, StreamName)>, String> {
    let mut streams = Vec::new();
    let mut room = None;
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let stream = match entry.rsplit_once('=') {
            Some((named, stream)) => {
                room = Some(named.trim()).filter(|name| !name.is_empty());
                stream.trim()
            }
            None => entry,
        };
        let wrong = |why: String| format!("room-streams: {entry:?}: {why}");
        let room = room.ok_or_else(|| wrong("it is written ROOM=STREAM".into()))?;
        if room.len() > sfu_rooms::Limits::default().name {
            return Err(wrong("the room's name is too long".into()));
        }
        let stream = stream
            .parse()
            .map_err(|why: NameError| wrong(why.to_string()))?;
        streams.push((room.to_owned(), stream));
    }
    Ok(streams)
}

/// Lets these take part instead of those. What the API has added stays.
pub(super) fn follow_streams(
    host: Option<&Host>,
    before: &[(String, StreamName)],
    now: &[(String, StreamName)],
) -> Result<(), String> {
    let Some(host) = host else {
        return match now {
            [] => Ok(()),
            _ => Err(format!("room-streams: {}", no_rooms().reason)),
        };
    };
    for (room, stream) in before.iter().filter(|one| !now.contains(one)) {
        host.remove_stream(room, stream);
    }
    for (room, stream) in now {
        if host.add_stream(room, stream).is_none() {
            return Err("room-streams: there are too many streams in rooms".into());
        }
    }
    Ok(())
}

/// A key on each line, or several with commas between.
fn read_keys(file: &Path) -> Result<String, String> {
    let metadata = std::fs::metadata(file).map_err(|e| e.to_string())?;
    if !metadata.is_file() || metadata.len() > KEYS_MAX {
        return Err("it is no file with keys".into());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err("others may read it: chmod 600".into());
        }
    }
    let text = sfu_access::read_text(file).map_err(|e| e.to_string())?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.collect::<Vec<_>>().join(","))
}

/// Begins with no rooms.
pub(super) fn start(
    engine: Arc<Engine>,
    keys: Keys,
    ice_servers: Arc<IceServers>,
    last_n: usize,
    webhooks: Arc<RoomWebhooks>,
) -> Result<Host, String> {
    let codec = |mime: &str| Codec {
        mime: mime.to_owned(),
        ..Codec::default()
    };
    let config = Config {
        codecs: CODECS.map(codec).into(),
        empty_timeout: EMPTY,
        last_n,
        events: webhooks.is_wanted(),
        ..Config::default()
    };
    let servers = move |name: &str| {
        let all = ice_servers.all(name, None, SystemTime::now());
        let servers = all.map(|server| IceServer {
            urls: vec![server.url],
            username: server.user,
            credential: server.credential,
        });
        servers.collect()
    };
    let tell = move |event| webhooks.tell(event);
    let host = Host::start(engine, keys, config, Box::new(servers), Box::new(tell));
    host.map_err(|e| format!("the rooms' thread can't be started: {e}"))
}

/// How a client says what it is.
#[derive(Clone, Copy)]
enum Version {
    /// In many parameters.
    V0,
    /// In one message, and has one connection.
    V1,
}

/// `GET /rtc`
pub(super) async fn join(
    State(app): State<App>,
    Client(peer): Client,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    upgrade: Result<Upgrade, Refusal>,
) -> Response {
    join_by(Version::V0, &app, peer, &asked, &headers, upgrade).await
}

/// `GET /rtc/v1`
pub(super) async fn join_v1(
    State(app): State<App>,
    Client(peer): Client,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    upgrade: Result<Upgrade, Refusal>,
) -> Response {
    join_by(Version::V1, &app, peer, &asked, &headers, upgrade).await
}

async fn join_by(
    version: Version,
    app: &App,
    peer: Option<IpAddr>,
    asked: &Asked,
    headers: &HeaderMap,
    upgrade: Result<Upgrade, Refusal>,
) -> Response {
    let (host, permit, hello) = match admit(version, app, asked, headers) {
        Ok(admitted) => admitted,
        Err(refused) => return refusal(&refused),
    };
    // Who is let in, and does not speak WebSocket.
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal.into_response(),
    };
    let (said, told) = to_client();
    let guest = match enter(&host, permit, hello, peer, said).await {
        Ok(guest) => guest,
        Err(refused) => return refusal(&refused),
    };
    upgrade.begin(host.largest_message(), move |socket| {
        talk(socket, guest, told)
    })
}

/// `GET /rtc/validate`
pub(super) async fn validate(
    State(app): State<App>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    validate_by(Version::V0, &app, &asked, &headers).await
}

/// `GET /rtc/v1/validate`
pub(super) async fn validate_v1(
    State(app): State<App>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    validate_by(Version::V1, &app, &asked, &headers).await
}

/// Browsers ask here why a connection was refused: the answer is that of the join.
async fn validate_by(version: Version, app: &App, asked: &Asked, headers: &HeaderMap) -> Response {
    let outcome = match admit(version, app, asked, headers) {
        // Who comes back has its place.
        Ok((_, _, hello)) if hello.resumes.is_some() => Ok(()),
        Ok((host, permit, _)) => ask(&host, permit).await,
        Err(refused) => Err(refused),
    };
    match outcome {
        Ok(()) => "success".into_response(),
        Err(refused) => refusal(&refused),
    }
}

async fn ask(host: &Host, permit: Permit) -> Result<(), Refused> {
    let (done, admitted) = oneshot::channel();
    // Who asked may be gone.
    let tell = Box::new(move |outcome| drop(done.send(outcome)));
    host.ask(permit, tell);
    admitted.await.map_err(|_| stopping())?
}

fn stopping() -> Refused {
    Refused {
        status: 503,
        reason: "the server is stopping".into(),
    }
}

/// Whether a token lets in.
fn admit(
    version: Version,
    app: &App,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<(Arc<Host>, Permit, Hello), Refused> {
    let Some(host) = &app.rooms else {
        return Err(no_rooms());
    };
    if app.drain.is_on() {
        app.measures.refused("draining");
        return Err(Refused {
            status: 503,
            reason: "this server is about to end and takes nobody any more".into(),
        });
    }
    let bearer = bearer(headers);
    let in_query = asked.iter().find(|(key, _)| key == "access_token");
    let token = in_query.map(|(_, token)| token.as_str()).or(bearer);
    let permit = host.permit(token.unwrap_or_default());
    let query = asked.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let admitted = permit.and_then(|permit| {
        let hello = match version {
            Version::V0 => Hello::from_query(query)?,
            Version::V1 => host.hello(query)?,
        };
        Ok((permit, hello))
    });
    match admitted {
        Ok((permit, hello)) => Ok((host.clone(), permit, hello)),
        Err(refused) => {
            let reason = if token.is_some() {
                "credential"
            } else {
                "nothing"
            };
            app.measures.refused(reason);
            Err(refused)
        }
    }
}

pub(super) fn no_rooms() -> Refused {
    Refused {
        status: 404,
        reason: "this server has no rooms: api-keys of sfusignaller opens them".into(),
    }
}

/// The token in a request's header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let line = headers.get(header::AUTHORIZATION)?;
    line.to_str().ok()?.strip_prefix("Bearer ")
}

/// In the words that clients know.
pub(super) fn refusal(refused: &Refused) -> Response {
    let status = StatusCode::from_u16(refused.status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_for_now = status == StatusCode::SERVICE_UNAVAILABLE;
    let again = is_for_now.then_some([(header::RETRY_AFTER, "10")]);
    (status, again, refused.reason.clone()).into_response()
}

/// A connection of the rooms', for as long as its WebSocket is there or to come.
struct Guest {
    host: Arc<Host>,
    connection: Connection,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.host.closed(self.connection);
    }
}

/// What a client is told, on its way from the rooms' thread.
struct Said {
    sender: mpsc::Sender<ToClient>,
    octets: Arc<AtomicUsize>,
}

struct ToBeTold {
    receiver: mpsc::Receiver<ToClient>,
    octets: Arc<AtomicUsize>,
}

fn to_client() -> (Said, ToBeTold) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let octets = Arc::new(AtomicUsize::new(0));
    let said = Said {
        sender,
        octets: octets.clone(),
    };
    (said, ToBeTold { receiver, octets })
}

impl Said {
    /// `false`: so much waits already that there is no room for it.
    fn send(&self, what: ToClient) -> bool {
        let octets = octets(&what);
        let before = self.octets.fetch_add(octets, Relaxed);
        (before == 0 || before + octets <= WAITING_OCTETS) && self.sender.try_send(what).is_ok()
    }
}

impl ToBeTold {
    /// As [`mpsc::Receiver::recv`].
    async fn recv(&mut self) -> Option<ToClient> {
        let told = self.receiver.recv().await?;
        self.octets.fetch_sub(octets(&told), Relaxed);
        Some(told)
    }
}

fn octets(what: &ToClient) -> usize {
    match what {
        ToClient::Say(Frame::Binary(octets)) => octets.len(),
        ToClient::Say(Frame::Text(text)) => text.len(),
        ToClient::Close => 0,
    }
}

async fn enter(
    host: &Arc<Host>,
    permit: Permit,
    hello: Hello,
    peer: Option<IpAddr>,
    said: Said,
) -> Result<Guest, Refused> {
    let (done, joined) = oneshot::channel();
    let client = Box::new(move |what| said.send(what));
    let held = host.clone();
    let tell = Box::new(move |outcome: Result<Connection, Refused>| {
        let guest = outcome.map(|connection| Guest {
            host: held,
            connection,
        });
        // Who has given up meanwhile is gone with its guest.
        let _ = done.send(guest);
    });
    host.join(permit, hello, peer, client, tell);
    joined.await.map_err(|_| stopping())?
}

/// Until either side has enough.
async fn talk(mut socket: Socket, guest: Guest, mut told: ToBeTold) {
    socket.set_in_use(true);
    let (code, why) = loop {
        tokio::select! {
            told = told.recv() => match told {
                Some(ToClient::Say(frame)) => {
                    if socket.send(message(frame)).await.is_err() {
                        return;
                    }
                }
                Some(ToClient::Close) => break (1000, ""),
                // It was not read as fast as there was something to be told.
                None => break (1013, "too slow"),
            },
            said = socket.next(), if !guest.host.is_behind(guest.connection) => match said {
                Ok(said) => guest.host.say(guest.connection, frame(said)),
                Err(ended) => {
                    gst::debug!(CAT, "a room's connection ends: {ended:?}");
                    break ended.goodbye();
                }
            },
            () = tokio::time::sleep(CATCH_UP), if guest.host.is_behind(guest.connection) => {}
        }
    };
    drop(guest);
    socket.close(code, why).await;
}

fn message(frame: Frame) -> Message {
    match frame {
        Frame::Binary(octets) => Message::Binary(octets),
        Frame::Text(text) => Message::Text(text.into()),
    }
}

fn frame(message: Message) -> Frame {
    match message {
        Message::Binary(octets) => Frame::Binary(octets),
        Message::Text(text) => Frame::Text(text.as_str().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_for_a_client_is_bounded_in_messages_and_octets() {
        let say = |octets: usize| ToClient::Say(Frame::Binary(vec![0; octets].into()));
        for (octets, most) in [(10, WAITING), (64 * 1024, 128), (5 * 1024 * 1024, 1)] {
            let (said, mut told) = to_client();
            for round in 0..3 {
                let mut taken = 0;
                while said.send(say(octets)) {
                    taken += 1;
                }
                assert_eq!(taken, most, "{octets} octets, round {round}");
                // Who had no room is given up, so that a second one is not tried; what had room comes.
                let (next, mut waiting) = to_client();
                for _ in 0..taken {
                    assert_eq!(told.recv().await, Some(say(octets)));
                }
                assert!(next.send(say(octets)));
                assert_eq!(waiting.recv().await, Some(say(octets)));
                told.octets.store(0, Relaxed);
            }
        }
        // One that is larger than all that may wait is taken alone.
        let (said, mut told) = to_client();
        assert!(said.send(say(2 * WAITING_OCTETS)));
        assert!(!said.send(say(1)));
        told.recv().await.unwrap();
    }

    #[test]
    fn a_file_of_keys_may_begin_with_a_byte_order_mark() {
        use std::os::unix::fs::PermissionsExt;
        let file = std::env::temp_dir().join(format!("sfu-keys-{}", std::process::id()));
        std::fs::write(&file, "\u{feff}# rooms\r\n\r\nkey:secret\r\nother:secret").unwrap();
        let owners = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&file, owners).unwrap();
        assert_eq!(read_keys(&file).as_deref(), Ok("key:secret,other:secret"));
        std::fs::remove_file(&file).unwrap();
    }

    #[test]
    fn streams_are_of_the_room_that_was_named_last() {
        let read = |text: &str| {
            let all = streams(text).unwrap();
            let each = all.iter().map(|(room, stream)| format!("{room}>{stream}"));
            each.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(read(""), "");
        assert_eq!(read("show=cam1"), "show>cam1");
        assert_eq!(
            read("show=cam1, cam2/a,The other=one=cam1,"),
            "show>cam1 show>cam2/a The other=one>cam1"
        );
        let long = format!("{}=cam1", "x".repeat(300));
        for text in [
            "cam1",
            "=cam1",
            "show=",
            "show=a b",
            "show=../x",
            "show=a,whip/x",
            &long,
        ] {
            let why = streams(text).unwrap_err();
            assert!(why.contains("room-streams"), "{text}: {why}");
        }
    }

    #[test]
    fn keys_come_from_a_property_a_file_or_both() {
        let path = std::env::temp_dir().join(format!("sfu-keys-{}", std::process::id()));
        let write = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
        };
        let file = path.to_str().unwrap();
        assert!(keys("", "").unwrap().is_none());
        assert!(keys("a:b", "").unwrap().is_some());
        write("# ours\nc:d\n\ne:f,g:h\n", 0o600);
        let shown = format!("{:?}", keys("a:b", file).unwrap().unwrap());
        for name in ["\"a\"", "\"c\"", "\"e\"", "\"g\""] {
            assert!(shown.contains(name), "{shown}");
        }
        for secret in ["\"b\"", "\"d\"", "\"f\"", "\"h\""] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for (text, mode, words) in [
            ("c:d", 0o644, "chmod 600"),
            ("c:d", 0o640, "chmod 600"),
            ("c", 0o600, "KEY:SECRET"),
        ] {
            write(text, mode);
            let error = keys("", file).unwrap_err();
            assert!(
                error.contains(words) && error.contains("api-keys"),
                "{error}"
            );
        }
        let _ = std::fs::remove_file(&path);
        for file in ["/nowhere", "/dev/zero", "/"] {
            keys("", file).unwrap_err();
        }
    }
}
