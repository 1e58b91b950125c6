// SPDX-License-Identifier: MPL-2.0

//! Who has one connection for all (v1) meets others who have, and one who has two (v0).

use sfu_rooms::proto::TrackSource;

use super::guest::{Guest, until};
use super::{Served, is_active, tracks};

/// The tracks that its last answer names.
fn named(guest: &Guest<'_>) -> usize {
    let last = guest.all("answer").pop().unwrap();
    last["midToTrackId"]
        .as_object()
        .map_or(0, serde_json::Map::len)
}

fn has(data: &[(String, Vec<u8>)], text: &str) -> bool {
    data.iter().any(|(_, packet)| {
        let mut windows = packet.windows(text.len());
        windows.any(|window| window == text.as_bytes())
    })
}

#[test]
fn all_hear_each_other_whatever_they_connect_by() {
    let served = Served::new("single");
    let mut ann = Guest::join_single(&served.host, "ann").unwrap();
    until([&mut ann], "ann to be active", |[ann]| {
        is_active(ann, "ann") && ann.publisher.connected && ann.is_calm()
    });
    let places = ["join", "refreshToken", "answer"].map(|kind| {
        let is_it = |message: &serde_json::Value| message.get(kind).is_some();
        ann.told.iter().position(is_it)
    });
    assert!(places.is_sorted() && places[0] == Some(0), "{places:?}");
    ann.publish("voice", TrackSource::Microphone);
    until([&mut ann], "ann's stream", |_| {
        served.streams() == ["meeting/ann"]
    });
    // The first answer has what there is.
    let mut ben = Guest::join_single(&served.host, "ben").unwrap();
    until([&mut ann, &mut ben], "ben to hear ann", |[ann, ben]| {
        ben.heard(ann) > 20 && ben.is_calm()
    });
    let first = ben.all("answer")[0].clone();
    assert_eq!(
        first["midToTrackId"].as_object().map(serde_json::Map::len),
        Some(1),
        "{first}"
    );
    assert!(ben.all("mediaSectionsRequirement").is_empty());
    let mut cleo = Guest::join(&served.host, "cleo").unwrap();
    cleo.open_channels();
    ben.publish("his", TrackSource::Microphone);
    until(
        [&mut ann, &mut ben, &mut cleo],
        "all to hear ben",
        |[ann, ben, cleo]| ann.heard(ben) > 20 && cleo.heard(ben) > 20 && cleo.heard(ann) > 20,
    );
    assert!(!ann.all("mediaSectionsRequirement").is_empty());
    assert_eq!(served.engine.sessions(), 4, "one each, and two");
    // Data, both ways between them.
    until(
        [&mut ann, &mut ben, &mut cleo],
        "ann's data",
        |[ann, ben, cleo]| {
            ann.send("from ann");
            has(&ben.publisher.data, "from ann") && has(&cleo.subscriber.data, "from ann")
        },
    );
    until(
        [&mut ann, &mut ben, &mut cleo],
        "cleo's data",
        |[ann, _, cleo]| {
            cleo.send("from cleo");
            has(&ann.publisher.data, "from cleo") && ann.is_calm()
        },
    );
    // More than ben has m-lines for.
    ann.publish("screen", TrackSource::ScreenShareAudio);
    cleo.publish("hers", TrackSource::Microphone);
    until(
        [&mut ann, &mut ben, &mut cleo],
        "all that there is",
        |[_, ben, cleo]| named(ben) == 3 && ben.heard(cleo) > 20,
    );
    cleo.publish("cinema", TrackSource::ScreenShareAudio);
    until(
        [&mut ann, &mut ben, &mut cleo],
        "more m-lines",
        |[ann, ben, _]| named(ben) == 4 && ann.is_calm(),
    );
    let required = ben.all("mediaSectionsRequirement");
    assert!(required.iter().any(|r| r["numAudios"] == 1), "{required:?}");
    // One track goes.
    ann.unpublish();
    until(
        [&mut ann, &mut ben, &mut cleo],
        "one less",
        |[_, ben, _]| named(ben) == 3 && tracks(ben.last_of("ann").unwrap()) == 1,
    );
    let before = ben.heard(&ann);
    until(
        [&mut ann, &mut ben, &mut cleo],
        "the rest to go on",
        |[ann, ben, _]| ben.heard(ann) > before + 20,
    );
}
