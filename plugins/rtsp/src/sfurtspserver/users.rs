// SPDX-License-Identifier: MPL-2.0

//! Who may watch where the element has users of its own: names and passwords from a property or a file.

use std::fmt;

use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{RTSP_TOKEN_MEDIA_FACTORY_ROLE, RTSPAuth, RTSPToken};

use super::settings::{Auth, Settings};

/// The role of whoever knows a password.
pub(super) const ROLE: &str = "viewer";

/// A name and its password, which is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
struct User {
    name: String,
    password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:***", self.name)
    }
}

fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<User>, String> {
    let lines = lines.map(str::trim).enumerate();
    let named = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let users = named.map(|(number, line)| match line.split_once(':') {
        Some((name, password)) if !name.is_empty() && !password.is_empty() => Ok(User {
            name: name.to_owned(),
            password: password.to_owned(),
        }),
        // The line itself may be a password.
        _ => Err(format!("entry {} is not NAME:PASSWORD", number + 1)),
    });
    users.collect()
}

/// Who has it may watch.
pub(super) fn viewer() -> RTSPToken {
    RTSPToken::builder()
        .field(RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
        .build()
}

/// What checks passwords of the element's own, or nothing where there are none, and the rules of access decide.
pub(super) fn auth(settings: &Settings) -> Result<Option<RTSPAuth>, String> {
    let mut users = parse(settings.users.split(',')).map_err(|e| format!("users: {e}"))?;
    if !settings.users_file.is_empty() {
        let file = &settings.users_file;
        let text = sfu_access::read_text(file)
            .map_err(|e| format!("users-file {file} can't be read: {e}"))?;
        let more = parse(text.lines()).map_err(|e| format!("users-file {file}: {e}"))?;
        if more.is_empty() {
            return Err(format!("users-file {file} names nobody"));
        }
        users.extend(more);
    }
    if users.is_empty() {
        return Ok(None);
    }
    let auth = RTSPAuth::new();
    auth.set_realm(Some("gst-sfu"));
    auth.set_supported_methods(settings.auth.methods());
    for User { name, password } in &users {
        let token = viewer();
        if settings.auth != Auth::Digest {
            auth.add_basic(&RTSPAuth::make_basic(name, password), &token);
        }
        if settings.auth != Auth::Basic {
            auth.add_digest(name, password, &token);
        }
    }
    Ok(Some(auth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_may_have_colons_and_are_not_shown() {
        let users = parse("# who\nann:a:b\n\n bob:c \n".lines()).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(
            (users[0].password.as_str(), users[1].password.as_str()),
            ("a:b", "c")
        );
        assert_eq!(format!("{users:?}"), "[ann:***, bob:***]");
        let error = parse("ann:a,hunter2".split(',')).unwrap_err();
        assert_eq!(error, "entry 2 is not NAME:PASSWORD");
        assert!(parse(["ann:"].into_iter()).is_err());
    }
}
