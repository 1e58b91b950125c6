// SPDX-License-Identifier: MPL-2.0

//! Ends sessions of others: for the API and for the element's action signals alike. Whoever is ended may come again.

use sfu_engine::{Engine, Router, StreamName};

/// Ends a session by its number; not where there is none.
pub(super) fn session(engine: &Engine, number: u64) -> bool {
    let sessions = engine.all_sessions();
    let found = sessions.iter().find(|s| s.number == number);
    // It may have ended meanwhile, which is as well.
    found.is_some_and(|session| engine.close(session.id).is_ok())
}

/// Ends a stream's publisher: who came by WHIP, or what an element hears of that has somebody to end (RTMP, SRT). Not where it is
/// a pipeline of this process.
pub(super) fn publisher(engine: &Engine, router: &Router, stream: &StreamName) -> bool {
    let session = router.find(stream).and_then(|stream| stream.publisher());
    match session {
        Some(session) => engine.close(session).is_ok(),
        None => router.kick(stream),
    }
}
