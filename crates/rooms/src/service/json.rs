// SPDX-License-Identifier: MPL-2.0

//! JSON as Twirp's servers read it, by protobuf's mapping, and as they write it: names as in the protocol's files
//! (`num_participants`), and what has its default value is there, too, as far as it is listed here.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Maps whose keys are the application's own.
const MAPS: [&str; 2] = ["attributes", "tags"];
/// Whole numbers up to here are exact however they are written.
const EXACT: f64 = (1_u64 << 53) as f64;

/// A method's request. What `pbjson` does not take of the mapping: `null` for a field that is not there, and `1.0` for 1.
pub(super) fn read<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, serde_json::Error> {
    let refused = match serde_json::from_slice(body) {
        Ok(request) => return Ok(request),
        Err(refused) => refused,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return Err(refused);
    };
    if !simplify(&mut value) {
        return Err(refused);
    }
    serde_json::from_value(value)
}

/// Whether there was anything to simplify. A `null` in a list or a map stays, and is refused, as the mapping has it.
fn simplify(value: &mut Value) -> bool {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |changed, item| simplify(item) | changed),
        Value::Object(fields) => {
            let before = fields.len();
            fields.retain(|_, value| !value.is_null());
            let changed = fields.len() < before;
            let parts = fields.iter_mut();
            let parts = parts.filter(|(name, _)| !MAPS.contains(&name.as_str()));
            parts.fold(changed, |changed, (_, part)| simplify(part) | changed)
        }
        Value::Number(number) if number.is_f64() => {
            let written = number.as_f64();
            let whole = written.filter(|n| n.fract() == 0.0 && n.abs() <= EXACT);
            if let Some(whole) = whole {
                *number = (whole as i64).into();
            }
            whole.is_some()
        }
        _ => false,
    }
}

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
    if let Some(Value::Array(tracks)) = participant.get_mut("data_tracks") {
        let tracks = tracks.iter_mut().filter_map(Value::as_object_mut);
        let all = json!({"pub_handle": 0, "sid": "", "name": "", "encryption": "NONE"});
        tracks.for_each(|track| defaults(track, all.clone()));
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
            data_tracks: vec![proto::DataTrackInfo {
                pub_handle: 7,
                ..proto::DataTrackInfo::default()
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
            assert_eq!(one["data_tracks"][0]["pub_handle"], 7);
            assert_eq!(one["data_tracks"][0]["encryption"], "NONE");
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

    #[test]
    fn requests_are_read_in_every_form_of_the_mapping() {
        let expected = proto::CreateRoomRequest {
            name: "a".into(),
            empty_timeout: 5,
            ..proto::CreateRoomRequest::default()
        };
        for body in [
            r#"{"name":"a","empty_timeout":5}"#,
            r#"{"name":"a","emptyTimeout":5}"#,
            r#"{"name":"a","emptyTimeout":"5"}"#,
            r#"{"name":"a","emptyTimeout":5.0}"#,
            r#"{"name":"a","emptyTimeout":0.5e1}"#,
            r#"{"name":"a","emptyTimeout":"5","unknown":{"a":[null,1.0]}}"#,
            r#"{"name":"a","emptyTimeout":"5","unknown":null,"metadata":null}"#,
            r#"{"name":"a","emptyTimeout":5,"empty_timeout":null}"#,
            r#"{"name":"a","emptyTimeout":5,"roomPreset":null,"departureTimeout":null,"maxParticipants":null,
                "nodeId":null,"metadata":null,"tags":null,"egress":null,"minPlayoutDelay":null,"max_playout_delay":null,
                "syncStreams":null,"replayEnabled":null,"agents":null}"#,
        ] {
            let read = read::<proto::CreateRoomRequest>(body.as_bytes());
            assert_eq!(read.unwrap(), expected, "{body}");
        }
        for body in [
            "",
            "null",
            "[]",
            r#"{"name":1}"#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"emptyTimeout":5.5}"#,
            r#"{"emptyTimeout":-1.0}"#,
            r#"{"emptyTimeout":4294967296}"#,
            r#"{"emptyTimeout":1e300}"#,
            r#"{"metadata":null,"tags":{"a":null}}"#,
            r#"{"metadata":null,"agents":[null]}"#,
        ] {
            let read = read::<proto::CreateRoomRequest>(body.as_bytes());
            assert!(read.is_err(), "{body}");
        }
    }

    #[test]
    fn what_is_null_is_absent_in_every_request() {
        fn same<Q: DeserializeOwned + PartialEq + std::fmt::Debug>(body: &Value, request: &Q) {
            let read = read::<Q>(&serde_json::to_vec(body).unwrap());
            assert_eq!(&read.unwrap(), request, "{body}");
        }
        same(&json!({"names": null}), &proto::ListRoomsRequest::default());
        same(&json!({"room": null}), &proto::DeleteRoomRequest::default());
        same(
            &json!({"room": null}),
            &proto::ListParticipantsRequest::default(),
        );
        let nobody = proto::RoomParticipantIdentity::default();
        same(&json!({"room": null, "identity": null}), &nobody);
        same(
            &json!({"room": null, "identity": null, "trackSid": null, "muted": null}),
            &proto::MuteRoomTrackRequest::default(),
        );
        same(
            &json!({"room": null, "metadata": null}),
            &proto::UpdateRoomMetadataRequest::default(),
        );
        let permission = proto::ParticipantPermission {
            can_publish: true,
            can_publish_sources: vec![
                proto::TrackSource::Camera.into(),
                proto::TrackSource::Microphone.into(),
            ],
            ..proto::ParticipantPermission::default()
        };
        same(
            &json!({"name": null, "metadata": null, "attributes": null, "permission":
                {"canPublish": true, "can_publish_data": null, "canPublishSources": ["CAMERA", 2.0]}}),
            &proto::UpdateParticipantRequest {
                permission: Some(permission),
                ..proto::UpdateParticipantRequest::default()
            },
        );
        let tracks = proto::ParticipantTracks {
            track_sids: vec!["TR_1".into()],
            ..proto::ParticipantTracks::default()
        };
        same(
            &json!({"trackSids": null, "subscribe": null, "participantTracks":
                [{"participantSid": null, "track_sids": ["TR_1"]}]}),
            &proto::UpdateSubscriptionsRequest {
                participant_tracks: vec![tracks],
                ..proto::UpdateSubscriptionsRequest::default()
            },
        );
        same(
            &json!({"data": "aGk", "kind": "LOSSY", "topic": null, "nonce": null,
                "destinationSids": null, "destination_identities": null}),
            &proto::SendDataRequest {
                data: b"hi".to_vec(),
                kind: proto::data_packet::Kind::Lossy.into(),
                ..proto::SendDataRequest::default()
            },
        );
    }
}
