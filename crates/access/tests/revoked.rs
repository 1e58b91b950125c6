// SPDX-License-Identifier: MPL-2.0
//! Tokens that the API takes back are so for all who go by the same access file, and after a restart.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use sfu_access::{Access, Action, Credential, Refused, Visitor, Want};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("sfu-access-revoked-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("secret"), SECRET).unwrap();
        fs::write(path.join("access"), "tokens secret\n").unwrap();
        Self(path)
    }

    fn access(&self) -> PathBuf {
        self.0.join("access")
    }

    fn kept(&self) -> PathBuf {
        self.0.join("access.revoked")
    }

    fn open(&self) -> Access {
        Access::open(Some(&self.access())).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn plays(access: &Access, id: &str) -> Result<(), Refused> {
    let claims = json!({ "exp": 4_000_000_000u64, "jti": id, "sfu": { "play": ["cam1"] } });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let token = encode(&Header::default(), &claims, &key).unwrap();
    let visitor = Visitor {
        credential: Some(Credential::Bearer(&token)),
        ..Visitor::default()
    };
    let want = Want {
        action: Action::Play,
        stream: Some("cam1".into()),
    };
    access.check_and_wait(&visitor, &[want]).map(drop)
}

/// Another one as the file is: at one stroke.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn all_who_go_by_a_file_know_what_one_was_told() {
    let folder = Folder::new("all");
    let (one, other) = (folder.open(), folder.open());
    let now = SystemTime::now();
    let until = UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let generation = other.generation();
    assert!(one.revoke("a b%", Some(until), now));
    assert!(one.revoke("#2", None, now));
    assert_eq!(one.refresh(), None, "it knows what it wrote");
    assert_eq!(other.refresh(), Some(Ok(())));
    assert!(other.generation() > generation);
    for access in [&one, &other, &folder.open()] {
        assert_eq!(plays(access, "a b%"), Err(Refused::Revoked));
        assert_eq!(plays(access, "#2"), Err(Refused::Revoked));
        assert_eq!(plays(access, "3"), Ok(()));
        assert!(access.revoked().contains(&("a b%".into(), until)));
    }
    let mode = fs::metadata(folder.kept()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Two who were told of different ones keep both, though neither has looked.
    assert!(one.revoke("3", None, now) && other.revoke("4", None, now));
    assert_eq!(plays(&other, "3"), Err(Refused::Revoked));
    assert_eq!(plays(&folder.open(), "3"), Err(Refused::Revoked));
    assert_eq!(plays(&folder.open(), "4"), Err(Refused::Revoked));
    // By mistake: any of them may take it away again.
    assert!(one.restore("4") && one.restore("a b%"));
    assert!(!one.restore("4") && !folder.open().restore("never"));
    assert_eq!(other.refresh(), Some(Ok(())));
    for access in [&one, &other, &folder.open()] {
        assert_eq!(plays(access, "4"), Ok(()));
        assert_eq!(plays(access, "3"), Err(Refused::Revoked));
    }
}

#[test]
fn what_has_ended_is_not_kept() {
    let folder = Folder::new("ended");
    let access = folder.open();
    let now = SystemTime::now();
    assert!(access.revoke("soon", Some(now + Duration::from_secs(1)), now));
    assert!(access.revoke("late", None, now + Duration::from_secs(2)));
    let text = fs::read_to_string(folder.kept()).unwrap();
    assert!(text.contains("late ") && !text.contains("soon"), "{text}");
}

#[test]
fn a_file_that_is_wrong_empty_or_gone_makes_no_token_good() {
    let folder = Folder::new("wrong");
    let access = folder.open();
    let now = SystemTime::now();
    assert!(access.revoke("one", None, now));
    for wrong in ["one x\n", "one 1 2\n", "%\n"] {
        replace(&folder.kept(), wrong);
        let error = access.refresh().unwrap().unwrap_err().to_string();
        assert!(error.contains("access.revoked, line 1"), "{error}");
        assert_eq!(access.refresh(), None, "it is told once");
        assert_eq!(plays(&access, "one"), Err(Refused::Revoked));
        // Nobody starts without what it may have said, and nobody writes over it.
        assert!(Access::open(Some(&folder.access())).is_err());
        assert!(access.revoke("two", None, now));
        assert_eq!(plays(&access, "two"), Err(Refused::Revoked));
        let complaint = access.complaint().unwrap();
        assert!(complaint.contains("access.revoked"), "{complaint}");
        assert_eq!(fs::read_to_string(folder.kept()).unwrap(), wrong);
    }
    replace(&folder.kept(), "");
    assert_eq!(access.refresh(), None);
    fs::remove_file(folder.kept()).unwrap();
    assert_eq!(access.refresh(), None);
    assert_eq!(plays(&access, "one"), Err(Refused::Revoked));
    // The next one writes down all of them.
    assert!(access.revoke("three", None, now));
    assert_eq!(access.complaint(), None);
    for id in ["one", "two", "three"] {
        assert_eq!(plays(&folder.open(), id), Err(Refused::Revoked), "{id}");
    }
    // By hand, with no end.
    replace(&folder.kept(), "# mine\nfour\n");
    assert_eq!(access.refresh(), Some(Ok(())));
    assert_eq!(plays(&access, "four"), Err(Refused::Revoked));
    assert_eq!(plays(&access, "one"), Ok(()));
}

#[test]
fn where_nothing_can_be_written_it_holds_here() {
    let folder = Folder::new("unwritten");
    let access = folder.open();
    // What a folder without rights is for who is not root.
    fs::create_dir(folder.0.join("access.revoked.part")).unwrap();
    assert!(access.revoke("one", None, SystemTime::now()));
    assert_eq!(plays(&access, "one"), Err(Refused::Revoked));
    let complaint = access.complaint().unwrap();
    assert!(complaint.contains("this element alone"), "{complaint}");
    assert_eq!(access.complaint(), None, "it is told once");
    assert!(!folder.kept().exists());
    fs::remove_dir(folder.0.join("access.revoked.part")).unwrap();
    assert!(access.revoke("two", None, SystemTime::now()));
    assert_eq!(plays(&folder.open(), "one"), Err(Refused::Revoked));
}
