// SPDX-License-Identifier: MPL-2.0

//! Tokens: JSON Web Tokens (RFC 7519), signed by HS256, RS256, ES256 or EdDSA. Which of them a key may sign is decided by
//! what the key is and never by the token, so that no public key is taken for a secret, and `none` for nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Grants;

/// A token of a browser's URL or an RTMP key is shorter; the work of reading it is bounded by this.
pub const TOKEN_MAX: usize = 8 * 1024;
/// A token may be used so long before its `nbf`: the clocks of two machines differ.
const SKEW: u64 = 10;
/// The last second of the year 9999.
const LATEST: f64 = 253_402_300_799.0;
/// A shorter secret can be guessed from one token (RFC 7518, section 3.2).
const SECRET_MIN: usize = 32;
/// An identity provider has two or three.
const KEYS_MAX: usize = 32;

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token, or no key of ours signed it.
    #[error("no key of this server signed the token")]
    Unsigned,
    /// It is signed by what no key of ours is for.
    #[error(
        "the token is signed by {0}, which is not taken here: tokens are signed by HS256, RS256, ES256 or EdDSA"
    )]
    Algorithm(&'static str),
    /// It was good once.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("the token is not valid yet")]
    Early,
    /// It never expires.
    #[error("the token has no exp: it must end at some time")]
    Endless,
    /// `exp` is no time that somebody means.
    #[error(
        "the token's exp is after the year 9999: it is in seconds of Unix time, not in milliseconds"
    )]
    Far,
    /// Signed, and claims are not what they have to be.
    #[error("the token's claims can't be read: exp and nbf are numbers, jti and sub are text")]
    Unreadable,
    /// Signed, and of no use here.
    #[error("the token has neither the claim sfu nor mediamtx_permissions, or they can't be read")]
    NoClaim,
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// What it allows.
    pub grants: Grants,
    /// When it ends.
    pub until: SystemTime,
    /// By which it can be revoked.
    pub id: Option<String>,
    /// Whom it was made for.
    pub subject: Option<String>,
}

/// One that signs tokens.
#[derive(Clone)]
pub(crate) struct Key {
    /// Some tokens name it.
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithm)
    }
}

/// The keys in a file: PEM, a set of keys as JSON (RFC 7517), or else a secret, the file's text.
pub(crate) fn read_keys(octets: &[u8]) -> Result<Vec<Key>, String> {
    let text = std::str::from_utf8(octets).map_err(|_| "it is not text")?;
    let text = text.trim();
    if text.contains("-----BEGIN") {
        return pem(text).map(|key| vec![key]);
    }
    if text.starts_with('{') {
        return jwks(text);
    }
    if text.len() < SECRET_MIN || text.contains(char::is_whitespace) {
        let what = "it is neither PEM nor a JWKS, and as a secret too short (32 characters at least, no blanks)";
        return Err(what.into());
    }
    Ok(vec![secret(text)])
}

/// The keys of an identity provider: a set as JSON, of public ones alone.
pub(crate) fn read_set(octets: &[u8]) -> Result<Vec<Key>, String> {
    let text = std::str::from_utf8(octets).map_err(|_| "it is not text")?;
    let mut keys = jwks(text.trim())?;
    // A secret that everyone can ask for is none.
    keys.retain(|key| key.algorithm != Algorithm::HS256);
    match keys.is_empty() {
        true => Err("it has no public key".into()),
        false => Ok(keys),
    }
}

/// The secret of `./sfu token`.
fn secret(text: &str) -> Key {
    Key {
        id: None,
        algorithm: Algorithm::HS256,
        key: DecodingKey::from_secret(text.as_bytes()),
    }
}

/// The secret in a file of [`read_keys`], where that is what it holds.
pub(crate) fn secret_in(octets: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(octets).ok()?.trim();
    let is_secret = !text.contains("-----BEGIN") && !text.starts_with('{');
    (is_secret && text.len() >= SECRET_MIN).then_some(text)
}

/// The secret that tokens are made with, where servers take it as one: what they say is wrong with it else.
pub fn read_secret(text: &str) -> Result<String, String> {
    read_keys(text.as_bytes())?;
    let secret = secret_in(text.as_bytes()).map(str::to_owned);
    secret.ok_or_else(|| {
        "it holds keys and no secret: who has the private key makes the tokens".to_owned()
    })
}

fn pem(text: &str) -> Result<Key, String> {
    if text.contains("PRIVATE KEY") {
        return Err("it is a private key: put the public one here".into());
    }
    let octets = text.as_bytes();
    let kinds = [
        (Algorithm::RS256, DecodingKey::from_rsa_pem(octets)),
        (Algorithm::ES256, DecodingKey::from_ec_pem(octets)),
        (Algorithm::EdDSA, DecodingKey::from_ed_pem(octets)),
    ];
    let found = kinds
        .into_iter()
        .find_map(|(algorithm, key)| Some((algorithm, key.ok()?)));
    let (algorithm, key) = found.ok_or("it is no public key of RSA, P-256 or Ed25519")?;
    Ok(Key {
        id: None,
        algorithm,
        key,
    })
}

fn jwks(text: &str) -> Result<Vec<Key>, String> {
    let set: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    let read = |key: &Value| serde_json::from_value(with_known_name(key.clone())).ok();
    // One key alone is taken, too. Keys of kinds that nobody knows must not hide the others.
    let list = match set.get("keys").and_then(Value::as_array) {
        Some(list) => JwkSet {
            keys: list.iter().filter_map(read).collect(),
        },
        None => JwkSet {
            keys: read(&set).into_iter().collect(),
        },
    };
    let keys: Vec<Key> = list.keys.iter().filter_map(jwk).take(KEYS_MAX).collect();
    if keys.is_empty() {
        return Err("it has no key for HS256, RS256, ES256 or EdDSA".into());
    }
    Ok(keys)
}

/// `Ed25519` (RFC 9864, section 2.2) is what EdDSA with that curve is called now. Tokens still say EdDSA here.
fn with_known_name(mut key: Value) -> Value {
    if key.get("alg").is_some_and(|name| name == "Ed25519") {
        key["alg"] = "EdDSA".into();
    }
    key
}

fn jwk(jwk: &Jwk) -> Option<Key> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::OctetKey(p) if p.value.len() * 3 / 4 >= SECRET_MIN => Algorithm::HS256,
        _ => return None,
    };
    // RS512 and so on are none of ours.
    let named = jwk.common.key_algorithm.map(|name| name.to_string());
    if named.is_some_and(|name| name.parse::<Algorithm>().ok() != Some(algorithm)) {
        return None;
    }
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    nbf: Option<f64>,
    jti: Option<String>,
    sub: Option<String>,
    sfu: Option<Value>,
    mediamtx_permissions: Option<Value>,
}

/// What a token claims, if that key signed it.
fn claims_by(token: &str, key: &Key) -> jsonwebtoken::errors::Result<Claims> {
    let mut validation = Validation::new(key.algorithm);
    // Ours to check: the time is an argument.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    decode(token, &key.key, &validation).map(|token| token.claims)
}

/// The name of one that keys of ours are not for (RFC 7518, section 3.1).
fn other_algorithm(algorithm: Algorithm) -> Option<&'static str> {
    Some(match algorithm {
        Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA => return None,
        Algorithm::HS384 => "HS384",
        Algorithm::HS512 => "HS512",
        Algorithm::RS384 => "RS384",
        Algorithm::RS512 => "RS512",
        Algorithm::PS256 => "PS256",
        Algorithm::PS384 => "PS384",
        Algorithm::PS512 => "PS512",
        Algorithm::ES384 => "ES384",
    })
}

/// Reads a token, if a key of ours signed it and it is valid now.
pub(crate) fn read(token: &str, keys: &[Key], now: SystemTime) -> Result<Token, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Unsigned);
    }
    let header = decode_header(token).map_err(|_| TokenError::Unsigned)?;
    if let Some(other) = other_algorithm(header.alg) {
        return Err(TokenError::Algorithm(other));
    }
    let mut refused = TokenError::Unsigned;
    let claims = keys
        .iter()
        .filter(|key| key.algorithm == header.alg)
        // A key and a token that both name one mean each other only.
        .filter(|key| match (&key.id, &header.kid) {
            (Some(key), Some(wanted)) => key == wanted,
            _ => true,
        })
        .find_map(|key| match claims_by(token, key) {
            Ok(claims) => Some(claims),
            // What is signed by another key is not read.
            Err(error) => {
                if matches!(error.kind(), ErrorKind::Json(_)) {
                    refused = TokenError::Unreadable;
                }
                None
            }
        });
    let claims = claims.ok_or(refused)?;
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let exp = claims.exp.ok_or(TokenError::Endless)?;
    if exp > LATEST {
        return Err(TokenError::Far);
    }
    // What ended before 1970 has ended.
    let exp = Duration::try_from_secs_f64(exp.max(0.0)).map_err(|_| TokenError::Far)?;
    if seconds >= exp {
        return Err(TokenError::Expired);
    }
    let until = UNIX_EPOCH.checked_add(exp).ok_or(TokenError::Far)?;
    if claims
        .nbf
        .is_some_and(|nbf| nbf.is_nan() || nbf > (seconds.as_secs() + SKEW) as f64)
    {
        return Err(TokenError::Early);
    }
    let grants = match (&claims.sfu, &claims.mediamtx_permissions) {
        (Some(claim), _) => Grants::from_claim(claim),
        (None, Some(claim)) => Grants::from_mediamtx(claim),
        (None, None) => None,
    };
    Ok(Token {
        grants: grants.ok_or(TokenError::NoClaim)?,
        until,
        id: claims.jti,
        subject: claims.sub,
    })
}

/// Whether this looks like a token, rather than like a password or a key.
pub(crate) fn looks_like_one(text: &str) -> bool {
    let mut parts = text.split('.');
    let header = parts.next().map(|header| URL_SAFE_NO_PAD.decode(header));
    parts.count() == 2 && matches!(header, Some(Ok(json)) if json.starts_with(b"{"))
}

/// Makes a token with the secret of `./sfu token`.
pub fn make(
    secret: &str,
    grants: &Grants,
    until: SystemTime,
    subject: Option<&str>,
) -> Result<String, String> {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut claims = json!({
        "exp": seconds(until),
        "jti": random(12)?,
        "sfu": grants.to_claim(),
    });
    if let Some(subject) = subject {
        claims["sub"] = subject.into();
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|e| e.to_string())
}

/// Makes a token with an API key's secret for who joins a room, as LiveKit's server SDKs do.
pub fn make_for_room(
    (key, secret): (&str, &str),
    (room, identity, name): (&str, &str, &str),
    until: SystemTime,
) -> Result<String, String> {
    let exp = until.duration_since(UNIX_EPOCH).unwrap_or_default();
    let claims = json!({
        "iss": key,
        "sub": identity,
        "name": name,
        "nbf": 0,
        "exp": exp.as_secs(),
        "video": { "room": room, "roomJoin": true },
    });
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).map_err(|e| e.to_string())
}

/// So many random octets as text that fits into an address.
pub fn random(octets: usize) -> Result<String, String> {
    let mut random = vec![0; octets];
    getrandom::fill(&mut random).map_err(|e| format!("no random numbers: {e}"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}
