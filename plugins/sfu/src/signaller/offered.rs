// SPDX-License-Identifier: MPL-2.0

//! A server's own offer, which is no part of WHEP: who posts nothing to `/whep/{stream}` gets an offer (201), and answers it by
//! `PATCH` of its session with `application/sdp`. `@eyevinn/webrtc-player` asks for it where a server takes no offers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use sfu_engine::{OfferedViewer, SessionId};

use super::door::Pass;
use super::server::{App, Refusal};
use super::sessions::not_subscribed;
use crate::properties::lock;

/// Who was made an offer has so long to answer, as an unconnected session has to connect.
const PATIENCE: Duration = Duration::from_secs(20);

/// Those who have not answered yet: each has a place among the sessions, so that there are no more than those.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Arc<Mutex<HashMap<SessionId, (OfferedViewer, Pass)>>>);

impl Waiting {
    /// Waits for its answer.
    pub(super) fn add(&self, viewer: OfferedViewer, pass: Pass) {
        let session = viewer.session();
        lock(&self.0).insert(session, (viewer, pass));
        let waiting = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            waiting.remove(session);
        });
    }

    /// Whether its answer is waited for. In all other sessions an SDP is nothing (RFC 9725, section 4.3.1: 415).
    pub(super) fn has(&self, session: SessionId) -> bool {
        lock(&self.0).contains_key(&session)
    }

    /// It does not want it any more, or was too late. Returns whether there was one.
    pub(super) fn remove(&self, session: SessionId) -> bool {
        lock(&self.0).remove(&session).is_some()
    }
}

/// Its answer.
pub(super) async fn answer(app: App, session: SessionId, sdp: String) -> Result<(), Refusal> {
    let taken = lock(&app.waiting.0).remove(&session);
    let Some((viewer, pass)) = taken else {
        let message = "no answer is waited for in this session: an offer of ours is good for 20 s, and answered once";
        return Err(Refusal::new(StatusCode::CONFLICT, message));
    };
    let engine = app.engine.clone();
    let begun = app.offers.run(move || engine.begin(viewer, &sdp)).await?;
    let session = begun.map_err(|e| not_subscribed(&e))?;
    app.door.hold(session, pass);
    Ok(())
}
