// SPDX-License-Identifier: MPL-2.0

//! Clients that say what they want otherwise than most: sound without redundancy; and what they get when a moderator changes what they may.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use prost::Message as _;
use serde_json::{Value, json};
use sfu_rooms::Hello;
use sfu_rooms::proto::{
    AddTrackRequest, JoinRequest, SessionDescription, TrackSource, TrackType, WrappedJoinRequest,
    encryption, signal_request,
};

use super::guest::{Guest, Leg, until};
use super::{Served, call, is_active};

/// As Chromium offers a microphone, as far as it counts here.
const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef01234567\r\na=setup:actpass\r\n\
    a=fingerprint:sha-256 00:01:02:03:04:05:06:07:08:09:0A:0B:0C:0D:0E:0F:10:11:12:13:14:15:16:17:18:19:1A:1B:1C:1D:1E:1F\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=msid:- mic\r\na=sendonly\r\na=rtcp-mux\r\n\
    a=rtpmap:111 opus/48000/2\r\na=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n\
    a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";

fn offer() -> SessionDescription {
    SessionDescription {
        r#type: "offer".into(),
        sdp: OFFER.into(),
        id: 7,
        ..SessionDescription::default()
    }
}

/// Both by v0 and by v1: what comes first in the answer is what browsers send.
#[test]
fn sound_that_is_encrypted_or_wanted_so_is_answered_without_redundancy() {
    let served = Served::new("plain");
    let none = encryption::Type::None;
    for (disable_red, encryption, line) in [
        (false, none, "m=audio 9 UDP/TLS/RTP/SAVPF 63 111"),
        (true, none, "m=audio 9 UDP/TLS/RTP/SAVPF 111"),
        (
            false,
            encryption::Type::Gcm,
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        ),
        (
            true,
            encryption::Type::Gcm,
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        ),
    ] {
        let add = AddTrackRequest {
            cid: "mic".into(),
            r#type: TrackType::Audio.into(),
            source: TrackSource::Microphone.into(),
            disable_red,
            encryption: encryption.into(),
            ..AddTrackRequest::default()
        };
        for by_v1 in [false, true] {
            let hello = match by_v1 {
                true => by_request(&served, add.clone()),
                false => Hello::default(),
            };
            let mut ann = Guest::enter(&served.host, "ann", hello, Leg::new()).unwrap();
            if !by_v1 {
                ann.say(signal_request::Message::AddTrack(add.clone()));
                ann.say(signal_request::Message::Offer(offer()));
            }
            until([&mut ann], "the answer", |[ann]| {
                !ann.all("answer").is_empty()
            });
            let sdp = ann.all("answer")[0]["sdp"].as_str().unwrap();
            let answered = sdp.lines().find(|l| l.starts_with("m="));
            assert_eq!(answered, Some(line), "{disable_red} {by_v1}");
        }
    }
}

fn by_request(served: &Served, add: AddTrackRequest) -> Hello {
    let request = JoinRequest {
        publisher_offer: Some(offer()),
        add_track_requests: vec![add],
        ..JoinRequest::default()
    };
    let wrapped = WrappedJoinRequest {
        join_request: request.encode_to_vec(),
        ..WrappedJoinRequest::default()
    };
    let text = URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec());
    let query = [("join_request", text.as_str()), ("json", "1")];
    served.host.hello(query).unwrap()
}

#[test]
fn who_reconnects_has_what_a_moderator_left() {
    let served = Served::new("left");
    let mut ann = Guest::join(&served.host, "ann").unwrap();
    ann.open_channels();
    until([&mut ann], "ann to be active", |[ann]| {
        is_active(ann, "ann")
    });
    let before = ann.all("refreshToken").len();
    let body =
        json!({ "room": "meeting", "identity": "ann", "permission": { "canSubscribe": true } });
    call(&served, "UpdateParticipant", &body.to_string()).unwrap();
    until([&mut ann], "another token", |[ann]| {
        ann.all("refreshToken").len() > before
    });
    let all = ann.all("refreshToken");
    let token = all.last().unwrap().as_str().unwrap();
    let claims = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let video = &claims["video"];
    assert_eq!(video["canPublish"], false, "{claims}");
    assert_eq!(video["canPublishData"], false, "{claims}");
    assert_eq!(video["canSubscribe"], true, "{claims}");
    assert_eq!(video["room"], "meeting", "{claims}");
}
