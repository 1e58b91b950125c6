// SPDX-License-Identifier: MPL-2.0
//! Who may publish where there is no `stream-key`: by the same rules as everywhere (docs/access.md).

use std::net::IpAddr;

use sfu_access::{Action, Credential, Pass, Refused, Visitor, credential_of_query};

use super::CAT;
use super::settings::{Settings, bare};

#[derive(Debug)]
pub(super) struct Door {
    /// `None`: the stream key is the permission.
    rules: Option<sfu_access::Door>,
    stream: String,
}

impl Door {
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        let by_key = !settings.stream_key.is_empty();
        let warn = |why: &str| gst::warning!(CAT, "{why}");
        let open = || sfu_access::Door::open(&settings.access, warn);
        let rules = (!by_key).then(open).transpose();
        Ok(Self {
            rules: rules.map_err(|e| format!("access: {e}"))?,
            stream: settings.stream.clone(),
        })
    }

    /// `key` is what stands behind the application: a token or key, or a stream's name with `?token=…`, or with `?user=…&pass=…`.
    pub(super) fn admit(&self, from: IpAddr, key: &str) -> Result<Option<Pass>, Refused> {
        let Some(rules) = &self.rules else {
            return Ok(None);
        };
        let (name, query) = key.split_once('?').unwrap_or((key, ""));
        let named = || Credential::Bearer(name.trim_matches('/'));
        let credential = credential_of_query(query).unwrap_or_else(named);
        let stream = match self.stream.as_str() {
            "" => bare(key),
            stream => stream,
        };
        let visitor = Visitor {
            address: Some(from),
            local: from.to_canonical().is_loopback(),
            named: true,
            credential: Some(credential),
            protocol: "rtmp",
        };
        rules.admit(&visitor, Action::Publish, stream).map(Some)
    }

    /// Whether that still holds.
    pub(super) fn still(&self, pass: &mut Pass) -> Result<(), Refused> {
        match &self.rules {
            Some(rules) => rules.still(pass),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

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
        let mut by_key = door.admit(there, key).unwrap().unwrap();
        let mut by_token = door
            .admit(there, &token("publish=cam1", 4))
            .unwrap()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1_100));
        for pass in [&mut by_key, &mut by_token] {
            assert_eq!(door.still(pass), Ok(()));
        }
        std::fs::write(&file, "tokens secret\n").unwrap();
        std::thread::sleep(Duration::from_millis(3_100));
        for pass in [&mut by_key, &mut by_token] {
            assert!(door.still(pass).is_err());
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    /// Also where nobody is there whose connection they could end.
    #[test]
    fn rules_that_change_while_nobody_is_there_hold_for_who_comes() {
        let file = std::env::temp_dir().join(format!("rtmp-idle-{}", std::process::id()));
        std::fs::write(&file, "loopback\n").unwrap();
        let settings = Settings {
            access: file.to_str().unwrap().into(),
            stream: "cam1".into(),
            ..Settings::default()
        };
        let door = Door::open(&settings).unwrap();
        let from: IpAddr = [192, 0, 2, 1].into();
        assert!(door.admit(from, "").is_err());
        for (rules, may) in [("from 192.0.2.0/24 publish\n", true), ("loopback\n", false)] {
            std::fs::write(&file, rules).unwrap();
            std::thread::sleep(Duration::from_millis(1_100));
            assert_eq!(door.admit(from, "").is_ok(), may, "{rules}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
