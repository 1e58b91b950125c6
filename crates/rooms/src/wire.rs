// SPDX-License-Identifier: MPL-2.0

//! Messages on the WebSocket: protobuf in binary frames, JSON in text frames. Who sends text is answered in text.

use bytes::Bytes;
use livekit_protocol::{
    DataPacket, SignalRequest, SignalResponse, signal_request, signal_response,
};
use prost::Message as _;

/// What frames of one connection are written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Encoding {
    /// Binary frames.
    #[default]
    Protobuf,
    /// Text frames.
    Json,
}

/// A frame as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A binary one. To clone it is to share it.
    Binary(Bytes),
    /// A text one.
    Text(String),
}

/// A frame that holds no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A binary one.
    #[error("no protobuf message of a client: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A text one.
    #[error("no JSON message of a client: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads what a client says. `None`: a message of a kind that is not known here.
pub fn read(frame: &Frame) -> Result<Option<signal_request::Message>, WireError> {
    let request = match frame {
        Frame::Binary(octets) => SignalRequest::decode(octets.clone())?,
        Frame::Text(text) => serde_json::from_str::<SignalRequest>(text)?,
    };
    Ok(request.message)
}

/// Writes what the server says.
pub fn write(message: signal_response::Message, encoding: Encoding) -> Result<Frame, WireError> {
    let message = SignalResponse {
        message: Some(message),
    };
    Ok(match encoding {
        Encoding::Protobuf => Frame::Binary(message.encode_to_vec().into()),
        Encoding::Json => Frame::Text(serde_json::to_string(&message)?),
    })
}

/// What the server says in a binary frame, as a client reads it.
pub fn read_response(octets: &[u8]) -> Option<SignalResponse> {
    SignalResponse::decode(octets).ok()
}

/// Writes a packet of data.
pub fn data(packet: &DataPacket) -> Vec<u8> {
    packet.encode_to_vec()
}

/// Reads one.
pub fn read_data(octets: &[u8]) -> Option<DataPacket> {
    DataPacket::decode(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_say_the_same() {
        let text = Frame::Text(r#"{"mute":{"sid":"TR_1","muted":true}}"#.into());
        let message = read(&text).unwrap().unwrap();
        let request = SignalRequest {
            message: Some(message.clone()),
        };
        let binary = Frame::Binary(request.encode_to_vec().into());
        assert_eq!(read(&binary).unwrap(), Some(message));
        let pong = write(signal_response::Message::Pong(7), Encoding::Json).unwrap();
        assert_eq!(pong, Frame::Text(r#"{"pong":"7"}"#.into()));
    }

    #[test]
    fn what_is_no_message_is_an_error_and_what_is_new_is_none() {
        for bad in [Frame::Binary(vec![255; 9].into()), Frame::Text("{".into())] {
            read(&bad).unwrap_err();
        }
        // A field with a number that nobody has used.
        assert_eq!(
            read(&Frame::Binary(vec![0x82, 0x7d, 0].into())).unwrap(),
            None
        );
    }
}
