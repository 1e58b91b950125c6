// SPDX-License-Identifier: MPL-2.0
//! Settles the caps of the two pads: properties first, then downstream's wishes, then the source.

use gst::prelude::*;
use gst_audio::AudioFormat;
use gst_video::VideoFormat;

use super::settings::Settings;
use super::shared::Kind;

const DEFAULT_WIDTH: u32 = 1920;
const DEFAULT_HEIGHT: u32 = 1080;
const DEFAULT_RATE: u32 = 48_000;
const DEFAULT_CHANNELS: u32 = 2;

/// UYVY is what NDI gives, so it costs nothing; what follows costs more and more to make from it.
const VIDEO_FORMATS: [VideoFormat; 8] = [
    VideoFormat::Uyvy,
    VideoFormat::Yuy2,
    VideoFormat::Y42b,
    VideoFormat::Nv12,
    VideoFormat::I420,
    VideoFormat::Bgra,
    VideoFormat::Bgrx,
    VideoFormat::Rgba,
];

const AUDIO_FORMATS: [AudioFormat; 3] = [
    gst_audio::AUDIO_FORMAT_F32,
    gst_audio::AUDIO_FORMAT_S16,
    gst_audio::AUDIO_FORMAT_S32,
];

/// Everything the pad could be, before anything is settled: also the pad template.
pub(super) fn template(kind: Kind) -> gst::Caps {
    match kind {
        Kind::Video => gst_video::VideoCapsBuilder::new()
            .field("interlace-mode", "progressive")
            .build(),
        Kind::Audio => gst_audio::AudioCapsBuilder::new()
            .layout(gst_audio::AudioLayout::Interleaved)
            .build(),
    }
}

/// The template narrowed to what the properties say.
pub(super) fn wanted(kind: Kind, settings: &Settings) -> gst::Caps {
    let mut caps = template(kind);
    let structure = caps
        .make_mut()
        .structure_mut(0)
        .expect("a template has a structure");
    let numbers = match kind {
        Kind::Video => [("width", settings.width), ("height", settings.height)],
        Kind::Audio => [("rate", settings.rate), ("channels", settings.channels)],
    };
    for (name, value) in numbers {
        if let Some(value) = i32::try_from(value).ok().filter(|value| *value > 0) {
            structure.set(name, value);
        }
    }
    if kind == Kind::Video && settings.framerate.numer() > 0 {
        structure.set("framerate", settings.framerate);
    }
    caps
}

/// Whether the properties alone settle the caps, so that no source need be waited for.
pub(super) fn complete(kind: Kind, settings: &Settings) -> bool {
    match kind {
        Kind::Video => settings.width > 0 && settings.height > 0 && settings.framerate.numer() > 0,
        Kind::Audio => settings.rate > 0 && settings.channels > 0,
    }
}

/// Chooses one format out of `allowed`, which is what both properties and downstream accept, as
/// near to the source's as it may be. `None` if there is none.
pub(super) fn settle(
    kind: Kind,
    settings: &Settings,
    source: Option<&gst::Caps>,
    allowed: &gst::Caps,
) -> Option<gst::Caps> {
    match kind {
        Kind::Video => {
            let source = source.and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
            settle_video(settings, source.as_ref(), allowed)
        }
        Kind::Audio => {
            let source = source.and_then(|caps| gst_audio::AudioInfo::from_caps(caps).ok());
            settle_audio(source.as_ref(), allowed)
        }
    }
}

fn settle_video(
    settings: &Settings,
    source: Option<&gst_video::VideoInfo>,
    allowed: &gst::Caps,
) -> Option<gst::Caps> {
    let preferred = source.map(gst_video::VideoInfo::format);
    let mut caps = preferred
        .into_iter()
        .chain(VIDEO_FORMATS)
        .map(|format| narrowed(allowed, "video/x-raw", format.to_str()))
        .find(|caps| !caps.is_empty())
        .or_else(|| (!allowed.is_empty()).then(|| allowed.clone()))?;

    let (width, height) = proportions(settings, source);
    let framerate = source
        .map(gst_video::VideoInfo::fps)
        .filter(|fps| fps.numer() > 0);
    caps.truncate();
    let structure = caps.make_mut().structure_mut(0)?;
    structure.fixate_field_nearest_int("width", width);
    structure.fixate_field_nearest_int("height", height);
    let framerate = framerate.unwrap_or(gst::Fraction::new(30, 1));
    structure.fixate_field_nearest_fraction("framerate", framerate);
    let par = source.map_or(gst::Fraction::new(1, 1), gst_video::VideoInfo::par);
    if structure.has_field("pixel-aspect-ratio") {
        structure.fixate_field_nearest_fraction("pixel-aspect-ratio", par);
    } else if settings.width == 0 && settings.height == 0 {
        structure.set("pixel-aspect-ratio", par);
    }
    caps.fixate();
    Some(with_colours(caps, source))
}

/// The size to come near to: the source's, with its shape kept if one property sets one side.
fn proportions(settings: &Settings, source: Option<&gst_video::VideoInfo>) -> (i32, i32) {
    let (w, h) = source.map_or((DEFAULT_WIDTH, DEFAULT_HEIGHT), |info| {
        (info.width(), info.height())
    });
    let scaled = |side: u32, to: u32, from: u32| {
        let even = (u64::from(side) * u64::from(to) / u64::from(from.max(1)) + 1) & !1;
        u32::try_from(even).unwrap_or(side)
    };
    let (width, height) = match (settings.width, settings.height) {
        (0, 0) => (w, h),
        (width, 0) => (width, scaled(h, width, w)),
        (0, height) => (scaled(w, height, h), height),
        set => set,
    };
    (
        i32::try_from(width).unwrap_or(i32::MAX),
        i32::try_from(height).unwrap_or(i32::MAX),
    )
}

/// Adds colorimetry and chroma siting, the source's if they fit, so that no switch between slate
/// and source changes the caps.
fn with_colours(caps: gst::Caps, source: Option<&gst_video::VideoInfo>) -> gst::Caps {
    let Ok(info) = gst_video::VideoInfo::from_caps(&caps) else {
        return caps;
    };
    let same_family =
        source.filter(|source| source.format_info().is_yuv() == info.format_info().is_yuv());
    let builder = gst_video::VideoInfo::builder(info.format(), info.width(), info.height())
        .fps(info.fps())
        .par(info.par())
        .colorimetry_if_some(same_family.map(gst_video::VideoInfo::colorimetry).as_ref());
    let full = builder.build().and_then(|info| info.to_caps());
    // Downstream may have named its own: then that stands.
    match full {
        Ok(full) if full.can_intersect(&caps) => full,
        _ => caps,
    }
}

fn settle_audio(source: Option<&gst_audio::AudioInfo>, allowed: &gst::Caps) -> Option<gst::Caps> {
    let mut caps = AUDIO_FORMATS
        .into_iter()
        .map(|format| narrowed(allowed, "audio/x-raw", format.to_str()))
        .find(|caps| !caps.is_empty())
        .or_else(|| (!allowed.is_empty()).then(|| allowed.clone()))?;

    let near = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let rate = source.map_or(DEFAULT_RATE, gst_audio::AudioInfo::rate);
    let channels = source.map_or(DEFAULT_CHANNELS, gst_audio::AudioInfo::channels);
    caps.truncate();
    let structure = caps.make_mut().structure_mut(0)?;
    structure.fixate_field_nearest_int("rate", near(rate));
    structure.fixate_field_nearest_int("channels", near(channels));
    let channels = structure
        .get::<i32>("channels")
        .ok()
        .and_then(|n| u32::try_from(n).ok())?;
    if channels > 1 && !structure.has_field("channel-mask") {
        // The layout that ndisrcdemux gives: unpositioned from nine channels on.
        let mask = if channels <= 8 {
            gst_audio::AudioChannelPosition::fallback_mask(channels)
        } else {
            0
        };
        structure.set("channel-mask", gst::Bitmask::new(mask));
    }
    caps.fixate();
    Some(caps)
}

/// What is left of `caps` with this format; empty if it is not on offer.
fn narrowed(caps: &gst::Caps, media: &str, format: &str) -> gst::Caps {
    caps.intersect(&gst::Caps::builder(media).field("format", format).build())
}

/// How long one picture of these caps lasts, where that is known.
pub(super) fn frame_duration(caps: &gst::CapsRef) -> Option<gst::ClockTime> {
    let fps = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
    let numer = u64::try_from(fps.numer()).ok().filter(|numer| *numer > 0)?;
    gst::ClockTime::SECOND.mul_div_ceil(u64::try_from(fps.denom()).ok()?, numer)
}
