// SPDX-License-Identifier: MPL-2.0

//! What a caller's stream id asks for, and shows: `#!::KEY=VALUE,…` (SRT access control guidelines), `NAME?token=…`, or as
//! MediaMTX has it, `publish:NAME:USER:PASSWORD`.

use sfu_access::{Credential, credential_of_query};

use crate::libsrt::Reject;

const PART_MAX: usize = 64;
const NAME_MAX: usize = 255;
/// Characters of a name that is none.
const SHOWN: usize = 24;

/// What a stream id says.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) stream: String,
    pub(super) credential: Option<Credential<'a>>,
}

/// What a caller wants to send, or why it can't.
pub(super) fn of<'a>(id: &'a str, default: &str) -> Result<Asked<'a>, Reject> {
    // As who copies it out of an address sends it: SRT's own tools decode nothing.
    let keys = id.strip_prefix("#!::").or(id.strip_prefix("%23!::"));
    let (name, credential) = match (keys, id.split_once(':')) {
        (Some(keys), _) => resource(keys)?,
        // Another syntax of the same guidelines, or of later ones.
        (None, _) if id.starts_with("#!") => return Err(Reject::BadRequest),
        (None, Some(("publish", rest))) => named(rest),
        (None, Some(("read" | "request", _))) => return Err(Reject::BadMode),
        (None, _) => {
            let (name, query) = id.split_once('?').unwrap_or((id, ""));
            (name, credential_of_query(query))
        }
    };
    // Who thinks of a path writes one before it.
    let plain = name.strip_prefix('/').filter(|name| !name.is_empty());
    let name = plain.unwrap_or(name);
    let name = if name.is_empty() { default } else { name };
    match is_name(name) {
        true => Ok(Asked {
            stream: name.to_owned(),
            credential,
        }),
        false => Err(Reject::BadRequest),
    }
}

/// A stream id as it may be shown: the name in it, as far as it can be no secret, and no more of that than a token's first letters.
pub(super) fn shown(id: &str) -> String {
    let keys = id.strip_prefix("#!::").or(id.strip_prefix("%23!::"));
    let name = match (keys, id.split_once(':')) {
        (Some(keys), _) => {
            let mut pairs = keys.split(',').rev();
            pairs.find_map(|pair| pair.strip_prefix("r=")).unwrap_or("")
        }
        (None, Some(("publish" | "read" | "request", rest))) => rest,
        (None, _) => id,
    };
    let end = name
        .find(['?', ':', ',', '=', '&', '%', ';'])
        .unwrap_or(name.len());
    let mut shown: String = name[..end].chars().take(SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    shown
}

/// The value of `r`, if the caller is one who sends, and who it says that it is: `s` is what MediaMTX takes passwords by.
fn resource(keys: &str) -> Result<(&str, Option<Credential<'_>>), Reject> {
    let (mut resource, mut user, mut secret, mut is_device) = ("", "", None, false);
    for pair in keys.split(',') {
        match pair.split_once('=') {
            Some(("r", name)) => resource = name,
            Some(("u", name)) => user = name,
            Some(("s", text)) => secret = Some(text),
            Some(("m", "publish")) => {}
            Some(("m", _)) => return Err(Reject::BadMode),
            Some((key, _)) => is_device |= key.starts_with("bmd_"),
            None => {}
        }
    }
    // Blackmagic's encoders have the stream's key for a user, and no resource: two would both be the default stream.
    if is_device && resource.is_empty() && secret.is_none() {
        resource = user;
    }
    Ok((resource, secret.map(|secret| credential(user, secret))))
}

/// Of `NAME`, `NAME:USER:PASSWORD` and `NAME::TOKEN`.
fn named(text: &str) -> (&str, Option<Credential<'_>>) {
    let mut parts = text.splitn(3, ':');
    let name = parts.next().unwrap_or_default();
    let user = parts.next().unwrap_or_default();
    (name, parts.next().map(|secret| credential(user, secret)))
}

fn credential<'a>(user: &'a str, password: &'a str) -> Credential<'a> {
    match user {
        "" => Credential::Bearer(password),
        user => Credential::Basic { user, password },
    }
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
            ("#!::bmd_uuid=1-2,bmd_name=A B,r=cam1,m=publish", Ok("cam1")),
            ("#!::u=news/cam1,bmd_uuid=1-2,bmd_name=A", Ok("news/cam1")),
            ("#!::bmd_uuid=1-2,bmd_name=A", Ok("demo")),
            ("#!::u=cam1", Ok("demo")),
            ("#!::u=../x,bmd_uuid=1", Err(Reject::BadRequest)),
            ("#!::", Ok("demo")),
            ("#!::r=cam1,m=request", Err(Reject::BadMode)),
            ("#!::r=cam1,m=bidirectional", Err(Reject::BadMode)),
            ("#!:{r=cam1}", Err(Reject::BadRequest)),
            ("#!", Err(Reject::BadRequest)),
            ("cam 1", Err(Reject::BadRequest)),
            ("../etc", Err(Reject::BadRequest)),
            ("live/x", Ok("live/x")),
            ("/live/x", Ok("live/x")),
            ("/cam1?token=a", Ok("cam1")),
            ("#!::r=/live/x,m=publish", Ok("live/x")),
            ("publish:/live/x:ann:horse", Ok("live/x")),
            ("/", Err(Reject::BadRequest)),
            ("//cam1", Err(Reject::BadRequest)),
            ("cam1/", Err(Reject::BadRequest)),
            ("/../etc", Err(Reject::BadRequest)),
            ("a ! filesink location=/x", Err(Reject::BadRequest)),
            ("\u{fffd}", Err(Reject::BadRequest)),
        ] {
            let expected = expected.map(str::to_owned);
            let stream = of(id, "demo").map(|asked| asked.stream);
            assert_eq!(stream, expected, "{id}");
        }
        assert_eq!(of("", "").err(), Some(Reject::BadRequest));
        assert_eq!(of(&"a".repeat(65), "").err(), Some(Reject::BadRequest));
    }

    #[test]
    fn a_stream_id_may_show_something() {
        for (id, stream, shows) in [
            ("cam1", "cam1", ""),
            ("cam1?token=a.b.c", "cam1", "a.b.c"),
            ("?token=a.b.c", "demo", "a.b.c"),
            ("cam1?user=ann&pass=horse", "cam1", "ann horse"),
            ("cam1?user=ann", "cam1", ""),
            ("#!::r=cam1,m=publish,u=ann,s=horse", "cam1", "ann horse"),
            ("#!::s=a.b.c,r=cam1", "cam1", "a.b.c"),
            ("#!::r=cam1,u=ann", "cam1", ""),
            ("%23!::r=cam1,s=a=b", "cam1", "a=b"),
            ("publish:cam1", "cam1", ""),
            ("publish:cam1:ann:horse:s", "cam1", "ann horse:s"),
            ("publish:cam1::a.b.c", "cam1", "a.b.c"),
        ] {
            let asked = of(id, "demo").unwrap();
            let shown = match asked.credential {
                None => String::new(),
                Some(Credential::Bearer(text)) => text.to_owned(),
                Some(Credential::Basic { user, password }) => format!("{user} {password}"),
                Some(Credential::Digest(_)) => unreachable!("SRT has none"),
            };
            assert_eq!(
                (asked.stream.as_str(), shown.as_str()),
                (stream, shows),
                "{id}"
            );
        }
        assert_eq!(of("read:cam1", "").err(), Some(Reject::BadMode));
    }

    #[test]
    fn what_is_shown_of_a_stream_id_is_no_secret() {
        for (id, expected) in [
            ("", ""),
            ("cam 1", "cam 1"),
            ("cam1/?token=secret", "cam1/…"),
            ("ann:secret", "ann…"),
            ("publish:a b:ann:secret", "a b…"),
            ("read:cam1", "cam1"),
            ("#!::s=secret,r=../x,u=ann", "../x"),
            ("#!::u=secret,bmd_uuid=1", ""),
            ("%23!::r=a=secret", "a…"),
            ("cam1%3Fpass%3Dsecret", "cam1…"),
            ("cam1;secret", "cam1…"),
            ("#!:{s=secret}", "#!…"),
            (
                "eyJhbGciOiJIUzI1NiJ9.eyJ.secret",
                "eyJhbGciOiJIUzI1NiJ9.eyJ…",
            ),
        ] {
            assert_eq!(shown(id), expected, "{id}");
        }
    }

    #[test]
    fn fuzz_stream_ids() {
        let samples = [
            "cam1",
            "#!::r=cam1,m=publish",
            "#!::h=a,r=news,u=ann,s=1,t=stream",
            "%23!::r=cam1,m=publish,token=abc",
            "publish:cam1:ann:secret",
            "cam1?token=a%2Bb",
        ];
        sfu_fuzz::fuzz("stream ids", &samples, |data| {
            assert!(shown(&String::from_utf8_lossy(data)).chars().count() <= SHOWN + 1);
            if let Ok(Asked { stream, .. }) = of(&String::from_utf8_lossy(data), "") {
                assert!(is_name(&stream) && !stream.contains(['"', ' ', '!', '\\']));
            }
        });
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_asked_a_name_is_plain(id: String, keys: String) {
            for id in [id, format!("#!::r={keys},m=publish")] {
                if let Ok(Asked { stream, .. }) = of(&id, "") {
                    assert!(is_name(&stream) && !stream.contains(['"', ' ', '!', '\\']));
                }
            }
        }
    }
}
