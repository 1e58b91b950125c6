// SPDX-License-Identifier: MPL-2.0

//! What a client says of itself when it connects: the query of `/rtc` (v0), or the request in that of `/rtc/v1`.

use std::io::Read;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use livekit_protocol::wrapped_join_request::Compression;
use livekit_protocol::{AddTrackRequest, JoinRequest, SessionDescription, WrappedJoinRequest};
use prost::Message as _;

use crate::claims::Refused;
use crate::limits::Limits;

/// What a client may ask for that has no limit of its own: keys of a query.
const KEYS: usize = 32;
/// Octets of its first offer, which is answered before anything is known of it: real ones have 14 to 18 kB.
const OFFER: usize = 128 * 1_024;

/// As clients write it: with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// See the module's description.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hello {
    /// Everything that is published is subscribed to.
    pub auto_subscribe: bool,
    /// The same of data tracks: those are subscribed to by choice, where a client says nothing.
    pub auto_subscribe_data: bool,
    /// The client tells how large it shows each track.
    pub adaptive_stream: bool,
    /// The participant that goes on by a new connection.
    pub resumes: Option<String>,
    /// The version of what clients say to one another. Passed on.
    pub client_protocol: i32,
    /// What the client can read from others. Passed on.
    pub capabilities: Vec<i32>,
    /// The client is answered in JSON from the first message on, not from its own first one on. LiveKit's server has no such
    /// parameter: our pages, which read no protobuf, ask for it (`json=1`).
    pub json: bool,
    /// What of the client's there is by v1. `None`: it speaks v0.
    pub v1: Option<First>,
}

/// What a client brings with its first word, by v1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct First {
    /// Its first offer. Who comes back makes it later.
    pub offer: Option<SessionDescription>,
    /// Tracks that it announces.
    pub tracks: Vec<AddTrackRequest>,
}

impl Hello {
    /// Reads the parameters of a query, decoded.
    pub fn from_query<'a>(
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Refused> {
        let mut hello = Self {
            auto_subscribe: true,
            ..Self::default()
        };
        let (mut reconnects, mut sid) = (false, None);
        for (key, value) in query.into_iter().take(KEYS) {
            match key {
                "auto_subscribe" => hello.auto_subscribe = is_on(value),
                "auto_subscribe_data_track" => hello.auto_subscribe_data = is_on(value),
                "adaptive_stream" => hello.adaptive_stream = is_on(value),
                "reconnect" => reconnects = is_on(value),
                "sid" => sid = Some(value.to_owned()).filter(|sid| !sid.is_empty()),
                "json" => hello.json = is_on(value),
                "client_protocol" => hello.client_protocol = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        if reconnects {
            let missing =
                || Refused::new(400, "reconnect=1 needs sid=, the participant that goes on");
            hello.resumes = Some(sid.ok_or_else(missing)?);
        }
        Ok(hello)
    }
}

impl Hello {
    /// Reads the parameters of a query by v1, decoded: `join_request` has what v0 has in many, a message in Base64, packed or not.
    pub fn from_request<'a>(
        query: impl IntoIterator<Item = (&'a str, &'a str)>,
        limits: &Limits,
    ) -> Result<Self, Refused> {
        let (mut json, mut request) = (false, None);
        for (key, value) in query.into_iter().take(KEYS) {
            match key {
                "join_request" => request = Some(value),
                "json" => json = is_on(value),
                _ => {}
            }
        }
        let missing = || Refused::new(400, "/rtc/v1 needs join_request=");
        let request = read_request(request.ok_or_else(missing)?, limits.message)?;
        let client = request.client_info.unwrap_or_default();
        let settings = request.connection_settings.unwrap_or_default();
        let resumes = request.reconnect.then_some(request.participant_sid);
        if resumes.as_ref().is_some_and(String::is_empty) {
            let reason = "who reconnects names the participant that goes on";
            return Err(Refused::new(400, reason));
        }
        let offer = request.publisher_offer;
        if offer.as_ref().is_some_and(|offer| offer.sdp.len() > OFFER) {
            return Err(Refused::new(400, "join_request: its offer is too long"));
        }
        Ok(Self {
            auto_subscribe: settings.auto_subscribe,
            auto_subscribe_data: settings.auto_subscribe_data_track.unwrap_or(false),
            adaptive_stream: settings.adaptive_stream,
            resumes,
            client_protocol: client.client_protocol,
            capabilities: client.capabilities.into_iter().take(KEYS).collect(),
            json,
            v1: Some(First {
                offer,
                tracks: request
                    .add_track_requests
                    .into_iter()
                    .take(limits.tracks)
                    .collect(),
            }),
        })
    }
}

/// A request of no more than so many octets, unpacked.
fn read_request(text: &str, most: usize) -> Result<JoinRequest, Refused> {
    let bad = |why: &str| Refused::new(400, format!("join_request: {why}"));
    if text.len() > most {
        return Err(bad("it is too long"));
    }
    // The other alphabet's two letters; a plus sign in a query is a blank.
    let text = text.replace(['+', ' '], "-").replace('/', "_");
    let octets = BASE64.decode(text).map_err(|_| bad("it is no Base64"))?;
    let wrapped = WrappedJoinRequest::decode(&*octets).map_err(|_| bad("it is no message"))?;
    let octets = match wrapped.compression() {
        Compression::None => wrapped.join_request,
        Compression::Gzip => {
            let mut plain = Vec::new();
            // One octet more than there may be tells that there is more. Nothing of what is beyond is unpacked.
            let decoder = GzDecoder::new(&*wrapped.join_request);
            let read = decoder.take(most as u64 + 1).read_to_end(&mut plain);
            read.map_err(|_| bad("it can't be unpacked"))?;
            plain
        }
    };
    if octets.len() > most {
        return Err(bad("it is too long"));
    }
    JoinRequest::decode(&*octets).map_err(|_| bad("there is no message in it"))
}

fn is_on(value: &str) -> bool {
    matches!(value, "1" | "true")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(request: &JoinRequest, compression: Compression, url_safe: bool) -> String {
        let plain = request.encode_to_vec();
        let join_request = match compression {
            Compression::None => plain,
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
                encoder.write_all(&plain).unwrap();
                encoder.finish().unwrap()
            }
        };
        let wrapped = WrappedJoinRequest {
            compression: compression.into(),
            join_request,
        };
        match url_safe {
            true => URL_SAFE_NO_PAD.encode(wrapped.encode_to_vec()),
            false => STANDARD.encode(wrapped.encode_to_vec()),
        }
    }

    #[test]
    fn requests_are_read_however_they_are_packed() {
        let offer = SessionDescription {
            r#type: "offer".into(),
            sdp: "v=0\r\n???>>>".repeat(500),
            id: 1,
            ..SessionDescription::default()
        };
        let request = JoinRequest {
            publisher_offer: Some(offer.clone()),
            ..JoinRequest::default()
        };
        let limits = Limits::default();
        for compression in [Compression::None, Compression::Gzip] {
            for url_safe in [true, false] {
                let text = packed(&request, compression, url_safe);
                let query = [("access_token", "x"), ("join_request", text.as_str())];
                let hello = Hello::from_request(query, &limits).unwrap();
                assert!(!hello.auto_subscribe && hello.resumes.is_none());
                assert_eq!(hello.v1.unwrap().offer.as_ref(), Some(&offer));
            }
        }
        let back = JoinRequest {
            reconnect: true,
            participant_sid: "PA_1".into(),
            ..JoinRequest::default()
        };
        let text = packed(&back, Compression::Gzip, true);
        let hello = Hello::from_request([("join_request", text.as_str())], &limits).unwrap();
        assert_eq!(hello.resumes.as_deref(), Some("PA_1"));
    }

    #[test]
    fn requests_that_are_none_or_too_much_are_refused() {
        let limits = Limits::default();
        let large = JoinRequest {
            metadata: "x".repeat(100 * limits.message),
            ..JoinRequest::default()
        };
        let bomb = packed(&large, Compression::Gzip, true);
        assert!(bomb.len() < limits.message, "{}", bomb.len());
        let plain = packed(&large, Compression::None, true);
        let offers = |octets: usize| JoinRequest {
            publisher_offer: Some(SessionDescription {
                sdp: "x".repeat(octets),
                ..SessionDescription::default()
            }),
            ..JoinRequest::default()
        };
        let most = packed(&offers(OFFER), Compression::Gzip, true);
        assert!(Hello::from_request([("join_request", &*most)], &limits).is_ok());
        let offer = packed(&offers(OFFER + 1), Compression::Gzip, true);
        let nobody = JoinRequest {
            reconnect: true,
            ..JoinRequest::default()
        };
        let nobody = packed(&nobody, Compression::None, true);
        for text in [
            "",
            "%",
            "AAAA",
            "CAESAxQUFA",
            &*bomb,
            &*plain,
            &*nobody,
            &*offer,
        ] {
            let refused = Hello::from_request([("join_request", text)], &limits);
            // Nothing at all is a request with nothing in it.
            let is_taken = text.is_empty();
            assert_eq!(refused.is_ok(), is_taken, "{}", &text[..text.len().min(40)]);
        }
        assert_eq!(Hello::from_request([], &limits).unwrap_err().status, 400);
    }

    #[test]
    fn queries_of_real_clients() {
        let js = [
            ("access_token", "x"),
            ("auto_subscribe", "1"),
            ("sdk", "js"),
            ("version", "2.23.0"),
            ("protocol", "17"),
            ("client_protocol", "2"),
        ];
        let hello = Hello::from_query(js).unwrap();
        assert!(hello.auto_subscribe && !hello.adaptive_stream);
        assert_eq!((hello.client_protocol, hello.resumes), (2, None));
        let load = Hello::from_query([("auto_subscribe", "0"), ("sdk", "go")]).unwrap();
        assert!(!load.auto_subscribe && !load.json && !load.auto_subscribe_data);
        let data = Hello::from_query([("auto_subscribe_data_track", "1")]).unwrap();
        assert!(data.auto_subscribe_data);
        assert!(Hello::from_query([("json", "1")]).unwrap().json);
        let resumed = Hello::from_query([("reconnect", "1"), ("sid", "PA_1")]).unwrap();
        assert_eq!(resumed.resumes.as_deref(), Some("PA_1"));
        assert_eq!(
            Hello::from_query([("reconnect", "1")]).unwrap_err().status,
            400
        );
    }
}
