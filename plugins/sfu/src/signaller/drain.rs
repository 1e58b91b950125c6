// SPDX-License-Identifier: MPL-2.0

//! A server that is about to end takes no newcomers, tells its viewers to go elsewhere, and ends when they have gone or the
//! time is over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use gst::prelude::*;
use sfu_elements::server;
use tokio::time::{Instant, sleep, timeout_at};

use super::CAT;
use super::door::Rule;
use super::server::{App, Refusal};
use crate::properties::lock;
use crate::runtime;

/// How often it is looked whether all have gone.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The longest that it may take.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// How long it takes where nobody says.
const WITHIN: Duration = Duration::from_secs(60);
/// Who is told to come again later.
const COME_AGAIN: &str = "10";

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Drain {
    on: AtomicBool,
    /// Where newcomers and viewers are sent to: another server's address, without a path.
    redirect: Mutex<Option<String>>,
}

/// What holds where nobody says more.
#[derive(Debug, Default, Clone)]
pub(super) struct Defaults {
    /// 0 where the element drains for nobody but the API.
    pub(super) timeout: Duration,
    pub(super) redirect: Option<String>,
}

impl Defaults {
    pub(super) fn within(&self) -> Duration {
        match self.timeout {
            Duration::ZERO => WITHIN,
            timeout => timeout,
        }
    }
}

impl Drain {
    pub(super) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// The answer to a newcomer; `None` for who may go on.
    pub(super) fn turn_away(&self, rule: Rule, method: &Method, uri: &Uri) -> Option<Response> {
        if !self.is_on() {
            return None;
        }
        let joins =
            matches!(rule, Rule::Watch | Rule::Publish | Rule::Enter) && *method == Method::POST;
        let elsewhere = self.elsewhere(uri.path_and_query().map_or("/", |p| p.as_str()));
        match elsewhere {
            // 307 keeps the method: an offer goes there as it is (RFC 9725, section 4.6).
            Some(to) if joins || rule == Rule::Player => {
                let location = HeaderValue::try_from(to).ok()?;
                let headers = [(header::LOCATION, location)];
                Some((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
            }
            _ if joins => {
                let message = "this server is about to end and takes nobody any more";
                let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message);
                Some(
                    refusal
                        .with(header::RETRY_AFTER, COME_AGAIN)
                        .into_response(),
                )
            }
            _ => None,
        }
    }

    /// The same path on the other server.
    pub(super) fn elsewhere(&self, path: &str) -> Option<String> {
        let redirect = lock(&self.redirect);
        redirect.as_ref().map(|server| format!("{server}{path}"))
    }
}

/// Another server's address: `http://HOST[:PORT]` or `https://…`, without a path.
pub(super) fn checked(server: &str) -> Result<Option<String>, String> {
    let server = server.trim().trim_end_matches('/');
    if server.is_empty() {
        return Ok(None);
    }
    let uri = server.parse::<Uri>().ok();
    let is_server = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.path() == "/"
            && uri.query().is_none()
    });
    match is_server {
        true => Ok(Some(server.to_owned())),
        false => Err(format!(
            "{server:?} is no server to go to, such as https://other.example.org"
        )),
    }
}

/// Begins, once: later wishes change nothing.
pub(super) fn begin(app: &App, within: Duration, redirect: Option<String>) {
    *lock(&app.drain.redirect) = redirect;
    if app.drain.on.swap(true, Relaxed) {
        return;
    }
    gst::info!(
        CAT,
        "draining: newcomers are sent away, viewers have {within:?}"
    );
    let Ok(runtime) = runtime::get() else {
        return;
    };
    runtime.spawn(run(app.clone(), within));
}

async fn run(app: App, within: Duration) {
    let end = Instant::now() + within;
    let mut stopping = app.stopping.clone();
    let gone = async {
        while app.engine.sessions() > 0 {
            sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => return,
        gone = timeout_at(end, gone) => match gone {
            Ok(()) => gst::info!(CAT, "drained: all have gone"),
            Err(_) => gst::info!(CAT, "drained: the time is over, {} stay", app.engine.sessions()),
        }
    }
    let Some(element) = app.element.upgrade() else {
        return;
    };
    // Of a pipeline with other sinks nobody but who plays it can make an end.
    let done = gst::Structure::new_empty("sfu-drained");
    let _ = element.post_message(gst::message::Element::builder(done).src(&element).build());
    server::ended(&element);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newcomers_are_sent_elsewhere_with_what_they_asked_for() {
        let drain = Drain::default();
        let post = |rule, uri: &str| {
            let uri: Uri = uri.parse().unwrap();
            let answer = drain.turn_away(rule, &Method::POST, &uri)?;
            let to = answer.headers().get(header::LOCATION).cloned();
            Some((
                answer.status().as_u16(),
                to.map(|to| to.to_str().unwrap().to_owned()),
            ))
        };
        assert_eq!(post(Rule::Watch, "/whep/cam1"), None);
        drain.on.store(true, Relaxed);
        assert_eq!(post(Rule::Watch, "/whep/cam1"), Some((503, None)));
        assert_eq!(post(Rule::Publish, "/whip/cam1"), Some((503, None)));
        for rule in [
            Rule::Session,
            Rule::Open,
            Rule::Player,
            Rule::Hls,
            Rule::Api,
        ] {
            assert_eq!(post(rule, "/x"), None, "{rule:?}");
        }
        *lock(&drain.redirect) = checked("https://b.example/").unwrap();
        let expected = "https://b.example/whep/cam1?layer=0".to_owned();
        assert_eq!(
            post(Rule::Watch, "/whep/cam1?layer=0"),
            Some((307, Some(expected)))
        );
        assert_eq!(post(Rule::Session, "/session/1"), None);
    }

    #[test]
    fn where_nobody_can_go_is_refused() {
        for wrong in [
            "b.example",
            "ftp://b",
            "https://b/x",
            "https://b?x",
            "http://",
            "https://a b",
        ] {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
        assert_eq!(checked(" "), Ok(None));
        assert_eq!(
            checked("http://[2001:db8::7]:81"),
            Ok(Some("http://[2001:db8::7]:81".to_owned()))
        );
    }
}
