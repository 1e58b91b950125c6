// SPDX-License-Identifier: MPL-2.0

//! Ends sessions of others: for the API and for the element's action signals alike. Whoever is ended may come again.

use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use sfu_engine::{Engine, Router, SessionError, StreamName};

use super::server::Refusal;

/// A shard that has no room just now for one more word is told so long, and each so often.
const PATIENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(20);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kicked {
    Ended,
    /// There is nobody who could be ended.
    Nobody,
    /// There is, and goes on: it can be tried again.
    Busy,
}

/// Ends a session by its number; not where there is none.
pub(super) fn session(engine: &Engine, number: u64) -> Kicked {
    let sessions = engine.all_sessions();
    let found = sessions.iter().find(|s| s.number == number);
    found.map_or(Kicked::Nobody, |session| end(|| engine.close(session.id)))
}

/// Ends a stream's publisher: who came by WHIP, or what an element hears of that has somebody to end (RTMP, SRT). Not where it is
/// a pipeline of this process.
pub(super) fn publisher(engine: &Engine, router: &Router, stream: &StreamName) -> Kicked {
    let session = router.find(stream).and_then(|stream| stream.publisher());
    match session {
        Some(session) => end(|| engine.close(session)),
        None if router.kick(stream) => Kicked::Ended,
        None => Kicked::Nobody,
    }
}

/// Waits while the shard has no room.
fn end(close: impl Fn() -> Result<(), SessionError>) -> Kicked {
    let until = Instant::now() + PATIENCE;
    loop {
        match close() {
            Ok(()) => return Kicked::Ended,
            Err(SessionError::Busy) if Instant::now() < until => std::thread::sleep(AGAIN),
            Err(SessionError::Busy) => return Kicked::Busy,
            // It may have ended meanwhile, which is as well.
            Err(_) => return Kicked::Nobody,
        }
    }
}

/// What the API says of [`Kicked::Busy`].
pub(super) fn busy() -> Refusal {
    let refusal = Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        SessionError::Busy.to_string(),
    );
    refusal.with(header::RETRY_AFTER, "1")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_session_of_a_shard_that_is_behind_is_ended_later_and_not_taken_for_nobody() {
        let (busy, gone) = (Err(SessionError::Busy), Err(SessionError::Unknown));
        for (first, then, is) in [
            (Ok(()), gone.clone(), Kicked::Ended),
            (gone.clone(), Ok(()), Kicked::Nobody),
            (busy.clone(), Ok(()), Kicked::Ended),
            (busy.clone(), gone, Kicked::Nobody),
            (busy.clone(), busy, Kicked::Busy),
        ] {
            let asked = Cell::new(0);
            let kicked = end(|| {
                asked.set(asked.get() + 1);
                if asked.get() <= 3 {
                    first.clone()
                } else {
                    then.clone()
                }
            });
            assert_eq!(kicked, is, "{first:?}, then {then:?}");
        }
    }
}
