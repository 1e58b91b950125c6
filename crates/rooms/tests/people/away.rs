// SPDX-License-Identifier: MPL-2.0

//! Who comes back by another connection.

use sfu_rooms::proto::participant_info::State;
use sfu_rooms::proto::{DisconnectReason, LeaveRequest, ParticipantInfo};

use super::*;

fn packet(sequence: u32) -> Vec<u8> {
    let packet = DataPacket {
        sequence,
        ..DataPacket::default()
    };
    packet.encode_to_vec()
}

/// The participants of the update after `reconnect`.
fn after_reconnect(told: &[Told]) -> (u32, Vec<ParticipantInfo>) {
    let [Told::Reconnect(reconnect), Told::Update(update), ..] = told else {
        panic!("{told:?}");
    };
    (reconnect.last_message_seq, update.participants.clone())
}

#[test]
fn what_is_said_again_after_an_absence_is_heard_once() {
    let mut people = People::new();
    people.join(1, "ann", &json!({})).unwrap();
    people.join(2, "ben", &json!({})).unwrap();
    let ann = people.sids[&1].clone();
    people.close(1);
    // Its channel is there while its WebSocket is away, and may be not for all of it. Some clients number nothing.
    for (reliable, sequence) in [
        (true, 1),
        (true, 2),
        (false, 1),
        (true, 2),
        (true, 1),
        (true, 0),
        (true, 4),
        (false, 1),
        (true, 0),
        (true, 3),
    ] {
        let packet = packet(sequence);
        people
            .rooms
            .data(people.now, ann.as_str(), reliable, &packet);
    }
    people.settle();
    let heard: Vec<_> = people.data.drain(..).map(|(_, p)| p.sequence).collect();
    assert_eq!(heard, [1, 2, 1, 0, 4, 1, 0]);
    people.resume(1, 3, "ann");
    let (last, _) = after_reconnect(&people.told(3));
    assert_eq!(last, 4, "what comes after that is to be said again");
    for sequence in [4, 5, 6] {
        let packet = packet(sequence);
        people.rooms.data(people.now, ann.as_str(), true, &packet);
    }
    people.settle();
    let heard: Vec<_> = people.data.drain(..).map(|(_, p)| p.sequence).collect();
    assert_eq!(heard, [5, 6]);
    people.close(3);
    people.resume(3, 4, "ann");
    assert_eq!(after_reconnect(&people.told(4)).0, 6);
}

#[test]
fn what_somebody_may_not_say_is_not_said_again_either() {
    let mut people = People::new();
    let silent = json!({ "video": { "canPublishData": false } });
    people.join(1, "ann", &silent).unwrap();
    people.join(2, "ben", &json!({})).unwrap();
    let ann = people.sids[&1].clone();
    people
        .rooms
        .data(people.now, ann.as_str(), true, &packet(7));
    people.resume(1, 3, "ann");
    assert!(people.data.is_empty());
    assert_eq!(after_reconnect(&people.told(3)).0, 7);
}

#[test]
fn who_left_meanwhile_is_named_to_who_comes_back() {
    for is_seen in [true, false] {
        let mut people = People::new();
        let hidden = json!({ "video": { "hidden": true } });
        for (n, identity) in [(1, "ann"), (2, "ben"), (3, "cyd"), (4, "dan"), (5, "eve")] {
            people.join(n, identity, &json!({})).unwrap();
        }
        people.join(6, "hid", &hidden).unwrap();
        let leave = || Asked::Leave(LeaveRequest::default());
        let second = Duration::from_secs(1);
        // Of this one it was told.
        people.ask(5, leave());
        people.run_for(second);
        people.ask(1, Asked::Ping(1));
        if is_seen {
            people.close(1);
        }
        people.run_for(second);
        let body = json!({ "room": "r", "identity": "ben" });
        people.call("RemoveParticipant", &body).unwrap();
        people.ask(6, leave());
        // This one is there again.
        people.ask(3, leave());
        people.run_for(second);
        people.join(7, "cyd", &json!({})).unwrap();
        people.run_for(5 * second);
        people.resume(1, 8, "ann");
        let (_, told) = after_reconnect(&people.told(8));
        let left = told
            .iter()
            .position(|p| p.state() == State::Disconnected)
            .unwrap();
        assert_eq!(left, 0, "before who has come since");
        let who = |p: &ParticipantInfo| (p.identity.clone(), p.state(), p.disconnect_reason());
        let mut all: Vec<_> = told.iter().map(who).collect();
        all.sort();
        let there = |who: &str| {
            let reason = DisconnectReason::UnknownReason;
            (who.to_owned(), State::Active, reason)
        };
        let removed = DisconnectReason::ParticipantRemoved;
        let ben = ("ben".to_owned(), State::Disconnected, removed);
        let is = [there("ann"), ben, there("cyd"), there("dan")];
        assert_eq!(all, is, "seen: {is_seen}");
        assert_eq!(told[0].sid, String::from(&people.sids[&2]));
        // It is told once.
        people.run_for(5 * second);
        people.ask(8, Asked::Ping(1));
        people.run_for(second);
        people.resume(8, 9, "ann");
        let (_, told) = after_reconnect(&people.told(9));
        assert!(told.iter().all(|p| p.state() == State::Active), "{told:?}");
    }
}

#[test]
fn an_application_is_told_that_somebody_has_left_and_why() {
    let mut people = People::new();
    for (n, identity) in [(1, "ann"), (2, "ben"), (3, "cyd"), (4, "dan")] {
        people.join(n, identity, &json!({})).unwrap();
    }
    people.ask(1, Asked::Leave(LeaveRequest::default()));
    let body = json!({ "room": "r", "identity": "ben" });
    people.call("RemoveParticipant", &body).unwrap();
    people.join(5, "cyd", &json!({})).unwrap();
    people.close(4);
    people.ask(5, Asked::Ping(1));
    people.run_for(Duration::from_secs(21));
    let left = people
        .events
        .iter()
        .filter(|e| e.event == "participant_left");
    let left = left.map(|e| e.participant.clone().unwrap());
    let left: Vec<_> = left
        .map(|p| (p.identity.clone(), p.state(), p.disconnect_reason()))
        .collect();
    let is = [
        ("ann", DisconnectReason::ClientInitiated),
        ("ben", DisconnectReason::ParticipantRemoved),
        ("cyd", DisconnectReason::DuplicateIdentity),
        ("dan", DisconnectReason::SignalClose),
    ];
    let is = is.map(|(who, why)| (who.to_owned(), State::Disconnected, why));
    assert_eq!(left, is);
}
