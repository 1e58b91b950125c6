// SPDX-License-Identifier: MPL-2.0
#![allow(unsafe_code)]
//! A name and a value of an Authorization header. The only module with unsafe code: `gstreamer-rtsp` 0.25 has the accessors in a
//! file that it forgets to compile.

use std::ffi::{CStr, c_char};

use glib::translate::ToGlibPtr;
use gst_rtsp::RTSPAuthParam;
use gst_rtsp::ffi::GstRTSPAuthParam;

/// Nothing where one of them is missing, or not text.
pub(super) fn read(param: &RTSPAuthParam) -> Option<(&str, &str)> {
    let raw: *const GstRTSPAuthParam = param.to_glib_none().0;
    // SAFETY: it is what `param` owns, whose two texts nobody changes.
    let (name, value) = unsafe { ((*raw).name, (*raw).value) };
    Some((text(param, name)?, text(param, value)?))
}

/// A text that lives as long as its owner.
fn text(_owner: &RTSPAuthParam, text: *const c_char) -> Option<&str> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the library made it, and it ends with a zero.
    unsafe { CStr::from_ptr(text) }.to_str().ok()
}
