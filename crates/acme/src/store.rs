// SPDX-License-Identifier: MPL-2.0

//! The folder: an account, and a file with key and chain, which nobody else may read (mode 0600), each put in its place at one
//! stroke.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Ref};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

/// Of a file that is ours.
const LARGEST: u64 = 1 << 20;
const ACCOUNT: &str = "account.json";

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    file: PathBuf,
    names: Vec<String>,
}

impl Store {
    /// Makes the folder, and a certificate that we sign ourselves where there is none that can be read.
    pub(crate) fn open(folder: &Path, names: &[String]) -> Result<Self, String> {
        let failed = |what: &dyn std::fmt::Display| format!("{}: {what}", folder.display());
        if folder.as_os_str().is_empty() {
            return Err("name a folder for keys and certificates".into());
        }
        make(folder).map_err(|e| failed(&e))?;
        let first = names.first().map_or("certificate", String::as_str);
        let store = Self {
            file: folder.join(format!("{first}.pem")),
            folder: folder.to_owned(),
            names: names.to_vec(),
        };
        if !store.is_whole() {
            let own = own(names).map_err(|e| failed(&e))?;
            store.keep(&own).map_err(|e| failed(&e))?;
        }
        Ok(store)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether the file can be served.
    fn is_whole(&self) -> bool {
        read(&self.file).is_some_and(|text| is_pair(&text))
    }

    /// When a new certificate is to be asked for.
    pub(crate) fn due(&self, now: SystemTime) -> SystemTime {
        let read = read(&self.file).and_then(|text| X509::from_pem(&text).ok());
        let times = read.filter(|certificate| self.fits(certificate));
        let times = times.and_then(|c| Some((time(c.not_before())?, time(c.not_after())?)));
        let Some((from, until)) = times else {
            return now;
        };
        let life = until.duration_since(from).unwrap_or_default();
        from + life / 3 * 2
    }

    /// Whether it is one that somebody gave us, for our names.
    fn fits(&self, certificate: &X509Ref) -> bool {
        let names = certificate.subject_alt_names();
        let has = |name: &String| {
            let mut names = names.iter().flatten();
            names.any(|n| n.dnsname().is_some_and(|n| n.eq_ignore_ascii_case(name)))
        };
        // What we have signed ourselves is a stopgap.
        let key = certificate.public_key();
        let is_own = key.is_ok_and(|key| certificate.verify(&key).unwrap_or(false));
        !is_own && self.names.iter().all(has)
    }

    /// Keeps what an ACME server gave, where it can be served. Who would be asked again at once has failed, too.
    pub(crate) fn take(&self, text: &str, now: SystemTime) -> Result<(), String> {
        let certificate = X509::from_pem(text.as_bytes()).ok();
        let fits = certificate.is_some_and(|certificate| self.fits(&certificate));
        if !fits || !is_pair(text.as_bytes()) {
            return Err("what it gives is no certificate for these names".into());
        }
        self.keep(text).map_err(|e| format!("acme-cache: {e}"))?;
        match self.due(now) > now {
            true => Ok(()),
            false => Err("what it gives is out of date already: is the clock right?".into()),
        }
    }

    fn keep(&self, text: &str) -> std::io::Result<()> {
        self.put(&self.file, text)
    }

    /// What was kept of an account with that server.
    pub(crate) fn account(&self, directory: &str) -> Option<Value> {
        let text = read(&self.folder.join(ACCOUNT))?;
        let mut kept: Value = serde_json::from_slice(&text).ok()?;
        let is_its = kept["directory"] == directory;
        is_its.then(|| kept["account"].take())
    }

    pub(crate) fn keep_account(&self, directory: &str, account: &Value) -> std::io::Result<()> {
        let kept = json!({ "directory": directory, "account": account });
        self.put(&self.folder.join(ACCOUNT), &kept.to_string())
    }

    /// The server knows it no more.
    pub(crate) fn forget_account(&self) {
        let _ = std::fs::remove_file(self.folder.join(ACCOUNT));
    }

    fn put(&self, path: &Path, text: &str) -> std::io::Result<()> {
        let part = path.with_extension("part");
        let _ = std::fs::remove_file(&part);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&part)?;
        file.write_all(text.as_bytes())?;
        // It must be there after the power has failed, too: certificates are given out a few times a week alone.
        file.sync_all()?;
        std::fs::rename(&part, path)
    }
}

fn make(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(folder)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let file = std::fs::File::open(path).ok()?;
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text).ok()?;
    Some(text)
}

/// A key and a certificate that belong together.
fn is_pair(text: &[u8]) -> bool {
    let key = PKey::private_key_from_pem(text);
    let certificate = X509::from_pem(text).and_then(|c| c.public_key());
    key.is_ok_and(|key| certificate.is_ok_and(|of| of.public_eq(&key)))
}

fn time(of: &Asn1TimeRef) -> Option<SystemTime> {
    let since = Asn1Time::from_unix(0).ok()?.diff(of).ok()?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    let seconds = u64::try_from(seconds).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A certificate that nobody believes, until there is a better one.
fn own(names: &[String]) -> Result<String, rcgen::Error> {
    let params = CertificateParams::new(names.to_vec())?;
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}\n{}", key.serialize_pem(), certificate.pem()))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa, Issuer};

    use super::*;

    fn given(names: &[&str], from: i64, until: i64) -> String {
        let at = |s: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(s as u64);
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(authority, key);
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (at(from), at(until));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        format!("{}\n{}", key.serialize_pem(), certificate.pem())
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_and_where_it_does_not_fit() {
        let folder = std::env::temp_dir().join(format!("sfu-acme-store-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let names = ["a.example".to_owned(), "b.example".to_owned()];
        let store = Store::open(&folder, &names).unwrap();
        let at = |s: u64| UNIX_EPOCH + Duration::from_secs(s);
        let now = at(1_000_000);
        assert_eq!(store.due(now), now, "its own");
        store
            .keep(&given(&["b.example", "A.example"], 1_000_000, 1_900_000))
            .unwrap();
        assert_eq!(store.due(now), at(1_600_000));
        // It is found again.
        let store = Store::open(&folder, &names).unwrap();
        assert_eq!(store.due(now), at(1_600_000));
        store
            .keep(&given(&["a.example"], 1_000_000, 1_900_000))
            .unwrap();
        assert_eq!(store.due(now), now, "another name is wanted");
        // What a server gives has our names, its own key, and some time left.
        let good = given(&["a.example", "b.example"], 1_000_000, 1_900_000);
        let other = given(&["a.example", "b.example"], 1_000_000, 1_900_000);
        let (key, _) = good.split_once("-----BEGIN CERTIFICATE").unwrap();
        let (_, chain) = other.split_once("-----BEGIN CERTIFICATE").unwrap();
        for (text, wrong) in [
            (given(&["a.example"], 1_000_000, 1_900_000), "names"),
            (format!("{key}-----BEGIN CERTIFICATE{chain}"), "names"),
            ("nonsense".to_owned(), "names"),
            (
                given(&["a.example", "b.example"], 100_000, 1_000_000),
                "clock",
            ),
        ] {
            let why = store.take(&text, now).unwrap_err();
            assert!(why.contains(wrong), "{why}");
        }
        store.take(&good, now).unwrap();
        assert_eq!(store.due(now), at(1_600_000));
        for broken in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAA==\n"] {
            store.keep(broken).unwrap();
            assert_eq!(store.due(now), now);
            let again = Store::open(&folder, &names).unwrap();
            assert!(again.is_whole(), "there is always one to serve");
        }
        assert_eq!(store.account("x"), None);
        store.keep_account("x", &json!({ "key": 1 })).unwrap();
        assert_eq!(store.account("x"), Some(json!({ "key": 1 })));
        assert_eq!(store.account("y"), None);
        store.forget_account();
        assert_eq!(store.account("x"), None);
        let _ = std::fs::remove_dir_all(&folder);
    }
}
