// SPDX-License-Identifier: MPL-2.0

//! Signalling with the Janus WebRTC server's streaming plugin over its plain HTTP API, for comparisons.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Janus drops a session of which it hears nothing for a minute.
pub const KEEP_ALIVE: Duration = Duration::from_secs(25);
const OFFER_WITHIN: Duration = Duration::from_secs(15);

/// A session with one handle that watches a mountpoint.
#[derive(Debug, Clone)]
pub struct Janus {
    session: String,
    handle: String,
}

fn post(agent: &ureq::Agent, url: &str, body: &Value) -> Result<Value> {
    let request = agent.post(url).header("content-type", "application/json");
    let mut response = request
        .send(body.to_string())
        .with_context(|| format!("POST {url}"))?;
    let text = response
        .body_mut()
        .read_to_string()
        .with_context(|| format!("POST {url}"))?;
    let reply: Value =
        serde_json::from_str(&text).with_context(|| format!("POST {url}: no JSON"))?;
    if reply["janus"] == "error" {
        bail!("POST {url}: {}", reply["error"]["reason"]);
    }
    Ok(reply)
}

fn id(reply: &Value) -> Result<u64> {
    reply["data"]["id"].as_u64().context("Janus gave no id")
}

impl Janus {
    /// Creates a session and asks for a mountpoint. Returns Janus' offer too.
    pub fn watch(agent: &ureq::Agent, url: &str, mountpoint: u64) -> Result<(Self, String)> {
        let url = url.trim_end_matches('/');
        let created = post(
            agent,
            url,
            &json!({"janus": "create", "transaction": "create"}),
        )?;
        let session = format!("{url}/{}", id(&created)?);
        let plugin = "janus.plugin.streaming";
        let attach = json!({"janus": "attach", "plugin": plugin, "transaction": "attach"});
        let attached = post(agent, &session, &attach)?;
        let handle = format!("{session}/{}", id(&attached)?);
        let janus = Self { session, handle };
        let body = json!({"request": "watch", "id": mountpoint});
        post(
            agent,
            &janus.handle,
            &json!({"janus": "message", "body": body, "transaction": "watch"}),
        )?;
        let offer = janus.offer(agent)?;
        Ok((janus, offer))
    }

    fn offer(&self, agent: &ureq::Agent) -> Result<String> {
        let until = Instant::now() + OFFER_WITHIN;
        while Instant::now() < until {
            let mut response = agent.get(&self.session).call().context("Janus' events")?;
            let text = response
                .body_mut()
                .read_to_string()
                .context("Janus' events")?;
            let event: Value = serde_json::from_str(&text).context("Janus' event is no JSON")?;
            let failure = &event["plugindata"]["data"]["error"];
            if !failure.is_null() {
                bail!("Janus: {failure}");
            }
            if let Some(sdp) = event["jsep"]["sdp"].as_str() {
                return Ok(sdp.to_owned());
            }
        }
        bail!("Janus made no offer within {OFFER_WITHIN:?}")
    }

    /// Answers the offer.
    pub fn start(&self, agent: &ureq::Agent, answer: &str) -> Result<()> {
        let message = json!({
            "janus": "message",
            "transaction": "start",
            "body": {"request": "start"},
            "jsep": {"type": "answer", "sdp": answer},
        });
        post(agent, &self.handle, &message)?;
        Ok(())
    }

    /// To be called every [`KEEP_ALIVE`].
    pub fn keep_alive(&self, agent: &ureq::Agent) {
        // A session that is gone shows by its media.
        let _ = post(
            agent,
            &self.session,
            &json!({"janus": "keepalive", "transaction": "keepalive"}),
        );
    }

    /// Ends the session.
    pub fn destroy(&self, agent: &ureq::Agent) {
        let _ = post(
            agent,
            &self.session,
            &json!({"janus": "destroy", "transaction": "destroy"}),
        );
    }
}
