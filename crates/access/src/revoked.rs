// SPDX-License-Identifier: MPL-2.0

//! Tokens that are taken back while it runs, by their `jti`, until they end anyhow. They are kept in a file beside the access file,
//! `ID [UNTIL]` a line, which all who go by the same access file read again when it changes: elements of other plugins, which have
//! nothing else in common, other processes, and the next start.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::{self, ConfigError, Stamp};

/// How many, and for how long where their end is not known.
const MAX: usize = 10_000;
const TIME: Duration = Duration::from_secs(400 * 24 * 3600);
/// Octets of the name of each: 512 characters of any script.
const ID_MAX: usize = 4 * 512;
/// So many of the longest, each octet as `%XX`, have less.
const FILE_MAX: u64 = 64 * 1024 * 1024;
/// The last second of the year 9999: of those that have no end.
const LATEST: u64 = 253_402_300_799;
/// How long another one may write, and how often that is looked at.
const LOCK_TIME: Duration = Duration::from_secs(1);
const LOCK_EVERY: Duration = Duration::from_millis(10);

const HEAD: &str =
    "# Tokens that were taken back by the API, by their jti, and until when (Unix time).\n";

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Revoked {
    /// Without an access file they are kept nowhere.
    kept: Option<Kept>,
    /// Held for no disk.
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Kept {
    access: PathBuf,
    path: PathBuf,
    /// Which version was read or written last. Held while that goes on.
    seen: Mutex<Option<Stamp>>,
}

#[derive(Debug, Default)]
struct Table {
    ids: Ids,
    /// What the file does not say yet. Without a time it is good again.
    unsaved: HashMap<String, Option<SystemTime>>,
    /// What the log should know.
    complaint: Option<String>,
}

type Ids = HashMap<String, SystemTime>;

impl Revoked {
    /// With those that are kept beside that access file.
    pub(crate) fn open(access: Option<&Path>) -> Result<Self, ConfigError> {
        let revoked = Self {
            kept: access.map(Kept::new),
            table: Mutex::default(),
        };
        match revoked.refresh() {
            Some(Err(error)) => Err(error),
            _ => Ok(revoked),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, id: &str) -> bool {
        self.table().ids.contains_key(id)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<(String, SystemTime)> {
        let table = self.table();
        let ids = table.ids.iter();
        ids.map(|(id, until)| (id.clone(), *until)).collect()
    }

    /// What the log should be told of, once.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.table().complaint.take()
    }

    /// Takes one back: at once here, and for all others with [`Revoked::save`]. `false`: there are too many, or it is no name.
    pub(crate) fn add(&self, id: &str, until: Option<SystemTime>, now: SystemTime) -> bool {
        let mut table = self.table();
        if table.ids.len() >= MAX {
            table.ids.retain(|_, until| *until > now);
        }
        let is_full = table.ids.len() >= MAX || table.unsaved.len() >= 2 * MAX;
        if id.is_empty() || id.len() > ID_MAX || is_full {
            return false;
        }
        let until = until.unwrap_or(now + TIME);
        table.ids.insert(id.to_owned(), until);
        if self.kept.is_some() {
            table.unsaved.insert(id.to_owned(), Some(until));
        }
        true
    }

    /// Makes one good again, likewise. `false`: it was not taken back.
    pub(crate) fn remove(&self, id: &str) -> bool {
        let mut table = self.table();
        let was_there = table.ids.remove(id).is_some();
        if was_there && self.kept.is_some() && table.unsaved.len() < 2 * MAX {
            table.unsaved.insert(id.to_owned(), None);
        }
        was_there
    }

    /// Whether others have changed the file, for threads that wait for nobody.
    pub(crate) fn has_changed(&self) -> bool {
        let Some(kept) = &self.kept else {
            return false;
        };
        match kept.seen.try_lock() {
            Ok(seen) => config::stamp(&kept.path) != *seen,
            Err(_) => false,
        }
    }

    /// Reads the file again where it has changed: `None` where it has not. What is wrong, empty or gone changes nothing.
    pub(crate) fn refresh(&self) -> Option<Result<(), ConfigError>> {
        let kept = self.kept.as_ref()?;
        let mut seen = kept.seen();
        if config::stamp(&kept.path) == *seen {
            return None;
        }
        self.read(kept, &mut seen).transpose()
    }

    /// `None` where there is nothing.
    fn read(&self, kept: &Kept, seen: &mut Option<Stamp>) -> Result<Option<()>, ConfigError> {
        // Before it is read: what changes meanwhile is read again.
        *seen = config::stamp(&kept.path);
        if seen.is_none() {
            return Ok(None);
        }
        let Some(mut ids) = kept.read()? else {
            return Ok(None);
        };
        let mut table = self.table();
        for (id, until) in &table.unsaved {
            match until {
                Some(until) => ids.insert(id.clone(), *until),
                None => ids.remove(id),
            };
        }
        table.ids = ids;
        Ok(Some(()))
    }

    /// Writes down what has changed, with what others have written meanwhile. Where that fails it holds here alone.
    pub(crate) fn save(&self, now: SystemTime) {
        let Some(kept) = &self.kept else {
            return;
        };
        if let Err(what) = self.write(kept, now) {
            let path = kept.path.display();
            self.table().complaint = Some(format!(
                "revocations can't be kept in {path}, and so hold in this element alone and until it ends: {what}"
            ));
        }
    }

    fn write(&self, kept: &Kept, now: SystemTime) -> Result<(), String> {
        let mut seen = kept.seen();
        let _lock = kept.lock()?;
        self.read(kept, &mut seen).map_err(|e| e.to_string())?;
        let mut table = self.table();
        table.ids.retain(|_, until| *until > now);
        // With those of others, who have not looked either: nobody would read what has more.
        if table.ids.len() > MAX {
            return Err("there are more than 10,000: sign with another key".into());
        }
        let written = table.unsaved.clone();
        let text = text_of(&table.ids, now);
        drop(table);
        *seen = kept.write(&text).map_err(|e| e.to_string())?;
        let mut table = self.table();
        let is_left =
            |id: &String, until: &mut Option<SystemTime>| written.get(id) != Some(&*until);
        table.unsaved.retain(is_left);
        Ok(())
    }
}

impl Kept {
    fn new(access: &Path) -> Self {
        Self {
            access: access.to_owned(),
            path: with_end(access, ".revoked"),
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Stamp>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One at a time writes, of whatever process: who holds the lock of the access file, which is not replaced by that.
    fn lock(&self) -> Result<File, String> {
        let file = File::open(&self.access).map_err(|e| e.to_string())?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_TIME => {
                    std::thread::sleep(LOCK_EVERY);
                }
                Err(error) => return Err(format!("the access file can't be locked: {error}")),
            }
        }
    }

    fn read(&self) -> Result<Option<Ids>, ConfigError> {
        let wrong = |error: io::Error| ConfigError::File(self.path.clone(), error.to_string());
        let file = File::open(&self.path).map_err(wrong)?;
        let mut text = String::new();
        let mut file = file.take(FILE_MAX + 1);
        file.read_to_string(&mut text).map_err(wrong)?;
        if text.len() as u64 > FILE_MAX {
            let what = "it is larger than 64 MiB".to_owned();
            return Err(ConfigError::File(self.path.clone(), what));
        }
        if text.trim().is_empty() {
            return Ok(None);
        }
        ids_of(&text, SystemTime::now())
            .map(Some)
            .map_err(|(line, what)| ConfigError::Line {
                file: self.path.clone(),
                line,
                what,
            })
    }

    /// At one stroke: whoever reads finds all of the old one or of the new one.
    fn write(&self, text: &str) -> io::Result<Option<Stamp>> {
        let part = with_end(&self.path, ".part");
        // Of one who was ended while it wrote.
        let _ = fs::remove_file(&part);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part);
        let mut file = opened?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        // Renaming changes nothing of it.
        let stamp = config::stamp(&part);
        fs::rename(&part, &self.path)?;
        Ok(stamp)
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What has ended by itself is left out.
fn text_of(ids: &Ids, now: SystemTime) -> String {
    let mut text = HEAD.to_owned();
    for (id, until) in ids.iter().filter(|(_, until)| **until > now) {
        let seconds = until.duration_since(UNIX_EPOCH).unwrap_or_default();
        let _ = writeln!(text, "{} {}", encoded(id), seconds.as_secs());
    }
    text
}

fn ids_of(text: &str, now: SystemTime) -> Result<Ids, (usize, String)> {
    let mut ids = Ids::new();
    for (index, line) in text.lines().enumerate() {
        let wrong = |what: &str| (index + 1, what.to_owned());
        let line = line.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.split_whitespace();
        let id = words.next().and_then(decoded);
        let id = id.filter(|id| (1..=ID_MAX).contains(&id.len()));
        let id = id.ok_or_else(|| wrong("a jti has 2,048 octets at most, and % is written %25"))?;
        let seconds = match words.next() {
            Some(word) => word
                .parse::<u64>()
                .ok()
                .filter(|seconds| *seconds <= LATEST),
            None => Some(LATEST),
        };
        let seconds = seconds.filter(|_| words.next().is_none()).ok_or_else(|| {
            wrong("behind a jti comes nothing, or its end in seconds of Unix time")
        })?;
        let until = UNIX_EPOCH + Duration::from_secs(seconds);
        if until > now {
            ids.insert(id, until);
        }
        if ids.len() > MAX {
            return Err(wrong("there are more than 10,000: sign with another key"));
        }
    }
    Ok(ids)
}

/// One word that begins no comment.
fn encoded(id: &str) -> String {
    let mut text = String::with_capacity(id.len());
    for c in id.chars() {
        if c.is_control() || c.is_whitespace() || matches!(c, '%' | '#' | '\u{feff}') {
            for octet in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(text, "%{octet:02X}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

fn decoded(word: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let octet = match *first {
            b'%' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            octet => octet,
        };
        octets.push(octet);
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_name_is_it_is_read_as_it_was_written() {
        let now = SystemTime::now();
        let until = UNIX_EPOCH + Duration::from_secs(LATEST);
        let names = [
            "3kdPqLw9xYZcTn0a",
            "#1",
            "100%",
            "%41",
            "a b\tc\r\nd 5",
            "äß\u{2028}語\u{a0}",
            "\u{feff}x",
            "\0\u{7f}",
        ];
        let ids: Ids = names.iter().map(|id| ((*id).to_owned(), until)).collect();
        let text = text_of(&ids, now);
        assert_eq!(text.lines().count(), 1 + names.len(), "{text}");
        assert_eq!(ids_of(&text, now), Ok(ids));
    }

    #[test]
    fn no_more_are_written_than_are_read() {
        let name = format!("sfu-revoked-many-{}", std::process::id());
        let access = std::env::temp_dir().join(name);
        let kept = with_end(&access, ".revoked");
        let _ = fs::remove_file(&kept);
        fs::write(&access, "anyone\n").unwrap();
        let open = || Revoked::open(Some(&access));
        let (one, other) = (open().unwrap(), open().unwrap());
        let now = SystemTime::now();
        for n in 0..MAX {
            assert!(one.add(&n.to_string(), None, now));
        }
        one.save(now);
        assert_eq!(one.complaint(), None);
        assert!(!one.add("late", None, now));
        // It has not looked.
        assert!(other.add("late", None, now));
        other.save(now);
        assert!(other.complaint().is_some() && other.has("late"));
        assert_eq!(open().unwrap().all().len(), MAX);
        // Somebody else writes and does not end.
        let lock = File::open(&access).unwrap();
        lock.try_lock().unwrap();
        assert!(one.remove("1"));
        one.save(now);
        let complaint = one.complaint().unwrap();
        assert!(complaint.contains("locked"), "{complaint}");
        drop(lock);
        one.save(now);
        assert_eq!(one.complaint(), None);
        assert!(!open().unwrap().has("1"));
        fs::remove_file(access).unwrap();
        fs::remove_file(kept).unwrap();
    }

    #[test]
    fn lines_are_a_name_and_maybe_its_end() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        for (text, expected) in [
            ("", Ok(0)),
            ("# one\n\n one \r\ntwo 2000\n", Ok(2)),
            ("\u{feff}one 1001", Ok(1)),
            ("ended 1000", Ok(0)),
            ("one\none 2000", Ok(1)),
            ("one\ntwo x", Err(2)),
            ("one 2000 3000", Err(1)),
            ("one -1", Err(1)),
            ("one 253402300800", Err(1)),
            ("%4", Err(1)),
            ("%zz", Err(1)),
            ("%FF", Err(1)),
        ] {
            let found = ids_of(text, now).map(|ids| ids.len());
            assert_eq!(found.map_err(|(line, _)| line), expected, "{text:?}");
        }
        let many: String = (0..=MAX).map(|n| format!("{n}\n")).collect();
        assert!(ids_of(&many, now).is_err());
    }
}
