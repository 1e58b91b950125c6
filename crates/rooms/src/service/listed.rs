// SPDX-License-Identifier: MPL-2.0

//! The list of all rooms, with their metadata: a large one is written once a second at most, for all who ask for it.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Form;

/// A list of fewer octets is written for each who asks, as it is just then: a thousand rooms without metadata have some 500 KiB, and
/// are written in a few milliseconds.
const SMALL: usize = 64 * 1024;
/// So old may a large one be.
const AGE: Duration = Duration::from_secs(1);

/// What was written, in each form. It is dropped when it is old: see [`Listed::due`].
#[derive(Debug, Default)]
pub(crate) struct Listed(Vec<List>);

#[derive(Debug)]
struct List {
    form: Form,
    until: Instant,
    answer: Bytes,
}

impl Listed {
    pub(super) fn get(&self, form: Form, now: Instant) -> Option<Bytes> {
        let mut lists = self.0.iter();
        let list = lists.find(|list| list.form == form && now < list.until);
        list.map(|list| list.answer.clone())
    }

    pub(super) fn keep(&mut self, form: Form, now: Instant, answer: &Bytes) {
        self.0.retain(|list| list.form != form);
        if answer.len() >= SMALL {
            self.0.push(List {
                form,
                until: now + AGE,
                answer: answer.clone(),
            });
        }
    }

    /// Who has changed something sees it.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// When there is something to be dropped.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.iter().map(|list| list.until).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.0.retain(|list| now < list.until);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use livekit_token::VideoGrants;
    use serde_json::{Value, json};

    use crate::rooms::{Config, Rooms};
    use crate::service::{Call, Form};

    use super::*;

    fn call(rooms: &mut Rooms, at: Instant, method: &str, body: &Value) -> Bytes {
        let grants = VideoGrants {
            room_create: true,
            room_list: true,
            ..VideoGrants::default()
        };
        let call = Call {
            method: method.to_owned(),
            form: Form::Json,
            body: body.to_string().into(),
            grants,
        };
        rooms.serve(at, &call).unwrap()
    }

    fn names(answer: &Bytes) -> Vec<String> {
        let answer: Value = serde_json::from_slice(answer).unwrap();
        let rooms = answer["rooms"].as_array().unwrap().iter();
        let name = |room: &Value| room["name"].as_str().unwrap().to_owned();
        rooms.map(name).collect()
    }

    #[test]
    fn a_large_list_is_written_once_a_second_unless_a_call_changes_it() {
        let now = Instant::now();
        let config = Config {
            empty_timeout: Duration::from_secs(600),
            ..Config::default()
        };
        let mut rooms = Rooms::new(config, now, SystemTime::now());
        let all = json!({});
        let create = |rooms: &mut Rooms, name: &str, octets: usize| {
            let room = json!({ "name": name, "metadata": "x".repeat(octets) });
            call(rooms, now, "CreateRoom", &room);
        };
        create(&mut rooms, "small", 10);
        let first = call(&mut rooms, now, "ListRooms", &all);
        let second = call(&mut rooms, now, "ListRooms", &all);
        assert_ne!(first.as_ptr(), second.as_ptr(), "a small one is always new");
        for name in ["a", "b"] {
            create(&mut rooms, name, SMALL / 2);
        }
        let first = call(&mut rooms, now, "ListRooms", &all);
        assert_eq!(names(&first), ["a", "b", "small"]);
        let later = now + AGE / 2;
        let second = call(&mut rooms, later, "ListRooms", &all);
        assert_eq!(first.as_ptr(), second.as_ptr());
        // Some are named: each once, and those that there are.
        let some = json!({ "names": ["small", "nobody", "a", "a"] });
        let named = call(&mut rooms, later, "ListRooms", &some);
        assert_eq!(names(&named), ["a", "small"]);
        // Who has changed something sees it.
        create(&mut rooms, "c", 10);
        let third = call(&mut rooms, later, "ListRooms", &all);
        assert_eq!(names(&third), ["a", "b", "c", "small"]);
        // It is not kept for longer than it is good for.
        assert_eq!(rooms.listed.due(), Some(later + AGE));
        assert!(rooms.poll_timeout().is_some_and(|due| due <= later + AGE));
        rooms.handle_timeout(later + AGE);
        assert_eq!(rooms.listed.due(), None);
        let fourth = call(&mut rooms, later + AGE, "ListRooms", &all);
        assert_ne!(third.as_ptr(), fourth.as_ptr());
    }
}
