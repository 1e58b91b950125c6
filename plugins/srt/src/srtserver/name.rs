// SPDX-License-Identifier: MPL-2.0

//! What a caller's stream id asks for (SRT access control guidelines: `#!::KEY=VALUE,…`).

use crate::libsrt::Reject;

const PART_MAX: usize = 64;
const NAME_MAX: usize = 255;

/// The stream that a caller wants to send, or why it can't.
pub(super) fn of(id: &str, default: &str) -> Result<String, Reject> {
    // As who copies it out of an address sends it: SRT's own tools decode nothing.
    let keys = id.strip_prefix("#!::").or(id.strip_prefix("%23!::"));
    let name = match keys {
        Some(keys) => resource(keys)?,
        // Another syntax of the same guidelines, or of later ones.
        None if id.starts_with("#!") => return Err(Reject::BadRequest),
        None => id,
    };
    let name = if name.is_empty() { default } else { name };
    match is_name(name) {
        true => Ok(name.to_owned()),
        false => Err(Reject::BadRequest),
    }
}

/// The value of `r`, if the caller is one who sends.
fn resource(keys: &str) -> Result<&str, Reject> {
    let mut resource = "";
    for pair in keys.split(',') {
        match pair.split_once('=') {
            Some(("r", name)) => resource = name,
            Some(("m", "publish")) => {}
            Some(("m", _)) => return Err(Reject::BadMode),
            _ => {}
        }
    }
    Ok(resource)
}

/// Whether a stream may have this name. The sink knows more words that are taken.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let part = |part: &str| {
        (1..=PART_MAX).contains(&part.len())
            && part != "."
            && part != ".."
            && part.bytes().all(plain)
    };
    name.len() <= NAME_MAX && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_id_is_a_name_or_keys() {
        for (id, expected) in [
            ("", Ok("demo")),
            ("cam1", Ok("cam1")),
            ("news/cam1", Ok("news/cam1")),
            ("#!::r=cam1,m=publish", Ok("cam1")),
            ("#!::m=publish,r=news/cam1,u=ann,h=example", Ok("news/cam1")),
            ("%23!::r=cam1,m=publish", Ok("cam1")),
            ("#!::r=cam1", Ok("cam1")),
            ("#!::m=publish", Ok("demo")),
            ("#!::", Ok("demo")),
            ("#!::r=cam1,m=request", Err(Reject::BadMode)),
            ("#!::r=cam1,m=bidirectional", Err(Reject::BadMode)),
            ("#!:{r=cam1}", Err(Reject::BadRequest)),
            ("#!", Err(Reject::BadRequest)),
            ("cam 1", Err(Reject::BadRequest)),
            ("../etc", Err(Reject::BadRequest)),
            ("/cam1", Err(Reject::BadRequest)),
            ("cam1/", Err(Reject::BadRequest)),
            ("a ! filesink location=/x", Err(Reject::BadRequest)),
            ("\u{fffd}", Err(Reject::BadRequest)),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(of(id, "demo"), expected, "{id}");
        }
        assert_eq!(of("", ""), Err(Reject::BadRequest));
        assert_eq!(of(&"a".repeat(65), ""), Err(Reject::BadRequest));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_a_name_is_plain(id: String, keys: String) {
            for id in [id, format!("#!::r={keys},m=publish")] {
                if let Ok(name) = of(&id, "") {
                    assert!(is_name(&name) && !name.contains(['"', ' ', '!', '\\']));
                }
            }
        }
    }
}
