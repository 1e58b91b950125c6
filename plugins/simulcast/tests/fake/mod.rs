// SPDX-License-Identifier: MPL-2.0

//! A VP8 encoder that only counts, takes pictures in a memory of its own as well, and fails where it is told to.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use gst::glib;
use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::subclass::prelude::*;

/// Where it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Fails {
    Never,
    AtReady,
    AtCaps,
    /// With a message, and a refusal.
    AtCapsLoudly,
    AtTheFirstFrame,
    /// With a message, but its frames are taken.
    Quietly,
    Later,
}

static FAILS: AtomicU32 = AtomicU32::new(0);
static FRAMES: AtomicU32 = AtomicU32::new(0);

pub(crate) fn fail(when: Fails) {
    FAILS.store(when as u32, Relaxed);
    FRAMES.store(0, Relaxed);
}

/// Frames that it was given.
pub(crate) fn frames() -> u32 {
    FRAMES.load(Relaxed)
}

fn fails(when: Fails) -> bool {
    FAILS.load(Relaxed) == when as u32
}

#[derive(Debug, Default)]
pub(crate) struct Imp;

#[glib::object_subclass]
impl ObjectSubclass for Imp {
    const NAME: &'static str = "FakeVp8Enc";
    type Type = FakeVp8Enc;
    type ParentType = gst_video::VideoEncoder;
}

impl ObjectImpl for Imp {}
impl GstObjectImpl for Imp {}

impl ElementImpl for Imp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: std::sync::LazyLock<gst::subclass::ElementMetadata> =
            std::sync::LazyLock::new(|| {
                gst::subclass::ElementMetadata::new("Fake", "Encoder/Video", "Fake", "Nobody")
            });
        Some(&*METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: std::sync::LazyLock<Vec<gst::PadTemplate>> =
            std::sync::LazyLock::new(|| {
                let sink: gst::Caps = "video/x-raw(memory:Fake); video/x-raw,format=I420"
                    .parse()
                    .unwrap();
                let src = gst::Caps::new_empty_simple("video/x-vp8");
                let always = gst::PadPresence::Always;
                vec![
                    gst::PadTemplate::new("sink", gst::PadDirection::Sink, always, &sink).unwrap(),
                    gst::PadTemplate::new("src", gst::PadDirection::Src, always, &src).unwrap(),
                ]
            });
        &TEMPLATES
    }
}

impl VideoEncoderImpl for Imp {
    fn open(&self) -> Result<(), gst::ErrorMessage> {
        if fails(Fails::AtReady) {
            return Err(gst::error_msg!(gst::ResourceError::OpenRead, ["no device"]));
        }
        Ok(())
    }

    fn set_format(
        &self,
        state: &gst_video::VideoCodecState<'static, gst_video::video_codec_state::Readable>,
    ) -> Result<(), gst::LoggableError> {
        if fails(Fails::AtCapsLoudly) {
            gst::element_imp_error!(self, gst::LibraryError::Init, ["no session is free"]);
        }
        if fails(Fails::AtCaps) || fails(Fails::AtCapsLoudly) {
            return Err(gst::loggable_error!(gst::CAT_RUST, "refused"));
        }
        let obj = self.obj();
        let output = obj
            .set_output_state(gst::Caps::new_empty_simple("video/x-vp8"), Some(state))
            .map_err(|_| gst::loggable_error!(gst::CAT_RUST, "no output state"))?;
        obj.negotiate(output)
            .map_err(|_| gst::loggable_error!(gst::CAT_RUST, "not negotiated"))
    }

    fn handle_frame(
        &self,
        mut frame: gst_video::VideoCodecFrame,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let count = FRAMES.fetch_add(1, Relaxed) + 1;
        if fails(Fails::AtTheFirstFrame) || (fails(Fails::Later) && count > 10) {
            gst::element_imp_error!(self, gst::StreamError::Encode, ["the device is gone"]);
            return Err(gst::FlowError::Error);
        }
        if fails(Fails::Quietly) {
            gst::element_imp_error!(self, gst::StreamError::Encode, ["the device is gone"]);
        }
        frame.set_output_buffer(gst::Buffer::from_slice([0u8; 16]));
        frame.set_flags(gst_video::VideoCodecFrameFlags::SYNC_POINT);
        self.obj().finish_frame(frame)
    }
}

glib::wrapper! {
    pub(crate) struct FakeVp8Enc(ObjectSubclass<Imp>)
        @extends gst_video::VideoEncoder, gst::Element, gst::Object,
        @implements gst::Preset;
}

pub(crate) fn register() {
    let rank = gst::Rank::from(300);
    gst::Element::register(None, "fakevp8enc", rank, FakeVp8Enc::static_type()).unwrap();
}
