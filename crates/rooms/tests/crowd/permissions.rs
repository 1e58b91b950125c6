// SPDX-License-Identifier: MPL-2.0

//! What is taken away from participants and given again, by publishers and by applications.

use std::time::Duration;

use serde_json::json;
use sfu_rooms::proto::signal_request::Message as Asked;
use sfu_rooms::proto::{SubscriptionPermission, UpdateSubscription};
use sfu_rooms::{Call, Form, Limits, VideoGrants};

use super::Crowd;

fn take(sid: &str, subscribe: bool) -> Asked {
    Asked::Subscription(UpdateSubscription {
        track_sids: vec![sid.to_owned()],
        subscribe,
        ..UpdateSubscription::default()
    })
}

/// Whether a client is offered anything.
fn has(crowd: &Crowd, connection: u64) -> bool {
    let offered = crowd.offered.get(&crowd.sids[&connection]);
    offered.is_some_and(|all| all.iter().any(Option::is_some))
}

/// An application lets somebody subscribe, or not.
fn let_subscribe(crowd: &mut Crowd, identity: &str, may: bool) {
    let permission = json!({"canPublish": true, "canSubscribe": may});
    let body = json!({"room": "r", "identity": identity, "permission": permission});
    let call = Call {
        method: "UpdateParticipant".into(),
        form: Form::Json,
        body: body.to_string().into_bytes(),
        grants: VideoGrants {
            room: "r".into(),
            room_admin: true,
            ..VideoGrants::default()
        },
    };
    crowd.rooms.serve(crowd.now, &call).unwrap();
    crowd.settle();
    crowd.run_for(Duration::from_secs(2));
}

#[test]
fn what_a_publisher_allows_again_changes_nothing_and_what_it_allows_anew_is_told() {
    let mut crowd = Crowd::new(Limits::default());
    assert!(crowd.join(1, "ann"));
    // Who gets all, who has given it up, who wants nothing by itself, and who has taken it.
    for (connection, auto) in [(2, "1"), (3, "1"), (4, "0"), (5, "0")] {
        let identity = format!("p{connection}");
        assert!(crowd.join_with(connection, &identity, &[("auto_subscribe", auto)]));
    }
    crowd.publish(1, &["a"], &["a"]);
    let sid = crowd.track(1).sid;
    let take = |subscribe| take(&sid, subscribe);
    crowd.ask(3, take(false));
    crowd.ask(5, take(true));
    crowd.run_for(Duration::from_secs(2));
    let has = |crowd: &Crowd| [2, 3, 4, 5].map(|n| has(crowd, n));
    let told = |crowd: &mut Crowd| [2, 3, 4, 5].map(|n| crowd.take_permissions(n));
    assert_eq!(has(&crowd), [true, false, false, true]);
    told(&mut crowd);
    let allow = |all_participants| {
        Asked::SubscriptionPermission(SubscriptionPermission {
            all_participants,
            ..SubscriptionPermission::default()
        })
    };
    let nothing: [Vec<bool>; 4] = Default::default();
    // As clients do whenever they come back.
    crowd.ask(1, allow(true));
    crowd.run_for(Duration::from_secs(2));
    assert_eq!(
        (has(&crowd), told(&mut crowd)),
        ([true, false, false, true], nothing.clone())
    );
    crowd.ask(1, allow(false));
    crowd.run_for(Duration::from_secs(2));
    assert_eq!(has(&crowd), [false; 4]);
    assert_eq!(told(&mut crowd), [vec![false], vec![], vec![], vec![false]]);
    crowd.ask(1, allow(false));
    crowd.run_for(Duration::from_secs(2));
    assert_eq!((has(&crowd), told(&mut crowd)), ([false; 4], nothing));
    crowd.ask(1, allow(true));
    crowd.run_for(Duration::from_secs(2));
    // Who takes what there is or had taken it has it again, who has given it up does not; all know that they may.
    assert_eq!(has(&crowd), [true, false, false, true]);
    assert_eq!(told(&mut crowd), [[true]; 4].map(Vec::from));
}

#[test]
fn who_may_subscribe_again_has_what_it_wanted_before_or_asked_for_meanwhile() {
    // By itself or not, what it asks for before and while it may not, and whether it has the track then.
    for (auto, before, meanwhile, then) in [
        ("1", None, None, true),
        ("1", Some(false), None, false),
        ("1", Some(false), Some(true), true),
        ("1", None, Some(false), false),
        ("0", None, None, false),
        ("0", Some(true), None, true),
        ("0", None, Some(true), true),
        ("0", Some(true), Some(false), false),
    ] {
        let mut crowd = Crowd::new(Limits::default());
        assert!(crowd.join(1, "ann"));
        assert!(crowd.join_with(2, "ben", &[("auto_subscribe", auto)]));
        crowd.publish(1, &["a"], &["a"]);
        let sid = crowd.track(1).sid;
        let mut ask = |crowd: &mut Crowd, asked: Option<bool>| {
            if let Some(subscribe) = asked {
                crowd.ask(2, take(&sid, subscribe));
            }
            crowd.run_for(Duration::from_secs(2));
        };
        ask(&mut crowd, before);
        assert_eq!(has(&crowd, 2), before.unwrap_or(auto == "1"));
        let_subscribe(&mut crowd, "ben", false);
        ask(&mut crowd, meanwhile);
        assert!(!has(&crowd, 2), "{auto} {before:?} {meanwhile:?}");
        let_subscribe(&mut crowd, "ben", true);
        assert_eq!(has(&crowd, 2), then, "{auto} {before:?} {meanwhile:?}");
    }
}
