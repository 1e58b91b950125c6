// SPDX-License-Identifier: MPL-2.0

//! A pad that tells whose media it has.

use std::sync::Mutex;

use gst::prelude::*;

use crate::properties::lock;

mod imp {
    use std::sync::LazyLock;

    use gst::glib;
    use gst::prelude::*;
    use gst::subclass::prelude::*;

    use super::{Mutex, lock};

    #[derive(Debug, Default)]
    pub struct SfuRoomSrcPad {
        pub(super) of: Mutex<(String, String)>,
    }

    #[glib::object_subclass]
    impl ObjectSubclass for SfuRoomSrcPad {
        const NAME: &'static str = "GstSfuRoomSrcPad";
        type Type = super::SfuRoomSrcPad;
        type ParentType = gst::GhostPad;
    }

    impl ObjectImpl for SfuRoomSrcPad {
        fn properties() -> &'static [glib::ParamSpec] {
            static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
                let text = |name: &str, nick: &str, blurb: &str| {
                    glib::ParamSpecString::builder(name)
                        .nick(nick)
                        .blurb(blurb)
                        .read_only()
                        .build()
                };
                vec![
                    text(
                        "identity",
                        "Identity",
                        "The participant, as the room knows it",
                    ),
                    text("stream", "Stream", "Name of the stream that it publishes"),
                ]
            });
            &PROPERTIES
        }

        fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
            let (identity, stream) = lock(&self.of).clone();
            match pspec.name() {
                "identity" => identity.to_value(),
                "stream" => stream.to_value(),
                _ => pspec.default_value().clone(),
            }
        }
    }

    impl GstObjectImpl for SfuRoomSrcPad {}
    impl PadImpl for SfuRoomSrcPad {}
    impl ProxyPadImpl for SfuRoomSrcPad {}
    impl GhostPadImpl for SfuRoomSrcPad {}
}

glib::wrapper! {
    pub struct SfuRoomSrcPad(ObjectSubclass<imp::SfuRoomSrcPad>)
        @extends gst::GhostPad, gst::ProxyPad, gst::Pad, gst::Object;
}

impl SfuRoomSrcPad {
    /// A pad of this template for what the target gives.
    pub(super) fn new(
        template: &gst::PadTemplate,
        name: &str,
        (identity, stream): (&str, &str),
        target: &gst::Pad,
    ) -> Result<Self, glib::BoolError> {
        use gst::subclass::prelude::ObjectSubclassIsExt;
        let pad = gst::PadBuilder::<Self>::from_template(template)
            .name(name)
            .build();
        *lock(&pad.imp().of) = (identity.to_owned(), stream.to_owned());
        pad.set_target(Some(target))?;
        // A pad that nobody takes must not be an error that ends the others.
        let data = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(data, |pad, _| match pad.is_linked() {
            true => gst::PadProbeReturn::Ok,
            false => gst::PadProbeReturn::Drop,
        });
        Ok(pad)
    }
}
