// SPDX-License-Identifier: MPL-2.0

//! The sound that HLS and RTMP carry.

/// AAC encoders, best first, and where they come from.
const ENCODERS: &[&str] = &["fdkaacenc", "avenc_aac", "voaacenc"];

/// The best that is installed.
pub(crate) fn encoder() -> Result<&'static str, &'static str> {
    let is_there = |name: &&&str| gst::ElementFactory::find(name).is_some();
    let encoder = ENCODERS.iter().find(is_there).copied();
    encoder.ok_or("no AAC encoder is there: install gstreamer1.0-libav")
}
