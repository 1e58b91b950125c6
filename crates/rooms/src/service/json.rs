// SPDX-License-Identifier: MPL-2.0

//! JSON as Twirp's servers write it: names as in the protocol's files (`num_participants`), and what has its default value is
//! there, too, as far as it is listed here.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Maps whose keys are the application's own.
const MAPS: [&str; 2] = ["attributes", "tags"];

/// A method's answer.
pub(super) fn write(method: &str, answer: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut value = snake(serde_json::to_value(answer)?);
    let list = match method {
        "ListRooms" => Some("rooms"),
        "ListParticipants" => Some("participants"),
        _ => None,
    };
    if let Some((fields, list)) = value.as_object_mut().zip(list) {
        fields.entry(list).or_insert_with(|| json!([]));
    }
    fill(&mut value);
    serde_json::to_vec(&value)
}

fn snake(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(snake).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(name, value)| {
                let value = match MAPS.contains(&name.as_str()) {
                    true => value,
                    false => snake(value),
                };
                (snake_name(&name), value)
            });
            Value::Object(fields.collect())
        }
        value => value,
    }
}

fn snake_name(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// What is left out: known by what is always there.
fn fill(value: &mut Value) {
    let Value::Object(fields) = value else {
        return;
    };
    for (list, of) in [
        ("rooms", fill_room as fn(&mut Map<String, Value>)),
        ("participants", fill_participant),
    ] {
        if let Some(Value::Array(items)) = fields.get_mut(list) {
            items
                .iter_mut()
                .filter_map(Value::as_object_mut)
                .for_each(of);
        }
    }
    if let Some(Value::Object(track)) = fields.get_mut("track") {
        fill_track(track);
    }
    let is = |start: &str| {
        let sid = fields.get("sid").and_then(Value::as_str);
        sid.is_some_and(|sid| sid.starts_with(start))
    };
    if is("RM_") {
        fill_room(fields);
    } else if is("PA_") {
        fill_participant(fields);
    }
}

fn defaults(fields: &mut Map<String, Value>, defaults: Value) {
    let Value::Object(defaults) = defaults else {
        return;
    };
    for (name, value) in defaults {
        fields.entry(name).or_insert(value);
    }
}

fn fill_room(room: &mut Map<String, Value>) {
    let all = json!({
        "name": "", "empty_timeout": 0, "departure_timeout": 0, "max_participants": 0, "creation_time": "0",
        "creation_time_ms": "0", "turn_password": "", "enabled_codecs": [], "metadata": "", "num_participants": 0,
        "num_publishers": 0, "active_recording": false,
    });
    defaults(room, all);
}

fn fill_participant(participant: &mut Map<String, Value>) {
    let all = json!({
        "identity": "", "state": "JOINING", "tracks": [], "metadata": "", "joined_at": "0", "joined_at_ms": "0", "name": "",
        "version": 0, "region": "", "is_publisher": false, "kind": "STANDARD", "attributes": {},
        "disconnect_reason": "UNKNOWN_REASON", "kind_details": [], "data_tracks": [], "client_protocol": 0,
        "capabilities": [], "permission": {},
    });
    defaults(participant, all);
    if let Some(Value::Object(permission)) = participant.get_mut("permission") {
        let all = json!({
            "can_subscribe": false, "can_publish": false, "can_publish_data": false, "can_publish_sources": [],
            "hidden": false, "recorder": false, "can_update_metadata": false, "agent": false,
            "can_subscribe_metrics": false, "can_manage_agent_session": false,
        });
        defaults(permission, all);
    }
    if let Some(Value::Array(tracks)) = participant.get_mut("tracks") {
        tracks
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(fill_track);
    }
}

fn fill_track(track: &mut Map<String, Value>) {
    let all = json!({
        "type": "AUDIO", "name": "", "muted": false, "width": 0, "height": 0, "simulcast": false, "disable_dtx": false,
        "source": "UNKNOWN", "layers": [], "mime_type": "", "mid": "", "codecs": [], "stereo": false,
        "disable_red": false, "encryption": "NONE", "stream": "", "audio_features": [],
    });
    defaults(track, all);
}

#[cfg(test)]
mod tests {
    use livekit_protocol as proto;

    use super::*;

    #[test]
    fn names_and_defaults_are_those_of_twirp() {
        let participant = proto::ParticipantInfo {
            sid: "PA_1".into(),
            joined_at_ms: 7,
            attributes: [("myKey".to_owned(), "v".to_owned())].into(),
            tracks: vec![proto::TrackInfo {
                sid: "TR_1".into(),
                mime_type: "audio/opus".into(),
                ..proto::TrackInfo::default()
            }],
            permission: Some(proto::ParticipantPermission {
                can_publish: true,
                ..proto::ParticipantPermission::default()
            }),
            ..proto::ParticipantInfo::default()
        };
        let room = proto::Room {
            sid: "RM_1".into(),
            num_participants: 2,
            ..proto::Room::default()
        };
        let read = |octets: Vec<u8>| serde_json::from_slice::<Value>(&octets).unwrap();
        let list = proto::ListParticipantsResponse {
            participants: vec![participant.clone()],
        };
        let list = read(write("ListParticipants", &list).unwrap());
        for one in [
            &read(write("", &participant).unwrap()),
            &list["participants"][0],
        ] {
            assert_eq!(one["joined_at_ms"], "7");
            assert_eq!(one["attributes"]["myKey"], "v");
            assert_eq!(one["is_publisher"], false);
            assert_eq!(one["permission"]["can_publish"], true);
            assert_eq!(one["permission"]["can_subscribe"], false);
            assert_eq!(one["tracks"][0]["mime_type"], "audio/opus");
            assert_eq!(one["tracks"][0]["muted"], false);
        }
        let room = read(write("", &room).unwrap());
        assert_eq!(
            (&room["num_participants"], &room["num_publishers"]),
            (&2.into(), &0.into())
        );
        let empty = |method| write(method, &proto::DeleteRoomResponse {}).unwrap();
        assert_eq!(empty("DeleteRoom"), b"{}");
        assert_eq!(empty("ListRooms"), br#"{"rooms":[]}"#);
    }
}
