// SPDX-License-Identifier: MPL-2.0

//! Pushes to RTMP services: as many as there are now, 64 at most.

use std::fmt;

use super::page::Page;
use crate::push::State;
use crate::signaller::v1::Figures;

pub(super) fn write(page: &mut Page<'_>, pushes: &[Figures]) -> fmt::Result {
    let mut states = page.gauges("sfu_pushes", "Pushes to RTMP services, by state.")?;
    for state in State::ALL.map(State::as_str) {
        let count = pushes.iter().filter(|push| push.state == state).count();
        states.add(&[("state", state)], count as i64)?;
    }
    type Sum = (&'static str, &'static str, fn(&Figures) -> u64);
    let figures: [Sum; 2] = [
        (
            "sfu_push_sent_bytes",
            "Octets that a push has sent, over all connections.",
            |push| push.octets,
        ),
        (
            "sfu_push_attempts",
            "How often a push has begun to connect.",
            |push| push.attempts,
        ),
    ];
    for (name, help, value) in figures {
        let mut family = page.counters(name, help)?;
        for push in pushes {
            let number = push.number.to_string();
            let labels = [
                ("push", number.as_str()),
                ("stream", &push.stream),
                ("service", &push.service),
            ];
            family.add(&labels, value(push))?;
        }
    }
    Ok(())
}
