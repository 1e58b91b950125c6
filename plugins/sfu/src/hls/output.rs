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
use super::master::{Master, Media, Sound};
use super::rendition::{PART, Rendition};
use super::slots::{Row, Segment, has_layer, take_short};
use super::window::{Entry, Window};

/// The multivariant playlist's name.
const MASTER: &str = "index.m3u8";
/// Players begin three segments before the end (RFC 8216, section 6.3.3): an audio track that came later is named when it
/// has them, too.
const BEGIN: usize = 3;
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
    /// What has a playlist.
    renditions: BTreeSet<Rendition>,
    /// Of which rendition each playlist's last segment was.
    sources: BTreeMap<Rendition, Rendition>,
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
    /// What is to have had a segment before players are told of any.
    expected: BTreeSet<Rendition>,
    rows: u32,
    /// Where each rendition's last segment ended. One that could not be written leaves a gap.
    ends: BTreeMap<Rendition, u64>,
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
            renditions: window.renditions(),
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
            } else if Rendition::is_segment(&name) && !named.contains(&name) {
                self.window.retire(name, Instant::now());
            }
        }
        Ok(())
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
    pub(super) fn begin(&mut self, expected: BTreeSet<Rendition>) {
        self.master.reset();
        self.sources.clear();
        let layers = expected.iter().filter(|which| !which.is_audio());
        self.renditions.extend(layers);
        self.session = Session {
            expected,
            ..Session::default()
        };
    }

    /// The audio tracks that there are, the first one of which is in the layers.
    pub(super) fn set_sound(&mut self, sound: Vec<Sound>) {
        self.master.sound = sound;
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

    /// Publishes the segments of one slot. A playlist whose rendition has none gets another one's.
    pub(super) fn publish(
        &mut self,
        mut row: Row,
        date: impl Fn(u64) -> SystemTime,
        media: impl Fn(usize) -> Media,
    ) -> io::Result<()> {
        for segment in take_short(&mut row) {
            discard(&segment);
        }
        if !has_layer(&row) {
            // Nothing could stand in for the layers.
            row.values().for_each(discard);
            return Ok(());
        }
        let sequence = self.window.next();
        let (mut own, mut gap) = (BTreeMap::new(), false);
        for (which, segment) in row {
            let entry = Entry {
                uri: which.segment(sequence),
                duration: segment.duration,
                at: date(segment.start),
            };
            if let Err(error) = fs::rename(&segment.file, self.folder.join(&entry.uri)) {
                discard(&segment);
                return Err(error);
            }
            gap |= self.breaks(which, &segment);
            let media = match which {
                Rendition::Layer(layer) => media(layer),
                Rendition::Audio(_) => Media::default(),
            };
            self.master
                .segment(which, media, segment.bytes, segment.duration);
            own.insert(which, entry);
        }
        self.add(&own, gap);
        self.write()
    }

    /// Whether a segment does not continue the one before. A track that comes later has none.
    fn breaks(&mut self, which: Rendition, segment: &Segment) -> bool {
        let end = self.session.ends.insert(which, segment.end());
        let apart = end.is_some_and(|end| segment.start.abs_diff(end) > JOIN);
        apart || (segment.gap && !which.is_audio())
    }

    /// Puts the segments of one slot into the playlists.
    fn add(&mut self, own: &BTreeMap<Rendition, Entry>, gap: bool) {
        let has: BTreeSet<Rendition> = own.keys().copied().collect();
        self.renditions.extend(&has);
        let sources: BTreeMap<Rendition, Rendition> = (self.renditions.iter())
            .filter_map(|&which| Some((which, substitute(&has, which)?)))
            .collect();
        let first = self.session.rows == 0;
        let mut before = self.sources.iter();
        let other = before.any(|(which, source)| sources.get(which) != Some(source));
        let anew = !self.window.is_fresh() && (gap || first || other);
        let entry =
            |(&which, source): (&Rendition, &Rendition)| Some((which, own.get(source)?.clone()));
        let entries = sources.iter().filter_map(entry).collect();
        self.window.publish(entries, anew, Instant::now());
        self.sources = sources;
        self.session.rows += 1;
        self.segments += 1;
    }

    /// Media playlists first: the multivariant one must name nothing that is not there.
    fn write(&mut self) -> io::Result<()> {
        for &which in &self.renditions {
            let mut text = Vec::new();
            self.window.playlist(which).write_to(&mut text)?;
            put(&self.folder, &which.playlist(), &text)?;
        }
        let had = |which: &Rendition| self.session.ends.contains_key(which);
        let complete = self.session.expected.iter().all(had);
        if !complete && self.session.rows < LAYERS_WITHIN {
            return Ok(());
        }
        let enough = self.window.count(Rendition::Layer(0)).min(BEGIN);
        let begins = |track| {
            let which = Rendition::Audio(track);
            had(&which) && self.window.count(which) >= enough
        };
        if let Some(text) = self.master.news(begins)
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

/// The rendition whose segment stands in for one's own: the next lower layer, else the next higher one. For an audio track
/// it is the lowest layer, which has the first track: players that play the other one would stop without any.
fn substitute(has: &BTreeSet<Rendition>, which: Rendition) -> Option<Rendition> {
    let layers = || has.iter().filter(|which| !which.is_audio());
    if has.contains(&which) {
        return Some(which);
    }
    let lower = layers().find(|layer| **layer > which);
    lower.or_else(|| layers().next_back()).copied()
}

fn is_part(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(PART)
}

/// What an earlier run wrote, as far as the segments are still there.
fn playlists(folder: &Path) -> io::Result<BTreeMap<Rendition, MediaPlaylist>> {
    let mut found = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name().to_string_lossy().into_owned();
        let Some(which) = Rendition::of_playlist(&name) else {
            continue;
        };
        let text = fs::read(folder.join(&name))?;
        let Ok(mut playlist) = m3u8_rs::parse_media_playlist_res(&text) else {
            continue;
        };
        let is_there = |uri: &str| Rendition::is_segment(uri) && folder.join(uri).is_file();
        if playlist.segments.iter().any(|s| !is_there(&s.uri)) {
            // Only the numbers go on.
            playlist.media_sequence += playlist.segments.len() as u64;
            playlist.segments.clear();
        }
        found.insert(which, playlist);
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
        publish_all(output, slot, layers, &[]);
    }

    fn publish_all(output: &mut Output, slot: u64, layers: &[usize], audio: &[usize]) {
        let segment = |rendition: Rendition| {
            let file = rendition.part(output.folder(), slot);
            fs::write(&file, b"media").unwrap();
            let segment = Segment {
                rendition,
                slot,
                file,
                start: slot * 2_000_000_000,
                duration: Duration::from_secs(2),
                bytes: 5,
                gap: false,
            };
            (rendition, segment)
        };
        let layers = layers.iter().map(|n| Rendition::Layer(*n));
        let audio = audio.iter().map(|n| Rendition::Audio(*n));
        let row: Row = layers.chain(audio).map(segment).collect();
        let date = |at| SystemTime::UNIX_EPOCH + Duration::from_nanos(at);
        output.publish(row, date, |_| Media::default()).unwrap();
    }

    fn layers(count: usize) -> BTreeSet<Rendition> {
        (0..count).map(Rendition::Layer).collect()
    }

    fn sound(number: usize, language: &str) -> Sound {
        let language = language.parse().ok();
        Sound { number, language }
    }

    #[test]
    fn an_audio_track_that_comes_and_goes_stops_nothing() {
        let folder = Folder::new("tracks");
        let mut output = folder.open();
        output.begin(layers(1));
        publish(&mut output, 0, &[0]);
        let plain = folder.text(MASTER);
        output.set_sound(vec![sound(0, "de"), sound(1, "fr")]);
        let marks = |name: &str| folder.text(name).matches("#EXT-X-DISCONTINUITY\n").count();
        for slot in 1..4 {
            assert_eq!(folder.text(MASTER), plain, "{slot}: not enough of it");
            publish_all(&mut output, slot, &[0], &[1]);
        }
        let both = folder.text(MASTER);
        assert!(both.contains("URI=\"a1.m3u8\""), "{both}");
        assert_eq!(
            (marks("v0.m3u8"), marks("a1.m3u8")),
            (0, 0),
            "it came without"
        );
        // It is late once.
        publish(&mut output, 4, &[0]);
        let track = folder.text("a1.m3u8");
        assert!(
            track
                .trim_end()
                .ends_with(&format!("v0-{}.ts", output.sequence() - 1)),
            "{track}"
        );
        assert_eq!((marks("v0.m3u8"), marks("a1.m3u8")), (1, 1));
        publish_all(&mut output, 5, &[0], &[1]);
        // The publisher has it no more: who plays it gets what there is, and nobody is told of it.
        output.set_sound(vec![sound(0, "de")]);
        publish_all(&mut output, 6, &[0], &[1]);
        assert_eq!(folder.text(MASTER), plain);
        assert!(folder.text("a1.m3u8").contains("\na1-"));
        let before = output.sequence();
        publish_all(&mut output, 7, &[], &[1]);
        assert_eq!(output.sequence(), before, "alone it is nothing");
        // The next publisher has one track.
        output.begin(layers(1));
        publish(&mut output, 0, &[0]);
        assert!(
            folder
                .text("a1.m3u8")
                .trim_end()
                .ends_with(&format!("v0-{before}.ts"))
        );
        assert_eq!(folder.text(MASTER), plain);
    }

    #[test]
    fn tracks_that_are_expected_are_named_from_the_start() {
        let folder = Folder::new("expected");
        let mut output = folder.open();
        let expected = [Rendition::Layer(0), Rendition::Audio(1)];
        output.begin(expected.into());
        output.set_sound(vec![sound(0, "de"), sound(1, "fr")]);
        publish(&mut output, 0, &[0]);
        assert_eq!(folder.text(MASTER), "", "the track is waited for");
        publish_all(&mut output, 1, &[0], &[1]);
        assert!(folder.text(MASTER).contains("v0.m3u8"));
    }

    #[test]
    fn a_layer_that_is_away_is_stood_in_for() {
        let folder = Folder::new("away");
        let mut output = folder.open();
        output.begin(layers(2));
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
        output.begin(layers(1));
        for (slot, expected) in [(0, 0), (1, 0), (3, 1), (4, 1)] {
            publish(&mut output, slot, &[0]);
            assert_eq!(output.discontinuities(), expected, "{slot}");
        }
    }

    #[test]
    fn another_run_goes_on_and_sweeps() {
        let folder = Folder::new("again");
        let mut output = folder.open();
        output.begin(layers(1));
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
        output.begin(layers(1));
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
        let has: BTreeSet<_> = layers(3).into_iter().skip(1).collect();
        let number = |which| match substitute(&has, which) {
            Some(Rendition::Layer(layer)) => layer,
            other => panic!("{other:?}"),
        };
        let sources: Vec<_> = (0..4).map(|n| number(Rendition::Layer(n))).collect();
        assert_eq!(sources, [1, 1, 2, 2]);
        assert_eq!(number(Rendition::Audio(1)), 2, "the lowest for sound");
        assert_eq!(substitute(&BTreeSet::new(), Rendition::Layer(0)), None);
        let has = BTreeSet::from([Rendition::Audio(1)]);
        assert_eq!(substitute(&has, Rendition::Layer(0)), None);
    }
}
