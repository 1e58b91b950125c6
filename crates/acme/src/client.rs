// SPDX-License-Identifier: MPL-2.0

//! What is said to an ACME server: JSON that the account's key has signed (RFC 8555, section 6), by HTTPS.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// From the name's look-up to the end of the answer.
const TIME: Duration = Duration::from_secs(20);
/// A chain has some KiB.
const ANSWER_MAX: u64 = 256 * 1024;
/// A file that holds more than authorities is none.
const AUTHORITY_MAX: u64 = 1 << 20;
/// Numbers that are no longer good are refused now and then (section 6.5).
const NONCES: usize = 10;

/// HTTPS alone, whose certificate is checked, without being led elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Http(Agent);

/// What came.
pub(crate) struct Answer {
    pub(crate) location: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_slice(&self.body).map_err(|_| "it answers what is no JSON".to_owned())
    }
}

impl Http {
    /// By the authorities of the system, or by those in a PEM file.
    pub(crate) fn new(authority: &str) -> Result<Self, String> {
        let roots = match authority {
            "" => RootCerts::PlatformVerifier,
            file => RootCerts::new_with_certs(&authorities(file)?),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(roots)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .timeout_global(Some(TIME))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(16 * 1024)
            .proxy(None)
            .user_agent(concat!("gst-sfu/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(config.new_agent()))
    }

    pub(crate) fn get(&self, url: &str) -> Result<Value, String> {
        let answer = self.0.get(url).call().map_err(|e| e.to_string())?;
        let (_, answer) = read(answer)?;
        answer?.json()
    }

    fn nonce(&self, url: &str) -> Result<String, String> {
        let answer = self.0.head(url).call().map_err(|e| e.to_string())?;
        nonce(&answer).ok_or_else(|| "it gives no Replay-Nonce".to_owned())
    }
}

fn authorities(file: &str) -> Result<Vec<Certificate<'static>>, String> {
    let failed = |what: &dyn std::fmt::Display| format!("{file}: {what}");
    let opened = std::fs::File::open(file).map_err(|e| failed(&e))?;
    let mut text = Vec::new();
    opened
        .take(AUTHORITY_MAX)
        .read_to_end(&mut text)
        .map_err(|e| failed(&e))?;
    let all = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let all: Vec<_> = all.collect();
    match all.is_empty() {
        true => Err(failed(&"there is no certificate as PEM in it")),
        false => Ok(all),
    }
}

fn field(answer: &Response<ureq::Body>, name: &str) -> Option<String> {
    let value = answer.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned())
}

fn nonce(answer: &Response<ureq::Body>) -> Option<String> {
    field(answer, "replay-nonce")
}

/// The next nonce, and what came: a refusal as its problem document has it (RFC 7807).
type Came = (Option<String>, Result<Answer, String>);

fn read(mut answer: Response<ureq::Body>) -> Result<Came, String> {
    let (next, location) = (nonce(&answer), field(&answer, "location"));
    let status = answer.status();
    let mut body = Vec::new();
    let reader = answer.body_mut().as_reader();
    let mut reader = reader.take(ANSWER_MAX);
    reader.read_to_end(&mut body).map_err(|e| e.to_string())?;
    let came = match status.is_success() {
        true => Ok(Answer { location, body }),
        false => {
            let problem = serde_json::from_slice::<Value>(&body).ok();
            let words = problem.as_ref().and_then(words);
            Err(words.unwrap_or_else(|| format!("it answers {status}")))
        }
    };
    Ok((next, came))
}

/// Of a problem document: its type, without what all types have in common, and what it says.
pub(crate) fn words(problem: &Value) -> Option<String> {
    let kind = problem["type"].as_str()?;
    let kind = kind.rsplit(':').next().unwrap_or(kind);
    let mut words = format!("{kind}: {}", problem["detail"].as_str().unwrap_or_default());
    let subs = problem["subproblems"].as_array();
    for sub in subs.into_iter().flatten().take(8) {
        words += &format!("; {}", sub["detail"].as_str().unwrap_or_default());
    }
    Some(words)
}

/// An account's key, P-256.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    pub(crate) pkcs8: Vec<u8>,
}

impl Key {
    pub(crate) fn generate() -> Result<Self, String> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let document = document.map_err(|_| "no key can be made")?;
        Self::read(document.as_ref()).ok_or_else(|| "no key can be made".into())
    }

    pub(crate) fn read(pkcs8: &[u8]) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).ok()?;
        let pkcs8 = pkcs8.to_vec();
        Some(Self { pair, pkcs8 })
    }

    /// The public key as RFC 7518, section 6.2 has it.
    fn jwk(&self) -> Value {
        // Uncompressed: 4, and both coordinates.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let text = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        json!({ "crv": "P-256", "kty": "EC", "x": text(x), "y": text(y) })
    }

    /// What answers a challenge (RFC 8555, section 8.1).
    pub(crate) fn authorization(&self, token: &str) -> String {
        // In the order of the alphabet, without blanks (RFC 7638, section 3), as a map is written.
        let thumbprint = digest(&SHA256, self.jwk().to_string().as_bytes());
        format!("{token}.{}", URL_SAFE_NO_PAD.encode(thumbprint))
    }

    /// Flattened JWS (RFC 7515, section 7.2.2). `account`: its URL, once there is one.
    fn sign(&self, payload: &str, url: &str, nonce: &str, account: Option<&str>) -> Option<String> {
        let mut head = json!({ "alg": "ES256", "nonce": nonce, "url": url });
        match account {
            Some(account) => head["kid"] = account.into(),
            None => head["jwk"] = self.jwk(),
        }
        let head = URL_SAFE_NO_PAD.encode(head.to_string());
        let payload = URL_SAFE_NO_PAD.encode(payload);
        let text = format!("{head}.{payload}");
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes()).ok()?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        let signed = json!({ "protected": head, "payload": payload, "signature": signature });
        Some(signed.to_string())
    }
}

/// A talk with a server: what it has, and the next nonce.
pub(crate) struct Talk<'a> {
    http: &'a Http,
    directory: Value,
    pub(crate) key: Key,
    pub(crate) account: Option<String>,
    nonce: Option<String>,
}

impl<'a> Talk<'a> {
    pub(crate) fn begin(http: &'a Http, directory: &str, key: Key) -> Result<Self, String> {
        Ok(Self {
            http,
            directory: http.get(directory)?,
            key,
            account: None,
            nonce: None,
        })
    }

    /// Where the directory says that this is done.
    pub(crate) fn place(&self, what: &str) -> Result<String, String> {
        let url = self.directory[what].as_str();
        let none = || format!("its directory has no {what}");
        url.map(str::to_owned).ok_or_else(none)
    }

    /// Posts that; `None` asks for what is there (POST-as-GET, section 6.3).
    pub(crate) fn post(&mut self, url: &str, payload: Option<&Value>) -> Result<Answer, String> {
        let payload = payload.map(Value::to_string).unwrap_or_default();
        let mut left = NONCES;
        loop {
            let nonce = match self.nonce.take() {
                Some(nonce) => nonce,
                None => self.http.nonce(&self.place("newNonce")?)?,
            };
            let account = self.account.as_deref();
            let signed = self.key.sign(&payload, url, &nonce, account);
            let signed = signed.ok_or("nothing can be signed")?;
            let request = self.http.0.post(url);
            let request = request.header("content-type", "application/jose+json");
            let answer = request.send(signed).map_err(|e| e.to_string())?;
            let (next, came) = read(answer)?;
            self.nonce = next;
            match came {
                Err(why) if why.starts_with("badNonce") && left > 0 => left -= 1,
                came => return came,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;

    #[test]
    fn what_is_said_is_signed_by_the_account() {
        let key = Key::generate().unwrap();
        let again = Key::read(&key.pkcs8).unwrap();
        assert_eq!(key.authorization("t"), again.authorization("t"));
        let signed = key.sign("{}", "https://a.example/x", "n", None).unwrap();
        let signed: Value = serde_json::from_str(&signed).unwrap();
        let part = |name: &str| signed[name].as_str().unwrap().to_owned();
        let head = URL_SAFE_NO_PAD.decode(part("protected")).unwrap();
        let head: Value = serde_json::from_slice(&head).unwrap();
        assert_eq!(head["jwk"]["kty"], "EC");
        assert_eq!(head["url"], "https://a.example/x");
        let text = format!("{}.{}", part("protected"), part("payload"));
        let signature = URL_SAFE_NO_PAD.decode(part("signature")).unwrap();
        let public = key.pair.public_key().as_ref();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
        public.verify(text.as_bytes(), &signature).unwrap();
    }

    #[test]
    fn problems_are_told_in_their_words() {
        let problem = json!({ "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many",
            "subproblems": [{ "detail": "for a.example" }] });
        assert_eq!(
            words(&problem).unwrap(),
            "rateLimited: too many; for a.example"
        );
        assert_eq!(words(&json!({ "detail": "x" })), None);
    }
}
