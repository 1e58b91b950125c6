// SPDX-License-Identifier: MPL-2.0
//! Who may publish where there is no `stream-key`: by the same rules as everywhere (docs/access.md).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use sfu_access::{Access, Action, Credential, Proof, Refused, Visitor, Want};

use super::CAT;
use super::settings::{Settings, bare};

/// How often the rules and the time are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Door {
    /// `None`: the stream key is the permission.
    access: Option<Access>,
    stream: String,
}

/// Who was let in, and when that was looked at last.
#[derive(Debug)]
pub(super) struct Pass {
    proof: Proof,
    wants: [Want; 1],
    looked: Instant,
}

impl Door {
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        let by_key = !settings.stream_key.is_empty();
        let named = Some(settings.access.as_str()).filter(|file| !file.is_empty());
        let of_environment = std::env::var_os("GST_SFU_ACCESS").filter(|file| !file.is_empty());
        let file = named
            .map(PathBuf::from)
            .or(of_environment.map(PathBuf::from));
        let open = || Access::open(file.as_deref()).map_err(|e| format!("access: {e}"));
        Ok(Self {
            access: (!by_key).then(open).transpose()?,
            stream: settings.stream.clone(),
        })
    }

    /// `key` is what stands behind the application: a token or key, or a stream's name with `?token=…`, or with `?user=…&pass=…`.
    pub(super) fn admit(&self, from: IpAddr, key: &str) -> Result<Option<Pass>, Refused> {
        let Some(access) = &self.access else {
            return Ok(None);
        };
        let (name, query) = key.split_once('?').unwrap_or((key, ""));
        let field = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
        };
        let credential = match (field("token"), field("user"), field("pass")) {
            (Some(token), ..) => Credential::Bearer(token),
            (None, Some(user), Some(password)) => Credential::Basic { user, password },
            _ => Credential::Bearer(name.trim_matches('/')),
        };
        let stream = match self.stream.as_str() {
            "" => bare(key),
            stream => stream,
        };
        let wants = [Want {
            action: Action::Publish,
            stream: Some(stream.to_owned()),
        }];
        let visitor = Visitor {
            address: Some(from),
            local: from.to_canonical().is_loopback(),
            named: true,
            credential: Some(credential),
            protocol: "rtmp",
        };
        let proof = access.check_and_wait(&visitor, &wants)?;
        Ok(Some(Pass {
            proof,
            wants,
            looked: Instant::now(),
        }))
    }

    /// Whether that still holds. Looks at the rules and the clock once in a while.
    pub(super) fn still(&self, pass: &mut Pass) -> Result<(), Refused> {
        let Some(access) = &self.access else {
            return Ok(());
        };
        if pass.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        pass.looked = Instant::now();
        if let Some(Err(error)) = access.refresh() {
            gst::warning!(CAT, "The rules stay as they are: {error}");
        }
        access.still(&pass.proof, &pass.wants, SystemTime::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_a_permission_by_the_rules() {
        let folder = std::env::temp_dir().join(format!("rtmp-access-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let secret = "0123456789abcdef0123456789abcdef";
        let hash = sfu_access::hash_password("horse").unwrap();
        std::fs::write(folder.join("secret"), secret).unwrap();
        std::fs::write(folder.join("key"), "a-key-that-nobody-guesses").unwrap();
        let rules = format!("key key publish=cam1\ntokens secret\nuser ann {hash} publish\n");
        let file = folder.join("access");
        std::fs::write(&file, &rules).unwrap();
        let door = |stream: &str, stream_key: &str| {
            Door::open(&Settings {
                access: file.to_str().unwrap().into(),
                stream: stream.into(),
                stream_key: stream_key.into(),
                ..Settings::default()
            })
            .unwrap()
        };
        let token = |word: &str, seconds: u64| {
            let grants = sfu_access::Grants::default().parse_word(word).unwrap();
            let until = SystemTime::now() + Duration::from_secs(seconds);
            sfu_access::make_token(secret, &grants, until, None).unwrap()
        };
        let (mine, others) = (token("publish=cam1", 60), token("play=cam1", 60));
        let (here, there): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [192, 0, 2, 1].into());
        let key = "a-key-that-nobody-guesses";
        for (stream, from, shown, admitted) in [
            ("cam1", here, "anything".to_owned(), true),
            ("cam1", there, "anything".to_owned(), false),
            ("cam1", there, String::new(), false),
            ("cam1", there, key.to_owned(), true),
            ("cam1", there, format!("/{key}/"), true),
            ("cam1", there, format!("x?token={key}"), true),
            ("cam2", there, key.to_owned(), false),
            // The name is the key's where nothing else says it.
            ("", there, format!("cam1?token={key}"), true),
            ("", there, format!("cam2?token={key}"), false),
            ("", there, key.to_owned(), false),
            ("cam1", there, mine.clone(), true),
            ("cam1", there, format!("cam1?token={mine}"), true),
            ("cam2", there, mine.clone(), false),
            ("cam1", there, others.clone(), false),
            ("cam1", there, format!("{key}?token={others}"), false),
            ("cam1", there, "cam1?user=ann&pass=horse".to_owned(), true),
            ("cam1", there, "cam1?user=ann&pass=cow".to_owned(), false),
            ("cam1", there, "cam1?user=ann".to_owned(), false),
        ] {
            let found = door(stream, "").admit(from, &shown);
            assert_eq!(
                found.is_ok(),
                admitted,
                "{stream} {from} {shown:.12}: {found:?}"
            );
        }
        assert!(matches!(door("cam1", "secret").admit(there, "x"), Ok(None)));
        // It ends with the rule, and with the token.
        let door = door("cam1", "");
        let later = |pass: &mut Pass| pass.looked = Instant::now() - 2 * LOOK_EVERY;
        let mut by_key = door.admit(there, key).unwrap().unwrap();
        let mut by_token = door
            .admit(there, &token("publish=cam1", 2))
            .unwrap()
            .unwrap();
        for pass in [&mut by_key, &mut by_token] {
            later(pass);
            assert_eq!(door.still(pass), Ok(()));
        }
        std::fs::write(&file, "tokens secret\n").unwrap();
        std::thread::sleep(Duration::from_millis(2_100));
        for pass in [&mut by_key, &mut by_token] {
            later(pass);
            assert!(door.still(pass).is_err());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
