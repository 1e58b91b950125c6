// SPDX-License-Identifier: MPL-2.0

//! Work that takes a thread for a while, off the runtime's own threads: for each kind of it so many and no more, so that
//! others, such as the reading of files, always find some.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::server::Refusal;
use crate::runtime::BLOCKING_THREADS;

/// Offers that are answered at the same time. Each takes far less than a millisecond; others wait for their turn.
pub(super) const OFFERS: usize = 3;
/// Fragments that wait for their session's shard.
pub(super) const FRAGMENTS: usize = 2;
/// Looks at all streams and sessions: metrics, and lists of the API.
pub(super) const LOOKS: usize = 1;
const _: () = assert!(OFFERS + FRAGMENTS + LOOKS < BLOCKING_THREADS);

/// See the module's description.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<Semaphore>);

impl Workers {
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads)))
    }

    /// Runs it when its turn comes. A panic in it is ours, not the server's end.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let failed = || {
            let what = "the server failed over this request; its log says more (GST_DEBUG=sfu*:5)";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, what)
        };
        let turn = self.0.clone().acquire_owned().await.map_err(|_| failed())?;
        // The turn is over when the work is, also where nobody waits for it any more.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_file_is_read_while_all_workers_are_at_work() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .unwrap();
        let all = [OFFERS, FRAGMENTS, LOOKS].map(Workers::new);
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for workers in all {
            for _ in 0..100 {
                let (workers, wait) = (workers.clone(), wait.clone());
                runtime.spawn(async move {
                    let stuck = move || drop(wait.lock().map(|wait| wait.recv()));
                    let _ = workers.run(stuck).await;
                });
            }
        }
        let read = runtime.spawn(async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            tokio::task::spawn_blocking(|| 1).await
        });
        let limit = Duration::from_secs(10);
        let read = runtime.block_on(async { tokio::time::timeout(limit, read).await });
        drop(release);
        assert!(matches!(read, Ok(Ok(Ok(1)))));
        runtime.shutdown_timeout(limit);
    }
}
