// SPDX-License-Identifier: MPL-2.0

//! Fields that come one a buffer (`interlace-mode=alternate`, as SDI and AES67 receivers give them) become frames of two,
//! which everything behind takes.

use gst_video::prelude::*;

use gst_video::{VideoBufferFlags, VideoFormatFlags, VideoFrameRef, VideoInfo, VideoInterlaceMode};

/// Puts fields together.
#[derive(Debug, Default)]
pub(super) struct Weave {
    /// Of the fields and of the frames, while fields come.
    infos: Option<(VideoInfo, VideoInfo)>,
    first: Option<(bool, gst::Buffer)>,
}

/// What becomes of a buffer.
#[derive(Debug)]
pub(super) enum Woven {
    /// It goes on as it is.
    AsItIs,
    /// It waits for the other field.
    Waits,
    Frame(gst::Buffer),
}

impl Weave {
    /// The caps that go on instead of these, if fields come.
    pub(super) fn caps(&mut self, caps: &gst::CapsRef) -> Option<gst::Caps> {
        self.first = None;
        self.infos = None;
        let fields = VideoInfo::from_caps(caps).ok()?;
        if fields.interlace_mode() != VideoInterlaceMode::Alternate {
            return None;
        }
        if fields
            .format_info()
            .flags()
            .contains(VideoFormatFlags::TILED)
        {
            // Their lines don't lie one behind the other: nobody takes them.
            return None;
        }
        let mut woven = caps.to_owned();
        let woven_mut = woven.make_mut();
        woven_mut.set_features_simple(None);
        woven_mut
            .structure_mut(0)?
            .set("interlace-mode", VideoInterlaceMode::Interleaved.to_str());
        let frames = VideoInfo::from_caps(&woven).ok()?;
        self.infos = Some((fields, frames));
        Some(woven)
    }

    /// The next field has nothing to do with the last one.
    pub(super) fn flush(&mut self) {
        self.first = None;
    }

    pub(super) fn buffer(&mut self, buffer: &gst::Buffer) -> Woven {
        let Some((fields, frames)) = &self.infos else {
            return Woven::AsItIs;
        };
        let flags = buffer.video_flags();
        let is_top = flags.contains(VideoBufferFlags::TOP_FIELD);
        match self.first.take() {
            // Two of the same kind: the other one was lost.
            Some((first_is_top, first)) if first_is_top != is_top => {
                let (top, bottom) = if is_top {
                    (buffer, &first)
                } else {
                    (&first, buffer)
                };
                let frame = weave(fields, frames, [top, bottom]);
                frame.map_or(Woven::Waits, |mut frame| {
                    finish(&mut frame, &first, buffer, first_is_top);
                    Woven::Frame(frame)
                })
            }
            _ => {
                self.first = Some((is_top, buffer.clone()));
                Woven::Waits
            }
        }
    }
}

fn weave(fields: &VideoInfo, frames: &VideoInfo, pair: [&gst::Buffer; 2]) -> Option<gst::Buffer> {
    let mut buffer = gst::Buffer::with_size(frames.size()).ok()?;
    {
        let mut frame = VideoFrameRef::from_buffer_ref_writable(buffer.get_mut()?, frames).ok()?;
        for (parity, field) in pair.into_iter().enumerate() {
            let field = VideoFrameRef::from_buffer_ref_readable(field, fields).ok()?;
            for plane in 0..field.n_planes() {
                let from_stride = usize::try_from(field.plane_stride()[plane as usize]).ok()?;
                let to_stride = usize::try_from(frame.plane_stride()[plane as usize]).ok()?;
                if from_stride == 0 || to_stride == 0 {
                    return None;
                }
                let rows = field.plane_data(plane).ok()?.chunks(from_stride);
                let lines = frame.plane_data_mut(plane).ok()?.chunks_mut(to_stride);
                for (line, row) in lines.skip(parity).step_by(2).zip(rows) {
                    let both = line.len().min(row.len());
                    line[..both].copy_from_slice(&row[..both]);
                }
            }
        }
    }
    Some(buffer)
}

/// Time, marks and what came along.
fn finish(frame: &mut gst::Buffer, first: &gst::Buffer, second: &gst::Buffer, is_tff: bool) {
    let Some(frame) = frame.get_mut() else {
        return;
    };
    let _ = first.copy_into(frame, gst::BufferCopyFlags::TIMESTAMPS, ..);
    // Not the one that says how the field lies in memory.
    for meta in first.iter_meta::<gst::ReferenceTimestampMeta>() {
        let (reference, timestamp) = (meta.reference_owned(), meta.timestamp());
        gst::ReferenceTimestampMeta::add(frame, &reference, timestamp, meta.duration());
    }
    let durations = first.duration().zip(second.duration());
    frame.set_duration(durations.map(|(one, other)| one + other));
    let mut flags = VideoBufferFlags::INTERLACED;
    if is_tff {
        flags |= VideoBufferFlags::TFF;
    }
    frame.set_video_flags(flags);
    if first.flags().contains(gst::BufferFlags::DISCONT) {
        frame.set_flags(gst::BufferFlags::DISCONT);
    }
}
