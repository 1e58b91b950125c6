// SPDX-License-Identifier: MPL-2.0

//! The vectors of RFC 3711 and RFC 7714, another implementation, and hostile input.

use bytes::BytesMut;
use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::option::srtcp_replay_protection;
use rtc_srtp::protection_profile::ProtectionProfile;

use super::cm::Cm;
use super::gcm::Gcm;
use super::kdf::Kdf;
use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().expect("as many bytes")
}

/// Keying material in which all bytes differ.
fn exported(profile: Profile) -> Vec<u8> {
    (0..profile.exporter_len())
        .map(|i| i as u8 ^ 0xa5)
        .collect()
}

fn pair(profile: Profile) -> (Protect, Unprotect) {
    let (protect, _) = session(profile, &exported(profile), Role::Client).expect("keys fit");
    let (_, unprotect) = session(profile, &exported(profile), Role::Server).expect("keys fit");
    (protect, unprotect)
}

mod rfc3711 {
    use super::*;

    /// Appendix B.3.
    #[test]
    fn key_derivation() {
        let kdf = Kdf::new(
            Profile::AesCm128HmacSha1_80,
            &hex("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &hex("0EC675AD498AFEEBB6960B3AABE6"),
        )
        .expect("keys fit");
        let key: [u8; 16] = kdf.derive(0).expect("derived");
        assert_eq!(key, array("C61E7A93744F39EE10734AFE3FF7A087"));
        let salt: [u8; 14] = kdf.derive(2).expect("derived");
        assert_eq!(salt, array("30CBBC08863D8C85D49DB34A9AE1"));
        let authentication: [u8; 94] = kdf.derive(1).expect("derived");
        let expected = array(
            "CEBE321F6FF7716B6FD4AB49AF256A15 6D38BAA48F0A0ACF3C34E2359E6CDBCE
             E049646C43D9327AD175578EF7227098 6371C10C9A369AC2F94A8C5FBCDDDC25
             6D6E919A48B610EF17C2041E47403576 6B68642C59BBFC2F34DB60DBDFB2",
        );
        assert_eq!(authentication, expected);
    }

    /// Appendix B.2: the beginning and the end of 65,282 blocks of key stream.
    #[test]
    fn key_stream() {
        let cm = Cm::new(
            &array("2B7E151628AED2A6ABF7158809CF4F3C"),
            &[0; 20],
            array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
        )
        .expect("keys fit");
        let mut stream = vec![0; 1_044_512];
        cm.crypt(0, 0, &mut stream).expect("encrypted");
        let begin = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB
                     41E95B3BB0A2E8DD477901E4FCA894C0";
        let end = "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE
                   6A2CC3787889374FBEB4C81B17BA6C44";
        assert_eq!(stream[..48], hex(begin));
        assert_eq!(stream[stream.len() - 48..], hex(end));
    }
}

mod rfc7714 {
    use super::*;

    const KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
    const KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const SALT: &str = "517569642070726f2071756f";
    const RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
                       69736120 696e2070 61727465 73207472 6573";
    const RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                        deadbeef deadbeef deadbeef deadbeef deadbeef";
    const INDEX: u32 = 0x5d4;

    fn gcm(key: &str) -> Gcm {
        Gcm::new(&hex(key), array(SALT)).expect("keys fit")
    }

    /// Sections 16.1.1 and 16.2.1.
    #[test]
    fn rtp_is_sealed() {
        for (key, expected) in [
            (
                KEY_128,
                "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
                 0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
            ),
            (
                KEY_256,
                "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
                 9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
            ),
        ] {
            // Behind another packet, as in an arena.
            let mut buffer = vec![0xee; 3];
            buffer.extend(hex(RTP));
            gcm(key).seal_rtp(&mut buffer, 3, 12, 0).expect("sealed");
            assert_eq!(buffer[..3], [0xee; 3]);
            assert_eq!(buffer[3..], hex(expected));
        }
    }

    /// Sections 16.1.3 and 16.2.3, 17.3 and 17.4: all in the clear, only authenticated.
    #[test]
    fn clear_text_is_tagged() {
        let rtcp = format!("{RTCP} 000005d4");
        for (key, nonce, clear, tag) in [
            (
                KEY_128,
                "51753c6580c2726f20718414",
                RTP,
                "22493f82d2bce397e9d79e3b19aa4216",
            ),
            (
                KEY_256,
                "51753c6580c2726f20718414",
                RTP,
                "a866d5910f887463067ceefec45215d4",
            ),
            (
                KEY_128,
                "517524055203726f207170bb",
                &rtcp,
                "841dd9683dd78ec92ae58790125f62b3",
            ),
            (
                KEY_256,
                "517524055203726f207170bb",
                &rtcp,
                "91db4afbfeee5a978fab4393ed2615fe",
            ),
        ] {
            let sealed = gcm(key).seal(array(nonce), &hex(clear), &mut []);
            assert_eq!(sealed.expect("tagged"), array(tag));
        }
    }

    /// Sections 17.1 and 17.2, each in both directions.
    #[test]
    fn rtcp_is_sealed_and_opened() {
        for (key, expected) in [
            (
                KEY_128,
                "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1
                 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
            ),
            (
                KEY_256,
                "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1
                 110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
            ),
        ] {
            let mut buffer = hex(RTCP);
            gcm(key).seal_rtcp(&mut buffer, 0, INDEX).expect("sealed");
            assert_eq!(buffer, hex(expected));
            let plain = gcm(key).open_rtcp(&mut buffer, INDEX).expect("opened");
            assert_eq!(plain, hex(RTCP));
        }
    }
}

/// `rtc-srtp` on the other side.
mod other {
    use super::*;

    fn profile(profile: Profile) -> ProtectionProfile {
        match profile {
            Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            Profile::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        }
    }

    /// The context of the peer that is the client (its keys come first) or the server.
    fn context(ours: Profile, role: Role) -> Context {
        let exported = exported(ours);
        let (keys, salts) = exported.split_at(2 * ours.key_len());
        let side = usize::from(role == Role::Server);
        let crypto = rtc_srtp::crypto::default_provider().expect("a provider");
        Context::new(
            &keys[side * ours.key_len()..][..ours.key_len()],
            &salts[side * ours.salt_len()..][..ours.salt_len()],
            profile(ours),
            None,
            Some(srtcp_replay_protection(64)),
            crypto.crypto(),
        )
        .expect("keys fit")
    }

    /// A packet with a contributing source and an extension: a header of 24 bytes.
    fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = hex("91600000 00010203 cafebabe 0000002a bede0001 51000700");
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn rtp_is_understood_across_wraps_by_either_role() {
        for profile in Profile::ALL {
            for role in [Role::Client, Role::Server] {
                let (mut ours, _) = session(profile, &exported(profile), role).expect("keys fit");
                let mut theirs = context(profile, role);
                let mut index = 65_000u64;
                for len in (0..1200).step_by(7) {
                    let plain = rtp(index as u16, &vec![len as u8; len]);
                    let mut buffer = plain.clone();
                    ours.rtp(&mut buffer, 0, 24, (index >> 16) as u32)
                        .expect("sealed");
                    assert_eq!(buffer.len(), plain.len() + profile.rtp_overhead());
                    let opened = theirs.decrypt_rtp(&buffer).expect("understood");
                    assert_eq!(opened, plain, "{profile:?} {role:?} {len}");
                    index += 1021;
                }
            }
        }
    }

    #[test]
    fn rtp_is_the_same_bytes() {
        for profile in Profile::ALL {
            let (mut ours, _) =
                session(profile, &exported(profile), Role::Server).expect("keys fit");
            let plain = rtp(77, &[9; 300]);
            let mut buffer = plain.clone();
            ours.rtp(&mut buffer, 0, 24, 0).expect("sealed");
            let theirs = context(profile, Role::Server).encrypt_rtp(&plain);
            assert_eq!(theirs.expect("sealed"), buffer, "{profile:?}");
        }
    }

    #[test]
    fn rtcp_is_understood_both_ways() {
        for profile in Profile::ALL {
            for role in [Role::Client, Role::Server] {
                let peer = if role == Role::Client {
                    Role::Server
                } else {
                    Role::Client
                };
                let (mut protect, mut unprotect) =
                    session(profile, &exported(profile), role).expect("keys fit");
                let (mut opens, mut seals) = (context(profile, role), context(profile, peer));
                for words in 1..200u8 {
                    let mut plain = vec![0x81, 201, 0, words];
                    plain.resize(4 + 4 * usize::from(words), words);
                    let mut buffer = plain.clone();
                    protect.rtcp(&mut buffer, 0).expect("sealed");
                    assert_eq!(buffer.len(), plain.len() + profile.rtcp_overhead());
                    assert_eq!(opens.decrypt_rtcp(&buffer).expect("understood"), plain);

                    let mut sealed: BytesMut = seals.encrypt_rtcp(&plain).expect("sealed");
                    assert_eq!(unprotect.rtcp(&mut sealed), Ok(&plain[..]));
                }
            }
        }
    }
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut report = hex("81c90007 00000000 00000001 05000002 00003039 00000010 00000000 00000000");
    report[4..8].copy_from_slice(&ssrc.to_be_bytes());
    report
}

fn sealed(protect: &mut Protect, plain: &[u8]) -> Vec<u8> {
    let mut buffer = plain.to_vec();
    protect.rtcp(&mut buffer, 0).expect("sealed");
    buffer
}

/// Sessions move to the thread that serves them.
const _: fn() = || {
    fn send<T: Send>() {}
    send::<Protect>();
    send::<Unprotect>();
};

#[test]
fn keys_of_another_length_are_refused() {
    for profile in Profile::ALL {
        for len in [0, profile.exporter_len() - 1, profile.exporter_len() + 1] {
            let refused = session(profile, &vec![0; len], Role::Client).err();
            assert!(matches!(refused, Some(KeyError::Length { actual, .. }) if actual == len));
        }
        assert!(Protect::new(profile, &[0; 15], &vec![0; profile.salt_len()]).is_err());
        assert!(Unprotect::new(profile, &vec![0; profile.key_len()], &[]).is_err());
    }
}

#[test]
fn a_replayed_packet_is_an_error_of_its_own() {
    for profile in Profile::ALL {
        let (mut protect, mut unprotect) = pair(profile);
        let packets: Vec<_> = (0..100).map(|_| sealed(&mut protect, &report(1))).collect();
        for packet in packets.iter().skip(30).step_by(2) {
            assert_eq!(unprotect.rtcp(&mut packet.clone()), Ok(&report(1)[..]));
        }
        for (at, packet) in packets.iter().enumerate() {
            let fresh = at > 98 - 64 && at % 2 == 1;
            let expected = if fresh {
                Ok(&report(1)[..])
            } else {
                Err(UnprotectError::Replayed)
            };
            assert_eq!(unprotect.rtcp(&mut packet.clone()), expected, "{at}");
        }
        // Another sender's packets count for themselves, though the index goes on.
        let mut other = sealed(&mut protect, &report(2));
        assert_eq!(unprotect.rtcp(&mut other), Ok(&report(2)[..]));
    }
}

#[test]
fn a_packet_cut_at_any_length_is_refused() {
    for profile in Profile::ALL {
        let (mut protect, mut unprotect) = pair(profile);
        let packet = sealed(&mut protect, &report(1));
        for len in 0..packet.len() {
            let error = unprotect.rtcp(&mut packet.clone()[..len]).unwrap_err();
            if len < RTCP_HEADER + profile.rtcp_overhead() {
                assert_eq!(error, UnprotectError::Truncated, "{profile:?} {len}");
            }
        }
        assert!(unprotect.rtcp(&mut packet.clone()).is_ok());
    }
}

#[test]
fn a_packet_with_any_bit_flipped_is_refused() {
    for profile in Profile::ALL {
        let (mut protect, mut unprotect) = pair(profile);
        let packet = sealed(&mut protect, &report(1));
        let encrypted_flag = match profile {
            Profile::AesCm128HmacSha1_80 => packet.len() - 14,
            _ => packet.len() - 4,
        } * 8;
        for bit in 0..packet.len() * 8 {
            let mut changed = packet.clone();
            changed[bit / 8] ^= 0x80 >> (bit % 8);
            let expected = if bit == encrypted_flag {
                UnprotectError::Clear
            } else {
                UnprotectError::Forged
            };
            assert_eq!(unprotect.rtcp(&mut changed), Err(expected), "bit {bit}");
        }
        assert!(
            unprotect.rtcp(&mut packet.clone()).is_ok(),
            "forgeries are not remembered"
        );
    }
}

#[test]
fn other_keys_open_nothing() {
    for profile in Profile::ALL {
        let (mut protect, _) = session(profile, &exported(profile), Role::Client).expect("keys");
        // The peer's own direction, and another session.
        let (_, mut same) = session(profile, &exported(profile), Role::Client).expect("keys");
        let other = vec![1; profile.exporter_len()];
        let (_, mut other) = session(profile, &other, Role::Server).expect("keys");
        let packet = sealed(&mut protect, &report(1));
        for unprotect in [&mut same, &mut other] {
            let opened = unprotect.rtcp(&mut packet.clone()).map(<[u8]>::len);
            assert_eq!(opened, Err(UnprotectError::Forged));
        }
    }
}

#[test]
fn keys_are_used_up_after_two_to_the_31_packets() {
    for profile in Profile::ALL {
        let (mut protect, mut unprotect) = pair(profile);
        protect.set_rtcp_index(0x7fff_ffff);
        let mut last = sealed(&mut protect, &report(1));
        assert!(unprotect.rtcp(&mut last).is_ok());
        let mut buffer = report(1);
        assert_eq!(protect.rtcp(&mut buffer, 0), Err(ProtectError::Exhausted));
        assert_eq!(buffer, report(1), "left alone");
    }
}

#[test]
fn what_is_no_packet_is_not_sealed() {
    let (mut protect, _) = pair(Profile::AeadAes128Gcm);
    let mut buffer = vec![0x80; 20];
    for (start, header_len) in [(0, 11), (0, 21), (9, 12), (21, 12), (usize::MAX, 12)] {
        let refused = protect.rtp(&mut buffer, start, header_len, 0);
        assert_eq!(refused, Err(ProtectError::Header));
    }
    for start in [13, 20, 21, usize::MAX] {
        assert_eq!(protect.rtcp(&mut buffer, start), Err(ProtectError::Header));
    }
    assert_eq!(buffer, [0x80; 20]);
    assert_eq!(protect.rtp(&mut buffer, 8, 12, 0), Ok(()), "no payload");
    assert_eq!(buffer.len(), 36);
}

proptest! {
    #[test]
    fn no_input_panics(mut data: Vec<u8>, start: usize, header_len: usize, roc: u32) {
        for profile in Profile::ALL {
            let (mut protect, mut unprotect) = pair(profile);
            prop_assert!(unprotect.rtcp(&mut data.clone()).is_err());
            let _ = protect.rtp(&mut data.clone(), start, header_len, roc);
            let start = start % (data.len() + 1);
            let _ = protect.rtp(&mut data.clone(), start, header_len % 64, roc);
            let _ = protect.rtcp(&mut data, start);
        }
    }

    #[test]
    fn what_is_sealed_is_opened(
        plain in proptest::collection::vec(any::<u8>(), 8..1500),
        before in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        for profile in Profile::ALL {
            let (mut protect, mut unprotect) = pair(profile);
            let mut buffer = before.clone();
            buffer.extend_from_slice(&plain);
            protect.rtcp(&mut buffer, before.len()).expect("sealed");
            prop_assert_eq!(&buffer[..before.len()], &before[..]);
            prop_assert_eq!(unprotect.rtcp(&mut buffer[before.len()..]), Ok(&plain[..]));
        }
    }
}
