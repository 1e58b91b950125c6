// SPDX-License-Identifier: MPL-2.0

//! The plugin's one tokio runtime, for signalling only: media has its own threads.

use std::io;
use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// Threads for what takes one for a while: files, offers, fragments.
pub(crate) const BLOCKING_THREADS: usize = 8;

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("sfu-signalling")
        .enable_all()
        .build()
});

/// The runtime, made on first use. It lives as long as the process.
pub(crate) fn get() -> Result<&'static Runtime, &'static io::Error> {
    RUNTIME.as_ref()
}
