// SPDX-License-Identifier: MPL-2.0

//! What a killed process left in the folder of the streams: playlists that nobody goes on with get their end
//! (EXT-X-ENDLIST), so that players stop asking. The folder of a stream is locked by who writes it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CAT;
use super::output::put;
use super::rendition::Rendition;

/// A stream's name has at most this many parts.
const DEEPEST: usize = 160;
/// Nobody looks for longer. What was not reached is left to the next start.
const PATIENCE: Duration = Duration::from_millis(200);
/// No playlist of ours is longer: 10,000 segments of 100 octets.
const LONGEST: u64 = 4 << 20;

/// Locks a stream's folder for as long as the file lives. The system gives it up when the process ends. `None` where
/// another one writes it.
pub(super) fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Ends the playlists in all folders below `root` that nobody writes, and in `own` where that is `Some`. Links are not
/// followed. Returns how many were ended.
pub(super) fn end_all(root: &Path, own: Option<&Path>) -> usize {
    let until = Instant::now() + PATIENCE;
    let mut ended = own.map_or(0, end);
    let mut folders = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        // That of our own is locked by us.
        if let Some(_lock) = lock(&folder) {
            ended += end(&folder);
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if Instant::now() >= until {
                return ended;
            }
            if depth < DEEPEST && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push((entry.path(), depth + 1));
            }
        }
    }
    ended
}

/// Ends the playlists in one folder.
fn end(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let plain = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    let ended = plain.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        Rendition::of_playlist(&name).is_some()
            && end_playlist(folder, &name).unwrap_or_else(|error| {
                gst::debug!(
                    CAT,
                    "{name} in {} is left as it is: {error}",
                    folder.display()
                );
                false
            })
    });
    ended.count()
}

/// Ends a playlist of ours. Whatever ends the process, it is the old one or the new one.
fn end_playlist(folder: &Path, name: &str) -> io::Result<bool> {
    let path: PathBuf = folder.join(name);
    if fs::metadata(&path)?.len() > LONGEST {
        return Ok(false);
    }
    let mut text = fs::read(&path)?;
    let Ok(playlist) = m3u8_rs::parse_media_playlist_res(&text) else {
        return Ok(false);
    };
    // Others may name their playlists as we do.
    let ours = Rendition::is_segment;
    let segments = &playlist.segments;
    if playlist.end_list || segments.is_empty() || !segments.iter().all(|s| ours(&s.uri)) {
        return Ok(false);
    }
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(b"#EXT-X-ENDLIST\n");
    put(folder, name, &text)?;
    gst::info!(CAT, "{} was left without an end: ended", path.display());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n";

    #[test]
    fn only_what_is_ours_and_nobody_writes_is_ended_once() {
        let name = format!("sfu-hls-left-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&root);
        let ours = format!("{HEAD}#EXTINF:2.000,\nv0-7.ts\n");
        let ended = format!("{ours}#EXT-X-ENDLIST\n");
        // Folder, file, what is in it, and whether it gets its end.
        let files = [
            ("a", "v0.m3u8", ours.clone(), true),
            ("a/b/c", "v1.m3u8", ours.clone(), true),
            ("written", "v0.m3u8", ours.clone(), false),
            ("own", "v0.m3u8", ours.clone(), false),
            ("over", "v0.m3u8", ended.clone(), false),
            (
                "foreign",
                "v0.m3u8",
                format!("{HEAD}#EXTINF:2.0,\nsegment7.ts\n"),
                false,
            ),
            (
                "foreign",
                "v1.m3u8",
                format!("{HEAD}#EXTINF:2.0,\nhttp://x/v1-7.ts\n"),
                false,
            ),
            ("foreign", "live.m3u8", ours.clone(), false),
            ("foreign", "v2.m3u8", "no playlist".to_owned(), false),
            ("foreign", "v3.m3u8", HEAD.to_owned(), false),
            ("foreign", "index.m3u8", "#EXTM3U\n".to_owned(), false),
        ];
        for (folder, file, text, _) in &files {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join(file), text).unwrap();
        }
        std::os::unix::fs::symlink(root.join("written"), root.join("link")).unwrap();
        let other = lock(&root.join("written")).unwrap();
        let own = lock(&root.join("own")).unwrap();
        assert!(lock(&root.join("own")).is_none(), "locked");
        assert_eq!(end_all(&root, None), 2);
        for (folder, file, before, ends) in &files {
            let after = fs::read_to_string(root.join(folder).join(file)).unwrap();
            let expected = if *ends { &ended } else { before };
            assert_eq!(&after, expected, "{folder}/{file}");
        }
        assert_eq!(end_all(&root, None), 0, "once");
        assert_eq!(end_all(&root, Some(&root.join("own"))), 1);
        drop((own, other));
        assert_eq!(
            end_all(&root, None),
            1,
            "the process that wrote it has ended"
        );
        let left = |folder: &str| fs::read_dir(root.join(folder)).unwrap().count();
        assert_eq!((left("a"), left("own")), (2, 1), "nothing else is there");
        fs::remove_dir_all(&root).unwrap();
    }
}
