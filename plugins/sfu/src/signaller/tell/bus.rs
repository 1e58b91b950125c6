// SPDX-License-Identifier: MPL-2.0

//! Element messages on the pipeline's bus.

use std::sync::Arc;
use std::sync::mpsc::{TrySendError, sync_channel};

use gst::prelude::*;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::notices::Notice;
use crate::signaller::CAT;
use crate::signaller::server::App;

/// What may wait for an application that handles messages slowly.
const QUEUE: usize = 256;

/// Posts each notice. An application's handlers run on a thread of its own: they may take as long as they like.
pub(super) async fn post(app: App, mut notices: broadcast::Receiver<Arc<Notice>>) {
    let (queue, queued) = sync_channel::<Arc<Notice>>(QUEUE);
    let element = app.element.clone();
    let post = move || {
        while let Ok(notice) = queued.recv() {
            let Some(element) = element.upgrade() else {
                return;
            };
            let message = gst::message::Element::builder(notice.structure()).src(&element);
            let _ = element.post_message(message.build());
        }
    };
    let thread = std::thread::Builder::new().name("sfu-notices".into());
    if let Err(error) = thread.spawn(post) {
        gst::warning!(CAT, "no thread for messages: {error}");
        return;
    }
    loop {
        match notices.recv().await {
            Ok(notice) => {
                app.measures.happened(notice.kind);
                if let Err(TrySendError::Full(_)) = queue.try_send(notice) {
                    app.measures.lost(1);
                }
            }
            Err(RecvError::Lagged(lost)) => app.measures.lost(lost),
            Err(RecvError::Closed) => return,
        }
    }
}
