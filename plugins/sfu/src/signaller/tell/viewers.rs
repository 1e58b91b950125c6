// SPDX-License-Identifier: MPL-2.0

//! Viewers that come and go, as the engine tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use sfu_engine::{SessionInfo, SessionObserver};

use crate::notices::{Kind, Notice, tell};
use crate::properties::lock;
use crate::signaller::door::Door;
use crate::signaller::recent::Recent;

/// See the module's description. Called on the shards' threads.
#[derive(Debug)]
pub(in crate::signaller) struct Viewers {
    router: Arc<str>,
    door: Arc<Door>,
    recent: Arc<Recent>,
    /// Of those that are there: when they leave, the door knows no more of them.
    users: Mutex<HashMap<u64, String>>,
}

impl Viewers {
    pub(in crate::signaller) fn new(
        router: Arc<str>,
        door: Arc<Door>,
        recent: Arc<Recent>,
    ) -> Arc<Self> {
        Arc::new(Self {
            router,
            door,
            recent,
            users: Mutex::default(),
        })
    }
}

fn notice(kind: Kind, session: &SessionInfo) -> Notice {
    let mut notice = Notice::new(kind, session.stream.as_str());
    notice.session = Some(session.number);
    notice.address = session.peer.map(|peer| peer.to_canonical().to_string());
    notice
}

impl SessionObserver for Viewers {
    fn connected(&self, session: &SessionInfo) {
        if session.publishes {
            return;
        }
        let mut notice = notice(Kind::ViewerJoined, session);
        notice.user = self.door.user_of(session.id);
        if let Some(user) = &notice.user {
            lock(&self.users).insert(session.number, user.clone());
        }
        tell(&self.router, notice);
    }

    fn ended(&self, session: &SessionInfo) {
        self.recent.add(Instant::now(), session.id);
        if session.publishes || !session.connected {
            return;
        }
        let mut notice = notice(Kind::ViewerLeft, session);
        notice.user = lock(&self.users).remove(&session.number);
        notice.seconds = Some(session.since.elapsed().as_secs_f64());
        notice.octets = Some(session.bytes_sent);
        tell(&self.router, notice);
    }
}
