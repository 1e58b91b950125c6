// SPDX-License-Identifier: MPL-2.0

//! The plugin's tokio runtime, for signalling only: media has its own threads.

use std::io;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Threads for what takes one for a while and may wait for a disk, without end where that is on a network that is gone.
pub(crate) const DISK_THREADS: usize = 8;
/// Threads for what takes one for a while and waits for no disk.
pub(crate) const WORK_THREADS: usize = 5;

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(DISK_THREADS)
        .thread_name("sfu-signalling")
        .enable_all()
        .build()
});

/// The runtime, made on first use. It lives as long as the process.
pub(crate) fn get() -> Result<&'static Runtime, &'static io::Error> {
    RUNTIME.as_ref()
}

/// Has its own threads alone: nobody runs it.
static WORK: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_current_thread()
        .max_blocking_threads(WORK_THREADS)
        .thread_name("sfu-work")
        .build()
});

/// Runs what waits for no disk, whatever hangs on one.
pub(crate) fn work<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    match &*WORK {
        Ok(runtime) => runtime.spawn_blocking(work),
        Err(_) => tokio::task::spawn_blocking(work),
    }
}
