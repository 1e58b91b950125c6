// SPDX-License-Identifier: MPL-2.0

//! Who is in which room and under which names they are streams: what rooms tell, and elements of this process that record or mix a
//! room look at.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::StreamName;

/// Somebody, or a stream, that publishes in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publishing {
    /// As the room knows it.
    pub identity: String,
    /// Its camera and microphone first, then its screen, then what else there is.
    pub streams: Vec<StreamName>,
}

/// See the module's description.
#[derive(Debug, Default)]
pub struct Roster(Mutex<BTreeMap<String, BTreeMap<String, Publishing>>>);

impl Roster {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Publishing>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a participant publishes now; `sid` is its own among all rooms. Who publishes nothing is not listed.
    pub fn set(&self, room: &str, sid: &str, publishing: Publishing) {
        let mut rooms = self.lock();
        if publishing.streams.is_empty() {
            drop(rooms);
            return self.remove(room, sid);
        }
        let listed = rooms.entry(room.to_owned()).or_default();
        listed.insert(sid.to_owned(), publishing);
    }

    /// A participant has gone.
    pub fn remove(&self, room: &str, sid: &str) {
        let mut rooms = self.lock();
        if let Some(listed) = rooms.get_mut(room) {
            listed.remove(sid);
            if listed.is_empty() {
                rooms.remove(room);
            }
        }
    }

    /// All who publish in a room.
    pub fn of(&self, room: &str) -> Vec<Publishing> {
        let rooms = self.lock();
        let listed = rooms.get(room).into_iter().flat_map(BTreeMap::values);
        listed.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_publishes_is_listed_and_nobody_leaves_anything() {
        let roster = Roster::default();
        let publishing = |identity: &str, streams: &[&str]| Publishing {
            identity: identity.to_owned(),
            streams: streams.iter().map(|name| name.parse().unwrap()).collect(),
        };
        roster.set("a", "PA_1", publishing("ann", &[]));
        assert!(roster.of("a").is_empty());
        roster.set("a", "PA_1", publishing("ann", &["a/ann"]));
        roster.set("a", "PA_2", publishing("ben", &["a/ben"]));
        roster.set("b", "PA_3", publishing("ann", &["b/ann"]));
        roster.set("a", "PA_1", publishing("ann", &["a/ann", "a/ann/screen"]));
        assert_eq!(roster.of("a").len(), 2);
        assert_eq!(roster.of("a")[0].streams.len(), 2);
        roster.set("a", "PA_1", publishing("ann", &[]));
        assert_eq!(roster.of("a"), [publishing("ben", &["a/ben"])]);
        for (room, sid) in [("a", "PA_2"), ("b", "PA_3"), ("b", "PA_3"), ("c", "PA_1")] {
            roster.remove(room, sid);
        }
        assert!(roster.lock().is_empty());
    }
}
