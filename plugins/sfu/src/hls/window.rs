// SPDX-License-Identifier: MPL-2.0

//! The segments that viewers may ask for, and the media playlists that name them (RFC 8216): one playlist a rendition, all
//! with the same media and discontinuity sequence numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use m3u8_rs::{MediaPlaylist, MediaSegment};

use super::rendition::Rendition;

/// Fractions of seconds in EXTINF.
const VERSION: usize = 3;

/// A segment as a playlist names it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) uri: String,
    pub(super) duration: Duration,
    pub(super) at: SystemTime,
}

/// What all playlists have under one sequence number.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    /// The discontinuity sequence number.
    era: u64,
    /// The row begins that era.
    begins: bool,
    entries: BTreeMap<Rendition, Entry>,
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) length: usize,
    target: u64,
    rows: VecDeque<Row>,
    /// The next row's sequence number.
    next: u64,
    era: u64,
    /// Files that no playlist names any more, and when nobody can want them.
    old: VecDeque<(Instant, String)>,
    /// Nothing was published ever.
    fresh: bool,
    ended: bool,
}

impl Window {
    /// Goes on where these playlists ended.
    pub(super) fn new(
        length: usize,
        target: u64,
        before: &BTreeMap<Rendition, MediaPlaylist>,
    ) -> Self {
        let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
        for (&which, playlist) in before {
            let mut era = playlist.discontinuity_sequence;
            for (sequence, segment) in (playlist.media_sequence..).zip(&playlist.segments) {
                era += u64::from(segment.discontinuity);
                let row = rows.entry(sequence).or_insert_with(|| Row {
                    era,
                    begins: segment.discontinuity,
                    entries: BTreeMap::new(),
                });
                row.entries.insert(which, entry(segment));
            }
        }
        let numbers = before.values().map(|playlist| {
            let marks = playlist.segments.iter().filter(|s| s.discontinuity).count();
            let next = playlist.media_sequence + playlist.segments.len() as u64;
            (next, playlist.discontinuity_sequence + marks as u64)
        });
        // Where nothing is known, names must not repeat either: caches keep segments for long.
        let (next, era) = numbers.max().unwrap_or_else(|| (first(target), 0));
        Self {
            length,
            target,
            rows: rows.into_values().collect(),
            next,
            era,
            old: VecDeque::new(),
            fresh: before.is_empty(),
            ended: false,
        }
    }

    /// The sequence number of what is published next.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What has a playlist.
    pub(super) fn renditions(&self) -> BTreeSet<Rendition> {
        let renditions = self.rows.iter().flat_map(|row| row.entries.keys());
        renditions.copied().collect()
    }

    /// How many segments a playlist has.
    pub(super) fn count(&self, which: Rendition) -> usize {
        let newest = self.rows.iter().rev();
        newest
            .take_while(|row| row.entries.contains_key(&which))
            .count()
    }

    /// The files that playlists name.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        let entries = self.rows.iter().flat_map(|row| row.entries.values());
        entries.map(|entry| entry.uri.as_str()).collect()
    }

    /// Adds a segment to the playlists, and drops the oldest. `anew` is a discontinuity.
    pub(super) fn publish(
        &mut self,
        mut entries: BTreeMap<Rendition, Entry>,
        anew: bool,
        now: Instant,
    ) {
        for (which, entry) in &mut entries {
            let before = self.rows.back().and_then(|row| row.entries.get(which));
            if let Some(before) = before {
                // A clock that was set back must not turn the dates around.
                entry.at = entry.at.max(before.at + Duration::from_millis(1));
            }
        }
        self.era += u64::from(anew);
        self.rows.push_back(Row {
            era: self.era,
            begins: anew,
            entries,
        });
        self.next += 1;
        self.fresh = false;
        self.ended = false;
        while self.rows.len() > self.length && self.is_long_without_oldest() {
            self.drop_oldest(now);
        }
    }

    /// No segment may leave a playlist that is then shorter than three times the target duration (section 6.2.2).
    fn is_long_without_oldest(&self) -> bool {
        let shortest = |row: &Row| row.entries.values().map(|e| e.duration).min();
        let rest: Duration = self.rows.iter().skip(1).filter_map(shortest).sum();
        rest >= Duration::from_secs(self.target * 3)
    }

    /// A segment stays available for its own duration and that of the longest playlist that named it (section 6.2.2).
    fn drop_oldest(&mut self, now: Instant) {
        let Some(row) = self.rows.pop_front() else {
            return;
        };
        let files: BTreeSet<String> = row.entries.into_values().map(|e| e.uri).collect();
        for file in files {
            self.retire(file, now);
        }
    }

    /// A file that no playlist names any more.
    pub(super) fn retire(&mut self, file: String, now: Instant) {
        let longest = Duration::from_secs(self.target * (self.length as u64 + 2));
        self.old.push_back((now + longest, file));
    }

    /// A file to be removed.
    pub(super) fn expired(&mut self, now: Instant) -> Option<String> {
        let (until, _) = self.old.front()?;
        (*until <= now).then(|| self.old.pop_front().map(|(_, file)| file))?
    }

    /// Nothing will be added any more.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// A rendition's playlist: its newest segments without a gap.
    pub(super) fn playlist(&self, which: Rendition) -> MediaPlaylist {
        let mut newest: Vec<(&Row, &Entry)> = (self.rows.iter().rev())
            .map_while(|row| Some((row, row.entries.get(&which)?)))
            .collect();
        newest.reverse();
        let segment = |(row, entry): &(&Row, &Entry)| MediaSegment {
            uri: entry.uri.clone(),
            duration: (entry.duration.as_secs_f64() * 1e3).round() as f32 / 1e3,
            discontinuity: row.begins,
            program_date_time: Some(DateTime::<Utc>::from(entry.at).into()),
            ..MediaSegment::default()
        };
        let first = newest.first().map(|(row, _)| row);
        MediaPlaylist {
            version: Some(VERSION),
            target_duration: self.target,
            media_sequence: self.next - newest.len() as u64,
            // The tag in front of the first segment counts for itself.
            discontinuity_sequence: first.map_or(self.era, |row| row.era - u64::from(row.begins)),
            segments: newest.iter().map(segment).collect(),
            end_list: self.ended,
            ..MediaPlaylist::default()
        }
    }
}

fn entry(segment: &MediaSegment) -> Entry {
    Entry {
        uri: segment.uri.clone(),
        duration: Duration::try_from_secs_f32(segment.duration).unwrap_or_default(),
        at: segment
            .program_date_time
            .map_or(UNIX_EPOCH, SystemTime::from),
    }
}

fn first(target: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs() / target.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(2);

    fn entries(layers: &[usize], number: u64) -> BTreeMap<Rendition, Entry> {
        let entry = |&layer: &usize| {
            let entry = Entry {
                uri: format!("v{layer}-{number}.ts"),
                duration: LONG,
                at: UNIX_EPOCH + LONG * number as u32,
            };
            (Rendition::Layer(layer), entry)
        };
        layers.iter().map(entry).collect()
    }

    /// The playlist's media sequence, discontinuity sequence, and segments, with `!` for a discontinuity.
    fn shown(window: &Window, layer: usize) -> (u64, u64, String) {
        let playlist = window.playlist(Rendition::Layer(layer));
        let segments = playlist.segments.iter().map(|s| {
            let mark = if s.discontinuity { "!" } else { "" };
            format!("{mark}{}", s.uri)
        });
        let segments: Vec<_> = segments.collect();
        let start = playlist.media_sequence;
        (start, playlist.discontinuity_sequence, segments.join(" "))
    }

    fn text(playlist: &MediaPlaylist) -> String {
        let mut text = Vec::new();
        playlist.write_to(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn numbers_go_on_when_segments_and_discontinuities_leave() {
        let mut window = Window::new(3, 2, &BTreeMap::new());
        let (first, now) = (window.next(), Instant::now());
        for (number, anew) in [(0, false), (1, false), (2, true), (3, false)] {
            window.publish(entries(&[0, 1], number), anew, now);
        }
        let expected = (first + 1, 0, "v0-1.ts !v0-2.ts v0-3.ts".to_owned());
        assert_eq!(shown(&window, 0), expected);
        window.publish(entries(&[0, 1], 4), false, now);
        assert_eq!(
            shown(&window, 1),
            (first + 2, 0, "!v1-2.ts v1-3.ts v1-4.ts".to_owned())
        );
        window.publish(entries(&[0, 1], 5), false, now);
        assert_eq!(shown(&window, 1).1, 1, "the tag is gone");
        window.publish(entries(&[0], 6), false, now);
        assert_eq!(shown(&window, 0).2, "v0-4.ts v0-5.ts v0-6.ts");
        assert_eq!(shown(&window, 1).2, "", "it did not go on");
        let last = text(&window.playlist(Rendition::Layer(0)));
        assert!(!last.contains("ENDLIST"));
        window.end();
        let last = text(&window.playlist(Rendition::Layer(0)));
        assert!(last.ends_with("#EXT-X-ENDLIST\n"), "{last}");
        assert!(last.contains("#EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:08.000Z\n"));
        assert!(last.contains("#EXT-X-TARGETDURATION:2\n"));
    }

    #[test]
    fn a_layer_that_comes_later_has_the_same_numbers() {
        let mut window = Window::new(4, 2, &BTreeMap::new());
        let (first, now) = (window.next(), Instant::now());
        window.publish(entries(&[1], 0), false, now);
        window.publish(entries(&[1], 1), true, now);
        window.publish(entries(&[0, 1], 2), false, now);
        assert_eq!(shown(&window, 0), (first + 2, 1, "v0-2.ts".to_owned()));
        assert_eq!(
            shown(&window, 1),
            (first, 0, "v1-0.ts !v1-1.ts v1-2.ts".to_owned())
        );
    }

    #[test]
    fn old_files_stay_as_long_as_somebody_may_want_them() {
        let mut window = Window::new(3, 2, &BTreeMap::new());
        let now = Instant::now();
        for number in 0..4 {
            window.publish(entries(&[0, 1], number), false, now);
        }
        assert_eq!(window.expired(now + LONG * 4), None);
        let later = now + LONG * 5;
        let gone: Vec<_> = std::iter::from_fn(|| window.expired(later)).collect();
        assert_eq!(gone, ["v0-0.ts", "v1-0.ts"]);
        assert_eq!(window.files().len(), 6);
    }

    #[test]
    fn it_goes_on_where_it_was() {
        let mut window = Window::new(3, 2, &BTreeMap::new());
        let now = Instant::now();
        for (number, anew) in [(0, false), (1, true), (2, false), (3, false)] {
            window.publish(entries(&[0, 1], number), anew, now);
        }
        window.end();
        let parse = |layer| {
            let text = text(&window.playlist(Rendition::Layer(layer)));
            m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap()
        };
        let before = BTreeMap::from([0, 1].map(|layer| (Rendition::Layer(layer), parse(layer))));
        let mut again = Window::new(3, 2, &before);
        assert_eq!(again.rows, window.rows);
        assert_eq!((again.next, again.era), (window.next, window.era));
        again.publish(entries(&[0, 1], 4), true, now);
        let (start, era, segments) = shown(&again, 0);
        assert_eq!((start, era), (window.next - 2, 1));
        assert_eq!(segments, "v0-2.ts v0-3.ts !v0-4.ts");
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_dates_around() {
        let mut window = Window::new(3, 2, &BTreeMap::new());
        for number in [9, 3, 4] {
            window.publish(entries(&[0], number), true, Instant::now());
        }
        let dates: Vec<_> = (window.playlist(Rendition::Layer(0)).segments.iter())
            .map(|s| s.program_date_time)
            .collect();
        assert!(dates.is_sorted_by(|a, b| a < b), "{dates:?}");
    }
}
