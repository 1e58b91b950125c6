// SPDX-License-Identifier: MPL-2.0

//! Who comes to a room by its page: the door says whether he may, and he joins with a token of the rooms' own keys that is made
//! for him here. So an invitation is a token of the door (`./sfu token --room NAME`), which any number may use.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use sfu_access::Action;
use sfu_engine::StreamName;
use sfu_rooms::{Call, Form, VideoGrants};
use sfu_rooms_host::Host;

use super::door::{Pass, want};
use super::object::Object;
use super::server::{App, Refusal};
use super::twirp;

/// A guest's token is good for so long, or as long as what let him in.
const LIFE: Duration = Duration::from_secs(6 * 3600);
/// Octets of what tells two of the same name apart.
const NUMBER: usize = 9;
/// Letters of a name that become part of an identity, which is part of a stream's name.
const LETTERS: usize = 24;

/// The body of `POST /rtc/guest/{room}`.
#[derive(Debug, Deserialize)]
pub(super) struct Guest {
    /// As others see it.
    name: String,
}

/// Its answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// For `/rtc?access_token=`.
    token: String,
    identity: String,
    /// Whether he may take part, or looks on and listens.
    can_publish: bool,
}

/// `POST /rtc/guest/{room}`
pub(super) async fn enter(
    State(app): State<App>,
    Path(room): Path<String>,
    pass: Pass,
    body: Result<Json<Object<Guest>>, JsonRejection>,
) -> Result<Json<Entry>, Refusal> {
    let no = |status, why: &str| Refusal::new(status, why);
    let Some(host) = &app.rooms else {
        let why = "this server has no rooms: api-keys of sfusignaller opens them";
        return Err(no(StatusCode::NOT_FOUND, why));
    };
    let room: StreamName = room
        .parse()
        .map_err(|e| Refusal::new(StatusCode::NOT_FOUND, format!("{e}")))?;
    let Json(Object(guest)) = body.map_err(|rejection| {
        let why = "send application/json such as {\"name\": \"Ann\"}";
        Refusal::new(rejection.status(), why)
    })?;
    let name = guest.name.trim();
    let longest = host.longest_name();
    if name.is_empty() || name.len() > longest || name.chars().any(is_no_text) {
        let why = format!(
            "a name has 1 to {longest} octets, and no control characters, nor any that turn text around"
        );
        return Err(Refusal::new(StatusCode::BAD_REQUEST, why));
    }
    // Never one that is asked for: everybody in a room knows the others'.
    let number = sfu_access::random(NUMBER).map_err(|why| {
        gst::warning!(super::CAT, "no guest can be named: {why}");
        no(StatusCode::INTERNAL_SERVER_ERROR, "there is no identity")
    })?;
    let identity = identity(name, &number);
    let rights = pass.rights(&app);
    let can_publish = rights.may(&[want(Action::Publish, room.as_str())]).is_ok();
    if !can_publish && !is_open(host, room.as_str()).await {
        let why = "nobody is in this room yet: it opens with the first who may take part";
        return Err(no(StatusCode::NOT_FOUND, why).with(header::RETRY_AFTER, "5"));
    }
    let until = SystemTime::now() + LIFE;
    let until = pass.proof.ends().map_or(until, |ends| ends.min(until));
    let until = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    let who = (room.as_str(), identity.as_str(), name);
    let token = host
        .invite(who, can_publish, until.as_secs())
        .ok_or_else(|| no(StatusCode::NOT_FOUND, "this server has no keys for rooms"))?;
    Ok(Json(Entry {
        token,
        identity,
        can_publish,
    }))
}

/// Whether there is that room. Who may only look on opens none, so that strangers can't use up their number.
async fn is_open(host: &Host, room: &str) -> bool {
    let grants = VideoGrants {
        room_list: true,
        ..VideoGrants::default()
    };
    let call = Call {
        method: "ListRooms".to_owned(),
        form: Form::Json,
        body: serde_json::json!({ "names": [room] }).to_string().into(),
        grants,
    };
    let Ok(answer) = twirp::ask(host, call).await else {
        return false;
    };
    let rooms = serde_json::from_slice::<serde_json::Value>(&answer);
    rooms.is_ok_and(|answer| {
        answer["rooms"]
            .as_array()
            .is_some_and(|all| !all.is_empty())
    })
}

/// Controls, and what turns the text beside a name around for who reads it (UAX #9).
fn is_no_text(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Part of a stream's name, so it has no blanks; the end tells two of the same name apart.
fn identity(name: &str, number: &str) -> String {
    let plain = |c: char| match c {
        c if c.is_ascii_alphanumeric() => Some(c.to_ascii_lowercase()),
        ' ' | '-' | '_' | '.' => Some('-'),
        _ => None,
    };
    let letters: String = name.chars().filter_map(plain).take(LETTERS).collect();
    let letters = letters.trim_matches('-');
    let letters = if letters.is_empty() { "guest" } else { letters };
    format!("{letters}.{number}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_of_any_language() {
        let name = "Ann O'Neill, \u{5d0}\u{5e0}\u{200f} \u{674e} \u{1f600}";
        assert!(!name.chars().any(is_no_text));
        for name in ["a\0", "a\nb", "\u{202e}nna", "\u{2066}a\u{2069}"] {
            assert!(name.chars().any(is_no_text), "{name:?}");
        }
    }

    #[test]
    fn identities_are_parts_of_names_of_streams() {
        for (name, expected) in [
            ("Ann", "ann."),
            ("Ann B. Clark", "ann-b--clark."),
            ("Jörg", "jrg."),
            ("李雷", "guest."),
            ("-._", "guest."),
            ("../../etc", "etc."),
            (&"x".repeat(300), &format!("{}.", "x".repeat(LETTERS))),
        ] {
            let number = sfu_access::random(NUMBER).unwrap();
            let made = identity(name, &number);
            assert!(made.starts_with(expected), "{name}: {made}");
            format!("meeting/{made}").parse::<StreamName>().unwrap();
        }
        let other = sfu_access::random(NUMBER).unwrap();
        assert_ne!(other, sfu_access::random(NUMBER).unwrap());
    }
}
