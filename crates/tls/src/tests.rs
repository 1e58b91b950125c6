// SPDX-License-Identifier: MPL-2.0

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme,
    SupportedProtocolVersion, version,
};

use super::*;

/// A folder of its own that goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sfu-tls-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        // As tools that renew do it: another file in its place.
        let new = self.0.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &path).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// A certificate for that name, and its key.
fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (
        pem("CERTIFICATE", certificate.der()),
        pem("PRIVATE KEY", &key.serialize_der()),
    )
}

/// Takes any certificate, and remembers it.
#[derive(Debug)]
struct Any(Arc<CryptoProvider>);

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.0.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// What a client is shown, and which protocol is chosen.
fn shown(
    server: &Arc<ServerConfig>,
    version: &'static SupportedProtocolVersion,
    name: &str,
    protocols: &[&[u8]],
) -> (Vec<u8>, Option<Vec<u8>>) {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut wire = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        wire.clear();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut sent = &wire[..];
        while !sent.is_empty() {
            server.read_tls(&mut sent).unwrap();
            server.process_new_packets().unwrap();
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut sent = &wire[..];
        while !sent.is_empty() {
            client.read_tls(&mut sent).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert_eq!(client.protocol_version(), Some(version.version));
    let certificate = client.peer_certificates().unwrap()[0].to_vec();
    (certificate, client.alpn_protocol().map(<[u8]>::to_vec))
}

fn der(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[test]
fn a_new_pair_is_taken_and_a_broken_one_is_not() {
    let folder = Folder::new("renewed");
    let (first, first_key) = pair("a.example");
    let (second, second_key) = pair("b.example");
    let certificate = folder.write("certificate.pem", &first);
    let key = folder.write("key.pem", &first_key);
    let certificates = Certificates::open(&certificate, &key).unwrap().unwrap();
    let server = certificates.server(&[b"h2", b"http/1.1"]).unwrap();
    let takes = |expected: &str| {
        for version in [&version::TLS12, &version::TLS13] {
            // Whatever it calls us.
            for name in ["a.example", "z.example", "192.0.2.1"] {
                let (certificate, _) = shown(&server, version, name, &[]);
                assert!(certificate == der(expected), "{name} {version:?}");
            }
        }
    };
    takes(&first);
    assert_eq!(certificates.refresh(), None);
    // Half of a new pair, as between the two writes of a tool.
    folder.write("certificate.pem", &second);
    let half = certificates.refresh().unwrap().unwrap_err();
    assert!(matches!(half, TlsError::Pair(..)), "{half}");
    assert_eq!(certificates.refresh(), None, "told once");
    takes(&first);
    folder.write("key.pem", &second_key);
    assert_eq!(certificates.refresh(), Some(Ok(())));
    takes(&second);
    let cut = &second[..second.len() / 2];
    for broken in ["", "x", cut, &first_key, &first] {
        folder.write("certificate.pem", broken);
        assert!(certificates.refresh().unwrap().is_err(), "{broken}");
        takes(&second);
    }
    fs::remove_file(&certificate).unwrap();
    assert!(matches!(
        certificates.refresh(),
        Some(Err(TlsError::File(..)))
    ));
    assert_eq!(certificates.refresh(), None);
    takes(&second);
    folder.write("certificate.pem", &second);
    assert_eq!(certificates.refresh(), Some(Ok(())));
}

#[test]
fn what_is_no_pair_is_refused_with_a_sentence() {
    let folder = Folder::new("wrong");
    let (certificate, key) = pair("a.example");
    let (other, _) = pair("a.example");
    let huge = format!("{certificate}{}", " ".repeat(1024 * 1024));
    let long = certificate.repeat(17);
    for (first, second, sentence) in [
        (&*certificate, "", "no private key"),
        (
            &certificate,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "none of RSA",
        ),
        (&certificate, &certificate, "no private key"),
        ("", &key, "no certificate"),
        (&key, &key, "no certificate"),
        (&other, &key, "not that of the certificate"),
        (&huge, &key, "larger than 1 MiB"),
        (&long, &key, "more than 16"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
            "can't be read",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            &key,
            "not PEM",
        ),
    ] {
        let first = folder.write("certificate.pem", first);
        let second = folder.write("key.pem", second);
        let error = Certificates::open(&first, &second).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}: {sentence}");
        assert!(!error.contains("BEGIN PRIVATE KEY-----\nM"), "{error}");
    }
    for (first, second) in [
        ("/nowhere", "/nowhere"),
        ("/dev/zero", "/dev/zero"),
        ("/", "/"),
    ] {
        let error = Certificates::open(first, second).unwrap_err();
        assert!(matches!(error, TlsError::File(..)), "{error}");
    }
    assert!(matches!(Certificates::open("a", ""), Err(TlsError::Half)));
    assert!(matches!(Certificates::open("", "a"), Err(TlsError::Half)));
    assert!(Certificates::open("", "").unwrap().is_none());
    // Both in one file, as HAProxy has them.
    let both = folder.write("both.pem", format!("{key}{certificate}"));
    assert!(Certificates::open(&both, &both).is_ok());
}

#[test]
fn the_protocol_is_the_first_of_ours_that_the_client_speaks() {
    let folder = Folder::new("alpn");
    let (certificate, key) = pair("a.example");
    let certificate = folder.write("certificate.pem", certificate);
    let key = folder.write("key.pem", key);
    let certificates = Certificates::open(&certificate, &key).unwrap().unwrap();
    let server = certificates.server(&[b"h2", b"http/1.1"]).unwrap();
    for (client, chosen) in [
        (&[][..], None),
        (&[&b"http/1.1"[..], b"h2"][..], Some(&b"h2"[..])),
        (&[&b"http/1.1"[..]], Some(&b"http/1.1"[..])),
    ] {
        let (_, protocol) = shown(&server, &version::TLS13, "a.example", client);
        assert_eq!(protocol.as_deref(), chosen);
    }
    let none = certificates.server(&[]).unwrap();
    assert_eq!(shown(&none, &version::TLS13, "a.example", &[b"h2"]).1, None);
}

#[test]
fn what_is_no_handshake_is_an_error_and_nothing_else() {
    let folder = Folder::new("garbage");
    let (certificate, key) = pair("a.example");
    let certificate = folder.write("certificate.pem", certificate);
    let key = folder.write("key.pem", key);
    let certificates = Certificates::open(&certificate, &key).unwrap().unwrap();
    let server = certificates.server(&[]).unwrap();
    let huge = [
        &[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..],
        &[0; 20_000],
    ]
    .concat();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0, 4, 99, 0, 0, 0],
        &[0; 100],
        &[0xff; 100],
        &huge,
    ] {
        let mut connection = ServerConnection::new(server.clone()).unwrap();
        let mut sent = garbage;
        let failed = loop {
            if sent.is_empty() {
                break false;
            }
            let read = connection.read_tls(&mut sent);
            if read.is_err() || connection.process_new_packets().is_err() {
                break true;
            }
        };
        assert!(failed, "{:?}", &garbage[..garbage.len().min(20)]);
        let mut answer = Vec::new();
        let _: io::Result<usize> = connection.write_tls(&mut answer);
        assert!(answer.len() < 100, "{answer:?}");
        let nothing = connection.reader().read(&mut [0; 10]);
        assert!(nothing.is_err() || nothing.is_ok_and(|n| n == 0));
        let _ = connection.writer().flush();
    }
}
