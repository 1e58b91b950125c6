// SPDX-License-Identifier: MPL-2.0

//! Requests' bodies: taken in whole before a handler runs, in their time and up to their size, whatever the request is for.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::connections::{Connection, Phase};
use super::limits::{BODY_MAX, BODY_TIME};
use super::server::Refusal;

/// Of what is too large so much is read before the answer, and for no longer: a client that is still sending sees none.
const DISCARD_MAX: usize = 256 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Marks the answer to a request whose client broke it off.
#[derive(Debug, Clone, Copy)]
pub(super) struct BrokenOff;

enum Broken {
    TooLarge,
    NotWhole,
}

/// Hands on a request whose body is there.
pub(super) async fn take_whole(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let connection = parts.extensions.get::<Arc<Connection>>().cloned();
    let awaits_go = parts.headers.contains_key(header::EXPECT);
    let is_plain = is_plain(&parts.headers);
    let taken = tokio::time::timeout(BODY_TIME, take(body, awaits_go)).await;
    if let Some(connection) = connection {
        connection.enter(Phase::Busy);
    }
    let (status, message) = match taken {
        Ok(Ok(body)) if is_plain || body.is_empty() => {
            return next.run(Request::from_parts(parts, body.into())).await;
        }
        Ok(Ok(_)) => {
            let message = "a body with a Content-Encoding is not taken here: send it as it is, without gzip and the like";
            let refusal = Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
            // RFC 9110, section 12.5.3.
            return refusal
                .with(header::ACCEPT_ENCODING, "identity")
                .into_response();
        }
        Ok(Err(Broken::TooLarge)) => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is larger than 64 KiB, which no offer needs",
        ),
        Ok(Err(Broken::NotWhole)) => (
            StatusCode::BAD_REQUEST,
            "the body did not arrive whole: it is broken off, or not encoded as it says",
        ),
        Err(_) => (
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive within 15 s",
        ),
    };
    let mut response = Refusal::new(status, message).into_response();
    if status == StatusCode::BAD_REQUEST {
        response.extensions_mut().insert(BrokenOff);
    }
    // Nobody knows where the next request begins.
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// Whether a body is what its type says (RFC 9110, section 8.4): nobody unpacks it.
fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

async fn take(body: Body, awaits_go: bool) -> Result<Vec<u8>, Broken> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut octets = Vec::new();
    if announced > BODY_MAX {
        if !awaits_go {
            discard(body.into_data_stream(), 0).await;
        }
        return Err(Broken::TooLarge);
    }
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|_| Broken::NotWhole)?;
        if octets.len() + chunk.len() > BODY_MAX {
            discard(body, octets.len() + chunk.len()).await;
            return Err(Broken::TooLarge);
        }
        octets.extend_from_slice(&chunk);
    }
    Ok(octets)
}

async fn discard(mut body: axum::body::BodyDataStream, mut read: usize) {
    let reading = async {
        while read < DISCARD_MAX
            && let Some(Ok(chunk)) = body.next().await
        {
            read += chunk.len();
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}
