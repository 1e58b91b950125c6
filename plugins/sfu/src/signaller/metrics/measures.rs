// SPDX-License-Identifier: MPL-2.0

//! What the front door counts of requests.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::notices::Kind;

/// From a request's head to the answer's. Offers take a millisecond, passwords tens of them.
const BUCKETS: [f64; 8] = [0.001, 0.005, 0.02, 0.1, 0.5, 1.0, 2.5, 10.0];

type Label = [(&'static str, &'static str); 1];

/// See the module's description.
#[derive(Debug)]
pub(in crate::signaller) struct Measures {
    /// By route: there are so many as the table has.
    requests: Family<Label, Histogram, fn() -> Histogram>,
    /// By reason.
    refused: Family<Label, Counter>,
    /// What happened, by kind.
    notices: Family<Label, Counter>,
    notices_lost: Counter,
    /// Tries of webhooks, by whether they were taken.
    webhooks: Family<Label, Counter>,
}

impl Default for Measures {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let refused = Family::<Label, Counter>::default();
        // What nobody did is 0, and not unknown.
        for reason in REASONS {
            drop(refused.get_or_create(&[("reason", reason)]));
        }
        let notices = Family::<Label, Counter>::default();
        for kind in Kind::ALL {
            drop(notices.get_or_create(&[("type", kind.name())]));
        }
        Self {
            requests: Family::new_with_constructor(histogram),
            refused,
            notices,
            notices_lost: Counter::default(),
            webhooks: Family::default(),
        }
    }
}

/// Why the door lets nobody in.
pub(in crate::signaller) const REASONS: [&str; 7] = [
    "host",
    "origin",
    "nothing",
    "credential",
    "permission",
    "later",
    "draining",
];

impl Measures {
    /// A request was answered.
    pub(in crate::signaller) fn answered(&self, route: &'static str, took: Duration) {
        let route = if route.is_empty() { "/{stream}" } else { route };
        let histogram = self.requests.get_or_create(&[("route", route)]);
        histogram.observe(took.as_secs_f64());
    }

    /// A request was refused; the reason is one of [`REASONS`].
    pub(in crate::signaller) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// Something happened, and was told.
    pub(in crate::signaller) fn happened(&self, kind: Kind) {
        self.notices.get_or_create(&[("type", kind.name())]).inc();
    }

    /// Somebody was not told of so much, for he was too slow, or away.
    pub(in crate::signaller) fn lost(&self, notices: u64) {
        self.notices_lost.inc_by(notices);
    }

    /// A webhook was sent.
    pub(in crate::signaller) fn delivered(&self, taken: bool) {
        let result = if taken { "taken" } else { "failed" };
        self.webhooks.get_or_create(&[("result", result)]).inc();
    }

    /// So many were, by reason.
    pub(in crate::signaller) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().map(|reason| {
            (
                reason,
                self.refused.get_or_create(&[("reason", reason)]).get(),
            )
        })
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "sfu_http_request_seconds",
            "From a request's head to the answer's, by route",
            self.requests.clone(),
        );
        registry.register(
            "sfu_http_refused",
            "Requests that the door did not let in, by reason",
            self.refused.clone(),
        );
        registry.register(
            "sfu_events",
            "What happened to publishers, viewers, recordings and pushes, by type",
            self.notices.clone(),
        );
        registry.register(
            "sfu_events_lost",
            "Events that a receiver was not told of: it was too slow, or away",
            self.notices_lost.clone(),
        );
        registry.register(
            "sfu_webhook_deliveries",
            "Tries to deliver an event, by whether it was taken",
            self.webhooks.clone(),
        );
    }
}
