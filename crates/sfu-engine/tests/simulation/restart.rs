// SPDX-License-Identifier: MPL-2.0

//! An ICE restart on the client's side (RFC 8840): only fragments travel, the rest of the SDPs stays.

use str0m::Rtc;
use str0m::change::SdpPendingOffer;

/// Begins one. Returns the fragment for the server.
pub(crate) fn begin(rtc: &mut Rtc) -> (String, SdpPendingOffer) {
    let mut api = rtc.sdp_api();
    api.ice_restart(true);
    let (offer, pending) = api.apply().unwrap();
    let offer = offer.to_sdp_string();
    let wanted = |l: &&str| l.starts_with("a=ice-ufrag:") || l.starts_with("a=ice-pwd:");
    let lines = offer.lines().filter(wanted).take(2);
    (lines.map(|l| format!("{l}\r\n")).collect(), pending)
}

/// The first answer with the credentials of the server's fragment.
pub(crate) fn renewed(answer: &str, fragment: &str) -> String {
    let line = |key: &str| fragment.lines().find(|l| l.starts_with(key)).unwrap();
    let (ufrag, pwd) = (line("a=ice-ufrag:"), line("a=ice-pwd:"));
    let renewed = |l: &str| match l {
        l if l.starts_with("a=ice-ufrag:") => format!("{ufrag}\r\n"),
        l if l.starts_with("a=ice-pwd:") => format!("{pwd}\r\n"),
        l => format!("{l}\r\n"),
    };
    answer.lines().map(renewed).collect()
}
