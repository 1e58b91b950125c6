// SPDX-License-Identifier: MPL-2.0

//! What must let nobody in, and what lets in: the same rows for the tests of HTTP, RTMP, RTSP and SRT.

pub mod remote;

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sfu_access::{Action, Grants, make_token};

/// What signs the tokens.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// For a rule `key`.
pub const KEY: &str = "a-key-that-nobody-guesses";
/// Long after now: in 2096.
const FAR: u64 = 4_000_000_000;

/// A token of that secret that is good for so many seconds.
///
/// # Panics
///
/// Where there are no random numbers.
pub fn token(secret: &str, grants: &Grants, seconds: i64) -> String {
    let now = SystemTime::now();
    let span = Duration::from_secs(seconds.unsigned_abs());
    let until = if seconds < 0 { now - span } else { now + span };
    make_token(secret, grants, until, None).expect("a token")
}

/// These permissions, for streams of that pattern where they are about streams.
///
/// # Panics
///
/// Where that is no pattern.
pub fn grants(actions: &[Action], pattern: &str) -> Grants {
    actions.iter().fold(Grants::default(), |grants, action| {
        let pattern = if action.is_of_a_stream() {
            pattern
        } else {
            "*"
        };
        let word = format!("{}={pattern}", action.name());
        grants.parse_word(&word).expect("a pattern")
    })
}

/// One that is signed as well as the others, with these claims and header.
pub fn made_up(header: &str, claims: &str) -> String {
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = aws_lc_rs::hmac::sign(&key, input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Of another stream than `cam1`, with all that there is to be done with one.
pub const ANOTHER_STREAM: &str = "another stream";

/// What shows nothing good to who needs `needed` with streams of that pattern, with a name each.
pub fn wrong(needed: &[Action], pattern: &str) -> Vec<(&'static str, String)> {
    let all = Action::ALL.into_iter();
    let of_streams: Vec<_> = all.clone().filter(|a| a.is_of_a_stream()).collect();
    let others: Vec<_> = all.filter(|a| !needed.contains(a)).collect();
    let right = grants(needed, pattern);
    let claim = right.to_claim();
    let hs256 = r#"{"alg":"HS256"}"#;
    let none = r#"{"alg":"none"}"#;
    let lasting = format!(r#"{{"exp":{FAR},"sfu":{claim}}}"#);
    let early = format!(r#"{{"exp":{FAR},"nbf":{},"sfu":{claim}}}"#, FAR - 1);
    let signed = made_up(none, &lasting);
    let unsigned = signed.rsplit_once('.').map_or("", |(unsigned, _)| unsigned);
    vec![
        ("nothing", String::new()),
        ("expired", token(SECRET, &right, -1)),
        ("not yet valid", made_up(hs256, &early)),
        ("endless", made_up(hs256, &format!(r#"{{"sfu":{claim}}}"#))),
        ("wrong key", token(&"x".repeat(32), &right, 60)),
        ("alg none", format!("{unsigned}.")),
        ("alg none, signed", signed.clone()),
        (
            ANOTHER_STREAM,
            token(SECRET, &grants(&of_streams, "cam2"), 60),
        ),
        (
            "other permissions",
            token(SECRET, &grants(&others, "*"), 60),
        ),
        ("no permission", token(SECRET, &Grants::default(), 60)),
        ("the secret", SECRET.to_owned()),
        (
            "a segment's token",
            "s.ffffffff.AAAAAAAAAAAAAAAAAAAAAA".to_owned(),
        ),
    ]
}
