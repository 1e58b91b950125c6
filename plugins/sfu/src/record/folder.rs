// SPDX-License-Identifier: MPL-2.0

//! The folder of the recordings: what is in it, what is left over there by a process that was killed, and what is old.
//! A file of somebody else is never changed.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use super::file::Whose;
use super::{CAT, file};

/// A stream's name has at most this many parts, and a template adds few.
const DEEPEST: usize = 160;
/// Nobody looks through more than this many files.
const MOST: usize = 100_000;
/// How often old recordings are looked for.
const LOOK: Duration = Duration::from_secs(60);

/// All files in a folder and below it that may be recordings. Links are not followed.
pub(crate) fn files(root: &Path) -> Vec<PathBuf> {
    with_extension(root, "mp4", || false)
}

/// What was found when `stopped`, if not all.
fn with_extension(root: &Path, extension: &str, stopped: impl Fn() -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEEPEST => folders.push((path, depth + 1)),
                Ok(kind) if kind.is_file() && path.extension().is_some_and(|e| e == extension) => {
                    found.push(path);
                }
                _ => {}
            }
            if found.len() >= MOST || stopped() {
                return found;
            }
        }
    }
    found
}

/// Deletes recordings of a stream, or room, that were finished before `before`, and the folders that are empty then. Returns
/// how many.
fn delete_older(root: &Path, whose: &Whose, before: SystemTime) -> usize {
    let is_old = |path: &PathBuf| {
        let modified = std::fs::metadata(path).and_then(|m| m.modified());
        modified.is_ok_and(|at| at < before) && file::is_left(path, whose).unwrap_or(false)
    };
    let mut deleted = 0;
    for path in files(root).into_iter().filter(is_old) {
        match std::fs::remove_file(&path) {
            Ok(()) => {
                gst::info!(CAT, "{} is old: deleted", path.display());
                deleted += 1;
                remove_empty(&path, root);
            }
            Err(error) => gst::warning!(CAT, "{} can't be deleted: {error}", path.display()),
        }
    }
    deleted
}

/// Removes the folders of a file that was deleted, as far as they are empty.
pub(super) fn remove_empty(path: &Path, root: &Path) {
    let above = path
        .ancestors()
        .skip(1)
        .take_while(|folder| *folder != root);
    for folder in above {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Finishes what was left over when a process was killed, of whatever stream: who recorded it may not come again. What is
/// recorded now is locked. The newest first: those are left over. Ends early where `stopped`.
fn repair_all(root: &Path, stopped: impl Fn() -> bool) {
    for path in with_extension(root, file::PART, &stopped) {
        if file::is_part(&path) {
            let _ = std::fs::remove_file(&path);
        }
    }
    let modified = |path: &PathBuf| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let mut all = with_extension(root, "mp4", &stopped);
    all.sort_by_cached_key(|path| std::cmp::Reverse(modified(path)));
    for path in all {
        if stopped() {
            return;
        }
        match file::repair(&path) {
            Ok(true) => gst::info!(CAT, "{} was left unfinished: repaired", path.display()),
            Ok(false) => {}
            Err(error) => gst::debug!(CAT, "{} is left as it is: {error}", path.display()),
        }
    }
}

/// Looks after the folder on a thread of its own, until it is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    /// How old recordings may become; it stops when this is gone.
    ages: Option<Sender<Option<Duration>>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// `deleted` is called with how many recordings were deleted.
    pub(super) fn start(
        root: PathBuf,
        whose: Whose,
        delete_after: Option<Duration>,
        deleted: impl Fn(usize) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (ages, changed) = channel();
        let thread = std::thread::Builder::new()
            .name("sfurecorder-keeper".into())
            .spawn(move || {
                let age = Cell::new(delete_after);
                let over = || match changed.try_recv() {
                    Ok(other) => {
                        age.set(other);
                        false
                    }
                    Err(error) => error == TryRecvError::Disconnected,
                };
                repair_all(&root, over);
                keep(&root, &whose, age.get(), &changed, deleted);
            })?;
        Ok(Self {
            ages: Some(ages),
            thread: Some(thread),
        })
    }

    /// Recordings are to be deleted when they are so old, or never.
    pub(super) fn keep_for(&self, age: Option<Duration>) {
        if let Some(ages) = &self.ages {
            // Nobody hears it once the thread has panicked.
            let _ = ages.send(age);
        }
    }
}

fn keep(
    root: &Path,
    whose: &Whose,
    mut age: Option<Duration>,
    changed: &Receiver<Option<Duration>>,
    deleted: impl Fn(usize),
) {
    loop {
        let before = age.and_then(|age| SystemTime::now().checked_sub(age));
        if let Some(before) = before {
            deleted(delete_older(root, whose, before));
        }
        let wait = age.map_or(LOOK, |age| {
            LOOK.min(age / 4).max(Duration::from_millis(250))
        });
        match changed.recv_timeout(wait) {
            Ok(other) => age = other,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.ages.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::super::file::tests::{Folder, record};
    use super::*;

    fn of(stream: &str) -> Whose {
        Whose::Stream(stream.to_owned())
    }

    /// Makes a file look as if it had been finished two hours ago.
    fn age(path: &Path) {
        let then = SystemTime::now() - Duration::from_secs(7_200);
        let file = File::options().write(true).open(path).unwrap();
        file.set_modified(then).unwrap();
    }

    #[test]
    fn only_old_recordings_of_the_stream_are_deleted() {
        let folder = Folder::new("old");
        let path = |name: &str| folder.0.join(name);
        for name in ["a/old", "a/new", "b", "deep/er"] {
            std::fs::create_dir_all(path(name)).unwrap();
        }
        record(&path("a/old/1.mp4"), "a", 2, false);
        record(&path("deep/er/1.mp4"), "a", 2, true);
        record(&path("a/new/2.mp4"), "a", 2, false);
        record(&path("b/3.mp4"), "b", 2, false);
        for name in ["a/foreign.mp4", "a/empty.mp4", "a/old.txt"] {
            std::fs::write(path(name), "nothing of ours").unwrap();
        }
        for name in [
            "a/old/1.mp4",
            "deep/er/1.mp4",
            "b/3.mp4",
            "a/foreign.mp4",
            "a/empty.mp4",
            "a/old.txt",
        ] {
            age(&path(name));
        }
        let before = SystemTime::now() - Duration::from_secs(3_600);
        assert_eq!(delete_older(&folder.0, &of("a"), before), 2);
        assert!(
            !path("a/old").exists() && !path("deep").exists(),
            "empty folders go"
        );
        for name in [
            "a/new/2.mp4",
            "b/3.mp4",
            "a/foreign.mp4",
            "a/empty.mp4",
            "a/old.txt",
        ] {
            assert!(path(name).exists(), "{name}");
        }
    }

    #[test]
    fn links_are_not_followed() {
        let (folder, other) = (Folder::new("links"), Folder::new("linked"));
        record(&other.0.join("1.mp4"), "a", 1, false);
        std::os::unix::fs::symlink(&other.0, folder.0.join("link")).unwrap();
        std::os::unix::fs::symlink(other.0.join("1.mp4"), folder.0.join("2.mp4")).unwrap();
        assert!(files(&folder.0).is_empty());
    }

    #[test]
    fn what_is_left_of_any_stream_is_repaired_until_it_is_to_end() {
        let folder = Folder::new("left");
        let path = |name: &str| folder.0.join(name);
        for (n, stream) in ["a", "b/c", "d"].into_iter().enumerate() {
            record(&path(&format!("{n}.mp4")), stream, 2, true);
        }
        record(&path("3.mp4"), "a", 2, true);
        std::fs::rename(path("3.mp4"), path("3.part")).unwrap();
        std::fs::write(path("4.part"), "not ours").unwrap();
        let left = || {
            let all = files(&folder.0).into_iter();
            let read = |path: PathBuf| file::Recording::read(&path).unwrap().unwrap().state;
            all.map(read)
                .filter(|state| *state == file::State::Unfinished)
                .count()
        };
        repair_all(&folder.0, || true);
        assert_eq!(left(), 3, "it was to end at once");
        repair_all(&folder.0, || false);
        assert_eq!(left(), 0);
        assert!(!path("3.part").exists() && path("4.part").exists());
    }

    #[test]
    fn a_keeper_repairs_deletes_and_ends_at_once() {
        let folder = Folder::new("keeper");
        let (old, left) = (folder.0.join("1.mp4"), folder.0.join("2.mp4"));
        record(&old, "a", 1, false);
        record(&left, "a", 1, true);
        age(&old);
        let (sender, deleted) = channel();
        let hour = Some(Duration::from_secs(3_600));
        let keeper = Keeper::start(folder.0.clone(), of("a"), hour, move |count| {
            let _ = sender.send(count);
        });
        assert_eq!(deleted.recv_timeout(Duration::from_secs(20)), Ok(1));
        drop(keeper);
        assert!(!old.exists());
        assert!(!file::repair(&left).unwrap(), "it was repaired");
    }

    #[test]
    fn how_old_recordings_may_become_changes_while_they_are_kept() {
        let folder = Folder::new("ages");
        let old = folder.0.join("1.mp4");
        record(&old, "a", 1, false);
        age(&old);
        let (sender, deleted) = channel();
        let keeper = Keeper::start(folder.0.clone(), of("a"), None, move |count| {
            let _ = sender.send(count);
        });
        let keeper = keeper.unwrap();
        keeper.keep_for(Some(Duration::from_secs(86_400)));
        assert_eq!(deleted.recv_timeout(Duration::from_secs(20)), Ok(0));
        keeper.keep_for(Some(Duration::from_secs(3_600)));
        assert_eq!(deleted.recv_timeout(Duration::from_secs(20)), Ok(1));
    }
}
