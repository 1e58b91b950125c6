// SPDX-License-Identifier: MPL-2.0

//! Work that takes a thread for a while, off the runtime's own threads: for each kind of it so many and no more, so that
//! others always find some. What may wait for a disk has threads of its own, so that a disk that hangs holds up no joins.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::server::Refusal;
use crate::runtime::{self, DISK_THREADS, WORK_THREADS};

/// Offers that are answered at the same time. Each takes far less than a millisecond; others wait for their turn.
pub(super) const OFFERS: usize = 3;
/// Fragments that wait for their session's shard.
pub(super) const FRAGMENTS: usize = 2;
const _: () = assert!(OFFERS + FRAGMENTS <= WORK_THREADS);
/// Looks at all streams and sessions: metrics, and lists of the API. Some of them look at files, too.
pub(super) const LOOKS: usize = 1;
/// Lists of streams for everybody.
pub(super) const LISTS: usize = 1;
/// Looks at recordings.
pub(super) const RECORDINGS: usize = 2;
const _: () = assert!(LOOKS + LISTS + RECORDINGS < DISK_THREADS);

/// See the module's description.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    places: Arc<Semaphore>,
    on_disk: bool,
}

impl Workers {
    /// For what waits for no disk.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            on_disk: false,
        }
    }

    /// For what may.
    pub(super) fn on_disk(places: usize) -> Self {
        Self {
            on_disk: true,
            ..Self::new(places)
        }
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
        let turn = self.places.clone().acquire_owned().await;
        let turn = turn.map_err(|_| failed())?;
        // The turn is over when the work is, also where nobody waits for it any more.
        let work = move || {
            let _turn = turn;
            work()
        };
        let done = match self.on_disk {
            true => tokio::task::spawn_blocking(work),
            false => runtime::work(work),
        };
        done.await.map_err(|_| failed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::runtime::Builder;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1);
        let runtime = runtime.max_blocking_threads(DISK_THREADS).enable_all();
        runtime.build().unwrap()
    }

    /// Much work that does not come to an end, and then something else: whether that is done.
    fn is_done_beside<T: Send + 'static>(
        work: Vec<Workers>,
        files: usize,
        other: impl Future<Output = T> + Send + 'static,
    ) -> bool {
        let runtime = runtime();
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        let stuck = move || {
            let wait = wait.clone();
            move || drop(wait.lock().map(|wait| wait.recv()))
        };
        for workers in work {
            for _ in 0..100 {
                let (workers, stuck) = (workers.clone(), stuck());
                runtime.spawn(async move { workers.run(stuck).await.is_ok() });
            }
        }
        for _ in 0..files {
            let stuck = stuck();
            runtime.spawn(async move { tokio::task::spawn_blocking(stuck).await });
        }
        let done = runtime.spawn(async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            other.await
        });
        let limit = Duration::from_secs(10);
        let done = runtime.block_on(async { tokio::time::timeout(limit, done).await });
        drop(release);
        runtime.shutdown_timeout(limit);
        matches!(done, Ok(Ok(_)))
    }

    #[test]
    fn a_file_is_read_while_all_workers_are_at_work() {
        let of = |places: [usize; 2]| places.map(Workers::new);
        let on_disk = [LOOKS, LISTS, RECORDINGS].map(Workers::on_disk);
        let all = of([OFFERS, FRAGMENTS]).into_iter().chain(on_disk);
        let read = async { tokio::task::spawn_blocking(|| 1).await };
        assert!(is_done_beside(all.collect(), 0, read));
    }

    #[test]
    fn offers_are_answered_while_all_files_hang() {
        let offers = Workers::new(OFFERS);
        let answered = async move { offers.run(|| 1).await.is_ok() };
        assert!(is_done_beside(Vec::new(), 100, answered));
    }
}
