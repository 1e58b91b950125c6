// SPDX-License-Identifier: MPL-2.0

//! The property `encoder-properties`: what the user sets on encoders, for all, one layer, or one factory.

use gst::prelude::*;

/// Sets what of it is meant for this encoder, and returns what could not be set.
///
/// A field is a property; a structure in a field `layer-1` is for that layer, one in a field with a factory's name for that
/// factory. What is more special comes later, and so counts.
pub(in super::super) fn apply(
    encoder: &gst::Element,
    properties: &gst::StructureRef,
    index: usize,
) -> Vec<String> {
    let factory = encoder.factory();
    let factory = factory.map_or_else(String::new, |factory| factory.name().to_string());
    let is_special = |value: &glib::SendValue| value.get::<gst::Structure>().is_ok();
    let general = properties.iter().filter(|(_, value)| !is_special(value));
    let general = general.filter_map(|(name, value)| set(encoder, &factory, name, value).err());
    let mut wrong: Vec<_> = general.collect();
    for special in [factory.as_str(), &format!("layer-{index}")] {
        if let Ok(special) = properties.get::<gst::Structure>(special) {
            wrong.extend(apply(encoder, &special, index));
        }
    }
    wrong
}

fn set(
    encoder: &gst::Element,
    factory: &str,
    name: &str,
    value: &glib::SendValue,
) -> Result<(), String> {
    let spec = encoder
        .find_property(name)
        .ok_or_else(|| format!("{factory} has no property {name}"))?;
    let fitted = fitted(value, &spec)
        .ok_or_else(|| format!("{name} of {factory} can't be {}", shown(value)))?;
    encoder.set_property_from_value(name, &fitted);
    Ok(())
}

fn shown(value: &glib::Value) -> String {
    value
        .serialize()
        .map_or_else(|_| format!("{value:?}"), Into::into)
}

/// The value as the property has it: numbers of another type, enums by their nick, within its range.
fn fitted(value: &glib::Value, spec: &glib::ParamSpec) -> Option<glib::Value> {
    let flags = spec.flags();
    if !flags.contains(glib::ParamFlags::WRITABLE)
        || flags.contains(glib::ParamFlags::CONSTRUCT_ONLY)
    {
        return None;
    }
    if value.type_() == spec.value_type() {
        return spec.value_is_valid(value).then(|| value.clone());
    }
    let text = match value.get::<String>() {
        Ok(text) => text,
        Err(_) => value.serialize().ok()?.into(),
    };
    let read = glib::Value::deserialize_with_pspec(&text, spec).ok()?;
    spec.value_is_valid(&read).then_some(read)
}
