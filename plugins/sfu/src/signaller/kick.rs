// SPDX-License-Identifier: MPL-2.0

//! Ends sessions of others: for the API and for the element's action signals alike. Whoever is ended may come again.

use sfu_engine::{Engine, StreamName};

/// Ends a session by its number; not where there is none.
pub(super) fn session(engine: &Engine, number: u64) -> bool {
    let sessions = engine.all_sessions();
    let found = sessions.iter().find(|s| s.number == number);
    // It may have ended meanwhile, which is as well.
    found.is_some_and(|session| engine.close(session.id).is_ok())
}

/// Ends a stream's publisher; not where none of its publishers came by WHIP.
pub(super) fn publisher(engine: &Engine, stream: &StreamName) -> bool {
    let sessions = engine.all_sessions();
    let of_it = sessions
        .iter()
        .filter(|s| s.publishes && s.stream == *stream);
    of_it.filter(|s| engine.close(s.id).is_ok()).count() > 0
}
