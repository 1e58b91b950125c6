// SPDX-License-Identifier: MPL-2.0

//! Writes an answer (RFC 9429, section 5.3): the offer's m-lines in its order, under its names and numbers.

use std::fmt::Write as _;

use is::{Candidate, IceCreds};

use super::super::uplink::agreed::Feedback;
use super::choice::{Accepted, Chosen, Plan};
use super::extension::Extension;
use super::format::Format;
use super::media::Media;
use super::offer::Offer;
use super::session::Origin;
use super::simulcast::Layer;
use crate::codec::TrackKind;
use crate::peer::data::{MESSAGE_MAX, PORT};

/// Room for a usual answer.
const ROOM: usize = 6 * 1024;

/// What of ours is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local<'l> {
    pub(super) origin: Origin,
    pub(super) credentials: &'l IceCreds,
    /// Of our certificate, as `sha-256 0A:FF:…`.
    pub(super) fingerprint: &'l str,
    pub(super) candidates: &'l [Candidate],
    /// Who begins the DTLS handshake, as we say it.
    pub(super) setup: &'static str,
}

/// What is sent on an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent<'l> {
    pub(super) ssrc: u32,
    pub(super) rtx: Option<u32>,
    /// What it carries: a stream's name and a track's, where that is not the one stream.
    pub(super) msid: Option<&'l str>,
}

/// All that is sent: one stream, so that it plays in sync.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream<'l> {
    /// Its name, and that of all its sources (CNAME, RFC 8834, section 4.9).
    pub(super) name: &'l str,
    /// For each m-line.
    pub(super) sent: &'l [Option<Sent<'l>>],
}

impl Stream<'_> {
    /// Nothing is sent.
    pub(super) const NONE: Self = Self {
        name: "",
        sent: &[],
    };
}

/// See the module's description.
pub(super) fn write(
    offer: &Offer<'_>,
    plan: &Plan<'_, '_>,
    local: Local<'_>,
    stream: Stream<'_>,
) -> String {
    let mut out = String::with_capacity(ROOM);
    let Origin { id, version } = local.origin;
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "v=0\r\no=- {id} {version} IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n"
    );
    if let Some(group) = plan.group.as_ref().filter(|g| !g.is_empty()) {
        out.extend(["a=group:BUNDLE ", &group.join(" "), "\r\n"]);
    }
    if plan.mixed {
        out.push_str("a=extmap-allow-mixed\r\n");
    }
    if stream.sent.iter().any(Option::is_some) {
        out.extend(["a=msid-semantic: WMS ", stream.name, "\r\n"]);
    }
    if !offer.is_lite {
        // Of two lite agents none would check.
        out.push_str("a=ice-lite\r\n");
    }
    let tagged = plan.group.as_ref().and_then(|group| group.first().copied());
    let mut all = offer.medias.iter().enumerate();
    let is_tagged = |media: &Media<'_>| tagged.is_none_or(|mid| media.mid == Some(mid));
    let first = all.position(|(n, media)| !plan.rejects(n) && is_tagged(media));
    for (n, (media, line)) in offer.medias.iter().zip(&plan.lines).enumerate() {
        if plan.data == Some(n) {
            write_data(&mut out, media, local, Some(n) == first);
            continue;
        }
        let Some(line) = line else {
            let words = if media.words.is_empty() {
                "0"
            } else {
                media.words
            };
            out.extend(["m=", media.name, " 0 ", media.protocol, " ", words, "\r\n"]);
            out.push_str("c=IN IP4 0.0.0.0\r\n");
            write_mid(&mut out, media.mid);
            out.push_str("a=inactive\r\n");
            continue;
        };
        write_line(&mut out, line, local, Some(n) == first);
        if line.media.mixed && !plan.mixed {
            out.push_str("a=extmap-allow-mixed\r\n");
        }
        if let Some(Some(sent)) = stream.sent.get(n) {
            write_sent(&mut out, stream.name, line.kind, *sent);
        }
    }
    out
}

fn write_mid(out: &mut String, mid: Option<&str>) {
    if let Some(mid) = mid {
        out.extend(["a=mid:", mid, "\r\n"]);
    }
}

fn write_line(out: &mut String, line: &Accepted<'_, '_>, local: Local<'_>, is_tagged: bool) {
    let media = line.media;
    out.extend(["m=", media.name, " 9 ", media.protocol]);
    // What stands first is what browsers send: sound with redundancy.
    let red = line.formats.iter().filter_map(|chosen| chosen.red);
    let red = red.filter(|_| line.direction.receives()).map(|red| red.pt);
    let red: Vec<_> = red.collect();
    let all = line.formats.iter().flat_map(Chosen::payload_types);
    let others = all.filter(|pt| !red.contains(pt));
    for pt in red.iter().copied().chain(others) {
        let _ = write!(out, " {pt}");
    }
    out.push_str("\r\n");
    write_transport(out, media.mid, local, is_tagged);
    for (extension, mapped) in line.extensions.iter() {
        let _ = write!(out, "a=extmap:{}", mapped.id);
        if let Some(direction) = mapped.direction {
            out.extend(["/", direction.mirrored().as_str()]);
        }
        out.extend([" ", extension.uri(), "\r\n"]);
    }
    out.extend(["a=", line.direction.as_str(), "\r\na=rtcp-mux\r\n"]);
    if media.reduced_rtcp {
        out.push_str("a=rtcp-rsize\r\n");
    }
    for chosen in &line.formats {
        write_format(out, chosen);
    }
    write_layers(out, line);
}

/// Data channels (RFC 8841, section 10.1).
fn write_data(out: &mut String, media: &Media<'_>, local: Local<'_>, is_tagged: bool) {
    out.extend([
        "m=",
        media.name,
        " 9 ",
        media.protocol,
        " webrtc-datachannel\r\n",
    ]);
    write_transport(out, media.mid, local, is_tagged);
    let _ = write!(
        out,
        "a=sctp-port:{PORT}\r\na=max-message-size:{MESSAGE_MAX}\r\n"
    );
}

/// How the peer finds and knows us, of an m-line.
fn write_transport(out: &mut String, mid: Option<&str>, local: Local<'_>, is_tagged: bool) {
    out.push_str("c=IN IP4 0.0.0.0\r\n");
    if is_tagged {
        for candidate in local.candidates {
            out.extend(["a=", &candidate.to_sdp_string(), "\r\n"]);
        }
        out.push_str("a=end-of-candidates\r\n");
    }
    let IceCreds { ufrag, pass } = local.credentials;
    let _ = write!(
        out,
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pass}\r\na=ice-options:trickle\r\na=fingerprint:{}\r\na=setup:{}\r\n",
        local.fingerprint, local.setup
    );
    write_mid(out, mid);
}

fn write_format(out: &mut String, chosen: &Chosen<'_, '_>) {
    let Format { pt, map, .. } = chosen.format;
    let _ = write!(out, "a=rtpmap:{pt} {map}\r\n");
    let Feedback {
        nack,
        pli,
        fir,
        twcc,
        remb,
    } = chosen.feedback;
    for (has, feedback) in [
        (twcc, "transport-cc"),
        (remb, "goog-remb"),
        (fir, "ccm fir"),
        (nack, "nack"),
        (pli, "nack pli"),
    ] {
        if has {
            let _ = write!(out, "a=rtcp-fb:{pt} {feedback}\r\n");
        }
    }
    let parameters = chosen.format.answered_parameters(chosen.codec);
    if !parameters.is_empty() {
        let _ = write!(out, "a=fmtp:{pt} {parameters}\r\n");
    }
    if let Some(red) = chosen.red {
        let _ = write!(
            out,
            "a=rtpmap:{0} {1}\r\na=fmtp:{0} {pt}/{pt}\r\n",
            red.pt, red.map
        );
    }
    if let Some(rtx) = chosen.rtx {
        let _ = write!(
            out,
            "a=rtpmap:{0} {1}\r\na=fmtp:{0} apt={pt}\r\n",
            rtx.pt, rtx.map
        );
    }
}

/// The simulcast layers that are received.
fn write_layers(out: &mut String, line: &Accepted<'_, '_>) {
    if line.layers.is_empty() || line.extensions.id(Extension::Rid).is_none() {
        return;
    }
    for layer in &line.layers {
        let restrictions = layer.answered_restrictions(|pt| line.has(pt));
        let separator = if restrictions.is_empty() { "" } else { " " };
        out.extend([
            "a=rid:",
            layer.rid,
            " recv",
            separator,
            &restrictions,
            "\r\n",
        ]);
    }
    let names: Vec<_> = line.layers.iter().map(Layer::answered_name).collect();
    out.extend(["a=simulcast:recv ", &names.join(";"), "\r\n"]);
}

fn write_sent(out: &mut String, stream: &str, kind: TrackKind, sent: Sent<'_>) {
    let msid = match sent.msid {
        Some(msid) => msid.to_owned(),
        None => format!("{stream} {stream}-{}", kind.name()),
    };
    let _ = write!(out, "a=msid:{msid}\r\n");
    if let Some(rtx) = sent.rtx {
        let _ = write!(out, "a=ssrc-group:FID {} {rtx}\r\n", sent.ssrc);
    }
    for ssrc in [Some(sent.ssrc), sent.rtx].into_iter().flatten() {
        let _ = write!(
            out,
            "a=ssrc:{ssrc} cname:{stream}\r\na=ssrc:{ssrc} msid:{msid}\r\n"
        );
    }
}
