// SPDX-License-Identifier: MPL-2.0

//! What a client says of itself when it connects: the query of `/rtc` (v0).

use crate::claims::Refused;

/// What a client may ask for that has no limit of its own: keys of a query.
const KEYS: usize = 32;

/// See the module's description.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hello {
    /// Everything that is published is subscribed to.
    pub auto_subscribe: bool,
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

fn is_on(value: &str) -> bool {
    matches!(value, "1" | "true")
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!load.auto_subscribe && !load.json);
        assert!(Hello::from_query([("json", "1")]).unwrap().json);
        let resumed = Hello::from_query([("reconnect", "1"), ("sid", "PA_1")]).unwrap();
        assert_eq!(resumed.resumes.as_deref(), Some("PA_1"));
        assert_eq!(
            Hello::from_query([("reconnect", "1")]).unwrap_err().status,
            400
        );
    }
}
