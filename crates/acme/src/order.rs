// SPDX-License-Identifier: MPL-2.0

//! One certificate: an account, an order, its challenges, and what comes of it (RFC 8555, section 7).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use crate::Challenges;
use crate::client::{Http, Key, Talk, words};
use crate::store::{self, Store};

/// The server looks whether the names are ours within this.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is asked for, and of whom.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) names: Vec<String>,
    pub(crate) contact: Vec<String>,
    pub(crate) directory: String,
    pub(crate) http: Http,
    pub(crate) challenges: Challenges,
}

/// Gets a certificate and puts it in its place. `wait` says whether to go on. What is wrong, in a sentence.
pub(crate) fn certificate(
    wanted: &Wanted,
    store: &Store,
    wait: &dyn Fn(Duration) -> bool,
) -> Result<(), String> {
    let directory = &wanted.directory;
    let asked = order(wanted, store, wait);
    let text = asked.map_err(|why| format!("{directory}: {why}"))?;
    store.keep(&text).map_err(|e| format!("acme-cache: {e}"))
}

/// The key and the chain as PEM.
fn order(
    wanted: &Wanted,
    store: &Store,
    wait: &dyn Fn(Duration) -> bool,
) -> Result<String, String> {
    let mut talk = account(wanted, store)?;
    let names = wanted.names.iter();
    let identifiers: Vec<_> = names
        .map(|name| json!({ "type": "dns", "value": name }))
        .collect();
    let place = talk.place("newOrder")?;
    let placed = talk.post(&place, Some(&json!({ "identifiers": identifiers })))?;
    let order_url = placed.location.clone().ok_or("an order has no address")?;
    let order = placed.json()?;
    let authorizations = order["authorizations"].as_array().cloned();
    for authorization in authorizations.unwrap_or_default() {
        let url = authorization
            .as_str()
            .ok_or("an authorization has no address")?;
        authorize(wanted, &mut talk, url, wait)?;
    }
    let order = until(&mut talk, &order_url, &["ready", "valid"], wait)?;
    let (key, request) = request(&wanted.names)?;
    let finalize = text(&order, "finalize")?;
    talk.post(&finalize, Some(&json!({ "csr": request })))?;
    let order = until(&mut talk, &order_url, &["valid"], wait)?;
    let chain = talk.post(&text(&order, "certificate")?, None)?;
    let chain = String::from_utf8(chain.body).map_err(|_| "a chain that is no text")?;
    Ok(format!("{key}\n{chain}"))
}

fn text(of: &Value, name: &str) -> Result<String, String> {
    let missing = || format!("an order has no {name}");
    of[name].as_str().map(str::to_owned).ok_or_else(missing)
}

/// Proves that a name is ours, by HTTP-01.
fn authorize(
    wanted: &Wanted,
    talk: &mut Talk<'_>,
    url: &str,
    wait: &dyn Fn(Duration) -> bool,
) -> Result<(), String> {
    let authorization = talk.post(url, None)?.json()?;
    if authorization["status"] == "valid" {
        return Ok(());
    }
    let challenges = authorization["challenges"].as_array();
    let challenge = challenges
        .into_iter()
        .flatten()
        .find(|challenge| challenge["type"] == "http-01");
    let challenge = challenge.ok_or("it does not ask by HTTP-01")?;
    let (token, place) = (text(challenge, "token")?, text(challenge, "url")?);
    let answer = talk.key.authorization(&token);
    wanted.challenges.add(&token, &answer);
    talk.post(&place, Some(&json!({})))?;
    until(talk, url, &["valid"], wait).map(drop)
}

/// What is there, once it has one of these states.
fn until(
    talk: &mut Talk<'_>,
    url: &str,
    states: &[&str],
    wait: &dyn Fn(Duration) -> bool,
) -> Result<Value, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = talk.post(url, None)?.json()?;
        let state = now["status"].as_str().unwrap_or_default();
        if states.contains(&state) {
            return Ok(now);
        }
        if !matches!(state, "pending" | "processing" | "ready") {
            return Err(refused(&now).unwrap_or_else(|| format!("an order or name is {state}")));
        }
        if Instant::now() >= end || !wait(LOOK_EVERY) {
            return Err(format!("it is still {state}"));
        }
    }
}

/// Why the server does not believe that a name is ours: on port 80 it finds us, or does not.
fn refused(of: &Value) -> Option<String> {
    let challenges = of["challenges"].as_array();
    let mut errors = challenges.into_iter().flatten().map(|c| &c["error"]);
    let error = errors.find(|error| error.is_object());
    words(error.unwrap_or(&of["error"]))
}

/// A new key as PEM, and the request to certify it (PKCS #10, RFC 8555, section 7.4).
fn request(names: &[String]) -> Result<(String, String), String> {
    let failed = |e: rcgen::Error| e.to_string();
    let mut params = CertificateParams::new(names.to_vec()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate().map_err(failed)?;
    let request = params.serialize_request(&key).map_err(failed)?;
    let key = store::key_as_pem(&key)?;
    Ok((key, URL_SAFE_NO_PAD.encode(request.der())))
}

/// The account of the folder, or a new one.
fn account<'a>(wanted: &'a Wanted, store: &Store) -> Result<Talk<'a>, String> {
    let known = store.account(&wanted.directory);
    let key = known.as_ref().and_then(|known| {
        let pkcs8 = STANDARD.decode(known["key"].as_str()?).ok()?;
        Key::read(&pkcs8)
    });
    let key = key.map_or_else(Key::generate, Ok)?;
    let mut talk = Talk::begin(&wanted.http, &wanted.directory, key)?;
    // One whose key is known is found, and else made (section 7.3.1).
    let wish = json!({ "termsOfServiceAgreed": true, "contact": wanted.contact });
    let place = talk.place("newAccount")?;
    let made = talk.post(&place, Some(&wish))?;
    talk.account = made.location;
    if talk.account.is_none() {
        return Err("an account has no address".into());
    }
    let kept = json!({ "key": STANDARD.encode(&talk.key.pkcs8) });
    if known != Some(kept.clone()) {
        let kept = store.keep_account(&wanted.directory, &kept);
        kept.map_err(|e| format!("acme-cache: {e}"))?;
    }
    Ok(talk)
}
