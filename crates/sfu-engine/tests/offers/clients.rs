// SPDX-License-Identifier: MPL-2.0

//! Offers as browsers, encoders and libraries make them: each is taken whole, as a viewer's and as a publisher's.

use crate::{Expect, Kind, expect};

/// File names and texts of a folder's offers.
macro_rules! clients {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("clients/", $name, ".sdp")))),*]
    };
}

const CLIENTS: &[(&str, &str)] = clients![
    "aiortc-sendrecv.whip",
    "aiortc.whep",
    "aiortc.whip",
    "android-chrome.whep",
    "android-chrome.whip",
    "chromium-datachannel.whep",
    "chromium-gathered.whep",
    "chromium-munged.whip",
    "chromium-simulcast.whip",
    "chromium.whep",
    "chromium.whip",
    "ffmpeg-7.whip",
    "ffmpeg-8.whip",
    "ffmpeg-active.whip",
    "firefox.whep",
    "firefox.whip",
    "janus.whep",
    "larix.whip",
    "libdatachannel.whep",
    "libdatachannel.whip",
    "obs-30-av1.whip",
    "obs-30-hevc.whip",
    "obs-30.whip",
    "obs-31-simulcast.whip",
    "pion.whep",
    "pion.whip",
    "safari-ios.whep",
    "safari-ios.whip",
    "safari-macos.whep",
    "safari-macos.whip",
    "webrtc-rs.whep",
    "webrtc-rs.whip",
    "webrtcbin-1.22-balanced.whep",
    "webrtcbin-1.22-balanced.whip",
    "webrtcbin-balanced.whep",
    "webrtcbin-balanced.whip",
    "webrtcbin-max-bundle.whep",
    "webrtcbin-max-bundle.whip",
    "webrtcbin-max-compat.whep",
    "webrtcbin-max-compat.whip",
    "webrtcbin-none.whep",
    "webrtcbin-none.whip",
    "werift.whep",
    "werift.whip",
    "whipclientsink.whip",
];

/// Those that offer a transport for each m-line, which no session has: a viewer gets one of them.
const APART: [&str; 4] = [
    "webrtcbin-none.whip",
    "webrtcbin-none.whep",
    "webrtcbin-1.22-balanced.whip",
    "webrtcbin-1.22-balanced.whep",
];

/// All texts, with lines that end with `\n`.
pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
    CLIENTS.iter().map(|(_, text)| *text)
}

#[test]
fn every_client_is_taken() {
    for (name, offer) in CLIENTS {
        let kind = match name.ends_with(".whip") {
            true => Kind::Whip,
            false => Kind::Whep,
        };
        let expected = match (APART.contains(name), kind) {
            (true, Kind::Whip) => Expect::Refuse,
            (true, Kind::Whep) => Expect::Either,
            _ => Expect::Accept,
        };
        for end in ["\n", "\r\n"] {
            expect(kind, name, &offer.replace('\n', end), expected);
        }
    }
}
