// SPDX-License-Identifier: MPL-2.0

//! Frames that are smaller than their caps say: encoders would read memory that isn't there.

use super::front::memory_of;

/// What the pictures of a pad are to be like. None where that is not known, or they are not in the system's memory.
#[derive(Debug, Default)]
pub(super) struct Whole {
    info: Option<gst_video::VideoInfo>,
}

impl Whole {
    pub(super) fn caps(&mut self, caps: &gst::CapsRef) {
        let plain = memory_of(caps).is_none();
        let info = plain.then(|| gst_video::VideoInfo::from_caps(caps).ok());
        // Strides of tiles are none.
        let tiled = |info: &gst_video::VideoInfo| {
            let flags = info.format_info().flags();
            flags.contains(gst_video::VideoFormatFlags::TILED)
        };
        self.info = info.flatten().filter(|info| !tiled(info));
    }

    /// What a frame lacks.
    pub(super) fn lacks(&self, buffer: &gst::BufferRef) -> Option<String> {
        let info = self.info.as_ref()?;
        let needed = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) => planes_end(info, &meta),
            None => info.size(),
        };
        let size = buffer.size();
        (size < needed).then(|| {
            let (width, height, format) = (info.width(), info.height(), info.format());
            format!(
                "a frame has {size} octets; {width}x{height} {format} has {needed}. \
                 Such frames are left out: check the caps, or what the source maps"
            )
        })
    }
}

/// How far the last line of the planes reaches, at least.
fn planes_end(info: &gst_video::VideoInfo, meta: &gst_video::VideoMeta) -> usize {
    let height = match info.interlace_mode() {
        // A buffer is one field.
        gst_video::VideoInterlaceMode::Alternate => info.height().div_ceil(2),
        _ => info.height(),
    };
    let components = (0..info.n_components()).filter_map(|n| u8::try_from(n).ok());
    let ends = components.filter_map(|component| {
        let plane = usize::try_from(info.comp_plane(component)).ok()?;
        let (offset, stride) = (meta.offset().get(plane)?, meta.stride().get(plane)?);
        let lines = usize::try_from(info.format_info().scale_height(component, height)).ok()?;
        let stride = usize::try_from(*stride).unwrap_or_default();
        // The last line need not be filled up.
        Some(
            offset.saturating_add(
                stride
                    .saturating_mul(lines.saturating_sub(1))
                    .saturating_add(1),
            ),
        )
    });
    ends.max().unwrap_or_default()
}
