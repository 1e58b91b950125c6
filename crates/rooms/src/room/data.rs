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
    /// What somebody says, if it may and has not said it before.
    fn taken(&mut self, now: Now, sid: &Sid, reliable: bool, packet: &[u8]) -> Option<DataPacket> {
        let limit = self.config.limits.message;
        let sender = self.participants.get_mut(sid)?;
        sender.heard_of(now);
        if packet.len() > limit {
            return None;
        }
        let packet = DataPacket::decode(packet).ok()?;
        // What it may not say has come, too: it need not say it again.
        let is_new = !reliable || sender.is_new(packet.sequence);
        (is_new && sender.permission.can_publish_data).then_some(packet)
    }

    /// Somebody says something to others, on the channel of this kind. Who it comes from is for us to say.
    pub(crate) fn data(
        &mut self,
        now: Now,
        sid: &Sid,
        reliable: bool,
        packet: &[u8],
        out: &mut Outputs,
    ) {
        let Some(mut packet) = self.taken(now, sid, reliable, packet) else {
            return;
        };
        let Some(sender) = self.participants.get(sid) else {
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
        // Figures of clients are for who watches over the room.
        let is_metrics = matches!(packet.value, Some(Value::Metrics(_)));
        let encoded: Arc<[u8]> = packet.encode_to_vec().into();
        for other in self.participants.values() {
            let is_there = other.sid != *sid && other.state == State::Active;
            let may = !is_metrics || other.permission.can_subscribe_metrics;
            if is_there && may && is_meant(&other.identity, &other.sid) {
                out.push_back(Output::Media(Command::Data {
                    participant: other.sid.clone(),
                    reliable,
                    packet: encoded.clone(),
                }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use livekit_protocol::MetricsBatch;

    use super::*;
    use crate::{Config, Connection, Hello, Keys, Limits, Negotiated, Rooms};

    #[test]
    fn figures_of_clients_reach_those_who_are_granted_them() {
        const NOW: u64 = 1_800_000_000;
        let keys: Keys = "key:secret".parse().unwrap();
        let now = Instant::now();
        let mut rooms = Rooms::new(Config::default(), now, SystemTime::now());
        let mut join = |n: u64, watches: bool| {
            let claims = serde_json::json!({
                "iss": "key", "sub": n.to_string(), "exp": NOW + 60,
                "video": {"roomJoin": true, "room": "r", "canSubscribeMetrics": watches},
            });
            let key = jsonwebtoken::EncodingKey::from_secret(b"secret");
            let header = jsonwebtoken::Header::default();
            let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            let permit = keys.permit(&token, NOW, &Limits::default()).unwrap();
            let joined = rooms.join(now, Connection(n), permit, Hello::default());
            let sid = joined.unwrap().unwrap();
            let up = Negotiated::Connected { publisher: false };
            rooms.negotiated(now, sid.as_str(), up);
            sid
        };
        let [ann, _ben, watcher] = [join(1, false), join(2, false), join(3, true)];
        while rooms.poll().is_some() {}
        let packet = DataPacket {
            value: Some(Value::Metrics(MetricsBatch::default())),
            ..DataPacket::default()
        };
        rooms.data(now, ann.as_str(), true, &packet.encode_to_vec());
        let mut reached = Vec::new();
        while let Some(output) = rooms.poll() {
            if let Output::Media(Command::Data { participant, .. }) = output {
                reached.push(participant);
            }
        }
        assert_eq!(reached, [watcher]);
    }
}
