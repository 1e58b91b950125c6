// SPDX-License-Identifier: MPL-2.0

//! What may be allowed, and for which streams: `play=cam*` of the access file, `{"play": ["cam*"]}` of a token.

use std::collections::BTreeMap;

use serde_json::Value;

/// The longest pattern; a stream's name is shorter.
const PATTERN_MAX: usize = 256;
/// More patterns of one action are a mistake, or somebody who wants us to search for long.
const PATTERNS_MAX: usize = 64;

/// What somebody may want to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Send a stream.
    Publish,
    /// Watch a stream, by whatever protocol.
    Play,
    /// Take a stream's place while its publisher is there.
    Takeover,
    /// See, play and download a stream's recordings.
    Record,
    /// What the API tells and changes beyond the list of streams.
    Api,
    /// The server's figures.
    Metrics,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Publish,
        Self::Play,
        Self::Takeover,
        Self::Record,
        Self::Api,
        Self::Metrics,
    ];

    /// Its name in files and tokens.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Play => "play",
            Self::Takeover => "takeover",
            Self::Record => "record",
            Self::Api => "api",
            Self::Metrics => "metrics",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// Whether it is about one stream, and not about the server.
    pub fn is_of_a_stream(self) -> bool {
        !matches!(self, Self::Api | Self::Metrics)
    }
}

/// Names of streams: `*` stands for any characters, `/` among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Of all streams.
    pub fn all() -> Self {
        Self("*".to_owned())
    }

    /// `None` where it could match nothing, or is too long.
    pub fn new(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/*".contains(&b);
        let fits = !text.is_empty() && text.len() <= PATTERN_MAX && text.bytes().all(plain);
        fits.then(|| Self(text.to_owned()))
    }

    /// Takes time in proportion to both lengths at most.
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on when what follows the last `*` does not fit: it takes one more character.
        let mut star = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(b) if *b == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => {
                    let Some((at, taken)) = star else {
                        return false;
                    };
                    star = Some((at, taken + 1));
                    p = at + 1;
                    n = taken + 1;
                }
            }
        }
        pattern[p..].iter().all(|b| *b == b'*')
    }
}

/// Who holds this may do so much.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(BTreeMap<Action, Vec<Pattern>>);

impl Grants {
    /// Everything, as loopback has it.
    pub fn all() -> Self {
        let everything = || vec![Pattern::all()];
        Self(Action::ALL.map(|action| (action, everything())).into())
    }

    /// One more permission.
    pub fn with(mut self, action: Action, pattern: Pattern) -> Self {
        self.0.entry(action).or_default().push(pattern);
        self
    }

    /// Whether that is allowed for any stream.
    pub fn has(&self, action: Action) -> bool {
        self.0.contains_key(&action)
    }

    /// Whether that may be done. What is about the whole server needs the pattern of all streams.
    pub fn allow(&self, action: Action, stream: Option<&str>) -> bool {
        self.0.get(&action).is_some_and(|patterns| {
            patterns
                .iter()
                .any(|pattern| stream.map_or(pattern.0 == "*", |name| pattern.matches(name)))
        })
    }

    /// Words such as `play=cam1,cam2` or `api`, as in the access file.
    pub fn parse_word(self, word: &str) -> Result<Self, String> {
        let (name, patterns) = word.split_once('=').unwrap_or((word, "*"));
        let names = || Action::ALL.map(Action::name).join(", ");
        let action = Action::named(name)
            .ok_or_else(|| format!("there is no permission {name:?}; there are {}", names()))?;
        patterns.split(',').try_fold(self, |grants, text| {
            let pattern = Pattern::new(text).ok_or_else(|| {
                format!("{name}={text:?}: a pattern has A-Z a-z 0-9 . _ - / and *")
            })?;
            Ok(grants.with(action, pattern))
        })
    }

    /// Of a token's claim `sfu`: `{"play": ["cam*"], "publish": "cam1", "api": true}`. Names that we don't know are
    /// left out, so that tokens for newer servers work here; what is known and wrong makes the token worthless.
    pub fn from_claim(claim: &Value) -> Option<Self> {
        let object = claim.as_object()?;
        let mut grants = Self::default();
        for (name, patterns) in object {
            let Some(action) = Action::named(name) else {
                continue;
            };
            match patterns {
                Value::Bool(true) => grants = grants.with(action, Pattern::new("*")?),
                Value::Bool(false) => {}
                Value::String(text) => grants = grants.with(action, Pattern::new(text)?),
                Value::Array(list) if list.len() <= PATTERNS_MAX => {
                    for text in list {
                        grants = grants.with(action, Pattern::new(text.as_str()?)?);
                    }
                }
                _ => return None,
            }
        }
        Some(grants)
    }

    /// Of MediaMTX's claim: `[{"action": "publish", "path": "cam1"}]`, where no path is every one, and one that begins
    /// with `~` is a regular expression, of which we read those that patterns can say.
    pub fn from_mediamtx(claim: &Value) -> Option<Self> {
        // Also as a string that holds the list, which some identity providers make of it.
        let read;
        let claim = match claim {
            Value::String(text) => {
                read = serde_json::from_str(text).ok()?;
                &read
            }
            other => other,
        };
        let list = claim.as_array().filter(|l| l.len() <= PATTERNS_MAX)?;
        let mut grants = Self::default();
        for permission in list {
            let action = match permission.get("action")?.as_str()? {
                "publish" => Action::Publish,
                "read" => Action::Play,
                "playback" => Action::Record,
                "api" => Action::Api,
                "metrics" => Action::Metrics,
                _ => continue,
            };
            let path = permission.get("path").and_then(Value::as_str);
            let pattern = match path.unwrap_or_default() {
                "" => Pattern::new("*"),
                path => match path.strip_prefix('~') {
                    Some(expression) => plain_expression(expression),
                    None => Pattern::new(path).filter(|_| !path.contains('*')),
                },
            };
            // One that can't be read allows nothing, rather than too much.
            if let Some(pattern) = pattern {
                grants = grants.with(action, pattern);
            }
        }
        Some(grants)
    }

    /// As a token's claim.
    pub fn to_claim(&self) -> Value {
        let patterns = |list: &[Pattern]| list.iter().map(|p| Value::from(p.0.clone())).collect();
        let entries = self.0.iter();
        let entries = entries.map(|(action, list)| (action.name().to_owned(), patterns(list)));
        Value::Object(entries.collect())
    }
}

/// `^cam.*$` and the like: literal text and `.*` alone, held at both ends (a search finds its text anywhere).
fn plain_expression(expression: &str) -> Option<Pattern> {
    let (start, rest) = match expression.strip_prefix('^') {
        Some(rest) => ("", rest),
        None => ("*", expression),
    };
    let (rest, end) = match rest.strip_suffix('$') {
        Some(rest) => (rest, ""),
        None => (rest, "*"),
    };
    let text = rest.replace(".*", "*").replace("\\.", "\0");
    if text.contains('.') || rest.replace(".*", "").contains('*') {
        return None;
    }
    Pattern::new(&format!("{start}{}{end}", text.replace('\0', ".")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, matches) in [
            ("cam1", "cam1", true),
            ("cam1", "cam12", false),
            ("cam1", "xcam1", false),
            ("cam*", "cam1", true),
            ("cam*", "cam", true),
            ("cam*", "cam/a", true),
            ("cam*", "came", true),
            ("*", "a/b", true),
            ("*cam*1", "my-cam-01", true),
            ("*cam*1", "my-cam-10", false),
            ("a*b*c", "abcbc", true),
            ("**", "", true),
            ("Cam", "cam", false),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.matches(name), matches, "{pattern:?} {name}");
        }
        for wrong in ["", "a b", "ä", "a\n", "a?", &"a".repeat(257)] {
            assert_eq!(Pattern::new(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn claims_allow_what_they_say_and_nothing_else() {
        let rows = [
            (json!({"play": ["cam*"]}), "play", Some("cam1"), true),
            (json!({"play": ["cam*"]}), "play", Some("door"), false),
            (json!({"play": ["cam*"]}), "publish", Some("cam1"), false),
            (json!({"play": "cam1"}), "play", Some("cam1"), true),
            (json!({"api": true}), "api", None, true),
            (json!({"api": false}), "api", None, false),
            (json!({"api": []}), "api", None, false),
            (json!({"api": ["cam*"]}), "api", None, false),
            (json!({"fly": ["*"]}), "play", Some("a"), false),
            (json!({}), "metrics", None, false),
        ];
        for (claim, action, stream, allowed) in rows {
            let grants = Grants::from_claim(&claim).unwrap();
            let action = Action::named(action).unwrap();
            assert_eq!(grants.allow(action, stream), allowed, "{claim}");
            assert_eq!(Grants::from_claim(&grants.to_claim()), Some(grants));
        }
        for wrong in [
            json!(null),
            json!([]),
            json!("play"),
            json!({"play": 1}),
            json!({"play": [1]}),
            json!({"play": ["a b"]}),
            json!({"play": {"a": 1}}),
            json!({"play": vec!["a"; 65]}),
        ] {
            assert_eq!(Grants::from_claim(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mediamtx_permissions_are_understood() {
        for (action, path, wanted, stream, allowed) in [
            ("read", "cam1", Action::Play, "cam1", true),
            ("read", "cam1", Action::Play, "cam2", false),
            ("read", "", Action::Play, "cam2", true),
            ("publish", "", Action::Takeover, "cam2", false),
            ("publish", "", Action::Play, "cam2", false),
            ("playback", "", Action::Record, "cam2", true),
            ("read", "~^cam.*$", Action::Play, "cam/2", true),
            ("read", "~^cam.*$", Action::Play, "a-cam", false),
            ("read", "~cam", Action::Play, "a-cam-b", true),
            ("read", "~^a\\.b$", Action::Play, "a.b", true),
            ("read", "~^a\\.b$", Action::Play, "axb", false),
            // What we can't read allows nothing.
            ("read", "~^(cam|door)$", Action::Play, "cam", false),
            ("read", "~^cam.$", Action::Play, "cam1", false),
            ("read", "~^cam[0-9]*$", Action::Play, "cam1", false),
            ("read", "cam*", Action::Play, "cam1", false),
            ("pprof", "", Action::Api, "cam1", false),
        ] {
            let claim = json!([{ "action": action, "path": path }]);
            for claim in [claim.clone(), json!(claim.to_string())] {
                let grants = Grants::from_mediamtx(&claim).unwrap();
                let found = grants.allow(wanted, Some(stream));
                assert_eq!(found, allowed, "{claim} {stream}");
            }
        }
        let no_path = Grants::from_mediamtx(&json!([{"action": "metrics"}])).unwrap();
        assert!(no_path.allow(Action::Metrics, None));
        for wrong in [json!({}), json!([{}]), json!([1]), json!("[")] {
            assert_eq!(Grants::from_mediamtx(&wrong), None, "{wrong}");
        }
    }

    proptest! {
        /// Against the obvious recursion.
        #[test]
        fn matching_is_what_it_says(pattern in "[ab/*]{1,8}", name in "[ab/]{0,10}") {
            fn obvious(p: &[u8], n: &[u8]) -> bool {
                match p.split_first() {
                    None => n.is_empty(),
                    Some((b'*', rest)) => (0..=n.len()).any(|skip| obvious(rest, &n[skip..])),
                    Some((b, rest)) => n.first() == Some(b) && obvious(rest, &n[1..]),
                }
            }
            let expected = obvious(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&name), expected);
        }
    }
}
