// SPDX-License-Identifier: MPL-2.0
//! What an access file, and the rules without one, let whom do.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{self, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};
use sfu_access::{
    Access, Action, Credential, DigestAnswer, Grants, Outcome, Refused, TokenError, Visitor, Want,
    ha1, hash_password, make_token, store,
};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const KEY: &str = "a-key-that-nobody-guesses";

/// A folder that is gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sfu-access-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn access(&self, rules: &str) -> Access {
        self.write("secret", SECRET);
        self.write("key", KEY);
        Access::open(Some(&self.write("access", rules))).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn want(action: Action, stream: &str) -> Want {
    let stream = action.is_of_a_stream().then(|| stream.to_owned());
    Want { action, stream }
}

fn stranger(credential: Option<Credential<'_>>) -> Visitor<'_> {
    Visitor {
        address: Some("192.0.2.9".parse().unwrap()),
        local: false,
        named: true,
        credential,
        protocol: "webrtc",
    }
}

fn ask(access: &Access, credential: &str, action: Action, stream: &str) -> Result<(), Refused> {
    let visitor = stranger(Some(Credential::Bearer(credential)));
    let answer = access.check_and_wait(&visitor, &[want(action, stream)]);
    answer.map(drop)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn signed(algorithm: Algorithm, key: &EncodingKey, kid: Option<&str>, claims: &Value) -> String {
    let mut header = Header::new(algorithm);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, key).unwrap()
}

fn by_secret(claims: &Value) -> String {
    signed(
        Algorithm::HS256,
        &EncodingKey::from_secret(SECRET.as_bytes()),
        None,
        claims,
    )
}

fn play(more: &Value) -> Value {
    let mut claims = json!({ "exp": now() + 60, "sfu": { "play": ["cam*"] } });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[test]
fn without_a_file_this_machine_may_all_and_others_play() {
    let access = Access::open(None).unwrap();
    for action in Action::ALL {
        let wants = [want(action, "cam1")];
        let local = Visitor {
            local: true,
            ..stranger(None)
        };
        assert!(access.check_and_wait(&local, &wants).is_ok(), "{action:?}");
        let other = access.check_and_wait(&stranger(None), &wants).map(drop);
        let expected = if action == Action::Play {
            Ok(())
        } else {
            Err(Refused::Nothing)
        };
        assert_eq!(other, expected, "{action:?}");
        let any = ask(&access, KEY, action, "cam1");
        assert_eq!(any.is_ok(), action == Action::Play, "{action:?}");
    }
}

#[test]
fn only_good_tokens_count_and_only_for_what_they_say() {
    let folder = Folder::new("tokens");
    let access = folder.access("tokens secret\n");
    let good = by_secret(&play(&json!({})));
    assert_eq!(ask(&access, &good, Action::Play, "cam1"), Ok(()));
    assert_eq!(
        ask(&access, &good, Action::Play, "door"),
        Err(Refused::NotThis)
    );
    for action in Action::ALL.into_iter().filter(|a| *a != Action::Play) {
        assert_eq!(
            ask(&access, &good, action, "cam1"),
            Err(Refused::NotThis),
            "{action:?}"
        );
    }
    let token = |error| Err(Refused::Token(error));
    for (claims, expected) in [
        (play(&json!({ "aud": "elsewhere", "iss": "x" })), Ok(())),
        (play(&json!({ "sfu": null })), token(TokenError::NoClaim)),
        (play(&json!({ "sfu": "play" })), token(TokenError::NoClaim)),
        (play(&json!({ "sfu": {} })), Err(Refused::NotThis)),
        (json!({ "exp": now() + 60 }), token(TokenError::NoClaim)),
        (
            json!({ "exp": now() + 60, "mediamtx_permissions": [{"action": "read", "path": "cam1"}] }),
            Ok(()),
        ),
        (
            json!({ "exp": now() + 60, "mediamtx_permissions": [{"action": "publish", "path": "cam1"}] }),
            Err(Refused::NotThis),
        ),
    ] {
        let found = ask(&access, &by_secret(&claims), Action::Play, "cam1");
        assert_eq!(found, expected, "{claims}");
    }
    let other = EncodingKey::from_secret(b"another-secret-of-thirty-two-octets");
    let wrong_key = signed(Algorithm::HS256, &other, None, &play(&json!({})));
    assert_eq!(
        ask(&access, &wrong_key, Action::Play, "cam1"),
        token(TokenError::Unsigned)
    );
    let same_key = EncodingKey::from_secret(SECRET.as_bytes());
    let hs512 = signed(Algorithm::HS512, &same_key, None, &play(&json!({})));
    assert_eq!(
        ask(&access, &hs512, Action::Play, "cam1"),
        token(TokenError::Algorithm("HS512"))
    );
    // What is not taken is named, whoever signed.
    for name in [
        "HS384", "HS512", "RS384", "RS512", "PS256", "PS384", "PS512", "ES384",
    ] {
        let of = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = of(play(&json!({})));
        let foreign = format!("{}.{claims}.AAAA", of(json!({ "alg": name })));
        let refused = ask(&access, &foreign, Action::Play, "cam1").unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
    }
    // The secret itself is no key.
    assert_eq!(
        ask(&access, SECRET, Action::Play, "cam1"),
        Err(Refused::Unknown)
    );
}

#[test]
fn a_token_ends_at_a_time_that_somebody_means() {
    let folder = Folder::new("times");
    let access = folder.access("tokens secret\n");
    let token = |error| Err(Refused::Token(error));
    let no_exp = json!({ "sfu": { "play": ["*"] } });
    for (claims, expected) in [
        (
            play(&json!({ "exp": now() - 1 })),
            token(TokenError::Expired),
        ),
        (play(&json!({ "exp": 0 })), token(TokenError::Expired)),
        (play(&json!({ "exp": -1 })), token(TokenError::Expired)),
        (play(&json!({ "exp": -1.5 })), token(TokenError::Expired)),
        (play(&json!({ "exp": -1e300 })), token(TokenError::Expired)),
        (play(&json!({ "exp": 1e30 })), token(TokenError::Far)),
        (play(&json!({ "exp": 1e300 })), token(TokenError::Far)),
        (play(&json!({ "exp": u64::MAX })), token(TokenError::Far)),
        // Milliseconds.
        (
            play(&json!({ "exp": (now() + 60) * 1_000 })),
            token(TokenError::Far),
        ),
        (play(&json!({ "exp": 253_402_300_799u64 })), Ok(())),
        (play(&json!({ "exp": null })), token(TokenError::Endless)),
        (no_exp, token(TokenError::Endless)),
        (
            play(&json!({ "exp": "soon" })),
            token(TokenError::Unreadable),
        ),
        (
            play(&json!({ "exp": [now() + 60] })),
            token(TokenError::Unreadable),
        ),
        (
            play(&json!({ "nbf": "now" })),
            token(TokenError::Unreadable),
        ),
        (play(&json!({ "jti": 1 })), token(TokenError::Unreadable)),
        (json!([]), token(TokenError::Unreadable)),
        (
            play(&json!({ "nbf": now() + 60 })),
            token(TokenError::Early),
        ),
        (play(&json!({ "nbf": 1e300 })), token(TokenError::Early)),
        (play(&json!({ "nbf": now() })), Ok(())),
        (play(&json!({ "nbf": -1e300 })), Ok(())),
        (play(&json!({ "nbf": now() + 5 })), Ok(())),
        (play(&json!({ "exp": now() as f64 + 30.5 })), Ok(())),
    ] {
        let found = ask(&access, &by_secret(&claims), Action::Play, "cam1");
        assert_eq!(found, expected, "{claims}");
    }
    let other = EncodingKey::from_secret(b"another-secret-of-thirty-two-octets");
    let unread = signed(
        Algorithm::HS256,
        &other,
        None,
        &play(&json!({ "exp": "soon" })),
    );
    assert_eq!(
        ask(&access, &unread, Action::Play, "cam1"),
        token(TokenError::Unsigned),
        "nobody is told what is in a token that we did not sign"
    );
}

/// Every way to write that nobody signed, or that somebody else did.
#[test]
fn a_token_that_is_changed_is_none() {
    let folder = Folder::new("changed");
    let access = folder.access("tokens secret\n");
    let good = by_secret(&play(&json!({})));
    let [header, body, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let of = |json: &str| URL_SAFE_NO_PAD.encode(json);
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS384", "RS256", "ES256", "EdDSA", "dir",
    ] {
        let header = of(&json!({ "alg": alg, "typ": "JWT" }).to_string());
        for signature in ["", signature, "AAAA"] {
            let token = format!("{header}.{body}.{signature}");
            assert!(ask(&access, &token, Action::Play, "cam1").is_err(), "{alg}");
        }
    }
    let all = of(&json!({ "exp": now() + 60, "sfu": { "play": ["*"] } }).to_string());
    let jwk = of(&json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": of("x") } }).to_string());
    for token in [
        format!("{header}.{all}.{signature}"),
        format!("{header}.{body}."),
        format!("{header}.{body}"),
        format!("{header}..{signature}"),
        format!("{header}.{body}.{signature}.{signature}"),
        format!("{header}.{body}.{signature}="),
        format!("{jwk}.{body}.{signature}"),
        format!("{}{good}", " "),
        "..".to_owned(),
        "e30.e30.".to_owned(),
        String::new(),
        "a".repeat(100_000),
        format!("{header}.{}.{signature}", "A".repeat(100_000)),
    ] {
        assert!(
            ask(&access, &token, Action::Play, "cam1").is_err(),
            "{token:.60}"
        );
    }
}

/// A key pair of each kind: the private one to sign with, the public one as PEM, and as JWK.
fn key_pairs() -> Vec<(Algorithm, EncodingKey, String, Value)> {
    let pem = |kind: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {kind} KEY-----\n{text}\n-----END {kind} KEY-----\n")
    };
    let url = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let rsa = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa_private = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
    let rsa_public = rsa.public_key();
    let rsa_spki = rsa_public.as_der().unwrap();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let ec_algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let ec_private = signature::EcdsaKeyPair::generate_pkcs8(ec_algorithm, &random).unwrap();
    let ec = signature::EcdsaKeyPair::from_pkcs8(ec_algorithm, ec_private.as_ref()).unwrap();
    let ec_spki = ec.public_key().as_der().unwrap();
    let ed_private = signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed = signature::Ed25519KeyPair::from_pkcs8(ed_private.as_ref()).unwrap();
    let ed_spki = ed.public_key().as_der().unwrap();
    let point = ec.public_key().as_ref();
    vec![
        (
            Algorithm::RS256,
            EncodingKey::from_rsa_pem(pem("PRIVATE", rsa_private.as_ref()).as_bytes()).unwrap(),
            pem("PUBLIC", rsa_spki.as_ref()),
            json!({
                "kty": "RSA", "alg": "RS256", "use": "sig",
                "n": url(rsa_public.modulus().big_endian_without_leading_zero()),
                "e": url(rsa_public.exponent().big_endian_without_leading_zero()),
            }),
        ),
        (
            Algorithm::ES256,
            EncodingKey::from_ec_pem(pem("PRIVATE", ec_private.as_ref()).as_bytes()).unwrap(),
            pem("PUBLIC", ec_spki.as_ref()),
            json!({ "kty": "EC", "crv": "P-256", "x": url(&point[1..33]), "y": url(&point[33..]) }),
        ),
        (
            Algorithm::EdDSA,
            EncodingKey::from_ed_pem(pem("PRIVATE", ed_private.as_ref()).as_bytes()).unwrap(),
            pem("PUBLIC", ed_spki.as_ref()),
            json!({ "kty": "OKP", "crv": "Ed25519", "x": url(ed.public_key().as_ref()) }),
        ),
    ]
}

#[test]
fn each_algorithm_and_no_key_of_another() {
    let folder = Folder::new("algorithms");
    let (mine, others) = (key_pairs(), key_pairs());
    for (n, (algorithm, key, pem, jwk)) in mine.iter().enumerate() {
        let mut named = jwk.clone();
        named["kid"] = "now".into();
        if *algorithm == Algorithm::EdDSA {
            // What RFC 9864 calls it.
            named["alg"] = "Ed25519".into();
        }
        let unknown = json!({ "kty": "PQ", "alg": "ML-DSA-44", "pub": "AAAA" });
        for (kind, text) in [
            ("PEM", pem.clone()),
            ("JWK", jwk.to_string()),
            ("JWKS", json!({ "keys": [unknown, named] }).to_string()),
        ] {
            folder.write("public", &text);
            let access = folder.access("tokens public\n");
            let claims = play(&json!({}));
            let can_play = |token: &str| ask(&access, token, Action::Play, "cam1");
            for kid in [None, Some("now")] {
                let token = signed(*algorithm, key, kid, &claims);
                assert_eq!(can_play(&token), Ok(()), "{kind} {algorithm:?}");
            }
            let token = signed(*algorithm, key, Some("old"), &claims);
            assert_eq!(
                can_play(&token).is_ok(),
                kind != "JWKS",
                "{kind}: another kid"
            );
            // Another key of the same kind, and keys of other kinds.
            for (other, (algorithm, key, ..)) in others.iter().enumerate() {
                let token = signed(*algorithm, key, None, &claims);
                assert!(can_play(&token).is_err(), "{kind} {n} {other}");
            }
            // The public key, taken for a secret.
            for secret in [text.as_bytes(), text.trim().as_bytes(), pem.as_bytes()] {
                let secret = EncodingKey::from_secret(secret);
                let token = signed(Algorithm::HS256, &secret, None, &claims);
                assert!(
                    can_play(&token).is_err(),
                    "{kind} {algorithm:?} as a secret"
                );
            }
        }
    }
}

#[test]
fn keys_users_and_addresses_may_what_their_lines_say() {
    let folder = Folder::new("rules");
    let hash = hash_password("correct horse").unwrap();
    let access = folder.access(&format!(
        "# rules\n\nloopback play\nanyone play=public/*\nfrom 10.0.0.0/8,fd00::/8,::ffff:172.16.0.0/108 publish=studio\n\
         key key publish=cam* takeover=cam1\ntokens secret\n\
         user ann {hash} play=* record=cam1\nuser bob {hash} play=* from=10.0.0.0/8,::ffff:192.168.7.9\n"
    ));
    let basic = |user, password| Some(Credential::Basic { user, password });
    let bearer = |text| Some(Credential::Bearer(text));
    let from = |address: &str, credential| Visitor {
        address: Some(address.parse::<IpAddr>().unwrap()),
        ..stranger(credential)
    };
    let rebound = Visitor {
        named: false,
        ..from("10.1.2.3", None)
    };
    let local = Visitor {
        local: true,
        ..stranger(None)
    };
    let (ann, bob) = (basic("ann", "correct horse"), basic("bob", "correct horse"));
    use Action::{Play, Publish, Record, Takeover};
    for (visitor, action, stream, allowed) in [
        (stranger(None), Play, "public/a", true),
        (stranger(None), Play, "cam1", false),
        (local, Play, "cam1", true),
        (local, Publish, "cam1", false),
        (from("10.1.2.3", None), Publish, "studio", true),
        (from("::ffff:10.1.2.3", None), Publish, "studio", true),
        (from("fd00::1", None), Publish, "studio", true),
        (from("172.17.0.1", None), Publish, "studio", true),
        (from("::ffff:172.17.0.1", None), Publish, "studio", true),
        (from("172.32.0.1", None), Publish, "studio", false),
        (from("11.1.2.3", None), Publish, "studio", false),
        (rebound, Publish, "studio", false),
        (stranger(bearer(KEY)), Publish, "cam1", true),
        (stranger(bearer(KEY)), Publish, "studio", false),
        (stranger(bearer(KEY)), Takeover, "cam1", true),
        (stranger(bearer(KEY)), Takeover, "cam2", false),
        (stranger(bearer(KEY)), Play, "cam1", false),
        (stranger(basic("obs", KEY)), Publish, "cam1", true),
        (stranger(ann), Play, "cam1", true),
        (stranger(ann), Record, "cam1", true),
        (stranger(ann), Record, "cam2", false),
        (stranger(ann), Publish, "cam1", false),
        (stranger(bob), Play, "cam1", false),
        (from("10.1.2.3", bob), Play, "cam1", true),
        (from("192.168.7.9", bob), Play, "cam1", true),
        (from("192.168.7.8", bob), Play, "cam1", false),
        (stranger(basic("ann", "wrong")), Play, "cam1", false),
        (stranger(basic("ann", "")), Play, "cam1", false),
        (stranger(basic("", "correct horse")), Play, "cam1", false),
        (
            stranger(basic("carol", "correct horse")),
            Play,
            "cam1",
            false,
        ),
        (stranger(bearer("correct horse")), Play, "cam1", false),
    ] {
        let found = access.check_and_wait(&visitor, &[want(action, stream)]);
        assert_eq!(
            found.is_ok(),
            allowed,
            "{visitor:?} {action:?} {stream}: {found:?}"
        );
    }
    // All that is wanted must be allowed, from whatever.
    let both = |stream| [want(Publish, stream), want(Takeover, stream)];
    let key = stranger(bearer(KEY));
    assert!(access.check_and_wait(&key, &both("cam1")).is_ok());
    assert!(access.check_and_wait(&key, &both("cam2")).is_err());
    // Five wrong ones more and this address has to wait; what is known goes on.
    for n in 0..9 {
        let guess = format!("guess {n}");
        let visitor = stranger(Some(Credential::Basic {
            user: "ann",
            password: &guess,
        }));
        let _ = access.check_and_wait(&visitor, &[want(Play, "a")]);
    }
    let later = access.check_and_wait(&stranger(basic("ann", "10")), &[want(Play, "a")]);
    assert!(matches!(later, Err(Refused::Later(_))), "{later:?}");
    assert!(
        access
            .check_and_wait(&stranger(ann), &[want(Play, "a")])
            .is_ok()
    );
}

#[test]
fn digest_answers_are_for_users_with_an_ha1() {
    let folder = Folder::new("digest");
    let hash = hash_password("horse").unwrap();
    let ann = ha1("ann", "horse");
    let rules = format!(
        "user ann {hash} play=cam1 ha1={}\nuser bob {hash} play\n",
        ann.to_uppercase()
    );
    let access = folder.access(&rules);
    let answer = |user, response| {
        Some(Credential::Digest(DigestAnswer {
            user,
            nonce: "n",
            uri: "rtsp://h/cam1",
            response,
            methods: &["SETUP", "DESCRIBE"],
        }))
    };
    let play = |stream| [want(Action::Play, stream)];
    for user in ["ann", "bob", "eve"] {
        let found = access.check_and_wait(&stranger(answer(user, "0")), &play("cam1"));
        assert_eq!(found.unwrap_err(), Refused::Unknown, "{user}");
    }
    for wrong in ["ha1=", "ha1=12", "ha1=x", &format!("ha1={ann} ha1={ann}")] {
        let path = folder.write("wrong", &format!("user ann {hash} play {wrong}\n"));
        let error = Access::open(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("ha1="), "{error}");
    }
}

/// What was allowed is taken back with what allowed it.
#[test]
fn an_answer_holds_as_long_as_what_it_rests_on() {
    let folder = Folder::new("still");
    let hash = hash_password("secret").unwrap();
    let token = make_token(
        SECRET,
        &Grants::default().parse_word("play=cam1").unwrap(),
        SystemTime::now() + Duration::from_secs(60),
        None,
    );
    let token = token.unwrap();
    let id = URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap();
    let id: Value = serde_json::from_slice(&id).unwrap();
    let id = id["jti"].as_str().unwrap().to_owned();
    let rules = [
        "from 192.0.2.0/24 record=*".to_owned(),
        "key key publish=*".to_owned(),
        "tokens secret".to_owned(),
        format!("user ann {hash} takeover=*"),
    ];
    let access = folder.access(&rules.join("\n"));
    let play = [want(Action::Play, "cam1")];
    let wants = [
        Action::Record,
        Action::Publish,
        Action::Play,
        Action::Takeover,
    ];
    let user = Credential::Basic {
        user: "ann",
        password: "secret",
    };
    let shown = [
        None,
        Some(Credential::Bearer(KEY)),
        Some(Credential::Bearer(&token)),
        Some(user),
    ];
    let proofs: Vec<_> = shown
        .into_iter()
        .zip(wants)
        .map(|(credential, action)| {
            let wants = [want(action, "cam1")];
            let proof = access
                .check_and_wait(&stranger(credential), &wants)
                .unwrap();
            (proof, wants)
        })
        .collect();
    let holds = || {
        let still = |(proof, wants): &(_, [Want; 1])| access.still(proof, wants, SystemTime::now());
        proofs.iter().map(|p| still(p).is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(holds(), [true; 4]);
    assert!(access.refresh().is_none(), "nothing has changed");
    let later = SystemTime::now() + Duration::from_secs(61);
    let expired = Err(Refused::Token(TokenError::Expired));
    assert_eq!(access.still(&proofs[2].0, &play, later), expired);
    for without in 0..4 {
        let mut left = rules.to_vec();
        left[without] = format!("# {without}");
        rewrite(&folder, &access, &left.join("\n"));
        let expected: Vec<bool> = (0..4).map(|n| n != without).collect();
        assert_eq!(holds(), expected);
    }
    rewrite(
        &folder,
        &access,
        &format!("{}\nrevoked {id}\n", rules.join("\n")),
    );
    assert_eq!(
        access.still(&proofs[2].0, &play, SystemTime::now()),
        Err(Refused::Revoked)
    );
    assert_eq!(
        ask(&access, &token, Action::Play, "cam1"),
        Err(Refused::Revoked)
    );
    // A new password is another user, another secret signs other tokens.
    rewrite(
        &folder,
        &access,
        &rules
            .join("\n")
            .replace(&hash, &hash_password("x").unwrap()),
    );
    assert_eq!(holds(), [true, true, true, false]);
    folder.write("secret", "another-secret-of-thirty-two-octets");
    assert_eq!(access.refresh(), Some(Ok(())));
    assert_eq!(holds(), [true, true, false, false]);
    // What is wrong changes nothing, and what is half written is wrong.
    let generation = access.generation();
    for (n, half) in ["", "\n\n\n", "# Rules of this server", "\u{feff}"]
        .into_iter()
        .enumerate()
    {
        let new = folder.write(&format!("half-{n}"), half);
        fs::rename(new, folder.0.join("access")).unwrap();
        let error = access.refresh().unwrap().unwrap_err().to_string();
        assert!(error.contains("no rules any more"), "{half:?}: {error}");
        assert!(access.refresh().is_none(), "{half:?}: it is told once");
        assert_eq!(holds(), [true, true, false, false], "{half:?}");
        // At a start there is nothing that it could have been.
        assert!(Access::open(Some(&folder.0.join("access"))).is_ok());
    }
    folder.write("access", "anyone fly=*");
    assert!(matches!(access.refresh(), Some(Err(_))));
    assert!(access.refresh().is_none(), "it is told once");
    fs::remove_file(folder.0.join("access")).unwrap();
    assert!(matches!(access.refresh(), Some(Err(_))));
    assert_eq!(
        (holds(), access.generation()),
        (vec![true, true, false, false], generation)
    );
}

/// Windows' editors begin what they write with it.
#[test]
fn a_byte_order_mark_is_no_part_of_a_file() {
    let folder = Folder::new("mark");
    let pairs = key_pairs();
    let mut rules = "loopback play\ntokens secret\nkey key play=cam1\n".to_owned();
    for (n, (_, _, pem, jwk)) in pairs.iter().enumerate() {
        folder.write(&format!("{n}.pem"), &format!("\u{feff}{pem}"));
        let set = json!({ "keys": [jwk] });
        folder.write(&format!("{n}.json"), &format!("\u{feff}{set}"));
        rules += &format!("tokens {n}.pem\ntokens {n}.json\n");
    }
    for line in ["", "# rules\r\n"] {
        folder.write("secret", &format!("\u{feff}{SECRET}\r\n"));
        folder.write("key", &format!("\u{feff}{KEY}\r\n"));
        let path = folder.write("access", &format!("\u{feff}{line}{rules}"));
        let access = Access::open(Some(&path)).unwrap();
        assert_eq!(ask(&access, KEY, Action::Play, "cam1"), Ok(()));
        let token = by_secret(&play(&json!({})));
        assert_eq!(ask(&access, &token, Action::Play, "cam1"), Ok(()));
    }
    // Once, and nowhere else.
    let path = folder.write("access", "\u{feff}\u{feff}loopback\n");
    assert!(Access::open(Some(&path)).is_err());
    folder.write("api.keys", "\u{feff}key:a-secret-of-the-rooms\n");
    let (key, secret) = store::api_key(&folder.0.join("access")).unwrap();
    assert_eq!(
        (key.as_str(), secret.as_str()),
        ("key", "a-secret-of-the-rooms")
    );
}

fn rewrite(folder: &Folder, access: &Access, rules: &str) {
    let new = folder.write("access.new", rules);
    fs::rename(new, folder.0.join("access")).unwrap();
    assert_eq!(access.refresh(), Some(Ok(())), "{rules}");
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    let folder = Folder::new("wrong");
    folder.write("short", "short");
    folder.write(
        "private",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    );
    folder.write("empty", r#"{"keys": []}"#);
    let cheap = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";
    for (line, what) in [
        ("everyone play", "no rule"),
        ("anyone fly", "no permission"),
        ("anyone play=a,,b", "pattern"),
        ("anyone play=ä", "pattern"),
        ("from play", "no network"),
        ("from 10.0.0.0/33 play", "no network"),
        ("from", "must follow"),
        ("key", "must follow"),
        ("key short publish", "16 characters"),
        ("key missing publish", "can't be read"),
        ("key . publish", "can't be read"),
        ("tokens short", "too short"),
        ("tokens private", "private key"),
        ("tokens empty", "no key"),
        ("tokens secret play", "too many"),
        ("user ann", "hash is missing"),
        ("user ann secret play", "argon2"),
        ("user ann $6$salt$hash play", "argon2"),
        (&format!("user a:b {cheap} play"), "colon"),
        (&format!("user ann {cheap} play from=here"), "no network"),
        (
            &format!("user ann {} play", cheap.replace("m=8", "m=4000000")),
            "costs more",
        ),
        (
            &format!("user ann {} play", cheap.replace("t=1", "t=100")),
            "costs more",
        ),
    ] {
        folder.write("secret", SECRET);
        let path = folder.write("access", &format!("anyone play\n\n{line}\n"));
        let error = Access::open(Some(&path)).unwrap_err().to_string();
        assert!(
            error.contains(what) && error.contains("line 3"),
            "{line}: {error}"
        );
    }
    let error = Access::open(Some(Path::new("/nowhere/access"))).unwrap_err();
    assert!(error.to_string().contains("can't be read"), "{error}");
}

#[test]
fn the_first_start_makes_a_key_that_only_its_owner_reads() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("first");
    let path = folder.0.join("new/gst-sfu/access");
    let key = store::first_start(&path).unwrap().expect("a new key");
    assert_eq!(store::first_start(&path), Ok(None), "it is told once");
    for name in ["access", "publish.key", "tokens.secret"] {
        let mode = fs::metadata(path.with_file_name(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let access = Access::open(Some(&path)).unwrap();
    assert_eq!(ask(&access, &key, Action::Publish, "cam1"), Ok(()));
    assert_eq!(ask(&access, &key, Action::Takeover, "cam1"), Ok(()));
    assert_eq!(
        ask(&access, &key, Action::Metrics, ""),
        Err(Refused::NotThis)
    );
    assert_eq!(ask(&access, "", Action::Play, "cam1"), Ok(()));
    let secret = fs::read_to_string(path.with_file_name("tokens.secret")).unwrap();
    let grants = Grants::default().parse_word("record=cam1").unwrap();
    let until = SystemTime::now() + Duration::from_secs(60);
    let token = make_token(secret.trim(), &grants, until, Some("ann")).unwrap();
    assert_eq!(ask(&access, &token, Action::Record, "cam1"), Ok(()));
    assert_eq!(
        ask(&access, secret.trim(), Action::Publish, "cam1"),
        Err(Refused::Unknown)
    );
    assert!(
        access.summary().contains("keys: 1, signers of tokens: 1"),
        "{}",
        access.summary()
    );
}

#[test]
fn a_wrong_password_is_hashed_only_where_one_is_needed() {
    let folder = Folder::new("cheap");
    let hash = hash_password("secret").unwrap();
    let access = folder.access(&format!("anyone play\nuser ann {hash} publish\n"));
    let wrong = stranger(Some(Credential::Basic {
        user: "ann",
        password: "wrong",
    }));
    for _ in 0..100 {
        assert!(
            access
                .check_and_wait(&wrong, &[want(Action::Play, "a")])
                .is_ok()
        );
    }
    assert_eq!(access.hashed(), 0);
    let unknown = access.check(&wrong, &[want(Action::Publish, "a")], SystemTime::now());
    assert!(matches!(unknown, Outcome::Hash(_)), "{unknown:?}");
    // Where there are no users, no password is ever hashed.
    let access = folder.access("tokens secret\n");
    let unknown = access.check(&wrong, &[want(Action::Publish, "a")], SystemTime::now());
    assert!(
        matches!(unknown, Outcome::Refused(Refused::Unknown)),
        "{unknown:?}"
    );
}

proptest! {
    /// Whatever is shown, and whatever the file says, nothing panics; and nobody gets in with what he made up.
    #[test]
    fn strangers_text_is_only_text(shown in ".{0,200}", user in ".{0,20}", rules in "[a-z*=/ .0-9$\n]{0,200}") {
        let folder = Folder::new("strangers");
        folder.write("access", &rules);
        let _ = Access::open(Some(&folder.0.join("access")));
        let access = folder.access("tokens secret\nkey key publish\n");
        let wants = [want(Action::Publish, "cam1")];
        for credential in [Credential::Bearer(&shown), Credential::Basic { user: &user, password: &shown }] {
            prop_assert!(access.check_and_wait(&stranger(Some(credential)), &wants).is_err());
        }
        let body = URL_SAFE_NO_PAD.encode(&shown);
        for token in [format!("eyJhbGciOiJIUzI1NiJ9.{body}.{body}"), format!("{body}.{body}.{body}")] {
            prop_assert!(ask(&access, &token, Action::Publish, "cam1").is_err());
        }
    }

    /// A claim that is signed, whatever it holds.
    #[test]
    fn signed_nonsense_allows_nothing(text in ".{0,100}", number in any::<f64>()) {
        let folder = Folder::new("nonsense");
        let access = folder.access("tokens secret\n");
        for claim in [json!(text), json!([text]), json!({ &text: [&text] }), json!({ "publish": text }), json!(number)] {
            for name in ["sfu", "mediamtx_permissions"] {
                let token = by_secret(&json!({ "exp": now() + 60, name: claim }));
                let found = ask(&access, &token, Action::Publish, "a stream that no pattern matches");
                prop_assert!(found.is_err() || text.contains('*'));
            }
        }
        for claims in [json!({ "exp": number, "sfu": {} }), json!({ "exp": now() + 60, "nbf": number, "sfu": {} })] {
            prop_assert!(ask(&access, &by_secret(&claims), Action::Publish, "a").is_err());
        }
    }
}

#[test]
fn fuzz_tokens() {
    let folder = Folder::new("fuzz");
    let access = folder.access("tokens secret\nkey key publish=cam1\n");
    let known = [
        by_secret(&play(&json!({}))),
        by_secret(
            &json!({ "exp": now() + 60, "mediamtx_permissions": [{ "action": "read", "path": "cam1" }] }),
        ),
        KEY.to_owned(),
    ];
    let wants = [want(Action::Play, "cam1")];
    sfu_fuzz::fuzz("tokens", &known, |data| {
        let shown = String::from_utf8_lossy(data);
        let visitor = stranger(Some(Credential::Bearer(&shown)));
        let outcome = access.check(&visitor, &wants, SystemTime::now());
        let is_in = matches!(outcome, Outcome::Allowed(_));
        assert!(!is_in || known.iter().any(|k| *k == *shown), "{shown}");
    });
}

/// What a holder of the secret signs, and what is in a file of keys.
#[test]
fn fuzz_claims_and_keys() {
    let folder = Folder::new("fuzz-claims");
    let access = folder.access("tokens secret\n");
    let claims = [
        play(&json!({ "nbf": 1, "jti": "a", "sub": "b" })).to_string(),
        r#"{"exp":4000000000,"mediamtx_permissions":[{"action":"read","path":"~^cam(1|2)$"}]}"#
            .to_owned(),
        r#"{"exp":4e9,"sfu":{"play":["*"],"metrics":true,"api":["*"]}}"#.to_owned(),
    ];
    let wants = [want(Action::Play, "cam1")];
    sfu_fuzz::fuzz("claims", &claims, |data| {
        let Ok(claims) = serde_json::from_slice::<Value>(data) else {
            return;
        };
        let token = by_secret(&claims);
        let visitor = stranger(Some(Credential::Bearer(&token)));
        let _ = access.check(&visitor, &wants, SystemTime::now());
    });
}
