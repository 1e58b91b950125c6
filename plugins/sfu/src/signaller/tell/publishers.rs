// SPDX-License-Identifier: MPL-2.0

//! Publishers that come and go, whatever way their media comes: looked for, since they are many things to many elements.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use sfu_engine::{StreamInfo, StreamName};

use crate::notices::{Kind, Notice, tell};
use crate::signaller::server::App;

/// How late it may be told.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// One that began so much later than the one before is another one.
const SAME: Duration = Duration::from_millis(50);

/// The publisher of a stream.
#[derive(Debug)]
struct Known {
    began: Instant,
    input: Option<&'static str>,
    /// What had come of the stream before it.
    packets: u64,
    octets: u64,
    /// What has come with it.
    last: u64,
    /// As it was told; none before its media came.
    told: Option<Notice>,
}

/// Who was there at the last look, and what had come of all streams.
#[derive(Debug, Default)]
struct Watch {
    publishers: HashMap<StreamName, Known>,
    counts: HashMap<StreamName, (u64, u64)>,
}

impl Watch {
    /// What is new: those that have left, and the names of those that have come and are told of by `joined`.
    fn look(
        &mut self,
        now: Instant,
        streams: &[StreamInfo],
        mut joined: impl FnMut(&StreamName, Notice) -> Notice,
    ) -> Vec<Notice> {
        let mut news = Vec::new();
        let began = |info: &StreamInfo| now.checked_sub(info.uptime).unwrap_or(now);
        let live: HashMap<_, _> = streams
            .iter()
            .filter(|s| s.live)
            .map(|s| (&s.name, s))
            .collect();
        self.publishers.retain(|name, known| {
            let stays = live
                .get(name)
                .is_some_and(|info| began(info) < known.began + SAME);
            if !stays {
                news.extend(known.left(now));
            }
            stays
        });
        for (name, info) in live {
            let counts = self.counts.get(name).copied().unwrap_or_default();
            let known = self
                .publishers
                .entry(name.clone())
                .or_insert_with(|| Known {
                    began: began(info),
                    input: info.input,
                    // A stream that was forgotten meanwhile counts anew.
                    packets: counts.0.min(info.packets_in),
                    octets: counts.1.min(info.bytes_in),
                    last: 0,
                    told: None,
                });
            known.last = info.bytes_in.saturating_sub(known.octets);
            if known.told.is_none() && info.packets_in > known.packets {
                let mut notice = Notice::new(Kind::PublisherJoined, name.as_str());
                notice.input = known.input;
                let notice = joined(name, notice);
                known.told = Some(notice.clone());
                news.push(notice);
            }
        }
        let counts = streams
            .iter()
            .map(|s| (s.name.clone(), (s.packets_in, s.bytes_in)));
        self.counts = counts.collect();
        news
    }
}

impl Known {
    fn left(&mut self, now: Instant) -> Option<Notice> {
        let joined = self.told.take()?;
        Some(Notice {
            at: std::time::SystemTime::now(),
            kind: Kind::PublisherLeft,
            seconds: Some(now.saturating_duration_since(self.began).as_secs_f64()),
            octets: Some(self.last),
            ..joined
        })
    }
}

/// Who published it by WHIP, or in a room.
fn who(app: &App, stream: &StreamName, mut notice: Notice) -> Notice {
    if !matches!(notice.input, Some("whip" | "room")) {
        return notice;
    }
    let of = app.router.find(stream).and_then(|found| found.publisher());
    let sessions = app.engine.all_sessions();
    let mut connected = sessions.iter().filter(|s| s.connected);
    if let Some(session) = connected.find(|s| Some(s.id) == of) {
        notice.session = Some(session.number);
        notice.user = app.door.user_of(session.id);
        notice.address = session.peer.map(|peer| peer.to_canonical().to_string());
    }
    notice
}

/// Looks until it is dropped.
pub(super) async fn watch(app: App) {
    let mut watch = Watch::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let streams = app.router.streams();
        let joined = |stream: &StreamName, notice| who(&app, stream, notice);
        for notice in watch.look(Instant::now(), &streams, joined) {
            tell(&app.router_name, notice);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, uptime_ms: u64, packets: u64) -> StreamInfo {
        StreamInfo {
            name: name.parse().unwrap(),
            live: true,
            input: Some("element"),
            viewers: 0,
            outputs: 0,
            uptime: Duration::from_millis(uptime_ms),
            video: None,
            audio: Vec::new(),
            keyframe_requests_received: 0,
            keyframe_requests_refused: 0,
            keyframe_requests_merged: 0,
            keyframe_requests_sent: 0,
            packets_in: packets,
            packets_dropped: 0,
            bytes_in: packets * 1_000,
            latency: sfu_engine::LatencyInfo::default(),
        }
    }

    #[test]
    fn each_publisher_is_told_once_with_its_own_octets() {
        let mut watch = Watch::default();
        let start = Instant::now() + Duration::from_secs(100);
        let mut seen = Vec::new();
        let mut gone = info("cam1", 0, 40);
        gone.live = false;
        let looks = [
            // It has asked and sent nothing yet.
            vec![info("cam1", 100, 0)],
            vec![info("cam1", 350, 10)],
            vec![info("cam1", 600, 20)],
            // Another one took over, within one look.
            vec![info("cam1", 30, 30)],
            vec![info("cam1", 280, 40)],
            vec![gone],
            vec![info("cam1", 10, 40)],
            vec![],
        ];
        for (n, streams) in (1..).zip(looks) {
            let now = start + n * LOOK_EVERY;
            for notice in watch.look(now, &streams, |_, notice| notice) {
                seen.push((n, notice.kind, notice.octets));
            }
        }
        assert_eq!(
            seen,
            [
                (2, Kind::PublisherJoined, None),
                (4, Kind::PublisherLeft, Some(20_000)),
                (4, Kind::PublisherJoined, None),
                (6, Kind::PublisherLeft, Some(20_000)),
            ]
        );
    }
}
