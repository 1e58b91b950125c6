// SPDX-License-Identifier: MPL-2.0

//! Sessions end with what let them in: a token that expires or is revoked, a user or a rule that is gone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use sfu_engine::{Engine, SessionError, SessionId};

use super::{Door, Pass};
use crate::properties::lock;
use crate::signaller::CAT;
use crate::signaller::server::App;

/// How often files and clocks are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sessions that have ended by themselves are forgotten every so many looks.
const FORGET_EVERY: u64 = 10;

/// By what each session was let in.
#[derive(Debug, Default)]
pub(super) struct Held {
    sessions: Mutex<HashMap<SessionId, Pass>>,
    generation: AtomicU64,
    /// A session that is over found no room at a shard that is behind, and lives on: it is looked for, though no rule has changed.
    again: AtomicBool,
    looks: AtomicU64,
}

impl Held {
    /// The user who showed a password for it.
    pub(super) fn user_of(&self, session: SessionId) -> Option<String> {
        let sessions = lock(&self.sessions);
        sessions.get(&session)?.proof.user().map(str::to_owned)
    }
}

impl Door {
    /// A session was set up for whom the gate let in.
    pub(in crate::signaller) fn hold(&self, session: SessionId, pass: Pass) {
        // Without a file nothing can change.
        if self.has_file {
            lock(&self.held.sessions).insert(session, pass);
        }
    }

    /// Reads the rules again if they have changed, and ends the sessions that are over.
    fn look(&self, engine: &Engine, now: SystemTime) {
        match self.access.refresh() {
            Some(Ok(())) => gst::info!(CAT, "the rules were read again; {}", self.summary()),
            Some(Err(error)) => gst::warning!(CAT, "the rules stay as they are: {error}"),
            None => {}
        }
        if let Some(complaint) = self.access.complaint() {
            gst::warning!(CAT, "{complaint}");
        }
        let generation = self.access.generation();
        let changed = self.held.generation.swap(generation, Relaxed) != generation;
        let changed = self.held.again.swap(false, Relaxed) || changed;
        let looks = self.held.looks.fetch_add(1, Relaxed);
        let forget = looks.is_multiple_of(FORGET_EVERY);
        let mut sessions = lock(&self.held.sessions);
        if forget {
            sessions.retain(|id, _| engine.session(*id).is_some());
        }
        // Reading tokens again takes a while: without a change only the clock matters.
        let over = |pass: &Pass| {
            let expired = pass.proof.until().is_some_and(|until| until <= now);
            (changed || expired).then(|| self.access.still(&pass.proof, &pass.wants, now).err())?
        };
        let over: Vec<_> = sessions
            .iter()
            .filter_map(|(id, pass)| Some((*id, over(pass)?)))
            .collect();
        drop(sessions);
        for (id, why) in over {
            let closed = engine.close(id);
            if closed == Err(SessionError::Busy) {
                self.held.again.store(true, Relaxed);
                continue;
            }
            lock(&self.held.sessions).remove(&id);
            if closed.is_ok() {
                gst::info!(CAT, "a session has ended: {why}");
            }
        }
    }
}

/// Looks until the server stops.
pub(in crate::signaller) async fn watch(app: App) {
    if !app.door.has_file {
        return;
    }
    let mut stopping = app.stopping.clone();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let (door, engine) = (app.door.clone(), app.engine.clone());
        let look = move || door.look(&engine, SystemTime::now());
        let _ = tokio::task::spawn_blocking(look).await;
    }
}
