// SPDX-License-Identifier: MPL-2.0
//! What a pad carries while the source is away: a still picture, or silence.

use std::path::Path;

use gst::prelude::*;

use super::Fallback;
use super::imp::CAT;
use super::settings::Settings;
use super::shared::Kind;
use super::stream::{Failure, Stream, make};

/// How long a picture may take to load.
const LOAD_TIMEOUT: gst::ClockTime = gst::ClockTime::from_seconds(3);

/// One stream's slate, running from when the caps are settled until the element stops.
#[derive(Debug)]
pub(super) struct Slate {
    elements: Vec<gst::Element>,
    /// Takes the still picture; none for audio.
    picture: Option<gst_app::AppSrc>,
}

impl Slate {
    /// Builds and starts the slate of `stream` in `caps`.
    pub(super) fn start(
        bin: &gst::Bin,
        stream: &Stream,
        caps: &gst::Caps,
    ) -> Result<Self, Failure> {
        let name = stream.kind.name();
        let filter = make("capsfilter", &format!("{name}-slate-caps"))?;
        filter.set_property("caps", caps);
        let (mut elements, picture) = match stream.kind {
            Kind::Video => {
                let source = gst_app::AppSrc::builder()
                    .name("video-slate")
                    .caps(caps)
                    .format(gst::Format::Time)
                    .build();
                // It hands the same memory out again and again: a slate costs no drawing.
                let freeze = make("imagefreeze", "video-slate-freeze")?;
                freeze.set_property("is-live", true);
                freeze.set_property("allow-replace", true);
                (vec![source.clone().upcast(), freeze], Some(source))
            }
            Kind::Audio => {
                let source = make("audiotestsrc", "audio-slate")?;
                source.set_property("is-live", true);
                source.set_property_from_str("wave", "silence");
                let rate = caps.structure(0).and_then(|s| s.get::<i32>("rate").ok());
                source.set_property("samplesperbuffer", (rate.unwrap_or(48_000) / 50).max(1));
                (vec![source], None)
            }
        };
        elements.push(filter);
        let slate = Self { elements, picture };
        match slate.attach(bin, stream) {
            Ok(()) => Ok(slate),
            Err(error) => {
                slate.remove_from(bin);
                Err(error.into())
            }
        }
    }

    fn attach(&self, bin: &gst::Bin, stream: &Stream) -> Result<(), glib::BoolError> {
        bin.add_many(&self.elements)?;
        gst::Element::link_many(&self.elements)?;
        let end = self
            .elements
            .last()
            .and_then(|element| element.static_pad("src"));
        let end = end.ok_or_else(|| glib::bool_error!("no source pad"))?;
        end.link(&stream.slate)
            .map_err(|err| glib::bool_error!("{err}"))?;
        for element in self.elements.iter().rev() {
            element.sync_state_with_parent()?;
        }
        Ok(())
    }

    /// Shows this picture, which is in the settled caps, from the next frame on.
    pub(super) fn show(&self, picture: &gst::BufferRef) {
        let Some(source) = &self.picture else {
            return;
        };
        // Shares the memory; the times are imagefreeze's to give.
        let mut still = picture.copy();
        if let Some(still) = still.get_mut() {
            still.set_pts(None);
            still.set_dts(None);
            still.set_duration(None);
            still.unset_flags(gst::BufferFlags::all());
            // A still must not claim to be of the moment that the source named.
            while let Some(meta) = still.meta_mut::<gst::ReferenceTimestampMeta>() {
                if meta.remove().is_err() {
                    break;
                }
            }
        }
        if let Err(err) = source.push_buffer(still) {
            gst::debug!(CAT, obj = source, "Slate not taken: {err}");
        }
    }

    pub(super) fn remove_from(self, bin: &gst::Bin) {
        for element in &self.elements {
            let _ = element.set_state(gst::State::Null);
        }
        let _ = bin.remove_many(&self.elements);
    }
}

/// The picture to start with. An image that cannot be had gives an error and a black picture.
pub(super) fn picture(
    settings: &Settings,
    caps: &gst::Caps,
) -> (Option<gst::Buffer>, Option<glib::Error>) {
    let image = match settings.fallback {
        Fallback::Image => Some(load_image(settings.fallback_image.as_deref(), caps)),
        Fallback::Black | Fallback::LastFrame => None,
    };
    let (image, error) = match image {
        Some(Ok(image)) => (Some(image), None),
        Some(Err(err)) => (None, Some(err)),
        None => (None, None),
    };
    (image.or_else(|| black(caps).ok()), error)
}

fn black(caps: &gst::Caps) -> Result<gst::Buffer, glib::Error> {
    let source = gst::ElementFactory::make("videotestsrc")
        .property("num-buffers", 1)
        .property_from_str("pattern", "black")
        .build()
        .map_err(failed)?;
    render(&source, caps)
}

fn load_image(image: Option<&str>, caps: &gst::Caps) -> Result<gst::Buffer, glib::Error> {
    let Some(image) = image else {
        return Err(failed("fallback=image needs the property fallback-image"));
    };
    let uri = if image.contains("://") {
        image.to_owned()
    } else {
        let path = std::path::absolute(Path::new(image)).map_err(failed)?;
        glib::filename_to_uri(path, None)?.to_string()
    };
    let source = gst::ElementFactory::make("uridecodebin")
        .property("uri", uri)
        .build()
        .map_err(failed)?;
    render(&source, caps)
}

fn failed(err: impl std::fmt::Display) -> glib::Error {
    glib::Error::new(gst::ResourceError::Failed, &err.to_string())
}

/// Runs `source` in a pipeline of its own until it has given one picture in `caps`.
fn render(source: &gst::Element, caps: &gst::Caps) -> Result<gst::Buffer, glib::Error> {
    let mut still = caps.clone();
    for structure in still.make_mut().iter_mut() {
        structure.remove_field("framerate");
    }
    let convert = gst::ElementFactory::make("videoconvertscale")
        .build()
        .map_err(failed)?;
    let sink = gst_app::AppSink::builder()
        .caps(&still)
        .sync(false)
        .max_buffers(1)
        .build();
    let pipeline = gst::Pipeline::new();
    pipeline
        .add_many([source, &convert, sink.upcast_ref()])
        .map_err(failed)?;
    convert.link(&sink).map_err(failed)?;
    if source.static_pad("src").is_some() {
        source.link(&convert).map_err(failed)?;
    } else {
        let convert = convert.downgrade();
        source.connect_pad_added(move |_, pad| {
            if let Some(sink) = convert
                .upgrade()
                .and_then(|element| element.static_pad("sink"))
            {
                // Fails for what is no picture; then none arrives, and the time-out tells.
                let _ = pad.link(&sink);
            }
        });
    }
    let result = one_picture(&pipeline, &sink);
    let _ = pipeline.set_state(gst::State::Null);
    result
}

fn one_picture(
    pipeline: &gst::Pipeline,
    sink: &gst_app::AppSink,
) -> Result<gst::Buffer, glib::Error> {
    let bus = pipeline.bus().ok_or_else(|| failed("no bus"))?;
    pipeline.set_state(gst::State::Paused).map_err(failed)?;
    let until = [gst::MessageType::Error, gst::MessageType::AsyncDone];
    if let Some(message) = bus.timed_pop_filtered(LOAD_TIMEOUT, &until)
        && let gst::MessageView::Error(err) = message.view()
    {
        return Err(err.error());
    }
    let sample = sink.try_pull_preroll(gst::ClockTime::ZERO);
    let picture = sample.and_then(|sample| sample.buffer_owned());
    picture.ok_or_else(|| failed(format_args!("no picture within {LOAD_TIMEOUT}")))
}
