// SPDX-License-Identifier: MPL-2.0
//! Reads the values of commands (AMF 0, 2), for `session.rs`. `rml_amf0`, which writes them, reads neither dates nor long
//! strings nor typed objects, and recurses as deep as a client nests.

use std::collections::HashMap;

use rml_amf0::Amf0Value;

/// No encoder nests deeper than two.
const MAX_DEPTH: u32 = 16;
/// Values of one command, the nested ones too.
const MAX_VALUES: u32 = 2_000;

/// Why a command can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Unreadable {
    #[error("a value is cut short")]
    CutShort,
    #[error("the type {0:#04x} is none of AMF0's that can be sent")]
    Type(u8),
    #[error("more than {MAX_DEPTH} values in each other, or {MAX_VALUES} in all")]
    TooMany,
}

struct Reader<'a> {
    rest: &'a [u8],
    values: u32,
}

/// Reads values until the end.
pub(super) fn read(data: &[u8]) -> Result<Vec<Amf0Value>, Unreadable> {
    let mut reader = Reader {
        rest: data,
        values: 0,
    };
    let mut values = Vec::new();
    while !reader.rest.is_empty() {
        values.push(reader.value(0)?);
    }
    Ok(values)
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let split = self.rest.split_at_checked(length);
        let (taken, rest) = split.ok_or(Unreadable::CutShort)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Unreadable::CutShort)
    }

    fn short(&mut self) -> Result<usize, Unreadable> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn long(&mut self) -> Result<usize, Unreadable> {
        let length = u32::from_be_bytes(self.array()?);
        usize::try_from(length).map_err(|_| Unreadable::CutShort)
    }

    fn text(&mut self, length: usize) -> Result<String, Unreadable> {
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    fn number(&mut self) -> Result<Amf0Value, Unreadable> {
        Ok(Amf0Value::Number(f64::from_be_bytes(self.array()?)))
    }

    fn value(&mut self, depth: u32) -> Result<Amf0Value, Unreadable> {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return Err(Unreadable::TooMany);
        }
        let [kind] = self.array()?;
        match kind {
            0x00 => self.number(),
            0x01 => Ok(Amf0Value::Boolean(self.array::<1>()? != [0])),
            0x02 => {
                let length = self.short()?;
                self.text(length).map(Amf0Value::Utf8String)
            }
            0x03 => self.object(depth),
            0x05 => Ok(Amf0Value::Null),
            // Unsupported counts as undefined, and so does a reference: nothing that is needed repeats.
            0x06 | 0x0d => Ok(Amf0Value::Undefined),
            0x07 => self.short().map(|_| Amf0Value::Undefined),
            0x08 => {
                // The count is a hint: the end is marked.
                self.long()?;
                self.object(depth)
            }
            0x0a => {
                let count = self.long()?;
                let values = (0..count).map(|_| self.value(depth + 1));
                values.collect::<Result<_, _>>().map(Amf0Value::StrictArray)
            }
            0x0b => {
                let date = self.number()?;
                // The time zone is reserved.
                self.short()?;
                Ok(date)
            }
            // Long strings and XML.
            0x0c | 0x0f => {
                let length = self.long()?;
                self.text(length).map(Amf0Value::Utf8String)
            }
            0x10 => {
                let length = self.short()?;
                self.take(length)?;
                self.object(depth)
            }
            kind => Err(Unreadable::Type(kind)),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Amf0Value, Unreadable> {
        let mut fields = HashMap::new();
        loop {
            let length = self.short()?;
            if length == 0 && self.rest.first() == Some(&0x09) {
                self.take(1)?;
                return Ok(Amf0Value::Object(fields));
            }
            let name = self.text(length)?;
            fields.insert(name, self.value(depth + 1)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_types_that_can_be_sent_are_read() {
        let text = |text: &str| Amf0Value::Utf8String(text.to_owned());
        let object =
            |name: &str, value| Amf0Value::Object(HashMap::from([(name.to_owned(), value)]));
        let nested = object("a", Amf0Value::Null);
        for (bytes, expected) in [
            (
                &[0, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0][..],
                Amf0Value::Number(1.0),
            ),
            (&[1, 1], Amf0Value::Boolean(true)),
            (&[2, 0, 2, b'h', b'i'], text("hi")),
            (&[2, 0, 1, 0xff], text("\u{fffd}")),
            (&[3, 0, 1, b'a', 5, 0, 0, 9], nested.clone()),
            (&[8, 0, 0, 0, 9, 0, 1, b'a', 5, 0, 0, 9], nested.clone()),
            (&[0x10, 0, 1, b'T', 0, 1, b'a', 5, 0, 0, 9], nested),
            (
                &[10, 0, 0, 0, 1, 5],
                Amf0Value::StrictArray(vec![Amf0Value::Null]),
            ),
            (
                &[11, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0, 0],
                Amf0Value::Number(1.0),
            ),
            (&[12, 0, 0, 0, 2, b'h', b'i'], text("hi")),
            (&[15, 0, 0, 0, 1, b'x'], text("x")),
            (&[6], Amf0Value::Undefined),
            (&[7, 0, 1], Amf0Value::Undefined),
            (&[13], Amf0Value::Undefined),
        ] {
            assert_eq!(read(bytes), Ok(vec![expected]), "{bytes:?}");
            for length in 1..bytes.len() {
                assert_eq!(
                    read(&bytes[..length]),
                    Err(Unreadable::CutShort),
                    "{bytes:?}"
                );
            }
        }
        assert_eq!(read(&[0x11, 1]), Err(Unreadable::Type(0x11)));
    }

    #[test]
    fn what_is_nested_or_counted_without_end_is_refused() {
        let nested = [3, 0, 1, b'a'].repeat(1_000);
        assert_eq!(read(&nested), Err(Unreadable::TooMany));
        let counted = [&[10, 0xff, 0xff, 0xff, 0xff][..], &[5; 3_000]].concat();
        assert_eq!(read(&counted), Err(Unreadable::TooMany));
    }

    #[test]
    fn fuzz_commands() {
        let samples: [&[u8]; 4] = [
            b"\x02\x00\x07connect\x00\x3f\xf0\0\0\0\0\0\0\x03\x00\x03app\x02\x00\x04live\x00\x00\x09",
            b"\x02\x00\x07publish\x00\0\0\0\0\0\0\0\0\x05\x02\x00\x03key\x02\x00\x04live",
            b"\x08\x00\x00\x00\x02\x00\x01a\x01\x01\x00\x01b\x0a\x00\x00\x00\x02\x05\x06\x00\x00\x09",
            b"\x0c\x00\x00\x00\x03abc\x0b\0\0\0\0\0\0\0\0\0\0",
        ];
        sfu_fuzz::fuzz("AMF0", &samples, |data| {
            let _ = read(data);
        });
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
