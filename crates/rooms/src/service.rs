// SPDX-License-Identifier: MPL-2.0

//! `RoomService`, as LiveKit's server SDKs call it (Twirp): what applications may do with rooms from outside.
//!
//! A call is a method, a body in JSON or protobuf, and what its token grants; so is the answer, or a fault in Twirp's words.

mod json;
mod listed;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use livekit_protocol as proto;
use livekit_token::VideoGrants;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::media::Command;
use crate::room::Room;
use crate::rooms::{Now, Output, Rooms, Wanted};
pub(crate) use listed::Listed;

/// How the body of a call, and of its answer, is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/json`.
    Json,
    /// `application/protobuf`.
    Protobuf,
}

/// One call.
#[derive(Debug)]
pub struct Call {
    /// The method's name, as `CreateRoom`.
    pub method: String,
    /// Of the body and the answer.
    pub form: Form,
    /// The request.
    pub body: Vec<u8>,
    /// What its token grants; nothing where there is none.
    pub grants: VideoGrants,
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The HTTP status.
    pub status: u16,
    /// Twirp's word for it.
    pub code: &'static str,
    /// What it is.
    pub reason: String,
}

impl Fault {
    pub(crate) fn new(status: u16, code: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            status,
            code,
            reason,
        }
    }

    /// The token does not grant it, or there is none.
    pub fn denied() -> Self {
        Self::new(401, "unauthenticated", "permissions denied")
    }

    pub(crate) fn no_room() -> Self {
        Self::new(404, "not_found", "requested room does not exist")
    }

    pub(crate) fn nobody() -> Self {
        Self::new(404, "not_found", "participant does not exist")
    }

    pub(crate) fn too_large(what: &str, limit: usize) -> Self {
        let reason = format!("{what} is larger than {limit}");
        Self::new(400, "invalid_argument", reason)
    }

    /// The server is stopping.
    pub fn unavailable() -> Self {
        Self::new(503, "unavailable", "the server is stopping")
    }

    /// As it is answered, whatever the form of the call.
    pub fn json(&self) -> String {
        serde_json::json!({ "code": self.code, "msg": self.reason }).to_string()
    }
}

/// Where a method finds what it is about.
trait OfRoom {
    fn room(&self) -> &str;
}

macro_rules! of_room {
    ($($request:ident),*) => {
        $(impl OfRoom for proto::$request {
            fn room(&self) -> &str {
                &self.room
            }
        })*
    };
}

of_room!(
    ListParticipantsRequest,
    RoomParticipantIdentity,
    MuteRoomTrackRequest,
    UpdateParticipantRequest,
    UpdateSubscriptionsRequest,
    SendDataRequest,
    UpdateRoomMetadataRequest
);

/// What changes nothing of a room.
const READS: [&str; 3] = ["ListRooms", "ListParticipants", "GetParticipant"];

impl Rooms {
    /// Does what an application calls for. What is to be sent then comes by [`Rooms::poll`].
    pub fn serve(&mut self, at: Instant, call: &Call) -> Result<Bytes, Fault> {
        let answer = match call.method.as_str() {
            "ListRooms" => self.list_rooms(at, call),
            _ => self.served(self.now(at), call).map(Bytes::from),
        };
        if !READS.contains(&call.method.as_str()) {
            self.listed.forget();
        }
        if let Some(name) = self.worked_on.take() {
            self.schedule(&name);
        }
        answer
    }

    /// Those that are named, or all.
    fn list_rooms(&mut self, at: Instant, call: &Call) -> Result<Bytes, Fault> {
        let request: proto::ListRoomsRequest = call.read()?;
        call.require(call.grants.room_list)?;
        if !request.names.is_empty() {
            let names: BTreeSet<_> = request.names.iter().collect();
            let rooms = names.iter().filter_map(|name| self.rooms.get(*name));
            let rooms = rooms.map(Room::info).collect();
            let answer = call.write(&proto::ListRoomsResponse { rooms })?;
            return Ok(answer.into());
        }
        if let Some(answer) = self.listed.get(call.form, at) {
            return Ok(answer);
        }
        let rooms = self.rooms.values().map(Room::info).collect();
        let answer: Bytes = call.write(&proto::ListRoomsResponse { rooms })?.into();
        self.listed.keep(call.form, at, &answer);
        Ok(answer)
    }

    fn served(&mut self, now: Now, call: &Call) -> Result<Vec<u8>, Fault> {
        match call.method.as_str() {
            "CreateRoom" => call.answer(|request: proto::CreateRoomRequest| {
                call.require(call.grants.room_create)?;
                self.create_room(now, &request)
            }),
            "DeleteRoom" => call.answer(|request: proto::DeleteRoomRequest| {
                call.require(call.grants.room_create)?;
                self.delete_room(now, &request.room)
            }),
            "ListParticipants" => call.answer(|request: proto::ListParticipantsRequest| {
                call.administers(&request)?;
                let room = self.rooms.get(&request.room);
                let participants = room.map(Room::everybody).unwrap_or_default();
                Ok(proto::ListParticipantsResponse { participants })
            }),
            _ => self.serve_room(now, call),
        }
    }

    /// What is about one room that there is.
    fn serve_room(&mut self, now: Now, call: &Call) -> Result<Vec<u8>, Fault> {
        let nobody: fn() -> Fault = Fault::nobody;
        match call.method.as_str() {
            "GetParticipant" => call.answer(|request: proto::RoomParticipantIdentity| {
                let (room, _) = self.administered(call, &request, nobody)?;
                room.info_of(&request.identity).ok_or_else(nobody)
            }),
            "RemoveParticipant" => {
                call.answer(|request| self.remove_participant(now, call, &request))
            }
            "MutePublishedTrack" => call.answer(|request: proto::MuteRoomTrackRequest| {
                let (room, out) = self.administered(call, &request, nobody)?;
                room.mute_published(now, &request, out)
            }),
            "UpdateParticipant" => call.answer(|request: proto::UpdateParticipantRequest| {
                let (room, out) = self.administered(call, &request, nobody)?;
                room.update_participant(now, request, out)
            }),
            "UpdateSubscriptions" => call.answer(|request: proto::UpdateSubscriptionsRequest| {
                let (room, out) = self.administered(call, &request, nobody)?;
                room.update_subscriptions(now, request, out)
            }),
            "SendData" => call.answer(|request: proto::SendDataRequest| {
                let missing = || Fault::new(503, "unavailable", "no response from servers");
                let (room, out) = self.administered(call, &request, missing)?;
                room.send_data(request, out)
            }),
            "UpdateRoomMetadata" => call.answer(|request: proto::UpdateRoomMetadataRequest| {
                let (room, out) = self.administered(call, &request, Fault::no_room)?;
                room.update_metadata_of_room(request.metadata, out)
            }),
            method => {
                let path = format!("/twirp/livekit.RoomService/{method}");
                let reason = format!("no handler for path {path:?}");
                Err(Fault::new(404, "bad_route", reason))
            }
        }
    }

    /// The room that a call is about, if its token is for that.
    fn administered(
        &mut self,
        call: &Call,
        request: &impl OfRoom,
        missing: fn() -> Fault,
    ) -> Result<(&mut Room, &mut VecDeque<Output>), Fault> {
        call.administers(request)?;
        self.worked_on = Some(request.room().to_owned());
        let room = self.rooms.get_mut(request.room()).ok_or_else(missing)?;
        Ok((room, &mut self.outputs))
    }

    fn create_room(
        &mut self,
        now: Now,
        request: &proto::CreateRoomRequest,
    ) -> Result<proto::Room, Fault> {
        let limits = self.config.limits;
        if request.name.is_empty() {
            return Err(Fault::new(400, "invalid_argument", "name is missing"));
        }
        if request.name.len() > limits.name {
            return Err(Fault::too_large("name", limits.name));
        }
        if request.metadata.len() > limits.metadata {
            return Err(Fault::too_large("metadata", limits.metadata));
        }
        if !self.rooms.contains_key(&request.name) {
            if self.rooms.len() >= limits.rooms {
                let reason = "there are too many rooms: try again later";
                return Err(Fault::new(503, "unavailable", reason));
            }
            let wanted = Wanted {
                empty_timeout: request.empty_timeout,
                departure_timeout: request.departure_timeout,
                max_participants: request.max_participants,
                metadata: request.metadata.clone(),
            };
            self.open(now, &request.name, &wanted);
            self.worked_on = Some(request.name.clone());
        }
        self.rooms
            .get(&request.name)
            .map(Room::info)
            .ok_or_else(Fault::no_room)
    }

    fn delete_room(&mut self, now: Now, name: &str) -> Result<proto::DeleteRoomResponse, Fault> {
        let room = self.rooms.get(name).ok_or_else(Fault::no_room)?;
        for sid in room.sids() {
            self.remove(now, name, &sid, proto::DisconnectReason::RoomDeleted);
        }
        self.close(now, name);
        Ok(proto::DeleteRoomResponse {})
    }

    fn remove_participant(
        &mut self,
        now: Now,
        call: &Call,
        request: &proto::RoomParticipantIdentity,
    ) -> Result<proto::RemoveParticipantResponse, Fault> {
        call.administers(request)?;
        let room = self.rooms.get(&request.room);
        let sid = room.and_then(|room| room.of_identity(&request.identity));
        let sid = sid.ok_or_else(Fault::nobody)?;
        let reason = proto::DisconnectReason::ParticipantRemoved;
        self.remove(now, &request.room, &sid, reason);
        self.worked_on = Some(request.room.clone());
        Ok(proto::RemoveParticipantResponse {})
    }
}

impl Call {
    fn require(&self, granted: bool) -> Result<(), Fault> {
        granted.then_some(()).ok_or_else(Fault::denied)
    }

    /// `roomAdmin` is for the room that the token names.
    fn administers(&self, request: &impl OfRoom) -> Result<(), Fault> {
        let room = request.room();
        self.require(self.grants.room_admin && !room.is_empty() && self.grants.room == room)
    }

    /// The request read, and the answer written, in the call's form.
    fn answer<Q, A>(&self, serve: impl FnOnce(Q) -> Result<A, Fault>) -> Result<Vec<u8>, Fault>
    where
        Q: Message + Default + DeserializeOwned,
        A: Message + Serialize,
    {
        let answer = serve(self.read()?)?;
        self.write(&answer)
    }

    fn read<Q: Message + Default + DeserializeOwned>(&self) -> Result<Q, Fault> {
        let malformed = |why: String| Fault::new(400, "malformed", why);
        match self.form {
            Form::Json => json::read(&self.body).map_err(|e| malformed(e.to_string())),
            Form::Protobuf => Q::decode(self.body.as_slice()).map_err(|e| malformed(e.to_string())),
        }
    }

    fn write(&self, answer: &(impl Message + Serialize)) -> Result<Vec<u8>, Fault> {
        match self.form {
            Form::Json => json::write(&self.method, answer)
                .map_err(|e| Fault::new(500, "internal", e.to_string())),
            Form::Protobuf => Ok(answer.encode_to_vec()),
        }
    }
}

/// Data from outside for a participant.
pub(crate) fn deliver(
    participant: &crate::sid::Sid,
    reliable: bool,
    packet: &std::sync::Arc<[u8]>,
) -> Output {
    Output::Media(Command::Data {
        participant: participant.clone(),
        reliable,
        packet: packet.clone(),
    })
}
