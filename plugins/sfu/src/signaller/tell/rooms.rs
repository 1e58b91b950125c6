// SPDX-License-Identifier: MPL-2.0

//! Webhooks of rooms, signed as LiveKit's `WebhookReceiver` wants them: a token of an API key that holds the body's digest.

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sfu_rooms::Keys;
use sfu_rooms::proto::WebhookEvent;
use tokio::sync::broadcast;

use super::webhook::{Message, Signed, addresses, seconds};

/// What may wait for the tasks that deliver.
const WAITING: usize = 1_000;

/// Where to, and by which keys.
#[derive(Debug)]
pub(in crate::signaller) struct RoomWebhooks {
    urls: Vec<Arc<str>>,
    keys: Arc<Keys>,
    told: broadcast::Sender<Arc<WebhookEvent>>,
}

impl RoomWebhooks {
    /// From the property `room-webhooks`.
    pub(in crate::signaller) fn new(urls: &str, keys: Option<&Keys>) -> Result<Self, String> {
        let urls = addresses("room-webhooks", urls)?;
        if !urls.is_empty() && keys.is_none() {
            return Err("room-webhooks needs api-keys, by which they are signed".to_owned());
        }
        let (told, _) = broadcast::channel(WAITING);
        Ok(Self {
            urls,
            keys: Arc::new(keys.cloned().unwrap_or_default()),
            told,
        })
    }

    pub(super) fn urls(
        &self,
    ) -> impl Iterator<Item = (Arc<str>, broadcast::Receiver<Arc<WebhookEvent>>)> {
        self.urls
            .iter()
            .map(|url| (url.clone(), self.told.subscribe()))
    }

    /// Whether anybody is to be told.
    pub(in crate::signaller) fn is_wanted(&self) -> bool {
        !self.urls.is_empty()
    }

    /// Returns at once.
    pub(in crate::signaller) fn tell(&self, event: WebhookEvent) {
        // Nobody listens: the server is stopping.
        let _ = self.told.send(Arc::new(event));
    }
}

impl Signed for RoomWebhooks {
    type Told = WebhookEvent;

    fn message(&self, told: &WebhookEvent) -> Message {
        Message {
            id: told.id.clone(),
            body: serde_json::to_string(told).unwrap_or_default(),
        }
    }

    fn fields(&self, message: &Message) -> Vec<(&'static str, String)> {
        let digest = digest::digest(&digest::SHA256, message.body.as_bytes());
        let now = seconds(SystemTime::now());
        let token = self.keys.sign_digest(STANDARD.encode(digest), now);
        vec![
            ("content-type", "application/webhook+json".to_owned()),
            ("authorization", token.unwrap_or_default()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_holds_the_digest_of_the_body() {
        let keys: Keys = "b:second,a:first".parse().unwrap();
        let hooks = RoomWebhooks::new("http://127.0.0.1:9/x", Some(&keys)).unwrap();
        let event = WebhookEvent {
            event: "room_started".into(),
            id: "EV_1".into(),
            ..WebhookEvent::default()
        };
        let message = hooks.message(&event);
        assert!(
            message.body.contains(r#""event":"room_started""#),
            "{}",
            message.body
        );
        let fields = hooks.fields(&message);
        let (_, token) = fields
            .iter()
            .find(|(name, _)| *name == "authorization")
            .unwrap();
        let claims = keys.claims(token, seconds(SystemTime::now())).unwrap();
        let digest = digest::digest(&digest::SHA256, message.body.as_bytes());
        assert_eq!(
            (claims.iss.as_str(), claims.sha256),
            ("a", STANDARD.encode(digest))
        );
        for (urls, keys, word) in [
            ("ftp://x", Some(&keys), "room-webhooks"),
            ("http://127.0.0.1/", None, "api-keys"),
        ] {
            let error = RoomWebhooks::new(urls, keys).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        assert!(RoomWebhooks::new("", None).is_ok_and(|hooks| !hooks.is_wanted()));
    }
}
