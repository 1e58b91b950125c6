// SPDX-License-Identifier: MPL-2.0

//! Who may join: tokens signed with an API key (JWT, HS256), as LiveKit's server SDKs make them.

use std::collections::{BTreeMap, HashMap};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use livekit_protocol::participant_info::Kind;
use livekit_protocol::{ParticipantPermission, RoomConfiguration, TrackSource};
// Not its `AccessToken`: that makes `jsonwebtoken` know HMAC alone, for all of the process.
use livekit_token::{Claims, VideoGrants};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::limits::Limits;
use crate::rooms::Wanted;

/// A client's clock may be so wrong, in seconds.
const LEEWAY: u64 = 60;
/// Clients get another token each five minutes. In seconds.
const RENEWED_FOR: u64 = 600;
/// As LiveKit's server has it. In seconds.
const DIGEST_FOR: u64 = 300;

/// What a token grants that `livekit-token` knows nothing of.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct More {
    video: MoreVideo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MoreVideo {
    can_subscribe_metrics: bool,
}

/// What of `roomConfig` counts here.
const ROOM_CONFIG: [&str; 7] = [
    "emptyTimeout",
    "empty_timeout",
    "departureTimeout",
    "departure_timeout",
    "maxParticipants",
    "max_participants",
    "metadata",
];

/// Claims as LiveKit's own server takes them, where `livekit-token` is stricter: times may have fractions (RFC 7519, section 2: in
/// JavaScript `Date.now() / 1000` has one), what is `null` is not said, and what of `roomConfig` counts for nothing is not read.
#[derive(Clone)]
struct Lenient(Claims);

impl<'de> Deserialize<'de> for Lenient {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut claims = Value::deserialize(from)?;
        without_nulls(&mut claims);
        if let Some(config) = claims.get_mut("roomConfig").and_then(Value::as_object_mut) {
            config.retain(|key, _| ROOM_CONFIG.contains(&key.as_str()));
        }
        for time in ["exp", "nbf"] {
            let is_odd = |at: &&Value| at.is_f64() || at.as_i64().is_some_and(i64::is_negative);
            let whole = claims.get(time).filter(is_odd);
            // A number that is too large becomes the largest one, and one below 0 becomes 0.
            if let Some(whole) = whole.and_then(Value::as_f64).map(|at| at as usize) {
                claims[time] = whole.into();
            }
        }
        let claims = serde_json::from_value(claims);
        claims.map(Self).map_err(serde::de::Error::custom)
    }
}

/// Nests no deeper than `serde_json` reads.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(all) => {
            all.retain(|one| !one.is_null());
            all.iter_mut().for_each(without_nulls);
        }
        _ => {}
    }
}

/// API keys and their secrets.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, String>);

/// A text that holds no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an API key is written as KEY:SECRET, several with commas between; entry {0} is not")]
pub struct KeysError(usize);

/// Why a client is not let in: an HTTP status, and the words that LiveKit's clients know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// The body, as text.
    pub reason: String,
}

/// What a token allows.
#[derive(Debug, Clone, PartialEq)]
pub struct Permit {
    /// The room's name.
    pub room: String,
    /// Who it is: of two with the same identity in a room the second takes the first one's place.
    pub identity: String,
    /// As it is shown.
    pub name: String,
    /// What the application keeps with the participant.
    pub metadata: String,
    /// The same, by keys.
    pub attributes: HashMap<String, String>,
    /// What it may do.
    pub permission: ParticipantPermission,
    /// What it is: somebody, or an agent, a recorder, a telephone.
    pub kind: Kind,
    /// When it ends, in seconds of Unix time.
    pub expires: u64,
    /// The API key that signed it, and all that it grants: for the next token.
    issuer: String,
    grants: VideoGrants,
    /// How the room is to be, if it is the first.
    room_config: Option<RoomConfiguration>,
    wanted: Wanted,
}

impl Permit {
    pub(crate) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub(crate) fn is_recorder(&self) -> bool {
        self.grants.recorder || self.kind == Kind::Egress
    }

    pub(crate) fn is_agent(&self) -> bool {
        self.kind == Kind::Agent
    }

    /// It is there for others.
    pub(crate) fn is_dependent(&self) -> bool {
        self.is_recorder() || self.is_agent()
    }

    /// From now on it allows that.
    pub fn allow(&mut self, permission: &ParticipantPermission) {
        if self.permission == *permission {
            return;
        }
        self.permission = permission.clone();
        let sources = permission.can_publish_sources.iter();
        let names: Vec<_> = sources.filter_map(|s| source_name(*s)).collect();
        // No names are all sources.
        let can_name = names.is_empty() == permission.can_publish_sources.is_empty();
        let can_publish = permission.can_publish && can_name;
        let grants = &mut self.grants;
        grants.can_publish = Some(can_publish);
        let names = names.into_iter().map(str::to_owned);
        grants.can_publish_sources = names.collect();
        grants.can_subscribe = Some(permission.can_subscribe);
        grants.can_publish_data = Some(permission.can_publish_data);
        grants.can_update_own_metadata = Some(permission.can_update_metadata);
        grants.hidden = permission.hidden;
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keys").field(&self.0.keys()).finish()
    }
}

impl std::str::FromStr for Keys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
        let key = |(n, entry): (usize, &str)| {
            let (key, secret) = entry.split_once(':').ok_or(KeysError(n + 1))?;
            let (key, secret) = (key.trim(), secret.trim());
            match key.is_empty() || secret.is_empty() {
                true => Err(KeysError(n + 1)),
                false => Ok((key.to_owned(), secret.to_owned())),
            }
        };
        entries
            .enumerate()
            .map(key)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl Refused {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { status, reason }
    }
}

impl Keys {
    /// Whether there are none, so that nobody can join.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a token says, if one of the keys has signed it and it is its time. `now` is in seconds of Unix time.
    pub fn claims(&self, token: &str, now: u64) -> Result<Claims, Refused> {
        let unreadable = || Refused::new(401, "invalid authorization token");
        let unverified = jsonwebtoken::dangerous::insecure_decode::<Lenient>(token);
        let issuer = unverified.map_err(|_| unreadable())?.claims.0.iss;
        // Not the token itself, as LiveKit has it: it would be in logs.
        let invalid = |why: &str| Refused::new(401, format!("invalid token, error: {why}"));
        let secret = self
            .0
            .get(&issuer)
            .ok_or_else(|| invalid("the API key is not known"))?;
        let mut validation = Validation::new(Algorithm::HS256);
        // By the time that is given, below.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_secret(secret.as_bytes());
        let claims = jsonwebtoken::decode::<Lenient>(token, &key, &validation)
            .map_err(|_| invalid("token signature is invalid: signature is invalid"))?
            .claims
            .0;
        if (claims.exp as u64).saturating_add(LEEWAY) < now {
            return Err(invalid("token has invalid claims: token is expired"));
        }
        if claims.nbf as u64 > now + LEEWAY {
            return Err(invalid("token has invalid claims: token is not valid yet"));
        }
        Ok(claims)
    }

    /// What a token allows who joins with it.
    pub fn permit(&self, token: &str, now: u64, limits: &Limits) -> Result<Permit, Refused> {
        if token.is_empty() {
            return Err(Refused::new(401, "no permissions to access the room"));
        }
        let claims = self.claims(token, now)?;
        let denied = || Refused::new(401, "permissions denied");
        let video = claims.video;
        if !video.room_join || video.room.is_empty() || claims.sub.is_empty() {
            return Err(denied());
        }
        let texts = [&video.room, &claims.sub, &claims.name];
        if texts.iter().any(|text| text.len() > limits.name) {
            let reason = format!(
                "a room's name, an identity or a name is longer than {}",
                limits.name
            );
            return Err(Refused::new(400, reason));
        }
        if claims.metadata.len() > limits.metadata || size(&claims.attributes) > limits.metadata {
            let reason = format!("metadata or attributes are larger than {}", limits.metadata);
            return Err(Refused::new(400, reason));
        }
        let wanted = wanted(claims.room_config.as_ref());
        if wanted.metadata.len() > limits.metadata {
            let reason = format!("roomConfig's metadata is larger than {}", limits.metadata);
            return Err(Refused::new(400, reason));
        }
        let more = jsonwebtoken::dangerous::insecure_decode::<More>(token);
        let more = more.map(|token| token.claims).unwrap_or_default();
        Ok(Permit {
            permission: ParticipantPermission {
                can_subscribe_metrics: more.video.can_subscribe_metrics,
                ..permission(&video)?
            },
            room: video.room.clone(),
            identity: claims.sub,
            name: claims.name,
            metadata: claims.metadata,
            attributes: claims.attributes,
            expires: claims.exp as u64,
            kind: kind(&claims.kind, &video),
            issuer: claims.iss,
            grants: video,
            room_config: claims.room_config,
            wanted,
        })
    }

    /// Another token with what one allows, for a client that comes back. `None`: its key is not known any more.
    pub fn renew(&self, permit: &Permit, now: u64) -> Option<String> {
        let claims = Claims {
            iss: permit.issuer.clone(),
            sub: permit.identity.clone(),
            nbf: now as usize,
            exp: (now + RENEWED_FOR) as usize,
            name: permit.name.clone(),
            metadata: permit.metadata.clone(),
            attributes: permit.attributes.clone(),
            kind: permit.kind.as_str_name().to_lowercase(),
            video: permit.grants.clone(),
            room_config: permit.room_config.clone(),
            ..Claims::default()
        };
        let mut all = serde_json::to_value(&claims).ok()?;
        all["video"]["canSubscribeMetrics"] = permit.permission.can_subscribe_metrics.into();
        self.sign_with(&permit.issuer, &all)
    }

    /// A token for somebody whom this server itself lets in, signed with the first key. Without `publishes` it is for who listens
    /// and looks on.
    pub fn invite(
        &self,
        (room, identity, name): (&str, &str, &str),
        publishes: bool,
        until: u64,
    ) -> Option<String> {
        let claims = Claims {
            iss: self.0.keys().next()?.clone(),
            sub: identity.to_owned(),
            name: name.to_owned(),
            exp: until as usize,
            video: VideoGrants {
                room_join: true,
                room: room.to_owned(),
                can_publish: Some(publishes),
                can_publish_data: Some(publishes),
                can_update_own_metadata: Some(publishes),
                ..VideoGrants::default()
            },
            ..Claims::default()
        };
        self.sign(&claims)
    }

    /// A token that holds the digest of something, signed with the first key by name: what receivers of webhooks verify.
    pub fn sign_digest(&self, sha256: String, now: u64) -> Option<String> {
        let (issuer, _) = self.0.first_key_value()?;
        self.sign(&Claims {
            iss: issuer.clone(),
            nbf: now as usize,
            exp: (now + DIGEST_FOR) as usize,
            sha256,
            ..Claims::default()
        })
    }

    /// A token that says that, signed with the key that it names.
    pub fn sign(&self, claims: &Claims) -> Option<String> {
        self.sign_with(&claims.iss, claims)
    }

    fn sign_with(&self, issuer: &str, claims: &impl Serialize) -> Option<String> {
        let secret = self.0.get(issuer)?;
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).ok()
    }
}

/// What all keys and values take.
pub(crate) fn size(attributes: &HashMap<String, String>) -> usize {
    attributes.iter().map(|(k, v)| k.len() + v.len()).sum()
}

/// Sources by their names in tokens.
const SOURCES: [(&str, TrackSource); 4] = [
    ("camera", TrackSource::Camera),
    ("microphone", TrackSource::Microphone),
    ("screen_share", TrackSource::ScreenShare),
    ("screen_share_audio", TrackSource::ScreenShareAudio),
];

fn source_name(source: i32) -> Option<&'static str> {
    let mut all = SOURCES.iter();
    all.find(|(_, known)| i32::from(*known) == source)
        .map(|(name, _)| *name)
}

/// As LiveKit's server reads it: what is not known is somebody.
fn kind(name: &str, video: &VideoGrants) -> Kind {
    match Kind::from_str_name(&name.to_uppercase()) {
        _ if video.agent => Kind::Agent,
        kind => kind.unwrap_or_default(),
    }
}

fn wanted(config: Option<&RoomConfiguration>) -> Wanted {
    let Some(config) = config else {
        return Wanted::default();
    };
    Wanted {
        empty_timeout: config.empty_timeout,
        departure_timeout: config.departure_timeout,
        max_participants: config.max_participants,
        metadata: config.metadata.clone(),
    }
}

fn permission(video: &VideoGrants) -> Result<ParticipantPermission, Refused> {
    let source = |name: &String| {
        let known = SOURCES.iter().find(|(known, _)| known == name);
        let unknown = || Refused::new(401, format!("canPublishSources has no '{name}'"));
        known
            .map(|(_, source)| i32::from(*source))
            .ok_or_else(unknown)
    };
    let sources = video.can_publish_sources.iter().map(source);
    Ok(ParticipantPermission {
        can_subscribe: video.can_subscribe(),
        // LiveKit's server has it so, too: sources are a part of what may be published, and grant nothing themselves.
        can_publish: video.can_publish(),
        can_publish_data: video.can_publish_data(),
        can_publish_sources: sources.collect::<Result<_, _>>()?,
        hidden: video.hidden,
        can_update_metadata: video.can_update_own_metadata(),
        ..ParticipantPermission::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims {
            iss: "key".into(),
            sub: "ann".into(),
            exp: NOW as usize + 600,
            video: VideoGrants {
                room_join: true,
                room: "r".into(),
                ..VideoGrants::default()
            },
            ..Claims::default()
        }
    }

    fn sign(claims: &Claims, secret: &str) -> String {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
    }

    #[test]
    fn each_refusal_has_its_words() {
        let keys: Keys = "key:secret, other: more".parse().unwrap();
        let limits = Limits::default();
        let ask = |token: &str| keys.permit(token, NOW, &limits);
        let with = |change: fn(&mut Claims)| {
            let mut claims = claims();
            change(&mut claims);
            sign(&claims, "secret")
        };
        let permit = ask(&with(|_| ())).unwrap();
        assert_eq!(
            (permit.room.as_str(), permit.identity.as_str()),
            ("r", "ann")
        );
        assert!(permit.permission.can_publish && permit.permission.can_subscribe);
        let later = NOW + 7_000;
        let again = keys.renew(&permit, later).unwrap();
        let again = keys.permit(&again, later + RENEWED_FOR, &limits).unwrap();
        assert_eq!(again.expires, later + RENEWED_FOR);
        let again = Permit {
            expires: permit.expires,
            ..again
        };
        assert_eq!(again, permit);
        for (token, status, words) in [
            (String::new(), 401, "no permissions to access the room"),
            ("x.y.z".into(), 401, "invalid authorization token"),
            (sign(&claims(), "wrong"), 401, "signature is invalid"),
            (with(|c| c.iss = "nobody".into()), 401, "not known"),
            (with(|c| c.exp = NOW as usize - 61), 401, "token is expired"),
            (with(|c| c.nbf = NOW as usize + 61), 401, "not valid yet"),
            (
                with(|c| c.video.room_join = false),
                401,
                "permissions denied",
            ),
            (with(|c| c.video.room.clear()), 401, "permissions denied"),
            (with(|c| c.sub.clear()), 401, "permissions denied"),
            (with(|c| c.sub = "x".repeat(257)), 400, "longer"),
            (with(|c| c.metadata = "x".repeat(70_000)), 400, "larger"),
            (
                with(|c| c.video.can_publish_sources = vec!["x".into()]),
                401,
                "no 'x'",
            ),
        ] {
            let refused = ask(&token).unwrap_err();
            assert_eq!(refused.status, status, "{refused:?}");
            assert!(refused.reason.contains(words), "{refused:?}: {words}");
            assert!(token.is_empty() || !refused.reason.contains(&token));
        }
        // RFC 8725, section 3.1: the algorithm is ours to choose.
        let none = format!(
            "{}.{}.",
            "eyJhbGciOiJub25lIn0",
            with(|_| ()).split('.').nth(1).unwrap()
        );
        ask(&none).unwrap_err();
    }

    #[test]
    fn times_may_have_fractions() {
        let keys: Keys = "key:secret".parse().unwrap();
        let ask = |time: &str, at: f64| {
            let mut claims = serde_json::to_value(claims()).unwrap();
            claims[time] = at.into();
            let token = keys.sign_with("key", &claims).unwrap();
            keys.permit(&token, NOW, &Limits::default())
        };
        let now = NOW as f64;
        assert_eq!(ask("exp", now + 0.9).unwrap().expires, NOW);
        assert!(ask("exp", 1e300).is_ok());
        assert!(ask("nbf", now + 59.9).is_ok());
        assert!(ask("exp", 1e30).is_ok());
        for (time, at) in [
            ("exp", now - 61.5),
            ("exp", -1.5),
            ("exp", -1e300),
            ("nbf", now + 61.5),
            ("nbf", 1e300),
        ] {
            let refused = ask(time, at).unwrap_err();
            assert_eq!(refused.status, 401, "{time} {at}: {refused:?}");
            assert!(refused.reason.contains("claims"), "{refused:?}");
        }
        for (time, is_taken) in [("exp", false), ("nbf", true)] {
            let mut claims = serde_json::to_value(claims()).unwrap();
            claims[time] = (-1).into();
            let token = keys.sign_with("key", &claims).unwrap();
            let told = keys.permit(&token, NOW, &Limits::default());
            assert_eq!(told.is_ok(), is_taken, "{time}: {told:?}");
        }
    }

    fn joining(change: &Value) -> Result<Permit, Refused> {
        let keys: Keys = "key:secret".parse().unwrap();
        let mut claims = serde_json::to_value(claims()).unwrap();
        for (key, value) in change.as_object().unwrap() {
            match (value.as_object(), claims[key].as_object_mut()) {
                (Some(more), Some(there)) => there.extend(more.clone()),
                _ => claims[key] = value.clone(),
            }
        }
        let token = keys.sign_with("key", &claims).unwrap();
        keys.permit(&token, NOW, &Limits::default())
    }

    #[test]
    fn sources_grant_nothing_where_nothing_may_be_published() {
        for (granted, may) in [
            (Value::Null, true),
            (true.into(), true),
            (false.into(), false),
        ] {
            let video = json!({ "canPublish": granted, "canPublishSources": ["camera"] });
            let permit = joining(&json!({ "video": video })).unwrap();
            assert_eq!(permit.permission.can_publish, may, "{granted}");
            let camera = i32::from(TrackSource::Camera);
            assert_eq!(permit.permission.can_publish_sources, [camera]);
        }
    }

    /// Token libraries of many languages write what was not set.
    #[test]
    fn null_is_not_said() {
        for key in [
            "name",
            "metadata",
            "attributes",
            "kind",
            "nbf",
            "sha256",
            "sip",
            "roomConfig",
            "roomPreset",
            "agent",
            "inference",
            "observability",
            "jti",
            "aud",
        ] {
            let permit = joining(&json!({ key: null }));
            assert!(permit.is_ok(), "{key}: {permit:?}");
        }
        for key in [
            "roomCreate",
            "roomList",
            "roomRecord",
            "roomAdmin",
            "canPublish",
            "canSubscribe",
            "canPublishData",
            "canPublishSources",
            "canUpdateOwnMetadata",
            "canSubscribeMetrics",
            "hidden",
            "recorder",
            "agent",
            "ingressAdmin",
            "destinationRoom",
        ] {
            let permit = joining(&json!({ "video": { key: null } })).unwrap();
            assert_eq!(
                permit.permission,
                joining(&json!({})).unwrap().permission,
                "{key}"
            );
        }
        let inside = json!({ "attributes": { "seat": null }, "roomConfig": { "agents": [null], "tags": null } });
        assert!(joining(&inside).unwrap().attributes.is_empty());
        for refused in [
            json!({ "video": null }),
            json!({ "sub": null }),
            json!({ "video": { "roomJoin": null } }),
        ] {
            assert_eq!(joining(&refused).unwrap_err().status, 401, "{refused}");
        }
    }

    #[test]
    fn what_counts_for_nothing_in_a_room_is_not_read() {
        let config = json!({
            "maxParticipants": 3, "egress": { "room": { "fileOutputs": [{ "fileType": "TO_COME" }] } }, "syncStreams": 7,
        });
        let permit = joining(&json!({ "roomConfig": config })).unwrap();
        assert_eq!(permit.wanted().max_participants, 3);
        // Of what does count something else is an error of whoever made the token.
        joining(&json!({ "roomConfig": { "maxParticipants": {} } })).unwrap_err();
    }

    #[test]
    fn figures_of_others_are_for_who_is_granted_them() {
        let keys: Keys = "key:secret".parse().unwrap();
        let limits = Limits::default();
        for granted in [true, false] {
            let mut claims = serde_json::to_value(claims()).unwrap();
            claims["video"]["canSubscribeMetrics"] = granted.into();
            let token = keys.sign_with("key", &claims).unwrap();
            let permit = keys.permit(&token, NOW, &limits).unwrap();
            assert_eq!(permit.permission.can_subscribe_metrics, granted);
            let renewed = keys.renew(&permit, NOW).unwrap();
            let again = keys.permit(&renewed, NOW, &limits).unwrap();
            assert_eq!(again.permission, permit.permission);
        }
    }

    #[test]
    fn an_invitation_lets_in_and_no_further() {
        let keys: Keys = "key:secret,other:more".parse().unwrap();
        for publishes in [true, false] {
            let token = keys.invite(("r", "ann", "Ann"), publishes, NOW + 60);
            let permit = keys
                .permit(&token.unwrap(), NOW, &Limits::default())
                .unwrap();
            assert_eq!(
                (
                    permit.room.as_str(),
                    permit.identity.as_str(),
                    permit.name.as_str(),
                    permit.expires
                ),
                ("r", "ann", "Ann", NOW + 60)
            );
            let may = permit.permission;
            assert!(may.can_subscribe && !may.hidden);
            assert_eq!(
                [
                    may.can_publish,
                    may.can_publish_data,
                    may.can_update_metadata
                ],
                [publishes; 3]
            );
        }
        assert_eq!(Keys::default().invite(("r", "a", ""), true, NOW), None);
    }

    #[test]
    fn keys_are_read_or_refused() {
        for (text, expected) in [
            ("", Ok(0)),
            ("a:b", Ok(1)),
            ("a:b,c:d:e", Ok(2)),
            ("a:b,c", Err(2)),
            (":b", Err(1)),
        ] {
            let keys = text.parse::<Keys>().map(|keys| keys.0.len());
            assert_eq!(keys, expected.map_err(KeysError), "{text}");
        }
    }
}
