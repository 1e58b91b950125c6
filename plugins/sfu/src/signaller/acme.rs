// SPDX-License-Identifier: MPL-2.0

//! Certificates from an ACME server (`sfu-acme`): what it is answered over HTTP-01 (RFC 8555, section 8.3), and what of it is told.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use gst::prelude::*;
use sfu_acme::News;

use super::server::{App, Refusal};
use super::{CAT, SfuSignaller};

/// Where the server asks, by plain HTTP.
pub(super) const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// `GET /.well-known/acme-challenge/{token}`
pub(super) async fn challenge(
    State(app): State<App>,
    Path(token): Path<String>,
) -> Result<Response, Refusal> {
    let known = app.challenges.as_ref();
    let answer = known.and_then(|challenges| challenges.answer(&token));
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "nobody is asked for that now");
    let answer = answer.ok_or_else(unknown)?;
    let octets = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((octets, answer).into_response())
}

/// In the log, and what goes wrong on the bus.
pub(super) fn teller(element: &SfuSignaller) -> impl Fn(News) + Send + 'static {
    let element = element.downgrade();
    move |news| match (element.upgrade(), news) {
        (Some(element), News::Failed(why)) => {
            gst::element_warning!(
                element,
                gst::ResourceError::OpenRead,
                ("no certificate from the ACME server yet, it is tried again: {why}")
            );
        }
        (Some(_), News::Renewed) => gst::info!(CAT, "the ACME server has given a certificate"),
        (None, _) => {}
    }
}
