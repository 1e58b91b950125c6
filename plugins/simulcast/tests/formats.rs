// SPDX-License-Identifier: MPL-2.0
//! Whatever raw video comes: every format, interlaced in every way, any frame rate and size.

mod playing;

use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoBufferFlags, VideoFormat, VideoInfo, VideoInterlaceMode};
use playing::init;

/// What comes in.
#[derive(Debug, Clone, Copy)]
struct Row {
    format: VideoFormat,
    mode: VideoInterlaceMode,
    rate: (i32, i32),
    size: (u32, u32),
}

const PLAIN: Row = Row {
    format: VideoFormat::I420,
    mode: VideoInterlaceMode::Progressive,
    rate: (25, 1),
    size: (64, 48),
};
const FRAMES: u64 = 6;

/// Frames that come out, and their size and rate.
type Got = (usize, i32, i32, gst::Fraction);

fn run(row: Row, settings: &str) -> Result<Got, String> {
    let info = VideoInfo::builder(row.format, row.size.0, row.size.1)
        .fps(gst::Fraction::new(row.rate.0, row.rate.1))
        .interlace_mode(row.mode)
        .build()
        .map_err(|e| e.to_string())?;
    let caps = info.to_caps().map_err(|e| e.to_string())?;
    let line = format!(
        "appsrc name=in format=time ! simulcastenc name=e speed=ultrafast {settings} ! fakesink name=out async=false"
    );
    let pipeline = gst::parse::launch(&line)
        .map_err(|e| e.to_string())?
        .downcast::<gst::Pipeline>()
        .unwrap();
    let source = pipeline.by_name("in").unwrap();
    source.set_property("caps", &caps);
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    let out = pipeline.by_name("out").unwrap().static_pad("sink").unwrap();
    out.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let fields = if row.mode == VideoInterlaceMode::Alternate {
        2
    } else {
        1
    };
    for n in 0..FRAMES * fields {
        // Memory as it is would be noise, of which an encoder leaves frames out.
        let mut buffer = gst::Buffer::from_mut_slice(vec![0u8; info.size()]);
        {
            let buffer = buffer.get_mut().unwrap();
            let at = gst::ClockTime::from_mseconds(n * 40 / fields);
            buffer.set_pts(at);
            buffer.set_duration(gst::ClockTime::from_mseconds(40 / fields));
            let flags = match row.mode {
                VideoInterlaceMode::Progressive => VideoBufferFlags::empty(),
                VideoInterlaceMode::Alternate if n % 2 == 0 => {
                    VideoBufferFlags::INTERLACED | VideoBufferFlags::TOP_FIELD
                }
                VideoInterlaceMode::Alternate => {
                    VideoBufferFlags::INTERLACED | VideoBufferFlags::BOTTOM_FIELD
                }
                _ => VideoBufferFlags::INTERLACED | VideoBufferFlags::TFF,
            };
            buffer.set_video_flags(flags);
        }
        let _ = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
    }
    let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(30), &types);
    let result = match message.as_ref().map(|message| message.view()) {
        None => Err("it hangs".to_owned()),
        Some(gst::MessageView::Error(error)) => Err(error.error().to_string()),
        Some(_) => {
            let caps = out.current_caps().ok_or("no caps")?;
            let caps = caps.structure(0).unwrap();
            let rate = caps.get("framerate").unwrap_or(gst::Fraction::new(0, 1));
            let frames = count.load(std::sync::atomic::Ordering::Relaxed);
            Ok((
                frames,
                caps.get("width").unwrap(),
                caps.get("height").unwrap(),
                rate,
            ))
        }
    };
    pipeline.set_state(gst::State::Null).unwrap();
    result
}

fn formats() -> Vec<VideoFormat> {
    let convert = gst::ElementFactory::find("videoconvert").unwrap();
    let template = convert
        .static_pad_templates()
        .into_iter()
        .find(|template| template.direction() == gst::PadDirection::Sink)
        .unwrap();
    let caps = template.caps();
    let all: gst::List = caps.structure(0).unwrap().get("format").unwrap();
    let all = all
        .iter()
        .filter_map(|format| format.get::<&str>().ok()?.parse().ok());
    all.collect()
}

fn expect(rows: impl Iterator<Item = Row>, settings: &str) {
    let mut wrong = Vec::new();
    for row in rows {
        let (width, height) = row.size;
        let even = |side: u32, is_height: bool| {
            if is_height {
                (side & !1).max(2)
            } else {
                side.next_multiple_of(2).max(2)
            }
        };
        println!("{row:?}");
        let result = run(row, settings);
        match &result {
            // The deinterlacer keeps one field back; of pictures of 2x2 the VP8 encoder leaves some out.
            Ok((frames, w, h, _))
                if *frames as u64 + (if width < 4 { 4 } else { 1 }) >= FRAMES
                    && *h as u32 == even(height, true)
                    && (*w as u32).abs_diff(even(width, false)) <= 2 + width / height.max(1) => {}
            _ => wrong.push(format!("{row:?} {settings}: {result:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_format_in_every_way_to_be_interlaced() {
    init();
    let modes = [
        VideoInterlaceMode::Progressive,
        VideoInterlaceMode::Interleaved,
        VideoInterlaceMode::Mixed,
        VideoInterlaceMode::Alternate,
    ];
    let formats = formats();
    assert!(formats.len() > 60, "{formats:?}");
    let rows = formats.iter().flat_map(|format| {
        modes.map(|mode| Row {
            format: *format,
            mode,
            ..PLAIN
        })
    });
    // Of tiles nobody makes fields.
    let is_tiled = |format: VideoFormat| {
        let info = gst_video::VideoFormatInfo::from_format(format);
        info.flags().contains(gst_video::VideoFormatFlags::TILED)
    };
    let rows =
        rows.filter(|row| row.mode != VideoInterlaceMode::Alternate || !is_tiled(row.format));
    expect(rows, "codec=vp8 layers=48:200k");
}

#[test]
fn any_rate_and_size() {
    init();
    let rates = [
        (0, 1),
        (1, 1),
        (25, 1),
        (24_000, 1_001),
        (60_000, 1_001),
        (240, 1),
    ];
    let sizes = [(1, 1), (2, 2), (3, 5), (17, 33), (1_919, 1_079)];
    let modes = [
        VideoInterlaceMode::Progressive,
        VideoInterlaceMode::Interleaved,
        VideoInterlaceMode::Alternate,
    ];
    for format in [
        VideoFormat::I420,
        VideoFormat::V210,
        VideoFormat::I42210le,
        VideoFormat::Uyvy,
    ] {
        for mode in modes {
            let by_rate = rates.map(|rate| Row {
                format,
                mode,
                rate,
                ..PLAIN
            });
            let by_size = sizes.map(|size| Row {
                format,
                mode,
                size,
                ..PLAIN
            });
            expect(
                by_rate.into_iter().chain(by_size),
                "codec=vp8 layers=2160:900k",
            );
        }
    }
    for codec in ["h264", "h264 encoder=openh264enc"] {
        // openh264 begins at 16x16.
        let sizes = if codec == "h264" {
            sizes
        } else {
            [(17, 33); 5]
        };
        let by_size = sizes.map(|size| Row { size, ..PLAIN });
        let by_rate = rates.map(|rate| Row { rate, ..PLAIN });
        expect(
            by_rate.into_iter().chain(by_size),
            &format!("codec={codec} layers=2160:900k"),
        );
    }
}

#[test]
fn interlaced_video_is_as_many_pictures_as_the_user_wants() {
    init();
    for mode in [
        VideoInterlaceMode::Interleaved,
        VideoInterlaceMode::Alternate,
    ] {
        for (settings, frames, rate) in [
            ("", FRAMES, 25),
            ("deinterlace-fields=bottom", FRAMES, 25),
            ("deinterlace-fields=all", 2 * FRAMES, 50),
            ("deinterlace=off", FRAMES, 25),
        ] {
            let row = Row {
                mode,
                size: (64, 64),
                ..PLAIN
            };
            let (got, .., fps) = run(row, &format!("codec=vp8 layers=64:200k {settings}")).unwrap();
            assert!(
                got as u64 + 2 >= frames && got as u64 <= frames,
                "{mode:?} {settings}: {got}"
            );
            assert_eq!(fps, gst::Fraction::new(rate, 1), "{mode:?} {settings}");
        }
    }
    let (got, .., fps) = run(
        PLAIN,
        "codec=vp8 layers=48:200k deinterlace=all deinterlace-fields=all",
    )
    .unwrap();
    assert!(
        got as u64 > FRAMES && fps == gst::Fraction::new(50, 1),
        "{got} {fps}"
    );
}
