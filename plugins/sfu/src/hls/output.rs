// SPDX-License-Identifier: MPL-2.0

//! The folder of a stream: whole files only, each put in its place at one stroke, the oldest removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use m3u8_rs::MediaPlaylist;

use super::cuts::Rules;
use super::left;
use super::master::{Master, Media};
use super::slots::{Row, Segment, take_short};
use super::window::{Entry, Window};

/// The multivariant playlist's name.
const MASTER: &str = "index.m3u8";
/// Files that are not whole yet begin with a dot, and end with this.
const PART: &str = ".part";
/// After so many segments a layer that has not come yet is waited for no longer.
const LAYERS_WITHIN: u32 = 3;

/// A segment that begins further than this from where the one before ended does not continue it. Nanoseconds.
const JOIN: u64 = 50_000_000;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    window: Window,
    master: Master,
    /// All layers that have a playlist.
    layers: BTreeSet<usize>,
    /// Of which layer each playlist's last segment was.
    sources: BTreeMap<usize, usize>,
    session: Session,
    pub(super) segments: u64,
    /// Tells other processes that this one writes here.
    lock: Option<File>,
}

/// Who ends what was left in a folder has its lock for a moment.
const LOCK_TRIES: u32 = 10;
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// What is known of the present publisher.
#[derive(Debug, Default)]
struct Session {
    layers: usize,
    rows: u32,
    /// Where each layer's last segment ended. One that could not be written leaves a gap.
    ends: BTreeMap<usize, u64>,
}

impl Output {
    /// Opens a folder, makes it where it is not there, and goes on where its playlists ended.
    pub(super) fn open(folder: PathBuf, rules: Rules, length: usize) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let lock = (0..LOCK_TRIES).find_map(|n| {
            if n > 0 {
                std::thread::sleep(LOCK_AGAIN);
            }
            left::lock(&folder)
        });
        let before = playlists(&folder)?;
        let window = Window::new(length, rules.target(), &before);
        let mut output = Self {
            layers: window.layers(),
            folder,
            window,
            master: Master::default(),
            sources: BTreeMap::new(),
            session: Session::default(),
            segments: 0,
            lock,
        };
        output.sweep()?;
        Ok(output)
    }

    /// Removes what an earlier run left, except what its playlists name. What they have named may still be wanted.
    fn sweep(&mut self) -> io::Result<()> {
        let named: BTreeSet<String> = self.window.files().into_iter().map(str::to_owned).collect();
        for file in fs::read_dir(&self.folder)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            if is_part(&name) {
                fs::remove_file(self.folder.join(name))?;
            } else if is_segment(&name) && !named.contains(&name) {
                self.window.retire(name, Instant::now());
            }
        }
        Ok(())
    }

    /// Where a layer's next segment is written to.
    pub(super) fn part(folder: &Path, layer: usize, slot: u64) -> PathBuf {
        folder.join(format!(".v{layer}-{slot}{PART}"))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether no other process writes to the folder.
    pub(super) fn is_alone(&self) -> bool {
        self.lock.is_some()
    }

    /// Ends what killed processes left below `root`: here as well, where nothing was published in this run.
    pub(super) fn end_left(&self, root: &Path) -> usize {
        let own = (self.segments == 0 && self.is_alone()).then_some(&*self.folder);
        left::end_all(root, own)
    }

    /// The next segments are of another publisher, or of the same one that sends something else.
    pub(super) fn begin(&mut self, layers: usize) {
        self.master.reset();
        self.sources.clear();
        self.layers.extend(0..layers);
        self.session = Session {
            layers,
            ..Session::default()
        };
    }

    /// Playlists are to have so many segments from the next one on.
    pub(super) fn set_length(&mut self, length: usize) {
        self.window.length = length;
    }

    /// The number of the next segments.
    pub(super) fn sequence(&self) -> u64 {
        self.window.next()
    }

    pub(super) fn discontinuities(&self) -> u64 {
        self.window.era()
    }

    /// Publishes the layers' segments of one slot. A playlist whose layer has none gets another layer's.
    pub(super) fn publish(
        &mut self,
        mut row: Row,
        date: impl Fn(u64) -> SystemTime,
        media: impl Fn(usize) -> Media,
    ) -> io::Result<()> {
        for segment in take_short(&mut row) {
            discard(&segment);
        }
        let sequence = self.window.next();
        let (mut own, mut gap) = (BTreeMap::new(), false);
        for (layer, segment) in row {
            let entry = Entry {
                uri: format!("v{layer}-{sequence}.ts"),
                duration: segment.duration,
                at: date(segment.start),
            };
            if let Err(error) = fs::rename(&segment.file, self.folder.join(&entry.uri)) {
                discard(&segment);
                return Err(error);
            }
            let end = self.session.ends.insert(layer, segment.end());
            gap |= segment.gap || end.is_some_and(|end| segment.start.abs_diff(end) > JOIN);
            self.master
                .segment(layer, media(layer), segment.bytes, segment.duration);
            own.insert(layer, entry);
        }
        let has: BTreeSet<usize> = own.keys().copied().collect();
        let sources: BTreeMap<usize, usize> = (self.layers.iter())
            .filter_map(|&layer| Some((layer, substitute(&has, layer)?)))
            .collect();
        let first = self.session.rows == 0;
        let anew = !self.window.is_fresh() && (gap || first || sources != self.sources);
        let entry = |(&layer, source): (&usize, &usize)| Some((layer, own.get(source)?.clone()));
        let entries = sources.iter().filter_map(entry).collect();
        self.window.publish(entries, anew, Instant::now());
        self.sources = sources;
        self.session.rows += 1;
        self.segments += 1;
        self.write()
    }

    /// Media playlists first: the multivariant one must name nothing that is not there.
    fn write(&mut self) -> io::Result<()> {
        for &layer in &self.layers {
            let mut text = Vec::new();
            self.window.playlist(layer).write_to(&mut text)?;
            put(&self.folder, &format!("v{layer}.m3u8"), &text)?;
        }
        let complete = self.master.layers() >= self.session.layers;
        if (complete || self.session.rows >= LAYERS_WITHIN)
            && let Some(text) = self.master.news()
            && let Err(error) = put(&self.folder, MASTER, text.as_bytes())
        {
            self.master.forget();
            return Err(error);
        }
        Ok(())
    }

    /// Removes the segments that nobody can want any more.
    pub(super) fn tidy(&mut self, now: Instant) {
        while let Some(file) = self.window.expired(now) {
            // Somebody else may have removed it.
            let _ = fs::remove_file(self.folder.join(file));
        }
    }

    /// Ends the playlists: nothing will follow.
    pub(super) fn end(&mut self) -> io::Result<()> {
        if self.window.is_fresh() {
            return Ok(());
        }
        self.window.end();
        self.write()
    }
}

/// Puts a file into its place at one stroke.
pub(super) fn put(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let part = folder.join(format!(".{name}{PART}"));
    let put = fs::write(&part, content).and_then(|()| fs::rename(&part, folder.join(name)));
    put.inspect_err(|_| {
        let _ = fs::remove_file(&part);
    })
}

/// Removes a segment that was not published.
pub(super) fn discard(segment: &Segment) {
    let _ = fs::remove_file(&segment.file);
}

/// The layer whose segment stands in for a layer's own: the next lower one, else the next higher one.
fn substitute(has: &BTreeSet<usize>, layer: usize) -> Option<usize> {
    let lower = has.range(layer..).next();
    lower.or_else(|| has.range(..layer).next_back()).copied()
}

fn is_part(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PART)
}

pub(super) fn is_segment(name: &str) -> bool {
    name.starts_with('v') && name.ends_with(".ts")
}

/// The layer whose playlist has this name.
pub(super) fn layer_of(name: &str) -> Option<usize> {
    let layer = name.strip_prefix('v')?.strip_suffix(".m3u8")?;
    layer.parse().ok()
}

/// What an earlier run wrote, as far as the segments are still there.
fn playlists(folder: &Path) -> io::Result<BTreeMap<usize, MediaPlaylist>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        let Some(layer) = layer_of(&name) else {
            continue;
        };
        let text = fs::read(folder.join(&name))?;
        let Ok(mut playlist) = m3u8_rs::parse_media_playlist_res(&text) else {
            continue;
        };
        let is_there = |uri: &str| is_segment(uri) && folder.join(uri).is_file();
        if playlist.segments.iter().any(|s| !is_there(&s.uri)) {
            // Only the numbers go on.
            playlist.media_sequence += playlist.segments.len() as u64;
            playlist.segments.clear();
        }
        found.insert(layer, playlist);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that is removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("sfu-hls-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn open(&self) -> Output {
            let rules = Rules::new(Duration::from_secs(2));
            Output::open(self.0.clone(), rules, 3).unwrap()
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap_or_default()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn publish(output: &mut Output, slot: u64, layers: &[usize]) {
        let segment = |&layer: &usize| {
            let file = Output::part(output.folder(), layer, slot);
            fs::write(&file, b"media").unwrap();
            let segment = Segment {
                layer,
                slot,
                file,
                start: slot * 2_000_000_000,
                duration: Duration::from_secs(2),
                bytes: 5,
                gap: false,
            };
            (layer, segment)
        };
        let row: Row = layers.iter().map(segment).collect();
        let date = |at| SystemTime::UNIX_EPOCH + Duration::from_nanos(at);
        output.publish(row, date, |_| Media::default()).unwrap();
    }

    #[test]
    fn a_layer_that_is_away_is_stood_in_for() {
        let folder = Folder::new("away");
        let mut output = folder.open();
        output.begin(2);
        publish(&mut output, 0, &[1]);
        assert_eq!(folder.text(MASTER), "", "the other layer is waited for");
        assert!(folder.text("v0.m3u8").contains("\nv1-"));
        publish(&mut output, 1, &[0, 1]);
        let high = folder.text("v0.m3u8");
        assert!(high.contains("\nv0-") && high.contains("\nv1-"), "{high}");
        let marks = |name: &str| folder.text(name).matches("#EXT-X-DISCONTINUITY\n").count();
        assert_eq!((marks("v0.m3u8"), marks("v1.m3u8")), (1, 1), "in both");
        assert!(folder.text(MASTER).contains("v0.m3u8"));
        publish(&mut output, 2, &[0, 1]);
        assert_eq!(marks("v0.m3u8"), 1);
    }

    #[test]
    fn a_segment_that_is_missing_is_a_discontinuity() {
        let folder = Folder::new("missing");
        let mut output = folder.open();
        output.begin(1);
        for (slot, expected) in [(0, 0), (1, 0), (3, 1), (4, 1)] {
            publish(&mut output, slot, &[0]);
            assert_eq!(output.discontinuities(), expected, "{slot}");
        }
    }

    #[test]
    fn another_run_goes_on_and_sweeps() {
        let folder = Folder::new("again");
        let mut output = folder.open();
        output.begin(1);
        for slot in 0..5 {
            publish(&mut output, slot, &[0]);
        }
        let next = output.sequence();
        output.end().unwrap();
        assert!(folder.text("v0.m3u8").ends_with("#EXT-X-ENDLIST\n"));
        drop(output);
        fs::write(folder.0.join(".v0-9.part"), b"half").unwrap();
        fs::write(folder.0.join("notes.txt"), b"not ours").unwrap();
        let mut output = folder.open();
        assert_eq!(output.sequence(), next);
        let files = || fs::read_dir(&folder.0).unwrap().count();
        assert_eq!(files(), 5 + 2 + 1, "segments, playlists, and notes");
        output.tidy(Instant::now() + Duration::from_secs(60));
        assert_eq!(files(), 3 + 2 + 1, "what nobody wants is gone");
        output.begin(1);
        publish(&mut output, 0, &[0]);
        let text = folder.text("v0.m3u8");
        assert!(
            text.contains("#EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:"),
            "{text}"
        );
        assert!(text.contains(&format!("#EXT-X-MEDIA-SEQUENCE:{}\n", next - 2)));
        assert!(!text.contains("ENDLIST"));
    }

    #[test]
    fn the_next_lower_layer_stands_in() {
        let has = BTreeSet::from([1, 2]);
        let sources: Vec<_> = (0..4).map(|layer| substitute(&has, layer)).collect();
        assert_eq!(sources, [Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(substitute(&BTreeSet::new(), 0), None);
    }
}
