// SPDX-License-Identifier: MPL-2.0

//! How an ACME server is asked: by HTTPS (RFC 8555, section 6.1), with bounds. What is said is `instant-acme`'s matter.

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use serde_json::Value;
use ureq::Agent;
use ureq::http::header::USER_AGENT;
use ureq::http::{HeaderValue, Method, Request};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// From the name's look-up to the end of the answer.
const TIME: Duration = Duration::from_secs(20);
/// A chain has some KiB.
const ANSWER_MAX: u64 = 256 * 1024;
/// A file that holds more than authorities is none.
const AUTHORITY_MAX: u64 = 1 << 20;
/// Who asks, and by what (section 6.1).
const AGENT: &str = concat!("gst-sfu/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// HTTPS alone, whose certificate is checked, without being led elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Http(Agent);

impl Http {
    /// By the authorities of the system, or by those in a PEM file.
    pub(crate) fn new(authority: &str) -> Result<Self, String> {
        let roots = match authority {
            "" => RootCerts::PlatformVerifier,
            file => RootCerts::new_with_certs(&authorities(file)?),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(roots)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .timeout_global(Some(TIME))
            .max_redirects(0)
            .http_status_as_error(false)
            .max_response_header_size(16 * 1024)
            .proxy(None)
            .build();
        Ok(Self(config.new_agent()))
    }
}

fn authorities(file: &str) -> Result<Vec<Certificate<'static>>, String> {
    let failed = |what: &dyn std::fmt::Display| format!("{file}: {what}");
    let opened = std::fs::File::open(file).map_err(|e| failed(&e))?;
    let mut text = Vec::new();
    opened
        .take(AUTHORITY_MAX)
        .read_to_end(&mut text)
        .map_err(|e| failed(&e))?;
    let all = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let all: Vec<_> = all.collect();
    match all.is_empty() {
        true => Err(failed(&"there is no certificate as PEM in it")),
        false => Ok(all),
    }
}

type Asked = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Asked {
        let agent = self.0.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let agent_name = HeaderValue::from_static(AGENT);
            parts.headers.insert(USER_AGENT, agent_name);
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let request = Request::from_parts(parts, body);
            // On a thread of its own, so that who is dropped meanwhile ends at once.
            let asked = tokio::task::spawn_blocking(move || ask(&agent, request)).await;
            asked.map_err(|e| Error::Other(Box::new(e)))?
        })
    }
}

fn ask(agent: &Agent, request: Request<Bytes>) -> Result<BytesResponse, Error> {
    let failed = |e: ureq::Error| Error::Other(Box::new(e));
    let (parts, body) = request.into_parts();
    let answer = match parts.method {
        Method::POST => agent.run(Request::from_parts(parts, body.to_vec())),
        _ => agent.run(Request::from_parts(parts, ())),
    };
    let (parts, mut body) = answer.map_err(failed)?.into_parts();
    let mut text = Vec::new();
    let read = body.as_reader().take(ANSWER_MAX).read_to_end(&mut text);
    read.map_err(|e| Error::Other(Box::new(e)))?;
    // What is wrong is a problem document (section 6.7); what else comes is of something in between, or leads elsewhere.
    let is_problem = || serde_json::from_slice::<Value>(&text).is_ok_and(|text| text.is_object());
    let status = parts.status;
    if !status.is_success() && (status.is_redirection() || !is_problem()) {
        return Err(Error::Other(format!("it answers {status}").into()));
    }
    let body = Box::new(Bytes::from(text));
    Ok(BytesResponse { parts, body })
}
