// SPDX-License-Identifier: MPL-2.0

//! One NDI sender.

use std::sync::OnceLock;

use gst::prelude::*;
use gst::subclass::prelude::*;

use super::provider::{CAT, CLASSES};

#[derive(Debug, Default)]
pub struct Device {
    ndi_name: OnceLock<String>,
}

#[glib::object_subclass]
impl ObjectSubclass for Device {
    const NAME: &'static str = "GstNdiLiveDevice";
    type Type = super::Device;
    type ParentType = gst::Device;
}

impl ObjectImpl for Device {}

impl GstObjectImpl for Device {}

impl DeviceImpl for Device {
    /// By name alone: a sender that is started again may have another address.
    fn create_element(&self, name: Option<&str>) -> Result<gst::Element, gst::LoggableError> {
        let mut element = gst::ElementFactory::make("ndilivesrc");
        if let Some(name) = name {
            element = element.name(name);
        }
        let element = element
            .build()
            .map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
        self.reconfigure_element(&element)?;
        Ok(element)
    }

    fn reconfigure_element(&self, element: &gst::Element) -> Result<(), gst::LoggableError> {
        let is_ours = element.factory().is_some_and(|f| f.name() == "ndilivesrc");
        if !is_ours {
            return Err(gst::loggable_error!(
                CAT,
                "{} is no ndilivesrc",
                element.name()
            ));
        }
        if element.current_state() > gst::State::Ready {
            return Err(gst::loggable_error!(
                CAT,
                "{} takes another source in the NULL or READY state",
                element.name()
            ));
        }
        element.set_property("ndi-name", self.ndi_name.get());
        Ok(())
    }
}

impl super::Device {
    pub(super) fn new(ndi_name: &str) -> Self {
        let caps: gst::Caps = ["video/x-raw", "audio/x-raw"]
            .map(gst::Structure::new_empty)
            .into_iter()
            .collect();
        let properties = gst::Structure::builder("ndi-proplist")
            .field("ndi-name", ndi_name)
            .build();
        let device: Self = glib::Object::builder()
            .property("caps", caps)
            .property("display-name", ndi_name)
            .property("device-class", CLASSES)
            .property("properties", properties)
            .build();
        // It is new.
        let _ = device.imp().ndi_name.set(ndi_name.to_owned());
        device
    }
}
