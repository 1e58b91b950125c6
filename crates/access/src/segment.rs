// SPDX-License-Identifier: MPL-2.0

//! What playlists that were asked for with a token name segments with: the same for all viewers of a stream, so that
//! caches in between keep one copy, and of no use for anything else. Valid for five to ten minutes.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// All playlists of so many seconds name the same one.
const STEP: u64 = 300;
/// So long the oldest one of them is still good.
const LIFE: u64 = 2 * STEP;

/// The end in seconds, and 128 bits over it and the stream.
pub(crate) fn make(key: &hmac::Key, stream: &str, now: SystemTime) -> String {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    of(key, stream, now / STEP * STEP + LIFE)
}

pub(crate) fn is_good(key: &hmac::Key, stream: &str, text: &str, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let end = text.split('.').nth(1);
    let Some(end) = end.and_then(|end| u64::from_str_radix(end, 16).ok()) else {
        return false;
    };
    let wanted = of(key, stream, end);
    now < end && verify_slices_are_equal(wanted.as_bytes(), text.as_bytes()).is_ok()
}

fn of(key: &hmac::Key, stream: &str, end: u64) -> String {
    let tag = hmac::sign(key, format!("segment\0{stream}\0{end}").as_bytes());
    format!("s.{end:x}.{}", URL_SAFE_NO_PAD.encode(&tag.as_ref()[..16]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_for_one_stream_and_ten_minutes_and_one_for_all() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"other");
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_200);
        let token = make(&key, "cam1", now);
        assert_eq!(token, make(&key, "cam1", now + Duration::from_secs(99)));
        for (seconds, good) in [(0, true), (299, true), (600, false), (6_000, false)] {
            let at = now + Duration::from_secs(seconds);
            assert_eq!(is_good(&key, "cam1", &token, at), good, "{seconds}");
        }
        assert!(!is_good(&key, "cam2", &token, now));
        assert!(!is_good(&other, "cam1", &token, now));
        for wrong in [
            "",
            "s.",
            "s..",
            "s.ff",
            "s.ffffffffffffffff.",
            "s.-1.x",
            "t.1.x",
        ] {
            assert!(!is_good(&key, "cam1", wrong, now), "{wrong}");
        }
        for n in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(!is_good(&key, "cam1", &changed, now), "{changed}");
        }
    }
}
