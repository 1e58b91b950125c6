// SPDX-License-Identifier: MPL-2.0

//! The multivariant playlist: which layers there are, and what each needs (RFC 8216, section 4.3.4.2).

use std::collections::BTreeMap;
use std::time::Duration;

use m3u8_rs::{MasterPlaylist, Resolution, VariantStream};

/// The audio that `session.rs` encodes: AAC, low complexity.
const AUDIO: &str = "mp4a.40.2";
/// Peaks are rounded up to this many bit/s, so that the playlist seldom changes.
const STEP: u64 = 100_000;

/// What a layer's media is, as its own headers tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Media {
    /// Such as `avc1.42c01f`.
    pub(super) video: Option<String>,
    pub(super) size: Option<(u32, u32)>,
    pub(super) audio: bool,
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
    variants: BTreeMap<usize, Variant>,
    written: Option<String>,
}

impl Master {
    /// Another publisher: what layers there are shows anew.
    pub(super) fn reset(&mut self) {
        self.variants.clear();
    }

    /// Takes note of a layer's segment.
    pub(super) fn segment(&mut self, layer: usize, media: Media, bytes: u64, duration: Duration) {
        let variant = self.variants.entry(layer).or_default();
        variant.media = media;
        variant.bytes += bytes;
        variant.time += duration;
        // The end of a session leaves a short segment, whose rate says little.
        if duration >= Duration::from_millis(500) {
            let rate = (bytes as f64 * 8.0 / duration.as_secs_f64()) as u64;
            variant.peak = variant.peak.max(rate.next_multiple_of(STEP));
        }
    }

    /// How many layers have had a segment.
    pub(super) fn layers(&self) -> usize {
        self.variants.len()
    }

    /// The playlist, if it is not as it was.
    pub(super) fn news(&mut self) -> Option<String> {
        let playlist = MasterPlaylist {
            version: Some(3),
            variants: self.variants.iter().map(stream).collect(),
            ..MasterPlaylist::default()
        };
        let mut text = Vec::new();
        playlist.write_to(&mut text).ok()?;
        let text = String::from_utf8(text).ok()?;
        let news = self.written.as_ref() != Some(&text);
        news.then(|| self.written.insert(text).clone())
    }

    /// It could not be written.
    pub(super) fn forget(&mut self) {
        self.written = None;
    }
}

fn stream((layer, variant): (&usize, &Variant)) -> VariantStream {
    let media = &variant.media;
    let audio = media.audio.then(|| AUDIO.to_owned());
    let codecs: Vec<_> = media.video.iter().cloned().chain(audio).collect();
    let average = (variant.bytes as f64 * 8.0 / variant.time.as_secs_f64().max(0.1)) as u64;
    VariantStream {
        uri: format!("v{layer}.m3u8"),
        bandwidth: variant.peak.max(STEP),
        average_bandwidth: Some(average.next_multiple_of(STEP).min(variant.peak.max(STEP))),
        codecs: (!codecs.is_empty()).then(|| codecs.join(",")),
        resolution: media.size.map(|(width, height)| Resolution {
            width: width.into(),
            height: height.into(),
        }),
        ..VariantStream::default()
    }
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
        master.segment(1, media.clone(), 100_000, two);
        let text = master.news().unwrap();
        let expected = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-STREAM-INF:BANDWIDTH=400000,AVERAGE-BANDWIDTH=400000,\
                        CODECS=\"avc1.42c01f,mp4a.40.2\",RESOLUTION=640x360\nv1.m3u8\n";
        assert_eq!(text, expected);
        master.segment(1, media.clone(), 99_000, two);
        assert_eq!(master.news(), None);
        let size = Some((1280, 720));
        let high = Media { size, ..media };
        master.segment(0, high, 500_000, two);
        let text = master.news().unwrap();
        assert!(text.find("v0.m3u8") < text.find("v1.m3u8"), "{text}");
        master.forget();
        assert_eq!(master.news(), Some(text));
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
