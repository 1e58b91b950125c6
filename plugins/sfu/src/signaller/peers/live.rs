// SPDX-License-Identifier: MPL-2.0

//! The live streams' names, which all listeners share: however many there are, and however often they ask, everything is looked at once a
//! second.

use std::sync::Arc;

use sfu_engine::{StreamInfo, StreamName};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::server::App;
use super::LOOK_EVERY;

/// By name. As long as nothing comes or goes it is the very same one.
pub(super) type Names = Arc<Vec<StreamName>>;

/// See the module's description.
#[derive(Debug, Clone, Default)]
pub(in crate::signaller) struct Live(Arc<Mutex<Option<(Instant, Names)>>>);

impl Live {
    /// Those that `look` finds, or that it found within the last second.
    async fn names(&self, look: impl Future<Output = Vec<StreamName>>) -> Names {
        let mut last = self.0.lock().await;
        if let Some((at, names)) = &*last
            && at.elapsed() < LOOK_EVERY
        {
            return names.clone();
        }
        let names = look.await;
        let names = match last.take() {
            Some((_, before)) if *before == names => before,
            _ => Arc::new(names),
        };
        *last = Some((Instant::now(), names.clone()));
        names
    }
}

pub(super) async fn names(app: &App) -> Names {
    let look = async {
        let router = app.router.clone();
        let looked = app.looks.run(move || {
            let live = |stream: StreamInfo| stream.live.then_some(stream.name);
            router.streams().into_iter().filter_map(live).collect()
        });
        looked.await.unwrap_or_default()
    };
    app.live.names(look).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thousand_listeners_look_once_a_second() {
        let live = Live::default();
        let mut looks = 0;
        let mut seen = Vec::new();
        for (second, streams) in [&["a"][..], &["a"], &["a", "b"]].iter().enumerate() {
            if second > 0 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            for _ in 0..1_000 {
                let look = async {
                    looks += 1;
                    streams.iter().map(|name| name.parse().unwrap()).collect()
                };
                let names = live.names(look).await;
                assert_eq!(names.len(), streams.len());
                seen.push(names);
            }
            assert_eq!(looks, second + 1);
        }
        let is_same = |a: usize, b: usize| Arc::ptr_eq(&seen[a], &seen[b]);
        assert!(is_same(0, 1_999) && !is_same(0, 2_999) && is_same(2_000, 2_999));
    }
}
