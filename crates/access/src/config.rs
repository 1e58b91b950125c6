// SPDX-License-Identifier: MPL-2.0

//! The access file: a rule a line, read anew when it, or a file that it names, changes. What it does not allow is refused.
//!
//! ```text
//! # who               what for which streams, * being any characters
//! anyone              play=*
//! loopback            play publish takeover record api metrics
//! from 10.0.0.0/8     publish=studio/*
//! key publish.key     publish=* takeover=*
//! tokens tokens.secret
//! revoked 8Jx2pQ
//! user ann $argon2id$v=19$m=19456,t=2,p=1$…  publish=cam1,cam2 play=* from=10.0.0.0/8 ha1=939e75…
//! ```

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use std::{fs, io};

use argon2::password_hash::PasswordHash;
use aws_lc_rs::digest;
use ipnet::{IpNet, Ipv4Net};

use crate::digest::read_ha1;
use crate::remote::Address;
use crate::text::without_mark;
use crate::token::{self, Key};
use crate::visitor::Ways;
use crate::webhook::{Convention, Webhook};
use crate::{Action, Grants, Pattern};

/// A file of 20,000 users has 4 MB.
const FILE_MAX: u64 = 8 * 1024 * 1024;
/// What one password may cost: memory in KiB, passes over it, and lanes.
const ARGON2_MAX: [u32; 3] = [128 * 1024, 10, 8];
/// A key that is shorter can be guessed.
const KEY_MIN: usize = 16;
/// Each is asked every few minutes.
const PROVIDERS_MAX: usize = 8;

/// What is wrong with the access file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It, or a file that it names.
    #[error("{0} can't be read: {1}")]
    File(PathBuf, String),
    /// It has no rules any more, and had some while this ran.
    #[error(
        "{0} has no rules any more, as if it were half written: to refuse everyone, write the line `anyone`"
    )]
    Empty(PathBuf),
    /// A line of it, from 1.
    #[error("{file}, line {line}: {what}")]
    Line {
        /// Which file.
        file: PathBuf,
        /// Which line of it.
        line: usize,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// A user that has a password.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) hash: Arc<str>,
    /// What RTSP's Digest needs of the password.
    pub(crate) ha1: Option<Arc<str>>,
    pub(crate) grants: Arc<Grants>,
    /// Empty: from anywhere.
    pub(crate) from: Vec<IpNet>,
}

/// What the files say.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) loopback: Arc<Grants>,
    pub(crate) anyone: Arc<Grants>,
    pub(crate) networks: Vec<(IpNet, Arc<Grants>)>,
    /// By their digests, so that looking one up takes the same time for all that are wrong.
    pub(crate) keys: HashMap<Digest, Arc<Grants>>,
    pub(crate) signers: Vec<Key>,
    /// Whose keys are asked for.
    pub(crate) providers: Vec<Address>,
    /// Who is asked where the rules don't allow it.
    pub(crate) webhook: Option<Webhook>,
    pub(crate) users: HashMap<String, User>,
    /// Tokens that are taken back, by their `jti`.
    pub(crate) revoked: HashSet<String>,
    /// The secret that a token of our own can be made with, if there is one.
    pub(crate) secret: Option<String>,
    /// How many lines said so.
    pub(crate) rules: usize,
}

/// SHA-256.
pub(crate) type Digest = [u8; 32];

pub(crate) fn digest_of(octets: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    out
}

impl Default for Policy {
    /// Without any file: loopback may do everything, others may play.
    fn default() -> Self {
        Self {
            anyone: Arc::new(Grants::default().with(Action::Play, Pattern::all())),
            ..Self::closed()
        }
    }
}

impl Policy {
    fn closed() -> Self {
        Self {
            loopback: Arc::new(Grants::all()),
            anyone: Arc::default(),
            networks: Vec::new(),
            keys: HashMap::new(),
            signers: Vec::new(),
            providers: Vec::new(),
            webhook: None,
            users: HashMap::new(),
            revoked: HashSet::new(),
            secret: None,
            rules: 0,
        }
    }

    /// What can be shown. A webhook may know anything.
    pub(crate) fn ways(&self) -> Ways {
        let known = !(self.keys.is_empty() && self.signers.is_empty() && self.providers.is_empty());
        Ways {
            tokens: known || self.webhook.is_some(),
            passwords: !self.users.is_empty() || self.webhook.is_some(),
            ours: self.secret.is_some(),
        }
    }

    /// One line that tells what it comes to.
    pub(crate) fn summary(&self) -> String {
        let names = |grants: &Grants| {
            let allowed = Action::ALL.into_iter().filter(|a| grants.has(*a));
            let names: Vec<_> = allowed.map(Action::name).collect();
            match names.is_empty() {
                true => "nothing".to_owned(),
                false => names.join(", "),
            }
        };
        format!(
            "loopback may {}, others without a key or token {}; keys: {}, signers of tokens: {}, users: {}, networks: {}{}",
            names(&self.loopback),
            names(&self.anyone),
            self.keys.len(),
            self.signers.len() + self.providers.len(),
            self.users.len(),
            self.networks.len(),
            if self.webhook.is_some() {
                "; a webhook is asked for the rest"
            } else {
                ""
            }
        )
    }
}

/// Which version of a file was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

/// Files that were read, and as what.
pub(crate) type Seen = Vec<(PathBuf, Option<Stamp>)>;

pub(crate) fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        inode: metadata.ino(),
    })
}

pub(crate) fn have_changed(seen: &Seen) -> bool {
    seen.iter().any(|(path, was)| stamp(path) != *was)
}

/// Reads the access file and all that it names. `seen` gets them also where that fails.
pub(crate) fn load(path: &Path, seen: &mut Seen) -> Result<Policy, ConfigError> {
    seen.clear();
    let text = read(path, seen)?;
    let text = String::from_utf8(text)
        .map_err(|_| ConfigError::File(path.to_owned(), "it is not text".into()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut policy = Policy::closed();
    for (index, line) in text.lines().enumerate() {
        let wrong = |what| ConfigError::Line {
            file: path.to_owned(),
            line: index + 1,
            what,
        };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut file = |name: &str| {
            let path = folder.join(name);
            let octets = read(&path, seen).map_err(|e| e.to_string())?;
            Ok((path, octets))
        };
        rule(&mut policy, &words, &mut file).map_err(wrong)?;
        policy.rules += 1;
    }
    Ok(policy)
}

fn read(path: &Path, seen: &mut Seen) -> Result<Vec<u8>, ConfigError> {
    // Before it is read: what changes meanwhile is read again.
    seen.push((path.to_owned(), stamp(path)));
    let wrong = |error: io::Error| ConfigError::File(path.to_owned(), error.to_string());
    let length = fs::metadata(path).map_err(wrong)?.len();
    if length > FILE_MAX {
        let what = "it is larger than 8 MiB".to_owned();
        return Err(ConfigError::File(path.to_owned(), what));
    }
    fs::read(path).map(without_mark).map_err(wrong)
}

type Files<'a> = dyn FnMut(&str) -> Result<(PathBuf, Vec<u8>), String> + 'a;

fn rule(policy: &mut Policy, words: &[&str], file: &mut Files<'_>) -> Result<(), String> {
    let (kind, rest) = words.split_first().ok_or("it is empty")?;
    let argument = || {
        rest.first()
            .copied()
            .ok_or_else(|| format!("{kind} what? Something must follow"))
    };
    let after = rest.get(1..).unwrap_or_default();
    match *kind {
        "anyone" => policy.anyone = Arc::new(grants(rest)?),
        "loopback" => policy.loopback = Arc::new(grants(rest)?),
        "from" => {
            let grants = Arc::new(grants(after)?);
            for network in networks(argument()?)? {
                policy.networks.push((network, grants.clone()));
            }
        }
        "key" => {
            let (path, octets) = file(argument()?)?;
            let text = String::from_utf8_lossy(&octets);
            let key = text.trim();
            if key.len() < KEY_MIN || key.contains(char::is_whitespace) {
                let path = path.display();
                return Err(format!(
                    "{path}: a key has {KEY_MIN} characters at least, and no blanks"
                ));
            }
            let digest = digest_of(key.as_bytes());
            policy.keys.insert(digest, Arc::new(grants(after)?));
        }
        "tokens" if Address::is_one(argument()?) => {
            if policy.providers.len() >= PROVIDERS_MAX {
                return Err(format!(
                    "there are more than {PROVIDERS_MAX} addresses of tokens' keys"
                ));
            }
            policy.providers.push(Address::new(argument()?)?);
            nothing_after("tokens URL", after)?;
        }
        "ask" => {
            let (convention, word, after) = match argument()? {
                "mediamtx" => (
                    Convention::MediaMtx,
                    after.first(),
                    &after[1.min(after.len())..],
                ),
                "nginx" => (
                    Convention::Nginx,
                    after.first(),
                    &after[1.min(after.len())..],
                ),
                _ => (Convention::MediaMtx, rest.first(), after),
            };
            let word = word.ok_or("ask [mediamtx|nginx] URL: the address is missing")?;
            let address = Address::new(word)?;
            nothing_after("ask URL", after)?;
            if policy
                .webhook
                .replace(Webhook {
                    address,
                    convention,
                })
                .is_some()
            {
                return Err("there is a second line ask: one server decides".into());
            }
        }
        "tokens" => {
            let (path, octets) = file(argument()?)?;
            let keys = token::read_keys(&octets);
            let keys = keys.map_err(|what| format!("{}: {what}", path.display()))?;
            policy.signers.extend(keys);
            if policy.secret.is_none() {
                policy.secret = token::secret_in(&octets).map(str::to_owned);
            }
            nothing_after("tokens FILE", after)?;
        }
        "user" => {
            let name = argument()?;
            let user = user(after)?;
            if name.contains(':') || policy.users.insert(name.to_owned(), user).is_some() {
                return Err(format!("the user {name:?} is there twice, or has a colon"));
            }
        }
        "revoked" => policy
            .revoked
            .extend(rest.iter().map(|id| (*id).to_owned())),
        other => {
            return Err(format!(
                "there is no rule {other:?}; there are anyone, loopback, from, key, tokens, user, ask, revoked"
            ));
        }
    }
    Ok(())
}

fn nothing_after(what: &str, words: &[&str]) -> Result<(), String> {
    match words.first() {
        Some(word) => Err(format!("{what}: {word:?} is one word too many")),
        None => Ok(()),
    }
}

fn user(words: &[&str]) -> Result<User, String> {
    let (hash, rest) = words
        .split_first()
        .ok_or("user NAME HASH …: the hash is missing; ./sfu password makes one")?;
    let parsed = PasswordHash::new(hash)
        .map_err(|_| "the hash is not one of argon2; ./sfu password makes one")?;
    let params = argon2::Params::try_from(&parsed).map_err(|e| e.to_string())?;
    let costs = [params.m_cost(), params.t_cost(), params.p_cost()];
    if !parsed.algorithm.as_str().starts_with("argon2")
        || parsed.hash.is_none()
        || costs
            .iter()
            .zip(ARGON2_MAX)
            .any(|(cost, most)| *cost > most)
    {
        return Err("the hash is not one of argon2, or costs more than m=131072,t=10,p=8".into());
    }
    let (from, rest): (Vec<&str>, Vec<&str>) =
        rest.iter().partition(|word| word.starts_with("from="));
    let (ha1, rest): (Vec<&str>, Vec<&str>) =
        rest.iter().partition(|word| word.starts_with("ha1="));
    let ha1 = match ha1.as_slice() {
        [] => None,
        [word] => Some(read_ha1(&word["ha1=".len()..])),
        _ => Some(None),
    };
    if ha1 == Some(None) {
        return Err("ha1= is 32 hexadecimal digits, once; ./sfu password NAME makes them".into());
    }
    let from = from
        .iter()
        .map(|word| networks(&word["from=".len()..]))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(User {
        hash: (*hash).into(),
        ha1: ha1.flatten().map(Into::into),
        grants: Arc::new(grants(&rest)?),
        from: from.concat(),
    })
}

fn grants(words: &[&str]) -> Result<Grants, String> {
    let words = words.iter();
    words
        .copied()
        .try_fold(Grants::default(), Grants::parse_word)
}

fn networks(list: &str) -> Result<Vec<IpNet>, String> {
    let read = |part: &str| {
        let wrong = || format!("{part:?} is no address and no network such as 10.0.0.0/8");
        network(part).ok_or_else(wrong)
    };
    list.split(',').map(read).collect()
}

/// A network, or one address. What IPv6 says of IPv4 (`::ffff:0:0/96`, RFC 4291, section 2.5.5.2) is of IPv4, as addresses of
/// who comes are.
pub fn network(text: &str) -> Option<IpNet> {
    const MAPPED: u8 = 96;
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse::<IpNet>().ok().or_else(address)?;
    let IpNet::V6(wide) = network else {
        return Some(network);
    };
    match (
        wide.addr().to_ipv4_mapped(),
        wide.prefix_len().checked_sub(MAPPED),
    ) {
        (Some(address), Some(length)) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_ipv4_are_so_however_they_are_written() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.8.1.1", Some("10.8.1.1/32")),
            ("::ffff:10.9.9.0/120", Some("10.9.9.0/24")),
            ("::ffff:a09:900/120", Some("10.9.9.0/24")),
            ("::ffff:10.8.1.1", Some("10.8.1.1/32")),
            ("::FFFF:10.8.1.1/128", Some("10.8.1.1/32")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            // More than what is of IPv4.
            ("::ffff:0:0/95", Some("::ffff:0:0/95")),
            ("::/0", Some("::/0")),
            // Another way to write it, which no socket uses (section 2.5.5.1).
            ("::10.8.1.1", Some("::a08:101/128")),
            ("fd00::/8", Some("fd00::/8")),
            ("::ffff:10.8.1.1/129", None),
            ("10.0.0.0/33", None),
            ("example.org", None),
            ("", None),
        ] {
            let expected: Option<IpNet> = expected.map(|network| network.parse().unwrap());
            assert_eq!(network(text), expected, "{text}");
        }
    }
}
