// SPDX-License-Identifier: MPL-2.0

//! Writes the SDP of a viewer and reads the few lines of the server's that a viewer needs (RFC 8829, RFC 8866).

use std::fmt::Write;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

/// ICE credentials of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub ufrag: String,
    pub pwd: String,
}

impl Credentials {
    /// New ones by chance.
    pub fn random() -> Result<Self> {
        let mut octets = [0u8; 16];
        getrandom::fill(&mut octets).context("no random numbers")?;
        let text: String = octets.iter().fold(String::new(), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        });
        Ok(Self {
            ufrag: text[..8].to_owned(),
            pwd: text[8..].to_owned(),
        })
    }
}

/// What a payload type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    H264,
    Vp8,
    Opus,
    /// A retransmission of another payload type.
    Rtx,
    Other,
}

/// A payload type of an m-line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload {
    pub number: u8,
    pub codec: Codec,
    /// There are NACKs for it.
    pub nack: bool,
    /// There are picture loss indications for it.
    pub pli: bool,
    /// There is transport-wide feedback for it.
    pub twcc: bool,
}

/// An m-line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Media {
    /// audio, video, or another word.
    pub kind: String,
    pub mid: String,
    /// Port 0, or inactive: nothing comes.
    pub rejected: bool,
    pub payloads: Vec<Payload>,
    /// The line itself, for an answer.
    line: String,
    /// Lines that an answer repeats: formats, feedback and extensions.
    repeated: Vec<String>,
}

/// Who begins DTLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    Active,
    Passive,
    ActPass,
}

/// The server's SDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub credentials: Credentials,
    /// SHA-256 of its certificate, where it was given as that.
    pub fingerprint: Option<[u8; 32]>,
    pub setup: Setup,
    pub ice_lite: bool,
    pub candidates: Vec<SocketAddr>,
    pub medias: Vec<Media>,
    /// The number of the extension with transport-wide sequence numbers.
    pub twcc_extension: Option<u8>,
}

const TWCC_URI: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// H.264 profiles by payload type: constrained baseline, baseline, main, high; each has RTX at the next number.
const H264: [(u8, &str); 4] = [
    (102, "42e01f"),
    (104, "42001f"),
    (106, "4d001f"),
    (108, "64001f"),
];

/// The offer of a viewer that receives video, and audio where it wants it.
pub fn offer(local: &Credentials, fingerprint: &str, address: SocketAddr, audio: bool) -> String {
    let mut sdp = session_lines(if audio { "0 1" } else { "0" });
    let payload_types: Vec<String> = H264
        .iter()
        .flat_map(|(pt, _)| [*pt, pt + 1])
        .chain([120, 121])
        .map(|pt| pt.to_string())
        .collect();
    // Video first: webrtcbin numbers its pads by the lines.
    sdp += &format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {}\r\n",
        payload_types.join(" ")
    );
    sdp += &transport_lines(local, fingerprint, "actpass", address);
    sdp += &format!("a=mid:0\r\na=recvonly\r\na=extmap:3 {TWCC_URI}\r\na=extmap:4 {MID_URI}\r\n");
    for (pt, profile) in H264 {
        let format =
            format!("level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}");
        sdp += &video_lines(pt, "H264", Some(&format));
    }
    sdp += &video_lines(120, "VP8", None);
    if audio {
        sdp += "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n";
        sdp += &transport_lines(local, fingerprint, "actpass", address);
        sdp += "a=mid:1\r\na=recvonly\r\na=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n";
    }
    sdp
}

fn video_lines(pt: u8, name: &str, format: Option<&str>) -> String {
    let rtx = pt + 1;
    let mut lines = format!("a=rtpmap:{pt} {name}/90000\r\n");
    for feedback in ["nack", "nack pli", "transport-cc"] {
        lines += &format!("a=rtcp-fb:{pt} {feedback}\r\n");
    }
    if let Some(format) = format {
        lines += &format!("a=fmtp:{pt} {format}\r\n");
    }
    lines + &format!("a=rtpmap:{rtx} rtx/90000\r\na=fmtp:{rtx} apt={pt}\r\n")
}

fn session_lines(bundle: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {bundle}\r\na=msid-semantic: WMS\r\n"
    )
}

fn transport_lines(
    local: &Credentials,
    fingerprint: &str,
    setup: &str,
    address: SocketAddr,
) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "c=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=fingerprint:sha-256 {fingerprint}\r\na=setup:{setup}\r\n\
         a=candidate:1 1 udp 2130706431 {ip} {port} typ host\r\na=end-of-candidates\r\na=rtcp-mux\r\na=rtcp-rsize\r\n",
        local.ufrag, local.pwd
    )
}

/// The answer of a viewer to a server that offers: takes all audio and video as it is.
pub fn answer(
    remote: &Remote,
    local: &Credentials,
    fingerprint: &str,
    address: SocketAddr,
) -> String {
    let taken: Vec<&str> = remote
        .medias
        .iter()
        .filter(|m| m.is_av())
        .map(|m| m.mid.as_str())
        .collect();
    let mut sdp = session_lines(&taken.join(" "));
    for media in &remote.medias {
        let mut words: Vec<&str> = media.line.split(' ').collect();
        if let (Some(port), false) = (words.get_mut(1), media.is_av()) {
            *port = "0";
        }
        sdp += &format!("m={}\r\n", words.join(" "));
        sdp += &transport_lines(local, fingerprint, "active", address);
        sdp += &format!("a=mid:{}\r\na=recvonly\r\n", media.mid);
        for line in &media.repeated {
            sdp += &format!("{line}\r\n");
        }
    }
    sdp
}

impl Media {
    fn is_av(&self) -> bool {
        !self.rejected && matches!(self.kind.as_str(), "audio" | "video")
    }

    fn payload(&mut self, number: &str) -> Option<&mut Payload> {
        let number: u8 = number.parse().ok()?;
        self.payloads.iter_mut().find(|p| p.number == number)
    }

    fn begin(line: &str) -> Self {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default().to_owned();
        let rejected = words.next() == Some("0");
        let payloads = words.skip(1).filter_map(|pt| pt.parse().ok());
        Self {
            kind,
            rejected,
            payloads: payloads
                .map(|number| Payload {
                    number,
                    codec: Codec::Other,
                    nack: false,
                    pli: false,
                    twcc: false,
                })
                .collect(),
            line: line.to_owned(),
            ..Self::default()
        }
    }

    fn attribute(&mut self, name: &str, value: &str) {
        match name {
            "mid" => self.mid = value.to_owned(),
            "inactive" | "recvonly" => self.rejected = true,
            "rtpmap" => {
                if let Some((pt, map)) = value.split_once(' ')
                    && let Some(payload) = self.payload(pt)
                {
                    payload.codec = codec(map);
                }
            }
            "rtcp-fb" => self.feedback(value),
            _ => {}
        }
        if matches!(name, "rtpmap" | "rtcp-fb" | "fmtp" | "extmap") {
            self.repeated.push(format!("a={name}:{value}"));
        }
    }

    fn feedback(&mut self, value: &str) {
        let Some((pt, what)) = value.split_once(' ') else {
            return;
        };
        for payload in &mut self.payloads {
            if pt == "*" || pt.parse() == Ok(payload.number) {
                match what {
                    "nack" => payload.nack = true,
                    "nack pli" => payload.pli = true,
                    "transport-cc" => payload.twcc = true,
                    _ => {}
                }
            }
        }
    }
}

fn codec(map: &str) -> Codec {
    let name = map.split('/').next().unwrap_or_default();
    match name.to_ascii_lowercase().as_str() {
        "h264" => Codec::H264,
        "vp8" => Codec::Vp8,
        "opus" => Codec::Opus,
        "rtx" => Codec::Rtx,
        _ => Codec::Other,
    }
}

impl Remote {
    /// Reads an SDP.
    pub fn parse(sdp: &str) -> Result<Self> {
        let (mut ufrag, mut pwd, mut fingerprint, mut twcc) = (None, None, None, None);
        let (mut setup, mut ice_lite, mut candidates) = (Setup::ActPass, false, Vec::new());
        let mut medias: Vec<Media> = Vec::new();
        for line in sdp.lines().map(str::trim_end) {
            if let Some(m_line) = line.strip_prefix("m=") {
                medias.push(Media::begin(m_line));
                continue;
            }
            let Some(attribute) = line.strip_prefix("a=") else {
                continue;
            };
            let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
            match name {
                "ice-ufrag" => ufrag = ufrag.or(Some(value.to_owned())),
                "ice-pwd" => pwd = pwd.or(Some(value.to_owned())),
                "ice-lite" => ice_lite = true,
                "fingerprint" => fingerprint = fingerprint.or_else(|| sha256_of(value)),
                "setup" => setup = setup_of(value)?,
                "extmap" if value.ends_with(TWCC_URI) => {
                    let number = value.split([' ', '/']).next().unwrap_or_default();
                    twcc = number.parse().ok();
                }
                "candidate" => {
                    candidates.extend(candidate(value).filter(|c| !candidates.contains(c)));
                }
                _ => {}
            }
            if let Some(media) = medias.last_mut() {
                media.attribute(name, value);
            }
        }
        let (Some(ufrag), Some(pwd)) = (ufrag, pwd) else {
            bail!("the server's SDP has no ICE credentials");
        };
        Ok(Self {
            credentials: Credentials { ufrag, pwd },
            fingerprint,
            setup,
            ice_lite,
            candidates,
            medias,
            twcc_extension: twcc,
        })
    }

    /// All payload types of m-lines that are not rejected.
    pub fn payloads(&self) -> impl Iterator<Item = &Payload> {
        let medias = self.medias.iter().filter(|m| !m.rejected);
        medias.flat_map(|m| &m.payloads)
    }
}

fn setup_of(value: &str) -> Result<Setup> {
    Ok(match value {
        "active" => Setup::Active,
        "passive" => Setup::Passive,
        "actpass" => Setup::ActPass,
        other => bail!("the server's SDP has the setup {other:?}"),
    })
}

fn sha256_of(value: &str) -> Option<[u8; 32]> {
    let (kind, octets) = value.split_once(' ')?;
    if !kind.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let octets: Option<Vec<u8>> = octets
        .trim()
        .split(':')
        .map(|o| u8::from_str_radix(o, 16).ok())
        .collect();
    octets?.try_into().ok()
}

/// The address of a UDP candidate. Names (mDNS) and TCP are passed over.
fn candidate(value: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let [_, component, protocol, _, ip, port, ..] = words.as_slice() else {
        return None;
    };
    if *component != "1" || !protocol.eq_ignore_ascii_case("udp") {
        return None;
    }
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_offer_is_understood_and_answered() {
        let local = Credentials::random().unwrap();
        let fingerprint = vec!["AB"; 32].join(":");
        let sdp = offer(
            &local,
            &fingerprint,
            "192.0.2.1:5000".parse().unwrap(),
            true,
        );
        let remote = Remote::parse(&sdp.replace("recvonly", "sendonly")).unwrap();
        assert_eq!(remote.credentials, local);
        assert_eq!(remote.fingerprint, Some([0xab; 32]));
        assert_eq!(remote.setup, Setup::ActPass);
        assert_eq!(remote.candidates, ["192.0.2.1:5000".parse().unwrap()]);
        assert_eq!(remote.twcc_extension, Some(3));
        let of = |number| *remote.payloads().find(|p| p.number == number).unwrap();
        assert_eq!(of(102).codec, Codec::H264);
        assert!(of(102).nack && of(102).pli && of(102).twcc);
        assert_eq!((of(103).codec, of(111).codec), (Codec::Rtx, Codec::Opus));
        let answer = answer(
            &remote,
            &local,
            &fingerprint,
            "192.0.2.1:5000".parse().unwrap(),
        );
        assert!(answer.contains("a=setup:active") && answer.contains("a=rtpmap:102 H264/90000"));
    }

    #[test]
    fn rejected_lines_and_broken_input_are_told_apart() {
        let sdp = "v=0\r\na=ice-lite\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\nm=audio 0 X 111\r\na=inactive\r\n\
                   m=video 9 X 96\r\na=setup:passive\r\na=rtpmap:96 VP8/90000\r\n\
                   a=candidate:1 1 tcp 1 192.0.2.1 9 typ host\r\na=candidate:1 1 udp 1 a.local 9 typ host\r\n";
        let remote = Remote::parse(sdp).unwrap();
        assert!(remote.ice_lite && remote.candidates.is_empty() && remote.medias[0].rejected);
        assert_eq!(remote.payloads().count(), 1);
        assert!(Remote::parse("v=0\r\n").is_err());
        assert!(Remote::parse("a=setup:holdconn\r\n").is_err());
    }
}
