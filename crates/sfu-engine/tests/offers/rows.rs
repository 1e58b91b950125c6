// SPDX-License-Identifier: MPL-2.0

//! Offers with one thing unusual each, as changes of a plain one, and what must come of them.

use crate::Expect::{self, Accept, Either, Refuse, Whole};

/// A plain offer of one video and one audio, in lines that end with `\n`. `sendonly` is as a publisher has it.
pub(crate) const PLAIN: &str = "v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 0.0.0.0
a=ice-ufrag:abcd
a=ice-pwd:0123456789abcdef01234567
a=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
a=setup:actpass
a=mid:0
a=sendonly
a=rtcp-mux
a=rtpmap:96 H264/90000
a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
a=ice-ufrag:abcd
a=ice-pwd:0123456789abcdef01234567
a=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB
a=setup:actpass
a=mid:1
a=sendonly
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
";

/// The video's last line, behind which more may be put.
pub(crate) const VIDEO_END: &str = "a=fmtp:97 apt=96\n";
/// The audio's.
pub(crate) const AUDIO_END: &str = "a=fmtp:111 minptime=10;useinbandfec=1\n";
/// The video's line, and all that is said of its payload types.
const VIDEO_LINE: &str = "m=video 9 UDP/TLS/RTP/SAVPF 96 97\n";
const VIDEO_FORMATS: &str = "a=rtpmap:96 H264/90000
a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
";
const AUDIO_LINE: &str = "m=audio 9 UDP/TLS/RTP/SAVPF 111\n";
const SIMULCAST: &str = "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id
";

/// A change of the plain offer.
pub(crate) enum Change {
    /// Each of the first is the second instead.
    Replace(&'static str, &'static str),
    /// More about the video, or behind everything.
    Video(&'static str),
    End(&'static str),
    /// The video's payload types and what is said of them.
    Formats(&'static str, &'static str),
    /// A third m-line over the same transport, with a name in the group.
    Third(&'static str),
    /// Only the audio.
    AudioOnly,
}
use Change::{AudioOnly, End, Formats, Replace, Third, Video};

/// Name, what comes of it by WHIP and by WHEP of a stream of H.264 and Opus, changes.
pub(crate) type Row = (&'static str, Expect, Expect, &'static [Change]);

impl Change {
    pub(crate) fn apply(&self, offer: &str) -> String {
        match self {
            Replace(old, new) => offer.replace(old, new),
            Video(more) => offer.replace(VIDEO_END, &format!("{VIDEO_END}{more}")),
            End(more) => format!("{offer}{more}"),
            Formats(pts, said) => {
                let line = format!("m=video 9 UDP/TLS/RTP/SAVPF {pts}\n");
                offer
                    .replace(VIDEO_LINE, &line)
                    .replace(VIDEO_FORMATS, said)
            }
            Third(section) => {
                let offer = offer.replace("BUNDLE 0 1", "BUNDLE 0 1 2");
                let transport = offer.split("c=IN IP4 0.0.0.0\n").nth(1).unwrap_or_default();
                let transport = transport.split("a=mid").next().unwrap_or_default();
                let (line, rest) = section.split_once('\n').unwrap_or_default();
                format!("{offer}{line}\nc=IN IP4 0.0.0.0\n{transport}a=mid:2\n{rest}")
            }
            AudioOnly => {
                let (head, rest) = offer.split_once("m=video").unwrap_or_default();
                let audio = rest.split_once("m=audio").unwrap_or_default().1;
                format!("{}m=audio{audio}", head.replace("BUNDLE 0 1", "BUNDLE 1"))
            }
        }
    }
}

pub(crate) const ROWS: &[Row] = &[
    ("plain", Accept, Accept, &[]),
    (
        "no end of line at the end",
        Accept,
        Accept,
        &[Replace("useinbandfec=1\n", "useinbandfec=1")],
    ),
    (
        "a byte order mark",
        Accept,
        Accept,
        &[Replace("v=0", "\u{feff}v=0")],
    ),
    (
        "blank lines",
        Accept,
        Accept,
        &[Replace("m=audio", "\n \n\nm=audio"), End("\n\n")],
    ),
    (
        "blanks around lines",
        Accept,
        Accept,
        &[
            Replace("a=mid:", " a=mid: "),
            Replace("a=setup", "\ta=setup"),
        ],
    ),
    (
        "lines without a letter",
        Accept,
        Accept,
        &[Replace("a=mid:0\n", "garbage\n=\n\u{0}\na=mid:0\n")],
    ),
    // The session's part (RFC 8866, section 5).
    (
        "i= u= e= p=",
        Accept,
        Accept,
        &[Replace(
            "t=0",
            "i=info\nu=http://example.com\ne=a@example.com\np=+1 617 555\nt=0",
        )],
    ),
    (
        "i= several times",
        Accept,
        Accept,
        &[Replace("c=IN", "i=a\ni=b\nc=IN")],
    ),
    (
        "r= and z=",
        Accept,
        Accept,
        &[Replace("t=0 0\n", "t=0 0\nr=7d 1h 0 25h\nz=0 0\n")],
    ),
    (
        "z= before everything",
        Accept,
        Accept,
        &[Replace("t=0 0\n", "z=2882844526 -1h 2898848070 0\nt=0 0\n")],
    ),
    (
        "t= with times",
        Accept,
        Accept,
        &[Replace("t=0 0", "t=3911840467 0")],
    ),
    (
        "t= several times",
        Accept,
        Accept,
        &[Replace("t=0 0\n", "t=1 2\nt=3 4\nr=1 2 3\n")],
    ),
    (
        "no t=, s=, o= nor v=",
        Accept,
        Accept,
        &[
            Replace("t=0 0\n", ""),
            Replace("s=-\n", ""),
            Replace("v=0\no=- 4611731400430051336 2 IN IP4 127.0.0.1\n", ""),
        ],
    ),
    (
        "b= in the session",
        Accept,
        Accept,
        &[Replace("t=0", "b=CT:5000\nb=AS:3000\nt=0")],
    ),
    (
        "b= behind the session's attributes",
        Accept,
        Accept,
        &[Replace("m=video", "b=AS:3000\nm=video")],
    ),
    (
        "b= several times",
        Accept,
        Accept,
        &[Replace(
            "c=IN IP4 0.0.0.0\n",
            "c=IN IP4 0.0.0.0\nb=AS:2500\nb=TIAS:2500000\nb=RS:0\nb=RR:0\nb=X-YZ:128\n",
        )],
    ),
    (
        "k=",
        Accept,
        Accept,
        &[Replace("t=0 0\n", "t=0 0\nk=prompt\n")],
    ),
    (
        "s= with other letters",
        Accept,
        Accept,
        &[Replace("s=-", "s=My stream / Ünïcode 🎥")],
    ),
    ("s= empty", Accept, Accept, &[Replace("s=-", "s=")]),
    (
        "o= with a name",
        Accept,
        Accept,
        &[Replace("o=-", "o=mozilla...THIS_IS_SDPARTA-99.0")],
    ),
    (
        "c=IN IP6",
        Accept,
        Accept,
        &[Replace("c=IN IP4 0.0.0.0", "c=IN IP6 ::")],
    ),
    (
        "c= in the session",
        Accept,
        Accept,
        &[
            Replace("c=IN IP4 0.0.0.0\n", ""),
            Replace("t=0 0\n", "c=IN IP4 127.0.0.1\nt=0 0\n"),
        ],
    ),
    // Groups and names (RFC 9143, RFC 5888).
    (
        "LS beside BUNDLE",
        Accept,
        Accept,
        &[Replace(
            "a=group",
            "a=group:LS 0 1\na=ice-options:ice2,trickle\na=msid-semantic:WMS *\na=group",
        )],
    ),
    (
        "the group's order is another",
        Accept,
        Accept,
        &[Replace("BUNDLE 0 1", "BUNDLE 1 0")],
    ),
    (
        "the group names what is not there",
        Accept,
        Accept,
        &[Replace("BUNDLE 0 1", "BUNDLE 7 0 8 1")],
    ),
    (
        "two groups, one with all",
        Accept,
        Accept,
        &[Replace(
            "a=group:BUNDLE 0 1",
            "a=group:BUNDLE 0 1\na=group:BUNDLE 9",
        )],
    ),
    (
        "the group has only the video",
        Accept,
        Accept,
        &[Replace("BUNDLE 0 1", "BUNDLE 0")],
    ),
    (
        "no group, one transport",
        Accept,
        Accept,
        &[Replace("a=group:BUNDLE 0 1\n", "")],
    ),
    (
        "no group, no names, one transport",
        Accept,
        Accept,
        &[
            Replace("a=group:BUNDLE 0 1\n", ""),
            Replace("a=mid:0\n", ""),
            Replace("a=mid:1\n", ""),
        ],
    ),
    (
        "no group, two transports",
        Refuse,
        Either,
        &[
            Replace("a=group:BUNDLE 0 1\n", ""),
            Replace(
                "abcd\na=ice-pwd:0123456789abcdef01234567\na=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\na=setup:actpass\na=mid:1",
                "efgh\na=ice-pwd:0123456789abcdef01234567\na=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\na=setup:actpass\na=mid:1",
            ),
        ],
    ),
    ("audio only", Accept, Accept, &[AudioOnly]),
    (
        "audio only, no group",
        Accept,
        Accept,
        &[AudioOnly, Replace("a=group:BUNDLE 1\n", "")],
    ),
    (
        "audio only, no group, no name",
        Accept,
        Accept,
        &[
            AudioOnly,
            Replace("a=group:BUNDLE 1\n", ""),
            Replace("a=mid:1\n", ""),
        ],
    ),
    (
        "the audio is bundle-only",
        Accept,
        Accept,
        &[
            Replace("m=audio 9", "m=audio 0"),
            Replace("a=mid:1\n", "a=mid:1\na=bundle-only\n"),
        ],
    ),
    (
        "long names with a common beginning",
        Accept,
        Accept,
        &[
            Replace(
                "BUNDLE 0 1",
                "BUNDLE mediastreamtrack-video mediastreamtrack-audio",
            ),
            Replace("a=mid:0", "a=mid:mediastreamtrack-video"),
            Replace("a=mid:1", "a=mid:mediastreamtrack-audio"),
        ],
    ),
    (
        "names of old Firefox",
        Accept,
        Accept,
        &[
            Replace("BUNDLE 0 1", "BUNDLE sdparta_0 sdparta_1"),
            Replace("a=mid:0", "a=mid:sdparta_0"),
            Replace("a=mid:1", "a=mid:sdparta_1"),
        ],
    ),
    (
        "names with all that a token may have",
        Accept,
        Accept,
        &[
            Replace("BUNDLE 0 1", "BUNDLE v.1!#$%&'*+-^_`{|}~ a+2"),
            Replace("a=mid:0", "a=mid:v.1!#$%&'*+-^_`{|}~"),
            Replace("a=mid:1", "a=mid:a+2"),
        ],
    ),
    (
        "names with other letters",
        Accept,
        Accept,
        &[
            Replace("BUNDLE 0 1", "BUNDLE vidéo áudio"),
            Replace("a=mid:0", "a=mid:vidéo"),
            Replace("a=mid:1", "a=mid:áudio"),
        ],
    ),
    (
        "one name twice",
        Refuse,
        Refuse,
        &[Replace("a=mid:1", "a=mid:0")],
    ),
    // Transport (RFC 8839, RFC 8122, RFC 8842).
    (
        "setup:active",
        Accept,
        Accept,
        &[Replace("setup:actpass", "setup:active")],
    ),
    (
        "setup:passive",
        Accept,
        Accept,
        &[Replace("setup:actpass", "setup:passive")],
    ),
    (
        "setup:holdconn",
        Refuse,
        Refuse,
        &[Replace("setup:actpass", "setup:holdconn")],
    ),
    (
        "no setup",
        Accept,
        Accept,
        &[Replace("a=setup:actpass\n", "")],
    ),
    (
        "sha-512 before sha-256",
        Accept,
        Accept,
        &[Replace(
            "a=fingerprint:",
            "a=fingerprint:sha-512 CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD:CD\na=fingerprint:",
        )],
    ),
    (
        "sha-384 only",
        Accept,
        Accept,
        &[Replace(
            "sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:",
            "sha-384 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:",
        )],
    ),
    (
        "sha-1 only",
        Refuse,
        Refuse,
        &[Replace(
            "sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:",
            "sha-1 ",
        )],
    ),
    (
        "sha-1 beside sha-256",
        Accept,
        Accept,
        &[Replace(
            "a=fingerprint:",
            "a=fingerprint:sha-1 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\na=fingerprint:",
        )],
    ),
    (
        "a fingerprint that is too short",
        Refuse,
        Refuse,
        &[Replace("sha-256 AB:", "sha-256 ")],
    ),
    (
        "a fingerprint in small letters",
        Accept,
        Accept,
        &[Replace("AB:", "ab:"), Replace("sha-256", "SHA-256")],
    ),
    (
        "no fingerprint",
        Refuse,
        Refuse,
        &[Replace("a=fingerprint", "a=finger")],
    ),
    (
        "transport in the session",
        Accept,
        Accept,
        &[
            Replace(
                "a=ice-ufrag:abcd\na=ice-pwd:0123456789abcdef01234567\na=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\na=setup:actpass\n",
                "",
            ),
            Replace(
                "a=group",
                "a=ice-ufrag:abcd\na=ice-pwd:0123456789abcdef01234567\na=fingerprint:sha-256 AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB:AB\na=setup:actpass\na=group",
            ),
        ],
    ),
    (
        "no credentials",
        Refuse,
        Refuse,
        &[Replace("a=ice-ufrag", "a=ufrag")],
    ),
    (
        "no password",
        Refuse,
        Refuse,
        &[Replace("a=ice-pwd", "a=pwd")],
    ),
    (
        "ice-lite",
        Accept,
        Accept,
        &[Replace("m=video", "a=ice-lite\nm=video")],
    ),
    (
        "ice-options, pacing",
        Accept,
        Accept,
        &[Replace(
            "a=group",
            "a=ice-options:trickle renomination ice2\na=ice-pacing:50\na=group",
        )],
    ),
    (
        "identity, tls-id",
        Accept,
        Accept,
        &[
            Replace(
                "a=mid:",
                "a=tls-id:91bbf309c0990a6bec11e38ba2933cee\na=mid:",
            ),
            Replace("a=group", "a=identity:eyJpZHAiOnt9fQ==\na=group"),
        ],
    ),
    (
        "no rtcp-mux",
        Accept,
        Accept,
        &[Replace("a=rtcp-mux\n", "")],
    ),
    (
        "rtcp-mux-only, rtcp-rsize",
        Accept,
        Accept,
        &[Replace(
            "a=rtcp-mux\n",
            "a=rtcp-mux\na=rtcp-mux-only\na=rtcp-rsize\n",
        )],
    ),
    (
        "rtcp lines",
        Accept,
        Accept,
        &[Video("a=rtcp:9 IN IP4 0.0.0.0\na=rtcp:12345\n")],
    ),
    (
        "crypto beside",
        Accept,
        Accept,
        &[Video(
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\n",
        )],
    ),
    (
        "RTP/SAVPF",
        Accept,
        Accept,
        &[Replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF")],
    ),
    (
        "RTP/SAVP",
        Accept,
        Accept,
        &[Replace("UDP/TLS/RTP/SAVPF", "RTP/SAVP")],
    ),
    (
        "UDP/TLS/RTP/SAVP",
        Accept,
        Accept,
        &[Replace("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP")],
    ),
    (
        "TCP/DTLS/RTP/SAVPF",
        Accept,
        Accept,
        &[Replace("UDP/TLS/RTP/SAVPF", "TCP/DTLS/RTP/SAVPF")],
    ),
    (
        "TCP/TLS/RTP/SAVPF",
        Accept,
        Accept,
        &[Replace("UDP/TLS/RTP/SAVPF", "TCP/TLS/RTP/SAVPF")],
    ),
    (
        "RTP/AVPF with a fingerprint",
        Accept,
        Accept,
        &[Replace("UDP/TLS/RTP/SAVPF", "RTP/AVPF")],
    ),
    (
        "another transport altogether",
        Refuse,
        Refuse,
        &[Replace("UDP/TLS/RTP/SAVPF", "UDP/XYZ")],
    ),
    (
        "the audio over another transport",
        Refuse,
        Either,
        &[Replace("m=audio 9 UDP/TLS/RTP/SAVPF", "m=audio 9 UDP/XYZ")],
    ),
    // Candidates.
    (
        "candidates over TCP",
        Accept,
        Accept,
        &[Video(
            "a=candidate:1 1 tcp 1518280447 192.0.2.5 9 typ host tcptype active generation 0\na=candidate:1 1 TCP 1518280447 192.0.2.5 9 typ host tcptype passive\n",
        )],
    ),
    (
        "candidates in capitals",
        Accept,
        Accept,
        &[Video(
            "a=candidate:1 1 UDP 2113937151 192.0.2.5 50000 typ host\n",
        )],
    ),
    (
        "candidates with zones",
        Accept,
        Accept,
        &[Video(
            "a=candidate:1 1 udp 2113937151 fe80::1%eth0 50000 typ host\n",
        )],
    ),
    (
        "candidates with names",
        Accept,
        Accept,
        &[Video(
            "a=candidate:1 1 udp 2113937151 host.example.com 50000 typ host\na=candidate:2 1 udp 2113937151 0b5e2a3c-7d0f-4a4f-9d9f-1f2d3c4b5a69.local 50000 typ host\n",
        )],
    ),
    (
        "candidates by others",
        Accept,
        Accept,
        &[Video(
            "a=candidate:1 1 udp 41885439 192.0.2.7 50000 typ relay raddr 0.0.0.0 rport 0 generation 0 ufrag abcd network-id 1 network-cost 10\na=candidate:2 1 udp 1677729535 192.0.2.8 50000 typ srflx raddr 10.0.0.1 rport 5000\na=end-of-candidates\n",
        )],
    ),
    (
        "candidates that are none",
        Accept,
        Accept,
        &[Video(
            "a=candidate\na=candidate:\na=candidate:1\na=candidate:x y z\n",
        )],
    ),
    (
        "candidates in the session",
        Accept,
        Accept,
        &[Replace(
            "m=video",
            "a=candidate:1 1 udp 2113937151 192.0.2.5 50000 typ host\nm=video",
        )],
    ),
    // Directions.
    (
        "sendrecv",
        Accept,
        Accept,
        &[
            Replace("a=sendonly", "a=sendrecv"),
            Replace("a=recvonly", "a=sendrecv"),
        ],
    ),
    (
        "no direction",
        Accept,
        Accept,
        &[Replace("a=sendonly\n", ""), Replace("a=recvonly\n", "")],
    ),
    (
        "the direction in the session",
        Accept,
        Accept,
        &[
            Replace("a=sendonly\n", ""),
            Replace("a=recvonly\n", ""),
            Replace("a=group", "a=DIRECTION\na=group"),
        ],
    ),
    (
        "the audio is inactive",
        Accept,
        Accept,
        &[
            Replace("a=mid:1\na=sendonly", "a=mid:1\na=inactive"),
            Replace("a=mid:1\na=recvonly", "a=mid:1\na=inactive"),
        ],
    ),
    (
        "all is inactive",
        Refuse,
        Refuse,
        &[
            Replace("a=sendonly", "a=inactive"),
            Replace("a=recvonly", "a=inactive"),
        ],
    ),
    (
        "the audio is given up",
        Accept,
        Accept,
        &[Replace("m=audio 9", "m=audio 0")],
    ),
    (
        "all is given up",
        Refuse,
        Refuse,
        &[
            Replace("m=audio 9", "m=audio 0"),
            Replace("m=video 9", "m=video 0"),
        ],
    ),
    // Payload types.
    (
        "static payload types without a map",
        Accept,
        Accept,
        &[Replace(AUDIO_LINE, "m=audio 9 UDP/TLS/RTP/SAVPF 111 0 8\n")],
    ),
    (
        "payload types that are none",
        Accept,
        Accept,
        &[Replace(
            AUDIO_LINE,
            "m=audio 9 UDP/TLS/RTP/SAVPF 111 300 x 111\n",
        )],
    ),
    (
        "rtcp-fb trr-int, of all, unknown",
        Accept,
        Accept,
        &[Video(
            "a=rtcp-fb:96 trr-int 100\na=rtcp-fb:* ccm fir\na=rtcp-fb:96 x-y z\na=rtcp-fb:\na=rtcp-fb:5 nack\n",
        )],
    ),
    (
        "opus in capitals",
        Accept,
        Accept,
        &[Replace("opus/48000/2", "OPUS/48000/2")],
    ),
    (
        "opus without parameters",
        Accept,
        Accept,
        &[Replace(AUDIO_END, "")],
    ),
    (
        "opus without channels",
        Accept,
        Accept,
        &[Replace("opus/48000/2", "opus/48000")],
    ),
    (
        "opus with one channel",
        Whole,
        Either,
        &[Replace("opus/48000/2", "opus/48000/1")],
    ),
    (
        "opus of six channels",
        Refuse,
        Refuse,
        &[Replace("111 opus/48000/2", "111 multiopus/48000/6")],
    ),
    (
        "opus in stereo",
        Accept,
        Accept,
        &[Replace(
            "useinbandfec=1",
            "useinbandfec=1;stereo=1;sprop-stereo=1",
        )],
    ),
    (
        "parameters with blanks and capitals",
        Accept,
        Accept,
        &[Replace(
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            " Level-Asymmetry-Allowed = 1 ; Packetization-Mode= 1;;PROFILE-LEVEL-ID=42E01F; ",
        )],
    ),
    (
        "a lower-case codec",
        Accept,
        Refuse,
        &[Formats("96", "a=rtpmap:96 vp8/90000\n")],
    ),
    (
        "parameters that end with ;",
        Accept,
        Accept,
        &[Formats(
            "96",
            "a=rtpmap:96 H264/90000\na=fmtp:96 profile-level-id=42e01f;packetization-mode=1;\n",
        )],
    ),
    (
        "H.264 without parameters",
        Accept,
        Accept,
        &[Formats("96", "a=rtpmap:96 H264/90000\n")],
    ),
    (
        "H.264 without a profile",
        Accept,
        Accept,
        &[Formats(
            "96",
            "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1\n",
        )],
    ),
    (
        "H.264 that is not interleaved",
        Accept,
        Accept,
        &[Formats(
            "96",
            "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=0;profile-level-id=42e01f\n",
        )],
    ),
    (
        "H.264 that is interleaved",
        Refuse,
        Refuse,
        &[Formats(
            "96",
            "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=2;profile-level-id=42e01f\n",
        )],
    ),
    (
        "H.264 42c00b",
        Accept,
        Accept,
        &[Replace("42e01f", "42c00b")],
    ),
    (
        "H.264 42001e",
        Accept,
        Accept,
        &[Replace("42e01f", "42001e")],
    ),
    (
        "H.264 42e034",
        Accept,
        Accept,
        &[Replace("42e01f", "42e034")],
    ),
    (
        "H.264 4d401f",
        Accept,
        Accept,
        &[Replace("42e01f", "4d401f")],
    ),
    (
        "H.264 4de01f",
        Accept,
        Accept,
        &[Replace("42e01f", "4de01f")],
    ),
    (
        "H.264 64000a",
        Accept,
        Accept,
        &[Replace("42e01f", "64000a")],
    ),
    (
        "H.264 64001f",
        Accept,
        Accept,
        &[Replace("42e01f", "64001f")],
    ),
    (
        "H.264 640c1f",
        Accept,
        Accept,
        &[Replace("42e01f", "640c1f")],
    ),
    (
        "H.264 58a01f, 58e01f",
        Accept,
        Accept,
        &[Replace("42e01f", "58e01f")],
    ),
    (
        "H.264 7a001f",
        Refuse,
        Refuse,
        &[Replace("42e01f", "7a001f")],
    ),
    (
        "H.264 f4001f",
        Refuse,
        Refuse,
        &[Replace("42e01f", "f4001f")],
    ),
    (
        "H.264 with a control character in its profile",
        Refuse,
        Refuse,
        &[Replace("42e01f", "42c0\u{19}f")],
    ),
    (
        "H.264 of no profile",
        Refuse,
        Refuse,
        &[Replace("42e01f", "zz")],
    ),
    (
        "Safari's H.264",
        Accept,
        Accept,
        &[Formats(
            "96 98 100",
            "a=rtpmap:96 H264/90000\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f\na=rtpmap:98 H264/90000\na=fmtp:98 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\na=rtpmap:100 VP8/90000\n",
        )],
    ),
    (
        "H.264 of 4:4:4, then VP8",
        Accept,
        Refuse,
        &[Formats(
            "96 98",
            "a=rtpmap:96 H264/90000\na=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=f4001f\na=rtpmap:98 VP8/90000\n",
        )],
    ),
    (
        "H.264 with other parameters",
        Accept,
        Accept,
        &[Formats(
            "96",
            "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f;max-br=5000;max-mbps=245000;max-fs=8160;x-google-start-bitrate=800;sprop-parameter-sets=Z0LgH5WQF2lP,aM48gA==\n",
        )],
    ),
    (
        "VP9 without parameters",
        Accept,
        Refuse,
        &[Formats("96", "a=rtpmap:96 VP9/90000\n")],
    ),
    (
        "AV1 without parameters",
        Accept,
        Refuse,
        &[Formats("96", "a=rtpmap:96 AV1/90000\n")],
    ),
    (
        "H.265 without parameters",
        Accept,
        Refuse,
        &[Formats("96", "a=rtpmap:96 H265/90000\n")],
    ),
    (
        "H.265 main 10",
        Whole,
        Refuse,
        &[Formats(
            "96",
            "a=rtpmap:96 H265/90000\na=fmtp:96 level-id=180;profile-id=2;tier-flag=0;tx-mode=SRST\n",
        )],
    ),
    (
        "video of no known codec",
        Refuse,
        Refuse,
        &[Formats("96", "a=rtpmap:96 theora/90000\n")],
    ),
    (
        "video of a wrong clock",
        Refuse,
        Refuse,
        &[Replace("H264/90000", "H264/48000")],
    ),
    ("video without a map", Refuse, Refuse, &[Formats("96", "")]),
    (
        "video without payload types",
        Refuse,
        Refuse,
        &[Formats("", "")],
    ),
    (
        "payload types that look like RTCP",
        Refuse,
        Refuse,
        &[Formats("72", "a=rtpmap:72 H264/90000\n")],
    ),
    (
        "one payload type for both",
        Whole,
        Accept,
        &[
            Formats(
                "96",
                "a=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\n",
            ),
            Replace(AUDIO_LINE, "m=audio 9 UDP/TLS/RTP/SAVPF 96\n"),
            Replace("111", "96"),
        ],
    ),
    (
        "one payload type for both, named",
        Accept,
        Accept,
        &[
            Formats(
                "96",
                "a=rtpmap:96 H264/90000\na=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\n",
            ),
            Replace(AUDIO_LINE, "m=audio 9 UDP/TLS/RTP/SAVPF 96\n"),
            Replace("111", "96"),
            End("a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\n"),
        ],
    ),
    // Sources.
    (
        "msid of one word",
        Accept,
        Accept,
        &[Video("a=msid:stream0\n")],
    ),
    ("msid without a value", Accept, Accept, &[Video("a=msid\n")]),
    (
        "a name with blanks",
        Accept,
        Accept,
        &[Video("a=ssrc:1001 cname:user 1@host name\n")],
    ),
    ("SSRC 0", Accept, Accept, &[Video("a=ssrc:0 cname:x\n")]),
    (
        "SSRCs that are none",
        Accept,
        Accept,
        &[Video(
            "a=ssrc:x cname:x\na=ssrc:4294967296 cname:x\na=ssrc\na=ssrc:5\n",
        )],
    ),
    (
        "groups of SSRCs",
        Accept,
        Accept,
        &[Video(
            "a=ssrc-group:FID 1001 1002\na=ssrc-group:FEC-FR 1001 1003\na=ssrc-group:SIM 1001 1004\na=ssrc-group:FID\na=ssrc:1001 cname:x\na=ssrc:1002 cname:x\na=ssrc:1003 cname:x\na=ssrc:1004 cname:x\n",
        )],
    ),
    (
        "rtx-time",
        Accept,
        Accept,
        &[Replace("apt=96", "apt=96;rtx-time=3000")],
    ),
    (
        "rtx of nothing",
        Accept,
        Accept,
        &[Replace("apt=96", "apt=55")],
    ),
    // Simulcast, of which a viewer's offer has none.
    (
        "a layer that is paused",
        Accept,
        Accept,
        &[
            Video(SIMULCAST),
            End(""),
            Video("a=rid:h send\na=rid:m send\na=rid:l send\na=simulcast:send ~h;m;l\n"),
        ],
    ),
    (
        "layers with restrictions",
        Accept,
        Accept,
        &[
            Video(SIMULCAST),
            Video(
                "a=rid:high send max-width=1280;max-height=720;max-fps=30;max-br=1500000\na=rid:low send pt=96;max-width=320\na=simulcast:send high;low\n",
            ),
        ],
    ),
    (
        "layers with long names",
        Accept,
        Accept,
        &[
            Video(SIMULCAST),
            Video(
                "a=rid:high-layer_1 send\na=rid:high-layer_2 send\na=simulcast:send high-layer_1;high-layer_2\n",
            ),
        ],
    ),
    (
        "layers both ways",
        Accept,
        Accept,
        &[
            Video(SIMULCAST),
            Video("a=rid:h send\na=rid:l send\na=rid:r recv\na=simulcast:send h;l recv r\n"),
        ],
    ),
    (
        "layers with alternatives",
        Accept,
        Accept,
        &[
            Video(SIMULCAST),
            Video("a=rid:h send\na=rid:g send\na=rid:l send\na=simulcast:send h,~g;l\n"),
        ],
    ),
    (
        "a layer twice",
        Refuse,
        Either,
        &[
            Video(SIMULCAST),
            Video("a=rid:h send\na=simulcast:send h;h\n"),
        ],
    ),
    (
        "nine layers",
        Refuse,
        Either,
        &[
            Video(SIMULCAST),
            Video("a=simulcast:send 1;2;3;4;5;6;7;8;9\n"),
        ],
    ),
    (
        "layers that are paused at first",
        Accept,
        Either,
        &[Video(SIMULCAST), Video("a=simulcast:send ~q;h;~f\n")],
    ),
    (
        "layers that long headers alone name",
        Accept,
        Either,
        &[
            Video("a=extmap:17 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\n"),
            Video("a=simulcast:send q;h;f\n"),
        ],
    ),
    // Header extensions.
    (
        "extmap 15",
        Accept,
        Accept,
        &[Video("a=extmap:15 urn:ietf:params:rtp-hdrext:sdes:mid\n")],
    ),
    (
        "extmap 15, mixed",
        Accept,
        Accept,
        &[
            Replace("a=group", "a=extmap-allow-mixed\na=group"),
            Video("a=extmap:15 urn:ietf:params:rtp-hdrext:sdes:mid\n"),
        ],
    ),
    (
        "extmap 4096",
        Accept,
        Accept,
        &[Video("a=extmap:4096 urn:ietf:params:rtp-hdrext:sdes:mid\n")],
    ),
    (
        "extmap with a direction",
        Accept,
        Accept,
        &[Video(
            "a=extmap:4/recvonly urn:ietf:params:rtp-hdrext:sdes:mid\na=extmap:3/sendrecv http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\n",
        )],
    ),
    (
        "extmap in the session",
        Accept,
        Accept,
        &[Replace(
            "a=group",
            "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\na=group",
        )],
    ),
    (
        "extmap that is none",
        Accept,
        Accept,
        &[Video(
            "a=extmap\na=extmap:\na=extmap:3\na=extmap:x y\na=extmap:3 \n",
        )],
    ),
    // Other attributes and m-lines.
    (
        "framerate, imageattr, ptime",
        Accept,
        Accept,
        &[
            Video(
                "a=framerate:29.97\na=framesize:96 640-360\na=imageattr:* send [x=[320:16:640],y=[240:16:480]] recv *\na=x-google-flag:conference\na=content:main\n",
            ),
            End("a=ptime:20\na=maxptime:60\n"),
        ],
    ),
    (
        "a data channel",
        Accept,
        Accept,
        &[Third(
            "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\na=sctp-port:5000\na=max-message-size:262144\n",
        )],
    ),
    (
        "an old data channel",
        Accept,
        Accept,
        &[Third(
            "m=application 9 DTLS/SCTP 5000\na=sctpmap:5000 webrtc-datachannel 1024\n",
        )],
    ),
    (
        "BFCP that is given up",
        Accept,
        Accept,
        &[End("m=application 0 UDP/BFCP *\na=mid:2\n")],
    ),
    (
        "text, messages, images",
        Accept,
        Accept,
        &[End(
            "m=text 9 UDP/TLS/RTP/SAVPF 98\na=rtpmap:98 t140/1000\nm=message 9 TCP/MSRP *\nm=image 9 udptl t38\n",
        )],
    ),
    (
        "an m-line before that is not known",
        Accept,
        Accept,
        &[Replace(
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97\n",
            "m=x-y 9 A/B c d\na=mid:x\na=sendonly\na=ssrc:1 cname:y\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\n",
        )],
    ),
    (
        "two videos",
        Refuse,
        Accept,
        &[Third(
            "m=video 9 UDP/TLS/RTP/SAVPF 96\na=sendonly\na=rtcp-mux\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\n",
        )],
    ),
    (
        "two videos, one inactive",
        Accept,
        Accept,
        &[Third(
            "m=video 9 UDP/TLS/RTP/SAVPF 96\na=inactive\na=rtcp-mux\na=rtpmap:96 H264/90000\na=fmtp:96 packetization-mode=1;profile-level-id=42e01f\n",
        )],
    ),
    (
        "two sounds",
        Refuse,
        Accept,
        &[Third(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111\na=sendonly\na=rtcp-mux\na=rtpmap:111 opus/48000/2\n",
        )],
    ),
    (
        "m= without anything",
        Refuse,
        Refuse,
        &[Replace("m=audio 9 UDP/TLS/RTP/SAVPF 111\n", "m=\n")],
    ),
    (
        "m= without a port",
        Refuse,
        Refuse,
        &[Replace("m=audio 9", "m=audio x")],
    ),
    (
        "m= with a number of ports",
        Accept,
        Accept,
        &[Replace("m=audio 9 ", "m=audio 9/2 ")],
    ),
    (
        "m= with blanks",
        Accept,
        Accept,
        &[Replace(
            "m=audio 9 UDP/TLS/RTP/SAVPF 111",
            "m=audio  9  UDP/TLS/RTP/SAVPF   111 ",
        )],
    ),
];
