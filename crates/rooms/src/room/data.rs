// SPDX-License-Identifier: MPL-2.0

//! What clients say to one another by way of the server: part of [`Room`].

use std::collections::HashSet;
use std::sync::Arc;

use livekit_protocol::DataPacket;
use livekit_protocol::data_packet::{Kind, Value};
use livekit_protocol::participant_info::State;
use prost::Message as _;

use super::{Outputs, Room};
use crate::media::Command;
use crate::rooms::{Now, Output};
use crate::sid::Sid;

impl Room {
    /// Somebody says something to others, on the channel of this kind. Who it comes from is for us to say.
    pub(crate) fn data(
        &mut self,
        now: Now,
        sid: &Sid,
        reliable: bool,
        packet: &[u8],
        out: &mut Outputs,
    ) {
        let Some(sender) = self.participants.get_mut(sid) else {
            return;
        };
        sender.heard = now.at;
        if !sender.permission.can_publish_data || packet.len() > self.config.limits.message {
            return;
        }
        let Ok(mut packet) = DataPacket::decode(packet) else {
            return;
        };
        packet.kind = match reliable {
            true => Kind::Reliable.into(),
            false => Kind::Lossy.into(),
        };
        packet.participant_identity.clone_from(&sender.identity);
        packet.participant_sid = String::from(sid);
        let mut to_sids = Vec::new();
        if let Some(Value::User(user)) = &mut packet.value {
            user.participant_identity.clone_from(&sender.identity);
            user.participant_sid = String::from(sid);
            if packet.destination_identities.is_empty() {
                packet
                    .destination_identities
                    .clone_from(&user.destination_identities);
            }
            to_sids.clone_from(&user.destination_sids);
        }
        // A packet may name more than there are.
        let to = &packet.destination_identities;
        let to: HashSet<&str> = to.iter().map(String::as_str).collect();
        let to_sids: HashSet<&str> = to_sids.iter().map(String::as_str).collect();
        let is_meant = |identity: &str, sid: &Sid| {
            to.is_empty() && to_sids.is_empty()
                || to.contains(identity)
                || to_sids.contains(sid.as_str())
        };
        let encoded: Arc<[u8]> = packet.encode_to_vec().into();
        for other in self.participants.values() {
            let is_there = other.sid != *sid && other.state == State::Active;
            if is_there && is_meant(&other.identity, &other.sid) {
                out.push_back(Output::Media(Command::Data {
                    participant: other.sid.clone(),
                    reliable,
                    packet: encoded.clone(),
                }));
            }
        }
    }
}
