// SPDX-License-Identifier: MPL-2.0

//! Data tracks: who is told of them, who gets their datagrams, and until when.

#![allow(deprecated)]

mod bounds;
mod hall;

use std::time::Duration;

use serde_json::json;
use sfu_rooms::proto::request_response::{Reason, Request};
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{
    DataTrackInfo, GetDataBlobRequest, LeaveRequest, PublishDataTrackResponse,
    StoreDataBlobRequest, SyncState,
};
use sfu_rooms::{Connection, Hello, Limits};

use hall::{Hall, datagram, named, permit, subscription};

/// The places of the first messages of these kinds.
fn places(told: &[Told], kinds: &[fn(&Told) -> bool]) -> Vec<Option<usize>> {
    let place = |kind: &fn(&Told) -> bool| told.iter().position(kind);
    kinds.iter().map(place).collect()
}

#[test]
fn data_is_published_subscribed_to_by_choice_and_forwarded_by_the_subscribers_handle() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    let by_v1 = Hello {
        v1: Some(sfu_rooms::First::default()),
        ..Hello::default()
    };
    hall.enter(3, permit("cat", &json!({})), by_v1);
    hall.told.clear();
    hall.publish(1, named(700, "arm"));
    let info = hall.published(1);
    assert!(info.sid.starts_with("DTR_"), "{info:?}");
    assert_eq!((info.pub_handle, info.name.as_str()), (700, "arm"));
    let is_response = |told: &Told| matches!(told, Told::PublishDataTrackResponse(_));
    let is_update = |told: &Told| matches!(told, Told::Update(_));
    let found = places(&hall.told[&1], &[is_response, is_update]);
    assert_eq!(found, [Some(0), Some(1)], "the response comes first");
    for other in [2, 3] {
        let ann = hall.last_of(other, "ann");
        assert_eq!(ann.data_tracks, std::slice::from_ref(&info));
        assert!(ann.is_publisher && ann.tracks.is_empty());
        assert_eq!(hall.handles(other), None, "nobody has asked for it");
    }
    assert!(hall.send(1, &datagram(700, b"unheard")).is_empty());

    hall.subscribe(2, &info.sid, true);
    hall.subscribe(3, &info.sid, true);
    let handles = hall.handles(2).unwrap();
    assert_eq!(handles.len(), 1);
    let (handle, track) = handles.first_key_value().unwrap();
    assert_eq!((track, *handle > 0), (&info.sid, true));
    let sent = hall.send(1, &datagram(700, b"up"));
    let [ben, cat] = [2, 3].map(|who| {
        let handles = hall.handles(who).unwrap();
        (who, datagram(*handles.first_key_value().unwrap().0, b"up"))
    });
    assert_eq!(sent, [ben, cat]);
    // By no other handle, not by the subscribers', and by nobody else.
    assert!(hall.send(1, &datagram(701, b"x")).is_empty());
    assert!(hall.send(1, &datagram(*handle, b"x")).is_empty());
    assert!(hall.send(2, &datagram(700, b"x")).is_empty());

    hall.subscribe(2, &info.sid, false);
    assert_eq!(hall.handles(2), Some([].into()));
    let sent = hall.send(1, &datagram(700, b"down"));
    assert_eq!(sent.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [3]);
    hall.subscribe(2, &info.sid, true);
    assert_eq!(hall.send(1, &datagram(700, b"again")).len(), 2);

    // Who comes later is told, and publishes under handles of its own.
    hall.join(4, "dan");
    assert_eq!(
        hall.last_of(4, "ann").data_tracks,
        std::slice::from_ref(&info)
    );
    hall.publish(4, named(700, "arm"));
    let other = hall.published(4);
    hall.subscribe(2, &other.sid, true);
    let handles = hall.handles(2).unwrap();
    let tracks: Vec<_> = handles.values().collect();
    assert_eq!(handles.len(), 2, "{handles:?}");
    assert!(tracks.contains(&&info.sid) && tracks.contains(&&other.sid));
    assert_eq!(hall.send(4, &datagram(700, b"dan's")).len(), 1);
}

#[test]
fn what_is_no_request_is_refused_and_nobody_else_is_told() {
    let mut hall = Hall::new(Limits::default());
    let hello = || Hello::from_query([]).unwrap();
    hall.enter(1, permit("ann", &json!({"canPublishData": false})), hello());
    hall.enter(2, permit("ben", &json!({})), hello());
    hall.publish(2, named(1, "arm"));
    hall.told.clear();
    let long = "x".repeat(257);
    for (connection, request, reason) in [
        (1, named(1, "arm"), Reason::NotAllowed),
        (2, named(0, "leg"), Reason::InvalidHandle),
        (2, named(65_536, "leg"), Reason::InvalidHandle),
        (2, named(2, ""), Reason::InvalidName),
        (2, named(2, &long), Reason::InvalidName),
        (2, named(1, "leg"), Reason::DuplicateHandle),
        (2, named(2, "arm"), Reason::DuplicateName),
    ] {
        hall.publish(connection, request.clone());
        let told = hall.told.remove(&connection).unwrap();
        let [Told::RequestResponse(response)] = told.as_slice() else {
            panic!("{told:?}");
        };
        assert_eq!(response.reason(), reason);
        assert!(!response.message.is_empty());
        // Clients find by it what was refused.
        assert_eq!(response.request, Some(Request::PublishDataTrack(request)));
        assert!(hall.told.is_empty(), "{:?}", hall.told);
    }
    hall.unpublish(2, 9);
    assert_eq!(hall.refusals(2), [Reason::NotFound]);
    let sid = "DTR_none";
    hall.subscribe(1, sid, true);
    hall.subscribe(1, sid, false);
    assert!(!hall.told.contains_key(&1));
    // Definitions of schemas are kept nowhere.
    let store = StoreDataBlobRequest {
        request_id: 5,
        blob: None,
    };
    hall.ask(2, Asked::StoreDataBlobRequest(store));
    let get = GetDataBlobRequest {
        request_id: 6,
        ..GetDataBlobRequest::default()
    };
    hall.ask(2, Asked::GetDataBlobRequest(get));
    let ids = hall.told[&2].iter().filter_map(|told| match told {
        Told::RequestResponse(r) if r.reason() == Reason::UnsupportedType => Some(r.request_id),
        _ => None,
    });
    assert_eq!(ids.collect::<Vec<_>>(), [5, 6]);
}

#[test]
fn what_is_unpublished_or_whose_publisher_leaves_is_nobodys() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    for (handle, name) in [(1, "arm"), (2, "leg")] {
        hall.publish(1, named(handle, name));
        let sid = hall.published(1).sid;
        hall.subscribe(2, &sid, true);
    }
    let before = hall.handles(2).unwrap();
    assert_eq!(before.len(), 2);
    hall.unpublish(1, 1);
    assert_eq!(hall.unpublished(1), [1]);
    assert_eq!(hall.handles(2).unwrap().len(), 1);
    assert_eq!(hall.last_of(2, "ann").data_tracks.len(), 1);
    assert!(hall.send(1, &datagram(1, b"x")).is_empty());
    assert_eq!(hall.send(1, &datagram(2, b"x")).len(), 1);
    // The same name and handle again are another track, by a handle that was not used before.
    hall.publish(1, named(1, "arm"));
    let again = hall.published(1).sid;
    hall.subscribe(2, &again, true);
    let after = hall.handles(2).unwrap();
    let mut reused = before.iter().filter(|(handle, sid)| {
        let known = after.get(handle);
        known.is_some_and(|known| known != *sid)
    });
    assert_eq!(reused.next(), None);
    hall.ask(1, Asked::Leave(LeaveRequest::default()));
    assert_eq!(hall.handles(2), Some([].into()));
    let gone = hall.last_of(2, "ann");
    assert!(gone.data_tracks.is_empty() && !gone.is_publisher);
    // Who has gone is sent nothing.
    hall.publish(2, named(1, "arm"));
    let sid = hall.published(2).sid;
    hall.join(3, "cat");
    hall.subscribe(3, &sid, true);
    assert_eq!(hall.send(2, &datagram(1, b"x")).len(), 1);
    hall.ask(3, Asked::Leave(LeaveRequest::default()));
    assert!(hall.send(2, &datagram(1, b"x")).is_empty());
}

#[test]
fn who_loses_a_right_loses_what_it_was_for() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    hall.publish(1, named(1, "arm"));
    let sid = hall.published(1).sid;
    hall.subscribe(2, &sid, true);
    let handles = hall.handles(2).unwrap();
    hall.allow("ben", true, false);
    assert_eq!(hall.handles(2), Some([].into()));
    assert!(hall.send(1, &datagram(1, b"x")).is_empty());
    // What it wants is not forgotten.
    hall.allow("ben", true, true);
    assert_eq!(hall.handles(2), Some(handles));
    assert_eq!(hall.send(1, &datagram(1, b"x")).len(), 1);
    hall.allow("ann", false, true);
    assert_eq!(hall.unpublished(1), [1]);
    assert_eq!(hall.handles(2), Some([].into()));
    assert!(hall.last_of(2, "ann").data_tracks.is_empty());
    assert!(hall.send(1, &datagram(1, b"x")).is_empty());
    hall.publish(1, named(1, "arm"));
    assert_eq!(hall.refusals(1), [Reason::NotAllowed]);
    hall.allow("ann", true, true);
    hall.publish(1, named(1, "arm"));
    assert_eq!(hall.last_of(2, "ann").data_tracks.len(), 1);
}

/// Who is back publishes and gets what it did, and what it may not have heard is told again.
#[test]
fn who_goes_on_by_another_connection_has_its_tracks_and_subscriptions() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    hall.publish(1, named(1, "arm"));
    hall.publish(1, named(2, "leg"));
    let leg = hall.published(1);
    hall.subscribe(2, &leg.sid, true);
    let handles = hall.handles(2).unwrap();
    for connection in [1, 2] {
        hall.rooms.closed(hall.now, Connection(connection));
    }
    hall.run_for(Duration::from_secs(1));
    hall.resume(2, 12, "ben");
    let told = &hall.told[&12];
    assert!(matches!(told[0], Told::Reconnect(_)), "{told:?}");
    assert_eq!(hall.last_of(12, "ann").data_tracks.len(), 2);
    assert_eq!(hall.handles(12), Some(handles));
    hall.resume(1, 11, "ann");
    assert_eq!(hall.send(11, &datagram(2, b"x")).len(), 1);
    // She has not heard that the first one is published, and not that a third one is none any more.
    let one = |info: DataTrackInfo| PublishDataTrackResponse { info: Some(info) };
    let third = DataTrackInfo {
        pub_handle: 3,
        ..DataTrackInfo::default()
    };
    let state = SyncState {
        publish_data_tracks: vec![one(leg.clone()), one(third)],
        ..SyncState::default()
    };
    hall.ask(11, Asked::SyncState(state));
    assert_eq!(hall.published(11).name, "arm");
    assert_eq!(hall.unpublished(11), [3]);
    assert_eq!(hall.last_of(12, "ann").data_tracks.len(), 2);
    // What somebody wants may be in it, too.
    hall.join(4, "dan");
    let state = SyncState {
        data_subscription: Some(subscription([leg.sid.as_str()], true)),
        ..SyncState::default()
    };
    hall.ask(4, Asked::SyncState(state));
    assert_eq!(hall.send(11, &datagram(2, b"x")).len(), 2);
}

/// A handle that was given up and taken again is another track's: who knows the one before is told, and nobody else.
#[test]
fn who_goes_on_hears_which_track_its_handle_is() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.publish(1, named(1, "arm"));
    let before = hall.published(1);
    hall.unpublish(1, 1);
    hall.publish(1, named(1, "leg"));
    let after = hall.published(1);
    for (connection, known, is_told) in [(11, before, true), (12, after.clone(), false)] {
        hall.rooms.closed(hall.now, Connection(connection - 1));
        hall.rooms.closed(hall.now, Connection(1));
        hall.resume(1, connection, "ann");
        let named = PublishDataTrackResponse { info: Some(known) };
        let state = SyncState {
            publish_data_tracks: vec![named],
            ..SyncState::default()
        };
        hall.ask(connection, Asked::SyncState(state));
        let told = hall.told[&connection].iter().filter_map(|told| match told {
            Told::PublishDataTrackResponse(response) => response.info.as_ref(),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        assert_eq!(told, Vec::from_iter(is_told.then_some(&after)));
        assert!(hall.unpublished(connection).is_empty());
    }
}

/// A full reconnect: all is published, and subscribed to, anew.
#[test]
fn who_comes_anew_publishes_other_tracks() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    hall.publish(1, named(1, "arm"));
    let before = hall.published(1);
    hall.subscribe(2, &before.sid, true);
    hall.join(11, "ann");
    assert_eq!(hall.handles(2), Some([].into()));
    hall.publish(11, named(1, "arm"));
    let after = hall.published(11);
    assert_ne!(after.sid, before.sid);
    assert_eq!(
        hall.last_of(2, "ann").data_tracks,
        std::slice::from_ref(&after)
    );
    hall.subscribe(2, &before.sid, true);
    assert!(hall.send(11, &datagram(1, b"x")).is_empty());
    hall.subscribe(2, &after.sid, true);
    assert_eq!(hall.send(11, &datagram(1, b"x")).len(), 1);
    hall.join(12, "ben");
    assert!(hall.send(11, &datagram(1, b"x")).is_empty());
    hall.subscribe(12, &after.sid, true);
    assert_eq!(hall.send(11, &datagram(1, b"x")).len(), 1);
}

#[test]
fn who_asks_for_all_data_gets_what_there_is_and_what_comes() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.publish(1, named(1, "arm"));
    let all = Hello::from_query([("auto_subscribe_data_track", "true")]).unwrap();
    hall.enter(2, permit("ben", &json!({})), all);
    assert_eq!(hall.handles(2).unwrap().len(), 1);
    hall.publish(1, named(2, "leg"));
    let handles = hall.handles(2).unwrap();
    assert_eq!(handles.len(), 2);
    // It hears of a track before it is to get it.
    let is_known = |told: &Told| match told {
        Told::Update(update) => update.participants.iter().any(|p| p.data_tracks.len() == 2),
        _ => false,
    };
    let is_handle = |told: &Told| match told {
        Told::DataTrackSubscriberHandles(handles) => handles.sub_handles.len() == 2,
        _ => false,
    };
    let found = places(&hall.told[&2], &[is_known, is_handle]);
    assert!(found[0].is_some() && found.is_sorted(), "{found:?}");
    // Its own, and what nobody is to know of, are none of that.
    hall.publish(2, named(1, "own"));
    let hello = Hello::from_query([]).unwrap();
    hall.enter(3, permit("spy", &json!({"hidden": true})), hello);
    hall.publish(3, named(1, "hidden"));
    assert_eq!(hall.handles(2), Some(handles));
}
