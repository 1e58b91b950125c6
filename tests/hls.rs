// SPDX-License-Identifier: MPL-2.0

//! A checker of HLS: reads the playlists again and again, as players do, and finds what breaks RFC 8216. It has a parser
//! of its own, so that it does not believe what the writer believes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// Gets a file by its name in the stream's folder; `None` where there is none.
pub type Fetch = Box<dyn Fn(&str) -> Option<Vec<u8>>>;

/// How far two layers may begin the same segment apart: each begins it with a keyframe of its own.
const ALIGNED: f64 = 0.3;
/// How far a date may be off.
const OFF: f64 = 0.1;
/// How much later than it must stay a segment may be removed.
const LEISURE: Duration = Duration::from_secs(12);

/// A segment as a playlist names it.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Its place in the folder.
    pub uri: String,
    /// EXTINF in seconds.
    pub duration: f64,
    /// EXT-X-PROGRAM-DATE-TIME in seconds of an epoch.
    pub date: f64,
    /// Its discontinuity sequence number.
    pub era: u64,
}

/// A media playlist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Playlist {
    /// EXT-X-TARGETDURATION.
    pub target: u64,
    /// By media sequence number.
    pub segments: BTreeMap<u64, Segment>,
    /// It has EXT-X-ENDLIST.
    pub ended: bool,
}

/// A line of the multivariant playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its playlist.
    pub uri: String,
    /// Its attributes, without quotation marks.
    pub attributes: BTreeMap<String, String>,
}

/// See the module's description. Panics where a rule is broken.
pub struct Checker {
    fetch: Fetch,
    before: BTreeMap<String, Playlist>,
    /// Segments that left a playlist: until when they must stay.
    gone: BTreeMap<String, Instant>,
    /// Of all segments that were ever listed.
    pub seen: usize,
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").field("seen", &self.seen).finish()
    }
}

impl Checker {
    /// Checks what `fetch` gets.
    pub fn new(fetch: Fetch) -> Self {
        Self {
            fetch,
            before: BTreeMap::new(),
            gone: BTreeMap::new(),
            seen: 0,
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        let text = (self.fetch)(name)?;
        let text = String::from_utf8(text).expect("playlists are UTF-8");
        assert!(text.starts_with("#EXTM3U\n"), "{name}: {text:?}");
        assert!(text.ends_with('\n'), "{name} is not whole: {text:?}");
        Some(text)
    }

    /// The multivariant playlist, if it is there yet.
    pub fn variants(&self) -> Option<Vec<Variant>> {
        let text = self.text("index.m3u8")?;
        let mut lines = text.lines();
        let mut variants = Vec::new();
        while let Some(line) = lines.next() {
            if let Some(list) = line.strip_prefix("#EXT-X-STREAM-INF:") {
                let uri = lines.next().expect("a line behind EXT-X-STREAM-INF");
                variants.push(Variant {
                    uri: uri.to_owned(),
                    attributes: attributes(list),
                });
            }
        }
        assert!(!variants.is_empty(), "{text}");
        for variant in &variants {
            assert!(variant.attributes.contains_key("BANDWIDTH"), "{text}");
            assert!(variant.attributes.contains_key("CODECS"), "{text}");
        }
        Some(variants)
    }

    /// The renditions of the multivariant playlist (EXT-X-MEDIA), by their attributes: none before it is there.
    pub fn renditions(&self) -> Vec<BTreeMap<String, String>> {
        let text = self.text("index.m3u8").unwrap_or_default();
        let lines = text.lines();
        let lists = lines.filter_map(|line| line.strip_prefix("#EXT-X-MEDIA:"));
        let renditions: Vec<_> = lists.map(attributes).collect();
        for attribute in ["TYPE", "GROUP-ID", "NAME"] {
            let all_have = renditions.iter().all(|r| r.contains_key(attribute));
            assert!(all_have, "{attribute}: {text}");
        }
        let mut names: Vec<_> = renditions
            .iter()
            .map(|r| (&r["GROUP-ID"], &r["NAME"]))
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(
            names.len(),
            renditions.len(),
            "names are used twice: {text}"
        );
        renditions
    }

    /// Looks at everything once. `None` while there is no multivariant playlist.
    pub fn look(&mut self) -> Option<BTreeMap<String, Playlist>> {
        let mut all = BTreeMap::new();
        let variants = self.variants()?.into_iter().map(|variant| variant.uri);
        let renditions = self.renditions().into_iter();
        let further = renditions.filter_map(|mut rendition| rendition.remove("URI"));
        for uri in variants.chain(further) {
            let text = self.text(&uri).expect("a playlist that is named is there");
            let playlist = parse(&text);
            playlist.check(&uri);
            if let Some(before) = self.before.remove(&uri) {
                playlist.check_since(&before, &uri);
                self.note_removed(&before, &playlist);
            }
            self.check_segments(&playlist);
            all.insert(uri, playlist);
        }
        check_alignment(&all);
        self.check_removed(&all);
        self.before = all.clone();
        Some(all)
    }

    /// What is listed is there, and is MPEG-TS with a program.
    fn check_segments(&mut self, playlist: &Playlist) {
        for segment in playlist.segments.values() {
            let data = (self.fetch)(&segment.uri);
            let data = data.unwrap_or_else(|| panic!("{} is listed and not there", segment.uri));
            assert!(
                data.len() > 188 && data.len().is_multiple_of(188),
                "{}: {}",
                segment.uri,
                data.len()
            );
            let packets = data.chunks(188);
            assert!(
                packets.clone().all(|p| p[0] == 0x47),
                "{} is no MPEG-TS",
                segment.uri
            );
            let pid = |p: &[u8]| u16::from_be_bytes([p[1] & 0x1f, p[2]]);
            assert!(
                packets.clone().any(|p| pid(p) == 0),
                "{}: no PAT",
                segment.uri
            );
        }
    }

    fn note_removed(&mut self, before: &Playlist, now: &Playlist) {
        let length: f64 = before.segments.values().map(|s| s.duration).sum();
        for (number, segment) in &before.segments {
            if !now.segments.contains_key(number) {
                let stays = Duration::from_secs_f64(segment.duration + length);
                self.gone
                    .entry(segment.uri.clone())
                    .or_insert(Instant::now() + stays);
            }
        }
        let new = now
            .segments
            .keys()
            .filter(|n| !before.segments.contains_key(n));
        self.seen += new.count();
    }

    /// A segment stays for its duration and that of the playlist (section 6.2.2), and not for ever.
    fn check_removed(&mut self, all: &BTreeMap<String, Playlist>) {
        let now = Instant::now();
        let ended = all.values().any(|playlist| playlist.ended);
        let fetch = &self.fetch;
        self.gone.retain(|uri, until| {
            let is_there = fetch(uri).is_some();
            // What was fetched just now was there a moment ago.
            assert!(
                is_there || now + Duration::from_millis(200) >= *until,
                "{uri} went too early"
            );
            assert!(
                !is_there || ended || now < *until + LEISURE,
                "{uri} is still there"
            );
            is_there
        });
    }

    /// Looks twice a second until `is_so` says so.
    pub fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut(&BTreeMap<String, Playlist>) -> bool,
    ) -> BTreeMap<String, Playlist> {
        let end = Instant::now() + limit;
        loop {
            let now = self.look();
            if let Some(all) = now.as_ref().filter(|all| is_so(all)) {
                return all.clone();
            }
            assert!(Instant::now() < end, "no {what} in {limit:?}: {now:#?}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Playlist {
    /// The newest segment's number, or 0.
    pub fn newest(&self) -> u64 {
        self.segments
            .keys()
            .next_back()
            .copied()
            .unwrap_or_default()
    }

    /// How many discontinuities there have been.
    pub fn era(&self) -> u64 {
        self.segments.values().next_back().map_or(0, |s| s.era)
    }

    /// How old the newest picture was when it was listed: its end's date against the clock.
    pub fn behind(&self) -> Option<Duration> {
        let last = self.segments.values().next_back()?;
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()?;
        Duration::try_from_secs_f64(now.as_secs_f64() - last.date - last.duration).ok()
    }

    fn check(&self, name: &str) {
        let segments: Vec<_> = self.segments.values().collect();
        for segment in &segments {
            assert!(
                segment.duration.round() as u64 <= self.target,
                "{name}: {segment:?}"
            );
            assert!(segment.duration > 0.0, "{name}: {segment:?}");
        }
        for pair in segments.windows(2) {
            let (a, b) = (pair[0], pair[1]);
            assert!(a.date < b.date, "{name}: dates go back: {pair:?}");
            assert!(a.era <= b.era, "{name}: {pair:?}");
            let off = b.date - a.date - a.duration;
            assert!(
                a.era != b.era || off.abs() < OFF,
                "{name}: a gap of {off} s: {pair:?}"
            );
        }
    }

    /// What a playlist has said it does not take back (section 6.2.1).
    fn check_since(&self, before: &Self, name: &str) {
        assert_eq!(
            self.target, before.target,
            "{name}: the target duration changed"
        );
        if before.ended && self.ended {
            assert_eq!(self, before, "{name} has ended");
        }
        let first = |p: &Self| p.segments.keys().next().copied().unwrap_or_default();
        assert!(
            first(self) >= first(before),
            "{name}: the media sequence goes back"
        );
        assert!(
            self.newest() >= before.newest(),
            "{name}: segments are missing at the end"
        );
        for (number, segment) in &self.segments {
            let same = before.segments.get(number).is_none_or(|b| b == segment);
            assert!(
                same,
                "{name}: {number} was {:?} and is {segment:?}",
                before.segments.get(number)
            );
        }
        if first(self) > first(before) {
            let length: f64 = self.segments.values().map(|s| s.duration).sum();
            assert!(
                length + 0.01 >= 3.0 * self.target as f64,
                "{name}: only {length} s"
            );
        }
    }
}

/// Segments of the same number are of the same moment in all layers, and audio tracks.
fn check_alignment(all: &BTreeMap<String, Playlist>) {
    let mut playlists = all.values().rev();
    let Some(first) = playlists.next() else {
        return;
    };
    for other in playlists {
        for (number, segment) in &other.segments {
            let Some(same) = first.segments.get(number) else {
                continue;
            };
            let apart = (same.date - segment.date).abs();
            // An audio track that comes later begins within a segment.
            let newcomer = [first, other]
                .iter()
                .any(|p| p.segments.keys().next() == Some(number));
            let ends = (same.date + same.duration - segment.date - segment.duration).abs();
            assert!(
                apart < ALIGNED || (newcomer && ends < ALIGNED),
                "{apart} s: {same:?} {segment:?}"
            );
            assert_eq!(same.era, segment.era, "{same:?} {segment:?}");
        }
    }
}

/// `NAME=VALUE,NAME="VALUE"`
fn attributes(list: &str) -> BTreeMap<String, String> {
    let (mut found, mut rest) = (BTreeMap::new(), list);
    while let Some((name, value)) = rest.split_once('=') {
        let (value, more) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').expect("a closing quotation mark"),
            None => value.split_at(value.find(',').unwrap_or(value.len())),
        };
        found.insert(name.to_owned(), value.to_owned());
        rest = more.trim_start_matches(',');
    }
    found
}

/// Seconds of an epoch of its own: days of a proleptic calendar, and the time of the day in UTC.
fn date(text: &str) -> f64 {
    let number = |range: std::ops::Range<usize>| -> f64 {
        let part = text.get(range.clone()).and_then(|part| part.parse().ok());
        part.unwrap_or_else(|| panic!("{text:?} is no date"))
    };
    assert!(text.ends_with('Z'), "{text:?} is not UTC");
    let (year, month, day) = (
        number(0..4) as i64,
        number(5..7) as i64,
        number(8..10) as i64,
    );
    // Years begin in March, so that leap days are their last ones.
    let (y, m) = (year - i64::from(month <= 2), (month + 9) % 12);
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (m * 306 + 5) / 10 + day - 1 - 719_468;
    let seconds = number(11..13) * 3_600.0 + number(14..16) * 60.0 + number(17..text.len() - 1);
    days as f64 * 86_400.0 + seconds
}

fn parse(text: &str) -> Playlist {
    let (mut playlist, mut number, mut era) = (Playlist::default(), 0, 0);
    let (mut duration, mut at) = (None, None);
    let mut once: BTreeMap<&str, u32> = BTreeMap::new();
    for line in text.lines().skip(1) {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        let integer = || value.parse().unwrap_or_else(|_| panic!("{line}"));
        *once.entry(tag).or_default() += u32::from(tag.starts_with("#EXT-X-"));
        match tag {
            "#EXT-X-VERSION" => assert!((3..=7).contains(&integer()), "{line}"),
            "#EXT-X-TARGETDURATION" => playlist.target = integer(),
            "#EXT-X-MEDIA-SEQUENCE" => number = integer(),
            "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                assert!(playlist.segments.is_empty(), "behind a segment: {text}");
                era = integer();
            }
            "#EXT-X-DISCONTINUITY" => era += 1,
            "#EXT-X-PROGRAM-DATE-TIME" => at = Some(date(value)),
            "#EXTINF" => duration = value.trim_end_matches(',').parse().ok(),
            "#EXT-X-ENDLIST" => playlist.ended = true,
            _ if line.starts_with('#') => panic!("an unknown tag: {line}"),
            _ => {
                let segment = Segment {
                    uri: line.to_owned(),
                    duration: duration.take().expect("EXTINF before each segment"),
                    date: at.take().expect("a date before each segment"),
                    era,
                };
                playlist.segments.insert(number, segment);
                number += 1;
            }
        }
    }
    for tag in ["VERSION", "TARGETDURATION", "MEDIA-SEQUENCE"] {
        let times = once.get(format!("#EXT-X-{tag}").as_str()).copied();
        assert_eq!(times, Some(1), "{tag}: {text}");
    }
    playlist
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-02-28T23:59:58.500Z\n#EXTINF:2,\na.ts\n\
        #EXT-X-PROGRAM-DATE-TIME:2026-03-01T00:00:00.500Z\n#EXTINF:1.9,\nb.ts\n\
        #EXT-X-DISCONTINUITY\n#EXT-X-PROGRAM-DATE-TIME:2026-03-01T00:01:00.000Z\n#EXTINF:2.1,\nc.ts\n";

    /// Whether a playlist passes, after another one.
    fn passes(before: &str, text: &str) -> bool {
        std::panic::catch_unwind(|| {
            let playlist = parse(text);
            playlist.check("test");
            playlist.check_since(&parse(before), "test");
        })
        .is_ok()
    }

    #[test]
    fn good_playlists_pass_and_bad_ones_do_not() {
        assert!(passes(GOOD, GOOD));
        let dates = [
            date("1970-01-02T00:00:01Z"),
            date("2000-03-01T00:00:00.250Z"),
        ];
        assert_eq!(dates, [86_401.0, 951_868_800.25]);
        for (from, to) in [
            ("EXTINF:2.1", "EXTINF:2.5"),
            ("EXTINF:1.9", "EXTINF:1.5"),
            ("SEQUENCE:7", "SEQUENCE:6"),
            ("SEQUENCE:7", "SEQUENCE:8"),
            ("DURATION:2", "DURATION:3"),
            ("T00:01:00", "T00:00:00"),
            ("T00:00:00.500Z", "T00:00:01.500Z"),
            ("#EXT-X-DISCONTINUITY\n", ""),
            ("b.ts", "d.ts"),
            ("#EXTINF:2,\n", ""),
            (
                "#EXT-X-VERSION:3\n",
                "#EXT-X-VERSION:3\n#EXT-X-DISCONTINUITY-SEQUENCE:1\n",
            ),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD);
            assert!(!passes(GOOD, &bad), "{from} as {to} passes");
        }
    }

    #[test]
    fn attributes_may_have_commas() {
        let found = attributes("BANDWIDTH=5,CODECS=\"a,b\",RESOLUTION=1x2");
        let expected = [("BANDWIDTH", "5"), ("CODECS", "a,b"), ("RESOLUTION", "1x2")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
    }
}
