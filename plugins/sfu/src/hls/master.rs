// SPDX-License-Identifier: MPL-2.0

//! The multivariant playlist: which layers there are, and what each needs (RFC 8216, section 4.3.4.2), and which further audio
//! tracks (section 4.3.4.1). The first track is in the layers: who knows no others gets that.

use std::collections::BTreeMap;
use std::time::Duration;

use m3u8_rs::{AlternativeMedia, AlternativeMediaType, MasterPlaylist, Resolution, VariantStream};
use sfu_engine::Language;

use super::rendition::Rendition;

/// The audio that `session.rs` encodes: AAC, low complexity.
const AUDIO: &str = "mp4a.40.2";
/// Peaks are rounded up to this many bit/s, so that the playlist seldom changes.
const STEP: u64 = 100_000;
/// The group of all audio tracks.
const GROUP: &str = "audio";
/// What `session.rs` makes of any sound.
const CHANNELS: &str = "2";

/// What a layer's media is, as its own headers tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Media {
    /// Such as `avc1.42c01f`.
    pub(super) video: Option<String>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) audio: bool,
}

/// An audio track, as its publisher declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sound {
    pub(super) number: usize,
    pub(super) language: Option<Language>,
}

#[derive(Debug, Clone, Default)]
struct Variant {
    media: Media,
    peak: u64,
    bytes: u64,
    time: Duration,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct Master {
    /// The first one is in the layers.
    pub(super) sound: Vec<Sound>,
    variants: BTreeMap<Rendition, Variant>,
    written: Option<String>,
}

impl Master {
    /// Another publisher: what layers there are shows anew.
    pub(super) fn reset(&mut self) {
        self.variants.clear();
    }

    /// Takes note of a segment.
    pub(super) fn segment(
        &mut self,
        which: Rendition,
        media: Media,
        bytes: u64,
        duration: Duration,
    ) {
        let variant = self.variants.entry(which).or_default();
        variant.media = media;
        variant.bytes += bytes;
        variant.time += duration;
        // The end of a session leaves a short segment, whose rate says little.
        if duration >= Duration::from_millis(500) {
            let rate = (bytes as f64 * 8.0 / duration.as_secs_f64()) as u64;
            variant.peak = variant.peak.max(rate.next_multiple_of(STEP));
        }
    }

    /// The playlist, if it is not as it was. `begins` tells of further audio tracks whether players can begin with them.
    pub(super) fn news(&mut self, begins: impl Fn(usize) -> bool) -> Option<String> {
        let sound = self.alternatives(begins);
        let peak = |number: usize| {
            let variant = self.variants.get(&Rendition::Audio(number));
            variant.map_or(STEP, |variant| variant.peak.max(STEP))
        };
        let further = sound.iter().skip(1).map(|sound| peak(sound.number)).max();
        let variants = self.variants.iter();
        let variants = variants.filter(|(which, _)| !which.is_audio());
        let playlist = MasterPlaylist {
            // Not needed, but players that are older may not want to know of alternatives (section 7).
            version: Some(if sound.is_empty() { 3 } else { 4 }),
            variants: variants.map(|variant| stream(variant, further)).collect(),
            alternatives: alternatives(&sound),
            ..MasterPlaylist::default()
        };
        let mut text = Vec::new();
        playlist.write_to(&mut text).ok()?;
        let text = String::from_utf8(text).ok()?;
        let news = self.written.as_ref() != Some(&text);
        news.then(|| self.written.insert(text).clone())
    }

    /// The tracks that players may choose from: none where there is no choice.
    fn alternatives(&self, begins: impl Fn(usize) -> bool) -> Vec<Sound> {
        let mut sound = self.sound.iter();
        let first = sound.next();
        let further: Vec<_> = sound.filter(|sound| begins(sound.number)).collect();
        let first = first.filter(|_| !further.is_empty());
        first.into_iter().chain(further).cloned().collect()
    }

    /// It could not be written.
    pub(super) fn forget(&mut self) {
        self.written = None;
    }
}

/// `further` is the peak of the costliest audio track that may be played with it.
fn stream((which, variant): (&Rendition, &Variant), further: Option<u64>) -> VariantStream {
    let media = &variant.media;
    let audio = media.audio.then(|| AUDIO.to_owned());
    let codecs: Vec<_> = media.video.iter().cloned().chain(audio).collect();
    let average = (variant.bytes as f64 * 8.0 / variant.time.as_secs_f64().max(0.1)) as u64;
    let more = further.unwrap_or(0);
    VariantStream {
        uri: which.playlist(),
        bandwidth: variant.peak.max(STEP) + more,
        average_bandwidth: Some(average.next_multiple_of(STEP).min(variant.peak.max(STEP)) + more),
        codecs: (!codecs.is_empty()).then(|| codecs.join(",")),
        resolution: media.size.map(|(width, height)| Resolution {
            width: width.into(),
            height: height.into(),
        }),
        audio: further.map(|_| GROUP.to_owned()),
        ..VariantStream::default()
    }
}

/// All of one group, and by different names (section 4.3.4.1.1). What has no address is in the layers.
fn alternatives(sound: &[Sound]) -> Vec<AlternativeMedia> {
    let mut made: Vec<AlternativeMedia> = Vec::new();
    for (n, sound) in sound.iter().enumerate() {
        let language = sound.language.as_ref().map(ToString::to_string);
        let same = made.iter().filter(|m| m.language == language).count();
        let name = match &language {
            Some(language) if same == 0 => language.clone(),
            Some(language) => format!("{language} ({})", same + 1),
            None => format!("Audio {}", n + 1),
        };
        made.push(AlternativeMedia {
            media_type: AlternativeMediaType::Audio,
            uri: (n > 0).then(|| Rendition::Audio(sound.number).playlist()),
            group_id: GROUP.to_owned(),
            name,
            default: n == 0,
            // What players choose by their user's language must be told apart by it.
            autoselect: n == 0 || (same == 0 && language.is_some()),
            language,
            channels: Some(CHANNELS.to_owned()),
            ..AlternativeMedia::default()
        });
    }
    made
}

/// The codec's name (RFC 6381) from the sequence parameter set in a picture of a byte stream.
pub(super) fn h264_codec(picture: &[u8]) -> Option<String> {
    let at = picture.windows(4).position(|w| {
        let [0, 0, 1, header] = w else { return false };
        header & 0x1f == 7
    })?;
    let [profile, constraints, level] = picture.get(at + 4..at + 7)? else {
        return None;
    };
    Some(format!("avc1.{profile:02x}{constraints:02x}{level:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_when_there_is_news_only() {
        let mut master = Master::default();
        let media = Media {
            video: Some("avc1.42c01f".into()),
            size: Some((640, 360)),
            audio: true,
        };
        let two = Duration::from_secs(2);
        master.segment(Rendition::Layer(1), media.clone(), 100_000, two);
        let text = master.news(|_| false).unwrap();
        let expected = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH=400000,AVERAGE-BANDWIDTH=400000,\
                        CODECS=\"avc1.42c01f,mp4a.40.2\",RESOLUTION=640x360\nv1.m3u8\n";
        assert_eq!(text, expected);
        master.segment(Rendition::Layer(1), media.clone(), 99_000, two);
        assert_eq!(master.news(|_| false), None);
        let size = Some((1280, 720));
        let high = Media { size, ..media };
        master.segment(Rendition::Layer(0), high, 500_000, two);
        let text = master.news(|_| false).unwrap();
        assert!(text.find("v0.m3u8") < text.find("v1.m3u8"), "{text}");
        master.forget();
        assert_eq!(master.news(|_| false), Some(text));
    }

    #[test]
    fn audio_tracks_are_a_group_that_all_layers_name() {
        let mut master = Master::default();
        let two = Duration::from_secs(2);
        let media = Media {
            audio: true,
            ..Media::default()
        };
        master.segment(Rendition::Layer(0), media.clone(), 100_000, two);
        master.segment(Rendition::Layer(1), media, 20_000, two);
        let sound = |(number, language): (usize, &str)| Sound {
            number,
            language: language.parse().ok(),
        };
        master.sound = [(0, "de")].map(sound).into();
        let plain = master.news(|_| true).unwrap();
        assert!(
            plain.contains("VERSION:3\n") && !plain.contains("AUDIO"),
            "{plain}"
        );
        let tracks = [(0, "de"), (1, "fr"), (2, "de"), (4, ""), (5, "en-GB")];
        master.sound = tracks.map(sound).into();
        for track in [1, 2, 4] {
            master.segment(Rendition::Audio(track), Media::default(), 33_000, two);
        }
        assert_eq!(master.news(|_| false), None, "nothing of them yet");
        let text = master.news(|track| track != 5).unwrap();
        let expected = "#EXTM3U\n#EXT-X-VERSION:4\n\
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",LANGUAGE=\"de\",NAME=\"de\",DEFAULT=YES,AUTOSELECT=YES,CHANNELS=\"2\"\n\
            #EXT-X-MEDIA:TYPE=AUDIO,URI=\"a1.m3u8\",GROUP-ID=\"audio\",LANGUAGE=\"fr\",NAME=\"fr\",AUTOSELECT=YES,CHANNELS=\"2\"\n\
            #EXT-X-MEDIA:TYPE=AUDIO,URI=\"a2.m3u8\",GROUP-ID=\"audio\",LANGUAGE=\"de\",NAME=\"de (2)\",CHANNELS=\"2\"\n\
            #EXT-X-MEDIA:TYPE=AUDIO,URI=\"a4.m3u8\",GROUP-ID=\"audio\",NAME=\"Audio 4\",CHANNELS=\"2\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=600000,AVERAGE-BANDWIDTH=600000,CODECS=\"mp4a.40.2\",AUDIO=\"audio\"\nv0.m3u8\n\
            #EXT-X-STREAM-INF:BANDWIDTH=300000,AVERAGE-BANDWIDTH=300000,CODECS=\"mp4a.40.2\",AUDIO=\"audio\"\nv1.m3u8\n";
        assert_eq!(text, expected);
        master.sound.truncate(1);
        assert_eq!(master.news(|_| true), Some(plain), "they went");
    }

    #[test]
    fn the_codec_is_read_from_the_stream() {
        let picture = [
            0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x1f, 0x8c,
        ];
        assert_eq!(h264_codec(&picture).as_deref(), Some("avc1.42c01f"));
        for cut in 0..picture.len() - 1 {
            let codec = h264_codec(&picture[..cut]);
            assert!(codec.is_none() || cut == 14, "{cut}");
        }
        assert_eq!(h264_codec(&[0, 0, 1, 0x65, 1, 2, 3]), None);
    }
}
