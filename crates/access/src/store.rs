// SPDX-License-Identifier: MPL-2.0

//! The access file that `./sfu run` makes at its first start, with a key for who publishes and a secret for `./sfu token`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::text::read_text;
use crate::token::random;

const KEY: &str = "publish.key";
const SECRET: &str = "tokens.secret";
const API_KEYS: &str = "api.keys";
/// The key that `./sfu token --room` signs with.
const API_KEY: &str = "sfu";

const RULES: &str = "\
# Who may do what on this server; docs/access.md explains each rule. It is read again when it changes.
# What this file does not allow is refused.

# This machine, without a proxy between.
loopback play publish takeover record api metrics
# Everyone else, without a token. Take this line away, and playing needs one: ./sfu token --play NAME --for 2h
anyone   play=*
# Who shows the key in this file (OBS: Bearer token; RTMP: stream key).
key      publish.key  publish=* takeover=*
# What signs the tokens of ./sfu token.
tokens   tokens.secret
";

/// Makes the file and what it names, unless it is there. Returns the new key, which is to be shown this once.
pub fn first_start(path: &Path) -> Result<Option<String>, String> {
    if path.exists() {
        return Ok(None);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let wrong = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| wrong(folder, &e))?;
    for name in [KEY, SECRET] {
        let path = folder.join(name);
        write_new(&path, &format!("{}\n", random(32)?)).map_err(|e| wrong(&path, &e))?;
    }
    // Last: whoever starts at the same time finds all of it or nothing.
    write_new(path, RULES).map_err(|e| wrong(path, &e))?;
    let key = folder.join(KEY);
    let key = fs::read_to_string(&key).map_err(|e| wrong(&key, &e))?;
    Ok(Some(key.trim().to_owned()))
}

/// The file with the API keys of rooms, beside the access file; made where there is none.
pub fn api_keys(access: &Path) -> Result<PathBuf, String> {
    let path = access.with_file_name(API_KEYS);
    let made = write_new(&path, &format!("{API_KEY}:{}\n", random(32)?));
    made.map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}

/// The first key of that file, and its secret.
pub fn api_key(access: &Path) -> Result<(String, String), String> {
    let path = api_keys(access)?;
    let text = read_text(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.lines().map(str::trim);
    let mut entries = lines
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.split(','));
    let first = entries.find_map(|entry| entry.split_once(':'));
    let (key, secret) = first.ok_or_else(|| format!("{}: it has no KEY:SECRET", path.display()))?;
    Ok((key.trim().to_owned(), secret.trim().to_owned()))
}

/// Only its owner may read it. What is there stays: it is somebody's.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match opened {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
