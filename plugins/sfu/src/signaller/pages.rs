// SPDX-License-Identifier: MPL-2.0

//! The web pages, embedded in the plugin.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use sfu_engine::{NameError, StreamName};

use super::server::{App, Refusal};

const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

/// The pages load nothing from elsewhere and nobody else's page may frame them into something else.
const POLICY: &str = "default-src 'self'; media-src 'self' blob:; img-src 'self' data:; \
    base-uri 'none'; form-action 'none'";

macro_rules! web {
    ($file:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/", $file))
    };
}

const ASSETS: &[(&str, &str, &str)] = &[
    ("style.css", CSS, web!("style.css")),
    ("admin.css", CSS, web!("admin.css")),
    ("admin.js", JS, web!("admin.js")),
    ("plot.js", JS, web!("plot.js")),
    ("studio.css", CSS, web!("studio.css")),
    ("devices.js", JS, web!("devices.js")),
    ("guests.js", JS, web!("guests.js")),
    ("hls.js", JS, web!("hls.js")),
    ("list.js", JS, web!("list.js")),
    ("latency.js", JS, web!("latency.js")),
    ("live.js", JS, web!("live.js")),
    ("logo.js", JS, web!("logo.js")),
    ("mixer.js", JS, web!("mixer.js")),
    ("page.js", JS, web!("page.js")),
    ("player.js", JS, web!("player.js")),
    ("publisher.js", JS, web!("publisher.js")),
    ("packets.js", JS, web!("packets.js")),
    ("chat.js", JS, web!("chat.js")),
    ("room.css", CSS, web!("room.css")),
    ("room.js", JS, web!("room.js")),
    ("room-client.js", JS, web!("room-client.js")),
    ("tiles.js", JS, web!("tiles.js")),
    ("recordings.js", JS, web!("recordings.js")),
    ("recording.js", JS, web!("recording.js")),
    ("sender.js", JS, web!("sender.js")),
    ("settings.js", JS, web!("settings.js")),
    ("signalling.js", JS, web!("signalling.js")),
    ("sound.js", JS, web!("sound.js")),
    ("studio.js", JS, web!("studio.js")),
    ("ticker.js", JS, web!("ticker.js")),
];

/// `GET /`
pub(super) async fn index() -> Response {
    html(web!("index.html"))
}

/// `GET /admin`: what it shows it asks for, and who may not gets nothing.
pub(super) async fn admin() -> Response {
    html(web!("admin.html"))
}

/// `GET /robots.txt`: what there is to see is for whoever has its address.
pub(super) async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /\n"
}

/// `GET /hls/{stream}`
pub(super) fn hls(stream: &str, uri: &Uri) -> Result<Response, Refusal> {
    page("/hls/", stream, uri, web!("hls.html"))
}

/// `GET /publish/{stream}`
pub(super) async fn publisher(Path(stream): Path<String>, uri: Uri) -> Result<Response, Refusal> {
    page("/publish/", &stream, &uri, web!("publisher.html"))
}

/// `GET /recordings`, `GET /recordings/play/{file}`
pub(super) fn recordings(play: bool) -> Response {
    match play {
        true => html(web!("recording.html")),
        false => html(web!("recordings.html")),
    }
}

/// `GET /room/{stream}`
pub(super) async fn room(Path(stream): Path<String>, uri: Uri) -> Result<Response, Refusal> {
    page("/room/", &stream, &uri, web!("room.html"))
}

/// `GET /studio/{stream}`
pub(super) async fn studio(Path(stream): Path<String>, uri: Uri) -> Result<Response, Refusal> {
    page("/studio/", &stream, &uri, web!("studio.html"))
}

/// `GET /{stream}`, and whatever else is asked for.
pub(super) async fn player(method: Method, uri: Uri) -> Result<Response, Refusal> {
    if method != Method::GET && method != Method::HEAD {
        if uri.path().contains("//") {
            let message = "a part of this path is empty: it has two slashes one after the other, such as //whep/STREAM for /whep/STREAM";
            return Err(Refusal::new(StatusCode::NOT_FOUND, message));
        }
        let message =
            "this address only answers GET; WHIP is at /whip/STREAM, and WHEP at /whep/STREAM";
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message);
        return Err(refusal.with(header::ALLOW, "GET, HEAD"));
    }
    match uri.path() {
        "/admin/" => Ok(lead("/", "admin", &uri)),
        "/recordings/" => Ok(lead("/", "recordings", &uri)),
        path => page("/", path.trim_start_matches('/'), &uri, web!("player.html")),
    }
}

/// A page of a stream, which need not be live: the page waits. It reads the name in its address, so one that is written in
/// another way, with a slash at the end or encoded ones, is led to the plain one.
fn page(prefix: &str, stream: &str, uri: &Uri, content: &'static str) -> Result<Response, Refusal> {
    let decoded = stream.replace("%2F", "/").replace("%2f", "/");
    let plain = decoded.strip_suffix('/').unwrap_or(&decoded);
    let name: StreamName = plain
        .parse()
        .map_err(|error: NameError| Refusal::new(StatusCode::NOT_FOUND, error.to_string()))?;
    match uri.path().strip_prefix(prefix) {
        Some(path) if path == name.as_str() => Ok(html(content)),
        _ => Ok(lead(prefix, name.as_str(), uri)),
    }
}

/// Leads to another path of this server, with what stood behind the first one: a token.
fn lead(prefix: &str, name: &str, uri: &Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}"));
    let to = format!("{prefix}{name}{}", query.unwrap_or_default());
    Redirect::permanent(&to).into_response()
}

fn html(content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// Whether pages have to ask for ICE servers before they offer: without any that would cost them a round trip.
const ICE: &str = "ice.js";

fn ice(has_servers: bool) -> Response {
    let content = format!("export const hasServers = {has_servers};\n");
    let headers = [
        (header::CONTENT_TYPE, JS),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content).into_response()
}

/// `GET /assets/{file}`
pub(super) async fn asset(
    State(app): State<App>,
    Path(file): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    if file == ICE {
        return Ok(ice(!app.ice_servers.is_empty()));
    }
    let found = ASSETS.iter().find(|(name, _, _)| *name == file);
    let Some((_, content_type, content)) = found else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such file"));
    };
    // A new build is a new version.
    let etag = concat!(
        "\"",
        env!("CARGO_PKG_VERSION"),
        "-",
        env!("COMMIT_ID"),
        "-",
        env!("BUILD_REL_DATE"),
        "\""
    );
    let same = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|tag| tag == etag);
    let common = [(header::ETAG, etag), (header::CACHE_CONTROL, "no-cache")];
    if same {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    let content_type = [(header::CONTENT_TYPE, *content_type)];
    Ok((common, content_type, *content).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_address_on_this_server() {
        for (prefix, name, uri, to) in [
            ("/", "cam1/", "/cam1/?token=a%2Bb", "/cam1?token=a%2Bb"),
            ("/", "evil.example/", "//evil.example/", "/evil.example"),
            ("/", "cam1", "//cam1", "/cam1"),
            ("/studio/", "a/b/", "/studio/a/b/", "/studio/a/b"),
            ("/", "a%2Fb", "/a%2Fb?token=c", "/a/b?token=c"),
            ("/", "a%2fb/", "/a%2fb/", "/a/b"),
            // As axum has decoded it.
            ("/publish/", "a/b", "/publish/a%2Fb", "/publish/a/b"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let led = page(prefix, name, &uri, "").unwrap();
            assert_eq!(led.status(), StatusCode::PERMANENT_REDIRECT, "{uri}");
            assert_eq!(led.headers()[header::LOCATION], to, "{uri}");
        }
        for name in [
            "", "/", "a//", "a b/", "/a/", "a%20b", "%2Fa", "..%2Fa", "a%252Fb",
        ] {
            let uri = Uri::from_static("/");
            let refusal = page("/", name, &uri, "").unwrap_err();
            assert!(refusal.message().contains("is not valid"), "{name:?}");
        }
        for name in ["whip/", "whip%2Fx", "favicon.ico", "robots.txt/"] {
            let refusal = page("/", name, &Uri::from_static("/"), "").unwrap_err();
            assert!(refusal.message().contains("reserved word"), "{name:?}");
        }
        let led = page("/", "cam1", &Uri::from_static("/cam1"), "").unwrap();
        assert_eq!(led.status(), StatusCode::OK);
    }
}
