// SPDX-License-Identifier: MPL-2.0

//! Handshakes of two sessions, and what somebody else's records do to them.

use std::collections::HashSet;

use openssl::rsa::Rsa;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

mod lossy;

static DTLS: OpenSslDtls = OpenSslDtls::new(&[SrtpProfile::AEAD_AES_128_GCM]);

struct End {
    dtls: Box<dyn DtlsInstance>,
    keys: Option<Vec<u8>>,
    data: Vec<Vec<u8>>,
    connected: bool,
    over: bool,
}

impl End {
    fn new(active: bool, certificate: &DtlsCert, now: Instant) -> Self {
        Self::of(&[SrtpProfile::AEAD_AES_128_GCM], active, certificate, now)
    }

    fn of(
        profiles: &'static [SrtpProfile],
        active: bool,
        certificate: &DtlsCert,
        now: Instant,
    ) -> Self {
        // A context of its own for each certificate.
        let provider = OpenSslDtls::new(profiles);
        let dtls = provider.new_dtls(certificate, now, DtlsVersion::Dtls12, None);
        let mut dtls = dtls.expect("a session");
        dtls.set_active(active);
        dtls.handle_timeout(now).expect("no failure");
        let mut end = Self {
            dtls,
            keys: None,
            data: Vec::new(),
            connected: false,
            over: false,
        };
        if active {
            end.take(&[]);
        }
        end
    }

    fn take(&mut self, datagram: &[u8]) {
        self.over |= self.dtls.handle_packet(datagram).is_err();
    }

    fn put_out(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = vec![0; 4_096];
        loop {
            match self.dtls.poll_output(&mut buffer) {
                DtlsOutput::Packet(data) => all.push(data.to_vec()),
                DtlsOutput::KeyingMaterial(keys, _) => self.keys = Some(keys.to_vec()),
                DtlsOutput::Connected => self.connected = true,
                DtlsOutput::ApplicationData(data) => self.data.push(data.to_vec()),
                DtlsOutput::CloseNotify => self.over = true,
                DtlsOutput::Timeout(_) => return all,
                _ => {}
            }
        }
    }
}

/// A client and a server; what `between` returns comes to each before the other's datagrams.
struct Pair {
    now: Instant,
    client: End,
    server: End,
}

impl Pair {
    fn new(client: &DtlsCert) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: End::new(true, client, now),
            server: End::new(false, &certificate(), now),
        }
    }

    fn run(&mut self, forged: &[Vec<u8>]) {
        for _ in 0..12 {
            let mut said = 0;
            for forward in [true, false] {
                let (from, to) = match forward {
                    true => (&mut self.client, &mut self.server),
                    false => (&mut self.server, &mut self.client),
                };
                for datagram in from.put_out() {
                    forged.iter().for_each(|record| to.take(record));
                    to.take(&datagram);
                    said += 1;
                }
            }
            if said == 0 {
                self.now += AGAIN_MAX;
                for end in [&mut self.client, &mut self.server] {
                    end.over |= end.dtls.handle_timeout(self.now).is_err();
                }
            }
        }
    }

    fn assert_secured(&mut self, what: &str) {
        assert!(!self.client.over && !self.server.over, "{what}: ended");
        let keys = (self.client.keys.as_ref(), self.server.keys.as_ref());
        assert!(keys.0.is_some() && keys.0 == keys.1, "{what}: no keys");
    }
}

fn certificate() -> DtlsCert {
    DTLS.generate_certificate().expect("a certificate")
}

fn certificate_of(key: &PKey<openssl::pkey::Private>) -> DtlsCert {
    self_signed(key).expect("a certificate")
}

fn on_curve(curve: Nid) -> DtlsCert {
    let group = EcGroup::from_curve_name(curve).unwrap();
    certificate_of(&PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap())
}

fn record(kind: u8, epoch: u16, number: u64, content: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 0xfe, 0xfd];
    record.extend(epoch.to_be_bytes());
    record.extend(&number.to_be_bytes()[2..]);
    record.extend((content.len() as u16).to_be_bytes());
    record.extend(content);
    record
}

fn message(kind: u8, length: u32, offset: u32, piece: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(&length.to_be_bytes()[1..]);
    message.extend([0, 0]);
    message.extend(&offset.to_be_bytes()[1..]);
    message.extend(&(piece.len() as u32).to_be_bytes()[1..]);
    message.extend(piece);
    message
}

/// What anybody can send in a peer's name.
fn forged() -> Vec<(&'static str, Vec<u8>)> {
    let far = (1 << 48) - 1;
    vec![
        ("a fatal alert", record(21, 0, 0, &[2, 40])),
        ("a fatal alert, later", record(21, 0, far, &[2, 80])),
        ("a goodbye", record(21, 0, 7, &[1, 0])),
        ("half an alert", record(21, 0, 9, &[2])),
        ("an alert of the next epoch", record(21, 1, 0, &[2, 40])),
        ("ChangeCipherSpec, later", record(20, 0, far, &[1])),
        (
            "a message, later",
            record(22, 0, far, &message(1, 40, 0, &[1; 4])),
        ),
        ("a sealed alert", record(21, 1, 3, &[7; 26])),
        ("another epoch", record(22, 2, 0, &[7; 26])),
        ("data", record(23, 0, 0, b"hello")),
        ("sealed data", record(23, 1, 1, &[9; 40])),
        ("ChangeCipherSpec", record(20, 0, 5, &[1])),
        ("ChangeCipherSpec of two octets", record(20, 0, 6, &[1, 1])),
        ("HelloRequest", record(22, 0, 11, &message(0, 0, 0, &[]))),
        (
            "a message of no kind",
            record(22, 0, 12, &message(99, 4, 0, &[1; 4])),
        ),
        (
            "a piece beyond its end",
            record(22, 0, 13, &message(1, 4, 3, &[1; 4])),
        ),
        (
            "a message without end",
            record(22, 0, 14, &message(1, 0xff_ffff, 0, &[1; 4])),
        ),
        (
            "Finished in plain",
            record(22, 0, 15, &message(20, 12, 0, &[1; 12])),
        ),
        ("a header alone", record(22, 0, 16, &[1; 11])),
        ("an empty record", record(22, 0, 17, &[])),
        ("an unknown type", record(24, 0, 18, &[0; 9])),
        (
            "another version",
            vec![22, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1],
        ),
        (
            "a longer record than there is",
            record(22, 0, 19, &[1; 40])[..30].to_vec(),
        ),
        ("an octet", vec![22]),
    ]
}

#[test]
fn peers_have_certificates_of_all_kinds() {
    let rsa = PKey::from_rsa(Rsa::generate(2_048).unwrap()).unwrap();
    for (name, certificate) in [
        ("RSA", certificate_of(&rsa)),
        ("P-256", on_curve(Nid::X9_62_PRIME256V1)),
        ("P-384", on_curve(Nid::SECP384R1)),
        ("P-521", on_curve(Nid::SECP521R1)),
        ("P-224", on_curve(Nid::SECP224R1)),
    ] {
        let mut pair = Pair::new(&certificate);
        pair.run(&[]);
        pair.assert_secured(name);
    }
}

#[test]
fn forged_records_end_no_handshake_and_no_session() {
    for (name, record) in forged() {
        let mut pair = Pair::new(&certificate());
        pair.run(std::slice::from_ref(&record));
        pair.assert_secured(name);
        for end in [&mut pair.client, &mut pair.server] {
            end.take(&record);
            let _ = end.put_out();
        }
        pair.assert_secured(name);
    }
    let all: Vec<_> = forged().into_iter().map(|(_, record)| record).collect();
    let mut pair = Pair::new(&certificate());
    all.iter().for_each(|record| pair.server.take(record));
    pair.run(&[]);
    for end in [&mut pair.client, &mut pair.server] {
        all.iter().for_each(|record| end.take(record));
        let _ = end.put_out();
    }
    pair.assert_secured("all of them");
    assert!(records_dropped() > 0);
}

#[test]
fn who_spoils_the_begin_of_a_handshake_only_delays_it() {
    // As good as a step, and with nothing in it.
    for kind in [1, 11, 15, 16] {
        let mut pair = Pair::new(&certificate());
        let spoilt = record(22, 0, 1, &message(kind, 4, 0, &[1; 4]));
        pair.server.take(&spoilt);
        assert!(pair.server.put_out().is_empty(), "{kind}: an answer");
        pair.run(&[]);
        pair.assert_secured("later");
    }
}

#[test]
fn goodbye_ends_a_session() {
    let mut pair = Pair::new(&certificate());
    pair.run(&[]);
    pair.client.dtls.close().unwrap();
    for datagram in pair.client.put_out() {
        pair.server.take(&datagram);
    }
    let _ = pair.server.put_out();
    assert!(pair.server.over);
}

#[test]
fn data_goes_both_ways_and_is_never_said_again() {
    let mut pair = Pair::new(&certificate());
    // Nothing leaves before there are keys.
    assert_eq!(pair.client.dtls.send_application_data(&[1]).unwrap(), 0);
    pair.run(&[]);
    for round in 0..200_usize {
        for forward in [true, false] {
            let (from, to) = match forward {
                true => (&mut pair.client, &mut pair.server),
                false => (&mut pair.server, &mut pair.client),
            };
            let data = vec![round as u8; 1 + round * 6];
            assert_eq!(from.dtls.send_application_data(&data).unwrap(), data.len());
            let said = from.put_out();
            assert_eq!(said.len(), 1);
            for record in said.iter().chain(&said) {
                to.take(record);
            }
            let _ = to.put_out();
            assert_eq!(to.data.pop().as_ref(), Some(&data));
            assert!(to.data.is_empty(), "a replay is none");
        }
        pair.now += AGAIN_MAX;
        for end in [&mut pair.client, &mut pair.server] {
            end.dtls.handle_timeout(pair.now).unwrap();
            assert!(end.put_out().is_empty());
        }
    }
    pair.assert_secured("afterwards");
    // What nobody asks for is bounded.
    for _ in 0..10 * WAITING {
        pair.client.dtls.send_application_data(&[1]).unwrap();
        for record in pair.client.put_out() {
            pair.server.take(&record);
        }
    }
    let _ = pair.server.put_out();
    assert_eq!(pair.server.data.len(), WAITING);
}

#[test]
fn a_peer_without_srtp_is_connected_for_data_alone() {
    let now = Instant::now();
    let mut pair = Pair {
        now,
        client: End::of(&[], true, &certificate(), now),
        server: End::new(false, &certificate(), now),
    };
    pair.run(&[]);
    pair.client.dtls.send_application_data(b"hello").unwrap();
    pair.run(&[]);
    assert!(pair.client.connected && pair.server.connected);
    assert!(!pair.client.over && !pair.server.over);
    assert!(pair.server.keys.is_none());
    assert_eq!(pair.server.data, [b"hello"]);
}

#[test]
fn what_is_sent_again_are_new_records() {
    let mut pair = Pair::new(&certificate());
    let hello = pair.client.put_out();
    hello.iter().for_each(|datagram| pair.server.take(datagram));
    for (end, first) in [(&mut pair.client, hello), (&mut pair.server, Vec::new())] {
        let mut sent = first;
        for _ in 0..6 {
            sent.extend(end.put_out());
            pair.now += AGAIN_MAX;
            end.dtls.handle_timeout(pair.now).unwrap();
        }
        let mut numbers = HashSet::new();
        let mut datagrams = 0;
        for datagram in &sent {
            let mut rest = &datagram[..];
            while !rest.is_empty() {
                assert!(numbers.insert(rest[3..11].to_vec()), "a number twice");
                let length = usize::from(u16::from_be_bytes([rest[11], rest[12]]));
                rest = &rest[13 + length..];
            }
            datagrams += 1;
        }
        assert!(datagrams >= 5, "{datagrams}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_octets_end_a_session(
        datagrams in vec((20u8..64, 0u16..3, vec(any::<u8>(), 0..60)), 1..40),
    ) {
        let mut pair = Pair::new(&certificate());
        pair.run(&[]);
        for (kind, epoch, content) in &datagrams {
            for end in [&mut pair.client, &mut pair.server] {
                end.take(&record(*kind, *epoch, 77, content));
                end.take(content);
                let _ = end.put_out();
            }
        }
        pair.assert_secured("afterwards");
    }
}
