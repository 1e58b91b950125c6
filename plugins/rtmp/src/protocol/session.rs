// SPDX-License-Identifier: MPL-2.0
//! One client's side of the conversation: handshake, commands, and what is answered (RTMP 1.0, 5.2, 5.4 and 7), for
//! `rtmpserversrc/client.rs`.

use std::collections::HashMap;

use bytes::Bytes;
use rml_amf0::Amf0Value;
use rml_rtmp::chunk_io::ChunkSerializer;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::messages::{PeerBandwidthLimitType, RtmpMessage, UserControlEventType};
use rml_rtmp::time::RtmpTimestamp;

use super::chunks::{ChunkReader, Message};
use super::{Misuse, amf0};

/// A command names things; but a long string is one of more than 64 KiB.
const MAX_COMMAND: usize = 128 * 1024;
/// A client sends about eight.
const MAX_COMMANDS: u32 = 200;
const WINDOW: u32 = 2_500_000;
const SMALLEST_WINDOW: u32 = 64 * 1024;
/// Every answer fits into one chunk.
const CHUNK_SIZE: u32 = 4_096;
const STREAM: u32 = 1;

/// What the client wants, or sends.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    /// To publish: `accept` or `refuse` it.
    Publish {
        app: String,
        key: String,
    },
    Audio {
        timestamp: u32,
        data: Bytes,
    },
    Video {
        timestamp: u32,
        data: Bytes,
    },
    /// It publishes no more, and may again.
    Unpublished,
    /// It wanted what there is not, and has been told so.
    Refused(&'static str),
}

/// See the module's description.
pub(crate) struct Session {
    handshake: Option<Handshake>,
    chunks: ChunkReader,
    writer: ChunkSerializer,
    output: Vec<u8>,
    app: Option<String>,
    accepted: bool,
    /// It has published before: what it sent then may still come in.
    published: bool,
    commands: u32,
    /// Bytes since the last acknowledgement, all bytes, and how many are to be acknowledged at once.
    unacknowledged: u32,
    received: u32,
    window: u32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("app", &self.app)
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}

fn text(text: &str) -> Amf0Value {
    Amf0Value::Utf8String(text.to_owned())
}

fn object<const N: usize>(fields: [(&str, Amf0Value); N]) -> Amf0Value {
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Amf0Value::Object(HashMap::from(fields))
}

fn status(level: &str, code: &str, description: &str) -> Amf0Value {
    object([
        ("level", text(level)),
        ("code", text(code)),
        ("description", text(description)),
        ("objectEncoding", Amf0Value::Number(0.0)),
    ])
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            handshake: Some(Handshake::new(PeerType::Server)),
            chunks: ChunkReader::default(),
            writer: ChunkSerializer::new(),
            output: Vec::new(),
            app: None,
            accepted: false,
            published: false,
            commands: 0,
            unacknowledged: 0,
            received: 0,
            window: WINDOW,
        }
    }

    pub(crate) fn handshake_done(&self) -> bool {
        self.handshake.is_none()
    }

    /// What is to be sent now.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Takes what came from the client. Then `next` is to be called until it gives none.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Misuse> {
        let Some(handshake) = &mut self.handshake else {
            let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            self.received = self.received.wrapping_add(length);
            self.unacknowledged = self.unacknowledged.saturating_add(length);
            self.chunks.feed(bytes);
            return self.acknowledge();
        };
        let result = handshake
            .process_bytes(bytes)
            .map_err(|err| Misuse::Handshake(err.to_string()))?;
        match result {
            HandshakeProcessResult::InProgress { response_bytes } => {
                self.output.extend(response_bytes);
            }
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => {
                self.output.extend(response_bytes);
                self.handshake = None;
                self.chunks.feed(&remaining_bytes);
            }
        }
        Ok(())
    }

    /// What comes next of what was fed.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Misuse> {
        if self.handshake.is_some() {
            return Ok(None);
        }
        while let Some(message) = self.chunks.next()? {
            if let Some(event) = self.message(message)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn acknowledge(&mut self) -> Result<(), Misuse> {
        if self.unacknowledged < self.window {
            return Ok(());
        }
        self.unacknowledged = 0;
        let sequence_number = self.received;
        self.send(RtmpMessage::Acknowledgement { sequence_number }, 0)
    }

    fn message(&mut self, message: Message) -> Result<Option<Event>, Misuse> {
        let timestamp = message.timestamp;
        match message.kind {
            1 => self.chunks.set_chunk_size(control(&message.data)?)?,
            2 => self.chunks.abort(control(&message.data)?)?,
            5 => self.window = control(&message.data)?.max(SMALLEST_WINDOW),
            8 | 9 if !self.accepted && self.published => {}
            8 | 9 if !self.accepted => return Err(Misuse::Unpublished),
            8 => {
                let data = message.data;
                return Ok(Some(Event::Audio { timestamp, data }));
            }
            9 => {
                let data = message.data;
                return Ok(Some(Event::Video { timestamp, data }));
            }
            17 | 20 => return self.command(&message),
            // Acknowledgements, pings, metadata: nothing depends on them.
            _ => {}
        }
        Ok(None)
    }

    fn command(&mut self, message: &Message) -> Result<Option<Event>, Misuse> {
        self.commands += 1;
        if self.commands > MAX_COMMANDS {
            return Err(Misuse::Commands(MAX_COMMANDS));
        }
        if message.data.len() > MAX_COMMAND {
            return Err(Misuse::TooLong(message.data.len(), MAX_COMMAND));
        }
        // An AMF3 command begins with a zero and goes on as AMF0.
        let data = match (message.kind, message.data.first()) {
            (17, Some(0)) => &message.data[1..],
            _ => &message.data[..],
        };
        let mut values = amf0::read(data)
            .map_err(|err| Misuse::Command(err.to_string()))?
            .into_iter();
        let (Some(Amf0Value::Utf8String(name)), Some(Amf0Value::Number(transaction))) =
            (values.next(), values.next())
        else {
            return Err(Misuse::Command("it has no name and number".into()));
        };
        let object = values.next();
        let argument = values.next();
        match (name.as_str(), argument) {
            ("connect", _) => self.connect(transaction, object),
            ("createStream", _) => {
                let stream = Amf0Value::Number(f64::from(STREAM));
                self.answer("_result", transaction, Amf0Value::Null, stream, 0)?;
                Ok(None)
            }
            ("publish", Some(Amf0Value::Utf8String(key))) if !self.accepted => {
                let app = self.app.clone();
                let app = app.ok_or_else(|| Misuse::Command("publish before connect".into()))?;
                Ok(Some(Event::Publish { app, key }))
            }
            ("publish", _) => Err(Misuse::Command("publish of nothing, or twice".into())),
            ("play" | "play2", _) => {
                self.on_status(
                    "error",
                    "NetStream.Play.Failed",
                    "This server only takes streams.",
                )?;
                Ok(Some(Event::Refused("it wants to play")))
            }
            ("FCUnpublish" | "deleteStream" | "closeStream", _) if self.accepted => {
                self.accepted = false;
                let code = "NetStream.Unpublish.Success";
                self.on_status("status", code, "You publish no more.")?;
                Ok(Some(Event::Unpublished))
            }
            // releaseStream, FCPublish, _checkbw and whatever else: no encoder waits for an answer.
            _ => Ok(None),
        }
    }

    fn connect(
        &mut self,
        transaction: f64,
        object_sent: Option<Amf0Value>,
    ) -> Result<Option<Event>, Misuse> {
        let Some(Amf0Value::Object(mut fields)) = object_sent else {
            return Err(Misuse::Command("connect without an object".into()));
        };
        let Some(Amf0Value::Utf8String(app)) = fields.remove("app") else {
            return Err(Misuse::Command("connect without an app".into()));
        };
        self.app = Some(app.trim_matches('/').to_owned());
        self.send(RtmpMessage::WindowAcknowledgement { size: WINDOW }, 0)?;
        let limit_type = PeerBandwidthLimitType::Dynamic;
        let size = WINDOW;
        self.send(RtmpMessage::SetPeerBandwidth { size, limit_type }, 0)?;
        let packet = self
            .writer
            .set_max_chunk_size(CHUNK_SIZE, RtmpTimestamp::new(0))
            .map_err(|err| Misuse::Answer(err.to_string()))?;
        self.output.extend(packet.bytes);
        let server = object([
            ("fmsVer", text("FMS/3,0,1,123")),
            ("capabilities", Amf0Value::Number(31.0)),
        ]);
        let code = "NetConnection.Connect.Success";
        let info = status("status", code, "Connected.");
        self.answer("_result", transaction, server, info, 0)?;
        Ok(None)
    }

    /// Lets the client publish.
    pub(crate) fn accept(&mut self) -> Result<(), Misuse> {
        self.accepted = true;
        self.published = true;
        let begin = RtmpMessage::UserControl {
            event_type: UserControlEventType::StreamBegin,
            stream_id: Some(STREAM),
            buffer_length: None,
            timestamp: None,
        };
        self.send(begin, 0)?;
        self.on_status("status", "NetStream.Publish.Start", "Go ahead.")
    }

    /// Tells the client why it may not publish, or no more.
    pub(crate) fn refuse(&mut self, code: &str, why: &str) -> Result<(), Misuse> {
        self.accepted = false;
        self.on_status("error", code, why)
    }

    fn on_status(&mut self, level: &str, code: &str, description: &str) -> Result<(), Misuse> {
        let info = status(level, code, description);
        self.answer("onStatus", 0.0, Amf0Value::Null, info, STREAM)
    }

    fn answer(
        &mut self,
        name: &str,
        transaction_id: f64,
        command_object: Amf0Value,
        argument: Amf0Value,
        stream: u32,
    ) -> Result<(), Misuse> {
        let command = RtmpMessage::Amf0Command {
            command_name: name.to_owned(),
            transaction_id,
            command_object,
            additional_arguments: vec![argument],
        };
        self.send(command, stream)
    }

    fn send(&mut self, message: RtmpMessage, stream: u32) -> Result<(), Misuse> {
        let payload = message
            .into_message_payload(RtmpTimestamp::new(0), stream)
            .map_err(|err| Misuse::Answer(err.to_string()))?;
        let packet = self
            .writer
            .serialize(&payload, false, false)
            .map_err(|err| Misuse::Answer(err.to_string()))?;
        self.output.extend(packet.bytes);
        Ok(())
    }
}

/// The number that a control message begins with.
fn control(data: &[u8]) -> Result<u32, Misuse> {
    match data {
        [a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(Misuse::Control),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A session whose handshake is done.
    fn session() -> Session {
        let mut session = Session::new();
        let mut client = vec![3];
        client.extend_from_slice(&[0; 1536]);
        session.feed(&client).unwrap();
        assert_eq!(session.take_output().len(), 1 + 2 * 1536);
        assert!(!session.handshake_done());
        session.feed(&[0; 1536]).unwrap();
        assert!(session.handshake_done());
        session
    }

    fn send(session: &mut Session, kind: u8, data: &[u8]) -> Result<Option<Event>, Misuse> {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        let mut bytes = vec![
            3, 0, 0, 0, length[1], length[2], length[3], kind, 0, 0, 0, 0,
        ];
        for (n, part) in data.chunks(128).enumerate() {
            if n > 0 {
                bytes.push(0xc3);
            }
            bytes.extend_from_slice(part);
        }
        session.feed(&bytes)?;
        session.next()
    }

    fn command(session: &mut Session, values: &[Amf0Value]) -> Result<Option<Event>, Misuse> {
        let data = rml_amf0::serialize(&values.to_vec()).unwrap();
        send(session, 20, &data)
    }

    fn connected() -> Session {
        let mut session = session();
        let app = object([("app", text("live/"))]);
        let connect = [text("connect"), Amf0Value::Number(1.0), app];
        assert_eq!(command(&mut session, &connect).unwrap(), None);
        let answer = session.take_output();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains("NetConnection.Connect.Success"));
        session
    }

    fn publish(session: &mut Session) -> Result<Option<Event>, Misuse> {
        let publish = [
            text("publish"),
            Amf0Value::Number(4.0),
            Amf0Value::Null,
            text("secret"),
            text("live"),
        ];
        command(session, &publish)
    }

    #[test]
    fn a_publisher_is_asked_for_and_then_sends() {
        let mut session = connected();
        assert!(matches!(
            send(&mut session, 9, &[0x17]),
            Err(Misuse::Unpublished)
        ));
        let mut session = connected();
        let (app, key) = ("live".to_owned(), "secret".to_owned());
        assert_eq!(
            publish(&mut session).unwrap(),
            Some(Event::Publish { app, key })
        );
        session.accept().unwrap();
        let answer = session.take_output();
        assert!(String::from_utf8_lossy(&answer).contains("NetStream.Publish.Start"));
        let video = send(&mut session, 9, &[0x17]).unwrap();
        let data = Bytes::from_static(&[0x17]);
        assert_eq!(video, Some(Event::Video { timestamp: 0, data }));
        let goodbye = [text("deleteStream"), Amf0Value::Number(5.0)];
        assert_eq!(
            command(&mut session, &goodbye).unwrap(),
            Some(Event::Unpublished)
        );
        // What was on its way is no misuse, and it may come back.
        assert_eq!(send(&mut session, 9, &[0x17]).unwrap(), None);
        assert!(matches!(
            publish(&mut session),
            Ok(Some(Event::Publish { .. }))
        ));
        session.accept().unwrap();
        assert!(send(&mut session, 9, &[0x17]).unwrap().is_some());
    }

    #[test]
    fn who_wants_to_play_is_told_that_it_cannot() {
        let mut session = connected();
        let play = [text("play"), Amf0Value::Number(4.0)];
        assert!(matches!(
            command(&mut session, &play),
            Ok(Some(Event::Refused(_)))
        ));
        let answer = session.take_output();
        assert!(String::from_utf8_lossy(&answer).contains("NetStream.Play.Failed"));
    }

    #[test]
    fn misuse_is_told_apart() {
        assert!(matches!(
            Session::new().feed(b"GET / HTTP/1.1\r\n\r\n"),
            Err(Misuse::Handshake(_))
        ));
        let mut early = session();
        assert!(matches!(publish(&mut early), Err(Misuse::Command(_))));
        assert!(matches!(
            send(&mut session(), 20, &[7; MAX_COMMAND + 1]),
            Err(Misuse::TooLong(_, MAX_COMMAND))
        ));
        assert!(matches!(
            send(&mut session(), 1, &[0, 0]),
            Err(Misuse::Control)
        ));
        let mut chatty = session();
        let ping = [text("ping"), Amf0Value::Number(0.0)];
        let error = (0..=MAX_COMMANDS).find_map(|_| command(&mut chatty, &ping).err());
        assert!(matches!(error, Some(Misuse::Commands(_))));
    }

    #[test]
    fn a_command_nested_as_deep_as_it_can_be_needs_little_stack() {
        let nested: Vec<u8> = [3u8, 0, 1, b'a']
            .into_iter()
            .cycle()
            .take(MAX_COMMAND)
            .collect();
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        let ended = thread.spawn(move || send(&mut session(), 20, &nested).is_err());
        assert!(ended.unwrap().join().unwrap());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, kind in 0u8..24) {
            let _ = send(&mut session(), kind, &bytes);
            let mut other = session();
            let _ = other.feed(&bytes);
            while let Ok(Some(_)) = other.next() {}
        }
    }
}
