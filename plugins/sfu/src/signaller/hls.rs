// SPDX-License-Identifier: MPL-2.0

//! HLS over HTTP: the files that `sfuhlssink` writes, and nothing else of the folder that they are in.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use axum::extract::{Path as UrlPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sfu_engine::StreamName;

use super::door::Pass;
use super::files;
use super::pages;
use super::server::{App, Refusal};

/// The multivariant playlist.
const MASTER: &str = "index.m3u8";
/// Playlists change with each segment, and are read again for that.
const PLAYLIST: (&str, &str) = ("application/vnd.apple.mpegurl", "no-cache");
/// One of ours has some kilobytes.
const LARGEST_PLAYLIST: u64 = 1024 * 1024;
/// A segment never changes, and its name is never used again.
const SEGMENT: (&str, &str) = ("video/mp2t", "public, max-age=31536000, immutable");

/// `GET /hls/{stream}/{file}`, and `GET /hls/{stream}`, which is a page that plays it.
pub(super) async fn file(
    State(app): State<App>,
    UrlPath(path): UrlPath<String>,
    pass: Pass,
    request: Request,
) -> Result<Response, Refusal> {
    let folder = app.hls.as_deref().ok_or_else(|| {
        not_found("HLS is off here: set hls-directory of sfusignaller to the folder that sfuhlssink writes to")
    })?;
    let Some((stream, file)) = stream_of(&path) else {
        return pages::hls(&path, request.uri())
            .map_err(|_| not_found("HLS is at /hls/STREAM/index.m3u8"));
    };
    let kind =
        kind(file).ok_or_else(|| not_found("there are .m3u8 and .ts files here, and no others"))?;
    let path = find(folder, &stream, file)
        .await
        .ok_or_else(|| missing(&stream, file))?;
    if kind == PLAYLIST
        && let Some(token) = pass.token
    {
        let text = read(&path).await.map_err(|_| missing(&stream, file))?;
        let segments = app
            .door
            .access
            .segment_token(stream.as_str(), SystemTime::now());
        let headers = [
            (header::CONTENT_TYPE, kind.0),
            (header::CACHE_CONTROL, "private, no-cache"),
        ];
        return Ok((headers, with_tokens(&text, &token, &segments)).into_response());
    }
    let served = app.files.serve(&path, request).await?;
    let mut response = served.map_err(|error| {
        let status = match error.kind() {
            std::io::ErrorKind::NotFound => return missing(&stream, file),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal::new(status, format!("the file can't be read: {error}"))
    })?;
    if response.status() == StatusCode::NOT_FOUND {
        return Err(missing(&stream, file));
    }
    let written = HeaderValue::from_static(kind.0);
    response.headers_mut().insert(header::CONTENT_TYPE, written);
    files::keep(&mut response, kind.1);
    Ok(response)
}

async fn read(path: &Path) -> std::io::Result<String> {
    if tokio::fs::metadata(path).await?.len() > LARGEST_PLAYLIST {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    tokio::fs::read_to_string(path).await
}

/// A playlist that was asked for with a token: it names playlists with the same one, which lasts as long as it does, and
/// segments with one that all viewers of the stream have in common, so that caches keep one copy. What is on other servers is
/// named as it was: the viewer's token is none of their business.
fn with_tokens(playlist: &str, token: &str, segments: &str) -> String {
    let named = |address: &str| {
        if !is_here(address) {
            return address.to_owned();
        }
        let (before, fragment) = match address.find('#') {
            Some(at) => address.split_at(at),
            None => (address, ""),
        };
        let (path, joint) = match before.split_once('?') {
            Some((path, _)) => (path, '&'),
            None => (before, '?'),
        };
        let token = if path.ends_with(".m3u8") {
            token
        } else {
            segments
        };
        format!("{before}{joint}token={}{fragment}", encoded(token))
    };
    let mut out = String::with_capacity(playlist.len() * 2);
    for line in playlist.lines() {
        match line
            .split_once("URI=\"")
            .and_then(|(before, rest)| Some((before, rest.split_once('"')?)))
        {
            Some((before, (address, after))) if line.starts_with('#') => {
                out.push_str(&format!("{before}URI=\"{}\"{after}", named(address)));
            }
            _ if line.starts_with('#') || line.trim().is_empty() => out.push_str(line),
            _ => out.push_str(&named(line.trim())),
        }
        out.push('\n');
    }
    out
}

/// Whether it is on this server whatever reads it: a relative reference (RFC 3986, 4.2) without an authority. Browsers take `\`
/// for `/` and leave blanks and control characters out, and variables (RFC 8216bis, 4.3) may become anything.
fn is_here(address: &str) -> bool {
    let path = address.trim_start();
    let first = path.split(['/', '\\', '?', '#']).next();
    let has_scheme = first.is_some_and(|first| first.contains(':'));
    let mut start = path.chars();
    let mut is_slash = || matches!(start.next(), Some('/' | '\\'));
    let has_authority = is_slash() && is_slash();
    let is_plain = !path.contains(char::is_control) && !path.contains("{$");
    is_plain && !has_scheme && !has_authority
}

/// As it may stand in a query.
fn encoded(text: &str) -> String {
    let octet = |b: u8| match b {
        b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
        b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(octet).collect()
}

/// Where a stream's multivariant playlist is on this server, if there is one.
pub(super) fn address(app: &App, stream: &StreamName) -> Option<String> {
    let folder = app.hls.as_deref()?;
    let written = folder.join(stream.as_str()).join(MASTER).is_file();
    written.then(|| format!("/hls/{stream}/{MASTER}"))
}

/// A file's type and how long caches may keep it.
fn kind(file: &str) -> Option<(&'static str, &'static str)> {
    let (name, extension) = file.rsplit_once('.')?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if name.is_empty() || !name.bytes().all(plain) {
        return None;
    }
    match extension {
        "m3u8" => Some(PLAYLIST),
        "ts" => Some(SEGMENT),
        _ => None,
    }
}

/// A stream's name and a file of it. Without a file the path is a stream's.
pub(super) fn stream_of(path: &str) -> Option<(StreamName, &str)> {
    let (stream, file) = path.rsplit_once('/')?;
    kind(file)?;
    Some((stream.parse().ok()?, file))
}

/// The file, if it is one and really in the folder, wherever links lead.
async fn find(folder: &Path, stream: &StreamName, file: &str) -> Option<PathBuf> {
    let path = folder.join(stream.as_str()).join(file);
    let root = tokio::fs::canonicalize(folder).await.ok()?;
    let path = tokio::fs::canonicalize(path).await.ok()?;
    path.starts_with(root).then_some(path)
}

fn not_found(message: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, message)
}

fn missing(stream: &StreamName, file: &str) -> Refusal {
    if file != MASTER {
        return not_found(
            "there is no such file; segments are removed a while after they left the playlists",
        );
    }
    let message = format!(
        "there is no HLS of {stream}, or not yet: it begins some seconds after the publisher, where a sfuhlssink \
         stream={stream} runs"
    );
    not_found(&message).with(header::RETRY_AFTER, "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playlists_hand_tokens_on() {
        let playlist = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a0.m3u8\",NAME=\"a\"\n#EXT-X-MAP:URI=\"i.mp4\"\n\
                        #EXTINF:2,\nv0-1.ts\n\nv0.m3u8\r\nv1.ts?a=1\n";
        let expected = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,URI=\"a0.m3u8?token=me%2B\",NAME=\"a\"\n\
                        #EXT-X-MAP:URI=\"i.mp4?token=all\"\n#EXTINF:2,\nv0-1.ts?token=all\n\nv0.m3u8?token=me%2B\n\
                        v1.ts?a=1&token=all\n";
        assert_eq!(with_tokens(playlist, "me+", "all"), expected);
        for (address, expected) in [
            ("/hls/a/v0.m3u8", "/hls/a/v0.m3u8?token=me"),
            ("../a/v0.m3u8", "../a/v0.m3u8?token=me"),
            ("v0.m3u8#at:1", "v0.m3u8?token=me#at:1"),
            ("v0.m3u8?a=1#at", "v0.m3u8?a=1&token=me#at"),
            ("v0.m3u8#?a=1", "v0.m3u8?token=me#?a=1"),
            ("v0.ts?of=b.m3u8", "v0.ts?of=b.m3u8&token=all"),
            ("v0.ts#b.m3u8", "v0.ts?token=all#b.m3u8"),
            ("v0.ts?at=1:2", "v0.ts?at=1:2&token=all"),
        ] {
            assert_eq!(with_tokens(address, "me", "all"), format!("{expected}\n"));
        }
    }

    #[test]
    fn no_other_server_is_told_a_token() {
        for address in [
            "https://cdn.example/v0.m3u8",
            "HTTP://cdn.example/v0.ts",
            "https:cdn.example/v0.ts",
            "//cdn.example/v0.m3u8",
            "///cdn.example/v0.m3u8",
            "/\\cdn.example/v0.m3u8",
            "\\\\cdn.example/v0.m3u8",
            "/\t/cdn.example/v0.m3u8",
            "{$cdn}/v0.m3u8",
            "/{$cdn}/v0.m3u8",
            "data:text/plain,v0.m3u8",
        ] {
            for line in [address.to_owned(), format!("#EXT-X-MAP:URI=\" {address}\"")] {
                assert_eq!(with_tokens(&line, "me", "all"), format!("{line}\n"));
            }
        }
    }

    #[test]
    fn only_a_streams_playlists_and_segments_are_files() {
        for (path, is_file) in [
            ("cam1/index.m3u8", true),
            ("news/cam1/v0-17.ts", true),
            ("cam1", false),
            ("index.m3u8", false),
            ("cam1/", false),
            ("cam1/.index.m3u8.part", false),
            ("cam1/.m3u8", false),
            ("cam1/notes.txt", false),
            ("../cam1/index.m3u8", false),
            ("cam1/../../index.m3u8", false),
            ("/etc/index.m3u8", false),
            ("cam1//index.m3u8", false),
            ("cam 1/index.m3u8", false),
            ("cam1/a\\b.ts", false),
            ("cam1/a\0.ts", false),
            ("api/index.m3u8", false),
        ] {
            assert_eq!(stream_of(path).is_some(), is_file, "{path}");
        }
    }
}
