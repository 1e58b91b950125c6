// SPDX-License-Identifier: MPL-2.0

//! Conditional requests for files (RFC 9110, section 13), where `tower-http` knows dates alone, and no `If-Range`.

use std::fs::Metadata;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::server::Refusal;

/// A date is a strong validator where the file was last written this long ago (section 8.8.2.2).
const STRONG: Duration = Duration::from_secs(1);

/// A file as a request found it.
#[derive(Debug)]
pub(super) struct Version {
    tag: String,
    modified: Option<SystemTime>,
}

impl Version {
    /// Files are only ever appended to, finished or replaced: another content has another time or length.
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let nanos = since.map_or(0, |since| since.as_nanos());
        Self {
            tag: format!("\"{nanos:x}-{:x}\"", metadata.len()),
            modified,
        }
    }

    /// The header `ETag`.
    pub(super) fn tag(&self) -> Option<HeaderValue> {
        self.tag.parse().ok()
    }

    /// Evaluates what tags decide, in the order of section 13.2.2, and takes it out of the request. Returns the status of
    /// an answer without the file, if it is to be one.
    pub(super) fn decide(&self, headers: &mut HeaderMap, now: SystemTime) -> Option<StatusCode> {
        if let Some(tags) = take_list(headers, &header::IF_MATCH) {
            headers.remove(header::IF_UNMODIFIED_SINCE);
            if !any(&tags, |tag| tag == self.tag) {
                return Some(StatusCode::PRECONDITION_FAILED);
            }
        }
        if let Some(tags) = take_list(headers, &header::IF_NONE_MATCH) {
            headers.remove(header::IF_MODIFIED_SINCE);
            if any(&tags, |tag| tag.trim_start_matches("W/") == self.tag) {
                return Some(StatusCode::NOT_MODIFIED);
            }
        }
        if let Some(condition) = headers.remove(header::IF_RANGE)
            && !self.is_still(&condition, now)
        {
            headers.remove(header::RANGE);
        }
        None
    }

    /// Whether the file is still what `If-Range` names (section 13.1.5). Only a strong validator says so.
    fn is_still(&self, condition: &HeaderValue, now: SystemTime) -> bool {
        let Ok(text) = condition.to_str() else {
            return false;
        };
        let text = text.trim();
        if text.starts_with('"') || text.starts_with("W/") {
            return text == self.tag;
        }
        let (Ok(date), Some(modified)) = (httpdate::parse_http_date(text), self.modified) else {
            return false;
        };
        // Dates have no parts of a second.
        let same = httpdate::fmt_http_date(modified) == httpdate::fmt_http_date(date);
        let strong = now.duration_since(modified).is_ok_and(|age| age >= STRONG);
        same && strong
    }
}

/// Whether `If-Match` names a session's state (RFC 9725, section 4.3.1). Proxies that compress make tags weak on their way
/// to the client: that is the same state, since there are no octets to be compared.
pub(super) fn names_state(headers: &HeaderMap, state: &str) -> Result<(), Refusal> {
    if !headers.contains_key(header::IF_MATCH) {
        let message = "If-Match is missing: send the session's ETag, or * for an ICE restart";
        return Err(Refusal::new(StatusCode::PRECONDITION_REQUIRED, message));
    }
    // Several fields are one list (RFC 9110, section 5.3).
    let fields = headers.get_all(header::IF_MATCH).iter();
    let fields: Vec<_> = fields.map(|f| f.to_str().unwrap_or("?")).collect();
    let list = fields.join(",");
    let tags = list.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let tags: Vec<_> = tags.map(|t| t.strip_prefix("W/").unwrap_or(t)).collect();
    if tags == ["*"] || tags.contains(&state) {
        return Ok(());
    }
    let is_tag = |tag: &&str| tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"');
    let message = match !tags.is_empty() && tags.iter().all(is_tag) {
        true => {
            "If-Match names another state than the session's present one: ICE was restarted since, or the tag is of another session"
        }
        false => {
            "If-Match is no list of tags: send the session's ETag as it came, with its quotes, or * for an ICE restart"
        }
    };
    Err(Refusal::new(StatusCode::PRECONDITION_FAILED, message))
}

/// Takes a header that is a list, which may come in several fields.
fn take_list(headers: &mut HeaderMap, name: &HeaderName) -> Option<String> {
    let fields = headers.get_all(name).iter();
    let fields: Vec<_> = fields.filter_map(|field| field.to_str().ok()).collect();
    let list = fields.join(",");
    headers.remove(name).map(|_| list)
}

/// Whether the list is `*`, or has such a tag. Ours have no commas.
fn any(list: &str, is_it: impl Fn(&str) -> bool) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || is_it(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn version() -> Version {
        let modified = httpdate::parse_http_date(DATE).unwrap() + Duration::from_millis(500);
        Version {
            tag: "\"a-1\"".into(),
            modified: Some(modified),
        }
    }

    fn decide(given: &[(&str, &str)], age: Duration) -> (Option<StatusCode>, HeaderMap) {
        let version = version();
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let now = version.modified.unwrap() + age;
        (version.decide(&mut headers, now), headers)
    }

    #[test]
    fn a_range_is_heeded_only_while_the_file_is_the_same() {
        let day = Duration::from_secs(86_400);
        for (condition, age, heeded) in [
            ("\"a-1\"", day, true),
            ("\"a-1\"", Duration::ZERO, true),
            ("W/\"a-1\"", day, false),
            ("\"a-2\"", day, false),
            ("\"a-1\", \"a-2\"", day, false),
            ("*", day, false),
            (DATE, day, true),
            (DATE, Duration::from_millis(999), false),
            ("Sunday, 06-Nov-94 08:49:37 GMT", day, true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", day, false),
            ("Sun, 06 Nov 1994 08:49:36 GMT", day, false),
            ("yesterday", day, false),
            ("", day, false),
        ] {
            let given = [("range", "bytes=1-2"), ("if-range", condition)];
            let (status, headers) = decide(&given, age);
            assert_eq!(status, None);
            assert_eq!(headers.contains_key(header::RANGE), heeded, "{condition}");
            assert!(!headers.contains_key(header::IF_RANGE));
        }
    }

    #[test]
    fn a_sessions_state_is_named_by_its_tag() {
        for (fields, says) in [
            (&["\"7\""][..], None),
            (&["*"], None),
            (&["W/\"7\""], None),
            (&["\"6\", \"7\""], None),
            (&["\"6\"", "\"7\""], None),
            (&["\"6\"", "W/\"7\""], None),
            (&[], Some("is missing")),
            (&["\"6\""], Some("another state")),
            (&["W/\"6\""], Some("another state")),
            (&["\"6\"", "\"8\""], Some("another state")),
            (&["7"], Some("with its quotes")),
            (&["W/7"], Some("with its quotes")),
            (&["\"7"], Some("with its quotes")),
            (&["\""], Some("with its quotes")),
            (&["w/\"7\""], Some("with its quotes")),
            (&["nonsense"], Some("with its quotes")),
            (&["*, \"6\""], Some("with its quotes")),
            (&["\u{fc}"], Some("with its quotes")),
            (&[""], Some("with its quotes")),
            (&[","], Some("with its quotes")),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                let value = HeaderValue::from_bytes(field.as_bytes()).unwrap();
                headers.append(header::IF_MATCH, value);
            }
            let found = names_state(&headers, "\"7\"");
            let message = found.as_ref().err().map(Refusal::message);
            assert_eq!(message.is_some(), says.is_some(), "{fields:?}: {message:?}");
            let said = message.unwrap_or_default();
            assert!(
                said.contains(says.unwrap_or_default()),
                "{fields:?}: {said}"
            );
        }
    }

    #[test]
    fn tags_go_before_dates() {
        let not_modified = Some(StatusCode::NOT_MODIFIED);
        let failed = Some(StatusCode::PRECONDITION_FAILED);
        for (given, expected, left) in [
            (&[("if-none-match", "\"a-1\"")][..], not_modified, 0),
            (&[("if-none-match", "\"b\", W/\"a-1\"")], not_modified, 0),
            (
                &[("if-none-match", "\"b\""), ("if-none-match", "\"a-1\"")],
                not_modified,
                0,
            ),
            (&[("if-none-match", "*")], not_modified, 0),
            (
                &[("if-none-match", "\"b\""), ("if-modified-since", DATE)],
                None,
                0,
            ),
            (&[("if-modified-since", DATE)], None, 1),
            (
                &[("if-match", "\"a-1\""), ("if-unmodified-since", DATE)],
                None,
                0,
            ),
            (&[("if-match", "W/\"a-1\"")], failed, 0),
            (
                &[("if-match", "\"b\""), ("if-none-match", "\"a-1\"")],
                failed,
                1,
            ),
            (&[("if-match", "*")], None, 0),
        ] {
            let (status, headers) = decide(given, Duration::ZERO);
            assert_eq!((status, headers.len()), (expected, left), "{given:?}");
        }
    }

    #[test]
    fn another_length_or_time_is_another_version() {
        let path = std::env::temp_dir().join(format!("sfu-version-{}", std::process::id()));
        let tag = |text: &str, seconds| {
            std::fs::write(&path, text).unwrap();
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            file.set_modified(at).unwrap();
            Version::of(&file.metadata().unwrap()).tag().unwrap()
        };
        let tags = [tag("a", 1), tag("a", 2), tag("ab", 2)];
        assert!(tags[0] != tags[1] && tags[1] != tags[2]);
        assert_eq!(tags[2], tag("cd", 2));
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn fuzz_conditions() {
        let samples = [
            "bytes=0-99\n\"a-1\"\n\"a-1\", W/\"b\"\n".to_owned() + DATE,
            format!("bytes=-5,7-\n{DATE}\n*\n{DATE}"),
        ];
        let version = version();
        sfu_fuzz::fuzz("conditions", &samples, |data| {
            let mut headers = HeaderMap::new();
            let names = [
                header::RANGE,
                header::IF_RANGE,
                header::IF_NONE_MATCH,
                header::IF_MODIFIED_SINCE,
            ];
            for (name, line) in names.into_iter().zip(data.split(|c| *c == b'\n')) {
                if let Ok(line) = HeaderValue::from_bytes(line) {
                    headers.append(name, line);
                }
            }
            let _ = version.decide(&mut headers, version.modified.unwrap());
        });
    }
}
