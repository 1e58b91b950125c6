// SPDX-License-Identifier: MPL-2.0

//! ICE servers for clients: those that are the same for all, and TURN servers with credentials of each session's own, by the
//! secret that coturn has as `static-auth-secret` (draft-uberti-behave-turn-rest-00): an end, a name, and an HMAC over both.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::links;
use crate::properties::lock;

/// How long a relay may be asked for, and kept, with what was told once. TURN servers ask for it again each ten minutes.
const LIFE: Duration = Duration::from_secs(12 * 3600);
/// A shorter secret can be guessed from one credential.
const SECRET_MIN: usize = 16;
/// A file that holds more than a secret is none.
const SECRET_MAX: u64 = 4096;

/// One of them, as a client is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IceServer {
    pub(super) url: String,
    /// Both empty where it needs none.
    pub(super) user: String,
    pub(super) credential: String,
}

/// See the module's description. They may change while it runs.
#[derive(Debug, Default)]
pub(super) struct IceServers(Mutex<Arc<Known>>);

#[derive(Debug, Default)]
struct Known {
    same: Vec<IceServer>,
    turn: Option<Turn>,
}

struct Turn {
    addresses: Vec<String>,
    key: hmac::Key,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Turn({:?})", self.addresses)
    }
}

impl IceServers {
    /// From the properties `ice-servers`, `turn-servers`, and `turn-secret`, which names a file.
    pub(super) fn new(servers: &str, turn: &str, secret: &str) -> Result<Self, String> {
        let same = links::ice_servers(servers)?;
        let turn =
            match (turn.trim().is_empty(), secret.is_empty()) {
                (true, true) => None,
                (false, false) => Some(Turn {
                    addresses: addresses(turn)?,
                    key: read_secret(secret)
                        .map_err(|what| format!("turn-secret: {secret}: {what}"))?,
                }),
                _ => return Err(
                    "turn-servers and turn-secret belong together: one is set, the other is not"
                        .into(),
                ),
            };
        Ok(Self(Mutex::new(Arc::new(Known { same, turn }))))
    }

    /// Those are told from now on.
    pub(super) fn follow(&self, other: &Self) {
        let known = other.known();
        *lock(&self.0) = known;
    }

    fn known(&self) -> Arc<Known> {
        lock(&self.0).clone()
    }

    /// Whether clients are told of any.
    pub(super) fn is_empty(&self) -> bool {
        let known = self.known();
        known.same.is_empty() && known.turn.is_none()
    }

    /// `Link` headers for one session. `until`: when it ends anyhow.
    pub(super) fn append(
        &self,
        headers: &mut HeaderMap,
        session: &str,
        until: Option<SystemTime>,
        now: SystemTime,
    ) {
        let links = self.all(session, until, now);
        for link in links.filter_map(|server| links::of(&server)) {
            headers.append(header::LINK, link);
        }
    }

    /// All of them for one session.
    pub(super) fn all(
        &self,
        session: &str,
        until: Option<SystemTime>,
        now: SystemTime,
    ) -> impl Iterator<Item = IceServer> + use<> {
        let known = self.known();
        let turn = known.turn.iter();
        let own = turn.flat_map(move |turn| turn.servers(session, until, now));
        let all: Vec<_> = known.same.iter().cloned().chain(own).collect();
        all.into_iter()
    }
}

impl Turn {
    fn servers(
        &self,
        session: &str,
        until: Option<SystemTime>,
        now: SystemTime,
    ) -> impl Iterator<Item = IceServer> + use<'_> {
        let end = until.map_or(now + LIFE, |until| until.min(now + LIFE));
        let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let user = format!("{end}:{session}");
        let credential = STANDARD.encode(hmac::sign(&self.key, user.as_bytes()));
        self.addresses.iter().map(move |address| IceServer {
            url: address.clone(),
            user: user.clone(),
            credential: credential.clone(),
        })
    }
}

fn addresses(list: &str) -> Result<Vec<String>, String> {
    let parts = list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let checked = parts.map(|part| {
        let address = part.strip_prefix("turn:").or(part.strip_prefix("turns:"));
        // RFC 7065, without user or password.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]?=".contains(c);
        let fits = address.is_some_and(|a| !a.is_empty() && a.chars().all(plain));
        fits.then(|| part.to_owned()).ok_or_else(|| {
            format!(
                "turn-servers: {part:?} is none: write turn:HOST[:PORT][?transport=tcp], or turns:…"
            )
        })
    });
    checked.collect()
}

fn read_secret(path: &str) -> Result<hmac::Key, String> {
    let metadata = std::fs::metadata(path).map_err(|e| e.to_string())?;
    if !metadata.is_file() || metadata.len() > SECRET_MAX {
        return Err("it is no file with a secret".into());
    }
    let text = sfu_access::read_text(path).map_err(|e| e.to_string())?;
    let secret = text.trim();
    if secret.len() < SECRET_MIN || secret.contains(char::is_whitespace) {
        return Err(format!(
            "a secret has {SECRET_MIN} characters at least, and no blanks"
        ));
    }
    let algorithm = hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    Ok(hmac::Key::new(algorithm, secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(test: &str, text: &str) -> String {
        let name = format!("sfu-turn-{test}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    #[test]
    fn each_session_has_credentials_of_its_own_that_end() {
        let file = secret("own", "\u{feff}0123456789abcdef0123\r\n");
        let turn = "turn:[2001:db8::1]:3478?transport=tcp, turns:t.example";
        let servers = IceServers::new("stun:a.example", turn, &file).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let links = |session: &str, until: Option<u64>| {
            let mut headers = HeaderMap::new();
            let until = until.map(|seconds| now + Duration::from_secs(seconds));
            servers.append(&mut headers, session, until, now);
            let links = headers.get_all(header::LINK).iter();
            links
                .map(|l| l.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let all = links("a", None);
        assert_eq!(all.len(), 3);
        assert_eq!(all[0], "<stun:a.example>; rel=\"ice-server\"");
        // `printf 1043200:a | openssl dgst -sha1 -hmac 0123456789abcdef0123 -binary | base64`
        assert_eq!(
            all[1],
            "<turn:[2001:db8::1]:3478?transport=tcp>; rel=\"ice-server\"; username=\"1043200:a\"; \
             credential=\"hVXOuFbbKPHZn4NurgwT6BOu9k4=\"; credential-type=\"password\""
        );
        assert_ne!(links("b", None)[1], all[1]);
        // No longer than what lets it in.
        assert!(links("a", Some(60))[1].contains("username=\"1000060:a\""));
        assert_eq!(links("a", Some(1_000_000))[1], all[1]);
        assert!(!servers.is_empty() && IceServers::default().is_empty());
        let _ = std::fs::remove_file(file);
    }

    #[test]
    fn what_is_no_server_or_secret_is_refused_with_a_sentence() {
        let good = secret("good", "0123456789abcdef");
        for wrong in [
            "t.example",
            "stun:t.example",
            "turn:",
            "turn:a b",
            "turn:u:p@t",
            "turn:a\"",
            "turn:a>",
        ] {
            let error = IceServers::new("", wrong, &good).unwrap_err();
            assert!(error.contains("turn-servers"), "{error}");
        }
        for (name, text) in [
            ("short", "short"),
            ("blank", "0123456789 abcdef"),
            ("empty", ""),
        ] {
            let file = secret(name, text);
            let error = IceServers::new("", "turn:t.example", &file).unwrap_err();
            assert!(error.contains("16 characters"), "{error}");
            let _ = std::fs::remove_file(file);
        }
        for file in ["/nowhere", "/dev/zero", "/"] {
            assert!(IceServers::new("", "turn:t.example", file).is_err());
        }
        for (turn, file) in [("turn:t.example", ""), ("", &*good)] {
            let error = IceServers::new("", turn, file).unwrap_err();
            assert!(error.contains("belong together"), "{error}");
        }
        let _ = std::fs::remove_file(good);
    }
}
