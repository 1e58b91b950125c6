// SPDX-License-Identifier: MPL-2.0

//! Files over HTTP, so many at a time: each takes a descriptor besides its connection's, for as long as somebody reads it.

use std::fs::Metadata;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use tokio::sync::Semaphore;
use tower_http::services::ServeFile;

use super::conditions::Version;
use super::held::Held;
use super::server::Refusal;

/// Those that are being read.
#[derive(Debug)]
pub(super) struct Files {
    places: Arc<Semaphore>,
    /// Refused: so many were being read.
    pub(super) refused: AtomicU64,
}

impl Files {
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            refused: AtomicU64::new(0),
        }
    }

    /// Serves a file. Ranges, conditions of dates and HEAD are `tower-http`'s work.
    pub(super) async fn serve(
        &self,
        path: &Path,
        mut request: Request,
    ) -> Result<io::Result<Response>, Refusal> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            self.refused.fetch_add(1, Relaxed);
            let message = "too many files are being read from here at the moment: try again soon";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message).with(header::RETRY_AFTER, "2")
        })?;
        let version = tokio::fs::metadata(path).await.ok();
        let length = version.as_ref().map(Metadata::len);
        plain_range(request.headers_mut(), length.unwrap_or_default());
        let version = version.filter(Metadata::is_file).map(|m| Version::of(&m));
        let decided = version
            .as_ref()
            .and_then(|version| version.decide(request.headers_mut(), SystemTime::now()));
        let served = match decided {
            Some(status) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                Ok(response)
            }
            None => {
                let served = ServeFile::new(path).try_call(request).await;
                let held = |body| Body::new(Held::new(Body::new(body), place));
                served.map(|response| response.map(held))
            }
        };
        Ok(served.map(|mut response| {
            let tag = version.and_then(|version| version.tag());
            let found = response.status().is_success() || response.status().is_redirection();
            if let Some(tag) = tag.filter(|_| found) {
                response.headers_mut().insert(header::ETAG, tag);
            }
            response
        }))
    }
}

/// Numbers of more digits may not fit.
const DIGITS: usize = 19;

/// Lets caches keep an answer as they may keep the file. What went wrong is nobody's to keep: a segment that was asked for too
/// soon would be missing for a year.
pub(super) fn keep(response: &mut Response, policy: &'static str) {
    let status = response.status();
    let policy = match status {
        StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED => policy,
        _ => "no-store",
    };
    let policy = HeaderValue::from_static(policy);
    response.headers_mut().insert(header::CACHE_CONTROL, policy);
}

/// A range as `tower-http` reads it, which answers all else with 416. One of another unit than octets, and several at
/// once, are not heeded (RFC 9110, section 14.2); the unit may have capitals, the end lie far behind the file's, and
/// the last so many octets be more than it has (section 14.1.2: then all of it is meant).
fn plain_range(headers: &mut HeaderMap, length: u64) {
    let Some(asked) = headers.remove(header::RANGE) else {
        return;
    };
    let text = asked.to_str().unwrap_or_default();
    let Some((unit, range)) = text.split_once('=') else {
        return;
    };
    if !unit.eq_ignore_ascii_case("bytes") || range.contains(',') {
        return;
    }
    let (first, last) = range.split_once('-').unwrap_or((range, ""));
    let is_number = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    let is_far = is_number && last.len() > DIGITS;
    let is_more = is_number && last.parse().map_or(true, |last: u64| last > length);
    let plain = match first {
        "" if is_more && length > 0 => format!("bytes=-{length}"),
        first if is_far && !first.is_empty() => format!("bytes={first}-"),
        _ => format!("bytes={range}"),
    };
    if let Ok(plain) = plain.parse() {
        headers.insert(header::RANGE, plain);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_range_of_octets_is_heeded() {
        for (range, heeded) in [
            ("bytes=0-1", Some("bytes=0-1")),
            ("Bytes=0-", Some("bytes=0-")),
            ("bytes=-5", Some("bytes=-5")),
            ("bytes=-10", Some("bytes=-10")),
            ("bytes=-11", Some("bytes=-10")),
            ("bytes=-0", Some("bytes=-0")),
            ("bytes=-", Some("bytes=-")),
            ("bytes=-x", Some("bytes=-x")),
            ("bytes=7-99999999999999999999", Some("bytes=7-")),
            ("bytes=-99999999999999999999", Some("bytes=-10")),
            ("bytes=5-2", Some("bytes=5-2")),
            ("bytes=0-0,2-2", None),
            ("items=1-2", None),
            ("bytes", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            plain_range(&mut headers, 10);
            let seen = headers.get(header::RANGE).map(|v| v.to_str().unwrap());
            assert_eq!(seen, heeded, "{range}");
        }
    }

    #[tokio::test]
    async fn a_place_is_free_when_its_reader_has_gone() {
        let path = std::env::temp_dir().join(format!("sfu-files-{}", std::process::id()));
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let files = Files::new(2);
        let request = || Request::new(Body::empty());
        let first = files.serve(&path, request()).await.ok().unwrap().unwrap();
        let _second = files.serve(&path, request()).await.ok().unwrap().unwrap();
        assert!(files.serve(&path, request()).await.is_err());
        assert_eq!(files.refused.load(Relaxed), 1);
        drop(first);
        assert!(files.serve(&path, request()).await.is_ok());
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn what_a_reader_has_in_part_is_the_whole_of_once_the_file_changes() {
        let path = std::env::temp_dir().join(format!("sfu-if-range-{}", std::process::id()));
        let files = Files::new(1);
        let ask = async |conditions: &[(&str, &str)]| {
            let mut request = Request::builder();
            for (name, value) in conditions {
                request = request.header(*name, *value);
            }
            let request = request.body(Body::empty()).unwrap();
            let response = files.serve(&path, request).await.ok().unwrap().unwrap();
            let tag = response.headers().get(header::ETAG);
            let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
            (response.status().as_u16(), tag)
        };
        std::fs::write(&path, "first").unwrap();
        let (status, tag) = ask(&[]).await;
        let tag = tag.unwrap();
        assert_eq!(status, 200);
        let (range, same) = (("range", "bytes=1-2"), Some(tag.clone()));
        assert_eq!(ask(&[range, ("if-range", &tag)]).await, (206, same.clone()));
        assert_eq!(ask(&[("if-none-match", &tag)]).await, (304, same));
        std::fs::write(&path, "second").unwrap();
        for (condition, expected) in [("if-range", 200), ("if-none-match", 206), ("if-match", 412)]
        {
            let (status, now) = ask(&[range, (condition, &tag)]).await;
            assert_eq!(status, expected, "{condition}");
            assert_ne!(now, Some(tag.clone()));
        }
        for (range, expected) in [
            ("bytes=99-", 416),
            ("bytes=-0", 416),
            ("bytes=-3", 206),
            ("bytes=-99999999", 206),
            ("bytes=-99999999999999999999", 206),
        ] {
            assert_eq!(ask(&[("range", range)]).await.0, expected, "{range}");
        }
        // Of nothing there are no last octets.
        std::fs::write(&path, "").unwrap();
        assert_eq!(ask(&[("range", "bytes=-5")]).await.0, 416);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(ask(&[]).await, (404, None));
    }
}
