// SPDX-License-Identifier: MPL-2.0
//! The properties of `ndilivesrc` that a user sets.

use std::sync::LazyLock;
use std::time::Duration;

use gst::prelude::*;

/// What the video pad shows while the source is away.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[repr(u32)]
#[enum_type(name = "GstNdiLiveSrcFallback")]
pub enum Fallback {
    #[default]
    #[enum_value(name = "Black: a black picture", nick = "black")]
    Black,
    #[enum_value(name = "Image: the picture that fallback-image names", nick = "image")]
    Image,
    #[enum_value(
        name = "Last frame: the last picture of the source, black before its first",
        nick = "last-frame"
    )]
    LastFrame,
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) ndi_name: Option<String>,
    pub(super) url_address: Option<String>,
    pub(super) receiver_ndi_name: Option<String>,
    pub(super) bandwidth: i32,
    pub(super) connect_timeout: u32,
    pub(super) max_queue_length: u32,
    pub(super) timeout: u32,
    pub(super) start_timeout: u32,
    pub(super) fallback: Fallback,
    pub(super) fallback_image: Option<String>,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) framerate: gst::Fraction,
    pub(super) rate: u32,
    pub(super) channels: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ndi_name: None,
            url_address: None,
            receiver_ndi_name: None,
            bandwidth: 100,
            connect_timeout: 10_000,
            max_queue_length: 10,
            timeout: 500,
            start_timeout: 2_000,
            fallback: Fallback::default(),
            fallback_image: None,
            width: 0,
            height: 0,
            framerate: gst::Fraction::new(0, 1),
            rate: 0,
            channels: 0,
        }
    }
}

impl Settings {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout.into())
    }

    pub(super) fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.start_timeout.into())
    }

    /// What the source is called in messages and logs.
    pub(super) fn source(&self) -> String {
        let name = self.ndi_name.as_ref().or(self.url_address.as_ref());
        name.cloned().unwrap_or_default()
    }

    pub(super) fn has_source(&self) -> bool {
        self.ndi_name.is_some() || self.url_address.is_some()
    }

    /// Sets one property from a value whose type GObject has checked already.
    pub(super) fn set(&mut self, name: &str, value: &glib::Value) {
        const CHECKED: &str = "type checked by GObject";
        let text = || {
            let text = value.get::<Option<String>>().expect(CHECKED);
            text.filter(|text| !text.is_empty())
        };
        let number = || value.get::<u32>().expect(CHECKED);
        match name {
            "ndi-name" => self.ndi_name = text(),
            "url-address" => self.url_address = text(),
            "receiver-ndi-name" => self.receiver_ndi_name = text(),
            "bandwidth" => self.bandwidth = value.get().expect(CHECKED),
            "connect-timeout" => self.connect_timeout = number(),
            "max-queue-length" => self.max_queue_length = number(),
            "timeout" => self.timeout = number(),
            "start-timeout" => self.start_timeout = number(),
            "fallback" => self.fallback = value.get().expect(CHECKED),
            "fallback-image" => self.fallback_image = text(),
            "width" => self.width = number(),
            "height" => self.height = number(),
            "framerate" => self.framerate = value.get().expect(CHECKED),
            "rate" => self.rate = number(),
            "channels" => self.channels = number(),
            _ => unreachable!("no writable property {name}"),
        }
    }

    pub(super) fn get(&self, name: &str) -> glib::Value {
        match name {
            "ndi-name" => self.ndi_name.to_value(),
            "url-address" => self.url_address.to_value(),
            "receiver-ndi-name" => self.receiver_ndi_name.to_value(),
            "bandwidth" => self.bandwidth.to_value(),
            "connect-timeout" => self.connect_timeout.to_value(),
            "max-queue-length" => self.max_queue_length.to_value(),
            "timeout" => self.timeout.to_value(),
            "start-timeout" => self.start_timeout.to_value(),
            "fallback" => self.fallback.to_value(),
            "fallback-image" => self.fallback_image.to_value(),
            "width" => self.width.to_value(),
            "height" => self.height.to_value(),
            "framerate" => self.framerate.to_value(),
            "rate" => self.rate.to_value(),
            "channels" => self.channels.to_value(),
            _ => unreachable!("no setting {name}"),
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    [
        source_properties(),
        fallback_properties(),
        format_properties(),
        status_properties(),
    ]
    .concat()
});

/// A setting in whole numbers that may change while the element is stopped.
fn number(name: &str, nick: &str, blurb: &str, range: (u32, u32), default: u32) -> glib::ParamSpec {
    glib::ParamSpecUInt::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(range.0)
        .maximum(range.1)
        .default_value(default)
        .mutable_ready()
        .build()
}

fn source_properties() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        glib::ParamSpecString::builder("ndi-name")
            .nick("NDI name")
            .blurb("Name of the source as 'MACHINE (SOURCE)', found by discovery (default: none); a change while playing goes over to that source")
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("url-address")
            .nick("URL or address")
            .blurb("Address and port of the source, e.g. 192.0.2.7:5961, which needs no discovery (default: none); a change while playing goes over to that source")
            .mutable_playing()
            .build(),
        glib::ParamSpecString::builder("receiver-ndi-name")
            .nick("Receiver NDI name")
            .blurb("Name under which this receiver shows itself to the sender (default: chosen by ndisrc)")
            .mutable_ready()
            .build(),
        glib::ParamSpecInt::builder("bandwidth")
            .nick("Bandwidth")
            .blurb("What to receive: -10 metadata only, 0 the low-resolution proxy, 10 audio only, 100 everything at full quality (default: 100)")
            .minimum(-10)
            .maximum(100)
            .default_value(default.bandwidth)
            .mutable_ready()
            .build(),
        number("connect-timeout", "Connect timeout",
            "How long one attempt to connect may take before the next, in ms; 0 for one attempt without end (default: 10000)",
            (0, u32::MAX), default.connect_timeout),
        number("max-queue-length", "Maximum queue length",
            "Frames kept at most between the network and the element, in frames; older ones are dropped (default: 10)",
            (1, u32::MAX), default.max_queue_length),
    ]
}

fn fallback_properties() -> Vec<glib::ParamSpec> {
    let default = Settings::default();
    vec![
        number(
            "timeout",
            "Timeout",
            "How long no frame must arrive until slate and silence take over, in ms (default: 500)",
            (100, 60_000),
            default.timeout,
        ),
        number(
            "start-timeout",
            "Start timeout",
            "How long after the start to wait for a source to give the caps, in ms; then defaults are taken (default: 2000)",
            (0, 60_000),
            default.start_timeout,
        ),
        glib::ParamSpecEnum::builder_with_default("fallback", default.fallback)
            .nick("Fallback")
            .blurb("What the video pad shows while the source is away (default: black)")
            .mutable_ready()
            .build(),
        glib::ParamSpecString::builder("fallback-image")
            .nick("Fallback image")
            .blurb("Path or URI of the picture for fallback=image, scaled to fit (default: none)")
            .mutable_ready()
            .build(),
    ]
}

fn format_properties() -> Vec<glib::ParamSpec> {
    vec![
        number("width", "Width",
            "Width of the video in pixels; 0 for the first source's (default: 0)", (0, 32_768), 0),
        number("height", "Height",
            "Height of the video in pixels; 0 for the first source's, in proportion if only width is given (default: 0)",
            (0, 32_768), 0),
        gst::ParamSpecFraction::builder("framerate")
            .nick("Frame rate")
            .blurb("Frame rate of the video in frames per second; 0/1 for the first source's (default: 0/1)")
            .minimum(gst::Fraction::new(0, 1))
            .maximum(gst::Fraction::new(1_000, 1))
            .default_value(gst::Fraction::new(0, 1))
            .mutable_ready()
            .build(),
        number("rate", "Sample rate",
            "Sample rate of the audio in Hz; 0 for the first source's (default: 0)", (0, 384_000), 0),
        number("channels", "Channels",
            "Number of audio channels; 0 for the first source's (default: 0)", (0, 64), 0),
    ]
}

fn status_properties() -> Vec<glib::ParamSpec> {
    vec![
        glib::ParamSpecBoolean::builder("connected")
            .nick("Connected")
            .blurb("Whether video or audio of the source arrives now")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("stats")
            .nick("Statistics")
            .blurb("Counters since the start: connected, connects, losses, restarts, frames, audio-buffers, last-connect and last-loss (running time in ns, or GST_CLOCK_TIME_NONE), last-error")
            .read_only()
            .build(),
    ]
}
