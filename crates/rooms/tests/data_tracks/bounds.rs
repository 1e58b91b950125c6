// SPDX-License-Identifier: MPL-2.0

//! What data tracks of one may cost others.

use std::time::{Duration, Instant};

use serde_json::json;
use sfu_rooms::proto::request_response::Reason;
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::signal_response::Message as Told;
use sfu_rooms::proto::{
    DataTrackInfo, Ping, PublishDataTrackResponse, SyncState, UpdateParticipantMetadata,
};
use sfu_rooms::{Connection, Hello, Limits};

use super::hall::{Hall, datagram, named, permit, subscription};

#[test]
fn tracks_and_subscriptions_of_a_participant_are_bounded() {
    let limits = Limits {
        data_subscriptions: 3,
        ..Limits::default()
    };
    let mut hall = Hall::new(limits);
    hall.join(1, "ann");
    hall.join(2, "ben");
    let mut sids = Vec::new();
    for handle in 1..=40 {
        hall.publish(1, named(handle, &handle.to_string()));
        sids.push(hall.published(1).sid);
    }
    let refused = hall.refusals(1);
    assert_eq!(
        refused,
        vec![Reason::LimitExceeded; 40 - limits.data_tracks]
    );
    let known = hall.last_of(2, "ann").data_tracks;
    assert_eq!(known.len(), limits.data_tracks);
    // What goes makes room.
    hall.unpublish(1, 1);
    hall.publish(1, named(50, "new"));
    assert_eq!(hall.published(1).pub_handle, 50);
    let asked = |from: usize| {
        let tracks = sids[from..].iter().map(String::as_str);
        Asked::UpdateDataSubscription(subscription(tracks, true))
    };
    for from in [1, 4, 7] {
        hall.ask(2, asked(from));
    }
    assert_eq!(hall.handles(2).unwrap().len(), 3);
    // A message with all of them has one answer.
    let handles = hall.told[&2].iter();
    let handles = handles.filter(|told| matches!(told, Told::DataTrackSubscriberHandles(_)));
    assert_eq!(handles.count(), 1);
    hall.subscribe(2, &sids[1], false);
    hall.subscribe(2, &sids[9], true);
    assert!(hall.handles(2).unwrap().values().any(|sid| *sid == sids[9]));
}

#[test]
fn datagrams_have_a_largest_size() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    hall.publish(1, named(1, "arm"));
    let sid = hall.published(1).sid;
    hall.subscribe(2, &sid, true);
    let most = Limits::default().datagram;
    // The last two are what clients make of large frames, and too much.
    for (octets, sent) in [(0, 1), (15_988, 1), (most - 12, 1), (most - 11, 0)] {
        let sent_to = hall.send(1, &datagram(1, &vec![0; octets]));
        assert_eq!(sent_to.len(), sent, "{octets}");
    }
    for length in 0..12 {
        let short = &datagram(1, b"")[..length];
        assert!(hall.send(1, short).is_empty(), "{length}");
    }
}

/// Its place is kept for 20 s for who comes back, not for as long as it sends.
#[test]
fn who_is_away_is_gone_in_time_whatever_it_sends() {
    let mut hall = Hall::new(Limits::default());
    hall.join(1, "ann");
    hall.join(2, "ben");
    hall.publish(1, named(1, "arm"));
    let sid = hall.published(1).sid;
    hall.subscribe(2, &sid, true);
    hall.rooms.closed(hall.now, Connection(1));
    let ping = || {
        Asked::PingReq(Ping {
            timestamp: 1,
            ..Ping::default()
        })
    };
    for n in 0..25 {
        hall.run_for(Duration::from_secs(1));
        let is_there = n < 19;
        assert_eq!(
            hall.send(1, &datagram(1, b"x")).len(),
            usize::from(is_there),
            "{n}"
        );
        let ann = hall.sids[&1].clone();
        hall.rooms.data(hall.now, ann.as_str(), true, b"");
        hall.ask(2, ping());
    }
    // Who is connected is there as long as it sends, though it says nothing else.
    hall.publish(2, named(1, "leg"));
    for _ in 0..25 {
        hall.run_for(Duration::from_secs(1));
        hall.send(2, &datagram(1, b"x"));
    }
    hall.publish(2, named(2, "toe"));
    assert_eq!(hall.published(2).name, "toe");
}

/// Who joins is told all names of a room: they count as metadata does.
#[test]
fn names_of_all_of_a_room_are_bounded_together() {
    let limits = Limits {
        texts: 4_096,
        ..Limits::default()
    };
    let mut hall = Hall::new(limits);
    hall.join(1, "ann");
    hall.join(2, "ben");
    let long = |n: u32| format!("{n:0256}");
    for n in 1..=10 {
        hall.publish(1, named(n, &long(n)));
        hall.publish(2, named(n, &long(n)));
    }
    let names = [("ann", 2), ("ben", 1)].map(|(whose, to)| {
        let tracks = hall.last_of(to, whose).data_tracks;
        tracks.iter().map(|track| track.name.len()).sum::<usize>()
    });
    assert_eq!(names, [2_048, 2_048]);
    assert_eq!(hall.refusals(1), [Reason::LimitExceeded; 2]);
    // One octet more of anything is too much, until a name goes.
    let update = |metadata: &str| {
        Asked::UpdateMetadata(UpdateParticipantMetadata {
            metadata: metadata.into(),
            ..UpdateParticipantMetadata::default()
        })
    };
    hall.ask(1, update("x"));
    assert_eq!(hall.refusals(1), [Reason::LimitExceeded; 3]);
    hall.unpublish(2, 1);
    hall.ask(1, update("x"));
    assert_eq!(hall.last_of(2, "ann").metadata, "x");
}

#[test]
fn messages_that_name_much_cost_little() {
    let mut hall = Hall::new(Limits::default());
    for n in 0..300 {
        hall.join(n, &format!("p{n}"));
        for handle in 1..=4 {
            hall.publish(n, named(handle, &handle.to_string()));
        }
    }
    hall.run_for(Duration::from_secs(5));
    hall.told.clear();
    let sids: Vec<_> = (0..20_000).map(|n| format!("{n:04x}")).collect();
    let sids = || sids.iter().map(String::as_str);
    let one = |pub_handle: u32| PublishDataTrackResponse {
        info: Some(DataTrackInfo {
            pub_handle,
            ..DataTrackInfo::default()
        }),
    };
    let state = SyncState {
        publish_data_tracks: (100..20_000).map(one).collect(),
        data_subscription: Some(subscription(sids(), true)),
        ..SyncState::default()
    };
    let began = Instant::now();
    for _ in 0..20 {
        for subscribe in [true, false] {
            let asked = subscription(sids(), subscribe);
            hall.ask(0, Asked::UpdateDataSubscription(asked));
        }
        hall.ask(0, Asked::SyncState(state.clone()));
    }
    // What names more than there may be is not gone through.
    assert!(began.elapsed() < Duration::from_secs(20));
    let told = hall.told[&0].len();
    let most = 20 * (4 + Limits::default().data_tracks);
    assert!(told <= most, "{told}");
    assert_eq!(hall.told.len(), 1, "nobody else is told of it");
}

/// Octets of what all were told of data tracks since the last look.
fn weigh(hall: &mut Hall) -> usize {
    let size = |told: &Told| match told {
        Told::Update(update) => prost::Message::encoded_len(update),
        Told::DataTrackSubscriberHandles(handles) => prost::Message::encoded_len(handles),
        _ => 0,
    };
    let told = std::mem::take(&mut hall.told);
    told.values().flatten().map(size).sum()
}

/// Each change of one's tracks is told to all who get them, with all handles that they have: many become few messages, and the
/// last one is told.
#[test]
fn tracks_that_come_and_go_all_the_time_become_few_messages() {
    const PEOPLE: u64 = 20;
    let mut hall = Hall::new(Limits::default());
    for n in 0..PEOPLE {
        let all = Hello::from_query([("auto_subscribe_data_track", "1")]).unwrap();
        hall.enter(n, permit(&format!("p{n}"), &json!({})), all);
        for handle in 1..=20 {
            hall.publish(n, named(handle, &handle.to_string()));
        }
        hall.run_for(Duration::from_secs(2));
        (0..=n).for_each(|n| hall.ask(n, Asked::Ping(0)));
        weigh(&mut hall);
    }
    hall.run_for(Duration::from_secs(5));
    weigh(&mut hall);
    let mut octets = 0;
    for n in 0..200 {
        octets += weigh(&mut hall);
        hall.unpublish(0, 1 + n % 20);
        hall.publish(0, named(1 + n % 20, &format!("new {n}")));
        hall.run_for(Duration::from_millis(2));
    }
    (0..PEOPLE).for_each(|n| hall.ask(n, Asked::Ping(0)));
    hall.run_for(Duration::from_secs(5));
    let handles: Vec<_> = (1..PEOPLE).map(|n| hall.handles(n).unwrap()).collect();
    let known = hall.last_of(1, "p0").data_tracks;
    octets += weigh(&mut hall);
    println!("{octets} octets");
    // What a second and a half have room for, of which one is at once; 70 MB are told, and by reckoning 140 where each change is.
    assert!(octets < 90_000_000, "{octets}");
    let newest = known.iter().find(|track| track.name == "new 199").unwrap();
    for handles in handles {
        assert_eq!(handles.len() as u64, 20 * (PEOPLE - 1));
        assert!(handles.values().any(|sid| *sid == newest.sid));
    }
}
