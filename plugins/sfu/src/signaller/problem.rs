// SPDX-License-Identifier: MPL-2.0

//! How a refusal is told: as a problem document (RFC 9457) to who takes JSON, and as a sentence to everybody else.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

const PROBLEM: &str = "application/problem+json";
/// A refusal is one sentence.
const SENTENCE_MAX: usize = 4 * 1024;

/// A refusal's sentence, beside its answer until it is known who asks.
#[derive(Debug, Clone)]
pub(super) struct Sentence(pub(super) String);

/// What went wrong (RFC 9457).
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Problem {
    /// `about:blank`: it is what its status says.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What the status stands for.
    title: &'static str,
    /// The answer's status.
    status: u16,
    /// What happened, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Whether who asks takes a problem document: names JSON, or asks for what is all JSON and does not want text.
pub(super) fn is_asked_for(headers: &HeaderMap, path: &str) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().peekable();
    if accepted.peek().is_none() {
        return path.starts_with("/api/v1/");
    }
    let mut media = accepted
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|media| media.split(';').next().unwrap_or_default().trim());
    let is_api = path.starts_with("/api/v1/");
    media.any(|media| match media.to_ascii_lowercase().as_str() {
        "application/json" | PROBLEM => true,
        "*/*" | "application/*" => is_api,
        _ => false,
    })
}

/// The same answer as a problem document, where it is a refusal.
pub(super) async fn document(response: Response) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let detail = match parts.extensions.get::<Sentence>() {
        Some(Sentence(sentence)) => Some(sentence.clone()),
        // What can't be read of a request axum refuses itself.
        None => told(body).await,
    };
    let problem = Problem {
        kind: "about:blank",
        title: status.canonical_reason().unwrap_or("Refused"),
        status: status.as_u16(),
        detail,
    };
    let body = Json(problem).into_response().into_body();
    parts.headers.remove(header::CONTENT_LENGTH);
    let kind = HeaderValue::from_static(PROBLEM);
    parts.headers.insert(header::CONTENT_TYPE, kind);
    Response::from_parts(parts, body)
}

async fn told(body: Body) -> Option<String> {
    let octets = axum::body::to_bytes(body, SENTENCE_MAX).await.ok()?;
    let text = std::str::from_utf8(&octets).ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Of a status alone, for tests.
#[cfg(test)]
fn refused(status: axum::http::StatusCode) -> Response {
    status.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_takes_json_gets_it() {
        for (accepted, path, expected) in [
            (None, "/whep/cam1", false),
            (None, "/api/v1/streams", true),
            (Some("*/*"), "/whep/cam1", false),
            (Some("*/*"), "/api/v1/streams", true),
            (Some("text/html"), "/api/v1/streams", false),
            (
                Some("text/html, application/json;q=0.5"),
                "/whep/cam1",
                true,
            ),
            (Some("application/problem+json"), "/whep/cam1", true),
            (Some("Application/JSON"), "/whep/cam1", true),
            (Some("application/sdp"), "/whep/cam1", false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accepted) = accepted {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accepted));
            }
            assert_eq!(
                is_asked_for(&headers, path),
                expected,
                "{accepted:?} {path}"
            );
        }
        let told = document(refused(axum::http::StatusCode::NOT_FOUND)).await;
        assert_eq!(told.headers()[header::CONTENT_TYPE], PROBLEM);
        let fine = document(refused(axum::http::StatusCode::NO_CONTENT)).await;
        assert!(!fine.headers().contains_key(header::CONTENT_TYPE));
        // In axum's words.
        let unread = (axum::http::StatusCode::BAD_REQUEST, "Invalid UTF-8");
        let told = document(unread.into_response()).await;
        let body = axum::body::to_bytes(told.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["detail"], "Invalid UTF-8");
    }
}
