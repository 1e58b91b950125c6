// SPDX-License-Identifier: MPL-2.0

//! What has to be a JSON object: `serde` also takes a list, its fields in the order of our source.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A body's fields, by their names.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

struct Fields<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::Object;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Wish {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        number: u8,
    }

    #[test]
    fn only_an_object_is_one() {
        for (text, expected) in [
            (r#"{"name": "a", "number": 1}"#, Some((Some("a"), 1))),
            (r#"{"number": 1}"#, Some((None, 1))),
            ("{}", Some((None, 0))),
            (r#"["a", 1]"#, None),
            ("[]", None),
            ("null", None),
            ("1", None),
            (r#""a""#, None),
            (r#"{"other": 1}"#, None),
            (r#"{"number": 300}"#, None),
        ] {
            let read = serde_json::from_str::<Object<Wish>>(text).ok();
            let read = read
                .as_ref()
                .map(|Object(wish)| (wish.name.as_deref(), wish.number));
            assert_eq!(read, expected, "{text}");
        }
    }
}
