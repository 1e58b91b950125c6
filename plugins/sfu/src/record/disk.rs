// SPDX-License-Identifier: MPL-2.0

//! Whether there is room on the disk, and when to try again.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Going on needs more room than stopping, or it would not last.
const MARGIN: u64 = 1 << 20;
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    Full,
    Failed,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Disk {
    min_free: u64,
    /// What is wrong, and when to look again.
    trouble: Option<(Trouble, Instant)>,
    wait: Duration,
}

impl Disk {
    pub(super) fn new(min_free: u64) -> Self {
        Self {
            min_free,
            trouble: None,
            wait: FIRST_WAIT,
        }
    }

    /// So much is to stay free from now on.
    pub(super) fn keep_free(&mut self, min_free: u64) {
        self.min_free = min_free;
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.map(|(trouble, _)| trouble)
    }

    /// Whether too little is free to go on.
    pub(super) fn is_short(&self, directory: &Path) -> bool {
        free(directory).is_ok_and(|free| free < self.min_free)
    }

    /// Nothing can be written.
    pub(super) fn fail(&mut self, error: &io::Error) -> Trouble {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        let trouble = match error.kind() {
            StorageFull | QuotaExceeded => Trouble::Full,
            _ => Trouble::Failed,
        };
        self.stop(trouble);
        trouble
    }

    pub(super) fn stop(&mut self, trouble: Trouble) {
        self.trouble = Some((trouble, Instant::now() + self.wait));
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }

    /// Something was written.
    pub(super) fn succeed(&mut self) {
        self.wait = FIRST_WAIT;
    }

    /// Whether it is time to try again, after what was wrong. Asks the disk.
    pub(super) fn recovers(&mut self, directory: &Path) -> bool {
        let Some((trouble, until)) = self.trouble else {
            return false;
        };
        if Instant::now() < until {
            return false;
        }
        let needed = self
            .min_free
            .saturating_add((self.min_free / 8).max(MARGIN));
        if trouble == Trouble::Full && free(directory).is_ok_and(|free| free < needed) {
            self.trouble = Some((trouble, Instant::now() + FIRST_WAIT));
            return false;
        }
        self.trouble = None;
        true
    }
}

fn free(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_longer_each_time_until_something_is_written() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut disk = Disk::new(0);
        assert!(!disk.is_short(here) && !disk.recovers(here));
        assert!(Disk::new(u64::MAX).is_short(here));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(disk.fail(&full), Trouble::Full);
        assert!(!disk.recovers(here), "not at once");
        let waits: Vec<_> = (0..6)
            .map(|_| {
                disk.stop(Trouble::Failed);
                disk.wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [4, 8, 16, 30, 30, 30]);
        disk.succeed();
        assert_eq!(disk.wait, FIRST_WAIT);
    }
}
