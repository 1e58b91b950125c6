// SPDX-License-Identifier: MPL-2.0

//! What tokens say beside who may join.

use sfu_rooms::proto::participant_info::Kind;
use sfu_rooms::proto::request_response::Reason;
use sfu_rooms::proto::{
    DisconnectReason, LeaveRequest, ParticipantPermission, UpdateParticipantMetadata,
};

use super::*;

fn leave() -> Asked {
    Asked::Leave(LeaveRequest::default())
}

#[test]
fn what_a_moderator_takes_away_is_in_the_next_token() {
    let mut people = People::new();
    people.join(1, "ann", &json!({})).unwrap();
    people.refreshed.clear();
    let mut known = permit("ann", &json!({})).unwrap();
    for permission in [
        json!({ "canSubscribe": true, "canPublishData": true }),
        json!({ "canPublish": true }),
        json!({ "canSubscribe": true, "canPublish": true, "canPublishSources": ["MICROPHONE"] }),
        json!({ "canPublish": true, "canPublishSources": ["CAMERA", "SCREEN_SHARE_AUDIO"], "canUpdateMetadata": true }),
        json!({ "canPublish": false, "canPublishSources": ["CAMERA"] }),
        json!({ "canPublish": true, "canPublishData": true, "hidden": true, "canSubscribeMetrics": true }),
    ] {
        let body = json!({ "room": "r", "identity": "ann", "permission": permission });
        people.call("UpdateParticipant", &body).unwrap();
        assert_eq!(std::mem::take(&mut people.refreshed), [1], "{permission}");
        let now = people.rooms.permission(Connection(1)).unwrap();
        known.allow(now);
        let token = keys().renew(&known, AT).unwrap();
        let again = keys().permit(&token, AT, &Limits::default()).unwrap();
        assert_eq!(again.permission, *now, "{permission}");
    }
    // Sources that have no name are not all sources.
    let odd = ParticipantPermission {
        can_publish: true,
        can_publish_sources: vec![0, 99],
        ..ParticipantPermission::default()
    };
    known.allow(&odd);
    let token = keys().renew(&known, AT).unwrap();
    let again = keys().permit(&token, AT, &Limits::default()).unwrap();
    assert!(!again.permission.can_publish);
    // Nothing else of a participant is in it.
    let body = json!({ "room": "r", "identity": "ann", "metadata": "x" });
    people.call("UpdateParticipant", &body).unwrap();
    assert!(people.refreshed.is_empty());
}

#[test]
fn the_token_that_opens_a_room_says_how_it_is() {
    let config = |metadata: &str| {
        let config = json!({
            "emptyTimeout": 7, "departureTimeout": 9, "maxParticipants": 2, "metadata": metadata,
        });
        json!({ "roomConfig": config })
    };
    let mut people = People::new();
    let too_large = people.join(1, "ann", &config(&"x".repeat(70_000)));
    assert_eq!(too_large.unwrap_err().status, 400);
    assert!(people.events.is_empty());
    people.join(1, "ann", &config("of ann")).unwrap();
    let started = people.events[0].room.clone().unwrap();
    let room = people.room(1);
    for room in [&started, &room] {
        let is = (room.empty_timeout, room.departure_timeout);
        assert_eq!(is, (7, 9));
        assert_eq!((room.max_participants, &*room.metadata), (2, "of ann"));
    }
    // Who comes later changes nothing.
    people.join(2, "ben", &config("of ben")).unwrap();
    assert_eq!(people.room(2).metadata, "of ann");
    assert_eq!(people.join(3, "cyd", &json!({})).unwrap_err().status, 503);
    people.ask(1, leave());
    people.ask(2, leave());
    people.run_for(Duration::from_millis(8_900));
    assert_eq!(people.rooms.count().0, 1);
    people.run_for(Duration::from_millis(200));
    assert_eq!(people.rooms.count().0, 0);
    // As CreateRoom has it.
    let body = json!({ "name": "r", "metadata": "of an application" });
    people.call("CreateRoom", &body).unwrap();
    let started = people.events.last().unwrap();
    let metadata = started.room.clone().unwrap().metadata;
    assert_eq!(
        (&*started.event, &*metadata),
        ("room_started", "of an application")
    );
    people.join(4, "ann", &config("of ann")).unwrap();
    assert_eq!(people.room(4).metadata, "of an application");
}

#[test]
fn a_participant_is_of_the_kind_that_its_token_says() {
    for (own, kind, records) in [
        (json!({}), Kind::Standard, false),
        (json!({ "kind": "standard" }), Kind::Standard, false),
        (json!({ "kind": "agent" }), Kind::Agent, false),
        (json!({ "kind": "AGENT" }), Kind::Agent, false),
        (json!({ "video": { "agent": true } }), Kind::Agent, false),
        (json!({ "kind": "egress" }), Kind::Egress, true),
        (json!({ "kind": "ingress" }), Kind::Ingress, false),
        (json!({ "kind": "sip" }), Kind::Sip, false),
        (json!({ "kind": "connector" }), Kind::Connector, false),
        (json!({ "kind": "teapot" }), Kind::Standard, false),
        (
            json!({ "video": { "recorder": true } }),
            Kind::Standard,
            true,
        ),
        (
            json!({ "video": { "recorder": true, "hidden": true } }),
            Kind::Standard,
            true,
        ),
    ] {
        let mut people = People::new();
        people.join(1, "ann", &json!({})).unwrap();
        people.join(2, "it", &own).unwrap();
        let Told::Join(join) = people.told[&2][0].clone() else {
            panic!("{own}");
        };
        assert_eq!(join.participant.unwrap().kind(), kind, "{own}");
        // All know at once that they are recorded, and that they are not any more.
        people.run_for(Duration::from_millis(1));
        let room = people.room(1);
        assert_eq!(room.active_recording, records, "{own}");
        // And its next token says the same.
        let token = keys().renew(&permit("it", &own).unwrap(), AT).unwrap();
        let again = keys().permit(&token, AT, &Limits::default()).unwrap();
        assert_eq!(again.kind, kind, "{own}");
        people.ask(2, leave());
        people.run_for(Duration::from_millis(1));
        assert!(!people.room(1).active_recording, "{own}");
    }
}

#[test]
fn who_is_there_for_others_does_not_count_and_goes_with_them() {
    for own in [
        json!({ "kind": "agent" }),
        json!({ "video": { "recorder": true, "hidden": true } }),
    ] {
        let mut people = People::new();
        let body = json!({ "name": "r", "maxParticipants": 1, "departureTimeout": 5 });
        people.call("CreateRoom", &body).unwrap();
        people.join(1, "it", &own).unwrap();
        people.join(2, "ann", &json!({})).unwrap();
        assert_eq!(people.join(3, "ben", &json!({})).unwrap_err().status, 503);
        people.join(4, "another", &own).unwrap();
        people.run_for(Duration::from_secs(5));
        assert_eq!(people.room(2).num_participants, 1, "{own}");
        people.ask(2, leave());
        people.run_for(Duration::from_millis(4_900));
        for n in [1, 4] {
            people.ask(n, Asked::Ping(1));
        }
        assert_eq!(people.rooms.count(), (1, 2), "{own}");
        people.run_for(Duration::from_millis(200));
        assert_eq!(people.rooms.count(), (0, 0), "{own}");
        let told = people.told(1);
        let Some(Told::Leave(leave)) = told.last() else {
            panic!("{told:?}");
        };
        assert_eq!(leave.reason(), DisconnectReason::RoomClosed);
        assert!(people.closed.contains(&1) && people.closed.contains(&4));
    }
}

#[test]
fn who_calls_itself_an_ingress_is_a_client_like_others() {
    let mut people = People::new();
    people
        .join(1, "ann", &json!({ "kind": "ingress" }))
        .unwrap();
    people.close(1);
    people.run_for(Duration::from_secs(21));
    assert_eq!(people.rooms.count().1, 0, "it has not come back");
}

#[test]
fn refused_changes_of_oneself_have_the_words_that_clients_show() {
    let mut people = People::new();
    let may = json!({ "video": { "canUpdateOwnMetadata": true } });
    people.join(1, "ann", &may).unwrap();
    people.join(2, "ben", &json!({})).unwrap();
    let large = "x".repeat(70_000);
    let (one, many) = ("x".to_owned(), [("k".to_owned(), large.clone())]);
    for (n, name, metadata, attributes, reason, words) in [
        (1, &one, &one, vec![], Reason::Ok, ""),
        (
            2,
            &one,
            &large,
            vec![],
            Reason::NotAllowed,
            "does not have permission to update own metadata",
        ),
        (
            1,
            &large,
            &large,
            vec![],
            Reason::LimitExceeded,
            "exceeds name length limit",
        ),
        (
            1,
            &one,
            &large,
            many.to_vec(),
            Reason::LimitExceeded,
            "exceeds metadata size limit",
        ),
        (
            1,
            &one,
            &one,
            many.to_vec(),
            Reason::LimitExceeded,
            "exceeds attributes size limit",
        ),
    ] {
        people.told(n);
        let update = UpdateParticipantMetadata {
            metadata: metadata.clone(),
            name: name.clone(),
            attributes: attributes.into_iter().collect(),
            request_id: 9,
        };
        people.ask(n, Asked::UpdateMetadata(update));
        let told = people.told(n);
        let responses = told.iter().filter_map(|told| match told {
            Told::RequestResponse(response) => Some(response),
            _ => None,
        });
        let responses: Vec<_> = responses
            .map(|r| (r.request_id, r.reason(), r.message.as_str()))
            .collect();
        assert_eq!(responses, [(9, reason, words)]);
    }
}
