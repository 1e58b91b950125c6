// SPDX-License-Identifier: MPL-2.0

//! Datagrams of data tracks, over channels of both versions.

use sfu_rooms::proto::signal_request::Message;
use sfu_rooms::proto::{
    PublishDataTrackRequest, UnpublishDataTrackRequest, UpdateDataSubscription,
    update_data_subscription,
};

use super::guest::{Guest, until};
use super::{Served, is_active};

const LABEL: &str = "_data_track";

fn publish(guest: &mut Guest<'_>, pub_handle: u32) {
    guest.say(Message::PublishDataTrackRequest(PublishDataTrackRequest {
        pub_handle,
        name: "arm".into(),
        ..PublishDataTrackRequest::default()
    }));
}

/// The data track that somebody is known to have.
fn track_of(guest: &Guest<'_>, publisher: &str) -> Option<String> {
    let known = guest.last_of(publisher)?["dataTracks"].get(0)?;
    assert_eq!(known["name"], "arm");
    Some(known["sid"].as_str()?.to_owned())
}

fn subscribe(guest: &mut Guest<'_>, publisher: &str) {
    let track_sid = track_of(guest, publisher).unwrap();
    let update = update_data_subscription::Update {
        track_sid,
        subscribe: true,
        options: None,
    };
    guest.say(Message::UpdateDataSubscription(UpdateDataSubscription {
        updates: vec![update],
    }));
}

/// By which handle datagrams of a publisher's come.
fn handle_of(guest: &Guest<'_>, publisher: &str) -> Option<u16> {
    let told = guest.all("dataTrackSubscriberHandles").pop()?;
    let mut all = told["subHandles"].as_object()?.iter();
    let (handle, _) = all.find(|(_, track)| track["publisherIdentity"] == publisher)?;
    handle.parse().ok()
}

fn datagram(handle: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0b0001_1000, 0];
    datagram.extend(handle.to_be_bytes());
    datagram.extend([0; 8]);
    datagram.extend(payload);
    datagram
}

#[test]
fn data_tracks_reach_who_has_subscribed_whatever_they_connect_by() {
    let served = Served::new("data-tracks");
    let mut ann = Guest::join_single(&served.host, "ann").unwrap();
    let mut ben = Guest::join(&served.host, "ben").unwrap();
    let mut cat = Guest::join_single(&served.host, "cat").unwrap();
    let mut dan = Guest::join(&served.host, "dan").unwrap();
    ben.open_channels();
    publish(&mut ann, 700);
    publish(&mut ben, 1);
    let all = [&mut ann, &mut ben, &mut cat, &mut dan];
    until(all, "tracks to be known", |[ann, ben, cat, dan]| {
        let is_known = |guest: &Guest<'_>| {
            track_of(guest, "ann").is_some() && track_of(guest, "ben").is_some()
        };
        is_active(cat, "cat")
            && is_active(dan, "dan")
            && is_known(cat)
            && is_known(dan)
            && track_of(ben, "ann").is_some()
            && track_of(ann, "ben").is_some()
    });
    subscribe(&mut ben, "ann");
    subscribe(&mut cat, "ann");
    subscribe(&mut ann, "ben");
    let all = [&mut ann, &mut ben, &mut cat, &mut dan];
    until(all, "handles", |[ann, ben, cat, _]| {
        let told = [
            handle_of(ann, "ben"),
            handle_of(ben, "ann"),
            handle_of(cat, "ann"),
        ];
        told.iter().all(Option::is_some)
    });
    // A large one, as clients make of frames, comes whole.
    let large = vec![7; 15_900];
    let all = [&mut ann, &mut ben, &mut cat, &mut dan];
    until(all, "datagrams", |[ann, ben, cat, _]| {
        ann.write(LABEL, &datagram(700, b"from ann"));
        ann.write(LABEL, &datagram(700, &large));
        ben.write(LABEL, &datagram(1, b"from ben"));
        let has = |guest: &Guest<'_>, publisher: &str, payload: &[u8]| {
            let expected = datagram(handle_of(guest, publisher).unwrap(), payload);
            guest.came(LABEL).contains(&expected.as_slice())
        };
        has(ben, "ann", b"from ann")
            && has(ben, "ann", &large)
            && has(cat, "ann", b"from ann")
            && has(cat, "ann", &large)
            && has(ann, "ben", b"from ben")
    });
    assert!(dan.came(LABEL).is_empty() && dan.came("_reliable").is_empty());
    assert!(ben.came("_reliable").is_empty());
    let request = UnpublishDataTrackRequest { pub_handle: 700 };
    ann.say(Message::UnpublishDataTrackRequest(request));
    let all = [&mut ann, &mut ben, &mut cat, &mut dan];
    until(all, "the end of it", |[ann, ben, cat, _]| {
        let is_over = |guest: &Guest<'_>| {
            track_of(guest, "ann").is_none() && handle_of(guest, "ann").is_none()
        };
        !ann.all("unpublishDataTrackResponse").is_empty() && is_over(ben) && is_over(cat)
    });
}

/// Whose network takes nothing loses datagrams. Others get theirs, and packets that must not be lost are none the later.
#[test]
fn who_takes_nothing_holds_nobody_up() {
    let served = Served::new("slow-data");
    let mut ann = Guest::join_single(&served.host, "ann").unwrap();
    let mut ben = Guest::join_single(&served.host, "ben").unwrap();
    let mut cat = Guest::join(&served.host, "cat").unwrap();
    publish(&mut ann, 1);
    until(
        [&mut ann, &mut ben, &mut cat],
        "a track",
        |[ann, ben, cat]| {
            track_of(ben, "ann").is_some()
                && track_of(cat, "ann").is_some()
                && is_active(cat, "cat")
                && is_active(ben, "ben")
                && ann.is_calm()
        },
    );
    subscribe(&mut ben, "ann");
    subscribe(&mut cat, "ann");
    until(
        [&mut ann, &mut ben, &mut cat],
        "datagrams",
        |[ann, ben, cat]| {
            ann.write(LABEL, &datagram(1, b"first"));
            !ben.came(LABEL).is_empty() && !cat.came(LABEL).is_empty()
        },
    );
    // Ben takes nothing from here on: some 4 MB are sent to him meanwhile.
    let before = ben.came(LABEL).len();
    let mut written = 0;
    until([&mut ann, &mut cat], "many datagrams", |[ann, _]| {
        for _ in 0..10 {
            written += usize::from(ann.write(LABEL, &datagram(1, &[0; 1_000])));
        }
        written >= 4_000
    });
    assert!(ann.send("after all"));
    until([&mut ann, &mut cat], "a packet after them", |[_, cat]| {
        !cat.came("_reliable").is_empty()
    });
    let came = cat.came(LABEL).len();
    println!("cat: {came} of {written}");
    assert!(came > written / 10, "{came} of {written}");
    until(
        [&mut ann, &mut ben, &mut cat],
        "ben to be back",
        |[ann, ben, _]| {
            ann.write(LABEL, &datagram(1, b"last"));
            ben.came(LABEL)
                .last()
                .is_some_and(|last| last.ends_with(b"last"))
        },
    );
    let came = ben.came(LABEL).len() - before;
    println!("ben: {came} of {written}");
    assert!(came < written / 2, "{came} of {written}");
    assert!(!ben.closed && !cat.closed);
}
