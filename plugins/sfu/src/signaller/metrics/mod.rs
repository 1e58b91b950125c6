// SPDX-License-Identifier: MPL-2.0

//! `GET /metrics`: everything that is counted, for Prometheus, as OpenMetrics 1.0 or, for who does not ask for that, as
//! Prometheus' older text (0.0.4).

mod encoders;
mod measures;
mod page;
mod process;
mod pushes;
mod sessions;
mod shards;
mod streams;

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;
use sfu_engine::{CountersSnapshot, SessionInfo, ShardInfo, StreamInfo};

use super::server::{App, Refusal};
use super::v1::Figures;
pub(super) use encoders::{Encoder, encoders};
pub(super) use measures::Measures;
use page::Page;
pub(super) use process::shard_seconds;

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /metrics`
pub(super) async fn metrics(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let accepted = headers.get(header::ACCEPT).and_then(|a| a.to_str().ok());
    let open = accepted.is_some_and(|accepted| accepted.contains("application/openmetrics-text"));
    // Of many sessions it takes some milliseconds.
    let looks = app.looks.clone();
    let text = looks.run(move || written(&app)).await?;
    Ok(match open {
        true => ([(header::CONTENT_TYPE, OPEN)], text),
        false => ([(header::CONTENT_TYPE, CLASSIC)], page::classic(&text)),
    })
}

fn written(app: &App) -> String {
    let mut registry = Registry::default();
    app.measures.register(&mut registry);
    registry.register_collector(Box::new(Scrape::of(app)));
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = text::encode(&mut text, &registry);
    text
}

/// All figures at one moment.
#[derive(Debug)]
struct Scrape {
    counters: CountersSnapshot,
    shards: Vec<ShardInfo>,
    all_streams: usize,
    streams: Vec<StreamInfo>,
    sessions: Vec<SessionInfo>,
    encoders: Vec<Encoder>,
    pushes: Vec<Figures>,
    answers: Vec<u64>,
    http: Vec<(&'static str, &'static str, u64)>,
    connections: usize,
    files_refused: u64,
}

impl Scrape {
    fn of(app: &App) -> Self {
        let all = app.router.streams();
        Self {
            counters: app.engine.counters(),
            shards: app.engine.shards(),
            all_streams: all.len(),
            streams: streams::shown(all),
            sessions: app.engine.all_sessions(),
            encoders: encoders(&app.element),
            pushes: app.pushes.figures(),
            answers: app
                .answers
                .iter()
                .map(|count| count.load(Relaxed))
                .collect(),
            http: app.connections.counts.iter().collect(),
            connections: app.connections.count(),
            files_refused: app.files.refused.load(Relaxed),
        }
    }

    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        for (name, help, value) in self.counters.iter() {
            page.counter(&format!("sfu_{name}"), help, value)?;
        }
        let sessions = self.sessions.len();
        page.gauge(
            "sfu_sessions",
            "Sessions of viewers and publishers.",
            sessions,
        )?;
        let mut answers =
            page.counters("sfu_http_responses", "HTTP responses by class of status.")?;
        for (class, count) in self.answers.iter().enumerate().skip(1) {
            answers.add(&[("class", &format!("{class}xx"))], *count)?;
        }
        page.gauge(
            "sfu_http_connections",
            "HTTP connections.",
            self.connections,
        )?;
        for (name, help, value) in &self.http {
            page.counter(&format!("sfu_http_{name}"), help, *value)?;
        }
        page.counter(
            "sfu_http_files_refused",
            "Requests for files refused: too many were being read.",
            self.files_refused,
        )?;
        shards::write(page, &self.shards)?;
        page.gauge(
            "sfu_streams",
            "Names that somebody publishes or watches.",
            self.all_streams,
        )?;
        streams::write(page, &self.streams)?;
        sessions::write(page, &self.streams, &self.sessions)?;
        encoders::write(page, &self.encoders)?;
        pushes::write(page, &self.pushes)?;
        process::write(page)
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.write(&mut Page::new(encoder))
    }
}
