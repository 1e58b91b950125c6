// SPDX-License-Identifier: MPL-2.0

//! Two ends of ours over a network that loses packets, and a peer that does what it likes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sfu_impair::{Conditions, Link, Rng};

use super::*;

/// What was told, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    Opened(ChannelId, ChannelConfig),
    Message(ChannelId, Message),
    Lost(ChannelId),
    Closed(ChannelId),
    Ended(DataEnd),
}

#[derive(Debug, Default)]
struct Ears {
    told: Mutex<Vec<Told>>,
    /// There is no room.
    full: Mutex<bool>,
    refused: Mutex<usize>,
    /// Panics at the next message.
    panics: Mutex<bool>,
}

impl Ears {
    fn told(&self) -> MutexGuard<'_, Vec<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn messages(&self, of: ChannelId) -> Vec<Message> {
        let told = self.told();
        let messages = told.iter().filter_map(|told| match told {
            Told::Message(id, message) if *id == of => Some(message.clone()),
            _ => None,
        });
        messages.collect()
    }

    /// The channels that are open, by their labels.
    fn open(&self) -> BTreeMap<String, (ChannelId, ChannelConfig)> {
        let mut open = BTreeMap::new();
        for told in self.told().iter() {
            match told {
                Told::Opened(id, config) => {
                    open.insert(config.label.clone(), (*id, config.clone()));
                }
                Told::Closed(id) => open.retain(|_, (open, _)| open != id),
                _ => {}
            }
        }
        open
    }

    fn ended(&self) -> Option<DataEnd> {
        self.told().iter().find_map(|told| match told {
            Told::Ended(why) => Some(*why),
            _ => None,
        })
    }
}

impl DataObserver for Ears {
    fn opened(&self, channel: ChannelId, config: &ChannelConfig) {
        self.told().push(Told::Opened(channel, config.clone()));
    }

    fn message(&self, channel: ChannelId, message: &Message) -> bool {
        assert!(
            !std::mem::take(&mut *self.panics.lock().unwrap()),
            "as it was told to"
        );
        if *self.full.lock().unwrap() {
            *self.refused.lock().unwrap() += 1;
            return false;
        }
        self.told().push(Told::Message(channel, message.clone()));
        true
    }

    fn lost(&self, channel: ChannelId) {
        self.told().push(Told::Lost(channel));
    }

    fn closed(&self, channel: ChannelId) {
        self.told().push(Told::Closed(channel));
    }

    fn ended(&self, why: DataEnd) {
        self.told().push(Told::Ended(why));
    }
}

struct End {
    data: Data,
    ears: Arc<Ears>,
    due: Option<Instant>,
    /// From it to the other one.
    link: Link,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    /// What it has said last of itself and of the other one: tag, and numbers of DATA and SACK.
    said: Said,
}

#[derive(Debug, Clone, Copy, Default)]
struct Said {
    tag: [u8; 4],
    data: u32,
    sack: u32,
}

/// DTLS's client, and its server.
struct Pair {
    now: Instant,
    ends: [End; 2],
}

impl Pair {
    fn new(conditions: Conditions, seed: u64) -> Self {
        let now = Instant::now();
        let end = |is_client: bool| {
            let ears = Arc::new(Ears::default());
            let agreed = Some(AgreedData::new(None, Some(0)));
            End {
                data: Data::new(now, ears.clone(), is_client, agreed),
                ears,
                due: Some(now),
                link: Link::new(conditions, seed + u64::from(is_client)),
                under_way: VecDeque::new(),
                said: Said::default(),
            }
        };
        Self {
            now,
            ends: [end(true), end(false)],
        }
    }

    fn drain(&mut self, at: usize) {
        let End {
            data,
            due,
            link,
            under_way,
            said,
            ..
        } = &mut self.ends[at];
        let now = self.now;
        *due = data.drain(now, &mut |packet| {
            assert!(packet.len() <= 1_195, "{} octets", packet.len());
            said.hear(packet);
            if let Some(at) = link.pass(now, packet.len()) {
                under_way.push_back((at, packet.to_vec()));
            }
        });
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        for at in [0, 1] {
            self.drain(at);
        }
        loop {
            let next = self.ends.iter().flat_map(|end| {
                let arrival = end.under_way.front().map(|(at, _)| *at);
                [arrival, end.due]
            });
            let Some(next) = next.flatten().min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            for at in [0, 1] {
                while let Some((arrives, packet)) = self.ends[at].under_way.pop_front() {
                    if arrives > self.now {
                        self.ends[at].under_way.push_front((arrives, packet));
                        break;
                    }
                    let other = &mut self.ends[1 - at];
                    if !other.data.is_over_budget(self.now) {
                        other.data.receive(self.now, &packet);
                        other.due = Some(self.now);
                    }
                }
            }
            for at in [0, 1] {
                if self.ends[at].due.is_some_and(|due| due <= self.now) {
                    self.drain(at);
                }
            }
        }
        self.now = end;
    }

    fn command(&mut self, at: usize, command: DataCommand) {
        self.ends[at].data.command(self.now, command);
        self.drain(at);
    }

    fn send(&mut self, at: usize, channel: ChannelId, text: bool, data: impl Into<Arc<[u8]>>) {
        let data = data.into();
        let message = Message { text, data };
        self.command(at, DataCommand::Send { channel, message });
    }

    /// Opens a channel, and waits for it.
    fn open(&mut self, at: usize, config: &ChannelConfig) -> ChannelId {
        self.command(at, DataCommand::Open(config.clone()));
        for _ in 0..200 {
            self.run_for(Duration::from_millis(100));
            let opened = |at: usize| self.ends[at].ears.open().get(&config.label).cloned();
            if let (Some((id, _)), Some((other, told))) = (opened(at), opened(1 - at)) {
                assert_eq!((id, &told), (other, config));
                return id;
            }
        }
        panic!("{config:?} was not opened");
    }
}

fn lossy(loss: f64) -> Conditions {
    Conditions {
        loss,
        delay: Duration::from_millis(20),
        ..Conditions::default()
    }
}

fn config(label: &str, ordered: bool, reliability: Reliability) -> ChannelConfig {
    ChannelConfig {
        label: label.into(),
        protocol: "test".into(),
        ordered,
        reliability,
        negotiated: None,
    }
}

fn all_kinds() -> Vec<ChannelConfig> {
    vec![
        config("reliable", true, Reliability::Reliable),
        config("unordered", false, Reliability::Reliable),
        config("lossy", false, Reliability::Retransmits(0)),
        config("lossy in order", true, Reliability::Retransmits(0)),
        config("thrice", true, Reliability::Retransmits(3)),
        config("for a while", false, Reliability::Lifetime(200)),
    ]
}

/// A message that says which one it is, of any size up to a packet and sometimes more.
fn numbered(random: &mut Rng, number: u32) -> Vec<u8> {
    let most = if random.chance(0.02) { 20_000 } else { 600 };
    let mut data = number.to_be_bytes().to_vec();
    data.resize(4 + random.below(most), number as u8);
    data
}

fn number(message: &Message) -> u32 {
    let number = u32::from_be_bytes(*message.data.first_chunk().unwrap());
    assert!(
        message.data[4..].iter().all(|octet| *octet == number as u8),
        "whole"
    );
    number
}

/// What `SFU_MESSAGES` says, or a thousand.
fn count() -> u32 {
    let said = std::env::var("SFU_MESSAGES").ok();
    said.and_then(|said| said.parse().ok()).unwrap_or(1_000)
}

fn seed() -> u64 {
    let said = std::env::var("SFU_SEED").ok().and_then(|s| s.parse().ok());
    let seed = said.unwrap_or(7);
    println!("SFU_SEED={seed}");
    seed
}

#[test]
fn each_kind_of_channel_keeps_what_it_promises_with_loss() {
    let seed = seed();
    for opener in [0, 1] {
        let mut pair = Pair::new(lossy(0.02), seed);
        let mut random = Rng::new(seed);
        let kinds = all_kinds();
        let ids: Vec<_> = kinds.iter().map(|kind| pair.open(opener, kind)).collect();
        assert!(
            ids.iter().all(|id| usize::from(id.0 % 2) == opener),
            "{ids:?}"
        );
        let count = count();
        for n in 0..count {
            for id in &ids {
                for at in [0, 1] {
                    let message = numbered(&mut random, n);
                    pair.send(at, *id, n % 2 == 0, message);
                }
            }
            pair.run_for(Duration::from_millis(20));
        }
        pair.run_for(Duration::from_secs(20));
        for end in &pair.ends {
            assert_eq!(end.ears.ended(), None);
            for (kind, id) in kinds.iter().zip(&ids) {
                let got: Vec<_> = end.ears.messages(*id).iter().map(number).collect();
                let share = got.len() as f64 / f64::from(count);
                println!("{opener} {}: {share}", kind.label);
                let mut sorted = got.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), got.len(), "{}: twice", kind.label);
                assert!(!kind.ordered || sorted == got, "{}: in order", kind.label);
                let (least, most) = match kind.reliability {
                    Reliability::Reliable => (1.0, 1.0),
                    Reliability::Retransmits(0) => (0.9, 0.9999),
                    // What waits behind others, or is not seen to be missing in time, is given up.
                    Reliability::Lifetime(_) => (0.6, 1.0),
                    _ => (0.97, 1.0),
                };
                assert!((least..=most).contains(&share), "{}: {share}", kind.label);
            }
        }
    }
}

#[test]
fn texts_octets_and_empty_ones_come_as_they_were_sent() {
    let mut pair = Pair::new(lossy(0.0), 1);
    let reliable = pair.open(0, &all_kinds()[0]);
    let largest = vec![7; MESSAGE_MAX as usize];
    let sent: Vec<(bool, Vec<u8>)> = vec![
        (true, "größer".into()),
        (false, vec![0, 1, 2]),
        (true, vec![]),
        (false, vec![]),
        (false, vec![0]),
        (false, largest.clone()),
        (true, "last".into()),
    ];
    for at in [0, 1] {
        for (text, data) in &sent {
            pair.send(at, reliable, *text, data.clone());
        }
        // One that is too large is none.
        pair.send(at, reliable, false, [&largest[..], &[1]].concat());
        pair.send(at, ChannelId(99), false, vec![1]);
    }
    pair.run_for(Duration::from_secs(10));
    for end in &pair.ends {
        let got = end.ears.messages(reliable);
        let got = got.iter().map(|m| (m.text, m.data.to_vec()));
        assert!(got.eq(sent.iter().cloned()));
    }
}

#[test]
fn small_messages_make_no_packet_too_large() {
    let mut pair = Pair::new(lossy(0.0), 1);
    let reliable = pair.open(0, &all_kinds()[0]);
    for size in [0, 1, 2, 3, 5, 9, 21, 85] {
        // Only what waits is put together: commands are one after the other before anything leaves.
        let data: Arc<[u8]> = vec![1; size].into();
        for _ in 0..500 {
            let (text, data) = (false, data.clone());
            let message = Message { text, data };
            let command = DataCommand::Send {
                channel: reliable,
                message,
            };
            pair.ends[0].data.command(pair.now, command);
        }
        pair.run_for(Duration::from_secs(2));
    }
    assert_eq!(pair.ends[1].ears.messages(reliable).len(), 8 * 500);
}

#[test]
fn channels_are_closed_by_either_side_and_their_numbers_used_again() {
    let mut pair = Pair::new(lossy(0.02), seed());
    for round in 0..40 {
        let (opener, closer) = (round % 2, round / 2 % 2);
        let kind = &all_kinds()[round % 3];
        let id = pair.open(opener, kind);
        assert!(id.0 < 16, "{id:?} in round {round}");
        for n in 0..20_u8 {
            pair.send(closer, id, false, vec![n; 3_000]);
        }
        pair.command(closer, DataCommand::Close(id));
        pair.run_for(Duration::from_secs(5));
        for end in &pair.ends {
            assert!(
                end.ears.open().is_empty(),
                "round {round}: {:?}",
                end.ears.open()
            );
        }
        // What was sent before is there, and after it nothing leaves.
        let other = &pair.ends[1 - closer].ears;
        if kind.reliability == Reliability::Reliable {
            assert_eq!(other.messages(id).len(), 20, "round {round}");
        }
        pair.send(opener, id, false, vec![1]);
        for end in &pair.ends {
            end.ears.told().clear();
        }
    }
}

#[test]
fn channels_may_be_agreed_on_beforehand() {
    let mut pair = Pair::new(lossy(0.0), 1);
    let agreed = ChannelConfig {
        negotiated: Some(ChannelId(100)),
        ..config("agreed on", true, Reliability::Reliable)
    };
    for at in [0, 1] {
        pair.command(at, DataCommand::Open(agreed.clone()));
        // A second time it is none.
        pair.command(at, DataCommand::Open(agreed.clone()));
    }
    pair.run_for(Duration::from_secs(1));
    for at in [0, 1] {
        pair.send(at, ChannelId(100), true, b"hello".to_vec());
    }
    pair.run_for(Duration::from_secs(1));
    for end in &pair.ends {
        assert_eq!(end.ears.messages(ChannelId(100)).len(), 1);
        assert_eq!(end.ears.open().len(), 1);
    }
}

#[test]
fn who_has_no_room_makes_the_peer_wait_and_loses_nothing() {
    let mut pair = Pair::new(lossy(0.0), 1);
    let reliable = pair.open(0, &all_kinds()[0]);
    *pair.ends[1].ears.full.lock().unwrap() = true;
    for n in 0..60_u8 {
        pair.send(0, reliable, false, vec![n; 20_000]);
    }
    pair.run_for(Duration::from_secs(10));
    assert!(pair.ends[1].ears.messages(reliable).is_empty());
    let refused = *pair.ends[1].ears.refused.lock().unwrap();
    assert!(
        (100..=600).contains(&refused),
        "asked {refused} times in 10 s"
    );
    *pair.ends[1].ears.full.lock().unwrap() = false;
    pair.run_for(Duration::from_secs(30));
    let got = pair.ends[1].ears.messages(reliable);
    assert!(got.iter().map(|m| m.data[0]).eq(0..60), "{}", got.len());
}

#[test]
fn a_slow_receiver_loses_what_it_has_no_room_for_and_keeps_its_channels() {
    let slow = Conditions {
        rate: Some(200_000),
        ..lossy(0.0)
    };
    const SENT: usize = 5_000;
    let mut pair = Pair::new(slow, 1);
    let lossy = pair.open(0, &config("lossy", false, Reliability::Retransmits(0)));
    let reliable = pair.open(0, &config("reliable", true, Reliability::Reliable));
    // Eight times what the network carries.
    for _ in 0..1_000 {
        pair.send(0, lossy, false, vec![1; 2_000]);
        pair.run_for(Duration::from_millis(10));
    }
    assert_eq!(pair.ends[0].ears.ended(), None);
    let got = pair.ends[1].ears.messages(lossy).len();
    assert!((30..=500).contains(&got), "{got}");
    let lost = |pair: &Pair| {
        let told = pair.ends[0].ears.told();
        let lost = told.iter().filter(|told| **told == Told::Lost(reliable));
        lost.count()
    };
    // Whoever sends ten megabytes at once to it.
    for n in 0..SENT as u32 {
        let message = n.to_be_bytes().repeat(500);
        pair.send(0, reliable, false, message);
    }
    let kept = SENT - lost(&pair);
    assert!((3_900..=4_200).contains(&kept), "eight megabytes: {kept}");
    pair.run_for(Duration::from_secs(480));
    // What it gets is whole, in order, and goes on once there is room.
    pair.send(0, reliable, false, vec![7]);
    pair.run_for(Duration::from_secs(5));
    let got = pair.ends[1].ears.messages(reliable);
    assert_eq!(got.len(), kept + 1);
    let numbers = got[..kept].windows(2);
    assert!(
        numbers
            .map(|two| [&two[0].data[..4], &two[1].data[..4]])
            .all(|two| two[0] < two[1])
    );
    assert_eq!(&*got[kept].data, [7]);
    assert_eq!(
        (lost(&pair), pair.ends[0].ears.ended()),
        (SENT - kept, None)
    );
}

#[test]
fn channels_are_bounded() {
    let mut pair = Pair::new(lossy(0.0), 1);
    for n in 0..bounds::CHANNELS {
        pair.open(0, &config(&n.to_string(), true, Reliability::Reliable));
    }
    assert_eq!(pair.ends[1].ears.ended(), None);
    pair.command(
        0,
        DataCommand::Open(config("one more", true, Reliability::Reliable)),
    );
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.ends[1].ears.ended(), Some(DataEnd::TooManyChannels));
}

#[test]
fn a_panic_ends_the_channels_alone_and_is_told() {
    let mut pair = Pair::new(lossy(0.0), 1);
    let reliable = pair.open(0, &all_kinds()[0]);
    *pair.ends[1].ears.panics.lock().unwrap() = true;
    pair.send(0, reliable, false, vec![1]);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.ends[1].ears.ended(), Some(DataEnd::Failed));
}

/// Packets of two ends, changed at random and with good checksums.
#[test]
fn fuzz_sctp() {
    let mut pair = Pair::new(lossy(0.02), 3);
    let mut samples: Vec<Vec<u8>> = Vec::new();
    let ids: Vec<_> = all_kinds().iter().map(|kind| pair.open(0, kind)).collect();
    for n in 0..40_u32 {
        for id in &ids {
            pair.send(
                (n % 2) as usize,
                *id,
                n % 3 == 0,
                vec![n as u8; 1 + n as usize * 90],
            );
        }
        pair.run_for(Duration::from_millis(5));
        for end in &pair.ends {
            samples.extend(end.under_way.iter().map(|(_, packet)| packet.clone()));
        }
    }
    pair.command(0, DataCommand::Close(ids[0]));
    pair.run_for(Duration::from_millis(10));
    samples.extend(
        pair.ends[0]
            .under_way
            .iter()
            .map(|(_, packet)| packet.clone()),
    );
    samples.truncate(400);
    let mut inputs = 0_u32;
    sfu_fuzz::fuzz("SCTP", &samples, |packet| {
        if inputs.is_multiple_of(2_000) {
            // Anew, and in each state.
            pair = Pair::new(lossy(0.0), u64::from(inputs));
            pair.run_for(Duration::from_millis(u64::from(inputs / 2_000 % 4) * 40));
            if inputs / 2_000 % 2 == 1 {
                for kind in all_kinds() {
                    pair.command(0, DataCommand::Open(kind));
                }
                pair.run_for(Duration::from_millis(300));
            }
        }
        inputs += 1;
        let at = (inputs % 2) as usize;
        let now = pair.now;
        let [own, other] = [at, 1 - at].map(|at| pair.ends[at].said);
        let packet = sealed(packet, own, other);
        pair.ends[at].data.receive(now, &packet);
        pair.run_for(Duration::from_millis(1));
        assert_ne!(
            pair.ends[at].ears.ended(),
            Some(DataEnd::Failed),
            "the library panics"
        );
    });
}

impl Said {
    fn hear(&mut self, packet: &[u8]) {
        if let Some(tag) = packet.get(4..8).filter(|tag| **tag != [0; 4]) {
            self.tag.copy_from_slice(tag);
        }
        for_chunks(&mut packet.to_vec(), |kind, number| match kind {
            0 => self.data = *number,
            3 => self.sack = *number,
            _ => {}
        });
    }
}

/// Each chunk's type, and the number that it begins with.
fn for_chunks(packet: &mut [u8], mut act: impl FnMut(u8, &mut u32)) {
    let mut at = 12;
    while let Some([kind, _, high, low, octets @ ..]) = packet.get_mut(at..) {
        if let Some(octets) = octets.first_chunk_mut::<4>() {
            let mut number = u32::from_be_bytes(*octets);
            act(*kind, &mut number);
            *octets = number.to_be_bytes();
        }
        at += usize::from(u16::from_be_bytes([*high, *low]))
            .max(4)
            .next_multiple_of(4);
    }
}

/// The packet as if it were the other end's own, and new: with the tag that this end expects, numbers near those that are to come,
/// and the right checksum. Some are not.
fn sealed(packet: &[u8], own: Said, other: Said) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet.resize(packet.len().max(12), 0);
    let kind = packet.get(12).copied().unwrap_or_default();
    if !packet[7].is_multiple_of(16) && kind != 1 {
        packet[4..8].copy_from_slice(&other.tag);
    }
    for_chunks(&mut packet, |kind, number| {
        let near = |from: u32, by: u32| from.wrapping_add(by);
        match (kind, *number % 16) {
            (_, 15) => {}
            (0, by) => *number = near(other.data, by),
            (3, by) => *number = near(own.data, by.wrapping_sub(14)),
            (192 | 194, by) => *number = near(own.sack, by * by),
            _ => {}
        }
    });
    packet[8..12].fill(0);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// RFC 9260, appendix A.
fn crc32c(data: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for octet in data {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}
