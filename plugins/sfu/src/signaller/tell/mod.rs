// SPDX-License-Identifier: MPL-2.0

//! Tells of what happens: on the pipeline's bus and by signals, and to webhooks. One source for all: [`crate::notices`].

mod application;
mod publishers;
mod rooms;
mod viewers;
mod webhook;

use std::sync::Arc;

pub(super) use rooms::RoomWebhooks;
pub(super) use viewers::Viewers;
pub(super) use webhook::Webhooks;

use super::server::App;
use crate::notices;

/// Until the server stops.
pub(super) async fn run(app: App) {
    let router: Arc<str> = app.router_name.clone();
    // Before anybody tells anything.
    let to_application = notices::listen(&router);
    let to_webhooks: Vec<_> = app
        .webhooks
        .urls()
        .map(|url| (url, notices::listen(&router)))
        .collect();
    let to_rooms: Vec<_> = app.room_webhooks.urls().collect();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(application::tell(app.clone(), to_application));
    for (url, notices) in to_webhooks {
        let webhooks = app.webhooks.clone();
        tasks.spawn(webhook::deliver(app.clone(), webhooks, url, notices));
    }
    for (url, events) in to_rooms {
        let webhooks = app.room_webhooks.clone();
        tasks.spawn(webhook::deliver(app.clone(), webhooks, url, events));
    }
    tasks.spawn(publishers::watch(app.clone()));
    let mut stopping = app.stopping.clone();
    let _ = stopping.wait_for(|stop| *stop).await;
    tasks.shutdown().await;
}
