// SPDX-License-Identifier: MPL-2.0

//! `./sfu token`, `./sfu password`, and what `./sfu run` does at its first start.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use sfu_access::{
    Access, Action, Grants, Pattern, hash_password, make_room_token, make_token, read_secret,
    read_text, store,
};

const USAGE: &str = "\
usage: ./sfu token [--play STREAM] [--publish STREAM] [--takeover STREAM] [--record STREAM] [--api] [--metrics]
                   [--for 2h] [--user NAME] [--url http://HOST:8080]
         makes a token for the server that ./sfu run starts, and the address that it opens. STREAM may have * for any
         characters, and each option may come more than once. --for takes s, m, h and d, 366d at most
       ./sfu token --room NAME [--for 2h] [--url http://HOST:8080]
         makes an invitation to a room of ./sfu run rooms, and the address of its page: any number may use it
       ./sfu token --room NAME --identity ANN [--name \"Ann B.\"] [--for 2h]
         makes a token for somebody in a room of ./sfu run rooms, for LiveKit's clients
       ./sfu password [NAME]
         reads a password from standard input, and prints its hash for a line `user NAME HASH …` of the access file; with the
         name also what RTSP's Digest needs (`ha1=…`), with which who reads the file may play by RTSP as that user";
const LONGEST: u64 = 366 * 24 * 3600;
/// First parts that no stream's name has, since they are paths of the server. The engine has the same, and is not built for this.
const RESERVED: &[&str] = &[
    "admin",
    "whep",
    "whip",
    "session",
    "api",
    "assets",
    "metrics",
    "healthz",
    "hls",
    "studio",
    "twirp",
    "publish",
    "recordings",
    "room",
    "rtc",
    "gst-webrtc",
    ".well-known",
    "robots.txt",
    "favicon.ico",
];
const PART_MAX: usize = 64;
const NAME_MAX: usize = 255;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = arguments
        .split_first()
        .map_or(("", &[][..]), |(c, r)| (c, r));
    let is_help = |argument: &String| matches!(argument.as_str(), "--help" | "-h");
    let done = match command {
        "token" | "password" if rest.iter().any(is_help) => Ok(format!("{USAGE}\n")),
        "init" => init(),
        "keys" => file()
            .and_then(|access| store::api_keys(&access))
            .map(|_| String::new()),
        "token" => token(rest),
        "password" if rest.len() <= 1 => password(rest.first().map(String::as_str)),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(text) => {
            // Who reads it may have gone.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if error.ends_with(USAGE) { 2 } else { 1 })
        }
    }
}

/// The access file of this user, as `./sfu run` names it.
fn file() -> Result<PathBuf, String> {
    let named = std::env::var_os("GST_SFU_ACCESS").filter(|path| !path.is_empty());
    let named = named.map(PathBuf::from);
    named.ok_or_else(|| "GST_SFU_ACCESS names no access file: use ./sfu token".to_owned())
}

/// Makes what is missing, and says the key that one time.
fn init() -> Result<String, String> {
    let path = file()?;
    let made = store::first_start(&path)?;
    // Before a pipeline starts that would say the same less well.
    Access::open(Some(&path)).map_err(|e| e.to_string())?;
    Ok(made.map_or_else(String::new, |key| {
        format!(
            "Who publishes from another machine shows this key (OBS: Bearer token; RTMP: stream key):\n\n  {key}\n\n\
             It is told this once, and kept in {}. Rules: {}\n",
            path.with_file_name("publish.key").display(),
            path.display()
        )
    }))
}

fn token(arguments: &[String]) -> Result<String, String> {
    let mut grants = Grants::default();
    let mut life = Duration::from_secs(2 * 3600);
    let (mut user, mut url) = (None, "http://localhost:8080".to_owned());
    let (mut opens, mut is_of_many) = (None, false);
    let (mut room, mut identity, mut shown) = (None, None, None);
    let nothing_given = arguments.is_empty();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let name = argument.strip_prefix("--").ok_or_else(|| {
            format!("{argument:?} is no option: what it is for stands before it\n{USAGE}")
        })?;
        let (name, given) = name
            .split_once('=')
            .map_or((name, None), |(n, v)| (n, Some(v)));
        let mut value = || {
            let value = given.or_else(|| arguments.next().map(String::as_str));
            value.ok_or_else(|| format!("--{name} needs a value\n{USAGE}"))
        };
        match name {
            "for" => life = duration(value()?)?,
            "user" => user = Some(value()?.to_owned()),
            "url" => url = value()?.trim_end_matches('/').to_owned(),
            "room" => room = Some(value()?.to_owned()),
            "identity" => identity = Some(value()?.to_owned()),
            "name" => shown = Some(value()?.to_owned()),
            _ => {
                let action = Action::named(name)
                    .ok_or_else(|| format!("there is no option --{name}\n{USAGE}"))?;
                let pattern = if action.is_of_a_stream() {
                    value()?
                } else {
                    "*"
                };
                let word = grants.parse_word(&format!("{name}={pattern}"));
                grants = word.map_err(|why| format!("--{why}"))?;
                if action.is_of_a_stream() {
                    for pattern in pattern.split(',') {
                        check_name(name, pattern)?;
                    }
                    is_of_many |= is_several(pattern);
                }
                opens = opens.or(page(action, pattern));
            }
        }
    }
    if let (Some(room), Some(identity)) = (&room, &identity)
        && grants == Grants::default()
    {
        let (key, secret) = store::api_key(&file()?)?;
        let who = (
            room.as_str(),
            identity.as_str(),
            shown.as_deref().unwrap_or(""),
        );
        let until = SystemTime::now() + life;
        let token = make_room_token((&key, &secret), who, until)?;
        return Ok(format!("{token}\n"));
    }
    // An invitation, which any number may use: the room's page asks each for a name.
    if let (Some(room), None, None) = (&room, &identity, &shown) {
        grants = invitation(room)?;
        opens = Some(format!("/room/{room}"));
    } else if grants == Grants::default() || room.is_some() || identity.is_some() || shown.is_some()
    {
        return Err(match nothing_given {
            true => USAGE.to_owned(),
            false => format!(
                "it needs one of --play, --publish, --takeover, --record, --api and --metrics, or --room alone, \
                 or --room and --identity\n{USAGE}"
            ),
        });
    }
    let path = file()?;
    let secret = secret(&path)?;
    let token = make_token(&secret, &grants, SystemTime::now() + life, user.as_deref())?;
    if opens.is_none() && is_of_many {
        eprintln!(
            "It is for several streams, and so no one page's address is printed: each takes it as ?token=…"
        );
    }
    let opens = opens.map(|page| format!("{url}{page}?token={token}\n"));
    Ok(format!("{token}\n{}", opens.unwrap_or_default()))
}

/// What takes part in a room. It is one option, and so are its faults.
fn invitation(room: &str) -> Result<Grants, String> {
    let pattern = Pattern::new(room).ok_or_else(|| {
        format!(
            "--room {room:?}: a room's name has characters from A-Z a-z 0-9 . _ - /, and no blanks"
        )
    })?;
    check_name("room", room)?;
    let grants = Grants::default().with(Action::Play, pattern.clone());
    Ok(grants.with(Action::Publish, pattern))
}

/// Whether there can be a stream of this name, or of one that this pattern matches: else what is printed opens nothing. Which
/// characters it has was looked at before.
fn check_name(option: &str, name: &str) -> Result<(), String> {
    let is_part = |part: &str| (1..=PART_MAX).contains(&part.len()) && part != "." && part != "..";
    if name.len() > NAME_MAX || !name.split('/').all(is_part) {
        return Err(format!(
            "--{option} {name:?}: a stream's name has parts of 1 to 64 characters from A-Z a-z 0-9 . _ - joined by '/'"
        ));
    }
    if option == "room" && name.contains('*') {
        return Err(format!(
            "--room {name:?}: an invitation is to one room, whose name has no *"
        ));
    }
    let first = name.split('/').next().unwrap_or_default();
    match RESERVED.contains(&first) {
        true => Err(format!(
            "--{option} {name:?}: no stream's name begins with {first:?}, which is a path of the server: give the stream's name alone"
        )),
        false => Ok(()),
    }
}

/// What a token for this opens, where that is one page.
fn page(action: Action, pattern: &str) -> Option<String> {
    let page = match action {
        Action::Publish => Some(format!("/publish/{pattern}")),
        Action::Play => Some(format!("/{pattern}")),
        Action::Record => Some("/recordings".to_owned()),
        _ => None,
    };
    page.filter(|_| !is_several(pattern))
}

/// Whether it may be more streams than one.
fn is_several(pattern: &str) -> bool {
    pattern.contains(['*', ','])
}

fn secret(access: &Path) -> Result<String, String> {
    let path = access.with_file_name("tokens.secret");
    let text = read_text(&path);
    let text = text.map_err(|e| {
        let path = path.display();
        format!("{path}: {e}. ./sfu run makes it at its first start")
    })?;
    read_secret(&text).map_err(|what| format!("{}: {what}", path.display()))
}

/// `90s`, `30m`, `2h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 24 * 3600,
        _ => 0,
    };
    let number = text.get(..text.len().saturating_sub(1)).unwrap_or_default();
    let number: Option<u64> = number.parse().ok();
    let seconds = number.and_then(|n| n.checked_mul(unit));
    seconds
        .filter(|s| (1..=LONGEST).contains(s))
        .map(Duration::from_secs)
        .ok_or_else(|| {
            format!("--for {text:?} is no time such as 90s, 30m, 2h or 7d (366d at most)")
        })
}

fn password(user: Option<&str>) -> Result<String, String> {
    // It is a word of a line, and ends at the colon of Basic (RFC 7617, section 2).
    let is_none = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    if let Some(user) = user.filter(|user| user.is_empty() || user.contains(is_none)) {
        return Err(format!(
            "{user:?} can't be a user's name: it has one character at least, and no blanks, colons or control characters"
        ));
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|e| e.to_string())?;
    let password = line.trim_end_matches(['\r', '\n']);
    let digest = user.map(|user| format!(" ha1={}", sfu_access::ha1(user, password)));
    let hash = hash_password(password)?;
    Ok(format!("{hash}{}\n", digest.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reserved_is_what_the_documentation_names() {
        let text = include_str!("../../../docs/protocol.md");
        let line = text.lines().find(|line| line.starts_with("not be one of"));
        let mut told: Vec<_> = line.unwrap().split('`').skip(1).step_by(2).collect();
        let mut ours = RESERVED.to_vec();
        told.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, told);
    }
}
