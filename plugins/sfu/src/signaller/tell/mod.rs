// SPDX-License-Identifier: MPL-2.0

//! Tells of what happens: on the pipeline's bus, and to webhooks. One source for both: [`crate::notices`].

mod bus;
mod publishers;
mod viewers;
mod webhook;

use std::sync::Arc;

pub(super) use viewers::Viewers;
pub(super) use webhook::Webhooks;

use super::server::App;
use crate::notices;

/// Until the server stops.
pub(super) async fn run(app: App) {
    let router: Arc<str> = app.router_name.clone();
    // Before anybody tells anything.
    let to_bus = notices::listen(&router);
    let to_webhooks: Vec<_> = app
        .webhooks
        .urls()
        .map(|url| (url, notices::listen(&router)))
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(bus::post(app.clone(), to_bus));
    for (url, notices) in to_webhooks {
        tasks.spawn(webhook::deliver(app.clone(), url, notices));
    }
    tasks.spawn(publishers::watch(app.clone()));
    let mut stopping = app.stopping.clone();
    let _ = stopping.wait_for(|stop| *stop).await;
    tasks.shutdown().await;
}
