// SPDX-License-Identifier: MPL-2.0

//! One certificate: an account, an order, proofs that the names are ours, and what comes of it (RFC 8555, section 7). `instant-acme` does
//! the talking.

use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, CertificateSigningRequest, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use crate::Challenges;
use crate::binding::Binding;
use crate::client::Http;
use crate::store::Store;

/// The server looks whether the names are ours within this.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.3)
    .timeout(Duration::from_secs(120));
/// What a second try mends is tried again at once, so often.
const TRIES: usize = 3;
/// Of a problem with many names so many are told.
const SUBPROBLEMS: usize = 8;

/// What is asked for, and of whom.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) names: Vec<String>,
    pub(crate) contact: Vec<String>,
    pub(crate) directory: String,
    pub(crate) binding: Option<Binding>,
    pub(crate) http: Http,
    pub(crate) challenges: Challenges,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("{}", told(.0))]
    Acme(#[from] Error),
    #[error("it does not ask by HTTP-01")]
    Challenge,
    #[error("{0} is {1:?}")]
    Name(String, AuthorizationStatus),
    #[error("an order is invalid")]
    Invalid,
    #[error("no key can be made: {0}")]
    Key(#[from] rcgen::Error),
    #[error("acme-cache: {0}")]
    Folder(#[from] std::io::Error),
}

/// Gets a certificate and puts it in its place. What is wrong, in a sentence.
pub(crate) async fn certificate(wanted: &Wanted, store: &Store) -> Result<(), String> {
    let mut asked = order(wanted, store).await;
    for _ in 1..TRIES {
        let Err(OrderError::Acme(Error::Api(problem))) = &asked else {
            break;
        };
        match kind(problem) {
            // The library has asked again with new ones, a few times (section 6.5).
            "badNonce" => {}
            "accountDoesNotExist" => store.forget_account(),
            _ => break,
        }
        asked = order(wanted, store).await;
    }
    let of = &wanted.directory;
    let text = asked.map_err(|why| format!("{of}: {why}"))?;
    let taken = store.take(&text, SystemTime::now());
    taken.map_err(|why| format!("{of}: {why}"))
}

/// The key and the chain as PEM.
async fn order(wanted: &Wanted, store: &Store) -> Result<String, OrderError> {
    let account = account(wanted, store).await?;
    let names = wanted.names.iter().cloned();
    let identifiers: Vec<_> = names.map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    prove(wanted, &mut order).await?;
    let (key, request) = request(&wanted.names)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(format!("{}\n{chain}", key.serialize_pem()))
}

/// Proves that the names are ours, by HTTP-01.
async fn prove(wanted: &Wanted, order: &mut Order) -> Result<(), OrderError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => {
                let name = authorization.identifier().to_string();
                return Err(OrderError::Name(name, other));
            }
        }
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(OrderError::Challenge)?;
        let answer = challenge.key_authorization();
        wanted.challenges.add(&challenge.token, answer.as_str());
        challenge.set_ready().await?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refused(order).await?.unwrap_or(OrderError::Invalid)),
        Err(error @ Error::Api(_)) => Err(refused(order).await?.unwrap_or(error.into())),
        Err(error) => Err(error.into()),
    }
}

/// Why the server does not believe that a name is ours: on port 80 it finds us, or does not.
async fn refused(order: &mut Order) -> Result<Option<OrderError>, OrderError> {
    // They are asked for again, since the order has been.
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        let mut errors = authorization.challenges.iter().map(|c| &c.error);
        if let Some(problem) = errors.find_map(Option::as_ref) {
            return Ok(Some(Error::Api(problem.clone()).into()));
        }
    }
    Ok(None)
}

/// A new key, and the request to certify it (PKCS #10, RFC 8555, section 7.4).
fn request(names: &[String]) -> Result<(KeyPair, CertificateSigningRequest), rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate()?;
    let request = params.serialize_request(&key)?;
    Ok((key, request))
}

/// The account of the folder, or a new one.
async fn account(wanted: &Wanted, store: &Store) -> Result<Account, OrderError> {
    let contact: Vec<_> = wanted.contact.iter().map(String::as_str).collect();
    let bound = wanted.binding.as_ref().map(Binding::kid);
    let builder = Account::builder_with_http(Box::new(wanted.http.clone()));
    // Another binding is another customer's account.
    let kept = store.account(&wanted.directory);
    let kept = kept.filter(|kept| kept["binding"].as_str() == bound);
    if let Some((mut kept, credentials)) = kept.and_then(credentials) {
        let account = builder.from_credentials(credentials).await?;
        if kept["contact"] != json!(contact) {
            account.update_contacts(&contact).await?;
            kept["contact"] = json!(contact);
            store.keep_account(&wanted.directory, &kept)?;
        }
        return Ok(account);
    }
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let binding = wanted.binding.as_ref().map(ExternalAccountKey::from);
    let directory = wanted.directory.clone();
    let (account, credentials) = builder.create(&new, directory, binding.as_ref()).await?;
    let credentials = serde_json::to_value(credentials).map_err(Error::Json)?;
    let kept = json!({ "credentials": credentials, "contact": contact, "binding": bound });
    store.keep_account(&wanted.directory, &kept)?;
    Ok(account)
}

fn credentials(kept: Value) -> Option<(Value, AccountCredentials)> {
    let credentials = serde_json::from_value(kept["credentials"].clone()).ok()?;
    Some((kept, credentials))
}

/// A problem's type, without what all types have in common.
fn kind(problem: &Problem) -> &str {
    let kind = problem.r#type.as_deref().unwrap_or("problem");
    kind.rsplit(':').next().unwrap_or(kind)
}

/// In the words of a problem document (RFC 7807), where there is one.
fn told(error: &Error) -> String {
    let Error::Api(problem) = error else {
        return error.to_string();
    };
    let detail = |of: &Option<String>| of.clone().unwrap_or_default();
    let mut words = format!("{}: {}", kind(problem), detail(&problem.detail));
    for sub in problem.subproblems.iter().take(SUBPROBLEMS) {
        words += &format!("; {}", detail(&sub.detail));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_in_their_words() {
        let problem = |text: Value| {
            let problem: Problem = serde_json::from_value(text).unwrap();
            OrderError::from(Error::Api(problem)).to_string()
        };
        let limited = json!({ "type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many",
            "subproblems": [{ "detail": "for a.example" }] });
        for (text, words) in [
            (limited, "rateLimited: too many; for a.example"),
            (json!({ "detail": "x" }), "problem: x"),
            (json!({}), "problem: "),
        ] {
            assert_eq!(problem(text), words);
        }
    }
}
