// SPDX-License-Identifier: MPL-2.0

//! Webhooks, signed as Standard Webhooks 1.0 has it or as others do it ([`Signed`]), each with a queue of its own: who takes them slowly, or not, holds up
//! nobody and loses what is too much.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sfu_access::remote::Client;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, oneshot};

use super::super::CAT;
use crate::notices::Notice;
use crate::signaller::server::App;

/// What may wait for a receiver that is away.
const QUEUE: usize = 1_000;
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pauses before another try of the same one; then it is given up.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(180),
];
/// So long must a secret be, in octets.
const SECRET_MIN: usize = 24;
/// Receivers that there may be.
const RECEIVERS: usize = 8;

/// Where to, and by which secret.
#[derive(Debug)]
pub(in crate::signaller) struct Webhooks {
    urls: Vec<Arc<str>>,
    key: hmac::Key,
}

impl Webhooks {
    /// From the properties: addresses separated by commas, and the file that holds the secret.
    pub(in crate::signaller) fn new(urls: &str, secret_file: &str) -> Result<Self, String> {
        let urls = addresses("event-webhooks", urls)?;
        let secret = match (urls.is_empty(), secret_file) {
            (true, _) => vec![0; SECRET_MIN],
            (false, "") => {
                return Err(
                    "event-webhooks needs event-webhook-secret, a file with what they are signed by \
                     (openssl rand -base64 32)"
                        .to_owned(),
                );
            }
            (false, file) => {
                let text = sfu_access::read_text(file)
                    .map_err(|e| format!("event-webhook-secret: {file}: {e}"))?;
                secret(text.trim()).ok_or_else(|| {
                    format!("event-webhook-secret: {file} holds no secret of {SECRET_MIN} octets or more")
                })?
            }
        };
        Ok(Self {
            urls,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    pub(super) fn urls(&self) -> impl Iterator<Item = Arc<str>> {
        self.urls.iter().cloned()
    }

    /// The header `webhook-signature`.
    fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let signed = format!("{id}.{timestamp}.{body}");
        let tag = hmac::sign(&self.key, signed.as_bytes());
        format!("v1,{}", STANDARD.encode(tag))
    }
}

impl Signed for Webhooks {
    type Told = Notice;

    fn message(&self, notice: &Notice) -> Message {
        Message::of(notice, new_id())
    }

    fn fields(&self, message: &Message) -> Vec<(&'static str, String)> {
        let timestamp = seconds(SystemTime::now());
        let signature = self.sign(&message.id, timestamp, &message.body);
        vec![
            ("content-type", "application/json".to_owned()),
            ("webhook-id", message.id.clone()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature),
        ]
    }
}

/// Addresses separated by commas, as a property has them.
pub(super) fn addresses(property: &str, urls: &str) -> Result<Vec<Arc<str>>, String> {
    let urls = urls.split(',').map(str::trim);
    let urls: Vec<Arc<str>> = urls.filter(|url| !url.is_empty()).map(Arc::from).collect();
    for url in &urls {
        let parsed = url.parse::<axum::http::Uri>().ok();
        let is_one = parsed.is_some_and(|u| {
            matches!(u.scheme_str(), Some("http" | "https")) && u.host().is_some()
        });
        if !is_one {
            return Err(format!("{property}: addresses are http://… or https://…"));
        }
    }
    if urls.len() > RECEIVERS {
        return Err(format!("{property}: {RECEIVERS} addresses at most"));
    }
    Ok(urls)
}

/// `whsec_` and base64, or the text itself.
fn secret(text: &str) -> Option<Vec<u8>> {
    let secret = match text.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => text.as_bytes().to_vec(),
    };
    (secret.len() >= SECRET_MIN).then_some(secret)
}

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// One message, which is the same at each try.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: String,
}

/// What is told, and how it is signed.
pub(super) trait Signed: Send + Sync + 'static {
    /// What happens.
    type Told: Send + Sync + 'static;

    fn message(&self, told: &Self::Told) -> Message;

    /// The header's fields, for a try now.
    fn fields(&self, message: &Message) -> Vec<(&'static str, String)>;
}

impl Message {
    fn of(notice: &Notice, id: String) -> Self {
        let at = chrono::DateTime::<chrono::Utc>::from(notice.at);
        let body = json!({
            "type": notice.kind.name(),
            "timestamp": at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "data": notice,
        });
        Self {
            id,
            body: body.to_string(),
        }
    }
}

/// Random, so that it is another one after a restart.
fn new_id() -> String {
    let mut octets = [0; 16];
    let _ = aws_lc_rs::rand::fill(&mut octets);
    let digits: String = octets.iter().map(|o| format!("{o:02x}")).collect();
    format!("msg_{digits}")
}

/// Delivers to one address, one after the other, until it is dropped.
pub(super) async fn deliver<S: Signed>(
    app: App,
    signed: Arc<S>,
    url: Arc<str>,
    mut notices: broadcast::Receiver<Arc<S::Told>>,
) {
    let client = Client::new(PATIENCE);
    let mut queue = VecDeque::new();
    loop {
        if queue.is_empty() {
            match notices.recv().await {
                Ok(notice) => queue.push_back(signed.message(&notice)),
                Err(RecvError::Lagged(lost)) => app.measures.lost(lost),
                Err(RecvError::Closed) => return,
            }
        }
        let Some(message) = queue.pop_front() else {
            continue;
        };
        let mut pauses = PAUSES.iter();
        loop {
            let result = send(&client, signed.fields(&message), &url, &message).await;
            app.measures.delivered(result.is_ok());
            let Err(why) = result else { break };
            let Some(pause) = pauses.next().filter(|_| why != Failed::ForGood) else {
                gst::warning!(CAT, "a webhook was given up: {why:?}");
                app.measures.lost(1);
                break;
            };
            gst::debug!(
                CAT,
                "a webhook was not taken, and is sent again in {pause:?}: {why:?}"
            );
            tokio::time::sleep(*pause).await;
            take(&app, &*signed, &mut notices, &mut queue);
        }
        take(&app, &*signed, &mut notices, &mut queue);
    }
}

/// What has come meanwhile, as far as there is room.
fn take<S: Signed>(
    app: &App,
    signed: &S,
    notices: &mut broadcast::Receiver<Arc<S::Told>>,
    queue: &mut VecDeque<Message>,
) {
    loop {
        match notices.try_recv() {
            Ok(notice) if queue.len() < QUEUE => queue.push_back(signed.message(&notice)),
            Ok(_) => app.measures.lost(1),
            Err(TryRecvError::Lagged(lost)) => app.measures.lost(lost),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Failed {
    /// It may be taken later.
    ForNow(String),
    /// 410: the receiver wants no more of it.
    ForGood,
}

async fn send(
    client: &Client,
    fields: Vec<(&'static str, String)>,
    url: &Arc<str>,
    message: &Message,
) -> Result<(), Failed> {
    let (client, url) = (client.clone(), url.clone());
    let body = message.body.clone();
    // A thread of its own: the runtime's are for files and offers, and receivers that don't answer would hold them. There are
    // eight at most, each asked one thing at a time.
    let (answered, answer) = oneshot::channel();
    let thread = std::thread::Builder::new().name("sfu-events".into());
    let asked = thread.spawn(move || {
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let _ = answered.send(client.post(&url, &fields, &body));
    });
    asked.map_err(|e| Failed::ForNow(e.to_string()))?;
    let status = answer.await.map_err(|e| Failed::ForNow(e.to_string()))?;
    // Nobody reads what it says.
    match status.map_err(Failed::ForNow)? {
        200..300 => Ok(()),
        410 => Err(Failed::ForGood),
        status => Err(Failed::ForNow(status.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of its specification's reference libraries.
        let file = std::env::temp_dir().join(format!("sfu-whsec-{}", std::process::id()));
        std::fs::write(&file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let webhooks = Webhooks::new("http://127.0.0.1:9/x", file.to_str().unwrap()).unwrap();
        let signature = webhooks.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let _ = std::fs::remove_file(file);
    }

    #[test]
    fn what_can_be_no_webhook_is_said() {
        for (urls, file, word) in [
            ("ftp://x", "f", "http"),
            ("http://", "f", "http"),
            ("http://a", "", "event-webhook-secret"),
            ("http://a", "/nowhere/at/all", "/nowhere"),
        ] {
            let error = Webhooks::new(urls, file).unwrap_err();
            assert!(error.contains(word), "{urls} {file}: {error}");
        }
        assert!(Webhooks::new("", "").is_ok_and(|w| w.urls().next().is_none()));
        assert_eq!(secret("short"), None);
    }
}
